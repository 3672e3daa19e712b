//! `pillarbox delayed`: messages that wait for their time.

use std::time::Duration;

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Client, List};
use pillarbox_native::Code;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, mailbox, show, value};

/// List, move, deliver and cancel messages that wait for their time
#[derive(Args)]
pub(super) struct DelayedVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the messages that wait, the next first
    #[command(after_help = "Example: pillarbox delayed list --exchange later")]
    List(Place),
    /// Let a message come at another time
    #[command(after_help = "\
Example: pillarbox delayed move --exchange later 1732500000000-17 --in 5min")]
    Move {
        #[command(flatten)]
        message: Message,
        /// From now on
        #[arg(long, value_name = "TIME", value_parser = value::duration)]
        r#in: Duration,
    },
    /// Let a message come now
    #[command(after_help = "Example: pillarbox delayed deliver --exchange later 1732500000000-17")]
    Deliver(Message),
    /// Take a message away
    #[command(after_help = "Example: pillarbox delayed cancel --exchange later 1732500000000-17")]
    Cancel(Message),
}

/// Where messages wait.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// In a mailbox, such as those that failed and are tried again later
    #[arg(long)]
    mailbox: Option<String>,
    /// At an exchange of the kind x-delayed-message
    #[arg(long)]
    exchange: Option<String>,
}

#[derive(Args)]
struct Message {
    #[command(flatten)]
    place: Place,
    /// As `pillarbox delayed list` shows it
    #[arg(value_parser = id)]
    id: Id,
}

/// When it is due, in ms since the Unix epoch, and its position.
#[derive(Clone, Copy)]
struct Id(u64, u64);

fn id(text: &str) -> Result<Id, String> {
    let parts = text
        .split_once('-')
        .and_then(|(due, position)| Some(Id(due.parse().ok()?, position.parse().ok()?)));
    parts.ok_or_else(|| "write it as `pillarbox delayed list` shows it".into())
}

impl Place {
    /// An exchange keeps what it delays in a mailbox of its own.
    fn mailbox(&self) -> String {
        match (&self.mailbox, &self.exchange) {
            (_, Some(exchange)) => format!("amq.delayed.{exchange}"),
            (Some(mailbox), None) => mailbox.clone(),
            (None, None) => String::new(),
        }
    }
}

impl DelayedVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::List(place) => {
                let rows = match client.list(List::Delayed, &place.mailbox()).await {
                    Ok(rows) => rows,
                    // The exchange has delayed nothing yet.
                    Err(error)
                        if place.exchange.is_some() && error.code() == Some(Code::NotFound) =>
                    {
                        Vec::new()
                    }
                    Err(error) => return Err(mailbox::explain(error, &place.mailbox())),
                };
                let rows: Vec<Table> = rows.into_iter().map(row).collect();
                let repeats = rows.iter().any(|row| row.get("repeat").is_some());
                let repeat: &[_] = if repeats { &["repeat"] } else { &[] };
                let columns = [&["id", "due_in_ms", "key", "bytes"], repeat].concat();
                show::rows(&rows, &columns, broker.json)
            }
            Verb::Move { message, r#in } => {
                let to = value::now_ms().saturating_add(r#in.as_millis() as u64);
                retime(&client, &message, Some(to)).await?;
                let Id(_, position) = message.id;
                let id = format!("{to}-{position}");
                show::done(&format!("moved to {id}"), json!({"id": id}), broker.json)
            }
            Verb::Deliver(message) => {
                retime(&client, &message, Some(0)).await?;
                show::done("delivered", json!({"delivered": true}), broker.json)
            }
            Verb::Cancel(message) => {
                retime(&client, &message, None).await?;
                show::done("cancelled", json!({"cancelled": true}), broker.json)
            }
        }
    }
}

async fn retime(client: &Client, message: &Message, to_ms: Option<u64>) -> Result<(), Failure> {
    let Id(due_ms, position) = message.id;
    let done = client.retime(&message.place.mailbox(), due_ms, position, to_ms).await;
    done.map_err(|error| match error.code() {
        Some(Code::NotFound) => Failure::nothing("no such message waits there"),
        _ => error.into(),
    })
}

/// What people want to see first, then the rest.
fn row(found: Table) -> Table {
    let mut row = Table::new();
    let due = found.get("due_ms").and_then(Value::as_i64).unwrap_or(0);
    if let Some(id) = found.get("cursor") {
        row.set("id", id.clone());
    }
    row.set("due_in_ms", Value::I64(due - value::now_ms() as i64));
    for name in ["due_ms", "exchange", "key", "bytes", "repeat"] {
        if let Some(value) = found.get(name) {
            row.set(name, value.clone());
        }
    }
    row
}
