//! Rows of home: how chunks, live maps, mailboxes and definitions are written, and how they are read at start.
//!
//! Every row carries a checksum over its key and value.

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    TableHandle,
};

use super::chunk::{CHUNK_HEAD, key_of, salt, sealed, unsealed};
use super::digest::Digest;
use super::error::{StoreError, engine};
use super::extent::{Extent, SPAN_MAX};
use super::part::SMALL_MAX;
use super::record::{Records, u32_at, u64_at};
use super::recover::Recovery;
use super::tables::{self, guarded};

/// Skipped in a mailbox whose row is damaged, so that no position is given twice.
const NEXT_MARGIN: u64 = 1 << 24;

/// What is known of a chunk without reading it.
#[derive(Debug, Default)]
pub(super) struct ChunkRow {
    pub(super) transient: bool,
    /// At most `SMALL_MAX` long.
    pub(super) small: bool,
    pub(super) end: u64,
    pub(super) messages: u32,
    /// Shared chunks that it refers to, and how often.
    pub(super) shared: Vec<(u64, u32)>,
    pub(super) big: Vec<u64>,
    /// Live positions of the span, where there are holes.
    pub(super) words: Option<Vec<u64>>,
    pub(super) digest: Digest,
}

impl ChunkRow {
    pub(super) fn encode(&self, key: (u64, u64)) -> Vec<u8> {
        let mut out = vec![
            u8::from(self.transient) | u8::from(self.small) << 1,
            u8::from(self.words.is_some()),
        ];
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.messages.to_le_bytes());
        out.extend_from_slice(&(self.shared.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.big.len() as u32).to_le_bytes());
        for (id, count) in &self.shared {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
        for id in &self.big {
            out.extend_from_slice(&id.to_le_bytes());
        }
        for word in self.words.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
        self.digest.encode(&mut out);
        sealed(&key_of(key.0, key.1), &out)
    }

    pub(super) fn decode(key: (u64, u64), row: &[u8]) -> Option<Self> {
        let row = unsealed(&key_of(key.0, key.1), row)?;
        let (head, mut left) = row.split_at_checked(22)?;
        let mut take = |len: usize| {
            let (taken, rest) = left.split_at_checked(len)?;
            left = rest;
            Some(taken)
        };
        let end = u64_at(head, 2);
        let span = span_of(key.1, end)? as usize;
        let shared = take((u32_at(head, 14) as usize).checked_mul(12)?)?;
        let big = take((u32_at(head, 18) as usize).checked_mul(8)?)?;
        let words = if head[1] == 1 { Some(take(span.div_ceil(64) * 8)?) } else { None };
        Some(Self {
            transient: head[0] & 1 != 0,
            small: head[0] & 2 != 0,
            end,
            messages: u32_at(head, 10),
            shared: shared.chunks_exact(12).map(|it| (u64_at(it, 0), u32_at(it, 8))).collect(),
            big: big.chunks_exact(8).map(|it| u64_at(it, 0)).collect(),
            words: words.map(|words| words.chunks_exact(8).map(|it| u64_at(it, 0)).collect()),
            digest: Digest::decode(left)?,
        })
    }

    /// The row as the chunk itself has it, for a row that is damaged.
    pub(super) fn rebuild(key: (u64, u64), chunk: &[u8]) -> Option<Self> {
        let mut row = Self { small: chunk.len() <= SMALL_MAX, ..Self::default() };
        let mut records: Vec<_> = Records::new(chunk, CHUNK_HEAD, salt(key.0))
            .flatten()
            .filter(|record| record.is_message() && record.mailbox() == key.0)
            .collect();
        records.sort_by_key(|record| record.seq());
        records.dedup_by_key(|record| record.seq());
        row.end = records.last()?.seq() + 1;
        let span = span_of(key.1, row.end)?;
        let mut words = vec![0_u64; (span as usize).div_ceil(64)];
        for record in &records {
            let bit = (record.seq().checked_sub(key.1)?) as usize;
            words[bit / 64] |= 1 << (bit % 64);
            row.transient |= record.transient();
            row.digest.push(record.seq(), record.rest(), record.body_len());
            if let Some(place) = record.big() {
                row.big.push(place.id);
            } else if record.kind == super::record::REF {
                count_shared(&mut row.shared, record.target().0);
            }
        }
        row.messages = records.len() as u32;
        row.words = Some(words);
        Some(row)
    }
}

/// How many positions a chunk spans.
fn span_of(first: u64, end: u64) -> Option<u32> {
    u32::try_from(end.checked_sub(first)?).ok().filter(|span| *span <= SPAN_MAX)
}

/// One more reference from a chunk to a shared chunk.
pub(super) fn count_shared(shared: &mut Vec<(u64, u32)>, id: u64) {
    match shared.iter_mut().rev().find(|(other, _)| *other == id) {
        Some((_, count)) => *count += 1,
        None => shared.push((id, 1)),
    }
}

pub(super) fn live_row(key: (u64, u64), extent: &Extent) -> Vec<u8> {
    let mut out = extent.first.to_le_bytes().to_vec();
    out.extend_from_slice(&extent.span.to_le_bytes());
    for word in extent.words().iter().flatten() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    sealed(&key_of(key.0, key.1), &out)
}

pub(super) fn apply_live(key: (u64, u64), row: &[u8], extent: &mut Extent) -> Option<()> {
    let row = unsealed(&key_of(key.0, key.1), row)?;
    let (head, words) = row.split_at_checked(12)?;
    let mut live = extent.clone();
    live.first = u64_at(head, 0);
    live.span = u32_at(head, 8);
    live.count = live.span;
    let end = live.first.checked_add(live.span.into())?;
    if live.first < extent.first || end > extent.end() {
        return None;
    }
    if !words.is_empty() {
        let words = words.chunks_exact(8).map(|it| u64_at(it, 0)).collect();
        live = live.with_words(words)?;
    }
    *extent = live;
    Some(())
}

pub(super) fn mailbox_row(id: u64, next: u64, mark: u64) -> Vec<u8> {
    sealed(&id.to_le_bytes(), &key_of(next, mark))
}

pub(super) fn attempts_row(key: (u64, u64), attempts: u32, deliver_at: u64) -> Vec<u8> {
    sealed(&key_of(key.0, key.1), &key_of(attempts.into(), deliver_at))
}

/// Reason and record of a quarantined message.
pub(super) fn quarantine_row(key: (u64, u64), reason: &[u8], record: &[u8]) -> Vec<u8> {
    let mut out = (reason.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(reason);
    out.extend_from_slice(record);
    sealed(&key_of(key.0, key.1), &out)
}

pub(super) fn read_quarantine(key: (u64, u64), row: &[u8]) -> Option<(String, Vec<u8>)> {
    let row = unsealed(&key_of(key.0, key.1), row)?;
    let (len, rest) = row.split_at_checked(4)?;
    let (reason, record) = rest.split_at_checked(u32_at(len, 0) as usize)?;
    Some((String::from_utf8_lossy(reason).into_owned(), record.to_vec()))
}

pub(super) fn position_row(key: &str, part: u64, commit: u64) -> Vec<u8> {
    sealed(key.as_bytes(), &key_of(part, commit))
}

pub(super) fn two(key: &[u8], row: &[u8]) -> Option<(u64, u64)> {
    let row = unsealed(key, row)?;
    (row.len() == 16).then(|| (u64_at(row, 0), u64_at(row, 8)))
}

/// Calls `each` for every row; a table that was never written has none. An error if rows are missing.
pub(super) fn scan<K: redb::Key + 'static>(
    file: &Database,
    definition: TableDefinition<'_, K, &'static [u8]>,
    mut each: impl for<'k> FnMut(K::SelfType<'k>, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let transaction = file.begin_read().map_err(engine)?;
    let table = match transaction.open_table(definition) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(engine(error)),
    };
    let mut count = 0;
    for row in table.iter().map_err(engine)? {
        let (key, value) = row.map_err(engine)?;
        each(key.value(), value.value())?;
        count += 1;
    }
    // A damaged page can hide others; the table's root knows how many rows there are.
    let len = table.len().map_err(engine)?;
    if count != len {
        let name = definition.name();
        return Err(StoreError::Damaged(format!("table '{name}' has {count} rows and not {len}")));
    }
    Ok(())
}

/// The last key, for counting on from it.
pub(super) fn last_key<K: redb::Key + 'static>(
    file: &Database,
    definition: TableDefinition<'_, K, &'static [u8]>,
    number: impl for<'k> Fn(K::SelfType<'k>) -> u64,
) -> Result<u64, StoreError> {
    let transaction = file.begin_read().map_err(engine)?;
    match transaction.open_table(definition) {
        Ok(table) => {
            let last = table.last().map_err(engine)?;
            Ok(last.map_or(0, |(key, _)| number(key.value())))
        }
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(engine(error)),
    }
}

impl Recovery {
    /// Reads all of home but the chunks.
    pub(super) fn load(&mut self, home: &Database) -> Result<(), StoreError> {
        guarded(|| {
            self.load_position(home)?;
            scan(home, tables::DEFINITIONS, |key, row| {
                let value = unsealed(key, row).ok_or_else(|| {
                    let key = String::from_utf8_lossy(key);
                    StoreError::Damaged(format!("the definition of {key:?} is damaged"))
                })?;
                self.definitions.insert(key.to_vec(), value.to_vec());
                Ok(())
            })?;
            scan(home, tables::MAILBOXES, |id, row| {
                let mailbox = self.index.mailboxes.entry(id).or_default();
                match two(&id.to_le_bytes(), row) {
                    Some((next, mark)) => {
                        mailbox.next = next;
                        mailbox.mark = mark;
                    }
                    None => {
                        // Everything may have been delivered.
                        mailbox.next += NEXT_MARGIN;
                        mailbox.mark = u64::MAX >> 1;
                        self.damage.push(format!("the row of mailbox {id} is damaged"));
                    }
                }
                Ok(())
            })?;
            self.load_chunks(home)?;
            scan(home, tables::ATTEMPTS, |key, row| {
                match two(&key_of(key.0, key.1), row) {
                    Some((attempts, deliver_at)) => {
                        self.attempts.insert(key, (attempts as u32, deliver_at));
                        if let Some(mailbox) = self.index.mailboxes.get_mut(&key.0) {
                            mailbox.attempts.insert(key.1);
                        }
                    }
                    None => {
                        self.damage.push(format!("the attempts of message {key:?} are damaged"))
                    }
                }
                Ok(())
            })?;
            self.next_shared = last_key(home, tables::SHARED, |id| id)? + 1;
            self.next_big = last_key(home, tables::BIG, |(id, _)| id)? + 1;
            Ok(())
        })
    }

    fn load_position(&mut self, home: &Database) -> Result<(), StoreError> {
        let transaction = home.begin_read().map_err(engine)?;
        let meta = transaction.open_table(tables::META).map_err(engine)?;
        let read = |key: &str| {
            let Some(row) = meta.get(key).map_err(engine)? else { return Ok(None) };
            let damaged = || StoreError::Damaged(format!("home's row '{key}' is damaged"));
            two(key.as_bytes(), row.value()).map(Some).ok_or_else(damaged)
        };
        if let Some((part, commit)) = read("applied")? {
            self.progress.homed_part = part;
            self.progress.last_part = part;
            self.progress.last_commit = commit;
            self.applied_commit = commit;
        }
        self.clean_commit = read("clean")?.map(|(_, commit)| commit);
        Ok(())
    }

    fn load_chunks(&mut self, home: &Database) -> Result<(), StoreError> {
        let transaction = home.begin_read().map_err(engine)?;
        let chunks = match transaction.open_table(tables::CHUNKS) {
            Ok(chunks) => chunks,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(engine(error)),
        };
        let live = match transaction.open_table(tables::LIVE) {
            Ok(live) => Some(live),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(engine(error)),
        };
        scan(home, tables::CHUNK_INDEX, |key, row| {
            let row = match ChunkRow::decode(key, row) {
                Some(row) => row,
                None => {
                    self.damage.push(format!("the index of chunk {key:?} is damaged"));
                    let chunk = chunks.get(key).map_err(engine)?;
                    let rebuilt = chunk.and_then(|it| ChunkRow::rebuild(key, it.value()));
                    let Some(row) = rebuilt else { return Ok(()) };
                    row
                }
            };
            let map = match &live {
                Some(live) => live.get(key).map_err(engine)?,
                None => None,
            };
            self.enter_chunk(key, row, map.as_ref().map(|it| it.value()));
            Ok(())
        })
    }

    fn enter_chunk(&mut self, key: (u64, u64), row: ChunkRow, live: Option<&[u8]>) {
        let span = (row.end - key.1) as u32;
        let mut extent = Extent::home(key.1, span, row.transient);
        if let Some(words) = row.words {
            match extent.clone().with_words(words) {
                Some(sparse) => extent = sparse,
                None => self.damage.push(format!("the index of chunk {key:?} does not fit it")),
            }
        }
        extent.born = row.messages;
        extent.small = row.small;
        // A lost map brings settled messages back: at least once.
        if let Some(live) = live
            && apply_live(key, live, &mut extent).is_none()
        {
            self.damage.push(format!("the live map of chunk {key:?} is damaged"));
        }
        for (id, count) in &row.shared {
            let holders = self.index.shared.entry(*id).or_default();
            holders.references = holders.references.saturating_add(*count);
            // How many bodies it holds is not stored; that sixteen mailboxes hold each is on the safe side.
            holders.bodies = holders.references / 16;
        }
        for id in &row.big {
            *self.index.big.entry(*id).or_default() += 1;
        }
        let mailbox = self.index.mailboxes.entry(key.0).or_default();
        if !row.shared.is_empty() {
            mailbox.shared.insert(key.1, row.shared.into());
        }
        if !row.big.is_empty() {
            mailbox.big.insert(key.1, row.big.into());
        }
        mailbox.next = mailbox.next.max(row.end);
        if extent.transient && !self.keep_transient {
            self.index.touch(key.0).spent.push(key.1);
            return;
        }
        self.index.live += u64::from(extent.count);
        if extent.count == 0 {
            self.index.touch(key.0).spent.push(key.1);
            return;
        }
        mailbox.insert(extent);
        self.digests.insert((key.0, key.1, super::extent::HOME), row.digest);
    }
}
