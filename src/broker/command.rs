//! What sessions ask of the broker: the whole surface inwards.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::browse::Browse;
use super::definition::{Definition, DefinitionKey, Destination};
use super::keep::Rewind;
use super::message::Message;
use super::name::{Name, Time};
use super::quota::{Holder, Quota};
use super::selection::Selection;
use super::value::{Table, Value};

/// The header that says what a message's confirm waits for, and the one thing that it can say.
pub const CONFIRM: &str = "x-confirm";
pub const CONFIRM_HOME: &str = "home";

/// One client connection, numbered by the server, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A conversation inside a connection with its own leases and shared credit. Protocols without channels use 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChannelId(pub u16);

/// A consumer of a connection, numbered by its session, unique while the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u32);

/// A mailbox, numbered by the broker, never reused, also not after a restart.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct MailboxId(pub u64);

/// Position in a mailbox: dense, from 1.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Seq(pub u64);

/// Pairs a reply with its request. Chosen by the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Debug)]
pub enum Command {
    /// The user proved who they are and wants a virtual host. Answered by `Reply::Opened` on channel 0.
    Open(Box<Open>, Ticket),
    /// The connection is gone or going: leases return, exclusive mailboxes go.
    /// Answered by `Event::Closed` where a ticket asks for it.
    Close(Option<Ticket>),
    /// Cancels the channel's consumers, returns its leases and forgets it. Answered by `Reply::Done`.
    CloseChannel(ChannelId, Ticket),
    Publish(Publish),
    /// Refused now where the publish of it, which follows in a `Request::Commit`, would be. Otherwise no answer.
    Announce(Announce),
    PublishBatch(PublishBatch),
    Settle(Settle),
    /// Deliveries take longer: the time to settle them begins anew.
    Extend(Extend),
    /// The connection wrote this much of what was delivered to its socket: it can be given more.
    Drained {
        deliveries: u32,
        bytes: u64,
    },
    /// Anything that is not asked for each message. Answered by `Event::Reply` with the ticket.
    Request(ChannelId, Ticket, Box<Request>),
    /// The store read what an `Effect::Fetch` asked for. From the server itself.
    Fetched(Fetched),
    /// What links to other hosts ask.
    Peer(Box<super::Peering>),
    /// A resource ran low or recovered. From the server itself.
    Alarm {
        memory: bool,
        disk: bool,
    },
}

/// Everything the broker wants to know of a connection; most of it only to show it.
#[derive(Clone, Debug)]
pub struct Open {
    pub user: Name,
    pub vhost: Name,
    pub protocol: &'static str,
    pub peer: String,
    pub local: String,
    /// The client's name for the connection.
    pub client_name: Option<String>,
    pub client_properties: Table,
    pub mechanism: &'static str,
    /// A refusal on a channel makes the broker ignore the channel until it is closed (AMQP). Otherwise work goes on.
    pub strict_channels: bool,
    /// The client understands `Event::Cancelled`; otherwise it is not told.
    pub cancel_notify: bool,
}

#[derive(Debug)]
pub struct Publish {
    pub channel: ChannelId,
    pub message: Arc<Message>,
    /// Further routing keys (AMQP's CC and BCC headers).
    pub more_keys: Option<Box<Vec<Bytes>>>,
    /// Answer with `Event::Confirmed` and this tag.
    pub confirm: Option<u64>,
    /// Return the message where no mailbox takes it.
    pub mandatory: bool,
    /// The confirm waits until every host to which the message goes has it.
    pub home: bool,
}

/// A publish that waits for its commit.
#[derive(Debug)]
pub struct Announce {
    pub channel: ChannelId,
    pub message: Arc<Message>,
    pub more_keys: Option<Box<Vec<Bytes>>>,
}

/// Messages that are published together and confirmed with one word.
#[derive(Debug)]
pub struct PublishBatch {
    pub channel: ChannelId,
    pub messages: Vec<Message>,
    /// Answer with `Event::BatchConfirmed` and this tag.
    pub confirm: Option<u64>,
    /// Say which messages no mailbox takes.
    pub mandatory: bool,
    /// The confirm waits until every host to which messages of it go has them.
    pub home: bool,
}

/// The fate of deliveries of one channel.
#[derive(Debug)]
pub struct Settle {
    pub channel: ChannelId,
    pub deliveries: SmallVec<[Run; 1]>,
    pub outcome: Outcome,
}

/// Deliveries of one channel that are still being worked on.
#[derive(Debug)]
pub struct Extend {
    pub channel: ChannelId,
    pub deliveries: SmallVec<[Run; 1]>,
}

/// Neighbouring positions of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub mailbox: MailboxId,
    pub first: Seq,
    pub count: u32,
}

/// AMQP 1.0's words (3.4), into which the older protocols' acknowledgements translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: the message goes.
    Accepted,
    /// Back to its place, redelivered next time. Does not count as a failed attempt (nack with requeue).
    Released,
    /// Cannot be handled: dead-letter or drop.
    Rejected,
    /// Back to its place, and the attempt counts (reject with requeue, a consumer that went away).
    /// `delay_ms` keeps it invisible for that long, 0 not at all; without it the mailbox's retry policy decides.
    Modified { delay_ms: Option<u64> },
}

#[derive(Debug)]
pub enum Request {
    DeclareExchange(DeclareExchange),
    DeleteExchange {
        name: Name,
        if_unused: bool,
    },
    DeclareMailbox(DeclareMailbox),
    /// `Reply::Counted` with the messages that went. A missing mailbox counts 0.
    DeleteMailbox {
        name: Name,
        if_unused: bool,
        if_empty: bool,
    },
    /// `Reply::Counted` with the ready messages that went.
    PurgeMailbox {
        name: Name,
    },
    Bind(BindingOf),
    Unbind(BindingOf),
    Consume(Consume),
    /// Messages published to the default exchange with the key `address` go straight to this consumer, never at rest
    /// (AMQP's direct reply-to). The session makes the address up; it ends with the channel.
    ConsumeReplies {
        consumer: ConsumerId,
        address: Name,
    },
    /// An unknown consumer is no error. `Reply::Done`.
    Cancel(ConsumerId),
    /// `Reply::Got`.
    Get {
        mailbox: Name,
        no_ack: bool,
    },
    /// Channel-wide limit of unsettled deliveries, 0 for none; `consumers` also moves the limit of consumers there are.
    Qos {
        limit: u32,
        scope: QosScope,
    },
    /// Another time for a message that waits for its own, or none at all. `Reply::Done`.
    Retime(Retime),
    /// Another place for a cursor or a group of a stream; a group that is not there comes into being. `Reply::Done`.
    SeekCursor(SeekCursor),
    /// A cursor or a group of a stream that nobody reads with. `Reply::Done`.
    DeleteCursor {
        mailbox: Name,
        cursor: Name,
    },
    /// All unsettled deliveries of the channel return to their places.
    Recover,
    /// Publishes and settlements that become durable together.
    Commit(Vec<Command>),
    /// What is known of a user, so that a password can be checked outside. Before `Open`. `Reply::Credential`.
    Credential(Name),
    /// The same of an administrator, whoever it is, if there is one of those who may enter this virtual host: for who
    /// has proven to be the broker's owner. `Reply::Administrator`.
    Administrator(Name),
    /// One channel more of a user who may not have any number of them. Others come to be with their first use.
    OpenChannel,
    /// May the connection's user still be here, and its consumers? After a credential was renewed.
    CheckAccess,
    /// Create or change; needs an administrator unless the origin is the server itself.
    Define(Definition),
    Undefine(DefinitionKey),
    /// `None` takes the number away. Needs an administrator.
    SetQuota {
        holder: Holder,
        quota: Quota,
        most: Option<u64>,
    },
    /// A host that is gone for good: its routes go, and what waits for it. `Reply::Counted`. Needs an administrator.
    ForgetPeer {
        host: Name,
        fate: super::Fate,
    },
    /// Another host shall be the mailbox's home. `Reply::Counted`: messages that are still here, or 1 while that host
    /// is not known to have it; asked again, how many there are now. Needs an administrator.
    MoveMailbox {
        name: Name,
        to: Name,
    },
    /// From another host: this one is the home of its mailbox from now on. `Reply::Done`.
    TakeOver(Box<TakeOver>),
    /// Clients are sent away and stay out until the next start; what waits for other hosts goes on. With `leave`, other
    /// hosts are told that nothing lives here any longer. `Reply::Done`. Needs an administrator.
    Drain {
        leave: bool,
    },
    /// The same request as if this user had asked it, in this virtual host. From the server itself.
    OnBehalf(Box<OnBehalf>),
    /// One message, without a channel. `Reply::Routed`, or `Reply::Stopped` where publishers are.
    Post(Arc<Message>),
    /// `Reply::Browsed`: messages, which stay as they are.
    Browse(Browse),
    /// `Reply::Rewound`: messages that were settled and kept are ready again, some at a time.
    Rewind(Rewind),
    /// Ends a connection, for this reason; needs an administrator unless the origin is the server itself.
    Disconnect {
        connection: ConnectionId,
        reason: String,
    },
    /// Read-only views, a bounded slice at a time.
    Inspect(super::inspect::Inspect),
}

#[derive(Debug)]
pub struct OnBehalf {
    pub user: Name,
    pub vhost: Name,
    pub request: Request,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosScope {
    /// The sum over the channel (AMQP's global = 1 as RabbitMQ has it).
    Channel,
    /// Consumers that start later; existing consumers are raised to it, never lowered.
    NewConsumers,
}

#[derive(Clone, Debug)]
pub struct DeclareExchange {
    pub name: Name,
    pub kind: Name,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: Table,
}

#[derive(Clone, Debug)]
pub struct DeclareMailbox {
    pub name: Name,
    pub passive: bool,
    pub durable: bool,
    /// Belongs to the connection and goes with it.
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: Table,
    /// The name was made by the broker's side, so the reserved prefix is no offence.
    pub generated: bool,
}

impl DeclareMailbox {
    /// Asks whether it is there, and how much is in it.
    pub fn look(name: Name) -> Self {
        Self {
            name,
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
            generated: false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct BindingOf {
    pub source: Name,
    pub destination: Destination,
    pub key: Bytes,
    pub arguments: Table,
}

/// A mailbox that moves, as it is declared where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct TakeOver {
    pub name: Name,
    /// Higher than that of every home it had.
    pub epoch: u64,
    pub durable: bool,
    pub auto_delete: bool,
    pub arguments: Table,
    pub bindings: Vec<MovedBinding>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MovedBinding {
    pub exchange: Name,
    /// The exchange's, which has to be the same at both hosts.
    pub kind: Name,
    pub key: Bytes,
    pub arguments: Table,
}

#[derive(Clone, Debug)]
pub struct Consume {
    pub mailbox: Name,
    pub consumer: ConsumerId,
    /// Shown to people; unique in the channel by the session's care.
    pub tag: Name,
    pub no_ack: bool,
    pub exclusive: bool,
    pub priority: i32,
    /// Unsettled deliveries this consumer may hold, 0 for no limit.
    pub prefetch: u32,
    pub arguments: Table,
    /// Takes only some of the messages.
    pub selection: Option<Selection>,
    /// Of a stream only with a prefetch and acknowledgements, as AMQP's clients expect.
    pub bounded: bool,
}

/// A message that waits, and what becomes of it. One that an exchange delays waits in that exchange's own mailbox.
#[derive(Clone, Debug)]
pub struct Retime {
    pub mailbox: Name,
    pub due: Time,
    pub seq: Seq,
    /// Its new time, of which the past means at once; `None` takes the message away.
    pub to: Option<Time>,
}

#[derive(Clone, Debug)]
pub struct SeekCursor {
    pub mailbox: Name,
    pub cursor: Name,
    /// As `x-stream-offset` says it.
    pub start: Value,
}

/// What the store found for a fetch, in order of position.
#[derive(Debug)]
pub struct Fetched {
    pub mailbox: MailboxId,
    /// Which of the mailbox's requests this answers.
    pub lane: u16,
    pub messages: Vec<FetchedMessage>,
}

#[derive(Debug)]
pub struct FetchedMessage {
    pub seq: Seq,
    pub rest: super::event::Rest,
    /// `Err` says why the stored record cannot be trusted.
    pub message: Result<Arc<Message>, String>,
}
