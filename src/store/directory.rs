//! Where the store's files live: a directory of the disk, memory, or a test's forgetting disk.
//!
//! Knows nothing of what is in the files.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::error::StoreError;

/// A few named files. A rename is durable once `sync` returned.
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// Opens a file, and creates it empty where it is missing.
    fn open(&self, name: &str) -> io::Result<Backend>;
    /// Replaces `to` where it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A missing file is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// What the file takes on the disk.
    fn allocated(&self, name: &str) -> io::Result<u64>;
    /// What the disk has left.
    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// The bytes of one file.
#[derive(Debug)]
pub struct Backend(Box<dyn StorageBackend>);

impl Backend {
    pub fn new(backend: impl StorageBackend) -> Self {
        Self(Box::new(backend))
    }
}

/// Forwards everything, the locks above all: a wrapper without them would let two processes in.
impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

/// A directory of the file system, held by one broker at a time.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// Locked while this value lives.
    _lock: File,
}

impl Disk {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.is_dir() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let lock = private(&path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// Opens or creates a file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

impl Directory for Disk {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path.join(name).try_exists()
    }

    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn open(&self, name: &str) -> io::Result<Backend> {
        let file = private(&self.path.join(name))?;
        FileBackend::new(file).map(Backend::new).map_err(io::Error::other)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        let metadata = fs::metadata(self.path.join(name))?;
        #[cfg(unix)]
        return Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
        #[cfg(not(unix))]
        Ok(metadata.len())
    }
}

/// Files in memory: for brokers that keep nothing, and for tests. A clone is the same directory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<HashMap<String, MemoryFile>>>);

#[derive(Clone, Default)]
struct MemoryFile(Arc<RwLock<Vec<u8>>>);

impl Memory {
    /// A copy of a file's bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(name)?;
        let bytes = file.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        Some(bytes)
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = MemoryFile(Arc::new(RwLock::new(bytes)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), file);
    }
}

impl Directory for Memory {
    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name))
    }

    fn open(&self, name: &str) -> io::Result<Backend> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Backend::new(files.entry(name.into()).or_default().clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let len = file.0.read().unwrap_or_else(PoisonError::into_inner).len();
        Ok(len as u64)
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryFile")
    }
}

impl StorageBackend for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.get_mut(start..end).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

/// A file whose writes stay in memory: looking into it leaves it untouched.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Backend,
    state: RwLock<OverlayState>,
}

#[derive(Debug)]
struct OverlayState {
    len: u64,
    /// Reads below the file stop here: what was cut off does not come back.
    below_len: u64,
    blocks: HashMap<u64, Box<[u8]>>,
}

const BLOCK: u64 = 4096;

impl Overlay {
    pub(super) fn new(below: Backend) -> io::Result<Self> {
        let len = below.len()?;
        let state = OverlayState { len, below_len: len, blocks: HashMap::new() };
        Ok(Self { below, state: RwLock::new(state) })
    }

    fn read_below(&self, offset: u64, out: &mut [u8], below_len: u64) -> io::Result<()> {
        let there = below_len.saturating_sub(offset).min(out.len() as u64) as usize;
        out[there..].fill(0);
        if there > 0 {
            self.below.read(offset, &mut out[..there])?;
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.read().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(offset, out, state.below_len)?;
        if state.blocks.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        while at < out.len() {
            let place = offset + at as u64;
            let within = (place % BLOCK) as usize;
            let count = (BLOCK as usize - within).min(out.len() - at);
            if let Some(block) = state.blocks.get(&(place / BLOCK)) {
                out[at..at + count].copy_from_slice(&block[within..within + count]);
            }
            at += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if len < state.len {
            state.blocks.retain(|block, _| block * BLOCK < len);
            if let Some(last) = state.blocks.get_mut(&(len / BLOCK)) {
                last[(len % BLOCK) as usize..].fill(0);
            }
        }
        state.len = len;
        state.below_len = state.below_len.min(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let below_len = state.below_len;
        let mut at = 0;
        while at < data.len() {
            let place = offset + at as u64;
            let number = place / BLOCK;
            let within = (place % BLOCK) as usize;
            let count = (BLOCK as usize - within).min(data.len() - at);
            if let std::collections::hash_map::Entry::Vacant(entry) = state.blocks.entry(number) {
                let mut block = vec![0; BLOCK as usize];
                self.read_below(number * BLOCK, &mut block, below_len)?;
                entry.insert(block.into());
            }
            let block = state.blocks.get_mut(&number).expect("the block was just put there");
            block[within..within + count].copy_from_slice(&data[at..at + count]);
            at += count;
        }
        Ok(())
    }
}
