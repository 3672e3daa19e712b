//! A group: consumers that share one place in a stream, so that each message goes to one of them.
//!
//! ```text
//! done | held . done . again . waiting | new
//!      ^ committed                     ^ next
//! ```
//! Every position between the two is one of the four. What is done there is kept as ranges.

use std::collections::{BTreeMap, BTreeSet};

use super::readers::Place;
use crate::broker::command::Seq;
use crate::broker::definition::{GroupDefinition, TriedDefinition};
use crate::broker::name::Time;

/// Positions of one group that are held, to come again, or waiting for their time. New messages wait beyond.
pub(super) const OUTSTANDING_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Everything before it is done.
    committed: Seq,
    /// Nothing from here on was handed out.
    next: Seq,
    /// What came before this is passed over.
    since: Time,
    /// First positions, and those behind the last. No two ranges touch, and none touches `committed`.
    done: BTreeMap<Seq, Seq>,
    done_count: u64,
    held: BTreeMap<Seq, Hold>,
    /// Handed out before, to be handed out again.
    again: BTreeSet<Seq>,
    /// The same, but not yet.
    waiting: BTreeSet<(Time, Seq)>,
    /// When holds end by themselves.
    ends: BTreeSet<(Time, Seq)>,
    /// Of those that are held or were given back.
    tried: BTreeMap<Seq, Tried>,
    /// In the order in which they came.
    pub(super) members: Vec<Place>,
    /// Only the first of them gets messages, the others stand by.
    pub(super) single: bool,
    /// Another one is first than was, and deliveries of before may still be held.
    shifting: bool,
    /// Trimmed before anybody had them.
    missed: u64,
}

/// A delivery that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) place: Place,
    /// Of the delivery, among those of its place.
    pub(super) number: u64,
    pub(super) ends: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) deliveries: u32,
    /// Those that failed.
    pub(super) attempts: u32,
    /// It goes to its dead-letter exchange as soon as it is here.
    pub(super) rejected: bool,
}

/// What becomes of a delivery's message in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// Done, once it lies at the dead-letter exchange.
    Dead,
    Again {
        failed: bool,
        due: Time,
    },
}

impl Group {
    pub(super) fn new(next: Seq, since: Time) -> Self {
        Self { committed: next, next, since, ..Self::default() }
    }

    /// As the store has it. What was handed out and not done comes again.
    pub(super) fn restore(next: Seq, since: Time, stored: &GroupDefinition) -> Self {
        let seq = |offset: u64| Seq(offset.saturating_add(1));
        let mut group = Self::new(next, since);
        for (first, count) in &stored.done {
            let (first, end) = (seq(*first), seq(first.saturating_add(*count)));
            if first >= group.next && first < end {
                group.owe(first);
                group.next = end;
                group.add_done(first, end);
            }
        }
        group.owe(seq(stored.seen));
        for it in &stored.tried {
            let seq = seq(it.offset);
            if group.again.contains(&seq) {
                let (deliveries, attempts) = (it.deliveries, it.attempts);
                group.tried.insert(seq, Tried { deliveries, attempts, rejected: false });
                if it.due_ms > 0 {
                    group.again.remove(&seq);
                    group.waiting.insert((Time(it.due_ms), seq));
                }
            }
        }
        group
    }

    /// Whether it is this member's turn at all: not while another one is first, or holds messages of before it was.
    pub(super) fn is_on(&mut self, place: Place) -> bool {
        if !self.single {
            return true;
        }
        let is_first = self.members.first() == Some(&place);
        if is_first && self.shifting {
            self.shifting = self.held.values().any(|hold| hold.place != place);
        }
        is_first && !self.shifting
    }

    pub(super) fn leave(&mut self, place: Place) {
        self.shifting |= self.members.first() == Some(&place);
        self.members.retain(|it| *it != place);
    }

    /// Everything up to before this position was handed out.
    fn owe(&mut self, upto: Seq) {
        let room = OUTSTANDING_MAX.saturating_sub(self.again.len()) as u64;
        let end = upto.0.min(self.next.0.saturating_add(room)).max(self.next.0);
        self.again.extend((self.next.0..end).map(Seq));
        self.next = Seq(end);
    }

    /// As the store shall have it, beside `committed` and `since`.
    pub(super) fn definition(&self) -> GroupDefinition {
        let offset = |seq: Seq| seq.0 - 1;
        let due: BTreeMap<Seq, Time> = self.waiting.iter().map(|(due, seq)| (*seq, *due)).collect();
        let tried = self.tried.iter().filter_map(|(seq, tried)| {
            let due_ms = due.get(seq).map_or(0, |due| due.0);
            let (deliveries, attempts) = (tried.deliveries, tried.attempts);
            let returned = !self.held.contains_key(seq) || deliveries > 1;
            let offset = offset(*seq);
            returned.then_some(TriedDefinition { offset, deliveries, attempts, due_ms })
        });
        GroupDefinition {
            done: self.done.iter().map(|(first, end)| (offset(*first), end.0 - first.0)).collect(),
            seen: offset(self.next),
            tried: tried.collect(),
        }
    }

    pub(super) fn committed(&self) -> Seq {
        self.committed
    }

    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// What was given back: to come again, now or later.
    pub(super) fn returned(&self) -> usize {
        self.again.len() + self.waiting.len()
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// Positions from the first that is kept to before the end that are not done.
    pub(super) fn lag(&self, first: Seq, end: Seq) -> u64 {
        if first <= self.committed {
            return end.0.saturating_sub(self.committed.0).saturating_sub(self.done_count);
        }
        let done = self.done.iter().map(|(from, to)| to.0.saturating_sub(from.max(&first).0));
        end.0.saturating_sub(first.0).saturating_sub(done.sum())
    }

    /// The group starts from here. Deliveries from before have no meaning for it any more.
    pub(super) fn seek(&mut self, next: Seq, since: Time) {
        let (members, missed) = (std::mem::take(&mut self.members), self.missed);
        *self = Self { members, missed, ..Self::new(next, since) };
    }

    /// What is before the log's first position is gone.
    pub(super) fn trim(&mut self, first: Seq) {
        if first <= self.committed {
            return;
        }
        self.missed += first.0.saturating_sub(self.next.0);
        self.next = self.next.max(first);
        self.again = self.again.split_off(&first);
        self.tried = self.tried.split_off(&first);
        self.held = self.held.split_off(&first);
        self.waiting.retain(|(_, seq)| *seq >= first);
        self.ends.retain(|(_, seq)| *seq >= first);
        while let Some(range) = self.done.first_entry().filter(|it| *it.key() < first) {
            let (from, end) = range.remove_entry();
            self.done_count -= end.0 - from.0;
            if end > first {
                self.done.insert(first, end);
                self.done_count += end.0 - first.0;
            }
        }
        self.committed = first;
        self.commit();
    }

    /// The position to hand out, and whether it was before. `None` while too much is outstanding.
    pub(super) fn wanted(&self) -> Option<(Seq, bool)> {
        match self.again.first() {
            Some(seq) => Some((*seq, true)),
            None if self.held.len() + self.waiting.len() >= OUTSTANDING_MAX => None,
            None => Some((self.next, false)),
        }
    }

    pub(super) fn tried(&self, seq: Seq) -> Tried {
        self.tried.get(&seq).copied().unwrap_or_default()
    }

    /// The wanted position, and those behind it up to before `end`, are nothing for this group.
    pub(super) fn pass(&mut self, seq: Seq, end: Seq) {
        if self.again.remove(&seq) {
            self.tried.remove(&seq);
            self.add_done(seq, Seq(seq.0 + 1));
        } else if seq == self.next && end > seq {
            self.next = end;
            self.add_done(seq, end);
        }
    }

    /// The wanted position is handed out.
    pub(super) fn hand_out(&mut self, seq: Seq, hold: Hold) {
        if !self.again.remove(&seq) {
            self.next = Seq(seq.0 + 1);
        }
        let tried = self.tried.entry(seq).or_default();
        tried.deliveries = tried.deliveries.saturating_add(1);
        self.ends.extend(hold.ends.map(|ends| (ends, seq)));
        self.held.insert(seq, hold);
    }

    /// A delivery ends. False where the group gave the message to somebody else since, or started anew.
    pub(super) fn settle(&mut self, seq: Seq, place: Place, number: u64, fate: Fate) -> bool {
        let ours = self.held.get(&seq).is_some_and(|it| (it.place, it.number) == (place, number));
        if !ours {
            return false;
        }
        if let Some(Hold { ends: Some(ends), .. }) = self.held.remove(&seq) {
            self.ends.remove(&(ends, seq));
        }
        match fate {
            Fate::Done => {
                self.tried.remove(&seq);
                self.add_done(seq, Seq(seq.0 + 1));
            }
            Fate::Dead => {
                self.tried.entry(seq).or_default().rejected = true;
                self.again.insert(seq);
            }
            Fate::Again { failed, due } => {
                let tried = self.tried.entry(seq).or_default();
                tried.attempts = tried.attempts.saturating_add(failed.into());
                if due > Time::ZERO {
                    self.waiting.insert((due, seq));
                } else {
                    self.again.insert(seq);
                }
            }
        }
        true
    }

    /// The time to settle a delivery begins anew.
    pub(super) fn extend(&mut self, seq: Seq, place: Place, number: u64, ends: Option<Time>) {
        let Some(hold) = self.held.get_mut(&seq) else { return };
        if (hold.place, hold.number) != (place, number) {
            return;
        }
        if let Some(before) = std::mem::replace(&mut hold.ends, ends) {
            self.ends.remove(&(before, seq));
        }
        self.ends.extend(ends.map(|ends| (ends, seq)));
    }

    /// Whether something came due.
    pub(super) fn wake(&mut self, now: Time) -> bool {
        let mut woken = false;
        while let Some(&(due, seq)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            self.again.insert(seq);
            woken = true;
        }
        woken
    }

    /// A hold that lasted too long.
    pub(super) fn overdue(&self, now: Time) -> Option<(Seq, Hold)> {
        let (_, seq) = self.ends.first().filter(|(ends, _)| *ends <= now)?;
        self.held.get(seq).map(|hold| (*seq, *hold))
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        let firsts = [self.waiting.first(), self.ends.first()];
        firsts.into_iter().flatten().map(|(due, _)| *due).min()
    }

    fn add_done(&mut self, mut first: Seq, mut end: Seq) {
        self.done_count += end.0 - first.0;
        if let Some((before, upto)) = self.done.range(..first).next_back()
            && *upto == first
        {
            first = *before;
        }
        if let Some(upto) = self.done.remove(&end) {
            end = upto;
        }
        self.done.insert(first, end);
        self.commit();
    }

    fn commit(&mut self) {
        if let Some(end) = self.done.remove(&self.committed) {
            self.done_count -= end.0 - self.committed.0;
            self.committed = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Place {
        Held(u64),
        Again,
        Waiting(u64),
        Done,
    }

    fn hold(number: u64) -> Hold {
        Hold { place: 0, number, ends: None }
    }

    proptest! {
        /// Against a model that keeps the state of each position in a map.
        #[test]
        fn group_knows_the_state_of_each_position(
            steps in prop::collection::vec((0u8..8, 0usize..40, 1u64..9), 0..300),
        ) {
            let mut group = Group::new(Seq(1), Time::ZERO);
            let mut model: BTreeMap<u64, Place> = BTreeMap::new();
            let (mut next, mut first, mut number) = (1, 1, 0);
            for (step, pick, span) in steps {
                let held: Vec<(u64, u64)> = model
                    .iter()
                    .filter_map(|(seq, it)| match it {
                        Place::Held(number) => Some((*seq, *number)),
                        _ => None,
                    })
                    .collect();
                match step {
                    0..=2 => {
                        let again = model.iter().find(|(_, it)| **it == Place::Again);
                        let seq = again.map_or(next, |(seq, _)| *seq);
                        prop_assert_eq!(group.wanted(), Some((Seq(seq), again.is_some())));
                        number += 1;
                        group.hand_out(Seq(seq), hold(number));
                        next = next.max(seq + 1);
                        model.insert(seq, Place::Held(number));
                    }
                    3..=5 if !held.is_empty() => {
                        let (seq, number) = held[pick % held.len()];
                        let (fate, place) = match step {
                            3 => (Fate::Done, Place::Done),
                            4 => (Fate::Again { failed: true, due: Time::ZERO }, Place::Again),
                            _ => (Fate::Again { failed: false, due: Time(span) }, Place::Waiting(span)),
                        };
                        prop_assert!(!group.settle(Seq(seq), 0, number + 1, fate));
                        prop_assert!(group.settle(Seq(seq), 0, number, fate));
                        prop_assert!(!group.settle(Seq(seq), 0, number, fate));
                        model.insert(seq, place);
                    }
                    6 => {
                        group.wake(Time(span));
                        for it in model.values_mut() {
                            if matches!(it, Place::Waiting(due) if *due <= span) {
                                *it = Place::Again;
                            }
                        }
                    }
                    7 if pick < 4 => {
                        first += span;
                        group.trim(Seq(first));
                        model = model.split_off(&first);
                        next = next.max(first);
                    }
                    7 if pick < 8 => {
                        // Over a restart what was held comes again.
                        group = Group::restore(group.committed(), Time::ZERO, &group.definition());
                        model.values_mut().filter(|it| matches!(it, Place::Held(_))).for_each(|it| *it = Place::Again);
                    }
                    _ => {}
                }
                let open: Vec<u64> = model.iter().filter(|(_, it)| **it != Place::Done).map(|(seq, _)| *seq).collect();
                prop_assert_eq!(group.committed(), Seq(open.first().copied().unwrap_or(next)));
                prop_assert_eq!(group.lag(Seq(first), Seq(next + 5)), open.len() as u64 + 5);
                prop_assert_eq!(group.held() + group.returned(), open.len());
            }
        }
    }
}
