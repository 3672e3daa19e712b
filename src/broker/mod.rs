//! The mailbox core: commands in, effects out. Knows no protocol, socket, disk, clock or host.

pub mod access;
mod command;
mod definition;
mod event;
pub mod inspect;
mod message;
mod name;
mod refusal;
pub mod routing;
pub mod selector;
mod value;

pub use command::*;
pub use definition::*;
pub use event::*;
pub use message::*;
pub use name::{Name, Time};
pub use refusal::{Action, Kind, Refusal};
pub use value::{Table, TableKey, Value};

/// Counts the batches of writes that the server takes: an append of batch 7 is durable once 7 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Every mailbox, exchange, user and lease of this host.
///
/// ```text
/// apply(from, command) ─┐
/// durable(epoch)        ├─> Vec<Effect>: Notify, Write, NotifyDurable, Fetch
/// tick(now)            ─┘
/// ```
pub struct Broker {
    epoch: Epoch,
}

impl Broker {
    /// A broker with what the store recovered; effects are what the recovery itself wants written.
    pub fn open(
        _recovered: Recovered,
        _settings: Settings,
        _now: Time,
        _out: &mut Vec<Effect>,
    ) -> Self {
        Self { epoch: Epoch(1) }
    }

    /// Something happened. Effects are appended in order.
    pub fn apply(
        &mut self,
        _from: ConnectionId,
        _command: Command,
        _now: Time,
        _out: &mut Vec<Effect>,
    ) {
    }

    /// Time passed.
    pub fn tick(&mut self, _now: Time, _out: &mut Vec<Effect>) {}

    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// The server takes all writes since the last seal as one batch.
    pub fn seal(&mut self) -> Epoch {
        let sealed = self.epoch;
        self.epoch.0 += 1;
        sealed
    }

    /// The batch and all before it are durable.
    pub fn durable(&mut self, _epoch: Epoch, _now: Time, _out: &mut Vec<Effect>) {}

    /// The broker stops in good order: what is exact now is written down.
    pub fn close(&mut self, _now: Time, _out: &mut Vec<Effect>) {}
}

/// Limits and habits of the core. Every queue has a bound here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Part of every message id.
    pub host: u32,
    /// Delivered to a connection and not yet written to its socket: beyond this it gets no more for a while.
    pub window_bytes: u64,
    pub window_deliveries: u32,
    /// Messages of a mailbox kept in memory at its head.
    pub hot_messages: usize,
    pub hot_bytes: usize,
    /// Transient messages in memory beyond this are spilled to the store.
    pub memory_max: u64,
    pub message_size_max: u64,
    /// Reject with requeue this often, then dead-letter, for mailboxes of type quorum.
    pub delivery_limit: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: 0,
            window_bytes: 1 << 20,
            window_deliveries: 4096,
            hot_messages: 1024,
            hot_bytes: 1 << 20,
            memory_max: 1 << 30,
            message_size_max: 128 << 20,
            delivery_limit: 20,
        }
    }
}
