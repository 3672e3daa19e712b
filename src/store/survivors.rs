//! What lives in a chunk that is rewritten, read before the round deletes it.

use std::collections::BTreeSet;

use redb::ReadableDatabase;

use super::chunk::{CHUNK_HEAD, salt};
use super::error::{StoreError, engine};
use super::extent::Extent;
use super::record::{Record, Records};
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
    pub(super) fn read(files: &Files, id: u64, extent: &Extent) -> Result<Self, StoreError> {
        let transaction = files.home.begin_read().map_err(engine)?;
        let chunks = transaction.open_table(tables::CHUNKS).map_err(engine)?;
        let chunk = chunks.get((id, extent.place)).map_err(engine)?;
        Ok(Self::of(id, extent, chunk.as_ref().map_or(&[], |chunk| chunk.value())))
    }

    fn of(id: u64, extent: &Extent, chunk: &[u8]) -> Self {
        let mut it = Self::default();
        let mut found = BTreeSet::new();
        for record in messages(chunk, CHUNK_HEAD.min(chunk.len()), id) {
            if extent.has(record.seq()) {
                found.insert(record.seq());
                it.records.extend_from_slice(&chunk[record.start..record.start + record.size]);
            }
        }
        if (found.len() as u32) < extent.count {
            it.lost = extent.positions().filter(|seq| !found.contains(seq)).collect();
        }
        it
    }

    pub(super) fn records(&self, id: u64) -> impl Iterator<Item = Record<'_>> {
        messages(&self.records, 0, id)
    }
}

fn messages(bytes: &[u8], start: usize, id: u64) -> impl Iterator<Item = Record<'_>> {
    Records::new(bytes, start, salt(id))
        .flatten()
        .filter(move |record| record.is_message() && record.mailbox() == id)
}
