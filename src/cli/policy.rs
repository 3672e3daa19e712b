//! `pillarbox policy`: arguments for mailboxes and exchanges by pattern of their names.

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Defined, List};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show, value};

/// Set, list and clear policies; needs an administrator, or the tag policymaker
#[derive(Args)]
pub(super) struct PolicyVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give all mailboxes or exchanges of a pattern an argument, at once and from now on
    #[command(after_help = "\
Examples:
  pillarbox policy set short --pattern '^tmp\\.' --apply-to queues message-ttl=60000 max-length=1000
  pillarbox policy set bound --operator --pattern '.*' max-length=1000000

Settings are those of mailboxes without their x-: message-ttl, expires, max-length, max-length-bytes,
overflow, dead-letter-exchange, dead-letter-routing-key, dead-letter-strategy, delivery-limit,
consumer-timeout; and alternate-exchange for exchanges. Of several policies the one with the highest
priority holds, together with one of the operator's; of two numbers the smaller.")]
    Set {
        name: String,
        /// Which names: a regular expression
        #[arg(long, value_name = "REGEX")]
        pattern: String,
        #[arg(long, default_value = "all", value_parser = APPLY_TO)]
        apply_to: String,
        /// Where several policies match, the highest holds
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i64,
        /// An operator's policy: its numbers are bounds that others cannot widen
        #[arg(long)]
        operator: bool,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = value::pair)]
        settings: Vec<(String, Value)>,
    },
    /// List policies
    #[command(after_help = "Example: pillarbox policy list --json")]
    List,
    /// Take a policy away
    #[command(after_help = "Example: pillarbox policy clear short")]
    Clear {
        name: String,
        /// The operator's policy of that name
        #[arg(long)]
        operator: bool,
    },
}

const APPLY_TO: [&str; 6] =
    ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"];

impl PolicyVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let vhost = &broker.vhost;
        match self.verb {
            Verb::Set { name, pattern, apply_to, priority, operator, settings } => {
                let mut fields = Table::new();
                for (field, text) in [
                    ("vhost", vhost),
                    ("name", &name),
                    ("pattern", &pattern),
                    ("apply_to", &apply_to),
                ] {
                    fields.set(field, Value::text(text));
                }
                fields.set("priority", Value::I64(priority));
                fields.set("definition", Value::Table(value::table(&settings)));
                client.define(kind(operator), &fields).await?;
                let sentence = format!("set policy '{name}' in '{vhost}'");
                show::done(&sentence, json!({"name": name, "vhost": vhost}), broker.json)
            }
            Verb::List => {
                let rows = client.list(List::Policies, "").await?;
                let columns = ["name", "pattern", "apply_to", "priority", "operator", "definition"];
                show::rows(&rows, &columns, broker.json)
            }
            Verb::Clear { name, operator } => {
                client.undefine(kind(operator), &[vhost, &name]).await?;
                let sentence = format!("cleared policy '{name}' in '{vhost}'");
                show::done(&sentence, json!({"name": name, "vhost": vhost}), broker.json)
            }
        }
    }
}

fn kind(operator: bool) -> Defined {
    if operator { Defined::OperatorPolicy } else { Defined::Policy }
}
