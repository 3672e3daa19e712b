//! Short ways to say what clients say.

use std::sync::Arc;

use bytes::Bytes;

use super::house::{ONE, Seen};
use crate::broker::*;

pub(super) fn settlement(channel: ChannelId, seen: &Seen, outcome: Outcome) -> Settle {
    let Delivery { mailbox, seq, .. } = seen.delivery;
    let run = Run { mailbox, first: seq, count: 1 };
    Settle { channel, deliveries: [run].into_iter().collect(), outcome }
}

pub(super) fn mailbox(name: &str, arguments: &[(&str, Value)]) -> Request {
    Request::DeclareMailbox(declare(name, arguments))
}

pub(super) fn declare(name: &str, arguments: &[(&str, Value)]) -> DeclareMailbox {
    DeclareMailbox {
        name: name.into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: table(arguments),
        generated: false,
    }
}

pub(super) fn exchange(name: &str, kind: &str, arguments: &[(&str, Value)]) -> Request {
    Request::DeclareExchange(DeclareExchange {
        name: name.into(),
        kind: kind.into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(arguments),
    })
}

pub(super) fn binding(source: &str, mailbox: &str, key: &str) -> BindingOf {
    BindingOf {
        source: source.into(),
        destination: Destination::Mailbox(mailbox.into()),
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: Table::new(),
    }
}

pub(super) fn consume(mailbox: &str, consumer: u32) -> Consume {
    Consume {
        mailbox: mailbox.into(),
        consumer: ConsumerId(consumer),
        tag: format!("c{consumer}").into(),
        no_ack: false,
        exclusive: false,
        priority: 0,
        prefetch: 0,
        arguments: Table::new(),
        selection: None,
        bounded: false,
    }
}

pub(super) fn delete(name: &str) -> Request {
    Request::DeleteMailbox { name: name.into(), if_unused: false, if_empty: false }
}

pub(super) fn purge(name: &str) -> Request {
    Request::PurgeMailbox { name: name.into() }
}

pub(super) fn table(values: &[(&str, Value)]) -> Table {
    values.iter().map(|(name, value)| (TableKey::from(*name), value.clone())).collect()
}

pub(super) fn text(text: &str) -> Value {
    Value::text(text)
}

pub(super) fn int(number: i64) -> Value {
    Value::I64(number)
}

pub(super) fn policy(name: &str, pattern: &str, values: &[(&str, Value)]) -> PolicyDefinition {
    PolicyDefinition {
        vhost: "/".into(),
        name: name.into(),
        operator: false,
        pattern: pattern.into(),
        apply_to: "all".into(),
        priority: 0,
        definition: table(values),
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) channel: ChannelId,
    pub(super) exchange: Name,
    pub(super) key: String,
    pub(super) body: String,
    pub(super) persistent: bool,
    pub(super) properties: Properties,
    pub(super) more_keys: Vec<&'static str>,
    pub(super) confirm: Option<u64>,
    pub(super) mandatory: bool,
    pub(super) home: bool,
}

impl Post {
    pub(super) fn to(mailbox: &str, body: &str) -> Self {
        Self::by("", mailbox, body)
    }

    pub(super) fn by(exchange: &str, key: &str, body: &str) -> Self {
        Self {
            channel: ONE,
            exchange: exchange.into(),
            key: key.into(),
            body: body.into(),
            persistent: true,
            properties: Properties::default(),
            more_keys: Vec::new(),
            confirm: None,
            mandatory: false,
            home: false,
        }
    }

    pub(super) fn transient(mut self) -> Self {
        self.persistent = false;
        self
    }

    pub(super) fn priority(mut self, priority: u8) -> Self {
        self.properties.priority = Some(priority);
        self
    }

    pub(super) fn expiration(mut self, ms: u64) -> Self {
        self.properties.expiration = Some(ms.to_string().into());
        self
    }

    pub(super) fn header(mut self, name: &str, value: Value) -> Self {
        self.properties.headers_mut().set(name, value);
        self
    }

    pub(super) fn confirm(mut self, tag: u64) -> Self {
        self.confirm = Some(tag);
        self
    }

    /// The confirm waits for the hosts to which it goes.
    pub(super) fn home(mut self, tag: u64) -> Self {
        (self.confirm, self.home) = (Some(tag), true);
        self
    }

    pub(super) fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// As an AMQP session does: the header stays, and the keys are given too.
    pub(super) fn cc(mut self, keys: &[&'static str]) -> Self {
        self.more_keys = keys.to_vec();
        self.header("CC", Value::Array(keys.iter().map(|key| text(key)).collect()))
    }

    pub(super) fn publish(self, now: Time) -> Publish {
        let message = Message::build(&Source {
            exchange: &self.exchange,
            key: self.key.as_bytes(),
            properties: &self.properties,
            body: self.body.as_bytes(),
            form: &NEUTRAL,
            persistent: self.persistent,
            accepted: now,
        });
        let more: Vec<Bytes> = self.more_keys.iter().map(|key| Bytes::from(*key)).collect();
        Publish {
            channel: self.channel,
            message: Arc::new(message),
            more_keys: (!more.is_empty()).then(|| Box::new(more)),
            confirm: self.confirm,
            mandatory: self.mandatory,
            home: self.home,
        }
    }
}
