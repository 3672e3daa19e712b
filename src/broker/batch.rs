//! Publishing a batch: neighbours with one address are routed once and come to rest together.

use std::sync::Arc;

use super::command::{ConnectionId, Publish, PublishBatch, Seq};
use super::event::{Cause, Effect, Event, Missed};
use super::limits::Overflow;
use super::message::Message;
use super::name::Time;
use super::publish::{DETACH_SIZE_MAX, Fate, Origin, Placed, Targets, check_expiration};
use super::{Broker, carry};

/// Places in the batch, and why these messages were not taken.
type AllMissed = Vec<(u32, Missed)>;

/// What is said of a batch's messages.
struct Notes<'a> {
    missed: &'a mut AllMissed,
    /// Places in the batch, and where the first ones of the same id are.
    duplicates: &'a mut Vec<(u32, Seq)>,
}

impl Broker {
    pub(super) fn publish_batch(
        &mut self,
        from: ConnectionId,
        batch: PublishBatch,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        if batch.home {
            return self.publish_batch_home(from, batch, now, out);
        }
        let PublishBatch { channel, messages, confirm, mandatory, .. } = batch;
        let count = messages.len() as u32;
        let mut missed = AllMissed::new();
        let mut duplicates = Vec::new();
        let mut messages = messages.into_iter().zip(0u32..).peekable();
        while let Some((message, index)) = messages.next() {
            let confirmed = confirm.is_some();
            let cached = match &mut self.pledging {
                // Each by itself, as each is waited for.
                Some(pledged) => {
                    pledged.index = index;
                    None
                }
                None => self.cached_route(from, channel, &message, false, confirmed),
            };
            let Some(targets) = cached else {
                let message = Arc::new(message);
                let (more_keys, confirm, home) = (None, None, false);
                let publish = Publish { channel, message, more_keys, confirm, mandatory, home };
                let accepted = self.accept(from, publish, now, out);
                let unroutable = u64::from(matches!(accepted, Ok(Fate::Unroutable(_))));
                self.count_inflow(from, channel, |it| {
                    it.confirmed += u64::from(confirmed && accepted.is_ok());
                    it.count_unroutable(unroutable, mandatory);
                });
                if let Ok(Fate::Routed { first: Some(first), .. }) = accepted {
                    duplicates.push((index, first));
                }
                let miss = match accepted {
                    Ok(Fate::Routed { taken: true, .. }) => None,
                    Ok(Fate::Routed { taken: false, .. }) => Some(Missed::Full),
                    Ok(Fate::Unroutable(_)) => self.unroutable(1, mandatory),
                    Err(refusal) => Some(Missed::Refused(refusal)),
                };
                missed.extend(miss.map(|miss| (index, miss)));
                continue;
            };
            let mut run = Vec::with_capacity(count as usize - index as usize);
            run.push(message);
            while let Some((next, _)) = messages.next_if(|(it, _)| same_address(it, &run[0])) {
                run.push(next);
            }
            // The first was counted with its route.
            self.count_run(from, channel, run.len() as u64 - 1, confirmed);
            run.iter().for_each(|it| self.totals.sizes.count(it.body().len() as u64));
            if targets.is_empty() {
                let count = run.len() as u64;
                self.count_inflow(from, channel, |it| it.count_unroutable(count, mandatory));
            }
            let notes = Notes { missed: &mut missed, duplicates: &mut duplicates };
            self.publish_run(&targets, run, index, mandatory, notes, now, out);
        }
        let refused = missed.iter().find_map(|(_, miss)| match miss {
            Missed::Refused(refusal) => Some(refusal),
            Missed::Full | Missed::Unroutable | Missed::Lost => None,
        });
        match (confirm, refused) {
            (Some(tag), refused) => {
                if refused.is_some() {
                    self.mark_failed(from, channel);
                }
                let taken = count - missed.len() as u32;
                let event = Event::BatchConfirmed { channel, tag, taken, missed, duplicates };
                out.push(Effect::NotifyDurable(from, event));
            }
            (None, Some(refusal)) => {
                self.refuse(from, channel, Cause::Publish, refusal.clone(), out);
            }
            (None, None) => {}
        }
    }

    fn unroutable(&mut self, count: u64, mandatory: bool) -> Option<Missed> {
        if mandatory {
            self.totals.returned += count;
            return Some(Missed::Unroutable);
        }
        self.totals.unroutable += count;
        None
    }

    /// Messages for the same mailboxes; the first stands at `index` of the batch.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them at hand")]
    fn publish_run(
        &mut self,
        targets: &Targets,
        mut run: Vec<Message>,
        index: u32,
        mandatory: bool,
        Notes { missed, duplicates }: Notes<'_>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.totals.published += run.len() as u64;
        for message in &mut run {
            message.id = self.next_id(now);
        }
        if targets.is_empty() {
            let miss = self.unroutable(run.len() as u64, mandatory);
            let places = index..index + run.len() as u32;
            return missed.extend(
                miss.into_iter()
                    .flat_map(|miss| places.clone().map(move |place| (place, miss.clone()))),
            );
        }
        let [target] = targets[..] else {
            for (message, index) in run.into_iter().zip(index..) {
                let taken = check_expiration(&message).map(|()| Arc::new(message));
                let origin = Origin::Publisher;
                match taken.map(|message| self.place(targets, message, origin, now, out)) {
                    Ok(Placed { taken, first }) => {
                        duplicates.extend(first.map(|first| (index, first)));
                        missed.extend((!taken).then_some((index, Missed::Full)));
                    }
                    Err(refusal) => missed.push((index, Missed::Refused(refusal))),
                }
            }
            return;
        };
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = self.mailboxes.get_mut(&target) else { return };
        let waits = |it: &Message| it.deliver_at > Time::ZERO;
        if !mailbox.hands_on() || run.iter().any(waits) {
            Message::detach_all(&mut run, DETACH_SIZE_MAX);
        }
        for (message, index) in run.into_iter().zip(index..) {
            if let Err(refusal) = check_expiration(&message) {
                missed.push((index, Missed::Refused(refusal)));
            } else if let Some(first) = mailbox.first_of(&message, &mut turn) {
                duplicates.push((index, first));
            } else if mailbox.refuses(&message) {
                let dead_letter = mailbox.limits.overflow == Overflow::RejectPublishDeadLetter;
                mailbox.refuse(&Arc::new(message), dead_letter, &mut turn);
                missed.push((index, Missed::Full));
            } else {
                let deliver_at = message.deliver_at;
                mailbox.append(Arc::new(message), deliver_at, &mut turn);
            }
        }
        self.dirty.push(target);
    }
}

pub(super) fn same_address(one: &Message, other: &Message) -> bool {
    !one.wants_tags
        && one.key() == other.key()
        && (one.exchange().same(other.exchange()) || one.exchange() == other.exchange())
}
