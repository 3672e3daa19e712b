//! A disk in memory that fills up, or whose syncs fail when told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pillarbox::store::{Backend, Directory, Memory};
use redb::StorageBackend;

#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    pub(crate) files: Memory,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// No file may be longer; 0 for no limit.
    len_max: AtomicU64,
    sync_fails: AtomicBool,
}

impl FaultyDisk {
    pub(crate) fn fill_at(&self, len: u64) {
        self.faults.len_max.store(len, Ordering::SeqCst);
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.faults.sync_fails.store(fail, Ordering::SeqCst);
    }
}

impl Directory for FaultyDisk {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.files.exists(name)
    }

    fn open(&self, name: &str) -> io::Result<Backend> {
        let file = self.files.open(name)?;
        Ok(Backend::new(FaultyFile { file, faults: Arc::clone(&self.faults) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        self.files.allocated(name)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Backend,
    faults: Arc<Faults>,
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let max = self.faults.len_max.load(Ordering::SeqCst);
        if max > 0 && len > max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.faults.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}
