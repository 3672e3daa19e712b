//! Named cursors: how far a consumer, or a group of them, came, kept where a restart finds it.
//!
//! Written at most once a second each, when the consumer leaves, and at an orderly stop. After a crash a consumer sees
//! again what it settled in the last second.

use std::collections::{BTreeMap, BTreeSet};

use super::group::Group;
use crate::broker::command::Seq;
use crate::broker::definition::GroupDefinition;
use crate::broker::name::{Name, Time};

/// Between two writes of a cursor that moves.
const WRITE_MS: u64 = 1000;

/// Cursors of one stream. The one that was not used for the longest time makes room, unless it is a group.
pub(super) const CURSORS_MAX: usize = 10_000;

#[derive(Debug)]
struct Cursor {
    at: Position,
    /// What is written is not what is.
    changed: bool,
    used: Time,
    /// When to look at its group again, or earlier.
    alarm: Option<Time>,
}

#[derive(Debug)]
enum Position {
    /// Everything before the first is done with; what came before the second is passed over.
    One(Seq, Time),
    Shared(Box<Group>),
}

#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_name: BTreeMap<Name, Cursor>,
    /// Changed and not written, by the time they shall be.
    due: BTreeSet<(Time, Name)>,
    /// Of groups in which something comes due.
    alarms: BTreeSet<(Time, Name)>,
}

/// A cursor as it shall be written.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) name: Name,
    pub(super) next: Seq,
    pub(super) since: Time,
    pub(super) group: Option<GroupDefinition>,
}

impl Cursors {
    /// Where the next reader of this name starts.
    pub(super) fn next(&self, name: &Name) -> Option<(Seq, Time)> {
        match self.by_name.get(name)?.at {
            Position::One(next, since) => Some((next, since)),
            Position::Shared(_) => None,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.by_name.keys()
    }

    /// In order of name, after one: where it is, or the group that shares it.
    pub(super) fn after(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&Name, Result<Seq, &Group>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        self.by_name.range::<Name, _>((start, Unbounded)).map(|(name, cursor)| match &cursor.at {
            Position::One(next, _) => (name, Ok(*next)),
            Position::Shared(group) => (name, Err(&**group)),
        })
    }

    pub(super) fn group(&self, name: &Name) -> Option<&Group> {
        match &self.by_name.get(name)?.at {
            Position::Shared(group) => Some(group),
            Position::One(..) => None,
        }
    }

    pub(super) fn group_mut(&mut self, name: &Name) -> Option<&mut Group> {
        match &mut self.by_name.get_mut(name)?.at {
            Position::Shared(group) => Some(group),
            Position::One(..) => None,
        }
    }

    /// As the store has it.
    pub(super) fn restore(&mut self, moved: Moved, now: Time) {
        let Moved { name, next, since, group } = moved;
        let at = match group {
            Some(stored) => Position::Shared(Box::new(Group::restore(next, since, &stored))),
            None => Position::One(next, since),
        };
        self.by_name.insert(name.clone(), Cursor { at, changed: false, used: now, alarm: None });
        self.set_alarm(&name);
    }

    /// There is room for one more. Returns the cursor that had to go for it; `None` where there is no room.
    fn make_room(&mut self) -> Option<Option<Name>> {
        if self.by_name.len() < CURSORS_MAX {
            return Some(None);
        }
        let single = |(name, cursor)| match cursor {
            &Cursor { at: Position::One(..), used, .. } => Some((used, name)),
            Cursor { at: Position::Shared(_), .. } => None,
        };
        let idle: Name =
            self.by_name.iter().filter_map(single).min().map(|(_, name): (_, &Name)| name)?.clone();
        self.remove(&idle);
        Some(Some(idle))
    }

    /// Returns the cursor that had to make room.
    pub(super) fn advance(&mut self, name: &Name, next: Seq, now: Time) -> Option<Name> {
        self.set(name, next, Time::ZERO, now)
    }

    /// The same, with a time before which messages are passed over.
    pub(super) fn set(&mut self, name: &Name, next: Seq, since: Time, now: Time) -> Option<Name> {
        let mut evicted = None;
        if !self.by_name.contains_key(name) {
            evicted = self.make_room()?;
            let at = Position::One(Seq(0), Time::ZERO);
            self.by_name
                .insert(name.clone(), Cursor { at, changed: false, used: now, alarm: None });
        }
        if let Some(Cursor { at: Position::One(was, from), .. }) = self.by_name.get_mut(name)
            && (*was, *from) != (next, since)
        {
            (*was, *from) = (next, since);
            self.touch(name, now);
        } else if let Some(cursor) = self.by_name.get_mut(name) {
            cursor.used = now;
        }
        evicted
    }

    /// The cursor becomes a group, if it is none: where it is, or here where it is new. `None` where there are too many
    /// groups; otherwise the cursor that had to make room.
    pub(super) fn share(
        &mut self,
        name: &Name,
        start: (Seq, Time),
        now: Time,
    ) -> Option<Option<Name>> {
        let (mut evicted, (mut next, mut since)) = (None, start);
        match self.by_name.get(name).map(|cursor| &cursor.at) {
            Some(Position::Shared(_)) => return Some(None),
            Some(Position::One(at, from)) => (next, since) = (*at, *from),
            None => evicted = self.make_room()?,
        }
        if self.by_name.contains_key(name) {
            self.due.retain(|(_, it)| it != name);
        }
        let at = Position::Shared(Box::new(Group::new(next, since)));
        self.by_name.insert(name.clone(), Cursor { at, changed: false, used: now, alarm: None });
        self.touch(name, now);
        Some(evicted)
    }

    /// It changed, and shall be written in a while.
    pub(super) fn touch(&mut self, name: &Name, now: Time) {
        let Some(cursor) = self.by_name.get_mut(name) else { return };
        cursor.used = now;
        if !std::mem::replace(&mut cursor.changed, true) {
            self.due.insert((now.plus_ms(WRITE_MS), name.clone()));
        }
        self.set_alarm(name);
    }

    /// It rings when the group's next time comes, or earlier.
    fn set_alarm(&mut self, name: &Name) {
        let Some(cursor) = self.by_name.get_mut(name) else { return };
        let Position::Shared(group) = &cursor.at else { return };
        let Some(due) = group.next_due() else { return };
        if cursor.alarm.is_none_or(|alarm| due < alarm) {
            if let Some(alarm) = cursor.alarm.replace(due) {
                self.alarms.remove(&(alarm, name.clone()));
            }
            self.alarms.insert((due, name.clone()));
        }
    }

    /// The next group to look at. It has no alarm until it is touched.
    pub(super) fn take_alarm(&mut self, now: Time) -> Option<Name> {
        let (_, name) = self.alarms.first().filter(|(due, _)| *due <= now)?.clone();
        self.alarms.pop_first();
        if let Some(cursor) = self.by_name.get_mut(&name) {
            cursor.alarm = None;
        }
        Some(name)
    }

    pub(super) fn next_alarm(&self) -> Option<Time> {
        self.alarms.first().map(|(due, _)| *due)
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        self.due.retain(|(_, it)| it != name);
        self.alarms.retain(|(_, it)| it != name);
        self.by_name.remove(name).is_some()
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next cursor that shall be written now.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Moved> {
        loop {
            let first = self.due.first().filter(|(due, _)| *due <= now)?.clone();
            self.due.remove(&first);
            if let Some(moved) = self.take(&first.1) {
                return Some(moved);
            }
        }
    }

    /// Where the cursor is, if that is not written yet.
    pub(super) fn take(&mut self, name: &Name) -> Option<Moved> {
        let cursor = self.by_name.get_mut(name).filter(|it| it.changed)?;
        cursor.changed = false;
        let name = name.clone();
        Some(match &cursor.at {
            Position::One(next, since) => Moved { name, next: *next, since: *since, group: None },
            Position::Shared(group) => Moved {
                name,
                next: group.committed(),
                since: group.since(),
                group: Some(group.definition()),
            },
        })
    }
}

/// Whether a consumer tag was chosen by a program's author, and not made up by a client library for one run.
pub(super) fn is_chosen(tag: &str) -> bool {
    const GENERATED: [&str; 4] = ["amq.ctag-", "ctag", "bunny-", "subscription-"];
    !tag.is_empty() && !GENERATED.iter().any(|prefix| tag.starts_with(prefix))
}
