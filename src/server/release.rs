//! Words that must not be said before the writes they promise are durable.

use std::collections::VecDeque;

use crate::broker::Epoch;

/// Holds what waits for durability, in order, by the batch of writes it waits for.
///
/// ```text
/// write, hold(a), hold(b) ── seal(7) ──> group 7: a, b ── durable(7) ──> a, b
/// nothing undurable: hold(c) gives c back at once
/// ```
pub(super) struct Releases<T> {
    /// Writes were emitted since the last seal.
    open_writes: bool,
    /// Waits for the open batch. Empty unless `open_writes`.
    open: Vec<T>,
    /// Batches on their way to the disk, oldest first, also those nobody waits for.
    sealed: VecDeque<(Epoch, Vec<T>)>,
    spare: Vec<Vec<T>>,
}

impl<T> Releases<T> {
    pub(super) fn new() -> Self {
        Self { open_writes: false, open: Vec::new(), sealed: VecDeque::new(), spare: Vec::new() }
    }

    /// A write joined the open batch.
    pub(super) fn wrote(&mut self) {
        self.open_writes = true;
    }

    /// Keeps the item until every write before it is durable, or gives it back when they all are.
    pub(super) fn hold(&mut self, item: T) -> Option<T> {
        if self.open_writes {
            self.open.push(item);
        } else if let Some((_, group)) = self.sealed.back_mut() {
            group.push(item);
        } else {
            return Some(item);
        }
        None
    }

    /// Somebody waits for the open batch.
    pub(super) fn awaited(&self) -> bool {
        !self.open.is_empty()
    }

    /// The open batch goes to the disk under this number.
    pub(super) fn seal(&mut self, epoch: Epoch) {
        let group = std::mem::replace(&mut self.open, self.spare.pop().unwrap_or_default());
        self.open_writes = false;
        self.sealed.push_back((epoch, group));
    }

    /// The batch is durable, and so are those before it: what waited for them is said in order.
    pub(super) fn durable(&mut self, epoch: Epoch, mut say: impl FnMut(T)) {
        const SPARE_MAX: usize = 2;
        while self.sealed.front().is_some_and(|(sealed, _)| *sealed <= epoch) {
            let (_, mut group) = self.sealed.pop_front().expect("a group is at the front");
            group.drain(..).for_each(&mut say);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(releases: &mut Releases<char>, epoch: u64) -> String {
        let mut said = String::new();
        releases.durable(Epoch(epoch), |it| said.push(it));
        said
    }

    #[test]
    fn with_nothing_undurable_words_pass_at_once() {
        let mut releases = Releases::new();
        assert_eq!(releases.hold('a'), Some('a'));
        releases.wrote();
        releases.seal(Epoch(1));
        assert_eq!(said(&mut releases, 1), "");
        assert_eq!(releases.hold('b'), Some('b'));
    }

    #[test]
    fn words_wait_for_the_batch_that_is_open() {
        let mut releases = Releases::new();
        releases.wrote();
        assert_eq!(releases.hold('a'), None);
        assert!(releases.awaited());
        releases.seal(Epoch(1));
        assert!(!releases.awaited());
        assert_eq!(said(&mut releases, 0), "");
        assert_eq!(said(&mut releases, 1), "a");
    }

    #[test]
    fn words_after_a_seal_wait_for_the_batch_in_flight() {
        let mut releases = Releases::new();
        releases.wrote();
        releases.hold('a');
        releases.seal(Epoch(1));
        // No write of its own, but 'a' must be said first.
        assert_eq!(releases.hold('b'), None);
        assert_eq!(said(&mut releases, 1), "ab");
    }

    #[test]
    fn batches_are_released_one_after_another() {
        let mut releases = Releases::new();
        for (epoch, word) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            releases.wrote();
            releases.hold(word);
            releases.seal(Epoch(epoch));
        }
        releases.wrote();
        releases.hold('d');
        assert_eq!(said(&mut releases, 1), "a");
        assert_eq!(said(&mut releases, 3), "bc");
        releases.seal(Epoch(4));
        assert_eq!(said(&mut releases, 4), "d");
    }
}
