//! Messages of another host in the hands of its visitors: delivered, got or looked at.

use bytes::{BufMut, BytesMut};

use crate::frame::{FLAG_MORE, Kind};
use crate::peer::{FORWARDED_SIZE_MIN, ForwardedRef, put_forwarded, read_forwarded};
use crate::reader::{Malformed, Reader};
use crate::writer::{FrameWriter, put_text};

use super::answer::BROWSED;

/// A forwarded message, marks and how often it was delivered.
pub(super) const GIVEN_SIZE_MIN: usize = FORWARDED_SIZE_MIN + 1 + 4;

/// A message in the hands of a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenRef<'a> {
    /// `again`: it was delivered before.
    pub message: ForwardedRef<'a>,
    pub settled: bool,
    pub acquired: u32,
    pub attempts: Option<u32>,
    pub offset: Option<u64>,
}

const ATTEMPTS: u8 = 1;
const OFFSET: u8 = 2;
const SETTLED: u8 = 4;

impl GivenRef<'_> {
    pub(super) fn put(&self, out: &mut BytesMut) {
        put_forwarded(&self.message, out);
        let attempts = if self.attempts.is_some() { ATTEMPTS } else { 0 };
        let offset = if self.offset.is_some() { OFFSET } else { 0 };
        out.put_u8(attempts | offset | if self.settled { SETTLED } else { 0 });
        out.put_u32_le(self.acquired);
        self.attempts.into_iter().for_each(|it| out.put_u32_le(it));
        self.offset.into_iter().for_each(|it| out.put_u64_le(it));
    }
}

pub(super) fn read_given<'a>(r: &mut Reader<'a>) -> Result<GivenRef<'a>, Malformed> {
    let (message, marks, acquired) = (read_forwarded(r)?, r.u8()?, r.u32()?);
    let field = |mark: u8| (marks & mark != 0).then_some(());
    Ok(GivenRef {
        message,
        settled: marks & SETTLED != 0,
        acquired,
        attempts: field(ATTEMPTS).map(|()| r.u32()).transpose()?,
        offset: field(OFFSET).map(|()| r.u64()).transpose()?,
    })
}

pub(super) fn read_all<'a, T>(
    r: &mut Reader<'a>,
    size_min: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = r.u32()?;
    if count as usize > r.rest().len() / size_min {
        return Err(Malformed::Short);
    }
    (0..count).map(|_| one(r)).collect()
}

/// A message that somebody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRef<'a> {
    pub given: GivenRef<'a>,
    /// Where it was found, as `LookRef::after` takes it.
    pub place: &'a str,
    /// When it came to the mailbox.
    pub since_ms: u64,
    /// When it shall be seen; 0 where that is now.
    pub due_ms: u64,
    pub holder: Option<HolderRef<'a>>,
}

/// Who holds a message that is not settled, at its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderRef<'a> {
    pub connection: u64,
    pub channel: u16,
    pub tag: Option<&'a str>,
    pub since_ms: u64,
}

const HELD: u8 = 1;
const TAGGED: u8 = 2;

impl FoundRef<'_> {
    pub(super) fn put(&self, out: &mut BytesMut) {
        self.given.put(out);
        put_text(self.place, out);
        out.put_u64_le(self.since_ms);
        out.put_u64_le(self.due_ms);
        let tag = self.holder.and_then(|it| it.tag);
        let held = if self.holder.is_some() { HELD } else { 0 };
        out.put_u8(held | if tag.is_some() { TAGGED } else { 0 });
        if let Some(holder) = &self.holder {
            out.put_u64_le(holder.connection);
            out.put_u16_le(holder.channel);
            out.put_u64_le(holder.since_ms);
        }
        tag.into_iter().for_each(|tag| put_text(tag, out));
    }
}

pub(super) fn read_found<'a>(r: &mut Reader<'a>) -> Result<FoundRef<'a>, Malformed> {
    let (given, place) = (read_given(r)?, r.text()?);
    let (since_ms, due_ms, marks) = (r.u64()?, r.u64()?, r.u8()?);
    let holder = match marks & HELD != 0 {
        false => None,
        true => {
            let (connection, channel, since_ms) = (r.u64()?, r.u16()?, r.u64()?);
            let tag = if marks & TAGGED != 0 { Some(r.text()?) } else { None };
            Some(HolderRef { connection, channel, tag, since_ms })
        }
    };
    Ok(FoundRef { given, place, since_ms, due_ms, holder })
}

/// Messages of one consumer and one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    pub channel: u16,
    pub consumer: u32,
    pub mailbox: u64,
    pub messages: Vec<GivenRef<'a>>,
}

impl<'a> Given<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (channel, consumer, mailbox) = (r.u16()?, r.u32()?, r.u64()?);
        let messages = read_all(&mut r, GIVEN_SIZE_MIN, read_given)?;
        r.end().map(|()| Self { channel, consumer, mailbox, messages })
    }
}

/// Messages that are being written at the end of a buffer.
#[derive(Debug)]
pub struct GivenBatch {
    frame: FrameWriter,
    count_at: usize,
    count: u32,
}

impl GivenBatch {
    /// Deliveries of a consumer.
    pub fn begin(
        visit: u32,
        channel: u16,
        consumer: u32,
        mailbox: u64,
        out: &mut BytesMut,
    ) -> Self {
        let frame = FrameWriter::begin(Kind::Given, 0, visit, out);
        out.put_u16_le(channel);
        out.put_u32_le(consumer);
        out.put_u64_le(mailbox);
        Self::counted(frame, out)
    }

    /// What somebody looked at, as an answer; with `more`, the next frame goes on.
    pub fn browsed(
        visit: u32,
        (channel, ticket): (u16, u64),
        ready: u64,
        next: &str,
        out: &mut BytesMut,
    ) -> Self {
        let frame = FrameWriter::begin(Kind::Answer, 0, visit, out);
        out.put_u16_le(channel);
        out.put_u64_le(ticket);
        out.put_u8(BROWSED);
        out.put_u64_le(ready);
        put_text(next, out);
        Self::counted(frame, out)
    }

    fn counted(frame: FrameWriter, out: &mut BytesMut) -> Self {
        let count_at = frame.payload_size(out);
        out.put_u32_le(0);
        Self { frame, count_at, count: 0 }
    }

    /// Bytes of the payload so far.
    pub fn size(&self, out: &BytesMut) -> usize {
        self.frame.payload_size(out)
    }

    pub fn add(&mut self, message: &GivenRef<'_>, out: &mut BytesMut) {
        self.count += 1;
        message.put(out);
    }

    pub fn add_found(&mut self, message: &FoundRef<'_>, out: &mut BytesMut) {
        self.count += 1;
        message.put(out);
    }

    pub fn set_more(&self, out: &mut BytesMut) {
        self.frame.set_flag(FLAG_MORE, out);
    }

    pub fn end(self, out: &mut BytesMut) {
        self.frame.patch_u32(self.count_at, self.count, out);
        self.frame.seal(out);
    }
}
