//! What one call into the broker carries along: the time, the epoch, and where effects go.

use std::collections::{BTreeMap, BTreeSet};

use super::burst::Bursts;
use super::command::{ChannelId, ConnectionId, MailboxId, Seq};
use super::connection::Connection;
use super::dead_letter::{Burial, Grave, Reason};
use super::event::{Delivery, Effect, Write};
use super::keep::Keeping;
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::Time;
use super::{Deaths, Epoch, ProtocolFlow, Settings, Waits};

/// Borrows of everything a mailbox needs beside itself.
pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) epoch: Epoch,
    pub(super) durable: Epoch,
    pub(super) settings: &'a Settings,
    pub(super) connections: &'a mut BTreeMap<ConnectionId, Connection>,
    pub(super) out: &'a mut Vec<Effect>,
    pub(super) bursts: Bursts,
    /// Messages on their way to a dead-letter exchange, or due from a delay; routed when the mailbox is done.
    pub(super) burials: &'a mut Vec<Burial>,
    /// Settled messages that are kept, or put back.
    pub(super) keepings: &'a mut Vec<Keeping>,
    /// Mailboxes that wait for a batch to become durable.
    pub(super) awaiting: &'a mut BTreeSet<MailboxId>,
    /// Bytes of messages in memory, over all mailboxes.
    pub(super) memory: &'a mut u64,
    /// By protocol, as connections say where.
    pub(super) flows: &'a mut [ProtocolFlow],
    pub(super) deaths: &'a mut Deaths,
    pub(super) waits: &'a mut Waits,
}

impl Turn<'_> {
    pub(super) fn write(&mut self, write: Write) {
        // A run of neighbouring removals is one record.
        if let Write::Remove { mailbox, first, count } = &write
            && let Some(Effect::Write(Write::Remove { mailbox: last, first: start, count: before })) =
                self.out.last_mut()
            && last == mailbox
            && start.0 + u64::from(*before) == first.0
        {
            *before += count;
            return;
        }
        self.out.push(Effect::Write(write));
    }

    /// Whether the channel settles what was taken back from it: that is no error.
    pub(super) fn forgives(
        &mut self,
        (connection, channel): (ConnectionId, ChannelId),
        mailbox: MailboxId,
        seq: Seq,
    ) -> bool {
        let connection = self.connections.get_mut(&connection);
        let channel = connection.and_then(|it| it.channels.get_mut(&channel));
        channel.is_some_and(|channel| channel.forgive(mailbox, seq))
    }

    pub(super) fn deliver(&mut self, to: ConnectionId, delivery: Delivery) {
        self.bursts.add(to, delivery, self.out);
    }

    /// With a position, the message waits there for its place.
    pub(super) fn bury(
        &mut self,
        mailbox: &Mailbox,
        message: &Message,
        reason: Reason,
        waits: Option<Seq>,
    ) {
        let burial = self.bury_at(mailbox, message, reason, &Grave::of(mailbox));
        burial.waits = waits.map(|seq| (mailbox.id, seq));
    }

    /// The same, at another place than the mailbox says.
    pub(super) fn bury_at(
        &mut self,
        mailbox: &Mailbox,
        message: &Message,
        reason: Reason,
        grave: &Grave,
    ) -> &mut Burial {
        *match reason {
            Reason::Rejected => &mut self.deaths.rejected,
            Reason::Expired => &mut self.deaths.expired,
            Reason::MaxLength => &mut self.deaths.length,
            Reason::DeliveryLimit => &mut self.deaths.delivery_limit,
            Reason::Refused => &mut self.deaths.refused,
        } += 1;
        self.burials.push_mut(Burial::dead(mailbox, grave, message, reason, self.now))
    }
}
