//! What ends a message's stay without a consumer: its age, and the mailbox's length.

use super::command::Seq;
use super::dead_letter::Reason;
use super::event::Write;
use super::lane::Entry;
use super::limits::Overflow;
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::Time;
use super::paging::Recall;
use super::turn::Turn;

impl Mailbox {
    /// The moment after which the entry is too old to deliver.
    pub(super) fn deadline(&self, entry: &Entry) -> Time {
        let own = if entry.rest.expires > Time::ZERO { entry.rest.expires } else { Time(u64::MAX) };
        match self.limits.message_ttl_ms {
            Some(ttl) => own.min(entry.rest.since.plus_ms(ttl)),
            None => own,
        }
    }

    /// Drops what is too old. Expiries of single messages have their own index; of the mailbox's time to live the
    /// front decides, as the front came first.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some(&(due, seq, lane)) = self.expiries.first()
            && due <= turn.now
            && !self.recalls.is_full()
        {
            self.expiries.pop_first();
            self.expire_one(seq, usize::from(lane), turn);
        }
        let Some(ttl) = self.limits.message_ttl_ms else { return };
        for at in 0..self.lanes.len() {
            while let Some(front) = self.lanes[at].front()
                && front.rest.since.plus_ms(ttl) <= turn.now
            {
                let Some(entry) = self.lanes[at].take() else { break };
                self.forget_ready(&entry, turn);
                self.discard(entry, Reason::Expired, turn);
            }
        }
    }

    /// One that is being read from the store is looked at when it is here.
    fn expire_one(&mut self, seq: Seq, lane: usize, turn: &mut Turn<'_>) {
        if let Some(entry) = self.lanes[lane].remove(seq) {
            self.forget_ready(&entry, turn);
            self.discard(entry, Reason::Expired, turn);
        } else if let Some(cold) = self.lanes[lane].remove_cold(seq) {
            self.ready -= 1;
            self.ready_bytes -= cold.bytes;
            if self.limits.dead_letter_exchange.is_some() {
                // Its body is needed for the dead letter.
                self.recalls.add(seq, Recall::Expired);
            } else {
                self.counts.expired += 1;
                self.redeem(seq, false, turn);
                turn.write(Write::Remove { mailbox: self.id, first: seq, count: 1 });
            }
        }
    }

    pub(super) fn is_over_length(&self) -> bool {
        self.limits.overflow == Overflow::DropHead
            && (self.limits.length_max.is_some_and(|most| self.ready > most)
                || self.limits.bytes_max.is_some_and(|most| self.ready_bytes > most))
    }

    /// Whether this message must be refused by the overflow rule, or because it names no key.
    pub(super) fn refuses(&self, message: &Message) -> bool {
        let size = message.body().len() as u64;
        let length = self.ready + self.unburied.len() + 1;
        let full = self.limits.overflow != Overflow::DropHead
            && (self.limits.length_max.is_some_and(|most| length > most)
                || self.limits.bytes_max.is_some_and(|most| self.ready_bytes + size > most));
        full || self.lacks_key(message)
    }

    /// Drops the oldest of the least important. Cold ones go when they are here: see `load`.
    pub(super) fn enforce_length(&mut self, turn: &mut Turn<'_>) {
        while self.is_over_length() {
            let Some(lane) = self.lanes.iter_mut().find(|lane| !lane.is_empty()) else { break };
            let Some(entry) = lane.take() else { break };
            self.forget_ready(&entry, turn);
            self.discard(entry, Reason::MaxLength, turn);
        }
    }

    /// Whether a front that only the store holds is, or may be, too old.
    pub(super) fn has_stale_cold(&self, now: Time) -> bool {
        let Some(ttl) = self.limits.message_ttl_ms else { return false };
        self.lanes.iter().any(|lane| {
            let cold = lane.is_front_cold() || lane.passed() > Seq(0);
            cold && lane.oldest().is_some_and(|since| since.plus_ms(ttl) <= now)
        })
    }

    /// When `tick` has something to do.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.stream.is_some() {
            return self.next_stream_deadline();
        }
        if self.unfinished {
            return Some(now);
        }
        let mut next: Option<Time> = None;
        let mut consider = |time: Option<Time>| {
            next = match (next, time) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        if !self.recalls.is_full() {
            consider(self.delayed.next_due());
            consider(self.expiries.first().map(|(due, _, _)| *due));
        }
        if let Some(ttl) = self.limits.message_ttl_ms {
            for lane in &self.lanes {
                let due = lane.oldest().map(|since| since.plus_ms(ttl));
                // A stale cold front is on its way here: nothing happens before.
                consider(due.filter(|due| !lane.is_front_cold() || *due > now));
            }
        }
        consider(self.leases_due);
        consider(self.unburied.next_due());
        if self.gave_way() {
            consider(Some(self.lingers_until).filter(|_| self.left() == 0));
        } else if let Some(idle) = self.limits.expires_ms
            && self.consumers.is_empty()
        {
            consider(Some(self.used.plus_ms(idle)));
        }
        next
    }

    /// Nobody consumed, asked or declared for as long as it may live unused.
    pub(super) fn is_forgotten(&self, now: Time) -> bool {
        self.limits.expires_ms.is_some_and(|idle| self.used.plus_ms(idle) <= now)
            && self.consumers.is_empty()
            && !self.gave_way()
    }
}
