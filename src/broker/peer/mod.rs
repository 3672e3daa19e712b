//! What the core knows of other hosts: what lives there, what waits to be carried there, and what came from there.
//!
//! A host is a name here. Links, addresses and handshakes are somebody else's; the core sees connections that carry
//! outboxes away (`Peering::Carry`) and connections that bring messages (`Peering::Greet`).

mod adverts;
mod afar;
mod arrival;
mod handover;
mod leave;
mod outbox;
mod parcel;
mod pledge;
mod recent;
mod refused;
mod routes;
mod spread;
mod tags;
mod takeover;
mod visit;

use std::collections::{BTreeMap, BTreeSet};

use self::adverts::Adverts;
pub use self::afar::ASK_SIZE;
use self::afar::Afar;
use self::arrival::Way;
pub use self::leave::Fate;
pub(super) use self::leave::Onward;
pub use self::outbox::OUTBOX_PREFIX;
pub(super) use self::outbox::{is_outbox_name, outbox_host};
pub(super) use self::parcel::pack;
pub(super) use self::pledge::{Pledged, Pledges};
pub(super) use self::recent::Recent;
pub(super) use self::routes::Home;
pub(super) use self::spread::{SPREAD, Spread};
pub(super) use self::tags::{Choice, check_tags};
pub use self::tags::{HOST_NAME_SIZE_MAX, HOST_TAGS_MAX, SPREAD_TAGS, is_host_name};
use self::visit::Visitors;
use super::command::{Command, ConnectionId, MailboxId, Seq};
use super::definition::{DefinitionKey, RouteDefinition};
use super::drain::DRAINED;
use super::event::{Effect, Event};
use super::message::Message;
use super::name::{Name, Time};
use super::{Broker, Settings};

/// Hosts that a message passes at most.
pub const HOPS_MAX: u8 = 8;
/// What connections of other hosts' clients speak, as it is shown.
pub const VISITOR_PROTOCOL: &str = "peer";
/// Changes in one word about routes.
const CHANGES_MAX: usize = 256;

/// What links ask of the core.
#[derive(Debug)]
pub enum Peering {
    /// This connection takes what waits for the host there. `Event::Carries` for each outbox, now and when one is made.
    Carry { host: Name, tags: Vec<Name> },
    /// `Event::Adverts`, once there is something later than `after`. `base` is that of the last answer, 0 at first.
    Advertise { after: u64, base: u64 },
    /// This connection speaks for the host, in this run of it. Any other that did is ended. `Event::Greeted`.
    Greet { host: Name, run: u64, tags: Vec<Name> },
    /// What the host said of its mailboxes and bindings. `Event::Learned` once that is durable.
    Learn(Learn),
    /// Messages from the host's outbox. `Event::Arrived` once they are durable.
    Arrive(Arrival),
    /// The host never takes this message, which the connection holds.
    Refuse { outbox: MailboxId, seq: Seq, reason: String },
    /// What a client of the host wants here. Such a client begins with `Command::Open` and ends with `Command::Close`.
    Visit { visit: u32, command: Command },
    /// What the host said to a client of this one.
    Told { visit: u32, event: Event },
    /// What is to be shown of a host that cannot be reached.
    Remark { host: Name, error: String },
}

/// A slice of what a host says of itself.
#[derive(Debug, Default)]
pub struct Learn {
    pub changes: Vec<RouteChange>,
    /// The first of everything: what is not named until `ends` is no more.
    pub begins: bool,
    /// Nothing later is known at the moment.
    pub ends: bool,
    pub version: u64,
}

/// A mailbox or binding of a host that came or went. Of its own ones the host is not named.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteChange {
    pub route: RouteDefinition,
    pub gone: bool,
}

#[derive(Debug)]
pub struct Arrival {
    pub vhost: Name,
    /// The origin's number of the outbox: positions count within it.
    pub outbox: MailboxId,
    /// In order of position.
    pub messages: Vec<(Seq, Message)>,
}

/// What the core says to links.
#[derive(Debug)]
pub enum PeerEvent {
    /// The connection takes this outbox to its host.
    Carries {
        outbox: MailboxId,
        vhost: Name,
    },
    /// What this host has that is new: all of it where it `begins`, until it `ends`.
    Adverts {
        changes: Vec<RouteChange>,
        begins: bool,
        ends: bool,
        version: u64,
        base: u64,
    },
    /// The connection speaks for its host, of which everything up to this version is known.
    Greeted {
        known: u64,
    },
    Learned {
        version: u64,
    },
    /// Messages up to here are at rest, or were before.
    Arrived {
        outbox: MailboxId,
        upto: Seq,
    },
    /// What a client of this host wants at the other one.
    Ask {
        visit: u32,
        command: Command,
    },
    /// What a client of the other host is told.
    Visitor {
        visit: u32,
        event: Box<Event>,
    },
    /// To the server itself: nobody needs to look for this host any longer.
    Forgotten {
        host: Name,
    },
}

/// Everything about other hosts.
#[derive(Debug)]
pub(super) struct Peers {
    adverts: Adverts,
    /// Names that live here and of which other hosts said something: who is their home may be another one now.
    stirred: BTreeSet<(Name, Name)>,
    /// Mailboxes that move here, while their old homes hand out messages: exchanges do not lead to them yet.
    pub(super) arriving: BTreeSet<MailboxId>,
    /// The broker's generation when bindings were last looked at.
    gathered: u64,
    /// The way of the last message from another host, if those with its address go the same.
    way: Option<Way>,
    neighbours: BTreeMap<Name, Neighbour>,
    /// Of this host.
    tags: Vec<Name>,
    /// Connections that wait for something later: after which version, and their base.
    waiting: BTreeMap<ConnectionId, (u64, u64)>,
    visitors: Visitors,
    pub(super) afar: Afar,
    consumers: u32,
}

/// Another host.
#[derive(Debug, Default)]
struct Neighbour {
    routes: BTreeMap<DefinitionKey, Known>,
    /// As it said when it was linked last.
    tags: Vec<Name>,
    /// Counts the times it told everything.
    round: u64,
    /// It is telling everything.
    telling: bool,
    /// Run and version up to which it is known whole.
    known: Option<(u64, u64)>,
    /// Its run, as it greeted.
    run: u64,
    /// Takes to it what waits here.
    carrier: Option<ConnectionId>,
    /// Speaks for it here.
    guest: Option<ConnectionId>,
    carrier_since: Time,
    guest_since: Time,
    error: Option<(Time, String)>,
    /// By virtual host: the outbox, and how far it was taken.
    taken: BTreeMap<Name, (MailboxId, Seq)>,
    arrived: u64,
    repeated: u64,
    /// What it does not take.
    refused: u64,
}

#[derive(Debug)]
struct Known {
    route: RouteDefinition,
    round: u64,
}

/// A host as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    pub host: Name,
    /// What kind of host it said to be.
    pub tags: Vec<Name>,
    /// Since when the link to it is up.
    pub carried_since: Option<Time>,
    /// Since when its own link to here is up.
    pub greeted_since: Option<Time>,
    /// The last thing that went wrong, and when.
    pub error: Option<(Time, String)>,
    /// Its mailboxes, and its bindings.
    pub mailboxes: u64,
    pub bindings: u64,
    /// What waits for it here, in all virtual hosts.
    pub messages: u64,
    pub bytes: u64,
    /// When the oldest of that came.
    pub oldest: Option<Time>,
    /// Messages that came from it since the start, and those that it sent twice.
    pub arrived: u64,
    pub repeated: u64,
    /// Messages from here that it refused since the start.
    pub refused: u64,
    /// Names that live there and here, or in a third place that is older.
    pub shadowed: Vec<Name>,
}

impl Neighbour {
    /// More is known than what was taken from it once.
    fn is_of_now(&self) -> bool {
        let linked = self.run > 0 || self.carrier.is_some() || self.guest.is_some();
        linked || !self.routes.is_empty() || self.error.is_some()
    }
}

impl Peers {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            adverts: Adverts::new(settings.start > 0),
            stirred: BTreeSet::new(),
            arriving: BTreeSet::new(),
            gathered: 0,
            way: None,
            neighbours: BTreeMap::new(),
            tags: settings.tags.clone(),
            waiting: BTreeMap::new(),
            visitors: Visitors::default(),
            afar: Afar::default(),
            consumers: 0,
        }
    }

    /// Whether there may be other hosts at all.
    pub(super) fn on(&self) -> bool {
        self.adverts.on()
    }

    /// Whether any other host was ever heard of.
    pub(super) fn knows_any(&self) -> bool {
        !self.neighbours.is_empty()
    }

    pub(super) fn adverts_mut(&mut self) -> &mut Adverts {
        &mut self.adverts
    }

    /// The connection is gone. Whether it was a link.
    pub(super) fn leave(&mut self, from: ConnectionId) -> bool {
        let mut link = false;
        self.waiting.remove(&from);
        for neighbour in self.neighbours.values_mut() {
            link |= neighbour.carrier.take_if(|it| *it == from).is_some();
            link |= neighbour.guest.take_if(|it| *it == from).is_some();
        }
        link
    }

    /// Connections that speak for other hosts here.
    pub(super) fn guests(&self) -> impl Iterator<Item = ConnectionId> {
        self.neighbours.values().filter_map(|it| it.guest)
    }

    /// The host that the connection speaks for.
    fn guest(&self, from: ConnectionId) -> Option<Name> {
        let mut all = self.neighbours.iter();
        all.find(|(_, it)| it.guest == Some(from)).map(|(host, _)| host.clone())
    }
}

impl Broker {
    pub(super) fn peering(
        &mut self,
        from: ConnectionId,
        peering: Peering,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        match peering {
            Peering::Carry { host, tags } => self.carry(from, &host, tags, now, out),
            Peering::Advertise { after, base } => {
                self.peers.waiting.insert(from, (after, base));
            }
            Peering::Greet { host, run, tags } => self.greet(from, host, (run, tags), now, out),
            Peering::Learn(learn) => self.learn(from, learn, now, out),
            Peering::Arrive(arrival) => self.arrive(from, arrival, now, out),
            Peering::Refuse { outbox, seq, reason } => {
                self.take_out(from, outbox, seq, &reason, now, out);
            }
            Peering::Visit { visit, command } => self.visit(from, visit, command, now, out),
            Peering::Told { visit, event } => self.told(from, visit, event, now, out),
            Peering::Remark { host, error } => {
                self.peers.neighbours.entry(host).or_default().error = Some((now, error));
            }
        }
    }

    fn greet(
        &mut self,
        from: ConnectionId,
        host: Name,
        (run, tags): (u64, Vec<Name>),
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        if self.drain.is_some() {
            return out.push(Effect::Notify(from, Event::ForceClose(DRAINED.into())));
        }
        self.connections.entry(from).or_default();
        let neighbour = self.peers.neighbours.entry(host.clone()).or_default();
        // What it still has to say is older than what the new one says.
        if let Some(old) = neighbour.guest.replace(from) {
            let reason = format!("host '{host}' came again");
            out.push(Effect::Notify(old, Event::ForceClose(reason)));
        }
        (neighbour.run, neighbour.guest_since, neighbour.telling) = (run, now, false);
        let known = neighbour.known.filter(|(of, _)| *of == run).map_or(0, |(_, version)| version);
        self.note_tags(&host, tags, out);
        out.push(Effect::NotifyDurable(from, Event::Peer(PeerEvent::Greeted { known })));
    }

    /// Tells those who wait what this host has that is new.
    pub(super) fn advertise(&mut self, out: &mut Vec<Effect>) {
        if self.peers.gathered != self.generation {
            self.peers.gathered = self.generation;
            self.gather_bindings();
        }
        let adverts = &self.peers.adverts;
        self.peers.waiting.retain(|to, (after, base)| {
            let Some(event) = adverts.since(*after, *base, CHANGES_MAX) else { return true };
            out.push(Effect::NotifyDurable(*to, event));
            false
        });
    }

    fn gather_bindings(&mut self) {
        let mut news = Vec::new();
        for vhost in self.vhosts.values_mut() {
            news.append(vhost.exchanges.news_mut());
        }
        for change in news {
            let durable = self.is_durable_binding(&change.binding);
            self.peers.adverts.bound(change, durable);
        }
    }

    /// Hosts in order of name, after one.
    pub(super) fn peer_views(&self, after: Option<&Name>, count: usize) -> Vec<PeerView> {
        let later = |host: &Name| after.is_none_or(|after| host > after);
        let all = self.peers.neighbours.iter().filter(|(host, _)| later(host));
        let all = all.filter(|(host, it)| it.is_of_now() || self.has_outbox(host));
        all.take(count).map(|(host, it)| self.peer_view(host, it)).collect()
    }

    /// Hosts that were not told the last of what this one has, or did not say that they know.
    pub(super) fn untold(&self) -> u64 {
        let knows = |it: &Neighbour| {
            let after = it.carrier.and_then(|link| self.peers.waiting.get(&link));
            after.is_some_and(|(after, _)| self.peers.adverts.is_all(*after))
        };
        let known = self.peers.neighbours.iter();
        let known = known.filter(|(host, it)| it.is_of_now() || self.has_outbox(host));
        known.filter(|(_, it)| !knows(it)).count() as u64
    }

    fn has_outbox(&self, host: &Name) -> bool {
        self.vhosts.values().any(|it| it.outboxes.contains_key(host))
    }

    fn peer_view(&self, host: &Name, it: &Neighbour) -> PeerView {
        let is_mailbox = |it: &&Known| it.route.mailbox().is_some();
        let mailboxes = it.routes.values().filter(is_mailbox).count() as u64;
        let mut view = PeerView {
            host: host.clone(),
            tags: it.tags.clone(),
            carried_since: it.carrier.map(|_| it.carrier_since),
            greeted_since: it.guest.map(|_| it.guest_since),
            error: it.error.clone(),
            mailboxes,
            bindings: it.routes.len() as u64 - mailboxes,
            arrived: it.arrived,
            repeated: it.repeated,
            refused: it.refused,
            messages: 0,
            bytes: 0,
            oldest: None,
            shadowed: Vec::new(),
        };
        for vhost in self.vhosts.values() {
            let outbox = vhost.outboxes.get(host).and_then(|id| self.mailboxes.get(id));
            let Some(outbox) = outbox else { continue };
            view.messages += outbox.ready + outbox.unsettled();
            let held = outbox.leases.values().map(|lease| lease.entry.message.body().len() as u64);
            view.bytes += outbox.ready_bytes + held.sum::<u64>();
            view.oldest = [view.oldest, outbox.oldest()].into_iter().flatten().min();
        }
        let mut shadowed = BTreeSet::new();
        for route in it.routes.values().filter_map(|it| it.route.mailbox().map(|_| &it.route)) {
            let Some((name, vhost)) = route.mailbox().zip(self.vhosts.get(&route.vhost)) else {
                continue;
            };
            let elsewhere = vhost.away.get(name).and_then(|it| it.first());
            let won = elsewhere.is_none_or(|winner| winner.host == *host);
            let moved = elsewhere.is_some_and(|winner| winner.epoch.0 > 0);
            let meant = moved || vhost.spreads.contains_key(name);
            if !meant && (vhost.mailboxes.contains_key(name) || !won) {
                shadowed.insert(name.clone());
            }
            if shadowed.len() == CHANGES_MAX {
                break;
            }
        }
        view.shadowed = shadowed.into_iter().collect();
        view
    }
}
