//! The firehose: copies of what is published and delivered in a virtual host, for who wants to look at its traffic.
//!
//! RabbitMQ's form: to `amq.rabbitmq.trace`, with key `publish.EXCHANGE` or `deliver.QUEUE`, the body as it was and the rest
//! in headers. Off unless the virtual host says so, and then every publish takes the long way.

use std::sync::Arc;

use bytes::Bytes;

use super::Broker;
use super::command::{ChannelId, ConnectionId, MailboxId};
use super::dead_letter::keys_of;
use super::event::{Delivery, Effect, Event, Reply};
use super::message::{Message, Properties, Source};
use super::name::{Name, Time};
use super::neutral::NEUTRAL;
use super::publish::Origin;
use super::value::{Table, Value};

/// Messages of this exchange are copies themselves, of which there are none.
const EXCHANGE: &str = "amq.rabbitmq.trace";

/// Where and whose a copied message is.
struct Scene<'a> {
    vhost: &'a Name,
    connection: ConnectionId,
    channel: ChannelId,
}

/// A message, its further routing keys, and where they lead.
pub(super) struct Published<'a> {
    pub(super) message: &'a Message,
    pub(super) more_keys: &'a [Bytes],
    pub(super) targets: &'a [MailboxId],
}

impl Broker {
    /// After a virtual host changed.
    pub(super) fn note_tracing(&mut self) {
        self.tracing = self.vhosts.values().any(|it| it.definition.tracing);
    }

    pub(super) fn traces(&self, vhost: &Name) -> bool {
        self.tracing && self.vhosts.get(vhost).is_some_and(|it| it.definition.tracing)
    }

    /// Whether what a connection publishes is copied.
    pub(super) fn traces_of(&self, from: ConnectionId) -> bool {
        self.tracing && self.whose(from).is_ok_and(|(_, vhost)| self.traces(&vhost))
    }

    pub(super) fn trace_published(
        &mut self,
        (connection, channel): (ConnectionId, ChannelId),
        vhost: &Name,
        published: &Published<'_>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Published { message, more_keys, targets } = published;
        let routed = targets.iter().filter_map(|id| self.mailboxes.get(id));
        let routed = routed.map(|mailbox| text(mailbox.name.as_bytes())).collect();
        let scene = Scene { vhost, connection, channel };
        let keys = std::iter::once(message.key()).chain(more_keys.iter().map(|key| &key[..]));
        let mut headers = self.describe(&scene, message, keys.map(text).collect());
        headers.set("routed_queues", Value::Array(routed));
        let key = format!("publish.{}", message.exchange());
        self.copy(vhost, &key, headers, message, now, out);
    }

    /// Copies what was delivered since, and what that sets going, until nothing more is.
    pub(super) fn trace_delivered(&mut self, mut start: usize, now: Time, out: &mut Vec<Effect>) {
        while start < out.len() {
            let seen: Vec<_> = out[start..].iter().flat_map(deliveries).collect();
            start = out.len();
            for (connection, delivery) in seen {
                self.trace_delivery(connection, &delivery, now, out);
            }
            self.finish(now, out);
        }
    }

    fn trace_delivery(
        &mut self,
        connection: ConnectionId,
        delivery: &Delivery,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let message = &delivery.message;
        let Some(mailbox) = self.mailboxes.get(&delivery.mailbox) else { return };
        let (vhost, name) = (mailbox.vhost.clone(), mailbox.name.clone());
        // Links and this process have no user.
        let known = self.connections.get(&connection).is_some_and(|it| it.open.is_some());
        if !known || !self.traces(&vhost) || **message.exchange() == *EXCHANGE {
            return;
        }
        let scene = Scene { vhost: &vhost, connection, channel: delivery.channel };
        let keys = keys_of(message, message.properties()).into_iter().map(Value::Text).collect();
        let mut headers = self.describe(&scene, message, keys);
        headers.set("redelivered", Value::I32(delivery.redelivered.into()));
        self.copy(&vhost, &format!("deliver.{name}"), headers, message, now, out);
    }

    fn describe(&self, scene: &Scene<'_>, message: &Message, keys: Vec<Value>) -> Table {
        let open = self.connections.get(&scene.connection).and_then(|it| it.open.as_ref());
        let user = open.map_or("", |it| &it.user);
        let connection = open.map_or_else(String::new, |it| format!("{} -> {}", it.peer, it.local));
        let mut headers = Table::new();
        headers.set("exchange_name", text(message.exchange().as_bytes()));
        headers.set("routing_keys", Value::Array(keys));
        headers.set("properties", Value::Table(described(message.properties())));
        headers.set("node", text(b"pillarbox"));
        headers.set("vhost", text(scene.vhost.as_bytes()));
        headers.set("connection", text(connection.as_bytes()));
        headers.set("channel", Value::I32(scene.channel.0.into()));
        headers.set("user", text(user.as_bytes()));
        headers
    }

    fn copy(
        &mut self,
        vhost: &Name,
        key: &str,
        headers: Table,
        message: &Message,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let exchange = Name::from(EXCHANGE);
        let key = &key.as_bytes()[..key.floor_char_boundary(Name::SIZE_MAX)];
        let properties = Properties { headers: Some(headers), ..Properties::default() };
        let mut copy = Message::build(&Source {
            exchange: &exchange,
            key,
            properties: &properties,
            body: message.body(),
            form: &NEUTRAL,
            persistent: false,
            accepted: now,
        });
        copy.id = self.next_id(now);
        let copy = Arc::new(copy);
        let (targets, _) = self.follow(vhost, &exchange, (key, &[]), &copy, None);
        self.place(&targets, copy, Origin::Mailbox, now, out);
    }
}

/// Those of an effect, and to whom.
fn deliveries(effect: &Effect) -> Vec<(ConnectionId, Delivery)> {
    match effect {
        Effect::Notify(to, event) => {
            event.deliveries().iter().map(|delivery| (*to, delivery.clone())).collect()
        }
        Effect::NotifyDurable(to, Event::Reply { result: Ok(Reply::Got(Some(got))), .. }) => {
            vec![(*to, got.0.clone())]
        }
        _ => Vec::new(),
    }
}

/// Properties as a table, under AMQP's names.
fn described(properties: &Properties) -> Table {
    let p = properties;
    let mut table = Table::new();
    for (name, value) in p.texts() {
        table.set(name, Value::Text(value.clone()));
    }
    if let Some(headers) = &p.headers {
        table.set("headers", Value::Table(headers.clone()));
    }
    for (name, value) in [("delivery_mode", p.delivery_mode), ("priority", p.priority)] {
        if let Some(value) = value {
            table.set(name, Value::I32(value.into()));
        }
    }
    if let Some(timestamp) = p.timestamp {
        table.set("timestamp", Value::Timestamp(timestamp));
    }
    table
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(Bytes::copy_from_slice(bytes))
}
