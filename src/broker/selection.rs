//! Consumers that want only some of a mailbox's messages.
//!
//! Each remembers how far it has looked, so that a message is held against its selector once, and once more when it
//! comes back. What all of them have looked at and left may go to the store, so that they see past any backlog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::Seq;
use super::consumer::Consumer;
use super::dead_letter::Reason;
use super::dispatch::{Taker, can_take};
use super::lane::{Entry, Lane};
use super::mailbox::Mailbox;
use super::selector::Selector;
use super::turn::Turn;

/// What a consumer wants, and what becomes of the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub selector: Arc<Selector>,
    /// What the selector does not match goes, as if it were taken. For a mailbox of the consumer's own.
    pub drops_others: bool,
}

/// How far a consumer with a selector has looked.
#[derive(Clone, Debug)]
pub(super) struct Search {
    selector: Arc<Selector>,
    /// By lane: up to here nothing is wanted but what is in `returned`.
    looked: BTreeMap<usize, Seq>,
    /// Wanted messages before that, which came back from consumers or came due. Some may be gone again.
    returned: BTreeSet<(usize, Seq)>,
}

/// Messages that are held against selectors in one turn; further ones have the next.
pub(super) const LOOKS_MAX: u32 = 4096;

/// Beyond it a consumer looks again from the start.
const RETURNED_MAX: usize = 1024;

impl Search {
    pub(super) fn new(selector: Arc<Selector>) -> Self {
        Self { selector, looked: BTreeMap::new(), returned: BTreeSet::new() }
    }

    fn looked(&self, lane: usize) -> Seq {
        self.looked.get(&lane).copied().unwrap_or_default()
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.selector.matches(entry.message.properties())
    }

    /// The first wanted message of the most important lane that has one. Takes from `looks` what it costs.
    fn next(&mut self, lanes: &[Lane], looks: &mut u32) -> Option<(usize, Seq)> {
        for (at, lane) in lanes.iter().enumerate().rev() {
            while let Some(&(_, seq)) =
                self.returned.range((at, Seq(0))..=(at, Seq(u64::MAX))).next()
            {
                if lane.get(seq).is_some() {
                    return Some((at, seq));
                }
                self.returned.remove(&(at, seq));
            }
            let mut looked = self.looked(at);
            let mut found = None;
            while *looks > 0
                && let Some(entry) = lane.after(looked)
            {
                *looks -= 1;
                if self.wants(entry) {
                    found = Some((at, entry.seq));
                    break;
                }
                looked = entry.seq;
            }
            if looked > Seq(0) {
                self.looked.insert(at, looked);
            }
            if found.is_some() || *looks == 0 {
                return found;
            }
        }
        None
    }

    fn start_again(&mut self) {
        self.looked.clear();
        self.returned.clear();
    }
}

impl Mailbox {
    /// Gives one message to a consumer, where some of them choose. False where there is nothing more to give now.
    pub(super) fn give_chosen(&mut self, looks: &mut u32, turn: &mut Turn<'_>) -> bool {
        self.turn_back(turn);
        let front = self.lanes.iter().enumerate().rev().find(|(_, lane)| !lane.is_empty());
        let front = front.and_then(|(at, lane)| Some((at, lane.front()?.seq)));
        let mut found = None;
        let (connections, settings, lanes) = (&*turn.connections, turn.settings, &self.lanes);
        let chosen = self.consumers.seek(self.limits.single_active, |consumer| {
            if can_take(consumer, connections, settings) {
                found = match &mut consumer.search {
                    Some(search) => search.next(lanes, looks),
                    None => front,
                };
            }
            found.is_some()
        });
        let chosen = chosen.map(|it| (Taker::from(it), it.keeps.clone()));
        let Some(((taker, keeps), (lane, seq))) = chosen.zip(found) else {
            if *looks == 0 {
                self.unfinished = true;
            } else {
                self.stuck = true;
                self.remember_stalled(turn);
            }
            return false;
        };
        if self.awaits_disk(lane, seq, turn) {
            return false;
        }
        let Some(entry) = self.lanes[lane].remove(seq) else { return false };
        let entry = self.taken(entry, turn);
        if self.deadline(&entry) < turn.now {
            self.discard(entry, Reason::Expired, turn);
        } else {
            self.give(entry, taker, keeps.as_deref(), turn);
        }
        true
    }

    pub(super) fn has_searches(&self) -> bool {
        self.consumers.searches() > 0
    }

    /// A message came, or came back: those who looked past its place have to know.
    pub(super) fn offer(&mut self, entry: &Entry, lane: usize) {
        self.offer_keyed(entry, lane);
        if !self.has_searches() {
            return;
        }
        self.stuck = false;
        for search in self.consumers.iter_mut().filter_map(|it| it.search.as_mut()) {
            if entry.seq <= search.looked(lane) && search.wants(entry) {
                search.returned.insert((lane, entry.seq));
                if search.returned.len() > RETURNED_MAX {
                    search.start_again();
                }
            }
        }
    }

    /// Messages in memory went to the store out of turn.
    pub(super) fn look_again(&mut self) {
        for search in self.consumers.iter_mut().filter_map(|it| it.search.as_mut()) {
            search.start_again();
        }
        self.stuck = false;
    }

    /// Lanes go back to what somebody needs of the messages that were passed over.
    pub(super) fn turn_back(&mut self, turn: &mut Turn<'_>) {
        if !self.passed {
            return;
        }
        let needs_front = self.needs_front(turn);
        for at in 0..self.lanes.len() {
            let upto = self.searched(at, turn).unwrap_or(Seq(u64::MAX));
            let upto = if needs_front { Seq(0) } else { upto };
            if upto < self.lanes[at].passed() {
                let freed = self.lanes[at].turn_back(upto, turn.durable);
                *turn.memory = turn.memory.saturating_sub(freed);
            }
        }
        self.passed = self.lanes.iter().any(|lane| lane.passed() > Seq(0));
    }

    /// What nobody wants of those who could take something leaves memory, so that there is room for what follows.
    pub(super) fn pass_over(&mut self, turn: &mut Turn<'_>) {
        if !self.has_searches() || !self.stuck || self.needs_front(turn) {
            return;
        }
        for at in 0..self.lanes.len() {
            if let Some(upto) = self.searched(at, turn)
                && self.lanes[at].cold_after(upto).is_some()
            {
                let searches = || self.consumers.iter().filter_map(|it| it.search.as_ref());
                let kept = |seq| searches().any(|search| search.returned.contains(&(at, seq)));
                let freed = self.lanes[at].pass(upto, turn.durable, kept);
                *turn.memory = turn.memory.saturating_sub(freed);
                self.passed |= self.lanes[at].passed() > Seq(0);
            }
        }
    }

    /// Whether there is use for the first message, whatever it is.
    fn needs_front(&self, turn: &Turn<'_>) -> bool {
        let takes_any = || !self.askers.is_empty() || self.able(turn).any(|it| it.search.is_none());
        self.is_over_length()
            || self.has_stale_cold(turn.now)
            || (self.keyed.is_none() && takes_any())
    }

    /// The consumers that could take something now.
    fn able(&self, turn: &Turn<'_>) -> impl Iterator<Item = &Consumer> {
        let can_take = |it: &&Consumer| can_take(it, turn.connections, turn.settings);
        self.consumers.in_turn(self.limits.single_active).filter(can_take)
    }

    /// How far all have looked that could take something now.
    fn searched(&self, lane: usize, turn: &Turn<'_>) -> Option<Seq> {
        self.able(turn).filter_map(|it| it.search.as_ref()).map(|search| search.looked(lane)).min()
    }
}
