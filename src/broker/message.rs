//! A message: routing key, properties and body, never changed once accepted.
//!
//! The property bytes stay in the form they arrived in; they are decoded when somebody needs it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::name::{Name, Time};
use super::peer::SPREAD_TAGS;
use super::value::Table;

/// What the place of a message in a mailbox takes, about.
const PLACE_SIZE: usize = 128;

/// Small neighbours of a batch share buffers of this size.
const SHARED_SIZE_MAX: usize = 4096;

/// 48 bits of milliseconds, 32 of host, 48 of counter: unique, and sorted by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u128);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A way to write properties as bytes. A protocol brings its own, so that its messages pass through undecoded.
pub struct WireForm {
    /// Stored with each message; never given to another form.
    pub id: u8,
    pub name: &'static str,
    /// The bytes were checked when the message was accepted, so this cannot fail.
    pub decode: fn(&[u8]) -> Properties,
    pub encode: fn(&Properties, &mut Vec<u8>),
}

/// Places of the parts inside the message's one buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// What a session knows when a message is complete.
pub struct Parts {
    pub exchange: Name,
    /// Holds key, properties and body; may be a slice of what the socket read.
    pub buffer: Bytes,
    pub key: Span,
    pub properties: Span,
    pub body: Span,
    pub form: &'static WireForm,
    pub persistent: bool,
    /// 0 where none was given.
    pub priority: u8,
    /// The publisher's time to live in milliseconds.
    pub expiration_ms: Option<u64>,
}

pub struct Message {
    /// Given by the broker when it accepts the message.
    pub id: MessageId,
    /// When the session received it whole.
    pub accepted: Time,
    /// Its publisher wants nobody to see it before. Queues heed it, streams do not.
    pub deliver_at: Time,
    /// Another host may have sent it before, and somebody may have seen it here.
    pub again: bool,
    /// Its publisher says which hosts may take it (`x-spread-tags`). Where it was not published here this is not told.
    pub wants_tags: bool,
    parts: Parts,
    /// Filled by the first reader that needs the neutral form.
    decoded: OnceLock<Box<Properties>>,
}

impl Message {
    pub fn new(parts: Parts, accepted: Time) -> Self {
        Self::restored(parts, MessageId::default(), accepted)
    }

    /// A message as it comes back from the store.
    pub fn restored(parts: Parts, id: MessageId, accepted: Time) -> Self {
        Self {
            id,
            accepted,
            deliver_at: Time::ZERO,
            again: false,
            wants_tags: false,
            parts,
            decoded: OnceLock::new(),
        }
    }

    /// A message from parts that do not lie in one buffer yet.
    pub fn build(source: &Source<'_>) -> Self {
        let mut buffer = Vec::with_capacity(source.key.len() + source.body.len() + 64);
        buffer.extend_from_slice(source.key);
        let key = Span { start: 0, end: buffer.len() as u32 };
        (source.form.encode)(source.properties, &mut buffer);
        let properties = Span { start: key.end, end: buffer.len() as u32 };
        buffer.extend_from_slice(source.body);
        let body = Span { start: properties.end, end: buffer.len() as u32 };
        let parts = Parts {
            exchange: source.exchange.clone(),
            buffer: buffer.into(),
            key,
            properties,
            body,
            form: source.form,
            persistent: source.persistent,
            priority: source.properties.priority.unwrap_or(0),
            expiration_ms: source.properties.expiration_ms(),
        };
        let mut message = Self::new(parts, source.accepted);
        message.wants_tags = source.properties.header(SPREAD_TAGS).is_some();
        message
    }

    pub fn exchange(&self) -> &Name {
        &self.parts.exchange
    }

    pub fn key(&self) -> &[u8] {
        self.parts.key.of(&self.parts.buffer)
    }

    pub fn body(&self) -> &[u8] {
        self.parts.body.of(&self.parts.buffer)
    }

    pub fn body_bytes(&self) -> Bytes {
        self.parts.buffer.slice(self.parts.body.start as usize..self.parts.body.end as usize)
    }

    pub fn property_bytes(&self) -> &[u8] {
        self.parts.properties.of(&self.parts.buffer)
    }

    pub fn form(&self) -> &'static WireForm {
        self.parts.form
    }

    pub fn persistent(&self) -> bool {
        self.parts.persistent
    }

    pub fn priority(&self) -> u8 {
        self.parts.priority
    }

    pub fn expiration_ms(&self) -> Option<u64> {
        self.parts.expiration_ms
    }

    /// The neutral form, decoded once.
    pub fn properties(&self) -> &Properties {
        self.decoded.get_or_init(|| Box::new((self.parts.form.decode)(self.property_bytes())))
    }

    /// Bytes of key, properties and body.
    pub fn size(&self) -> usize {
        self.parts.key.len() + self.parts.properties.len() + self.parts.body.len()
    }

    /// Bytes of memory that it takes to keep the message in a mailbox, roughly.
    #[inline]
    pub fn footprint(&self) -> u64 {
        (self.size() + size_of::<Self>() + PLACE_SIZE) as u64
    }

    /// The same message in a buffer of its own, so that it does not keep a whole read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        let mut buffer = Vec::with_capacity(self.size());
        buffer.extend_from_slice(self.key());
        let key = Span { start: 0, end: buffer.len() as u32 };
        buffer.extend_from_slice(self.property_bytes());
        let properties = Span { start: key.end, end: buffer.len() as u32 };
        buffer.extend_from_slice(self.body());
        let body = Span { start: properties.end, end: buffer.len() as u32 };
        let parts = Parts {
            exchange: self.parts.exchange.clone(),
            buffer: buffer.into(),
            key,
            properties,
            body,
            ..self.parts
        };
        let mut own = Self::restored(parts, self.id, self.accepted);
        own.deliver_at = self.deliver_at;
        own.again = self.again;
        own.wants_tags = self.wants_tags;
        own
    }

    /// The same messages in buffers of their own, small neighbours together, so that a message that stays keeps
    /// little besides itself in memory.
    pub(super) fn detach_all(messages: &mut [Self], size_max: usize) {
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let (mut count, mut size) = (1, first.size());
            while size < SHARED_SIZE_MAX
                && let Some(next) = rest.get(count)
                && size + next.size() <= SHARED_SIZE_MAX
            {
                size += next.size();
                count += 1;
            }
            let (group, behind) = rest.split_at_mut(count);
            if size <= size_max {
                Self::share(group, size);
            }
            rest = behind;
        }
    }

    /// Moves the messages into one buffer.
    fn share(group: &mut [Self], size: usize) {
        let mut buffer = Vec::with_capacity(size);
        for message in &mut *group {
            let mut put = |part: Span| {
                let start = buffer.len() as u32;
                buffer.extend_from_slice(part.of(&message.parts.buffer));
                Span { start, end: buffer.len() as u32 }
            };
            let (key, properties) = (put(message.parts.key), put(message.parts.properties));
            let body = put(message.parts.body);
            (message.parts.key, message.parts.properties, message.parts.body) =
                (key, properties, body);
        }
        let buffer = Bytes::from(buffer);
        for message in group {
            message.parts.buffer = buffer.clone();
        }
    }

    /// A message of the same body, form and id with other address and properties, as dead-lettering makes.
    #[must_use]
    pub fn readdressed(&self, exchange: &Name, key: &[u8], properties: &Properties) -> Self {
        let mut message = Self::build(&Source {
            exchange,
            key,
            properties,
            body: self.body(),
            form: self.parts.form,
            persistent: self.parts.persistent,
            accepted: self.accepted,
        });
        message.id = self.id;
        message
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        f.debug_struct("Message")
            .field("exchange", self.exchange())
            .field("key", &String::from_utf8_lossy(self.key()))
            .field("body", &String::from_utf8_lossy(&body[..body.len().min(64)]))
            .finish_non_exhaustive()
    }
}

/// What `Message::build` puts into one buffer.
pub struct Source<'a> {
    pub exchange: &'a Name,
    pub key: &'a [u8],
    pub properties: &'a Properties,
    pub body: &'a [u8],
    pub form: &'static WireForm,
    pub persistent: bool,
    pub accepted: Time,
}

/// The neutral properties: a superset of what the protocols carry. Text is bytes, mostly UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    pub content_type: Option<Bytes>,
    pub content_encoding: Option<Bytes>,
    /// `None` where the publisher sent no table at all.
    pub headers: Option<Table>,
    /// AMQP's delivery-mode octet as sent: 2 is persistent.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<Bytes>,
    pub reply_to: Option<Bytes>,
    /// Decimal milliseconds, as text.
    pub expiration: Option<Bytes>,
    pub message_id: Option<Bytes>,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    pub kind: Option<Bytes>,
    pub user_id: Option<Bytes>,
    pub app_id: Option<Bytes>,
    pub cluster_id: Option<Bytes>,
}

impl Properties {
    /// Those that are texts, under their names.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let all = [
            ("content_type", &self.content_type),
            ("content_encoding", &self.content_encoding),
            ("correlation_id", &self.correlation_id),
            ("reply_to", &self.reply_to),
            ("expiration", &self.expiration),
            ("message_id", &self.message_id),
            ("type", &self.kind),
            ("user_id", &self.user_id),
            ("app_id", &self.app_id),
            ("cluster_id", &self.cluster_id),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)))
    }

    pub fn header(&self, name: &str) -> Option<&super::value::Value> {
        self.headers.as_ref()?.get(name)
    }

    pub fn headers_mut(&mut self) -> &mut Table {
        self.headers.get_or_insert_default()
    }

    pub fn expiration_ms(&self) -> Option<u64> {
        std::str::from_utf8(self.expiration.as_ref()?).ok()?.parse().ok()
    }
}

/// A message shared by every mailbox it was routed to.
pub type SharedMessage = Arc<Message>;
