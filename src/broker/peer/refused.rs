//! Messages that the host they are for never takes: they leave the outbox as dead letters, so that others go on.

use std::sync::Arc;

use super::Broker;
use super::parcel::{Parcel, unpack};
use crate::broker::carry;
use crate::broker::command::{ChannelId, ConnectionId, MailboxId, Seq};
use crate::broker::dead_letter::Reason;
use crate::broker::event::Effect;
use crate::broker::lane::Entry;
use crate::broker::name::{Name, Time};
use crate::broker::value::Value;

/// Header of a dead letter: which host refused it, and why.
const REFUSAL: &str = "x-peer-refusal";

impl Broker {
    /// As a rejection by the only consumer of the outbox, with what the host says.
    pub(super) fn take_out(
        &mut self,
        from: ConnectionId,
        outbox: MailboxId,
        seq: Seq,
        reason: &str,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let channel = ChannelId(0);
        let full = self.holds_too_much(from);
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&outbox) else { return };
        let Some(host) = mailbox.outbox.clone() else { return };
        let Some(lease) = mailbox.end_lease(seq, (from, channel), &mut turn) else { return };
        let again = lease.entry.rest.redelivered;
        mailbox.discard(marked(lease.entry, &host, reason), Reason::Refused, &mut turn);
        // Whoever reads dead letters may have seen it before a crash that brought it back here.
        if again
            && mailbox.limits.dead_letter_exchange.is_some()
            && let Some(burial) = turn.burials.last_mut()
            && let Some(message) = Arc::get_mut(&mut burial.message)
        {
            message.again = true;
        }
        self.dirty.push(outbox);
        self.give_credit(from, channel, 1, full);
        let neighbour = self.peers.neighbours.entry(host).or_default();
        neighbour.refused += 1;
        neighbour.error = Some((now, reason.to_owned()));
    }
}

/// As it was published, and why it died.
fn marked(mut entry: Entry, host: &Name, reason: &str) -> Entry {
    let mut own = entry.message.detached();
    own.id = entry.message.id;
    let Parcel { message, .. } = unpack(own);
    let mut properties = message.properties().clone();
    let text = format!("host '{host}': {reason}");
    properties.headers_mut().set(REFUSAL, Value::text(&text));
    let said = message.readdressed(message.exchange(), message.key(), &properties);
    entry.message = Arc::new(said);
    entry
}
