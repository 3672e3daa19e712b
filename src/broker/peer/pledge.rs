//! Confirms that wait until other hosts have the message, where the publisher asks for that.
//!
//! A pledge holds a confirm back while copies of its messages lie in outboxes. Each copy that its host took redeems a
//! part of it; one that leaves the outbox otherwise breaks it, and the confirm becomes a refusal.

use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use crate::broker::command::{ChannelId, ConnectionId, MailboxId, Publish, PublishBatch, Seq};
use crate::broker::event::{Effect, Event, Missed};
use crate::broker::mailbox::Mailbox;
use crate::broker::name::Time;
use crate::broker::refusal::Refusal;
use crate::broker::turn::Turn;

/// Copies that a connection's confirms may wait for. Further messages are refused.
const WAITS_MAX: usize = 65_536;

/// Which confirm waits for a copy, and the message's place in its batch.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Pledged {
    connection: ConnectionId,
    number: u64,
    pub(in crate::broker) index: u32,
}

/// The confirms of a connection that wait.
#[derive(Debug, Default)]
pub(in crate::broker) struct Pledges {
    last: u64,
    open: BTreeMap<u64, Pledge>,
    /// Copies, over all of them.
    waits: usize,
}

#[derive(Debug)]
struct Pledge {
    channel: ChannelId,
    /// What is said in the end. `None` while its messages come to rest.
    event: Option<Event>,
    waits: BTreeSet<(MailboxId, Seq)>,
}

impl Pledge {
    /// A copy of the message at this place of the batch will not come home.
    fn breach(&mut self, index: u32) {
        match &mut self.event {
            Some(Event::Confirmed { taken, .. }) => *taken = false,
            Some(Event::BatchConfirmed { taken, missed, .. }) => {
                if let Err(at) = missed.binary_search_by_key(&index, |(index, _)| *index) {
                    missed.insert(at, (index, Missed::Lost));
                    *taken = taken.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
}

impl Mailbox {
    /// The last message that came to rest here, if other hosts are to take it, is one that a confirm waits for.
    pub(in crate::broker) fn pledge(&mut self, pledged: Pledged, turn: &mut Turn<'_>) {
        let seq = Seq(self.next.0 - 1);
        let connection = turn.connections.get_mut(&pledged.connection);
        let Some(pledges) = connection.and_then(|it| it.pledges.as_mut()) else { return };
        if self.outbox.is_some()
            && let Some(pledge) = pledges.open.get_mut(&pledged.number)
            && pledge.waits.insert((self.id, seq))
        {
            pledges.waits += 1;
            self.pledges.insert(seq, pledged);
        }
    }

    /// A message left; `kept` where the other host has it.
    #[inline]
    pub(in crate::broker) fn redeem(&mut self, seq: Seq, kept: bool, turn: &mut Turn<'_>) {
        if !self.pledges.is_empty() {
            self.redeem_one(seq, kept, turn);
        }
    }

    #[cold]
    fn redeem_one(&mut self, seq: Seq, kept: bool, turn: &mut Turn<'_>) {
        let Some(pledged) = self.pledges.remove(&seq) else { return };
        let connection = turn.connections.get_mut(&pledged.connection);
        let Some(pledges) = connection.and_then(|it| it.pledges.as_mut()) else { return };
        let Some(pledge) = pledges.open.get_mut(&pledged.number) else { return };
        if !pledge.waits.remove(&(self.id, seq)) {
            return;
        }
        pledges.waits -= 1;
        if !kept {
            pledge.breach(pledged.index);
        }
        if pledge.waits.is_empty()
            && let Some(event) = pledge.event.take()
        {
            pledges.open.remove(&pledged.number);
            turn.out.push(Effect::NotifyDurable(pledged.connection, event));
        }
    }

    /// Which confirm waits for this message.
    pub(in crate::broker) fn pledged(&self, seq: Seq) -> Option<Pledged> {
        self.pledges.get(&seq).copied()
    }

    /// Everything went that is not on its way.
    pub(in crate::broker) fn breach_ready(&mut self, turn: &mut Turn<'_>) {
        let gone = self.pledges.keys().filter(|seq| self.leases.get(**seq).is_none());
        for seq in gone.copied().collect::<Vec<_>>() {
            self.redeem_one(seq, false, turn);
        }
    }

    /// The mailbox went.
    pub(in crate::broker) fn breach_all(&mut self, turn: &mut Turn<'_>) {
        for seq in self.pledges.keys().copied().collect::<Vec<_>>() {
            self.redeem_one(seq, false, turn);
        }
    }
}

impl Broker {
    /// As any publish, but the confirm waits for the hosts to which the message goes.
    pub(in crate::broker) fn publish_home(
        &mut self,
        from: ConnectionId,
        mut publish: Publish,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        publish.home = false;
        let (channel, tag) = (publish.channel, publish.confirm);
        let Some(tag) = tag else { return self.publish(from, publish, now, out) };
        let Some(pledged) = self.begin_pledge(from, channel, 1) else {
            let event = Event::Confirmed { channel, tag, taken: false };
            out.push(Effect::NotifyDurable(from, event));
            return false;
        };
        self.pledging = Some(pledged);
        let taken = self.publish(from, publish, now, out);
        self.pledging = None;
        self.seal_pledge(pledged, out);
        taken
    }

    pub(in crate::broker) fn publish_batch_home(
        &mut self,
        from: ConnectionId,
        mut batch: PublishBatch,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        batch.home = false;
        let (channel, tag, count) = (batch.channel, batch.confirm, batch.messages.len());
        let Some(tag) = tag else { return self.publish_batch(from, batch, now, out) };
        let Some(pledged) = self.begin_pledge(from, channel, count) else {
            let text = format!("more than {WAITS_MAX} messages wait for other hosts");
            let missed = Missed::Refused(Refusal::Precondition(text));
            let missed = (0..count as u32).map(|index| (index, missed.clone())).collect();
            let duplicates = Vec::new();
            let event = Event::BatchConfirmed { channel, tag, taken: 0, missed, duplicates };
            return out.push(Effect::NotifyDurable(from, event));
        };
        self.pledging = Some(pledged);
        self.publish_batch(from, batch, now, out);
        self.pledging = None;
        self.seal_pledge(pledged, out);
    }

    fn begin_pledge(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        count: usize,
    ) -> Option<Pledged> {
        let party = self.connections.entry(connection).or_default();
        let pledges = party.pledges.get_or_insert_default();
        if pledges.waits + count > WAITS_MAX {
            return None;
        }
        pledges.last += 1;
        let number = pledges.last;
        pledges.open.insert(number, Pledge { channel, event: None, waits: BTreeSet::new() });
        Some(Pledged { connection, number, index: 0 })
    }

    /// Its messages are at rest: holds back the confirm, which was said last, if there is something to wait for.
    fn seal_pledge(&mut self, pledged: Pledged, out: &mut Vec<Effect>) {
        let connection = self.connections.get_mut(&pledged.connection);
        let Some(pledges) = connection.and_then(|it| it.pledges.as_mut()) else { return };
        let Some(pledge) = pledges.open.get_mut(&pledged.number) else { return };
        let confirm = |it: &mut Effect| {
            let Effect::NotifyDurable(to, event) = it else { return false };
            let said = matches!(event, Event::Confirmed { .. } | Event::BatchConfirmed { .. });
            *to == pledged.connection && said
        };
        if !pledge.waits.is_empty()
            && let Some(Effect::NotifyDurable(_, event)) = out.pop_if(confirm)
        {
            pledge.event = Some(event);
        } else {
            pledges.open.remove(&pledged.number);
        }
    }

    /// Nobody waits for these confirms any longer.
    pub(in crate::broker) fn forget_pledges(&mut self, from: ConnectionId, channels: &[ChannelId]) {
        let connection = self.connections.get_mut(&from);
        let Some(pledges) = connection.and_then(|it| it.pledges.as_mut()) else { return };
        let of_these = |it: &Pledge| channels.contains(&it.channel);
        for (_, pledge) in pledges.open.extract_if(.., |_, it| of_these(it)) {
            pledges.waits -= pledge.waits.len();
            for (id, seq) in pledge.waits {
                if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                    mailbox.pledges.remove(&seq);
                }
            }
        }
    }

    /// Copies for which confirms wait.
    #[cfg(test)]
    pub(in crate::broker) fn pledged_copies(&self) -> (usize, usize) {
        let connections = self.connections.values().filter_map(|it| it.pledges.as_ref());
        let mailboxes = self.mailboxes.values().map(|it| it.pledges.len());
        (connections.map(|it| it.waits).sum(), mailboxes.sum())
    }
}
