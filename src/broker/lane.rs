//! Ready messages of one priority, in order of position: hot ones in memory, cold ones in the store.
//!
//! ```text
//! head | loading | cold ranges | tail      and `strays` anywhere among them
//! └ taken from the front, which may be cold    └ appended to (to head while nothing is cold)
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
    /// How often it was delivered to be settled; not kept by the store.
    pub(super) acquired: u32,
}

impl Entry {
    pub(super) fn body_size(&self) -> u64 {
        self.message.body().len() as u64
    }

    /// The store surely holds it.
    pub(super) fn is_safe(&self, durable: Epoch) -> bool {
        self.stored && self.epoch <= durable
    }

    fn cold(&self) -> Cold {
        Cold {
            first: self.seq,
            count: 1,
            bytes: self.body_size(),
            since: self.rest.since,
            seen: self.rest.redelivered,
        }
    }
}

/// Taking an entry from further inside than this moves many others.
const FAR: usize = 4096;

/// A list that was longer gives its memory back once it is empty.
const EMPTY_MAX: usize = 16 * 1024;

/// Neighbours that only the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cold {
    pub(super) first: Seq,
    pub(super) count: u32,
    /// Sum of the body sizes. Of a part of a recovered range: its share.
    pub(super) bytes: u64,
    /// When the first came to the mailbox, or earlier.
    pub(super) since: Time,
    /// They were delivered before, which the store need not know.
    pub(super) seen: bool,
}

impl Cold {
    fn end(&self) -> u64 {
        self.first.0 + u64::from(self.count)
    }

    fn holds(&self, seq: Seq) -> bool {
        self.first <= seq && seq.0 < self.end()
    }

    /// Cuts the first `count` off; less than all.
    fn split_front(&mut self, count: u32) -> Self {
        let bytes = self.bytes / u64::from(self.count) * u64::from(count);
        let front = Self { count, bytes, ..*self };
        self.first.0 += u64::from(count);
        self.count -= count;
        self.bytes -= bytes;
        front
    }
}

/// Where a message of a lane is, for who only looks.
pub(super) enum Place<'a> {
    Hot(&'a Entry),
    /// With its size, roughly.
    Cold {
        seq: Seq,
        bytes: u64,
    },
}

impl Place<'_> {
    pub(super) fn seq(&self) -> Seq {
        match self {
            Self::Hot(entry) => entry.seq,
            Self::Cold { seq, .. } => *seq,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Came back from consumers, came due, or stayed in memory among cold neighbours.
    strays: BTreeMap<Seq, Entry>,
    head: VecDeque<Entry>,
    /// Asked of the store, not here yet.
    loading: Vec<Cold>,
    /// The store still owes an answer, also where nobody needs it any more.
    asked: bool,
    /// By first position.
    cold: BTreeMap<Seq, Cold>,
    /// After all others. Empty while nothing is cold or loading.
    tail: VecDeque<Entry>,
    /// Cold ranges up to here are wanted by nobody now: what follows is taken as if they were not there. No range
    /// lies on both sides.
    passed: Seq,
}

/// What an answer of the store came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Positions that were asked for and did not come.
    pub(super) missing: u64,
    /// Body sizes as they were counted before, and as they are.
    pub(super) bytes_assumed: u64,
    pub(super) bytes: u64,
    /// Memory that the entries take.
    pub(super) memory: u64,
}

impl Lane {
    pub(super) fn append(&mut self, entry: Entry) {
        if self.all_hot() { self.head.push_back(entry) } else { self.tail.push_back(entry) }
    }

    /// Back to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.strays.insert(entry.seq, entry);
    }

    fn all_hot(&self) -> bool {
        self.loading.is_empty() && !self.has_cold()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
            && self.strays.is_empty()
            && self.tail.is_empty()
            && self.loading.is_empty()
            && self.cold.is_empty()
    }

    /// Whether there is something to load.
    pub(super) fn has_cold(&self) -> bool {
        self.cold.last_key_value().is_some_and(|(first, _)| *first > self.passed)
    }

    fn first_cold(&self) -> Option<&Cold> {
        let cold = if self.passed == Seq(0) {
            self.cold.first_key_value()
        } else {
            self.cold.range(Seq(self.passed.0 + 1)..).next()
        };
        match (self.loading.first(), cold) {
            (Some(loading), Some((first, cold))) => {
                Some(if loading.first < *first { loading } else { cold })
            }
            (Some(loading), None) => Some(loading),
            (None, cold) => cold.map(|(_, cold)| cold),
        }
    }

    /// The first entry, and whether it is a stray; `None` where an earlier one must come from the store.
    fn first(&self) -> Option<(&Entry, bool)> {
        let (entry, stray) = match (self.strays.first_key_value(), self.head.front()) {
            (Some((_, stray)), Some(head)) if stray.seq < head.seq => (stray, true),
            (_, Some(head)) => (head, false),
            (Some((_, stray)), None) => (stray, true),
            (None, None) => return None,
        };
        let cold_first =
            !self.all_hot() && self.first_cold().is_some_and(|cold| cold.first < entry.seq);
        (!cold_first).then_some((entry, stray))
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.first().map(|(entry, _)| entry)
    }

    pub(super) fn take(&mut self) -> Option<Entry> {
        let (_, stray) = self.first()?;
        let entry = if stray {
            self.strays.pop_first().map(|(_, entry)| entry)
        } else {
            self.head.pop_front()
        };
        self.join();
        entry
    }

    /// The tail becomes the head's where nothing is left between them.
    #[inline]
    fn join(&mut self) {
        if self.head.is_empty() && self.head.capacity() > EMPTY_MAX {
            self.head = VecDeque::new();
        }
        if !self.tail.is_empty() && self.all_hot() {
            if self.head.is_empty() {
                std::mem::swap(&mut self.head, &mut self.tail);
            } else {
                self.head.append(&mut self.tail);
            }
        }
    }

    /// When the first ready message came, wherever it is; of a cold one perhaps earlier.
    pub(super) fn oldest(&self) -> Option<Time> {
        if self.passed > Seq(0)
            && let Some((_, cold)) = self.cold.first_key_value()
        {
            return Some(cold.since);
        }
        match self.front() {
            Some(entry) => Some(entry.rest.since),
            None => self.first_cold().map(|cold| cold.since),
        }
    }

    /// Takes an entry out of the middle, if it is in memory.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<Entry> {
        if let Some(entry) = self.strays.remove(&seq) {
            return Some(entry);
        }
        let mut removed = None;
        for list in [&mut self.head, &mut self.tail] {
            if let Ok(at) = list.binary_search_by_key(&seq, |entry| entry.seq) {
                if at.min(list.len() - at) > FAR {
                    // The next one is taken from near here: it must not move as many again.
                    self.strays.extend(list.drain(..at).map(|entry| (entry.seq, entry)));
                    removed = list.pop_front();
                } else {
                    removed = list.remove(at);
                }
                break;
            }
        }
        self.join();
        removed
    }

    /// Cuts one position out of the cold ranges, if it is among them.
    pub(super) fn remove_cold(&mut self, seq: Seq) -> Option<Cold> {
        let (&first, cold) = self.cold.range_mut(..=seq).next_back()?;
        if !cold.holds(seq) {
            return None;
        }
        let mut rest = *cold;
        let before = (seq.0 - first.0) as u32;
        if before > 0 {
            *cold = rest.split_front(before);
        } else {
            self.cold.remove(&first);
        }
        if rest.count == 1 {
            self.join();
            return Some(rest);
        }
        let single = rest.split_front(1);
        self.cold.insert(rest.first, rest);
        Some(single)
    }

    /// A range that the store holds, at its place.
    pub(super) fn insert_cold(&mut self, cold: Cold) {
        if let Some((_, last)) = self.cold.range_mut(..cold.first).next_back()
            && last.end() == cold.first.0
            && last.seen == cold.seen
            && (last.first > self.passed) == (cold.first > self.passed)
            && last.count.checked_add(cold.count).is_some()
        {
            last.count += cold.count;
            last.bytes += cold.bytes;
        } else {
            self.cold.insert(cold.first, cold);
        }
    }

    /// Whether the first message has to come from the store.
    pub(super) fn is_front_cold(&self) -> bool {
        !self.all_hot() && self.front().is_none()
    }

    /// What to read next, when the head runs low. It moves from cold to loading.
    pub(super) fn load(&mut self, count_max: usize, bytes_max: u64) -> Vec<(Seq, u32)> {
        let mut ranges = Vec::new();
        if self.asked
            || !self.has_cold()
            || (self.head.len() * 2 > count_max && !self.is_front_cold())
        {
            return ranges;
        }
        let (mut count, mut bytes) = (0, 0);
        while let Some((&first, range)) = self.cold.range_mut(Seq(self.passed.0 + 1)..).next() {
            if count >= count_max || (bytes >= bytes_max && count > 0) {
                break;
            }
            let average = (range.bytes / u64::from(range.count)).max(1);
            let fitting = (bytes_max.saturating_sub(bytes) / average) as usize;
            let room = (count_max - count).min(fitting).max(1);
            let mut taken = *range;
            self.cold.remove(&first);
            if room < taken.count as usize {
                let mut rest = taken;
                taken = rest.split_front(room as u32);
                self.cold.insert(rest.first, rest);
            }
            count += taken.count as usize;
            bytes += taken.bytes;
            ranges.push((taken.first, taken.count));
            self.loading.push(taken);
        }
        self.asked = true;
        ranges
    }

    /// Whether only the store has the position.
    pub(super) fn has_in_store(&self, seq: Seq) -> bool {
        self.cold.range(..=seq).next_back().is_some_and(|(_, cold)| cold.holds(seq))
    }

    /// Whether the position is on its way here.
    pub(super) fn awaits(&self, seq: Seq) -> bool {
        range_of(&self.loading, seq).is_some()
    }

    /// The answer to `load`, in order of position. What was not asked for, or is not wanted any more, does not come in.
    pub(super) fn loaded(&mut self, entries: impl Iterator<Item = Entry>) -> Loaded {
        self.asked = false;
        let asked = std::mem::take(&mut self.loading);
        let mut loaded = Loaded {
            missing: asked.iter().map(|cold| u64::from(cold.count)).sum(),
            bytes_assumed: asked.iter().map(|cold| cold.bytes).sum(),
            ..Loaded::default()
        };
        let mut last = Seq(0);
        for mut entry in entries {
            let Some(range) = range_of(&asked, entry.seq).filter(|_| entry.seq > last) else {
                continue;
            };
            entry.rest.redelivered |= range.seen;
            last = entry.seq;
            loaded.missing -= 1;
            loaded.bytes += entry.body_size();
            loaded.memory += entry.message.footprint();
            if self.head.back().is_none_or(|last| last.seq < entry.seq) {
                self.head.push_back(entry);
            } else {
                self.strays.insert(entry.seq, entry);
            }
        }
        self.join();
        loaded
    }

    /// Hands what is beyond the hot limit to the store's keeping; only entries that it surely holds.
    /// Returns how many bytes of memory that freed.
    pub(super) fn cool(&mut self, hot_max: usize, durable: Epoch) -> u64 {
        let mut freed = 0;
        if self.all_hot()
            && self.head.len() > hot_max * 2
            && [&self.head[hot_max], &self.head[self.head.len() - 1]]
                .iter()
                .any(|entry| entry.is_safe(durable))
        {
            let front = self.head.drain(..hot_max).collect();
            self.tail = std::mem::replace(&mut self.head, front);
        }
        let keep = if self.all_hot() { 0 } else { hot_max / 4 };
        while self.tail.len() > keep
            && let (Some(entry), Some(last)) = (self.tail.front(), self.tail.back())
            && (entry.is_safe(durable) || (!entry.stored && last.stored))
            && let Some(entry) = self.tail.pop_front()
        {
            if entry.stored {
                freed += entry.message.footprint();
                self.insert_cold(entry.cold());
            } else {
                // Only memory holds it: it stays, with its neighbours gone. Where there are only such, all stay in place.
                self.strays.insert(entry.seq, entry);
            }
        }
        while self.has_stray_surplus(hot_max)
            && let Some(last) = self.strays.last_entry()
            && last.get().is_safe(durable)
            && *last.key() > self.passed
        {
            let entry = last.remove();
            freed += entry.message.footprint();
            self.insert_cold(entry.cold());
        }
        self.join();
        freed
    }

    /// Entries in memory beyond the hot limit that the store does not hold.
    pub(super) fn unstored_mut(&mut self, hot_max: usize) -> impl Iterator<Item = &mut Entry> {
        let strays = self.strays.values_mut().skip(hot_max);
        let head = self.head.iter_mut().skip(hot_max);
        strays.chain(head).chain(self.tail.iter_mut()).filter(|entry| !entry.stored)
    }

    /// Whether there is more in memory than the limit keeps.
    pub(super) fn has_surplus(&self, hot_max: usize) -> bool {
        self.head.len() > hot_max * 2
            || self.tail.len() > hot_max / 4
            || self.has_stray_surplus(hot_max)
    }

    pub(super) fn has_stray_surplus(&self, hot_max: usize) -> bool {
        self.strays.len() > hot_max * 2
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.head.capacity() + self.tail.capacity()
    }

    /// Everything, for purge: entries in memory and ranges in the store.
    pub(super) fn drain(&mut self) -> (Vec<Entry>, Vec<Cold>) {
        let mut entries: Vec<Entry> = std::mem::take(&mut self.strays).into_values().collect();
        entries.extend(self.head.drain(..));
        entries.extend(self.tail.drain(..));
        entries.sort_unstable_by_key(|entry| entry.seq);
        let mut ranges: Vec<Cold> = self.loading.drain(..).collect();
        ranges.extend(std::mem::take(&mut self.cold).into_values());
        self.passed = Seq(0);
        (entries, ranges)
    }

    /// An entry in memory, by its position.
    pub(super) fn get(&self, seq: Seq) -> Option<&Entry> {
        let in_list = |list: &VecDeque<Entry>| list.binary_search_by_key(&seq, |it| it.seq).ok();
        if let Some(at) = in_list(&self.head) {
            return self.head.get(at);
        }
        self.strays.get(&seq).or_else(|| self.tail.get(in_list(&self.tail)?))
    }

    /// The first entry behind a position; `None` where an earlier one must come from the store.
    pub(super) fn after(&self, seq: Seq) -> Option<&Entry> {
        let in_list = |list: &VecDeque<Entry>| list.partition_point(|entry| entry.seq <= seq);
        let listed = self.head.get(in_list(&self.head));
        let listed = listed.or_else(|| self.tail.get(in_list(&self.tail)));
        let stray = self.strays.range(Seq(seq.0 + 1)..).next().map(|(_, stray)| stray);
        let entry = match (listed, stray) {
            (Some(listed), Some(stray)) if stray.seq < listed.seq => stray,
            (Some(listed), _) => listed,
            (None, stray) => stray?,
        };
        self.cold_after(seq).is_none_or(|cold| cold > entry.seq).then_some(entry)
    }

    /// The first position behind this one that the store would have to give.
    pub(super) fn cold_after(&self, seq: Seq) -> Option<Seq> {
        let next = Seq(seq.0 + 1);
        let loading = self.loading.iter().find(|cold| cold.end() > next.0);
        let before = self.cold.range(..next).next_back().filter(|(_, cold)| cold.end() > next.0);
        let cold = before.or_else(|| self.cold.range(next..).next()).map(|(_, cold)| cold);
        let firsts = loading.into_iter().chain(cold).map(|cold| cold.first.max(next));
        firsts.min()
    }

    /// Up to where nothing cold is wanted.
    pub(super) fn passed(&self) -> Seq {
        self.passed
    }

    /// Nobody wants anything up to this position but what is `kept`: the store has the rest, what it does not hold
    /// stays. Returns how many bytes of memory that freed.
    pub(super) fn pass(&mut self, upto: Seq, durable: Epoch, kept: impl Fn(Seq) -> bool) -> u64 {
        if upto <= self.passed {
            return 0;
        }
        let within = self.strays.range(Seq(self.passed.0 + 1)..=upto);
        let safe: Vec<Seq> = within
            .filter(|(seq, it)| it.is_safe(durable) && !kept(**seq))
            .map(|(seq, _)| *seq)
            .collect();
        self.set_passed(upto);
        let mut freed = 0;
        for seq in safe {
            if let Some(entry) = self.strays.remove(&seq) {
                freed += entry.message.footprint();
                self.insert_cold(entry.cold());
            }
        }
        let within = self.head.partition_point(|entry| entry.seq <= upto);
        freed += self.store_head(within, durable);
        self.join();
        freed
    }

    /// Somebody wants what lies behind this position. Returns how many bytes of memory that freed.
    pub(super) fn turn_back(&mut self, to: Seq, durable: Epoch) -> u64 {
        self.set_passed(to.min(self.passed));
        // The head comes before what is cold.
        match self.head.front().map(|front| front.seq) {
            Some(front) if self.first_cold().is_some_and(|cold| cold.first < front) => {
                self.store_head(self.head.len(), durable)
            }
            _ => 0,
        }
    }

    /// Leaves the first of the head to the store, where it surely holds them.
    fn store_head(&mut self, count: usize, durable: Epoch) -> u64 {
        let mut freed = 0;
        for entry in self.head.drain(..count).collect::<Vec<_>>() {
            if entry.is_safe(durable) {
                freed += entry.message.footprint();
                self.insert_cold(entry.cold());
            } else {
                self.strays.insert(entry.seq, entry);
            }
        }
        freed
    }

    fn set_passed(&mut self, seq: Seq) {
        if let Some((_, range)) = self.cold.range_mut(..=seq).next_back()
            && range.end() > seq.0 + 1
        {
            let mut rest = *range;
            *range = rest.split_front((seq.0 + 1 - rest.first.0) as u32);
            self.cold.insert(rest.first, rest);
        }
        self.passed = seq;
    }

    /// The first entries behind a position in order, wherever they are.
    pub(super) fn places_after(&self, after: Seq, count: usize) -> Vec<Place<'_>> {
        let from = Seq(after.0.saturating_add(1));
        let cold = |cold: &Cold| {
            let bytes = cold.bytes / u64::from(cold.count).max(1);
            let seqs = cold.first.0.max(from.0)..cold.end();
            seqs.map(move |seq| Place::Cold { seq: Seq(seq), bytes })
        };
        let listed = |list: &VecDeque<Entry>| list.partition_point(|entry| entry.seq <= after);
        let within = self.cold.range(..from).next_back().filter(|(_, it)| it.end() > from.0);
        let start = within.map_or(from, |(first, _)| *first);
        let mut places = Vec::new();
        places.extend(self.strays.range(from..).take(count).map(|(_, it)| Place::Hot(it)));
        places.extend(self.head.range(listed(&self.head)..).take(count).map(Place::Hot));
        places.extend(self.loading.iter().flat_map(cold).take(count));
        places.extend(self.cold.range(start..).flat_map(|(_, it)| cold(it)).take(count));
        places.extend(self.tail.range(listed(&self.tail)..).take(count).map(Place::Hot));
        places.sort_unstable_by_key(Place::seq);
        places.truncate(count);
        places
    }

    /// Entries in memory, for views.
    pub(super) fn hot(&self) -> impl Iterator<Item = &Entry> {
        self.strays.values().chain(&self.head).chain(&self.tail)
    }

    /// Ranges that only the store holds, those on their way included.
    #[cfg(test)]
    pub(super) fn strays(&self) -> usize {
        self.strays.len()
    }

    #[cfg(test)]
    pub(super) fn all_cold(&self) -> impl Iterator<Item = &Cold> {
        self.loading.iter().chain(self.cold.values())
    }
}

/// Which of the ascending ranges has the position.
fn range_of(ranges: &[Cold], seq: Seq) -> Option<&Cold> {
    let at = ranges.partition_point(|cold| cold.first <= seq);
    ranges[..at].last().filter(|cold| cold.holds(seq))
}
