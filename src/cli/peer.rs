//! `pillarbox peer list`: other hosts, the links to them, and what waits for them.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::List;

use super::broker::Broker;
use super::{Failure, show};

/// Look at the links to other hosts
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
}

impl PeerVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Peers::List = self.verb;
        let mut rows = broker.connect().await?.list(List::Peers, "").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        for row in &mut rows {
            if let Some(age) = age(row, now as i64) {
                row.set("age", Value::text(&age));
            }
        }
        let columns = ["name", "to", "from", "messages", "bytes", "age", "mailboxes", "error"];
        show::rows(&rows, &columns, broker.json)
    }
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
