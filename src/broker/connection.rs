//! What the broker knows of a connection: its channels, its window, and what it holds.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::command::{ChannelId, ConsumerId, MailboxId, Open, Seq};
use super::flow::{Inflow, Outflow, Passage};
use super::name::Name;
use super::peer::Pledges;

#[derive(Debug, Default)]
pub(super) struct Connection {
    /// `None` until it has opened a virtual host.
    pub(super) open: Option<Box<Open>>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    /// Delivered and not yet written to the socket.
    pub(super) in_flight: u32,
    pub(super) in_flight_bytes: u64,
    /// Delivered and not settled: these stay in memory.
    pub(super) leased_bytes: u64,
    /// Mailboxes that had something for it while it could not take more.
    pub(super) stalled: BTreeSet<MailboxId>,
    /// Mailboxes that go with it.
    pub(super) exclusives: BTreeSet<MailboxId>,
    /// It published, so an alarm concerns it.
    pub(super) publishes: bool,
    /// It came over a link that has to write first what it was given; or it is that link.
    pub(super) held_back: bool,
    /// Where the broker counts its protocol.
    pub(super) flow: usize,
    /// Confirms that wait for other hosts.
    pub(super) pledges: Option<Box<Pledges>>,
}

/// Beyond this a late settlement of what was taken back is an unknown delivery.
const REVOKED_MAX: usize = 65_536;

impl Connection {
    pub(super) fn has_window(&self, deliveries_max: u32, bytes_max: u64) -> bool {
        !self.held_back && self.has_room(deliveries_max, bytes_max)
    }

    /// Whether its own socket keeps up.
    pub(super) fn has_room(&self, deliveries_max: u32, bytes_max: u64) -> bool {
        self.in_flight < deliveries_max && self.in_flight_bytes < bytes_max
    }
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    /// Refused something, and not closed yet: nothing more is done for it.
    pub(super) failed: bool,
    /// Unsettled deliveries of all its consumers, 0 for no limit.
    pub(super) limit: u32,
    pub(super) unsettled: u32,
    pub(super) consumers: BTreeMap<ConsumerId, MailboxId>,
    /// Mailboxes in which it may hold leases.
    pub(super) touched: BTreeSet<MailboxId>,
    pub(super) route: Option<Route>,
    /// Leases that were taken back while the client may still settle them, and how many times.
    pub(super) revoked: BTreeMap<(MailboxId, Seq), u32>,
    /// The address at which it receives replies, and the consumer that gets them.
    pub(super) replies: Option<(Name, ConsumerId)>,
    pub(super) inflow: Inflow,
    pub(super) outflow: Outflow,
}

impl Channel {
    /// It may hold leases there from now on.
    pub(super) fn touch(&mut self, id: MailboxId, lives: impl Fn(&MailboxId) -> bool) {
        // Mailboxes that went are forgotten before the set grows much.
        if self.touched.len() >= 64 && self.touched.len().is_power_of_two() {
            self.touched.retain(lives);
        }
        self.touched.insert(id);
    }

    /// A lease of it was taken back.
    pub(super) fn revoke(&mut self, mailbox: MailboxId, seq: Seq) {
        *self.revoked.entry((mailbox, seq)).or_default() += 1;
        if self.revoked.len() > REVOKED_MAX {
            self.revoked.pop_first();
        }
    }

    /// Whether it settles what was taken back from it.
    pub(super) fn forgive(&mut self, mailbox: MailboxId, seq: Seq) -> bool {
        let Some(times) = self.revoked.get_mut(&(mailbox, seq)) else { return false };
        *times -= 1;
        if *times == 0 {
            self.revoked.remove(&(mailbox, seq));
        }
        true
    }

    /// What the exchange of its route is not told yet.
    pub(super) fn take_passage(&mut self) -> Option<(Name, Passage)> {
        let route = self.route.as_mut()?;
        let passage = std::mem::take(&mut route.passage);
        (passage.inwards > 0).then(|| route.exchange.clone().map(|it| (it, passage)))?
    }

    pub(super) fn has_credit(&self) -> bool {
        self.limit == 0 || self.unsettled < self.limit
    }
}

/// Where the channel's last publish went, while nothing changed.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) generation: u64,
    pub(super) exchange: Option<Name>,
    pub(super) key: Vec<u8>,
    pub(super) targets: SmallVec<[MailboxId; 2]>,
    /// What went this way since the exchange was told.
    pub(super) passage: Passage,
}
