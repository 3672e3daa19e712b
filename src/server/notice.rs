//! What the house itself tells the broker task. Never waits: each kind is bounded by its source.

use tokio::sync::oneshot;

use crate::broker::{Epoch, Fetched, Write};
use crate::store::StoreError;

pub(super) enum Notice {
    /// The batch is durable. Its emptied vector comes back to be used again.
    Committed { epoch: Epoch, spare: Vec<Write> },
    /// The committer found no space, or space again.
    DiskFull(bool),
    /// Resources ran low or recovered, by the watch.
    Watched { memory: bool, disk: bool },
    /// The reading thread found what a fetch asked for.
    Fetched(Fetched),
    /// Tell every connection, now and to come, that the broker goes down.
    GoingDown(String),
    /// Connections that are still there have had their time.
    Sever,
    /// Close the broker, make everything durable, close the store, answer, and end.
    Stop(oneshot::Sender<Result<(), StoreError>>),
    /// The committer's last word.
    StoreClosed(Result<(), StoreError>),
}
