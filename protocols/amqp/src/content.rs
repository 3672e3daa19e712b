//! Content: the header frame and the body frames that follow a method.

use bytes::{BufMut, BytesMut};

use crate::frame::{
    FRAME_END, FRAME_HEAD_SIZE, FRAME_MIN_SIZE, FRAME_OVERHEAD, FrameKind, frame_head,
};
use crate::properties::{ContentError, check_properties};
use crate::reader::Reader;

const CLASS_BASIC: u16 = 60;
/// Class, weight and body size.
const FIXED_SIZE: usize = 12;

/// A content header, borrowed from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    pub class: u16,
    pub weight: u16,
    pub body_size: u64,
    /// Flags and values as they came. Sound: decoding them later cannot fail.
    pub properties: &'a [u8],
}

/// Reads a content header and checks its property list, without allocation.
///
/// Which class, weight and body size are welcome is the session's decision.
pub fn decode_content_header(payload: &[u8]) -> Result<ContentHeader<'_>, ContentError> {
    let header = read_fixed(payload).ok_or(ContentError::Truncated)?;
    check_properties(header.properties)?;
    Ok(header)
}

fn read_fixed(payload: &[u8]) -> Option<ContentHeader<'_>> {
    let mut reader = Reader::new(payload);
    Some(ContentHeader {
        class: reader.u16()?,
        weight: reader.u16()?,
        body_size: reader.u64()?,
        properties: reader.rest(),
    })
}

/// Writes the header frame and as many body frames as `frame_max` asks for; none for no body.
///
/// `raw_properties` are written as they are. A header cannot be split, so its size is not compared
/// with `frame_max`, which counts as at least [`FRAME_MIN_SIZE`].
pub fn encode_content(
    out: &mut BytesMut,
    channel: u16,
    raw_properties: &[u8],
    body: &[u8],
    frame_max: u32,
) {
    let body_frame_max = frame_max.max(FRAME_MIN_SIZE) as usize - FRAME_OVERHEAD;
    let header_size = FIXED_SIZE + raw_properties.len();
    let body_frames = body.len().div_ceil(body_frame_max);
    out.reserve(header_size + body.len() + (1 + body_frames) * FRAME_OVERHEAD);

    let mut head = [0; FRAME_HEAD_SIZE + FIXED_SIZE];
    let (frame, fixed) = head.split_at_mut(FRAME_HEAD_SIZE);
    frame.copy_from_slice(&frame_head(FrameKind::Header, channel, header_size as u32));
    fixed[..2].copy_from_slice(&CLASS_BASIC.to_be_bytes());
    fixed[4..].copy_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(raw_properties);
    for piece in body.chunks(body_frame_max) {
        // The end of the frame before goes with the head of this one.
        let [a, b, c, d, e, f, g] = frame_head(FrameKind::Body, channel, piece.len() as u32);
        out.extend_from_slice(&[FRAME_END, a, b, c, d, e, f, g]);
        out.extend_from_slice(piece);
    }
    out.put_u8(FRAME_END);
}
