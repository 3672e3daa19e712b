//! Receipts of SEND frames, held until the broker has the message.

use std::collections::BTreeMap;

/// By the tag under which the broker confirms.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    given: u64,
    awaited: BTreeMap<u64, Awaited>,
    /// Something was sent without a receipt since the last one with it.
    plain: bool,
}

#[derive(Debug)]
struct Awaited {
    receipt: String,
    /// Something was sent without a receipt between the one before and this.
    after_plain: bool,
    /// Its confirm may come after those of later messages.
    late: bool,
}

impl Receipts {
    /// The tag of a message that is sent now, if it asks for a receipt.
    pub(super) fn tag(&mut self, receipt: Option<String>, late: bool) -> Option<u64> {
        let Some(receipt) = receipt else {
            self.plain = true;
            return None;
        };
        self.given += 1;
        let after_plain = std::mem::take(&mut self.plain);
        self.awaited.insert(self.given, Awaited { receipt, after_plain, late });
        Some(self.given)
    }

    /// The receipt that was waited for under this tag.
    pub(super) fn settle(&mut self, tag: u64) -> Option<String> {
        self.awaited.remove(&tag).map(|awaited| awaited.receipt)
    }

    /// The receipt of the message that the broker refused, where that is certain.
    ///
    /// Refusals and confirms come in the order of the messages, but a refusal names no tag: if nothing
    /// was sent without a receipt meanwhile, it is the first that waits. One that waits for another host may have been
    /// taken here long ago, so it has to be the only one.
    pub(super) fn refused(&mut self) -> Option<String> {
        let late = self.awaited.values().any(|it| it.late);
        if late && (self.awaited.len() > 1 || self.plain) {
            return None;
        }
        let first = self.awaited.first_entry().filter(|entry| !entry.get().after_plain)?;
        Some(first.remove().receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_pinned_on_a_receipt_only_where_it_is_certain() {
        let mut receipts = Receipts::default();
        let tag = receipts.tag(Some("a".into()), false).expect("there is a receipt");
        receipts.tag(Some("b".into()), false);
        receipts.tag(None, false);
        receipts.tag(Some("c".into()), false);
        assert_eq!(receipts.settle(tag), Some("a".into()));
        assert_eq!(receipts.settle(tag), None);
        assert_eq!(receipts.refused(), Some("b".into()));
        assert_eq!(receipts.refused(), None, "it may be the message without a receipt");
    }

    #[test]
    fn refusal_is_of_one_that_waits_for_another_host_only_if_nothing_else_waits() {
        let mut receipts = Receipts::default();
        let tag = receipts.tag(Some("home".into()), true).expect("there is a receipt");
        receipts.tag(Some("here".into()), false);
        assert_eq!(receipts.refused(), None, "the first may have been taken long ago");
        assert_eq!(receipts.settle(tag + 1), Some("here".into()));
        assert_eq!(receipts.refused(), Some("home".into()));
        receipts.tag(Some("home".into()), true);
        receipts.tag(None, false);
        assert_eq!(receipts.refused(), None);
    }
}
