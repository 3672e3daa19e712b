//! `pillarbox kv`: keys and their values.

use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use pillarbox::broker::Value;
use pillarbox::client::{Client, Delivery, NewMessage, Subscribe};
use serde_json::{Value as Json, json};

use super::broker::Broker;
use super::{Failure, mailbox, show};

/// Messages on their way to whoever scans or watches.
const CREDIT: u32 = 500;

/// Put, get, list and watch the values of keys
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox mailbox declare users --policy kv
  pillarbox kv put users user1 'Ada'
  pillarbox kv get users user1
  pillarbox kv watch users --key user1")]
pub(super) struct KvVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give a key a value, from standard input where none is given
    #[command(after_help = "Example: pillarbox kv put users user1 Ada")]
    Put { mailbox: String, key: String, value: Option<String> },
    /// Print the value of a key; the exit code is 4 where there is none
    #[command(after_help = "Example: pillarbox kv get users user1")]
    Get { mailbox: String, key: String },
    /// Say whether a key has a value, by the exit code
    #[command(after_help = "Example: pillarbox kv exists users user1 && echo yes")]
    Exists { mailbox: String, key: String },
    /// Take the value of a key away
    #[command(after_help = "Example: pillarbox kv delete users user1")]
    Delete { mailbox: String, key: String },
    /// List keys that have a value
    #[command(after_help = "Example: pillarbox kv keys users --prefix user")]
    Keys {
        mailbox: String,
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Print all keys and their values, in the order in which they were put
    #[command(after_help = "Example: pillarbox kv scan users --json")]
    Scan { mailbox: String },
    /// Print the values of a key that are kept, oldest first
    #[command(after_help = "Example: pillarbox kv history users user1")]
    History { mailbox: String, key: String },
    /// Print what changes, until interrupted
    #[command(after_help = "Example: pillarbox kv watch users --all")]
    Watch {
        mailbox: String,
        /// Of this key only; its value comes first
        #[arg(long)]
        key: Option<String>,
        /// What is there comes first
        #[arg(long, conflicts_with = "key")]
        all: bool,
    },
}

impl KvVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let json = broker.json;
        match self.verb {
            Verb::Put { mailbox, key, value } => {
                let value = match value {
                    Some(value) => value.into_bytes(),
                    None => from_input()?,
                };
                client.put(&mailbox, &key, NewMessage::new(value)).await?;
                show::done(&format!("put '{key}'"), json!({"key": key}), json)
            }
            Verb::Get { mailbox, key } => match get(&client, &mailbox, &key).await? {
                Some(found) => print(&[found], json, false),
                None => Err(none(&mailbox, &key)),
            },
            Verb::Exists { mailbox, key } => match get(&client, &mailbox, &key).await? {
                Some(_) => Ok(()),
                None => Err(none(&mailbox, &key)),
            },
            Verb::Delete { mailbox, key } => {
                client.erase(&mailbox, &key).await?;
                show::done(&format!("deleted '{key}'"), json!({"key": key}), json)
            }
            Verb::Keys { mailbox, prefix } => {
                let keys = client.keys(&mailbox).await;
                let mut rows = keys.map_err(|error| mailbox::explain(error, &mailbox))?;
                rows.retain(|row| {
                    row.get("name")
                        .and_then(Value::as_str)
                        .is_some_and(|it| it.starts_with(&prefix))
                });
                show::rows(&rows, &["name", "offset", "values"], json)
            }
            Verb::Scan { mailbox } => {
                let subscribe = all().argument("x-stream-until", Value::text("last"));
                follow(&client, &mailbox, &subscribe, json).await
            }
            Verb::History { mailbox, key } => {
                let found = client.history(&mailbox, &key).await;
                let found = found.map_err(|error| mailbox::explain(error, &mailbox))?;
                if found.is_empty() {
                    return Err(none(&mailbox, &key));
                }
                print(&found, json, false)
            }
            Verb::Watch { mailbox, key, all: from_start } => {
                let subscribe = match key {
                    Some(key) => settled().argument("x-key", Value::text(&key)),
                    None if from_start => all(),
                    None => settled(),
                };
                follow(&client, &mailbox, &subscribe, json).await
            }
        }
    }
}

fn settled() -> Subscribe {
    Subscribe { credit: CREDIT, settled: true, ..Subscribe::default() }
}

fn all() -> Subscribe {
    settled().argument("x-stream-offset", Value::text("first"))
}

async fn get(client: &Client, mailbox: &str, key: &str) -> Result<Option<Delivery>, Failure> {
    client.get(mailbox, key).await.map_err(|error| mailbox::explain(error, mailbox))
}

async fn follow(
    client: &Client,
    mailbox: &str,
    subscribe: &Subscribe,
    json: bool,
) -> Result<(), Failure> {
    let subscribed = client.subscribe(mailbox, subscribe).await;
    let mut messages = subscribed.map_err(|error| mailbox::explain(error, mailbox))?;
    loop {
        let batch = tokio::select! {
            batch = messages.next_batch() => batch?,
            _ = tokio::signal::ctrl_c() => break,
        };
        if batch.is_empty() {
            break;
        }
        print(&batch, json, true)?;
    }
    messages.end().await?;
    Ok(())
}

fn from_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    io::stdin().read_to_end(&mut value).map_err(|error| Failure::output(&error))?;
    Ok(value)
}

fn none(mailbox: &str, key: &str) -> Failure {
    Failure::nothing(format!("'{key}' has no value in '{mailbox}'"))
}

/// Values, behind their keys where several keys are shown.
fn print<'a>(
    deliveries: impl IntoIterator<Item = &'a Delivery>,
    json: bool,
    keys: bool,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let print = || -> io::Result<()> {
        for delivery in deliveries {
            let headers = delivery.properties().headers.unwrap_or_default();
            let named = headers.get("x-key").and_then(Value::as_str).map(str::to_owned);
            let routed = || {
                let (_, key) = delivery.address()?;
                Some(String::from_utf8_lossy(key).into_owned())
            };
            let key = named.or_else(routed).unwrap_or_default();
            let deleted = match headers.get("x-tombstone") {
                Some(Value::Bool(deleted)) => *deleted,
                other => other.and_then(Value::as_str) == Some("true"),
            };
            if json {
                let value = match std::str::from_utf8(delivery.body()) {
                    _ if deleted => ("deleted", Json::Bool(true)),
                    Ok(text) => ("value", text.into()),
                    Err(_) => ("value_base64", STANDARD.encode(delivery.body()).into()),
                };
                let mut object = json!({"key": key, "offset": delivery.offset});
                object[value.0] = value.1;
                serde_json::to_writer(&mut out, &object)?;
            } else {
                if keys {
                    let mark = if deleted { " (deleted)" } else { "\t" };
                    write!(out, "{key}{mark}")?;
                }
                out.write_all(delivery.body())?;
            }
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    print().map_err(|error| Failure::output(&error))
}
