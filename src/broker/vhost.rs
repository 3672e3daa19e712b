//! A virtual host: a name space of its own for mailboxes, exchanges and policies.

use std::collections::{BTreeMap, BTreeSet};

use super::command::MailboxId;
use super::definition::VhostDefinition;
use super::name::Name;
use super::peer::{Home, Spread};
use super::policy::Policies;
use super::routing::Exchanges;

pub(super) struct Vhost {
    pub(super) definition: VhostDefinition,
    pub(super) exchanges: Exchanges,
    pub(super) mailboxes: BTreeMap<Name, MailboxId>,
    /// Mailboxes that live at other hosts: where, and how their own hosts number them.
    pub(super) away: BTreeMap<Name, BTreeSet<Home>>,
    /// How those of them are meant that may live at several hosts.
    pub(super) spreads: BTreeMap<Name, Spread>,
    /// What waits for each host.
    pub(super) outboxes: BTreeMap<Name, MailboxId>,
    pub(super) connections: u64,
    pub(super) policies: Policies,
}

impl Vhost {
    pub(super) fn new(definition: VhostDefinition, seed: u64, peers: bool) -> Self {
        Self {
            exchanges: Exchanges::new(definition.name.clone(), seed).telling(peers),
            definition,
            mailboxes: BTreeMap::new(),
            away: BTreeMap::new(),
            spreads: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            connections: 0,
            policies: Policies::default(),
        }
    }
}
