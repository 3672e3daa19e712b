//! A push: messages for one address, in one frame.
//!
//! ```text
//! exchange short, key short, count u32, then each message:
//!   marks u8   1: a key of its own follows, 2: it waits so long, 4: it waits until then
//!   [key short]   [milliseconds u64]   properties u32 size, bytes   body u32 size, bytes
//! ```

use bytes::{BufMut, BytesMut};

use crate::frame::{Frame, Kind};
use crate::reader::{Malformed, Reader, items};
use crate::writer::{FrameWriter, put_short};

const OWN_KEY: u8 = 1;
const AFTER: u8 = 2;
const AT: u8 = 4;
/// Marks and two sizes.
const MESSAGE_SIZE_MIN: usize = 9;

/// A push as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub exchange: &'a str,
    pub key: &'a [u8],
    /// Messages that `messages` will give, if none of them is damaged.
    pub count: u32,
    messages: &'a [u8],
}

/// When a message can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    #[default]
    Now,
    /// So many milliseconds after it came.
    After(u64),
    /// Milliseconds since the Unix epoch.
    At(u64),
}

/// A message of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedRef<'a> {
    /// Its own key; `None` for that of the push.
    pub key: Option<&'a [u8]>,
    pub due: Due,
    /// As they came in: not looked at yet.
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Push<'a> {
    /// Flag: a message that nobody takes is refused, also on a named exchange.
    pub const MANDATORY: u8 = 1;
    /// Flag: answered when every host to which messages of it go has them.
    pub const HOME: u8 = 2;

    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let exchange = reader.name()?;
        let key = reader.short()?;
        let count = reader.u32()?;
        let messages = reader.rest();
        if count as usize > messages.len() / MESSAGE_SIZE_MIN {
            return Err(Malformed::Short);
        }
        Ok(Self { exchange, key, count, messages })
    }

    /// The messages in order; an error is the last item.
    pub fn messages(&self) -> impl Iterator<Item = Result<PushedRef<'a>, Malformed>> + use<'a> {
        items(self.messages, self.count, read_message)
    }
}

#[inline]
fn read_message<'a>(reader: &mut Reader<'a>) -> Result<PushedRef<'a>, Malformed> {
    let marks = reader.u8()?;
    let wait = marks & !OWN_KEY;
    if !matches!(wait, 0 | AFTER | AT) {
        return Err(Malformed::Unknown { what: "mark", value: marks.into() });
    }
    let key = if marks & OWN_KEY != 0 { Some(reader.short()?) } else { None };
    let due = match wait {
        AFTER => Due::After(reader.u64()?),
        AT => Due::At(reader.u64()?),
        _ => Due::Now,
    };
    Ok(PushedRef { key, due, properties: reader.long()?, body: reader.long()? })
}

/// A message to push.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewMessage<'a> {
    pub key: Option<&'a [u8]>,
    pub due: Due,
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

/// A push that is being written at the end of a buffer.
#[derive(Debug)]
pub struct PushBatch {
    frame: FrameWriter,
    count_at: usize,
    count: u32,
}

impl PushBatch {
    pub fn begin(id: u32, flags: u8, exchange: &str, key: &[u8], out: &mut BytesMut) -> Self {
        Self::continued(FrameWriter::begin(Kind::Push, flags, id, out), exchange, key, out)
    }

    /// A will of this number.
    pub fn will(
        id: u32,
        number: u16,
        any: bool,
        exchange: &str,
        key: &[u8],
        out: &mut BytesMut,
    ) -> Self {
        let flags = if any { Will::ANY } else { 0 };
        let frame = FrameWriter::begin(Kind::Will, flags, id, out);
        out.put_u16_le(number);
        Self::continued(frame, exchange, key, out)
    }

    fn continued(frame: FrameWriter, exchange: &str, key: &[u8], out: &mut BytesMut) -> Self {
        put_short(exchange.as_bytes(), out);
        put_short(key, out);
        let count_at = frame.payload_size(out);
        out.put_u32_le(0);
        Self { frame, count_at, count: 0 }
    }

    pub fn add(&mut self, message: NewMessage<'_>, out: &mut BytesMut) {
        out.reserve(MESSAGE_SIZE_MIN + message.properties.len() + message.body.len());
        let (mark, time) = match message.due {
            Due::Now => (0, None),
            Due::After(ms) => (AFTER, Some(ms)),
            Due::At(ms) => (AT, Some(ms)),
        };
        out.put_u8(mark | if message.key.is_some() { OWN_KEY } else { 0 });
        if let Some(key) = message.key {
            put_short(key, out);
        }
        if let Some(ms) = time {
            out.put_u64_le(ms);
        }
        out.put_u32_le(message.properties.len() as u32);
        out.put_slice(message.properties);
        out.put_u32_le(message.body.len() as u32);
        out.put_slice(message.body);
        self.count += 1;
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the payload so far.
    pub fn size(&self, out: &BytesMut) -> usize {
        self.frame.payload_size(out)
    }

    pub fn end(self, out: &mut BytesMut) {
        self.frame.patch_u32(self.count_at, self.count, out);
        self.frame.seal(out);
    }
}

/// Messages that the server publishes when the connection ends; none take an earlier will back.
///
/// ```text
/// number u16, then as a push
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Will<'a> {
    pub number: u16,
    /// Also where the client said goodbye.
    pub any: bool,
    pub push: Push<'a>,
}

impl<'a> Will<'a> {
    /// Flag: at every end of the connection, not only where it is lost.
    pub const ANY: u8 = 1;

    pub fn decode(flags: u8, payload: &'a [u8]) -> Result<Self, Malformed> {
        let (number, push) = payload.split_first_chunk().ok_or(Malformed::Short)?;
        let any = flags & Self::ANY != 0;
        Ok(Self { number: u16::from_le_bytes(*number), any, push: Push::decode(push)? })
    }
}

impl Frame<'_> {
    /// Whether the frame is a push, which takes the short way.
    pub fn is_push(&self) -> bool {
        self.kind == Kind::Push
    }
}
