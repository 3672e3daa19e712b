//! The broker as a whole, and samples of what it counts.

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

/// What a mailbox counts, without its name: for rates.
#[derive(Clone, Copy, Debug)]
pub struct MailboxSample {
    pub id: MailboxId,
    pub ready: u64,
    pub unsettled: u64,
    pub counts: Counts,
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
        for mailbox in self.mailboxes.values() {
            overview.consumers += mailbox.consumers.len() as u64;
            overview.ready += mailbox.ready;
            overview.ready_bytes += mailbox.ready_bytes;
            overview.unsettled += mailbox.unsettled();
            overview.unsettled_bytes += mailbox.leases.bytes();
            // In streams messages grow old on purpose.
            if mailbox.stream.is_none()
                && let Some(oldest) = oldest(mailbox)
            {
                overview.oldest = Some(overview.oldest.map_or(oldest, |it| it.min(oldest)));
            }
        }
        for connection in self.connections.values().filter(|it| it.open.is_some()) {
            overview.connections += 1;
            overview.publishers += u64::from(connection.publishes);
            overview.channels += connection.channels.len() as u64;
        }
        overview
    }

    pub(super) fn samples(&self, after: Option<MailboxId>, count: usize) -> Vec<MailboxSample> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mailboxes = self.mailboxes.range((start, std::ops::Bound::Unbounded));
        let samples = mailboxes.map(|(id, mailbox)| MailboxSample {
            id: *id,
            ready: mailbox.ready,
            unsettled: mailbox.unsettled(),
            counts: mailbox.counts,
        });
        samples.take(count).collect()
    }
}
