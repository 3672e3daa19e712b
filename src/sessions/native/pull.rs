//! Pulling: some messages now, or the first ones that come within a while.
//!
//! ```text
//! Asking --something, or no wait--> answered
//!   Asking --nothing--> Waiting (a consumer with as much credit) --delivered, too late--> Ending -> answered
//! ```

use std::collections::{BTreeMap, BTreeSet};

use pillarbox_native::{self as wire, Code, DeliveryBatch, Kind, Refused};
use smallvec::SmallVec;

use super::MAIN;
use super::answer::Pending;
use super::deliver::Outgoing;
use super::open::Open;
use super::refusal::code;
use super::settle::Settles;
use crate::broker::{
    Command, Consume, ConsumerId, Delivery, Name, Outcome, Refusal, Reply, Request, Run, Settle,
    Table, Ticket, Time,
};
use crate::sessions::Outbox;

/// Messages are asked for in rounds: few at first, as their size is not known.
const FIRST_ROUND: u32 = 4;
const ROUND_MAX: u32 = 256;

/// A pull of this connection, counted from 1; also the number of its consumer.
pub(super) type PullNumber = u32;

#[derive(Default)]
pub(super) struct Pulls {
    open: BTreeMap<PullNumber, Pull>,
    deadlines: BTreeSet<(Time, PullNumber)>,
    /// Waiting, and got something.
    ripe: Vec<PullNumber>,
    last: PullNumber,
}

struct Pull {
    id: u32,
    mailbox: Name,
    count: u32,
    settled: bool,
    deadline: Time,
    stage: Stage,
    got: Vec<Delivery>,
    bytes: u64,
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many answers are awaited; true once one of them was empty.
    Asking(u32, bool),
    Waiting,
    Ending,
}

impl Open {
    pub(super) fn pull(&mut self, id: u32, pull: &wire::Pull<'_>, now: Time, out: &mut Outbox) {
        if self.pulls.open.len() >= self.settings.pulls_max {
            return self.refuse(id, Code::Limit, "too many pulls wait on this connection", out);
        }
        if pull.count == 0 {
            return self.refuse(id, Code::Invalid, "a pull of no messages", out);
        }
        self.pulls.last += 1;
        let number = self.pulls.last;
        let pull = Pull {
            id,
            mailbox: pull.mailbox.into(),
            count: pull.count.min(self.settings.pull_count_max),
            settled: pull.settled,
            deadline: now.plus_ms(pull.wait_ms.into()),
            stage: Stage::Asking(0, false),
            got: Vec::new(),
            bytes: 0,
            left: 0,
        };
        self.pulls.open.insert(number, pull);
        self.ask_round(number, FIRST_ROUND, out);
    }

    fn ask_round(&mut self, number: PullNumber, most: u32, out: &mut Outbox) {
        let Some(pull) = self.pulls.open.get_mut(&number) else { return };
        let round = most.min(pull.count - pull.got.len() as u32);
        pull.stage = Stage::Asking(round, false);
        let (mailbox, no_ack) = (pull.mailbox.clone(), pull.settled);
        for _ in 0..round {
            let request = Request::Get { mailbox: mailbox.clone(), no_ack };
            self.ask(MAIN, request, Pending::Got(number), out);
        }
    }

    pub(super) fn got(
        &mut self,
        number: PullNumber,
        result: Result<Reply, Refusal>,
        now: Time,
        out: &mut Outbox,
    ) {
        let bytes_max = self.settings.pull_bytes_max;
        let Some(pull) = self.pulls.open.get_mut(&number) else { return };
        let Stage::Asking(awaited, mut empty) = pull.stage else { return };
        match result {
            Ok(Reply::Got(Some(got))) => {
                let (delivery, left) = *got;
                pull.bytes += delivery.message.size() as u64;
                pull.left = left;
                pull.got.push(delivery);
            }
            Err(refusal) if pull.got.is_empty() && awaited == 1 => {
                return self.pull_refused(number, &refusal, out);
            }
            _ => {
                empty = true;
                pull.left = 0;
            }
        }
        pull.stage = Stage::Asking(awaited - 1, empty);
        if awaited > 1 {
            return;
        }
        let got = pull.got.len() as u64;
        if got == 0 && pull.deadline > now {
            self.wait(number, out);
        } else if empty || got >= pull.count.into() || pull.bytes >= bytes_max {
            self.answer_pull(number, out);
        } else {
            let each = (pull.bytes / got).max(1);
            let fits = (bytes_max - pull.bytes) / each + 1;
            let round = fits.min(4 * got).min(ROUND_MAX.into()) as u32;
            self.ask_round(number, round, out);
        }
    }

    /// Nothing is there yet: consumes until the first messages come.
    fn wait(&mut self, number: PullNumber, out: &mut Outbox) {
        let Some(pull) = self.pulls.open.get_mut(&number) else { return };
        pull.stage = Stage::Waiting;
        let consume = Consume {
            mailbox: pull.mailbox.clone(),
            consumer: ConsumerId(number),
            tag: format!("pull-{number}").into(),
            // It is settled when it is sent, so that more than asked for never comes.
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: pull.count,
            arguments: Table::new(),
            selection: None,
            bounded: false,
        };
        self.pulls.deadlines.insert((pull.deadline, number));
        self.ask(MAIN, Request::Consume(consume), Pending::PullWaits(number), out);
    }

    pub(super) fn pull_refused(&mut self, number: PullNumber, refusal: &Refusal, out: &mut Outbox) {
        if let Some(pull) = self.pulls.remove(number) {
            self.refuse(pull.id, code(refusal), &refusal.to_string(), out);
        }
    }

    pub(super) fn answer_pull(&mut self, number: PullNumber, out: &mut Outbox) {
        let size_max = self.settings.delivery_frame_size;
        if let Some(pull) = self.pulls.remove(number) {
            pull.answer(size_max, &mut self.outgoing, &mut self.settles, out);
        }
    }
}

impl Pulls {
    fn remove(&mut self, number: PullNumber) -> Option<Pull> {
        let pull = self.open.remove(&number)?;
        self.deadlines.remove(&(pull.deadline, number));
        Some(pull)
    }

    /// Something for a pull that waits.
    pub(super) fn delivered(&mut self, delivery: Delivery) {
        let number = delivery.consumer.0;
        // One that came too late returns when the connection ends.
        let Some(pull) = self.open.get_mut(&number) else { return };
        if pull.got.is_empty() && pull.stage == Stage::Waiting {
            self.ripe.push(number);
        }
        pull.got.push(delivery);
    }

    /// Ends the waiting of those that got something.
    pub(super) fn end_ripe(
        &mut self,
        tickets: &mut u64,
        pending: &mut BTreeMap<Ticket, Pending>,
        out: &mut Outbox,
    ) {
        for number in std::mem::take(&mut self.ripe) {
            self.end(number, tickets, pending, out);
        }
    }

    pub(super) fn tick(
        &mut self,
        now: Time,
        tickets: &mut u64,
        pending: &mut BTreeMap<Ticket, Pending>,
        out: &mut Outbox,
    ) {
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.end(number, tickets, pending, out);
        }
    }

    /// What the broker sent before it cancels still belongs to the pull.
    fn end(
        &mut self,
        number: PullNumber,
        tickets: &mut u64,
        pending: &mut BTreeMap<Ticket, Pending>,
        out: &mut Outbox,
    ) {
        let Some(pull) = self.open.get_mut(&number) else { return };
        if pull.stage != Stage::Waiting {
            return;
        }
        pull.stage = Stage::Ending;
        *tickets += 1;
        pending.insert(Ticket(*tickets), Pending::PullEnds(number));
        let request = Box::new(Request::Cancel(ConsumerId(number)));
        out.commands.push(Command::Request(MAIN, Ticket(*tickets), request));
    }

    pub(super) fn cancelled(
        &mut self,
        consumer: ConsumerId,
        text: &str,
        outgoing: &mut Outgoing,
        settles: &mut Settles,
        out: &mut Outbox,
    ) {
        let Some(pull) = self.remove(consumer.0) else { return };
        if pull.got.is_empty() {
            let refused = Refused { code: Code::NotFound, text };
            refused.encode(Kind::Refused, pull.id, &mut out.wire);
        } else {
            pull.answer(usize::MAX, outgoing, settles, out);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

impl Pull {
    fn answer(
        &self,
        size_max: usize,
        outgoing: &mut Outgoing,
        settles: &mut Settles,
        out: &mut Outbox,
    ) {
        outgoing.end();
        let mailbox = self.got.first().map_or(0, |first| first.mailbox.0);
        let begin = |out: &mut Outbox| {
            DeliveryBatch::begin(Kind::Pulled, self.id, mailbox, self.left, &mut out.wire)
        };
        let mut batch = begin(out);
        for delivery in &self.got {
            if batch.size(&out.wire) >= size_max {
                batch.set_more(&mut out.wire);
                batch = begin(out);
            }
            outgoing.add(&mut batch, delivery, &self.mailbox, true, self.settled, out);
        }
        if self.settled {
            let unsettled = self.got.iter().filter(|it| !it.settled);
            let deliveries: SmallVec<[Run; 1]> =
                unsettled.map(|it| Run { mailbox: it.mailbox, first: it.seq, count: 1 }).collect();
            if !deliveries.is_empty() {
                settles.silent = true;
                let outcome = Outcome::Accepted;
                out.commands.push(Command::Settle(Settle { channel: MAIN, deliveries, outcome }));
            }
        }
    }
}
