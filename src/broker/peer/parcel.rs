//! What a message in an outbox carries besides itself, in a header that no client sees: hops, further keys, its time.
//!
//! ```text
//! flags u8 (1: it had headers before), hops u8, deliver_at u64, then each key: u32 length, bytes
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::broker::message::{Message, Source};
use crate::broker::name::Time;
use crate::broker::neutral::NEUTRAL;
use crate::broker::value::Value;

/// Taken out of whatever a client publishes towards another host.
const PARCEL: &str = "x-pillarbox-parcel";
const HAD_HEADERS: u8 = 1;

/// What came out of an outbox.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    pub(super) hops: u8,
    /// What to route by instead of the message's own key.
    pub(super) keys: Vec<Bytes>,
}

/// The message as it rests in an outbox. Keys, if any, are all that it shall be routed by.
pub(crate) fn pack(message: &Arc<Message>, keys: &[Bytes], hops: u8) -> Arc<Message> {
    let plain = keys.is_empty() && hops == 0 && message.deliver_at == Time::ZERO;
    let marked = message.properties().header(PARCEL).is_some();
    if plain && !marked {
        return message.clone();
    }
    let mut properties = message.properties().clone();
    if plain {
        properties.headers_mut().remove(PARCEL);
    } else {
        let mut bytes = vec![u8::from(properties.headers.is_some()) * HAD_HEADERS, hops];
        bytes.put_u64_le(message.deliver_at.0);
        for key in keys {
            bytes.put_u32_le(key.len() as u32);
            bytes.put_slice(key);
        }
        properties.headers_mut().set(PARCEL, Value::Binary(bytes.into()));
    }
    Arc::new(rebuilt(message, &properties, Time::ZERO))
}

/// What was packed. Damage counts as nothing packed.
pub(super) fn unpack(message: Message) -> Parcel {
    let packed = message.properties().header(PARCEL).and_then(Value::as_bytes).cloned();
    let Some(packed) = packed else { return Parcel { message, hops: 0, keys: Vec::new() } };
    let (flags, hops, deliver_at, keys) = read(packed).unwrap_or_default();
    let mut properties = message.properties().clone();
    properties.headers_mut().remove(PARCEL);
    if flags & HAD_HEADERS == 0 {
        properties.headers.take_if(|headers| headers.is_empty());
    }
    Parcel { message: rebuilt(&message, &properties, deliver_at), hops, keys }
}

fn read(mut from: Bytes) -> Option<(u8, u8, Time, Vec<Bytes>)> {
    let (flags, hops) = (from.try_get_u8().ok()?, from.try_get_u8().ok()?);
    let deliver_at = Time(from.try_get_u64_le().ok()?);
    let mut keys = Vec::new();
    while let Ok(size) = from.try_get_u32_le() {
        let size = size as usize;
        if size > from.len() {
            return None;
        }
        keys.push(from.split_to(size));
    }
    from.is_empty().then_some((flags, hops, deliver_at, keys))
}

fn rebuilt(
    message: &Message,
    properties: &crate::broker::message::Properties,
    deliver_at: Time,
) -> Message {
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
