//! Headers of SEND to properties of a message, and back to headers of MESSAGE.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use pillarbox_stomp::{Encoder, FrameWriter, Headers, ServerCommand};

use super::arguments::is_queue_argument;
use super::destination::{DestinationOf, has_known_prefix};
use super::error::Fault;
use crate::broker::{Delivery, Properties, TIME_SPAN_MAX_MS, Table, TableKey, Time, Value};

/// delivery-mode of a message that survives a restart.
const PERSISTENT: u8 = 2;

/// Reads the properties of a SEND. `reply-to` is taken as it stands.
pub(super) fn properties(headers: &Headers) -> Result<Properties, Fault> {
    let mut found = Properties::default();
    let mut table = Table::new();
    for (name, value) in headers.iter() {
        let text = || Some(Bytes::copy_from_slice(value.as_bytes()));
        match name {
            "destination" | "receipt" | "content-length" | "transaction" => {}
            "message-id" => {
                let detail = "'message-id' is not allowed on 'SEND'.";
                return Err(Fault::new("Invalid header", detail));
            }
            "content-type" => found.content_type = text(),
            "content-encoding" => found.content_encoding = text(),
            "correlation-id" => found.correlation_id = text(),
            "reply-to" => found.reply_to = text(),
            "amqp-message-id" => found.message_id = text(),
            "type" => found.kind = text(),
            "user-id" => found.user_id = text(),
            "app-id" => found.app_id = text(),
            "expiration" => {
                check_expiration(value)?;
                found.expiration = text();
            }
            "priority" => found.priority = Some(number(name, value)?),
            "timestamp" => found.timestamp = Some(number(name, value)?),
            "persistent" => {
                if value == "true" {
                    found.delivery_mode = Some(PERSISTENT);
                }
            }
            _ if is_queue_argument(name) => {}
            _ => {
                let name = TableKey(Bytes::copy_from_slice(name.as_bytes()));
                table.0.push((name, Value::text(value)));
            }
        }
    }
    if !table.is_empty() {
        found.headers = Some(table);
    }
    Ok(found)
}

pub(super) fn is_persistent(properties: &Properties) -> bool {
    properties.delivery_mode == Some(PERSISTENT)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Fault> {
    value.trim().parse().map_err(|_| Fault::invalid_header("SEND", name))
}

fn check_expiration(value: &str) -> Result<(), Fault> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<u64>() {
        Ok(ms) if digits && ms <= TIME_SPAN_MAX_MS => Ok(()),
        _ => Err(Fault::precondition(format_args!("invalid expiration '{value}'"))),
    }
}

/// Artemis's delays: so many milliseconds, or until a time in milliseconds since 1970.
pub(super) fn deliver_at(headers: &Headers, now: Time) -> Result<Time, Fault> {
    const DELAY: &str = "AMQ_SCHEDULED_DELAY";
    const TIME: &str = "AMQ_SCHEDULED_TIME";
    let latest = now.plus_ms(TIME_SPAN_MAX_MS);
    let (name, due) = match (headers.get(DELAY), headers.get(TIME)) {
        (Some(text), _) => (DELAY, now.plus_ms(number::<u32>(DELAY, text)?.into())),
        (None, Some(text)) => (TIME, Time(number(TIME, text)?)),
        (None, None) => return Ok(Time::ZERO),
    };
    if due > latest { Err(Fault::invalid_header("SEND", name)) } else { Ok(due) }
}

/// Artemis's `expires`, in milliseconds since 1970; 0 is never. `expiration` goes before it.
pub(super) fn expire(headers: &Headers, now: Time, of: &mut Properties) -> Result<(), Fault> {
    const EXPIRES: &str = "expires";
    let (Some(text), None) = (headers.get(EXPIRES), &of.expiration) else { return Ok(()) };
    let expires: u64 = number(EXPIRES, text)?;
    let left = expires.saturating_sub(now.0);
    if left > TIME_SPAN_MAX_MS {
        return Err(Fault::invalid_header("SEND", EXPIRES));
    }
    of.expiration = (expires > 0).then(|| left.to_string().into());
    Ok(())
}

/// What a MESSAGE says besides what its message says.
pub(super) struct MessageFrame<'a> {
    /// The id of the subscription, where the client gave one.
    pub(super) subscription: Option<&'a str>,
    pub(super) message_id: &'a str,
    /// The client is to acknowledge it by this header.
    pub(super) with_ack: bool,
    pub(super) topic_exchange: &'a str,
    pub(super) delivery: &'a Delivery,
}

impl MessageFrame<'_> {
    /// Writes the frame and returns how many headers it could not carry.
    pub(super) fn encode(
        &self,
        encoder: Encoder,
        scratch: &mut String,
        wire: &mut BytesMut,
    ) -> usize {
        let message = &*self.delivery.message;
        wire.reserve(message.size() + 256);
        let mut frame = encoder.begin(wire, ServerCommand::Message);
        if let Some(subscription) = self.subscription {
            frame.header("subscription", subscription);
        }
        let destination = DestinationOf { message, topic_exchange: self.topic_exchange };
        show(destination, scratch);
        frame.header("destination", scratch);
        frame.header("message-id", self.message_id);
        if self.with_ack {
            frame.header("ack", self.message_id);
        }
        frame.header("redelivered", if self.delivery.redelivered { "true" } else { "false" });
        let skipped = write_properties(message.properties(), scratch, &mut frame);
        if let Some(attempts) = self.delivery.attempts.filter(|attempts| *attempts > 0) {
            frame.header_number("x-delivery-count", attempts.into());
        }
        if let Some(offset) = self.delivery.offset {
            frame.header_number("x-stream-offset", offset);
        }
        skipped + frame.finish(message.body())
    }
}

fn show(shown: impl std::fmt::Display, scratch: &mut String) {
    scratch.clear();
    write!(scratch, "{shown}").expect("a String takes everything");
}

/// Writes every property and header that STOMP has words for; returns how many it has not.
fn write_properties(
    found: &Properties,
    scratch: &mut String,
    frame: &mut FrameWriter<'_>,
) -> usize {
    let mut skipped = 0;
    for (name, value) in [
        ("content-type", &found.content_type),
        ("content-encoding", &found.content_encoding),
        ("correlation-id", &found.correlation_id),
        ("expiration", &found.expiration),
        ("amqp-message-id", &found.message_id),
        ("type", &found.kind),
        ("user-id", &found.user_id),
        ("app-id", &found.app_id),
    ] {
        let Some(value) = value else { continue };
        match std::str::from_utf8(value) {
            Ok(value) => frame.header(name, value),
            Err(_) => skipped += 1,
        }
    }
    if let Some(address) = &found.reply_to {
        match std::str::from_utf8(address) {
            Ok(address) if has_known_prefix(address) => frame.header("reply-to", address),
            Ok(address) => {
                show(format_args!("/reply-queue/{address}"), scratch);
                frame.header("reply-to", scratch);
            }
            Err(_) => skipped += 1,
        }
    }
    if is_persistent(found) {
        frame.header("persistent", "true");
    }
    if let Some(priority) = found.priority {
        frame.header_number("priority", priority.into());
    }
    if let Some(timestamp) = found.timestamp {
        frame.header_number("timestamp", timestamp);
    }
    let Some(table) = &found.headers else { return skipped };
    for (name, value) in table.iter() {
        match std::str::from_utf8(name) {
            // Written by this side or not at all: a message does not speak for the broker.
            Ok(name) if is_own(name) || is_taken(name, found) => skipped += 1,
            Ok(name) if write_value(name, value, scratch, frame) => {}
            _ => skipped += 1,
        }
    }
    skipped
}

fn is_own(name: &str) -> bool {
    matches!(
        name,
        "subscription" | "destination" | "message-id" | "ack" | "redelivered" | "content-length"
    )
}

/// Whether the name was written as a property's.
fn is_taken(name: &str, found: &Properties) -> bool {
    match name {
        "content-type" => found.content_type.is_some(),
        "content-encoding" => found.content_encoding.is_some(),
        "correlation-id" => found.correlation_id.is_some(),
        "expiration" => found.expiration.is_some(),
        "amqp-message-id" => found.message_id.is_some(),
        "type" => found.kind.is_some(),
        "user-id" => found.user_id.is_some(),
        "app-id" => found.app_id.is_some(),
        "reply-to" => found.reply_to.is_some(),
        "persistent" => is_persistent(found),
        "priority" => found.priority.is_some(),
        "timestamp" => found.timestamp.is_some(),
        _ => false,
    }
}

/// Whether the value has a form that STOMP's text can carry.
fn write_value(
    name: &str,
    value: &Value,
    scratch: &mut String,
    frame: &mut FrameWriter<'_>,
) -> bool {
    match value {
        Value::Text(_) => match value.as_str() {
            Some(text) => frame.header(name, text),
            None => return false,
        },
        Value::Bool(yes) => frame.header(name, if *yes { "true" } else { "false" }),
        Value::Timestamp(seconds) => frame.header_number(name, *seconds),
        Value::F32(number) => {
            show(number, scratch);
            frame.header(name, scratch);
        }
        Value::F64(number) => {
            show(number, scratch);
            frame.header(name, scratch);
        }
        Value::I8(_)
        | Value::U8(_)
        | Value::I16(_)
        | Value::U16(_)
        | Value::I32(_)
        | Value::U32(_)
        | Value::I64(_) => {
            show(value.as_i64().unwrap_or_default(), scratch);
            frame.header(name, scratch);
        }
        Value::Decimal { .. }
        | Value::Table(_)
        | Value::Array(_)
        | Value::Binary(_)
        | Value::Void => return false,
    }
    true
}

/// Whether a header says yes.
pub(super) fn flag(headers: &Headers, name: &str) -> bool {
    headers.get(name) == Some("true")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pillarbox_stomp::Version;

    use super::*;
    use crate::broker::{
        ChannelId, ConsumerId, MailboxId, Message, NEUTRAL, Seq, Source, Time, Value,
    };

    fn sent(pairs: &[(&str, &str)]) -> Result<Properties, Fault> {
        properties(&pairs.iter().copied().collect())
    }

    fn written(properties: &Properties, version: Version) -> (String, usize) {
        let message = Message::build(&Source {
            exchange: &"".into(),
            key: b"q",
            properties,
            body: b"hi",
            form: &NEUTRAL,
            persistent: false,
            accepted: Time(0),
        });
        let delivery = Delivery {
            channel: ChannelId(0),
            consumer: ConsumerId(1),
            mailbox: MailboxId(1),
            seq: Seq(1),
            message: Arc::new(message),
            redelivered: false,
            attempts: Some(2),
            acquired: 0,
            offset: Some(7),
            settled: false,
        };
        let frame = MessageFrame {
            subscription: Some("0"),
            message_id: "T_0@@s@@1",
            with_ack: true,
            topic_exchange: "amq.topic",
            delivery: &delivery,
        };
        let mut wire = BytesMut::new();
        let skipped = frame.encode(Encoder::new(version), &mut String::new(), &mut wire);
        (String::from_utf8(wire.to_vec()).expect("the frame is text"), skipped)
    }

    #[test]
    fn every_property_crosses_and_comes_back() {
        let pairs = [
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("correlation-id", "c"),
            ("expiration", "1000"),
            ("amqp-message-id", "m"),
            ("type", "t"),
            ("user-id", "guest"),
            ("app-id", "a"),
            ("reply-to", "/queue/r"),
            ("persistent", "true"),
            ("priority", "7"),
            ("timestamp", "99"),
            ("colour", "red:ish"),
        ];
        let mut with_consumed = vec![
            ("destination", "/queue/q"),
            ("receipt", "r"),
            ("transaction", "t"),
            ("x-message-ttl", "5"),
        ];
        with_consumed.extend(pairs);
        let found = sent(&with_consumed).expect("all of them are valid");
        assert_eq!(found.delivery_mode, Some(2));
        assert_eq!(found.headers.as_ref().map(Table::len), Some(1));
        let (wire, skipped) = written(&found, Version::V12);
        assert_eq!(skipped, 0);
        let expected = pairs.map(|(name, value)| format!("{name}:{}\n", value.replace(':', "\\c")));
        assert_eq!(
            wire,
            format!(
                "MESSAGE\nsubscription:0\ndestination:/queue/q\nmessage-id:T_0@@s@@1\n\
                 ack:T_0@@s@@1\nredelivered:false\n{}x-delivery-count:2\nx-stream-offset:7\n\
                 content-length:2\n\nhi\0\n",
                expected.concat()
            )
        );
    }

    #[test]
    fn typed_headers_become_text_and_forged_ones_are_skipped() {
        let mut table = Table::new();
        table.set("n", Value::I16(-3));
        table.set("yes", Value::Bool(true));
        table.set("half", Value::F64(0.5));
        table.set("when", Value::Timestamp(12));
        table.set("list", Value::Array(vec![Value::Void]));
        table.set("table", Value::Table(Table::new()));
        table.set("bytes", Value::Text(Bytes::from_static(b"\xFF")));
        table.set("ack", Value::text("forged"));
        table.set("content-length", Value::text("0"));
        table.set("type", Value::text("not the property"));
        let found = Properties {
            headers: Some(table),
            kind: Some("t".into()),
            reply_to: Some("amq.gen-1".into()),
            ..Properties::default()
        };
        let (wire, skipped) = written(&found, Version::V11);
        assert_eq!(skipped, 6);
        let ours = wire.split("redelivered:false\n").nth(1).expect("the header is there");
        assert_eq!(
            ours.split("x-delivery-count").next(),
            Some("type:t\nreply-to:/reply-queue/amq.gen-1\nn:-3\nyes:true\nhalf:0.5\nwhen:12\n")
        );
    }

    #[test]
    fn header_that_breaks_lines_is_escaped_or_dropped() {
        let mut table = Table::new();
        table.set("odd", Value::text("a\r\nb:c"));
        table.set("nul", Value::text("\0"));
        let found = Properties { headers: Some(table), ..Properties::default() };
        for (version, dropped) in [(Version::V10, 2), (Version::V11, 1), (Version::V12, 1)] {
            let (wire, skipped) = written(&found, version);
            assert_eq!(skipped, dropped);
            assert_eq!(wire.contains("odd:a\\r\\nb\\cc\n"), version != Version::V10);
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        let message = |pair| sent(&[pair]).map_err(|fault| (fault.message, fault.closes));
        assert_eq!(message(("message-id", "1")), Err(("Invalid header", false)));
        assert_eq!(message(("priority", "256")), Err(("Invalid header", false)));
        assert_eq!(message(("timestamp", "now")), Err(("Invalid header", false)));
        for wrong in ["abc", "-1", "1e9", "", "+1", "9223372036854775808"] {
            assert_eq!(message(("expiration", wrong)), Err(("precondition_failed", true)));
        }
    }
}
