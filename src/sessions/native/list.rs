//! Lists: what the broker shows of itself, as rows of named values.

use bytes::{BufMut, Bytes};
use pillarbox_native::{self as wire, Code, FLAG_MORE, FrameWriter, Kind};

use super::answer::Pending;
use super::open::Open;
use super::{MAIN, table};
use crate::broker::inspect::{
    BindingsOf, ConnectionView, ConsumerView, CursorView, DelayedView, ExchangeView, Inspect,
    Inspection, KeyView, MailboxView,
};
use crate::broker::{
    BindingDefinition, ConnectionId, Definition, DefinitionKind, Destination, DrainView, Holder,
    Limited, Name, PeerView, PolicyDefinition, Repeat, Request, Seq, Table, Time, Value,
};
use crate::sessions::Outbox;

impl Open {
    pub(super) fn list(&mut self, id: u32, list: &wire::List<'_>, out: &mut Outbox) {
        let vhost = if list.vhost.is_empty() { self.vhost.clone() } else { Name::from(list.vhost) };
        let after = String::from_utf8_lossy(list.after);
        let count = list.count.clamp(1, self.settings.list_count_max) as usize;
        let skip = after.parse().unwrap_or(0);
        let definitions = |kind, vhost| Inspect::Definitions { kind, vhost, skip, count };
        let inspect = match list.what {
            wire::List::MAILBOXES => {
                let after = (!after.is_empty()).then(|| Name::from(&*after));
                Inspect::Mailboxes { vhost, after, count }
            }
            wire::List::EXCHANGES => {
                // The default exchange has no name, and is the first.
                let after = after.strip_prefix(EXCHANGE).map(Name::from);
                Inspect::Exchanges { vhost, after, count }
            }
            wire::List::BINDINGS => {
                Inspect::Bindings { vhost, of: BindingsOf::default(), skip, count }
            }
            wire::List::USERS => definitions(DefinitionKind::User, None),
            wire::List::PERMISSIONS => definitions(DefinitionKind::Permission, None),
            wire::List::VHOSTS => definitions(DefinitionKind::Vhost, None),
            wire::List::CONSUMERS if !list.name.is_empty() => {
                Inspect::Consumers { vhost, mailbox: list.name.into() }
            }
            wire::List::KEYS if !list.name.is_empty() => {
                let after = list.after;
                let after = (!after.is_empty()).then(|| Bytes::copy_from_slice(after));
                Inspect::Keys { vhost, mailbox: list.name.into(), after, count }
            }
            wire::List::CURSORS if !list.name.is_empty() => {
                let after = (!after.is_empty()).then(|| Name::from(&*after));
                Inspect::Cursors { vhost, mailbox: list.name.into(), after, count }
            }
            wire::List::CONNECTIONS => {
                Inspect::Connections { after: after.parse().ok().map(ConnectionId), count }
            }
            wire::List::DELAYED => {
                let place = |text: &str| {
                    let (due, seq) = text.split_once('-')?;
                    Some((Time(due.parse().ok()?), Seq(seq.parse().ok()?)))
                };
                Inspect::Delayed { vhost, mailbox: list.name.into(), after: place(&after), count }
            }
            wire::List::POLICIES => {
                let after = after.split_once(' ').map(|(of, name)| (of == OPERATOR, name.into()));
                Inspect::Policies { vhost, after, count }
            }
            wire::List::PEERS => {
                let after = (!after.is_empty()).then(|| Name::from(&*after));
                Inspect::Peers { after, count }
            }
            wire::List::DRAIN => Inspect::Drain,
            wire::List::LIMITS => Inspect::Quotas { after: after.parse().unwrap_or(0), count },
            _ => {
                let text = "this broker has no such list";
                return self.refuse(id, Code::NotImplemented, text, out);
            }
        };
        self.ask(MAIN, Request::Inspect(inspect), Pending::List { id, count, skip }, out);
    }
}

/// Writes the rows that were found; `count` of them may not be all.
/// Rows that are known by number begin after `skip`.
pub(super) fn answer(id: u32, count: usize, skip: usize, found: Inspection, out: &mut Outbox) {
    let numbered = |rows: Vec<Row>| {
        let number = |(at, mut row): (usize, Row)| {
            row.text("cursor", &(skip + at + 1).to_string());
            row.0
        };
        (rows.into_iter().enumerate().map(number).collect(), false)
    };
    let (rows, whole): (Vec<Table>, bool) = match found {
        Inspection::Mailboxes(views) => (views.into_iter().map(mailbox).collect(), false),
        Inspection::Exchanges(views) => (views.into_iter().map(exchange).collect(), false),
        Inspection::Bindings(found) => numbered(found.into_iter().map(binding).collect()),
        Inspection::Definitions(found) => numbered(found.into_iter().map(definition).collect()),
        Inspection::Consumers(views) => (views.into_iter().map(consumer).collect(), true),
        Inspection::Keys(views) => (views.into_iter().map(key).collect(), false),
        Inspection::Cursors(views) => (views.into_iter().map(cursor).collect(), false),
        Inspection::Connections(views) => (views.into_iter().map(connection).collect(), false),
        Inspection::Delayed(views) => (views.into_iter().map(delayed).collect(), false),
        Inspection::Policies(found) => (found.into_iter().map(policy).collect(), false),
        Inspection::Peers(views) => (views.into_iter().map(peer).collect(), false),
        Inspection::Drain(view) => (vec![drain(&view)], false),
        Inspection::Quotas(found) => (found.iter().map(limit).collect(), false),
        // Lists that this session never asks for.
        _ => (Vec::new(), true),
    };
    let flags = if rows.len() == count && !whole { FLAG_MORE } else { 0 };
    let frame = FrameWriter::begin(Kind::Done, flags, id, &mut out.wire);
    out.wire.put_u32_le(rows.len() as u32);
    for row in rows {
        table::put(row, &mut out.wire);
    }
    frame.seal(&mut out.wire);
}

fn mailbox(view: MailboxView) -> Table {
    let counts = view.counts;
    let mut row = Row::default();
    row.text("name", &view.name);
    row.text("kind", view.kind);
    row.number("ready", view.ready);
    row.number("ready_bytes", view.ready_bytes);
    row.number("unsettled", view.unsettled);
    row.number("delayed", view.delayed);
    row.number("consumers", view.consumers.into());
    row.flag("durable", view.durable);
    row.flag("auto_delete", view.auto_delete);
    row.flag("exclusive", view.exclusive);
    for (name, policy) in [("policy", &view.policy), ("operator_policy", &view.operator_policy)] {
        if let Some(policy) = policy {
            row.text(name, policy);
        }
    }
    if !view.arguments.is_empty() {
        row.0.set("arguments", Value::Table(view.arguments));
    }
    if let Some(oldest) = view.oldest {
        row.number("oldest_ms", oldest.0);
    }
    for (name, count) in [
        ("published", counts.published),
        ("delivered", counts.delivered),
        ("redelivered", counts.redelivered),
        ("settled", counts.settled),
        ("expired", counts.expired),
        ("dropped", counts.dropped),
        ("dead_lettered", counts.dead_lettered),
        ("purged", counts.purged),
        ("damaged", counts.damaged),
    ] {
        row.number(name, count);
    }
    row.0
}

fn exchange(view: ExchangeView) -> Table {
    let it = view.definition;
    let mut row = Row::default();
    row.text("name", &it.name);
    row.text("cursor", &format!("{EXCHANGE}{}", it.name));
    row.text("kind", &it.kind);
    row.flag("durable", it.durable);
    row.flag("auto_delete", it.auto_delete);
    row.flag("internal", it.internal);
    if let Some(policy) = &view.policy {
        row.text("policy", policy);
    }
    if !it.arguments.is_empty() {
        row.0.set("arguments", Value::Table(it.arguments));
    }
    row.number("published", view.passage.inwards);
    row.number("routed", view.passage.outwards);
    row.0
}

fn binding(it: BindingDefinition) -> Row {
    let mut row = Row::default();
    row.text("source", &it.source);
    row.text("destination", it.destination.name());
    row.flag("to_exchange", matches!(it.destination, Destination::Exchange(_)));
    row.0.set("key", Value::Text(it.key.0));
    if !it.arguments.is_empty() {
        row.0.set("arguments", Value::Table(it.arguments));
    }
    row
}

/// Hashes of passwords are not shown.
fn definition(it: Definition) -> Row {
    let mut row = Row::default();
    match it {
        Definition::User(user) => {
            row.text("name", &user.name);
            row.texts("tags", &user.credential.tags);
            row.flag("loopback_only", user.credential.loopback_only);
        }
        Definition::Permission(it) => {
            row.text("vhost", &it.vhost);
            row.text("user", &it.user);
            row.text("configure", &it.configure);
            row.text("write", &it.write);
            row.text("read", &it.read);
        }
        Definition::Vhost(it) => {
            row.text("name", &it.name);
            row.text("description", &it.description);
            row.texts("tags", &it.tags);
            row.text("default_queue_type", it.default_queue_type.as_deref().unwrap_or_default());
            row.flag("tracing", it.tracing);
            row.flag("protected", it.protected);
        }
        // This session asks for no others.
        _ => {}
    }
    row
}

fn consumer(view: ConsumerView) -> Table {
    let mut row = Row::default();
    row.text("name", &view.tag);
    row.number("connection", view.connection.0);
    row.number("channel", view.channel.0.into());
    row.number("prefetch", view.prefetch.into());
    row.number("unsettled", view.unsettled.into());
    row.0.set("priority", Value::I32(view.priority));
    row.flag("exclusive", view.exclusive);
    row.flag("no_ack", view.no_ack);
    row.0
}

fn connection(view: ConnectionView) -> Table {
    let mut row = Row::default();
    row.number("id", view.id.0);
    row.text("cursor", &view.id.0.to_string());
    row.text("user", &view.user);
    row.text("vhost", &view.vhost);
    row.text("protocol", view.protocol);
    row.text("peer", &view.peer);
    row.text("name", view.client_name.as_deref().unwrap_or_default());
    row.number("channels", view.channels.into());
    row.number("consumers", view.consumers.into());
    row.number("unsettled", view.unsettled);
    row.0
}

fn peer(view: PeerView) -> Table {
    let mut row = Row::default();
    row.text("name", &view.host);
    if !view.tags.is_empty() {
        let tags = view.tags.iter().map(|tag| Value::text(tag)).collect();
        row.0.set("tags", Value::Array(tags));
    }
    let state = |since: Option<Time>| if since.is_some() { "up" } else { "down" };
    row.text("to", state(view.carried_since));
    row.text("from", state(view.greeted_since));
    row.number("messages", view.messages);
    row.number("bytes", view.bytes);
    for (name, time) in [
        ("oldest_ms", view.oldest),
        ("to_since_ms", view.carried_since),
        ("from_since_ms", view.greeted_since),
    ] {
        if let Some(time) = time {
            row.number(name, time.0);
        }
    }
    row.number("mailboxes", view.mailboxes);
    row.number("bindings", view.bindings);
    row.number("arrived", view.arrived);
    row.number("repeated", view.repeated);
    row.number("refused", view.refused);
    if let Some((at, error)) = &view.error {
        row.text("error", error);
        row.number("error_ms", at.0);
    }
    if !view.shadowed.is_empty() {
        let names = view.shadowed.iter().map(|name| Value::text(name)).collect();
        row.0.set("shadowed", Value::Array(names));
    }
    row.0
}

fn drain(view: &DrainView) -> Table {
    let mut row = Row::default();
    row.flag("draining", view.draining);
    row.number("connections", view.connections);
    row.number("unsettled", view.unsettled);
    row.number("waiting", view.waiting);
    row.number("untold", view.untold);
    row.number("resting", view.resting);
    row.0
}

fn delayed(view: DelayedView) -> Table {
    let mut row = Row::default();
    row.text("cursor", &format!("{}-{}", view.due.0, view.seq.0));
    row.number("due_ms", view.due.0);
    row.number("position", view.seq.0);
    if let Some(message) = view.message {
        row.text("exchange", message.exchange());
        row.text("key", &String::from_utf8_lossy(message.key()));
        row.number("bytes", message.body().len() as u64);
        if let Ok(Some(repeat)) = Repeat::of(message.properties()) {
            row.text("repeat", &repeat.to_string());
        }
    }
    row.0
}

/// Begin the cursors of policies.
const OPERATOR: &str = "operator";
const USER: &str = "user";
/// Begins the cursors of exchanges.
const EXCHANGE: &str = "/";

fn key(view: KeyView) -> Table {
    let mut row = Row::default();
    row.0.set("name", Value::Text(view.key));
    row.number("offset", view.offset);
    row.number("values", view.values.into());
    row.0
}

fn cursor(view: CursorView) -> Table {
    let mut row = Row::default();
    row.text("name", &view.name);
    row.flag("group", view.group);
    row.number("offset", view.offset);
    row.number("lag", view.lag);
    if view.group {
        row.number("members", view.members.into());
        row.number("unsettled", view.unsettled);
        row.number("returned", view.returned);
        row.number("missed", view.missed);
    }
    row.0
}

fn policy(it: PolicyDefinition) -> Table {
    let mut row = Row::default();
    row.text("name", &it.name);
    let of = if it.operator { OPERATOR } else { USER };
    row.text("cursor", &format!("{of} {}", it.name));
    row.flag("operator", it.operator);
    row.text("vhost", &it.vhost);
    row.text("pattern", &it.pattern);
    row.text("apply_to", &it.apply_to);
    row.0.set("priority", Value::I64(it.priority));
    row.0.set("definition", Value::Table(it.definition));
    row.0
}

fn limit(it: &Limited) -> Table {
    let mut row = Row::default();
    let (of, name) = match &it.holder {
        Holder::User(name) => ("user", name),
        Holder::Vhost(name) => ("vhost", name),
    };
    row.text("cursor", &it.place.to_string());
    row.text("of", of);
    row.text("name", name);
    row.text("limit", it.quota.name());
    row.number("value", it.most);
    row.0
}

#[derive(Default)]
pub(super) struct Row(pub(super) Table);

impl Row {
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.0.set(name, Value::text(text));
    }

    fn texts(&mut self, name: &str, texts: &[String]) {
        self.0.set(name, Value::Array(texts.iter().map(|text| Value::text(text)).collect()));
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.0.set(name, Value::I64(i64::try_from(number).unwrap_or(i64::MAX)));
    }

    pub(super) fn binary(&mut self, name: &str, bytes: &[u8]) {
        self.0.set(name, Value::Binary(Bytes::copy_from_slice(bytes)));
    }

    pub(super) fn flag(&mut self, name: &str, yes: bool) {
        self.0.set(name, Value::Bool(yes));
    }
}
