//! Lists: what the broker shows of itself, as rows of named values.

use bytes::BufMut;
use pillarbox_native::{self as wire, Code, FLAG_MORE, FrameWriter, Kind};

use super::answer::Pending;
use super::open::Open;
use super::{MAIN, table};
use crate::broker::inspect::{ConnectionView, ConsumerView, Inspect, Inspection, MailboxView};
use crate::broker::{ConnectionId, Name, Request, Table, Value};
use crate::sessions::Outbox;

impl Open {
    pub(super) fn list(&mut self, id: u32, list: &wire::List<'_>, out: &mut Outbox) {
        let vhost = if list.vhost.is_empty() { self.vhost.clone() } else { Name::from(list.vhost) };
        let after = String::from_utf8_lossy(list.after);
        let after = (!list.after.is_empty()).then(|| Name::from(&*after));
        let count = list.count.clamp(1, self.settings.list_count_max) as usize;
        let inspect = match list.what {
            wire::List::MAILBOXES => Inspect::Mailboxes { vhost, after, count },
            wire::List::CONSUMERS => Inspect::Consumers { vhost, mailbox: Name::from(list.name) },
            wire::List::CONNECTIONS => {
                let after = after.and_then(|text| text.parse().ok()).map(ConnectionId);
                Inspect::Connections { after, count }
            }
            _ => {
                let text = "this broker has no such list";
                return self.refuse(id, Code::NotImplemented, text, out);
            }
        };
        self.ask(MAIN, Request::Inspect(inspect), Pending::List { id, count }, out);
    }
}

/// Writes the rows that were found; `count` of them may not be all.
pub(super) fn answer(id: u32, count: usize, found: Inspection, out: &mut Outbox) {
    let rows: Vec<Table> = match found {
        Inspection::Mailboxes(views) => views.into_iter().map(mailbox).collect(),
        Inspection::Consumers(views) => views.into_iter().map(consumer).collect(),
        Inspection::Connections(views) => views.into_iter().map(connection).collect(),
    };
    let flags = if rows.len() == count { FLAG_MORE } else { 0 };
    let frame = FrameWriter::begin(Kind::Done, flags, id, &mut out.wire);
    out.wire.put_u32_le(rows.len() as u32);
    for row in rows {
        table::put(row, &mut out.wire);
    }
    frame.seal(&mut out.wire);
}

fn mailbox(view: MailboxView) -> Table {
    let mut row = Table::new();
    row.set("name", Value::text(&view.name));
    row.set("ready", number(view.ready));
    row.set("unsettled", number(view.unsettled));
    row.set("consumers", number(view.consumers.into()));
    row.set("durable", Value::Bool(view.durable));
    row.set("kind", Value::text(view.kind));
    row.set("ready_bytes", number(view.ready_bytes));
    row.set("auto_delete", Value::Bool(view.auto_delete));
    row.set("exclusive", Value::Bool(view.exclusive));
    row.set("policy", view.policy.as_deref().map_or(Value::Void, Value::text));
    row.set("oldest_ms", view.oldest.map_or(Value::Void, |time| number(time.0)));
    row.set("arguments", Value::Table(view.arguments));
    row
}

fn consumer(view: ConsumerView) -> Table {
    let mut row = Table::new();
    row.set("tag", Value::text(&view.tag));
    row.set("connection", number(view.connection.0));
    row.set("channel", number(view.channel.0.into()));
    row.set("no_ack", Value::Bool(view.no_ack));
    row.set("exclusive", Value::Bool(view.exclusive));
    row.set("priority", Value::I32(view.priority));
    row.set("prefetch", number(view.prefetch.into()));
    row.set("unsettled", number(view.unsettled.into()));
    row.set("arguments", Value::Table(view.arguments));
    row
}

fn connection(view: ConnectionView) -> Table {
    let mut row = Table::new();
    row.set("id", number(view.id.0));
    row.set("user", Value::text(&view.user));
    row.set("vhost", Value::text(&view.vhost));
    row.set("protocol", Value::text(view.protocol));
    row.set("peer", Value::text(&view.peer));
    row.set("client_name", view.client_name.as_deref().map_or(Value::Void, Value::text));
    row.set("channels", number(view.channels.into()));
    row.set("consumers", number(view.consumers.into()));
    row.set("unsettled", number(view.unsettled));
    row
}

fn number(n: u64) -> Value {
    Value::I64(i64::try_from(n).unwrap_or(i64::MAX))
}
