//! What a message in an outbox carries besides itself, in a header that no client sees: hops, further keys, its time.
//!
//! ```text
//! flags u8 (1: it had headers before, 4: it moves with its mailbox, 8: it is none, and says that
//! the old home gave way), hops u8, deliver_at u64,
//! where it moves: since u64, expires u64, attempts u32, u32 length and name of the mailbox,
//! then each key: u32 length, bytes
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use memchr::memmem;

use crate::broker::message::{Message, Properties, Source};
use crate::broker::name::{Name, Time};
use crate::broker::neutral::NEUTRAL;
use crate::broker::value::Value;

/// Taken out of whatever a client publishes towards another host.
const PARCEL: &str = "x-pillarbox-parcel";
const HAD_HEADERS: u8 = 1;
const MOVES: u8 = 4;
const GAVE_WAY: u8 = 8;

/// What came out of an outbox.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    pub(super) hops: u8,
    /// What to route by instead of the message's own key.
    pub(super) keys: Vec<Bytes>,
    /// It rested in a mailbox that has another home now, and goes there and nowhere else.
    pub(super) moved: Option<Moved>,
}

/// What a mailbox remembers of a message that moves with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) to: Name,
    pub(super) since: Time,
    pub(super) expires: Time,
    pub(super) attempts: u32,
    /// No message, but a word: the old home hands out nothing from here on.
    pub(super) gave_way: bool,
}

/// The message as it rests in an outbox. Keys, if any, are all that it shall be routed by.
pub(crate) fn pack(message: &Arc<Message>, keys: &[Bytes], hops: u8) -> Arc<Message> {
    let plain = keys.is_empty() && hops == 0 && message.deliver_at == Time::ZERO;
    let marked = is_marked(message);
    if plain && !marked {
        return message.clone();
    }
    let mut properties = message.properties().clone();
    if plain {
        properties.headers_mut().remove(PARCEL);
    } else {
        let mut bytes = head(&properties, 0, hops, message);
        keys.iter().for_each(|key| put(key, &mut bytes));
        properties.headers_mut().set(PARCEL, Value::Binary(bytes.into()));
    }
    Arc::new(rebuilt(message, &properties, Time::ZERO))
}

/// Whether something is packed with the message. Most are not: properties without the name are not even decoded.
pub(super) fn is_marked(message: &Message) -> bool {
    memmem::find(message.property_bytes(), PARCEL.as_bytes()).is_some()
        && message.properties().header(PARCEL).is_some()
}

/// A message on its way to the new home of the mailbox in which it rested.
pub(super) fn pack_moved(message: &Message, moved: &Moved, hops: u8) -> Message {
    let mut properties = message.properties().clone();
    let flags = if moved.gave_way { MOVES | GAVE_WAY } else { MOVES };
    let mut bytes = head(&properties, flags, hops, message);
    bytes.put_u64_le(moved.since.0);
    bytes.put_u64_le(moved.expires.0);
    bytes.put_u32_le(moved.attempts);
    put(moved.to.as_bytes(), &mut bytes);
    properties.headers_mut().set(PARCEL, Value::Binary(bytes.into()));
    rebuilt(message, &properties, Time::ZERO)
}

fn head(properties: &Properties, flags: u8, hops: u8, message: &Message) -> Vec<u8> {
    let had_headers = u8::from(properties.headers.is_some()) * HAD_HEADERS;
    let mut bytes = vec![flags | had_headers, hops];
    bytes.put_u64_le(message.deliver_at.0);
    bytes
}

fn put(part: &[u8], bytes: &mut Vec<u8>) {
    bytes.put_u32_le(part.len() as u32);
    bytes.put_slice(part);
}

/// What was packed. Damage counts as nothing packed.
pub(super) fn unpack(message: Message) -> Parcel {
    if !is_marked(&message) {
        return Parcel { message, hops: 0, keys: Vec::new(), moved: None };
    }
    let packed = message.properties().header(PARCEL).and_then(Value::as_bytes).cloned();
    let Some(packed) = packed else {
        return Parcel { message, hops: 0, keys: Vec::new(), moved: None };
    };
    let Wrapping { flags, hops, deliver_at, keys, moved } = read(packed).unwrap_or_default();
    let mut properties = message.properties().clone();
    properties.headers_mut().remove(PARCEL);
    if flags & HAD_HEADERS == 0 {
        properties.headers.take_if(|headers| headers.is_empty());
    }
    Parcel { message: rebuilt(&message, &properties, deliver_at), hops, keys, moved }
}

#[derive(Default)]
struct Wrapping {
    flags: u8,
    hops: u8,
    deliver_at: Time,
    keys: Vec<Bytes>,
    moved: Option<Moved>,
}

fn read(mut from: Bytes) -> Option<Wrapping> {
    let (flags, hops) = (from.try_get_u8().ok()?, from.try_get_u8().ok()?);
    let deliver_at = Time(from.try_get_u64_le().ok()?);
    let mut moved = None;
    if flags & MOVES != 0 {
        let since = Time(from.try_get_u64_le().ok()?);
        let expires = Time(from.try_get_u64_le().ok()?);
        let attempts = from.try_get_u32_le().ok()?;
        let name = part(&mut from)?;
        let to = Name::from(std::str::from_utf8(&name).ok()?);
        let gave_way = flags & GAVE_WAY != 0;
        moved = Some(Moved { to, since, expires, attempts, gave_way });
    }
    let mut keys = Vec::new();
    while !from.is_empty() {
        keys.push(part(&mut from)?);
    }
    Some(Wrapping { flags, hops, deliver_at, keys, moved })
}

fn part(from: &mut Bytes) -> Option<Bytes> {
    let size = from.try_get_u32_le().ok()? as usize;
    (size <= from.len()).then(|| from.split_to(size))
}

fn rebuilt(message: &Message, properties: &Properties, deliver_at: Time) -> Message {
    let mut own = Message::build(&Source {
        exchange: message.exchange(),
        key: message.key(),
        properties,
        body: message.body(),
        form: &NEUTRAL,
        persistent: message.persistent(),
        accepted: message.accepted,
    });
    own.id = message.id;
    own.deliver_at = deliver_at;
    own.again = message.again;
    own
}
