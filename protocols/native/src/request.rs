//! What a client asks: one type for each, read from a payload and written into a frame.

use bytes::{BufMut, BytesMut};

use crate::frame::{Frame, Kind};
use crate::push::{Push, Will};
use crate::reader::{Malformed, Reader};
use crate::settle::Settle;
use crate::writer::{put_short, put_table, put_text, write_frame};

/// A request, borrowed from its frame.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    Login(Login<'a>),
    Ping,
    Close,
    Push(Push<'a>),
    Pull(Pull<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe),
    Credit { subscription: u16, credit: u32 },
    Settle(Settle<'a>),
    Will(Will<'a>),
    DeclareMailbox(DeclareMailbox<'a>),
    DeleteMailbox(DeleteMailbox<'a>),
    PurgeMailbox(&'a str),
    DeclareExchange(DeclareExchange<'a>),
    DeleteExchange(DeleteExchange<'a>),
    Bind(Bind<'a>),
    Unbind(Bind<'a>),
    Retime(Retime<'a>),
    Browse(Browse<'a>),
    Rewind(Rewind<'a>),
    List(List<'a>),
    Define(Define<'a>),
    Undefine(Undefine<'a>),
}

impl<'a> Request<'a> {
    pub fn decode(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame.payload);
        let r = &mut reader;
        let request = match frame.kind {
            // These look at the whole payload themselves.
            Kind::Push => return Push::decode(frame.payload).map(Self::Push),
            Kind::Will => return Will::decode(frame.flags, frame.payload).map(Self::Will),
            Kind::Settle => return Settle::decode(frame.payload).map(Self::Settle),
            Kind::Login => Self::Login(Login::read(r)?),
            Kind::Ping => Self::Ping,
            Kind::Close => Self::Close,
            Kind::Pull => Self::Pull(Pull::read(frame.flags, r)?),
            Kind::Subscribe => Self::Subscribe(Subscribe::read(frame.flags, r)?),
            Kind::Unsubscribe => {
                let keep = frame.has(Unsubscribe::KEEP);
                Self::Unsubscribe(Unsubscribe { subscription: r.u16()?, keep })
            }
            Kind::Credit => Self::Credit { subscription: r.u16()?, credit: r.u32()? },
            Kind::DeclareMailbox => Self::DeclareMailbox(DeclareMailbox::read(frame.flags, r)?),
            Kind::DeleteMailbox => Self::DeleteMailbox(DeleteMailbox {
                name: r.name()?,
                if_unused: frame.has(DeleteMailbox::IF_UNUSED),
                if_empty: frame.has(DeleteMailbox::IF_EMPTY),
            }),
            Kind::PurgeMailbox => Self::PurgeMailbox(r.name()?),
            Kind::DeclareExchange => Self::DeclareExchange(DeclareExchange::read(frame.flags, r)?),
            Kind::DeleteExchange => Self::DeleteExchange(DeleteExchange {
                name: r.name()?,
                if_unused: frame.has(DeleteExchange::IF_UNUSED),
            }),
            Kind::Bind => Self::Bind(Bind::read(frame.flags, r)?),
            Kind::Unbind => Self::Unbind(Bind::read(frame.flags, r)?),
            Kind::Retime => Self::Retime(Retime {
                mailbox: r.name()?,
                due_ms: r.u64()?,
                seq: r.u64()?,
                to_ms: r.u64()?,
            }),
            Kind::Rewind => Self::Rewind(Rewind::read(r)?),
            Kind::Browse => Self::Browse(Browse::read(r)?),
            Kind::List => Self::List(List {
                what: r.u8()?,
                vhost: r.name()?,
                name: r.name()?,
                after: r.short()?,
                count: r.u32()?,
            }),
            Kind::Define => Self::Define(Define { what: r.u8()?, fields: r.table()? }),
            Kind::Undefine => Self::Undefine(Undefine::read(r)?),
            Kind::PeerHello
            | Kind::Proof
            | Kind::Routes
            | Kind::Forward
            | Kind::Hosts
            | Kind::Visit
            | Kind::Ask
            | Kind::Drained
            | Kind::Challenge
            | Kind::Welcome
            | Kind::Learned
            | Kind::Taken
            | Kind::Answer
            | Kind::Given
            | Kind::Ended
            | Kind::Declined
            | Kind::Hello
            | Kind::Done
            | Kind::Refused
            | Kind::Pushed
            | Kind::Pulled
            | Kind::Delivered
            | Kind::Cancelled
            | Kind::Blocked
            | Kind::Pong
            | Kind::Goodbye => {
                let value = frame.kind.octet().into();
                return Err(Malformed::Unknown { what: "request", value });
            }
        };
        // A ping carries what it likes.
        match request {
            Self::Ping => Ok(request),
            _ => reader.end().map(|()| request),
        }
    }
}

/// Who the client is and which virtual host it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    pub mechanism: &'a str,
    pub user: &'a str,
    /// The password, or what else the mechanism asks for.
    pub proof: &'a [u8],
    pub vhost: &'a str,
    /// Shown to people.
    pub client_name: &'a str,
    /// Seconds without a frame after which the server may end the connection; 0 for never.
    pub silence_max_s: u16,
    /// A table, shown to people.
    pub properties: &'a [u8],
}

impl<'a> Login<'a> {
    pub const PASSWORD: &'static str = "password";
    /// Proof is the broker's own secret, which only somebody on its host can read.
    pub const TOKEN: &'static str = "token";
    /// The client's certificate names the user, who may be left out here; there is no proof.
    pub const CERTIFICATE: &'static str = "certificate";

    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (mechanism, user) = (r.name()?, r.name()?);
        let size = r.u16()?;
        Ok(Self {
            mechanism,
            user,
            proof: r.take(usize::from(size))?,
            vhost: r.name()?,
            client_name: r.name()?,
            silence_max_s: r.u16()?,
            properties: r.table()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Login, 0, id, out, |out| {
            put_short(self.mechanism.as_bytes(), out);
            put_short(self.user.as_bytes(), out);
            let proof = &self.proof[..self.proof.len().min(usize::from(u16::MAX))];
            out.put_u16_le(proof.len() as u16);
            out.put_slice(proof);
            put_short(self.vhost.as_bytes(), out);
            put_short(self.client_name.as_bytes(), out);
            out.put_u16_le(self.silence_max_s);
            put_table(self.properties, out);
        });
    }
}

/// Some messages of a mailbox, now or within a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull<'a> {
    pub mailbox: &'a str,
    /// At most so many; fewer may come.
    pub count: u32,
    /// How long to wait for the first.
    pub wait_ms: u32,
    /// They are settled when they are sent.
    pub settled: bool,
}

impl<'a> Pull<'a> {
    const SETTLED: u8 = 1;

    fn read(flags: u8, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let settled = flags & Self::SETTLED != 0;
        Ok(Self { mailbox: r.name()?, count: r.u32()?, wait_ms: r.u32()?, settled })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = if self.settled { Self::SETTLED } else { 0 };
        write_frame(Kind::Pull, flags, id, out, |out| {
            put_short(self.mailbox.as_bytes(), out);
            out.put_u32_le(self.count);
            out.put_u32_le(self.wait_ms);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Chosen by the client, from 1; the id of its deliveries.
    pub subscription: u16,
    pub mailbox: &'a str,
    /// Deliveries it may hold unsettled; 0 for no limit.
    pub credit: u32,
    pub priority: i32,
    /// They are settled when they are sent.
    pub settled: bool,
    pub exclusive: bool,
    /// Each delivery carries the message's id.
    pub ids: bool,
    pub arguments: &'a [u8],
}

impl<'a> Subscribe<'a> {
    const SETTLED: u8 = 1;
    const EXCLUSIVE: u8 = 2;
    const IDS: u8 = 4;

    fn read(flags: u8, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            subscription: r.u16()?,
            mailbox: r.name()?,
            credit: r.u32()?,
            priority: r.u32()? as i32,
            settled: flags & Self::SETTLED != 0,
            exclusive: flags & Self::EXCLUSIVE != 0,
            ids: flags & Self::IDS != 0,
            arguments: r.table()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let mut flags = if self.settled { Self::SETTLED } else { 0 };
        flags |= if self.exclusive { Self::EXCLUSIVE } else { 0 };
        flags |= if self.ids { Self::IDS } else { 0 };
        write_frame(Kind::Subscribe, flags, id, out, |out| {
            out.put_u16_le(self.subscription);
            put_short(self.mailbox.as_bytes(), out);
            out.put_u32_le(self.credit);
            out.put_i32_le(self.priority);
            put_table(self.arguments, out);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    pub subscription: u16,
    /// What was delivered can still be settled; asked again without this, it returns.
    pub keep: bool,
}

impl Unsubscribe {
    const KEEP: u8 = 1;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = if self.keep { Self::KEEP } else { 0 };
        write_frame(Kind::Unsubscribe, flags, id, out, |out| out.put_u16_le(self.subscription));
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclareMailbox<'a> {
    /// Empty: the server makes one up.
    pub name: &'a str,
    /// Only ask whether it is there.
    pub passive: bool,
    pub durable: bool,
    /// Belongs to the connection and goes with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    pub arguments: &'a [u8],
}

impl<'a> DeclareMailbox<'a> {
    fn read(flags: u8, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: r.name()?,
            passive: flags & 1 != 0,
            durable: flags & 2 != 0,
            exclusive: flags & 4 != 0,
            auto_delete: flags & 8 != 0,
            arguments: r.table()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = u8::from(self.passive)
            | u8::from(self.durable) << 1
            | u8::from(self.exclusive) << 2
            | u8::from(self.auto_delete) << 3;
        write_frame(Kind::DeclareMailbox, flags, id, out, |out| {
            put_short(self.name.as_bytes(), out);
            put_table(self.arguments, out);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteMailbox<'a> {
    pub name: &'a str,
    pub if_unused: bool,
    pub if_empty: bool,
}

impl DeleteMailbox<'_> {
    const IF_UNUSED: u8 = 1;
    const IF_EMPTY: u8 = 2;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = u8::from(self.if_unused) | u8::from(self.if_empty) << 1;
        write_frame(Kind::DeleteMailbox, flags, id, out, |out| {
            put_short(self.name.as_bytes(), out);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclareExchange<'a> {
    pub name: &'a str,
    /// `direct`, `fanout`, `topic`, `headers` and others.
    pub kind: &'a str,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: &'a [u8],
}

impl<'a> DeclareExchange<'a> {
    fn read(flags: u8, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: r.name()?,
            kind: r.name()?,
            passive: flags & 1 != 0,
            durable: flags & 2 != 0,
            internal: flags & 4 != 0,
            auto_delete: flags & 8 != 0,
            arguments: r.table()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = u8::from(self.passive)
            | u8::from(self.durable) << 1
            | u8::from(self.internal) << 2
            | u8::from(self.auto_delete) << 3;
        write_frame(Kind::DeclareExchange, flags, id, out, |out| {
            put_short(self.name.as_bytes(), out);
            put_short(self.kind.as_bytes(), out);
            put_table(self.arguments, out);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteExchange<'a> {
    pub name: &'a str,
    pub if_unused: bool,
}

impl DeleteExchange<'_> {
    const IF_UNUSED: u8 = 1;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let flags = u8::from(self.if_unused);
        write_frame(Kind::DeleteExchange, flags, id, out, |out| {
            put_short(self.name.as_bytes(), out);
        });
    }
}

/// A binding of an exchange to a mailbox or to another exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    pub source: &'a str,
    pub destination: &'a str,
    pub to_exchange: bool,
    pub key: &'a [u8],
    pub arguments: &'a [u8],
}

impl<'a> Bind<'a> {
    fn read(flags: u8, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            source: r.name()?,
            destination: r.name()?,
            to_exchange: flags & 1 != 0,
            key: r.short()?,
            arguments: r.table()?,
        })
    }

    /// Writes a bind, or an unbind.
    pub fn encode(&self, kind: Kind, id: u32, out: &mut BytesMut) {
        write_frame(kind, u8::from(self.to_exchange), id, out, |out| {
            put_short(self.source.as_bytes(), out);
            put_short(self.destination.as_bytes(), out);
            put_short(self.key, out);
            put_table(self.arguments, out);
        });
    }
}

/// A slice of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    /// One of the numbers of `docs/native.md`.
    pub what: u8,
    /// Empty for the connection's own.
    pub vhost: &'a str,
    /// Of one thing only; empty for all.
    pub name: &'a str,
    /// Where the slice before ended: the last row's `cursor`.
    pub after: &'a [u8],
    pub count: u32,
}

impl List<'_> {
    pub const MAILBOXES: u8 = 1;
    pub const EXCHANGES: u8 = 2;
    pub const BINDINGS: u8 = 3;
    pub const CONSUMERS: u8 = 4;
    pub const CONNECTIONS: u8 = 5;
    pub const USERS: u8 = 6;
    pub const PERMISSIONS: u8 = 7;
    pub const VHOSTS: u8 = 8;
    /// Of users and of operators.
    pub const POLICIES: u8 = 9;
    /// Messages of the mailbox `name` that wait for their time.
    pub const DELAYED: u8 = 11;
    /// Of users and of virtual hosts.
    pub const LIMITS: u8 = 12;
    /// Other hosts, and what waits for them.
    pub const PEERS: u8 = 14;
    /// How far the host is drained: one row.
    pub const DRAIN: u8 = 15;
    /// Of the key-value mailbox that is named.
    pub const KEYS: u8 = 10;
    /// Cursors and groups of the stream that is named.
    pub const CURSORS: u8 = 13;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::List, 0, id, out, |out| {
            out.put_u8(self.what);
            put_short(self.vhost.as_bytes(), out);
            put_short(self.name.as_bytes(), out);
            put_short(self.after, out);
            out.put_u32_le(self.count);
        });
    }
}

/// Another time for a message that waits for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retime<'a> {
    pub mailbox: &'a str,
    pub due_ms: u64,
    pub seq: u64,
    /// Milliseconds since the Unix epoch, the past for at once; `CANCEL` takes the message away.
    pub to_ms: u64,
}

impl Retime<'_> {
    pub const CANCEL: u64 = u64::MAX;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Retime, 0, id, out, |out| {
            put_short(self.mailbox.as_bytes(), out);
            out.put_u64_le(self.due_ms);
            out.put_u64_le(self.seq);
            out.put_u64_le(self.to_ms);
        });
    }
}

/// Messages of a mailbox that stay where they are, a step at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browse<'a> {
    pub mailbox: &'a str,
    /// A bit for each: 1 ready, 2 unsettled, 4 delayed, 8 dead, 16 settled. 0 for all.
    pub states: u8,
    /// A condition as JMS has it; empty for everything.
    pub selector: &'a str,
    /// What the step before answered; empty to begin.
    pub after: &'a [u8],
    pub count: u32,
}

impl<'a> Browse<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            mailbox: r.name()?,
            states: r.u8()?,
            selector: r.text()?,
            after: r.short()?,
            count: r.u32()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Browse, 0, id, out, |out| {
            put_short(self.mailbox.as_bytes(), out);
            out.put_u8(self.states);
            put_text(self.selector, out);
            put_short(self.after, out);
            out.put_u32_le(self.count);
        });
    }
}

/// Messages that a queue settled and keeps are ready again, some at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind<'a> {
    pub mailbox: &'a str,
    /// Settled then or later, and before this; milliseconds since the Unix epoch.
    pub from_ms: u64,
    pub to_ms: u64,
    /// Only at these positions among what is kept, `end` not included.
    pub first: u64,
    pub end: u64,
    /// A condition as JMS has it; empty for everything.
    pub selector: &'a str,
}

impl<'a> Rewind<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            mailbox: r.name()?,
            from_ms: r.u64()?,
            to_ms: r.u64()?,
            first: r.u64()?,
            end: r.u64()?,
            selector: r.text()?,
        })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Rewind, 0, id, out, |out| {
            put_short(self.mailbox.as_bytes(), out);
            for number in [self.from_ms, self.to_ms, self.first, self.end] {
                out.put_u64_le(number);
            }
            put_text(self.selector, out);
        });
    }
}

/// Something an administrator creates or changes, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Define<'a> {
    pub what: u8,
    pub fields: &'a [u8],
}

impl Define<'_> {
    /// A client's connection; only to be removed, with its number and the reason that the client is told.
    pub const CONNECTION: u8 = 5;
    pub const USER: u8 = 6;
    pub const PERMISSION: u8 = 7;
    pub const VHOST: u8 = 8;
    pub const POLICY: u8 = 9;
    pub const OPERATOR_POLICY: u8 = 10;
    pub const LIMIT: u8 = 12;
    /// A place for a cursor or a group; for whoever may read its stream.
    pub const CURSOR: u8 = 13;
    /// A host that is gone; only to be removed.
    pub const PEER: u8 = 14;
    /// The host is taken out of service; only to be defined.
    pub const DRAIN: u8 = 15;
    /// A mailbox that another host shall have; only to be removed.
    pub const MOVED: u8 = 16;

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Define, 0, id, out, |out| {
            out.put_u8(self.what);
            put_table(self.fields, out);
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undefine<'a> {
    pub what: u8,
    /// What identifies it: names in the order of `docs/native.md`.
    pub path: Vec<&'a str>,
}

impl<'a> Undefine<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (what, count) = (r.u8()?, r.u8()?);
        let path = (0..count).map(|_| r.name()).collect::<Result<_, _>>()?;
        Ok(Self { what, path })
    }

    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        write_frame(Kind::Undefine, 0, id, out, |out| {
            out.put_u8(self.what);
            out.put_u8(self.path.len() as u8);
            for part in &self.path {
                put_short(part.as_bytes(), out);
            }
        });
    }
}

/// Writes a change of a subscription's credit.
pub fn encode_credit(id: u32, subscription: u16, credit: u32, out: &mut BytesMut) {
    write_frame(Kind::Credit, 0, id, out, |out| {
        out.put_u16_le(subscription);
        out.put_u32_le(credit);
    });
}

/// Writes a purge.
pub fn encode_purge(id: u32, mailbox: &str, out: &mut BytesMut) {
    write_frame(Kind::PurgeMailbox, 0, id, out, |out| put_short(mailbox.as_bytes(), out));
}
