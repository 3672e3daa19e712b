//! Nothing comes twice without a flag, nothing that is settled or in somebody's hands comes at all, and nothing comes
//! where it was not sent.

use std::collections::BTreeSet;

use super::Ledger;

pub(super) fn find(ledger: &Ledger) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    // Two ways may bring a message twice.
    for receipt in ledger.receipts.iter().filter(|it| !ledger.redirected.contains(&it.body)) {
        let (body, mailbox) = (&receipt.body, receipt.mailbox);
        if !ledger
            .published
            .get(body)
            .is_some_and(|it| it.to.contains(&mailbox) || it.may_reach_more)
        {
            found.push(format!("{body} was not sent to {mailbox}"));
        }
        // What came to both homes by an exchange may be seen at both, if one of them ends or a link is slow in just this time.
        let moved = ledger.moved.contains(&mailbox);
        if moved && ledger.published.get(body).is_some_and(|it| it.may_reach_more) {
            continue;
        }
        if receipt.doubled {
            found.push(format!("{body} comes to {mailbox} beside itself, or after its end"));
        }
        if !seen.insert((body, mailbox)) && !receipt.redelivered {
            found.push(format!("{body} comes again to {mailbox}, without a flag"));
        }
    }
    found
}
