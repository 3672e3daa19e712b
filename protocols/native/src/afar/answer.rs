//! What a host answers to the clients of another, and tells them.

use bytes::{BufMut, BytesMut};

use crate::frame::Kind;
use crate::reader::{Malformed, Reader};
use crate::writer::{put_text, write_frame};

use super::given::{FoundRef, GIVEN_SIZE_MIN, GivenRef, read_all, read_found, read_given};
use super::wish::named;

/// Why something was refused: which of the refusals, and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRef<'a> {
    pub code: u8,
    pub texts: Vec<&'a str>,
}

impl NoRef<'_> {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.code);
        out.put_u8(self.texts.len().min(255) as u8);
        self.texts.iter().take(255).for_each(|text| put_text(text, out));
    }
}

fn read_no<'a>(r: &mut Reader<'a>) -> Result<NoRef<'a>, Malformed> {
    let (code, count) = (r.u8()?, r.u8()?);
    let texts = (0..count).map(|_| r.text()).collect::<Result<_, _>>()?;
    Ok(NoRef { code, texts })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub channel: u16,
    pub ticket: u64,
    pub result: ResultRef<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultRef<'a> {
    Done,
    Declared {
        ready: u64,
        consumers: u32,
    },
    Counted(u64),
    GotNothing,
    /// With the mailbox's number, and what is left.
    Got {
        mailbox: u64,
        left: u64,
        message: Box<GivenRef<'a>>,
    },
    Browsed {
        ready: u64,
        /// Where a later step goes on; empty at the end.
        next: &'a str,
        messages: Vec<FoundRef<'a>>,
    },
    No(NoRef<'a>),
}

const DONE: u8 = 0;
const DECLARED: u8 = 1;
const COUNTED: u8 = 2;
const GOT_NOTHING: u8 = 3;
const GOT: u8 = 4;
pub(super) const BROWSED: u8 = 5;
const NO: u8 = 6;

impl<'a> Answer<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (channel, ticket, what) = (r.u16()?, r.u64()?, r.u8()?);
        let result = match what {
            DONE => ResultRef::Done,
            DECLARED => ResultRef::Declared { ready: r.u64()?, consumers: r.u32()? },
            COUNTED => ResultRef::Counted(r.u64()?),
            GOT_NOTHING => ResultRef::GotNothing,
            GOT => {
                let (mailbox, left) = (r.u64()?, r.u64()?);
                ResultRef::Got { mailbox, left, message: Box::new(read_given(&mut r)?) }
            }
            BROWSED => ResultRef::Browsed {
                ready: r.u64()?,
                next: r.text()?,
                messages: read_all(&mut r, GIVEN_SIZE_MIN, read_found)?,
            },
            NO => ResultRef::No(read_no(&mut r)?),
            other => return Err(Malformed::Unknown { what: "answer", value: other.into() }),
        };
        r.end().map(|()| Self { channel, ticket, result })
    }

    /// Browsed messages are better written as `GivenBatch::browsed`.
    pub fn encode(&self, visit: u32, out: &mut BytesMut) {
        write_frame(Kind::Answer, 0, visit, out, |out| {
            out.put_u16_le(self.channel);
            out.put_u64_le(self.ticket);
            match &self.result {
                ResultRef::Done => out.put_u8(DONE),
                ResultRef::Declared { ready, consumers } => {
                    out.put_u8(DECLARED);
                    out.put_u64_le(*ready);
                    out.put_u32_le(*consumers);
                }
                ResultRef::Counted(count) => {
                    out.put_u8(COUNTED);
                    out.put_u64_le(*count);
                }
                ResultRef::GotNothing => out.put_u8(GOT_NOTHING),
                ResultRef::Got { mailbox, left, message } => {
                    out.put_u8(GOT);
                    out.put_u64_le(*mailbox);
                    out.put_u64_le(*left);
                    message.put(out);
                }
                ResultRef::Browsed { ready, next, messages } => {
                    out.put_u8(BROWSED);
                    out.put_u64_le(*ready);
                    put_text(next, out);
                    out.put_u32_le(messages.len() as u32);
                    messages.iter().for_each(|it| it.put(out));
                }
                ResultRef::No(no) => {
                    out.put_u8(NO);
                    no.put(out);
                }
            }
        });
    }
}

/// What ended without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// The mailbox went, or the consumer kept a delivery for too long.
    Consumer { channel: u16, consumer: u32 },
    /// It had all that it asked for.
    Finished { channel: u16, consumer: u32 },
    /// A settlement was wrong, or a delivery was not settled in time.
    Refused { channel: u16, timeout: bool, no: NoRef<'a> },
    /// The visit, with everything in it.
    Visit { reason: &'a str },
}

impl<'a> Ended<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let ended = match r.u8()? {
            0 => Self::Consumer { channel: r.u16()?, consumer: r.u32()? },
            1 => Self::Finished { channel: r.u16()?, consumer: r.u32()? },
            2 => {
                let (channel, timeout) = (r.u16()?, r.u8()? & 1 != 0);
                Self::Refused { channel, timeout, no: read_no(&mut r)? }
            }
            3 => Self::Visit { reason: r.text()? },
            other => return Err(Malformed::Unknown { what: "end", value: other.into() }),
        };
        r.end().map(|()| ended)
    }

    pub fn encode(&self, visit: u32, out: &mut BytesMut) {
        write_frame(Kind::Ended, 0, visit, out, |out| match self {
            Self::Consumer { channel, consumer } => put_consumer(0, *channel, *consumer, out),
            Self::Finished { channel, consumer } => put_consumer(1, *channel, *consumer, out),
            Self::Refused { channel, timeout, no } => {
                out.put_u8(2);
                out.put_u16_le(*channel);
                out.put_u8((*timeout).into());
                no.put(out);
            }
            Self::Visit { reason } => named(3, reason, out),
        });
    }
}

fn put_consumer(what: u8, channel: u16, consumer: u32, out: &mut BytesMut) {
    out.put_u8(what);
    out.put_u16_le(channel);
    out.put_u32_le(consumer);
}
