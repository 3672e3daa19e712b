//! Lists and definitions: what the broker shows of itself, and what administrators change.

use bytes::{Buf, Bytes};
use pillarbox_native as wire;

use super::declare::counted;
use super::{Client, Error, table};
use crate::broker::{Table, Value};

/// A row of a list: named values.
pub type Row = Table;

/// Rows asked for at once.
const ROWS: u32 = 500;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Mailboxes,
    Exchanges,
    Bindings,
    Consumers,
    Connections,
    Users,
    Permissions,
    Vhosts,
    Policies,
    /// Messages of a mailbox that wait for their time, the next first.
    Delayed,
    Limits,
    /// Other hosts, and what waits for them here.
    Peers,
    /// Those of a key-value mailbox that have a value.
    Keys,
    /// Cursors and groups of one stream.
    Cursors,
    /// How far the host is drained: one row.
    Drain,
}

/// What administrators define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defined {
    User,
    Permission,
    Vhost,
    Policy,
    OperatorPolicy,
    /// Of a user or a virtual host.
    Limit,
    /// A cursor or a group of a stream; for whoever may read it.
    Cursor,
    /// Takes the host out of service, until it starts again.
    Drain,
}

impl List {
    fn number(self) -> u8 {
        match self {
            Self::Mailboxes => wire::List::MAILBOXES,
            Self::Exchanges => wire::List::EXCHANGES,
            Self::Bindings => wire::List::BINDINGS,
            Self::Consumers => wire::List::CONSUMERS,
            Self::Connections => wire::List::CONNECTIONS,
            Self::Users => wire::List::USERS,
            Self::Permissions => wire::List::PERMISSIONS,
            Self::Vhosts => wire::List::VHOSTS,
            Self::Policies => wire::List::POLICIES,
            Self::Delayed => wire::List::DELAYED,
            Self::Limits => wire::List::LIMITS,
            Self::Peers => wire::List::PEERS,
            Self::Keys => wire::List::KEYS,
            Self::Cursors => wire::List::CURSORS,
            Self::Drain => wire::List::DRAIN,
        }
    }
}

impl Defined {
    fn number(self) -> u8 {
        match self {
            Self::User => wire::Define::USER,
            Self::Permission => wire::Define::PERMISSION,
            Self::Vhost => wire::Define::VHOST,
            Self::Policy => wire::Define::POLICY,
            Self::OperatorPolicy => wire::Define::OPERATOR_POLICY,
            Self::Limit => wire::Define::LIMIT,
            Self::Cursor => wire::Define::CURSOR,
            Self::Drain => wire::Define::DRAIN,
        }
    }
}

impl Client {
    /// All rows of a list; those of one `name` where it is not empty.
    pub async fn list(&self, list: List, name: &str) -> Result<Vec<Row>, Error> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let after = rows.last().map(cursor).unwrap_or_default();
            let (slice, more) = self.slice(list, name, &after, ROWS).await?;
            let count = slice.len();
            rows.extend(slice);
            if !more || count == 0 {
                return Ok(rows);
            }
        }
    }

    /// Rows behind `after`, and whether there are more.
    async fn slice(
        &self,
        list: List,
        name: &str,
        after: &str,
        count: u32,
    ) -> Result<(Vec<Row>, bool), Error> {
        let what = list.number();
        let asked = wire::List { what, vhost: "", name, after: after.as_bytes(), count };
        let (payload, more) = self.line.ask(|id, out| asked.encode(id, out))?.done().await?;
        Ok((read_rows(payload)?, more))
    }

    /// Creates or changes a definition. For administrators.
    pub async fn define(&self, what: Defined, fields: &Table) -> Result<(), Error> {
        let fields = table::encode(fields);
        let define = wire::Define { what: what.number(), fields: &fields };
        self.line.ask(|id, out| define.encode(id, out))?.done().await.map(drop)
    }

    /// Ends another client's connection, whose number `List::Connections` shows as `id`; the client is told the reason.
    /// False where there is none. For administrators.
    pub async fn disconnect(&self, connection: u64, reason: &str) -> Result<bool, Error> {
        let number = connection.to_string();
        let path = vec![&*number, reason];
        let undefine = wire::Undefine { what: wire::Define::CONNECTION, path };
        let count = counted(self.line.ask(|id, out| undefine.encode(id, out))?.done().await?.0)?;
        Ok(count > 0)
    }

    /// Removes a definition. For administrators.
    pub async fn undefine(&self, what: Defined, path: &[&str]) -> Result<(), Error> {
        let undefine = wire::Undefine { what: what.number(), path: path.to_vec() };
        self.line.ask(|id, out| undefine.encode(id, out))?.done().await.map(drop)
    }
}

/// The rows of an answer.
pub(super) fn read_rows(mut payload: Bytes) -> Result<Vec<Row>, Error> {
    let short = |_| Error::unexpected("a list");
    let count = payload.try_get_u32_le().map_err(short)?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let size = payload.try_get_u32_le().map_err(short)? as usize;
        if payload.len() < size {
            return Err(Error::unexpected("a list"));
        }
        rows.push(table::decode(&payload.split_to(size)));
    }
    Ok(rows)
}

/// What becomes of the messages that wait for a host that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting<'a> {
    /// There must be none.
    Absent,
    Dropped,
    /// To where their mailboxes live now.
    Routed,
    /// To another host.
    SentTo(&'a str),
}

impl Client {
    /// Lets another host have a mailbox, which lives here, and says how many messages are still here; 0 once it has
    /// moved. Asked again, it says how many there are now. For administrators.
    pub async fn move_mailbox(&self, name: &str, host: &str) -> Result<u64, Error> {
        let undefine = wire::Undefine { what: wire::Define::MOVED, path: vec![name, host] };
        counted(self.line.ask(|id, out| undefine.encode(id, out))?.done().await?.0)
    }

    /// Forgets a host that is gone for good, and says how many messages waited for it. For administrators.
    pub async fn forget_peer(&self, host: &str, waiting: Waiting<'_>) -> Result<u64, Error> {
        let to;
        let fate = match waiting {
            Waiting::Absent => "",
            Waiting::Dropped => "drop",
            Waiting::Routed => "route",
            Waiting::SentTo(host) => {
                to = format!("to {host}");
                &to
            }
        };
        let undefine = wire::Undefine { what: wire::Define::PEER, path: vec![host, fate] };
        counted(self.line.ask(|id, out| undefine.encode(id, out))?.done().await?.0)
    }
}

/// Where the next slice goes on.
fn cursor(row: &Row) -> String {
    let text = row.get("cursor").or_else(|| row.get("name")).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}
