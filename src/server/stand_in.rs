//! Stands where the store will be, so that the ring can be built and run. To be deleted.

use std::path::Path;

use crate::broker::{Fetch, FetchedMessage, Recovered, Time, WireForm, Write};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("'{0}' is in use by another broker")]
    Locked(String),
    #[error("the disk is full")]
    DiskFull,
    #[error("{0}")]
    Io(std::io::Error),
}

pub struct Store;

#[derive(Clone)]
pub struct Reader;

#[derive(Default)]
pub struct Options {}

impl Store {
    pub fn open(
        _directory: &Path,
        _forms: &'static [&'static WireForm],
        _options: Options,
    ) -> Result<(Self, Recovered), StoreError> {
        Ok((Self, Recovered::default()))
    }

    pub fn memory(
        _forms: &'static [&'static WireForm],
        _options: Options,
    ) -> Result<(Self, Recovered), StoreError> {
        Ok((Self, Recovered::default()))
    }

    pub fn commit(&mut self, _writes: &[Write], _now: Time) -> Result<(), StoreError> {
        Ok(())
    }

    pub fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    pub fn reader(&self) -> Reader {
        Reader
    }

    pub fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Reader {
    pub fn fetch(&self, _fetch: &Fetch) -> Vec<FetchedMessage> {
        Vec::new()
    }
}
