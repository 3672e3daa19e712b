//! A mailbox that lives at another host now gives way: nobody takes from it here any longer, and what rests in it goes
//! to its new home, each message out of here and into the outbox in one batch.
//!
//! ```text
//! home --a host with a higher epoch is known--> gives way --empty, and others know--> gone
//!   ^---------- no such host is left, and it holds something ------'
//! ```
//!
//! That is a rule about what is known, not a step of a procedure: whoever starts again learns the same again. Until it
//! is gone, what comes for it is passed on.

use std::cmp::Reverse;
use std::sync::Arc;

use super::parcel::{Moved, Parcel, pack_moved};
use super::{Broker, Home, Onward, Recent};
use crate::broker::command::{ConnectionId, MailboxId, Outcome};
use crate::broker::delay::Waiting;
use crate::broker::event::{Effect, Rest, Write};
use crate::broker::lane::Entry;
use crate::broker::mailbox::Mailbox;
use crate::broker::message::{Message, Properties, Source};
use crate::broker::name::{Name, Time};
use crate::broker::neutral::NEUTRAL;
use crate::broker::paging::Recall;
use crate::broker::refusal::Refusal;
use crate::broker::{Definition, carry};

/// So long it passes on what comes for it at least, and then until all hosts know of the new home.
const LINGERS_MS: u64 = 20_000;

impl Mailbox {
    /// Its home is another host: here it only passes on what comes.
    pub(in crate::broker) fn gave_way(&self) -> bool {
        matches!(self.onward, Some(Onward::Home(_)))
    }

    /// What did not go to its new home yet.
    pub(in crate::broker) fn left(&self) -> u64 {
        self.ready
            + self.unsettled()
            + self.delayed.len()
            + self.recalls.len()
            + self.unburied.len()
    }

    fn gives_way_to(&self, other: &Home) -> bool {
        let own = self.definition.epoch;
        other.epoch.0 > own || (own > 0 && (other.epoch, other.id) < (Reverse(own), self.id))
    }
}

impl Broker {
    /// Names of which other hosts said something: is this host still their home?
    pub(in crate::broker) fn settle_homes(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (vhost, name) in std::mem::take(&mut self.peers.stirred) {
            let Some(found) = self.vhosts.get(&vhost) else { continue };
            let Some(&id) = found.mailboxes.get(&name) else { continue };
            let homes = found.away.get(&name);
            let first = homes.and_then(|it| it.first()).cloned();
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            if mailbox.is_hidden() {
                continue;
            }
            let home = first.filter(|it| mailbox.gives_way_to(it));
            let own = mailbox.definition.epoch;
            let lingers = homes.is_some_and(|all| all.iter().any(|it| it.epoch.0 < own));
            match home {
                Some(home) => self.give_way(id, home.host, now, out),
                None if !mailbox.gave_way() => {
                    if !lingers {
                        mailbox.recent = None;
                        self.has_arrived(id);
                    } else if mailbox.recent.is_none() {
                        mailbox.recent = Some(Box::<Recent>::default());
                    }
                }
                None if mailbox.left() == 0 => self.delete_mailbox_now(id, now, out),
                None => self.take_back_home(id, now),
            }
        }
    }

    /// Whoever it moved to has it no longer, and it is not empty: this host is its home again.
    pub(in crate::broker) fn take_back_home(&mut self, id: MailboxId, now: Time) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        mailbox.onward = None;
        mailbox.used = now;
        mailbox.stuck = false;
        self.generation += 1;
        self.dirty.push(id);
    }

    fn give_way(&mut self, id: MailboxId, host: Name, now: Time, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        let before = mailbox.onward.replace(Onward::Home(host.clone()));
        let (vhost, to) = (mailbox.vhost.clone(), mailbox.name.clone());
        self.dirty.push(id);
        if before.is_some() {
            return;
        }
        mailbox.recent = None;
        mailbox.lingers_until = now.plus_ms(LINGERS_MS);
        self.generation += 1;
        self.peers.arriving.remove(&id);
        self.send_consumers_away(id, out);
        self.return_all_leases(id, now, out);
        // In its place among what goes there: what an exchange sent to both hosts before was handed out here.
        let Some(outbox) = self.outbox(&vhost, &host, now, out) else { return };
        let word = Message::build(&Source {
            exchange: &"".into(),
            key: to.as_bytes(),
            properties: &Properties::default(),
            body: &[],
            form: &NEUTRAL,
            persistent: true,
            accepted: now,
        });
        let (since, expires) = (now, Time::ZERO);
        let moved = Moved { to, since, expires, attempts: 0, gave_way: true };
        self.place_moved(outbox, word, &moved, 0, now, out);
    }

    /// From now on it gets what exchanges here have for it.
    fn has_arrived(&mut self, id: MailboxId) {
        if self.peers.arriving.remove(&id) {
            self.generation += 1;
        }
    }

    /// As if the mailbox were deleted; but what they hold goes back.
    fn send_consumers_away(&mut self, id: MailboxId, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        let (name, vhost) = (mailbox.name.clone(), mailbox.vhost.clone());
        let looking = mailbox.looks.drain();
        let askers: Vec<_> =
            std::mem::take(&mut mailbox.askers).into_iter().chain(looking).collect();
        let consumers = mailbox.consumers.drain();
        self.cancel_all(consumers, out);
        for asker in askers {
            let result = Err(self.no_mailbox(&vhost, &name));
            self.answer(asker.connection, asker.channel, asker.ticket, result, out);
        }
    }

    fn return_all_leases(&mut self, id: MailboxId, now: Time, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get(&id) else { return };
        let held = mailbox.leases.values();
        let held = held.map(|it| (it.entry.seq, it.connection, it.channel));
        let mut held: Vec<_> = held.collect();
        held.sort_unstable();
        let mut relieved: Vec<ConnectionId> = Vec::new();
        for (seq, connection, channel) in held {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            let consumed = mailbox.settle(seq, (connection, channel), Outcome::Released, &mut turn);
            let party = self.connections.get_mut(&connection);
            if consumed == Some(true)
                && let Some(channel) = party.and_then(|it| it.channels.get_mut(&channel))
            {
                channel.unsettled = channel.unsettled.saturating_sub(1);
            }
            let party = self.connections.get_mut(&connection);
            if let Some(channel) = party.and_then(|it| it.channels.get_mut(&channel)) {
                channel.revoke(id, seq);
            }
            if relieved.last() != Some(&connection) {
                relieved.push(connection);
            }
        }
        for connection in relieved {
            self.wake_stalled(connection);
        }
    }

    /// Sends on what is in memory. The rest comes from the store, and then this is called again.
    pub(super) fn hand_over(
        &mut self,
        id: MailboxId,
        host: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(vhost) = self.mailboxes.get(&id).map(|it| it.vhost.clone()) else { return };
        let Some(outbox) = self.outbox(&vhost, host, now, out) else { return };
        loop {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            let Some(entry) = mailbox.take_fresh(&mut turn) else { break };
            mailbox.remove_stored(&entry, &mut turn);
            mailbox.counts.settled += 1;
            mailbox.release_key(entry.seq);
            self.send_home(outbox, id, entry, now, out);
        }
        self.hand_over_delayed(id, outbox, now, out);
        self.end_former_home(id, host, now, out);
    }

    /// Also what waits for its time, which goes along.
    fn hand_over_delayed(
        &mut self,
        id: MailboxId,
        outbox: MailboxId,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        loop {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            let Some(at) = mailbox.delayed.first().filter(|_| !mailbox.recalls.is_full()) else {
                return;
            };
            match mailbox.delayed.take(at) {
                Some(Waiting::Hot(entry)) => {
                    *turn.memory -= entry.message.footprint();
                    mailbox.remove_stored(&entry, &mut turn);
                    mailbox.counts.settled += 1;
                    mailbox.release_key(entry.seq);
                    self.send_home(outbox, id, *entry, now, out);
                }
                Some(Waiting::Cold { seen, attempts }) => {
                    mailbox.recalls.add(at.1, Recall::Moved { due: at.0, seen, attempts });
                }
                None => {}
            }
        }
    }

    fn send_home(
        &mut self,
        outbox: MailboxId,
        from: MailboxId,
        entry: Entry,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(mailbox) = self.mailboxes.get(&from) else { return };
        let Rest { since, expires, deliver_at, attempts, redelivered, .. } = entry.rest;
        let to = mailbox.name.clone();
        let mut message = entry.message.detached();
        (message.id, message.again) = (entry.message.id, redelivered);
        message.deliver_at = deliver_at;
        let moved = Moved { to, since, expires, attempts, gave_way: false };
        self.place_moved(outbox, message, &moved, 0, now, out);
    }

    /// In an outbox its time to live does not run anew: its home sees to it.
    fn place_moved(
        &mut self,
        outbox: MailboxId,
        message: Message,
        moved: &Moved,
        hops: u8,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&outbox) else { return };
        let message = Arc::new(pack_moved(&Arc::new(message), moved, hops));
        let rest = Rest {
            since: now,
            expires: Time::ZERO,
            deliver_at: Time::ZERO,
            lane: 0,
            attempts: 0,
            redelivered: message.again,
        };
        mailbox.durable_first = mailbox.next;
        mailbox.settle_down(message, rest, &mut turn);
        self.dirty.push(outbox);
    }

    /// What rested in a mailbox at its former home comes here, or goes on to where it lives now; false where it goes nowhere.
    pub(super) fn take_moved(
        &mut self,
        vhost: &Name,
        parcel: Parcel,
        moved: &Moved,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Parcel { message, hops, .. } = parcel;
        let found = self.vhosts.get(vhost);
        let id = found.and_then(|it| it.mailboxes.get(&moved.to)).copied();
        let mut turn = carry!(self, now, out);
        let Some((id, mailbox)) = id.and_then(|id| Some((id, self.mailboxes.get_mut(&id)?))) else {
            let next = found.and_then(|it| it.outboxes.get(&it.away.get(&moved.to)?.first()?.host));
            let next = next.copied().filter(|_| hops + 1 < super::HOPS_MAX);
            match next {
                _ if moved.gave_way => {}
                Some(outbox) => self.place_moved(outbox, message, moved, hops + 1, now, out),
                None => {
                    self.totals.unroutable += 1;
                    return false;
                }
            }
            return true;
        };
        if moved.gave_way {
            self.has_arrived(id);
            return true;
        }
        if mailbox.is_hidden() || mailbox.stream.is_some() {
            self.totals.unroutable += 1;
            return false;
        }
        if mailbox.recent.as_mut().is_some_and(|it| !it.is_first(&message)) {
            mailbox.counts.duplicates += 1;
            return true;
        }
        let rest = Rest {
            since: moved.since,
            expires: moved.expires,
            deliver_at: message.deliver_at,
            lane: mailbox.lane_of(message.priority()) as u8,
            attempts: moved.attempts,
            redelivered: message.again,
        };
        mailbox.settle_down(Arc::new(message), rest, &mut turn);
        self.dirty.push(id);
        true
    }

    /// It is empty, and passed on what came for a while: does everybody know of its new home?
    fn end_former_home(&mut self, id: MailboxId, host: &Name, now: Time, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        if mailbox.left() > 0 || mailbox.lingers_until > now {
            return;
        }
        mailbox.lingers_until = now.plus_ms(LINGERS_MS);
        let (vhost, name) = (mailbox.vhost.clone(), mailbox.name.clone());
        // Who is linked has brought what it had for this host.
        let neighbours = self.peers.neighbours.values().filter(|it| it.is_of_now());
        let linked = neighbours.map(|it| it.carrier.filter(|_| it.guest.is_some()));
        if linked.collect::<Option<Vec<_>>>().is_some() {
            self.ask_whether_all_know(&vhost, &name, host, out);
        }
    }

    /// The mailbox is this host's from now on, with a higher epoch than it had.
    pub(super) fn come_home(
        &mut self,
        id: MailboxId,
        epoch: u64,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        self.peers.adverts_mut().mailbox_went(mailbox);
        mailbox.definition.epoch = epoch;
        self.peers.adverts_mut().mailbox_came(mailbox);
        if mailbox.durable() {
            let definition = Box::new(Definition::Mailbox(mailbox.definition.clone()));
            out.push(Effect::Write(Write::Define(definition)));
        }
        self.peers.stirred.insert((mailbox.vhost.clone(), mailbox.name.clone()));
        self.take_back_home(id, now);
    }

    /// Asked for by its name, it is where its home is.
    pub(in crate::broker) fn elsewhere(&self, mailbox: &Mailbox) -> Option<Refusal> {
        match &mailbox.onward {
            Some(Onward::Home(host)) => Some(Refusal::Elsewhere {
                host: host.clone(),
                name: mailbox.name.clone(),
                vhost: mailbox.vhost.clone(),
            }),
            _ => None,
        }
    }
}
