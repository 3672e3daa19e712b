//! What lives in a chunk that is rewritten, read before the round deletes it.

use std::collections::BTreeSet;

use redb::{OwnedAccessGuard, ReadOnlyTable, ReadableDatabase, TableError};

use super::chunk::{CHUNK_HEAD, salt, shared_salt};
use super::error::{StoreError, engine};
use super::extent::Extent;
use super::record::{MESSAGE, REF, Record, Records};
use super::shared::Files;
use super::tables;

/// Only the records that live: a round may rewrite many chunks.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    records: Vec<u8>,
    /// Live positions whose records cannot be found.
    pub(super) lost: Vec<u64>,
}

impl Survivors {
    /// References to the shared chunks `few` become messages of their own.
    pub(super) fn read(
        files: &Files,
        id: u64,
        extent: &Extent,
        few: &[u64],
    ) -> Result<Self, StoreError> {
        let transaction = files.home.begin_read().map_err(engine)?;
        let chunks = transaction.open_table(tables::CHUNKS).map_err(engine)?;
        let chunk = chunks.get((id, extent.place)).map_err(engine)?;
        let chunk = chunk.as_ref().map_or(&[][..], |chunk| chunk.value());
        let mut bodies = Bodies { table: None, last: None };
        if !few.is_empty() {
            bodies.table = match transaction.open_table(tables::SHARED) {
                Ok(table) => Some(table),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(engine(error)),
            };
        }
        let mut it = Self::default();
        let mut found = BTreeSet::new();
        for record in messages(chunk, CHUNK_HEAD.min(chunk.len()), id) {
            if !extent.has(record.seq()) {
                continue;
            }
            found.insert(record.seq());
            let inward = record.kind == REF && few.contains(&record.target().0);
            if !inward || !bodies.put(&record, &mut it.records, salt(id))? {
                it.records.extend_from_slice(&chunk[record.start..record.start + record.size]);
            }
        }
        if (found.len() as u32) < extent.count {
            it.lost = extent.positions().filter(|seq| !found.contains(seq)).collect();
        }
        Ok(it)
    }

    pub(super) fn records(&self, id: u64) -> impl Iterator<Item = Record<'_>> {
        messages(&self.records, 0, id)
    }
}

/// Shared chunks, of which the last is at hand.
struct Bodies {
    table: Option<ReadOnlyTable<u64, &'static [u8]>>,
    last: Option<(u64, OwnedAccessGuard<&'static [u8]>)>,
}

impl Bodies {
    /// Writes the message that the reference stands for. Not if its body is damaged: whoever reads the reference will say so.
    fn put(
        &mut self,
        reference: &Record<'_>,
        out: &mut Vec<u8>,
        salt: u32,
    ) -> Result<bool, StoreError> {
        let Some(table) = &self.table else { return Ok(false) };
        let (id, offset) = reference.target();
        if self.last.as_ref().is_none_or(|(last, _)| *last != id) {
            self.last = table.get_owned(id).map_err(engine)?.map(|bytes| (id, bytes));
        }
        let Some((_, bytes)) = &self.last else { return Ok(false) };
        let base = Record::at(bytes.value(), offset as usize, shared_salt(id));
        let Some(base) = base.filter(|base| base.kind == MESSAGE && base.data().is_some()) else {
            return Ok(false);
        };
        base.message_for(reference, None, out, salt);
        Ok(true)
    }
}

fn messages(bytes: &[u8], start: usize, id: u64) -> impl Iterator<Item = Record<'_>> {
    Records::new(bytes, start, salt(id))
        .flatten()
        .filter(move |record| record.is_message() && record.mailbox() == id)
}
