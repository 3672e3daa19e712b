//! Messages to send, and messages that came.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
pub use pillarbox_native::Due;
use pillarbox_native::{DeliveryMarks, DeliveryRef};

use crate::broker::{MailboxId, NEUTRAL, Properties, Seq, Value};

/// A message on its way to the broker.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    pub body: Bytes,
    /// Routing key of its own within a batch.
    pub key: Option<String>,
    pub properties: Option<Box<Properties>>,
    /// When it can be had. Streams and key-value mailboxes have everything at once.
    pub due: Due,
}

impl NewMessage {
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Changes properties.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(self.properties.get_or_insert_default());
        self
    }

    /// It waits in the broker for so long: ten years at the most. In whole milliseconds, by the broker's clock.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::After(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// It waits in the broker until then: ten years at the most. A time that is past is now.
    #[must_use]
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.due = Due::At(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Adds a header with a text.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|it| it.headers_mut().set(name, Value::text(value)))
    }

    pub(super) fn put_properties(&self, out: &mut Vec<u8>) {
        if let Some(properties) = &self.properties {
            (NEUTRAL.encode)(properties, out);
        }
    }
}

impl From<&str> for NewMessage {
    fn from(text: &str) -> Self {
        Self::new(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for NewMessage {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Vec<u8>> for NewMessage {
    fn from(body: Vec<u8>) -> Self {
        Self::new(body)
    }
}

impl From<Bytes> for NewMessage {
    fn from(body: Bytes) -> Self {
        Self::new(body)
    }
}

/// A message that came, to be settled unless it says that it is.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub mailbox: MailboxId,
    pub seq: Seq,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Failed attempts before this one, where the mailbox counts them.
    pub attempts: Option<u32>,
    /// Given by the broker: unique, and sorted by time.
    pub id: Option<u128>,
    /// Position in a stream.
    pub offset: Option<u64>,
    /// Nobody has to settle it.
    pub settled: bool,
    pub(super) subscription: u16,
    /// Exchange, key, properties and body are slices of it.
    buffer: Bytes,
    address: Option<(Range, Range)>,
    properties: Range,
    body: Range,
}

type Range = (u32, u32);

impl Delivery {
    pub(super) fn read(
        found: &DeliveryRef<'_>,
        buffer: &Bytes,
        mailbox: u64,
        subscription: u16,
    ) -> Self {
        let range = |part: &[u8]| {
            let start = (part.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize) as u32;
            (start, start + part.len() as u32)
        };
        Self {
            mailbox: MailboxId(mailbox),
            seq: Seq(found.seq),
            redelivered: found.marks.has(DeliveryMarks::REDELIVERED),
            attempts: found.attempts,
            id: found.id,
            offset: found.offset,
            settled: found.marks.has(DeliveryMarks::SETTLED),
            subscription,
            buffer: buffer.clone(),
            address: found.address.map(|(exchange, key)| (range(exchange), range(key))),
            properties: range(found.properties),
            body: range(found.body),
        }
    }

    fn part(&self, (start, end): Range) -> &[u8] {
        &self.buffer[start as usize..end as usize]
    }

    pub fn body(&self) -> &[u8] {
        self.part(self.body)
    }

    /// The body as a slice of what was read, which it keeps in memory.
    pub fn body_bytes(&self) -> Bytes {
        self.buffer.slice(self.body.0 as usize..self.body.1 as usize)
    }

    /// Exchange and routing key, unless it was pushed to the mailbox itself.
    pub fn address(&self) -> Option<(&[u8], &[u8])> {
        self.address.map(|(exchange, key)| (self.part(exchange), self.part(key)))
    }

    pub fn properties(&self) -> Properties {
        match self.properties {
            (start, end) if start == end => Properties::default(),
            range => (NEUTRAL.decode)(self.part(range)),
        }
    }

    /// Headers whose value is text.
    pub fn text_headers(&self) -> BTreeMap<String, String> {
        let headers = self.properties().headers.unwrap_or_default();
        let text = |(name, value): (&Bytes, &Value)| {
            Some((String::from_utf8_lossy(name).into_owned(), value.as_str()?.to_owned()))
        };
        headers.iter().filter_map(text).collect()
    }

    pub(super) fn size(&self) -> usize {
        (self.body.1 - self.body.0) as usize + 64
    }
}
