//! What clients want of mailboxes that live on another host, as their own host asks it.

use bytes::{BufMut, BytesMut};

use super::takeover::TakeOverRef;
use crate::frame::Kind;
use crate::reader::{Malformed, Reader};
use crate::writer::{put_table, put_text, write_frame};

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
    Browse(LookRef<'a>),
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
    /// The mailbox lives there from now on.
    TakeOver(TakeOverRef<'a>),
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
            10 => WishRef::Browse(LookRef::read(&mut r)?),
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
            16 => WishRef::TakeOver(TakeOverRef::read(&mut r)?),
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
            Self::Browse(look) => look.put(out),
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
            Self::TakeOver(wanted) => wanted.put(out),
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

/// A step through messages, which stay where they are. Its states, selector and place are those of `Browse`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookRef<'a> {
    pub mailbox: &'a str,
    pub states: u8,
    /// Empty for all.
    pub selector: &'a str,
    /// Empty to begin.
    pub after: &'a str,
    pub count: u32,
    pub bytes_max: u64,
}

impl<'a> LookRef<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            mailbox: r.text()?,
            states: r.u8()?,
            selector: long_text(r)?,
            after: r.text()?,
            count: r.u32()?,
            bytes_max: r.u64()?,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        named(10, self.mailbox, out);
        out.put_u8(self.states);
        put_table(self.selector.as_bytes(), out);
        put_text(self.after, out);
        out.put_u32_le(self.count);
        out.put_u64_le(self.bytes_max);
    }
}

fn long_text<'a>(r: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    std::str::from_utf8(r.long()?).map_err(|_| Malformed::Name)
}

pub(super) fn named(what: u8, name: &str, out: &mut BytesMut) {
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
        true => Some((long_text(r)?, marks & 16 != 0)),
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
