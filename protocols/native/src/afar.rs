//! What one host asks of mailboxes that live on another, for its clients, and what it is answered.
//!
//! A *visit* is a client of the host that dialled, as the other host sees it: its number is the id of these frames.
//! Settlements are those of clients (`Settle`), with the channel in place of the subscription; `Close` ends a visit.

use bytes::{BufMut, BytesMut};

use crate::frame::Kind;
use crate::peer::{FORWARDED_SIZE_MIN, ForwardedRef, put_forwarded, read_forwarded};
use crate::reader::{Malformed, Reader};
use crate::writer::{FrameWriter, put_table, put_text, write_frame};

/// A forwarded message, marks and how often it was delivered.
const GIVEN_SIZE_MIN: usize = FORWARDED_SIZE_MIN + 1 + 4;

/// In `Settle`: a message that failed comes again at once. 0 leaves it to its mailbox.
pub const AT_ONCE: u64 = u64::MAX;

/// A client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitRef<'a> {
    pub vhost: &'a str,
    /// For people: who it is, and from where.
    pub user: &'a str,
    pub client: &'a str,
    /// It understands that a consumer is ended.
    pub cancel_notify: bool,
}

impl<'a> VisitRef<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (vhost, user, client) = (r.text()?, r.text()?, r.text()?);
        let cancel_notify = r.u8()? & 1 != 0;
        r.end().map(|()| Self { vhost, user, client, cancel_notify })
    }

    pub fn encode(&self, visit: u32, out: &mut BytesMut) {
        write_frame(Kind::Visit, 0, visit, out, |out| {
            put_text(self.vhost, out);
            put_text(self.user, out);
            put_text(self.client, out);
            out.put_u8(self.cancel_notify.into());
        });
    }
}

/// A question of a channel; the ticket comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AskRef<'a> {
    pub channel: u16,
    pub ticket: u64,
    pub wish: WishRef<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WishRef<'a> {
    /// Is it there, and how much is in it?
    Look {
        mailbox: &'a str,
    },
    Delete {
        mailbox: &'a str,
        if_unused: bool,
        if_empty: bool,
    },
    Purge {
        mailbox: &'a str,
    },
    Bind {
        exchange: &'a str,
        mailbox: &'a str,
        key: &'a [u8],
        arguments: &'a [u8],
    },
    Unbind {
        exchange: &'a str,
        mailbox: &'a str,
        key: &'a [u8],
        arguments: &'a [u8],
    },
    Consume(ConsumeRef<'a>),
    Cancel {
        consumer: u32,
    },
    Get {
        mailbox: &'a str,
        no_ack: bool,
    },
    /// `new`: for consumers to come; otherwise for the whole channel.
    Qos {
        limit: u32,
        new: bool,
    },
    Recover,
    Browse {
        mailbox: &'a str,
        count: u32,
        bytes_max: u64,
    },
    Retime {
        mailbox: &'a str,
        due: u64,
        seq: u64,
        to: Option<u64>,
    },
    /// `start` is the only entry of a table.
    Seek {
        mailbox: &'a str,
        cursor: &'a str,
        start: &'a [u8],
    },
    DeleteCursor {
        mailbox: &'a str,
        cursor: &'a str,
    },
    CloseChannel,
    /// What a binding that follows needs.
    Exchange {
        name: &'a str,
        kind: &'a str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumeRef<'a> {
    pub mailbox: &'a str,
    pub consumer: u32,
    pub tag: &'a str,
    pub no_ack: bool,
    pub exclusive: bool,
    pub bounded: bool,
    pub priority: i32,
    pub prefetch: u32,
    pub arguments: &'a [u8],
    /// The selector's text, and whether what it does not match goes.
    pub selection: Option<(&'a str, bool)>,
}

impl<'a> AskRef<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (channel, ticket, what) = (r.u16()?, r.u64()?, r.u8()?);
        let wish = match what {
            0 => WishRef::Look { mailbox: r.text()? },
            1 => {
                let (mailbox, marks) = (r.text()?, r.u8()?);
                WishRef::Delete { mailbox, if_unused: marks & 1 != 0, if_empty: marks & 2 != 0 }
            }
            2 => WishRef::Purge { mailbox: r.text()? },
            3 => {
                let (exchange, mailbox, key, arguments) = read_binding(&mut r)?;
                WishRef::Bind { exchange, mailbox, key, arguments }
            }
            4 => {
                let (exchange, mailbox, key, arguments) = read_binding(&mut r)?;
                WishRef::Unbind { exchange, mailbox, key, arguments }
            }
            5 => WishRef::Consume(read_consume(&mut r)?),
            6 => WishRef::Cancel { consumer: r.u32()? },
            7 => WishRef::Get { mailbox: r.text()?, no_ack: r.u8()? & 1 != 0 },
            8 => WishRef::Qos { limit: r.u32()?, new: r.u8()? & 1 != 0 },
            9 => WishRef::Recover,
            10 => WishRef::Browse { mailbox: r.text()?, count: r.u32()?, bytes_max: r.u64()? },
            11 => {
                let (mailbox, due, seq, to) = (r.text()?, r.u64()?, r.u64()?, r.u8()? & 1 != 0);
                WishRef::Retime { mailbox, due, seq, to: to.then(|| r.u64()).transpose()? }
            }
            12 => WishRef::Seek { mailbox: r.text()?, cursor: r.text()?, start: r.table()? },
            13 => WishRef::DeleteCursor { mailbox: r.text()?, cursor: r.text()? },
            14 => WishRef::CloseChannel,
            15 => {
                let (name, kind, marks) = (r.text()?, r.text()?, r.u8()?);
                WishRef::Exchange {
                    name,
                    kind,
                    durable: marks & 1 != 0,
                    auto_delete: marks & 2 != 0,
                    internal: marks & 4 != 0,
                    arguments: r.table()?,
                }
            }
            other => return Err(Malformed::Unknown { what: "wish", value: other.into() }),
        };
        r.end().map(|()| Self { channel, ticket, wish })
    }

    pub fn encode(&self, visit: u32, out: &mut BytesMut) {
        write_frame(Kind::Ask, 0, visit, out, |out| {
            out.put_u16_le(self.channel);
            out.put_u64_le(self.ticket);
            self.wish.put(out);
        });
    }
}

impl WishRef<'_> {
    fn put(&self, out: &mut BytesMut) {
        match *self {
            Self::Look { mailbox } => named(0, mailbox, out),
            Self::Delete { mailbox, if_unused, if_empty } => {
                named(1, mailbox, out);
                out.put_u8(u8::from(if_unused) | u8::from(if_empty) << 1);
            }
            Self::Purge { mailbox } => named(2, mailbox, out),
            Self::Bind { exchange, mailbox, key, arguments } => {
                put_binding(3, [exchange, mailbox], [key, arguments], out);
            }
            Self::Unbind { exchange, mailbox, key, arguments } => {
                put_binding(4, [exchange, mailbox], [key, arguments], out);
            }
            Self::Consume(consume) => consume.put(out),
            Self::Cancel { consumer } => {
                out.put_u8(6);
                out.put_u32_le(consumer);
            }
            Self::Get { mailbox, no_ack } => {
                named(7, mailbox, out);
                out.put_u8(no_ack.into());
            }
            Self::Qos { limit, new } => {
                out.put_u8(8);
                out.put_u32_le(limit);
                out.put_u8(new.into());
            }
            Self::Recover => out.put_u8(9),
            Self::Browse { mailbox, count, bytes_max } => {
                named(10, mailbox, out);
                out.put_u32_le(count);
                out.put_u64_le(bytes_max);
            }
            Self::Retime { mailbox, due, seq, to } => {
                named(11, mailbox, out);
                out.put_u64_le(due);
                out.put_u64_le(seq);
                out.put_u8(to.is_some().into());
                to.into_iter().for_each(|to| out.put_u64_le(to));
            }
            Self::Seek { mailbox, cursor, start } => {
                named(12, mailbox, out);
                put_text(cursor, out);
                put_table(start, out);
            }
            Self::DeleteCursor { mailbox, cursor } => {
                named(13, mailbox, out);
                put_text(cursor, out);
            }
            Self::CloseChannel => out.put_u8(14),
            Self::Exchange { name, kind, durable, auto_delete, internal, arguments } => {
                named(15, name, out);
                put_text(kind, out);
                out.put_u8(
                    u8::from(durable) | u8::from(auto_delete) << 1 | u8::from(internal) << 2,
                );
                put_table(arguments, out);
            }
        }
    }
}

impl ConsumeRef<'_> {
    fn put(&self, out: &mut BytesMut) {
        named(5, self.mailbox, out);
        out.put_u32_le(self.consumer);
        put_text(self.tag, out);
        let drops = self.selection.is_some_and(|(_, drops)| drops);
        let marks = [self.no_ack, self.exclusive, self.bounded, self.selection.is_some(), drops];
        out.put_u8(marks.iter().rev().fold(0, |all, mark| all << 1 | u8::from(*mark)));
        out.put_i32_le(self.priority);
        out.put_u32_le(self.prefetch);
        put_table(self.arguments, out);
        if let Some((selector, _)) = self.selection {
            put_table(selector.as_bytes(), out);
        }
    }
}

fn named(what: u8, name: &str, out: &mut BytesMut) {
    out.put_u8(what);
    put_text(name, out);
}

fn put_binding(what: u8, names: [&str; 2], rest: [&[u8]; 2], out: &mut BytesMut) {
    out.put_u8(what);
    names.iter().for_each(|name| put_text(name, out));
    rest.iter().for_each(|bytes| put_table(bytes, out));
}

type BindingParts<'a> = (&'a str, &'a str, &'a [u8], &'a [u8]);

fn read_binding<'a>(r: &mut Reader<'a>) -> Result<BindingParts<'a>, Malformed> {
    Ok((r.text()?, r.text()?, r.long()?, r.table()?))
}

fn read_consume<'a>(r: &mut Reader<'a>) -> Result<ConsumeRef<'a>, Malformed> {
    let (mailbox, consumer, tag, marks) = (r.text()?, r.u32()?, r.text()?, r.u8()?);
    let (priority, prefetch) = (i32::from_le_bytes(r.array()?), r.u32()?);
    let arguments = r.table()?;
    let selection = match marks & 8 != 0 {
        false => None,
        true => {
            let text = std::str::from_utf8(r.long()?).map_err(|_| Malformed::Name)?;
            Some((text, marks & 16 != 0))
        }
    };
    Ok(ConsumeRef {
        mailbox,
        consumer,
        tag,
        no_ack: marks & 1 != 0,
        exclusive: marks & 2 != 0,
        bounded: marks & 4 != 0,
        priority,
        prefetch,
        arguments,
        selection,
    })
}

/// So much of what was given went on to the client: there is room for more.
pub fn encode_drained(visit: u32, deliveries: u32, bytes: u64, out: &mut BytesMut) {
    write_frame(Kind::Drained, 0, visit, out, |out| {
        out.put_u32_le(deliveries);
        out.put_u64_le(bytes);
    });
}

pub fn decode_drained(payload: &[u8]) -> Result<(u32, u64), Malformed> {
    let mut r = Reader::new(payload);
    let drained = (r.u32()?, r.u64()?);
    r.end().map(|()| drained)
}

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
    fn put(&self, out: &mut BytesMut) {
        put_forwarded(&self.message, out);
        let attempts = if self.attempts.is_some() { ATTEMPTS } else { 0 };
        let offset = if self.offset.is_some() { OFFSET } else { 0 };
        out.put_u8(attempts | offset | if self.settled { SETTLED } else { 0 });
        out.put_u32_le(self.acquired);
        self.attempts.into_iter().for_each(|it| out.put_u32_le(it));
        self.offset.into_iter().for_each(|it| out.put_u64_le(it));
    }
}

fn read_given<'a>(r: &mut Reader<'a>) -> Result<GivenRef<'a>, Malformed> {
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

fn read_all_given<'a>(r: &mut Reader<'a>) -> Result<Vec<GivenRef<'a>>, Malformed> {
    let count = r.u32()?;
    if count as usize > r.rest().len() / GIVEN_SIZE_MIN {
        return Err(Malformed::Short);
    }
    (0..count).map(|_| read_given(r)).collect()
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
        let messages = read_all_given(&mut r)?;
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
    pub fn browsed(visit: u32, channel: u16, ticket: u64, ready: u64, out: &mut BytesMut) -> Self {
        let frame = FrameWriter::begin(Kind::Answer, 0, visit, out);
        out.put_u16_le(channel);
        out.put_u64_le(ticket);
        out.put_u8(BROWSED);
        out.put_u64_le(ready);
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

    pub fn set_more(&self, out: &mut BytesMut) {
        self.frame.set_flag(crate::frame::FLAG_MORE, out);
    }

    pub fn end(self, out: &mut BytesMut) {
        self.frame.patch_u32(self.count_at, self.count, out);
        self.frame.seal(out);
    }
}

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
        messages: Vec<GivenRef<'a>>,
    },
    No(NoRef<'a>),
}

const DONE: u8 = 0;
const DECLARED: u8 = 1;
const COUNTED: u8 = 2;
const GOT_NOTHING: u8 = 3;
const GOT: u8 = 4;
const BROWSED: u8 = 5;
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
            BROWSED => ResultRef::Browsed { ready: r.u64()?, messages: read_all_given(&mut r)? },
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
                ResultRef::Browsed { ready, messages } => {
                    out.put_u8(BROWSED);
                    out.put_u64_le(*ready);
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
