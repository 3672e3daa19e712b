//! AMQP's form of message properties, and their way to the neutral form and back.

use bytes::{BufMut, Bytes, BytesMut};
use pillarbox_amqp::{FieldValue, Properties as Fields, ShortString};

use super::value::{fields, short, table};
use crate::broker::{Delivery, Properties, WireForm};

/// Property flags and values as a content header carries them.
pub static AMQP: WireForm = WireForm { id: 1, name: "amqp-0-9-1", decode, encode };

fn decode(raw: &[u8]) -> Properties {
    // Bytes in this form passed `decode_content_header`; what a torn store gives back reads as none.
    let found = Fields::decode(raw).unwrap_or_default();
    Properties {
        content_type: found.content_type.map(ShortString::into_bytes),
        content_encoding: found.content_encoding.map(ShortString::into_bytes),
        headers: found.headers.map(table),
        delivery_mode: found.delivery_mode,
        priority: found.priority,
        correlation_id: found.correlation_id.map(ShortString::into_bytes),
        reply_to: found.reply_to.map(ShortString::into_bytes),
        expiration: found.expiration.map(ShortString::into_bytes),
        message_id: found.message_id.map(ShortString::into_bytes),
        timestamp: found.timestamp,
        kind: found.kind.map(ShortString::into_bytes),
        user_id: found.user_id.map(ShortString::into_bytes),
        app_id: found.app_id.map(ShortString::into_bytes),
        cluster_id: found.cluster_id.map(ShortString::into_bytes),
    }
}

fn encode(properties: &Properties, out: &mut Vec<u8>) {
    let mut wire = BytesMut::new();
    wire_fields(properties).encode(&mut wire);
    out.extend_from_slice(&wire);
}

fn wire_fields(properties: &Properties) -> Fields {
    let text = |bytes: &Option<Bytes>| bytes.as_ref().map(short);
    Fields {
        content_type: text(&properties.content_type),
        content_encoding: text(&properties.content_encoding),
        headers: properties.headers.as_ref().map(fields),
        delivery_mode: properties.delivery_mode,
        priority: properties.priority,
        correlation_id: text(&properties.correlation_id),
        reply_to: text(&properties.reply_to),
        expiration: text(&properties.expiration),
        message_id: text(&properties.message_id),
        timestamp: properties.timestamp,
        kind: text(&properties.kind),
        user_id: text(&properties.user_id),
        app_id: text(&properties.app_id),
        cluster_id: text(&properties.cluster_id),
    }
}

/// The properties of a delivery where they are not the message's own bytes:
/// it came in another form, or the broker adds headers.
pub(super) fn of_delivery(delivery: &Delivery) -> Option<BytesMut> {
    let attempts = delivery.attempts.filter(|attempts| *attempts > 0);
    let acquired = delivery.attempts.and(Some(delivery.acquired)).filter(|acquired| *acquired > 0);
    let foreign = delivery.message.form().id != AMQP.id;
    if let (false, None, Some(offset)) = (foreign, attempts, delivery.offset)
        && let Some(wire) = with_offset(delivery.message.property_bytes(), offset as i64)
    {
        return Some(wire);
    }
    if !foreign && attempts.is_none() && acquired.is_none() && delivery.offset.is_none() {
        return None;
    }
    let mut found = if foreign {
        wire_fields(delivery.message.properties())
    } else {
        Fields::decode(delivery.message.property_bytes()).unwrap_or_default()
    };
    let added = [
        ("x-delivery-count", attempts.map(i64::from)),
        ("x-acquired-count", acquired.map(i64::from)),
        ("x-stream-offset", delivery.offset.map(|offset| offset as i64)),
    ];
    for (name, number) in added {
        if let Some(number) = number {
            let headers = found.headers.get_or_insert_default();
            headers.insert(ShortString::from_static(name), FieldValue::I64(number));
        }
    }
    let mut wire = BytesMut::new();
    found.encode(&mut wire);
    Some(wire)
}

const OFFSET: &[u8] = b"x-stream-offset";

/// The offset as one more header, among bytes that stay as they are: streams are read back faster than decoded.
/// `None` where they have one already, or are not so simple.
fn with_offset(raw: &[u8], offset: i64) -> Option<BytesMut> {
    const CONTENT_TYPE: u16 = 1 << 15;
    const CONTENT_ENCODING: u16 = 1 << 14;
    const HEADERS: u16 = 1 << 13;
    const CONTINUED: u16 = 1;
    // Name and value of the header: two lengths and a type between them.
    const SIZE: usize = 1 + OFFSET.len() + 1 + 8;
    let flags = u16::from_be_bytes(*raw.first_chunk()?);
    if flags & CONTINUED != 0 {
        return None;
    }
    let mut at = 2;
    for text in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & text != 0 {
            at += 1 + usize::from(*raw.get(at)?);
        }
    }
    let (table, end) = if flags & HEADERS != 0 {
        let size = u32::from_be_bytes(*raw.get(at..)?.first_chunk()?) as usize;
        let end = at + 4 + size;
        (raw.get(at + 4..end)?, end)
    } else {
        (&[][..], at)
    };
    if table.windows(OFFSET.len()).any(|name| name == OFFSET) {
        return None;
    }
    let mut wire = BytesMut::with_capacity(raw.len() + 4 + SIZE);
    wire.put_u16(flags | HEADERS);
    wire.extend_from_slice(raw.get(2..at)?);
    wire.put_u32((table.len() + SIZE) as u32);
    wire.extend_from_slice(table);
    wire.put_u8(OFFSET.len() as u8);
    wire.extend_from_slice(OFFSET);
    wire.put_u8(b'l');
    wire.put_i64(offset);
    wire.extend_from_slice(&raw[end..]);
    Some(wire)
}

/// What the session changes of a publisher's properties before the broker sees them.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// Blind copies are for the exchange only.
    pub(super) without_bcc: bool,
    /// The place that answers shall go to (direct reply-to).
    pub(super) reply_to: Option<ShortString>,
}

impl Rewrite {
    pub(super) fn is_needed(&self) -> bool {
        self.without_bcc || self.reply_to.is_some()
    }

    pub(super) fn apply(&self, raw: &[u8], out: &mut BytesMut) {
        let mut found = Fields::decode(raw).unwrap_or_default();
        if self.without_bcc
            && let Some(headers) = &mut found.headers
        {
            headers.0.retain(|(key, _)| *key != "BCC");
        }
        if self.reply_to.is_some() {
            found.reply_to.clone_from(&self.reply_to);
        }
        found.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_amqp::FieldTable;

    #[test]
    fn offset_among_raw_bytes_is_as_if_decoded() {
        let headers = |names: &[&'static str]| {
            let values = names.iter().map(|it| (ShortString::from_static(it), FieldValue::I64(5)));
            Some(FieldTable(values.collect()))
        };
        let text = || Some(ShortString::from_static("text"));
        let all = [
            Fields::default(),
            Fields { content_type: text(), ..Fields::default() },
            Fields { content_encoding: text(), delivery_mode: Some(2), ..Fields::default() },
            Fields { headers: headers(&[]), cluster_id: text(), ..Fields::default() },
            Fields { content_type: text(), headers: headers(&["a", "b"]), ..Fields::default() },
            Fields { headers: headers(&["a", "x-stream-offset", "b"]), ..Fields::default() },
        ];
        for (at, mut sent) in all.into_iter().enumerate() {
            let mut raw = BytesMut::new();
            sent.encode(&mut raw);
            let fast = with_offset(&raw, 77);
            assert_eq!(fast.is_none(), at == 5, "one of its own is replaced the long way");
            for cut in 0..raw.len() {
                // Torn bytes are nobody's panic.
                drop(with_offset(&raw[..cut], 77));
            }
            let table = sent.headers.get_or_insert_default();
            table.insert(ShortString::from_static("x-stream-offset"), FieldValue::I64(77));
            let mut expected = BytesMut::new();
            sent.encode(&mut expected);
            assert_eq!(fast.unwrap_or_else(|| expected.clone()), expected);
        }
    }

    #[test]
    fn every_type_survives_both_ways() {
        let key = |text: &'static str| ShortString::from_static(text);
        let inner = FieldTable(vec![(key("a"), FieldValue::Void), (key("a"), FieldValue::I8(-1))]);
        let values = vec![
            FieldValue::Bool(true),
            FieldValue::I8(-8),
            FieldValue::U8(8),
            FieldValue::I16(-16),
            FieldValue::U16(16),
            FieldValue::I32(-32),
            FieldValue::U32(32),
            FieldValue::I64(-64),
            FieldValue::F32(1.5),
            FieldValue::F64(-2.5),
            FieldValue::Decimal { scale: 255, value: 7 },
            FieldValue::LongString(Bytes::from_static(b"\xFFtext")),
            FieldValue::Timestamp(u64::MAX),
            FieldValue::Table(inner),
            FieldValue::Array(vec![FieldValue::Void, FieldValue::Bool(false)]),
            FieldValue::Binary(Bytes::from_static(&[0, 1])),
            FieldValue::Void,
        ];
        let headers = FieldTable(
            values.into_iter().rev().map(|value| (key("same"), value)).collect::<Vec<_>>(),
        );
        let sent = Fields {
            content_type: Some(key("text/plain")),
            headers: Some(headers),
            delivery_mode: Some(3),
            timestamp: Some(u64::MAX),
            cluster_id: Some(key("")),
            ..Fields::default()
        };
        let mut raw = BytesMut::new();
        sent.encode(&mut raw);
        let mut again = Vec::new();
        encode(&decode(&raw), &mut again);
        assert_eq!(again, raw);
    }
}
