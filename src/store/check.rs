//! Checking a store that no broker uses: every record read and verified, nothing changed. And giving space back.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableError};

use crate::broker::{Fetch, MailboxId, Recovered, Seq, WireForm};

use super::chunk::ChunkHead;
use super::directory::{Backend, Directory, Disk, Overlay};
use super::error::{StoreError, engine};
use super::home::{read_quarantine, scan};
use super::reader::Reader;
use super::record::Forms;
use super::recover::Recovery;
use super::shared::{Files, Shared};
use super::tables::{self, guarded};
use super::{Options, Store};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub definitions: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// Sum of body sizes.
    pub bytes: u64,
    /// What the files take on the disk.
    pub journal_bytes: u64,
    pub home_bytes: u64,
    /// Messages that cannot be read.
    pub damaged: Vec<Finding>,
    /// Messages that were set aside before.
    pub quarantine: Vec<Finding>,
    /// Everything else that is not as it should be.
    pub faults: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub mailbox: MailboxId,
    pub seq: Seq,
    pub reason: String,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.faults.is_empty()
    }
}

/// Reads the whole store. `progress` hears how many of the messages are done.
pub fn check(
    path: &Path,
    forms: &[&'static WireForm],
    progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    if !path.join(tables::HOME).exists() {
        return Err(StoreError::Damaged(format!("there is no store in '{}'", path.display())));
    }
    check_in(&Disk::open(path)?, forms, progress)
}

pub fn check_in(
    directory: &dyn Directory,
    forms: &[&'static WireForm],
    progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut report = Report {
        journal_bytes: directory.allocated(tables::JOURNAL)?,
        home_bytes: directory.allocated(tables::HOME)?,
        ..Report::default()
    };
    let home = overlay(directory, tables::HOME, &mut report)?;
    let journal = overlay(directory, tables::JOURNAL, &mut report)?;
    let mut recovery = Recovery::default();
    recovery.load(&home)?;
    recovery.replay(&journal)?;
    let recovered = recovery.finish()?;
    check_rows(&home, &mut report)?;
    report.faults.append(&mut recovery.damage);
    let live = recovery.index.live;
    let shared = Shared {
        files: RwLock::new(Some(Files { journal, home })),
        index: Mutex::new(recovery.index),
        progress: Mutex::new(recovery.progress),
        reach: Mutex::default(),
        reached: Condvar::new(),
        work: Condvar::new(),
        room: Condvar::new(),
        forms: Forms::new(forms),
    };
    check_messages(&Reader::new(Arc::new(shared)), &recovered, live, &mut report, progress)?;
    Ok(report)
}

/// A file whose pages redb verified, opened without changing it.
fn overlay(
    directory: &dyn Directory,
    name: &str,
    report: &mut Report,
) -> Result<Database, StoreError> {
    let overlay = Overlay::new(directory.open(name)?)?;
    let mut file = tables::open(Backend::new(overlay), 16 << 20)?;
    tables::read_meta(&file)?;
    match guarded(|| file.check_integrity().map_err(engine)) {
        Ok(true) => {}
        Ok(false) => report.faults.push(format!("{name}: pages do not match their checksums")),
        Err(error) => report.faults.push(format!("{name}: {error}")),
    }
    Ok(file)
}

fn check_rows(home: &Database, report: &mut Report) -> Result<(), StoreError> {
    scan(home, tables::QUARANTINE, |key, row| {
        let reason = read_quarantine(key, row).map_or_else(|| "unreadable".into(), |it| it.0);
        report.quarantine.push(Finding { mailbox: MailboxId(key.0), seq: Seq(key.1), reason });
        Ok(())
    })?;
    let mut chunks = 0;
    scan(home, tables::CHUNKS, |key, chunk| {
        chunks += 1;
        if ChunkHead::read(chunk, key.0, key.1).is_none() {
            report.faults.push(format!("the head of chunk {key:?} is damaged"));
        }
        Ok(())
    })?;
    let transaction = home.begin_read().map_err(engine)?;
    let indexed = match transaction.open_table(tables::CHUNK_INDEX) {
        Ok(table) => table.len().map_err(engine)?,
        Err(TableError::TableDoesNotExist(_)) => 0,
        Err(error) => return Err(engine(error)),
    };
    if chunks != indexed {
        report.faults.push(format!("{chunks} chunks, and {indexed} in their index"));
    }
    Ok(())
}

fn check_messages(
    reader: &Reader,
    recovered: &Recovered,
    live: u64,
    report: &mut Report,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), StoreError> {
    report.definitions = recovered.definitions.len() as u64;
    report.mailboxes = recovered.mailboxes.len() as u64;
    for mailbox in &recovered.mailboxes {
        for run in &mailbox.messages {
            report.bytes += run.bytes;
            for from in (0..run.count).step_by(256) {
                let count = (run.count - from).min(256);
                let ranges = vec![(Seq(run.first.0 + u64::from(from)), count)];
                let fetch = Fetch { mailbox: mailbox.id, lane: 0, ranges };
                for found in reader.fetch(&fetch).map_err(|out| out.error)? {
                    report.messages += 1;
                    if let Err(reason) = found.message {
                        report.damaged.push(Finding {
                            mailbox: mailbox.id,
                            seq: found.seq,
                            reason,
                        });
                    }
                }
                progress(report.messages, live);
            }
        }
    }
    if report.messages != live {
        report.faults.push(format!("{live} messages are live, and {} are known", report.messages));
    }
    Ok(())
}

/// Gives free pages back to the file system. Returns what the files took before and take now.
pub fn compact(path: &Path, forms: &[&'static WireForm]) -> Result<(u64, u64), StoreError> {
    if !path.join(tables::HOME).exists() {
        return Err(StoreError::Damaged(format!("there is no store in '{}'", path.display())));
    }
    compact_in(Arc::new(Disk::open(path)?), forms)
}

pub fn compact_in(
    directory: Arc<dyn Directory>,
    forms: &[&'static WireForm],
) -> Result<(u64, u64), StoreError> {
    let size = || -> Result<u64, StoreError> {
        Ok(directory.allocated(tables::JOURNAL)? + directory.allocated(tables::HOME)?)
    };
    let before = size()?;
    let options = Options { background: false, reserve: 0, ..Options::default() };
    // Everything goes home, so that the journal can be emptied but for its last commit.
    let (store, recovered) = Store::open_in(Arc::clone(&directory), forms, options)?;
    drop(recovered);
    let last = store.last_part();
    store.close()?;
    let mut journal = tables::open(directory.open(tables::JOURNAL)?, 16 << 20)?;
    let transaction = journal.begin_write().map_err(engine)?;
    {
        let mut parts = transaction.open_table(tables::PARTS).map_err(engine)?;
        parts.retain_in(..last, |_, _| false).map_err(engine)?;
    }
    transaction.commit().map_err(engine)?;
    squeeze(&mut journal)?;
    drop(journal);
    let mut home = tables::open(directory.open(tables::HOME)?, 16 << 20)?;
    squeeze(&mut home)?;
    drop(home);
    Ok((before, size()?))
}

fn squeeze(file: &mut Database) -> Result<(), StoreError> {
    while file.compact().map_err(engine)? {}
    // Compaction leaves no record of the allocator; without one the next start would read the whole file.
    let mut transaction = file.begin_write().map_err(engine)?;
    transaction.set_quick_repair(true);
    transaction.commit().map_err(engine)
}
