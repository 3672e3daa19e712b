//! Reading stored messages while commits and homing go on. Every body is checked against its checksum.

use std::sync::{Arc, PoisonError};

use crc32c::crc32c;
use redb::{Database, OwnedAccessGuard, ReadOnlyTable, ReadableDatabase, TableError};

use crate::broker::{Fetch, FetchedMessage, Message, Name, Rest, Seq};

use super::chunk;
use super::error::{StoreError, engine};
use super::index::Index;
use super::part::{PART_HEAD, PartHead, SMALL_MAX, salt};
use super::record::{BigPlace, Forms, Record, Records};
use super::shared::{Files, Reach, Shared};
use super::tables::{self, guarded};

/// Reads from any thread. A clone is the same reader.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// A message may move from the journal to home, or to another chunk, between looking up and reading.
const TRIES: usize = 6;

/// Neighbouring positions that lie in one extent, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    first: u64,
    end: u64,
    place: Option<Place>,
}

/// Room that a big body is given before its slices are seen.
const BIG_AHEAD: usize = 16 << 20;

/// A chunk's pages, and what a body with rows of its own is taken to need. Most are smaller: a larger one may let the
/// disk become full, which is survived, where the largest there can be would keep publishers out for one message.
const CHUNK_SIZE_MAX: u64 = 256 << 10;
const SMALL_CHUNK_SIZE: u64 = SMALL_MAX as u64 + 32;
const BIG_SIZE: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    home: bool,
    key: u64,
    offset: u32,
}

/// The files could not be read, whatever is in them. Nothing is known of the messages until `Store::mend`.
#[derive(Debug, thiserror::Error)]
#[error("the store's files are out of reach: {error}")]
pub struct OutOfReach {
    /// How often the files had been opened by then.
    pub opened: u64,
    pub error: StoreError,
}

/// Why a message cannot be had.
enum Flaw {
    /// Its record cannot be trusted.
    Record(String),
    /// Its file cannot be read.
    File(StoreError),
}

impl From<&str> for Flaw {
    fn from(reason: &str) -> Self {
        Self::Record(reason.into())
    }
}

impl From<String> for Flaw {
    fn from(reason: String) -> Self {
        Self::Record(reason)
    }
}

impl From<StoreError> for Flaw {
    fn from(error: StoreError) -> Self {
        if error.is_of_the_file() { Self::File(error) } else { Self::Record(error.to_string()) }
    }
}

type Bytes = OwnedAccessGuard<&'static [u8]>;

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What the home file holds, in bytes, and hardly more; the rest of the file is free to be written again.
    pub fn home_used_max(&self) -> u64 {
        let index = self.shared.lock_index();
        let extents = index.mailboxes.values().flat_map(|mailbox| &mailbox.extents);
        let chunks = extents.filter(|extent| extent.is_home());
        let chunks: u64 =
            chunks.map(|it| if it.small { SMALL_CHUNK_SIZE } else { CHUNK_SIZE_MAX }).sum();
        let shared = index.shared.len() as u64 * CHUNK_SIZE_MAX;
        chunks + shared + index.big.len() as u64 * BIG_SIZE
    }

    /// Bytes of the journal that will be written to home, if nobody settles them before.
    pub fn unhomed(&self) -> u64 {
        self.shared.lock_progress().unhomed
    }

    /// The messages at these positions, in order of position. All of them must be durable: a position that is
    /// not live comes back as an error, as does a record that cannot be trusted.
    pub fn fetch(&self, fetch: &Fetch) -> Result<Vec<FetchedMessage>, OutOfReach> {
        let files = self.shared.files.read().unwrap_or_else(PoisonError::into_inner);
        let opened = self.shared.lock_reach().opened;
        let files = files.as_ref().ok_or(OutOfReach { opened, error: StoreError::Dead })?;
        let mailbox = fetch.mailbox.0;
        let mut wanted: Vec<(u64, u64)> = fetch
            .ranges
            .iter()
            .map(|(first, count)| (first.0, first.0 + u64::from(*count)))
            .collect();
        let mut found = Vec::new();
        let mut reason = String::from("no such message is stored");
        for _ in 0..TRIES {
            if wanted.is_empty() {
                break;
            }
            let spots = locate(&self.shared.lock_index(), mailbox, &wanted);
            wanted.clear();
            let mut reading = Reading::new(files, &self.shared.forms);
            for spot in spots {
                match guarded(|| reading.spot(mailbox, &spot, &mut found)) {
                    Ok(missed) => wanted.extend(missed),
                    Err(error) if error.is_of_the_file() => {
                        return Err(OutOfReach { opened, error });
                    }
                    Err(error) => {
                        reason = error.to_string();
                        wanted.push((spot.first, spot.end));
                    }
                }
            }
            let have = |seq| found.iter().any(|it: &FetchedMessage| it.seq == Seq(seq));
            wanted = wanted
                .iter()
                .flat_map(|&(first, end)| (first..end).filter(|&seq| !have(seq)))
                .map(|seq| (seq, seq + 1))
                .collect();
        }
        for (first, end) in wanted {
            let missing = (first..end).map(|seq| FetchedMessage {
                seq: Seq(seq),
                rest: Rest::default(),
                message: Err(reason.clone()),
            });
            found.extend(missing);
        }
        found.sort_by_key(|message| message.seq);
        Ok(found)
    }

    /// Waits until the files were opened again after they had been `opened` times; false once the store is closed.
    pub fn wait(&self, opened: u64) -> bool {
        let reach = self.shared.lock_reach();
        let out_of_reach = |reach: &mut Reach| !reach.closed && reach.opened == opened;
        let reach = self.shared.reached.wait_while(reach, out_of_reach);
        !reach.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// The record of a message as it lies there, for the quarantine.
    pub(super) fn raw(&self, mailbox: u64, seq: u64) -> Vec<u8> {
        let files = self.shared.files.read().unwrap_or_else(PoisonError::into_inner);
        let spots = locate(&self.shared.lock_index(), mailbox, &[(seq, seq + 1)]);
        let (Some(files), Some(place)) = (files.as_ref(), spots.first().and_then(|it| it.place))
        else {
            return Vec::new();
        };
        guarded(|| {
            let mut reading = Reading::new(files, &self.shared.forms);
            let Some(bytes) = reading.bytes(mailbox, place)? else { return Ok(Vec::new()) };
            let value = bytes.value();
            let record = Records::new(value, place.start(), place.salt(mailbox))
                .flatten()
                .find(|it| it.is_message() && it.mailbox() == mailbox && it.seq() == seq);
            Ok(record.map_or_else(Vec::new, |it| value[it.start..it.start + it.size].to_vec()))
        })
        .unwrap_or_default()
    }
}

fn locate(index: &Index, id: u64, wanted: &[(u64, u64)]) -> Vec<Spot> {
    let mailbox = index.mailboxes.get(&id);
    let mut spots: Vec<Spot> = Vec::new();
    for &(first, end) in wanted {
        let mut seq = first;
        while seq < end {
            let extent = mailbox.and_then(|mailbox| mailbox.find(seq));
            let place = extent.map(|extent| Place {
                home: extent.is_home(),
                key: extent.place,
                offset: extent.offset,
            });
            let upto = extent.map_or(seq + 1, |extent| {
                let last = extent.end().min(end);
                (seq + 1..last).find(|&seq| !extent.has(seq)).unwrap_or(last)
            });
            match spots.last_mut() {
                Some(last) if last.place == place && last.end == seq => last.end = upto,
                _ => spots.push(Spot { first: seq, end: upto, place }),
            }
            seq = upto;
        }
    }
    spots
}

impl Place {
    fn salt(self, mailbox: u64) -> u32 {
        if self.home { chunk::salt(mailbox) } else { salt(self.key) }
    }

    /// Where the walk through the records starts.
    fn start(self) -> usize {
        if self.home { chunk::CHUNK_HEAD } else { self.offset as usize }
    }
}

/// Read transactions that last as long as one fetch, and what they found last.
struct Reading<'f> {
    files: &'f Files,
    forms: &'f Forms,
    parts: Option<ReadOnlyTable<u64, &'static [u8]>>,
    chunks: Option<ReadOnlyTable<(u64, u64), &'static [u8]>>,
    shared: Option<ReadOnlyTable<u64, &'static [u8]>>,
    exchange: Option<Name>,
    /// The message that the last reference led to.
    last_target: Option<((bool, u64, u32), Arc<Message>)>,
}

/// Opens a table for reading; a table that was never written is `None`.
fn table<K: redb::Key + 'static>(
    file: &Database,
    definition: redb::TableDefinition<'_, K, &'static [u8]>,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>, StoreError> {
    match file.begin_read().map_err(engine)?.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(engine(error)),
    }
}

impl<'f> Reading<'f> {
    fn new(files: &'f Files, forms: &'f Forms) -> Self {
        Self {
            files,
            forms,
            parts: None,
            chunks: None,
            shared: None,
            exchange: None,
            last_target: None,
        }
    }

    fn part(&mut self, number: u64) -> Result<Option<Bytes>, StoreError> {
        if self.parts.is_none() {
            self.parts = table(&self.files.journal, tables::PARTS)?;
        }
        self.parts.as_ref().map_or(Ok(None), |parts| parts.get_owned(number).map_err(engine))
    }

    fn bytes(&mut self, mailbox: u64, place: Place) -> Result<Option<Bytes>, StoreError> {
        if !place.home {
            return self.part(place.key);
        }
        if self.chunks.is_none() {
            self.chunks = table(&self.files.home, tables::CHUNKS)?;
        }
        let key = (mailbox, place.key);
        self.chunks.as_ref().map_or(Ok(None), |chunks| chunks.get_owned(key).map_err(engine))
    }

    fn shared(&mut self, id: u64) -> Result<Option<Bytes>, StoreError> {
        if self.shared.is_none() {
            self.shared = table(&self.files.home, tables::SHARED)?;
        }
        self.shared.as_ref().map_or(Ok(None), |shared| shared.get_owned(id).map_err(engine))
    }

    /// Adds the spot's messages; returns the positions that were not there, which have moved or are lost.
    fn spot(
        &mut self,
        mailbox: u64,
        spot: &Spot,
        found: &mut Vec<FetchedMessage>,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        let Some(place) = spot.place else { return Ok(vec![(spot.first, spot.end)]) };
        let Some(bytes) = self.bytes(mailbox, place)? else {
            return Ok(vec![(spot.first, spot.end)]);
        };
        let value = bytes.value();
        let mut missed = Vec::new();
        let mut at = spot.first;
        let mut damage = false;
        for record in Records::new(value, place.start(), place.salt(mailbox)) {
            let Ok(record) = record else {
                damage = true;
                continue;
            };
            let seq = record.seq();
            if !record.is_message() || record.mailbox() != mailbox || seq < at {
                continue;
            }
            if seq >= spot.end {
                break;
            }
            missed.push((at, seq));
            at = seq + 1;
            let message = match self.message(&record, place.home) {
                Ok(message) => Ok(message),
                Err(Flaw::Record(reason)) => Err(reason),
                Err(Flaw::File(error)) => return Err(error),
            };
            found.push(FetchedMessage { seq: Seq(seq), rest: record.rest(), message });
            if at == spot.end {
                break;
            }
        }
        missed.push((at, spot.end));
        missed.retain(|(first, end)| first < end);
        if damage {
            let lost = missed.drain(..).flat_map(|(first, end)| first..end).map(|seq| {
                let message = Err("the record's head is damaged".to_owned());
                FetchedMessage { seq: Seq(seq), rest: Rest::default(), message }
            });
            found.extend(lost);
        }
        Ok(missed)
    }

    fn message(&mut self, record: &Record<'_>, home: bool) -> Result<Arc<Message>, Flaw> {
        if let Some(place) = record.big() {
            record.data().ok_or("the place of the body is damaged")?;
            let data = self.big(place, record, home)?;
            return Ok(record.message(&data, self.forms, &mut self.exchange)?);
        }
        if record.kind != super::record::REF {
            let data = record.data().ok_or("the body does not match its checksum")?;
            return Ok(record.message(data, self.forms, &mut self.exchange)?);
        }
        let target = record.target();
        let key = (home, target.0, target.1);
        if let Some((last, message)) = &self.last_target
            && *last == key
        {
            return Ok(Arc::clone(message));
        }
        let (bytes, salt) = if home {
            (self.shared(target.0)?, chunk::shared_salt(target.0))
        } else {
            (self.part(target.0)?, salt(target.0))
        };
        let bytes = bytes.ok_or("the shared body is missing")?;
        let base = Record::at(bytes.value(), target.1 as usize, salt)
            .filter(|it| it.kind == super::record::MESSAGE)
            .ok_or("the record of the shared body is damaged")?;
        let message = self.message(&base, home)?;
        self.last_target = Some((key, Arc::clone(&message)));
        Ok(message)
    }

    fn big(&mut self, place: BigPlace, record: &Record<'_>, home: bool) -> Result<Vec<u8>, Flaw> {
        let mut data = Vec::with_capacity((record.body_len() as usize + 1024).min(BIG_AHEAD));
        if home {
            let parts = table(&self.files.home, tables::BIG)?.ok_or("the big body is missing")?;
            for number in 0..place.parts {
                let slice = parts.get((place.id, number)).map_err(engine)?;
                let slice = slice.ok_or("a part of the big body is missing")?;
                let slice = chunk::big_slice(slice.value(), place.id, number)
                    .ok_or("a part of the big body is damaged")?;
                data.extend_from_slice(slice);
            }
        } else {
            for number in place.id..place.id + u64::from(place.parts) {
                let slice = self.part(number)?;
                let slice = slice.ok_or("a part of the big body is missing")?;
                let slice =
                    raw_slice(slice.value(), number).ok_or("a part of the big body is damaged")?;
                data.extend_from_slice(slice);
            }
        }
        Ok(data)
    }
}

/// The slice of a big body that a part of the journal holds.
pub(super) fn raw_slice(bytes: &[u8], number: u64) -> Option<&[u8]> {
    let head = PartHead::read(bytes, number)?;
    let slice = &bytes[PART_HEAD..];
    (crc32c(slice) == head.raw_crc).then_some(slice)
}
