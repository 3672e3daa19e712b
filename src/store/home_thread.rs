//! The home thread: homes what has rested for a second, or sooner where much waits; holds the disk reserve.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::StorageBackend;

use super::Options;
use super::directory::Directory;
use super::error::StoreError;
use super::homing::{Homer, Scope};
use super::shared::Shared;

const TICK: Duration = Duration::from_secs(1);

/// Ticks before a reserve that was given up is taken again.
const RESERVE_TICKS: u32 = 30;

pub(super) const RESERVE: &str = "reserve";

#[derive(Debug)]
pub(super) struct HomeThread {
    shared: Arc<Shared>,
    handle: JoinHandle<Homer>,
}

impl HomeThread {
    pub(super) fn start(
        homer: Homer,
        directory: Arc<dyn Directory>,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let shared = Arc::clone(&homer.shared);
        let (soft_cap, reserve) = (options.soft_cap, options.reserve);
        shared.lock_progress().stop = false;
        let handle = std::thread::Builder::new()
            .name("home".into())
            .spawn(move || run(homer, &*directory, soft_cap, reserve))?;
        Ok(Self { shared, handle })
    }

    pub(super) fn stop(self) -> Homer {
        self.shared.lock_progress().stop = true;
        self.shared.work.notify_all();
        // A panic of the thread is one of this thread too.
        self.handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn run(mut homer: Homer, directory: &dyn Directory, soft_cap: u64, reserve: u64) -> Homer {
    let shared = Arc::clone(&homer.shared);
    // What was there at the last tick has rested since.
    let mut rested = 0;
    let mut ticks = 0_u32;
    loop {
        let scope = {
            let progress = shared.lock_progress();
            let wait = |progress: &mut super::shared::Progress| {
                !progress.stop && progress.unhomed < soft_cap
            };
            let (progress, timeout) = shared
                .work
                .wait_timeout_while(progress, TICK, wait)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if progress.stop {
                return homer;
            }
            if timeout.timed_out() {
                let scope = Scope::Upto(rested);
                rested = progress.last_part;
                ticks = ticks.saturating_add(1);
                scope
            } else {
                Scope::Oldest(soft_cap / 2)
            }
        };
        let mut done = homer.round(scope);
        while let (Ok(true), Scope::Upto(_)) = (&done, scope) {
            done = homer.round(scope);
        }
        if let Err(error) = done {
            shared.lock_progress().failed = Some(error.into());
            shared.room.notify_all();
            return homer;
        }
        if reserve > 0 && (ticks == 1 || ticks >= RESERVE_TICKS) {
            ticks = 2;
            hold(directory, reserve);
        }
    }
}

/// Takes the reserve if it is not held. That there is no room for it is no failure.
fn hold(directory: &dyn Directory, size: u64) {
    let take = || -> std::io::Result<()> {
        if directory.exists(RESERVE)? && directory.open(RESERVE)?.len()? == size {
            return Ok(());
        }
        let file = directory.open(RESERVE)?;
        file.set_len(size)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let len = zeros.len().min((size - at) as usize);
            file.write(at, &zeros[..len])?;
            at += len as u64;
        }
        file.sync_data()
    };
    if take().is_err() {
        let _ = directory.remove(RESERVE);
    }
}
