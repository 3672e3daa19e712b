//! Cursors of streams, and the groups that share them.

use super::list::{Defined, List, Row};
use super::{Client, Error};
use crate::broker::{Table, Value};

impl Client {
    /// The cursors and groups of a stream: `name`, `group`, `offset` and `lag`; of a group also `members`, `unsettled`,
    /// `returned` and `missed`.
    pub async fn cursors(&self, mailbox: &str) -> Result<Vec<Row>, Error> {
        self.list(List::Cursors, mailbox).await
    }

    /// Moves a cursor that nobody reads with, or a group; one that is not there comes into being as a group. The start is
    /// what `x-stream-offset` takes: `first`, an offset, a timestamp and others.
    pub async fn seek(&self, mailbox: &str, cursor: &str, start: Value) -> Result<(), Error> {
        let mut fields = Table::new();
        fields.set("mailbox", Value::text(mailbox));
        fields.set("name", Value::text(cursor));
        fields.set("start", start);
        self.define(Defined::Cursor, &fields).await
    }

    /// Forgets a cursor or a group that nobody reads with.
    pub async fn delete_cursor(&self, mailbox: &str, cursor: &str) -> Result<(), Error> {
        self.undefine(Defined::Cursor, &[mailbox, cursor]).await
    }
}
