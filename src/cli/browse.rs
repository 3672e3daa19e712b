//! `pillarbox browse`: looks at the messages of a mailbox without taking them.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use pillarbox::broker::{NEUTRAL, States, Table, Value};
use pillarbox::client::{Browse, Client};
use serde_json::{Map, Value as Json};

use super::broker::Broker;
use super::{Failure, mailbox, pull, show, value};

/// Look at messages without taking them: ready ones in their order, then those that consumers hold, and so on
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox browse jobs
  pillarbox browse jobs --state delayed,unsettled
  pillarbox browse jobs --where \"region = 'eu' AND size > 10\" --count 500 --json | jq .body

Nothing is taken or marked. Where there may be more, standard error says behind which place to go on. Without a message
the exit code is 4.")]
pub(super) struct BrowseVerb {
    /// The mailbox
    mailbox: String,
    /// Only messages in these states: ready, unsettled, delayed, dead, settled, with commas between them
    #[arg(long, value_name = "STATES", default_value = "")]
    state: States,
    /// Only messages that match this condition, as JMS has it
    #[arg(long, value_name = "CONDITION")]
    r#where: Option<String>,
    /// Go on behind this place
    #[arg(long, value_name = "PLACE", default_value = "")]
    after: String,
    /// Show at most so many
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

impl BrowseVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let mut found = Vec::new();
        let mut left = self.count;
        let mut after = Some(self.after.clone());
        while let Some(place) = after.take_if(|_| left > 0) {
            let (rows, next) = self.look(&client, place, left).await?;
            left -= (rows.len() as u32).min(left);
            after = next;
            if broker.json {
                rows.iter().try_for_each(|row| show::json_line(&as_json(row)))?;
            } else {
                found.extend(rows.iter().map(as_row));
            }
        }
        if left == self.count {
            return Err(Failure::nothing(format!("no such message in '{}'", self.mailbox)));
        }
        if !broker.json {
            print(&found)?;
        }
        if let Some(after) = after {
            let said = writeln!(io::stderr(), "there may be more: --after {after}");
            said.map_err(|error| Failure::output(&error))?;
        }
        Ok(())
    }

    async fn look(
        &self,
        client: &Client,
        after: String,
        count: u32,
    ) -> Result<(Vec<Table>, Option<String>), Failure> {
        let (states, selector) = (self.state, self.r#where.clone());
        let browse = Browse { states, selector, after, count };
        let found = client.browse(&self.mailbox, &browse).await;
        let found = found.map_err(|error| mailbox::explain(error, &self.mailbox))?;
        Ok((found.messages, found.next))
    }
}

fn print(rows: &[Table]) -> Result<(), Failure> {
    let some = |name: &str| rows.iter().any(|row| row.get(name).is_some());
    let holder: &[_] =
        if some("connection") { &["connection", "consumer", "held_ms"] } else { &[] };
    let due: &[_] = if some("due_in_ms") { &["due_in_ms"] } else { &[] };
    let columns = [&["seq", "state"], holder, due, &["redelivered", "size", "body"]].concat();
    show::rows(rows, &columns, false)
}

fn bytes<'a>(row: &'a Table, name: &str) -> &'a [u8] {
    row.get(name).and_then(Value::as_bytes).map_or(&[], |bytes| &bytes[..])
}

/// One line of a table: what is not printable becomes a dot.
fn as_row(row: &Table) -> Table {
    let body = String::from_utf8_lossy(bytes(row, "body"));
    let line: String =
        body.chars().take(500).map(|it| if it.is_control() { '·' } else { it }).collect();
    let mut row = row.clone();
    row.set("body", Value::text(&line));
    let now = value::now_ms() as i64;
    if let Some(since) = row.get("held_since_ms").and_then(Value::as_i64) {
        row.set("held_ms", Value::I64((now - since).max(0)));
    }
    if let Some(due) = row.get("due_ms").and_then(Value::as_i64) {
        row.set("due_in_ms", Value::I64(due - now));
    }
    row
}

fn as_json(row: &Table) -> Json {
    let mut object = Map::new();
    const NAMES: [&str; 14] = [
        "seq",
        "state",
        "place",
        "offset",
        "since_ms",
        "due_ms",
        "redelivered",
        "attempts",
        "connection",
        "channel",
        "consumer",
        "held_since_ms",
        "exchange",
        "key",
    ];
    for name in NAMES {
        if let Some(value) = row.get(name) {
            object.insert(name.into(), show::json(value));
        }
    }
    object.extend(pull::properties(&(NEUTRAL.decode)(bytes(row, "properties"))));
    let body = bytes(row, "body");
    match std::str::from_utf8(body) {
        Ok(text) => object.insert("body".into(), text.into()),
        Err(_) => object.insert("body_base64".into(), STANDARD.encode(body).into()),
    };
    Json::Object(object)
}
