//! Settling: runs of positions go to the broker as they came.
//!
//! The broker says nothing of a settlement that is right and nothing of which one was wrong. So a
//! question follows those that want an answer, and the order of the answers tells whose it is.

use std::collections::VecDeque;

use pillarbox_native::{self as wire, Code, Kind, Refused, write_empty};
use smallvec::SmallVec;

use super::MAIN;
use super::answer::Pending;
use super::open::Open;
use crate::broker::{
    ChannelId, Command, ConsumerId, Extend, MailboxId, Outcome, Request, Run, Seq, Settle,
};
use crate::sessions::Outbox;

/// Of no consumer: cancelling it does nothing and is answered.
const NOBODY: ConsumerId = ConsumerId(u32::MAX);
/// Positions beyond this do not exist; the sum with a count stays in range.
const SEQ_MAX: u64 = 1 << 62;

#[derive(Default)]
pub(super) struct Settles {
    /// In the order of the questions. `None` stands for all before it that want no answer.
    waiting: VecDeque<Option<Waiting>>,
    /// Something was settled since the last question.
    pub(super) silent: bool,
}

struct Waiting {
    id: u32,
    refused: bool,
}

impl Settles {
    /// A settlement was wrong. False where nobody waits to hear of it.
    pub(super) fn refused(&mut self) -> bool {
        match self.waiting.front_mut() {
            Some(Some(waiting)) => {
                waiting.refused = true;
                true
            }
            _ => false,
        }
    }

    pub(super) fn answered(&mut self, out: &mut Outbox) {
        match self.waiting.pop_front().flatten() {
            Some(Waiting { id, refused: true }) => {
                let text = "a delivery is not held here: it was settled before, or returned";
                let refused = Refused { code: Code::NotFound, text };
                refused.encode(Kind::Refused, id, &mut out.wire);
            }
            Some(Waiting { id, refused: false }) => write_empty(Kind::Done, id, &mut out.wire),
            None => {}
        }
    }
}

impl Open {
    pub(super) fn settle(&mut self, id: u32, settle: &wire::Settle<'_>, out: &mut Outbox) {
        let outcome = match settle.outcome {
            wire::Outcome::Accepted => Some(Outcome::Accepted),
            wire::Outcome::Released => Some(Outcome::Released),
            wire::Outcome::Rejected => Some(Outcome::Rejected),
            wire::Outcome::Failed { delay_ms } => {
                Some(Outcome::Modified { delay_ms: (delay_ms > 0).then_some(delay_ms) })
            }
            wire::Outcome::Extended => None,
        };
        let count: u64 = settle.runs().map(|run| u64::from(run.count)).sum();
        if count > self.settings.settle_count_max || settle.runs().any(|run| run.first > SEQ_MAX) {
            return self.refuse(id, Code::Invalid, "a settlement of too many deliveries", out);
        }
        let deliveries: SmallVec<[Run; 1]> = settle
            .runs()
            .map(|run| Run {
                mailbox: MailboxId(run.mailbox),
                first: Seq(run.first),
                count: run.count,
            })
            .collect();
        if id != 0 && std::mem::take(&mut self.settles.silent) {
            self.ask_settled(None, out);
        }
        let channel = ChannelId(settle.subscription);
        out.commands.push(match outcome {
            Some(outcome) => Command::Settle(Settle { channel, deliveries, outcome }),
            None => Command::Extend(Extend { channel, deliveries }),
        });
        match id {
            0 => self.settles.silent = true,
            id => self.ask_settled(Some(Waiting { id, refused: false }), out),
        }
    }

    fn ask_settled(&mut self, waiting: Option<Waiting>, out: &mut Outbox) {
        self.settles.waiting.push_back(waiting);
        self.ask(MAIN, Request::Cancel(NOBODY), Pending::Settled, out);
    }
}
