//! `pillarbox cursor`: how far readers of a stream came, alone or as a group.

use clap::{Args, Subcommand};
use pillarbox::broker::Value;
use pillarbox_native::Code;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, mailbox, show, value};

/// List, move and delete the cursors and groups of a stream
#[derive(Args)]
pub(super) struct CursorVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List cursors and groups, where they stand, and how many messages lie before them
    #[command(after_help = "Example: pillarbox cursor list log")]
    List { mailbox: String },
    /// Move a group, or a cursor that nobody reads with; a name that is new becomes a group
    #[command(after_help = "\
Examples:
  pillarbox cursor seek log billing --to first
  pillarbox cursor seek log billing --to offset=4711
  pillarbox cursor seek log billing --to 1h")]
    Seek {
        mailbox: String,
        name: String,
        /// first, last, next, offset=N, last=N, time=SECONDS, or a span like 30m
        #[arg(long, value_name = "START", value_parser = value::start)]
        to: Value,
    },
    /// Forget a cursor or a group that nobody reads with
    #[command(after_help = "Example: pillarbox cursor delete log billing")]
    Delete { mailbox: String, name: String },
}

impl CursorVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::List { mailbox } => {
                let found = client.cursors(&mailbox).await;
                let rows = found.map_err(|error| mailbox::explain(error, &mailbox))?;
                let first = ["name", "group", "offset", "lag", "members", "unsettled", "returned"];
                show::rows(&rows, &first, broker.json)
            }
            Verb::Seek { mailbox, name, to } => {
                let done = client.seek(&mailbox, &name, to).await;
                done.map_err(|error| mailbox::explain(error, &mailbox))?;
                show::done(&format!("moved '{name}'"), json!({"moved": name}), broker.json)
            }
            Verb::Delete { mailbox, name } => {
                let done = client.delete_cursor(&mailbox, &name).await;
                done.map_err(|error| match error.code() {
                    Some(Code::NotFound) => {
                        Failure::nothing(format!("no cursor '{name}' in '{mailbox}'"))
                    }
                    _ => error.into(),
                })?;
                show::done(&format!("deleted '{name}'"), json!({"deleted": name}), broker.json)
            }
        }
    }
}
