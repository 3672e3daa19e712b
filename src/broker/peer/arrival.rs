//! Messages from another host: taken once, however often they are brought.
//!
//! How far an outbox was taken is written in the same batch as the messages: both are durable, or neither is. An outbox
//! is brought in order of position, so one number says it all.

use std::sync::Arc;

use bytes::Bytes;

use super::parcel::{Parcel, is_marked, unpack};
use super::{Arrival, Broker, Choice, HOPS_MAX, PeerEvent, Spread};
use crate::broker::batch::same_address;
use crate::broker::carry;
use crate::broker::command::{ConnectionId, MailboxId};
use crate::broker::definition::{Definition, TakenDefinition};
use crate::broker::event::{Effect, Event, Write};
use crate::broker::limits::Overflow;
use crate::broker::message::Message;
use crate::broker::name::{Name, Time};
use crate::broker::publish::{DETACH_SIZE_MAX, Origin, Targets};

/// Where messages with one address go, as long as the broker's generation stays.
#[derive(Debug)]
pub(super) struct Way {
    generation: u64,
    vhost: Name,
    exchange: Name,
    key: Bytes,
    target: MailboxId,
}

impl Broker {
    pub(super) fn arrive(
        &mut self,
        from: ConnectionId,
        arrival: Arrival,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(host) = self.peers.guest(from) else { return };
        self.note_publisher(from, out);
        let Arrival { vhost, outbox, messages } = arrival;
        let Some(neighbour) = self.peers.neighbours.get_mut(&host) else { return };
        let taken = neighbour.taken.get(&vhost).filter(|(of, _)| *of == outbox);
        let before = taken.map_or(0, |(_, upto)| upto.0);
        let Some(last) = messages.last().map(|(seq, _)| *seq) else { return };
        let total = messages.len() as u64;
        let mut count = 0;
        let fresh = messages.into_iter().filter(|(seq, _)| seq.0 > before);
        let mut fresh = fresh.map(|(_, message)| message).inspect(|_| count += 1).peekable();
        while let Some(message) = fresh.next() {
            let Some(target) = self.way_of(&vhost, &message) else {
                self.take_in(&vhost, message, now, out);
                continue;
            };
            let mut run = vec![message];
            while let Some(next) = fresh.next_if(|it| same_address(it, &run[0]) && !is_marked(it)) {
                run.push(next);
            }
            self.take_in_run(target, run, now, out);
        }
        if let Some(neighbour) = self.peers.neighbours.get_mut(&host) {
            neighbour.arrived += count;
            neighbour.repeated += total - count;
            if last.0 > before {
                neighbour.taken.insert(vhost.clone(), (outbox, last));
                let definition = TakenDefinition { host, vhost, outbox, upto: last };
                let definition = Box::new(Definition::Taken(definition));
                out.push(Effect::Write(Write::Define(definition)));
            }
        }
        out.push(Effect::NotifyDurable(
            from,
            Event::Peer(PeerEvent::Arrived { outbox, upto: last }),
        ));
    }

    /// The one mailbox to which the last message led that came from another host, if this one goes the same way.
    fn way_of(&self, vhost: &Name, message: &Message) -> Option<MailboxId> {
        let way = self.peers.way.as_ref().filter(|it| it.generation == self.generation)?;
        let same = way.key == message.key()
            && way.exchange == *message.exchange()
            && way.vhost == *vhost
            && (way.exchange.is_empty() || self.peers.arriving.is_empty())
            && !is_marked(message);
        let mailbox = self.mailboxes.get(&way.target).filter(|_| same)?;
        // Those that compare look at each message by itself.
        (mailbox.limits.dedup.is_none() && mailbox.recent.is_none()).then_some(way.target)
    }

    fn take_in_run(
        &mut self,
        target: MailboxId,
        mut run: Vec<Message>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.totals.published += run.len() as u64;
        run.iter().for_each(|it| self.totals.sizes.count(it.body().len() as u64));
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&target) else { return };
        if !mailbox.hands_on() {
            Message::detach_all(&mut run, DETACH_SIZE_MAX);
        }
        for message in run {
            if mailbox.refuses(&message) {
                let dead_letter = mailbox.limits.overflow == Overflow::RejectPublishDeadLetter;
                mailbox.refuse(&Arc::new(message), dead_letter, &mut turn);
            } else {
                mailbox.append(Arc::new(message), Time::ZERO, &mut turn);
            }
        }
        self.dirty.push(target);
    }

    /// Whether it came to rest wherever it should.
    pub(super) fn take_in(
        &mut self,
        vhost: &Name,
        message: Message,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mut parcel = unpack(message);
        self.totals.published += 1;
        self.totals.sizes.count(parcel.message.body().len() as u64);
        if let Some(moved) = parcel.moved.take() {
            return self.take_moved(vhost, parcel, &moved, now, out);
        }
        let Parcel { message, hops, keys, .. } = parcel;
        let message = Arc::new(message);
        if message.exchange().is_empty() && self.reply(vhost, &message, out) {
            return true;
        }
        let own = [Bytes::copy_from_slice(message.key())];
        let keys = if keys.is_empty() { &own[..] } else { &keys[..] };
        let (first, more) = keys.split_first().map_or((&[][..], &[][..]), |(a, b)| (&a[..], b));
        let (targets, routed) = self.follow_home(vhost, message.exchange(), first, more, &message);
        if let ([target], true, true) = (&targets[..], routed.cacheable, more.is_empty()) {
            self.peers.way = Some(Way {
                generation: self.generation,
                vhost: vhost.clone(),
                exchange: message.exchange().clone(),
                key: keys[0].clone(),
                target: *target,
            });
        }
        let goes_on = targets.is_empty() && routed.delayed.is_empty();
        let lost = goes_on
            && (!message.exchange().is_empty()
                || !self.pass_on(vhost, &message, keys, hops, now, out));
        self.totals.unroutable += u64::from(lost);
        self.delay(vhost, &routed.delayed, &message, more, now, out);
        // A dead letter keeps its id, wherever it died.
        let mailboxes = &self.mailboxes;
        let compares = |id| mailboxes.get(id).is_some_and(|it| it.limits.dedup.is_some());
        let died = targets.iter().any(compares) && message.properties().header("x-death").is_some();
        let origin = if died { Origin::Mailbox } else { Origin::Publisher };
        self.place(&targets, message, origin, now, out).taken && !lost
    }

    /// To where its mailbox lives now, if that is known and the message was not at too many hosts.
    fn pass_on(
        &mut self,
        vhost: &Name,
        message: &Arc<Message>,
        keys: &[Bytes],
        hops: u8,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let hops = hops.saturating_add(1);
        let choice = Choice::onward(message);
        let parts = self.parts_abroad(vhost, keys, choice.as_ref(), false);
        if parts.is_empty() || hops >= HOPS_MAX {
            return false;
        }
        for (outbox, keys) in parts {
            self.place_abroad(outbox, message, &keys, hops, now, out);
        }
        true
    }

    /// The outboxes to which keys of the default exchange lead, each with its keys. Where each host gets a copy, that is
    /// for who publishes to see to. A message on its way follows its mailbox wherever that moved, whatever it wants.
    pub(in crate::broker) fn parts_abroad(
        &self,
        vhost: &Name,
        keys: &[Bytes],
        choice: Option<&Choice>,
        fresh: bool,
    ) -> Vec<(MailboxId, Vec<Bytes>)> {
        let mut parts: Vec<(MailboxId, Vec<Bytes>)> = Vec::new();
        let Some(of) = self.vhosts.get(vhost) else { return parts };
        for key in keys {
            let Ok(name) = std::str::from_utf8(key) else { continue };
            let spread = of.spreads.get(name).copied();
            let outboxes: Targets = if spread == Some(Spread::Fanout) {
                self.copies_abroad(of, name, choice).filter(|_| fresh).collect()
            } else if self.is_for_here(of, name, choice) {
                continue;
            } else {
                let homes = of.away.get(name);
                let turn = self.totals.published;
                let choice = choice.filter(|_| fresh || spread == Some(Spread::Anycast));
                let host = homes.and_then(|it| self.peers.pick(it, spread, choice, turn));
                host.and_then(|it| of.outboxes.get(it)).copied().into_iter().collect()
            };
            for outbox in outboxes {
                match parts.iter_mut().find(|(id, _)| *id == outbox) {
                    Some((_, keys)) => keys.push(key.clone()),
                    None => parts.push((outbox, vec![key.clone()])),
                }
            }
        }
        parts
    }

    /// Outboxes among the targets of a message with several keys: there it comes to rest with those that lead there.
    pub(in crate::broker) fn place_keyed(
        &mut self,
        vhost: &Name,
        targets: &mut Targets,
        message: &Arc<Message>,
        more_keys: &[Bytes],
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mailboxes = &self.mailboxes;
        let abroad = |id: &MailboxId| mailboxes.get(id).is_some_and(|it| it.outbox.is_some());
        let outboxes: Vec<_> = targets.iter().copied().filter(abroad).collect();
        if outboxes.is_empty() {
            return;
        }
        targets.retain(|id| !outboxes.contains(id));
        let mut keys = vec![Bytes::copy_from_slice(message.key())];
        keys.extend_from_slice(more_keys);
        let parts = if message.exchange().is_empty() {
            let choice = Choice::of(message);
            self.parts_abroad(vhost, &keys, choice.as_ref(), true)
        } else {
            outboxes.into_iter().map(|id| (id, keys.clone())).collect()
        };
        for (outbox, keys) in parts {
            self.place_abroad(outbox, message, &keys, 0, now, out);
        }
    }

    pub(in crate::broker) fn restore_taken(&mut self, it: TakenDefinition) {
        let neighbour = self.peers.neighbours.entry(it.host).or_default();
        neighbour.taken.insert(it.vhost, (it.outbox, it.upto));
    }
}
