//! Field values of the wire and values of the broker: the same types under two roofs.

use pillarbox_amqp::{FieldTable, FieldValue, ReplyCode, ShortString};

use super::reply::{Fault, Ids};
use crate::broker::{Table, TableKey, Value};

/// A table that came off the wire.
pub(super) fn table(fields: FieldTable) -> Table {
    fields.into_iter().map(|(key, field)| (TableKey(key.into_bytes()), value(field))).collect()
}

/// The arguments of a method. A name may stand there once only.
pub(super) fn arguments(fields: FieldTable, ids: Ids) -> Result<Table, Fault> {
    let mut keys: Vec<&[u8]> = fields.iter().map(|(key, _)| key.as_bytes()).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        let text = format!("duplicate argument '{}'", String::from_utf8_lossy(pair[0]));
        return Err(Fault::new(ReplyCode::SYNTAX_ERROR, text, ids));
    }
    Ok(table(fields))
}

/// A table for the wire. A key past 255 bytes is cut.
pub(super) fn fields(table: &Table) -> FieldTable {
    table.0.iter().map(|(key, value)| (short(&key.0), field(value))).collect()
}

pub(super) fn short(bytes: &bytes::Bytes) -> ShortString {
    let cut = bytes.slice(..bytes.len().min(ShortString::LEN_MAX));
    ShortString::try_from(cut).unwrap_or_default()
}

fn value(field: FieldValue) -> Value {
    match field {
        FieldValue::Bool(it) => Value::Bool(it),
        FieldValue::I8(it) => Value::I8(it),
        FieldValue::U8(it) => Value::U8(it),
        FieldValue::I16(it) => Value::I16(it),
        FieldValue::U16(it) => Value::U16(it),
        FieldValue::I32(it) => Value::I32(it),
        FieldValue::U32(it) => Value::U32(it),
        FieldValue::I64(it) => Value::I64(it),
        FieldValue::F32(it) => Value::F32(it),
        FieldValue::F64(it) => Value::F64(it),
        FieldValue::Decimal { scale, value } => Value::Decimal { scale, value },
        FieldValue::LongString(it) => Value::Text(it),
        FieldValue::Timestamp(it) => Value::Timestamp(it),
        FieldValue::Table(it) => Value::Table(table(it)),
        FieldValue::Array(it) => Value::Array(it.into_iter().map(value).collect()),
        FieldValue::Binary(it) => Value::Binary(it),
        FieldValue::Void => Value::Void,
    }
}

fn field(value: &Value) -> FieldValue {
    match value {
        Value::Bool(it) => FieldValue::Bool(*it),
        Value::I8(it) => FieldValue::I8(*it),
        Value::U8(it) => FieldValue::U8(*it),
        Value::I16(it) => FieldValue::I16(*it),
        Value::U16(it) => FieldValue::U16(*it),
        Value::I32(it) => FieldValue::I32(*it),
        Value::U32(it) => FieldValue::U32(*it),
        Value::I64(it) => FieldValue::I64(*it),
        Value::F32(it) => FieldValue::F32(*it),
        Value::F64(it) => FieldValue::F64(*it),
        Value::Decimal { scale, value } => FieldValue::Decimal { scale: *scale, value: *value },
        Value::Text(it) => FieldValue::LongString(it.clone()),
        Value::Timestamp(it) => FieldValue::Timestamp(*it),
        Value::Table(it) => FieldValue::Table(fields(it)),
        Value::Array(it) => FieldValue::Array(it.iter().map(field).collect()),
        Value::Binary(it) => FieldValue::Binary(it.clone()),
        Value::Void => FieldValue::Void,
    }
}
