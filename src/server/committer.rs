//! The one thread that writes to the disk: takes a batch, makes it durable, says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::fatal;
use super::notice::Notice;
use crate::broker::{Epoch, Time, Write};
use crate::management::metrics::Measured;
use crate::store::{Store, StoreError};

/// Waits between attempts on a full disk.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// A broker that shall stop does not wait for space for longer than this.
const STOP_ATTEMPTS_MAX: u32 = 20;

/// How long batches took to become durable, waits for a full disk included.
#[derive(Debug, Default)]
pub(super) struct Commits {
    counts: [AtomicU64; Self::BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Commits {
    const BOUNDS_MS: [f64; 12] =
        [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 10_000.0];

    fn count(&self, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        let at = Self::BOUNDS_MS.iter().position(|bound| ms <= *bound);
        self.counts[at.unwrap_or(Self::BOUNDS_MS.len())].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn measured(&self) -> Measured {
        Measured {
            bounds: Self::BOUNDS_MS.map(|ms| ms / 1000.0).to_vec(),
            counts: self.counts.iter().map(|it| it.load(Ordering::Relaxed)).collect(),
            sum: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

pub(super) enum Work {
    Commit(Job),
    /// The reader cannot reach files that had been opened so often; or nothing came for a while, and the disk is full.
    Mend {
        opened: Option<u64>,
    },
}

/// Waits for work; on a full disk no longer than until homing can be tried again. `None` once nobody sends any more.
fn next(work: &Receiver<Work>, full: &AtomicBool) -> Option<Work> {
    if !full.load(Ordering::SeqCst) {
        return work.recv().ok();
    }
    match work.recv_timeout(RETRY_LAST) {
        Ok(task) => Some(task),
        Err(RecvTimeoutError::Timeout) => Some(Work::Mend { opened: None }),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Writes that become durable together.
pub(super) struct Job {
    pub(super) epoch: Epoch,
    pub(super) writes: Vec<Write>,
    pub(super) now: Time,
}

pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) work: Receiver<Work>,
    pub(super) notices: UnboundedSender<Notice>,
    pub(super) stopping: Arc<AtomicBool>,
    /// The disk was found full; the watch says when there is room again.
    pub(super) full: Arc<AtomicBool>,
    /// Reads from the store; when the work ends it has ended or is about to.
    pub(super) reader: JoinHandle<()>,
    pub(super) commits: Arc<Commits>,
    /// The planted bug: says that a batch is durable before it is.
    #[cfg(feature = "planted")]
    pub(super) early: bool,
}

impl Committer {
    pub(super) fn start(self) -> std::io::Result<JoinHandle<()>> {
        let work = || self.run();
        thread::Builder::new()
            .name("committer".into())
            .spawn(|| fatal::or_abort("the committer", work))
    }

    /// Runs until the senders of work are dropped, then closes the store.
    fn run(self) {
        let Self { mut store, work, notices, stopping, full, reader, commits, .. } = self;
        while let Some(task) = next(&work, &full) {
            let say = || {
                if !full.swap(true, Ordering::SeqCst) {
                    tracing::error!(
                        "the disk is full: publishers are stopped until there is space"
                    );
                    drop(notices.send(Notice::DiskFull(true)));
                }
            };
            let mut patience = Patience { stopping: &stopping, wait: RETRY_FIRST, attempts: 0 };
            let Job { epoch, mut writes, now } = match task {
                Work::Commit(job) => job,
                Work::Mend { opened } => {
                    let mend = |store: &mut Store| match opened {
                        Some(opened) => store.mend(opened),
                        None => store.revive().map(drop),
                    };
                    let mended =
                        patience.insist(&mut store, mend, Store::reopen, say, thread::sleep);
                    if let Err(error) = mended {
                        fatal::exit(&format!("the store cannot be read: {error}"));
                    }
                    continue;
                }
            };
            #[cfg(feature = "planted")]
            if self.early {
                drop(notices.send(Notice::Committed { epoch, spare: Vec::new() }));
                // Kills shall land in between.
                thread::sleep(Duration::from_millis(50));
            }
            let began = Instant::now();
            let committed = patience.insist(
                &mut store,
                |store| store.commit(&writes, now),
                Store::reopen,
                say,
                thread::sleep,
            );
            commits.count(began.elapsed());
            if let Err(error) = committed {
                // Nothing is said from here on: what was not confirmed stays so.
                fatal::exit(&format!("the store cannot make messages durable: {error}"));
            }
            #[cfg(feature = "planted")]
            if self.early {
                continue;
            }
            // Dropped here rather than by the broker, which has better things to do.
            writes.clear();
            drop(notices.send(Notice::Committed { epoch, spare: writes }));
        }
        let _ = reader.join();
        drop(notices.send(Notice::StoreClosed(store.close())));
    }
}

/// How long to insist on a batch that a full disk refuses.
struct Patience<'a> {
    stopping: &'a AtomicBool,
    wait: Duration,
    /// Since the broker was told to stop.
    attempts: u32,
}

impl Patience<'_> {
    /// Repeats the commit, or the mending, while the disk is full; any other error is final.
    fn insist<S>(
        &mut self,
        store: &mut S,
        mut commit: impl FnMut(&mut S) -> Result<(), StoreError>,
        mut reopen: impl FnMut(&mut S) -> Result<(), StoreError>,
        mut say_full: impl FnMut(),
        mut sleep: impl FnMut(Duration),
    ) -> Result<(), StoreError> {
        let mut again = false;
        let mut outcome = commit(store);
        while let Err(StoreError::DiskFull) = outcome {
            say_full();
            if self.stopping.load(Ordering::Relaxed) {
                self.attempts += 1;
                if self.attempts > STOP_ATTEMPTS_MAX {
                    return outcome;
                }
                self.wait = RETRY_FIRST;
            }
            // Before any wait, so that consumers read on. At first the reserve makes room without one.
            let reopened = reopen(store);
            if again {
                sleep(self.wait);
                self.wait = (self.wait * 2).min(RETRY_LAST);
            }
            again = true;
            outcome = reopened.and_then(|()| commit(store));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that answers from a list, and a record of what was done.
    fn insist(answers: Vec<Result<(), StoreError>>, stopping: bool) -> (bool, Vec<String>) {
        let mut answers = answers.into_iter();
        let done = std::cell::RefCell::new(Vec::new());
        let note = |what: String| done.borrow_mut().push(what);
        let stopping = AtomicBool::new(stopping);
        let mut patience = Patience { stopping: &stopping, wait: RETRY_FIRST, attempts: 0 };
        let outcome = patience.insist(
            &mut (),
            |()| {
                note("commit".into());
                answers.next().unwrap_or(Err(StoreError::DiskFull))
            },
            |()| {
                note("reopen".into());
                Ok(())
            },
            || note("full".into()),
            |wait| note(format!("wait {}", wait.as_millis())),
        );
        (outcome.is_ok(), done.into_inner())
    }

    #[test]
    fn a_full_disk_is_announced_and_the_same_batch_tried_again() {
        let (done, steps) =
            insist(vec![Err(StoreError::DiskFull), Err(StoreError::DiskFull), Ok(())], false);
        assert!(done);
        let expected =
            ["commit", "full", "reopen", "commit", "full", "reopen", "wait 100", "commit"];
        assert_eq!(steps, expected);
    }

    #[test]
    fn commits_are_measured_in_classes() {
        let commits = Commits::default();
        for ms in [0, 1, 3, 20_000] {
            commits.count(Duration::from_millis(ms));
        }
        let measured = commits.measured();
        let expected = [1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!((&measured.counts[..], measured.sum), (&expected[..], 20.004));
        assert_eq!(measured.bounds.len() + 1, measured.counts.len());
    }

    #[test]
    fn any_other_error_is_final() {
        let (done, steps) = insist(vec![Err(StoreError::Io(std::io::Error::other("gone")))], false);
        assert!(!done);
        assert_eq!(steps, ["commit"]);
    }

    #[test]
    fn a_stopping_broker_gives_up_on_a_full_disk() {
        let (done, steps) = insist(Vec::new(), true);
        assert!(!done);
        assert!(steps.len() < 100);
    }
}
