//! `x-…` headers that are arguments of a queue or of a consumer.

use pillarbox_stomp::Headers;

use super::error::Fault;
use crate::broker::{Table, Value};

enum Form {
    Number,
    Text,
    Flag,
}

/// Arguments of the queue that SEND or SUBSCRIBE declares.
const OF_QUEUE: &[(&str, Form)] = &[
    ("x-queue-type", Form::Text),
    ("x-message-ttl", Form::Number),
    ("x-expires", Form::Number),
    ("x-max-length", Form::Number),
    ("x-max-length-bytes", Form::Number),
    ("x-max-priority", Form::Number),
    ("x-overflow", Form::Text),
    ("x-dead-letter-exchange", Form::Text),
    ("x-dead-letter-routing-key", Form::Text),
    ("x-single-active-consumer", Form::Flag),
    ("x-delivery-limit", Form::Number),
    ("x-retry-delays", Form::Text),
    ("x-retry-jitter", Form::Number),
    ("x-message-deduplication", Form::Flag),
    ("x-deduplication-window", Form::Number),
    ("x-keep-settled-for", Form::Number),
    ("x-message-groups", Form::Text),
    ("x-cache-size", Form::Number),
    ("x-max-age", Form::Text),
    ("x-max-history", Form::Number),
    ("x-stream-max-segment-size-bytes", Form::Number),
    ("x-stream-filter-size-bytes", Form::Number),
];

/// The name of the mailbox behind a `/topic` or `/exchange` subscription.
pub(super) const QUEUE_NAME: &str = "x-queue-name";

pub(super) fn is_queue_argument(name: &str) -> bool {
    name.starts_with("x-") && (name == QUEUE_NAME || OF_QUEUE.iter().any(|(it, _)| *it == name))
}

pub(super) fn queue_arguments(command: &str, headers: &Headers) -> Result<Table, Fault> {
    let mut arguments = Table::new();
    for (name, form) in OF_QUEUE {
        if let Some(text) = headers.get(name) {
            let invalid = || Fault::invalid_header(command, name);
            arguments.set(
                name,
                match form {
                    Form::Number => Value::I64(text.trim().parse().map_err(|_| invalid())?),
                    Form::Text => Value::text(text),
                    Form::Flag => Value::Bool(text.parse().map_err(|_| invalid())?),
                },
            );
        }
    }
    Ok(arguments)
}

pub(super) fn consumer_arguments(headers: &Headers) -> Result<Table, Fault> {
    let mut arguments = Table::new();
    let invalid = |name| Fault::invalid_header("SUBSCRIBE", name);
    if let Some(text) = headers.get("x-priority") {
        arguments.set("x-priority", Value::I64(priority(text)?.into()));
    }
    if let Some(text) = headers.get("x-stream-offset") {
        let offset = match text.split_once('=') {
            None => Value::text(text),
            Some(("offset", number)) => {
                Value::I64(number.parse().map_err(|_| invalid("x-stream-offset"))?)
            }
            Some(("timestamp", seconds)) => {
                Value::Timestamp(seconds.parse().map_err(|_| invalid("x-stream-offset"))?)
            }
            Some(_) => return Err(invalid("x-stream-offset")),
        };
        arguments.set("x-stream-offset", offset);
    }
    if let Some(text) = headers.get("x-stream-filter") {
        let filters = text.split(',').map(|filter| Value::text(filter.trim())).collect();
        arguments.set("x-stream-filter", Value::Array(filters));
    }
    if let Some(text) = headers.get("x-stream-until") {
        let until = match text.parse() {
            Ok(offset) => Value::I64(offset),
            Err(_) => Value::text(text),
        };
        arguments.set("x-stream-until", until);
    }
    for name in ["x-key", "x-stream-cursor", "x-stream-automatic-offset-tracking", "x-group"] {
        if let Some(text) = headers.get(name) {
            arguments.set(name, Value::text(text));
        }
    }
    if headers.get("x-group").is_some() {
        let texts = [
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-retry-delays",
            "x-single-active-consumer",
        ];
        for name in texts {
            if let Some(text) = headers.get(name) {
                arguments.set(name, Value::text(text));
            }
        }
        for name in ["x-delivery-limit", "x-consumer-timeout", "x-retry-jitter"] {
            if let Some(text) = headers.get(name) {
                let number = text.trim().parse().map_err(|_| invalid(name))?;
                arguments.set(name, Value::I64(number));
            }
        }
    }
    if let Some(text) = headers.get("x-stream-match-unfiltered") {
        arguments.set("x-stream-match-unfiltered", Value::Bool(text == "true"));
    }
    Ok(arguments)
}

pub(super) fn priority(text: &str) -> Result<i32, Fault> {
    text.trim().parse().map_err(|_| Fault::invalid_header("SUBSCRIBE", "x-priority"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().copied().collect()
    }

    #[test]
    fn queue_arguments_have_their_types() {
        let found = queue_arguments(
            "SEND",
            &headers(&[
                ("x-queue-name", "n"),
                ("x-max-length", "10"),
                ("x-dead-letter-exchange", "dead"),
                ("x-single-active-consumer", "true"),
                ("x-other", "stays a header"),
            ]),
        )
        .expect("all of them are valid");
        let expected: Table = [
            ("x-max-length".into(), Value::I64(10)),
            ("x-dead-letter-exchange".into(), Value::text("dead")),
            ("x-single-active-consumer".into(), Value::Bool(true)),
        ]
        .into_iter()
        .collect();
        assert_eq!(found, expected);
        assert!(queue_arguments("SEND", &headers(&[("x-expires", "soon")])).is_err());
        assert!(is_queue_argument("x-queue-name") && !is_queue_argument("x-other"));
    }

    #[test]
    fn stream_offsets_have_three_forms() {
        let offset = |text| {
            let found = consumer_arguments(&headers(&[("x-stream-offset", text)])).ok()?;
            found.get("x-stream-offset").cloned()
        };
        assert_eq!(offset("first"), Some(Value::text("first")));
        assert_eq!(offset("offset=7"), Some(Value::I64(7)));
        assert_eq!(offset("timestamp=99"), Some(Value::Timestamp(99)));
        assert_eq!(offset("offset=x"), None);
        assert_eq!(offset("since=1"), None);
    }
}
