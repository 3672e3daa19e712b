//! The broker's answers, each to the request that asked.

use bytes::BufMut;
use pillarbox_native::{Kind, put_short, write_empty, write_frame};

use super::open::Open;
use super::pull::PullNumber;
use super::refusal::code;
use crate::broker::{ChannelId, Event, Refusal, Reply, Ticket, Time};
use crate::sessions::Outbox;

/// What to do with an answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// Say that it is done.
    Done(u32),
    /// Say the mailbox's name and what is in it.
    Declared(u32),
    /// Say how many.
    Counted(u32),
    /// Whether what the next answer is about is there at all.
    Guard,
    /// As `Counted`, unless the guard before it refused.
    Guarded {
        id: u32,
        refusal: Option<Refusal>,
    },
    /// Nobody waits.
    Nothing,
    Got(PullNumber),
    PullWaits(PullNumber),
    PullEnds(PullNumber),
    Subscribed {
        id: u32,
        channel: ChannelId,
    },
    /// The first settlement that was asked about is settled.
    Settled,
    List {
        id: u32,
        count: usize,
        /// Rows before the first, where they are known by number.
        skip: usize,
    },
    /// Say which messages were seen.
    Browsed(u32),
    /// Say how many were put back, and what is left to do.
    Rewound(u32),
}

impl Open {
    pub(super) fn replied(
        &mut self,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        match (pending, result) {
            (Pending::Nothing, _) => {}
            (Pending::Got(number), result) => self.got(number, result, now, out),
            (Pending::PullWaits(number), result) => {
                if let Err(refusal) = result {
                    self.pull_refused(number, &refusal, out);
                }
            }
            (Pending::PullEnds(number), _) => self.answer_pull(number, out),
            (Pending::Settled, _) => self.settles.answered(out),
            (Pending::Guard, Ok(_)) => {}
            (Pending::Guard, Err(refusal)) => {
                // Its twin was asked directly behind it.
                let twin = self.pending.get_mut(&Ticket(ticket.0 + 1));
                if let Some(Pending::Guarded { refusal: slot, .. }) = twin {
                    *slot = Some(refusal);
                }
            }
            (Pending::Guarded { id, refusal: Some(refusal) }, _) => {
                self.refuse(id, code(&refusal), &refusal.to_string(), out);
            }
            (Pending::Subscribed { id, channel }, Err(refusal)) => {
                self.forget_subscription(channel, out);
                self.refuse(id, code(&refusal), &refusal.to_string(), out);
            }
            (
                Pending::Done(id)
                | Pending::Declared(id)
                | Pending::Counted(id)
                | Pending::Guarded { id, .. }
                | Pending::List { id, .. }
                | Pending::Browsed(id)
                | Pending::Rewound(id),
                Err(refusal),
            ) => self.refuse(id, code(&refusal), &refusal.to_string(), out),
            (Pending::List { id, count, skip }, Ok(Reply::Inspection(found))) => {
                super::list::answer(id, count, skip, *found, out);
            }
            (Pending::Browsed(id), Ok(Reply::Browsed(browsed))) => {
                super::browse::answer(id, browsed, out);
            }
            (Pending::Rewound(id), Ok(Reply::Rewound(rewound))) => {
                super::browse::rewound(id, rewound, out);
            }
            (Pending::Declared(id), Ok(Reply::Declared { name, ready, consumers })) => {
                write_frame(Kind::Done, 0, id, &mut out.wire, |out| {
                    put_short(name.as_bytes(), out);
                    out.put_u64_le(ready);
                    out.put_u32_le(consumers);
                });
            }
            (Pending::Counted(id) | Pending::Guarded { id, .. }, Ok(Reply::Counted(count))) => {
                write_frame(Kind::Done, 0, id, &mut out.wire, |out| out.put_u64_le(count));
            }
            (
                Pending::Done(id)
                | Pending::Declared(id)
                | Pending::Counted(id)
                | Pending::Guarded { id, .. }
                | Pending::Subscribed { id, .. }
                | Pending::List { id, .. }
                | Pending::Browsed(id)
                | Pending::Rewound(id),
                Ok(_),
            ) => write_empty(Kind::Done, id, &mut out.wire),
        }
    }
}

/// A delivery that is not sent has left the broker's window all the same.
pub(super) fn count_unsent(event: &Event, out: &mut Outbox) {
    for delivery in event.deliveries() {
        out.deliveries += 1;
        out.delivery_bytes += delivery.message.size() as u64;
    }
}
