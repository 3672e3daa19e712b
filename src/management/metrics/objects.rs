//! Each connection, channel and exchange by itself, and this host, by RabbitMQ's families.

use super::page::{Page, Row};
use super::{churn, process};
use crate::broker::inspect::{ChannelView, ConnectionView, ExchangeView, Overview};
use crate::management::json::{ConnectionFacts, Host, connection_name};

/// Which families a page has, and how their metrics are named.
#[derive(Clone, Copy)]
pub struct Families<'a> {
    /// `None` for all.
    chosen: Option<&'a [String]>,
}

/// All that there are.
pub const FAMILIES: [&str; 15] = [
    "queue_coarse_metrics",
    "queue_metrics",
    "queue_consumer_count",
    "queue_delivery_metrics",
    "exchange_metrics",
    "exchange_names",
    "channel_metrics",
    "channel_exchange_metrics",
    "channel_queue_metrics",
    "connection_coarse_metrics",
    "connection_metrics",
    "connection_churn_metrics",
    "node_coarse_metrics",
    "node_metrics",
    "vhost_status",
];

impl<'a> Families<'a> {
    pub fn all() -> Self {
        Self { chosen: None }
    }

    pub fn chosen(chosen: &'a [String]) -> Self {
        Self { chosen: Some(chosen) }
    }

    pub fn are_all(self) -> bool {
        self.chosen.is_none()
    }

    pub fn wants(self, family: &str) -> bool {
        self.chosen.is_none_or(|chosen| chosen.iter().any(|it| it == family))
    }

    pub fn wants_any(self, start: &str) -> bool {
        FAMILIES.iter().any(|family| family.starts_with(start) && self.wants(family))
    }

    pub(super) fn prefix(self) -> &'static str {
        if self.chosen.is_some() { "rabbitmq_detailed_" } else { "rabbitmq_" }
    }

    /// As RabbitMQ calls the page.
    pub(super) fn endpoint(self) -> &'static str {
        if self.chosen.is_some() { "detailed" } else { "per-object" }
    }

    pub(super) fn own_prefix(self) -> &'static str {
        if self.chosen.is_some() { "pillarbox_detailed_" } else { "pillarbox_" }
    }
}

pub fn channels(page: &mut Page, views: &[ChannelView], families: Families<'_>) {
    for view in views {
        let connection = connection_name(&view.peer, &view.local);
        let channel = format!("{connection} ({})", view.channel.0);
        let labels = [("channel", &*channel), ("vhost", &*view.vhost)];
        let mut row = Row::new(page, families.prefix(), &labels);
        if families.wants("channel_metrics") {
            row.gauges([
                ("channel_consumers", "Consumers", view.consumers.into()),
                (
                    "channel_messages_unacked",
                    "Messages delivered and not yet settled",
                    view.unsettled.into(),
                ),
                ("channel_prefetch", "Limit of each consumer", view.prefetch.into()),
                ("channel_global_prefetch", "Limit of the whole channel", view.limit.into()),
            ]);
        }
        let (inflow, outflow) = (&view.inflow, &view.outflow);
        if families.wants("channel_exchange_metrics") {
            row.counters([
                ("channel_messages_published", "Messages published", inflow.published),
                ("channel_messages_confirmed", "Messages confirmed", inflow.confirmed),
                (
                    "channel_messages_unroutable_returned",
                    "Messages that no queue took, and were returned",
                    inflow.returned,
                ),
                (
                    "channel_messages_unroutable_dropped",
                    "Messages that no queue took, and nobody was told",
                    inflow.unroutable,
                ),
            ]);
        }
        if families.wants("channel_queue_metrics") {
            row.counters([
                ("channel_get_ack", "Messages asked for singly, to be settled", outflow.got),
                ("channel_get", "Messages asked for singly, settled at once", outflow.got_settled),
                (
                    "channel_messages_delivered_ack",
                    "Messages given to consumers that settle them",
                    outflow.delivered,
                ),
                (
                    "channel_messages_delivered",
                    "Messages given to consumers that settle nothing",
                    outflow.delivered_settled,
                ),
                ("channel_messages_redelivered", "Messages given again", outflow.redelivered),
                (
                    "channel_messages_acked",
                    "Messages that consumers accepted",
                    outflow.acknowledged,
                ),
                (
                    "channel_get_empty",
                    "Messages asked for singly where there was none",
                    outflow.got_nothing,
                ),
            ]);
        }
    }
}

pub fn connections(
    page: &mut Page,
    views: &[ConnectionView],
    facts: impl Fn(&ConnectionView) -> ConnectionFacts,
    families: Families<'_>,
) {
    for view in views {
        let name = connection_name(&view.peer, &view.local);
        let labels = [("connection", &*name), ("vhost", &*view.vhost)];
        let facts = facts(view);
        let mut row = Row::new(page, families.prefix(), &labels);
        if families.wants("connection_coarse_metrics") {
            row.counters([
                ("connection_incoming_bytes", "Bytes that came", facts.received),
                ("connection_outgoing_bytes", "Bytes that went", facts.sent),
            ]);
        }
        if families.wants("connection_metrics") {
            row.gauges([("connection_channels", "Channels in use", view.channels.into())]);
        }
    }
}

pub fn exchanges(page: &mut Page, views: &[ExchangeView], families: Families<'_>) {
    for view in views {
        let it = &view.definition;
        let labels = [("vhost", &*it.vhost), ("exchange", &*it.name)];
        if families.wants("exchange_metrics") {
            Row::new(page, families.prefix(), &labels).counters([
                ("exchange_messages_published", "Messages that came", view.passage.inwards),
                ("exchange_messages_routed", "Copies that queues got", view.passage.outwards),
            ]);
        }
        if families.wants("exchange_names") {
            let labels = [labels[0], labels[1], ("type", &*it.kind)];
            Row::new(page, families.prefix(), &labels).gauges([(
                "exchange_name",
                "The exchange is there",
                1,
            )]);
        }
    }
}

/// This host, where something of it was asked for by name. A page of all objects has it in its head.
pub fn node(page: &mut Page, overview: &Overview, host: &Host, families: Families<'_>) {
    let wanted =
        |coarse| families.wants(if coarse { "node_coarse_metrics" } else { "node_metrics" });
    process(page, host, families.prefix(), wanted);
    if families.wants("connection_churn_metrics") {
        churn(page, &overview.totals, families.prefix());
    }
}

pub fn vhost(page: &mut Page, name: &str, families: Families<'_>) {
    if families.wants("vhost_status") {
        let labels = [("vhost", name)];
        Row::new(page, families.prefix(), &labels).gauges([(
            "vhost_status",
            "Whether the virtual host runs",
            1,
        )]);
    }
}
