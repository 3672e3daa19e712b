//! Whether a second declaration means the same, and RabbitMQ's words where it does not.

use crate::broker::{DeclareExchange, ExchangeDefinition, Kind, Refusal, Value};

/// Kind, flags and the alternate exchange, in this order; other arguments are not compared.
pub(super) fn check(current: &ExchangeDefinition, wanted: &DeclareExchange) -> Result<(), Refusal> {
    let refusal = |argument: &str, difference: String| Refusal::Inequivalent {
        argument: argument.into(),
        kind: Kind::Exchange,
        name: current.name.clone(),
        vhost: current.vhost.clone(),
        difference,
    };
    if current.kind != wanted.kind {
        let difference = format!("received '{}' but current is '{}'", wanted.kind, current.kind);
        return Err(refusal("type", difference));
    }
    for (argument, current, wanted) in [
        ("durable", current.durable, wanted.durable),
        ("auto_delete", current.auto_delete, wanted.auto_delete),
        ("internal", current.internal, wanted.internal),
    ] {
        if current != wanted {
            let difference = format!("received '{wanted}' but current is '{current}'");
            return Err(refusal(argument, difference));
        }
    }
    let name = super::ALTERNATE;
    match difference(current.arguments.get(name), wanted.arguments.get(name)) {
        Some(difference) => Err(refusal(name, difference)),
        None => Ok(()),
    }
}

/// In which words a declared argument differs from the current one.
pub fn difference(current: Option<&Value>, wanted: Option<&Value>) -> Option<String> {
    match (current, wanted) {
        (None, None) => None,
        (Some(current), Some(wanted)) if current == wanted => None,
        (Some(current), Some(wanted)) => {
            Some(format!("received '{}' but current is '{}'", bare(wanted), bare(current)))
        }
        (current, wanted) => {
            Some(format!("received {} but current is {}", described(wanted), described(current)))
        }
    }
}

fn described(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(value) => format!("the value '{}' of type '{}'", bare(value), type_name(value)),
    }
}

/// A value without its type, as RabbitMQ prints it.
pub fn bare(value: &Value) -> String {
    match value {
        Value::Bool(yes) => yes.to_string(),
        Value::F32(number) => format!("{number:?}"),
        Value::F64(number) => format!("{number:?}"),
        Value::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        Value::Text(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(seconds) => seconds.to_string(),
        Value::Table(_) | Value::Array(_) => format!("{value:?}"),
        Value::Void => "undefined".into(),
        other => other.as_i64().map(|number| number.to_string()).unwrap_or_default(),
    }
}

/// RabbitMQ's name of a value's type.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) => "longstr",
        Value::Timestamp(_) => "timestamp",
        Value::Table(_) => "table",
        Value::Array(_) => "array",
        Value::Binary(_) => "binary",
        Value::Void => "void",
    }
}

/// Bytes as Erlang shows them: some of RabbitMQ's texts have them so.
pub(super) fn erlang_binary(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "<<>>".into();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("<<{text:?}>>"),
        Err(_) => {
            let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
            format!("<<{}>>", numbers.join(","))
        }
    }
}
