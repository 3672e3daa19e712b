//! A virtual host: a name space of its own for mailboxes, exchanges and policies.

use std::collections::BTreeMap;

use regex::bytes::Regex;

use super::command::MailboxId;
use super::definition::{PolicyDefinition, VhostDefinition};
use super::limits::MailboxKind;
use super::name::Name;
use super::routing::Exchanges;

pub(super) struct Vhost {
    pub(super) definition: VhostDefinition,
    pub(super) exchanges: Exchanges,
    pub(super) mailboxes: BTreeMap<Name, MailboxId>,
    pub(super) connections: u64,
    policies: BTreeMap<(bool, Name), (PolicyDefinition, Regex)>,
}

impl Vhost {
    pub(super) fn new(definition: VhostDefinition, seed: u64) -> Self {
        Self {
            exchanges: Exchanges::new(definition.name.clone(), seed),
            definition,
            mailboxes: BTreeMap::new(),
            connections: 0,
            policies: BTreeMap::new(),
        }
    }

    pub(super) fn set_policy(&mut self, policy: PolicyDefinition) -> Result<(), String> {
        let pattern = Regex::new(&policy.pattern).map_err(|error| error.to_string())?;
        self.policies.insert((policy.operator, policy.name.clone()), (policy, pattern));
        Ok(())
    }

    pub(super) fn clear_policy(&mut self, operator: bool, name: &Name) -> bool {
        self.policies.remove(&(operator, name.clone())).is_some()
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &PolicyDefinition> {
        self.policies.values().map(|(policy, _)| policy)
    }

    /// The user's policy and the operator's for a mailbox: of each kind the one with the highest priority.
    pub(super) fn mailbox_policies(
        &self,
        name: &str,
        kind: MailboxKind,
    ) -> [Option<&PolicyDefinition>; 2] {
        let applies = |to: &str| match to {
            "all" | "queues" => true,
            "classic_queues" => kind == MailboxKind::Classic,
            "quorum_queues" => kind == MailboxKind::Quorum,
            "streams" => kind == MailboxKind::Stream,
            _ => false,
        };
        [false, true].map(|operator| self.best(operator, name, applies))
    }

    pub(super) fn exchange_policy(&self, name: &str) -> Option<&PolicyDefinition> {
        self.best(false, name, |to| matches!(to, "all" | "exchanges"))
    }

    fn best(
        &self,
        operator: bool,
        name: &str,
        applies: impl Fn(&str) -> bool,
    ) -> Option<&PolicyDefinition> {
        self.policies
            .values()
            .filter(|(policy, pattern)| {
                policy.operator == operator
                    && applies(&policy.apply_to)
                    && pattern.is_match(name.as_bytes())
            })
            .map(|(policy, _)| policy)
            .max_by_key(|policy| policy.priority)
    }
}
