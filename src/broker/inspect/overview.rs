//! The broker as a whole, and samples of what it counts.

use std::ops::Bound;

use super::oldest;
use crate::broker::{Broker, Counts, MailboxId, ProtocolFlow, Time, Totals};

/// Sums over everything there is.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub totals: Totals,
    pub flows: Vec<ProtocolFlow>,
    pub vhosts: u64,
    pub exchanges: u64,
    pub mailboxes: u64,
    pub connections: u64,
    pub channels: u64,
    pub consumers: u64,
    /// Connections that published.
    pub publishers: u64,
    pub ready: u64,
    pub ready_bytes: u64,
    pub unsettled: u64,
    pub unsettled_bytes: u64,
    /// Bytes of ready messages in memory.
    pub memory: u64,
    /// When the oldest ready message of any queue came.
    pub oldest: Option<Time>,
    /// Why publishers are stopped.
    pub alarm: Option<&'static str>,
}

/// What so many mailboxes have together. A broker with very many is summed up in several steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub consumers: u64,
    pub ready: u64,
    pub ready_bytes: u64,
    pub unsettled: u64,
    pub unsettled_bytes: u64,
    /// When the oldest ready message of any queue among them came.
    pub oldest: Option<Time>,
    /// The last of them, where others may come after it.
    pub next: Option<MailboxId>,
}

/// What a mailbox counts, without its name: for rates.
#[derive(Clone, Copy, Debug)]
pub struct MailboxSample {
    pub id: MailboxId,
    pub ready: u64,
    pub unsettled: u64,
    pub counts: Counts,
}

impl Overview {
    /// Adds what further mailboxes have.
    pub fn add(&mut self, sums: &Sums) {
        self.consumers += sums.consumers;
        self.ready += sums.ready;
        self.ready_bytes += sums.ready_bytes;
        self.unsettled += sums.unsettled;
        self.unsettled_bytes += sums.unsettled_bytes;
        self.oldest = [self.oldest, sums.oldest].into_iter().flatten().min();
    }
}

impl Broker {
    pub(super) fn overview(&self) -> Overview {
        let mut overview = Overview {
            totals: self.totals,
            flows: self.flows.clone(),
            vhosts: self.vhosts.len() as u64,
            exchanges: self.vhosts.values().map(|it| it.exchanges.count() as u64).sum(),
            mailboxes: self.mailboxes.len() as u64,
            memory: self.memory,
            alarm: self.alarm.or_else(|| self.drain.as_ref().map(|_| "drained")),
            ..Overview::default()
        };
        for connection in self.connections.values().filter(|it| it.open.is_some()) {
            overview.connections += 1;
            overview.publishers += u64::from(connection.publishes);
            overview.channels += connection.channels.len() as u64;
        }
        overview
    }

    pub(super) fn sums(&self, after: Option<MailboxId>, count: usize) -> Sums {
        let mut sums = Sums::default();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mailboxes = self.mailboxes.range((start, Bound::Unbounded));
        for (at, (id, mailbox)) in mailboxes.take(count).enumerate() {
            sums.consumers += mailbox.consumers.len() as u64;
            sums.ready += mailbox.ready;
            sums.ready_bytes += mailbox.ready_bytes;
            sums.unsettled += mailbox.unsettled();
            sums.unsettled_bytes += mailbox.leases.bytes();
            // In streams messages grow old on purpose.
            if mailbox.stream.is_none() {
                sums.oldest = [sums.oldest, oldest(mailbox)].into_iter().flatten().min();
            }
            sums.next = (at + 1 == count).then_some(*id);
        }
        sums
    }

    pub(super) fn samples(&self, after: Option<MailboxId>, count: usize) -> Vec<MailboxSample> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mailboxes = self.mailboxes.range((start, Bound::Unbounded));
        let samples = mailboxes.map(|(id, mailbox)| MailboxSample {
            id: *id,
            ready: mailbox.ready,
            unsettled: mailbox.unsettled(),
            counts: mailbox.counts,
        });
        samples.take(count).collect()
    }
}
