//! Outboxes: what waits for another host rests in an ordinary durable mailbox, one for each host and virtual host.
//!
//! The link to the host takes it as an exclusive consumer, in order of position. Positions never repeat, also not
//! after a crash that lost some: each start of the broker counts on from a number of its own.

use super::{Broker, PeerEvent};
use crate::broker::carry;
use crate::broker::command::{ChannelId, ConnectionId, ConsumerId, MailboxId, Seq};
use crate::broker::consumer::Consumer;
use crate::broker::definition::MailboxDefinition;
use crate::broker::event::{Effect, Event};
use crate::broker::limits::Limits;
use crate::broker::mailbox::Mailbox;
use crate::broker::name::{Name, Time};
use crate::broker::value::{Table, Value};

/// What the names of outboxes begin with.
pub const OUTBOX_PREFIX: &str = "peer/";
/// Argument of an outbox: the host.
const OUTBOX: &str = "x-pillarbox-outbox";
/// Messages on their way over a link that were not taken yet.
const UNTAKEN_MAX: u32 = 4096;
/// Positions of each second in which a start can fall. Still exact in a JSON number for a century.
const START_BITS: u32 = 20;

pub(crate) fn is_outbox_name(name: &str) -> bool {
    name.starts_with(OUTBOX_PREFIX)
}

/// The host whose outbox the mailbox is.
pub(crate) fn outbox_host(definition: &MailboxDefinition) -> Option<Name> {
    let host = definition.name.strip_prefix(OUTBOX_PREFIX)?;
    let said = definition.arguments.get(OUTBOX).and_then(Value::as_str);
    (said == Some(host)).then(|| host.into())
}

impl Mailbox {
    /// Positions of this start of the broker lie above all earlier ones.
    pub(crate) fn count_from(&mut self, start: u64) {
        if self.outbox.is_some() {
            self.next = self.next.max(Seq(start << START_BITS));
        }
    }

    /// When the oldest message that is here came.
    pub(super) fn oldest(&self) -> Option<Time> {
        let leased = self.leases.values().map(|lease| lease.entry.rest.since).min();
        let ready = self.lanes.iter().filter_map(crate::broker::lane::Lane::oldest).min();
        [leased, ready].into_iter().flatten().min()
    }
}

impl Broker {
    /// Makes the outbox where there is none. `None` in a virtual host that does not exist.
    pub(super) fn outbox(
        &mut self,
        vhost: &Name,
        host: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Option<MailboxId> {
        let found = self.vhosts.get(vhost)?;
        if let Some(&id) = found.outboxes.get(host) {
            return Some(id);
        }
        let name = Name::from(format!("{OUTBOX_PREFIX}{host}"));
        if found.mailboxes.contains_key(&name) {
            return None;
        }
        let mut arguments = Table::new();
        arguments.set(OUTBOX, Value::text(host));
        let definition = MailboxDefinition {
            id: self.new_mailbox_id(now),
            vhost: vhost.clone(),
            name,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments,
            epoch: 0,
        };
        let id = self.create_mailbox(definition, Limits::default(), None, now, out);
        if let Some(carrier) = self.peers.neighbours.get(host).and_then(|it| it.carrier) {
            self.carry_from(carrier, id, out);
        }
        Some(id)
    }

    pub(super) fn carry(
        &mut self,
        from: ConnectionId,
        host: &Name,
        tags: Vec<Name>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let neighbour = self.peers.neighbours.entry(host.clone()).or_default();
        if neighbour.carrier.is_some_and(|it| it != from) {
            let reason = format!("another link to host '{host}' is up");
            return out.push(Effect::Notify(from, Event::ForceClose(reason)));
        }
        neighbour.carrier = Some(from);
        neighbour.carrier_since = now;
        neighbour.error = None;
        self.note_tags(host, tags, out);
        self.stop_sending_on(host);
        let all: Vec<_> =
            self.vhosts.values().filter_map(|it| it.outboxes.get(host)).copied().collect();
        for id in all {
            self.carry_from(from, id, out);
        }
    }

    fn carry_from(&mut self, from: ConnectionId, id: MailboxId, out: &mut Vec<Effect>) {
        let channel = ChannelId(0);
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        self.peers.consumers += 1;
        let consumer = ConsumerId(self.peers.consumers);
        mailbox.consumers.add(Consumer {
            connection: from,
            channel,
            id: consumer,
            tag: mailbox.name.clone(),
            no_ack: false,
            // Two that take in turn would bring positions out of order, and what comes late is taken for a repeat.
            exclusive: true,
            priority: 0,
            prefetch: UNTAKEN_MAX,
            unsettled: 0,
            // A host may take its time.
            timeout_ms: Some(0),
            arguments: Table::new(),
            search: None,
            keeps: None,
        });
        mailbox.stuck = false;
        let vhost = mailbox.vhost.clone();
        self.channel_mut(from, channel).consumers.insert(consumer, id);
        self.touch(from, channel, id);
        self.dirty.push(id);
        out.push(Effect::Notify(from, Event::Peer(PeerEvent::Carries { outbox: id, vhost })));
    }

    /// A message comes to rest in an outbox, with what must be known of it where it arrives.
    pub(in crate::broker) fn place_abroad(
        &mut self,
        id: MailboxId,
        message: &std::sync::Arc<super::Message>,
        keys: &[bytes::Bytes],
        hops: u8,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        mailbox.come_to_rest(super::pack(message, keys, hops), Time::ZERO, &mut turn);
        if let Some(pledged) = self.pledging {
            mailbox.pledge(pledged, &mut turn);
        }
        self.dirty.push(id);
    }
}
