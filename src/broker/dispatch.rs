//! From ready to delivered: whose turn it is, and what is said of it.

use std::collections::BTreeMap;

use super::Settings;
use super::command::{ChannelId, ConnectionId, ConsumerId};
use super::connection::{Channel, Connection};
use super::consumer::Consumer;
use super::dead_letter::Reason;
use super::delay::Waiting;
use super::event::{Delivery, Effect, Event, Reply};
use super::lane::Entry;
use super::lease::Lease;
use super::mailbox::{Asker, Gathered, Mailbox};
use super::paging::Recall;
use super::selection::LOOKS_MAX;
use super::selector::Selector;
use super::turn::Turn;

/// Who gets a message.
#[derive(Clone, Copy)]
pub(super) struct Taker {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    /// 0 where one message was asked for.
    pub(super) consumer: ConsumerId,
    pub(super) no_ack: bool,
    pub(super) timeout_ms: Option<u64>,
}

impl From<&Consumer> for Taker {
    fn from(it: &Consumer) -> Self {
        let (connection, channel) = (it.connection, it.channel);
        Self { connection, channel, consumer: it.id, no_ack: it.no_ack, timeout_ms: it.timeout_ms }
    }
}

impl Mailbox {
    /// Gives ready messages to consumers until one of both runs out, and drops what may not stay.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        self.gathered = Gathered::Nothing;
        if self.stream.is_some() {
            return self.dispatch_stream(turn);
        }
        self.wake_due(turn);
        self.bury_due(turn);
        self.unfinished = false;
        self.turn_back(turn);
        self.begin_keyed();
        let mut looks = LOOKS_MAX;
        if !self.askers.is_empty() {
            self.answer_askers(turn);
        }
        while self.ready > 0 && !self.stuck {
            if self.consumers.searches() > 0 {
                if self.give_chosen(&mut looks, turn) {
                    continue;
                }
                break;
            }
            let connections = &*turn.connections;
            let can_take = |consumer: &Consumer| can_take(consumer, connections, turn.settings);
            let Some(consumer) = self.consumers.next(self.limits.single_active, can_take) else {
                self.stuck = true;
                self.remember_stalled(turn);
                break;
            };
            let (taker, keeps) = (Taker::from(consumer), consumer.keeps.clone());
            let Some(entry) = self.take_fresh(turn) else { break };
            self.give(entry, taker, keeps.as_deref(), turn);
        }
        self.unfinished |= self.has_keys_to_look_at();
        self.expire(turn);
        self.enforce_length(turn);
        self.pass_over(turn);
        self.pass_over_keyed(turn);
        self.load(turn);
    }

    /// To the consumer that was chosen last, unless it only throws it away.
    pub(super) fn give(
        &mut self,
        entry: Entry,
        taker: Taker,
        keeps: Option<&Selector>,
        turn: &mut Turn<'_>,
    ) {
        if keeps.is_some_and(|selector| !selector.matches(entry.message.properties())) {
            return self.forget_handed_over(&entry, turn);
        }
        if !taker.no_ack {
            self.consumers.count_delivery();
        }
        self.hand_over(entry, taker, turn);
    }

    /// The next entry that is not too old. A time to live of 0 allows delivery in the same moment.
    pub(super) fn take_fresh(&mut self, turn: &mut Turn<'_>) -> Option<Entry> {
        while self.ready > 0 {
            let entry = match self.keyed {
                Some(_) => self.take_keyed(turn)?,
                None => self.take(turn)?,
            };
            if self.deadline(&entry) >= turn.now {
                return Some(entry);
            }
            let seq = entry.seq;
            self.discard(entry, Reason::Expired, turn);
            self.release_key(seq);
        }
        None
    }

    /// Answers those who asked for one message, in the order they asked; not while the first message is still on its
    /// way from the store.
    pub(super) fn answer_askers(&mut self, turn: &mut Turn<'_>) {
        self.turn_back(turn);
        while let Some(&asker) = self.askers.front() {
            let entry = self.take_fresh(turn);
            if entry.is_none() && self.ready > 0 && !self.is_keyed_out() {
                break;
            }
            self.askers.pop_front();
            let Asker { connection, channel, ticket, no_ack } = asker;
            let (consumer, timeout_ms) = (ConsumerId(0), None);
            let taker = Taker { connection, channel, consumer, no_ack, timeout_ms };
            self.count_get(entry.as_ref(), taker, turn);
            let got = entry.map(|entry| {
                let delivery = self.delivery(&entry, taker, turn);
                if no_ack {
                    self.forget_handed_over(&entry, turn);
                } else {
                    self.lease(entry, taker, None, turn);
                }
                Box::new((delivery, self.ready))
            });
            let event = Event::Reply { channel, ticket, result: Ok(Reply::Got(got)) };
            turn.out.push(Effect::NotifyDurable(connection, event));
        }
    }

    fn count_get(&mut self, entry: Option<&Entry>, taker: Taker, turn: &mut Turn<'_>) {
        let got = entry.map(|entry| entry.rest.redelivered);
        *match (got.is_some(), taker.no_ack) {
            (false, _) => &mut self.counts.got_nothing,
            (true, false) => &mut self.counts.got,
            (true, true) => &mut self.counts.got_settled,
        } += 1;
        if let Some(party) = turn.connections.get_mut(&taker.connection) {
            let flow = &mut turn.flows[party.flow].outflow[self.limits.kind.index()];
            flow.count_get(got, taker.no_ack);
            if let Some(channel) = party.channels.get_mut(&taker.channel) {
                channel.outflow.count_get(got, taker.no_ack);
            }
        }
    }

    fn hand_over(&mut self, entry: Entry, taker: Taker, turn: &mut Turn<'_>) {
        let delivery = self.delivery(&entry, taker, turn);
        let Taker { connection, channel, consumer, no_ack, .. } = taker;
        if let Some(party) = turn.connections.get_mut(&connection) {
            party.in_flight += 1;
            party.in_flight_bytes += entry.message.size() as u64;
            let again = entry.rest.redelivered;
            let kind = self.limits.kind.index();
            turn.flows[party.flow].outflow[kind].count_delivery(no_ack, again);
            if let Some(channel) = party.channels.get_mut(&channel) {
                channel.unsettled += u32::from(!no_ack);
                channel.outflow.count_delivery(no_ack, again);
            }
        }
        self.counts.delivered_settled += u64::from(no_ack);
        if no_ack {
            self.forget_handed_over(&entry, turn);
        } else {
            self.lease(entry, taker, Some(consumer), turn);
        }
        turn.deliver(connection, delivery);
    }

    fn lease(
        &mut self,
        mut entry: Entry,
        taker: Taker,
        consumer: Option<ConsumerId>,
        turn: &mut Turn<'_>,
    ) {
        let (connection, channel, since) = (taker.connection, taker.channel, turn.now);
        let timeout = self.timeout_ms(taker.timeout_ms, turn.settings);
        let due = timeout.map(|ms| since.plus_ms(ms));
        if self.leases_due.is_none_or(|first| due.is_some_and(|due| due < first)) {
            self.leases_due = due;
        }
        entry.acquired = entry.acquired.saturating_add(1);
        let lease = Lease { entry, connection, channel, consumer, since, runs_from: since };
        *turn.memory += lease.size();
        if let Some(party) = turn.connections.get_mut(&connection) {
            party.leased_bytes += lease.size();
        }
        self.leases.insert(lease);
    }

    /// Nobody will settle it.
    fn forget_handed_over(&mut self, entry: &Entry, turn: &mut Turn<'_>) {
        self.counts.settled += 1;
        self.remove_stored(entry, turn);
        self.keep(&entry.message, turn);
        self.release_key(entry.seq);
    }

    fn delivery(&mut self, entry: &Entry, taker: Taker, turn: &mut Turn<'_>) -> Delivery {
        if !entry.rest.redelivered {
            let since = entry.message.accepted.max(entry.message.deliver_at);
            turn.waits.count(turn.now.since_ms(since));
        }
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(entry.rest.redelivered);
        Delivery {
            channel: taker.channel,
            consumer: taker.consumer,
            mailbox: self.id,
            seq: entry.seq,
            message: entry.message.clone(),
            redelivered: entry.rest.redelivered,
            attempts: self.counts_attempts().then_some(entry.rest.attempts),
            acquired: entry.acquired.max(entry.rest.attempts),
            offset: None,
            settled: taker.no_ack,
        }
    }

    /// Consumers that want more but whose connection or channel is full: they are asked again when that changes.
    pub(super) fn remember_stalled(&self, turn: &mut Turn<'_>) {
        for consumer in self.consumers.in_turn(self.limits.single_active) {
            if consumer.has_credit()
                && let Some(connection) = turn.connections.get_mut(&consumer.connection)
            {
                connection.stalled.insert(self.id);
            }
        }
    }

    /// What is due becomes visible.
    fn wake_due(&mut self, turn: &mut Turn<'_>) {
        while !self.recalls.is_full()
            && let Some((seq, waiting)) = self.delayed.pop_due(turn.now)
        {
            match waiting {
                Waiting::Hot(entry) => {
                    *turn.memory -= entry.message.footprint();
                    self.come_due(*entry, turn);
                }
                Waiting::Cold { seen, attempts } => {
                    self.recalls.add(seq, Recall::Due { seen, attempts });
                }
            }
        }
    }
}

pub(super) fn can_take(
    consumer: &Consumer,
    connections: &BTreeMap<ConnectionId, Connection>,
    settings: &Settings,
) -> bool {
    consumer.has_credit()
        && connections.get(&consumer.connection).is_some_and(|connection| {
            connection.has_window(settings.window_deliveries, settings.window_bytes)
                && (consumer.no_ack
                    || (connection.leased_bytes < settings.memory_max
                        && connection
                            .channels
                            .get(&consumer.channel)
                            .is_some_and(Channel::has_credit)))
        })
}
