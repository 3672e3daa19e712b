//! `pillarbox drain`: takes a host out of service before it is stopped.

use std::time::{Duration, Instant};

use clap::Args;
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Client, Defined, List};
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show};

/// How often it is asked what is left.
const INTERVAL: Duration = Duration::from_millis(200);

/// Take a host out of service: send clients away, and let what waits reach other hosts; needs an administrator
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox drain && systemctl stop pillarbox
  pillarbox drain --leave --deadline 300

Clients are told why and stay out until the broker starts again. Exit code 0: nothing is left; 1: what is left is said.")]
pub(super) struct DrainVerb {
    /// Wait so many seconds until nothing is left
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    deadline: Duration,
    /// The host goes for good: tell the others that no queue and no binding is here any longer
    #[arg(long)]
    leave: bool,
}

/// A number, with or without its unit.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).trim_end();
    let number = number.parse().map_err(|_| format!("'{text}' is no number of seconds"))?;
    Ok(Duration::from_secs(number))
}

impl DrainVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let mut fields = Table::new();
        fields.set("leave", Value::Bool(self.leave));
        let began = Instant::now();
        client.define(Defined::Drain, &fields).await?;
        loop {
            let left = Left::ask(&client).await?;
            if left.of.is_empty() {
                let text = match left.resting {
                    0 => "drained: nothing is left".into(),
                    count => format!("drained; {count} messages rest in queues of this host"),
                };
                let fields = json!({"drained": true, "resting": left.resting});
                return show::done(&text, fields, broker.json);
            }
            if began.elapsed() >= self.deadline {
                let seconds = self.deadline.as_secs();
                let text = format!("after {seconds} s there are left: {}", left.of.join(", "));
                return Err(Failure::failed(text));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// What is left to do.
struct Left {
    of: Vec<String>,
    resting: i64,
}

impl Left {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        let rows = client.list(List::Drain, "").await?;
        let number = |row: &Table, name| row.get(name).and_then(Value::as_i64).unwrap_or(0);
        let Some(row) = rows.first() else {
            return Err(Failure::failed("the broker does not say how far it is"));
        };
        let mut of = Vec::new();
        for (name, one, more) in [
            ("connections", "client that does not go", "clients that do not go"),
            ("unsettled", "delivery that is not settled", "deliveries that are not settled"),
            ("untold", "host that does not know", "hosts that do not know"),
        ] {
            match number(row, name) {
                0 => {}
                1 => of.push(format!("1 {one}")),
                count => of.push(format!("{count} {more}")),
            }
        }
        if number(row, "waiting") > 0 {
            for peer in client.list(List::Peers, "").await? {
                let name = peer.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                match number(&peer, "messages") {
                    0 => {}
                    1 => of.push(format!("1 message for host '{name}'")),
                    count => of.push(format!("{count} messages for host '{name}'")),
                }
            }
        }
        Ok(Self { of, resting: number(row, "resting") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_seconds() {
        for (text, expected) in
            [("60", Some(60)), ("5s", Some(5)), ("5 s", Some(5)), ("0", Some(0))]
        {
            assert_eq!(seconds(text).ok().map(|it| it.as_secs()), expected, "{text}");
        }
        for text in ["", "s", "1m", "-1"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
