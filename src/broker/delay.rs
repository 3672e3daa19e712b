//! Messages of a mailbox that nobody sees until they are due.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::Epoch;
use super::command::Seq;
use super::lane::Entry;
use super::name::Time;

/// By the time they are due, then position. Beyond a few they stay in memory only until the store has them.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    entries: BTreeMap<(Time, Seq), Waiting>,
    hot: usize,
    hot_bytes: u64,
    /// Those of them that only memory holds, and how far they were looked through to be spilled.
    unstored: usize,
    spilled: Option<(Time, Seq)>,
    /// Hot ones that leave memory as soon as the store surely has them.
    cooling: VecDeque<(Time, Seq)>,
}

#[derive(Debug)]
pub(super) enum Waiting {
    Hot(Box<Entry>),
    /// Only the store holds it.
    Cold {
        /// It was delivered before.
        seen: bool,
        attempts: u32,
    },
}

impl Delayed {
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Until `rest.deliver_at`.
    pub(super) fn add(&mut self, entry: Entry, hot_max: usize, bytes_max: u64) {
        let at = (entry.rest.deliver_at, entry.seq);
        if entry.stored && (self.hot >= hot_max || self.hot_bytes >= bytes_max) {
            self.cooling.push_back(at);
        }
        self.hot += 1;
        self.unstored += usize::from(!entry.stored);
        self.hot_bytes += entry.message.footprint();
        self.entries.insert(at, Waiting::Hot(Box::new(entry)));
    }

    /// At start: the store has it.
    pub(super) fn add_cold(&mut self, due: Time, seq: Seq, seen: bool, attempts: u32) {
        self.entries.insert((due, seq), Waiting::Cold { seen, attempts });
    }

    /// From after this place on.
    pub(super) fn after(&self, at: (Time, Seq)) -> impl Iterator<Item = ((Time, Seq), &Waiting)> {
        let rest = self.entries.range((Bound::Excluded(at), Bound::Unbounded));
        rest.map(|(at, waiting)| (*at, waiting))
    }

    pub(super) fn take(&mut self, at: (Time, Seq)) -> Option<Waiting> {
        let waiting = self.entries.remove(&at)?;
        self.forget(&waiting);
        Some(waiting)
    }

    fn forget(&mut self, waiting: &Waiting) {
        if let Waiting::Hot(entry) = waiting {
            self.hot -= 1;
            self.unstored -= usize::from(!entry.stored);
            self.hot_bytes -= entry.message.footprint();
        }
    }

    pub(super) fn first(&self) -> Option<(Time, Seq)> {
        self.entries.first_key_value().map(|(at, _)| *at)
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.entries.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<(Seq, Waiting)> {
        let first = self.entries.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, seq), waiting) = first.remove_entry();
        self.forget(&waiting);
        Some((seq, waiting))
    }

    /// Returns how many bytes of memory were freed.
    pub(super) fn cool(&mut self, durable: Epoch) -> u64 {
        let mut freed = 0;
        while let Some(at) = self.cooling.front() {
            if let Some(waiting) = self.entries.get_mut(at)
                && let Waiting::Hot(entry) = waiting
            {
                if !entry.is_safe(durable) {
                    break;
                }
                freed += entry.message.footprint();
                self.hot -= 1;
                self.hot_bytes -= entry.message.footprint();
                let (seen, attempts) = (entry.rest.redelivered, entry.rest.attempts);
                *waiting = Waiting::Cold { seen, attempts };
            }
            self.cooling.pop_front();
        }
        freed
    }

    pub(super) fn has_surplus(&self, hot_max: usize) -> bool {
        !self.cooling.is_empty() || self.unstored > hot_max
    }

    /// Memory runs out: gives the ones that only memory holds to the store, until it has enough of them.
    pub(super) fn spill(&mut self, mut give: impl FnMut(&mut Entry) -> bool) {
        // From where the last time ended: what is before was given then, but for what came since.
        let from = self.spilled.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (at, waiting) in self.entries.range_mut((from, Bound::Unbounded)) {
            if self.unstored == 0 {
                break;
            }
            if let Waiting::Hot(entry) = waiting
                && !entry.stored
            {
                self.cooling.push_back(*at);
                self.unstored -= 1;
                if !give(entry) {
                    self.spilled = Some(*at);
                    break;
                }
            }
        }
    }

    pub(super) fn memory(&self) -> u64 {
        self.hot_bytes
    }
}
