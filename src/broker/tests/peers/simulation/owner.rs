//! A host that knows of another one with a higher epoch does not serve the mailbox; and in the end one host does.

use super::{MAILBOXES, World};

/// Of what hosts know right now.
pub(super) fn find(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for mailbox in &MAILBOXES[..world.it.hosts.len()] {
        for host in &world.it.hosts {
            let Some(own) = host.epoch_of(mailbox) else { continue };
            if let Some((epoch, other)) = host.best_elsewhere(mailbox)
                && epoch > own
            {
                found.push(format!(
                    "{} serves {mailbox} of {own}, and knows of {epoch} at {other}",
                    host.name
                ));
            }
        }
    }
    found
}

/// Once everything is healed.
pub(super) fn find_at_the_end(world: &World) -> Vec<String> {
    let mut found = find(world);
    for mailbox in &MAILBOXES[..world.it.hosts.len()] {
        let homes = world.it.hosts.iter().filter(|it| it.epoch_of(mailbox).is_some());
        let homes: Vec<&str> = homes.map(|it| &*it.name).collect();
        if homes.len() != 1 {
            found.push(format!("{mailbox} lives at {homes:?}"));
        }
    }
    found
}
