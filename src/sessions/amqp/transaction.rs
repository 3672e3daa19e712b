//! A transaction: publishes and acknowledgements that wait for tx.commit.

use pillarbox_amqp::Method;

use super::channel::{Channel, Mode, Then};
use super::confirm::Confirms;
use super::line::Line;
use super::reply::{Fault, Ids};
use super::unsettled::Held;
use crate::broker::{Command, Request};
use crate::sessions::Outbox;

/// What is done at tx.commit, together.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    commands: Vec<Command>,
    /// Acknowledged; back with the unsettled at tx.rollback.
    settled: Vec<Held>,
    bytes: u64,
}

impl Transaction {
    /// Adds a command that carries this many bytes of message, and what it settles.
    pub(super) fn add(
        &mut self,
        command: Command,
        bytes: u64,
        settled: impl IntoIterator<Item = Held>,
        line: &Line,
        ids: Ids,
    ) -> Result<(), Fault> {
        self.bytes += bytes;
        if self.commands.len() >= line.settings.transaction_commands_max
            || self.bytes > line.settings.transaction_bytes_max
        {
            return Err(Fault::precondition("transaction is too large", ids));
        }
        self.commands.push(command);
        self.settled.extend(settled);
        Ok(())
    }
}

impl Channel {
    pub(super) fn tx_select(&mut self, ids: Ids, out: &mut Outbox) -> Result<(), Fault> {
        match self.mode {
            Mode::Plain => self.mode = Mode::Transaction(Transaction::default()),
            Mode::Transaction(_) => {}
            Mode::Confirm(_) => {
                return Err(Fault::precondition("cannot switch from confirm to tx mode", ids));
            }
        }
        self.say(Method::TxSelectOk, out);
        Ok(())
    }

    pub(super) fn confirm_select(
        &mut self,
        nowait: bool,
        ids: Ids,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        match self.mode {
            Mode::Plain => self.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                return Err(Fault::precondition("cannot switch from tx to confirm mode", ids));
            }
        }
        if !nowait {
            self.say(Method::ConfirmSelectOk, out);
        }
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let transaction = self.end_transaction(ids)?;
        if transaction.commands.is_empty() {
            self.say(Method::TxCommitOk, out);
        } else {
            let request = Request::Commit(transaction.commands);
            self.ask(request, ids, Then::Say(Method::TxCommitOk), line, out);
        }
        Ok(())
    }

    pub(super) fn rollback(&mut self, ids: Ids, out: &mut Outbox) -> Result<(), Fault> {
        let transaction = self.end_transaction(ids)?;
        self.unsettled.restore(transaction.settled);
        self.say(Method::TxRollbackOk, out);
        Ok(())
    }

    fn end_transaction(&mut self, ids: Ids) -> Result<Transaction, Fault> {
        match &mut self.mode {
            Mode::Transaction(transaction) => Ok(std::mem::take(transaction)),
            Mode::Plain | Mode::Confirm(_) => {
                Err(Fault::precondition("channel is not transactional", ids))
            }
        }
    }
}
