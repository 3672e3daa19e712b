//! The readers of a stream: where each is, what it holds, and which of them have something to do.
//!
//! ```text
//!            woken                       no credit of its own
//! Resting ─────────> Awake ──served──┬─> Resting (Full)
//!    ^                               ├─> Resting (Stalled: its connection or channel is full)
//!    └───────────────────────────────┼─> Resting (Tail: everything was read, or its group waits)
//!                                    ├─> Resting (Loading: on its way from the store)
//!                                    └─> Done: it had everything that it asked for
//! ```
//! Whoever has nothing to do costs nothing when messages come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::filter::Filter;
use super::member::Member;
use crate::broker::command::{ChannelId, ConnectionId, ConsumerId, Outcome, Run, Seq};
use crate::broker::message::Message;
use crate::broker::name::{Name, Time};
use crate::broker::selector::Selector;

/// Deliveries are numbered through for each place of a reader, the place in the upper bits.
const NUMBER_BITS: u32 = 48;

/// Readers of one stream at the same time, at most.
pub(super) const READERS_MAX: usize = 16_000;

/// Without a prefetch a reader may hold so many deliveries.
const HELD_MAX: u32 = 1 << 20;

pub(super) type Key = (ConnectionId, ConsumerId);
pub(super) type Place = u16;

/// A reader: a consumer of the stream with a position of its own.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) consumer: ConsumerId,
    pub(super) no_ack: bool,
    /// Unsettled deliveries it may hold, 0 for no limit of its own.
    pub(super) prefetch: u32,
    /// The position to look at next.
    pub(super) next: Seq,
    /// What came before this is passed over.
    pub(super) since: Time,
    /// It is done before this position.
    pub(super) until: Option<Seq>,
    pub(super) filter: Option<Filter>,
    pub(super) selector: Option<Arc<Selector>>,
    /// It wants messages of this key only.
    pub(super) key: Option<Bytes>,
    /// It starts with the newest of them, wherever that is.
    pub(super) newest: bool,
    /// The cursor that remembers how far it came.
    pub(super) cursor: Option<Name>,
    /// It shares the cursor with others.
    pub(super) member: Option<Arc<Member>>,
    /// The block it reads from.
    pub(super) entered: Seq,
    pub(super) state: State,
    /// It was cancelled, and stays until what it holds is settled.
    pub(super) gone: bool,
    /// It stands in the list of those that have read everything.
    at_tail: bool,
    place: Place,
    /// Of the next delivery.
    number: u64,
    held: Held,
    /// The first position that it gave back undone. Its cursor stays there, as it does not come again.
    returned: Option<Seq>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Awake,
    Full,
    Stalled,
    Tail,
    Loading,
    Done,
}

/// Delivered and not settled: positions in the order of delivery, which ascend.
#[derive(Debug, Default)]
struct Held {
    /// The number of the front delivery.
    first: u64,
    /// Zero where it is settled. The front is never zero.
    row: VecDeque<Seq>,
    count: u32,
}

impl Held {
    fn get(&self, number: u64) -> Option<Seq> {
        let at = number.checked_sub(self.first)?;
        self.row.get(at as usize).copied().filter(|seq| *seq != Seq(0))
    }

    /// Numbers and positions.
    fn all(&self) -> impl Iterator<Item = (u64, Seq)> {
        (self.first..).zip(self.row.iter().copied()).filter(|(_, seq)| *seq != Seq(0))
    }

    fn take(&mut self, number: u64) -> Option<Seq> {
        let at = number.checked_sub(self.first)?;
        let seq = self.row.get_mut(at as usize).filter(|seq| **seq != Seq(0))?;
        let taken = std::mem::take(seq);
        self.count -= 1;
        while let Some(Seq(0)) = self.row.front() {
            self.row.pop_front();
            self.first += 1;
        }
        Some(taken)
    }
}

impl Reader {
    pub(super) fn is_of(&self, (connection, channel): (ConnectionId, ChannelId)) -> bool {
        self.connection == connection && self.channel == channel
    }

    pub(super) fn unsettled(&self) -> u32 {
        self.held.count
    }

    /// It goes from value to value of one key: what lies between is not for it.
    pub(super) fn hops(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn has_credit(&self) -> bool {
        let limit = if self.prefetch == 0 { HELD_MAX } else { self.prefetch };
        !self.gone && (self.no_ack || self.held.count < limit)
    }

    pub(super) fn wants(&self, message: &Message) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.wants(message))
            && self.selector.as_ref().is_none_or(|it| it.matches(message.properties()))
    }

    /// Everything before this position is done with.
    pub(super) fn committed(&self) -> Seq {
        let next = self.held.row.front().copied().unwrap_or(self.next);
        self.returned.map_or(next, |returned| next.min(returned))
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Of its next delivery.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A delivery of it is taken back. Returns what the delivery was called by; `None` where it is settled.
    pub(super) fn take_back(&mut self, number: u64) -> Option<Seq> {
        self.held.take(number).map(|_| name_of(self.place, number))
    }

    /// The message at this position is delivered to it. Returns what the delivery is called by.
    pub(super) fn deliver(&mut self, seq: Seq) -> Seq {
        let number = self.number;
        self.number += 1;
        if !self.no_ack {
            if self.held.row.is_empty() {
                self.held.first = number;
            }
            self.held.row.push_back(seq);
            self.held.count += 1;
        }
        name_of(self.place, number)
    }
}

/// A place for a reader.
#[derive(Debug, Default)]
struct Slot {
    /// Deliveries of all readers that were here, so that their numbers never meet.
    delivered: u64,
    reader: Option<Box<Reader>>,
}

#[derive(Debug, Default)]
pub(super) struct Readers {
    slots: Vec<Slot>,
    free: Vec<Place>,
    places: BTreeMap<Key, Place>,
    awake: VecDeque<Place>,
    tail: Vec<Place>,
    /// By the connection that can take no more.
    stalled: BTreeMap<ConnectionId, Vec<Place>>,
    done: Vec<Place>,
    /// By the position that they wait for.
    loading: BTreeSet<(Seq, Place)>,
}

/// What ends with some deliveries.
#[derive(Debug)]
pub(super) enum Ended {
    /// A cursor moves. `late` where its reader was cancelled before: another may have moved it since.
    Cursor { cursor: Name, next: Seq, late: bool },
    /// Deliveries of a group end: their numbers and positions.
    Shared { cursor: Name, place: Place, member: Arc<Member>, deliveries: Vec<(u64, Seq)> },
}

/// What a new reader is like.
#[derive(Debug)]
pub(super) struct NewReader {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) consumer: ConsumerId,
    pub(super) no_ack: bool,
    pub(super) prefetch: u32,
    pub(super) next: Seq,
    pub(super) since: Time,
    pub(super) until: Option<Seq>,
    pub(super) filter: Option<Filter>,
    pub(super) selector: Option<Arc<Selector>>,
    pub(super) key: Option<Bytes>,
    pub(super) newest: bool,
    pub(super) cursor: Option<Name>,
    pub(super) member: Option<Arc<Member>>,
}

impl Readers {
    /// Those that read; not those that only hold something.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= READERS_MAX
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.iter().map(|reader| u64::from(reader.unsettled())).sum()
    }

    pub(super) fn add(&mut self, new: NewReader) -> Place {
        let key = (new.connection, new.consumer);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as Place
        });
        let slot = &mut self.slots[usize::from(place)];
        slot.reader = Some(Box::new(Reader {
            connection: new.connection,
            channel: new.channel,
            consumer: new.consumer,
            no_ack: new.no_ack,
            prefetch: new.prefetch,
            next: new.next,
            since: new.since,
            until: new.until,
            key: new.key,
            newest: new.newest,
            filter: new.filter,
            selector: new.selector,
            cursor: new.cursor,
            member: new.member,
            entered: Seq(0),
            state: State::Awake,
            gone: false,
            at_tail: false,
            place,
            number: slot.delivered,
            held: Held::default(),
            returned: None,
        }));
        self.places.insert(key, place);
        self.awake.push_back(place);
        place
    }

    pub(super) fn get(&self, key: Key) -> Option<&Reader> {
        let place = *self.places.get(&key)?;
        self.slots[usize::from(place)].reader.as_deref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Reader> {
        self.slots.get_mut(usize::from(place))?.reader.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reader> {
        self.slots.iter().filter_map(|slot| slot.reader.as_deref())
    }

    /// A higher limit; it may have something to do.
    pub(super) fn raise(&mut self, key: Key, prefetch: u32) {
        if let Some(&place) = self.places.get(&key)
            && let Some(reader) = self.get_mut(place)
        {
            reader.prefetch = prefetch;
            self.wake(place);
        }
    }

    /// It reads no more. Returns its cursor, and how far it came; of a member, its place.
    pub(super) fn cancel(&mut self, key: Key) -> Option<(Option<Name>, Result<Seq, Place>)> {
        let place = self.places.remove(&key)?;
        let reader = self.get_mut(place)?;
        reader.gone = true;
        let at = if reader.member.is_some() { Err(place) } else { Ok(reader.committed()) };
        let came = (reader.cursor.clone(), at);
        if reader.unsettled() == 0 {
            self.vacate(place);
        }
        Some(came)
    }

    /// They give up what they hold. Returns what groups get back.
    pub(super) fn release(&mut self, of: impl Fn(&Reader) -> bool) -> Vec<Ended> {
        let mut ended = Vec::new();
        for place in 0..self.slots.len() as Place {
            let Some(reader) = self.get_mut(place).filter(|it| of(it)) else { continue };
            let held = std::mem::take(&mut reader.held);
            if let (Some(member), Some(cursor)) = (&reader.member, &reader.cursor) {
                let (member, cursor) = (member.clone(), cursor.clone());
                let deliveries = held.all().collect();
                ended.push(Ended::Shared { cursor, place, member, deliveries });
            }
            if reader.gone {
                self.vacate(place);
            } else {
                self.wake(place);
            }
        }
        ended
    }

    fn vacate(&mut self, place: Place) {
        let slot = &mut self.slots[usize::from(place)];
        if let Some(reader) = slot.reader.take() {
            slot.delivered = reader.number;
            self.free.push(place);
            if let Some(stalled) = self.stalled.get_mut(&reader.connection) {
                stalled.retain(|it| *it != place);
            }
        }
        self.awake.retain(|it| *it != place);
        self.tail.retain(|it| *it != place);
        self.done.retain(|it| *it != place);
        self.loading.retain(|(_, it)| *it != place);
    }

    pub(super) fn holds(&self, seq: Seq, by: (ConnectionId, ChannelId)) -> bool {
        self.held(seq, by).is_some()
    }

    /// A delivery that is held: by whom, its number, and the position.
    pub(super) fn held(
        &self,
        seq: Seq,
        by: (ConnectionId, ChannelId),
    ) -> Option<(&Reader, u64, Seq)> {
        let (place, number) = place_of(seq)?;
        let slot = self.slots.get(usize::from(place))?;
        let reader = slot.reader.as_deref().filter(|it| it.is_of(by))?;
        Some((reader, number, reader.held.get(number)?))
    }

    /// Deliveries end, whatever their fate: a stream keeps its messages. Returns how many were held, and what ends with
    /// them.
    pub(super) fn settle(
        &mut self,
        run: &Run,
        by: (ConnectionId, ChannelId),
        outcome: Outcome,
    ) -> (u32, Option<Ended>) {
        let Some((place, first)) = place_of(run.first) else { return (0, None) };
        let Some(reader) = self.get_mut(place).filter(|it| it.is_of(by)) else { return (0, None) };
        let undone = matches!(outcome, Outcome::Released | Outcome::Modified { .. });
        let mut settled = 0;
        let mut deliveries = Vec::new();
        for number in first..first.saturating_add(run.count.into()) {
            let Some(seq) = reader.held.take(number) else { continue };
            settled += 1;
            if reader.member.is_some() {
                deliveries.push((number, seq));
            } else if undone {
                reader.returned = Some(reader.returned.map_or(seq, |before| before.min(seq)));
            }
        }
        let next = reader.committed();
        let late = reader.gone;
        let ended = reader.cursor.clone().map(|cursor| match reader.member.clone() {
            Some(member) => Ended::Shared { cursor, place, member, deliveries },
            None => Ended::Cursor { cursor, next, late },
        });
        if reader.gone && reader.unsettled() == 0 {
            self.vacate(place);
        } else {
            self.wake(place);
        }
        (settled, ended)
    }

    /// A delivery is taken back from who holds it. Returns whose it was, and what it was called by.
    pub(super) fn take_back(
        &mut self,
        place: Place,
        number: u64,
    ) -> Option<(ConnectionId, ChannelId, Seq)> {
        let reader = self.get_mut(place)?;
        let seq = reader.take_back(number)?;
        let whose = (reader.connection, reader.channel, seq);
        if reader.gone && reader.unsettled() == 0 {
            self.vacate(place);
        } else {
            self.wake(place);
        }
        Some(whose)
    }

    pub(super) fn next_awake(&mut self) -> Option<Place> {
        self.awake.pop_front()
    }

    /// It has nothing to do for now, for the reason that its state says.
    pub(super) fn rest(&mut self, place: Place) {
        let Some(reader) = self.get_mut(place) else { return };
        let (next, connection) = (reader.next, reader.connection);
        match reader.state {
            State::Awake => self.awake.push_back(place),
            State::Full => {}
            State::Done => self.done.push(place),
            State::Stalled => self.stalled.entry(connection).or_default().push(place),
            State::Tail if reader.at_tail => {}
            State::Tail => {
                reader.at_tail = true;
                self.tail.push(place);
            }
            State::Loading => drop(self.loading.insert((next, place))),
        }
    }

    /// One that had everything that it asked for.
    pub(super) fn next_done(&mut self) -> Option<(ConnectionId, ChannelId, ConsumerId)> {
        let place = self.done.pop()?;
        let reader = self.get_mut(place)?;
        Some((reader.connection, reader.channel, reader.consumer))
    }

    /// It has something to do, unless that is not what it waits for.
    fn wake(&mut self, place: Place) {
        if let Some(reader) = self.get_mut(place)
            && reader.state == State::Full
        {
            reader.state = State::Awake;
            self.awake.push_back(place);
        }
    }

    fn wake_all(&mut self, places: Vec<Place>) {
        for place in places {
            if let Some(reader) = self.get_mut(place) {
                reader.state = State::Awake;
                self.awake.push_back(place);
            }
        }
    }

    /// There are new messages.
    pub(super) fn wake_tail(&mut self) {
        for place in std::mem::take(&mut self.tail) {
            if let Some(reader) = self.get_mut(place) {
                reader.at_tail = false;
                if reader.state == State::Tail {
                    reader.state = State::Awake;
                    self.awake.push_back(place);
                }
            }
        }
    }

    /// There is something for members of a group that had everything.
    pub(super) fn wake_members(&mut self, places: &[Place]) {
        for place in places {
            if let Some(reader) = self.get_mut(*place)
                && reader.state == State::Tail
            {
                reader.state = State::Awake;
                self.awake.push_back(*place);
            }
        }
    }

    /// Whether a reader moves this cursor.
    pub(super) fn uses(&self, cursor: &Name) -> bool {
        self.places.values().any(|place| {
            let slot = &self.slots[usize::from(*place)];
            slot.reader.as_ref().is_some_and(|it| it.cursor.as_ref() == Some(cursor))
        })
    }

    /// Connections may be able to take more.
    pub(super) fn wake_stalled(&mut self) {
        for places in std::mem::take(&mut self.stalled).into_values() {
            self.wake_all(places);
        }
    }

    /// A connection can take more: those of others need not be asked.
    pub(super) fn wake_stalled_of(&mut self, connection: ConnectionId) {
        if let Some(places) = self.stalled.remove(&connection) {
            self.wake_all(places);
        }
    }

    /// These positions are here, or will never be.
    pub(super) fn wake_loading(&mut self, first: Seq, end: Seq) {
        let range = (first, 0)..(end, 0);
        let places: Vec<(Seq, Place)> = self.loading.range(range).copied().collect();
        places.iter().for_each(|it| _ = self.loading.remove(it));
        let places = places.into_iter().map(|(_, place)| place).collect();
        self.wake_all(places);
    }

    /// The next position that somebody waits for, from this one on and then from the start, and whether they want
    /// nothing behind it.
    pub(super) fn next_loading(&self, from: Seq) -> Option<(Seq, bool)> {
        let after = self.loading.range((from, 0)..).next();
        let (seq, place) = after.or_else(|| self.loading.first())?;
        let reader = self.slots[usize::from(*place)].reader.as_deref();
        Some((*seq, reader.is_some_and(Reader::hops)))
    }
}

/// What a delivery is called by.
fn name_of(place: Place, number: u64) -> Seq {
    Seq((u64::from(place) + 1) << NUMBER_BITS | number)
}

/// Takes the number of a delivery apart.
fn place_of(seq: Seq) -> Option<(Place, u64)> {
    let place = (seq.0 >> NUMBER_BITS).checked_sub(1)?;
    Some((Place::try_from(place).ok()?, seq.0 & ((1 << NUMBER_BITS) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(connection: u64, consumer: u32) -> NewReader {
        NewReader {
            connection: ConnectionId(connection),
            channel: ChannelId(1),
            consumer: ConsumerId(consumer),
            no_ack: false,
            prefetch: 0,
            next: Seq(1),
            since: Time::ZERO,
            until: None,
            filter: None,
            selector: None,
            key: None,
            newest: false,
            cursor: None,
            member: None,
        }
    }

    #[test]
    fn a_connection_that_took_something_wakes_its_own_readers_only() {
        let mut readers = Readers::default();
        let places = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(at, it)| readers.add(reader(at, it)));
        while let Some(place) = readers.next_awake() {
            readers.get_mut(place).unwrap().state = State::Stalled;
            readers.rest(place);
        }
        // One that goes is not woken.
        readers.vacate(places[3]);
        readers.wake_stalled_of(ConnectionId(2));
        assert_eq!(readers.next_awake(), Some(places[2]));
        assert_eq!(readers.next_awake(), None);
        readers.wake_stalled();
        let rest = [readers.next_awake(), readers.next_awake(), readers.next_awake()];
        assert_eq!(rest, [Some(places[0]), Some(places[1]), None]);
    }
}
