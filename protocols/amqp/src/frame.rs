//! A frame: the unit both peers cut the byte stream into.
//!
//! Knows sizes and markers. Does not know which frame may come when.

use bytes::{BufMut, BytesMut};

/// What a client sends first, and what a server answers to any other beginning.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// The octet behind every payload.
pub const FRAME_END: u8 = 0xCE;
/// No peer may negotiate a smaller maximum.
pub const FRAME_MIN_SIZE: u32 = 4096;
/// What a frame adds to its payload: kind, channel, size and the end octet.
pub const FRAME_OVERHEAD: usize = 8;

/// Kind, channel and size.
pub(crate) const FRAME_HEAD_SIZE: usize = 7;

/// The header of 0-9, which clients of 0-9-1 also send.
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// The four kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

impl FrameKind {
    const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    const fn from_octet(octet: u8) -> Result<Self, FrameError> {
        match octet {
            1 => Ok(Self::Method),
            2 => Ok(Self::Header),
            3 => Ok(Self::Body),
            8 => Ok(Self::Heartbeat),
            other => Err(FrameError::UnknownKind(other)),
        }
    }
}

/// One frame, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: &'a [u8],
}

impl RawFrame<'_> {
    /// How much of the input the frame takes.
    pub const fn wire_len(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }
}

/// The stream is broken here; nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown frame type {0}")]
    UnknownKind(u8),
    /// `size` and `max` both count the eight octets around the payload.
    #[error("frame of {size} bytes is larger than the negotiated maximum of {max}")]
    TooLarge { size: u64, max: u32 },
    #[error("frame ends with octet {0} instead of 206")]
    BadEnd(u8),
}

/// The first frame of `input`, or `None` when more bytes are needed.
///
/// `frame_max` is the negotiated maximum with the eight octets around the payload. A larger frame
/// is refused from its first seven bytes, so that a caller never buffers it.
pub fn next_frame(input: &[u8], frame_max: u32) -> Result<Option<RawFrame<'_>>, FrameError> {
    let Some(&octet) = input.first() else {
        return Ok(None);
    };
    let kind = FrameKind::from_octet(octet)?;
    let Some((head, rest)) = input.split_first_chunk::<FRAME_HEAD_SIZE>() else {
        return Ok(None);
    };
    let [_, channel_high, channel_low, size @ ..] = *head;
    let size = u32::from_be_bytes(size);
    let wire_size = u64::from(size) + FRAME_OVERHEAD as u64;
    if wire_size > u64::from(frame_max) {
        return Err(FrameError::TooLarge { size: wire_size, max: frame_max });
    }
    let Some((payload, rest)) = rest.split_at_checked(size as usize) else {
        return Ok(None);
    };
    match rest.first() {
        None => Ok(None),
        Some(&FRAME_END) => Ok(Some(RawFrame {
            kind,
            channel: u16::from_be_bytes([channel_high, channel_low]),
            payload,
        })),
        Some(&other) => Err(FrameError::BadEnd(other)),
    }
}

/// What the first eight bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    NeedMore,
    V091,
    V09,
    /// Another version, or another protocol.
    Other,
}

/// Reads the beginning of a connection; `Other` as soon as a byte differs from "AMQP".
///
/// After "AMQP" all eight bytes are awaited: closing with bytes unread resets the connection, and
/// the peer would not see which version it should have asked for.
pub fn protocol_header(input: &[u8]) -> ProtocolHeader {
    let name = input.len().min(4);
    if input[..name] != PROTOCOL_HEADER[..name] {
        return ProtocolHeader::Other;
    }
    match input.first_chunk::<8>() {
        None => ProtocolHeader::NeedMore,
        Some(&PROTOCOL_HEADER) => ProtocolHeader::V091,
        Some(&PROTOCOL_HEADER_0_9) => ProtocolHeader::V09,
        Some(_) => ProtocolHeader::Other,
    }
}

/// Writes a heartbeat.
pub fn encode_heartbeat(out: &mut BytesMut) {
    out.extend_from_slice(&[FrameKind::Heartbeat.octet(), 0, 0, 0, 0, 0, 0, FRAME_END]);
}

/// The seven bytes before a payload.
pub(crate) const fn frame_head(kind: FrameKind, channel: u16, size: u32) -> [u8; FRAME_HEAD_SIZE] {
    let [channel_high, channel_low] = channel.to_be_bytes();
    let [a, b, c, d] = size.to_be_bytes();
    [kind.octet(), channel_high, channel_low, a, b, c, d]
}

/// Writes a frame whose payload `write` appends.
pub(crate) fn put_frame(
    out: &mut BytesMut,
    kind: FrameKind,
    channel: u16,
    write: impl FnOnce(&mut BytesMut),
) {
    let [kind, channel_high, channel_low, ..] = frame_head(kind, channel, 0);
    out.extend_from_slice(&[kind, channel_high, channel_low]);
    put_sized(out, write);
    out.put_u8(FRAME_END);
}

/// Writes a u32 length and then what it counts.
pub(crate) fn put_sized(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    write(out);
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}
