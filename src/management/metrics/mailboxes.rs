//! Each mailbox by itself.

use super::objects::Families;
use super::page::{Page, Row};
use crate::broker::Time;
use crate::broker::inspect::MailboxView;

pub fn mailboxes(page: &mut Page, views: &[MailboxView], now: Time, families: Families<'_>) {
    let coarse = families.wants("queue_coarse_metrics");
    let (whole, deliveries) =
        (families.wants("queue_metrics"), families.wants("queue_delivery_metrics"));
    let consumers = whole || families.wants("queue_consumer_count");
    for view in views {
        let labels = [("vhost", &*view.vhost), ("queue", &*view.name)];
        let mut row = Row::new(page, families.prefix(), &labels);
        if coarse {
            row.gauges([
                ("queue_messages_ready", "Messages ready to be delivered", view.ready),
                (
                    "queue_messages_unacked",
                    "Messages delivered and not yet settled",
                    view.unsettled,
                ),
                ("queue_messages", "Messages ready or not settled", view.ready + view.unsettled),
            ]);
        }
        if consumers {
            row.gauges([("queue_consumers", "Consumers", view.consumers.into())]);
        }
        if deliveries {
            let counts = &view.counts;
            row.counters([
                ("queue_messages_published", "Messages that came", counts.published),
                ("queue_messages_delivered", "Messages given to consumers", counts.delivered),
                ("queue_messages_redelivered", "Messages given again", counts.redelivered),
                ("queue_messages_acked", "Messages that consumers accepted", counts.acknowledged),
                ("queue_messages_expired", "Messages that grew too old", counts.expired),
                ("queue_messages_dropped", "Messages beyond the length", counts.dropped),
                (
                    "queue_messages_dead_lettered",
                    "Messages that went to a dead-letter exchange",
                    counts.dead_lettered,
                ),
            ]);
        }
        if whole {
            add_whole(&mut row, view, now, families);
        }
        if deliveries {
            add_balance(row.with_prefix(families.own_prefix()), view);
        }
    }
}

/// What RabbitMQ does not count, so that what came is what went and what is there.
fn add_balance(mut row: Row<'_>, view: &MailboxView) {
    let counts = &view.counts;
    row.counters([
        ("queue_messages_recovered", "Messages found in the store at the start", counts.recovered),
        (
            "queue_messages_settled",
            "Messages accepted, or rejected where nobody wants dead letters",
            counts.settled,
        ),
        ("queue_messages_purged", "Messages purged", counts.purged),
        ("queue_messages_damaged", "Messages that the store could not give back", counts.damaged),
    ]);
}

fn add_whole(row: &mut Row<'_>, view: &MailboxView, now: Time, families: Families<'_>) {
    let capacity = u64::from(view.consumers > 0 && !view.consumers_busy);
    let bytes = view.ready_bytes + view.unsettled_bytes;
    row.gauges([
        ("queue_consumer_capacity", "Whether a message would go to a consumer at once", capacity),
        ("queue_consumer_utilisation", "The same", capacity),
        ("queue_messages_bytes", "Bytes of all bodies", bytes),
        ("queue_messages_ready_bytes", "Bytes of the ready bodies", view.ready_bytes),
        ("queue_messages_unacked_bytes", "Bytes of the bodies not settled", view.unsettled_bytes),
    ]);
    let Some(oldest) = view.oldest else { return };
    row.gauges([(
        "queue_head_message_timestamp",
        "When the oldest ready message came",
        oldest.seconds(),
    )]);
    let age = now.since_ms(oldest) as f64 / 1000.0;
    row.own_gauge(
        families.own_prefix(),
        "queue_oldest_message_age_seconds",
        "Seconds that the oldest ready message waits",
        age,
    );
}
