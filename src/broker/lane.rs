//! Ready messages of one priority, in order of position: hot ones in memory, cold ones in the store.
//!
//! ```text
//! returned ∪ head | loading | cold ranges | tail
//! └── taken from ─┘                        └── appended to (to head while nothing is cold)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Epoch;
use super::command::Seq;
use super::event::Rest;
use super::message::Message;
use super::name::Time;

/// A message at rest in a mailbox.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: Seq,
    pub(super) message: Arc<Message>,
    pub(super) rest: Rest,
    /// The batch that stores it; zero for long ago.
    pub(super) epoch: Epoch,
    /// The store holds it, or will with its epoch.
    pub(super) stored: bool,
}

impl Entry {
    pub(super) fn body_size(&self) -> u64 {
        self.message.body().len() as u64
    }
}

/// Neighbours that only the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cold {
    pub(super) first: Seq,
    pub(super) count: u32,
    /// Sum of the body sizes.
    pub(super) bytes: u64,
    /// When the first came to the mailbox: the oldest of them.
    pub(super) since: Time,
}

impl Cold {
    fn end(&self) -> u64 {
        self.first.0 + u64::from(self.count)
    }
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Came back from consumers; merged with the head by position.
    returned: BTreeMap<Seq, Entry>,
    head: VecDeque<Entry>,
    /// Asked of the store, not here yet.
    loading: VecDeque<Cold>,
    cold: VecDeque<Cold>,
    /// After the cold ranges. Empty while nothing is cold or loading.
    tail: VecDeque<Entry>,
}

impl Lane {
    pub(super) fn append(&mut self, entry: Entry) {
        if self.all_hot() { self.head.push_back(entry) } else { self.tail.push_back(entry) }
    }

    /// Back to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.returned.insert(entry.seq, entry);
    }

    fn all_hot(&self) -> bool {
        self.cold.is_empty() && self.loading.is_empty()
    }

    /// The first entry in memory, unless an earlier one must come from the store first.
    pub(super) fn front(&self) -> Option<&Entry> {
        match (self.returned.first_key_value(), self.head.front()) {
            (Some((_, returned)), Some(head)) => {
                Some(if returned.seq < head.seq { returned } else { head })
            }
            (Some((_, returned)), None) => {
                let earlier = self.loading.front().or(self.cold.front());
                earlier.is_none_or(|cold| returned.seq < cold.first).then_some(returned)
            }
            (None, head) => head,
        }
    }

    pub(super) fn take(&mut self) -> Option<Entry> {
        let from_returned = match (self.returned.first_key_value(), self.head.front()) {
            (Some((seq, _)), Some(head)) => *seq < head.seq,
            (Some(_), None) => {
                self.front()?;
                true
            }
            (None, Some(_)) => false,
            (None, None) => return None,
        };
        let entry = if from_returned {
            self.returned.pop_first().map(|(_, entry)| entry)
        } else {
            self.head.pop_front()
        };
        if self.head.is_empty() && self.all_hot() {
            std::mem::swap(&mut self.head, &mut self.tail);
        }
        entry
    }

    /// When the oldest ready message came: of the front, wherever it is.
    pub(super) fn oldest(&self) -> Option<Time> {
        let hot = self.front().map(|entry| entry.rest.since);
        hot.or_else(|| self.loading.front().or(self.cold.front()).map(|cold| cold.since))
    }

    /// Takes an entry out of the middle, if it is in memory.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<Entry> {
        if let Some(entry) = self.returned.remove(&seq) {
            return Some(entry);
        }
        for list in [&mut self.head, &mut self.tail] {
            if let Ok(at) = list.binary_search_by_key(&seq, |entry| entry.seq) {
                return list.remove(at);
            }
        }
        None
    }

    /// Cuts one position out of the cold ranges; false if it is not among them.
    /// Its share of the bytes is not known: `bytes` says what to take off.
    pub(super) fn remove_cold(&mut self, seq: Seq) -> Option<Cold> {
        let at = self.cold.iter().position(|cold| cold.first <= seq && seq.0 < cold.end())?;
        let cold = self.cold[at];
        let average = cold.bytes / u64::from(cold.count);
        let single = Cold { first: seq, count: 1, bytes: average, since: cold.since };
        let before = (seq.0 - cold.first.0) as u32;
        let after = cold.count - before - 1;
        self.cold.remove(at);
        if after > 0 {
            let first = Seq(seq.0 + 1);
            let bytes = average * u64::from(after);
            self.cold.insert(at, Cold { first, count: after, bytes, since: cold.since });
        }
        if before > 0 {
            let bytes = cold.bytes - average * (u64::from(after) + 1);
            self.cold.insert(at, Cold { count: before, bytes, ..cold });
        }
        Some(single)
    }

    /// At start: a range that the store found.
    pub(super) fn recover(&mut self, cold: Cold) {
        push_cold(&mut self.cold, cold);
    }

    /// What to read next, when the head runs low. It moves from cold to loading.
    pub(super) fn load(&mut self, count_max: usize, bytes_max: u64) -> Vec<(Seq, u32)> {
        let mut ranges = Vec::new();
        if !self.loading.is_empty() || self.head.len() * 2 > count_max {
            return ranges;
        }
        let (mut count, mut bytes) = (0, 0);
        while let Some(range) = self.cold.front_mut() {
            if count >= count_max || (bytes >= bytes_max && count > 0) {
                break;
            }
            let average = (range.bytes / u64::from(range.count)).max(1);
            let room =
                (count_max - count).min(((bytes_max - bytes.min(bytes_max)) / average) as usize);
            let take = range.count.min(room.max(1) as u32);
            let taken =
                Cold { count: take, bytes: average.min(range.bytes) * u64::from(take), ..*range };
            let taken = if take == range.count { *range } else { taken };
            if take == range.count {
                self.cold.pop_front();
            } else {
                range.first.0 += u64::from(take);
                range.count -= take;
                range.bytes -= taken.bytes.min(range.bytes);
            }
            count += take as usize;
            bytes += taken.bytes;
            ranges.push((taken.first, take));
            self.loading.push_back(taken);
        }
        ranges
    }

    pub(super) fn is_loading(&self) -> bool {
        !self.loading.is_empty()
    }

    /// The answer to `load`. Positions that were cut out meanwhile do not come back.
    pub(super) fn loaded(&mut self, entries: impl Iterator<Item = Entry>) {
        let asked = std::mem::take(&mut self.loading);
        let asked_for = |seq: Seq| asked.iter().any(|cold| cold.first <= seq && seq.0 < cold.end());
        self.head.extend(entries.filter(|entry| asked_for(entry.seq)));
        if self.cold.is_empty() {
            self.head.append(&mut self.tail);
        }
    }

    /// Hands what is beyond the hot limit to the store's keeping; only entries that it surely holds.
    /// Returns how many bytes of memory that freed.
    pub(super) fn cool(&mut self, hot_max: usize, durable: Epoch) -> u64 {
        let mut freed = 0;
        let can_go = |entry: &Entry| entry.stored && entry.epoch <= durable;
        if self.all_hot() && self.head.len() > hot_max * 2 && can_go(&self.head[hot_max]) {
            self.tail = self.head.split_off(hot_max);
        }
        let surplus = if self.all_hot() { 0 } else { hot_max / 4 };
        while self.tail.len() > surplus {
            let Some(entry) = self.tail.front() else { break };
            if !can_go(entry) {
                break;
            }
            freed += entry.message.size() as u64;
            let cold = Cold {
                first: entry.seq,
                count: 1,
                bytes: entry.body_size(),
                since: entry.rest.since,
            };
            push_cold(&mut self.cold, cold);
            self.tail.pop_front();
        }
        if self.all_hot() {
            self.head.append(&mut self.tail);
        }
        freed
    }

    /// Entries in memory that the store does not hold, last first, for spilling.
    pub(super) fn unstored_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.tail.iter_mut().chain(self.head.iter_mut()).filter(|entry| !entry.stored)
    }

    /// Whether there is more in memory than the limit keeps.
    pub(super) fn has_surplus(&self, hot_max: usize) -> bool {
        if self.all_hot() { self.head.len() > hot_max * 2 } else { self.tail.len() > hot_max / 4 }
    }

    /// Everything, for purge: entries in memory and ranges in the store.
    pub(super) fn drain(&mut self) -> (Vec<Entry>, Vec<Cold>) {
        let mut entries: Vec<Entry> = std::mem::take(&mut self.returned).into_values().collect();
        entries.extend(self.head.drain(..));
        entries.extend(self.tail.drain(..));
        let mut ranges: Vec<Cold> = self.loading.drain(..).collect();
        ranges.extend(self.cold.drain(..));
        (entries, ranges)
    }

    /// Entries in memory in order of position, for views.
    pub(super) fn hot(&self) -> impl Iterator<Item = &Entry> {
        self.returned.values().chain(&self.head).chain(&self.tail)
    }
}

fn push_cold(ranges: &mut VecDeque<Cold>, cold: Cold) {
    match ranges.back_mut() {
        Some(last)
            if last.end() == cold.first.0 && last.count.checked_add(cold.count).is_some() =>
        {
            last.count += cold.count;
            last.bytes += cold.bytes;
        }
        _ => ranges.push_back(cold),
    }
}
