//! What is confirmed at home is on the disk of its home, or was consumed there: the origin may be lost for ever.

use super::{DEAD_AT, Ledger, MAILBOXES, World};

impl World {
    /// At the moment of its confirm.
    pub(super) fn look_home(&mut self, body: &str) {
        let published = &self.ledger.published[body];
        if !published.home || self.ledger.redirected.contains(body) {
            return;
        }
        let away = |it: &&usize| **it < DEAD_AT && **it != published.origin;
        for at in published.to.iter().filter(away).copied().collect::<Vec<_>>() {
            let seen = |it: &super::Receipt| it.body == body && it.mailbox == at;
            let seen = self.ledger.receipts.iter().any(seen);
            let house = &self.it.hosts[at].house;
            let mut stored = false;
            if self.ledger.moved.contains(&at) {
                // Durable at the host in between, on its way to the new home, is what was promised; that may be the origin itself.
                for (host, it) in self.it.hosts.iter().enumerate() {
                    let broker = &it.house.broker;
                    let here = broker.find_any(&"/".into(), MAILBOXES[at]).map(|it| it.id);
                    for (id, mailbox) in &it.house.disk.mailboxes {
                        let counts = host != published.origin || Some(*id) == here;
                        stored |= counts
                            && mailbox
                                .messages
                                .values()
                                .any(|it| it.message.body() == body.as_bytes());
                    }
                }
            } else {
                let disk = house.disk.mailboxes.get(&house.mailbox(MAILBOXES[at]).id);
                let mut all = disk.iter().flat_map(|it| it.messages.values());
                stored = all.any(|it| it.message.body() == body.as_bytes());
            }
            if seen || stored {
                self.ledger.homed += 1;
            } else {
                self.ledger.homeless.push((body.to_owned(), at));
            }
        }
    }
}

pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let homeless = ledger.homeless.iter();
    homeless.map(|(body, at)| format!("{body} is confirmed and not at {at}")).collect()
}
