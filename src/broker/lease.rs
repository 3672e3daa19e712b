//! Deliveries not yet settled, by position.

use std::collections::{BTreeMap, VecDeque};

use super::command::{ChannelId, ConnectionId, ConsumerId, Seq};
use super::lane::Entry;
use super::name::Time;

/// A delivery not yet settled, and who holds it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) entry: Entry,
    pub(super) connection: ConnectionId,
    pub(super) channel: ChannelId,
    /// `None` for a message that was asked for singly.
    pub(super) consumer: Option<ConsumerId>,
    pub(super) since: Time,
    /// The time to settle it runs from then.
    pub(super) runs_from: Time,
}

impl Lease {
    pub(super) fn is_of(&self, (connection, channel): (ConnectionId, ChannelId)) -> bool {
        self.connection == connection && self.channel == channel
    }

    /// Bytes that it keeps in memory, roughly.
    pub(super) fn size(&self) -> u64 {
        self.entry.message.footprint()
    }
}

/// Leases come mostly in order of position and go mostly in that order: those stand in a row, the others in a map.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Position of the row's front.
    first: Seq,
    /// The front is never empty.
    row: VecDeque<Option<Lease>>,
    in_row: usize,
    /// Sum of the bodies.
    bytes: u64,
    /// Never positions that the row spans.
    others: BTreeMap<Seq, Lease>,
}

/// The row ends where more positions than this are missing before the next.
const GAP_MAX: usize = 64;

/// A row up to this long may be as empty as it likes.
const SPARSE_MIN: usize = 256;

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.in_row + self.others.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// There is none at its position.
    pub(super) fn insert(&mut self, lease: Lease) {
        self.bytes += lease.entry.body_size();
        let seq = lease.entry.seq;
        if self.row.is_empty() && self.others.last_key_value().is_none_or(|(last, _)| *last < seq) {
            self.first = seq;
        }
        let at = seq.0.checked_sub(self.first.0).map(|at| at as usize);
        match at {
            Some(at) if at < self.row.len() => {
                self.row[at] = Some(lease);
                self.in_row += 1;
            }
            Some(at) if at <= self.row.len() + GAP_MAX && self.is_free_from_row_to(seq) => {
                self.row.resize_with(at, || None);
                self.row.push_back(Some(lease));
                self.in_row += 1;
            }
            _ => {
                self.others.insert(seq, lease);
            }
        }
    }

    fn is_free_from_row_to(&self, seq: Seq) -> bool {
        self.others.is_empty() || {
            let end = Seq(self.first.0 + self.row.len() as u64);
            self.others.range(end..=seq).next().is_none()
        }
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Lease> {
        match self.place(seq) {
            Some(at) => self.row[at].as_mut(),
            None => self.others.get_mut(&seq),
        }
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Lease> {
        match self.place(seq) {
            Some(at) => self.row[at].as_ref(),
            None => self.others.get(&seq),
        }
    }

    /// The lease at this position, if it is this channel's.
    pub(super) fn remove(&mut self, seq: Seq, of: (ConnectionId, ChannelId)) -> Option<Lease> {
        let Some(at) = self.place(seq) else {
            self.others.get(&seq).filter(|lease| lease.is_of(of))?;
            let lease = self.others.remove(&seq)?;
            self.bytes -= lease.entry.body_size();
            return Some(lease);
        };
        let lease = self.row[at].take_if(|lease| lease.is_of(of))?;
        self.in_row -= 1;
        self.bytes -= lease.entry.body_size();
        if at == 0 {
            while let Some(None) = self.row.front() {
                self.row.pop_front();
                self.first.0 += 1;
            }
        }
        if self.row.len() > SPARSE_MIN && self.in_row * 16 < self.row.len() {
            // A few old leases must not keep a long empty row.
            for lease in self.row.drain(..).flatten() {
                self.others.insert(lease.entry.seq, lease);
            }
            self.in_row = 0;
        }
        Some(lease)
    }

    /// When the oldest of them began.
    pub(super) fn earliest(&self) -> Option<Time> {
        self.values().map(|lease| lease.runs_from).min()
    }

    fn place(&self, seq: Seq) -> Option<usize> {
        let at = seq.0.checked_sub(self.first.0)? as usize;
        (at < self.row.len()).then_some(at)
    }

    /// Those behind a position, in order.
    pub(super) fn after(&self, seq: Seq) -> impl Iterator<Item = &Lease> {
        let from = Seq(seq.0.saturating_add(1));
        let end = Seq(self.first.0 + self.row.len() as u64);
        let before = self.others.range(from..self.first.max(from)).map(|(_, lease)| lease);
        let passed = (from.0.saturating_sub(self.first.0) as usize).min(self.row.len());
        let behind = self.others.range(end.max(from)..).map(|(_, lease)| lease);
        before.chain(self.row.range(passed..).flatten()).chain(behind)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Lease> {
        self.others.values().chain(self.row.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::broker::{Epoch, Message, NEUTRAL, Properties, Rest, Source, Time};

    fn lease(message: &Arc<Message>, seq: u64) -> Lease {
        let (rest, epoch) = (Rest::default(), Epoch(0));
        let entry = Entry {
            seq: Seq(seq),
            message: message.clone(),
            rest,
            epoch,
            stored: false,
            acquired: 0,
        };
        let (connection, channel, since) = (ConnectionId(1), ChannelId(1), Time::ZERO);
        Lease { entry, connection, channel, consumer: None, since, runs_from: since }
    }

    proptest! {
        #[test]
        fn leases_hold_what_a_set_holds(
            steps in prop::collection::vec((0u8..4, 0u64..40, 1u64..200), 0..400),
        ) {
            let source = Source {
                exchange: &"".into(),
                key: b"",
                properties: &Properties::default(),
                body: b"",
                form: &NEUTRAL,
                persistent: false,
                accepted: Time::ZERO,
            };
            let message = Arc::new(Message::build(&source));
            let of = (ConnectionId(1), ChannelId(1));
            let mut leases = Leases::default();
            let mut set = BTreeSet::new();
            let mut next = 1;
            for (step, pick, gap) in steps {
                match step {
                    // Mostly neighbours, sometimes far ahead, sometimes an old one again.
                    0 | 1 => {
                        let seq = if gap > 180 { pick + 1 } else { next + if gap > 150 { gap } else { 1 } };
                        next = next.max(seq);
                        if set.insert(seq) {
                            leases.insert(lease(&message, seq));
                        }
                    }
                    _ => {
                        let seq = set.iter().nth(pick as usize % set.len().max(1)).copied();
                        let Some(seq) = seq else { continue };
                        prop_assert!(leases.remove(Seq(seq), (ConnectionId(2), ChannelId(1))).is_none());
                        prop_assert_eq!(leases.remove(Seq(seq), of).map(|it| it.entry.seq), Some(Seq(seq)));
                        prop_assert!(leases.remove(Seq(seq), of).is_none());
                        set.remove(&seq);
                    }
                }
                prop_assert_eq!(leases.len(), set.len());
                prop_assert!(set.iter().all(|seq| leases.get(Seq(*seq)).is_some()));
                let held: BTreeSet<u64> = leases.values().map(|it| it.entry.seq.0).collect();
                prop_assert_eq!(&held, &set);
                let behind: Vec<u64> = leases.after(Seq(pick)).map(|it| it.entry.seq.0).collect();
                prop_assert_eq!(behind, set.range(pick + 1..).copied().collect::<Vec<_>>());
            }
        }
    }
}
