//! What other hosts said of themselves: where mailboxes live, and which messages are wanted there.
//!
//! It is kept, also over a restart, until the host itself says otherwise. A host that is away takes nothing back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Broker, Known, Learn, PeerEvent, Spread};
use crate::broker::command::{ConnectionId, MailboxId};
use crate::broker::definition::{Definition, MailboxDefinition, RouteDefinition, Wanted};
use crate::broker::event::{Effect, Event, Write};
use crate::broker::mailbox::Mailbox;
use crate::broker::name::{Name, Time};
use crate::broker::routing::Abroad;

/// Where a mailbox lives that is not here. The first is its home: what moved last, then what is oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) struct Home {
    pub(in crate::broker) epoch: Reverse<u64>,
    /// As its own host numbers it.
    pub(super) id: MailboxId,
    pub(in crate::broker) host: Name,
}

impl Home {
    pub(super) fn of(definition: &MailboxDefinition, host: &Name) -> Self {
        Self { epoch: Reverse(definition.epoch), id: definition.id, host: host.clone() }
    }
}

impl Broker {
    pub(super) fn learn(
        &mut self,
        from: ConnectionId,
        learn: Learn,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        // Who was replaced by a newer connection of the same host has nothing to say.
        let Some(host) = self.peers.guest(from) else { return };
        let Learn { changes, begins, ends, version } = learn;
        let Some(neighbour) = self.peers.neighbours.get_mut(&host) else { return };
        if begins {
            neighbour.round += 1;
            neighbour.telling = true;
            neighbour.known = None;
        }
        for change in changes {
            let route = RouteDefinition { host: host.clone(), ..change.route };
            if change.gone {
                self.lose_route(&route, now, out);
            } else {
                self.gain_route(route, now, out);
            }
        }
        let Some(neighbour) = self.peers.neighbours.get_mut(&host) else { return };
        if ends && std::mem::take(&mut neighbour.telling) {
            let round = neighbour.round;
            let untold = neighbour.routes.values().filter(|it| it.round != round);
            let untold: Vec<_> = untold.map(|it| it.route.clone()).collect();
            for route in untold {
                self.lose_route(&route, now, out);
            }
        }
        if let Some(neighbour) = self.peers.neighbours.get_mut(&host)
            && !neighbour.telling
        {
            neighbour.known = Some((neighbour.run, version));
        }
        out.push(Effect::NotifyDurable(from, Event::Peer(PeerEvent::Learned { version })));
    }

    fn gain_route(&mut self, route: RouteDefinition, now: Time, out: &mut Vec<Effect>) {
        let key = route.key();
        let Some(neighbour) = self.peers.neighbours.get_mut(&route.host) else { return };
        let round = neighbour.round;
        if let Some(known) = neighbour.routes.get_mut(&key) {
            known.round = round;
            if known.route == route {
                return;
            }
            let old = known.route.clone();
            self.lose_route(&old, now, out);
        }
        self.open_route(&route, now, out);
        if route.durable {
            out.push(Effect::Write(Write::Define(Box::new(Definition::Route(route.clone())))));
        }
        let neighbour = self.peers.neighbours.entry(route.host.clone()).or_default();
        neighbour.routes.insert(key, Known { route, round });
    }

    pub(super) fn lose_route(&mut self, route: &RouteDefinition, now: Time, out: &mut Vec<Effect>) {
        let Some(neighbour) = self.peers.neighbours.get_mut(&route.host) else { return };
        let Some(Known { route, .. }) = neighbour.routes.remove(&route.key()) else { return };
        if route.durable {
            out.push(Effect::Write(Write::Undefine(route.key())));
        }
        self.generation += 1;
        let Some(vhost) = self.vhosts.get_mut(&route.vhost) else { return };
        match &route.wanted {
            Wanted::Mailbox(it) => {
                if vhost.mailboxes.contains_key(&it.name) {
                    self.peers.stirred.insert((route.vhost.clone(), it.name.clone()));
                }
                if let Some(all) = vhost.away.get_mut(&it.name) {
                    all.remove(&Home::of(it, &route.host));
                    if all.is_empty() {
                        vhost.away.remove(&it.name);
                        vhost.spreads.remove(&it.name);
                    }
                }
            }
            Wanted::Binding { exchange, .. } => {
                vhost.exchanges.unbind_abroad(exchange, &route.key());
            }
        }
        let _ = now;
    }

    /// Publishes find their way from now on.
    fn open_route(&mut self, route: &RouteDefinition, now: Time, out: &mut Vec<Effect>) {
        if self.outbox(&route.vhost, &route.host, now, out).is_none() {
            return;
        }
        self.generation += 1;
        let Some(vhost) = self.vhosts.get_mut(&route.vhost) else { return };
        match &route.wanted {
            Wanted::Mailbox(it) => {
                if let Some(spread) = Spread::of(&it.arguments) {
                    vhost.spreads.insert(it.name.clone(), spread);
                }
                if vhost.mailboxes.contains_key(&it.name) {
                    self.peers.stirred.insert((route.vhost.clone(), it.name.clone()));
                }
                let all = vhost.away.entry(it.name.clone()).or_default();
                all.insert(Home::of(it, &route.host));
            }
            Wanted::Binding { exchange, .. } => {
                if let Some(abroad) = abroad(route, &self.mailboxes, &vhost.outboxes) {
                    vhost.exchanges.bind_abroad(exchange, route.key(), abroad);
                }
            }
        }
    }

    /// What other hosts said of a virtual host that came only now.
    pub(in crate::broker) fn open_routes(
        &mut self,
        vhost: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let all = self.peers.neighbours.values().flat_map(|it| it.routes.values());
        let routes: Vec<_> =
            all.map(|it| &it.route).filter(|it| it.vhost == *vhost).cloned().collect();
        for route in routes {
            self.open_route(&route, now, out);
        }
    }

    pub(in crate::broker) fn restore_route(
        &mut self,
        route: RouteDefinition,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.open_route(&route, now, out);
        let neighbour = self.peers.neighbours.entry(route.host.clone()).or_default();
        neighbour.routes.insert(route.key(), Known { route, round: 0 });
    }

    /// The host at which a mailbox lives that is not here.
    pub(in crate::broker) fn home_of(&self, vhost: &Name, name: &str) -> Option<&Name> {
        let all = self.vhosts.get(vhost)?.away.get(name)?;
        all.first().map(|it| &it.host)
    }

    /// What its home said of a mailbox that is not here.
    pub(in crate::broker) fn definition_away(
        &self,
        vhost: &Name,
        name: &Name,
    ) -> Option<(Name, MailboxDefinition)> {
        let host = self.home_of(vhost, name)?.clone();
        let key = RouteDefinition::mailbox_key(&host, vhost, name);
        let known = self.peers.neighbours.get(&host)?.routes.get(&key)?;
        match &known.route.wanted {
            Wanted::Mailbox(definition) => Some((host, definition.clone())),
            Wanted::Binding { .. } => None,
        }
    }
}

fn abroad(
    route: &RouteDefinition,
    mailboxes: &BTreeMap<MailboxId, Mailbox>,
    outboxes: &BTreeMap<Name, MailboxId>,
) -> Option<Abroad> {
    let Wanted::Binding { kind, key, arguments, .. } = &route.wanted else { return None };
    let outbox = mailboxes.get(outboxes.get(&route.host)?)?.name.clone();
    Some(Abroad { outbox, kind: kind.clone(), key: key.clone(), arguments: arguments.clone() })
}
