//! Messages between the core's form and that of the wire.

use bytes::Bytes;
use pillarbox_native::{ForwardedRef, Malformed, PropertiesRef};

use crate::broker::{Message, MessageId, NEUTRAL, Name, Parts, Seq, Span, Time};

/// A message to be written. `scratch` takes properties that come from another protocol's form.
pub(super) fn forwarded<'a>(
    message: &'a Message,
    seq: Seq,
    again: bool,
    scratch: &'a mut Vec<u8>,
) -> ForwardedRef<'a> {
    let properties = if std::ptr::eq(message.form(), &raw const NEUTRAL) {
        message.property_bytes()
    } else {
        scratch.clear();
        (NEUTRAL.encode)(message.properties(), scratch);
        scratch
    };
    ForwardedRef {
        seq: seq.0,
        persistent: message.persistent(),
        again,
        exchange: message.exchange(),
        key: message.key(),
        id: message.id.0,
        accepted_ms: message.accepted.0,
        properties,
        body: message.body(),
    }
}

/// Messages as they come in.
pub(super) struct Reception {
    size_max: u64,
    /// Neighbours mostly have the same.
    exchange: Name,
}

/// Why a message cannot be taken.
pub(super) enum Unfit {
    Malformed(Malformed),
    TooLarge,
}

impl Reception {
    pub(super) fn new(size_max: u64) -> Self {
        Self { size_max, exchange: "".into() }
    }

    /// A slice of what came in.
    pub(super) fn message(
        &mut self,
        it: &ForwardedRef<'_>,
        bytes: &Bytes,
    ) -> Result<Message, Unfit> {
        let found = PropertiesRef::parse(it.properties).map_err(Unfit::Malformed)?;
        if (it.properties.len() + it.body.len()) as u64 > self.size_max {
            return Err(Unfit::TooLarge);
        }
        if self.exchange != *it.exchange {
            self.exchange = it.exchange.into();
        }
        let number = |text| std::str::from_utf8(text).ok()?.parse().ok();
        let parts = Parts {
            exchange: self.exchange.clone(),
            buffer: bytes.clone(),
            key: span(it.key, bytes),
            properties: span(it.properties, bytes),
            body: span(it.body, bytes),
            form: &NEUTRAL,
            persistent: it.persistent,
            priority: found.priority.unwrap_or(0),
            expiration_ms: found.expiration.and_then(number),
        };
        Ok(Message::restored(parts, MessageId(it.id), Time(it.accepted_ms)))
    }
}

/// Where a part of a buffer stands.
fn span(part: &[u8], whole: &Bytes) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize) as u32;
    Span { start, end: start + part.len() as u32 }
}
