//! What the broker shows, in the fields of RabbitMQ's API.

use serde_json::{Map, Value, json};

use super::metrics::Measured;
use super::routes::encode;
use super::samples::Samples;
use super::value::table_to_json;
use crate::broker::inspect::{
    ChannelView, ConnectionView, ConsumerView, ExchangeView, MailboxView, Overview,
};
use crate::broker::{
    BindingDefinition, Browsed, ConnectionId, Delivery, Destination, Found, Message, Name,
    ParameterDefinition, PermissionDefinition, PolicyDefinition, Properties, Table, Time,
    TopicPermissionDefinition, UserDefinition, VhostDefinition,
};

/// The release of RabbitMQ whose API this is, for tools that ask.
pub const RABBITMQ_VERSION: &str = "3.13.7";
/// Tools read the version of a runtime that is not here.
pub const ERLANG_VERSION: &str = "26.2.5";

/// What is known of this host and process.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub node: String,
    pub cluster: String,
    pub started: Time,
    pub now: Time,
    pub listeners: Vec<ListenerFacts>,
    pub process: ProcessFacts,
    /// How long the disk took, in seconds.
    pub commits: Measured,
}

#[derive(Clone, Debug)]
pub struct ListenerFacts {
    pub protocol: &'static str,
    pub ip: String,
    pub port: u16,
}

/// Read from the system by who may.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    pub pid: u32,
    pub memory_used: u64,
    pub memory_limit: u64,
    pub disk_free: u64,
    pub disk_limit: u64,
    pub files_used: u64,
    pub files_max: u64,
    pub processors: u64,
    pub connections_max: u64,
    pub directory: String,
    /// Bytes of the store's two files.
    pub journal_size: u64,
    pub home_size: u64,
}

/// What the server knows of a connection beside the broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionFacts {
    pub connected_at: Time,
    pub received: u64,
    pub sent: u64,
    pub tls: bool,
}

fn seconds_of(time: Time) -> u64 {
    time.seconds()
}

/// `10.0.0.1:80` or `[::1]:80` in two.
fn place(text: &str) -> (String, u16) {
    let Some((host, port)) = text.rsplit_once(':') else { return (text.to_owned(), 0) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), port.parse().unwrap_or(0))
}

pub fn connection_name(peer: &str, local: &str) -> String {
    format!("{peer} -> {local}")
}

pub fn overview(
    overview: &Overview,
    samples: &Samples,
    host: &Host,
    exchange_kinds: &[&str],
    with_points: bool,
) -> Value {
    let kinds: Vec<Value> = exchange_kinds
        .iter()
        .map(|kind| json!({"name": kind, "description": "", "enabled": true}))
        .collect();
    let listeners: Vec<Value> = host
        .listeners
        .iter()
        .map(|it| json!({"node": host.node, "protocol": it.protocol, "ip_address": it.ip, "port": it.port, "socket_opts": {}}))
        .collect();
    let contexts: Vec<Value> = host
        .listeners
        .iter()
        .filter(|it| it.protocol.starts_with("http"))
        .map(|it| json!({"node": host.node, "description": "Pillarbox", "path": "/", "port": it.port.to_string()}))
        .collect();
    json!({
        "management_version": RABBITMQ_VERSION,
        "rates_mode": "basic",
        "product_name": "Pillarbox",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rabbitmq_version": RABBITMQ_VERSION,
        "erlang_version": ERLANG_VERSION,
        "erlang_full_version": format!("none: Pillarbox {}", env!("CARGO_PKG_VERSION")),
        "cluster_name": host.cluster,
        "cluster_tags": {},
        "node_tags": {},
        "node": host.node,
        "exchange_types": kinds,
        "message_stats": samples.overview_stats(overview, with_points),
        "churn_rates": samples.churn_rates(overview),
        "queue_totals": samples.queue_totals(overview, with_points),
        "object_totals": {
            "channels": overview.channels,
            "connections": overview.connections,
            "consumers": overview.consumers,
            "exchanges": overview.exchanges,
            "queues": overview.mailboxes,
        },
        "statistics_db_event_queue": 0,
        "listeners": listeners,
        "contexts": contexts,
        "default_queue_type": "classic",
        "release_series_support_status": "supported",
        "disable_stats": false,
        "enable_queue_totals": false,
        "is_op_policy_updating_enabled": true,
        "sample_retention_policies": {"global": [600], "basic": [600], "detailed": [600]},
        "alarm": overview.alarm,
    })
}

pub fn node(overview: &Overview, host: &Host, exchange_kinds: &[&str]) -> Value {
    let it = &host.process;
    let alarm = overview.alarm.unwrap_or_default();
    let kinds: Vec<Value> =
        exchange_kinds.iter().map(|kind| json!({"name": kind, "enabled": true})).collect();
    json!({
        "name": host.node,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "uptime": host.now.since_ms(host.started),
        "os_pid": it.pid.to_string(),
        "mem_used": it.memory_used,
        "mem_limit": it.memory_limit,
        "mem_alarm": alarm.contains("memory"),
        "mem_calculation_strategy": "rss",
        "disk_free": it.disk_free,
        "disk_free_limit": it.disk_limit,
        "disk_free_alarm": alarm.contains("disk"),
        "fd_used": it.files_used,
        "fd_total": it.files_max,
        "sockets_used": overview.connections,
        "sockets_total": it.connections_max,
        "proc_used": overview.connections + overview.mailboxes,
        "proc_total": 1_048_576,
        "processors": it.processors,
        "run_queue": 0,
        "rates_mode": "basic",
        "net_ticktime": 60,
        "partitions": [],
        "applications": [{"name": "pillarbox", "description": "Pillarbox", "version": env!("CARGO_PKG_VERSION")}],
        "exchange_types": kinds,
        "auth_mechanisms": [
            {"name": "PLAIN", "enabled": true, "description": ""},
            {"name": "AMQPLAIN", "enabled": true, "description": ""},
            {"name": "EXTERNAL", "enabled": true, "description": ""},
        ],
        "contexts": [],
        "log_files": [],
        "db_dir": it.directory,
        "config_files": [],
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_stomp", "rabbitmq_web_stomp"],
        "cluster_links": [],
        "metrics_gc_queue_length": {},
        "queue_created": overview.totals.mailboxes_created,
        "queue_declared": overview.totals.mailboxes_declared,
        "queue_deleted": overview.totals.mailboxes_deleted,
        "connection_created": overview.totals.connections_opened,
        "connection_closed": overview.totals.connections_closed,
        "channel_created": overview.totals.channels_opened,
        "channel_closed": overview.totals.channels_closed,
    })
}

pub fn mailbox(view: &MailboxView, samples: &Samples, host: &Host) -> Value {
    let (stats, [ready_rate, unsettled_rate, sum_rate]) =
        samples.mailbox_stats(view.id, &view.counts);
    let bytes = view.ready_bytes + view.unsettled_bytes;
    let mut effective = Map::new();
    for definition in &view.policies {
        if let Value::Object(definition) = table_to_json(definition) {
            effective.extend(definition);
        }
    }
    let capacity = if view.consumers > 0 && !view.consumers_busy { 1.0 } else { 0.0 };
    json!({
        "name": view.name.as_str(),
        "vhost": view.vhost.as_str(),
        "type": view.kind,
        "durable": view.durable,
        "auto_delete": view.auto_delete,
        "exclusive": view.exclusive,
        "internal": view.internal,
        "arguments": table_to_json(&view.arguments),
        "node": host.node,
        "leader": host.node,
        "members": [host.node],
        "online": [host.node],
        "state": "running",
        "policy": view.policy.as_deref(),
        "operator_policy": view.operator_policy.as_deref(),
        "effective_policy_definition": effective,
        "consumers": view.consumers,
        "consumer_capacity": capacity,
        "consumer_utilisation": capacity,
        "exclusive_consumer_tag": null,
        "messages": view.ready + view.unsettled,
        "messages_details": {"rate": sum_rate},
        "messages_ready": view.ready,
        "messages_ready_details": {"rate": ready_rate},
        "messages_unacknowledged": view.unsettled,
        "messages_unacknowledged_details": {"rate": unsettled_rate},
        "message_bytes": bytes,
        "message_bytes_ready": view.ready_bytes,
        "message_bytes_unacknowledged": view.unsettled_bytes,
        // Seconds, of when the message came, whether or not its publisher says a time.
        "head_message_timestamp": view.oldest.map(seconds_of),
        "memory": bytes,
        "message_stats": stats,
    })
}

/// A number that `mailbox` says too, where it is one that lists are ordered by: found without making the rest.
pub fn mailbox_number(view: &MailboxView, column: &str) -> Option<u64> {
    let bytes = view.ready_bytes + view.unsettled_bytes;
    Some(match column {
        "messages" => view.ready + view.unsettled,
        "messages_ready" => view.ready,
        "messages_unacknowledged" => view.unsettled,
        "message_bytes" | "memory" => bytes,
        "message_bytes_ready" => view.ready_bytes,
        "message_bytes_unacknowledged" => view.unsettled_bytes,
        "consumers" => view.consumers.into(),
        _ => return None,
    })
}

/// Added where one mailbox is asked for.
pub fn mailbox_consumers(
    queue: &mut Value,
    consumers: &[ConsumerView],
    vhost: &Name,
    find: &dyn Fn(ConnectionId) -> Option<ConnectionView>,
    host: &Host,
) {
    let details: Vec<Value> =
        consumers.iter().map(|view| consumer(view, vhost, find(view.connection), host)).collect();
    let exclusive = consumers.iter().find(|view| view.exclusive).map(|view| view.tag.as_str());
    let active = consumers.iter().filter(|view| view.active).count();
    if let Value::Object(queue) = queue {
        queue.insert("exclusive_consumer_tag".into(), exclusive.into());
        let single = consumers.iter().find(|it| it.active).filter(|_| active < consumers.len());
        let single = single.map(|view| view.tag.as_str());
        queue.insert("single_active_consumer_tag".into(), single.into());
        queue.insert("consumer_details".into(), Value::Array(details));
        queue.insert("incoming".into(), json!([]));
        queue.insert("deliveries".into(), json!([]));
    }
}

pub fn consumer(
    view: &ConsumerView,
    vhost: &Name,
    connection: Option<ConnectionView>,
    host: &Host,
) -> Value {
    let (peer, local, user) = match &connection {
        Some(it) => (it.peer.as_str(), it.local.as_str(), it.user.as_str()),
        None => ("", "", ""),
    };
    let name = connection_name(peer, local);
    let (peer_host, peer_port) = place(peer);
    json!({
        "consumer_tag": view.tag.as_str(),
        "ack_required": !view.no_ack,
        "active": view.active,
        "activity_status": if view.active { "up" } else { "waiting" },
        "exclusive": view.exclusive,
        "prefetch_count": view.prefetch,
        "arguments": table_to_json(&view.arguments),
        "consumer_timeout": "undefined",
        "queue": {"name": view.mailbox.as_str(), "vhost": vhost.as_str()},
        "channel_details": {
            "name": format!("{name} ({})", view.channel.0),
            "number": view.channel.0,
            "connection_name": name,
            "node": host.node,
            "peer_host": peer_host,
            "peer_port": peer_port,
            "user": user,
        },
    })
}

pub fn connection(
    view: &ConnectionView,
    facts: ConnectionFacts,
    samples: &Samples,
    host: &Host,
) -> Value {
    let (peer_host, peer_port) = place(&view.peer);
    let (local_host, local_port) = place(&view.local);
    let [received, sent] = samples.connection_rates(view.id);
    let mut properties = table_to_json(&view.client_properties);
    if let (Value::Object(properties), Some(name)) = (&mut properties, &view.client_name) {
        properties.entry("connection_name").or_insert_with(|| name.as_str().into());
    }
    json!({
        "name": connection_name(&view.peer, &view.local),
        "user_provided_name": view.client_name,
        "node": host.node,
        "vhost": view.vhost.as_str(),
        "user": view.user.as_str(),
        "user_who_performed_action": view.user.as_str(),
        "host": local_host,
        "port": local_port,
        "peer_host": peer_host,
        "peer_port": peer_port,
        "protocol": view.protocol,
        "auth_mechanism": view.mechanism,
        "ssl": facts.tls,
        "type": "network",
        "state": if view.blocked { "blocked" } else { "running" },
        "channels": view.channels,
        "consumers": view.consumers,
        "messages_unacknowledged": view.unsettled,
        "connected_at": facts.connected_at.0,
        "client_properties": properties,
        "recv_oct": facts.received,
        "recv_oct_details": {"rate": received},
        "send_oct": facts.sent,
        "send_oct_details": {"rate": sent},
        "send_pend": 0,
    })
}

pub fn channel(view: &ChannelView, samples: &Samples, host: &Host) -> Value {
    let name = connection_name(&view.peer, &view.local);
    let (peer_host, peer_port) = place(&view.peer);
    json!({
        "name": format!("{name} ({})", view.channel.0),
        "number": view.channel.0,
        "connection_details": {"name": name, "peer_host": peer_host, "peer_port": peer_port},
        "user": view.user.as_str(),
        "user_who_performed_action": view.user.as_str(),
        "vhost": view.vhost.as_str(),
        "node": host.node,
        "state": "running",
        "transactional": false,
        "confirm": view.inflow.confirmed > 0,
        "consumer_count": view.consumers,
        "prefetch_count": view.prefetch,
        "global_prefetch_count": view.limit,
        "messages_unacknowledged": view.unsettled,
        "messages_unconfirmed": 0,
        "messages_uncommitted": 0,
        "acks_uncommitted": 0,
        "message_stats": samples.channel_stats(view),
    })
}

pub fn exchange(view: &ExchangeView, samples: &Samples) -> Value {
    let it = &view.definition;
    json!({
        "name": it.name.as_str(),
        "vhost": it.vhost.as_str(),
        "type": it.kind.as_str(),
        "durable": it.durable,
        "auto_delete": it.auto_delete,
        "internal": it.internal,
        "arguments": table_to_json(&it.arguments),
        "policy": view.policy.as_deref(),
        "user_who_performed_action": "",
        "message_stats": samples.exchange_stats(&it.vhost, &it.name, view.passage),
    })
}

/// A binding's key in addresses: the routing key, and a mark of the arguments where there are any.
pub fn properties_key(key: &[u8], arguments: &Table) -> String {
    if key.is_empty() && arguments.is_empty() {
        return "~".into();
    }
    let key = encode(key);
    if arguments.is_empty() { key } else { format!("{key}~{}", mark(arguments)) }
}

/// Stands for the arguments, whatever order they were given in.
fn mark(arguments: &Table) -> String {
    let mut sorted = arguments.0.clone();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    // FNV-1a: short, and the same in every run and release.
    let text = format!("{sorted:?}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{hash:016x}")
}

pub fn binding(it: &BindingDefinition) -> Value {
    let (kind, destination) = match &it.destination {
        Destination::Mailbox(name) => ("queue", name),
        Destination::Exchange(name) => ("exchange", name),
    };
    json!({
        "source": it.source.as_str(),
        "vhost": it.vhost.as_str(),
        "destination": destination.as_str(),
        "destination_type": kind,
        "routing_key": String::from_utf8_lossy(&it.key.0),
        "arguments": table_to_json(&it.arguments),
        "properties_key": properties_key(&it.key.0, &it.arguments),
    })
}

pub fn vhost(it: &VhostDefinition, host: &Host) -> Value {
    let mut state = Map::new();
    state.insert(host.node.clone(), "running".into());
    json!({
        "name": it.name.as_str(),
        "description": it.description,
        "tags": it.tags,
        "default_queue_type": it.default_queue_type.as_deref().unwrap_or("undefined"),
        "tracing": it.tracing,
        "protected_from_deletion": it.protected,
        "cluster_state": state,
        "metadata": {
            "description": it.description,
            "tags": it.tags,
            "protected_from_deletion": it.protected,
        },
    })
}

pub fn user(it: &UserDefinition) -> Value {
    json!({
        "name": it.name.as_str(),
        "password_hash": it.credential.password_hash,
        "hashing_algorithm": it.credential.hashing,
        "tags": it.credential.tags,
        "limits": user_limits(it),
    })
}

pub fn user_limits(it: &UserDefinition) -> Value {
    limits([("max-connections", it.max_connections), ("max-channels", it.max_channels)])
}

pub fn vhost_limits(it: &VhostDefinition) -> Value {
    limits([("max-connections", it.max_connections), ("max-queues", it.max_mailboxes)])
}

fn limits(all: [(&str, Option<u64>); 2]) -> Value {
    let given = all.into_iter().filter_map(|(name, limit)| Some((name.into(), limit?.into())));
    Value::Object(given.collect())
}

pub fn permission(it: &PermissionDefinition) -> Value {
    json!({
        "user": it.user.as_str(),
        "vhost": it.vhost.as_str(),
        "configure": it.configure,
        "write": it.write,
        "read": it.read,
    })
}

pub fn topic_permission(it: &TopicPermissionDefinition) -> Value {
    json!({
        "user": it.user.as_str(),
        "vhost": it.vhost.as_str(),
        "exchange": it.exchange.as_str(),
        "write": it.write,
        "read": it.read,
    })
}

pub fn policy(it: &PolicyDefinition) -> Value {
    json!({
        "vhost": it.vhost.as_str(),
        "name": it.name.as_str(),
        "pattern": it.pattern,
        "apply-to": it.apply_to,
        "priority": it.priority,
        "definition": table_to_json(&it.definition),
    })
}

pub fn parameter(it: &ParameterDefinition) -> Value {
    let value: Value = serde_json::from_str(&it.value).unwrap_or(Value::Null);
    match &it.vhost {
        Some(vhost) => json!({
            "vhost": vhost.as_str(),
            "component": it.component,
            "name": it.name.as_str(),
            "value": value,
        }),
        None => json!({"name": it.name.as_str(), "value": value}),
    }
}

/// How a message is shown.
#[derive(Clone, Copy, Debug)]
pub struct Showing {
    /// Bodies as text where they are text; otherwise always in base64.
    pub text: bool,
    /// Bodies are cut to so many bytes.
    pub truncate: Option<usize>,
}

/// A message as RabbitMQ shows one that stays.
pub fn found(it: &Found, left: u64, showing: Showing) -> Value {
    message(&it.message, it.rest.redelivered, it.attempts, left, showing)
}

/// Messages in whatever state, and where to look next.
pub fn browsed(it: &Browsed, showing: Showing) -> Value {
    let row = |it: &Found| {
        let mut row = found(it, 0, showing);
        if let Value::Object(row) = &mut row {
            row.remove("message_count");
            row.insert("state".into(), it.at.state.as_str().into());
            row.insert("position".into(), it.at.seq.0.into());
            row.insert("place".into(), it.at.to_string().into());
            row.insert("since_ms".into(), it.rest.since.0.into());
            if let Some(offset) = it.offset {
                row.insert("offset".into(), offset.into());
            }
            if it.rest.deliver_at.0 > 0 {
                row.insert("due_ms".into(), it.rest.deliver_at.0.into());
            }
            if let Some(holder) = &it.holder {
                let consumer = holder.tag.as_ref().map(|tag| tag.as_str());
                let holder = json!({
                    "connection": holder.connection.0,
                    "channel": holder.channel.0,
                    "consumer_tag": consumer,
                    "since_ms": holder.since.0,
                });
                row.insert("holder".into(), holder);
            }
        }
        row
    };
    json!({
        "messages": it.found.iter().map(row).collect::<Vec<_>>(),
        "next": it.next.map(|next| next.to_string()),
    })
}

pub fn delivered(it: &Delivery, left: u64, showing: Showing) -> Value {
    message(&it.message, it.redelivered, it.attempts, left, showing)
}

fn message(
    it: &Message,
    redelivered: bool,
    attempts: Option<u32>,
    left: u64,
    showing: Showing,
) -> Value {
    use base64::Engine;
    let body = it.body();
    let shown = &body[..showing.truncate.unwrap_or(usize::MAX).min(body.len())];
    let text = showing.text.then(|| std::str::from_utf8(shown).ok()).flatten();
    let (payload, encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (base64::engine::general_purpose::STANDARD.encode(shown), "base64"),
    };
    let mut properties = properties(it.properties());
    if let Some(attempts) = attempts.filter(|attempts| *attempts > 0)
        && let Value::Object(properties) = &mut properties
        && let Value::Object(headers) = properties.entry("headers").or_insert_with(|| json!({}))
    {
        headers.insert("x-delivery-count".into(), attempts.into());
    }
    json!({
        "payload_bytes": body.len(),
        "redelivered": redelivered,
        "exchange": it.exchange().as_str(),
        "routing_key": String::from_utf8_lossy(it.key()),
        "message_count": left,
        "properties": properties,
        "payload": payload,
        "payload_encoding": encoding,
    })
}

fn properties(it: &Properties) -> Value {
    let mut object = Map::new();
    for (name, text) in it.texts() {
        object.insert(name.into(), String::from_utf8_lossy(text).into());
    }
    let numbers = [
        ("delivery_mode", it.delivery_mode.map(u64::from)),
        ("priority", it.priority.map(u64::from)),
        ("timestamp", it.timestamp),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            object.insert(name.into(), number.into());
        }
    }
    if let Some(headers) = &it.headers {
        object.insert("headers".into(), table_to_json(headers));
    }
    Value::Object(object)
}
