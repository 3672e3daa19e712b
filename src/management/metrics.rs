//! Prometheus text with the names of RabbitMQ 3.x, so that its dashboards and alerts find what they look for.

pub mod mailboxes;
pub mod objects;
mod page;
mod table;

use std::collections::BTreeMap;

use self::objects::Families;
pub use self::page::Page;
pub use self::table::Table;
use super::json::{ERLANG_VERSION, Host, RABBITMQ_VERSION};
use crate::broker::inspect::Overview;
use crate::broker::{Inflow, Name, Outflow, ProtocolFlow, Sizes, Totals, Waits};

/// Sums over everything.
pub fn whole(overview: &Overview, host: &Host) -> Page {
    let mut page = Page::default();
    identity(&mut page, host, "aggregated");
    process(&mut page, host, "rabbitmq_", |_| true);
    churn(&mut page, &overview.totals, "rabbitmq_");
    globals(&mut page, overview, host);
    for (name, help, value) in [
        ("queue_messages_ready", "Messages ready to be delivered", overview.ready),
        ("queue_messages_unacked", "Messages delivered and not yet settled", overview.unsettled),
        ("queue_messages", "Messages ready or not settled", overview.ready + overview.unsettled),
        ("queue_messages_ready_bytes", "Bytes of the ready bodies", overview.ready_bytes),
        (
            "queue_messages_unacked_bytes",
            "Bytes of the bodies not settled",
            overview.unsettled_bytes,
        ),
        (
            "queue_messages_bytes",
            "Bytes of all bodies",
            overview.ready_bytes + overview.unsettled_bytes,
        ),
        ("queue_consumers", "Consumers of queues", overview.consumers),
    ] {
        page.gauge(&format!("rabbitmq_{name}"), help, &[], value as f64);
    }
    channel_sums(&mut page, overview);
    page
}

/// What is no sum of something that has metrics of its own: it stands beside those too.
pub fn globals(page: &mut Page, overview: &Overview, host: &Host) {
    for (name, help, value) in [
        ("connections", "Open connections", overview.connections),
        ("channels", "Channels in use", overview.channels),
        ("consumers", "Consumers", overview.consumers),
        ("queues", "Queues", overview.mailboxes),
    ] {
        page.gauge(&format!("rabbitmq_{name}"), help, &[], value as f64);
    }
    let alarm = overview.alarm.unwrap_or_default();
    for (name, help, word) in [
        ("memory_used_watermark", "Whether memory runs low", "memory"),
        ("free_disk_space_watermark", "Whether disk space runs low", "disk"),
    ] {
        let raised = f64::from(u8::from(alarm.contains(word)));
        page.gauge(&format!("rabbitmq_alarms_{name}"), help, &[], raised);
    }
    let help = "Sizes of the bodies that publishers sent";
    page.histogram("rabbitmq_message_size_bytes", help, &Measured::from(&overview.totals.sizes));
    flows(page, overview);
    deaths(page, overview);
    own(page, overview, host);
}

fn deaths(page: &mut Page, overview: &Overview) {
    let deaths = &overview.totals.deaths;
    for (reason, help, value) in [
        ("expired", "Messages dead-lettered because they were too old", deaths.expired),
        ("maxlen", "Messages dead-lettered because a queue was too long", deaths.length),
        ("rejected", "Messages dead-lettered because a consumer rejected them", deaths.rejected),
        ("delivery_limit", "Messages dead-lettered after too many attempts", deaths.delivery_limit),
        ("refused", "Messages dead-lettered because another host refused them", deaths.refused),
    ] {
        let name = format!("rabbitmq_global_messages_dead_lettered_{reason}_total");
        for kind in KINDS {
            // Which kind of queue they left is not counted: all stand with classic queues.
            let value = if kind == KINDS[0] { value } else { 0 };
            let labels = [("queue_type", kind), ("dead_letter_strategy", "at_most_once")];
            page.counter(&name, help, &labels, value);
        }
    }
}

/// What RabbitMQ does not tell.
fn own(page: &mut Page, overview: &Overview, host: &Host) {
    let age = overview.oldest.map_or(0, |oldest| host.now.since_ms(oldest));
    for (name, help, value) in [
        (
            "messages_memory_bytes",
            "Bytes of ready messages that are in memory",
            overview.memory as f64,
        ),
        (
            "oldest_message_age_seconds",
            "Seconds that the oldest ready message of any queue waits",
            age as f64 / 1000.0,
        ),
        ("journal_bytes", "Size of journal.redb on the disk", host.process.journal_size as f64),
        ("home_bytes", "Size of home.redb on the disk", host.process.home_size as f64),
    ] {
        page.gauge(&format!("pillarbox_{name}"), help, &[], value);
    }
    let help = "Seconds that messages of queues were ready before somebody got them";
    page.histogram("pillarbox_message_wait_seconds", help, &Measured::from(&overview.totals.waits));
    let help = "Seconds that a batch took to become durable";
    page.histogram("pillarbox_commit_seconds", help, &host.commits);
}

/// When certificates end, in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Of the listeners for clients, where they have one.
    pub clients: Option<i64>,
    /// This host's on links to others.
    pub links: Option<i64>,
    /// Of other hosts, as they showed them at links that stand.
    pub peers: Vec<(Name, i64)>,
}

impl Certificates {
    pub fn write(&self, page: &mut Page) {
        let name = "pillarbox_certificate_expiry_timestamp_seconds";
        let help = "When the certificate ends that this host shows now, in seconds since 1970";
        for (of, ends) in [("clients", self.clients), ("peers", self.links)] {
            if let Some(ends) = ends {
                page.gauge(name, help, &[("shown_to", of)], ends as f64);
            }
        }
        let name = "pillarbox_peer_certificate_expiry_timestamp_seconds";
        let help = "When the certificate ends that the host showed, in seconds since 1970";
        for (host, ends) in &self.peers {
            page.gauge(name, help, &[("peer", host)], *ends as f64);
        }
    }
}

/// What channels counted, also those that are gone: as RabbitMQ has it in sums.
fn channel_sums(page: &mut Page, overview: &Overview) {
    let (mut into, mut out) = (Inflow::default(), Outflow::default());
    for flow in &overview.flows {
        add_inflow(&mut into, &flow.inflow);
        flow.outflow.iter().for_each(|it| add_outflow(&mut out, it));
    }
    for (name, help, value) in [
        ("messages_published", "Messages that publishers sent", into.published),
        ("messages_confirmed", "Messages that were confirmed", into.confirmed),
        (
            "messages_unroutable_returned",
            "Messages that no queue took, and were returned",
            into.returned,
        ),
        (
            "messages_unroutable_dropped",
            "Messages that no queue took, and nobody was told",
            into.unroutable,
        ),
        ("get_ack", "Messages asked for singly, to be settled", out.got),
        ("get", "Messages asked for singly, settled at once", out.got_settled),
        ("get_empty", "Messages asked for singly where there was none", out.got_nothing),
        ("messages_delivered_ack", "Messages given to consumers that settle them", out.delivered),
        (
            "messages_delivered",
            "Messages given to consumers that settle nothing",
            out.delivered_settled,
        ),
        ("messages_redelivered", "Messages given again", out.redelivered),
        ("messages_acked", "Messages that consumers accepted", out.acknowledged),
    ] {
        page.counter(&format!("rabbitmq_channel_{name}_total"), help, &[], value);
    }
}

fn identity(page: &mut Page, host: &Host, endpoint: &str) {
    let labels = [
        ("rabbitmq_node", host.node.as_str()),
        ("rabbitmq_cluster", &host.cluster),
        ("rabbitmq_cluster_permanent_id", &host.cluster),
        ("rabbitmq_endpoint", endpoint),
    ];
    page.gauge("rabbitmq_identity_info", "Names of this broker", &labels, 1.0);
    let labels = [
        ("rabbitmq_version", RABBITMQ_VERSION),
        ("prometheus_plugin_version", RABBITMQ_VERSION),
        ("erlang_version", ERLANG_VERSION),
        ("product_name", "Pillarbox"),
        ("product_version", env!("CARGO_PKG_VERSION")),
    ];
    page.gauge("rabbitmq_build_info", "The version of this broker", &labels, 1.0);
}

fn churn(page: &mut Page, totals: &Totals, prefix: &str) {
    for (name, help, value) in [
        ("connections_opened", "Connections opened", totals.connections_opened),
        ("connections_closed", "Connections closed", totals.connections_closed),
        ("channels_opened", "Channels opened", totals.channels_opened),
        ("channels_closed", "Channels closed", totals.channels_closed),
        (
            "queues_declared",
            "Queues declared, also those that were there",
            totals.mailboxes_declared,
        ),
        ("queues_created", "Queues created", totals.mailboxes_created),
        ("queues_deleted", "Queues deleted", totals.mailboxes_deleted),
    ] {
        page.counter(&format!("{prefix}{name}_total"), help, &[], value);
    }
}

/// Of the two families that RabbitMQ has of a node: what it uses (coarse) and what it may use.
fn process(page: &mut Page, host: &Host, prefix: &str, wanted: impl Fn(bool) -> bool) {
    let it = &host.process;
    let up = host.now.since_ms(host.started) as f64 / 1000.0;
    for (coarse, name, help, value) in [
        (false, "erlang_uptime_seconds", "Seconds since the start", up),
        (true, "process_open_fds", "Open file descriptors", it.files_used as f64),
        (false, "process_max_fds", "Most file descriptors that may be open", it.files_max as f64),
        (true, "process_resident_memory_bytes", "Memory in use", it.memory_used as f64),
        (
            false,
            "resident_memory_limit_bytes",
            "Memory above which publishers are stopped",
            it.memory_limit as f64,
        ),
        (true, "disk_space_available_bytes", "Free disk space", it.disk_free as f64),
        (
            false,
            "disk_space_available_limit_bytes",
            "Disk space below which publishers are stopped",
            it.disk_limit as f64,
        ),
    ] {
        if wanted(coarse) {
            page.gauge(&format!("{prefix}{name}"), help, &[], value);
        }
    }
}

/// What was measured, in classes.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub bounds: Vec<f64>,
    /// One more than bounds.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl From<&Sizes> for Measured {
    fn from(it: &Sizes) -> Self {
        let bounds = Sizes::BOUNDS.map(|bound| bound as f64).to_vec();
        Self { bounds, counts: it.counts.to_vec(), sum: it.sum as f64 }
    }
}

/// In seconds.
impl From<&Waits> for Measured {
    fn from(it: &Waits) -> Self {
        let bounds = Waits::BOUNDS_MS.map(|bound| bound as f64 / 1000.0).to_vec();
        Self { bounds, counts: it.counts.to_vec(), sum: it.sum_ms as f64 / 1000.0 }
    }
}

const KINDS: [&str; 3] = ["rabbit_classic_queue", "rabbit_quorum_queue", "rabbit_stream_queue"];

/// What dashboards expect to be there from the start, with or without a connection.
const PROTOCOLS: [(&str, &str); 4] =
    [("AMQP 0-9-1", "amqp091"), ("STOMP", "stomp"), ("native", "pillarbox"), ("broker", "http")];

/// The label of a protocol.
fn label(protocol: &str) -> &str {
    let known = PROTOCOLS.iter().find(|(name, _)| protocol.starts_with(name));
    known.map_or(protocol, |(_, label)| label)
}

fn flows(page: &mut Page, overview: &Overview) {
    let mut by_label: BTreeMap<&str, (Inflow, [Outflow; 3])> = BTreeMap::new();
    for (_, label) in PROTOCOLS {
        by_label.entry(label).or_default();
    }
    for ProtocolFlow { protocol, inflow, outflow } in &overview.flows {
        let (into, out) = by_label.entry(label(protocol)).or_default();
        add_inflow(into, inflow);
        for (sum, it) in out.iter_mut().zip(outflow) {
            add_outflow(sum, it);
        }
    }
    for (protocol, (inflow, _)) in &by_label {
        for (name, help, value) in [
            ("messages_received", "Messages that publishers sent", inflow.published),
            (
                "messages_received_confirm",
                "Messages that publishers want confirmed",
                inflow.confirmed,
            ),
            ("messages_routed", "Messages that came to a queue", inflow.routed),
            (
                "messages_unroutable_dropped",
                "Messages that no queue took, and nobody was told",
                inflow.unroutable,
            ),
            (
                "messages_unroutable_returned",
                "Messages that no queue took, and were returned",
                inflow.returned,
            ),
            ("messages_confirmed", "Messages that were confirmed", inflow.confirmed),
        ] {
            page.counter(
                &format!("rabbitmq_global_{name}_total"),
                help,
                &[("protocol", protocol)],
                value,
            );
        }
    }
    for (protocol, (_, outflow)) in &by_label {
        for (kind, it) in KINDS.iter().zip(outflow) {
            let delivered = it.delivered + it.delivered_settled + it.got + it.got_settled;
            for (name, help, value) in [
                ("messages_delivered", "Messages given to consumers", delivered),
                (
                    "messages_delivered_consume_auto_ack",
                    "Messages given to consumers that settle nothing",
                    it.delivered_settled,
                ),
                (
                    "messages_delivered_consume_manual_ack",
                    "Messages given to consumers that settle them",
                    it.delivered,
                ),
                (
                    "messages_delivered_get_auto_ack",
                    "Messages asked for singly, settled at once",
                    it.got_settled,
                ),
                (
                    "messages_delivered_get_manual_ack",
                    "Messages asked for singly, to be settled",
                    it.got,
                ),
                (
                    "messages_get_empty",
                    "Messages asked for singly where there was none",
                    it.got_nothing,
                ),
                ("messages_redelivered", "Messages given again", it.redelivered),
                ("messages_acknowledged", "Messages that consumers accepted", it.acknowledged),
            ] {
                let labels = [("protocol", *protocol), ("queue_type", *kind)];
                page.counter(&format!("rabbitmq_global_{name}_total"), help, &labels, value);
            }
        }
    }
    // Who publishes is not counted by protocol: every connection might.
    for (_, protocol) in PROTOCOLS {
        let consumers = if protocol == "amqp091" { overview.consumers } else { 0 };
        let labels = [("protocol", protocol)];
        page.gauge("rabbitmq_global_consumers", "Consumers", &labels, consumers as f64);
        let publishers = if protocol == "amqp091" { overview.publishers } else { 0 };
        page.gauge(
            "rabbitmq_global_publishers",
            "Connections that publish",
            &labels,
            publishers as f64,
        );
    }
}

fn add_inflow(sum: &mut Inflow, it: &Inflow) {
    sum.published += it.published;
    sum.routed += it.routed;
    sum.confirmed += it.confirmed;
    sum.returned += it.returned;
    sum.unroutable += it.unroutable;
}

fn add_outflow(sum: &mut Outflow, it: &Outflow) {
    sum.delivered += it.delivered;
    sum.delivered_settled += it.delivered_settled;
    sum.got += it.got;
    sum.got_settled += it.got_settled;
    sum.got_nothing += it.got_nothing;
    sum.redelivered += it.redelivered;
    sum.acknowledged += it.acknowledged;
}

/// What stands on a page of single objects beside them.
pub fn head(host: &Host, families: Families<'_>) -> Page {
    let mut page = Page::default();
    identity(&mut page, host, families.endpoint());
    page
}
