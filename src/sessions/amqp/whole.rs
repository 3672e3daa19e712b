//! A message that lies whole in what was read, so that it need not be gathered.

use pillarbox_amqp::{
    ContentHeader, FrameError, FrameKind, PublishRef, RawFrame, decode_content_header,
    decode_publish, is_publish, next_frame,
};

/// A publish, its header and its body next to each other in what was read.
pub(super) struct Whole<'a> {
    pub(super) publish: PublishRef<'a>,
    pub(super) header: ContentHeader<'a>,
    pub(super) body: &'a [u8],
    /// What header and body take of the bytes behind the publish.
    pub(super) len: usize,
}

impl<'a> Whole<'a> {
    /// Looks behind a publish. `None` where anything is missing or odd: the frames are then taken
    /// one by one, and what is wrong is found in its place.
    #[inline]
    pub(super) fn find(publish: &RawFrame<'a>, rest: &'a [u8], frame_max: u32) -> Option<Self> {
        let channel = publish.channel;
        let head = next_frame(rest, frame_max).ok()??;
        if head.kind != FrameKind::Header || head.channel != channel {
            return None;
        }
        let header = decode_content_header(head.payload).ok()?;
        let (body, len) = match header.body_size {
            0 => (&rest[..0], head.wire_len()),
            size => {
                let body = next_frame(&rest[head.wire_len()..], frame_max).ok()??;
                let whole = body.kind == FrameKind::Body
                    && body.channel == channel
                    && body.payload.len() as u64 == size;
                if !whole {
                    return None;
                }
                (body.payload, head.wire_len() + body.wire_len())
            }
        };
        let publish = decode_publish(publish.payload).ok()?;
        Some(Self { publish, header, body, len })
    }
}

/// How much of `input` is to be taken now, and what is wrong behind it.
///
/// That is all whole frames; but a small message that was cut amid one of its frames stays, so that
/// it is whole when the rest comes.
pub(super) fn extent(
    input: &[u8],
    frame_max: u32,
    message_size_max: u64,
) -> (usize, Option<FrameError>) {
    let body_max = u64::from(frame_max).min(message_size_max);
    let mut end = 0;
    let mut begun: Option<Begun> = None;
    loop {
        match next_frame(&input[end..], frame_max) {
            Ok(Some(frame)) => {
                begun = Begun::after(begun, &frame, end, body_max);
                end += frame.wire_len();
            }
            Ok(None) if end == input.len() => return (end, None),
            Ok(None) => return (begun.map_or(end, |begun| begun.start), None),
            Err(error) => return (end, Some(error)),
        }
    }
}

/// The last frames are a publish, or a publish and its header.
#[derive(Clone, Copy)]
struct Begun {
    start: usize,
    channel: u16,
    has_header: bool,
}

impl Begun {
    #[inline]
    fn after(
        before: Option<Self>,
        frame: &RawFrame<'_>,
        start: usize,
        body_max: u64,
    ) -> Option<Self> {
        let channel = frame.channel;
        match (frame.kind, before) {
            (FrameKind::Method, _) if is_publish(frame.payload) => {
                Some(Self { start, channel, has_header: false })
            }
            (FrameKind::Header, Some(begun)) if !begun.has_header && begun.channel == channel => {
                let size = frame.payload.get(4..12)?.first_chunk::<8>()?;
                // One that needs more frames is gathered anyway; one too large is refused now.
                let fits = (1..=body_max).contains(&u64::from_be_bytes(*size));
                fits.then_some(Self { has_header: true, ..begun })
            }
            _ => None,
        }
    }
}
