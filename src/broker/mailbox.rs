//! A mailbox: messages at rest in order, and the consumers that take them.
//!
//! Knows nothing of exchanges, protocols or disks. Where it must tell somebody, it puts an effect into the turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::command::{ChannelId, ConnectionId, MailboxId, Outcome, Seq, Ticket};
use super::consumer::Consumers;
use super::dead_letter::{Burial, Reason};
use super::dedup::Publications;
use super::definition::MailboxDefinition;
use super::delay::Delayed;
use super::event::{Append, Effect, Rest, Write};
use super::keyed::Keyed;
use super::lane::{Entry, Lane};
use super::lease::{Lease, Leases};
use super::limits::{Limits, MailboxKind};
use super::look::Looks;
use super::mark::Mark;
use super::message::Message;
use super::name::{Name, Time};
use super::paging::Recalls;
use super::peer::{Onward, Pledged, Recent};
use super::repeat::{Repeat, repeats};
use super::routing::mix;
use super::stream::Stream;
use super::turn::Turn;
use super::unburied::Unburied;

#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) id: MailboxId,
    pub(super) vhost: Name,
    pub(super) name: Name,
    pub(super) definition: MailboxDefinition,
    pub(super) owner: Option<ConnectionId>,
    /// Its own arguments' limits, before policies.
    pub(super) declared: Limits,
    pub(super) limits: Limits,
    pub(super) policy: Option<Name>,
    pub(super) operator_policy: Option<Name>,
    /// Holds what this exchange delays; due messages are routed by it. Out of reach for clients and policies.
    pub(super) feeds: Option<Name>,
    /// Holds what waits for this host. Clients may only look.
    pub(super) outbox: Option<Name>,
    /// What is in it goes there: of an outbox whose host is gone for good, of a mailbox that has another home now.
    pub(super) onward: Option<Onward>,
    /// Confirms that wait until that host has the message.
    pub(super) pledges: BTreeMap<Seq, Pledged>,
    /// While it is such a mailbox: others hear of its new home until then, and it passes on what comes.
    pub(super) lingers_until: Time,
    /// It moved here, and its former home still sends on copies.
    pub(super) recent: Option<Box<Recent>>,
    /// Holds what this queue settled and keeps. Out of reach for clients and policies.
    pub(super) keeps_for: Option<Name>,
    pub(super) consumers: Consumers,
    /// Their message is on its way from the store.
    pub(super) askers: VecDeque<Asker>,
    pub(super) looks: Looks,
    /// Somebody declared, consumed or asked last at this time.
    pub(super) used: Time,
    pub(super) lanes: Vec<Lane>,
    /// Delivered and not yet settled. An entry is either here, in a lane, delayed or recalled.
    pub(super) leases: Leases,
    /// When leases may have lasted too long. Not later than the first that has.
    pub(super) leases_due: Option<Time>,
    pub(super) delayed: Delayed,
    /// Ready messages with an expiry of their own, and their lanes.
    pub(super) expiries: BTreeSet<(Time, Seq, u8)>,
    pub(super) recalls: Recalls,
    pub(super) unburied: Unburied,
    /// Of each key one message is out at a time.
    pub(super) keyed: Option<Box<Keyed>>,
    pub(super) publications: Publications,
    pub(super) ready: u64,
    pub(super) ready_bytes: u64,
    pub(super) counts: Counts,
    /// No consumer could take anything when last asked.
    pub(super) stuck: bool,
    /// What came and was not dispatched yet.
    pub(super) gathered: Gathered,
    /// Consumers with selectors have not looked at everything yet, so as not to hold up others.
    pub(super) unfinished: bool,
    /// Some lane passed over messages that nobody wants.
    pub(super) passed: bool,
    /// Up to here nothing is shown before it is durable: it came from another mailbox, which has it again after a crash.
    pub(super) durable_first: Seq,
    /// The deadline it has in the broker's timers.
    pub(super) timer: Option<Time>,
    pub(super) next: Seq,
    pub(super) mark: Mark,
    /// The store holds messages of it that a restart will not find.
    pub(super) spilled: bool,
    /// Messages stay and are read by position: none of the queue's lanes, leases and marks.
    pub(super) stream: Option<Box<Stream>>,
}

/// Somebody who asked for one message and waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) ticket: Ticket,
    pub(super) no_ack: bool,
}

/// What happened in a mailbox since the start.
///
/// Each message ends in one way: published + recovered = settled + expired + dropped + dead-lettered + purged + damaged
/// + what is ready, unsettled or delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub published: u64,
    /// Found in the store at the start.
    pub recovered: u64,
    /// Not taken by the overflow rule; not published.
    pub refused: u64,
    /// Not taken because they were here before; not published.
    pub duplicates: u64,
    pub delivered: u64,
    pub redelivered: u64,
    /// Among those delivered: settled when they were handed over.
    pub delivered_settled: u64,
    /// Among those delivered: asked for one by one, to be settled.
    pub got: u64,
    /// Among those delivered: asked for one by one, and settled at once.
    pub got_settled: u64,
    /// Asked for while there was none.
    pub got_nothing: u64,
    /// Accepted by who held them.
    pub acknowledged: u64,
    /// Accepted, or rejected where nobody wants dead letters.
    pub settled: u64,
    /// Too old, where nobody wants dead letters.
    pub expired: u64,
    /// Beyond the length, where nobody wants dead letters.
    pub dropped: u64,
    /// Went to the dead-letter exchange, for any reason.
    pub dead_lettered: u64,
    pub purged: u64,
    pub damaged: u64,
}

impl Mailbox {
    pub(super) fn new(definition: MailboxDefinition, declared: Limits, now: Time) -> Self {
        let lanes = declared.priority_max.map_or(1, |most| usize::from(most) + 1);
        let source = declared.key_source.clone();
        let keyed = source.map(|it| Box::new(Keyed::new(it, lanes)));
        Self {
            id: definition.id,
            vhost: definition.vhost.clone(),
            name: definition.name.clone(),
            stream: declared.kind.is_log().then(|| Box::new(Stream::new(&declared))),
            definition,
            owner: None,
            limits: declared.clone(),
            declared,
            policy: None,
            operator_policy: None,
            feeds: None,
            outbox: None,
            onward: None,
            pledges: BTreeMap::new(),
            lingers_until: Time::ZERO,
            recent: None,
            keeps_for: None,
            consumers: Consumers::default(),
            askers: VecDeque::new(),
            looks: Looks::default(),
            used: now,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            leases: Leases::default(),
            leases_due: None,
            delayed: Delayed::default(),
            expiries: BTreeSet::new(),
            recalls: Recalls::default(),
            unburied: Unburied::default(),
            keyed,
            publications: Publications::default(),
            ready: 0,
            ready_bytes: 0,
            counts: Counts::default(),
            stuck: false,
            gathered: Gathered::Nothing,
            durable_first: Seq(0),
            unfinished: false,
            passed: false,
            timer: None,
            next: Seq(1),
            mark: Mark::default(),
            spilled: false,
        }
    }

    /// Outlives the broker. What belongs to a connection does not.
    pub(super) fn durable(&self) -> bool {
        self.definition.durable && !self.definition.exclusive
    }

    /// Only the broker itself puts messages here and takes them.
    pub(super) fn is_hidden(&self) -> bool {
        self.feeds.is_some() || self.outbox.is_some() || self.keeps_for.is_some()
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.leases.len() as u64 + self.stream.as_ref().map_or(0, |it| it.unsettled())
    }

    pub(super) fn lane_of(&self, priority: u8) -> usize {
        usize::from(priority).min(self.lanes.len() - 1)
    }

    /// Whether failed attempts are kept and shown.
    pub(super) fn counts_attempts(&self) -> bool {
        self.limits.kind == MailboxKind::Quorum || self.limits.delivery_limit.is_some()
    }

    /// Whether a message that is published now would go to a consumer at once.
    pub(super) fn hands_on(&self) -> bool {
        match self.gathered {
            Gathered::Nothing => {
                self.ready == 0
                    && !self.stuck
                    && !self.consumers.is_empty()
                    && self.stream.is_none()
            }
            Gathered::ToHandOn => true,
            Gathered::ToKeep => false,
        }
    }

    /// A message comes to rest. It is delivered by the next `dispatch`.
    pub(super) fn append(&mut self, message: Arc<Message>, deliver_at: Time, turn: &mut Turn<'_>) {
        if self.stream.is_some() {
            self.append_to_log(message, turn);
        } else if self.outbox.is_some() {
            // It waits where it arrives: in here order is all.
            self.come_to_rest(super::peer::pack(&message, &[], 0), Time::ZERO, turn);
        } else {
            self.come_to_rest(message, deliver_at, turn);
        }
    }

    pub(super) fn come_to_rest(
        &mut self,
        message: Arc<Message>,
        deliver_at: Time,
        turn: &mut Turn<'_>,
    ) {
        let rest = Rest {
            since: turn.now,
            expires: message.expiration_ms().map_or(Time::ZERO, |ms| turn.now.plus_ms(ms)),
            deliver_at,
            lane: self.lane_of(message.priority()) as u8,
            attempts: 0,
            redelivered: message.again,
        };
        self.settle_down(message, rest, turn);
    }

    /// With what is remembered of it already.
    #[inline]
    pub(super) fn settle_down(&mut self, message: Arc<Message>, rest: Rest, turn: &mut Turn<'_>) {
        let seq = self.next;
        self.next.0 += 1;
        self.counts.published += 1;
        let stored =
            self.durable() && (message.persistent() || self.limits.kind != MailboxKind::Classic);
        self.remember_publication(&message, seq, stored, turn);
        let entry = Entry { seq, message, rest, epoch: turn.epoch, stored, acquired: 0 };
        if stored {
            turn.write(Write::Append(entry.append(self.id, false)));
        }
        *turn.memory += entry.message.footprint();
        if rest.deliver_at > turn.now {
            self.hide(entry, turn);
            return;
        }
        if rest.expires > Time::ZERO {
            self.expiries.insert((rest.expires, seq, rest.lane));
        }
        self.ready += 1;
        self.ready_bytes += entry.body_size();
        let lane = usize::from(rest.lane);
        self.offer(&entry, lane);
        self.lanes[lane].append(entry);
    }

    /// The next ready entry, if it is in memory.
    pub(super) fn first(&self) -> Option<&Entry> {
        let lane = self.lanes.iter().rfind(|lane| !lane.is_empty())?;
        lane.front()
    }

    /// Takes the next ready entry that may be delivered now.
    pub(super) fn take(&mut self, turn: &mut Turn<'_>) -> Option<Entry> {
        let lane = self.lanes.iter().rposition(|lane| !lane.is_empty())?;
        if self.durable() {
            let front = self.lanes[lane].front()?;
            let (seq, epoch) = (front.seq, front.epoch);
            if front.stored && !self.may_show(seq, epoch, turn) {
                turn.awaiting.insert(self.id);
                return None;
            }
        }
        let entry = self.lanes[lane].take()?;
        Some(self.taken(entry, turn))
    }

    /// An entry left its lane to be delivered.
    pub(super) fn taken(&mut self, mut entry: Entry, turn: &mut Turn<'_>) -> Entry {
        self.forget_ready(&entry, turn);
        let seen = self.mark.was_seen(entry.seq);
        #[cfg(feature = "planted")]
        let seen = seen && turn.settings.plant != Some(super::Plant::LostRedelivered);
        entry.rest.redelivered |= seen;
        self.mark.delivered(entry.seq);
        entry
    }

    /// Whether nobody may see a message that is in memory before the disk has more.
    pub(super) fn awaits_disk(&mut self, lane: usize, seq: Seq, turn: &mut Turn<'_>) -> bool {
        let stored = self.lanes[lane].get(seq).filter(|entry| entry.stored);
        let Some(epoch) = stored.map(|entry| entry.epoch).filter(|_| self.durable()) else {
            return false;
        };
        let waits = !self.may_show(seq, epoch, turn);
        if waits {
            turn.awaiting.insert(self.id);
        }
        waits
    }

    pub(super) fn may_show(&mut self, seq: Seq, epoch: super::Epoch, turn: &mut Turn<'_>) -> bool {
        let (may, mark) = self.mark.may_show(seq, epoch, turn.epoch, turn.durable);
        if let Some(upto) = mark {
            turn.write(Write::Mark { mailbox: self.id, upto });
        }
        may && (seq > self.durable_first || epoch <= turn.durable)
    }

    /// Counters after an entry left a lane.
    pub(super) fn forget_ready(&mut self, entry: &Entry, turn: &mut Turn<'_>) {
        self.ready -= 1;
        self.ready_bytes -= entry.body_size();
        *turn.memory -= entry.message.footprint();
        if entry.rest.expires > Time::ZERO {
            self.expiries.remove(&(entry.rest.expires, entry.seq, entry.rest.lane));
        }
    }

    /// At an orderly stop the mark is made exact.
    pub(super) fn settle_mark(&mut self, out: &mut Vec<Effect>) {
        if self.durable()
            && let Some(upto) = self.mark.settle()
        {
            out.push(Effect::Write(Write::Mark { mailbox: self.id, upto }));
        }
    }

    pub(super) fn holds(&self, seq: Seq, by: ConnectionId, channel: ChannelId) -> bool {
        match &self.stream {
            Some(stream) => stream.holds(seq, (by, channel)),
            None => self.leases.get(seq).is_some_and(|lease| lease.is_of((by, channel))),
        }
    }

    /// Ends a lease. `None` if the channel has no such lease; otherwise whether a consumer held it.
    pub(super) fn settle(
        &mut self,
        seq: Seq,
        by: (ConnectionId, ChannelId),
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) -> Option<bool> {
        let Lease { mut entry, consumer, .. } = self.end_lease(seq, by, turn)?;
        let waits = match outcome {
            Outcome::Accepted => {
                self.counts.settled += 1;
                self.counts.acknowledged += 1;
                self.remove_stored(&entry, turn);
                self.redeem(seq, true, turn);
                self.keep(&entry.message, turn);
                false
            }
            Outcome::Rejected => {
                self.discard(entry, Reason::Rejected, turn);
                false
            }
            Outcome::Released => self.put_back(entry, false, None, turn),
            Outcome::Modified { delay_ms } => {
                entry.rest.attempts = entry.rest.attempts.saturating_add(1);
                let delay_ms = delay_ms.or_else(|| {
                    let seed = mix(self.id.0) ^ entry.seq.0;
                    Some(self.limits.retry.as_ref()?.delay_ms(entry.rest.attempts, seed))
                });
                self.put_back(entry, true, delay_ms.filter(|ms| *ms > 0), turn)
            }
        };
        if !waits {
            self.release_key(seq);
        }
        Some(consumer.is_some())
    }

    /// Nobody holds what is returned.
    #[inline]
    pub(super) fn end_lease(
        &mut self,
        seq: Seq,
        by: (ConnectionId, ChannelId),
        turn: &mut Turn<'_>,
    ) -> Option<Lease> {
        let lease = self.leases.remove(seq, by)?;
        *turn.memory -= lease.size();
        if let Some(party) = turn.connections.get_mut(&by.0) {
            party.leased_bytes = party.leased_bytes.saturating_sub(lease.size());
        }
        if let Some(consumer) = lease.consumer
            && let Some(consumer) = self.consumers.get_mut(by.0, consumer)
        {
            consumer.unsettled = consumer.unsettled.saturating_sub(1);
        }
        self.stuck = false;
        Some(lease)
    }

    /// Whether it waits for its time.
    fn put_back(
        &mut self,
        mut entry: Entry,
        failed: bool,
        delay_ms: Option<u64>,
        turn: &mut Turn<'_>,
    ) -> bool {
        entry.rest.redelivered = true;
        if let Some(limit) = self.limits.delivery_limit
            && entry.rest.attempts > limit
        {
            self.discard(entry, Reason::DeliveryLimit, turn);
            return false;
        }
        // A message that waits and says that it repeats begins to: one that came at once comes again at once.
        let delay_ms = delay_ms.filter(|_| !repeats(&entry.message));
        let deliver_at = delay_ms.map_or(Time::ZERO, |ms| turn.now.plus_ms(ms));
        let counted = failed && self.counts_attempts();
        if entry.stored && (counted || delay_ms.is_some()) {
            turn.write(Write::Attempts {
                mailbox: self.id,
                seq: entry.seq,
                attempts: entry.rest.attempts,
                deliver_at,
            });
            // Its place in the store is what this batch makes of it.
            entry.epoch = turn.epoch;
        }
        *turn.memory += entry.message.footprint();
        if deliver_at > turn.now {
            entry.rest.deliver_at = deliver_at;
            self.hide(entry, turn);
            return true;
        }
        #[cfg(feature = "planted")]
        if turn.settings.plant == Some(super::Plant::ReorderOnRequeue) {
            self.ready += 1;
            self.ready_bytes += entry.body_size();
            self.lanes[0].append(entry);
            return false;
        }
        self.make_ready(entry);
        false
    }

    /// Nobody sees it until it is due.
    pub(super) fn hide(&mut self, entry: Entry, turn: &mut Turn<'_>) {
        let (hot, bytes) = (turn.settings.hot_messages, turn.settings.hot_bytes as u64);
        self.delayed.add(entry, hot, bytes);
    }

    /// To its place among the ready, again or for the first time.
    pub(super) fn make_ready(&mut self, mut entry: Entry) {
        entry.rest.deliver_at = Time::ZERO;
        self.ready += 1;
        self.ready_bytes += entry.body_size();
        if entry.rest.expires > Time::ZERO {
            self.expiries.insert((entry.rest.expires, entry.seq, entry.rest.lane));
        }
        let lane = self.lane_of(entry.rest.lane);
        self.offer(&entry, lane);
        self.lanes[lane].put_back(entry);
        self.stuck = false;
    }

    /// A hidden message may be seen now, or goes to the exchange that hid it.
    pub(super) fn come_due(&mut self, entry: Entry, turn: &mut Turn<'_>) {
        // Only what waits since it was published says so: see `put_back`.
        if let Ok(Some(repeat)) = Repeat::of(entry.message.properties()) {
            return self.repeat(entry, &repeat, turn);
        }
        if let Some(exchange) = self.feeds.clone() {
            self.remove_stored(&entry, turn);
            self.counts.settled += 1;
            turn.burials.push(Burial::due(self.vhost.clone(), exchange, &entry));
        } else {
            *turn.memory += entry.message.footprint();
            let seq = entry.seq;
            self.make_ready(entry);
            // It held its key while it waited to be tried again.
            self.release_key(seq);
        }
    }

    pub(super) fn remove_stored(&self, entry: &Entry, turn: &mut Turn<'_>) {
        if entry.stored {
            turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
        }
    }

    /// The message goes for good; where the mailbox has a dead-letter exchange, it goes there.
    pub(super) fn discard(&mut self, entry: Entry, reason: Reason, turn: &mut Turn<'_>) {
        self.redeem(entry.seq, false, turn);
        if self.limits.keeps_dead() {
            return self.keep_dead(entry, reason, turn);
        }
        self.remove_stored(&entry, turn);
        if self.limits.dead_letter_exchange.is_some() {
            self.counts.dead_lettered += 1;
            turn.bury(self, &entry.message, reason, None);
            return;
        }
        match reason {
            Reason::Expired => self.counts.expired += 1,
            Reason::MaxLength => self.counts.dropped += 1,
            Reason::Rejected | Reason::DeliveryLimit | Reason::Refused => self.counts.settled += 1,
        }
    }

    /// Removes everything ready; what consumers hold stays with them. Returns how many went.
    pub(super) fn purge(&mut self, turn: &mut Turn<'_>) -> u64 {
        let gone = self.ready;
        for lane in &mut self.lanes {
            let (entries, ranges) = lane.drain();
            for entry in &entries {
                *turn.memory -= entry.message.footprint();
                if entry.stored {
                    turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
                }
            }
            for range in &ranges {
                let (first, count) = (range.first, range.count);
                turn.write(Write::Remove { mailbox: self.id, first, count });
            }
        }
        self.breach_ready(turn);
        self.expiries.clear();
        self.forget_keyed();
        self.passed = false;
        self.ready = 0;
        self.ready_bytes = 0;
        self.counts.purged += gone;
        gone
    }

    /// A message that the overflow rule refuses; with `dead_letter` it goes to the dead-letter exchange.
    pub(super) fn refuse(
        &mut self,
        message: &Arc<Message>,
        dead_letter: bool,
        turn: &mut Turn<'_>,
    ) {
        self.counts.refused += 1;
        if dead_letter && self.limits.dead_letter_exchange.is_some() {
            turn.bury(self, message, Reason::MaxLength, None);
        }
    }
}

/// Messages of one turn that came to rest before the mailbox is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    Nothing,
    /// Somebody waited when the first of them came.
    ToHandOn,
    ToKeep,
}

impl Entry {
    pub(super) fn append(&self, mailbox: MailboxId, transient: bool) -> Append {
        Append {
            mailbox,
            seq: self.seq,
            message: self.message.clone(),
            rest: self.rest,
            transient,
            keyed: false,
        }
    }
}
