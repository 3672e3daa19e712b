//! A mailbox: messages at rest in order, and the consumers that take them.
//!
//! Knows nothing of exchanges, protocols or disks. Where it must tell somebody, it puts an effect into the turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Epoch;
use super::Settings;
use super::command::{ChannelId, ConnectionId, ConsumerId, MailboxId, Outcome, Seq, Ticket};
use super::consumer::Consumers;
use super::dead_letter::Reason;
use super::definition::MailboxDefinition;
use super::event::{Append, Effect, RecoveredMailbox, Rest, Write};
use super::lane::{Cold, Entry, Lane};
use super::limits::Limits;
use super::message::Message;
use super::name::{Name, Time};
use super::turn::Turn;

/// Positions that a mark runs ahead of deliveries, so that few marks are written.
const MARK_STEP: u64 = 1024;

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
    /// Holds what an exchange delays; due messages are routed by that exchange.
    pub(super) feeds: Option<Name>,
    pub(super) consumers: Consumers,
    pub(super) had_consumer: bool,
    /// Their message is on its way from the store.
    pub(super) askers: VecDeque<Asker>,
    /// Somebody declared, consumed or asked last at this time.
    pub(super) used: Time,
    pub(super) lanes: Vec<Lane>,
    /// Delivered and not yet settled. An entry is either here, in a lane or delayed.
    pub(super) leases: BTreeMap<Seq, Lease>,
    pub(super) delayed: BTreeMap<(Time, Seq), Delayed>,
    /// Messages with an expiry of their own.
    pub(super) expiries: BTreeSet<(Time, Seq, u8)>,
    /// Waits for the store: entries that expired or came due on disk.
    pub(super) recalled: BTreeMap<Seq, Recall>,
    pub(super) ready: u64,
    pub(super) ready_bytes: u64,
    pub(super) counts: Counts,
    /// No consumer could take anything when last asked.
    pub(super) stuck: bool,
    /// The deadline it has in the broker's timers.
    pub(super) timer: Option<Time>,
    next: Seq,
    mark: Mark,
    /// Up to here a consumer may have seen messages before the last stop.
    recovered_mark: Seq,
    /// Highest position handed to anybody.
    delivered_max: Seq,
}

/// A delivery not yet settled: who holds it, since when.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) entry: Entry,
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    /// `None` for a message that was asked for singly.
    pub(super) consumer: Option<ConsumerId>,
    pub(super) since: Time,
}

/// Somebody who asked for one message and waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) ticket: Ticket,
    pub(super) no_ack: bool,
}

#[derive(Debug)]
pub(super) enum Delayed {
    Hot(Box<Entry>),
    /// Only the store holds it.
    Cold(Cold, Rest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    Expired,
    Due,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub published: u64,
    pub delivered: u64,
    pub redelivered: u64,
    pub settled: u64,
    pub expired: u64,
    pub dropped: u64,
    pub dead_lettered: u64,
    pub purged: u64,
    pub damaged: u64,
}

/// "Everything up to here may have been delivered", written ahead of deliveries.
#[derive(Debug, Default)]
struct Mark {
    upto: Seq,
    /// The batch that carries `upto`.
    epoch: Epoch,
    /// The last one that is surely durable.
    durable: Seq,
}

impl Mailbox {
    pub(super) fn new(definition: MailboxDefinition, declared: Limits, now: Time) -> Self {
        let lanes = declared.priority_max.map_or(1, |most| usize::from(most) + 1);
        Self {
            id: definition.id,
            vhost: definition.vhost.clone(),
            name: definition.name.clone(),
            definition,
            owner: None,
            limits: declared.clone(),
            declared,
            policy: None,
            feeds: None,
            consumers: Consumers::default(),
            had_consumer: false,
            askers: VecDeque::new(),
            used: now,
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            leases: BTreeMap::new(),
            delayed: BTreeMap::new(),
            expiries: BTreeSet::new(),
            recalled: BTreeMap::new(),
            ready: 0,
            ready_bytes: 0,
            counts: Counts::default(),
            stuck: false,
            timer: None,
            next: Seq(1),
            mark: Mark::default(),
            recovered_mark: Seq(0),
            delivered_max: Seq(0),
        }
    }

    /// Takes over what the store found.
    pub(super) fn recover(&mut self, found: RecoveredMailbox) {
        self.next = found.next;
        self.recovered_mark = found.mark;
        self.delivered_max = found.mark;
        self.mark = Mark { upto: found.mark, epoch: Epoch(0), durable: found.mark };
        for run in found.messages {
            let cold = Cold {
                first: run.first,
                count: run.count,
                bytes: run.bytes,
                since: run.rest.since,
            };
            if run.rest.deliver_at > Time::ZERO {
                self.delayed
                    .insert((run.rest.deliver_at, run.first), Delayed::Cold(cold, run.rest));
                continue;
            }
            let lane = self.lane_of(run.rest.lane);
            if run.rest.expires > Time::ZERO {
                self.expiries.insert((run.rest.expires, run.first, lane as u8));
            }
            self.ready += u64::from(run.count);
            self.ready_bytes += run.bytes;
            self.lanes[lane].recover(cold);
        }
    }

    /// Outlives the broker. What belongs to a connection does not.
    pub(super) fn durable(&self) -> bool {
        self.definition.durable && !self.definition.exclusive
    }

    /// Nobody consumed, asked or declared for as long as it may live unused.
    pub(super) fn is_forgotten(&self, now: Time) -> bool {
        self.limits.expires_ms.is_some_and(|idle| self.used.plus_ms(idle) <= now)
            && self.consumers.is_empty()
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.leases.len() as u64
    }

    fn lane_of(&self, priority: u8) -> usize {
        usize::from(priority).min(self.lanes.len() - 1)
    }

    /// Whether a message that is published now would go to a consumer at once.
    pub(super) fn hands_on(&self) -> bool {
        self.ready == 0 && !self.stuck && !self.consumers.is_empty()
    }

    /// Whether a new message must be refused by the overflow rule.
    pub(super) fn is_full(&self) -> bool {
        self.limits.length_max.is_some_and(|most| self.ready >= most)
            || self.limits.bytes_max.is_some_and(|most| self.ready_bytes >= most)
    }

    /// A message comes to rest. It is delivered by the next `dispatch`.
    pub(super) fn append(&mut self, message: Arc<Message>, deliver_at: Time, turn: &mut Turn<'_>) {
        let seq = self.next;
        self.next.0 += 1;
        self.counts.published += 1;
        let lane = self.lane_of(message.priority());
        let rest = Rest {
            since: turn.now,
            expires: message.expiration_ms().map_or(Time::ZERO, |ms| turn.now.plus_ms(ms)),
            deliver_at,
            lane: lane as u8,
            attempts: 0,
            redelivered: false,
        };
        let stored =
            self.durable() && (message.persistent() || self.limits.delivery_limit.is_some());
        let entry = Entry { seq, message, rest, epoch: turn.epoch, stored };
        if stored {
            turn.write(Write::Append(entry.append(self.id, false)));
        }
        if deliver_at > turn.now {
            self.delayed.insert((deliver_at, seq), Delayed::Hot(Box::new(entry)));
            return;
        }
        if rest.expires > Time::ZERO {
            self.expiries.insert((rest.expires, seq, lane as u8));
        }
        self.ready += 1;
        self.ready_bytes += entry.body_size();
        *turn.memory += entry.message.size() as u64;
        self.lanes[lane].append(entry);
    }

    /// Takes the next ready entry that may be delivered now.
    pub(super) fn take(&mut self, turn: &mut Turn<'_>) -> Option<Entry> {
        let lane = self.lanes.iter().rposition(|lane| lane.oldest().is_some())?;
        let (seq, stored, epoch) = {
            let front = self.lanes[lane].front()?;
            (front.seq, front.stored, front.epoch)
        };
        if stored && !self.may_show(seq, epoch, turn) {
            turn.awaiting.insert(self.id);
            return None;
        }
        let mut entry = self.lanes[lane].take()?;
        self.forget_ready(&entry, turn);
        entry.rest.redelivered |= seq <= self.recovered_mark;
        self.delivered_max = self.delivered_max.max(seq);
        Some(entry)
    }

    /// Counters after an entry left a lane.
    pub(super) fn forget_ready(&mut self, entry: &Entry, turn: &mut Turn<'_>) {
        self.ready -= 1;
        self.ready_bytes =
            if self.ready == 0 { 0 } else { self.ready_bytes.saturating_sub(entry.body_size()) };
        *turn.memory = turn.memory.saturating_sub(entry.message.size() as u64);
        if entry.rest.expires > Time::ZERO {
            self.expiries.remove(&(entry.rest.expires, entry.seq, entry.rest.lane));
        }
    }

    /// A stored message may be shown only if a restart would know that it was: its position is marked in an earlier
    /// batch that is durable, or in the batch that stores the message or one before.
    fn may_show(&mut self, seq: Seq, epoch: Epoch, turn: &mut Turn<'_>) -> bool {
        if self.mark.epoch <= turn.durable {
            self.mark.durable = self.mark.upto;
        }
        let runs_low =
            seq.0 + MARK_STEP / 2 > self.mark.upto.0 && self.mark.durable == self.mark.upto;
        if seq > self.mark.upto || runs_low {
            self.mark.upto = Seq(seq.0 + MARK_STEP);
            self.mark.epoch = turn.epoch;
            turn.write(Write::Mark { mailbox: self.id, upto: self.mark.upto });
        }
        seq <= self.mark.durable || epoch >= self.mark.epoch
    }

    /// At an orderly stop the mark is made exact.
    pub(super) fn settle_mark(&mut self, out: &mut Vec<Effect>) {
        if self.durable() && self.mark.upto != self.delivered_max {
            self.mark.upto = self.delivered_max;
            out.push(Effect::Write(Write::Mark { mailbox: self.id, upto: self.delivered_max }));
        }
    }

    /// Ends a lease. Returns whose consumer gets its credit back.
    pub(super) fn settle(
        &mut self,
        seq: Seq,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) -> Option<Lease> {
        let mut lease = self.leases.remove(&seq)?;
        if let Some(consumer) = lease.consumer
            && let Some(consumer) = self.consumers.get_mut(lease.connection, consumer)
        {
            consumer.unsettled = consumer.unsettled.saturating_sub(1);
        }
        self.stuck = false;
        match outcome {
            Outcome::Accepted => self.counts.settled += 1,
            Outcome::Rejected => {
                self.discard(lease.entry.clone(), Reason::Rejected, turn);
            }
            Outcome::Released => self.put_back(lease.entry.clone(), false, None, turn),
            Outcome::Modified { delay_ms } => {
                lease.entry.rest.attempts += 1;
                self.put_back(lease.entry.clone(), true, delay_ms, turn);
            }
        }
        Some(lease)
    }

    fn put_back(
        &mut self,
        mut entry: Entry,
        failed: bool,
        delay_ms: Option<u64>,
        turn: &mut Turn<'_>,
    ) {
        entry.rest.redelivered = true;
        if let Some(limit) = self.limits.delivery_limit
            && entry.rest.attempts > limit
        {
            return self.discard(entry, Reason::DeliveryLimit, turn);
        }
        let deliver_at = delay_ms.map_or(Time::ZERO, |ms| turn.now.plus_ms(ms));
        let counted = failed && self.limits.delivery_limit.is_some();
        if entry.stored && (counted || delay_ms.is_some()) {
            turn.write(Write::Attempts {
                mailbox: self.id,
                seq: entry.seq,
                attempts: entry.rest.attempts,
                deliver_at,
            });
        }
        if deliver_at > turn.now {
            entry.rest.deliver_at = deliver_at;
            self.delayed.insert((deliver_at, entry.seq), Delayed::Hot(Box::new(entry)));
            return;
        }
        self.make_ready_again(entry, turn);
    }

    /// Back to its place among the ready.
    pub(super) fn make_ready_again(&mut self, mut entry: Entry, turn: &mut Turn<'_>) {
        entry.rest.deliver_at = Time::ZERO;
        self.ready += 1;
        self.ready_bytes += entry.body_size();
        *turn.memory += entry.message.size() as u64;
        if entry.rest.expires > Time::ZERO {
            self.expiries.insert((entry.rest.expires, entry.seq, entry.rest.lane));
        }
        let lane = self.lane_of(entry.rest.lane);
        self.lanes[lane].put_back(entry);
        self.stuck = false;
    }

    /// The message goes for good; where the mailbox has a dead-letter exchange, it goes there.
    pub(super) fn discard(&mut self, entry: Entry, reason: Reason, turn: &mut Turn<'_>) {
        if entry.stored {
            turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
        }
        match reason {
            Reason::Expired => self.counts.expired += 1,
            Reason::MaxLength => self.counts.dropped += 1,
            Reason::Rejected | Reason::DeliveryLimit => self.counts.settled += 1,
        }
        if self.limits.dead_letter_exchange.is_some() {
            self.counts.dead_lettered += 1;
            turn.bury(self, entry, reason);
        }
    }

    /// Removes everything ready; what consumers hold stays with them. Returns how many went.
    pub(super) fn purge(&mut self, turn: &mut Turn<'_>) -> u64 {
        let mut gone = 0;
        for lane in &mut self.lanes {
            let (entries, ranges) = lane.drain();
            for entry in &entries {
                *turn.memory = turn.memory.saturating_sub(entry.message.size() as u64);
                if entry.stored {
                    turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
                }
            }
            for range in &ranges {
                let (first, count) = (range.first, range.count);
                turn.write(Write::Remove { mailbox: self.id, first, count });
            }
            gone += entries.len() as u64;
            gone += ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
        }
        self.expiries.clear();
        self.ready = 0;
        self.ready_bytes = 0;
        self.counts.purged += gone;
        gone
    }

    /// Memory that the mailbox gives up when it is deleted.
    pub(super) fn forget_memory(&self, turn: &mut Turn<'_>) {
        for lane in &self.lanes {
            for entry in lane.hot() {
                *turn.memory = turn.memory.saturating_sub(entry.message.size() as u64);
            }
        }
    }

    /// Gives memory back: what the store holds need not stay here.
    pub(super) fn cool(&mut self, turn: &mut Turn<'_>) {
        let hot = self.hot_max(turn.settings);
        for lane in &mut self.lanes {
            let freed = lane.cool(hot, turn.durable);
            *turn.memory = turn.memory.saturating_sub(freed);
        }
        for delayed in self.delayed.values_mut().skip(hot) {
            delayed.cool(turn.durable);
        }
    }

    pub(super) fn has_surplus(&self, settings: &Settings) -> bool {
        let hot = self.hot_max(settings);
        self.lanes.iter().any(|lane| lane.has_surplus(hot))
    }

    /// How many messages stay in memory at the front of a lane: few where they are large.
    pub(super) fn hot_max(&self, settings: &Settings) -> usize {
        let average = self.ready_bytes.checked_div(self.ready).unwrap_or(0).max(1);
        let fitting = settings.hot_bytes as u64 / average;
        (fitting as usize).clamp(4, settings.hot_messages)
    }

    /// A message that the overflow rule refuses, but dead-letters.
    pub(super) fn refuse(&mut self, message: Arc<Message>, turn: &mut Turn<'_>) {
        let rest = Rest { since: turn.now, ..Rest::default() };
        let entry = Entry { seq: Seq(0), message, rest, epoch: turn.epoch, stored: false };
        if self.limits.dead_letter_exchange.is_some() {
            turn.bury(self, entry, Reason::MaxLength);
        }
    }

    /// Memory ran out: transient messages go to the store too, not to survive but to make room.
    pub(super) fn spill(&mut self, turn: &mut Turn<'_>) {
        let id = self.id;
        for lane in &mut self.lanes {
            for entry in lane.unstored_mut() {
                entry.stored = true;
                entry.epoch = turn.epoch;
                let append = entry.append(id, true);
                turn.out.push(Effect::Write(Write::Append(append)));
            }
        }
    }

    pub(super) fn next(&self) -> Seq {
        self.next
    }
}

impl Entry {
    pub(super) fn append(&self, mailbox: MailboxId, transient: bool) -> Append {
        Append { mailbox, seq: self.seq, message: self.message.clone(), rest: self.rest, transient }
    }
}

impl Delayed {
    fn cool(&mut self, durable: Epoch) {
        if let Self::Hot(entry) = self
            && entry.stored
            && entry.epoch <= durable
        {
            let cold = Cold {
                first: entry.seq,
                count: 1,
                bytes: entry.body_size(),
                since: entry.rest.since,
            };
            *self = Self::Cold(cold, entry.rest);
        }
    }
}
