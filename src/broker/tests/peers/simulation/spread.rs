//! Of a fanned name each host that has it gets one copy; of a shared name one host gets the only one.

use std::collections::{BTreeMap, BTreeSet};

use super::{FANNED, FANNED_AT, Ledger, MAILBOXES, Post, Published, SHARED, SHARED_AT, World};

impl World {
    pub(super) fn publish_spread(&mut self, at: usize) {
        self.count += 1;
        let (name, first) = match self.dice.roll(2) {
            0 => (FANNED, FANNED_AT),
            _ => (SHARED, SHARED_AT),
        };
        // A host that was forgotten gets none, until it is known again.
        let broker = &self.it.hosts[at].house.broker;
        let knows = |it: &usize| *it == at || broker.home_of(&"/".into(), MAILBOXES[*it]).is_some();
        let holders = (0..self.it.hosts.len() - 1).filter(knows);
        let to = holders.map(|it| first + it).collect();
        let (number, body, home) = (self.count, self.count.to_string(), false);
        let (origin, may_reach_more, confirmed) = (at, false, false);
        let published = Published { origin, number, to, may_reach_more, confirmed, home };
        self.ledger.published.insert(body.clone(), published);
        let client = self.it.hosts[at].client;
        self.it.hosts[at].house.publish(client, Post::to(name, &body).confirm(number));
    }
}

/// That nothing comes twice to one mailbox is looked at for all.
pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let mut seen: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for receipt in &ledger.receipts {
        seen.entry(&receipt.body).or_default().insert(receipt.mailbox);
    }
    let none = BTreeSet::new();
    let mut found = Vec::new();
    for (body, it) in &ledger.published {
        let Some(first) = it.to.first().filter(|_| !ledger.redirected.contains(body)) else {
            continue;
        };
        let at = seen.get(&**body).unwrap_or(&none);
        let wrong = match *first {
            SHARED_AT.. => at.len() > 1 || (it.confirmed && at.is_empty()),
            FANNED_AT.. => it.confirmed && !it.to.iter().eq(at),
            _ => false,
        };
        if wrong {
            found.push(format!("{body} of {} came to {at:?} of {:?}", it.origin, it.to));
        }
    }
    found
}
