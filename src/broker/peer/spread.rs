//! Names that are meant to live on several hosts: each of them gets a copy of what is published to the name, or one of them does.

use std::collections::BTreeSet;

use super::{Choice, Home, Peers};
use crate::broker::name::Name;
use crate::broker::value::{Table, Value};

/// The argument of a declaration that says so.
pub(in crate::broker) const SPREAD: &str = "x-spread";

/// How messages for a name find its mailboxes. Without it a name has one home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Spread {
    /// Each gets a copy.
    Fanout,
    /// The one of the host itself, or else one of the others.
    Anycast,
}

impl Spread {
    pub(in crate::broker) fn parse(text: &str) -> Option<Self> {
        match text {
            "fanout" => Some(Self::Fanout),
            "anycast" => Some(Self::Anycast),
            _ => None,
        }
    }

    pub(in crate::broker) fn of(arguments: &Table) -> Option<Self> {
        arguments.get(SPREAD).and_then(Value::as_str).and_then(Self::parse)
    }
}

impl Peers {
    /// Where a message goes whose mailbox is not here: to the oldest, or of several that are as good to those in turn that
    /// a link reaches. Never to a host without the tags that are wanted.
    pub(in crate::broker) fn pick<'a>(
        &self,
        homes: &'a BTreeSet<Home>,
        spread: Option<Spread>,
        choice: Option<&Choice>,
        turn: u64,
    ) -> Option<&'a Name> {
        let suits = |host: &&Name| self.suits(host, choice);
        if spread.is_none() {
            return homes.first().map(|it| &it.host).filter(suits);
        }
        let all = || homes.iter().map(|it| &it.host).filter(suits);
        let reached =
            |host: &&Name| self.neighbours.get(*host).is_some_and(|it| it.carrier.is_some());
        let count = match spread {
            Some(Spread::Anycast) => all().filter(reached).count() as u64,
            _ => 0,
        };
        match count {
            0 => all().next(),
            count => all().filter(reached).nth((turn % count) as usize),
        }
    }
}
