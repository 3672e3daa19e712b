//! Once everything is healed, every host reaches every mailbox, by name and through the exchange, and nothing waits.

use super::{EXCHANGE, MAILBOXES, Post, World};

pub(super) fn find(world: &mut World) -> Vec<String> {
    let hosts = world.it.hosts.len();
    let mut found = Vec::new();
    for from in 0..hosts {
        for to in (0..hosts).filter(|to| *to != from) {
            let name = world.it.hosts[to].name.clone();
            let waiting = world.it.hosts[from].view(&name).messages;
            if waiting > 0 {
                found.push(format!("{waiting} messages wait at {from} for {to}"));
            }
        }
        let client = world.it.hosts[from].client;
        let before = world.ledger.receipts.len();
        for mailbox in &MAILBOXES[..hosts] {
            world.it.hosts[from].house.publish(client, Post::to(mailbox, "by name"));
        }
        world.it.hosts[from].house.publish(client, Post::by(EXCHANGE, "", "fanned"));
        world.rest();
        // They are no part of the ledger.
        let arrived = world.ledger.receipts.split_off(before);
        for mailbox in 0..hosts {
            let first = arrived.iter().filter(|it| it.mailbox == mailbox && !it.redelivered);
            let mut here: Vec<&str> = first.map(|it| &*it.body).collect();
            if world.ledger.moved.contains(&mailbox) {
                // What the old home passes on takes another way than what goes to the new one by its name.
                here.sort_unstable();
            }
            if here != ["by name", "fanned"] {
                found.push(format!("{from} reaches {mailbox} with {here:?}"));
            }
        }
    }
    found
}
