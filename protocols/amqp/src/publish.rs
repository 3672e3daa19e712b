//! A publish and an ack, read in place: the two methods that clients send for every message.

use crate::method::{MethodError, method_ids};
use crate::reader::Reader;

const CLASS_BASIC: u16 = 60;
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const PUBLISH_ID: u16 = 40;
const ACK: [u8; 4] = [0, 60, 0, 80];

/// A basic.publish, borrowed from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRef<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    pub immediate: bool,
}

/// Whether a method payload begins with the ids of basic.publish.
#[inline]
pub fn is_publish(payload: &[u8]) -> bool {
    payload.starts_with(&PUBLISH)
}

/// Reads a basic.publish; another method's payload is an unknown method here.
#[inline]
pub fn decode_publish(payload: &[u8]) -> Result<PublishRef<'_>, MethodError> {
    let Some(arguments) = payload.strip_prefix(&PUBLISH) else {
        return Err(not_publish(payload));
    };
    let mut reader = Reader::new(arguments);
    let publish = read_publish(&mut reader)
        .ok_or(MethodError::Truncated { class: CLASS_BASIC, method: PUBLISH_ID })?;
    if reader.is_empty() {
        Ok(publish)
    } else {
        Err(MethodError::Trailing { class: CLASS_BASIC, method: PUBLISH_ID })
    }
}

fn read_publish<'a>(reader: &mut Reader<'a>) -> Option<PublishRef<'a>> {
    let _reserved = reader.u16()?;
    let exchange = reader.short()?;
    let routing_key = reader.short()?;
    let bits = reader.u8()?;
    Some(PublishRef { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

#[cold]
fn not_publish(payload: &[u8]) -> MethodError {
    match method_ids(payload) {
        Some((class, method)) => MethodError::UnknownMethod(class, method),
        None => MethodError::Truncated { class: 0, method: 0 },
    }
}

/// The delivery tag and the multiple bit, when the payload is exactly a basic.ack.
#[inline]
pub fn decode_ack(payload: &[u8]) -> Option<(u64, bool)> {
    let mut reader = Reader::new(payload.strip_prefix(&ACK)?);
    let delivery_tag = reader.u64()?;
    let bits = reader.u8()?;
    reader.is_empty().then_some((delivery_tag, bits & 1 != 0))
}
