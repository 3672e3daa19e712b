//! What a round of homing shall write, taken from the index in one moment.

use std::collections::{BTreeMap, BTreeSet};

use super::extent::Extent;
use super::home::{attempts_row, live_row};
use super::index::Index;
use super::part::{SMALL_MAX, VALUE_MAX};
use super::shared::Committed;

type Key = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Home has everything up to this commit afterwards.
    pub(super) target: Committed,
    /// Extents of the journal with live messages, by part and offset.
    pub(super) extents: Vec<(u64, Extent)>,
    /// Mailbox, next and mark.
    pub(super) mailboxes: Vec<(u64, u64, u64)>,
    pub(super) live_rows: Vec<(Key, Vec<u8>)>,
    pub(super) attempts: Vec<(Key, Vec<u8>)>,
    pub(super) free_attempts: Vec<Key>,
    pub(super) definitions: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) quarantine: BTreeMap<Key, (Vec<u8>, Vec<u8>)>,
    pub(super) dropped: Vec<u64>,
    /// Chunks that hold nothing any more.
    pub(super) spent: Vec<Key>,
    /// Chunks that hold little, or refer to shared chunks that few refer to: their messages move together.
    pub(super) sparse: Vec<Sparse>,
}

#[derive(Clone, Debug)]
pub(super) struct Sparse {
    pub(super) mailbox: u64,
    pub(super) extent: Extent,
    /// The chunk before it is sparse too.
    pub(super) joined: bool,
    /// Shared chunks whose bodies move in with their holders.
    pub(super) few: Vec<u64>,
}

/// One chunk is rewritten at most for so many bytes of the round: a full round rewrites 64, somewhat more than it makes.
const SPARSE_EACH: u64 = 192 << 10;

/// As many small chunks as one large one.
const SMALL_EACH: u64 = SPARSE_EACH * SMALL_MAX as u64 / VALUE_MAX as u64;

/// Less than four in ten live.
fn is_sparse(extent: &Extent) -> bool {
    u64::from(extent.count) * 10 < u64::from(extent.born) * 4
}

impl Snapshot {
    /// For a round of this many bytes.
    pub(super) fn take(index: &mut Index, target: Committed, round: u64) -> Self {
        let mut snapshot = Self { target, ..Self::default() };
        let mut room = round;
        for id in std::mem::take(&mut index.touched) {
            snapshot.take_mailbox(index, id, &mut room);
        }
        for (&(id, seq), &(attempts, deliver_at)) in &index.attempts {
            let Some(mailbox) = index.mailboxes.get_mut(&id) else { continue };
            if mailbox.find(seq).is_some() {
                mailbox.attempts.insert(seq);
                snapshot.attempts.push(((id, seq), attempts_row((id, seq), attempts, deliver_at)));
            }
        }
        index.attempts.clear();
        snapshot.free_attempts = std::mem::take(&mut index.free_attempts);
        snapshot.definitions = std::mem::take(&mut index.definitions);
        snapshot.quarantine = std::mem::take(&mut index.quarantine);
        snapshot.dropped = std::mem::take(&mut index.dropped);
        snapshot.extents.sort_unstable_by_key(|(_, extent)| (extent.place, extent.offset));
        snapshot
    }

    fn take_mailbox(&mut self, index: &mut Index, id: u64, room: &mut u64) {
        let Some(mailbox) = index.mailboxes.get_mut(&id) else { return };
        mailbox.touched = false;
        self.mailboxes.push((id, mailbox.next, mailbox.mark));
        let mut later = false;
        let mut joined = false;
        for extent in &mut mailbox.extents {
            if extent.count == 0 {
                continue;
            }
            if !extent.is_home() {
                if extent.place <= self.target.last_part {
                    self.extents.push((id, extent.clone()));
                } else {
                    later = true;
                }
                joined = false;
                continue;
            }
            let few = mailbox.shared.get(&extent.place).into_iter().flatten();
            let few: Vec<u64> = few
                .map(|(id, _)| *id)
                .filter(|id| index.shared.get(id).is_some_and(|it| it.are_few()))
                .collect();
            let costs = if extent.small { SMALL_EACH } else { SPARSE_EACH };
            if (is_sparse(extent) || !few.is_empty()) && *room >= costs {
                *room -= costs;
                extent.changed = false;
                let extent = extent.clone();
                self.sparse.push(Sparse { mailbox: id, extent, joined, few });
                joined = true;
                continue;
            }
            if extent.changed {
                extent.changed = false;
                let key = (id, extent.place);
                self.live_rows.push((key, live_row(key, extent)));
            }
            joined = false;
        }
        let spent = std::mem::take(&mut mailbox.spent);
        let (mut shared, mut big) = (Vec::new(), Vec::new());
        for key in &spent {
            shared.extend(mailbox.shared.remove(key).unwrap_or_default());
            big.extend(mailbox.big.remove(key).unwrap_or_default());
        }
        self.spent.extend(spent.into_iter().map(|key| (id, key)));
        if later {
            index.touch(id);
        }
        for (id, count) in shared {
            index.release_shared(id, count);
        }
        for id in big {
            index.release_big(id);
        }
    }

    pub(super) fn sparse_keys(&self) -> BTreeSet<Key> {
        self.sparse.iter().map(|it| (it.mailbox, it.extent.place)).collect()
    }
}
