//! Recovery: both files read into the index, and what the broker must know of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::{Database, ReadableDatabase, TableError};

use crate::broker::{Definition, MailboxId, Recovered, RecoveredMailbox, Seq, Time};

use super::change::Change;
use super::digest::Digest;
use super::error::{StoreError, engine};
use super::extent::{Extent, SPAN_MAX};
use super::index::Index;
use super::part::{PART_HEAD, PartHead, salt};
use super::record::Records;
use super::shared::{Committed, Progress};
use super::tables::{self, guarded};

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) index: Index,
    pub(super) progress: Progress,
    /// Of home, in force before the journal's changes.
    pub(super) definitions: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) attempts: BTreeMap<(u64, u64), (u32, u64)>,
    /// By mailbox and the place of the extent: part and offset, or chunk key.
    pub(super) digests: HashMap<(u64, u64, u32), Digest>,
    /// Where home stood at an orderly stop.
    pub(super) clean_commit: Option<u64>,
    pub(super) applied_commit: u64,
    /// What could not be trusted, in words.
    pub(super) damage: Vec<String>,
    /// The broker did not stop: what was spilled is still wanted, and so are mailboxes without a definition.
    pub(super) keep_transient: bool,
    /// Home's next ids.
    pub(super) next_shared: u64,
    pub(super) next_big: u64,
}

impl Recovery {
    /// Reads the journal's parts that home does not have yet.
    pub(super) fn replay(&mut self, journal: &Database) -> Result<(), StoreError> {
        guarded(|| {
            let transaction = journal.begin_read().map_err(engine)?;
            let parts = match transaction.open_table(tables::PARTS) {
                Ok(parts) => parts,
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(engine(error)),
            };
            let applied = self.progress.homed_part;
            let mut before: Option<(u64, PartHead)> = None;
            let mut bytes = 0;
            for part in parts.range::<u64>(..).map_err(engine)? {
                let (number, value) = part.map_err(engine)?;
                let (number, value) = (number.value(), value.value());
                let head = PartHead::read(value, number);
                let head = match (head, before) {
                    (Some(head), _) => head,
                    // The part's records still vouch for themselves.
                    (None, Some((_, last))) if last.index + 1 < last.parts => {
                        self.damage.push(format!("the head of journal part {number} is damaged"));
                        PartHead { index: last.index + 1, ..last }
                    }
                    (None, _) => {
                        return Err(StoreError::Damaged(format!(
                            "the head of journal part {number} is damaged"
                        )));
                    }
                };
                check_order(number, head, before, applied, self.applied_commit)?;
                bytes += value.len() as u64;
                if number > applied && head.raw_crc == 0 {
                    self.replay_part(number, value);
                }
                if head.index + 1 == head.parts {
                    let committed = Committed { last_part: number, commit: head.commit, bytes };
                    self.progress.committed(committed);
                    if number <= applied {
                        self.progress.unhomed -= bytes;
                        self.progress.trimmable += bytes;
                    }
                    bytes = 0;
                }
                before = Some((number, head));
            }
            match before {
                Some((number, head)) if head.index + 1 < head.parts || number < applied => {
                    Err(StoreError::Damaged(format!(
                        "the journal ends at part {number} of commit {}, and home is at part {applied}",
                        head.commit
                    )))
                }
                None if applied > 0 => {
                    Err(StoreError::Damaged("the journal is empty, and home is not".into()))
                }
                _ => Ok(()),
            }
        })
    }

    pub(super) fn replay_part(&mut self, number: u64, bytes: &[u8]) {
        let mut last: Option<(u64, Extent, Digest)> = None;
        for record in Records::new(bytes, PART_HEAD, salt(number)) {
            let record = match record {
                Ok(record) => record,
                Err(damage) => {
                    self.damage.push(format!(
                        "a record at byte {} of journal part {number} is damaged",
                        damage.start
                    ));
                    continue;
                }
            };
            if !record.is_message() {
                self.enter(number, last.take());
                match Change::read(&record) {
                    Some(change) => self.index.apply(change),
                    None => self.damage.push(format!(
                        "a change at byte {} of journal part {number} is damaged",
                        record.start
                    )),
                }
                continue;
            }
            let (mailbox, seq) = (record.mailbox(), record.seq());
            if record.transient() && !self.keep_transient {
                self.index.advance(mailbox, seq + 1);
                continue;
            }
            match &mut last {
                Some((id, extent, digest))
                    if *id == mailbox
                        && extent.end() == seq
                        && extent.span < SPAN_MAX
                        && extent.transient == record.transient() =>
                {
                    extent.span += 1;
                    extent.count += 1;
                    extent.born += 1;
                    digest.push(seq, record.rest(), record.body_len());
                }
                _ => {
                    let mut digest = Digest::default();
                    digest.push(seq, record.rest(), record.body_len());
                    let extent =
                        Extent::journal(seq, 1, number, record.start as u32, record.transient());
                    self.enter(number, last.replace((mailbox, extent, digest)));
                }
            }
        }
        self.enter(number, last);
    }

    fn enter(&mut self, number: u64, run: Option<(u64, Extent, Digest)>) {
        if let Some((mailbox, extent, digest)) = run {
            self.digests.insert((mailbox, number, extent.offset), digest);
            self.index.append(mailbox, extent);
        }
    }

    /// Mailboxes without a definition go, and the rest is told to the broker.
    pub(super) fn finish(&mut self) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered {
            clean: self.clean_commit.is_some_and(|commit| commit == self.progress.last_commit),
            ..Recovered::default()
        };
        let mut kept = BTreeSet::new();
        let changed = &self.index.definitions;
        let settled = self.definitions.iter().filter(|(key, _)| !changed.contains_key(*key));
        let changed = changed.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (key, value) in settled.chain(changed) {
            let definition: Definition = serde_json::from_slice(value).map_err(|error| {
                let key = String::from_utf8_lossy(key);
                StoreError::Damaged(format!("the definition of {key:?} cannot be read: {error}"))
            })?;
            if let Definition::Mailbox(mailbox) = &definition {
                kept.insert(mailbox.id.0);
            }
            recovered.definitions.push(definition);
        }
        let gone = self.index.mailboxes.keys();
        let gone = gone.filter(|id| !kept.contains(id) && !self.keep_transient);
        for id in gone.copied().collect::<Vec<_>>() {
            self.index.drop_mailbox(id);
        }
        for (&id, mailbox) in &self.index.mailboxes {
            let mut messages = Vec::new();
            let range = (id, 0)..=(id, u64::MAX);
            let odd = self.attempts.range(range.clone()).next().is_some()
                || self.index.attempts.range(range).next().is_some();
            let attempts = |seq: u64| {
                if !odd {
                    return None;
                }
                let found = self.index.attempts.get(&(id, seq));
                let found = found.or_else(|| self.attempts.get(&(id, seq)));
                found.map(|&(count, deliver_at)| (count, Time(deliver_at)))
            };
            for extent in mailbox.extents.iter().filter(|extent| extent.count > 0) {
                if let Some(digest) = self.digests.get(&(id, extent.place, extent.offset)) {
                    digest.recover(extent, attempts, &mut messages);
                }
            }
            recovered.mailboxes.push(RecoveredMailbox {
                id: MailboxId(id),
                next: Seq(mailbox.next),
                mark: Seq(mailbox.mark),
                messages,
            });
        }
        recovered.mailboxes.sort_by_key(|mailbox| mailbox.id);
        Ok(recovered)
    }
}

/// Parts follow one another without a gap, and start no later than where home ends.
fn check_order(
    number: u64,
    head: PartHead,
    before: Option<(u64, PartHead)>,
    applied: u64,
    applied_commit: u64,
) -> Result<(), StoreError> {
    let right = match before {
        None => {
            head.index == 0
                && number <= applied + 1
                && (number <= applied || head.commit == applied_commit + 1)
        }
        Some((last, before)) if before.index + 1 < before.parts => {
            number == last + 1
                && head.commit == before.commit
                && head.index == before.index + 1
                && head.parts == before.parts
        }
        Some((last, before)) => {
            number == last + 1 && head.commit == before.commit + 1 && head.index == 0
        }
    };
    if right {
        return Ok(());
    }
    Err(StoreError::Damaged(format!(
        "journal part {number} (commit {}) does not follow what is before it (home is at part {applied})",
        head.commit
    )))
}
