//! From ready to delivered: whose turn it is, what expired on the way, what must be read from the store.

use std::collections::BTreeMap;

use super::Settings;
use super::command::{ConnectionId, Fetched, Seq};
use super::connection::{Channel, Connection};
use super::consumer::Consumer;
use super::dead_letter::{Burial, Reason};
use super::event::{Delivery, Effect, Event, Fetch, Reply, Write};
use super::lane::Entry;
use super::limits::Overflow;
use super::mailbox::{Asker, Delayed, Lease, Mailbox, Recall};
use super::name::Time;
use super::turn::Turn;

/// In `Fetch::lane`: entries recalled singly, because they expired or came due on disk.
const RECALLED: u16 = 256;

/// Recalled at once at most.
const RECALL_MAX: usize = 1024;

impl Mailbox {
    /// Gives ready messages to consumers until one of both runs out.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        if !self.askers.is_empty() {
            self.answer_askers(turn);
        }
        while self.ready > 0 && !self.stuck {
            let connections = &*turn.connections;
            let can_take = |consumer: &Consumer| can_take(consumer, connections, turn.settings);
            let single = self.limits.single_active;
            let Some(consumer) = self.consumers.next(single, can_take) else {
                self.stuck = true;
                self.remember_stalled(turn);
                break;
            };
            let to = (consumer.connection, consumer.channel, consumer.id, consumer.no_ack);
            let Some(entry) = self.take(turn) else { break };
            if self.deadline(&entry) < turn.now {
                self.discard(entry, Reason::Expired, turn);
                continue;
            }
            if !to.3
                && let Some(consumer) = self.consumers.get_mut(to.0, to.2)
            {
                consumer.unsettled += 1;
            }
            self.hand_over(entry, to, turn);
        }
        self.expire_fronts(turn);
        self.enforce_length(turn);
        self.load(turn);
    }

    /// Answers those who asked for one message, in the order they asked.
    pub(super) fn answer_askers(&mut self, turn: &mut Turn<'_>) {
        while let Some(&asker) = self.askers.front() {
            let Some(got) = self.get(asker, turn) else { break };
            self.askers.pop_front();
            let (channel, ticket) = (asker.channel, asker.ticket);
            let event = Event::Reply { channel, ticket, result: Ok(Reply::Got(got)) };
            turn.out.push(Effect::NotifyDurable(asker.connection, event));
        }
    }

    /// `None` while the first message is still on its way from the store.
    fn get(&mut self, asker: Asker, turn: &mut Turn<'_>) -> Option<Option<Box<(Delivery, u64)>>> {
        while self.ready > 0 {
            let entry = self.take(turn)?;
            if self.deadline(&entry) <= turn.now {
                self.discard(entry, Reason::Expired, turn);
                continue;
            }
            let party = turn.connections.get_mut(&asker.connection);
            let delivery = self.delivery(&entry, asker.channel, super::ConsumerId(0), asker.no_ack);
            if asker.no_ack {
                self.counts.settled += 1;
                if entry.stored {
                    turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
                }
            } else {
                if let Some(channel) = party.and_then(|it| it.channels.get_mut(&asker.channel)) {
                    channel.unsettled += 1;
                }
                let (connection, channel) = (asker.connection, asker.channel);
                let since = turn.now;
                let lease = Lease { entry, connection, channel, consumer: None, since };
                self.leases.insert(lease.entry.seq, lease);
            }
            return Some(Some(Box::new((delivery, self.ready))));
        }
        Some(None)
    }

    fn hand_over(
        &mut self,
        entry: Entry,
        (connection, channel, consumer, no_ack): (
            ConnectionId,
            super::ChannelId,
            super::ConsumerId,
            bool,
        ),
        turn: &mut Turn<'_>,
    ) {
        let delivery = self.delivery(&entry, channel, consumer, no_ack);
        if let Some(party) = turn.connections.get_mut(&connection) {
            party.in_flight += 1;
            party.in_flight_bytes += entry.message.size() as u64;
            if !no_ack && let Some(channel) = party.channels.get_mut(&channel) {
                channel.unsettled += 1;
            }
        }
        if no_ack {
            self.counts.settled += 1;
            if entry.stored {
                turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
            }
        } else {
            let consumer = Some(consumer);
            let lease = Lease { entry, connection, channel, consumer, since: turn.now };
            self.leases.insert(lease.entry.seq, lease);
        }
        turn.notify(connection, Event::Delivered(delivery));
    }

    pub(super) fn delivery(
        &mut self,
        entry: &Entry,
        channel: super::ChannelId,
        consumer: super::ConsumerId,
        settled: bool,
    ) -> Delivery {
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(entry.rest.redelivered);
        Delivery {
            channel,
            consumer,
            mailbox: self.id,
            seq: entry.seq,
            message: entry.message.clone(),
            redelivered: entry.rest.redelivered,
            attempts: self.limits.delivery_limit.map(|_| entry.rest.attempts),
            offset: None,
            settled,
        }
    }

    /// Consumers that want more but whose connection or channel is full: they are asked again when that changes.
    fn remember_stalled(&self, turn: &mut Turn<'_>) {
        for consumer in self.consumers.iter() {
            if consumer.has_credit()
                && let Some(connection) = turn.connections.get_mut(&consumer.connection)
            {
                connection.stalled.insert(self.id);
            }
        }
    }

    /// The moment after which the entry is too old to deliver.
    fn deadline(&self, entry: &Entry) -> Time {
        let own = if entry.rest.expires > Time::ZERO { entry.rest.expires } else { Time(u64::MAX) };
        let common =
            self.limits.message_ttl_ms.map_or(Time(u64::MAX), |ms| entry.rest.since.plus_ms(ms));
        own.min(common)
    }

    /// Drops what is too old at the front of each lane. Expiries of single messages have their own index.
    fn expire_fronts(&mut self, turn: &mut Turn<'_>) {
        if self.limits.message_ttl_ms.is_none() && self.expiries.is_empty() {
            return;
        }
        while let Some(&(due, seq, lane)) = self.expiries.first()
            && due <= turn.now
        {
            self.expiries.pop_first();
            self.expire_one(seq, usize::from(lane), turn);
        }
        let Some(ttl) = self.limits.message_ttl_ms else { return };
        for at in 0..self.lanes.len() {
            while let Some(front) = self.lanes[at].front()
                && front.rest.since.plus_ms(ttl) <= turn.now
            {
                let Some(entry) = self.lanes[at].take() else { break };
                self.forget_ready(&entry, turn);
                self.discard(entry, Reason::Expired, turn);
            }
        }
    }

    fn expire_one(&mut self, seq: Seq, lane: usize, turn: &mut Turn<'_>) {
        if let Some(entry) = self.lanes[lane].remove(seq) {
            self.forget_ready(&entry, turn);
            self.discard(entry, Reason::Expired, turn);
        } else if let Some(cold) = self.lanes[lane].remove_cold(seq) {
            // It leaves the ready messages now; its body is needed for the dead letter.
            self.ready -= 1;
            self.ready_bytes = self.ready_bytes.saturating_sub(cold.bytes);
            self.recall(seq, Recall::Expired, turn);
        }
    }

    fn recall(&mut self, seq: Seq, why: Recall, turn: &mut Turn<'_>) {
        self.recalled.insert(seq, why);
        if let Some(Effect::Fetch(fetch)) = turn.out.last_mut()
            && fetch.mailbox == self.id
            && fetch.lane == RECALLED
            && fetch.ranges.len() < RECALL_MAX
        {
            fetch.ranges.push((seq, 1));
            return;
        }
        let fetch = Fetch { mailbox: self.id, lane: RECALLED, ranges: vec![(seq, 1)] };
        turn.out.push(Effect::Fetch(fetch));
    }

    fn enforce_length(&mut self, turn: &mut Turn<'_>) {
        if self.limits.overflow != Overflow::DropHead {
            return;
        }
        let over = |mailbox: &Self| {
            mailbox.limits.length_max.is_some_and(|most| mailbox.ready > most)
                || mailbox.limits.bytes_max.is_some_and(|most| mailbox.ready_bytes > most)
        };
        while over(self) {
            // The least important go first.
            let Some(lane) = self.lanes.iter().position(|lane| lane.oldest().is_some()) else {
                break;
            };
            let Some(entry) = self.lanes[lane].take() else { break };
            self.forget_ready(&entry, turn);
            self.discard(entry, Reason::MaxLength, turn);
        }
    }

    /// Asks the store for what will be needed soon.
    fn load(&mut self, turn: &mut Turn<'_>) {
        let hot = self.hot_max(turn.settings);
        let wanted = !self.consumers.is_empty() && !self.stuck;
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            if lane.front().is_some() && !wanted {
                continue;
            }
            let bytes = turn.settings.hot_bytes as u64;
            let ranges = lane.load(hot, bytes);
            if !ranges.is_empty() {
                let fetch = Fetch { mailbox: self.id, lane: at as u16, ranges };
                turn.out.push(Effect::Fetch(fetch));
            }
        }
    }

    /// What `load` or `recall` asked for is here.
    pub(super) fn fetched(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        let mut whole = Vec::with_capacity(fetched.messages.len());
        for found in fetched.messages {
            match found.message {
                Ok(message) => {
                    let (seq, rest) = (found.seq, found.rest);
                    whole.push(Entry { seq, message, rest, epoch: super::Epoch(0), stored: true });
                }
                Err(reason) => self.set_aside(found.seq, reason, fetched.lane != RECALLED, turn),
            }
        }
        if fetched.lane == RECALLED {
            for entry in whole {
                match self.recalled.remove(&entry.seq) {
                    Some(Recall::Expired) => self.discard(entry, Reason::Expired, turn),
                    Some(Recall::Due) => self.come_due(entry, turn),
                    None => {}
                }
            }
        } else if let Some(lane) = self.lanes.get_mut(usize::from(fetched.lane))
            && lane.is_loading()
        {
            *turn.memory += whole.iter().map(|entry| entry.message.size() as u64).sum::<u64>();
            lane.loaded(whole.into_iter());
        }
        self.stuck = false;
        self.dispatch(turn);
    }

    /// A stored record that cannot be trusted is never delivered; its neighbours are.
    fn set_aside(&mut self, seq: Seq, reason: String, was_ready: bool, turn: &mut Turn<'_>) {
        self.recalled.remove(&seq);
        if was_ready {
            self.ready = self.ready.saturating_sub(1);
        }
        self.counts.damaged += 1;
        turn.write(Write::Quarantine { mailbox: self.id, seq, reason });
    }

    /// Time passed: what is due becomes visible, what is too old goes.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        while let Some((&(due, seq), _)) = self.delayed.first_key_value()
            && due <= turn.now
        {
            match self.delayed.pop_first().map(|(_, delayed)| delayed) {
                Some(Delayed::Hot(entry)) => self.come_due(*entry, turn),
                Some(Delayed::Cold(..)) => self.recall(seq, Recall::Due, turn),
                None => break,
            }
        }
        self.dispatch(turn);
    }

    fn come_due(&mut self, entry: Entry, turn: &mut Turn<'_>) {
        if let Some(exchange) = self.feeds.clone() {
            if entry.stored {
                turn.write(Write::Remove { mailbox: self.id, first: entry.seq, count: 1 });
            }
            self.counts.settled += 1;
            let burial = Burial::due(self.vhost.clone(), exchange, entry);
            turn.burials.push(burial);
        } else {
            self.make_ready_again(entry, turn);
        }
    }

    /// When `tick` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let mut next = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let mut consider = |time: Option<Time>| {
            next = match (next, time) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        consider(self.expiries.first().map(|(due, _, _)| *due));
        if let Some(ttl) = self.limits.message_ttl_ms {
            let oldest = self.lanes.iter().filter_map(super::lane::Lane::oldest).min();
            consider(oldest.map(|since| since.plus_ms(ttl)));
        }
        if let Some(idle) = self.limits.expires_ms
            && self.consumers.is_empty()
        {
            consider(Some(self.used.plus_ms(idle)));
        }
        next
    }
}

fn can_take(
    consumer: &Consumer,
    connections: &BTreeMap<ConnectionId, Connection>,
    settings: &Settings,
) -> bool {
    consumer.has_credit()
        && connections.get(&consumer.connection).is_some_and(|connection| {
            connection.has_window(settings.window_deliveries, settings.window_bytes)
                && (consumer.no_ack
                    || connection.channels.get(&consumer.channel).is_some_and(Channel::has_credit))
        })
}
