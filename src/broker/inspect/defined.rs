//! Everything that is declared, as definitions, and exchanges with what passed through them.

use std::ops::Bound;

use crate::broker::{
    BindingDefinition, Broker, Definition, DefinitionKind, Destination, ExchangeDefinition, Name,
    Passage, Refusal,
};

/// An exchange and what publishers sent it.
#[derive(Clone, Debug)]
pub struct ExchangeView {
    pub definition: ExchangeDefinition,
    pub policy: Option<Name>,
    pub passage: Passage,
}

/// Bindings of a virtual host; those of the default exchange are not among them.
#[derive(Clone, Debug, Default)]
pub struct BindingsOf {
    pub source: Option<Name>,
    pub destination: Option<Destination>,
}

impl Broker {
    /// A slice of all definitions of one kind, in order. Exclusive mailboxes and what every virtual host has are left out.
    pub(super) fn definitions(
        &self,
        kind: DefinitionKind,
        vhost: Option<&Name>,
        skip: usize,
        count: usize,
    ) -> Vec<Definition> {
        fn some<T: Clone>(
            all: impl Iterator<Item = T>,
            skip: usize,
            count: usize,
            make: fn(T) -> Definition,
        ) -> Vec<Definition> {
            all.skip(skip).take(count).map(make).collect()
        }
        let here = |it: &Name| vhost.is_none_or(|vhost| vhost == it);
        let vhosts = || self.vhosts.iter().filter(|(name, _)| here(name)).map(|(_, it)| it);
        match kind {
            DefinitionKind::Vhost => {
                some(vhosts().map(|it| it.definition.clone()), skip, count, Definition::Vhost)
            }
            DefinitionKind::User => {
                some(self.access.users().cloned(), skip, count, Definition::User)
            }
            DefinitionKind::Permission => {
                let all = self.access.permissions().filter(|it| here(&it.vhost)).cloned();
                some(all, skip, count, Definition::Permission)
            }
            DefinitionKind::TopicPermission => {
                let all = self.access.topic_permissions().filter(|it| here(&it.vhost)).cloned();
                some(all, skip, count, Definition::TopicPermission)
            }
            DefinitionKind::Exchange => {
                let all = vhosts().flat_map(|it| it.exchanges.iter()).map(|it| it.definition());
                let all = all.filter(|it| !it.name.is_empty() && !it.name.starts_with("amq."));
                some(all.cloned(), skip, count, Definition::Exchange)
            }
            DefinitionKind::Mailbox => {
                let ids = vhosts().flat_map(|it| it.mailboxes.values());
                let all = ids.filter_map(|id| self.mailboxes.get(id));
                let all = all.filter(|it| it.owner.is_none() && !it.is_hidden() && !it.gave_way());
                some(all.map(|it| it.definition.clone()), skip, count, Definition::Mailbox)
            }
            DefinitionKind::Binding => {
                let all = vhosts().flat_map(|it| it.exchanges.bindings());
                some(all.filter(|it| self.outlives(it)), skip, count, Definition::Binding)
            }
            DefinitionKind::Policy | DefinitionKind::OperatorPolicy => {
                let operator = kind == DefinitionKind::OperatorPolicy;
                let all = vhosts().flat_map(|it| it.policies.iter());
                let all = all.filter(|it| it.operator == operator).cloned();
                some(all, skip, count, Definition::Policy)
            }
            // What readers of streams remember is theirs, not declared.
            DefinitionKind::Cursor
            | DefinitionKind::Publication
            | DefinitionKind::Route
            | DefinitionKind::Taken
            | DefinitionKind::Host => Vec::new(),
            DefinitionKind::Parameter => {
                let all = self.parameters.values();
                let all = all.filter(|it| it.vhost.as_ref().is_none_or(here)).cloned();
                some(all, skip, count, Definition::Parameter)
            }
        }
    }

    /// Not to a mailbox that goes with its connection.
    fn outlives(&self, binding: &BindingDefinition) -> bool {
        match &binding.destination {
            Destination::Mailbox(name) => {
                self.find(&binding.vhost, name).is_some_and(|it| it.owner.is_none())
            }
            Destination::Exchange(_) => true,
        }
    }

    pub(super) fn exchange_views(
        &self,
        vhost: &Name,
        from: Bound<Name>,
        count: usize,
    ) -> Result<Vec<ExchangeView>, Refusal> {
        let missing = || Refusal::NoSuchVhost { vhost: vhost.clone() };
        let found = self.vhosts.get(vhost).ok_or_else(missing)?;
        let exchanges = found.exchanges.iter_from(from);
        let views = exchanges.map(|exchange| ExchangeView {
            definition: exchange.definition().clone(),
            policy: found.policies.of_exchange(exchange.name()).map(|policy| policy.name.clone()),
            passage: exchange.passage(),
        });
        Ok(views.take(count).collect())
    }

    pub(super) fn binding_views(
        &self,
        vhost: &Name,
        of: &BindingsOf,
        skip: usize,
        count: usize,
    ) -> Result<Vec<BindingDefinition>, Refusal> {
        let missing = || Refusal::NoSuchVhost { vhost: vhost.clone() };
        let exchanges = &self.vhosts.get(vhost).ok_or_else(missing)?.exchanges;
        Ok(match (&of.source, &of.destination) {
            (None, None) => exchanges.bindings().skip(skip).take(count).collect(),
            (Some(source), None) => {
                exchanges.bindings_from(source).skip(skip).take(count).collect()
            }
            (None, Some(to)) => exchanges.bindings_to(to).skip(skip).take(count).collect(),
            (Some(source), Some(to)) => {
                let exchange = exchanges.get(source).into_iter();
                exchange.flat_map(|it| it.bindings_to(to)).skip(skip).take(count).collect()
            }
        })
    }
}
