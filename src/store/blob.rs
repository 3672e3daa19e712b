//! The blob of one commit: records of all mailboxes, cut into parts, written into one buffer that is used again.

use std::ops::Range;
use std::sync::Arc;

use crc32c::crc32c_append;

use crate::broker::{Append, Message, Write};

use super::change::{Change, key_bytes};
use super::error::StoreError;
use super::extent::{Extent, SPAN_MAX};
use super::index::Index;
use super::part::{PART_HEAD, PartHead, RAW_MAX, VALUE_MAX, salt, value_len};
use super::record::{self, BIG_MIN, BigPlace, REFERENCE_SIZE_MAX, Resting};

#[derive(Debug, Default)]
pub(super) struct Blob {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    /// New messages, for the index.
    pub(super) extents: Vec<(u64, Extent)>,
    pub(super) changes: Vec<Change>,
    /// Messages that came and went within the commit: only the position after them counts.
    pub(super) elided: Vec<(u64, u64)>,
    /// Positions that cannot be live before this commit and are removed in it, sorted.
    cancelled: Vec<(u64, u64, u64)>,
}

#[derive(Debug)]
enum Piece {
    /// Records at this place of the buffer, the part's head before them.
    Records(Range<usize>),
    /// A slice of a message's data.
    Raw { message: Arc<Message>, range: Range<usize>, crc: u32 },
}

/// The last message put whole, which its neighbours may refer to.
struct Base<'a> {
    message: &'a Arc<Message>,
    part: u64,
    offset: u32,
}

/// Where the blob stands in the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) commit: u64,
    pub(super) part: u64,
    pub(super) wall_ms: u64,
}

impl Blob {
    /// A change besides the writes.
    pub(super) fn note(&mut self, change: Change) {
        self.clear();
        self.changes.push(change);
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.pieces.clear();
        self.extents.clear();
        self.changes.clear();
        self.elided.clear();
        self.cancelled.clear();
    }

    pub(super) fn quarantines(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Quarantine { .. }))
    }

    /// Gives each quarantine the damaged record to keep.
    pub(super) fn set_aside(&mut self, read: impl Fn(u64, u64) -> Vec<u8>) {
        for change in &mut self.changes {
            if let Change::Quarantine { mailbox, seq, record, .. } = change {
                *record = read(*mailbox, *seq);
            }
        }
    }

    /// Sorts out what must be written.
    pub(super) fn plan(&mut self, writes: &[Write], index: &Index) {
        self.clear();
        let appends = writes.iter().any(|write| matches!(write, Write::Append(_)));
        for write in writes {
            match write {
                Write::Append(_) => {}
                Write::Remove { mailbox, first, count } => {
                    self.plan_removal(mailbox.0, first.0, *count, index, appends);
                }
                Write::Mark { mailbox, upto } => {
                    self.changes.push(Change::Mark { mailbox: mailbox.0, upto: upto.0 });
                }
                Write::Attempts { mailbox, seq, attempts, deliver_at } => {
                    self.changes.push(Change::Attempts {
                        mailbox: mailbox.0,
                        seq: seq.0,
                        attempts: *attempts,
                        deliver_at: deliver_at.0,
                    });
                }
                Write::Drop { mailbox } => {
                    if appends || index.mailboxes.contains_key(&mailbox.0) {
                        self.changes.push(Change::Drop { mailbox: mailbox.0 });
                    }
                }
                Write::Quarantine { mailbox, seq, reason } => {
                    self.changes.push(Change::Quarantine {
                        mailbox: mailbox.0,
                        seq: seq.0,
                        reason: reason.as_bytes().to_vec(),
                        record: Vec::new(),
                    });
                }
                Write::Define(definition) => {
                    let key = key_bytes(&definition.key());
                    let value = serde_json::to_vec(definition)
                        .expect("a definition has text keys and no failing parts");
                    self.changes.push(Change::Define { key, value });
                }
                Write::Undefine(key) => {
                    self.changes.push(Change::Undefine { key: key_bytes(key) });
                }
            }
        }
        self.cancelled.sort_unstable();
        // Ranges that overlap become one, so that one look finds whether a position is in any.
        self.cancelled.dedup_by(|next, before| {
            let joined = next.0 == before.0 && next.1 <= before.2;
            if joined {
                before.2 = before.2.max(next.2);
            }
            joined
        });
    }

    fn plan_removal(&mut self, mailbox: u64, first: u64, count: u32, index: &Index, appends: bool) {
        let end = first.saturating_add(count.into());
        let known = index.mailboxes.get(&mailbox);
        let stored = known.is_some_and(|mailbox| mailbox.any_live(first, end));
        if appends {
            let fresh = if stored { index.next(mailbox).max(first) } else { first };
            if fresh < end {
                self.cancelled.push((mailbox, fresh, end));
            }
        }
        if stored {
            if let Some(Change::Remove { mailbox: last, first: from, count: some }) =
                self.changes.last_mut()
                && *last == mailbox
                && *from + u64::from(*some) == first
                && let Some(sum) = some.checked_add(count)
            {
                *some = sum;
                return;
            }
            self.changes.push(Change::Remove { mailbox, first, count });
        }
    }

    fn is_cancelled(&self, append: &Append) -> bool {
        if self.cancelled.is_empty() {
            return false;
        }
        let at = self.cancelled.partition_point(|&(mailbox, first, _)| {
            (mailbox, first) <= (append.mailbox.0, append.seq.0)
        });
        at.checked_sub(1).is_some_and(|at| {
            let (mailbox, _, end) = self.cancelled[at];
            mailbox == append.mailbox.0 && append.seq.0 < end
        })
    }

    /// Writes the records. Nothing to write leaves the blob empty.
    pub(super) fn encode(
        &mut self,
        writes: &[Write],
        nexts: impl IntoIterator<Item = (u64, u64)>,
        turn: Turn,
    ) -> Result<(), StoreError> {
        let left = self.measure(writes);
        let mut encoder = Encoder { turn, left, limit: 0, open: None };
        let mut base: Option<Base<'_>> = None;
        for write in writes {
            if let Write::Append(append) = write {
                if append.message.key().len() >= 1 << 24 || append.message.size() > 1 << 30 {
                    return Err(StoreError::Refused(
                        append.mailbox,
                        "a message too large to store",
                    ));
                }
                if self.is_cancelled(append) {
                    self.elide(append.mailbox.0, append.seq.0 + 1);
                } else {
                    encoder.append(self, append, &mut base);
                }
            }
        }
        if self.extents.is_empty() && self.changes.is_empty() {
            return Ok(());
        }
        for (mailbox, next) in nexts {
            self.elide(mailbox, next);
        }
        for (mailbox, next) in std::mem::take(&mut self.elided) {
            self.changes.push(Change::Next { mailbox, next });
        }
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            let salt = encoder.room(self, change.size_max());
            change.put(&mut self.buffer, salt);
        }
        self.changes = changes;
        encoder.seal(self);
        Ok(())
    }

    fn elide(&mut self, mailbox: u64, next: u64) {
        match self.elided.last_mut() {
            Some((last, upto)) if *last == mailbox => *upto = next.max(*upto),
            _ => self.elided.push((mailbox, next)),
        }
    }

    /// Roughly how much will be written, so that values fill their pages.
    fn measure(&self, writes: &[Write]) -> usize {
        let mut sum: usize = self.changes.iter().map(Change::size_max).sum();
        let mut before: Option<&Arc<Message>> = None;
        for write in writes {
            if let Write::Append(append) = write
                && !self.is_cancelled(append)
            {
                sum += match before {
                    Some(message) if Arc::ptr_eq(message, &append.message) => REFERENCE_SIZE_MAX,
                    _ => record::size_max(&append.message) - 32,
                };
                before = Some(&append.message);
            }
        }
        sum
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn parts(&self) -> u32 {
        self.pieces.len() as u32
    }

    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Seals the heads, now that the number of parts is known.
    fn write_heads(&mut self, turn: Turn) {
        let parts = self.parts();
        for (index, piece) in self.pieces.iter().enumerate() {
            if let Piece::Records(range) = piece {
                let head = PartHead {
                    commit: turn.commit,
                    wall_ms: turn.wall_ms,
                    index: index as u32,
                    parts,
                    used: range.len() as u32,
                    raw_crc: 0,
                };
                head.write(&mut self.buffer[range.clone()], turn.part + index as u64);
            }
        }
    }

    /// Gives each part to `insert`.
    pub(super) fn write<E>(
        &self,
        turn: Turn,
        mut insert: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut raw = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let part = turn.part + index as u64;
            match piece {
                Piece::Records(range) => insert(part, &self.buffer[range.clone()])?,
                Piece::Raw { message, range, crc } => {
                    raw.clear();
                    raw.resize(PART_HEAD, 0);
                    slices(message, range.clone(), |slice| raw.extend_from_slice(slice));
                    let head = PartHead {
                        commit: turn.commit,
                        wall_ms: turn.wall_ms,
                        index: index as u32,
                        parts: self.parts(),
                        used: raw.len() as u32,
                        raw_crc: *crc,
                    };
                    head.write(&mut raw, part);
                    insert(part, &raw)?;
                }
            }
        }
        Ok(())
    }

    /// Gives memory back after an unusually large commit.
    pub(super) fn shrink(&mut self) {
        self.clear();
        self.buffer.shrink_to(4 << 20);
        self.extents.shrink_to(64 << 10);
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Records(range) => range.len(),
            Self::Raw { range, .. } => PART_HEAD + range.len(),
        }
    }
}

/// The parts of a message's data that lie in a range of it.
fn slices(message: &Message, range: Range<usize>, mut take: impl FnMut(&[u8])) {
    let mut at = 0;
    let exchange = message.exchange().as_bytes();
    for slice in [exchange, message.key(), message.property_bytes(), message.body()] {
        let from = range.start.clamp(at, at + slice.len()) - at;
        let to = range.end.clamp(at, at + slice.len()) - at;
        take(&slice[from..to]);
        at += slice.len();
    }
}

struct Encoder {
    turn: Turn,
    /// Still to be written, about.
    left: usize,
    /// How long the open part may become.
    limit: usize,
    /// The piece that takes records, and where it starts in the buffer.
    open: Option<(usize, usize)>,
}

impl Encoder {
    /// Makes room for a record; returns the salt of its part.
    fn room(&mut self, blob: &mut Blob, size: usize) -> u32 {
        let full = self.open.is_none_or(|(_, start)| blob.buffer.len() - start + size > self.limit);
        if full {
            self.close(blob);
            self.limit = value_len(self.left, PART_HEAD + size, VALUE_MAX);
            let start = blob.buffer.len();
            blob.buffer.resize(start + PART_HEAD, 0);
            self.open = Some((blob.pieces.len(), start));
            blob.pieces.push(Piece::Records(start..start));
        }
        salt(self.part())
    }

    fn part(&self) -> u64 {
        self.turn.part + self.open.map_or(0, |(piece, _)| piece as u64)
    }

    fn offset(&self, blob: &Blob) -> u32 {
        (blob.buffer.len() - self.open.map_or(0, |(_, start)| start)) as u32
    }

    fn close(&mut self, blob: &mut Blob) {
        if let Some((piece, start)) = self.open.take() {
            let end = blob.buffer.len();
            self.left = self.left.saturating_sub(end - start);
            blob.pieces[piece] = Piece::Records(start..end);
        }
    }

    fn seal(mut self, blob: &mut Blob) {
        self.close(blob);
        blob.write_heads(self.turn);
    }

    fn append<'a>(&mut self, blob: &mut Blob, append: &'a Append, base: &mut Option<Base<'a>>) {
        let resting = Resting {
            mailbox: append.mailbox.0,
            seq: append.seq.0,
            rest: &append.rest,
            transient: append.transient,
            keyed: append.keyed,
        };
        let message = &append.message;
        let shared = base.as_ref().filter(|base| Arc::ptr_eq(base.message, message));
        let offset = if let Some(base) = shared {
            let salt = self.room(blob, REFERENCE_SIZE_MAX);
            let offset = self.offset(blob);
            let target = (base.part, base.offset);
            let body_len = message.body().len() as u32;
            record::put_reference(&mut blob.buffer, resting, body_len, target, salt);
            offset
        } else {
            let salt = self.room(blob, record::size_max(message));
            let offset = self.offset(blob);
            let big = (record::data_len(message) > BIG_MIN).then(|| self.put_raw(blob, message));
            record::put_message(&mut blob.buffer, resting, message, big, salt);
            *base = Some(Base { message, part: self.part(), offset });
            offset
        };
        let part = self.part();
        if let Some((mailbox, last)) = blob.extents.last_mut()
            && *mailbox == resting.mailbox
            && last.place == part
            && last.transient == resting.transient
            && last.end() == resting.seq
            && last.span < SPAN_MAX
        {
            last.span += 1;
            last.count += 1;
            last.born += 1;
        } else {
            let extent = Extent::journal(resting.seq, 1, part, offset, resting.transient);
            blob.extents.push((resting.mailbox, extent));
        }
    }

    fn put_raw(&self, blob: &mut Blob, message: &Arc<Message>) -> BigPlace {
        let id = self.turn.part + blob.pieces.len() as u64;
        let len = record::data_len(message);
        for start in (0..len).step_by(RAW_MAX) {
            let range = start..(start + RAW_MAX).min(len);
            let mut crc = 0;
            slices(message, range.clone(), |slice| crc = crc32c_append(crc, slice));
            blob.pieces.push(Piece::Raw { message: Arc::clone(message), range, crc });
        }
        BigPlace { id, parts: len.div_ceil(RAW_MAX) as u32 }
    }
}
