//! Consuming, settling, and the end of channels and connections.

use std::collections::BTreeSet;

use super::command::{
    ChannelId, Command, ConnectionId, Consume, ConsumerId, MailboxId, Open, Outcome, QosScope, Run,
    Seq, Settle,
};
use super::consumer::Consumer;
use super::event::{Cause, Effect, Event, Reply};
use super::limits::{Limits, MailboxKind};
use super::mailbox::Asker;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::selection::{Search, Selection};
use super::stream::dead_letter_exchange;
use super::topology::check_reach;
use super::{Broker, Settings, carry};

impl Broker {
    pub(super) fn consume(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        consume: Consume,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost) = self.whose(from)?;
        let shares_credit = self.channel_mut(from, channel).limit > 0;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, &consume.mailbox)?;
        if let Some(exchange) = dead_letter_exchange(&consume) {
            self.access.check(&user, &vhost, Action::Write, Kind::Exchange, &exchange)?;
        }
        let name = consume.mailbox.clone();
        let mailbox = self.find_mut(&vhost, &name)?;
        check_reach(mailbox, from)?;
        let timeout_ms = Limits::consumer_timeout(&consume.arguments, &name, &vhost)?;
        let taken = mailbox.consumers.has_exclusive()
            || (consume.exclusive
                && (!mailbox.consumers.is_empty() || mailbox.limits.single_active));
        if taken {
            return Err(Refusal::ExclusiveUse { name, vhost });
        }
        if mailbox.keyed.is_some() && consume.selection.is_some() {
            return Err(Refusal::Precondition(format!(
                "queue '{name}' in vhost '{vhost}' has message groups: its consumers have no selectors"
            )));
        }
        if mailbox.stream.is_some() {
            if consume.bounded {
                check_bounds(&consume, shares_credit, &vhost)?;
            }
            mailbox.add_reader(from, channel, &consume, now, out)?;
        }
        let (mut search, mut keeps) = (None, None);
        match consume.selection {
            Some(Selection { selector, drops_others: true }) => keeps = Some(selector),
            Some(Selection { selector, .. }) => search = Some(Search::new(selector)),
            None => {}
        }
        mailbox.consumers.add(Consumer {
            connection: from,
            channel,
            id: consume.consumer,
            tag: consume.tag,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority: consume.priority,
            prefetch: consume.prefetch,
            unsettled: 0,
            timeout_ms,
            arguments: consume.arguments,
            search,
            keeps,
        });
        mailbox.stuck = false;
        let id = mailbox.id;
        self.channel_mut(from, channel).consumers.insert(consume.consumer, id);
        self.touch(from, channel, id);
        self.dirty.push(id);
        Ok(Reply::Done)
    }

    pub(super) fn consume_replies(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
        address: Name,
    ) -> Result<Reply, Refusal> {
        let (_, vhost) = self.whose(from)?;
        let party = self.channel_mut(from, channel);
        if party.replies.is_some() {
            return Err(Refusal::Precondition("reply consumer already set".into()));
        }
        party.replies = Some((address.clone(), consumer));
        self.peers.adverts_mut().address_came(&vhost, &address);
        self.reply_addresses.insert(address, (from, channel, consumer));
        Ok(Reply::Done)
    }

    pub(super) fn cancel(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let party = self.channel_mut(from, channel);
        if let Some((address, _)) = party.replies.take_if(|(_, id)| *id == consumer) {
            self.reply_addresses.remove(&address);
            let (_, vhost) = self.whose(from)?;
            self.peers.adverts_mut().address_went(&vhost, &address);
            return Ok(Reply::Done);
        }
        if let Some(id) = party.consumers.remove(&consumer) {
            self.lose_consumer(from, consumer, id, now, out);
        }
        Ok(Reply::Done)
    }

    pub(super) fn lose_consumer(
        &mut self,
        from: ConnectionId,
        consumer: ConsumerId,
        id: MailboxId,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        if mailbox.consumers.remove(from, consumer).is_none() {
            return;
        }
        mailbox.remove_reader(from, consumer, &mut turn);
        mailbox.used = now;
        mailbox.stuck = false;
        let last = mailbox.consumers.is_empty();
        if last && mailbox.definition.auto_delete {
            self.delete_mailbox_now(id, now, out);
        } else {
            self.dirty.push(id);
        }
    }

    /// Consumers that may not read their mailboxes any longer are ended. What they hold stays theirs to settle.
    pub(super) fn end_forbidden(
        &mut self,
        concerns: impl Fn(ConnectionId, &Open) -> bool,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut forbidden = Vec::new();
        for (id, connection) in self.connections.iter().filter(|(id, _)| !id.is_visitor()) {
            let open = connection.open.as_ref().filter(|open| concerns(*id, open));
            let Some(Open { user, vhost, .. }) = open.map(|it| &**it) else { continue };
            for (channel, party) in &connection.channels {
                forbidden.extend(party.consumers.iter().filter_map(|(consumer, at)| {
                    let name = &self.mailboxes.get(at)?.name;
                    let read = self.access.check(user, vhost, Action::Read, Kind::Mailbox, name);
                    read.is_err().then_some((*id, *channel, *consumer, *at))
                }));
            }
        }
        for (id, channel, consumer, at) in forbidden {
            self.channel_mut(id, channel).consumers.remove(&consumer);
            self.lose_consumer(id, consumer, at, now, out);
            out.push(Effect::Notify(id, Event::Cancelled { channel, consumer }));
        }
        self.end_forbidden_afar(concerns, out);
    }

    /// The reply may come later: the first message may have to be read from the store.
    pub(super) fn get(
        &mut self,
        from: ConnectionId,
        asker: Asker,
        name: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (user, vhost) = self.whose(from)?;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, name)?;
        let id = self.find(&vhost, name).map(|it| it.id);
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = id.and_then(|id| self.mailboxes.get_mut(&id)) else {
            return Err(self.no_mailbox(&vhost, name));
        };
        check_reach(mailbox, from)?;
        if mailbox.stream.is_some() {
            return Err(mailbox.not_for_streams("basic.get"));
        }
        if mailbox.limits.single_active && mailbox.limits.kind == MailboxKind::Quorum {
            return Err(Refusal::OneReaderOnly { name: name.clone(), vhost });
        }
        mailbox.used = now;
        mailbox.askers.push_back(asker);
        mailbox.answer_askers(&mut turn);
        let id = mailbox.id;
        self.touch(from, asker.channel, id);
        self.dirty.push(id);
        Ok(())
    }

    pub(super) fn touch(&mut self, from: ConnectionId, channel: ChannelId, id: MailboxId) {
        self.channel_mut(from, channel);
        let connection = self.connections.get_mut(&from);
        if let Some(channel) = connection.and_then(|it| it.channels.get_mut(&channel)) {
            channel.touch(id, |id| self.mailboxes.contains_key(id));
        }
    }

    pub(super) fn settle(
        &mut self,
        from: ConnectionId,
        settle: &Settle,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let by = (from, settle.channel);
        let full = self.holds_too_much(from);
        let mut unknown = false;
        let mut settled = 0;
        let mut accepted = [0; 3];
        for run in &settle.deliveries {
            #[cfg(feature = "planted")]
            let start = out.len();
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&run.mailbox) else {
                unknown |= self.settle_afar(by, run, Some(settle.outcome), out);
                continue;
            };
            if mailbox.stream.is_some() {
                let (count, some_unknown) = mailbox.settle_read(run, by, settle.outcome, &mut turn);
                settled += count;
                accepted[mailbox.limits.kind.index()] += u64::from(count);
                unknown |= some_unknown;
            } else {
                for seq in positions(run) {
                    match mailbox.settle(seq, by, settle.outcome, &mut turn) {
                        Some(by_consumer) => {
                            settled += u32::from(by_consumer);
                            accepted[mailbox.limits.kind.index()] += 1;
                        }
                        None => unknown |= !turn.forgives(by, run.mailbox, seq),
                    }
                }
            }
            #[cfg(feature = "planted")]
            if self.settings.plant == Some(super::Plant::AckWrongMailbox) {
                self.misdirect(run.mailbox, &mut out[start..]);
            }
            if self.dirty.last() != Some(&run.mailbox) {
                self.dirty.push(run.mailbox);
            }
        }
        if settle.outcome == Outcome::Accepted {
            self.count_acknowledged(from, settle.channel, accepted);
        }
        self.give_credit(from, settle.channel, settled, full);
        if unknown {
            self.refuse(from, settle.channel, Cause::Settle, Refusal::UnknownDelivery, out);
        }
    }

    /// What the store is told of one mailbox goes to its neighbour.
    #[cfg(feature = "planted")]
    fn misdirect(&self, from: MailboxId, out: &mut [Effect]) {
        let mut ids = self.mailboxes.keys();
        let neighbour = ids.clone().find(|id| **id > from).or_else(|| ids.next());
        for effect in out {
            if let Effect::Write(super::Write::Remove { mailbox, .. }) = effect
                && *mailbox == from
                && let Some(neighbour) = neighbour
            {
                *mailbox = *neighbour;
            }
        }
    }

    /// It gets no more until it settles, also where no prefetch bounds it.
    pub(super) fn holds_too_much(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|it| it.leased_bytes >= self.settings.memory_max)
    }

    fn count_acknowledged(&mut self, from: ConnectionId, channel: ChannelId, by_kind: [u64; 3]) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        for (flow, count) in self.flows[connection.flow].outflow.iter_mut().zip(by_kind) {
            flow.acknowledged += count;
        }
        if let Some(channel) = connection.channels.get_mut(&channel) {
            channel.outflow.acknowledged += by_kind.iter().sum::<u64>();
        }
    }

    pub(super) fn give_credit(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        settled: u32,
        full: bool,
    ) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        let Some(party) = connection.channels.get_mut(&channel) else { return };
        party.unsettled = party.unsettled.saturating_sub(settled);
        if (party.limit > 0 || full) && !connection.stalled.is_empty() {
            self.wake_stalled(from);
        }
    }

    /// Mailboxes that had something for the connection are asked again.
    pub(super) fn wake_stalled(&mut self, from: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        for id in std::mem::take(&mut connection.stalled) {
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.resume(from);
                self.dirty.push(id);
            }
        }
    }

    pub(super) fn drained(&mut self, from: ConnectionId, deliveries: u32, bytes: u64) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        connection.in_flight = connection.in_flight.saturating_sub(deliveries);
        connection.in_flight_bytes = if connection.in_flight == 0 {
            0
        } else {
            connection.in_flight_bytes.saturating_sub(bytes)
        };
        let Settings { window_deliveries, window_bytes, .. } = self.settings;
        let half = connection.has_room(window_deliveries.div_ceil(2), window_bytes.div_ceil(2));
        if half {
            if !connection.stalled.is_empty() {
                self.wake_stalled(from);
            }
            self.let_on(from);
        }
    }

    pub(super) fn qos(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        limit: u32,
        scope: QosScope,
    ) {
        let party = self.channel_mut(from, channel);
        match scope {
            QosScope::Channel => party.limit = limit,
            QosScope::NewConsumers => {
                for (consumer, id) in party.consumers.clone() {
                    let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
                    let Some(consumer) = mailbox.consumers.get_mut(from, consumer) else {
                        continue;
                    };
                    let bounded = limit > 0 || mailbox.stream.is_none();
                    if consumer.prefetch > 0 && bounded && (limit == 0 || limit > consumer.prefetch)
                    {
                        consumer.prefetch = limit;
                        let reader = consumer.id;
                        if let Some(stream) = &mut mailbox.stream {
                            stream.raise(from, reader, limit);
                        }
                        mailbox.stuck = false;
                        self.dirty.push(id);
                    }
                }
            }
        }
        self.wake_stalled(from);
    }

    /// Everything the channels, in order, hold goes back to its place.
    pub(super) fn return_leases(
        &mut self,
        from: ConnectionId,
        channels: &[ChannelId],
        outcome: Outcome,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        let mut touched = BTreeSet::new();
        for channel in channels {
            let Some(channel) = connection.channels.get_mut(channel) else { continue };
            touched.extend(&channel.touched);
            channel.unsettled = 0;
        }
        for id in touched {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            mailbox.release_read(from, channels, outcome, &mut turn);
            let mut held: Vec<(Seq, ChannelId)> = mailbox
                .leases
                .values()
                .filter(|it| it.connection == from && channels.binary_search(&it.channel).is_ok())
                .map(|lease| (lease.entry.seq, lease.channel))
                .collect();
            held.sort_unstable();
            for (seq, channel) in held {
                mailbox.settle(seq, (from, channel), outcome, &mut turn);
            }
            self.dirty.push(id);
        }
        self.wake_stalled(from);
    }

    pub(super) fn close_channels(
        &mut self,
        from: ConnectionId,
        channels: &[ChannelId],
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.forget_pledges(from, channels);
        let Some(connection) = self.connections.get_mut(&from) else { return };
        // Consumers first: what returns must not come straight back to a channel that closes.
        let mut emptied = Vec::new();
        let mut consumers = Vec::new();
        for channel in channels {
            let Some(channel) = connection.channels.get_mut(channel) else { continue };
            if let Some((address, _)) = channel.replies.take() {
                self.reply_addresses.remove(&address);
                if let Some(open) = &connection.open {
                    self.peers.adverts_mut().address_went(&open.vhost, &address);
                }
            }
            consumers.extend(std::mem::take(&mut channel.consumers));
            for id in &channel.touched {
                if let Some(mailbox) = self.mailboxes.get_mut(id) {
                    let gone = |it: &Asker| {
                        it.connection == from && channels.binary_search(&it.channel).is_ok()
                    };
                    mailbox.askers.retain(|asker| !gone(asker));
                }
            }
        }
        for (consumer, id) in consumers {
            let mut turn = carry!(self, now, out);
            if let Some(mailbox) = self.mailboxes.get_mut(&id)
                && mailbox.consumers.remove(from, consumer).is_some()
            {
                mailbox.remove_reader(from, consumer, &mut turn);
                mailbox.used = now;
                mailbox.stuck = false;
                if mailbox.consumers.is_empty() && mailbox.definition.auto_delete {
                    emptied.push(id);
                }
                self.dirty.push(id);
            }
        }
        for channel in channels {
            self.gather_passage(from, *channel);
        }
        let returned = Outcome::Modified { delay_ms: Some(0) };
        self.return_leases(from, channels, returned, now, out);
        for id in emptied {
            self.delete_mailbox_now(id, now, out);
        }
        if let Some(connection) = self.connections.get_mut(&from) {
            for channel in channels {
                if connection.channels.remove(channel).is_some() {
                    self.totals.channels_closed += 1;
                }
            }
        }
    }

    pub(super) fn close_connection(
        &mut self,
        from: ConnectionId,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.connections.get(&from) else { return };
        let channels: Vec<ChannelId> = connection.channels.keys().copied().collect();
        self.close_channels(from, &channels, now, out);
        let Some(connection) = self.connections.remove(&from) else { return };
        for id in connection.exclusives {
            self.delete_mailbox_now(id, now, out);
        }
        if let Some(open) = connection.open.filter(|_| !from.is_visitor()) {
            self.totals.connections_closed += 1;
            if let Some(vhost) = self.vhosts.get_mut(&open.vhost) {
                vhost.connections = vhost.connections.saturating_sub(1);
            }
        }
    }

    /// Publishes and settlements in one turn, so that they become durable together. What is wrong with one of them is
    /// found before the first of them is done.
    pub(super) fn commit(
        &mut self,
        from: ConnectionId,
        commands: Vec<Command>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let mut settled = BTreeSet::new();
        for command in &commands {
            match command {
                Command::Publish(publish) => {
                    let more = publish.more_keys.as_deref().map_or(&[][..], Vec::as_slice);
                    self.check_publish(from, &publish.message, more)?;
                }
                Command::Settle(settle) => {
                    for run in &settle.deliveries {
                        let Some(mailbox) = self.mailboxes.get(&run.mailbox) else { continue };
                        for seq in positions(run) {
                            let new = settled.insert((run.mailbox, seq));
                            let held = mailbox.holds(seq, from, settle.channel)
                                || self.was_revoked(from, settle.channel, run.mailbox, seq);
                            if !new || !held {
                                return Err(Refusal::UnknownDelivery);
                            }
                        }
                    }
                }
                _ => return Err(Refusal::Precondition("not part of a transaction".into())),
            }
        }
        let mut whole = true;
        for command in commands {
            match command {
                Command::Publish(publish) => whole &= self.publish(from, publish, now, out),
                Command::Settle(settle) => self.settle(from, &settle, now, out),
                _ => {}
            }
        }
        // Others than the refusing mailbox have their messages: RabbitMQ's word for it.
        if whole {
            Ok(Reply::Done)
        } else {
            Err(Refusal::Precondition("partial tx completion".into()))
        }
    }

    pub(super) fn refuse(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        cause: Cause,
        refusal: Refusal,
        out: &mut Vec<Effect>,
    ) {
        self.mark_failed(from, channel);
        out.push(Effect::NotifyDurable(from, Event::Refused { channel, cause, refusal }));
    }

    /// Where the protocol ends a channel at the first refusal, the broker does nothing more for it.
    pub(super) fn mark_failed(&mut self, from: ConnectionId, channel: ChannelId) {
        let strict = self
            .connections
            .get(&from)
            .and_then(|connection| connection.open.as_ref())
            .is_some_and(|open| open.strict_channels);
        if strict {
            self.channel_mut(from, channel).failed = true;
        }
    }
}

/// What RabbitMQ asks of those who consume a stream, in its words.
fn check_bounds(consume: &Consume, shares_credit: bool, vhost: &Name) -> Result<(), Refusal> {
    let queue = format!("queue '{}' in vhost '{vhost}'", consume.mailbox);
    if consume.prefetch == 0 {
        let text = format!("consumer prefetch count is not set for stream {queue}");
        return Err(Refusal::Precondition(text));
    }
    if consume.no_ack {
        let text = format!("automatic acknowledgement not supported by stream {queue}");
        return Err(Refusal::NotImplemented(text));
    }
    if shares_credit {
        return Err(Refusal::NotImplemented(format!("{queue} does not support global qos")));
    }
    Ok(())
}

fn positions(run: &Run) -> impl Iterator<Item = Seq> {
    (run.first.0..run.first.0 + u64::from(run.count)).map(Seq)
}
