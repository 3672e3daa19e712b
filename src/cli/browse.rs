//! `pillarbox browse`: looks at the messages of a mailbox without taking them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use pillarbox::broker::{NEUTRAL, Table, Value};
use pillarbox::client::List;
use serde_json::{Map, Value as Json};

use super::broker::Broker;
use super::{Failure, mailbox, pull, show, value};

/// Look at messages without taking them: ready ones in their order, then those that consumers hold
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox browse jobs
  pillarbox browse jobs --count 500 --json | jq .body

Nothing is taken or marked. Of a long mailbox only the beginning is in memory and can be browsed: the first thousand
or so. Without a message the exit code is 4.")]
pub(super) struct Browse {
    /// The mailbox
    mailbox: String,
    /// Show at most so many
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    count: u32,
}

impl Browse {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let rows = client.list_some(List::Messages, &self.mailbox, self.count).await;
        let rows = rows.map_err(|error| mailbox::explain(error, &self.mailbox))?;
        if rows.is_empty() {
            return Err(Failure::nothing(format!("no message in '{}'", self.mailbox)));
        }
        if broker.json {
            return rows.iter().try_for_each(|row| show::json_line(&as_json(row)));
        }
        let rows: Vec<Table> = rows.iter().map(as_row).collect();
        let held = rows.iter().any(|row| row.get("connection").is_some());
        let holder: &[_] = if held { &["connection", "consumer", "held_ms"] } else { &[] };
        let columns = [&["seq", "state"], holder, &["redelivered", "size", "body"]].concat();
        show::rows(&rows, &columns, false)
    }
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
    if let Some(since) = row.get("held_since_ms").and_then(Value::as_i64) {
        row.set("held_ms", Value::I64((value::now_ms() as i64 - since).max(0)));
    }
    row
}

fn as_json(row: &Table) -> Json {
    let mut object = Map::new();
    const NAMES: [&str; 11] = [
        "seq",
        "state",
        "since_ms",
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
