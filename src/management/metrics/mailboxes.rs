//! Each mailbox by itself.

use super::objects::Families;
use super::table::{Column, Kind, Number, Table};
use crate::broker::inspect::MailboxView;
use crate::broker::{Counts, Time};

/// What is kept of a mailbox until its metrics are written.
pub struct Mailbox {
    ready: u64,
    ready_bytes: u64,
    unsettled: u64,
    unsettled_bytes: u64,
    consumers: u32,
    consumers_busy: bool,
    counts: Counts,
    oldest: Option<Time>,
    oldest_age_ms: u64,
}

/// An empty table of mailboxes.
pub fn table(families: Families<'_>) -> Table<Mailbox> {
    Table::new(&COLUMNS, families)
}

pub fn add(table: &mut Table<Mailbox>, views: &[MailboxView], now: Time) {
    for it in views {
        let mailbox = Mailbox {
            ready: it.ready,
            ready_bytes: it.ready_bytes,
            unsettled: it.unsettled,
            unsettled_bytes: it.unsettled_bytes,
            consumers: it.consumers,
            consumers_busy: it.consumers_busy,
            counts: it.counts,
            oldest: it.oldest,
            oldest_age_ms: it.oldest.map_or(0, |oldest| now.since_ms(oldest)),
        };
        table.add(&[("vhost", &*it.vhost), ("queue", &*it.name)], mailbox);
    }
}

const COARSE: &[&str] = &["queue_coarse_metrics"];
const WHOLE: &[&str] = &["queue_metrics"];
const CONSUMERS: &[&str] = &["queue_metrics", "queue_consumer_count"];
const DELIVERY: &[&str] = &["queue_delivery_metrics"];

type One = Column<Mailbox>;

const COLUMNS: [One; 22] = [
    gauge(COARSE, "queue_messages_ready", "Messages ready to be delivered", |it| whole(it.ready)),
    gauge(COARSE, "queue_messages_unacked", "Messages delivered and not yet settled", |it| {
        whole(it.unsettled)
    }),
    gauge(COARSE, "queue_messages", "Messages ready or not settled", |it| {
        whole(it.ready + it.unsettled)
    }),
    gauge(CONSUMERS, "queue_consumers", "Consumers", |it| whole(it.consumers.into())),
    counter("queue_messages_published", "Messages that came", |it| whole(it.counts.published)),
    counter("queue_messages_delivered", "Messages given to consumers", |it| {
        whole(it.counts.delivered)
    }),
    counter("queue_messages_redelivered", "Messages given again", |it| {
        whole(it.counts.redelivered)
    }),
    counter("queue_messages_acked", "Messages that consumers accepted", |it| {
        whole(it.counts.acknowledged)
    }),
    counter("queue_messages_expired", "Messages that grew too old", |it| whole(it.counts.expired)),
    counter("queue_messages_dropped", "Messages beyond the length", |it| whole(it.counts.dropped)),
    counter("queue_messages_dead_lettered", "Messages that went to a dead-letter exchange", |it| {
        whole(it.counts.dead_lettered)
    }),
    gauge(
        WHOLE,
        "queue_consumer_capacity",
        "Whether a message would go to a consumer at once",
        |it| whole(capacity(it)),
    ),
    gauge(WHOLE, "queue_consumer_utilisation", "The same", |it| whole(capacity(it))),
    gauge(WHOLE, "queue_messages_bytes", "Bytes of all bodies", |it| {
        whole(it.ready_bytes + it.unsettled_bytes)
    }),
    gauge(WHOLE, "queue_messages_ready_bytes", "Bytes of the ready bodies", |it| {
        whole(it.ready_bytes)
    }),
    gauge(WHOLE, "queue_messages_unacked_bytes", "Bytes of the bodies not settled", |it| {
        whole(it.unsettled_bytes)
    }),
    gauge(WHOLE, "queue_head_message_timestamp", "When the oldest ready message came", |it| {
        it.oldest.map(|oldest| Number::Whole(oldest.seconds()))
    }),
    Column {
        own: true,
        ..gauge(
            WHOLE,
            "queue_oldest_message_age_seconds",
            "Seconds that the oldest ready message waits",
            |it| it.oldest.map(|_| Number::Milliseconds(it.oldest_age_ms)),
        )
    },
    // What RabbitMQ does not count, so that what came is what went and what is there.
    own_counter("queue_messages_recovered", "Messages found in the store at the start", |it| {
        whole(it.counts.recovered)
    }),
    own_counter(
        "queue_messages_settled",
        "Messages accepted, or rejected where nobody wants dead letters",
        |it| whole(it.counts.settled),
    ),
    own_counter("queue_messages_purged", "Messages purged", |it| whole(it.counts.purged)),
    own_counter("queue_messages_damaged", "Messages that the store could not give back", |it| {
        whole(it.counts.damaged)
    }),
];

type Value = fn(&Mailbox) -> Option<Number>;

const fn gauge(
    families: &'static [&'static str],
    name: &'static str,
    help: &'static str,
    value: Value,
) -> One {
    Column { families, own: false, kind: Kind::Gauge, name, help, value }
}

const fn counter(name: &'static str, help: &'static str, value: Value) -> One {
    Column { families: DELIVERY, own: false, kind: Kind::Counter, name, help, value }
}

const fn own_counter(name: &'static str, help: &'static str, value: Value) -> One {
    Column { families: DELIVERY, own: true, kind: Kind::Counter, name, help, value }
}

#[expect(clippy::unnecessary_wraps, reason = "some columns have no value for some mailboxes")]
fn whole(number: u64) -> Option<Number> {
    Some(Number::Whole(number))
}

fn capacity(it: &Mailbox) -> u64 {
    u64::from(it.consumers > 0 && !it.consumers_busy)
}
