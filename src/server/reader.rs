//! The thread that reads stored messages for the broker.

use std::sync::mpsc::{Receiver, Sender};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;

use super::committer::Work;
use super::fatal;
use super::notice::Notice;
use crate::broker::{Fetch, Fetched, FetchedMessage};
use crate::store::{OutOfReach, Reader, StoreError};

/// Runs until the sender of fetches is dropped. The broker keeps one fetch at a time for each lane of a mailbox,
/// which bounds the line.
pub(super) fn start(
    reader: Reader,
    fetches: Receiver<Fetch>,
    notices: UnboundedSender<Notice>,
    committer: Sender<Work>,
) -> std::io::Result<JoinHandle<()>> {
    let work = move || {
        for fetch in fetches {
            let Some(messages) = insist(&reader, &fetch, &committer) else { break };
            let fetched = Fetched { mailbox: fetch.mailbox, lane: fetch.lane, messages };
            if notices.send(Notice::Fetched(fetched)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("reader".into()).spawn(|| fatal::or_abort("the reader", work))
}

/// Waits for files that a full disk took out of reach; `None` once the store is closed.
fn insist(reader: &Reader, fetch: &Fetch, committer: &Sender<Work>) -> Option<Vec<FetchedMessage>> {
    loop {
        let OutOfReach { opened, error } = match reader.fetch(fetch) {
            Ok(messages) => return Some(messages),
            Err(out) => out,
        };
        if let StoreError::Io(_) = error {
            // Of the messages behind the error nothing is known: to call them damaged would lose them.
            fatal::exit(&format!("the store cannot be read: {error}"));
        }
        // It may know already, or there may be no commit that would tell it.
        let _ = committer.send(Work::Mend { opened: Some(opened) });
        if !reader.wait(opened) {
            return None;
        }
    }
}
