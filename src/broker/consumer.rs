//! Who takes from a mailbox: consumers, their turns, priority and credit.

use super::command::{ChannelId, ConnectionId, ConsumerId};
use super::name::Name;
use super::value::Table;

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    pub(super) id: ConsumerId,
    pub(super) tag: Name,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) priority: i32,
    /// Unsettled deliveries it may hold, 0 for no limit.
    pub(super) prefetch: u32,
    pub(super) unsettled: u32,
    pub(super) arguments: Table,
}

impl Consumer {
    pub(super) fn has_credit(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unsettled < self.prefetch
    }
}

/// Consumers in order of priority, the highest first; inside a priority they take turns.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    list: Vec<Consumer>,
    /// Where the next turn starts.
    turn: usize,
    /// With a single active consumer: who it is.
    active: Option<(ConnectionId, ConsumerId)>,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.list.iter()
    }

    pub(super) fn add(&mut self, consumer: Consumer) {
        let at = self.list.partition_point(|other| other.priority >= consumer.priority);
        self.list.insert(at, consumer);
    }

    pub(super) fn remove(&mut self, connection: ConnectionId, id: ConsumerId) -> Option<Consumer> {
        let at = self.position(connection, id)?;
        if self.active == Some((connection, id)) {
            self.active = None;
        }
        if at < self.turn {
            self.turn -= 1;
        }
        Some(self.list.remove(at))
    }

    pub(super) fn get_mut(
        &mut self,
        connection: ConnectionId,
        id: ConsumerId,
    ) -> Option<&mut Consumer> {
        let at = self.position(connection, id)?;
        Some(&mut self.list[at])
    }

    fn position(&self, connection: ConnectionId, id: ConsumerId) -> Option<usize> {
        // The one whose turn was last is the one asked for most.
        let last = self.turn.wrapping_sub(1);
        if self.list.get(last).is_some_and(|it| it.id == id && it.connection == connection) {
            return Some(last);
        }
        self.list.iter().position(|it| it.id == id && it.connection == connection)
    }

    pub(super) fn has_exclusive(&self) -> bool {
        self.list.iter().any(|it| it.exclusive)
    }

    pub(super) fn active(&self) -> Option<(ConnectionId, ConsumerId)> {
        self.active
    }

    /// Whose turn it is among those that `can_take`: the highest priority first, then round robin.
    pub(super) fn next(
        &mut self,
        single_active: bool,
        mut can_take: impl FnMut(&Consumer) -> bool,
    ) -> Option<&mut Consumer> {
        if single_active {
            return self.next_active(can_take);
        }
        let count = self.list.len();
        let mut start = 0;
        while start < count {
            let priority = self.list[start].priority;
            let end = start + self.list[start..].partition_point(|it| it.priority == priority);
            let size = end - start;
            let offset = if (start..end).contains(&self.turn) { self.turn - start } else { 0 };
            for step in 0..size {
                let at = start + (offset + step) % size;
                if can_take(&self.list[at]) {
                    self.turn = at + 1;
                    return Some(&mut self.list[at]);
                }
            }
            start = end;
        }
        None
    }

    fn next_active(
        &mut self,
        mut can_take: impl FnMut(&Consumer) -> bool,
    ) -> Option<&mut Consumer> {
        if self.active.is_none() {
            self.active = self.list.first().map(|it| (it.connection, it.id));
        }
        let (connection, id) = self.active?;
        let at = self.position(connection, id)?;
        can_take(&self.list[at]).then(|| &mut self.list[at])
    }

    pub(super) fn drain(&mut self) -> Vec<Consumer> {
        self.turn = 0;
        self.active = None;
        std::mem::take(&mut self.list)
    }
}
