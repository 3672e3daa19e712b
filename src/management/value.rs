//! Tables of arguments and headers as JSON, and back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

use super::Fault;
use crate::broker::{Table, TableKey, Value};

pub fn table_to_json(table: &Table) -> Json {
    let mut object = Map::new();
    for (name, value) in table.iter() {
        // Of a name that stands twice, the first counts.
        object.entry(String::from_utf8_lossy(name)).or_insert_with(|| to_json(value));
    }
    Json::Object(object)
}

fn to_json(value: &Value) -> Json {
    let float = |it: f64| Number::from_f64(it).map_or(Json::Null, Json::Number);
    match value {
        Value::Bool(it) => Json::Bool(*it),
        Value::I8(_)
        | Value::U8(_)
        | Value::I16(_)
        | Value::U16(_)
        | Value::I32(_)
        | Value::U32(_)
        | Value::I64(_) => value.as_i64().map_or(Json::Null, Json::from),
        Value::F32(it) => float((*it).into()),
        Value::F64(it) => float(*it),
        Value::Decimal { scale, value } => float(f64::from(*value) / 10f64.powi((*scale).into())),
        Value::Text(it) => Json::from(String::from_utf8_lossy(it)),
        Value::Timestamp(it) => Json::from(*it),
        Value::Table(it) => table_to_json(it),
        Value::Array(it) => it.iter().map(to_json).collect(),
        Value::Binary(it) => Json::from(STANDARD.encode(it)),
        Value::Void => Json::Null,
    }
}

/// What `arguments` or `headers` hold; missing or null is an empty table.
pub fn table_of(json: Option<&Json>, what: &str) -> Result<Table, Fault> {
    match json {
        None | Some(Json::Null) => Ok(Table::new()),
        // RabbitMQ's own exports write an empty table of arguments so.
        Some(Json::Array(list)) if list.is_empty() => Ok(Table::new()),
        Some(Json::Object(object)) => table(object),
        Some(_) => Err(Fault::bad_request(format!("'{what}' is no object"))),
    }
}

fn table(object: &Map<String, Json>) -> Result<Table, Fault> {
    let values =
        object.iter().map(|(name, value)| Ok((TableKey::from(&**name), from_json(value)?)));
    values.collect()
}

/// Whole numbers have 64 bits.
pub fn from_json(json: &Json) -> Result<Value, Fault> {
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(it) => Value::Bool(*it),
        Json::Number(it) => match (it.as_i64(), it.as_f64()) {
            (Some(whole), _) => Value::I64(whole),
            (None, Some(float)) if it.is_f64() => Value::F64(float),
            _ => return Err(Fault::bad_request(format!("number out of range: {it}"))),
        },
        Json::String(it) => Value::text(it),
        Json::Array(it) => Value::Array(it.iter().map(from_json).collect::<Result<_, _>>()?),
        Json::Object(it) => Value::Table(table(it)?),
    })
}
