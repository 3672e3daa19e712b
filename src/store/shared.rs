//! What the committer, the home thread and readers have in common.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use redb::Database;

use super::error::StoreError;
use super::index::Index;
use super::record::Forms;

#[derive(Debug)]
pub(super) struct Files {
    pub(super) journal: Database,
    pub(super) home: Database,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// `None` once the store is closed, or between failure and reopening.
    pub(super) files: RwLock<Option<Files>>,
    /// Locked before `progress` where both are.
    pub(super) index: Mutex<Index>,
    pub(super) progress: Mutex<Progress>,
    pub(super) reach: Mutex<Reach>,
    /// Wakes readers that wait for the files.
    pub(super) reached: Condvar,
    /// Wakes the home thread.
    pub(super) work: Condvar,
    /// Wakes the committer that waits for room in the journal.
    pub(super) room: Condvar,
    pub(super) forms: Forms,
}

/// Whether readers may hope for the files.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// How often the files were opened again.
    pub(super) opened: u64,
    pub(super) closed: bool,
}

/// How far the journal and home are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Commits that still lie in the journal, oldest first.
    pub(super) commits: VecDeque<Committed>,
    /// Last part and commit that are durable.
    pub(super) last_part: u64,
    pub(super) last_commit: u64,
    /// Everything up to here is in home, or gone.
    pub(super) homed_part: u64,
    /// Bytes of commits behind `homed_part`.
    pub(super) unhomed: u64,
    /// Bytes that a trim would free.
    pub(super) trimmable: u64,
    pub(super) stop: bool,
    /// Why the home thread gave up.
    pub(super) failed: Option<Failure>,
    pub(super) rounds: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Committed {
    pub(super) last_part: u64,
    pub(super) commit: u64,
    pub(super) bytes: u64,
}

/// Two of the same place are the same.
impl PartialEq for Committed {
    fn eq(&self, other: &Self) -> bool {
        self.last_part == other.last_part
    }
}

#[derive(Clone, Debug)]
pub(super) enum Failure {
    DiskFull,
    Other(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull => Self::DiskFull,
            Failure::Other(text) => Self::Io(std::io::Error::other(text)),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => Self::DiskFull,
            other => Self::Other(other.to_string()),
        }
    }
}

impl Shared {
    pub(super) fn lock_index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    pub(super) fn committed(&mut self, committed: Committed) {
        self.last_part = committed.last_part;
        self.last_commit = committed.commit;
        self.unhomed += committed.bytes;
        self.commits.push_back(committed);
    }

    /// The last commit of the oldest `bytes` that are not in home yet, up to this part.
    pub(super) fn target(&self, bytes: u64, upto: u64) -> Option<Committed> {
        let mut sum = 0;
        let mut target = None;
        let from = self.commits.partition_point(|it| it.last_part <= self.homed_part);
        for commit in self.commits.range(from..).take_while(|it| it.last_part <= upto) {
            target = Some(*commit);
            sum += commit.bytes;
            if sum >= bytes {
                break;
            }
        }
        target
    }

    pub(super) fn last(&self) -> Committed {
        Committed { last_part: self.last_part, commit: self.last_commit, bytes: 0 }
    }

    pub(super) fn homed(&mut self, part: u64) {
        let from = self.commits.partition_point(|it| it.last_part <= self.homed_part);
        for commit in self.commits.range(from..).take_while(|it| it.last_part <= part) {
            self.unhomed -= commit.bytes;
            self.trimmable += commit.bytes;
        }
        self.homed_part = part;
    }

    /// Everything that home has is out of the journal.
    pub(super) fn trimmed(&mut self, part: u64) {
        while let Some(first) = self.commits.front().filter(|it| it.last_part <= part) {
            self.trimmable -= first.bytes;
            self.commits.pop_front();
        }
    }
}
