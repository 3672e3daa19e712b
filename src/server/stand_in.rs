//! Stands where the store and the AMQP session will be, so that the ring can be built and run. To be deleted.

use std::path::Path;

use bytes::BytesMut;

use crate::broker::{Event, Fetch, FetchedMessage, Recovered, Time, WireForm, Write};
use crate::sessions::{Facts, Outbox, Session};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another broker is running on this data directory")]
    Locked,
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

pub mod amqp {
    #[derive(Clone, Debug, Default)]
    pub struct Settings {}
}

pub struct AmqpSession;

impl AmqpSession {
    pub fn new(_facts: Facts, _settings: amqp::Settings) -> Self {
        Self
    }
}

impl Session for AmqpSession {
    fn receive(&mut self, input: &mut BytesMut, _now: Time, out: &mut Outbox) {
        input.clear();
        out.wire.extend_from_slice(b"AMQP\0\0\x09\x01");
        out.close = true;
    }

    fn notify(&mut self, event: Event, _now: Time, out: &mut Outbox) {
        if let Event::ForceClose(_) = event {
            out.close = true;
        }
    }

    fn tick(&mut self, _now: Time, _out: &mut Outbox) {}

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn verified(&mut self, _accepted: bool, _now: Time, _out: &mut Outbox) {}

    fn flush(&mut self, _out: &mut Outbox) {}
}
