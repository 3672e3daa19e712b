//! The messages of one round of homing: records of journal parts and sparse chunks become new chunks.

use std::collections::{BTreeMap, HashMap};

use redb::{Database, ReadableDatabase, Table, TableDefinition, WriteTransaction};

use super::builder::{Builder, Built};
use super::chunk::{put_big_head, salt as chunk_salt, shared_salt};
use super::error::{StoreError, engine};
use super::extent::Extent;
use super::part::{VALUE_MAX, salt as part_salt};
use super::reader::raw_slice;
use super::record::{BigPlace, MESSAGE, REF, Record, Records};
use super::shared::Files;
use super::survivors::Survivors;
use super::tables;

/// What a round wrote.
#[derive(Default)]
pub(super) struct Moved {
    /// Chunks, without their values.
    pub(super) built: Vec<Built>,
    /// Shared chunks, and how many bodies are in each.
    pub(super) shared: Vec<(u64, u32)>,
    /// Mailbox and position of live messages whose records cannot be found.
    pub(super) lost: Vec<(u64, u64)>,
}

type Row<'t, K> = Table<'t, K, &'static [u8]>;

/// A body smaller than this is copied rather than shared.
const SHARE_MIN: usize = 256;

/// The open transaction's tables and what gathers for them.
pub(super) struct Round<'t> {
    files: &'t Files,
    chunks: Row<'t, (u64, u64)>,
    chunk_index: Row<'t, (u64, u64)>,
    shared: Row<'t, u64>,
    big: Row<'t, (u64, u32)>,
    builders: BTreeMap<(u64, bool), Builder>,
    pub(super) moved: Moved,
    shared_now: SharedChunk,
    next_big: u64,
    /// Where bodies with several holders went, by part and offset.
    placed: HashMap<(u64, u32), (u64, u32)>,
    /// Where big bodies went, by their first part.
    big_placed: HashMap<u64, BigPlace>,
}

struct SharedChunk {
    id: u64,
    records: Vec<u8>,
    bodies: u32,
}

pub(super) fn table<'t, K: redb::Key + 'static>(
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'_, K, &'static [u8]>,
) -> Result<Row<'t, K>, StoreError> {
    transaction.open_table(definition).map_err(engine)
}

impl<'t> Round<'t> {
    pub(super) fn new(
        files: &'t Files,
        transaction: &'t WriteTransaction,
        next_shared: u64,
        next_big: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            files,
            chunks: table(transaction, tables::CHUNKS)?,
            chunk_index: table(transaction, tables::CHUNK_INDEX)?,
            shared: table(transaction, tables::SHARED)?,
            big: table(transaction, tables::BIG)?,
            builders: BTreeMap::new(),
            moved: Moved::default(),
            shared_now: SharedChunk { id: next_shared, records: Vec::new(), bodies: 0 },
            next_big,
            placed: HashMap::new(),
            big_placed: HashMap::new(),
        })
    }

    /// Of the next shared chunk and big body.
    pub(super) fn next_ids(&self) -> (u64, u64) {
        (self.shared_now.id, self.next_big)
    }

    /// What comes next from this mailbox does not follow what came before.
    pub(super) fn part(&mut self, id: u64) {
        for transient in [false, true] {
            if let Some(builder) = self.builders.get_mut(&(id, transient)) {
                builder.part();
            }
        }
    }

    /// What lives in a sparse chunk.
    pub(super) fn keep(&mut self, id: u64, survivors: Survivors) -> Result<(), StoreError> {
        for record in survivors.records(id) {
            let shared = (record.kind == REF).then(|| record.target().0);
            let big = record.big();
            self.push(&record, shared, big, |out| record.moved(None, out, chunk_salt(id)))?;
        }
        self.moved.lost.extend(survivors.lost.into_iter().map(|seq| (id, seq)));
        Ok(())
    }

    /// The live messages of one journal part, whose extents come in order of their offset.
    pub(super) fn move_part(&mut self, extents: &[(u64, Extent)]) -> Result<(), StoreError> {
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
                self.moved.lost.extend(lost);
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
            self.moved.lost.push((record.mailbox(), record.seq()));
            return Ok(());
        };
        if base.is_big() {
            let Some(place) = base.big().filter(|_| base.data().is_some()) else {
                self.moved.lost.push((record.mailbox(), record.seq()));
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
        let builder = self.builders.entry(key).or_insert_with(|| Builder::of(record));
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
            self.moved.built.push(built);
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
        now.bodies += 1;
        Ok(place)
    }

    fn flush_shared(&mut self) -> Result<(), StoreError> {
        let now = &mut self.shared_now;
        if !now.records.is_empty() {
            self.shared.insert(now.id, now.records.as_slice()).map_err(engine)?;
            self.moved.shared.push((now.id, now.bodies));
            *now = SharedChunk { id: now.id + 1, records: Vec::new(), bodies: 0 };
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

    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
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
