//! Messages that wait for their time, as people see them: which there are, and another time for one.

use super::command::{ConnectionId, Retime, Seq};
use super::delay::Waiting;
use super::event::{Effect, Reply, Write};
use super::inspect::{DelayedView, SLICE_MAX};
use super::mailbox::Mailbox;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::topology::check_owner;
use super::turn::Turn;
use super::{Broker, SERVER, carry};

impl Broker {
    /// Whoever may not take the messages does not see them either.
    pub(super) fn delayed_views(
        &self,
        from: ConnectionId,
        vhost: &Name,
        name: &Name,
        after: Option<(Time, Seq)>,
        count: usize,
    ) -> Result<Vec<DelayedView>, Refusal> {
        let mailbox = self.find(vhost, name).ok_or_else(|| self.no_mailbox(vhost, name))?;
        if from != SERVER {
            let (user, _) = self.whose(from)?;
            self.check_schedule(&user, vhost, mailbox)?;
        }
        let waiting = mailbox.delayed.after(after.unwrap_or_default());
        let view = |((due, seq), waiting): (_, &Waiting)| {
            let message = match waiting {
                Waiting::Hot(entry) => Some(entry.message.clone()),
                Waiting::Cold { .. } => None,
            };
            DelayedView { due, seq, message }
        };
        Ok(waiting.take(count.min(SLICE_MAX)).map(view).collect())
    }

    /// The mailbox of a delaying exchange belongs to the exchange.
    pub(super) fn check_schedule(
        &self,
        user: &Name,
        vhost: &Name,
        mailbox: &Mailbox,
    ) -> Result<(), Refusal> {
        match &mailbox.feeds {
            Some(exchange) => {
                self.access.check(user, vhost, Action::Configure, Kind::Exchange, exchange)
            }
            None => self.access.check(user, vhost, Action::Read, Kind::Mailbox, &mailbox.name),
        }
    }

    pub(super) fn retime(
        &mut self,
        from: ConnectionId,
        retime: &Retime,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost) = self.whose(from)?;
        let name = &retime.mailbox;
        let missing = || Refusal::NoSuchMailbox { name: name.clone(), vhost: vhost.clone() };
        let mailbox = self.find(&vhost, name).ok_or_else(missing)?;
        self.check_schedule(&user, &vhost, mailbox)?;
        check_owner(mailbox, from)?;
        let id = mailbox.id;
        let mut turn = carry!(self, now, out);
        let mailbox = self.mailboxes.get_mut(&id).ok_or_else(missing)?;
        if !mailbox.retime((retime.due, retime.seq), retime.to, &mut turn) {
            return Err(Refusal::NotDelayed { name: name.clone(), vhost });
        }
        self.dirty.push(id);
        Ok(Reply::Done)
    }
}

impl Mailbox {
    /// False where no message waits there.
    fn retime(&mut self, at: (Time, Seq), to: Option<Time>, turn: &mut Turn<'_>) -> bool {
        let Some(waiting) = self.delayed.take(at) else { return false };
        let (mailbox, seq) = (self.id, at.1);
        let Some(to) = to else {
            match waiting {
                Waiting::Hot(entry) => {
                    *turn.memory -= entry.message.footprint();
                    self.remove_stored(&entry, turn);
                }
                Waiting::Cold { .. } => turn.write(Write::Remove { mailbox, first: seq, count: 1 }),
            }
            self.counts.purged += 1;
            self.release_key(seq);
            return true;
        };
        // At once means now, not its old time, which is still to come after a restart.
        let deliver_at = to.max(turn.now);
        let write = |attempts| Write::Attempts { mailbox, seq, attempts, deliver_at };
        match waiting {
            Waiting::Hot(mut entry) => {
                if entry.stored {
                    turn.write(write(entry.rest.attempts));
                    entry.epoch = turn.epoch;
                }
                entry.rest.deliver_at = deliver_at;
                self.hide(*entry, turn);
            }
            Waiting::Cold { seen, attempts } => {
                turn.write(write(attempts));
                self.delayed.add_cold(deliver_at, seq, seen, attempts);
            }
        }
        true
    }
}
