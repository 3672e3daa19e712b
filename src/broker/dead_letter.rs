//! Messages that leave a mailbox unread: what is written on them, and where they may go.

use std::sync::Arc;

use bytes::Bytes;

use super::command::{MailboxId, Seq};
use super::lane::Entry;
use super::mailbox::Mailbox;
use super::message::{Message, Properties};
use super::name::{Name, Time};
use super::routing::delay_ms;
use super::value::{Table, Value};

/// Why a message died, in the words of the `x-death` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
    /// By the host that it was for.
    Refused,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
            Self::Refused => "refused",
        }
    }
}

/// A message that left a mailbox and is to be routed again, in the same turn.
pub(super) struct Burial {
    pub(super) vhost: Name,
    pub(super) exchange: Name,
    pub(super) keys: Vec<Bytes>,
    pub(super) message: Arc<Message>,
    /// A death; otherwise the end of a delay.
    pub(super) dead: bool,
    /// Where it still lies until it has come to rest everywhere else.
    pub(super) waits: Option<(MailboxId, Seq)>,
}

/// Where dead letters go.
#[derive(Clone, Debug)]
pub(super) struct Grave {
    pub(super) exchange: Name,
    /// In place of the keys that they came with.
    pub(super) key: Option<Name>,
}

impl Grave {
    pub(super) fn of(mailbox: &Mailbox) -> Self {
        let limits = &mailbox.limits;
        let exchange = limits.dead_letter_exchange.clone().unwrap_or_else(|| "".into());
        Self { exchange, key: limits.dead_letter_key.clone() }
    }
}

impl Burial {
    pub(super) fn dead(
        mailbox: &Mailbox,
        grave: &Grave,
        message: &Message,
        reason: Reason,
        now: Time,
    ) -> Self {
        let exchange = grave.exchange.clone();
        let mut properties = message.properties().clone();
        let keys = keys_of(message, &properties);
        record_death(
            &mut properties,
            &Death {
                reason,
                mailbox: &mailbox.name,
                time: now,
                exchange: message.exchange(),
                keys: &keys,
            },
        );
        let keys = match &grave.key {
            Some(key) => {
                if let Some(headers) = &mut properties.headers {
                    headers.remove("CC");
                }
                vec![Bytes::copy_from_slice(key.as_bytes())]
            }
            None => keys,
        };
        let key = keys.first().cloned().unwrap_or_default();
        let message = Arc::new(message.readdressed(&exchange, &key, &properties));
        Self { vhost: mailbox.vhost.clone(), exchange, keys, message, dead: true, waits: None }
    }

    pub(super) fn due(vhost: Name, exchange: Name, entry: &Entry) -> Self {
        let message = &entry.message;
        let mut properties = message.properties().clone();
        let mut keys = keys_of(message, &properties);
        if let Some(Value::Array(blind)) = properties.headers_mut().remove(BLIND) {
            keys.extend(blind.iter().filter_map(Value::as_bytes).cloned());
        }
        // The sign is turned, so that publishing it again does not delay it again.
        if let Some(delay) = delay_ms(message) {
            let turned = -(delay as i64);
            let turned = i32::try_from(turned).map_or(Value::I64(turned), Value::I32);
            properties.headers_mut().set("x-delay", turned);
        }
        let key = Bytes::copy_from_slice(message.key());
        let message = Arc::new(message.readdressed(&exchange, &key, &properties));
        Self { vhost, exchange, keys, message, dead: false, waits: None }
    }
}

/// The header with keys that receivers must not see. Sessions take a publisher's away; it is here only while the
/// message waits for its time.
const BLIND: &str = "BCC";

/// The message as it can wait: with the keys that it does not show. `None` where there are no such keys.
pub(super) fn with_blind_keys(message: &Message, more_keys: &[Bytes]) -> Option<Message> {
    let mut properties = message.properties().clone();
    let shown = keys_of(message, &properties);
    let blind = more_keys.iter().filter(|key| !shown.contains(key));
    let blind: Vec<Value> = blind.cloned().map(Value::Text).collect();
    if blind.is_empty() {
        return None;
    }
    properties.headers_mut().set(BLIND, Value::Array(blind));
    Some(message.readdressed(message.exchange(), message.key(), &properties))
}

/// The routing key, then those of the CC header.
pub(super) fn keys_of(message: &Message, properties: &Properties) -> Vec<Bytes> {
    let mut keys = vec![Bytes::copy_from_slice(message.key())];
    if let Some(Value::Array(more)) = properties.header("CC") {
        keys.extend(more.iter().filter_map(Value::as_bytes).cloned());
    }
    keys
}

struct Death<'a> {
    reason: Reason,
    mailbox: &'a Name,
    time: Time,
    exchange: &'a Name,
    keys: &'a [Bytes],
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn record_death(properties: &mut Properties, death: &Death<'_>) {
    let expiration = properties.expiration.take();
    let headers = properties.headers_mut();
    let mut deaths = match headers.remove("x-death") {
        Some(Value::Array(deaths)) => deaths,
        _ => Vec::new(),
    };
    let same = |value: &Value| {
        matches!(value, Value::Table(table)
            if table.get("queue").and_then(Value::as_str) == Some(death.mailbox)
            && table.get("reason").and_then(Value::as_str) == Some(death.reason.as_str()))
    };
    let newest = match deaths.iter().position(same) {
        Some(at) => {
            let mut table = deaths.remove(at);
            if let Value::Table(table) = &mut table {
                let count = table.get("count").and_then(Value::as_i64).unwrap_or(0);
                table.set("count", Value::I64(count + 1));
            }
            table
        }
        None => {
            let mut table = Table::new();
            table.set("count", Value::I64(1));
            table.set("reason", text(death.reason.as_str()));
            table.set("queue", text(death.mailbox));
            table.set("time", Value::Timestamp(death.time.seconds()));
            table.set("exchange", text(death.exchange));
            let keys = death.keys.iter().cloned().map(Value::Text).collect();
            table.set("routing-keys", Value::Array(keys));
            if let Some(expiration) = expiration {
                table.set("original-expiration", Value::Text(expiration));
            }
            Value::Table(table)
        }
    };
    deaths.insert(0, newest);
    headers.set("x-death", Value::Array(deaths));
    if headers.get("x-first-death-reason").is_none() {
        headers.set("x-first-death-reason", text(death.reason.as_str()));
        headers.set("x-first-death-queue", text(death.mailbox));
        headers.set("x-first-death-exchange", text(death.exchange));
    }
    headers.set("x-last-death-reason", text(death.reason.as_str()));
    headers.set("x-last-death-queue", text(death.mailbox));
    headers.set("x-last-death-exchange", text(death.exchange));
}

/// Whether the message was in this mailbox before and nobody rejected it since: it would circle for ever.
pub(super) fn circles(message: &Message, mailbox: &Name) -> bool {
    let Some(Value::Array(deaths)) = message.properties().header("x-death") else { return false };
    let field = |value: &Value, name: &str, expected: &str| {
        matches!(value, Value::Table(table)
            if table.get(name).and_then(Value::as_str) == Some(expected))
    };
    let Some(at) = deaths.iter().position(|death| field(death, "queue", mailbox)) else {
        return false;
    };
    !deaths[..=at].iter().any(|death| field(death, "reason", "rejected"))
}
