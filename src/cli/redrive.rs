//! `pillarbox redrive`: dead letters go back to where they died.

use clap::Args;
use pillarbox::client::Redrive;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, mailbox, show};

/// Move dead letters back to the mailboxes where they died
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox redrive failed
  pillarbox redrive failed --selector \"type = 'invoice'\" --rate 50
  pillarbox redrive failed --to jobs --count 1

A message that does not say where it died, or that is not taken there, stays. Where none is moved the exit code is 4.")]
pub(super) struct RedriveVerb {
    /// The mailbox with the dead letters
    mailbox: String,
    /// Only messages that match this condition, as JMS has it
    #[arg(long, value_name = "CONDITION")]
    selector: Option<String>,
    /// Move at most so many
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// Move at most so many in a second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Move them there, and not to where they died
    #[arg(long, value_name = "MAILBOX")]
    to: Option<String>,
}

impl RedriveVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let Self { mailbox, selector, count, rate, to } = self;
        let done = client.redrive(&mailbox, &Redrive { selector, count, rate, to }).await;
        let done = done.map_err(|error| mailbox::explain(error, &mailbox))?;
        if done.moved == 0 {
            let text = format!("no message of '{mailbox}' was moved, {} stay", done.stayed);
            return Err(Failure::nothing(text));
        }
        let messages = if done.moved == 1 { "message" } else { "messages" };
        let text = format!("moved {} {messages}, {} stay", done.moved, done.stayed);
        show::done(&text, json!({"moved": done.moved, "stayed": done.stayed}), broker.json)
    }
}
