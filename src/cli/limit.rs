//! `pillarbox limit`: how much users and virtual hosts may have.

use clap::{Args, Subcommand, ValueEnum};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Defined, List};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show};

/// Set, list and clear limits of users and virtual hosts; needs an administrator
#[derive(Args)]
pub(super) struct LimitVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set a limit; what there is beyond it stays
    #[command(after_help = "\
Examples:
  pillarbox limit set user anna max-connections 10
  pillarbox limit set user anna max-channels 100
  pillarbox limit set vhost / max-queues 1000

With max-connections 0 nobody gets in.")]
    Set {
        of: Of,
        // Not `user` or `vhost`: those are the login's.
        #[arg(value_name = "NAME")]
        whose: String,
        #[arg(value_parser = LIMITS)]
        limit: String,
        value: u32,
    },
    /// List the limits that are set
    #[command(after_help = "Example: pillarbox limit list --json")]
    List,
    /// Take a limit away
    #[command(after_help = "Example: pillarbox limit clear user anna max-connections")]
    Clear {
        of: Of,
        #[arg(value_name = "NAME")]
        whose: String,
        #[arg(value_parser = LIMITS)]
        limit: String,
    },
}

/// Whose limit it is.
#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// max-connections, max-channels
    User,
    /// max-connections, max-queues
    Vhost,
}

impl Of {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Vhost => "vhost",
        }
    }
}

const LIMITS: [&str; 3] = ["max-connections", "max-channels", "max-queues"];

impl LimitVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::Set { of, whose, limit, value } => {
                let of = of.word();
                let mut fields = Table::new();
                for (field, text) in [("of", of), ("name", &*whose), ("limit", &*limit)] {
                    fields.set(field, Value::text(text));
                }
                fields.set("value", Value::I64(value.into()));
                client.define(Defined::Limit, &fields).await?;
                let sentence = format!("{limit} of {of} '{whose}' is {value}");
                let fields = json!({"of": of, "name": whose, "limit": limit, "value": value});
                show::done(&sentence, fields, broker.json)
            }
            Verb::List => {
                let rows = client.list(List::Limits, "").await?;
                show::rows(&rows, &["of", "name", "limit", "value"], broker.json)
            }
            Verb::Clear { of, whose, limit } => {
                let of = of.word();
                client.undefine(Defined::Limit, &[of, &whose, &limit]).await?;
                let sentence = format!("{of} '{whose}' has no {limit}");
                let fields = json!({"of": of, "name": whose, "limit": limit});
                show::done(&sentence, fields, broker.json)
            }
        }
    }
}
