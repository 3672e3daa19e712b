//! How old the messages are that were recovered: the store is asked for the last one, and those before it came earlier.

use super::fetch;
use crate::broker::command::{Fetched, Seq};
use crate::broker::event::RecoveredRun;
use crate::broker::mailbox::Mailbox;
use crate::broker::name::Time;
use crate::broker::turn::Turn;

/// In `Fetch::lane`: the last message that was recovered, of which the age is wanted.
pub(super) const AGE_LANE: u16 = 257;

/// The last message that was recovered: the store said nothing of its age yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undated {
    last: Seq,
    /// When it is taken to have come until then.
    assumed: Time,
    asked: bool,
}

impl Undated {
    pub(super) fn last_of(run: &RecoveredRun, now: Time) -> Self {
        let last = Seq(run.first.0 + u64::from(run.count) - 1);
        Self { last, assumed: now, asked: false }
    }
}

impl Mailbox {
    /// Where messages go by age, the store is asked for the last one that was recovered.
    pub(super) fn ask_age(&mut self, turn: &mut Turn<'_>) {
        let aged = self.limits.age_max_ms.is_some();
        let Some(stream) = self.stream.as_mut().filter(|_| aged) else { return };
        if let Some(undated) = stream.undated.as_mut().filter(|it| !it.asked) {
            undated.asked = true;
            turn.out.push(fetch(self.id, AGE_LANE, vec![(undated.last, 1)]));
        }
    }

    pub(super) fn answer_age(&mut self, fetched: &Fetched) {
        let Some(stream) = &mut self.stream else { return };
        if let Some(Undated { last, assumed, .. }) = stream.undated.take()
            && let Some(found) = fetched.messages.iter().find(|it| it.seq == last)
            && found.message.is_ok()
        {
            stream.log.date(last, found.rest.since, assumed);
        }
    }
}
