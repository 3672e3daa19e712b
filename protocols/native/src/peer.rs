//! What hosts say to each other: greetings, what lives where, and messages on their way.
//!
//! The host that dials asks, the one that accepts answers. `docs/peers.md` has the order of it.

use bytes::{BufMut, BytesMut};

use crate::frame::Kind;
use crate::reader::{Malformed, Reader, items};
use crate::writer::{FrameWriter, put_short, put_table, write_frame};

/// Size of a nonce, and of a proof.
pub const PROOF_SIZE: usize = 32;

/// Seq, marks, exchange, key, id, time and two sizes.
pub(crate) const FORWARDED_SIZE_MIN: usize = 8 + 1 + 1 + 4 + 16 + 8 + 4 + 4;
/// Marks, what, vhost, and the shortest of both kinds.
const CHANGE_SIZE_MIN: usize = 1 + 1 + 1 + 7;

/// Who a host is. Of the dialler `Kind::PeerHello`, of the other `Kind::Challenge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello<'a> {
    pub id: u128,
    pub name: &'a str,
    pub incarnation: u64,
    pub run: u64,
    /// Where it can be dialled; empty where it cannot.
    pub address: &'a str,
    pub tags: Vec<&'a str>,
    pub nonce: [u8; PROOF_SIZE],
}

impl<'a> PeerHello<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let hello = Self {
            id: u128::from_le_bytes(r.array()?),
            name: r.name()?,
            incarnation: r.u64()?,
            run: r.u64()?,
            address: r.text()?,
            tags: {
                let count = r.u8()?;
                (0..count).map(|_| r.name()).collect::<Result<_, _>>()?
            },
            nonce: r.array()?,
        };
        r.end().map(|()| hello)
    }

    pub fn encode(&self, kind: Kind, out: &mut BytesMut) {
        write_frame(kind, 0, 0, out, |out| {
            out.put_u128_le(self.id);
            put_short(self.name.as_bytes(), out);
            out.put_u64_le(self.incarnation);
            out.put_u64_le(self.run);
            crate::writer::put_text(self.address, out);
            out.put_u8(self.tags.len().min(255) as u8);
            for tag in self.tags.iter().take(255) {
                put_short(tag.as_bytes(), out);
            }
            out.put_slice(&self.nonce);
        });
    }
}

/// The accepting host's proof, and what it knows of the dialler already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    pub proof: [u8; PROOF_SIZE],
    /// Version of the dialler's routes, of this run of it; 0 for nothing.
    pub known: u64,
    /// Largest size of a frame that it takes.
    pub frame_size_max: u32,
}

impl Welcome {
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let welcome = Self { proof: r.array()?, known: r.u64()?, frame_size_max: r.u32()? };
        r.end().map(|()| welcome)
    }

    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(Kind::Welcome, 0, 0, out, |out| {
            out.put_slice(&self.proof);
            out.put_u64_le(self.known);
            out.put_u32_le(self.frame_size_max);
        });
    }
}

/// Flag of a proof: the dialler only wanted to know who is there.
pub const PROBE: u8 = 1;

/// The dialler's proof.
pub fn encode_proof(flags: u8, proof: &[u8; PROOF_SIZE], out: &mut BytesMut) {
    write_frame(Kind::Proof, flags, 0, out, |out| out.put_slice(proof));
}

pub fn decode_proof(payload: &[u8]) -> Result<[u8; PROOF_SIZE], Malformed> {
    let mut r = Reader::new(payload);
    let proof = r.array()?;
    r.end().map(|()| proof)
}

/// The accepting host knows the routes up to this version, durably.
pub fn encode_learned(version: u64, out: &mut BytesMut) {
    write_frame(Kind::Learned, 0, 0, out, |out| out.put_u64_le(version));
}

pub fn decode_learned(payload: &[u8]) -> Result<u64, Malformed> {
    let mut r = Reader::new(payload);
    let version = r.u64()?;
    r.end().map(|()| version)
}

/// A host that the dialler reaches, for the other one to reach as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRef<'a> {
    pub id: u128,
    pub incarnation: u64,
    pub address: &'a str,
}

pub fn encode_hosts<'a>(hosts: impl ExactSizeIterator<Item = HostRef<'a>>, out: &mut BytesMut) {
    write_frame(Kind::Hosts, 0, 0, out, |out| {
        out.put_u32_le(hosts.len() as u32);
        for host in hosts {
            out.put_u128_le(host.id);
            out.put_u64_le(host.incarnation);
            crate::writer::put_text(host.address, out);
        }
    });
}

pub fn decode_hosts(payload: &[u8]) -> Result<Vec<HostRef<'_>>, Malformed> {
    let mut r = Reader::new(payload);
    let count = r.u32()?;
    if count as usize > r.rest().len() / (16 + 8 + 2) {
        return Err(Malformed::Short);
    }
    let mut host = || {
        let (id, incarnation) = (u128::from_le_bytes(r.array()?), r.u64()?);
        Ok(HostRef { id, incarnation, address: r.text()? })
    };
    let hosts = (0..count).map(|_| host()).collect::<Result<_, Malformed>>()?;
    r.end().map(|()| hosts)
}

/// The accepting host has all messages of an outbox up to a position, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub outbox: u64,
    pub upto: u64,
}

impl Taken {
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let taken = Self { outbox: r.u64()?, upto: r.u64()? };
        r.end().map(|()| taken)
    }

    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(Kind::Taken, 0, 0, out, |out| {
            out.put_u64_le(self.outbox);
            out.put_u64_le(self.upto);
        });
    }
}

/// The accepting host never takes this message of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declined<'a> {
    pub outbox: u64,
    pub seq: u64,
    /// Why not.
    pub text: &'a str,
}

impl<'a> Declined<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let declined = Self { outbox: r.u64()?, seq: r.u64()?, text: r.text()? };
        r.end().map(|()| declined)
    }

    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(Kind::Declined, 0, 0, out, |out| {
            out.put_u64_le(self.outbox);
            out.put_u64_le(self.seq);
            crate::writer::put_text(self.text, out);
        });
    }
}

/// A mailbox or a binding of the dialler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRef<'a> {
    Mailbox {
        name: &'a str,
        id: u64,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: &'a [u8],
        /// How often it moved.
        epoch: u64,
    },
    Binding {
        exchange: &'a str,
        /// Of the exchange.
        kind: &'a str,
        key: &'a [u8],
        arguments: &'a [u8],
    },
}

/// It came, or it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRef<'a> {
    pub vhost: &'a str,
    pub gone: bool,
    /// Outlives a restart of its host.
    pub durable: bool,
    pub route: RouteRef<'a>,
}

/// A slice of what the dialler has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes<'a> {
    pub version: u64,
    pub begins: bool,
    pub ends: bool,
    pub changes: Vec<ChangeRef<'a>>,
}

const BEGINS: u8 = 1;
const ENDS: u8 = 2;
const GONE: u8 = 1;
const DURABLE: u8 = 2;
const MAILBOX: u8 = 0;
const BINDING: u8 = 1;
/// In the properties of a mailbox: an epoch follows.
const MOVED: u8 = 8;

impl<'a> Routes<'a> {
    pub fn decode(flags: u8, payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (version, count) = (r.u64()?, r.u32()?);
        if count as usize > r.rest().len() / CHANGE_SIZE_MIN {
            return Err(Malformed::Short);
        }
        let changes = (0..count).map(|_| read_change(&mut r)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { version, begins: flags & BEGINS != 0, ends: flags & ENDS != 0, changes })
    }
}

fn read_change<'a>(r: &mut Reader<'a>) -> Result<ChangeRef<'a>, Malformed> {
    let (marks, what, vhost) = (r.u8()?, r.u8()?, r.name()?);
    let route = match what {
        MAILBOX => {
            let (name, id, properties) = (r.name()?, r.u64()?, r.u8()?);
            RouteRef::Mailbox {
                name,
                id,
                durable: properties & 1 != 0,
                exclusive: properties & 2 != 0,
                auto_delete: properties & 4 != 0,
                arguments: r.table()?,
                epoch: if properties & MOVED == 0 { 0 } else { r.u64()? },
            }
        }
        BINDING => RouteRef::Binding {
            exchange: r.name()?,
            kind: r.name()?,
            key: r.short()?,
            arguments: r.table()?,
        },
        other => return Err(Malformed::Unknown { what: "route", value: other.into() }),
    };
    Ok(ChangeRef { vhost, gone: marks & GONE != 0, durable: marks & DURABLE != 0, route })
}

/// Routes that are being written.
#[derive(Debug)]
pub struct RoutesBatch {
    frame: FrameWriter,
    count: u32,
}

impl RoutesBatch {
    pub fn begin(version: u64, begins: bool, ends: bool, out: &mut BytesMut) -> Self {
        let flags = if begins { BEGINS } else { 0 } | if ends { ENDS } else { 0 };
        let frame = FrameWriter::begin(Kind::Routes, flags, 0, out);
        out.put_u64_le(version);
        out.put_u32_le(0);
        Self { frame, count: 0 }
    }

    pub fn add(&mut self, change: &ChangeRef<'_>, out: &mut BytesMut) {
        self.count += 1;
        let gone = if change.gone { GONE } else { 0 };
        let marks = gone | if change.durable { DURABLE } else { 0 };
        out.put_u8(marks);
        match change.route {
            RouteRef::Mailbox { name, id, durable, exclusive, auto_delete, arguments, epoch } => {
                out.put_u8(MAILBOX);
                put_short(change.vhost.as_bytes(), out);
                put_short(name.as_bytes(), out);
                out.put_u64_le(id);
                let properties =
                    u8::from(durable) | (u8::from(exclusive) << 1) | (u8::from(auto_delete) << 2);
                out.put_u8(if epoch > 0 { properties | MOVED } else { properties });
                put_table(arguments, out);
                if epoch > 0 {
                    out.put_u64_le(epoch);
                }
            }
            RouteRef::Binding { exchange, kind, key, arguments } => {
                out.put_u8(BINDING);
                put_short(change.vhost.as_bytes(), out);
                put_short(exchange.as_bytes(), out);
                put_short(kind.as_bytes(), out);
                put_short(key, out);
                put_table(arguments, out);
            }
        }
    }

    pub fn end(self, out: &mut BytesMut) {
        self.frame.patch_u32(8, self.count, out);
        self.frame.seal(out);
    }
}

const PERSISTENT: u8 = 1;
const AGAIN: u8 = 2;

/// Messages of one outbox, in order of position.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    pub vhost: &'a str,
    pub outbox: u64,
    pub count: u32,
    messages: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedRef<'a> {
    pub seq: u64,
    pub persistent: bool,
    /// It may have been sent before.
    pub again: bool,
    pub exchange: &'a str,
    pub key: &'a [u8],
    pub id: u128,
    /// When its first host took it, in milliseconds.
    pub accepted_ms: u64,
    /// As they came in: not looked at yet.
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

impl ForwardedRef<'_> {
    /// Bytes that it takes in a frame.
    pub fn wire_len(&self) -> usize {
        let parts = [self.exchange.len(), self.key.len(), self.properties.len(), self.body.len()];
        FORWARDED_SIZE_MIN + parts.iter().sum::<usize>()
    }
}

impl<'a> Forward<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let (vhost, outbox, count) = (r.name()?, r.u64()?, r.u32()?);
        let messages = r.rest();
        if count as usize > messages.len() / FORWARDED_SIZE_MIN {
            return Err(Malformed::Short);
        }
        Ok(Self { vhost, outbox, count, messages })
    }

    /// The messages in order; an error is the last item.
    pub fn messages(&self) -> impl Iterator<Item = Result<ForwardedRef<'a>, Malformed>> + use<'a> {
        items(self.messages, self.count, read_forwarded)
    }
}

pub(crate) fn read_forwarded<'a>(r: &mut Reader<'a>) -> Result<ForwardedRef<'a>, Malformed> {
    let seq = r.u64()?;
    let marks = r.u8()?;
    if marks & !(PERSISTENT | AGAIN) != 0 {
        return Err(Malformed::Unknown { what: "mark", value: marks.into() });
    }
    Ok(ForwardedRef {
        seq,
        persistent: marks & PERSISTENT != 0,
        again: marks & AGAIN != 0,
        exchange: r.name()?,
        key: r.long()?,
        id: u128::from_le_bytes(r.array()?),
        accepted_ms: r.u64()?,
        properties: r.long()?,
        body: r.long()?,
    })
}

pub(crate) fn put_forwarded(message: &ForwardedRef<'_>, out: &mut BytesMut) {
    out.put_u64_le(message.seq);
    let again = if message.again { AGAIN } else { 0 };
    let persistent = if message.persistent { PERSISTENT } else { 0 };
    out.put_u8(persistent | again);
    put_short(message.exchange.as_bytes(), out);
    put_table(message.key, out);
    out.put_u128_le(message.id);
    out.put_u64_le(message.accepted_ms);
    put_table(message.properties, out);
    put_table(message.body, out);
}

/// A forward that is being written at the end of a buffer.
#[derive(Debug)]
pub struct ForwardBatch {
    frame: FrameWriter,
    count_at: usize,
    count: u32,
}

impl ForwardBatch {
    pub fn begin(vhost: &str, outbox: u64, out: &mut BytesMut) -> Self {
        let frame = FrameWriter::begin(Kind::Forward, 0, 0, out);
        put_short(vhost.as_bytes(), out);
        out.put_u64_le(outbox);
        let count_at = frame.payload_size(out);
        out.put_u32_le(0);
        Self { frame, count_at, count: 0 }
    }

    /// Size of a frame with so large messages, as `next_frame` bounds it.
    pub fn frame_size(vhost: &str, messages: usize) -> usize {
        crate::frame::COUNTED_HEAD_SIZE as usize + 1 + vhost.len() + 8 + 4 + messages
    }

    /// Bytes of the payload so far.
    pub fn size(&self, out: &BytesMut) -> usize {
        self.frame.payload_size(out)
    }

    pub fn add(&mut self, message: &ForwardedRef<'_>, out: &mut BytesMut) {
        self.count += 1;
        put_forwarded(message, out);
    }

    pub fn end(self, out: &mut BytesMut) {
        self.frame.patch_u32(self.count_at, self.count, out);
        self.frame.seal(out);
    }
}
