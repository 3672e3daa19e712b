//! `pillarbox exchange`, `binding`, `bind` and `unbind`: where messages for an exchange go.

use clap::{Args, Subcommand};
use pillarbox::broker::Value;
use pillarbox::client::{Binding, Exchange, List};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show, value};

/// Declare, list and delete exchanges
#[derive(Args)]
pub(super) struct ExchangeVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create an exchange, or find it as it was declared before
    #[command(after_help = "Example: pillarbox exchange declare logs --kind topic")]
    Declare {
        name: String,
        /// direct, fanout, topic, headers or another kind the broker knows
        #[arg(long, default_value = "direct")]
        kind: String,
        /// Do not keep the exchange over a restart of the broker
        #[arg(long)]
        transient: bool,
        /// Delete it with its last binding
        #[arg(long)]
        auto_delete: bool,
        /// Take messages from other exchanges only
        #[arg(long)]
        internal: bool,
        /// Any other argument
        #[arg(long, value_name = "NAME=VALUE", value_parser = value::pair)]
        argument: Vec<(String, Value)>,
    },
    /// List exchanges
    #[command(after_help = "Example: pillarbox exchange list --json")]
    List,
    /// Delete an exchange with its bindings
    #[command(after_help = "Example: pillarbox exchange delete logs --if-unused")]
    Delete {
        name: String,
        /// Only if nothing is bound to it
        #[arg(long)]
        if_unused: bool,
    },
}

impl ExchangeVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::Declare { name, kind, transient, auto_delete, internal, argument } => {
                let durable = !transient;
                let arguments = value::table(&argument);
                let exchange = Exchange {
                    name: name.clone(),
                    kind,
                    durable,
                    auto_delete,
                    internal,
                    arguments,
                };
                client.declare_exchange(&exchange).await?;
                show::done(
                    &format!("declared exchange '{name}'"),
                    json!({"name": name}),
                    broker.json,
                )
            }
            Verb::List => {
                let rows = client.list(List::Exchanges, "").await?;
                let columns = ["name", "kind", "durable", "auto_delete", "internal"];
                show::rows(&rows, &columns, broker.json)
            }
            Verb::Delete { name, if_unused } => {
                client.delete_exchange(&name, if_unused).await?;
                show::done(
                    &format!("deleted exchange '{name}'"),
                    json!({"name": name}),
                    broker.json,
                )
            }
        }
    }
}

/// List bindings
#[derive(Args)]
pub(super) struct BindingVerb {
    #[command(subcommand)]
    verb: Bindings,
}

#[derive(Subcommand)]
enum Bindings {
    /// List what is bound to exchanges
    #[command(after_help = "Example: pillarbox binding list --json")]
    List,
}

impl BindingVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Bindings::List = self.verb;
        let rows = broker.connect().await?.list(List::Bindings, "").await?;
        let columns = ["source", "destination", "to_exchange", "key"];
        show::rows(&rows, &columns, broker.json)
    }
}

/// The ends of a binding.
#[derive(Args)]
#[command(after_help = "Example: pillarbox bind logs errors --key '*.error'")]
pub(super) struct Bind {
    /// The exchange whose messages are wanted
    exchange: String,
    /// The mailbox that gets them
    destination: String,
    /// The destination is an exchange
    #[arg(long)]
    to_exchange: bool,
    /// Which messages: a routing key, or a pattern of them
    #[arg(long, default_value = "")]
    key: String,
    /// Headers that messages must have, or any other argument
    #[arg(long, value_name = "NAME=VALUE", value_parser = value::pair)]
    argument: Vec<(String, Value)>,
}

impl Bind {
    pub(super) async fn run(self, add: bool, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let binding = Binding {
            source: self.exchange,
            destination: self.destination,
            to_exchange: self.to_exchange,
            key: self.key,
            arguments: value::table(&self.argument),
        };
        let (source, destination) = (&binding.source, &binding.destination);
        let fields = json!({"source": source, "destination": destination, "key": binding.key});
        if add {
            client.bind(&binding).await?;
            show::done(&format!("bound '{destination}' to '{source}'"), fields, broker.json)
        } else {
            client.unbind(&binding).await?;
            show::done(&format!("unbound '{destination}' from '{source}'"), fields, broker.json)
        }
    }
}
