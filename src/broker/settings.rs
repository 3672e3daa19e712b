//! Limits and habits of the core. Every queue has a bound here.

use super::name::Name;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every message id.
    pub host: u32,
    /// Grows with every start of this host, in seconds: positions of outboxes count on from it. 0 where there are no other
    /// hosts.
    pub start: u64,
    /// What kind of host this is, for publishers that want one with such tags.
    pub tags: Vec<Name>,
    /// Delivered to a connection and not yet written to its socket: beyond this it gets no more for a while.
    pub window_bytes: u64,
    pub window_deliveries: u32,
    /// Messages of a mailbox kept in memory at its head.
    pub hot_messages: usize,
    pub hot_bytes: usize,
    /// Messages in memory beyond this many bytes are spilled to the store, also transient ones. A connection that
    /// holds so much unsettled gets no more until it settles.
    pub memory_max: u64,
    /// Open connections; further ones are refused.
    pub connections_max: Option<u64>,
    /// Failed attempts before a message is dead-lettered, for mailboxes of type quorum.
    pub delivery_limit: u32,
    /// A delivery that is not settled for so long goes back, and its consumer ends. `None` for never.
    pub consumer_timeout_ms: Option<u64>,
    /// A bug to have, so that the tests can show that they would find it.
    #[cfg(feature = "planted")]
    pub plant: Option<Plant>,
}

/// Bugs that the kill harness must catch.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    ConfirmBeforeSync,
    LostRedelivered,
    ReorderOnRequeue,
    AckWrongMailbox,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: 0,
            start: 0,
            tags: Vec::new(),
            window_bytes: 1 << 20,
            window_deliveries: 4096,
            hot_messages: 1024,
            hot_bytes: 1 << 20,
            memory_max: 1 << 30,
            connections_max: None,
            delivery_limit: 20,
            consumer_timeout_ms: Some(1_800_000),
            #[cfg(feature = "planted")]
            plant: None,
        }
    }
}
