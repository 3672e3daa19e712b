//! Deliveries that nobody settles: after a while they go back, and whoever kept them gets no more.

use std::collections::BTreeSet;

use super::command::{ChannelId, ConnectionId, ConsumerId, Extend, MailboxId, Outcome, Run, Seq};
use super::event::{Cause, Effect, Event};
use super::lease::Lease;
use super::mailbox::Mailbox;
use super::name::Time;
use super::refusal::Refusal;
use super::{Broker, Settings, carry};

/// A lease that lasted too long.
struct Overdue {
    seq: Seq,
    holder: Holder,
    timeout_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    connection: ConnectionId,
    channel: ChannelId,
    /// `None` where the message was asked for singly.
    consumer: Option<ConsumerId>,
}

/// Leases are looked at no more often than this share of the time they have.
const LOOKS: u64 = 64;

impl Mailbox {
    /// How long a delivery may stay unsettled: the consumer's word, else that of arguments and policies, else the
    /// broker's. `None` for ever.
    pub(super) fn timeout_ms(&self, own: Option<u64>, settings: &Settings) -> Option<u64> {
        let said = own.or(self.limits.consumer_timeout_ms).or(settings.consumer_timeout_ms);
        said.filter(|ms| *ms > 0)
    }

    /// Whether some of them are not held.
    fn extend(&mut self, run: &Run, by: (ConnectionId, ChannelId), now: Time) -> bool {
        let mut unknown = false;
        for seq in (run.first.0..run.first.0 + u64::from(run.count)).map(Seq) {
            match self.leases.get_mut(seq).filter(|lease| lease.is_of(by)) {
                Some(lease) => lease.runs_from = now,
                None => unknown = true,
            }
        }
        unknown
    }

    fn lease_timeout_ms(&self, lease: &Lease, settings: &Settings) -> Option<u64> {
        let consumer = lease.consumer.and_then(|id| self.consumers.get(lease.connection, id));
        self.timeout_ms(consumer.and_then(|it| it.timeout_ms), settings)
    }

    /// Those whose time is over, in order of position. Finds out when to look again.
    fn overdue(&mut self, now: Time, settings: &Settings) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        let mut next: Option<Time> = None;
        for lease in self.leases.values() {
            let Some(timeout_ms) = self.lease_timeout_ms(lease, settings) else { continue };
            let due = lease.runs_from.plus_ms(timeout_ms);
            if due <= now {
                let Lease { connection, channel, consumer, .. } = *lease;
                let holder = Holder { connection, channel, consumer };
                overdue.push(Overdue { seq: lease.entry.seq, holder, timeout_ms });
            } else {
                let due = due.max(now.plus_ms(timeout_ms / LOOKS));
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        self.leases_due = next;
        overdue.sort_unstable_by_key(|it| it.seq);
        overdue
    }
}

impl Broker {
    /// The time to settle deliveries begins anew. One that is not held is an error: whoever works on it shall know.
    pub(super) fn extend(
        &mut self,
        from: ConnectionId,
        extend: &Extend,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let by = (from, extend.channel);
        let mut unknown = false;
        for run in &extend.deliveries {
            let Some(mailbox) = self.mailboxes.get_mut(&run.mailbox) else {
                unknown |=
                    !self.peers.afar.is_alias(run.mailbox) || self.settle_afar(by, run, None, out);
                continue;
            };
            unknown |= match mailbox.stream.is_some() {
                true => mailbox.extend_read(run, by, now, &self.settings),
                false => mailbox.extend(run, by, now),
            };
        }
        if unknown {
            self.refuse(from, extend.channel, Cause::Settle, Refusal::UnknownDelivery, out);
        }
    }

    /// Leases that lasted too long go back, without counting as attempts. Their consumers end; a client that cannot be
    /// told so, or that asked for the message singly, loses its channel.
    pub(super) fn take_back(&mut self, id: MailboxId, now: Time, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        let overdue = mailbox.overdue(now, &self.settings);
        let mut holders = BTreeSet::new();
        for Overdue { seq, holder, timeout_ms } in overdue {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            let Holder { connection, channel, .. } = holder;
            let by_consumer =
                mailbox.settle(seq, (connection, channel), Outcome::Released, &mut turn);
            let Some(party) = self.connections.get_mut(&connection) else { continue };
            let Some(party) = party.channels.get_mut(&channel) else { continue };
            party.revoke(id, seq);
            if by_consumer == Some(true) {
                party.unsettled = party.unsettled.saturating_sub(1);
            }
            holders.insert((holder, timeout_ms));
        }
        for (holder, timeout_ms) in holders {
            self.end_holder(holder, id, timeout_ms, now, out);
            self.wake_stalled(holder.connection);
        }
    }

    fn end_holder(
        &mut self,
        Holder { connection, channel, consumer }: Holder,
        id: MailboxId,
        timeout_ms: u64,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        if self.failed(connection, channel) {
            return;
        }
        let Some(party) = self.connections.get_mut(&connection) else { return };
        let strict = party.open.as_ref().is_some_and(|open| open.strict_channels);
        let told = party.open.as_ref().is_some_and(|open| open.cancel_notify);
        match consumer {
            Some(consumer) if told || !strict => {
                let channels = party.channels.get_mut(&channel);
                let lives = channels.and_then(|it| it.consumers.remove(&consumer)).is_some();
                if lives {
                    out.push(Effect::Notify(connection, Event::Cancelled { channel, consumer }));
                    self.lose_consumer(connection, consumer, id, now, out);
                }
            }
            _ if strict => {
                let refusal = Refusal::DeliveryTimeout { channel, timeout_ms };
                self.refuse(connection, channel, Cause::Timeout, refusal, out);
            }
            _ => {}
        }
    }

    pub(super) fn was_revoked(
        &self,
        connection: ConnectionId,
        channel: ChannelId,
        mailbox: MailboxId,
        seq: Seq,
    ) -> bool {
        let connection = self.connections.get(&connection);
        let channel = connection.and_then(|it| it.channels.get(&channel));
        channel.is_some_and(|channel| channel.revoked.contains_key(&(mailbox, seq)))
    }
}
