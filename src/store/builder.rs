//! Builders of chunks: records of one mailbox gather until they fill a value of home.

use std::ops::Range;

use crate::broker::Rest;

use super::chunk::{CHUNK_HEAD, ChunkHead};
use super::extent::{Extent, SPAN_MAX};
use super::home::{ChunkRow, count_shared};
use super::part::{SMALL_MAX, VALUE_MAX, value_len};
use super::record::Record;

#[derive(Debug)]
pub(super) struct Builder {
    mailbox: u64,
    transient: bool,
    /// The longest chunk.
    most: usize,
    records: Vec<u8>,
    entries: Vec<Entry>,
    apart: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Starts a chunk: others lie between it and what came before.
    apart: bool,
    seq: u64,
    start: usize,
    end: usize,
    rest: Rest,
    body_len: u32,
    shared: Option<u64>,
    big: Option<u64>,
}

/// A chunk ready to be written.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) key: (u64, u64),
    pub(super) value: Vec<u8>,
    pub(super) row: ChunkRow,
    pub(super) extent: Extent,
}

impl Builder {
    /// For messages like this one: of its mailbox, and kept and read in the same way.
    pub(super) fn of(first: &Record<'_>) -> Self {
        Self {
            mailbox: first.mailbox(),
            transient: first.transient(),
            most: if first.keyed() { SMALL_MAX } else { VALUE_MAX },
            records: Vec::new(),
            entries: Vec::new(),
            apart: false,
        }
    }

    /// The next record does not follow the last one: chunks of durable messages never overlap.
    pub(super) fn part(&mut self) {
        self.apart = true;
    }

    /// Takes the record that `put` writes; `of` says what it is.
    pub(super) fn push(
        &mut self,
        of: &Record<'_>,
        shared: Option<u64>,
        big: Option<u64>,
        put: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.records.len();
        put(&mut self.records);
        self.entries.push(Entry {
            apart: std::mem::take(&mut self.apart),
            seq: of.seq(),
            start,
            end: self.records.len(),
            rest: of.rest(),
            body_len: of.body_len(),
            shared,
            big,
        });
    }

    pub(super) fn is_full(&self) -> bool {
        CHUNK_HEAD + self.records.len() >= self.most
    }

    /// Cuts chunks off; without `all`, what does not fill a value stays.
    pub(super) fn cut(&mut self, all: bool, mut take: impl FnMut(Built)) {
        if !self.entries.is_sorted_by_key(|entry| entry.seq) {
            self.entries.sort_by_key(|entry| entry.seq);
        }
        let mut from = 0;
        let mut left: usize = self.entries.iter().map(|entry| entry.end - entry.start).sum();
        while from < self.entries.len() && (all || CHUNK_HEAD + left >= self.most) {
            let upto = self.upto(from, CHUNK_HEAD + left);
            left -= self.entries[from..upto].iter().map(|it| it.end - it.start).sum::<usize>();
            take(self.build(from..upto));
            from = upto;
        }
        if from == self.entries.len() {
            self.entries.clear();
            self.records.clear();
        } else if from > 0 {
            self.entries.drain(..from);
            self.compact();
        }
    }

    /// Where the chunk that starts at this entry ends.
    fn upto(&self, from: usize, left: usize) -> usize {
        let first = self.entries[from];
        let mut size = CHUNK_HEAD + first.end - first.start;
        let limit = value_len(left, size, self.most);
        let mut upto = from + 1;
        while let Some(entry) = self.entries.get(upto) {
            size += entry.end - entry.start;
            // A spilled message may come later to any hole.
            let gap = self.transient && entry.seq != self.entries[upto - 1].seq + 1;
            if size > limit || gap || entry.apart || entry.seq - first.seq >= u64::from(SPAN_MAX) {
                break;
            }
            upto += 1;
        }
        upto
    }

    fn build(&self, range: Range<usize>) -> Built {
        let entries = &self.entries[range];
        let (first, end) = (entries[0].seq, entries[entries.len() - 1].seq + 1);
        let key = (self.mailbox, first);
        let size = CHUNK_HEAD + entries.iter().map(|it| it.end - it.start).sum::<usize>();
        let mut value = Vec::with_capacity(size);
        value.resize(CHUNK_HEAD, 0);
        let mut row = ChunkRow {
            transient: self.transient,
            small: size <= SMALL_MAX,
            end,
            messages: entries.len() as u32,
            ..ChunkRow::default()
        };
        let span = (end - first) as u32;
        let mut words = vec![0_u64; (span as usize).div_ceil(64)];
        for entry in entries {
            value.extend_from_slice(&self.records[entry.start..entry.end]);
            row.digest.push(entry.seq, entry.rest, entry.body_len);
            if let Some(id) = entry.shared {
                count_shared(&mut row.shared, id);
            }
            row.big.extend(entry.big);
            let bit = (entry.seq - first) as usize;
            words[bit / 64] |= 1 << (bit % 64);
        }
        let mut extent = Extent::home(first, span, self.transient);
        if entries.len() < span as usize {
            extent = extent.with_words(words.clone()).expect("the words cover the span");
            row.words = Some(words);
        }
        extent.born = row.messages;
        extent.small = row.small;
        let head = ChunkHead {
            mailbox: self.mailbox,
            first,
            end,
            messages: row.messages,
            used: size as u32,
        };
        head.write(&mut value);
        Built { key, value, row, extent }
    }

    fn compact(&mut self) {
        let mut records = Vec::with_capacity(self.records.len() / 2);
        for entry in &mut self.entries {
            let start = records.len();
            records.extend_from_slice(&self.records[entry.start..entry.end]);
            (entry.start, entry.end) = (start, records.len());
        }
        self.records = records;
    }
}
