//! Transactions: SEND, ACK and NACK frames that wait for COMMIT.

use std::collections::BTreeMap;
use std::sync::Arc;

use pillarbox_stomp::{Frame, Headers};

use super::error::Fault;
use super::open::{Flow, Open};
use super::settings::Settings;
use super::subscription::Held;
use crate::broker::{Command, ConsumerId, Message, Outcome, Request};
use crate::sessions::Outbox;

/// The open transactions of a connection.
#[derive(Default)]
pub(super) struct Transactions(BTreeMap<String, Transaction>);

#[derive(Default)]
struct Transaction {
    actions: Vec<Action>,
    bytes: u64,
}

/// What is done at COMMIT.
pub(super) enum Action {
    Send {
        message: Arc<Message>,
        receipt: Option<String>,
    },
    /// Taken from its subscription; back there at ABORT.
    Settle {
        consumer: ConsumerId,
        deliveries: Vec<Held>,
        outcome: Outcome,
    },
}

impl Transactions {
    /// The open transaction that a SEND, ACK or NACK belongs to.
    pub(super) fn of<'a>(&self, headers: &'a Headers) -> Result<Option<&'a str>, Fault> {
        match headers.get("transaction") {
            Some(name) if !self.0.contains_key(name) => Err(unknown(name)),
            name => Ok(name),
        }
    }

    /// Adds an action. What does not fit ends the transaction; its actions are given back.
    pub(super) fn add(
        &mut self,
        name: &str,
        action: Action,
        settings: &Settings,
    ) -> Result<(), (Fault, Vec<Action>)> {
        let Some(transaction) = self.0.get_mut(name) else {
            return Err((unknown(name), vec![action]));
        };
        if let Action::Send { message, .. } = &action {
            transaction.bytes += message.size() as u64;
        }
        transaction.actions.push(action);
        if transaction.actions.len() <= settings.transaction_actions_max
            && transaction.bytes <= settings.transaction_bytes_max
        {
            return Ok(());
        }
        let actions = self.0.remove(name).unwrap_or_default().actions;
        let detail = format!(
            "A transaction has at most {} actions and {} bytes; '{name}' is aborted",
            settings.transaction_actions_max, settings.transaction_bytes_max
        );
        Err((Fault::new("Transaction too large", detail), actions))
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new("Bad transaction", format!("Invalid transaction identifier: \"{name}\""))
}

fn named(frame: &Frame) -> Result<&str, Fault> {
    frame.headers.get("transaction").ok_or_else(|| {
        let detail = format!("\"{}\" must include a 'transaction' header", frame.command);
        Fault::new("Missing transaction", detail)
    })
}

impl Open {
    pub(super) fn begin(&mut self, frame: &Frame) -> Result<Flow, Fault> {
        let name = named(frame)?;
        let open = &mut self.transactions.0;
        if open.contains_key(name) {
            let detail = format!("Transaction \"{name}\" is open already");
            return Err(Fault::new("Bad transaction", detail));
        }
        let most = self.settings.transactions_max;
        if open.len() >= most {
            let detail = format!("A connection has at most {most} open transactions");
            return Err(Fault::new("Transaction limit exceeded", detail));
        }
        open.insert(name.to_owned(), Transaction::default());
        Ok(Flow::Done)
    }

    pub(super) fn commit(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        let name = named(frame)?;
        let transaction = self.transactions.0.remove(name).ok_or_else(|| unknown(name))?;
        if transaction.actions.is_empty() {
            return Ok(Flow::Done);
        }
        let mut commands = Vec::with_capacity(transaction.actions.len());
        for action in transaction.actions {
            commands.push(match action {
                Action::Send { message, receipt } => {
                    Command::Publish(self.publish_of(message, receipt, false))
                }
                Action::Settle { deliveries, outcome, .. } => {
                    Command::Settle(Held::settle(&deliveries, outcome))
                }
            });
        }
        let ticket = self.ask(Request::Commit(commands), out);
        self.commits.insert(ticket, frame.headers.get("receipt").map(str::to_owned));
        self.note_publish();
        Ok(Flow::Later)
    }

    pub(super) fn abort(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        let name = named(frame)?;
        let transaction = self.transactions.0.remove(name).ok_or_else(|| unknown(name))?;
        self.undo(transaction.actions, out);
        Ok(Flow::Done)
    }

    /// Adds to a transaction; what is too much undoes all of it.
    pub(super) fn add_to(
        &mut self,
        name: &str,
        action: Action,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        self.transactions.add(name, action, &self.settings).map_err(|(fault, actions)| {
            self.undo(actions, out);
            fault
        })
    }

    fn undo(&mut self, actions: Vec<Action>, out: &mut Outbox) {
        for action in actions {
            let Action::Settle { consumer, deliveries, .. } = action else { continue };
            match self.subscriptions.get_mut(consumer) {
                Some(subscription) => subscription.restore(deliveries),
                // Nobody can acknowledge them any more.
                None => {
                    let settle = Held::settle(&deliveries, Outcome::Released);
                    out.commands.push(Command::Settle(settle));
                }
            }
        }
    }
}
