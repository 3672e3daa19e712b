//! Messages on their way to a client: of a subscription, or what a pull asked for.
//!
//! ```text
//! mailbox u64, left u64, count u32, then each message:
//!   seq u64, marks u8   [attempts u32] [id 16 bytes] [exchange short, key short] [offset u64]
//!   properties u32 size, bytes   body u32 size, bytes
//! ```

use bytes::{BufMut, BytesMut};

use crate::frame::{FLAG_MORE, Kind};
use crate::reader::{Malformed, Reader, items};
use crate::writer::{FrameWriter, put_short};

/// Seq, marks and two sizes.
const DELIVERY_SIZE_MIN: usize = 17;
const LEFT_AT: usize = 8;
const COUNT_AT: usize = 16;

/// What is said of a delivery, and which fields it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryMarks(pub u8);

impl DeliveryMarks {
    /// It was delivered before.
    pub const REDELIVERED: u8 = 1;
    pub const ATTEMPTS: u8 = 2;
    pub const ID: u8 = 4;
    /// Exchange and key; without them the default exchange and the mailbox's name.
    pub const ADDRESS: u8 = 8;
    /// Nobody shall settle it.
    pub const SETTLED: u8 = 16;
    pub const OFFSET: u8 = 32;

    const KNOWN: u8 = 63;

    pub const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
}

/// A delivery to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewDelivery<'a> {
    pub seq: u64,
    pub redelivered: bool,
    pub settled: bool,
    pub attempts: Option<u32>,
    pub id: Option<u128>,
    pub address: Option<(&'a [u8], &'a [u8])>,
    pub offset: Option<u64>,
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

/// A frame of deliveries at the end of a buffer; whole after every message.
#[derive(Debug)]
pub struct DeliveryBatch {
    frame: FrameWriter,
    count: u32,
    /// Where the buffer ended after the last message: nothing else was written since.
    end: usize,
}

impl DeliveryBatch {
    pub fn begin(kind: Kind, id: u32, mailbox: u64, left: u64, out: &mut BytesMut) -> Self {
        let frame = FrameWriter::begin(kind, 0, id, out);
        out.put_u64_le(mailbox);
        out.put_u64_le(left);
        out.put_u32_le(0);
        frame.seal(out);
        Self { frame, count: 0, end: out.len() }
    }

    /// Whether the buffer still ends with this frame.
    pub fn is_last(&self, out: &BytesMut) -> bool {
        self.end == out.len()
    }

    pub fn size(&self, out: &BytesMut) -> usize {
        self.frame.payload_size(out)
    }

    #[inline]
    pub fn add(&mut self, delivery: &NewDelivery<'_>, out: &mut BytesMut) {
        let d = delivery;
        out.reserve(DELIVERY_SIZE_MIN + 28 + d.properties.len() + d.body.len());
        let mut marks = 0;
        marks |= if d.redelivered { DeliveryMarks::REDELIVERED } else { 0 };
        marks |= if d.settled { DeliveryMarks::SETTLED } else { 0 };
        marks |= if d.attempts.is_some() { DeliveryMarks::ATTEMPTS } else { 0 };
        marks |= if d.id.is_some() { DeliveryMarks::ID } else { 0 };
        marks |= if d.address.is_some() { DeliveryMarks::ADDRESS } else { 0 };
        marks |= if d.offset.is_some() { DeliveryMarks::OFFSET } else { 0 };
        out.put_u64_le(d.seq);
        out.put_u8(marks);
        if let Some(attempts) = d.attempts {
            out.put_u32_le(attempts);
        }
        if let Some(id) = d.id {
            out.put_slice(&id.to_be_bytes());
        }
        if let Some((exchange, key)) = d.address {
            put_short(exchange, out);
            put_short(key, out);
        }
        if let Some(offset) = d.offset {
            out.put_u64_le(offset);
        }
        out.put_u32_le(d.properties.len() as u32);
        out.put_slice(d.properties);
        out.put_u32_le(d.body.len() as u32);
        out.put_slice(d.body);
        self.count += 1;
        self.frame.patch_u32(COUNT_AT, self.count, out);
        self.frame.seal(out);
        self.end = out.len();
    }

    /// Says how many messages are left in the mailbox.
    pub fn set_left(&self, left: u64, out: &mut BytesMut) {
        let (low, high) = (left as u32, (left >> 32) as u32);
        self.frame.patch_u32(LEFT_AT, low, out);
        self.frame.patch_u32(LEFT_AT + 4, high, out);
    }

    /// The next frame with this id goes on.
    pub fn set_more(&self, out: &mut BytesMut) {
        self.frame.set_flag(FLAG_MORE, out);
    }
}

/// Deliveries as they came in.
#[derive(Clone, Copy, Debug)]
pub struct Deliveries<'a> {
    pub mailbox: u64,
    /// Messages left in the mailbox; said in answer to a pull only.
    pub left: u64,
    pub count: u32,
    messages: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRef<'a> {
    pub seq: u64,
    pub marks: DeliveryMarks,
    pub attempts: Option<u32>,
    pub id: Option<u128>,
    pub address: Option<(&'a [u8], &'a [u8])>,
    pub offset: Option<u64>,
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Deliveries<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (mailbox, left, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
        let messages = reader.rest();
        if count as usize > messages.len() / DELIVERY_SIZE_MIN {
            return Err(Malformed::Short);
        }
        Ok(Self { mailbox, left, count, messages })
    }

    /// The deliveries in order; an error is the last item.
    pub fn messages(&self) -> impl Iterator<Item = Result<DeliveryRef<'a>, Malformed>> + use<'a> {
        items(self.messages, self.count, read_delivery)
    }
}

fn read_delivery<'a>(reader: &mut Reader<'a>) -> Result<DeliveryRef<'a>, Malformed> {
    let seq = reader.u64()?;
    let marks = DeliveryMarks(reader.u8()?);
    if marks.0 & !DeliveryMarks::KNOWN != 0 {
        return Err(Malformed::Unknown { what: "mark", value: marks.0.into() });
    }
    let field = |mark| marks.has(mark).then_some(());
    Ok(DeliveryRef {
        seq,
        marks,
        attempts: field(DeliveryMarks::ATTEMPTS).map(|()| reader.u32()).transpose()?,
        id: field(DeliveryMarks::ID)
            .map(|()| reader.array().map(u128::from_be_bytes))
            .transpose()?,
        address: field(DeliveryMarks::ADDRESS)
            .map(|()| Ok((reader.short()?, reader.short()?)))
            .transpose()?,
        offset: field(DeliveryMarks::OFFSET).map(|()| reader.u64()).transpose()?,
        properties: reader.long()?,
        body: reader.long()?,
    })
}
