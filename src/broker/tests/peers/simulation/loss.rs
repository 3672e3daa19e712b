//! What was confirmed is received from every mailbox that it was for. Of names on several hosts `spread` says more.

use std::collections::BTreeSet;

use super::{FANNED_AT, Ledger, Published};

pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let seen: BTreeSet<(&str, usize)> =
        ledger.receipts.iter().map(|it| (&*it.body, it.mailbox)).collect();
    // A copy of an exchange's message that went to another host is that host's.
    let lost =
        |(body, it): &(&String, &Published)| ledger.redirected.contains(*body) && it.to.len() > 1;
    let confirmed = ledger.published.iter().filter(|it| it.1.confirmed && !lost(it));
    let confirmed = confirmed.filter(|(_, it)| it.to.iter().all(|to| *to < FANNED_AT));
    let missing = confirmed.flat_map(|(body, it)| {
        let missing = it.to.iter().filter(|mailbox| !seen.contains(&(&**body, **mailbox)));
        missing.map(move |mailbox| format!("{body} of {} is lost to {mailbox}", it.origin))
    });
    missing.collect()
}
