//! Clients of other hosts in this one: each is a connection of its own here, behind the link that brings it.
//!
//! So its leases, credit and consumers are those of any client. What it asks was allowed at its own host, which this
//! one trusts; what is told to it goes to the link.

use std::collections::BTreeMap;

use super::{Broker, PeerEvent};
use crate::broker::command::{Command, ConnectionId, Open};
use crate::broker::event::{Effect, Event};
use crate::broker::name::{Name, Time};

/// Set in the numbers of visitors' connections: the server never counts so far, and JSON tells them apart.
const VISITOR: u64 = 1 << 52;
/// Further ones are sent away.
const VISITORS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Visitors {
    last: u64,
    /// By link and the number that it gave.
    numbers: BTreeMap<(ConnectionId, u32), ConnectionId>,
    origins: BTreeMap<ConnectionId, (ConnectionId, u32)>,
}

impl ConnectionId {
    /// Whether a client of another host is behind it.
    pub(in crate::broker) fn is_visitor(self) -> bool {
        self.0 & VISITOR != 0
    }
}

impl Visitors {
    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    fn over(&self, link: ConnectionId) -> impl Iterator<Item = ConnectionId> + '_ {
        self.numbers.range((link, 0)..=(link, u32::MAX)).map(|(_, id)| *id)
    }
}

impl Broker {
    /// What a client of the host at the other end of the link wants here.
    pub(super) fn visit(
        &mut self,
        link: ConnectionId,
        number: u32,
        command: Command,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(host) = self.peers.guest(link) else { return };
        let known = self.peers.visitors.numbers.get(&(link, number)).copied();
        match (command, known) {
            (Command::Open(open, _), None) => self.receive_visitor(link, number, &host, *open, out),
            (Command::Close(_), Some(id)) => self.end_visitor(id, now, out),
            (
                command @ (Command::Request(..)
                | Command::Settle(_)
                | Command::Extend(_)
                | Command::Drained { .. }
                | Command::CloseChannel(..)),
                Some(id),
            ) => {
                self.access.trust(true);
                self.act(id, command, now, out);
                self.access.trust(false);
            }
            // Of one that was sent away, and does not know it yet.
            _ => {}
        }
    }

    fn receive_visitor(
        &mut self,
        link: ConnectionId,
        number: u32,
        host: &Name,
        mut open: Open,
        out: &mut Vec<Effect>,
    ) {
        if self.peers.visitors.numbers.len() >= VISITORS_MAX {
            let event = Box::new(Event::ForceClose("too many clients of this host".into()));
            let event = PeerEvent::Visitor { visit: number, event };
            return out.push(Effect::Notify(link, Event::Peer(event)));
        }
        open.peer = format!("{} at host {host}", open.peer);
        let flow = self.flow_of(open.protocol);
        let visitors = &mut self.peers.visitors;
        visitors.last += 1;
        let id = ConnectionId(VISITOR | visitors.last);
        visitors.numbers.insert((link, number), id);
        visitors.origins.insert(id, (link, number));
        let held_back = self.connections.get(&link).is_some_and(|it| it.held_back);
        let connection = self.connections.entry(id).or_default();
        (connection.flow, connection.held_back) = (flow, held_back);
        connection.open = Some(Box::new(open));
    }

    fn end_visitor(&mut self, id: ConnectionId, now: Time, out: &mut Vec<Effect>) {
        if let Some(origin) = self.peers.visitors.origins.remove(&id) {
            self.peers.visitors.numbers.remove(&origin);
        }
        self.close_connection(id, now, out);
    }

    /// The link is gone, and whoever came over it.
    pub(in crate::broker) fn end_visitors(
        &mut self,
        link: ConnectionId,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let all: Vec<_> = self.peers.visitors.over(link).collect();
        for id in all {
            self.end_visitor(id, now, out);
        }
    }

    /// What is said to visitors since `start` goes to their links.
    #[inline]
    pub(in crate::broker) fn readdress(&mut self, start: usize, now: Time, out: &mut Vec<Effect>) {
        if !self.peers.visitors.is_empty() {
            self.readdress_from(start, now, out);
        }
    }

    fn readdress_from(&mut self, mut start: usize, now: Time, out: &mut Vec<Effect>) {
        while !self.peers.visitors.is_empty() && start < out.len() {
            let ended = self.readdress_all(&mut out[start..]);
            start = out.len();
            for id in &ended {
                self.end_visitor(*id, now, out);
            }
            if !ended.is_empty() {
                self.finish(now, out);
            }
        }
    }

    /// Those that are told to go.
    fn readdress_all(&mut self, effects: &mut [Effect]) -> Vec<ConnectionId> {
        let mut ended = Vec::new();
        for effect in effects {
            let (Effect::Notify(to, event) | Effect::NotifyDurable(to, event)) = effect else {
                continue;
            };
            let Some(&(link, visit)) = self.peers.visitors.origins.get(to) else { continue };
            if let Event::ForceClose(_) = event {
                ended.push(*to);
            }
            if !event.deliveries().is_empty() {
                self.count_on_link(link, event);
            }
            let told = Box::new(std::mem::replace(event, Event::Blocked(None)));
            *event = Event::Peer(PeerEvent::Visitor { visit, event: told });
            *to = link;
        }
        ended
    }

    /// A link that has not written what it was given holds all its visitors back.
    fn count_on_link(&mut self, link: ConnectionId, event: &Event) {
        let (deliveries_max, bytes_max) =
            (self.settings.window_deliveries, self.settings.window_bytes);
        let Some(connection) = self.connections.get_mut(&link) else { return };
        for delivery in event.deliveries() {
            connection.in_flight += 1;
            connection.in_flight_bytes += delivery.message.size() as u64;
        }
        if !connection.held_back && !connection.has_room(deliveries_max, bytes_max) {
            connection.held_back = true;
            self.hold_back(link, true);
        }
    }

    /// The link wrote much of what it had.
    pub(in crate::broker) fn let_on(&mut self, link: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&link)
            && std::mem::take(&mut connection.held_back)
        {
            for id in self.hold_back(link, false) {
                self.wake_stalled(id);
            }
        }
    }

    fn hold_back(&mut self, link: ConnectionId, back: bool) -> Vec<ConnectionId> {
        let all: Vec<_> = self.peers.visitors.over(link).collect();
        for id in &all {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.held_back = back;
            }
        }
        all
    }
}
