//! A host is taken out of service while it still runs: clients go, what waits for other hosts reaches them.

use std::collections::BTreeSet;

use super::command::{ChannelId, ConnectionId, Outcome, Request};
use super::event::{Effect, Event, Reply};
use super::name::{Name, Time};
use super::refusal::Refusal;
use super::{Broker, SERVER};

/// What clients and other hosts are told.
pub(super) const DRAINED: &str = "this host is being drained";
/// What administrators may come in over.
const NATIVE: &str = "native";

#[derive(Debug)]
pub(super) struct Drain {
    /// Administrators who may look, but neither publish nor consume.
    admitted: BTreeSet<ConnectionId>,
    /// What lives here is no longer told to other hosts.
    leaves: bool,
}

/// How far a drain is. What is left is 0 of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainView {
    pub draining: bool,
    /// Clients that are still connected.
    pub connections: u64,
    /// Deliveries that consumers still hold.
    pub unsettled: u64,
    /// Messages that wait for other hosts.
    pub waiting: u64,
    /// Other hosts that do not know yet that nothing lives here any longer, where they shall.
    pub untold: u64,
    /// Messages in this host's own mailboxes, which stay.
    pub resting: u64,
}

impl Broker {
    /// Clients and other hosts' links are sent away and stay out until the broker starts again. With `leave`, other
    /// hosts are told that nothing lives here any longer.
    pub(super) fn drain(
        &mut self,
        from: ConnectionId,
        leave: bool,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_administrator(from)?;
        let drain =
            self.drain.get_or_insert_with(|| Drain { admitted: BTreeSet::new(), leaves: false });
        drain.admitted.insert(from);
        drain.leaves |= leave;
        // Nobody finds a way that was remembered.
        self.generation += 1;
        let stays = |id: &ConnectionId| *id == SERVER || drain.admitted.contains(id);
        // Clients of other hosts go with their link.
        let clients = self
            .connections
            .iter()
            .filter(|(id, it)| it.open.is_some() && !stays(id) && !id.is_visitor());
        let guests = self.peers.guests();
        let all = clients.map(|(id, _)| *id).chain(guests);
        let bye = |id| Effect::Notify(id, Event::ForceClose(DRAINED.into()));
        out.extend(all.map(bye));
        // What clients hold over HTTP has no connection that could end.
        for id in [from, SERVER] {
            let channels =
                self.connections.get(&id).map(|it| it.channels.keys().copied().collect());
            let channels: Vec<ChannelId> = channels.unwrap_or_default();
            self.return_leases(id, &channels, Outcome::Released, now, out);
        }
        if leave {
            self.peers.adverts_mut().withdraw();
        }
        Ok(Reply::Done)
    }

    /// Only administrators, and only over the native protocol, come in to see how it goes.
    pub(super) fn admit(
        &mut self,
        from: ConnectionId,
        user: &Name,
        protocol: &str,
    ) -> Result<(), Refusal> {
        let administers = self.access.is_administrator(user);
        let Some(drain) = &mut self.drain else { return Ok(()) };
        if protocol != NATIVE || !administers {
            return Err(Refusal::NotAllowed(DRAINED.into()));
        }
        drain.admitted.insert(from);
        Ok(())
    }

    /// Why the connection can neither publish nor consume. What clients that are leaving still say is heard.
    pub(super) fn idle(&self, from: ConnectionId) -> Option<&'static str> {
        let drain = self.drain.as_ref()?;
        (from == SERVER || drain.admitted.contains(&from)).then_some(DRAINED)
    }

    /// Whether the request would give the connection messages.
    pub(super) fn is_idle_for(&self, from: ConnectionId, request: &Request) -> bool {
        let takes = matches!(
            request,
            Request::Consume(_) | Request::ConsumeReplies { .. } | Request::Get { .. }
        );
        takes && self.idle(from).is_some()
    }

    pub(super) fn drain_view(&self) -> DrainView {
        let Some(drain) = &self.drain else { return DrainView::default() };
        let stays = |id: &ConnectionId| *id == SERVER || drain.admitted.contains(id);
        let clients = self.connections.iter().filter(|(id, it)| it.open.is_some() && !stays(id));
        let mut view = DrainView {
            draining: true,
            connections: clients.count() as u64,
            untold: if drain.leaves { self.untold() } else { 0 },
            ..DrainView::default()
        };
        for mailbox in self.mailboxes.values() {
            if mailbox.outbox.is_some() {
                view.waiting += mailbox.ready + mailbox.unsettled();
            } else {
                view.unsettled += mailbox.unsettled();
                view.resting += mailbox.ready + mailbox.delayed.len();
            }
        }
        view
    }
}
