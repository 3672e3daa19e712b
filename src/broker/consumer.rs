//! Who takes from a mailbox: consumers, their turns, priority and credit.

use std::sync::Arc;

use super::command::{ChannelId, ConnectionId, ConsumerId};
use super::name::Name;
use super::selection::Search;
use super::selector::Selector;
use super::value::Table;

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) id: ConsumerId,
    /// Shown to people.
    pub(super) tag: Name,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) priority: i32,
    /// Unsettled deliveries it may hold, 0 for no limit.
    pub(super) prefetch: u32,
    pub(super) unsettled: u32,
    /// Its own word on how long it may keep a delivery; 0 for ever.
    pub(super) timeout_ms: Option<u64>,
    pub(super) arguments: Table,
    /// It takes some messages and leaves the others.
    pub(super) search: Option<Search>,
    /// It takes all messages, and those that this does not match are gone.
    pub(super) keeps: Option<Arc<Selector>>,
}

impl Consumer {
    pub(super) fn has_credit(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unsettled < self.prefetch
    }
}

/// Consumers in order of priority, the highest first; inside a priority they take turns.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    levels: Vec<Level>,
    len: usize,
    /// Those that take only some messages.
    searches: usize,
    /// Who was chosen last.
    last: Place,
    /// With a single active consumer: who it is. It stays until it leaves; then the first in order follows.
    active: Option<(ConnectionId, ConsumerId)>,
}

/// Consumers of one priority.
#[derive(Debug)]
struct Level {
    priority: i32,
    list: Vec<Consumer>,
    /// Where the next turn starts.
    turn: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    level: usize,
    at: usize,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many take only some messages.
    pub(super) fn searches(&self) -> usize {
        self.searches
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.levels.iter().flat_map(|level| &level.list)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Consumer> {
        self.levels.iter_mut().flat_map(|level| &mut level.list)
    }

    /// Those that can have a turn.
    pub(super) fn in_turn(&self, single_active: bool) -> impl Iterator<Item = &Consumer> {
        let active = self.active;
        self.iter().filter(move |it| !single_active || active == Some((it.connection, it.id)))
    }

    pub(super) fn add(&mut self, consumer: Consumer) {
        let priority = consumer.priority;
        if self.active.is_none() {
            self.active = Some((consumer.connection, consumer.id));
        }
        self.len += 1;
        self.searches += usize::from(consumer.search.is_some());
        let at = self.levels.partition_point(|level| level.priority > priority);
        match self.levels.get_mut(at) {
            Some(level) if level.priority == priority => level.list.push(consumer),
            _ => {
                let list = vec![consumer];
                self.levels.insert(at, Level { priority, list, turn: 0 });
            }
        }
    }

    pub(super) fn remove(&mut self, connection: ConnectionId, id: ConsumerId) -> Option<Consumer> {
        let Place { level: index, at } = self.place(connection, id)?;
        let level = &mut self.levels[index];
        let consumer = level.list.remove(at);
        level.turn -= usize::from(at < level.turn);
        if level.list.is_empty() {
            self.levels.remove(index);
        }
        self.len -= 1;
        self.searches -= usize::from(consumer.search.is_some());
        if self.active == Some((connection, id)) {
            let first = self.levels.first().and_then(|level| level.list.first());
            self.active = first.map(|it| (it.connection, it.id));
        }
        Some(consumer)
    }

    pub(super) fn get(&self, connection: ConnectionId, id: ConsumerId) -> Option<&Consumer> {
        let place = self.place(connection, id)?;
        Some(&self.levels[place.level].list[place.at])
    }

    pub(super) fn get_mut(
        &mut self,
        connection: ConnectionId,
        id: ConsumerId,
    ) -> Option<&mut Consumer> {
        let place = self.place(connection, id)?;
        Some(&mut self.levels[place.level].list[place.at])
    }

    fn place(&self, connection: ConnectionId, id: ConsumerId) -> Option<Place> {
        let is_it = |it: &Consumer| it.id == id && it.connection == connection;
        // The one whose turn was last is asked for most.
        let last = self.levels.get(self.last.level);
        if last.and_then(|level| level.list.get(self.last.at)).is_some_and(is_it) {
            return Some(self.last);
        }
        self.levels.iter().enumerate().find_map(|(index, level)| {
            let at = level.list.iter().position(is_it)?;
            Some(Place { level: index, at })
        })
    }

    pub(super) fn has_exclusive(&self) -> bool {
        self.iter().any(|it| it.exclusive)
    }

    /// Whose turn it is among those that `can_take`: the highest priority first, then round robin.
    pub(super) fn next(
        &mut self,
        single_active: bool,
        can_take: impl Fn(&Consumer) -> bool,
    ) -> Option<&Consumer> {
        self.last = if single_active {
            let (connection, id) = self.active?;
            let place = self.place(connection, id)?;
            can_take(&self.levels[place.level].list[place.at]).then_some(place)?
        } else {
            self.levels.iter_mut().enumerate().find_map(|(index, level)| {
                Some(Place { level: index, at: level.next(&can_take)? })
            })?
        };
        Some(&self.levels[self.last.level].list[self.last.at])
    }

    /// The same, where asking changes what a consumer knows of the mailbox.
    pub(super) fn seek(
        &mut self,
        single_active: bool,
        mut can_take: impl FnMut(&mut Consumer) -> bool,
    ) -> Option<&Consumer> {
        self.last = if single_active {
            let (connection, id) = self.active?;
            let place = self.place(connection, id)?;
            can_take(&mut self.levels[place.level].list[place.at]).then_some(place)?
        } else {
            self.levels.iter_mut().enumerate().find_map(|(index, level)| {
                Some(Place { level: index, at: level.seek(&mut can_take)? })
            })?
        };
        Some(&self.levels[self.last.level].list[self.last.at])
    }

    /// The one that was chosen last has one more to settle.
    pub(super) fn count_delivery(&mut self) {
        self.levels[self.last.level].list[self.last.at].unsettled += 1;
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Consumer> + use<> {
        std::mem::take(self).levels.into_iter().flat_map(|level| level.list)
    }
}

impl Level {
    fn next(&mut self, can_take: impl Fn(&Consumer) -> bool) -> Option<usize> {
        let turn = if self.turn < self.list.len() { self.turn } else { 0 };
        let at = (turn..self.list.len()).chain(0..turn).find(|at| can_take(&self.list[*at]))?;
        self.turn = at + 1;
        Some(at)
    }

    fn seek(&mut self, mut can_take: impl FnMut(&mut Consumer) -> bool) -> Option<usize> {
        let turn = if self.turn < self.list.len() { self.turn } else { 0 };
        let mut places = (turn..self.list.len()).chain(0..turn);
        let at = places.find(|at| can_take(&mut self.list[*at]))?;
        self.turn = at + 1;
        Some(at)
    }
}
