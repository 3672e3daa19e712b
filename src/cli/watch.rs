//! `pillarbox consumer` and `pillarbox connection`: who is there.

use clap::{Args, Subcommand};
use pillarbox::client::List;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, mailbox, show};

/// List the consumers of a mailbox
#[derive(Args)]
pub(super) struct ConsumerVerb {
    #[command(subcommand)]
    verb: Consumers,
}

#[derive(Subcommand)]
enum Consumers {
    /// List the consumers of a mailbox
    #[command(after_help = "Example: pillarbox consumer list jobs")]
    List { mailbox: String },
}

/// List and close connections
#[derive(Args)]
pub(super) struct ConnectionVerb {
    #[command(subcommand)]
    verb: Connections,
}

#[derive(Subcommand)]
enum Connections {
    /// List connections of all protocols
    #[command(after_help = "Example: pillarbox connection list --json")]
    List,
    /// Close a connection; its client is told why. Needs an administrator
    #[command(
        after_help = "Example: pillarbox connection close 17 --reason 'moving to another host'"
    )]
    Close {
        /// Its number, as `connection list` shows it
        id: u64,
        /// What the client is told
        #[arg(long, value_name = "TEXT", default_value = "closed by an administrator")]
        reason: String,
    },
}

impl ConsumerVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Consumers::List { mailbox } = self.verb;
        let client = broker.connect().await?;
        let rows = client.list(List::Consumers, &mailbox).await;
        let rows = rows.map_err(|error| mailbox::explain(error, &mailbox))?;
        let columns =
            ["name", "connection", "channel", "prefetch", "unsettled", "priority", "no_ack"];
        show::rows(&rows, &columns, broker.json)
    }
}

impl ConnectionVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Connections::List => {
                let rows = client.list(List::Connections, "").await?;
                let columns =
                    ["id", "protocol", "user", "vhost", "peer", "name", "consumers", "unsettled"];
                show::rows(&rows, &columns, broker.json)
            }
            Connections::Close { id, reason } => {
                if !client.disconnect(id, &reason).await? {
                    return Err(Failure::nothing(format!("there is no connection {id}")));
                }
                show::done(&format!("closed connection {id}"), json!({"id": id}), broker.json)
            }
        }
    }
}
