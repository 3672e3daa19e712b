//! The keys of a key-value mailbox: which positions hold a key's newest values.
//!
//! In memory, in order of the keys. After a restart it is built again from what the store has.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::broker::command::Seq;
use crate::broker::message::Message;
use crate::broker::name::Time;
use crate::broker::value::Value;

/// The header that names a message's key.
const KEY: &str = "x-key";
/// The header of a message that says that its key has no value any more.
const TOMBSTONE: &str = "x-tombstone";

/// So long a deletion can be seen by those who read from the start.
const TOMBSTONE_MS: u64 = 24 * 3600 * 1000;

/// Bytes of a key, which is text.
pub(super) const KEY_SIZE_MAX: usize = 255;

#[derive(Debug, Default)]
pub(super) struct Keys {
    by_key: BTreeMap<Bytes, Versions>,
    /// Values that are kept for each key.
    history: usize,
    /// By the time they go.
    tombstones: BTreeMap<(Time, Seq), Bytes>,
    /// What the store has up to here is not looked at yet.
    unread: Option<(Seq, Seq)>,
}

#[derive(Debug, Default)]
struct Versions {
    /// Ascending.
    seqs: SmallVec<[Seq; 1]>,
    /// The newest one is a deletion.
    deleted: bool,
}

/// A key and the offset of its newest value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    pub key: Bytes,
    pub offset: u64,
    /// Values that are kept of it.
    pub values: u32,
}

/// The key of a message: its header, or the routing key by which an exchange was asked.
pub(super) fn key_of(message: &Message) -> Option<Bytes> {
    let key = match message.properties().header(KEY) {
        Some(value) => value.as_bytes()?.clone(),
        None if message.exchange().is_empty() => return None,
        None => Bytes::copy_from_slice(message.key()),
    };
    let fits = !key.is_empty() && key.len() <= KEY_SIZE_MAX;
    (fits && std::str::from_utf8(&key).is_ok()).then_some(key)
}

fn is_tombstone(message: &Message) -> bool {
    match message.properties().header(TOMBSTONE) {
        Some(Value::Bool(yes)) => *yes,
        Some(value) => value.as_str() == Some("true"),
        None => false,
    }
}

impl Keys {
    pub(super) fn new(history: Option<u64>) -> Self {
        let history = history.unwrap_or(1).clamp(1, 1 << 16) as usize;
        Self { history, ..Self::default() }
    }

    /// Everything in this range must be looked at before a key can be asked for.
    pub(super) fn recovered(&mut self, first: Seq, next: Seq) {
        self.unread = (first < next).then_some((first, next));
    }

    /// The positions that are still to be looked at: from the first to before the second.
    pub(super) fn unread(&self) -> Option<(Seq, Seq)> {
        self.unread
    }

    /// Everything before this position was looked at.
    pub(super) fn read_upto(&mut self, seq: Seq) {
        self.unread = self.unread.map(|(_, end)| (seq, end)).filter(|(from, end)| from < end);
    }

    /// A message is there. Returns the positions that it, or a newer one, stands in place of.
    pub(super) fn add(&mut self, seq: Seq, message: &Message, since: Time) -> SmallVec<[Seq; 1]> {
        // One without a key came before the mailbox asked for one.
        let Some(key) = key_of(message) else { return [seq].into_iter().collect() };
        let deletes = is_tombstone(message);
        if deletes {
            self.tombstones.insert((since.plus_ms(TOMBSTONE_MS), seq), key.clone());
        }
        let versions = self.by_key.entry(key).or_default();
        let at = versions.seqs.partition_point(|it| *it < seq);
        let newest = at == versions.seqs.len();
        if versions.deleted && !newest {
            return [seq].into_iter().collect();
        }
        let mut gone = SmallVec::new();
        if newest {
            if deletes || versions.deleted {
                gone.extend(versions.seqs.drain(..));
            }
            versions.deleted = deletes;
            versions.seqs.push(seq);
        } else if deletes {
            // An older deletion: what is before it is gone, and so is it, as there is a newer value.
            gone.extend(versions.seqs.drain(..at));
            gone.push(seq);
        } else {
            versions.seqs.insert(at, seq);
        }
        while versions.seqs.len() > self.history {
            gone.push(versions.seqs.remove(0));
        }
        gone
    }

    /// Deletions that everybody had time to see.
    pub(super) fn take_expired(&mut self, now: Time) -> Option<Seq> {
        loop {
            let first = self.tombstones.first_entry().filter(|it| it.key().0 <= now)?;
            let ((_, seq), key) = first.remove_entry();
            if let Some(versions) = self.by_key.get(&key)
                && versions.deleted
                && versions.seqs.last() == Some(&seq)
            {
                self.by_key.remove(&key);
                return Some(seq);
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.tombstones.first_key_value().map(|((due, _), _)| *due)
    }

    /// The position holds nothing any more, which happens to damaged messages only.
    pub(super) fn forget(&mut self, seq: Seq) {
        for versions in self.by_key.values_mut() {
            versions.seqs.retain(|it| *it != seq);
        }
        self.by_key.retain(|_, versions| !versions.seqs.is_empty());
    }

    /// Where the newest value of the key is.
    pub(super) fn newest(&self, key: &Bytes) -> Option<Seq> {
        self.by_key.get(key).filter(|it| !it.deleted).and_then(|it| it.seqs.last()).copied()
    }

    /// The first value of the key at this position or behind it.
    pub(super) fn next_of(&self, key: &Bytes, from: Seq) -> Option<Seq> {
        let seqs = &self.by_key.get(key)?.seqs;
        seqs.get(seqs.partition_point(|seq| *seq < from)).copied()
    }

    /// Keys with a value, in order, after this one.
    pub(super) fn after(&self, after: Option<&Bytes>) -> impl Iterator<Item = KeyView> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, |key| Excluded(key.clone()));
        let keys = self.by_key.range::<Bytes, _>((start, Unbounded));
        keys.filter(|(_, versions)| !versions.deleted).filter_map(|(key, versions)| {
            let offset = versions.seqs.last()?.0 - 1;
            Some(KeyView { key: key.clone(), offset, values: versions.seqs.len() as u32 })
        })
    }
}
