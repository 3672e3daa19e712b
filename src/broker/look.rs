//! Looking at a mailbox's first messages without taking them: nothing is delivered, leased or marked.

use std::sync::Arc;

use super::command::{ConnectionId, Fetched, Seq};
use super::event::{Effect, Event, Fetch, Reply};
use super::inspect::SLICE_MAX;
use super::lane::Place;
use super::mailbox::{Asker, Mailbox};
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::topology::check_reach;
use super::turn::Turn;
use super::{Broker, carry};

/// In `Fetch::lane`: this and above for those who only look, each with a number of its own.
const LOOKS: u16 = 1024;
/// Looks that wait for the store at a time in one mailbox.
const LOOKS_MAX: usize = 64;

/// A message as it rests.
#[derive(Clone, Debug)]
pub struct Browsed {
    pub seq: Seq,
    pub message: Arc<Message>,
    pub redelivered: bool,
    /// Failed attempts so far, where the mailbox counts them.
    pub attempts: Option<u32>,
}

/// Somebody who waits for messages from the store.
#[derive(Debug)]
pub(super) struct Look {
    asker: Asker,
    lane: u16,
    /// In the order of delivery; `None` for what is on its way.
    slots: Vec<(Seq, Option<Browsed>)>,
}

/// Looks of one mailbox.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: Vec<Look>,
    last: u16,
}

impl Looks {
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Asker> {
        self.waiting.drain(..).map(|look| look.asker)
    }
}

impl Broker {
    /// Ready messages in the order of delivery, at most so many and so large together; one at least, if there is one.
    pub(super) fn browse(
        &mut self,
        from: ConnectionId,
        asker: Asker,
        name: &Name,
        (count, bytes_max): (usize, u64),
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (user, vhost) = self.whose(from)?;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, name)?;
        let id = self.vhosts.get(&vhost).and_then(|it| it.mailboxes.get(name)).copied();
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = id.and_then(|id| self.mailboxes.get_mut(&id)) else {
            return Err(Refusal::NoSuchMailbox { name: name.clone(), vhost });
        };
        check_reach(mailbox, from)?;
        if mailbox.looks.waiting.len() >= LOOKS_MAX {
            return Err(Refusal::Limit("too many look at this queue at the same time".into()));
        }
        mailbox.look(asker, count.min(SLICE_MAX), bytes_max, &mut turn);
        Ok(())
    }
}

impl Mailbox {
    fn look(&mut self, asker: Asker, count: usize, bytes_max: u64, turn: &mut Turn<'_>) {
        let mut slots = Vec::new();
        let mut ranges: Vec<(Seq, u32)> = Vec::new();
        let mut bytes = 0;
        for lane in self.lanes.iter().rev() {
            for place in lane.first_places(count - slots.len()) {
                if bytes >= bytes_max && !slots.is_empty() {
                    break;
                }
                match place {
                    Place::Hot(entry) => {
                        bytes += entry.body_size();
                        slots.push((
                            entry.seq,
                            Some(self.shown(entry.seq, entry.rest, &entry.message)),
                        ));
                    }
                    Place::Cold { seq, bytes: size } => {
                        bytes += size;
                        slots.push((seq, None));
                        match ranges.last_mut() {
                            Some((first, count)) if first.0 + u64::from(*count) == seq.0 => {
                                *count += 1;
                            }
                            _ => ranges.push((seq, 1)),
                        }
                    }
                }
            }
        }
        let lane = LOOKS + self.looks.last;
        let look = Look { asker, lane, slots };
        if ranges.is_empty() {
            return self.tell(look, turn);
        }
        ranges.sort_unstable();
        self.looks.last = (self.looks.last + 1) % (u16::MAX - LOOKS);
        self.looks.waiting.push(look);
        turn.out.push(Effect::Fetch(Fetch { mailbox: self.id, lane, ranges }));
    }

    /// Whether the store's answer is for somebody who only looks.
    pub(super) fn is_look(fetched: &Fetched) -> bool {
        fetched.lane >= LOOKS
    }

    /// The store's answer to a look. What is damaged or gone is left out; whoever takes it next finds out.
    pub(super) fn looked(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        let at = self.looks.waiting.iter().position(|look| look.lane == fetched.lane);
        let Some(mut look) = at.map(|at| self.looks.waiting.remove(at)) else { return };
        for found in fetched.messages {
            let Ok(message) = found.message else { continue };
            let slot =
                look.slots.iter_mut().find(|(seq, slot)| *seq == found.seq && slot.is_none());
            if let Some((seq, slot)) = slot {
                *slot = Some(self.shown(*seq, found.rest, &message));
            }
        }
        self.tell(look, turn);
    }

    fn shown(&self, seq: Seq, rest: super::Rest, message: &Arc<Message>) -> Browsed {
        Browsed {
            seq,
            message: message.clone(),
            redelivered: rest.redelivered || self.mark.was_seen(seq),
            attempts: self.counts_attempts().then_some(rest.attempts),
        }
    }

    fn tell(&self, look: Look, turn: &mut Turn<'_>) {
        let Asker { connection, channel, ticket, .. } = look.asker;
        let found = look.slots.into_iter().filter_map(|(_, slot)| slot).collect();
        let result = Ok(Reply::Browsed { found, ready: self.ready });
        let event = Event::Reply { channel, ticket, result };
        turn.out.push(Effect::NotifyDurable(connection, event));
    }
}
