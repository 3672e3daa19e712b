//! Hosts that are gone for good: what is known of them goes, and what waits for them is dropped or goes elsewhere.

use std::sync::Arc;

use super::parcel::{Parcel, unpack};
use super::{Broker, Choice, PeerEvent};
use crate::broker::command::{ConnectionId, MailboxId};
use crate::broker::event::{Effect, Event, Reply};
use crate::broker::lane::Entry;
use crate::broker::message::Message;
use crate::broker::name::{Name, Time};
use crate::broker::refusal::Refusal;
use crate::broker::{SERVER, carry};

/// What becomes of the messages that wait for a host that is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// There must be none.
    Absent,
    Dropped,
    /// As if they had just come from another host: to where their mailboxes live now.
    Routed,
    SentTo(Name),
}

/// Where what waits in an outbox goes instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Onward {
    Here,
    To(Name),
    /// Of a mailbox that moved: that host is its home now.
    Home(Name),
}

impl Broker {
    /// How many messages waited for it.
    pub(in crate::broker) fn forget_peer(
        &mut self,
        from: ConnectionId,
        host: &Name,
        fate: &Fate,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_administrator(from)?;
        self.check_gone(host)?;
        if let Fate::SentTo(to) = fate {
            self.check_successor(host, to)?;
        }
        let outboxes = self.outboxes_of(host);
        let waiting = outboxes.iter().filter_map(|id| self.mailboxes.get(id));
        let waiting: u64 = waiting.map(|it| it.ready + it.unsettled()).sum();
        if *fate == Fate::Absent && waiting > 0 {
            let text = format!("{waiting} messages wait for host '{host}': drop or redirect them");
            return Err(Refusal::Precondition(text));
        }
        let Some(neighbour) = self.peers.neighbours.get_mut(host) else {
            return Ok(Reply::Counted(0));
        };
        // How far its outboxes were taken is kept: if it comes back after all, its repeats are known.
        (neighbour.run, neighbour.known, neighbour.error) = (0, None, None);
        let routes: Vec<_> = neighbour.routes.values().map(|it| it.route.clone()).collect();
        self.note_tags(host, Vec::new(), out);
        for route in routes {
            self.lose_route(&route, now, out);
        }
        // What moved there and is gone with it lives here again.
        let home = Onward::Home(host.clone());
        let moved = self.mailboxes.values().filter(|it| it.onward.as_ref() == Some(&home));
        let moved: Vec<MailboxId> = moved.map(|it| it.id).collect();
        for id in moved {
            self.take_back_home(id, now);
        }
        let onward = match fate {
            Fate::Absent | Fate::Dropped => None,
            Fate::Routed => Some(Onward::Here),
            Fate::SentTo(to) => Some(Onward::To(to.clone())),
        };
        for id in outboxes {
            match self.mailboxes.get_mut(&id) {
                Some(mailbox) if onward.is_some() => {
                    mailbox.onward.clone_from(&onward);
                    self.dirty.push(id);
                }
                _ => self.delete_mailbox_now(id, now, out),
            }
        }
        let forgotten = PeerEvent::Forgotten { host: host.clone() };
        out.push(Effect::Notify(SERVER, Event::Peer(forgotten)));
        Ok(Reply::Counted(waiting))
    }

    /// Nobody is forgotten who is there.
    fn check_gone(&self, host: &Name) -> Result<(), Refusal> {
        let Some(neighbour) = self.peers.neighbours.get(host) else {
            return Err(Refusal::Precondition(format!("no host '{host}' is known")));
        };
        if neighbour.carrier.is_some() || neighbour.guest.is_some() {
            let text = format!("host '{host}' is linked: only one that is gone can be forgotten");
            return Err(Refusal::Precondition(text));
        }
        Ok(())
    }

    /// What waits for one host must not go in circles.
    fn check_successor(&self, host: &Name, to: &Name) -> Result<(), Refusal> {
        if to == host || !self.peers.neighbours.contains_key(to) {
            return Err(Refusal::Precondition(format!("no other host '{to}' is known")));
        }
        let leaves = |id: &MailboxId| self.mailboxes.get(id).is_some_and(|it| it.onward.is_some());
        if self.outboxes_of(to).iter().any(leaves) {
            let text = format!("what waits for host '{to}' is itself sent elsewhere");
            return Err(Refusal::Precondition(text));
        }
        Ok(())
    }

    fn outboxes_of(&self, host: &Name) -> Vec<MailboxId> {
        self.vhosts.values().filter_map(|it| it.outboxes.get(host)).copied().collect()
    }

    /// The host is back, and takes what waits itself.
    pub(super) fn stop_sending_on(&mut self, host: &Name) {
        for id in self.outboxes_of(host) {
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.onward = None;
            }
        }
    }

    /// Moves what is in memory; each message is out of here and at its new place in one batch.
    pub(in crate::broker) fn send_on(&mut self, id: MailboxId, now: Time, out: &mut Vec<Effect>) {
        loop {
            let Some(mailbox) = self.mailboxes.get(&id) else { return };
            let Some(onward) = mailbox.onward.clone() else { return };
            if let Onward::Home(host) = onward {
                return self.hand_over(id, &host, now, out);
            }
            let vhost = mailbox.vhost.clone();
            if onward == Onward::Here
                && let Some(message) = mailbox.first().map(|it| it.message.clone())
                && !self.leads_somewhere(&vhost, &message)
            {
                return self.stay(id, &message, now);
            }
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            let Some(entry) = mailbox.take_fresh(&mut turn) else { break };
            mailbox.remove_stored(&entry, &mut turn);
            mailbox.counts.settled += 1;
            let pledged = mailbox.pledged(entry.seq);
            let seq = entry.seq;
            let mut kept = true;
            match onward {
                Onward::Here => {
                    self.pledging = pledged;
                    kept = self.take_in(&vhost, own(&entry), now, out);
                    self.pledging = None;
                }
                Onward::To(host) | Onward::Home(host) => {
                    let Some(to) = self.outbox(&vhost, &host, now, out) else { return };
                    let message = match entry.rest.redelivered {
                        true => Arc::new(own(&entry)),
                        false => entry.message,
                    };
                    let mut turn = carry!(self, now, out);
                    if let Some(outbox) = self.mailboxes.get_mut(&to) {
                        outbox.durable_first = outbox.next;
                        outbox.come_to_rest(message, Time::ZERO, &mut turn);
                        if let Some(pledged) = pledged {
                            outbox.pledge(pledged, &mut turn);
                        }
                        self.dirty.push(to);
                    }
                }
            }
            // Whoever waits for it waits for it at its new place.
            let mut turn = carry!(self, now, out);
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.redeem(seq, kept, &mut turn);
            }
        }
        self.end_outbox(id, now, out);
    }

    /// Everything is out of it, and nothing leads to it.
    fn end_outbox(&mut self, id: MailboxId, now: Time, out: &mut Vec<Effect>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        if mailbox.ready > 0 || mailbox.unsettled() > 0 {
            return;
        }
        mailbox.onward = None;
        let (vhost, host) = (mailbox.vhost.clone(), mailbox.outbox.clone());
        let neighbour = host.and_then(|host| self.peers.neighbours.get(&host));
        let leads_here = |it: &super::Neighbour| {
            it.carrier.is_some() || it.routes.values().any(|known| known.route.vhost == vhost)
        };
        if !neighbour.is_some_and(leads_here) {
            self.delete_mailbox_now(id, now, out);
        }
    }

    /// Nothing is lost for want of a mailbox: the message stays, and all behind it.
    fn stay(&mut self, id: MailboxId, message: &Message, now: Time) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        mailbox.onward = None;
        let Some(host) = mailbox.outbox.clone() else { return };
        let (exchange, key) = (message.exchange(), String::from_utf8_lossy(message.key()));
        let error = match exchange.is_empty() {
            true => format!("what waits stays: no queue '{key}' is known"),
            false => format!("what waits stays: no exchange '{exchange}' is here"),
        };
        self.peers.neighbours.entry(host).or_default().error = Some((now, error));
    }

    fn leads_somewhere(&self, vhost: &Name, message: &Arc<Message>) -> bool {
        let Parcel { message, keys, moved, .. } = unpack(message.detached());
        let Some(here) = self.vhosts.get(vhost) else { return false };
        if let Some(moved) = moved {
            return here.mailboxes.contains_key(&moved.to) || here.away.contains_key(&moved.to);
        }
        if !message.exchange().is_empty() {
            return here.exchanges.get(message.exchange()).is_some();
        }
        let own = [bytes::Bytes::copy_from_slice(message.key())];
        let keys = if keys.is_empty() { &own[..] } else { &keys[..] };
        let is_here = |key: &bytes::Bytes| {
            std::str::from_utf8(key).is_ok_and(|name| here.mailboxes.contains_key(name))
        };
        let choice = Choice::onward(&message);
        let elsewhere = || self.parts_abroad(vhost, keys, choice.as_ref(), false);
        keys.iter().any(is_here) || !elsewhere().is_empty()
    }
}

/// In a buffer of its own, and with what is known of its deliveries.
fn own(entry: &Entry) -> Message {
    let mut message = entry.message.detached();
    message.id = entry.message.id;
    message.again = entry.rest.redelivered;
    message
}
