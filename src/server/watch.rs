//! Watches free disk space and used memory, and tells the broker when either runs low.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::MissedTickBehavior;

use super::notice::Notice;
use crate::store::Reader;

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks besides once so much was written: a fast disk is full in less than the interval.
const LOOK_BYTES: usize = 4 << 20;

/// A disk that was full takes publishers again with so much room, or with half of it where it is small: more than
/// the store's reserve, which is what settling goes on with.
const FULL_ROOM: u64 = 80 << 20;

/// Wakes the watch when much was written.
#[derive(Clone, Default)]
pub(super) struct Growth {
    look: Arc<Notify>,
    written: usize,
}

impl Growth {
    pub(super) fn add(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= LOOK_BYTES {
            self.written = 0;
            self.look.notify_one();
        }
    }
}

/// What counts as low.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// Where the store is; `None` where there is no disk to watch.
    pub(super) directory: Option<PathBuf>,
    pub(super) disk_free_min: u64,
    pub(super) memory_max: u64,
}

/// Runs until the broker task is gone.
pub(super) async fn run(
    marks: Marks,
    reader: Reader,
    growth: Growth,
    full: Arc<AtomicBool>,
    notices: UnboundedSender<Notice>,
) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut memory, mut disk) = (false, false);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = growth.look.notified() => {}
        }
        let directory = marks.directory.as_deref();
        if full.load(Ordering::SeqCst) && directory.is_none_or(|it| has_room(it, &reader)) {
            tracing::info!("the disk has space again");
            let _ = notices.send(Notice::DiskFull(false));
            // Last, so that the committer's next word is not the broker's last but one.
            full.store(false, Ordering::SeqCst);
        }
        let used = memory_used().unwrap_or(0);
        // What is in the journal will be in home too before it makes room there.
        let free = marks.directory.as_deref().and_then(|it| disk_free(it).ok());
        let free = free.map(|free| free.saturating_sub(reader.unhomed()));
        // The store's files do not shrink, but what is free in them is room as well.
        let free = match (free, marks.directory.as_deref()) {
            (Some(free), Some(directory)) if low(free, marks.disk_free_min, disk) => {
                Some(free + reusable(directory, &reader))
            }
            (free, _) => free,
        };
        let memory_now = high(used, marks.memory_max, memory);
        let disk_now = free.is_some_and(|free| low(free, marks.disk_free_min, disk));
        if memory_now != memory {
            let limit = marks.memory_max;
            if memory_now {
                tracing::warn!(used, limit, "memory runs low: publishers are stopped");
            } else {
                tracing::info!(used, limit, "memory is free again");
            }
        }
        if disk_now != disk {
            let (free, limit) = (free.unwrap_or(0), marks.disk_free_min);
            if disk_now {
                tracing::warn!(free, limit, "disk space runs low: publishers are stopped");
            } else {
                tracing::info!(free, limit, "disk space is free again");
            }
        }
        if (memory_now, disk_now) != (memory, disk) {
            (memory, disk) = (memory_now, disk_now);
            if notices.send(Notice::Watched { memory, disk }).is_err() {
                return;
            }
        } else if notices.is_closed() {
            return;
        }
    }
}

/// Above the mark; once there, until a twentieth below it.
fn high(used: u64, mark: u64, was_high: bool) -> bool {
    used >= if was_high { mark - mark / 20 } else { mark }
}

/// Below the mark; once there, until a twentieth above it.
fn low(free: u64, mark: u64, was_low: bool) -> bool {
    free < if was_low { mark + mark / 20 } else { mark }
}

/// Bytes that this process may still write to the file system.
pub(super) fn disk_free(directory: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether a disk that was full takes publishers again. Room is on the disk and in the store's files, which never
/// shrink; what waits in the journal takes its place twice, there and in home.
fn has_room(directory: &Path, reader: &Reader) -> bool {
    let allocated = |name| allocated(&directory.join(name)).unwrap_or(0);
    let files = allocated("home.redb") + allocated("journal.redb") + allocated("reserve");
    let used = reader.home_used_max() + 2 * reader.unhomed();
    let (Ok(free), Ok(size)) = (disk_free(directory), disk_size(directory)) else { return true };
    (free + files).saturating_sub(used) >= FULL_ROOM.min(size / 2)
}

/// Bytes of the home file that are free to be written again.
fn reusable(directory: &Path, reader: &Reader) -> u64 {
    let home = allocated(&directory.join("home.redb")).unwrap_or(0);
    home.saturating_sub(reader.home_used_max())
}

pub(super) fn allocated(file: &Path) -> std::io::Result<u64> {
    Ok(u64::try_from(rustix::fs::stat(file)?.st_blocks).unwrap_or(0) * 512)
}

/// Bytes that the file system holds in all.
pub(super) fn disk_size(directory: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}

/// Resident bytes of this process.
pub(super) fn memory_used() -> Option<u64> {
    // Pages: size, resident, …
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Bytes that this process may use: the machine's, or its control group's where that is less.
pub(super) fn memory_available() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    const UNKNOWN: u64 = 4 << 30;
    machine.unwrap_or(UNKNOWN).min(group.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_a_margin() {
        assert!(!low(100, 100, false));
        assert!(low(99, 100, false));
        assert!(low(104, 100, true));
        assert!(!low(105, 100, true));
        assert!(high(100, 100, false));
        assert!(high(95, 100, true));
        assert!(!high(94, 100, true));
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(memory_used().is_none_or(|used| used > 100_000));
        assert!(memory_available() > 1 << 20);
        assert!(disk_size(Path::new("/")).unwrap() > 0);
    }
}
