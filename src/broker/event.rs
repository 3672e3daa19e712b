//! What the broker tells sessions, the store and the server: the whole surface outwards.

use std::sync::Arc;

use super::command::{ChannelId, ConnectionId, ConsumerId, MailboxId, Seq, Ticket};
use super::definition::{Credential, Definition, DefinitionKey};
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::Refusal;

#[derive(Debug)]
pub enum Effect {
    /// Tell a connection now.
    Notify(ConnectionId, Event),
    /// Tell it once every write before this one is durable. All confirms and replies take this road, so they keep their order.
    NotifyDurable(ConnectionId, Event),
    Write(Write),
    /// Read stored messages; the answer comes back as `Command::Fetched`.
    Fetch(Fetch),
}

impl Event {
    /// Its deliveries, if that is what it is.
    pub fn deliveries(&self) -> &[Delivery] {
        match self {
            Self::Delivered(delivery) => std::slice::from_ref(delivery),
            Self::DeliveredBatch(batch) => batch,
            _ => &[],
        }
    }
}

#[derive(Debug)]
pub enum Event {
    Delivered(Delivery),
    /// Several of one connection, in order.
    DeliveredBatch(Vec<Delivery>),
    /// The publish with this tag was taken (`true`) or refused by a mailbox (`false`).
    Confirmed {
        channel: ChannelId,
        tag: u64,
        taken: bool,
    },
    /// What became of the messages of a batch: how many were taken, and which were not, by their place in it.
    BatchConfirmed {
        channel: ChannelId,
        tag: u64,
        taken: u32,
        missed: Vec<(u32, Missed)>,
        /// Those that were here before, which count as taken: their places, and where the first ones are.
        duplicates: Vec<(u32, Seq)>,
    },
    /// A mandatory message that no mailbox took. Comes before its confirm.
    Returned {
        channel: ChannelId,
        message: Arc<Message>,
    },
    Reply {
        channel: ChannelId,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
    },
    /// A command without a ticket was refused.
    Refused {
        channel: ChannelId,
        cause: Cause,
        refusal: Refusal,
    },
    /// The broker ended a consumer: its mailbox went, or the right to read it.
    Cancelled {
        channel: ChannelId,
        consumer: ConsumerId,
    },
    /// A reader of a stream had all that it asked for, and is no more. What it holds can still be settled.
    Finished {
        channel: ChannelId,
        consumer: ConsumerId,
    },
    /// Publishing connections shall stop (`Some` reason) or go on.
    Blocked(Option<&'static str>),
    /// Everything of the connection is returned and deleted.
    Closed(Ticket),
    /// To links.
    Peer(super::PeerEvent),
    /// An operator, or the broker's stop, ends the connection.
    ForceClose(String),
}

/// Why a message of a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A mailbox refused it by its overflow rule.
    Full,
    /// It was mandatory, and no mailbox takes it.
    Unroutable,
    /// It was to be confirmed by another host, and left the queue for that host otherwise.
    Lost,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Publish,
    Settle,
    /// Nothing that was asked: a delivery was not settled in time.
    Timeout,
}

/// A message handed to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub channel: ChannelId,
    pub consumer: ConsumerId,
    pub mailbox: MailboxId,
    pub seq: Seq,
    pub message: Arc<Message>,
    pub redelivered: bool,
    /// Failed attempts before this one, where the mailbox counts them.
    pub attempts: Option<u32>,
    /// Deliveries before this one, failed or not, as far as they are remembered.
    pub acquired: u32,
    /// Position in a stream, for its readers.
    pub offset: Option<u64>,
    /// Nobody will settle it: it was settled when it was handed over.
    pub settled: bool,
}

#[derive(Debug)]
pub enum Reply {
    Done,
    /// The virtual host is open.
    Opened,
    Declared {
        name: Name,
        ready: u64,
        consumers: u32,
    },
    Counted(u64),
    /// The delivery, and how many are still ready.
    Got(Option<Box<(Delivery, u64)>>),
    Credential(Option<Box<Credential>>),
    Administrator(Option<Box<(Name, Credential)>>),
    /// Whether any mailbox or delay took it.
    Routed(bool),
    /// Nothing was done: publishers are stopped, and why.
    Stopped(&'static str),
    Browsed(super::Browsed),
    Rewound(super::Rewound),
    Inspection(Box<super::inspect::Inspection>),
}

/// A change to durable state. Writes of one `apply` become durable together.
#[derive(Debug)]
pub enum Write {
    /// A message comes to rest. Neighbouring appends with the same `Arc` are one stored body.
    Append(Append),
    /// Settled, expired or dropped.
    Remove {
        mailbox: MailboxId,
        first: Seq,
        count: u32,
    },
    /// Everything up to here may have been delivered before a crash.
    Mark {
        mailbox: MailboxId,
        upto: Seq,
    },
    /// Failed attempts so far, and until when the message stays invisible.
    Attempts {
        mailbox: MailboxId,
        seq: Seq,
        attempts: u32,
        deliver_at: Time,
    },
    /// The mailbox and all that rests in it are gone. Its id is never used again.
    Drop {
        mailbox: MailboxId,
    },
    /// A stored record that could not be trusted: kept aside with its reason, out of the mailbox.
    Quarantine {
        mailbox: MailboxId,
        seq: Seq,
        reason: String,
    },
    Define(Box<Definition>),
    Undefine(DefinitionKey),
}

#[derive(Clone, Debug)]
pub struct Append {
    pub mailbox: MailboxId,
    pub seq: Seq,
    pub message: Arc<Message>,
    pub rest: Rest,
    /// Only spilled from memory: gone after a restart.
    pub transient: bool,
    /// Found by a key: it will be read by itself, without its neighbours.
    pub keyed: bool,
}

/// What a mailbox remembers of a message beside the message itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// When it came to this mailbox.
    pub since: Time,
    /// When it goes; zero for never.
    pub expires: Time,
    /// Invisible until then; zero for visible at once.
    pub deliver_at: Time,
    /// The lane it stands in: priority, capped by the mailbox.
    pub lane: u8,
    pub attempts: u32,
    pub redelivered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub mailbox: MailboxId,
    /// Given back with the answer.
    pub lane: u16,
    /// Ranges of positions, ascending; all of them are stored.
    pub ranges: Vec<(Seq, u32)>,
}

/// What the store knows at start. Bodies stay on disk until they are fetched.
#[derive(Debug, Default)]
pub struct Recovered {
    pub definitions: Vec<Definition>,
    pub mailboxes: Vec<RecoveredMailbox>,
    /// The last stop was orderly: marks are exact.
    pub clean: bool,
}

#[derive(Debug)]
pub struct RecoveredMailbox {
    pub id: MailboxId,
    /// The next position to give; positions are never reused.
    pub next: Seq,
    pub mark: Seq,
    /// Live messages in order of position, in a compact form: runs of alike neighbours, and the odd ones singly.
    pub messages: Vec<RecoveredRun>,
}

/// Neighbours with the same lane, no expiry, no delay and no attempts; or one message with any of them.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredRun {
    pub first: Seq,
    pub count: u32,
    /// Sum of body sizes.
    pub bytes: u64,
    /// Of the first message.
    pub rest: Rest,
}
