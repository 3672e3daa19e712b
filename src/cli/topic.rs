//! `pillarbox publish` and `pillarbox subscribe`: topics with slashes; `pillarbox request`: a question and its answer.

use std::time::Duration;

use clap::Args;
use pillarbox::client::{Error, List, NewMessage, Subscribe};
use serde_json::json;

use super::broker::Broker;
use super::pull::{Printing, WillFlags};
use super::{Failure, mailbox, show, value};

/// Messages on their way to a subscriber.
const CREDIT: u32 = 500;

/// Publish a message to everybody who subscribed to a topic
#[derive(Args)]
#[command(after_help = "\
Example: pillarbox publish sensors/kitchen/heat 21.5

Whoever subscribed to a pattern that matches gets a copy; if nobody did, the message is dropped and counted.
AMQP clients find it in exchange amq.topic with the key sensors.kitchen.heat.")]
pub(super) struct Publish {
    topic: String,
    text: String,
}

/// Print messages of all topics that match a pattern, as they come
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox subscribe sensors/+/heat       (+ is one level)
  pillarbox subscribe 'sensors/#' --json   (# at the end is one level or more)

It starts with the next message and goes on until interrupted, or until --count messages came.")]
pub(super) struct SubscribeVerb {
    pattern: String,
    /// End after so many messages
    #[arg(long, short = 'n', default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    #[command(flatten)]
    will: WillFlags,
    #[command(flatten)]
    printing: Printing,
}

/// Send a request to a mailbox and print the reply
#[derive(Args)]
#[command(after_help = "\
Example: pillarbox request sums 1+1 --wait 5s

The reply comes to a mailbox of its own, which is there before the request is sent. Without a reply in time the
exit code is 4.")]
pub(super) struct Request {
    mailbox: String,
    text: String,
    /// How long to wait for the reply
    #[arg(long, short = 'w', value_name = "TIME", value_parser = value::duration, default_value = "10s")]
    wait: Duration,
    #[command(flatten)]
    printing: Printing,
}

impl Publish {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        client.publish_topic(&self.topic, self.text).await?;
        let fields = json!({"topic": self.topic});
        show::done(&format!("published to '{}'", self.topic), fields, broker.json)
    }
}

impl SubscribeVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        self.will.leave(&client).await?;
        let subscribe = Subscribe { credit: CREDIT, ..Subscribe::default() };
        let mut messages = client.subscribe_topic(&self.pattern, &subscribe).await?;
        let mut left = self.count;
        while left > 0 {
            let batch = tokio::select! {
                batch = messages.next_batch() => batch?,
                _ = tokio::signal::ctrl_c() => break,
            };
            if batch.is_empty() {
                break;
            }
            let shown: Vec<_> =
                batch.iter().take(usize::try_from(left).unwrap_or(usize::MAX)).collect();
            self.printing.print(shown.iter().copied(), "", broker.json)?;
            left -= shown.len() as u64;
            client.settle_later(&batch, pillarbox::client::Outcome::Accepted)?;
        }
        client.close().await?;
        Ok(())
    }
}

impl Request {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let reply = client.request(&self.mailbox, NewMessage::from(self.text), self.wait).await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(Error::Timeout) => {
                let rows = client.list(List::Consumers, &self.mailbox).await.unwrap_or_default();
                let why = if rows.is_empty() { "nobody consumes from it" } else { "it is late" };
                let text = format!("no reply from '{}' in time: {why}", self.mailbox);
                return Err(Failure::nothing(text));
            }
            Err(error) => return Err(mailbox::explain(error, &self.mailbox)),
        };
        self.printing.print([&reply], &self.mailbox, broker.json)
    }
}
