//! The thread that reads stored messages for the broker.

use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::UnboundedSender;

use super::fatal;
use super::notice::Notice;
use crate::broker::{Fetch, Fetched};
use crate::store::Reader;

/// Runs until the sender of fetches is dropped. The broker keeps one fetch at a time for each lane of a mailbox,
/// which bounds the line.
pub(super) fn start(
    reader: Reader,
    fetches: Receiver<Fetch>,
    notices: UnboundedSender<Notice>,
) -> std::io::Result<JoinHandle<()>> {
    let work = move || {
        for fetch in fetches {
            let messages = reader.fetch(&fetch);
            let fetched = Fetched { mailbox: fetch.mailbox, lane: fetch.lane, messages };
            if notices.send(Notice::Fetched(fetched)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("reader".into()).spawn(|| fatal::or_abort("the reader", work))
}
