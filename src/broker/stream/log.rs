//! The log of a stream: which positions there are, and which of their messages are in memory.
//!
//! ```text
//! segments   [ 1.. ][ 1025.. ][ 2049.. ][ 3073..      ]   all that is kept, oldest first
//! in memory         [ block  ]               [ hot    ]   blocks come from the store when a reader wants them
//! ```

use std::collections::{BTreeMap, VecDeque};

use super::Bounds;
use crate::broker::command::{FetchedMessage, Seq};
use crate::broker::event::RecoveredRun;
use crate::broker::lane::{Entry, Place};
use crate::broker::name::Time;
use crate::broker::{Epoch, Settings};

/// What is read from the store and trimmed at once, at most.
pub(super) const SEGMENT_MESSAGES: u32 = 1024;
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;

/// How much more of a stream than of a queue stays in memory: of the newest messages, and of what was read back.
const HOT_FACTOR: usize = 4;

/// Questions to the store at the same time.
pub(super) const ASKED_MAX: usize = 4;

/// Messages that were asked for alone and are in memory.
const ONES_MAX: usize = 64;

/// Positions to ask the store for, ascending.
pub(super) type Ranges = Vec<(Seq, u32)>;

/// Neighbouring positions, trimmed and read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: Seq,
    pub(super) count: u32,
    /// How many of the positions hold a message: all, where no keys are kept.
    pub(super) live: u32,
    /// Sum of the body sizes.
    pub(super) bytes: u64,
    /// When the first message came, or earlier.
    pub(super) since: Time,
    /// When the last message came, or later.
    pub(super) until: Time,
}

impl Segment {
    pub(super) fn end(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count))
    }
}

/// Messages that were read back: those of a range that are there.
#[derive(Debug)]
struct Block {
    end: Seq,
    entries: Vec<Entry>,
    memory: u64,
    /// Larger is later.
    used: u64,
}

impl Block {
    /// The first entry at this position or behind it.
    fn from(&self, seq: Seq) -> Option<&Entry> {
        let first = self.entries.first()?.seq;
        let dense = seq.0.saturating_sub(first.0) as usize;
        match self.entries.get(dense) {
            Some(entry) if entry.seq == seq => Some(entry),
            _ => self.entries.get(self.entries.partition_point(|entry| entry.seq < seq)),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    segments: VecDeque<Segment>,
    /// The newest messages, without holes up to the next position.
    hot: VecDeque<Entry>,
    hot_memory: u64,
    /// Nobody sees this position yet, nor those behind it: a restart might give them to other messages.
    visible: Seq,
    next: Seq,
    blocks: BTreeMap<Seq, Block>,
    block_memory: u64,
    /// Blocks of a single message, oldest first, those that went included.
    ones: VecDeque<Seq>,
    asked: [Option<(Seq, u32)>; ASKED_MAX],
    clock: u64,
    /// Where values make way for newer ones: positions that hold a message, and the sizes of the bodies.
    live: Option<BTreeMap<Seq, u32>>,
}

/// What a reader finds at a position.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// The message, or the next one where the position is a hole. A new block was entered, which ends there.
    Message(&'a Entry, Option<Seq>),
    /// Nothing before this position.
    Hole(Seq),
    /// In the store.
    Cold,
    /// Not written yet, or not durable.
    Tail,
}

impl Log {
    /// With `sparse`, positions can be vacated.
    pub(super) fn new(sparse: bool) -> Self {
        let live = sparse.then(BTreeMap::new);
        Self { visible: Seq(1), next: Seq(1), live, ..Self::default() }
    }

    /// The first position that is kept; the next one where nothing is.
    pub(super) fn first(&self) -> Seq {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    pub(super) fn next(&self) -> Seq {
        self.next
    }

    pub(super) fn oldest(&self) -> Option<Time> {
        self.segments.front().map(|segment| segment.since)
    }

    fn hot_first(&self) -> Seq {
        self.hot.front().map_or(self.next, |entry| entry.seq)
    }

    /// Takes over what the store found. Positions come in ascending order.
    pub(super) fn recover(&mut self, run: &RecoveredRun) {
        let average = (run.bytes / u64::from(run.count.max(1))).max(1);
        let fitting = (SEGMENT_BYTES / average).clamp(1, u64::from(SEGMENT_MESSAGES)) as u32;
        let since = run.rest.since;
        let (mut first, mut left, mut bytes) = (run.first.0, run.count, run.bytes);
        while left > 0 {
            let count = left.min(fitting);
            let share = bytes / u64::from(left) * u64::from(count);
            left -= count;
            let share = if left == 0 { bytes } else { share };
            bytes -= share;
            self.segments.push_back(Segment {
                first: Seq(first),
                count,
                live: count,
                bytes: share,
                since,
                until: since,
            });
            if let Some(live) = &mut self.live {
                // Sizes are known once the messages are read; until then each has its share.
                let each = (share / u64::from(count)) as u32;
                let rest = (share - u64::from(each) * u64::from(count)) as u32;
                live.extend((first..first + u64::from(count)).map(|seq| (Seq(seq), each)));
                *live.entry(Seq(first)).or_default() += rest;
            }
            first += u64::from(count);
        }
    }

    /// Everything was taken over. A segment's last message came no later than what follows; the very last, than now.
    pub(super) fn recovered(&mut self, next: Seq, now: Time) {
        self.next = next;
        self.visible = next;
        let (mut until, mut later) = (now, None);
        for segment in self.segments.iter_mut().rev() {
            // Pieces of one run say all the same.
            if let Some(later) = later
                && later != segment.since
            {
                until = later;
            }
            later = Some(segment.since);
            segment.until = until.max(segment.since);
        }
    }

    /// When the last message that was recovered came, where that was taken to be `assumed`.
    pub(super) fn date(&mut self, last: Seq, since: Time, assumed: Time) {
        // One that grew since then is known to be younger.
        let of_the_run = |it: &Segment| it.until == assumed && it.end().0 <= last.0 + 1;
        for segment in self.segments.iter_mut().rev() {
            if segment.first > last {
                continue;
            }
            if !of_the_run(segment) {
                break;
            }
            segment.until = segment.since.max(since);
        }
    }

    /// A message takes the next position.
    pub(super) fn append(&mut self, entry: Entry, bounds: &Bounds) {
        let (seq, size, now) = (entry.seq, entry.body_size(), entry.rest.since);
        match self.segments.back_mut() {
            Some(last)
                if last.end() == seq
                    && last.count < bounds.segment_messages
                    && last.bytes + size <= bounds.segment_bytes
                    && now.since_ms(last.since) <= bounds.segment_ms =>
            {
                last.count += 1;
                last.live += 1;
                last.bytes += size;
                last.until = now;
            }
            _ => self.segments.push_back(Segment {
                first: seq,
                count: 1,
                live: 1,
                bytes: size,
                since: now,
                until: now,
            }),
        }
        self.next = Seq(seq.0 + 1);
        if let Some(live) = &mut self.live {
            live.insert(seq, size as u32);
        }
        self.hot_memory += entry.message.footprint();
        self.hot.push_back(entry);
    }

    /// What is durable can be seen. Whether there is more of it than before.
    pub(super) fn advance(&mut self, durable: Epoch) -> bool {
        let before = self.visible;
        let from = self.visible.0.saturating_sub(self.hot_first().0) as usize;
        for entry in self.hot.range(from.min(self.hot.len())..) {
            if !entry.is_safe(durable) {
                break;
            }
            self.visible = Seq(entry.seq.0 + 1);
        }
        self.visible > before
    }

    /// Messages that wait for the disk before anybody sees them.
    pub(super) fn has_unseen(&self) -> bool {
        self.visible < self.next
    }

    /// Gives memory back at the front of the newest messages. Returns how much that was.
    pub(super) fn cool(&mut self, settings: &Settings, scarce: bool) -> u64 {
        let factor = if scarce { 0 } else { HOT_FACTOR };
        let (count_max, bytes_max) = (settings.hot_messages * factor, settings.hot_bytes * factor);
        let before = self.hot_memory;
        while self.hot.len() > count_max || self.hot_memory > bytes_max as u64 {
            match self.hot.front() {
                Some(entry) if entry.seq < self.visible => {
                    self.hot_memory -= entry.message.footprint();
                    self.hot.pop_front();
                }
                _ => break,
            }
        }
        before - self.hot_memory
    }

    /// Gives memory back of what was read from the store, what was used last staying longest.
    pub(super) fn forget_blocks(&mut self, keep: u64) -> u64 {
        let before = self.block_memory;
        while self.block_memory > keep {
            let oldest = self.blocks.iter().min_by_key(|(_, block)| block.used);
            let Some(first) = oldest.map(|(first, _)| *first) else { break };
            self.forget_block(first);
        }
        before - self.block_memory
    }

    fn forget_block(&mut self, first: Seq) -> u64 {
        let memory = self.blocks.remove(&first).map_or(0, |block| block.memory);
        self.block_memory -= memory;
        memory
    }

    pub(super) fn blocks_max(settings: &Settings) -> u64 {
        (settings.hot_bytes * HOT_FACTOR) as u64
    }

    /// The reader went beyond this position and was the only one.
    pub(super) fn forget_blocks_before(&mut self, seq: Seq) -> u64 {
        let mut freed = 0;
        while let Some((&first, block)) = self.blocks.first_key_value()
            && block.end <= seq
        {
            freed += self.forget_block(first);
        }
        freed
    }

    pub(super) fn memory(&self) -> u64 {
        self.hot_memory + self.block_memory
    }

    fn is_live(&self, seq: Seq) -> bool {
        self.live.as_ref().is_none_or(|live| live.contains_key(&seq))
    }

    /// The position holds nothing any more, as a newer value took its place. Returns the size of the body that went.
    pub(super) fn vacate(&mut self, seq: Seq) -> Option<u64> {
        let size = u64::from(self.live.as_mut()?.remove(&seq)?);
        let at = self.segments.partition_point(|segment| segment.end() <= seq);
        if let Some(segment) = self.segments.get_mut(at).filter(|segment| segment.first <= seq) {
            segment.live -= 1;
            segment.bytes -= size;
            // The last one grows on.
            if segment.live == 0 && at + 1 < self.segments.len() {
                self.segments.remove(at);
            }
        }
        Some(size)
    }

    /// The body of a recovered message is so large. Returns what it was counted for before.
    pub(super) fn measure(&mut self, seq: Seq, size: u64) -> Option<u64> {
        let counted = self.live.as_mut()?.get_mut(&seq)?;
        let before = u64::from(std::mem::replace(counted, size as u32));
        let at = self.segments.partition_point(|segment| segment.end() <= seq);
        if let Some(segment) = self.segments.get_mut(at) {
            segment.bytes = segment.bytes - before + size;
        }
        Some(before)
    }

    /// What a reader that wants this position gets.
    pub(super) fn at(&mut self, seq: Seq, entered: &mut Seq) -> Found<'_> {
        if seq >= self.visible {
            return Found::Tail;
        }
        let hot_first = self.hot_first();
        if seq >= hot_first {
            if !self.is_live(seq) {
                return Found::Hole(Seq(seq.0 + 1));
            }
            return match self.hot.get((seq.0 - hot_first.0) as usize) {
                Some(entry) => Found::Message(entry, None),
                None => Found::Tail,
            };
        }
        let Some((&first, block)) = self.blocks.range_mut(..=seq).next_back() else {
            return self.beyond(seq);
        };
        if block.end <= seq {
            return self.beyond(seq);
        }
        let new = *entered != first;
        if new {
            self.clock += 1;
            block.used = self.clock;
            *entered = first;
        }
        let end = block.end;
        let live = self.live.as_ref();
        match self.blocks.get(&first).and_then(|block| block.from(seq)) {
            Some(entry) if live.is_some_and(|live| !live.contains_key(&entry.seq)) => {
                Found::Hole(Seq(entry.seq.0 + 1))
            }
            Some(entry) => Found::Message(entry, new.then_some(end)),
            None => Found::Hole(end),
        }
    }

    /// The position is not in memory.
    fn beyond(&self, seq: Seq) -> Found<'static> {
        if let Some(live) = &self.live {
            let next = live.range(seq..).next().map_or(self.next, |(next, _)| *next);
            if next > seq {
                return Found::Hole(next.min(self.hot_first()));
            }
        }
        match self.segment_at(seq) {
            Some(segment) if segment.first > seq => Found::Hole(segment.first),
            Some(_) => Found::Cold,
            None => Found::Hole(self.hot_first()),
        }
    }

    /// The first messages behind a position that can be seen, wherever they are.
    pub(super) fn places_after(&self, after: Seq, count: usize) -> Vec<Place<'_>> {
        let from = Seq(after.0.saturating_add(1)).max(self.first()).min(self.visible);
        let place = |seq: Seq, bytes: u64| {
            self.in_memory_at(seq).map_or(Place::Cold { seq, bytes }, Place::Hot)
        };
        if let Some(live) = &self.live {
            let live = live.range(from..self.visible).take(count);
            return live.map(|(seq, bytes)| place(*seq, (*bytes).into())).collect();
        }
        let begin = self.segments.partition_point(|segment| segment.end() <= from);
        let mut places = Vec::new();
        for segment in self.segments.range(begin..) {
            if places.len() >= count {
                break;
            }
            let bytes = segment.bytes / u64::from(segment.count).max(1);
            let seqs = segment.first.max(from).0..segment.end().min(self.visible).0;
            let room = count - places.len();
            places.extend(seqs.take(room).map(|seq| place(Seq(seq), bytes)));
        }
        places
    }

    fn in_memory_at(&self, seq: Seq) -> Option<&Entry> {
        if let Some(at) = seq.0.checked_sub(self.hot_first().0) {
            return self.hot.get(at as usize);
        }
        let (_, block) = self.blocks.range(..=seq).next_back()?;
        block.from(seq).filter(|entry| entry.seq == seq)
    }

    /// The segment that has this position, or the first behind it.
    fn segment_at(&self, seq: Seq) -> Option<&Segment> {
        self.segments.get(self.segments.partition_point(|segment| segment.end() <= seq))
    }

    /// The first position that may have come at this time or later.
    pub(super) fn seek(&self, since: Time) -> Seq {
        let at = self.segments.partition_point(|segment| segment.until < since);
        self.segments.get(at).map_or(self.next, |segment| segment.first)
    }

    /// The position from which so many messages follow, to the end.
    pub(super) fn last(&self, count: u64) -> Seq {
        if let Some(live) = &self.live {
            let back = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
            return live.keys().rev().nth(back).copied().unwrap_or_else(|| self.first());
        }
        let mut left = count;
        for segment in self.segments.iter().rev() {
            match left.checked_sub(u64::from(segment.count)) {
                Some(rest) if rest > 0 => left = rest,
                _ => return Seq(segment.end().0 - left),
            }
        }
        self.first()
    }

    /// Where the range ends in which the position is on its way here.
    pub(super) fn asked_end(&self, seq: Seq) -> Option<Seq> {
        let ends = self.asked.iter().flatten().filter_map(|(first, count)| {
            let end = Seq(first.0 + u64::from(*count));
            (*first <= seq && seq < end).then_some(end)
        });
        ends.max()
    }

    /// What to ask the store for so that the position comes: the number of the question, and a range. `None` where it is
    /// on its way, or too much is asked already.
    pub(super) fn ask(&mut self, seq: Seq) -> Option<(u16, Ranges)> {
        if self.asked_end(seq).is_some() {
            return None;
        }
        let at = self.asked.iter().position(Option::is_none)?;
        let segment = *self.segment_at(seq).filter(|segment| segment.first <= seq)?;
        let mut first = segment.first;
        // A part of it may be here: the segment was read while it was still being written.
        while let Some(block) = self.blocks.get(&first) {
            first = block.end;
        }
        let first = if first > seq { seq } else { first };
        let end = segment.end().min(self.hot_first());
        let count = end.0.checked_sub(first.0).filter(|count| *count > 0)? as u32;
        self.asked[at] = Some((first, count));
        Some((at as u16, self.ranges(first, count)))
    }

    /// As `ask` for who reads on, or of this position alone.
    pub(super) fn ask_for(&mut self, seq: Seq, alone: bool) -> Option<(u16, Ranges)> {
        if !alone {
            return self.ask(seq);
        }
        if self.asked_end(seq).is_some() {
            return None;
        }
        let at = self.asked.iter().position(Option::is_none)?;
        self.asked[at] = Some((seq, 1));
        Some((at as u16, self.ranges(seq, 1)))
    }

    /// What of the range the store has.
    pub(super) fn ranges(&self, first: Seq, count: u32) -> Ranges {
        let Some(live) = &self.live else { return vec![(first, count)] };
        let mut ranges = Ranges::new();
        for (&seq, _) in live.range(first..Seq(first.0 + u64::from(count))) {
            match ranges.last_mut() {
                Some((first, count)) if first.0 + u64::from(*count) == seq.0 => *count += 1,
                _ => ranges.push((seq, 1)),
            }
        }
        ranges
    }

    /// The segment at or behind this position, as far as the store surely has it.
    pub(super) fn stored_from(&self, seq: Seq) -> Option<(Seq, u32)> {
        let segment = self.segment_at(seq)?;
        let first = segment.first.max(seq);
        let end = segment.end().min(self.visible);
        let count = end.0.checked_sub(first.0).filter(|count| *count > 0)? as u32;
        Some((first, count))
    }

    /// What a reader of the block that ends here will want next, if it is not here or on its way.
    pub(super) fn ask_ahead(&mut self, end: Seq) -> Option<(u16, Ranges)> {
        let seq = self.segment_at(end)?.first.max(end);
        let is_cold = seq < self.hot_first() && seq < self.visible;
        let is_here = self.blocks.range(..=seq).next_back().is_some_and(|(_, it)| it.end > seq);
        let is_busy = self.asked.iter().filter(|it| it.is_some()).count() > 1;
        if is_cold && !is_here && !is_busy { self.ask(seq) } else { None }
    }

    /// The range that this answer is about.
    pub(super) fn answered(&mut self, lane: u16) -> Option<(Seq, u32)> {
        self.asked.get_mut(usize::from(lane))?.take()
    }

    /// Messages from the store, in order of position. Returns what cannot be trusted or is not there, and why.
    pub(super) fn loaded(
        &mut self,
        (first, count): (Seq, u32),
        messages: Vec<FetchedMessage>,
    ) -> Vec<(Seq, Option<String>)> {
        let end = Seq(first.0 + u64::from(count));
        let mut entries = Vec::with_capacity(messages.len());
        let mut lost = Vec::new();
        let mut memory = 0;
        let mut at = first;
        for FetchedMessage { seq, rest, message } in messages {
            if seq < at || seq >= end {
                continue;
            }
            lost.extend((at.0..seq.0).map(|seq| (Seq(seq), None)));
            at = Seq(seq.0 + 1);
            match message {
                Ok(message) => {
                    memory += message.footprint();
                    entries.push(Entry {
                        seq,
                        message,
                        rest,
                        epoch: Epoch(0),
                        stored: true,
                        acquired: 0,
                    });
                }
                Err(reason) => lost.push((seq, Some(reason))),
            }
        }
        lost.extend((at.0..end.0).map(|seq| (Seq(seq), None)));
        // What was trimmed meanwhile is not missed.
        let kept = self.first();
        lost.retain(|(seq, _)| *seq >= kept && self.is_live(*seq));
        let before = self.blocks.range(..=first).next_back();
        let is_here = before.is_some_and(|(_, block)| block.end >= end);
        if kept < end && !entries.is_empty() && !is_here {
            self.clock += 1;
            let within: Vec<Seq> = self.blocks.range(first..end).map(|(seq, _)| *seq).collect();
            within.into_iter().for_each(|seq| _ = self.forget_block(seq));
            self.block_memory += memory;
            self.blocks.insert(first, Block { end, entries, memory, used: self.clock });
            if count == 1 {
                self.forget_an_old_one(first);
            }
        }
        lost
    }

    /// Of messages that were asked for alone, only the newest stay.
    fn forget_an_old_one(&mut self, new: Seq) {
        self.ones.push_back(new);
        if self.ones.len() > ONES_MAX
            && let Some(old) = self.ones.pop_front()
            && self.blocks.get(&old).is_some_and(|block| block.end.0 == old.0 + 1)
        {
            self.forget_block(old);
        }
    }

    /// The position holds nothing any more. Returns how many bytes it counted for; `None` where it held nothing before.
    pub(super) fn punch(&mut self, seq: Seq) -> Option<u64> {
        if self.live.is_some() {
            return self.vacate(seq);
        }
        let (count, bytes) = self.cut(seq, Seq(seq.0 + 1));
        (count > 0).then_some(bytes)
    }

    /// Positions that hold nothing any more, where no keys are kept. Returns how many held a message, and the bytes that
    /// they counted for.
    pub(super) fn cut(&mut self, first: Seq, end: Seq) -> (u64, u64) {
        let (mut gone, mut bytes) = (0, 0);
        let mut at = self.segments.partition_point(|segment| segment.end() <= first);
        while let Some(whole) = self.segments.get(at).copied().filter(|it| it.first < end) {
            let (from, upto) = (whole.first.max(first), whole.end().min(end));
            let average = whole.bytes / u64::from(whole.count);
            let piece = |first: Seq, end: Seq| {
                let count = (end.0 - first.0) as u32;
                Segment { first, count, live: count, bytes: average * u64::from(count), ..whole }
            };
            let mut left = piece(whole.first, from);
            let mut right = piece(upto, whole.end());
            let held = upto.0 - from.0;
            // What does not divide evenly stays with what stays.
            let rest = whole.bytes - average * u64::from(whole.count);
            match (left.count, right.count) {
                (0, 0) => bytes += rest,
                (_, 0) => left.bytes += rest,
                _ => right.bytes += rest,
            }
            gone += held;
            bytes += average * held;
            self.segments.remove(at);
            for piece in [left, right].into_iter().filter(|it| it.count > 0) {
                self.segments.insert(at, piece);
                at += 1;
            }
        }
        let kept = self.first();
        while self.hot.front().is_some_and(|entry| entry.seq < kept.min(self.visible)) {
            self.hot_memory -= self.hot.pop_front().map_or(0, |entry| entry.message.footprint());
        }
        self.forget_blocks_before(kept);
        (gone, bytes)
    }

    /// The oldest segment, if everything in it can be seen.
    pub(super) fn front(&self) -> Option<&Segment> {
        self.segments.front().filter(|segment| segment.end() <= self.visible)
    }

    pub(super) fn has_several_segments(&self) -> bool {
        self.segments.len() > 1
    }

    /// The oldest segment goes. Returns it, and how much memory that freed.
    pub(super) fn trim(&mut self) -> Option<(Segment, u64)> {
        let gone = self.segments.pop_front()?;
        let before = self.memory();
        while let Some(entry) = self.hot.front()
            && entry.seq < gone.end()
        {
            self.hot_memory -= entry.message.footprint();
            self.hot.pop_front();
        }
        let kept = self.first();
        self.forget_blocks_before(kept);
        Some((gone, before - self.memory()))
    }

    #[cfg(test)]
    pub(super) fn totals(&self) -> (u64, u64) {
        let count = self.segments.iter().map(|it| u64::from(it.live)).sum();
        let live = self.live.as_ref().map(|live| live.len() as u64);
        assert_eq!(live.unwrap_or(count), count, "live positions");
        (count, self.segments.iter().map(|it| it.bytes).sum())
    }

    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.hot.len() + self.blocks.values().map(|it| it.entries.len()).sum::<usize>()
    }
}
