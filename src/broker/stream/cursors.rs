//! Named cursors: how far a consumer of this name came, kept where a restart finds it.
//!
//! Written at most once a second each, when the consumer leaves, and at an orderly stop. After a crash a consumer sees
//! again what it settled in the last second.

use std::collections::BTreeMap;

use crate::broker::command::Seq;
use crate::broker::name::{Name, Time};

/// Between two writes of a cursor that moves.
const WRITE_MS: u64 = 1000;

/// Cursors of one stream. The one that was not used for the longest time makes room.
pub(super) const CURSORS_MAX: usize = 10_000;

#[derive(Debug)]
struct Cursor {
    /// Everything before it is done with.
    next: Seq,
    written: Seq,
    used: Time,
}

#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_name: BTreeMap<Name, Cursor>,
    /// Moved and not written, by the time they shall be.
    due: BTreeMap<(Time, Name), ()>,
}

impl Cursors {
    pub(super) fn next(&self, name: &Name) -> Option<Seq> {
        self.by_name.get(name).map(|cursor| cursor.next)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.by_name.keys()
    }

    /// As the store has it.
    pub(super) fn restore(&mut self, name: Name, next: Seq, now: Time) {
        self.by_name.insert(name, Cursor { next, written: next, used: now });
    }

    /// Returns the cursor that had to make room.
    pub(super) fn advance(&mut self, name: &Name, next: Seq, now: Time) -> Option<Name> {
        let mut evicted = None;
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= CURSORS_MAX {
                let idle = self.by_name.iter().min_by_key(|(_, cursor)| cursor.used);
                evicted = idle.map(|(name, _)| name.clone());
            }
            if let Some(name) = &evicted {
                self.remove(name);
            }
            let new = Cursor { next: Seq(0), written: Seq(0), used: now };
            self.by_name.insert(name.clone(), new);
        }
        if let Some(cursor) = self.by_name.get_mut(name) {
            cursor.used = now;
            if cursor.next == cursor.written && next != cursor.next {
                self.due.insert((now.plus_ms(WRITE_MS), name.clone()), ());
            }
            cursor.next = next;
        }
        evicted
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        self.due.retain(|(_, it), ()| it != name);
        self.by_name.remove(name).is_some()
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first_key_value().map(|((due, _), ())| *due)
    }

    /// The next cursor that shall be written now.
    pub(super) fn take_due(&mut self, now: Time) -> Option<(Name, Seq)> {
        loop {
            let first = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
            let ((_, name), ()) = first.remove_entry();
            if let Some(moved) = self.take(&name) {
                return Some(moved);
            }
        }
    }

    /// Where the cursor is, if that is not written yet.
    pub(super) fn take(&mut self, name: &Name) -> Option<(Name, Seq)> {
        let cursor = self.by_name.get_mut(name).filter(|it| it.next != it.written)?;
        cursor.written = cursor.next;
        Some((name.clone(), cursor.next))
    }
}

/// Whether a consumer tag was chosen by a program's author, and not made up by a client library for one run.
pub(super) fn is_chosen(tag: &str) -> bool {
    const GENERATED: [&str; 4] = ["amq.ctag-", "ctag", "bunny-", "subscription-"];
    !tag.is_empty() && !GENERATED.iter().any(|prefix| tag.starts_with(prefix))
}
