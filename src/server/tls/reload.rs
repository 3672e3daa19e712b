//! Reads the files again when they change. What is wrong with them leaves what there is in its place.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch::Sender;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use super::{Files, Holds, Served, TlsError};

const INTERVAL: Duration = Duration::from_secs(2);

/// Looks every two seconds, and at once when SIGHUP says so. Runs until nobody shakes hands any more.
pub(in crate::server) async fn keep_fresh(mut watcher: Watcher, mut hangup: Signal) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let closed = watcher.current.clone();
    loop {
        let asked = tokio::select! {
            biased;
            () = closed.closed() => return,
            _ = hangup.recv() => true,
            _ = interval.tick() => false,
        };
        // A file can be on a disk that takes its time.
        let looked = spawn_blocking(move || {
            if asked {
                watcher.reload()
            } else {
                watcher.look()
            }
            watcher
        });
        watcher = match looked.await {
            Ok(watcher) => watcher,
            Err(error) => return tracing::error!(%error, "certificates are not watched any longer"),
        };
    }
}

/// ```text
/// as read --a file changed--> changing --unchanged since the last look--> read again
/// ```
pub(in crate::server) struct Watcher {
    files: Files,
    current: Sender<Served>,
    /// Of the files as they were read last, well or not.
    read: Vec<Option<Stamp>>,
    /// Changed, and perhaps still being written.
    changing: Option<Vec<Option<Stamp>>>,
}

/// Differs whenever a file was written or replaced, also by way of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Watcher {
    pub(super) fn new(files: Files, current: Sender<Served>, read: Vec<Option<Stamp>>) -> Self {
        Self { files, current, read, changing: None }
    }

    /// Reads the files again if they changed, once they stand still.
    pub(super) fn look(&mut self) {
        let stamps = stamps(&self.files);
        if stamps == self.read {
            self.changing = None;
        } else if self.changing.as_ref() == Some(&stamps) {
            self.reload();
        } else {
            self.changing = Some(stamps);
        }
    }

    pub(super) fn reload(&mut self) {
        self.read = stamps(&self.files);
        self.changing = None;
        let path = self.files.certificate.clone();
        let fresh = self.files.load().and_then(|loaded| match loaded.holds {
            Holds::Yes => Ok(loaded.served),
            Holds::No(reason) => Err(TlsError::Unusable { path, reason }),
        });
        match fresh {
            Ok(fresh) => {
                self.current.send_replace(fresh);
                tracing::info!("certificate read again: {}", self.files.certificate.display());
            }
            Err(error) => tracing::warn!("the old certificate stays: {error}"),
        }
    }
}

pub(super) fn stamps(files: &Files) -> Vec<Option<Stamp>> {
    files.paths().map(|path| Stamp::of(path).ok()).collect()
}
