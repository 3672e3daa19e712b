//! What one host publishes to one mailbox is first consumed in that order, wherever its reader is. Dead letters come from several outboxes.

use std::collections::{BTreeMap, BTreeSet};

use super::{DEAD_AT, Ledger};

pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let mut found = Vec::new();
    for receipt in ledger.receipts.iter().filter(|it| it.mailbox < DEAD_AT) {
        if ledger.redirected.contains(&receipt.body) {
            continue;
        }
        // What other hosts send may come before what still rests at the old home.
        if ledger.moved.contains(&receipt.mailbox) {
            continue;
        }
        let Some(published) = ledger.published.get(&receipt.body) else { continue };
        let first = seen.insert((&receipt.body, receipt.mailbox));
        if first && !receipt.got && !ledger.lost_gets.contains(&receipt.mailbox) {
            let last = last.entry((published.origin, receipt.mailbox)).or_default();
            if published.number < *last {
                found.push(format!("{} comes to {} after {last}", receipt.body, receipt.mailbox));
            }
            *last = published.number.max(*last);
        }
    }
    found
}
