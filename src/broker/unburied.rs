//! Dead letters that wait where they died until every mailbox they go to has room for them (`at-least-once`).

use std::collections::BTreeMap;

use super::command::Seq;
use super::dead_letter::Reason;
use super::lane::Entry;
use super::mailbox::Mailbox;
use super::name::Time;
use super::turn::Turn;

/// Nobody sees them; the store has them where they lay, so that a crash makes them ready again.
#[derive(Debug, Default)]
pub(super) struct Unburied {
    entries: BTreeMap<Seq, (Entry, Reason)>,
    /// When to try again with those that found no place.
    retry: Option<Time>,
}

const RETRY_MS: u64 = 10_000;

impl Unburied {
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Those behind a position, in order.
    pub(super) fn after(&self, seq: Seq) -> impl Iterator<Item = &Entry> {
        let from = Seq(seq.0.saturating_add(1));
        self.entries.range(from..).map(|(_, (entry, _))| entry)
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.retry
    }
}

impl Mailbox {
    /// Keeps a dead letter while it is on its way.
    pub(super) fn keep_dead(&mut self, entry: Entry, reason: Reason, turn: &mut Turn<'_>) {
        turn.bury(self, &entry.message, reason, Some(entry.seq));
        self.unburied.entries.insert(entry.seq, (entry, reason));
    }

    /// It came to rest everywhere it should, or nobody ever can take it.
    pub(super) fn buried(&mut self, seq: Seq, turn: &mut Turn<'_>) {
        if let Some((entry, _)) = self.unburied.entries.remove(&seq) {
            self.counts.dead_lettered += 1;
            self.remove_stored(&entry, turn);
        }
    }

    /// Some mailbox had no room for it, or none is there.
    pub(super) fn bury_later(&mut self, now: Time) {
        self.unburied.retry.get_or_insert_with(|| now.plus_ms(RETRY_MS));
    }

    /// Those that found no place try again. Policies may want something else by now.
    pub(super) fn bury_due(&mut self, turn: &mut Turn<'_>) {
        if self.unburied.retry.is_none_or(|retry| retry > turn.now) {
            return;
        }
        self.unburied.retry = None;
        for (entry, reason) in std::mem::take(&mut self.unburied.entries).into_values() {
            self.discard(entry, reason, turn);
        }
    }
}
