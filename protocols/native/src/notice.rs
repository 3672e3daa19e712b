//! What the server says that is neither a message nor a plain reply.

use bytes::{BufMut, BytesMut};

use crate::code::Code;
use crate::frame::Kind;
use crate::reader::{Malformed, Reader};
use crate::writer::{put_short, put_text, write_frame};

/// The server's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    pub product: &'a str,
    pub version: &'a str,
    /// Largest size of a frame that the server takes.
    pub frame_size_max: u32,
    /// Ways to log in.
    pub mechanisms: Vec<&'a str>,
}

impl<'a> Hello<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (product, version) = (reader.name()?, reader.name()?);
        let frame_size_max = reader.u32()?;
        let count = reader.u8()?;
        let mechanisms = (0..count).map(|_| reader.name()).collect::<Result<_, _>>()?;
        Ok(Self { product, version, frame_size_max, mechanisms })
    }

    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(Kind::Hello, 0, 0, out, |out| {
            put_short(self.product.as_bytes(), out);
            put_short(self.version.as_bytes(), out);
            out.put_u32_le(self.frame_size_max);
            out.put_u8(self.mechanisms.len() as u8);
            for mechanism in &self.mechanisms {
                put_short(mechanism.as_bytes(), out);
            }
        });
    }
}

/// A code and a text: of a refusal, a cancelled subscription, or the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    pub code: Code,
    pub text: &'a str,
}

impl<'a> Refused<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let refused = Self::read(&mut reader)?;
        reader.end()?;
        Ok(refused)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { code: Code::from_number(reader.u16()?), text: reader.text()? })
    }

    pub fn encode(&self, kind: Kind, id: u32, out: &mut BytesMut) {
        write_frame(kind, 0, id, out, |out| self.put(out));
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u16_le(self.code.number());
        put_text(self.text, out);
    }
}

/// A message of a push that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedMessage<'a> {
    /// Its place in the push, from 0.
    pub index: u32,
    pub refused: Refused<'a>,
}

/// A message of a push that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateMessage {
    /// Its place in the push, from 0.
    pub index: u32,
    /// Where the first one with its id came to rest.
    pub position: u64,
}

/// What became of a push: messages that were taken, the others, and those among the taken that were there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed<'a> {
    pub taken: u32,
    pub refused: Vec<RefusedMessage<'a>>,
    pub duplicates: Vec<DuplicateMessage>,
}

/// Writes the answer to a push.
pub fn encode_pushed<'a>(
    id: u32,
    taken: u32,
    refused: impl ExactSizeIterator<Item = RefusedMessage<'a>>,
    duplicates: impl ExactSizeIterator<Item = DuplicateMessage>,
    out: &mut BytesMut,
) {
    write_frame(Kind::Pushed, 0, id, out, |out| {
        out.put_u32_le(taken);
        out.put_u32_le(refused.len() as u32);
        for message in refused {
            out.put_u32_le(message.index);
            message.refused.put(out);
        }
        // Where there are none, nothing is said of them.
        if duplicates.len() > 0 {
            out.put_u32_le(duplicates.len() as u32);
        }
        for duplicate in duplicates {
            out.put_u32_le(duplicate.index);
            out.put_u64_le(duplicate.position);
        }
    });
}

pub fn decode_pushed(payload: &[u8]) -> Result<Pushed<'_>, Malformed> {
    let mut reader = Reader::new(payload);
    let (taken, count) = (reader.u32()?, reader.u32()?);
    // Nothing is reserved for a count that the bytes do not bear out.
    let mut refused = Vec::new();
    for _ in 0..count {
        let index = reader.u32()?;
        refused.push(RefusedMessage { index, refused: Refused::read(&mut reader)? });
    }
    let mut duplicates = Vec::new();
    if !reader.is_empty() {
        for _ in 0..reader.u32()? {
            duplicates.push(DuplicateMessage { index: reader.u32()?, position: reader.u64()? });
        }
    }
    reader.end()?;
    Ok(Pushed { taken, refused, duplicates })
}
