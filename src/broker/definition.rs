//! What is declared rather than sent: virtual hosts, users, exchanges, mailboxes, bindings, policies.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::{MailboxId, Seq};
use super::name::Name;
use super::value::{Table, TableKey};

/// One durable definition, as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Definition {
    Vhost(VhostDefinition),
    User(UserDefinition),
    Permission(PermissionDefinition),
    TopicPermission(TopicPermissionDefinition),
    Exchange(ExchangeDefinition),
    Mailbox(MailboxDefinition),
    Binding(BindingDefinition),
    Policy(PolicyDefinition),
    Parameter(ParameterDefinition),
    Cursor(CursorDefinition),
    Route(RouteDefinition),
    Taken(TakenDefinition),
    Publication(PublicationDefinition),
    Host(HostDefinition),
}

/// Finds a definition: its kind, and names that are unique within the kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionKey {
    pub kind: DefinitionKind,
    pub path: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DefinitionKind {
    Vhost,
    User,
    Permission,
    TopicPermission,
    Exchange,
    Mailbox,
    Binding,
    Policy,
    OperatorPolicy,
    Parameter,
    Cursor,
    Route,
    Taken,
    Publication,
    Host,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VhostDefinition {
    pub name: Name,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `classic`, `quorum` or `stream` for declarations that name no type.
    #[serde(default)]
    pub default_queue_type: Option<String>,
    /// What is published and delivered is copied to `amq.rabbitmq.trace`.
    #[serde(default)]
    pub tracing: bool,
    /// It cannot be deleted before this is taken back.
    #[serde(default)]
    pub protected: bool,
    #[serde(default)]
    pub max_connections: Option<u64>,
    #[serde(default)]
    pub max_mailboxes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserDefinition {
    pub name: Name,
    pub credential: Credential,
    #[serde(default)]
    pub max_connections: Option<u64>,
    #[serde(default)]
    pub max_channels: Option<u64>,
}

/// What proves a user. The hash is opaque here: it is checked outside of the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// A PHC string (argon2id), or RabbitMQ's base64 of salt and digest.
    pub password_hash: String,
    /// `argon2id`, `rabbit_password_hashing_sha256`, `rabbit_password_hashing_sha512` or `rabbit_password_hashing_md5`.
    pub hashing: String,
    pub tags: Vec<String>,
    /// May log in from this machine only.
    #[serde(default)]
    pub loopback_only: bool,
}

impl Credential {
    /// May send in another user's name.
    pub fn may_impersonate(&self) -> bool {
        self.tags.iter().any(|tag| tag == "impersonator")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionDefinition {
    pub vhost: Name,
    pub user: Name,
    pub configure: String,
    pub write: String,
    pub read: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissionDefinition {
    pub vhost: Name,
    pub user: Name,
    pub exchange: Name,
    pub write: String,
    pub read: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeDefinition {
    pub vhost: Name,
    pub name: Name,
    pub kind: Name,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: Table,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MailboxDefinition {
    pub id: MailboxId,
    pub vhost: Name,
    pub name: Name,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: Table,
    /// How often it moved: of hosts that have it, the one with the highest number is its home.
    #[serde(default, skip_serializing_if = "is_none")]
    pub epoch: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(epoch: &u64) -> bool {
    *epoch == 0
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Destination {
    Mailbox(Name),
    Exchange(Name),
}

impl Destination {
    pub fn name(&self) -> &Name {
        match self {
            Self::Mailbox(name) | Self::Exchange(name) => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingDefinition {
    pub vhost: Name,
    pub source: Name,
    pub destination: Destination,
    /// Bytes that are mostly text.
    pub key: TableKey,
    pub arguments: Table,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyDefinition {
    pub vhost: Name,
    pub name: Name,
    /// Set by the operator: its numbers only ever tighten.
    #[serde(default)]
    pub operator: bool,
    pub pattern: String,
    /// `all`, `queues`, `classic_queues`, `quorum_queues`, `streams` or `exchanges`.
    pub apply_to: String,
    pub priority: i64,
    pub definition: Table,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterDefinition {
    /// `None` for a global parameter.
    pub vhost: Option<Name>,
    pub component: String,
    pub name: Name,
    /// JSON text.
    pub value: String,
}

/// How far the readers of a stream came that share this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorDefinition {
    pub vhost: Name,
    pub mailbox: Name,
    pub name: Name,
    /// Of the first message that is not done with.
    pub offset: u64,
    /// Messages that came before are passed over.
    #[serde(default)]
    pub since_ms: u64,
    /// What a group knows beyond the offset.
    #[serde(default)]
    pub group: Option<GroupDefinition>,
}

/// Consumers share a cursor, and settle each message for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDefinition {
    /// Done behind the cursor's offset: first offsets and counts, ascending.
    pub done: Vec<(u64, u64)>,
    /// Nothing from this offset on was handed out.
    pub seen: u64,
    /// What was given back.
    pub tried: Vec<TriedDefinition>,
}

/// A message that was handed out by a group and is not done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedDefinition {
    pub offset: u64,
    pub deliveries: u32,
    /// Those of them that failed.
    pub attempts: u32,
    /// Not before; 0 for now.
    #[serde(default)]
    pub due_ms: u64,
}

/// What another host has or wants: messages for it go there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteDefinition {
    /// Empty where a host speaks of itself.
    pub host: Name,
    pub vhost: Name,
    pub wanted: Wanted,
    /// Outlives a restart of its own host.
    pub durable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Wanted {
    /// A mailbox that lives there.
    Mailbox(MailboxDefinition),
    /// What this exchange takes by such a binding.
    Binding {
        exchange: Name,
        /// The exchange's, which has to be the same at both hosts.
        kind: Name,
        key: TableKey,
        arguments: Table,
    },
}

/// How far another host's outbox was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenDefinition {
    pub host: Name,
    pub vhost: Name,
    /// As its host numbers it.
    pub outbox: MailboxId,
    pub upto: Seq,
}

/// Which tags another host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDefinition {
    pub host: Name,
    pub tags: Vec<Name>,
}

impl RouteDefinition {
    pub fn mailbox_key(host: &Name, vhost: &Name, name: &Name) -> DefinitionKey {
        let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let path = vec![part(host), part(vhost), part("q"), part(name)];
        DefinitionKey { kind: DefinitionKind::Route, path }
    }

    pub fn mailbox(&self) -> Option<&Name> {
        match &self.wanted {
            Wanted::Mailbox(it) => Some(&it.name),
            Wanted::Binding { .. } => None,
        }
    }

    pub fn key(&self) -> DefinitionKey {
        let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match &self.wanted {
            Wanted::Mailbox(it) => Self::mailbox_key(&self.host, &self.vhost, &it.name),
            Wanted::Binding { exchange, kind, key, arguments } => {
                let path = vec![
                    part(&self.host),
                    part(&self.vhost),
                    part("b"),
                    part(exchange),
                    part(kind),
                    key.0.clone(),
                    arguments_key(arguments),
                ];
                DefinitionKey { kind: DefinitionKind::Route, path }
            }
        }
    }
}

/// Arguments as a part of a key.
fn arguments_key(arguments: &Table) -> Bytes {
    if arguments.is_empty() { Bytes::new() } else { Bytes::from(format!("{arguments:?}")) }
}

/// A message came to a mailbox under this id, so that another with it is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationDefinition {
    pub vhost: Name,
    pub mailbox: Name,
    pub id: TableKey,
    pub position: u64,
    pub at_ms: u64,
}

impl Definition {
    pub fn key(&self) -> DefinitionKey {
        fn text(name: &Name) -> Bytes {
            Bytes::copy_from_slice(name.as_bytes())
        }
        let (kind, path) = match self {
            Self::Vhost(it) => (DefinitionKind::Vhost, vec![text(&it.name)]),
            Self::User(it) => (DefinitionKind::User, vec![text(&it.name)]),
            Self::Permission(it) => {
                (DefinitionKind::Permission, vec![text(&it.vhost), text(&it.user)])
            }
            Self::TopicPermission(it) => (
                DefinitionKind::TopicPermission,
                vec![text(&it.vhost), text(&it.user), text(&it.exchange)],
            ),
            Self::Exchange(it) => (DefinitionKind::Exchange, vec![text(&it.vhost), text(&it.name)]),
            Self::Mailbox(it) => (DefinitionKind::Mailbox, vec![text(&it.vhost), text(&it.name)]),
            Self::Binding(it) => return it.key(),
            Self::Policy(it) => {
                let kind = if it.operator {
                    DefinitionKind::OperatorPolicy
                } else {
                    DefinitionKind::Policy
                };
                (kind, vec![text(&it.vhost), text(&it.name)])
            }
            Self::Parameter(it) => {
                let vhost = it.vhost.as_ref().map(text).unwrap_or_default();
                let component = Bytes::copy_from_slice(it.component.as_bytes());
                (DefinitionKind::Parameter, vec![vhost, component, text(&it.name)])
            }
            Self::Route(it) => return it.key(),
            Self::Taken(it) => (DefinitionKind::Taken, vec![text(&it.host), text(&it.vhost)]),
            Self::Host(it) => (DefinitionKind::Host, vec![text(&it.host)]),
            Self::Publication(it) => (
                DefinitionKind::Publication,
                vec![text(&it.vhost), text(&it.mailbox), it.id.0.clone()],
            ),
            Self::Cursor(it) => {
                (DefinitionKind::Cursor, vec![text(&it.vhost), text(&it.mailbox), text(&it.name)])
            }
        };
        DefinitionKey { kind, path }
    }
}

impl BindingDefinition {
    /// Source, destination, key and arguments together are a binding's identity (brokers' rule for duplicate binds).
    pub fn key(&self) -> DefinitionKey {
        let (kind, name) = match &self.destination {
            Destination::Mailbox(name) => ("q", name),
            Destination::Exchange(name) => ("e", name),
        };
        let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        DefinitionKey {
            kind: DefinitionKind::Binding,
            path: vec![
                part(&self.vhost),
                part(&self.source),
                part(kind),
                part(name),
                self.key.0.clone(),
                arguments_key(&self.arguments),
            ],
        }
    }
}
