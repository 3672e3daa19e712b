//! Each connection, channel and exchange by itself, and this host, by RabbitMQ's families.

use super::page::Page;
use super::table::{Column, Kind, Number, Table};
use super::{churn, process};
use crate::broker::inspect::{ChannelView, ConnectionView, ExchangeView, Overview};
use crate::broker::{Inflow, Outflow, Passage};
use crate::management::Pieces;
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

/// Empty tables, to be filled a slice at a time.
pub struct Objects {
    exchanges: Table<Passage>,
    exchange_names: Table<()>,
    channels: Table<(Counters, Inflow, Outflow)>,
    connections: Table<(ConnectionFacts, u32)>,
}

/// What a channel has now.
pub struct Counters {
    consumers: u32,
    unsettled: u32,
    prefetch: u32,
    limit: u32,
}

impl Objects {
    pub fn new(families: Families<'_>) -> Self {
        Self {
            exchanges: Table::new(&EXCHANGES, families),
            exchange_names: Table::new(&EXCHANGE_NAMES, families),
            channels: Table::new(&CHANNELS, families),
            connections: Table::new(&CONNECTIONS, families),
        }
    }

    pub fn add_exchanges(&mut self, views: &[ExchangeView]) {
        for view in views {
            let it = &view.definition;
            let labels = [("vhost", &*it.vhost), ("exchange", &*it.name), ("type", &*it.kind)];
            self.exchanges.add(&labels[..2], view.passage);
            self.exchange_names.add(&labels, ());
        }
    }

    pub fn add_channels(&mut self, views: &[ChannelView]) {
        for view in views {
            let connection = connection_name(&view.peer, &view.local);
            let channel = format!("{connection} ({})", view.channel.0);
            let counters = Counters {
                consumers: view.consumers,
                unsettled: view.unsettled,
                prefetch: view.prefetch,
                limit: view.limit,
            };
            let labels = [("channel", &*channel), ("vhost", &*view.vhost)];
            self.channels.add(&labels, (counters, view.inflow, view.outflow));
        }
    }

    pub fn add_connection(&mut self, view: &ConnectionView, facts: ConnectionFacts) {
        let name = connection_name(&view.peer, &view.local);
        let labels = [("connection", &*name), ("vhost", &*view.vhost)];
        self.connections.add(&labels, (facts, view.channels));
    }

    /// In the order in which they stand on the page.
    pub fn into_pieces(self) -> [Box<dyn Pieces>; 4] {
        [
            Box::new(self.exchanges),
            Box::new(self.exchange_names),
            Box::new(self.channels),
            Box::new(self.connections),
        ]
    }
}

const fn gauge<R>(
    families: &'static [&'static str],
    name: &'static str,
    help: &'static str,
    value: fn(&R) -> Option<Number>,
) -> Column<R> {
    Column { families, own: false, kind: Kind::Gauge, name, help, value }
}

const fn counter<R>(
    families: &'static [&'static str],
    name: &'static str,
    help: &'static str,
    value: fn(&R) -> Option<Number>,
) -> Column<R> {
    Column { families, own: false, kind: Kind::Counter, name, help, value }
}

#[expect(clippy::unnecessary_wraps, reason = "what columns give")]
fn whole(number: impl Into<u64>) -> Option<Number> {
    Some(Number::Whole(number.into()))
}

const PASSED: &[&str] = &["exchange_metrics"];
const NOW: &[&str] = &["channel_metrics"];
const CAME: &[&str] = &["channel_exchange_metrics"];
const WENT: &[&str] = &["channel_queue_metrics"];
const BYTES: &[&str] = &["connection_coarse_metrics"];

const EXCHANGES: [Column<Passage>; 2] = [
    counter(PASSED, "exchange_messages_published", "Messages that came", |it| whole(it.inwards)),
    counter(PASSED, "exchange_messages_routed", "Copies that queues got", |it| whole(it.outwards)),
];

const EXCHANGE_NAMES: [Column<()>; 1] =
    [gauge(&["exchange_names"], "exchange_name", "The exchange is there", |()| whole(1_u64))];

const CHANNELS: [Column<(Counters, Inflow, Outflow)>; 15] = [
    gauge(NOW, "channel_consumers", "Consumers", |it| whole(it.0.consumers)),
    gauge(NOW, "channel_messages_unacked", "Messages delivered and not yet settled", |it| {
        whole(it.0.unsettled)
    }),
    gauge(NOW, "channel_prefetch", "Limit of each consumer", |it| whole(it.0.prefetch)),
    gauge(NOW, "channel_global_prefetch", "Limit of the whole channel", |it| whole(it.0.limit)),
    counter(CAME, "channel_messages_published", "Messages published", |it| whole(it.1.published)),
    counter(CAME, "channel_messages_confirmed", "Messages confirmed", |it| whole(it.1.confirmed)),
    counter(
        CAME,
        "channel_messages_unroutable_returned",
        "Messages that no queue took, and were returned",
        |it| whole(it.1.returned),
    ),
    counter(
        CAME,
        "channel_messages_unroutable_dropped",
        "Messages that no queue took, and nobody was told",
        |it| whole(it.1.unroutable),
    ),
    counter(WENT, "channel_get_ack", "Messages asked for singly, to be settled", |it| {
        whole(it.2.got)
    }),
    counter(WENT, "channel_get", "Messages asked for singly, settled at once", |it| {
        whole(it.2.got_settled)
    }),
    counter(
        WENT,
        "channel_messages_delivered_ack",
        "Messages given to consumers that settle them",
        |it| whole(it.2.delivered),
    ),
    counter(
        WENT,
        "channel_messages_delivered",
        "Messages given to consumers that settle nothing",
        |it| whole(it.2.delivered_settled),
    ),
    counter(WENT, "channel_messages_redelivered", "Messages given again", |it| {
        whole(it.2.redelivered)
    }),
    counter(WENT, "channel_messages_acked", "Messages that consumers accepted", |it| {
        whole(it.2.acknowledged)
    }),
    counter(WENT, "channel_get_empty", "Messages asked for singly where there was none", |it| {
        whole(it.2.got_nothing)
    }),
];

const CONNECTIONS: [Column<(ConnectionFacts, u32)>; 3] = [
    counter(BYTES, "connection_incoming_bytes", "Bytes that came", |it| whole(it.0.received)),
    counter(BYTES, "connection_outgoing_bytes", "Bytes that went", |it| whole(it.0.sent)),
    gauge(&["connection_metrics"], "connection_channels", "Channels in use", |it| whole(it.1)),
];

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
        let name_of = format!("{}vhost_status", families.prefix());
        page.gauge(&name_of, "Whether the virtual host runs", &[("vhost", name)], 1.0);
    }
}
