//! `pillarbox vhost`: virtual hosts, which keep mailboxes, exchanges and permissions apart.

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Defined, List};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show};

/// Add, list and delete virtual hosts; needs an administrator
#[derive(Args)]
pub(super) struct VhostVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Add a virtual host, or describe one anew
    #[command(after_help = "\
Example: pillarbox vhost put test --description 'for the tests'

Nobody may enter it until `pillarbox permission put USER --vhost NAME`.")]
    Put {
        name: String,
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Shown to people
        #[arg(long)]
        tag: Vec<String>,
        /// classic, quorum or stream: of mailboxes that are declared without a type
        #[arg(long, value_name = "TYPE")]
        default_queue_type: Option<String>,
        /// Copy what is published and delivered to the exchange amq.rabbitmq.trace
        #[arg(long)]
        tracing: bool,
        /// Nobody can delete it until it is described anew without this
        #[arg(long)]
        protected: bool,
    },
    /// List virtual hosts
    #[command(after_help = "Example: pillarbox vhost list")]
    List,
    /// Delete a virtual host with everything in it, and close its connections
    #[command(after_help = "Example: pillarbox vhost delete test")]
    Delete { name: String },
}

impl VhostVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::Put { name, description, tag, default_queue_type, tracing, protected } => {
                let mut fields = Table::new();
                fields.set("name", Value::text(&name));
                fields.set("description", Value::text(&description));
                let tags = tag.iter().map(|tag| Value::text(tag)).collect();
                fields.set("tags", Value::Array(tags));
                if let Some(kind) = &default_queue_type {
                    fields.set("default_queue_type", Value::text(kind));
                }
                fields.set("tracing", Value::Bool(tracing));
                fields.set("protected", Value::Bool(protected));
                client.define(Defined::Vhost, &fields).await?;
                let text = format!("defined virtual host '{name}'");
                show::done(&text, json!({"name": name}), broker.json)
            }
            Verb::List => {
                let rows = client.list(List::Vhosts, "").await?;
                let columns = ["name", "description", "default_queue_type", "tracing", "protected"];
                show::rows(&rows, &columns, broker.json)
            }
            Verb::Delete { name } => {
                client.undefine(Defined::Vhost, &[&name]).await?;
                let text = format!("deleted virtual host '{name}'");
                show::done(&text, json!({"name": name}), broker.json)
            }
        }
    }
}
