//! What memory is used for, in RabbitMQ's classes.

use serde_json::{Map, Value, json};

use super::json::Host;
use crate::broker::inspect::Overview;

/// Tools add up all of them, also what is not there.
const NOTHING: [&str; 24] = [
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "other_proc",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "metadata_store_ets",
    "other_ets",
    "msg_index",
    "code",
    "atom",
    "allocated_unused",
    "reserved_unallocated",
];

/// The classes in percent of all, and `total`, which is 100.
pub fn shares(overview: &Overview, host: &Host) -> Value {
    let Value::Object(mut all) = breakdown(overview, host) else { return Value::Null };
    let whole = host.process.memory_used.max(1);
    all.retain(|_, value| value.is_u64());
    for value in all.values_mut() {
        *value = json!(value.as_u64().unwrap_or_default().saturating_mul(100) / whole);
    }
    all.insert("total".into(), json!(100));
    Value::Object(all)
}

/// Messages stand under `binary`, what they do not take under `other_system`.
pub fn breakdown(overview: &Overview, host: &Host) -> Value {
    let used = host.process.memory_used;
    let messages = overview.memory.min(used);
    let mut all: Map<String, Value> =
        NOTHING.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    all.insert("binary".into(), json!(messages));
    all.insert("other_system".into(), json!(used - messages));
    all.insert("strategy".into(), json!("rss"));
    all.insert("total".into(), json!({"rss": used, "allocated": used, "erlang": used}));
    Value::Object(all)
}
