//! A step through a mailbox's messages for who only looks: bounded, in memory and on disk alike.

use std::sync::Arc;

use super::browse::{Bookmark, Browse, Browsed, Found, HolderView, State, States};
use super::command::{Fetched, Seq};
use super::delay::Waiting;
use super::event::{Effect, Event, Fetch, Reply, Rest};
use super::keep::{Keeping, PutBack, Rewind, Span};
use super::lane::{Entry, Place};
use super::lease::Lease;
use super::mailbox::{Asker, Mailbox};
use super::message::Message;
use super::name::Time;
use super::refusal::Refusal;
use super::selector::Selector;
use super::turn::Turn;

/// In `Fetch::lane`: this and above for those who only look, each with a number of its own.
const LOOKS: u16 = 1024;
/// Looks that wait for the store at a time in one mailbox.
const LOOKS_MAX: usize = 64;
/// Messages that one step holds against its selector, and what is read from the store for it.
const SEARCHED_MAX: usize = 1024;
const SEARCHED_BYTES_MAX: u64 = 4 << 20;
/// What a message that waits in the store for its time is taken for, as nobody knows its size.
const DELAYED_BYTES: u64 = 16 << 10;

/// Somebody who waits for messages from the store.
#[derive(Debug)]
pub(super) struct Look {
    asker: Asker,
    lane: u16,
    step: Step,
    /// These go back to the queue that keeps them.
    back: Option<Span>,
}

/// Looks of one mailbox.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: Vec<Look>,
    last: u16,
}

impl Looks {
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Asker> {
        self.waiting.drain(..).map(|look| look.asker)
    }
}

/// What one step saw, in order.
#[derive(Debug)]
struct Step {
    selector: Option<Arc<Selector>>,
    slots: Vec<Slot>,
    count: usize,
    bytes_max: u64,
    /// Looked at, found or not.
    seen: usize,
    /// Of what matches or may match.
    bytes: u64,
    /// Behind which there is more.
    next: Option<Bookmark>,
    /// Where to go on when this mailbox has no more.
    then: Option<Bookmark>,
}

#[derive(Debug)]
struct Slot {
    at: Bookmark,
    /// What memory knows of a message that only the store holds: failed attempts, and whether it was delivered.
    known: Option<(u32, bool)>,
    found: Option<Found>,
}

impl Step {
    fn new(browse: &Browse) -> Self {
        Self {
            selector: browse.selector.clone(),
            slots: Vec::new(),
            count: browse.count,
            bytes_max: browse.bytes_max,
            seen: 0,
            bytes: 0,
            next: browse.after,
            then: None,
        }
    }

    fn is_full(&self) -> bool {
        let bytes_max = match self.selector {
            Some(_) => SEARCHED_BYTES_MAX,
            None => self.bytes_max,
        };
        let hot = || self.slots.iter().filter(|slot| slot.found.is_some()).count();
        let seen_max = if self.selector.is_some() { SEARCHED_MAX } else { self.count };
        self.seen >= seen_max || (self.seen > 0 && self.bytes >= bytes_max) || hot() >= self.count
    }

    fn wants(&self, message: &Message) -> bool {
        self.selector.as_ref().is_none_or(|it| it.matches(message.properties()))
    }

    /// Takes one more into the step. False where it is full already.
    fn add(&mut self, at: Bookmark, spot: Spot) -> bool {
        if self.is_full() {
            return false;
        }
        self.seen += 1;
        self.next = Some(at);
        match spot {
            Spot::Here(found) if !self.wants(&found.message) => {}
            Spot::Here(found) => {
                self.bytes += found.message.body().len() as u64;
                self.slots.push(Slot { at, known: None, found: Some(*found) });
            }
            Spot::Stored { bytes, known } => {
                self.bytes += bytes;
                self.slots.push(Slot { at, known, found: None });
            }
        }
        true
    }

    /// What the store has to give, ascending.
    fn ranges(&self) -> Vec<(Seq, u32)> {
        let stored = self.slots.iter().filter(|slot| slot.found.is_none());
        let mut seqs: Vec<Seq> = stored.map(|slot| slot.at.seq).collect();
        seqs.sort_unstable();
        let mut ranges: Vec<(Seq, u32)> = Vec::new();
        for seq in seqs {
            match ranges.last_mut() {
                Some((first, count)) if first.0 + u64::from(*count) == seq.0 => *count += 1,
                _ => ranges.push((seq, 1)),
            }
        }
        ranges
    }

    /// As much of it as was asked for.
    fn end(self, ready: u64) -> Browsed {
        let mut browsed = Browsed { found: Vec::new(), next: self.next.or(self.then), ready };
        let mut bytes = 0;
        for found in self.slots.into_iter().filter_map(|slot| slot.found) {
            if browsed.found.len() >= self.count || (bytes >= self.bytes_max && bytes > 0) {
                browsed.next = browsed.found.last().map(|found: &Found| found.at);
                break;
            }
            bytes += found.message.body().len() as u64;
            browsed.found.push(found);
        }
        browsed
    }
}

/// A message that a step came by.
enum Spot {
    Here(Box<Found>),
    Stored { bytes: u64, known: Option<(u32, bool)> },
}

impl Mailbox {
    pub(super) fn look(
        &mut self,
        asker: Asker,
        browse: &Browse,
        then: Option<Bookmark>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let step = Step { then, ..self.step(browse) };
        self.begin(asker, step, None, turn)
    }

    /// Puts back what was settled in the span and matches.
    pub(super) fn look_back(
        &mut self,
        asker: Asker,
        rewind: &Rewind,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let end = rewind.end.min(self.next);
        let first = self.stream.as_ref().map_or(end, |it| it.seek(rewind.from)).max(rewind.first);
        let mut step = Step::new(&Browse {
            mailbox: rewind.mailbox.clone(),
            states: States::only(State::Settled),
            selector: rewind.selector.clone(),
            after: None,
            count: SEARCHED_MAX,
            bytes_max: SEARCHED_BYTES_MAX,
        });
        let places = match &self.stream {
            Some(stream) => stream.places_after(Seq(first.0.max(1) - 1), SEARCHED_MAX + 1),
            None => Vec::new(),
        };
        let places = places.into_iter().take_while(|place| place.seq() < end);
        if self.see_places(State::Settled, 0, places, &mut step) {
            step.next = None;
        }
        let back = Span { from: rewind.from, to: rewind.to, end };
        self.begin(asker, step, Some(back), turn)
    }

    fn begin(
        &mut self,
        asker: Asker,
        step: Step,
        back: Option<Span>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        if self.looks.waiting.len() >= LOOKS_MAX {
            return Err(Refusal::Limit("too many look at this queue at the same time".into()));
        }
        let lane = LOOKS + self.looks.last;
        let ranges = step.ranges();
        let look = Look { asker, lane, step, back };
        if ranges.is_empty() {
            self.tell(look, turn);
        } else {
            self.looks.last = (self.looks.last + 1) % (u16::MAX - LOOKS);
            self.looks.waiting.push(look);
            turn.out.push(Effect::Fetch(Fetch { mailbox: self.id, lane, ranges }));
        }
        Ok(())
    }

    fn step(&self, browse: &Browse) -> Step {
        let mut step = Step::new(browse);
        let first = browse.after.map(|after| after.state);
        for state in State::ALL {
            let elsewhere = (state == State::Settled) != self.keeps_for.is_some();
            if elsewhere || !browse.states.has(state) || first.is_some_and(|first| state < first) {
                continue;
            }
            let after = browse.after.filter(|after| after.state == state);
            let whole = match state {
                State::Ready | State::Settled => self.see_ready(state, after, &mut step),
                State::Unsettled => self.see_unsettled(after, &mut step),
                State::Delayed => self.see_delayed(after, &mut step),
                State::Dead => self.see_dead(after, &mut step),
            };
            if !whole {
                return step;
            }
        }
        step.next = None;
        step
    }

    /// Each of these adds what lies behind a place; false where there was no room for all.
    fn see_ready(&self, state: State, after: Option<Bookmark>, step: &mut Step) -> bool {
        let most = SEARCHED_MAX.max(step.count) + 1;
        if let Some(stream) = &self.stream {
            let places = stream.places_after(after.map_or(Seq(0), |it| it.seq), most);
            return self.see_places(state, 0, places.into_iter(), step);
        }
        let top = self.lanes.len() as u64 - 1;
        for order in after.map_or(0, |it| it.order)..=top {
            let behind = after.filter(|it| it.order == order).map_or(Seq(0), |it| it.seq);
            let lane = &self.lanes[(top - order) as usize];
            let places = lane.places_after(behind, most - step.seen).into_iter();
            if !self.see_places(state, order, places, step) {
                return false;
            }
        }
        true
    }

    fn see_places<'a>(
        &self,
        state: State,
        order: u64,
        mut places: impl Iterator<Item = Place<'a>>,
        step: &mut Step,
    ) -> bool {
        places.all(|place| {
            let at = Bookmark { state, order, seq: place.seq() };
            let spot = match place {
                Place::Hot(entry) => Spot::Here(Box::new(self.found(at, entry))),
                Place::Cold { bytes, .. } => Spot::Stored { bytes, known: None },
            };
            step.add(at, spot)
        })
    }

    fn see_unsettled(&self, after: Option<Bookmark>, step: &mut Step) -> bool {
        let state = State::Unsettled;
        self.leases.after(after.map_or(Seq(0), |it| it.seq)).all(|lease| {
            let at = Bookmark { state, order: 0, seq: lease.entry.seq };
            let holder = Some(self.holder(lease));
            let found = Found { holder, ..self.found(at, &lease.entry) };
            step.add(at, Spot::Here(Box::new(found)))
        })
    }

    fn holder(&self, lease: &Lease) -> HolderView {
        let Lease { connection, channel, consumer, since, .. } = *lease;
        let consumer = consumer.and_then(|id| self.consumers.get(connection, id));
        let tag = consumer.map(|consumer| consumer.tag.clone());
        HolderView { connection, channel, tag, since }
    }

    fn see_delayed(&self, after: Option<Bookmark>, step: &mut Step) -> bool {
        let state = State::Delayed;
        let behind = after.map(|it| (Time(it.order), it.seq)).unwrap_or_default();
        self.delayed.after(behind).all(|((due, seq), waiting)| {
            let at = Bookmark { state, order: due.0, seq };
            let spot = match waiting {
                Waiting::Hot(entry) => Spot::Here(Box::new(self.found(at, entry))),
                Waiting::Cold { seen, attempts } => {
                    Spot::Stored { bytes: DELAYED_BYTES, known: Some((*attempts, *seen)) }
                }
            };
            step.add(at, spot)
        })
    }

    fn see_dead(&self, after: Option<Bookmark>, step: &mut Step) -> bool {
        let state = State::Dead;
        self.unburied.after(after.map_or(Seq(0), |it| it.seq)).all(|entry| {
            let at = Bookmark { state, order: 0, seq: entry.seq };
            step.add(at, Spot::Here(Box::new(self.found(at, entry))))
        })
    }

    fn found(&self, at: Bookmark, entry: &Entry) -> Found {
        self.found_stored(at, &entry.message, entry.rest)
    }

    fn found_stored(&self, at: Bookmark, message: &Arc<Message>, mut rest: Rest) -> Found {
        let log = self.stream.is_some();
        rest.redelivered |= !log && self.mark.was_seen(at.seq);
        if at.state == State::Delayed {
            rest.deliver_at = Time(at.order);
        }
        Found {
            at,
            message: message.clone(),
            rest,
            attempts: self.counts_attempts().then_some(rest.attempts),
            offset: (at.state == State::Ready && log).then(|| at.seq.0.saturating_sub(1)),
            holder: None,
        }
    }

    /// Whether the store's answer is for somebody who only looks.
    pub(super) fn is_look(fetched: &Fetched) -> bool {
        fetched.lane >= LOOKS
    }

    /// The store's answer to a look. What is damaged or gone is left out; whoever takes it next finds out.
    pub(super) fn looked(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        let at = self.looks.waiting.iter().position(|look| look.lane == fetched.lane);
        let Some(mut look) = at.map(|at| self.looks.waiting.swap_remove(at)) else { return };
        let messages = fetched.messages.into_iter();
        let mut here: Vec<_> = messages
            .filter_map(|it| Some((it.seq, it.rest, it.message.ok()?)))
            .filter(|(.., message)| look.step.wants(message))
            .collect();
        here.sort_unstable_by_key(|(seq, ..)| *seq);
        for slot in look.step.slots.iter_mut().filter(|slot| slot.found.is_none()) {
            let Ok(place) = here.binary_search_by_key(&slot.at.seq, |(seq, ..)| *seq) else {
                continue;
            };
            let (_, mut rest, ref message) = here[place];
            if let Some((attempts, seen)) = slot.known {
                rest.attempts = attempts;
                rest.redelivered |= seen;
            }
            slot.found = Some(self.found_stored(slot.at, message, rest));
        }
        self.tell(look, turn);
    }

    fn tell(&self, look: Look, turn: &mut Turn<'_>) {
        let Asker { connection, channel, ticket, .. } = look.asker;
        let browsed = look.step.end(self.ready);
        if let Some(Span { from, to, end }) = look.back {
            let late = browsed.found.iter().any(|it| it.rest.since >= to);
            let next = browsed.next.filter(|_| !late);
            let within = browsed.found.into_iter().filter(|it| (from..to).contains(&it.rest.since));
            return turn.keepings.push(Keeping::PutBack(PutBack {
                keeper: self.id,
                asker: look.asker,
                found: within.map(|it| (it.at.seq, it.message)).collect(),
                end,
                rest: next.map(|next| (Seq(next.seq.0 + 1), end)),
            }));
        }
        let result = Ok(Reply::Browsed(browsed));
        let event = Event::Reply { channel, ticket, result };
        turn.out.push(Effect::NotifyDurable(connection, event));
    }
}
