//! The exchanges and bindings of one virtual host: which mailboxes a message goes to.
//!
//! Knows mailboxes by name only. Whoever asks has checked permissions.

mod abroad;
mod consistent_hash;
mod delayed;
mod direct;
mod equivalence;
mod exchange;
mod fanout;
mod headers;
mod index;
mod modulus_hash;
mod random;
mod recent_history;
mod target;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::BTreeMap;
use std::mem;
use std::ops;
use std::sync::Arc;

use bytes::Bytes;

use abroad::Beyond;
pub use abroad::{Abroad, BindingChange};
pub use delayed::{delay_ms, waits};
pub use equivalence::{bare, difference, type_name};
pub use exchange::Exchange;
use exchange::Keys;
use random::Dice;
pub(super) use random::mix;
use target::Targets;

use super::{
    BindingDefinition, BindingOf, DeclareExchange, Destination, ExchangeDefinition, Kind, Message,
    Name, Passage, Refusal, Table, TableKey,
};

const ALTERNATE: &str = "alternate-exchange";
const DELAYED: &str = "x-delayed-message";
const RESERVED: &str = "amq.";

/// What every virtual host has: name, kind, internal.
const PREDECLARED: [(&str, &str, bool); 7] = [
    ("", "direct", false),
    ("amq.direct", "direct", false),
    ("amq.fanout", "fanout", false),
    ("amq.headers", "headers", false),
    ("amq.match", "headers", false),
    ("amq.rabbitmq.trace", "topic", true),
    ("amq.topic", "topic", false),
];

/// All exchanges and bindings of one virtual host.
///
/// The default exchange's bindings, each mailbox by its name, are not kept: they are looked up.
#[derive(Debug)]
pub struct Exchanges {
    vhost: Name,
    seed: u64,
    generation: u64,
    exchanges: BTreeMap<Name, Exchange>,
    targets: Targets,
    beyond: Beyond,
    dice: Dice,
    /// Counts the routed messages: what was seen in this round is not visited again.
    round: u64,
    /// Exchanges that the current message has still to pass. Empty between messages.
    waiting: Vec<Name>,
}

#[derive(Debug, PartialEq)]
pub enum Declared {
    /// What is to be stored, where it is durable.
    New(ExchangeDefinition),
    Exists,
}

#[derive(Debug)]
pub enum Bound {
    New {
        /// What is to be stored, where both ends are durable.
        definition: BindingDefinition,
        /// The oldest first: for the destination, a mailbox or an exchange (`x-recent-history`).
        replay: Vec<Arc<Message>>,
    },
    Exists,
}

/// What went, for the store and for events. Exchanges may have gone because their last binding went.
#[derive(Debug, Default, PartialEq)]
pub struct Removed {
    pub exchanges: Vec<ExchangeDefinition>,
    pub bindings: Vec<BindingDefinition>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Routed {
    /// The same exchange and key lead to the same mailboxes as long as `generation` stays.
    pub cacheable: bool,
    /// Delayed exchanges that the message came to and asks to wait at (`waits`).
    /// When the time is up it is routed again, from there, without its wish to wait.
    pub delayed: Vec<Name>,
}

/// Which mailboxes a message may come to.
#[derive(Clone, Copy)]
struct Finder<'a> {
    /// By name, for the default exchange.
    mailbox: &'a dyn Fn(&str) -> Option<Name>,
    /// Of those that are bound; all of them without it.
    may: Option<&'a dyn Fn(&Name) -> bool>,
    /// Also to other hosts.
    abroad: bool,
}

impl Exchanges {
    /// The seed decides what `x-random` exchanges choose, and nothing else that shows.
    pub fn new(vhost: Name, seed: u64) -> Self {
        let mut exchanges = Self {
            vhost,
            seed,
            generation: 1,
            exchanges: BTreeMap::new(),
            targets: Targets::default(),
            beyond: Beyond::default(),
            dice: Dice::new(seed),
            round: 0,
            waiting: Vec::new(),
        };
        for (name, kind, internal) in PREDECLARED {
            let definition = ExchangeDefinition {
                vhost: exchanges.vhost.clone(),
                name: name.into(),
                kind: kind.into(),
                durable: true,
                auto_delete: false,
                internal,
                arguments: Table::new(),
            };
            exchanges.insert(definition).expect("a predeclared exchange is of a known kind");
        }
        exchanges
    }

    /// Changes with everything that can alter a route.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Something outside of here altered the routes: a mailbox came, which the default exchange now finds.
    pub fn invalidate(&mut self) {
        self.generation += 1;
    }

    pub fn get(&self, name: &str) -> Option<&Exchange> {
        self.exchanges.get(name)
    }

    /// Publishers sent this here.
    pub fn record(&mut self, name: &str, passage: Passage) {
        if let Some(exchange) = self.exchanges.get_mut(name) {
            exchange.passage.inwards += passage.inwards;
            exchange.passage.outwards += passage.outwards;
        }
    }

    /// In order of name, with the predeclared ones.
    pub fn iter(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.values()
    }

    /// In order of name, from one on.
    pub fn iter_from(&self, start: ops::Bound<Name>) -> impl Iterator<Item = &Exchange> {
        self.exchanges.range((start, ops::Bound::Unbounded)).map(|(_, it)| it)
    }

    pub fn count(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether the virtual host came with this exchange, so that it is neither stored nor deleted.
    pub fn is_predeclared(name: &str) -> bool {
        PREDECLARED.iter().any(|(it, ..)| *it == name)
    }

    pub fn declare(&mut self, wanted: &DeclareExchange) -> Result<Declared, Refusal> {
        if wanted.passive {
            check_not_default(&wanted.name)?;
            return match self.exchanges.get(&wanted.name) {
                Some(_) => Ok(Declared::Exists),
                None => Err(self.no_such(&wanted.name)),
            };
        }
        if !Exchange::is_kind(&wanted.kind) {
            return Err(Refusal::UnknownExchangeKind(wanted.kind.clone()));
        }
        check_not_default(&wanted.name)?;
        if let Some(current) = self.exchanges.get(&wanted.name) {
            equivalence::check(current.definition(), wanted)?;
            return Ok(Declared::Exists);
        }
        if wanted.name.starts_with(RESERVED) {
            let name = wanted.name.clone();
            return Err(Refusal::ReservedName { kind: Kind::Exchange, name });
        }
        let definition = ExchangeDefinition {
            vhost: self.vhost.clone(),
            name: wanted.name.clone(),
            kind: wanted.kind.clone(),
            durable: wanted.durable,
            auto_delete: wanted.auto_delete,
            internal: wanted.internal,
            arguments: wanted.arguments.clone(),
        };
        self.insert(definition.clone())?;
        Ok(Declared::New(definition))
    }

    /// An exchange from the store. One that exists stays as it is.
    pub fn restore_exchange(&mut self, definition: ExchangeDefinition) -> Result<(), Refusal> {
        if self.exchanges.contains_key(&definition.name) { Ok(()) } else { self.insert(definition) }
    }

    /// A binding from the store, after its exchanges.
    pub fn restore_binding(&mut self, mut definition: BindingDefinition) -> Result<(), Refusal> {
        sort(&mut definition.arguments);
        self.add(definition).map(|_| ())
    }

    /// Nothing happens where there is no such exchange.
    pub fn delete(&mut self, name: &str, if_unused: bool) -> Result<Removed, Refusal> {
        check_not_default(name)?;
        let vhost = self.vhost.clone();
        if name.starts_with(RESERVED) {
            return Err(Refusal::SystemExchange { name: name.into(), vhost });
        }
        let mut removed = Removed::default();
        let Some(exchange) = self.exchanges.get(name) else { return Ok(removed) };
        if if_unused && exchange.has_bindings() {
            return Err(Refusal::InUse { kind: Kind::Exchange, name: name.into(), vhost });
        }
        let name = exchange.name().clone();
        self.remove_exchange(name, &mut removed);
        Ok(removed)
    }

    /// The caller knows that a mailbox of that name exists.
    pub fn bind(&mut self, binding: &BindingOf) -> Result<Bound, Refusal> {
        if let Some(source) = self.exchanges.get(&binding.source) {
            source.router.check_new_binding(&binding.key)?;
        }
        self.add(self.definition_of(binding))
    }

    /// Nothing happens where there is no such binding.
    pub fn unbind(&mut self, binding: &BindingOf) -> Result<Removed, Refusal> {
        check_ends_not_default(&binding.source, &binding.destination)?;
        let mut removed = Removed::default();
        self.remove(self.definition_of(binding), &mut removed);
        Ok(removed)
    }

    /// The mailbox is gone.
    pub fn unbind_mailbox(&mut self, name: &Name) -> Removed {
        let mut removed = Removed::default();
        self.remove_all_to(&Destination::Mailbox(name.clone()), &mut removed);
        // Also without bindings: the default exchange does not find it any more.
        self.generation += 1;
        removed
    }

    /// A policy names the alternate exchange, or no policy does any more.
    pub fn set_alternate_by_policy(&mut self, name: &str, alternate: Option<Name>) {
        if let Some(exchange) = self.exchanges.get_mut(name)
            && exchange.set_alternate_by_policy(alternate)
        {
            self.generation += 1;
        }
    }

    /// All bindings, in order of source, destination and key.
    pub fn bindings(&self) -> impl Iterator<Item = BindingDefinition> {
        self.exchanges.values().flat_map(Exchange::bindings)
    }

    pub fn bindings_from(&self, source: &str) -> impl Iterator<Item = BindingDefinition> {
        self.exchanges.get(source).into_iter().flat_map(Exchange::bindings)
    }

    /// In order of source and key.
    pub fn bindings_to(
        &self,
        destination: &Destination,
    ) -> impl Iterator<Item = BindingDefinition> {
        let sources = self.targets.sources(destination);
        sources
            .filter_map(|source| self.exchanges.get(source))
            .flat_map(|exchange| exchange.bindings_to(destination))
    }

    /// Follows the bindings from an exchange: each exchange is passed once, each mailbox is put into `out` once.
    ///
    /// An exchange that does not exist leads nowhere. `mailbox` finds a mailbox by name, for the default exchange.
    pub fn route(
        &mut self,
        exchange: &Name,
        key: &[u8],
        more_keys: &[Bytes],
        message: &Arc<Message>,
        mailbox: &dyn Fn(&str) -> Option<Name>,
        out: &mut Vec<Name>,
    ) -> Routed {
        let keys = Keys { first: key, more: more_keys };
        self.walk(exchange, keys, message, Finder { mailbox, may: None, abroad: true }, out)
    }

    /// As `route`, but only to mailboxes that may take it; what leads to others leads nowhere.
    pub fn route_among(
        &mut self,
        exchange: &Name,
        (key, more_keys): (&[u8], &[Bytes]),
        message: &Arc<Message>,
        mailbox: &dyn Fn(&str) -> Option<Name>,
        may: &dyn Fn(&Name) -> bool,
        out: &mut Vec<Name>,
    ) -> Routed {
        let keys = Keys { first: key, more: more_keys };
        self.walk(exchange, keys, message, Finder { mailbox, may: Some(may), abroad: true }, out)
    }

    /// As `route`, but only to what is at this host.
    pub fn route_home(
        &mut self,
        exchange: &Name,
        key: &[u8],
        more_keys: &[Bytes],
        message: &Arc<Message>,
        mailbox: &dyn Fn(&str) -> Option<Name>,
        out: &mut Vec<Name>,
    ) -> Routed {
        let keys = Keys { first: key, more: more_keys };
        self.walk(exchange, keys, message, Finder { mailbox, may: None, abroad: false }, out)
    }

    fn walk(
        &mut self,
        exchange: &Name,
        keys: Keys<'_>,
        message: &Arc<Message>,
        Finder { mailbox, may, abroad }: Finder<'_>,
        out: &mut Vec<Name>,
    ) -> Routed {
        self.round += 1;
        let round = self.round;
        let mut routed = Routed { cacheable: keys.more.is_empty(), delayed: Vec::new() };
        let mut by_name = false;
        let mut waiting = mem::take(&mut self.waiting);
        waiting.push(exchange.clone());
        while let Some(name) = waiting.pop() {
            if name.is_empty() {
                by_name = true;
                continue;
            }
            let Some(exchange) = self.exchanges.get_mut(&name) else { continue };
            if mem::replace(&mut exchange.seen, round) == round {
                continue;
            }
            if exchange.delayed() {
                routed.cacheable = false;
                if waits(message) {
                    routed.delayed.push(name);
                    continue;
                }
            }
            routed.cacheable &= exchange.router.depends_on_key_only();
            let mut nothing = true;
            let mut found = |target| {
                if let Some(may) = may
                    && let Destination::Mailbox(name) = self.targets.destination(target)
                    && !may(name)
                {
                    return;
                }
                nothing = false;
                match self.targets.visit(target, round) {
                    Some(Destination::Mailbox(name)) => out.push(name.clone()),
                    Some(Destination::Exchange(name)) => waiting.push(name.clone()),
                    None => {}
                }
            };
            exchange.router.route(keys, message, &mut self.dice, &mut found);
            if abroad && let Some(router) = &mut exchange.beyond {
                router.route(keys, message, &mut self.dice, &mut found);
            }
            if nothing && let Some(alternate) = exchange.alternate() {
                waiting.push(alternate.clone());
            }
        }
        self.waiting = waiting;
        if by_name {
            // Last, as only here a mailbox may be in `out` already without being marked as seen.
            let names = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
            for name in names {
                if !out.iter().any(|it| it == name)
                    && let Some(name) = mailbox(name)
                {
                    out.push(name);
                }
            }
        }
        routed
    }

    fn insert(&mut self, definition: ExchangeDefinition) -> Result<(), Refusal> {
        let name = definition.name.clone();
        let exchange = Exchange::new(definition, mix(self.seed))?;
        self.exchanges.insert(name.clone(), exchange);
        self.reach_beyond(&name);
        self.generation += 1;
        Ok(())
    }

    fn add(&mut self, definition: BindingDefinition) -> Result<Bound, Refusal> {
        check_ends_not_default(&definition.source, &definition.destination)?;
        if let Destination::Exchange(name) = &definition.destination
            && self.exchanges.contains_key(&definition.source)
            && !self.exchanges.contains_key(name)
        {
            return Err(self.no_such(name));
        }
        let Some(source) = self.exchanges.get_mut(&definition.source) else {
            return Err(self.no_such(&definition.source));
        };
        source.router.check_binding(&definition.key.0, &definition.arguments)?;
        if source.has_binding(&definition) {
            return Ok(Bound::Exists);
        }
        let target = self.targets.hold(&definition.destination, source.name());
        source.add_binding(&definition, target);
        self.beyond.tell(source, &definition, false);
        let replay = source.router.recent();
        self.generation += 1;
        Ok(Bound::New { definition, replay })
    }

    /// Takes a binding away, and its source where that was the last one of an auto-delete exchange.
    fn remove(&mut self, definition: BindingDefinition, removed: &mut Removed) {
        let Some(source) = self.exchanges.get_mut(&definition.source) else { return };
        let Some(target) = self.targets.find(&definition.destination) else { return };
        let Some(binding) = source.remove_binding(definition, target) else { return };
        self.targets.release(target, source.name());
        self.beyond.tell(source, &binding, true);
        self.generation += 1;
        removed.bindings.push(binding);
        if source.definition().auto_delete && !source.has_bindings() {
            let name = source.name().clone();
            self.remove_exchange(name, removed);
        }
    }

    fn remove_all_to(&mut self, destination: &Destination, removed: &mut Removed) {
        let bindings: Vec<_> = self.bindings_to(destination).collect();
        for binding in bindings {
            self.remove(binding, removed);
        }
    }

    /// Chains of auto-delete exchanges go one by one, not by recursion: a client decides how long they are.
    fn remove_exchange(&mut self, name: Name, removed: &mut Removed) {
        let mut going = vec![name];
        while let Some(name) = going.pop() {
            let Some(exchange) = self.exchanges.remove(&name) else { continue };
            self.generation += 1;
            for binding in exchange.bindings() {
                if let Some(target) = self.targets.find(&binding.destination) {
                    self.targets.release(target, &name);
                }
                self.beyond.tell(&exchange, &binding, true);
                removed.bindings.push(binding);
            }
            self.leave_beyond(&name, &exchange.definition().kind);
            removed.exchanges.push(exchange.definition().clone());
            let to = Destination::Exchange(name);
            let sources: Vec<_> = self.bindings_to(&to).collect();
            for binding in sources {
                let Some(source) = self.exchanges.get_mut(&binding.source) else { continue };
                let Some(target) = self.targets.find(&to) else { continue };
                if let Some(binding) = source.remove_binding(binding, target) {
                    self.beyond.tell(source, &binding, true);
                    removed.bindings.push(binding);
                }
                self.targets.release(target, source.name());
                if source.definition().auto_delete && !source.has_bindings() {
                    going.push(source.name().clone());
                }
            }
        }
    }

    fn definition_of(&self, binding: &BindingOf) -> BindingDefinition {
        let mut arguments = binding.arguments.clone();
        sort(&mut arguments);
        BindingDefinition {
            vhost: self.vhost.clone(),
            source: binding.source.clone(),
            destination: binding.destination.clone(),
            key: TableKey(binding.key.clone()),
            arguments,
        }
    }

    fn no_such(&self, name: &Name) -> Refusal {
        Refusal::NoSuchExchange { name: name.clone(), vhost: self.vhost.clone() }
    }
}

/// The order of arguments is no part of a binding's identity.
fn sort(arguments: &mut Table) {
    arguments.0.sort_by(|(a, _), (b, _)| a.cmp(b));
}

fn check_not_default(name: &str) -> Result<(), Refusal> {
    if name.is_empty() { Err(Refusal::DefaultExchange) } else { Ok(()) }
}

fn check_ends_not_default(source: &str, destination: &Destination) -> Result<(), Refusal> {
    check_not_default(source)?;
    match destination {
        Destination::Exchange(name) => check_not_default(name),
        Destination::Mailbox(_) => Ok(()),
    }
}
