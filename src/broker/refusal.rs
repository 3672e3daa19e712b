//! Every way the broker says no.

use super::command::ChannelId;
use super::name::Name;

/// An answer, not a failure. Texts are what RabbitMQ's clients see and match on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no queue '{name}' in vhost '{vhost}'")]
    NoSuchMailbox { name: Name, vhost: Name },
    /// Another host has it, and it cannot be used from here.
    #[error("queue '{name}' in vhost '{vhost}' lives on host '{host}'")]
    Elsewhere { host: Name, name: Name, vhost: Name },
    /// Another host has it, and no link leads there now.
    #[error("home host '{host}' of queue '{name}' in vhost '{vhost}' is down or inaccessible")]
    Inaccessible { host: Name, name: Name, vhost: Name },
    #[error("no exchange '{name}' in vhost '{vhost}'")]
    NoSuchExchange { name: Name, vhost: Name },
    #[error("no binding {key} between exchange '{exchange}' in vhost '{vhost}' and {destination}")]
    NoSuchBinding { key: String, exchange: Name, destination: String, vhost: Name },
    #[error("vhost {vhost} not found")]
    NoSuchVhost { vhost: Name },
    #[error("access to vhost '{vhost}' refused for user '{user}'{reason}")]
    VhostDenied { vhost: Name, user: Name, reason: String },
    #[error("{action} access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'")]
    Forbidden { action: Action, kind: Kind, name: Name, vhost: Name, user: Name },
    #[error(
        "{action} access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
    )]
    TopicForbidden { action: Action, key: String, exchange: Name, vhost: Name, user: Name },
    #[error("{0}")]
    NotAdministrator(String),
    #[error(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."
    )]
    Locked { name: Name, vhost: Name },
    #[error(
        "cannot obtain access to locked queue '{name}' in vhost '{vhost}'. basic.get operations are not supported by quorum queues with single active consumer"
    )]
    OneReaderOnly { name: Name, vhost: Name },
    #[error("queue '{name}' in vhost '{vhost}' in exclusive use")]
    ExclusiveUse { name: Name, vhost: Name },
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedName { kind: Kind, name: Name },
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    #[error("deletion of system exchange '{name}' in vhost '{vhost}' not allowed")]
    SystemExchange { name: Name, vhost: Name },
    #[error("cannot publish to internal exchange '{name}' in vhost '{vhost}'")]
    InternalExchange { name: Name, vhost: Name },
    #[error("inequivalent arg '{argument}' for {kind} '{name}' in vhost '{vhost}': {difference}")]
    Inequivalent { argument: String, kind: Kind, name: Name, vhost: Name, difference: String },
    #[error("invalid arg '{argument}' for {kind} '{name}' in vhost '{vhost}': {reason}")]
    InvalidArgument { argument: String, kind: Kind, name: Name, vhost: Name, reason: String },
    #[error("unknown exchange type '{0}'")]
    UnknownExchangeKind(Name),
    #[error("{kind} '{name}' in vhost '{vhost}' in use")]
    InUse { kind: Kind, name: Name, vhost: Name },
    #[error("queue '{name}' in vhost '{vhost}' not empty")]
    NotEmpty { name: Name, vhost: Name },
    #[error("no such delayed message in queue '{name}' in vhost '{vhost}'")]
    NotDelayed { name: Name, vhost: Name },
    #[error("no cursor '{cursor}' of queue '{name}' in vhost '{vhost}'")]
    NoSuchCursor { cursor: Name, name: Name, vhost: Name },
    /// A delivery that the channel does not hold.
    #[error("unknown delivery")]
    UnknownDelivery,
    #[error(
        "delivery acknowledgement on channel {} timed out. Timeout value used: {timeout_ms} ms. This timeout value can be configured, see consumers doc guide to learn more",
        channel.0
    )]
    DeliveryTimeout { channel: ChannelId, timeout_ms: u64 },
    /// Anything else that is wrong with what was asked: AMQP's precondition-failed.
    #[error("{0}")]
    Precondition(String),
    /// Understood and not done: AMQP's not-implemented, a connection error.
    #[error("{0}")]
    NotImplemented(String),
    /// Against a rule of the connection: AMQP's not-allowed, a connection error.
    #[error("{0}")]
    NotAllowed(String),
    /// A limit that an operator set.
    #[error("{0}")]
    Limit(String),
    /// A consumer on an exclusive resource: AMQP's access-refused with its own text.
    #[error("{0}")]
    AccessRefused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Configure,
    Write,
    Read,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// What a name names, in the words of the protocols' clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mailbox,
    Exchange,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mailbox => "queue",
            Self::Exchange => "exchange",
        })
    }
}
