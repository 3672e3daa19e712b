//! Homing: what is still live in the journal moves into chunks, in one transaction of home with quick repair.
//!
//! ```text
//! snapshot of the index -> deletions -> chunks, rows -> commit -> the index points to home
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use redb::{ReadableTable, Table, WriteTransaction};

use super::builder::Built;
use super::chunk::sealed;
use super::error::{StoreError, engine};
use super::extent::Extent;
use super::home::{mailbox_row, position_row, quarantine_row, read_quarantine};
use super::index::Index;
use super::round::{Moved, Round, table};
use super::shared::{Files, Shared};
use super::snapshot::{Snapshot, Sparse};
use super::survivors::Survivors;
use super::tables::{self, guarded};

/// What a round takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Commits up to this part.
    Upto(u64),
    /// The oldest commits of this size.
    Oldest(u64),
    All,
    /// All, and the mark of an orderly stop.
    Stop,
}

/// Journal bytes of one round: what it moves is in memory until it is written.
pub(super) const ROUND_MAX: u64 = 12 << 20;

/// Of the first round after a full disk: what it deletes makes room in the file only once it is committed.
pub(super) const ROUND_FIRST: u64 = 512 << 10;

#[derive(Debug)]
pub(super) struct Homer {
    pub(super) shared: Arc<Shared>,
    pub(super) next_shared: u64,
    pub(super) next_big: u64,
    /// Journal bytes of the next round.
    pub(super) round_max: u64,
}

impl Homer {
    /// Returns whether anything was done.
    pub(super) fn round(&mut self, scope: Scope) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let files = shared.files.read().unwrap_or_else(PoisonError::into_inner);
        let files = files.as_ref().ok_or(StoreError::Dead)?;
        let snapshot = {
            let mut index = shared.lock_index();
            let progress = shared.lock_progress();
            let target = match scope {
                Scope::Upto(part) => progress.target(self.round_max, part),
                Scope::Oldest(bytes) => progress.target(bytes.min(self.round_max), u64::MAX),
                Scope::All | Scope::Stop => progress.target(self.round_max, u64::MAX),
            };
            let target = match (target, scope) {
                (Some(target), _) => target,
                (None, Scope::Stop) => progress.last(),
                (None, _) => return Ok(false),
            };
            drop(progress);
            Snapshot::take(&mut index, target, self.round_max)
        };
        let stop = scope == Scope::Stop && snapshot.target == shared.lock_progress().last();
        let built = self.write(files, &snapshot, stop)?;
        self.publish(&snapshot, built);
        self.round_max = (2 * self.round_max).min(ROUND_MAX);
        Ok(true)
    }

    fn write(
        &mut self,
        files: &Files,
        snapshot: &Snapshot,
        stop: bool,
    ) -> Result<Vec<Built>, StoreError> {
        let mut transaction = files.home.begin_write().map_err(engine)?;
        transaction.set_quick_repair(true);
        let Moved { built, shared, lost } = self.move_messages(files, &transaction, snapshot)?;
        self.release(&transaction, snapshot, &built, &shared)?;
        write_rows(&transaction, snapshot, &lost)?;
        {
            let mut meta = table_str(&transaction)?;
            let target = snapshot.target;
            let row = position_row("applied", target.last_part, target.commit);
            meta.insert("applied", row.as_slice()).map_err(engine)?;
            if stop {
                let row = position_row("clean", target.last_part, target.commit);
                meta.insert("clean", row.as_slice()).map_err(engine)?;
            }
        }
        transaction.commit().map_err(engine)?;
        Ok(built)
    }

    fn move_messages(
        &mut self,
        files: &Files,
        transaction: &WriteTransaction,
        snapshot: &Snapshot,
    ) -> Result<Moved, StoreError> {
        let mut survivors = Vec::new();
        for Sparse { mailbox, extent, few, .. } in &snapshot.sparse {
            survivors.push(Survivors::read(files, *mailbox, extent, few)?);
        }
        delete(transaction, snapshot)?;
        let mut round = Round::new(files, transaction, self.next_shared, self.next_big)?;
        for (sparse, survivors) in snapshot.sparse.iter().zip(survivors) {
            if !sparse.joined {
                round.part(sparse.mailbox);
            }
            round.keep(sparse.mailbox, survivors)?;
        }
        for sparse in &snapshot.sparse {
            round.part(sparse.mailbox);
        }
        for extents in snapshot.extents.chunk_by(|a, b| a.1.place == b.1.place) {
            guarded(|| round.move_part(extents))?;
        }
        round.finish()?;
        (self.next_shared, self.next_big) = round.next_ids();
        Ok(round.moved)
    }

    /// Counts the references of the new chunks, forgets those of rewritten ones, and deletes what nobody wants.
    fn release(
        &self,
        transaction: &WriteTransaction,
        snapshot: &Snapshot,
        built: &[Built],
        shared: &[(u64, u32)],
    ) -> Result<(), StoreError> {
        let (free_shared, free_big) = {
            let mut index = self.shared.lock_index();
            for Built { row, .. } in built {
                for (id, count) in &row.shared {
                    index.shared.entry(*id).or_default().references += count;
                }
                for id in &row.big {
                    *index.big.entry(*id).or_default() += 1;
                }
            }
            for (id, bodies) in shared {
                index.shared.entry(*id).or_default().bodies = *bodies;
            }
            for (id, key) in snapshot.sparse_keys() {
                index.forget_chunk(id, key);
            }
            (std::mem::take(&mut index.free_shared), std::mem::take(&mut index.free_big))
        };
        let mut shared = table(transaction, tables::SHARED)?;
        for id in free_shared {
            shared.remove(id).map_err(engine)?;
        }
        let mut big = table(transaction, tables::BIG)?;
        for id in free_big {
            big.retain_in((id, 0)..=(id, u32::MAX), |_, _| false).map_err(engine)?;
        }
        Ok(())
    }

    /// Home is durable: the index points there, less what went in the meantime.
    fn publish(&self, snapshot: &Snapshot, built: Vec<Built>) {
        let target = snapshot.target.last_part;
        let sparse = snapshot.sparse_keys();
        let mut by_mailbox: BTreeMap<u64, Vec<Built>> = BTreeMap::new();
        for (id, _) in &snapshot.extents {
            by_mailbox.entry(*id).or_default();
        }
        for sparse in &snapshot.sparse {
            by_mailbox.entry(sparse.mailbox).or_default();
        }
        for chunk in built {
            by_mailbox.entry(chunk.key.0).or_default().push(chunk);
        }
        let mut index = self.shared.lock_index();
        for (id, chunks) in by_mailbox {
            index.publish(id, chunks, |extent| {
                if extent.is_home() {
                    sparse.contains(&(id, extent.place))
                } else {
                    extent.place <= target
                }
            });
        }
        let mut progress = self.shared.lock_progress();
        progress.homed(target);
        progress.rounds += 1;
        drop(progress);
        drop(index);
        self.shared.room.notify_all();
    }
}

impl Index {
    fn forget_chunk(&mut self, id: u64, key: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        let shared = mailbox.shared.remove(&key).unwrap_or_default();
        let big = mailbox.big.remove(&key).unwrap_or_default();
        for (id, count) in shared {
            self.release_shared(id, count);
        }
        for id in big {
            self.release_big(id);
        }
    }

    fn publish(&mut self, id: u64, chunks: Vec<Built>, homed: impl FnMut(&Extent) -> bool) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else {
            // Dropped meanwhile: its rows go in the next round, and what only they held.
            for Built { row, .. } in &chunks {
                row.shared.iter().for_each(|(id, count)| self.release_shared(*id, *count));
                row.big.iter().for_each(|id| self.release_big(*id));
            }
            return;
        };
        let before = mailbox.take(homed);
        let live: u64 = before.iter().map(|extent| u64::from(extent.count)).sum();
        let moved: u64 = chunks.iter().map(|chunk| u64::from(chunk.extent.count)).sum();
        let mut after = 0;
        for Built { key, row, mut extent, .. } in chunks {
            if live != moved {
                let positions: Vec<u64> = extent.positions().collect();
                for seq in positions.into_iter().filter(|&seq| !has(&before, seq)) {
                    extent.remove(seq, seq + 1);
                }
            }
            after += u64::from(extent.count);
            if !row.shared.is_empty() {
                mailbox.shared.insert(key.1, row.shared.into());
            }
            if !row.big.is_empty() {
                mailbox.big.insert(key.1, row.big.into());
            }
            if extent.count == 0 {
                mailbox.spent.push(key.1);
            } else {
                mailbox.insert(extent);
            }
        }
        self.live = self.live + after - live;
        if live != moved {
            self.touch(id);
        }
    }
}

/// Extents in order of position.
fn has(extents: &[Extent], seq: u64) -> bool {
    let upto = extents.partition_point(|extent| extent.first <= seq);
    extents[..upto]
        .iter()
        .rev()
        .take_while(|extent| extent.first + u64::from(super::extent::SPAN_MAX) > seq)
        .any(|extent| extent.has(seq))
}

fn table_str(
    transaction: &WriteTransaction,
) -> Result<Table<'_, &'static str, &'static [u8]>, StoreError> {
    transaction.open_table(tables::META).map_err(engine)
}

/// Deletions come first: a read that misses the cache makes redb write its new pages early, and once more later.
fn delete(transaction: &WriteTransaction, snapshot: &Snapshot) -> Result<(), StoreError> {
    let mut tables = [
        table(transaction, tables::CHUNKS)?,
        table(transaction, tables::CHUNK_INDEX)?,
        table(transaction, tables::LIVE)?,
        table(transaction, tables::ATTEMPTS)?,
    ];
    for id in &snapshot.dropped {
        for table in &mut tables {
            table.retain_in((*id, 0)..=(*id, u64::MAX), |_, _| false).map_err(engine)?;
        }
    }
    let sparse = snapshot.sparse_keys();
    for key in snapshot.spent.iter().chain(&sparse) {
        for table in &mut tables[..3] {
            table.remove(*key).map_err(engine)?;
        }
    }
    for key in &snapshot.free_attempts {
        tables[3].remove(*key).map_err(engine)?;
    }
    let mut mailboxes = table(transaction, tables::MAILBOXES)?;
    for id in &snapshot.dropped {
        mailboxes.remove(*id).map_err(engine)?;
    }
    Ok(())
}

fn write_rows(
    transaction: &WriteTransaction,
    snapshot: &Snapshot,
    lost: &[(u64, u64)],
) -> Result<(), StoreError> {
    let mut mailboxes = table(transaction, tables::MAILBOXES)?;
    for (id, next, mark) in &snapshot.mailboxes {
        mailboxes.insert(*id, mailbox_row(*id, *next, *mark).as_slice()).map_err(engine)?;
    }
    let mut live = table(transaction, tables::LIVE)?;
    for (key, row) in &snapshot.live_rows {
        live.insert(*key, row.as_slice()).map_err(engine)?;
    }
    let mut attempts = table(transaction, tables::ATTEMPTS)?;
    for (key, row) in &snapshot.attempts {
        attempts.insert(*key, row.as_slice()).map_err(engine)?;
    }
    let mut definitions = table(transaction, tables::DEFINITIONS)?;
    for (key, value) in &snapshot.definitions {
        let key = key.as_slice();
        match value {
            Some(value) => definitions.insert(key, sealed(key, value).as_slice()),
            None => definitions.remove(key),
        }
        .map_err(engine)?;
    }
    let mut quarantine = table(transaction, tables::QUARANTINE)?;
    for (key, (reason, record)) in &snapshot.quarantine {
        // A record that was set aside before is worth more than none.
        let before = quarantine.get(*key).map_err(engine)?;
        let before = before.and_then(|row| read_quarantine(*key, row.value()));
        let kept = before.map(|(_, record)| record).unwrap_or_default();
        let record = if record.is_empty() { &kept } else { record };
        let row = quarantine_row(*key, reason, record);
        quarantine.insert(*key, row.as_slice()).map_err(engine)?;
    }
    for key in lost {
        let row = quarantine_row(*key, b"the record's head is damaged", &[]);
        quarantine.insert(*key, row.as_slice()).map_err(engine)?;
    }
    Ok(())
}
