//! Exchanges that span hosts: bindings of other hosts lead to what waits for them here, apart from users' bindings.
//!
//! An exchange spans where it has the same name and kind at both hosts. A binding of another host waits until there is
//! such an exchange here.

use std::collections::BTreeMap;

use super::exchange::{Exchange, Router};
use super::random::mix;
use super::{Exchanges, sort};
use crate::broker::{BindingDefinition, DefinitionKey, Destination, Name, Table, TableKey};

/// Kinds whose choice is the same wherever it is made.
const SPANNING: [&str; 4] = ["direct", "fanout", "headers", "topic"];

impl Exchange {
    /// Whether it goes on at other hosts that have it too.
    pub fn spans(&self) -> bool {
        SPANNING.contains(&self.definition().kind.as_str()) && !self.delayed()
    }
}

/// A binding of another host.
#[derive(Clone, Debug, PartialEq)]
pub struct Abroad {
    /// The mailbox in which messages wait for the host.
    pub outbox: Name,
    pub kind: Name,
    pub key: TableKey,
    pub arguments: Table,
}

/// A binding that came here or went, of which other hosts are told.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingChange {
    pub binding: BindingDefinition,
    /// Of its exchange.
    pub kind: Name,
    pub gone: bool,
}

#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// What came and went here is told.
    telling: bool,
    news: Vec<BindingChange>,
    /// By exchange, whether it is here or not.
    bindings: BTreeMap<Name, BTreeMap<DefinitionKey, Abroad>>,
}

impl Beyond {
    pub(super) fn tell(&mut self, source: &Exchange, binding: &BindingDefinition, gone: bool) {
        let kind = &source.definition().kind;
        if self.telling && source.spans() {
            self.news.push(BindingChange { binding: binding.clone(), kind: kind.clone(), gone });
        }
    }
}

impl Exchanges {
    /// Whether other hosts are told of bindings.
    #[must_use]
    pub fn telling(mut self, telling: bool) -> Self {
        self.beyond.telling = telling;
        self
    }

    /// Bindings that came and went since this was last emptied.
    pub fn news_mut(&mut self) -> &mut Vec<BindingChange> {
        &mut self.beyond.news
    }

    pub fn bind_abroad(&mut self, exchange: &Name, key: DefinitionKey, mut binding: Abroad) {
        sort(&mut binding.arguments);
        // What could not be bound here leads nowhere.
        let router = Router::new(&binding.kind, &Table::new(), 0);
        let fits = |router: &Router| {
            SPANNING.contains(&binding.kind.as_str())
                && router.check_binding(&binding.key.0, &binding.arguments).is_ok()
                && router.check_new_binding(&binding.key.0).is_ok()
        };
        if !router.as_ref().is_ok_and(fits) {
            return;
        }
        let all = self.beyond.bindings.entry(exchange.clone()).or_default();
        if all.insert(key, binding.clone()).is_none() {
            self.extend(exchange, &binding);
        }
        self.generation += 1;
    }

    pub fn unbind_abroad(&mut self, exchange: &Name, key: &DefinitionKey) {
        let Some(all) = self.beyond.bindings.get_mut(exchange) else { return };
        let Some(binding) = all.remove(key) else { return };
        if all.is_empty() {
            self.beyond.bindings.remove(exchange);
        }
        self.generation += 1;
        let Some(exchange) = self.exchanges.get_mut(exchange) else { return };
        let to = Destination::Mailbox(binding.outbox);
        if exchange.definition().kind == binding.kind
            && let Some(target) = self.targets.find(&to)
            && let Some(router) = &mut exchange.beyond
        {
            router.unbind(target, &to, &binding.key.0, &binding.arguments);
            self.targets.release(target, exchange.name());
        }
    }

    /// The exchange came: bindings that waited for it.
    pub(super) fn reach_beyond(&mut self, exchange: &Name) {
        let waiting: Vec<_> = self
            .beyond
            .bindings
            .get(exchange)
            .into_iter()
            .flatten()
            .map(|(_, it)| it.clone())
            .collect();
        for binding in waiting {
            self.extend(exchange, &binding);
        }
    }

    /// The exchange went: bindings of other hosts wait for the next of its name.
    pub(super) fn leave_beyond(&mut self, exchange: &Name, kind: &Name) {
        let Some(all) = self.beyond.bindings.get(exchange) else { return };
        for binding in all.values().filter(|it| it.kind == *kind) {
            if let Some(target) = self.targets.find(&Destination::Mailbox(binding.outbox.clone())) {
                self.targets.release(target, exchange);
            }
        }
    }

    fn extend(&mut self, exchange: &Name, binding: &Abroad) {
        let Some(exchange) = self.exchanges.get_mut(exchange) else { return };
        if exchange.definition().kind != binding.kind || exchange.delayed() {
            return;
        }
        if exchange.beyond.is_none() {
            exchange.beyond = Router::new(&binding.kind, &Table::new(), mix(self.seed)).ok();
        }
        let to = Destination::Mailbox(binding.outbox.clone());
        let target = self.targets.hold(&to, exchange.name());
        let Some(router) = &mut exchange.beyond else { return };
        router.bind(target, &to, &binding.key.0, &binding.arguments);
    }
}
