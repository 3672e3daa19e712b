//! Writing frames in place: the size is filled in when the payload stands behind the head.

use bytes::{BufMut, BytesMut};

use crate::frame::{FRAME_HEAD_SIZE, Kind, frame_head};

/// A frame that is being written at the end of a buffer.
#[derive(Debug)]
pub struct FrameWriter {
    start: usize,
}

impl FrameWriter {
    pub fn begin(kind: Kind, flags: u8, id: u32, out: &mut BytesMut) -> Self {
        let start = out.len();
        out.put_slice(&frame_head(kind, flags, id, 0));
        Self { start }
    }

    /// Bytes of the payload so far.
    pub fn payload_size(&self, out: &BytesMut) -> usize {
        out.len() - self.start - FRAME_HEAD_SIZE
    }

    /// Makes the size say what stands there now. More may follow, and another seal.
    #[inline]
    pub fn seal(&self, out: &mut BytesMut) {
        let size = (out.len() - self.start - 4) as u32;
        out[self.start..self.start + 4].copy_from_slice(&size.to_le_bytes());
    }

    /// Overwrites a number of the payload, counted from its beginning.
    pub(crate) fn patch_u32(&self, at: usize, value: u32, out: &mut BytesMut) {
        let at = self.start + FRAME_HEAD_SIZE + at;
        out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn set_flag(&self, flag: u8, out: &mut BytesMut) {
        out[self.start + 5] |= flag;
    }
}

/// Writes a frame whose payload `write` appends.
pub fn write_frame(
    kind: Kind,
    flags: u8,
    id: u32,
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut),
) {
    let frame = FrameWriter::begin(kind, flags, id, out);
    write(out);
    frame.seal(out);
}

/// Writes a frame without a payload.
pub fn write_empty(kind: Kind, id: u32, out: &mut BytesMut) {
    out.put_slice(&frame_head(kind, 0, id, 0));
}

/// At most 255 bytes with their count; what is longer is cut.
pub fn put_short(bytes: &[u8], out: &mut BytesMut) {
    let bytes = &bytes[..bytes.len().min(255)];
    out.put_u8(bytes.len() as u8);
    out.put_slice(bytes);
}

/// Text for people: at most 65,535 bytes, cut between characters.
pub(crate) fn put_text(text: &str, out: &mut BytesMut) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// A table as it stands in properties, with its size in bytes before it.
pub fn put_table(table: &[u8], out: &mut BytesMut) {
    out.put_u32_le(table.len() as u32);
    out.put_slice(table);
}
