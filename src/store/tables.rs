//! The tables of both files, the schema's version, and how a file comes into being.

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};

use super::directory::{Backend, Directory, Overlay};
use super::error::{StoreError, engine};

/// Counts up with every change of a table or a record that an older version would misread.
pub(super) const SCHEMA: u32 = 1;

pub(super) const JOURNAL: &str = "journal.redb";
pub(super) const HOME: &str = "home.redb";

/// Both files: `schema` u32, `store` 16 bytes. Home also: `applied` and `clean`, see `home.rs`.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Journal: part number to part.
pub(super) const PARTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("parts");

/// Key bytes to checksum and JSON.
pub(super) const DEFINITIONS: TableDefinition<'_, &[u8], &[u8]> =
    TableDefinition::new("definitions");
/// Mailbox to checksum, next position and mark.
pub(super) const MAILBOXES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("mailboxes");
/// Mailbox and first position to what is known of the chunk without reading it.
pub(super) const CHUNK_INDEX: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("chunk-index");
pub(super) const CHUNKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("chunks");
/// The live map of a chunk of which something went.
pub(super) const LIVE: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("live");
/// Bodies held by several mailboxes.
pub(super) const SHARED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("shared");
/// Big bodies in slices.
pub(super) const BIG: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("big");
pub(super) const ATTEMPTS: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("attempts");
pub(super) const QUARANTINE: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("quarantine");

/// What distinguishes a data directory; both files carry it.
pub(super) type StoreId = [u8; 16];

pub(super) fn new_id() -> StoreId {
    use std::hash::{BuildHasher, RandomState};
    let mut id = [0; 16];
    id[..8].copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    id[8..].copy_from_slice(&RandomState::new().hash_one("store").to_le_bytes());
    id
}

pub(super) fn open(backend: Backend, cache: usize) -> Result<Database, StoreError> {
    guarded(|| Builder::new().set_cache_size(cache).create_with_backend(backend).map_err(engine))
}

/// Runs what reads a file; a panic of redb on damaged pages becomes an error.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(StoreError::Damaged(format!("the file is damaged: {text}")))
    })
}

/// Makes the file under another name, and gives it its own once it is whole: there is never half a file.
pub(super) fn create(directory: &dyn Directory, name: &str, id: StoreId) -> Result<(), StoreError> {
    let unfinished = unfinished(name);
    directory.remove(&unfinished)?;
    let file = open(directory.open(&unfinished)?, 1 << 20)?;
    let mut transaction = file.begin_write().map_err(engine)?;
    transaction.set_quick_repair(true);
    {
        let mut meta = transaction.open_table(META).map_err(engine)?;
        meta.insert("schema", SCHEMA.to_le_bytes().as_slice()).map_err(engine)?;
        meta.insert("store", id.as_slice()).map_err(engine)?;
    }
    transaction.commit().map_err(engine)?;
    drop(file);
    directory.open(&unfinished)?.sync_data()?;
    directory.rename(&unfinished, name)?;
    directory.sync()?;
    Ok(())
}

pub(super) fn unfinished(name: &str) -> String {
    format!("{name}.new")
}

/// Checks a file of an older or newer version without changing a byte of it.
pub(super) fn check_schema(directory: &dyn Directory, name: &str) -> Result<(), StoreError> {
    let overlay = Overlay::new(directory.open(name)?)?;
    let file = open(Backend::new(overlay), 1 << 20)?;
    read_meta(&file).map(|_| ())
}

/// The store's id, if the schema is one we know.
pub(super) fn read_meta(file: &Database) -> Result<StoreId, StoreError> {
    guarded(|| {
        let transaction = file.begin_read().map_err(engine)?;
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => {
                return Err(StoreError::Damaged("the file is not a Pillarbox store".into()));
            }
            Err(error) => return Err(engine(error)),
        };
        let damaged = || StoreError::Damaged("the file's schema cannot be read".into());
        let schema = meta.get("schema").map_err(engine)?.ok_or_else(damaged)?;
        let schema = u32::from_le_bytes(schema.value().try_into().map_err(|_| damaged())?);
        if schema > SCHEMA {
            return Err(StoreError::Newer { found: schema, known: SCHEMA });
        }
        if schema != SCHEMA {
            return Err(damaged());
        }
        let id = meta.get("store").map_err(engine)?.ok_or_else(damaged)?;
        id.value().try_into().map_err(|_| damaged())
    })
}
