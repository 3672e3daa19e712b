//! The broker's own form of property bytes, for messages that come from protocols without one.
//!
//! ```text
//! flags u16, then each present field in the order of `Properties`:
//!   text  u32 length, bytes        number  u8 or u64
//!   table u32 count, (text key, value)*     value  tag u8, then its bytes
//! ```
//! All integers are little-endian.

use bytes::{Buf, BufMut, Bytes};

use super::message::{Properties, WireForm};
use super::value::{Table, TableKey, Value};

pub static NEUTRAL: WireForm = WireForm { id: 0, name: "neutral", decode, encode };

/// Deeper values are cut off; no accepted message has them.
const DEPTH_MAX: usize = 64;

fn encode(properties: &Properties, out: &mut Vec<u8>) {
    let p = properties;
    let texts = texts(p);
    let mut flags = 0u16;
    for (at, text) in texts.iter().enumerate() {
        flags |= u16::from(text.is_some()) << at;
    }
    flags |= u16::from(p.headers.is_some()) << 10;
    flags |= u16::from(p.delivery_mode.is_some()) << 11;
    flags |= u16::from(p.priority.is_some()) << 12;
    flags |= u16::from(p.timestamp.is_some()) << 13;
    out.put_u16_le(flags);
    for text in texts.into_iter().flatten() {
        put_text(text, out);
    }
    if let Some(headers) = &p.headers {
        put_table(headers, out);
    }
    out.extend(p.delivery_mode);
    out.extend(p.priority);
    if let Some(timestamp) = p.timestamp {
        out.put_u64_le(timestamp);
    }
}

fn texts(p: &Properties) -> [Option<&Bytes>; 10] {
    [
        p.content_type.as_ref(),
        p.content_encoding.as_ref(),
        p.correlation_id.as_ref(),
        p.reply_to.as_ref(),
        p.expiration.as_ref(),
        p.message_id.as_ref(),
        p.kind.as_ref(),
        p.user_id.as_ref(),
        p.app_id.as_ref(),
        p.cluster_id.as_ref(),
    ]
}

fn decode(bytes: &[u8]) -> Properties {
    read(bytes).unwrap_or_default()
}

fn read(mut from: &[u8]) -> Option<Properties> {
    let from = &mut from;
    let flags = from.try_get_u16_le().ok()?;
    let mut p = Properties::default();
    for (at, text) in [
        &mut p.content_type,
        &mut p.content_encoding,
        &mut p.correlation_id,
        &mut p.reply_to,
        &mut p.expiration,
        &mut p.message_id,
        &mut p.kind,
        &mut p.user_id,
        &mut p.app_id,
        &mut p.cluster_id,
    ]
    .into_iter()
    .enumerate()
    {
        if flags & (1 << at) != 0 {
            *text = Some(get_text(from)?);
        }
    }
    if flags & (1 << 10) != 0 {
        p.headers = Some(get_table(from, 0)?);
    }
    if flags & (1 << 11) != 0 {
        p.delivery_mode = Some(from.try_get_u8().ok()?);
    }
    if flags & (1 << 12) != 0 {
        p.priority = Some(from.try_get_u8().ok()?);
    }
    if flags & (1 << 13) != 0 {
        p.timestamp = Some(from.try_get_u64_le().ok()?);
    }
    Some(p)
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text);
}

fn get_text(from: &mut &[u8]) -> Option<Bytes> {
    let size = from.try_get_u32_le().ok()? as usize;
    let (text, rest) = from.split_at_checked(size)?;
    *from = rest;
    Some(Bytes::copy_from_slice(text))
}

fn put_table(table: &Table, out: &mut Vec<u8>) {
    out.put_u32_le(table.len() as u32);
    for (key, value) in table.iter() {
        put_text(key, out);
        put_value(value, out);
    }
}

fn get_table(from: &mut &[u8], depth: usize) -> Option<Table> {
    let count = from.try_get_u32_le().ok()?;
    (0..count)
        .map(|_| Some((TableKey(get_text(from)?), get_value(from, depth + 1)?)))
        .collect::<Option<Vec<_>>>()
        .map(Table)
}

fn put_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(it) => out.extend([0, u8::from(*it)]),
        Value::I8(it) => out.extend([1, *it as u8]),
        Value::U8(it) => out.extend([2, *it]),
        Value::I16(it) => {
            out.put_u8(3);
            out.put_i16_le(*it);
        }
        Value::U16(it) => {
            out.put_u8(4);
            out.put_u16_le(*it);
        }
        Value::I32(it) => {
            out.put_u8(5);
            out.put_i32_le(*it);
        }
        Value::U32(it) => {
            out.put_u8(6);
            out.put_u32_le(*it);
        }
        Value::I64(it) => {
            out.put_u8(7);
            out.put_i64_le(*it);
        }
        Value::F32(it) => {
            out.put_u8(8);
            out.put_f32_le(*it);
        }
        Value::F64(it) => {
            out.put_u8(9);
            out.put_f64_le(*it);
        }
        Value::Decimal { scale, value } => {
            out.extend([10, *scale]);
            out.put_u32_le(*value);
        }
        Value::Text(it) => {
            out.put_u8(11);
            put_text(it, out);
        }
        Value::Timestamp(it) => {
            out.put_u8(12);
            out.put_u64_le(*it);
        }
        Value::Table(it) => {
            out.put_u8(13);
            put_table(it, out);
        }
        Value::Array(it) => {
            out.put_u8(14);
            out.put_u32_le(it.len() as u32);
            for value in it {
                put_value(value, out);
            }
        }
        Value::Binary(it) => {
            out.put_u8(15);
            put_text(it, out);
        }
        Value::Void => out.put_u8(16),
    }
}

fn get_value(from: &mut &[u8], depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match from.try_get_u8().ok()? {
        0 => Value::Bool(from.try_get_u8().ok()? != 0),
        1 => Value::I8(from.try_get_i8().ok()?),
        2 => Value::U8(from.try_get_u8().ok()?),
        3 => Value::I16(from.try_get_i16_le().ok()?),
        4 => Value::U16(from.try_get_u16_le().ok()?),
        5 => Value::I32(from.try_get_i32_le().ok()?),
        6 => Value::U32(from.try_get_u32_le().ok()?),
        7 => Value::I64(from.try_get_i64_le().ok()?),
        8 => Value::F32(from.try_get_f32_le().ok()?),
        9 => Value::F64(from.try_get_f64_le().ok()?),
        10 => {
            let scale = from.try_get_u8().ok()?;
            Value::Decimal { scale, value: from.try_get_u32_le().ok()? }
        }
        11 => Value::Text(get_text(from)?),
        12 => Value::Timestamp(from.try_get_u64_le().ok()?),
        13 => Value::Table(get_table(from, depth)?),
        14 => {
            let count = from.try_get_u32_le().ok()?;
            let values = (0..count).map(|_| get_value(from, depth + 1));
            Value::Array(values.collect::<Option<Vec<_>>>()?)
        }
        15 => Value::Binary(get_text(from)?),
        16 => Value::Void,
        _ => return None,
    })
}
