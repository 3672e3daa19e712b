//! What was confirmed is received from every mailbox that it was for.

use std::collections::BTreeSet;

use super::Ledger;

pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let seen: BTreeSet<(&str, usize)> =
        ledger.receipts.iter().map(|it| (&*it.body, it.mailbox)).collect();
    let confirmed = ledger.published.iter().filter(|(_, it)| it.confirmed);
    let missing = confirmed.flat_map(|(body, it)| {
        let missing = it.to.iter().filter(|mailbox| !seen.contains(&(&**body, **mailbox)));
        missing.map(move |mailbox| format!("{body} of {} is lost to {mailbox}", it.origin))
    });
    missing.collect()
}
