//! `pillarbox consumer list` and `pillarbox connection list`: who is there.

use clap::{Args, Subcommand};
use pillarbox::client::List;

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

/// List connections
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
        let Connections::List = self.verb;
        let rows = broker.connect().await?.list(List::Connections, "").await?;
        let columns = ["id", "protocol", "user", "vhost", "peer", "name", "consumers", "unsettled"];
        show::rows(&rows, &columns, broker.json)
    }
}
