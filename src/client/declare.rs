//! Mailboxes, exchanges and bindings.

use bytes::Buf;
use pillarbox_native as wire;

use super::{Client, Error, table};
use crate::broker::{Table, Value};

/// A mailbox to declare.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    /// Empty: the broker makes one up.
    pub name: String,
    pub durable: bool,
    /// Belongs to the connection and goes with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// `x-message-ttl`, `x-max-length` and others.
    pub arguments: Table,
}

/// What is known of a mailbox that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub ready: u64,
    pub consumers: u32,
}

impl Mailbox {
    /// One that survives the broker.
    pub fn durable(name: &str) -> Self {
        Self { name: name.into(), durable: true, ..Self::default() }
    }

    /// One with a made-up name that goes with the connection.
    pub fn private() -> Self {
        Self { exclusive: true, ..Self::default() }
    }

    #[must_use]
    pub fn argument(mut self, name: &str, value: Value) -> Self {
        self.arguments.set(name, value);
        self
    }
}

/// An exchange to declare.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    pub name: String,
    /// `direct`, `fanout`, `topic`, `headers` and others.
    pub kind: String,
    pub durable: bool,
    pub auto_delete: bool,
    /// Takes messages from exchanges only.
    pub internal: bool,
    pub arguments: Table,
}

/// A way from an exchange to a mailbox or another exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Binding {
    pub source: String,
    pub destination: String,
    pub to_exchange: bool,
    pub key: String,
    pub arguments: Table,
}

impl Client {
    /// Creates a mailbox, or finds it as it was declared before.
    pub async fn declare(&self, mailbox: &Mailbox) -> Result<Declared, Error> {
        self.declare_as(mailbox, false).await
    }

    /// What is known of a mailbox; an error if there is none.
    pub async fn find(&self, name: &str) -> Result<Declared, Error> {
        self.declare_as(&Mailbox { name: name.into(), ..Mailbox::default() }, true).await
    }

    async fn declare_as(&self, mailbox: &Mailbox, passive: bool) -> Result<Declared, Error> {
        let arguments = table::encode(&mailbox.arguments);
        let declare = wire::DeclareMailbox {
            name: &mailbox.name,
            passive,
            durable: mailbox.durable,
            exclusive: mailbox.exclusive,
            auto_delete: mailbox.auto_delete,
            arguments: &arguments,
        };
        let (mut payload, _) = self.line.ask(|id, out| declare.encode(id, out))?.done().await?;
        let short = |_| Error::unexpected("a declaration");
        let size = usize::from(payload.try_get_u8().map_err(short)?);
        if payload.len() < size {
            return Err(Error::unexpected("a declaration"));
        }
        let name = String::from_utf8_lossy(&payload.split_to(size)).into_owned();
        let ready = payload.try_get_u64_le().map_err(short)?;
        Ok(Declared { name, ready, consumers: payload.try_get_u32_le().map_err(short)? })
    }

    /// Deletes a mailbox with everything in it; returns how many messages that was.
    pub async fn delete(&self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Error> {
        let delete = wire::DeleteMailbox { name, if_unused, if_empty };
        counted(self.line.ask(|id, out| delete.encode(id, out))?.done().await?.0)
    }

    /// Asks for a deletion and does not wait for it.
    pub(super) fn delete_later(&self, name: &str) {
        let delete = wire::DeleteMailbox { name, if_unused: false, if_empty: false };
        // Where the connection has ended, the mailbox went with it.
        drop(self.line.ask(|id, out| delete.encode(id, out)));
    }

    /// Drops the ready messages of a mailbox; returns how many that was.
    pub async fn purge(&self, name: &str) -> Result<u64, Error> {
        counted(self.line.ask(|id, out| wire::encode_purge(id, name, out))?.done().await?.0)
    }

    /// Another time for a message that waits, as `List::Delayed` shows it: its `due_ms` and `position`.
    /// The past means at once, `None` takes the message away. Milliseconds since the Unix epoch.
    pub async fn retime(
        &self,
        mailbox: &str,
        due_ms: u64,
        position: u64,
        to_ms: Option<u64>,
    ) -> Result<(), Error> {
        let to_ms = to_ms.unwrap_or(wire::Retime::CANCEL);
        let retime = wire::Retime { mailbox, due_ms, seq: position, to_ms };
        self.line.ask(|id, out| retime.encode(id, out))?.done().await.map(drop)
    }

    pub async fn declare_exchange(&self, exchange: &Exchange) -> Result<(), Error> {
        let arguments = table::encode(&exchange.arguments);
        let declare = wire::DeclareExchange {
            name: &exchange.name,
            kind: &exchange.kind,
            passive: false,
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: &arguments,
        };
        self.line.ask(|id, out| declare.encode(id, out))?.done().await.map(drop)
    }

    pub async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Error> {
        let delete = wire::DeleteExchange { name, if_unused };
        self.line.ask(|id, out| delete.encode(id, out))?.done().await.map(drop)
    }

    pub async fn bind(&self, binding: &Binding) -> Result<(), Error> {
        self.bind_as(wire::Kind::Bind, binding).await
    }

    pub async fn unbind(&self, binding: &Binding) -> Result<(), Error> {
        self.bind_as(wire::Kind::Unbind, binding).await
    }

    async fn bind_as(&self, kind: wire::Kind, binding: &Binding) -> Result<(), Error> {
        let arguments = table::encode(&binding.arguments);
        let bind = wire::Bind {
            source: &binding.source,
            destination: &binding.destination,
            to_exchange: binding.to_exchange,
            key: binding.key.as_bytes(),
            arguments: &arguments,
        };
        self.line.ask(|id, out| bind.encode(kind, id, out))?.done().await.map(drop)
    }
}

pub(super) fn counted(mut payload: bytes::Bytes) -> Result<u64, Error> {
    payload.try_get_u64_le().map_err(|_| Error::unexpected("a deletion"))
}
