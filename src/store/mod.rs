//! The store: durable state in redb, in two files with one durability path.
//!
//! Every commit goes into `journal.redb` as one blob with one sync. A thread moves what is still live into
//! chunks in `home.redb`. Knows no protocol and no clock; the only part that blocks.

#[cfg(any(test, feature = "fuzzing"))]
pub mod arbitrary;
mod blob;
mod builder;
mod change;
mod check;
mod chunk;
mod digest;
mod directory;
mod error;
mod extent;
mod home;
mod home_thread;
mod homing;
mod index;
mod part;
mod reader;
mod record;
mod recover;
mod round;
mod shared;
mod snapshot;
mod survivors;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use redb::{Database, ReadableDatabase};

use crate::broker::{Recovered, Time, WireForm, Write};

use blob::{Blob, Turn};
use change::Change;
use error::engine;
use home_thread::{HomeThread, LAST_RESERVE, RESERVE};
use homing::{Homer, ROUND_FIRST, ROUND_MAX, Scope};
use record::Forms;
use recover::Recovery;
use shared::{Committed, Failure, Files, Progress, Shared};

pub use check::{Finding, Report, check, check_in, compact, compact_in};
pub use directory::{Backend, Directory, Disk, Memory};
pub use error::StoreError;
pub use reader::{OutOfReach, Reader};

#[derive(Clone, Debug)]
pub struct Options {
    /// Pages of each file kept in memory.
    pub journal_cache: usize,
    pub home_cache: usize,
    /// Home as soon as this much waits in the journal; otherwise once a second.
    pub soft_cap: u64,
    /// Commits wait when this much is in the journal and not in home.
    pub hard_cap: u64,
    /// Two syncs for each commit: the second only if the first reached the disk whole.
    pub two_phase: bool,
    /// Home in a thread of its own; otherwise only `home` and full caps do it.
    pub background: bool,
    /// Disk space held back so that settling goes on when the disk is full; 0 for none.
    pub reserve: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            journal_cache: 12 << 20,
            home_cache: 16 << 20,
            soft_cap: 16 << 20,
            hard_cap: 64 << 20,
            two_phase: false,
            background: true,
            reserve: 64 << 20,
        }
    }
}

/// Figures of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// What the files take on the disk.
    pub journal_bytes: u64,
    pub home_bytes: u64,
    /// Journalled and not yet in home.
    pub unhomed_bytes: u64,
    pub messages: u64,
    pub commits: u64,
    pub home_rounds: u64,
}

/// Owned by the thread that commits. A `Reader` reads from any other.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    directory: Arc<dyn Directory>,
    options: Options,
    blob: Blob,
    next_part: u64,
    next_commit: u64,
    /// Positions given away whose messages never reached the disk: they ride with the next commit.
    pending_next: BTreeMap<u64, u64>,
    commits: u64,
    dead: bool,
    /// Opened again, and nothing was committed since.
    refused: bool,
    homing: Homing,
    damage: Vec<String>,
}

/// Who homes.
#[derive(Debug, Default)]
enum Homing {
    #[default]
    Nobody,
    Here(Homer),
    There(HomeThread),
}

impl Store {
    /// Opens the store in a directory, which is made where it is missing.
    pub fn open(
        path: &Path,
        forms: &[&'static WireForm],
        options: Options,
    ) -> Result<(Self, Recovered), StoreError> {
        Self::open_in(Arc::new(Disk::open(path)?), forms, options)
    }

    /// A store that forgets everything when it is dropped.
    pub fn memory(forms: &[&'static WireForm]) -> Result<(Self, Recovered), StoreError> {
        let options = Options { reserve: 0, ..Options::default() };
        Self::open_in(Arc::new(Memory::default()), forms, options)
    }

    pub fn open_in(
        directory: Arc<dyn Directory>,
        forms: &[&'static WireForm],
        options: Options,
    ) -> Result<(Self, Recovered), StoreError> {
        let files = open_files(&*directory, &options)?;
        let mut recovery = Recovery::default();
        recovery.load(&files.home)?;
        recovery.replay(&files.journal)?;
        let recovered = recovery.finish()?;
        let (next_shared, next_big) = (recovery.next_shared, recovery.next_big);
        let Recovery { index, progress, damage, .. } = recovery;
        let (next_part, next_commit) = (progress.last_part + 1, progress.last_commit + 1);
        let shared = Arc::new(Shared {
            files: RwLock::new(Some(files)),
            index: Mutex::new(index),
            progress: Mutex::new(progress),
            reach: Mutex::default(),
            reached: Condvar::new(),
            work: Condvar::new(),
            room: Condvar::new(),
            forms: Forms::new(forms),
        });
        let round_max = ROUND_MAX;
        let homer = Homer { shared: Arc::clone(&shared), next_shared, next_big, round_max };
        let mut store = Self {
            shared,
            directory,
            options,
            blob: Blob::default(),
            next_part,
            next_commit,
            pending_next: BTreeMap::new(),
            commits: 0,
            dead: false,
            refused: false,
            homing: Homing::Here(homer),
            damage,
        };
        // Also proves that the disk takes writes, before anybody relies on it.
        store.blob.note(Change::Opened);
        store.commit_blob(&[], Time::ZERO)?;
        store.start()?;
        Ok((store, recovered))
    }

    fn start(&mut self) -> Result<(), StoreError> {
        self.homing = match std::mem::take(&mut self.homing) {
            Homing::Here(homer) if self.options.background => {
                let directory = Arc::clone(&self.directory);
                Homing::There(HomeThread::start(homer, directory, &self.options)?)
            }
            other => other,
        };
        Ok(())
    }

    /// Stops the home thread, if there is one.
    fn stop(&mut self) -> Option<&mut Homer> {
        self.homing = match std::mem::take(&mut self.homing) {
            Homing::There(thread) => Homing::Here(thread.stop()),
            other => other,
        };
        match &mut self.homing {
            Homing::Here(homer) => Some(homer),
            _ => None,
        }
    }

    /// What was found damaged when the store was opened, in words.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Homes everything now. Only for stores without a thread for it.
    pub fn home(&mut self) -> Result<(), StoreError> {
        if let Homing::Here(homer) = &mut self.homing {
            while homer.round(Scope::All)? {}
        }
        Ok(())
    }

    /// Makes the writes durable, all or none. Nothing to write costs nothing.
    ///
    /// After an error the store takes no more writes; after `DiskFull`, `reopen` and commit the same again.
    pub fn commit(&mut self, writes: &[Write], now: Time) -> Result<(), StoreError> {
        if self.dead {
            return Err(StoreError::Dead);
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.blob.plan(writes, &self.shared.lock_index());
        if self.blob.quarantines() {
            let reader = self.reader();
            self.blob.set_aside(|mailbox, seq| reader.raw(mailbox, seq));
        }
        self.commit_blob(writes, now)
    }

    fn commit_blob(&mut self, writes: &[Write], now: Time) -> Result<(), StoreError> {
        let turn = Turn { commit: self.next_commit, part: self.next_part, wall_ms: now.0 };
        let nexts = self.pending_next.iter().map(|(mailbox, next)| (*mailbox, *next));
        self.blob.encode(writes, nexts, turn)?;
        if self.blob.is_empty() {
            let mut index = self.shared.lock_index();
            for (mailbox, next) in self.blob.elided.drain(..) {
                let pending = self.pending_next.entry(mailbox).or_default();
                *pending = next.max(*pending);
                index.advance(mailbox, next);
            }
            return Ok(());
        }
        if let Err(error) = self.wait_for_room().and_then(|()| self.write(turn)) {
            self.dead = true;
            return Err(error);
        }
        self.enter(turn);
        if std::mem::take(&mut self.refused) {
            self.start()?;
        }
        Ok(())
    }

    /// Waits until the journal may grow.
    fn wait_for_room(&mut self) -> Result<(), StoreError> {
        let hard_cap = self.options.hard_cap;
        if let Homing::Here(homer) = &mut self.homing {
            while homer.shared.lock_progress().unhomed > hard_cap && homer.round(Scope::All)? {}
            return Ok(());
        }
        let mut progress = self.shared.lock_progress();
        loop {
            if let Some(failure) = progress.failed.clone() {
                return Err(failure.into());
            }
            if progress.unhomed <= hard_cap {
                return Ok(());
            }
            self.shared.work.notify_one();
            progress = self.shared.room.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, turn: Turn) -> Result<(), StoreError> {
        let trim = {
            let progress = self.shared.lock_progress();
            let worth = progress.trimmable > 4 << 20 || turn.commit.is_multiple_of(16);
            (worth && progress.trimmable > 0).then_some(progress.homed_part)
        };
        let files = self.shared.files.read().unwrap_or_else(PoisonError::into_inner);
        let files = files.as_ref().ok_or(StoreError::Dead)?;
        let mut transaction = files.journal.begin_write().map_err(engine)?;
        transaction.set_two_phase_commit(self.options.two_phase);
        {
            let mut parts = transaction.open_table(tables::PARTS).map_err(engine)?;
            if let Some(upto) = trim {
                parts.retain_in(..=upto, |_, _| false).map_err(engine)?;
            }
            let insert = |part, bytes: &[u8]| parts.insert(part, bytes).map(drop);
            self.blob.write(turn, insert).map_err(engine)?;
        }
        transaction.commit().map_err(engine)?;
        if let Some(upto) = trim {
            self.shared.lock_progress().trimmed(upto);
        }
        Ok(())
    }

    /// The commit is durable: what it says is so.
    fn enter(&mut self, turn: Turn) {
        let committed = Committed {
            last_part: turn.part + u64::from(self.blob.parts()) - 1,
            commit: turn.commit,
            bytes: self.blob.bytes(),
        };
        let mut index = self.shared.lock_index();
        for (mailbox, extent) in self.blob.extents.drain(..) {
            index.append(mailbox, extent);
        }
        for change in self.blob.changes.drain(..) {
            index.apply(change);
        }
        let mut progress = self.shared.lock_progress();
        progress.committed(committed);
        let full = progress.unhomed >= self.options.soft_cap;
        drop(progress);
        drop(index);
        if full {
            self.shared.work.notify_one();
        }
        self.blob.shrink();
        self.pending_next.clear();
        self.next_part = committed.last_part + 1;
        self.next_commit = turn.commit + 1;
        self.commits += 1;
    }

    /// Opens the files again after an error, and gives up the disk reserve. What was durable is as it was;
    /// the failed commit never was. It has the reserve first: what is homed before it comes again would take it.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.dead = true;
        self.stop();
        let shared = Arc::clone(&self.shared);
        let mut files = shared.files.write().unwrap_or_else(PoisonError::into_inner);
        drop(files.take());
        self.directory.remove(RESERVE)?;
        let opened = open_files(&*self.directory, &self.options)?;
        undo(&opened.journal, self.next_part)?;
        let mut recovery = Recovery { keep_transient: true, ..Recovery::default() };
        recovery.load(&opened.home)?;
        recovery.replay(&opened.journal)?;
        recovery.finish()?;
        trim(&opened.journal, &mut recovery.progress)?;
        *shared.lock_index() = recovery.index;
        *shared.lock_progress() = recovery.progress;
        *files = Some(opened);
        drop(files);
        for (mailbox, next) in &self.pending_next {
            shared.lock_index().advance(*mailbox, *next);
        }
        let (next_shared, next_big) = (recovery.next_shared, recovery.next_big);
        let round_max = ROUND_FIRST;
        self.homing = Homing::Here(Homer { shared, next_shared, next_big, round_max });
        if std::mem::replace(&mut self.refused, true) {
            self.start()?;
        }
        self.dead = false;
        self.shared.lock_reach().opened += 1;
        self.shared.reached.notify_all();
        Ok(())
    }

    /// Brings files back that a reader found out of reach when they had been `opened` times: the disk was full while
    /// something was homed, and no commit has come to find out.
    pub fn mend(&mut self, opened: u64) -> Result<(), StoreError> {
        if self.shared.lock_reach().opened != opened {
            return Ok(());
        }
        let failed = self.shared.lock_progress().failed.clone();
        match failed {
            Some(failure @ Failure::Other(_)) => Err(failure.into()),
            Some(Failure::DiskFull) | None => {
                self.reopen()?;
                self.start()
            }
        }
    }

    /// Whether the home thread has ended: a disk was full, or worse.
    pub fn homing_failed(&self) -> bool {
        self.shared.lock_progress().failed.is_some()
    }

    /// Starts homing again where a full disk ended it; says whether it had to. Settling alone writes only to the
    /// journal: until what is settled is homed, nothing of it makes room.
    pub fn revive(&mut self) -> Result<bool, StoreError> {
        if !self.homing_failed() {
            return Ok(false);
        }
        let opened = self.shared.lock_reach().opened;
        self.directory.remove(LAST_RESERVE)?;
        self.mend(opened)?;
        Ok(true)
    }

    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    pub fn stats(&self) -> StoreStats {
        let allocated = |name| self.directory.allocated(name).unwrap_or_default();
        let messages = self.shared.lock_index().live;
        let progress = self.shared.lock_progress();
        StoreStats {
            journal_bytes: allocated(tables::JOURNAL),
            home_bytes: allocated(tables::HOME),
            unhomed_bytes: progress.unhomed,
            messages,
            commits: self.commits,
            home_rounds: progress.rounds,
        }
    }

    fn last_part(&self) -> u64 {
        self.next_part - 1
    }

    /// An orderly stop: everything is in home, and said to be. On a full disk it stays in the journal, which is as safe:
    /// the next start takes it from there, as after a kill.
    pub fn close(mut self) -> Result<(), StoreError> {
        let dead = self.dead;
        if let Some(homer) = self.stop()
            && !dead
        {
            let mut home = || {
                while homer.round(Scope::All)? {}
                homer.round(Scope::Stop)
            };
            match home() {
                Ok(_) | Err(StoreError::DiskFull) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
        // Readers may outlive the store; the files shall not.
        drop(self.shared.files.write().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.lock_reach().closed = true;
        self.shared.reached.notify_all();
    }
}

/// Opens both files, and makes those that are missing from a directory that is new.
fn open_files(directory: &dyn Directory, options: &Options) -> Result<Files, StoreError> {
    if !directory.exists(tables::HOME)? {
        if directory.exists(tables::JOURNAL)? {
            return Err(StoreError::Damaged(format!("{} is missing", tables::HOME)));
        }
        tables::create(directory, tables::HOME, tables::new_id())?;
    }
    tables::check_schema(directory, tables::HOME)?;
    let home = tables::open(directory.open(tables::HOME)?, options.home_cache)?;
    let id = tables::read_meta(&home)?;
    if !directory.exists(tables::JOURNAL)? {
        if !is_fresh(&home)? {
            return Err(StoreError::Damaged(format!("{} is missing", tables::JOURNAL)));
        }
        tables::create(directory, tables::JOURNAL, id)?;
    }
    for name in [tables::HOME, tables::JOURNAL] {
        directory.remove(&tables::unfinished(name))?;
    }
    let journal = tables::open(directory.open(tables::JOURNAL)?, options.journal_cache)?;
    if tables::read_meta(&journal)? != id {
        return Err(StoreError::Damaged("the two files belong to different stores".into()));
    }
    Ok(Files { journal, home })
}

/// Takes out what a failed commit may have left from this part on: it was never confirmed, and comes again.
fn undo(journal: &Database, part: u64) -> Result<(), StoreError> {
    let last = home::last_key(journal, tables::PARTS, |number| number)?;
    if last + 1 < part {
        return Err(StoreError::Damaged(format!(
            "the journal ends at part {last}, before part {}",
            part - 1
        )));
    }
    if last < part {
        // The disk may be full: nothing is written without need.
        return Ok(());
    }
    let transaction = journal.begin_write().map_err(engine)?;
    let mut parts = transaction.open_table(tables::PARTS).map_err(engine)?;
    parts.retain_in(part.., |_, _| false).map_err(engine)?;
    drop(parts);
    transaction.commit().map_err(engine)
}

/// Takes what home has out of a journal that may find no other room; the last commit stays, as after any trim.
fn trim(journal: &Database, progress: &mut Progress) -> Result<(), StoreError> {
    let Some(before_last) = progress.commits.iter().rev().nth(1) else { return Ok(()) };
    let upto = before_last.last_part.min(progress.homed_part);
    if progress.commits.front().is_none_or(|first| first.last_part > upto) {
        return Ok(());
    }
    let transaction = journal.begin_write().map_err(engine)?;
    let mut parts = transaction.open_table(tables::PARTS).map_err(engine)?;
    parts.retain_in(..=upto, |_, _| false).map_err(engine)?;
    drop(parts);
    transaction.commit().map_err(engine)?;
    progress.trimmed(upto);
    Ok(())
}

/// Whether nothing was ever homed.
fn is_fresh(home: &Database) -> Result<bool, StoreError> {
    let transaction = home.begin_read().map_err(engine)?;
    let meta = transaction.open_table(tables::META).map_err(engine)?;
    Ok(meta.get("applied").map_err(engine)?.is_none())
}
