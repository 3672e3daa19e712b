//! Every way the store says no, and the one place that knows redb's errors.

use std::io;

use crate::broker::MailboxId;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("'{0}' is in use by another broker")]
    Locked(String),
    #[error(
        "the files were written by a newer version (schema {found}, this one knows {known}): \
         nothing was changed; start the newer version"
    )]
    Newer { found: u32, known: u32 },
    #[error("{0}; run `pillarbox check` on the directory")]
    Damaged(String),
    /// Nothing of the commit counts. The caller may `reopen` and commit the same writes again.
    #[error("no space left on the disk")]
    DiskFull,
    #[error("disk error: {0}")]
    Io(io::Error),
    #[error("the store failed before and takes no more writes")]
    Dead,
    #[error("mailbox {0:?}: {1}")]
    Refused(MailboxId, &'static str),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

impl StoreError {
    /// The file cannot be used for now, which says nothing about what is in it.
    pub(super) fn is_of_the_file(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Io(_) | Self::Dead)
    }
}

/// Translates any error of redb's.
pub(super) fn engine(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked("the data directory".into()),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Dead,
        redb::Error::Corrupted(what) => StoreError::Damaged(format!("the file is damaged: {what}")),
        other => StoreError::Damaged(format!("the file cannot be used: {other}")),
    }
}
