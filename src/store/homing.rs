//! Homing: what is still live in the journal moves into chunks, in one transaction of home with quick repair.
//!
//! ```text
//! snapshot of the index -> deletions -> chunks, rows -> commit -> the index points to home
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::builder::{Builder, Built};
use super::chunk::{CHUNK_HEAD, put_big_head, salt as chunk_salt, sealed, shared_salt};
use super::error::{StoreError, engine};
use super::extent::Extent;
use super::home::{mailbox_row, position_row, quarantine_row, read_quarantine};
use super::index::Index;
use super::part::{VALUE_MAX, salt as part_salt};
use super::reader::raw_slice;
use super::record::{BigPlace, MESSAGE, REF, Record, Records};
use super::shared::{Files, Shared};
use super::snapshot::{Snapshot, Sparse};
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
const ROUND_MAX: u64 = 12 << 20;

/// A body smaller than this is copied rather than shared.
const SHARE_MIN: usize = 256;

#[derive(Debug)]
pub(super) struct Homer {
    pub(super) shared: Arc<Shared>,
    pub(super) next_shared: u64,
    pub(super) next_big: u64,
}

/// Mailbox and position of live messages whose records cannot be found.
type Lost = Vec<(u64, u64)>;

type Row<'t, K> = Table<'t, K, &'static [u8]>;

/// The open transaction's tables and what gathers for them.
struct Round<'t> {
    files: &'t Files,
    chunks: Row<'t, (u64, u64)>,
    chunk_index: Row<'t, (u64, u64)>,
    shared: Row<'t, u64>,
    big: Row<'t, (u64, u32)>,
    builders: BTreeMap<(u64, bool), Builder>,
    /// Chunks written, without their values.
    built: Vec<Built>,
    shared_now: SharedChunk,
    next_big: u64,
    /// Where bodies with several holders went, by part and offset.
    placed: HashMap<(u64, u32), (u64, u32)>,
    /// Where big bodies went, by their first part.
    big_placed: HashMap<u64, BigPlace>,
    lost: Lost,
}

struct SharedChunk {
    id: u64,
    records: Vec<u8>,
}

fn table<'t, K: redb::Key + 'static>(
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'_, K, &'static [u8]>,
) -> Result<Row<'t, K>, StoreError> {
    transaction.open_table(definition).map_err(engine)
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
                Scope::Upto(part) => progress.target(ROUND_MAX, part),
                Scope::Oldest(bytes) => progress.target(bytes.min(ROUND_MAX), u64::MAX),
                Scope::All | Scope::Stop => progress.target(ROUND_MAX, u64::MAX),
            };
            let target = match (target, scope) {
                (Some(target), _) => target,
                (None, Scope::Stop) => progress.last(),
                (None, _) => return Ok(false),
            };
            drop(progress);
            Snapshot::take(&mut index, target)
        };
        let stop = scope == Scope::Stop && snapshot.target == shared.lock_progress().last();
        let built = self.write(files, &snapshot, stop)?;
        self.publish(&snapshot, built);
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
        let (built, lost) = self.move_messages(files, &transaction, snapshot)?;
        self.release(&transaction, snapshot, &built)?;
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
    ) -> Result<(Vec<Built>, Lost), StoreError> {
        let mut survivors = Vec::new();
        for Sparse { mailbox, extent, .. } in &snapshot.sparse {
            survivors.push(survivors_of(files, *mailbox, extent)?);
        }
        delete(transaction, snapshot)?;
        let mut round = Round {
            files,
            chunks: table(transaction, tables::CHUNKS)?,
            chunk_index: table(transaction, tables::CHUNK_INDEX)?,
            shared: table(transaction, tables::SHARED)?,
            big: table(transaction, tables::BIG)?,
            builders: BTreeMap::new(),
            built: Vec::new(),
            shared_now: SharedChunk { id: self.next_shared, records: Vec::new() },
            next_big: self.next_big,
            placed: HashMap::new(),
            big_placed: HashMap::new(),
            lost: Vec::new(),
        };
        for (sparse, chunk) in snapshot.sparse.iter().zip(&survivors) {
            if !sparse.joined {
                round.part(sparse.mailbox);
            }
            round.keep(sparse.mailbox, &sparse.extent, chunk)?;
        }
        for sparse in &snapshot.sparse {
            round.part(sparse.mailbox);
        }
        for extents in snapshot.extents.chunk_by(|a, b| a.1.place == b.1.place) {
            guarded(|| round.move_part(extents))?;
        }
        round.finish()?;
        self.next_shared = round.shared_now.id;
        self.next_big = round.next_big;
        Ok((round.built, round.lost))
    }

    /// Counts the references of the new chunks, forgets those of rewritten ones, and deletes what nobody wants.
    fn release(
        &self,
        transaction: &WriteTransaction,
        snapshot: &Snapshot,
        built: &[Built],
    ) -> Result<(), StoreError> {
        let (free_shared, free_big) = {
            let mut index = self.shared.lock_index();
            for Built { row, .. } in built {
                for (id, count) in &row.shared {
                    *index.shared.entry(*id).or_default() += count;
                }
                for id in &row.big {
                    *index.big.entry(*id).or_default() += 1;
                }
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

/// The bytes of a chunk that is rewritten.
fn survivors_of(files: &Files, id: u64, extent: &Extent) -> Result<Vec<u8>, StoreError> {
    let transaction = files.home.begin_read().map_err(engine)?;
    let chunks = transaction.open_table(tables::CHUNKS).map_err(engine)?;
    let chunk = chunks.get((id, extent.place)).map_err(engine)?;
    Ok(chunk.map(|chunk| chunk.value().to_vec()).unwrap_or_default())
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

/// The value of a journal part.
fn part(
    journal: &Database,
    number: u64,
) -> Result<redb::OwnedAccessGuard<&'static [u8]>, StoreError> {
    let transaction = journal.begin_read().map_err(engine)?;
    let parts = transaction.open_table(tables::PARTS).map_err(engine)?;
    let part = parts.get_owned(number).map_err(engine)?;
    part.ok_or_else(|| StoreError::Damaged(format!("journal part {number} is missing")))
}

impl Round<'_> {
    /// What comes next from this mailbox does not follow what came before.
    fn part(&mut self, id: u64) {
        for transient in [false, true] {
            if let Some(builder) = self.builders.get_mut(&(id, transient)) {
                builder.part();
            }
        }
    }

    /// What lives in a sparse chunk.
    fn keep(&mut self, id: u64, extent: &Extent, chunk: &[u8]) -> Result<(), StoreError> {
        let records = Records::new(chunk, CHUNK_HEAD.min(chunk.len()), chunk_salt(id)).flatten();
        let mut kept = 0;
        for record in records {
            if !record.is_message() || record.mailbox() != id || !extent.has(record.seq()) {
                continue;
            }
            kept += 1;
            let shared = (record.kind == REF).then(|| record.target().0);
            let big = record.big();
            self.push(&record, shared, big, |out| record.moved(None, out, chunk_salt(id)))?;
        }
        if kept < extent.count {
            let found = |seq| {
                Records::new(chunk, CHUNK_HEAD.min(chunk.len()), chunk_salt(id))
                    .flatten()
                    .any(|it| it.is_message() && it.mailbox() == id && it.seq() == seq)
            };
            self.lost.extend(extent.positions().filter(|&seq| !found(seq)).map(|seq| (id, seq)));
        }
        Ok(())
    }

    /// The live messages of one journal part, whose extents come in order of their offset.
    fn move_part(&mut self, extents: &[(u64, Extent)]) -> Result<(), StoreError> {
        let number = extents[0].1.place;
        let bytes = part(&self.files.journal, number)?;
        let bytes = bytes.value();
        let mut at = 0;
        let mut moving: Vec<Record<'_>> = Vec::new();
        let mut found = vec![0; extents.len()];
        let start = extents[0].1.offset as usize;
        for record in Records::new(bytes, start, part_salt(number)).flatten() {
            while extents.get(at + 1).is_some_and(|(_, it)| it.offset as usize <= record.start) {
                at += 1;
            }
            let (id, extent) = &extents[at];
            if record.is_message() && record.mailbox() == *id && extent.has(record.seq()) {
                found[at] += 1;
                moving.push(record);
            }
        }
        for ((id, extent), found) in extents.iter().zip(found) {
            if found < extent.count {
                let there = |seq| moving.iter().any(|it| it.mailbox() == *id && it.seq() == seq);
                let lost = extent.positions().filter(|&seq| !there(seq)).map(|seq| (*id, seq));
                self.lost.extend(lost);
            }
        }
        let mut holders: HashMap<(u64, u32), u32> = HashMap::new();
        if moving.iter().any(|record| record.kind == REF) {
            for record in &moving {
                *holders.entry(body_of(record, number)).or_default() += 1;
            }
        }
        for record in &moving {
            let body = body_of(record, number);
            let several = holders.get(&body).is_some_and(|count| *count > 1);
            if body.0 == number {
                self.move_message(record, bytes, body, several)?;
            } else {
                let other = part(&self.files.journal, body.0)?;
                self.move_message(record, other.value(), body, several)?;
            }
        }
        Ok(())
    }

    /// `bytes` is the part in which the body lies.
    fn move_message(
        &mut self,
        record: &Record<'_>,
        bytes: &[u8],
        body: (u64, u32),
        several: bool,
    ) -> Result<(), StoreError> {
        let salt = chunk_salt(record.mailbox());
        if let Some(place) = self.placed.get(&body) {
            let place = *place;
            return self
                .push(record, Some(place.0), None, |out| record.reference_to(place, out, salt));
        }
        let base = Record::at(bytes, body.1 as usize, part_salt(body.0));
        let Some(base) = base.filter(|base| base.kind == MESSAGE) else {
            self.lost.push((record.mailbox(), record.seq()));
            return Ok(());
        };
        if base.is_big() {
            let Some(place) = base.big().filter(|_| base.data().is_some()) else {
                self.lost.push((record.mailbox(), record.seq()));
                return Ok(());
            };
            let place = self.move_big(place)?;
            return self.push(record, None, Some(place), |out| {
                if record.kind == REF {
                    base.message_for(record, Some(place), out, salt);
                } else {
                    base.moved(Some(place), out, salt);
                }
            });
        }
        if several && base.unverified().len() >= SHARE_MIN {
            let place = self.share(&base)?;
            self.placed.insert(body, place);
            return self
                .push(record, Some(place.0), None, |out| record.reference_to(place, out, salt));
        }
        self.push(record, None, None, |out| {
            if record.kind == REF {
                base.message_for(record, None, out, salt);
            } else {
                record.moved(None, out, salt);
            }
        })
    }

    fn push(
        &mut self,
        record: &Record<'_>,
        shared: Option<u64>,
        big: Option<BigPlace>,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StoreError> {
        let key = (record.mailbox(), record.transient());
        let builder = self.builders.entry(key).or_insert_with(|| Builder::new(key.0, key.1));
        builder.push(record, shared, big.map(|place| place.id), put);
        if builder.is_full() {
            let mut cut = Vec::new();
            builder.cut(false, |built| cut.push(built));
            self.insert(cut)?;
        }
        Ok(())
    }

    fn insert(&mut self, cut: Vec<Built>) -> Result<(), StoreError> {
        for mut built in cut {
            self.chunks.insert(built.key, built.value.as_slice()).map_err(engine)?;
            built.value = Vec::new();
            let row = built.row.encode(built.key);
            self.chunk_index.insert(built.key, row.as_slice()).map_err(engine)?;
            self.built.push(built);
        }
        Ok(())
    }

    /// Puts a body where several mailboxes find it.
    fn share(&mut self, base: &Record<'_>) -> Result<(u64, u32), StoreError> {
        let now = &self.shared_now;
        if !now.records.is_empty() && now.records.len() + base.size > VALUE_MAX {
            self.flush_shared()?;
        }
        let now = &mut self.shared_now;
        let place = (now.id, now.records.len() as u32);
        base.moved(None, &mut now.records, shared_salt(now.id));
        Ok(place)
    }

    fn flush_shared(&mut self) -> Result<(), StoreError> {
        let now = &mut self.shared_now;
        if !now.records.is_empty() {
            self.shared.insert(now.id, now.records.as_slice()).map_err(engine)?;
            now.records.clear();
            now.id += 1;
        }
        Ok(())
    }

    /// A slice that is damaged stays behind: the body will be found to lack it.
    fn move_big(&mut self, place: BigPlace) -> Result<BigPlace, StoreError> {
        if let Some(moved) = self.big_placed.get(&place.id) {
            return Ok(*moved);
        }
        let moved = BigPlace { id: self.next_big, parts: place.parts };
        self.next_big += 1;
        for number in 0..place.parts {
            let from = place.id + u64::from(number);
            let bytes = part(&self.files.journal, from)?;
            if let Some(slice) = raw_slice(bytes.value(), from) {
                let mut value = Vec::with_capacity(slice.len() + 8);
                put_big_head(&mut value, moved.id, number, slice);
                value.extend_from_slice(slice);
                self.big.insert((moved.id, number), value.as_slice()).map_err(engine)?;
            }
        }
        self.big_placed.insert(place.id, moved);
        Ok(moved)
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.flush_shared()?;
        for (_, mut builder) in std::mem::take(&mut self.builders) {
            let mut cut = Vec::new();
            builder.cut(true, |built| cut.push(built));
            self.insert(cut)?;
        }
        Ok(())
    }
}

/// Part and offset of the record that holds the body.
fn body_of(record: &Record<'_>, number: u64) -> (u64, u32) {
    if record.kind == REF { record.target() } else { (number, record.start as u32) }
}
