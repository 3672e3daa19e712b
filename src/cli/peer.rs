//! `pillarbox peer`: other hosts, the links to them, and what waits for them.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{List, Waiting};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show};

/// Look at the links to other hosts, and forget those that are gone
#[derive(Args)]
pub(super) struct PeerVerb {
    #[command(subcommand)]
    verb: Peers,
}

#[derive(Subcommand)]
enum Peers {
    /// List other hosts: whether the links to and from them are up, and what waits here for them
    #[command(after_help = "Example: pillarbox peer list --json")]
    List,
    /// Forget a host that is gone for good: what is known of it, and with --messages what waits for it
    #[command(after_help = "\
Example: pillarbox peer drop old --messages

Needs an administrator. A host that is linked cannot be dropped. One that comes back after all is met anew.")]
    Drop {
        name: String,
        /// Drop the messages that wait for it as well; without this, any that wait are a reason to refuse
        #[arg(long)]
        messages: bool,
    },
    /// Forget a host that is gone for good, and send on what waits for it
    #[command(after_help = "\
Examples:
  pillarbox peer redirect old --to new
  pillarbox peer redirect old

Without --to, messages go to where their queues live now; the first whose queue lives nowhere stays, and all behind it.
What the host took before it was lost, without a word of it, comes twice. Needs an administrator.")]
    Redirect {
        name: String,
        /// The host that takes what waits
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
    },
}

impl PeerVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match self.verb {
            Peers::List => list(broker).await,
            Peers::Drop { name, messages } => {
                let waiting = if messages { Waiting::Dropped } else { Waiting::Absent };
                let count = broker.connect().await?.forget_peer(&name, waiting).await?;
                let text = format!("host '{name}' is forgotten, {} dropped", messages_of(count));
                show::done(&text, json!({"host": name, "dropped": count}), broker.json)
            }
            Peers::Redirect { name, to } => {
                let waiting = to.as_deref().map_or(Waiting::Routed, Waiting::SentTo);
                let count = broker.connect().await?.forget_peer(&name, waiting).await?;
                let place = match &to {
                    Some(to) => format!("host '{to}'"),
                    None => "their queues".into(),
                };
                let text = format!(
                    "host '{name}' is forgotten, {} on their way to {place}",
                    messages_of(count)
                );
                show::done(&text, json!({"host": name, "to": to, "sent": count}), broker.json)
            }
        }
    }
}

fn messages_of(count: u64) -> String {
    if count == 1 { "1 message".into() } else { format!("{count} messages") }
}

async fn list(broker: &Broker) -> Result<(), Failure> {
    let mut rows = broker.connect().await?.list(List::Peers, "").await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    for row in &mut rows {
        if let Some(age) = age(row, now as i64) {
            row.set("age", Value::text(&age));
        }
    }
    let columns = ["name", "to", "from", "messages", "bytes", "age", "mailboxes", "tags", "error"];
    show::rows(&rows, &columns, broker.json)
}

/// How long the oldest message waits, for people.
fn age(row: &Table, now_ms: i64) -> Option<String> {
    let seconds = (now_ms - row.get("oldest_ms")?.as_i64()?).max(0) / 1000;
    Some(match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_one_unit() {
        let mut row = Table::new();
        assert_eq!(age(&row, 5), None);
        row.set("oldest_ms", Value::I64(1000));
        for (now, said) in [
            (500, "0 s"),
            (61_000, "60 s"),
            (301_000, "5 min"),
            (7_201_000, "2 h"),
            (864_001_000, "10 d"),
        ] {
            assert_eq!(age(&row, now).as_deref(), Some(said));
        }
    }
}
