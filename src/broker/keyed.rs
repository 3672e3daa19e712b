//! Messages with a key in a queue that was declared with `x-message-groups`: of each key one is out at a time, in order,
//! and whoever is next gets it. Other keys flow on.
//!
//! ```text
//! looked at                              | not yet
//! held A1 | free B2, C4 | waiting A3, A7 | C9, A10 …
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::command::Seq;
use super::lane::{Entry, Lane};
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::Name;
use super::paging::{Recall, Recalls};
use super::selection::LOOKS_MAX;
use super::turn::Turn;
use super::value::Value;

/// The header of ActiveMQ's clients; then Artemis's own; then ours.
const HEADERS: [&str; 3] = ["JMSXGroupID", "_AMQ_GROUP_ID", "x-group-key"];

/// In place of a header's name.
const ROUTING_KEY: &str = "routing-key";

/// Messages whose keys are busy, and that are passed over to find others. Beyond it all wait.
const WAITING_MAX: usize = 16_384;

/// Free messages that are looked at before one that is in memory.
const FREE_LOOKS: usize = 64;

/// What says a message's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeySource {
    Usual,
    Header(Name),
    RoutingKey,
}

impl KeySource {
    /// As the argument has it; `None` for no keys at all.
    pub(super) fn parse(value: &Value) -> Result<Option<Self>, &'static str> {
        match (value.as_bool(), value.as_str()) {
            (Some(true), _) | (_, Some("true")) => Ok(Some(Self::Usual)),
            (Some(false), _) | (_, Some("false")) => Ok(None),
            (_, Some(ROUTING_KEY)) => Ok(Some(Self::RoutingKey)),
            (_, Some(header)) if !header.is_empty() => Ok(Some(Self::Header(header.into()))),
            _ => Err("neither true nor the name of a header"),
        }
    }

    fn key_of(&self, message: &Message) -> Option<Bytes> {
        let header = |name: &str| {
            let value = message.properties().header(name)?;
            match value.as_bytes() {
                Some(text) => Some(Bytes::copy_from_slice(text)),
                None => Some(value.as_i64()?.to_string().into()),
            }
        };
        match self {
            Self::Usual => HEADERS.iter().find_map(|name| header(name)),
            Self::Header(name) => header(name),
            Self::RoutingKey => Some(Bytes::copy_from_slice(message.key())),
        }
    }
}

/// A message's place: the most important lane first.
type Place = (usize, Seq);

#[derive(Debug)]
pub(super) struct Keyed {
    source: KeySource,
    /// Whose turn it is, of each key that has more: it is held, free, or waits to be tried again.
    busy: BTreeMap<Bytes, Seq>,
    /// Held, or waiting to be tried again.
    held: BTreeMap<Seq, Bytes>,
    /// By lane in order of importance: up to here every ready message is `free` or `waiting`.
    looked: Vec<Seq>,
    free: BTreeMap<Place, Option<Bytes>>,
    waiting: BTreeMap<Bytes, BTreeSet<Place>>,
    waiting_len: usize,
    /// Messages that may still be looked at in this turn.
    looks: u32,
    /// There is something to give as soon as the store has answered.
    awaits: bool,
    /// Nothing that was looked at can be given.
    starved: bool,
}

impl Keyed {
    pub(super) fn new(source: KeySource, lanes: usize) -> Self {
        Self {
            source,
            busy: BTreeMap::new(),
            held: BTreeMap::new(),
            looked: vec![Seq(0); lanes],
            free: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_len: 0,
            looks: 0,
            awaits: false,
            starved: false,
        }
    }

    /// The next of the key may go, or nobody has the key any more.
    fn pass_on(&mut self, key: Bytes) {
        let Some(places) = self.waiting.get_mut(&key) else {
            self.busy.remove(&key);
            return;
        };
        let next = places.pop_first();
        if places.is_empty() {
            self.waiting.remove(&key);
        }
        match next {
            Some(place) => {
                self.waiting_len -= 1;
                self.busy.insert(key.clone(), place.1);
                self.free.insert(place, Some(key));
            }
            None => drop(self.busy.remove(&key)),
        }
    }

    fn wait(&mut self, key: Bytes, place: Place) {
        let new = self.waiting.entry(key).or_default().insert(place);
        self.waiting_len += usize::from(new);
    }

    /// The next message that can be given: its lane and position. Those that only the store has are put into `cold`.
    fn next(&mut self, lanes: &[Lane], recalls: &Recalls, cold: &mut Vec<Place>) -> Option<Place> {
        (self.awaits, self.starved) = (false, false);
        for order in 0..lanes.len() {
            let lane = &lanes[lanes.len() - 1 - order];
            if let Some(place) = self.next_free(order, lane, recalls, cold) {
                return Some(place);
            }
            while self.looks > 0 && self.waiting_len < WAITING_MAX {
                let Some(entry) = lane.after(self.looked[order]) else {
                    self.awaits |= lane.cold_after(self.looked[order]).is_some();
                    break;
                };
                self.looks -= 1;
                let key = self.source.key_of(&entry.message);
                match key.filter(|key| self.busy.contains_key(key)) {
                    Some(key) => {
                        self.looked[order] = entry.seq;
                        self.wait(key, (order, entry.seq));
                    }
                    None => return Some((order, entry.seq)),
                }
            }
        }
        self.starved = true;
        None
    }

    /// The first of those that were passed over and are free now.
    fn next_free(
        &mut self,
        order: usize,
        lane: &Lane,
        recalls: &Recalls,
        cold: &mut Vec<Place>,
    ) -> Option<Place> {
        let range = (order, Seq(0))..=(order, Seq(u64::MAX));
        loop {
            let mut gone = Vec::new();
            let mut found = None;
            for place in self.free.range(range.clone()).map(|(it, _)| *it).take(FREE_LOOKS) {
                if lane.get(place.1).is_some() {
                    found = Some(place);
                    break;
                }
                if lane.has_in_store(place.1) {
                    cold.push(place);
                } else if !lane.awaits(place.1) && !recalls.has(place.1) {
                    gone.push(place);
                    continue;
                }
                self.awaits = true;
            }
            if found.is_some() || gone.is_empty() {
                return found;
            }
            // They expired, or were dropped.
            for place in gone {
                if let Some(Some(key)) = self.free.remove(&place) {
                    self.pass_on(key);
                }
            }
        }
    }
}

impl Mailbox {
    /// Takes the next message of a key that is free, or without a key.
    pub(super) fn take_keyed(&mut self, turn: &mut Turn<'_>) -> Option<Entry> {
        let lanes = self.lanes.len();
        let mut cold = Vec::new();
        let keyed = self.keyed.as_mut()?;
        let found = keyed.next(&self.lanes, &self.recalls, &mut cold);
        for (order, seq) in cold {
            self.recall(lanes - 1 - order, seq);
        }
        let (order, seq) = found?;
        let lane = lanes - 1 - order;
        if self.awaits_disk(lane, seq, turn) {
            self.keyed.as_mut()?.awaits = true;
            return None;
        }
        let entry = self.lanes[lane].remove(seq)?;
        let keyed = self.keyed.as_mut()?;
        // Whoever takes it says at once what becomes of its key.
        if let Some(Some(key)) = keyed.free.remove(&(order, seq)) {
            keyed.held.insert(seq, key);
        } else if let Some(key) = keyed.source.key_of(&entry.message) {
            keyed.busy.insert(key.clone(), seq);
            keyed.held.insert(seq, key);
        }
        Some(self.taken(entry, turn))
    }

    /// One that only the store has comes into memory, to its place.
    fn recall(&mut self, lane: usize, seq: Seq) {
        if self.recalls.is_full() {
            return;
        }
        if let Some(cold) = self.lanes[lane].remove_cold(seq) {
            self.ready -= 1;
            self.ready_bytes -= cold.bytes;
            self.recalls.add(seq, Recall::Wanted { seen: cold.seen });
        }
    }

    /// A message that was taken is done with, one way or another, unless it waits to be tried again.
    pub(super) fn release_key(&mut self, seq: Seq) {
        if let Some(keyed) = &mut self.keyed
            && let Some(key) = keyed.held.remove(&seq)
        {
            keyed.pass_on(key);
        }
    }

    /// A message came, or came back. What lies behind what was looked at is found in its turn.
    pub(super) fn offer_keyed(&mut self, entry: &Entry, lane: usize) {
        let order = self.lanes.len() - 1 - lane;
        let Some(keyed) = &mut self.keyed else { return };
        let place = (order, entry.seq);
        if entry.seq > keyed.looked[order] || keyed.free.contains_key(&place) {
            return;
        }
        match keyed.source.key_of(&entry.message) {
            Some(key) if keyed.busy.contains_key(&key) => keyed.wait(key, place),
            Some(key) => {
                keyed.busy.insert(key.clone(), entry.seq);
                keyed.free.insert(place, Some(key));
            }
            None => drop(keyed.free.insert(place, None)),
        }
    }

    /// Nothing is ready any more.
    pub(super) fn forget_keyed(&mut self) {
        let Some(keyed) = &mut self.keyed else { return };
        keyed.waiting.clear();
        keyed.waiting_len = 0;
        for (_, key) in std::mem::take(&mut keyed.free) {
            if let Some(key) = key {
                keyed.busy.remove(&key);
            }
        }
    }

    pub(super) fn begin_keyed(&mut self) {
        if let Some(keyed) = &mut self.keyed {
            keyed.looks = LOOKS_MAX;
        }
    }

    /// Whether some messages were not looked at, so as not to hold up others.
    pub(super) fn has_keys_to_look_at(&self) -> bool {
        self.keyed.as_ref().is_some_and(|it| it.looks == 0)
    }

    /// Whether there is nothing to give until a key becomes free.
    pub(super) fn is_keyed_out(&self) -> bool {
        self.keyed.as_ref().is_some_and(|it| !it.awaits)
    }

    /// What was looked at and waits for its key leaves memory, so that there is room for what follows.
    pub(super) fn pass_over_keyed(&mut self, turn: &mut Turn<'_>) {
        let lanes = self.lanes.len();
        let Some(keyed) = &self.keyed else { return };
        if !keyed.starved || keyed.waiting_len >= WAITING_MAX {
            return;
        }
        for order in 0..lanes {
            let (upto, lane) = (keyed.looked[order], &mut self.lanes[lanes - 1 - order]);
            if lane.cold_after(upto).is_some() {
                let kept = |seq| keyed.free.contains_key(&(order, seq));
                let freed = lane.pass(upto, turn.durable, kept);
                *turn.memory = turn.memory.saturating_sub(freed);
                self.passed |= lane.passed() > Seq(0);
            }
        }
    }
}
