//! A disk that forgets: what was written and not synced is lost, kept, or half kept when the power goes.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use pillarbox::store::{Backend, Directory};
use redb::StorageBackend;

use super::random::Random;

/// What survives of the writes since the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    Nothing,
    Everything,
    Half,
    ShuffledHalf,
    /// Each sector of 512 bytes for itself.
    Torn,
    /// Only what went to the file's first page.
    HeaderOnly,
}

impl Survival {
    pub(crate) const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Everything,
        Self::Half,
        Self::ShuffledHalf,
        Self::Torn,
        Self::HeaderOnly,
    ];
}

#[derive(Clone)]
pub(crate) struct ForgettingDisk(Arc<Mutex<State>>);

struct State {
    files: Vec<File>,
    names: HashMap<String, usize>,
    names_durable: HashMap<String, usize>,
    operations: u64,
    crash_at: u64,
    /// Half of the syncs do nothing.
    lying: Option<Random>,
}

#[derive(Clone, Default)]
struct File {
    volatile: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl fmt::Debug for ForgettingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForgettingDisk")
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write(bytes, *offset, data),
            Self::Length(len) => bytes.resize(*len, 0),
        }
    }
}

impl ForgettingDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: HashMap::new(),
            names_durable: HashMap::new(),
            operations: 0,
            crash_at: u64::MAX,
            lying: None,
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes after this many further operations that change something.
    pub(crate) fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = state.operations + operations;
    }

    pub(crate) fn lie(&self, random: Random) {
        self.state().lying = Some(random);
    }

    pub(crate) fn crashed(&self) -> bool {
        let state = self.state();
        state.operations >= state.crash_at
    }

    /// The disk as it is found when the power is back.
    pub(crate) fn image(&self, survival: Survival, random: &mut Random) -> Self {
        let state = self.state();
        let keep_names = match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            _ => random.chance(2),
        };
        let names = if keep_names { &state.names } else { &state.names_durable };
        let files = state.files.iter().map(|file| {
            let bytes = file.image(survival, random);
            File { volatile: bytes.clone(), durable: bytes, pending: Vec::new() }
        });
        let image = State {
            files: files.collect(),
            names: names.clone(),
            names_durable: names.clone(),
            operations: 0,
            crash_at: u64::MAX,
            lying: None,
        };
        Self(Arc::new(Mutex::new(image)))
    }
}

impl File {
    fn image(&self, survival: Survival, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match survival {
            Survival::Nothing => {}
            Survival::Everything => self.pending.iter().for_each(|it| it.apply(&mut bytes)),
            Survival::Half => {
                for pending in self.pending.iter().filter(|_| random.chance(2)) {
                    pending.apply(&mut bytes);
                }
            }
            Survival::ShuffledHalf => {
                let mut kept: Vec<_> = self.pending.iter().filter(|_| random.chance(2)).collect();
                for at in (1..kept.len()).rev() {
                    kept.swap(at, random.below(at as u64 + 1) as usize);
                }
                // A shorter length after a write would cut what the file system had already extended.
                let len = bytes.len();
                for pending in kept {
                    pending.apply(&mut bytes);
                    if bytes.len() < len {
                        bytes.resize(len, 0);
                    }
                }
            }
            Survival::Torn => {
                for pending in &self.pending {
                    let Pending::Write(offset, data) = pending else {
                        if random.chance(2) {
                            pending.apply(&mut bytes);
                        }
                        continue;
                    };
                    for (at, sector) in data.chunks(512).enumerate() {
                        if random.chance(2) {
                            write(&mut bytes, offset + at * 512, sector);
                        }
                    }
                }
            }
            Survival::HeaderOnly => {
                for pending in &self.pending {
                    if matches!(pending, Pending::Write(offset, _) if *offset < 4096) {
                        pending.apply(&mut bytes);
                    }
                }
            }
        }
        bytes
    }
}

impl State {
    fn operation(&mut self) -> io::Result<()> {
        if self.operations >= self.crash_at {
            return Err(io::Error::other("the power is gone"));
        }
        self.operations += 1;
        Ok(())
    }
}

impl Directory for ForgettingDisk {
    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.state().names.contains_key(name))
    }

    fn open(&self, name: &str) -> io::Result<Backend> {
        let mut state = self.state();
        let number = match state.names.get(name) {
            Some(number) => *number,
            None => {
                state.operation()?;
                state.files.push(File::default());
                let number = state.files.len() - 1;
                state.names.insert(name.into(), number);
                number
            }
        };
        drop(state);
        Ok(Backend::new(ForgettingFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        state.names.remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        state.names_durable = state.names.clone();
        Ok(())
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        let number = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[number].volatile.len() as u64)
    }
}

#[derive(Debug)]
struct ForgettingFile {
    disk: ForgettingDisk,
    number: usize,
}

impl StorageBackend for ForgettingFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number].volatile.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        if state.operations >= state.crash_at {
            return Err(io::Error::other("the power is gone"));
        }
        let start = offset as usize;
        let bytes = state.files[self.number].volatile.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let file = &mut state.files[self.number];
        file.volatile.resize(len as usize, 0);
        file.pending.push(Pending::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        if state.lying.as_mut().is_some_and(|random| random.chance(2)) {
            return Ok(());
        }
        let file = &mut state.files[self.number];
        for pending in std::mem::take(&mut file.pending) {
            pending.apply(&mut file.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let file = &mut state.files[self.number];
        write(&mut file.volatile, offset as usize, data);
        file.pending.push(Pending::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}
