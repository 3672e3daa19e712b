//! What this host tells others of itself: its mailboxes and bindings, each with the version of its last change.
//!
//! Whoever knows everything up to a version asks for what is later, a slice at a time, so nothing piles up for a link
//! that is slow or away. What went is remembered for a while; who was away for longer is told everything anew.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{PeerEvent, RouteChange};
use crate::broker::command::MailboxId;
use crate::broker::definition::{DefinitionKey, MailboxDefinition, RouteDefinition, Wanted};
use crate::broker::event::Event;
use crate::broker::mailbox::Mailbox;
use crate::broker::name::Name;
use crate::broker::routing::BindingChange;
use crate::broker::value::Table;

/// What went and is still known to have gone.
const GONE_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Adverts {
    on: bool,
    /// Nothing that comes is told.
    withdrawn: bool,
    /// From 1 on, so that who was told something never asks as if it were not.
    version: u64,
    entries: BTreeMap<DefinitionKey, Entry>,
    /// By version of the last change.
    order: BTreeMap<u64, DefinitionKey>,
    gone: BTreeMap<u64, DefinitionKey>,
    /// What went before this version is forgotten.
    floor: u64,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    /// Bindings that come to the same; 0 once it is gone.
    holders: u32,
    route: RouteDefinition,
}

impl Adverts {
    pub(super) fn new(on: bool) -> Self {
        let (order, gone) = (BTreeMap::new(), BTreeMap::new());
        Self { on, withdrawn: false, version: 1, entries: BTreeMap::new(), order, gone, floor: 0 }
    }

    pub(super) fn on(&self) -> bool {
        self.on
    }

    pub(crate) fn mailbox_came(&mut self, mailbox: &Mailbox) {
        if let Some(route) = self.route_of(mailbox) {
            self.add(route);
        }
    }

    pub(crate) fn mailbox_went(&mut self, mailbox: &Mailbox) {
        if let Some(route) = self.route_of(mailbox) {
            self.remove(&route.key());
        }
    }

    /// Somebody waits for replies there. To other hosts it is like a mailbox that goes with its connection.
    pub(crate) fn address_came(&mut self, vhost: &Name, address: &Name) {
        if self.on {
            self.add(address_route(vhost, address));
        }
    }

    pub(crate) fn address_went(&mut self, vhost: &Name, address: &Name) {
        if self.on {
            self.remove(&address_route(vhost, address).key());
        }
    }

    fn route_of(&self, mailbox: &Mailbox) -> Option<RouteDefinition> {
        let told = self.on && !mailbox.is_hidden();
        told.then(|| RouteDefinition {
            host: "".into(),
            vhost: mailbox.vhost.clone(),
            wanted: Wanted::Mailbox(mailbox.definition.clone()),
            durable: mailbox.durable(),
        })
    }

    pub(super) fn bound(&mut self, change: BindingChange, durable: bool) {
        let BindingChange { binding, kind, gone } = change;
        let route = RouteDefinition {
            host: "".into(),
            vhost: binding.vhost,
            wanted: Wanted::Binding {
                exchange: binding.source,
                kind,
                key: binding.key,
                arguments: binding.arguments,
            },
            durable,
        };
        if gone { self.remove(&route.key()) } else { self.add(route) }
    }

    fn add(&mut self, route: RouteDefinition) {
        if self.withdrawn {
            return;
        }
        let key = route.key();
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
            version: 0,
            holders: 0,
            route: route.clone(),
        });
        entry.holders += 1;
        let stays = entry.holders > 1 && (entry.route.durable || !route.durable);
        if stays {
            return;
        }
        entry.route = route;
        self.change(key);
    }

    fn remove(&mut self, key: &DefinitionKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders == 0 {
            self.change(key.clone());
        }
    }

    fn change(&mut self, key: DefinitionKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.version += 1;
        self.order.remove(&entry.version);
        self.gone.remove(&entry.version);
        entry.version = self.version;
        self.order.insert(self.version, key.clone());
        if entry.holders == 0 {
            self.gone.insert(self.version, key);
        }
        while self.gone.len() > GONE_MAX
            && let Some((version, key)) = self.gone.pop_first()
        {
            self.floor = version;
            self.order.remove(&version);
            self.entries.remove(&key);
        }
    }

    pub(crate) fn vhost_went(&mut self, vhost: &Name) {
        self.withdraw_those(|it| it.route.vhost == *vhost);
    }

    /// Nothing is here any longer, as far as others shall know.
    pub(crate) fn withdraw(&mut self) {
        self.withdrawn = true;
        self.withdraw_those(|_| true);
    }

    /// Whether there is nothing later.
    pub(super) fn is_all(&self, version: u64) -> bool {
        version >= self.version
    }

    fn withdraw_those(&mut self, which: impl Fn(&Entry) -> bool) {
        let all = self.entries.iter().filter(|(_, it)| it.holders > 0 && which(it));
        let keys: Vec<_> = all.map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.holders = 0;
            }
            self.change(key);
        }
    }

    /// What is later than a version, at most so many changes. Who knows nothing is told even that there is nothing.
    pub(super) fn since(&self, after: u64, base: u64, count: usize) -> Option<Event> {
        let begins = after == 0 || self.floor > after.max(base);
        let (after, base) = if begins { (0, self.version) } else { (after, base) };
        if !begins && after >= self.version {
            return None;
        }
        let later = self.order.range((Bound::Excluded(after), Bound::Unbounded));
        let taken: Vec<_> = later.take(count).collect();
        let ends = taken.len() < count;
        let version = match taken.last() {
            Some((version, _)) if !ends => **version,
            _ => self.version,
        };
        let changes = taken.into_iter().filter_map(|(_, key)| {
            let entry = self.entries.get(key)?;
            Some(RouteChange { route: entry.route.clone(), gone: entry.holders == 0 })
        });
        // To somebody who knows nothing, what went says nothing.
        let changes = changes.filter(|it| !begins || !it.gone).collect();
        Some(Event::Peer(PeerEvent::Adverts { changes, begins, ends, version, base }))
    }
}

fn address_route(vhost: &Name, address: &Name) -> RouteDefinition {
    RouteDefinition {
        host: "".into(),
        vhost: vhost.clone(),
        wanted: Wanted::Mailbox(MailboxDefinition {
            id: MailboxId(0),
            vhost: vhost.clone(),
            name: address.clone(),
            durable: false,
            exclusive: true,
            auto_delete: true,
            arguments: Table::new(),
            epoch: 0,
        }),
        durable: false,
    }
}
