//! What happened, in an order in which causes stand before what follows from them.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::letter::Id;

pub(crate) type Mailbox = &'static str;

/// A consumer, or somebody who asks for single messages, on a channel of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reader {
    pub(crate) mailbox: Mailbox,
    pub(crate) life: u32,
    pub(crate) number: u32,
    /// Nobody else reads the mailbox in this life.
    pub(crate) sole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ack,
    Nack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    Accepted,
    /// So many deliveries may come before the message is seen again: those on their way when the broker heard of it.
    Requeued {
        on_their_way: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Noted before the message is sent.
    Published {
        id: Id,
        to: Vec<Mailbox>,
        sum: u64,
    },
    Answered {
        id: Id,
        answer: Answer,
    },
    /// It came back as unroutable. lapin says so with any message that the same ack answers.
    Returned {
        id: Id,
    },
    Received {
        by: Reader,
        id: Id,
        sum: u64,
        redelivered: bool,
    },
    /// Noted before the settlement is sent.
    Settled {
        by: Reader,
        id: Id,
        how: Settlement,
    },
    /// The reader's channel got the answer to a synchronous call that followed all its settlements.
    Synced {
        by: Reader,
    },
    /// The link to its mailbox's home broke: what it settled last may not have arrived.
    Lost {
        by: Reader,
    },
    /// The mailbox holds so many; nobody reads it now, and all of it is read next.
    Counted {
        mailbox: Mailbox,
        ready: u32,
    },
    /// The mailbox was read to its end, and says that it holds so many.
    Drained {
        mailbox: Mailbox,
        ready: u32,
    },
    /// Every client of this life had left before.
    Stopped {
        life: u32,
    },
    Killed,
    /// Something that no rule allows, in words.
    Wrong(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published { id, to, .. } => write!(f, "published {id} to {}", to.join(", ")),
            Self::Returned { id } => write!(f, "returned {id}"),
            Self::Answered { id, answer } => write!(f, "answered {id}: {answer:?}"),
            Self::Received { by, id, redelivered, .. } => {
                let again = if *redelivered { " redelivered" } else { "" };
                write!(f, "received {id} by {by}{again}")
            }
            Self::Settled { by, id, how } => write!(f, "settled {id} by {by}: {how:?}"),
            Self::Synced { by } => write!(f, "synced {by}"),
            Self::Lost { by } => write!(f, "lost {by}"),
            Self::Counted { mailbox, ready } => write!(f, "counted {ready} in {mailbox}"),
            Self::Drained { mailbox, ready } => write!(f, "drained {mailbox}, {ready} left"),
            Self::Stopped { life } => write!(f, "stopped in life {life}"),
            Self::Killed => f.write_str("killed"),
            Self::Wrong(what) => write!(f, "wrong: {what}"),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.mailbox, self.life, self.number)
    }
}

impl Event {
    pub(crate) fn id(&self) -> Option<Id> {
        match self {
            Self::Published { id, .. }
            | Self::Answered { id, .. }
            | Self::Returned { id }
            | Self::Received { id, .. }
            | Self::Settled { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// Everybody of a round writes into the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Event>>>);

impl History {
    pub(crate) fn add(&self, event: Event) {
        self.0.lock().expect("no writer panics").push(event);
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().expect("no writer panics").iter().filter(|event| which(event)).count()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().expect("no writer panics").clone()
    }
}
