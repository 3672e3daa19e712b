//! What a channel was given and has not acknowledged, by delivery tag.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::broker::{MailboxId, Run, Seq};

/// A delivery that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) tag: u64,
    pub(super) mailbox: MailboxId,
    pub(super) seq: Seq,
}

impl Held {
    pub(super) fn run(self) -> Run {
        Run { mailbox: self.mailbox, first: self.seq, count: 1 }
    }
}

/// Deliveries in order of their tags.
///
/// One that is settled out of order stays as a gap (its `seq` is 0, which no message has) until
/// its neighbours go or half of the row is gaps.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    row: VecDeque<Held>,
    gaps: usize,
}

const GAP: Seq = Seq(0);

impl Unsettled {
    /// Tags only ever rise.
    pub(super) fn push(&mut self, held: Held) {
        self.row.push_back(held);
    }

    /// Takes out the delivery of this tag.
    pub(super) fn take(&mut self, tag: u64) -> Option<Held> {
        let at = self.find(tag)?;
        let held = self.row[at];
        if at == 0 {
            self.row.pop_front();
        } else {
            self.row[at].seq = GAP;
            self.gaps += 1;
        }
        self.tidy();
        Some(held)
    }

    /// Takes out everything up to this tag, which must be there; 0 stands for the last.
    pub(super) fn take_upto(&mut self, tag: u64, mut taken: impl FnMut(Held)) -> Option<()> {
        let count = match tag {
            0 => self.row.len(),
            tag => self.find(tag)? + 1,
        };
        for held in self.row.drain(..count) {
            if held.seq == GAP {
                self.gaps -= 1;
            } else {
                taken(held);
            }
        }
        self.tidy();
        Some(())
    }

    /// Puts back what was taken, as a rollback does.
    pub(super) fn restore(&mut self, held: impl IntoIterator<Item = Held>) {
        self.row.retain(|held| held.seq != GAP);
        self.gaps = 0;
        self.row.extend(held);
        self.row.make_contiguous().sort_unstable_by_key(|held| held.tag);
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let at = match self.row.front() {
            Some(first) if first.tag == tag => 0,
            _ => self.row.binary_search_by_key(&tag, |held| held.tag).ok()?,
        };
        (self.row[at].seq != GAP).then_some(at)
    }

    fn tidy(&mut self) {
        while self.row.front().is_some_and(|held| held.seq == GAP) {
            self.row.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > 32 && self.gaps * 2 > self.row.len() {
            self.row.retain(|held| held.seq != GAP);
            self.gaps = 0;
        }
    }
}

/// Adds deliveries to runs, to the last one where they are its neighbours.
pub(super) fn join_run(runs: &mut SmallVec<[Run; 1]>, run: Run) {
    if let Some(last) = runs.last_mut()
        && last.mailbox == run.mailbox
        && last.first.0 + u64::from(last.count) == run.first.0
        && let Some(sum) = last.count.checked_add(run.count)
    {
        last.count = sum;
    } else {
        runs.push(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tags: std::ops::RangeInclusive<u64>) -> Unsettled {
        let mut row = Unsettled::default();
        tags.for_each(|tag| row.push(Held { tag, mailbox: MailboxId(1), seq: Seq(tag + 100) }));
        row
    }

    fn taken(row: &mut Unsettled, tag: u64) -> Option<Vec<u64>> {
        let mut tags = Vec::new();
        row.take_upto(tag, |held| tags.push(held.tag))?;
        Some(tags)
    }

    #[test]
    fn tag_is_taken_once() {
        let mut row = row(1..=3);
        assert_eq!(row.take(2).map(|held| held.seq), Some(Seq(102)));
        assert_eq!(row.take(2), None);
        assert_eq!(row.take(4), None);
        assert_eq!(row.take(0), None);
        assert_eq!(row.take(1).map(|held| held.tag), Some(1));
        assert_eq!(row.take(3).map(|held| held.tag), Some(3));
        assert_eq!(row.take(3), None);
    }

    #[test]
    fn many_are_taken_without_the_gaps() {
        let mut row = row(1..=6);
        row.take(2);
        row.take(5);
        assert_eq!(taken(&mut row, 2), None, "a settled tag is not known");
        assert_eq!(taken(&mut row, 9), None);
        assert_eq!(taken(&mut row, 4), Some(vec![1, 3, 4]));
        assert_eq!(taken(&mut row, 0), Some(vec![6]));
        assert_eq!(taken(&mut row, 0), Some(vec![]));
    }

    #[test]
    fn restored_deliveries_stand_in_order() {
        let mut row = row(1..=4);
        let back = [row.take(3), row.take(1)].into_iter().flatten().collect::<Vec<_>>();
        row.restore(back);
        assert_eq!(taken(&mut row, 0), Some(vec![1, 2, 3, 4]));
    }

    #[test]
    fn gaps_do_not_pile_up_behind_one_that_stays() {
        let mut row = row(1..=10_000);
        for tag in 2..=10_000 {
            assert!(row.take(tag).is_some());
        }
        assert!(row.row.len() < 100);
        assert_eq!(taken(&mut row, 1), Some(vec![1]));
    }
}
