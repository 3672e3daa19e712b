//! Vega's message: a map of properties and a body, as JSON, msgpack or a form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::msgpack;
use crate::broker::{Properties, Table, TableKey, Value};
use crate::client::{Delivery, NewMessage};

const JSON: &str = "application/json";
const MSGPACK: &str = "application/x-msgpack";
const FORM: &str = "application/x-www-form-urlencoded";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Msgpack,
}

/// A message as it came in.
#[derive(Debug)]
pub(super) struct Envelope(pub(super) NewMessage);

impl Form {
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        let msgpack = |it: &str| essence(it) == MSGPACK || essence(it) == "application/msgpack";
        let wanted = accept.is_some_and(|accept| accept.split(',').any(msgpack));
        if wanted { Self::Msgpack } else { Self::Json }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Msgpack => MSGPACK,
        }
    }
}

/// A media type without its parameters.
fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim()
}

impl Envelope {
    /// JSON where nothing is said. Any other type of content is the body itself.
    pub(super) fn read(content_type: &str, body: &Bytes) -> Result<Self, String> {
        let fields = match essence(content_type) {
            "" | JSON => {
                let json: Json =
                    serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
                let Json::Object(fields) = json else { return Err("not a JSON object".into()) };
                let mut fields = table(fields);
                let body = fields.0.iter_mut().find(|(name, _)| name.0 == *"body");
                if let Some((_, value)) = body {
                    let text = value.as_str().ok_or("'body' is not text")?;
                    let bytes = STANDARD.decode(text).map_err(|_| "'body' is not base64")?;
                    *value = Value::Binary(bytes.into());
                }
                fields
            }
            MSGPACK | "application/msgpack" => match msgpack::decode(body)? {
                Value::Table(fields) => fields,
                _ => return Err("not a msgpack map".into()),
            },
            FORM => form(body)?,
            other => {
                let message = NewMessage::new(body.clone());
                let other = Bytes::copy_from_slice(other.as_bytes());
                return Ok(Self(message.with(|it| it.content_type = Some(other))));
            }
        };
        message(fields).map(Self)
    }
}

fn message(fields: Table) -> Result<NewMessage, String> {
    let mut body = Bytes::new();
    let mut p = Properties::default();
    for (name, value) in fields.0 {
        let name = String::from_utf8_lossy(&name.0).into_owned();
        if matches!(value, Value::Void) {
            continue;
        }
        let number = || {
            let text = value.as_str().and_then(|it| it.parse().ok());
            value.as_i64().or(text).ok_or_else(|| format!("'{name}' is no whole number"))
        };
        let place = match &*name {
            "headers" => {
                let Value::Table(headers) = value else { return Err("'headers' is no map".into()) };
                p.headers = Some(headers);
                continue;
            }
            "priority" => {
                let wrong = |_| "'priority' is not from 0 to 255".to_owned();
                p.priority = Some(u8::try_from(number()?).map_err(wrong)?);
                continue;
            }
            "timestamp" => {
                let wrong = |_| "'timestamp' is before 1970".to_owned();
                p.timestamp = Some(u64::try_from(number()?).map_err(wrong)?);
                continue;
            }
            "body" => {
                body = value.as_bytes().cloned().ok_or("'body' is neither text nor bytes")?;
                continue;
            }
            "content_type" => &mut p.content_type,
            "content_encoding" => &mut p.content_encoding,
            "correlation_id" => &mut p.correlation_id,
            "reply_to" => &mut p.reply_to,
            "message_id" => &mut p.message_id,
            "type" => &mut p.kind,
            "user_id" => &mut p.user_id,
            "app_id" => &mut p.app_id,
            _ => return Err(format!("a message has no field '{name}'")),
        };
        let text = value.as_bytes().cloned().ok_or_else(|| format!("'{name}' is no text"))?;
        // Go writes what is not set as an empty text.
        *place = (!text.is_empty()).then_some(text);
    }
    let properties = (p != Properties::default()).then(|| Box::new(p));
    Ok(NewMessage { body, properties, ..NewMessage::default() })
}

/// The message as bytes, and its id, whose last part is the key of the lease.
pub(super) fn write(delivery: &Delivery, key: u128, form: Form) -> (Vec<u8>, String) {
    let p = delivery.properties();
    let own = p.message_id.as_ref().map(|it| String::from_utf8_lossy(it).into_owned());
    let own = own.unwrap_or_else(|| format!("msg-{:032x}", delivery.id.unwrap_or_default()));
    let id = format!("{own}:{key:032x}");
    let mut fields = Table::new();
    fields.set("message_id", Value::text(&id));
    for (name, text) in [
        ("content_type", p.content_type),
        ("content_encoding", p.content_encoding),
        ("correlation_id", p.correlation_id),
        ("reply_to", p.reply_to),
        ("type", p.kind),
        ("user_id", p.user_id),
        ("app_id", p.app_id),
    ] {
        if let Some(text) = text {
            fields.set(name, Value::Text(text));
        }
    }
    if let Some(priority) = p.priority {
        fields.set("priority", Value::U8(priority));
    }
    if let Some(timestamp) = p.timestamp {
        fields.set("timestamp", Value::I64(timestamp as i64));
    }
    if let Some(headers) = p.headers {
        fields.set("headers", Value::Table(headers));
    }
    if delivery.redelivered {
        fields.set("redelivered", Value::Bool(true));
    }
    let body = delivery.body_bytes();
    let bytes = match form {
        Form::Msgpack => {
            fields.set("body", Value::Binary(body));
            msgpack::encode(&Value::Table(fields))
        }
        Form::Json => {
            fields.set("body", Value::text(&STANDARD.encode(body)));
            json(&Value::Table(fields)).to_string().into_bytes()
        }
    };
    (bytes, id)
}

fn table(fields: Map<String, Json>) -> Table {
    Table(fields.into_iter().map(|(name, it)| (TableKey(name.into()), value(it))).collect())
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Void,
        Json::Bool(yes) => Value::Bool(yes),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::I64(number),
            None => Value::F64(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::Text(text.into()),
        Json::Array(all) => Value::Array(all.into_iter().map(value).collect()),
        Json::Object(fields) => Value::Table(table(fields)),
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Bool(yes) => Json::Bool(*yes),
        Value::F32(number) => Json::from(*number),
        Value::F64(number) => Json::from(*number),
        Value::Decimal { scale, value } => {
            Json::from(f64::from(*value) / 10f64.powi((*scale).into()))
        }
        Value::Text(text) => Json::from(String::from_utf8_lossy(text)),
        Value::Binary(bytes) => Json::from(STANDARD.encode(bytes)),
        Value::Timestamp(seconds) => Json::from(*seconds),
        Value::Table(fields) => {
            let pair = |(name, value): (&Bytes, &Value)| {
                (String::from_utf8_lossy(name).into_owned(), json(value))
            };
            Json::Object(fields.iter().map(pair).collect())
        }
        Value::Array(all) => Json::Array(all.iter().map(json).collect()),
        Value::Void => Json::Null,
        number => number.as_i64().map_or(Json::Null, Json::from),
    }
}

/// `name=value&name=value`, with `+` and `%` as browsers write them.
pub(super) fn form(body: &[u8]) -> Result<Table, String> {
    let mut fields = Table::new();
    for pair in body.split(|it| *it == b'&').filter(|it| !it.is_empty()) {
        let at = pair.iter().position(|it| *it == b'=').unwrap_or(pair.len());
        let name = decoded(&pair[..at])?;
        let name = std::str::from_utf8(&name).map_err(|_| "a field's name is no text")?;
        let value = decoded(pair.get(at + 1..).unwrap_or_default())?;
        fields.set(name, Value::Text(value.into()));
    }
    Ok(fields)
}

fn decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = behind.first_chunk::<2>().ok_or("a '%' without two digits")?;
                let digits = std::str::from_utf8(digits).ok();
                let byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
                bytes.push(byte.ok_or("a '%' without two digits")?);
                rest = &behind[2..];
            }
            other => bytes.push(other),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, body: &[u8]) -> Result<NewMessage, String> {
        Envelope::read(content_type, &Bytes::copy_from_slice(body)).map(|it| it.0)
    }

    #[test]
    fn json_msgpack_and_a_form_say_the_same() {
        let json = read("", br#"{"correlation_id":"7","priority":3,"body":"aGVsbG8="}"#).unwrap();
        let form = read(FORM, b"correlation_id=7&priority=3&body=hel%6Co").unwrap();
        let mut packed = vec![0x83];
        packed.extend_from_slice(b"\xaecorrelation_id\xa17\xa8priority\x03\xa4body\xc4\x05hello");
        let packed = read(MSGPACK, &packed).unwrap();
        for message in [&json, &form, &packed] {
            assert_eq!(message.body, "hello");
            assert_eq!(message.properties, json.properties);
        }
        let properties = json.properties.unwrap();
        assert_eq!(properties.priority, Some(3));
        assert_eq!(properties.correlation_id.as_deref(), Some(&b"7"[..]));
    }

    #[test]
    fn other_content_is_the_body_itself() {
        let message = read("text/plain; charset=utf-8", b"it's\0").unwrap();
        assert_eq!(message.body, &b"it's\0"[..]);
        let kind = message.properties.unwrap().content_type.unwrap();
        assert_eq!(kind, "text/plain");
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        for (body, reason) in [
            (&br#"{"body":"?"}"#[..], "'body' is not base64"),
            (br#"{"prio":1}"#, "no field 'prio'"),
            (br#"{"priority":300}"#, "'priority' is not from 0 to 255"),
            (br#"[]"#, "not a JSON object"),
            (br#"{"#, "no JSON"),
        ] {
            let error = read(JSON, body).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(read(FORM, b"body=%4").is_err());
    }
}
