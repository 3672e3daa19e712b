//! The home thread: homes what has rested for a second, or sooner where much waits; holds the disk reserve.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::StorageBackend;

use super::Options;
use super::directory::Directory;
use super::error::StoreError;
use super::homing::{Homer, ROUND_MAX, Scope};
use super::shared::Shared;

const TICK: Duration = Duration::from_secs(1);

/// Ticks before a reserve that was given up is taken again.
const RESERVE_TICKS: u32 = 30;

pub(super) const RESERVE: &str = "reserve";

/// Given up only for homing that a full disk ended, when nothing else is left to commit: what is settled makes room in the
/// store's files once it is homed, and that takes a few pages first.
pub(super) const LAST_RESERVE: &str = "reserve.last";
const LAST_RESERVE_SIZE: u64 = 4 << 20;

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
    let (mut ticks, mut held) = (0_u32, None);
    // At once, as a fast disk may be full before the first tick. After a full disk a round needs the room more.
    if homer.round_max == ROUND_MAX {
        hold_both(directory, reserve);
        held = Some(0);
    }
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
        let moved = matches!(done, Ok(true));
        while let (Ok(true), Scope::Upto(_)) = (&done, scope) {
            done = homer.round(scope);
        }
        let moved = moved || shared.lock_progress().unhomed == 0;
        if let Err(error) = done {
            shared.lock_progress().failed = Some(error.into());
            shared.room.notify_all();
            return homer;
        }
        let due = held.is_none_or(|at| ticks >= at + RESERVE_TICKS);
        if moved && due {
            held = Some(ticks);
            hold_both(directory, reserve);
        }
    }
}

fn hold_both(directory: &dyn Directory, reserve: u64) {
    if reserve > 0 {
        hold(directory, LAST_RESERVE, LAST_RESERVE_SIZE);
        hold(directory, RESERVE, reserve);
    }
}

/// Takes a reserve if it is not held. That there is no room for it is no failure, and the last room is not for it.
fn hold(directory: &dyn Directory, name: &str, size: u64) {
    let take = || -> std::io::Result<()> {
        if directory.exists(name)? && directory.allocated(name)? >= size {
            return Ok(());
        }
        if directory.free()? < size + size / 4 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let file = directory.open(name)?;
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
        let _ = directory.remove(name);
    }
}
