//! `pillarbox pull`: takes messages from a mailbox and prints them.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use pillarbox::broker::{Properties, Value, slash};
use pillarbox::client::{Client, Delivery, Mailbox, Outcome, Subscribe, Will};
use serde_json::{Map, Value as Json, json};

use super::broker::Broker;
use super::progress::Progress;
use super::{Failure, mailbox, show, value};

/// Messages asked for at once.
const PULL_MAX: u32 = 1000;
/// Messages on their way to whoever follows a mailbox.
const FOLLOW_CREDIT: u32 = 500;

/// Take messages from a mailbox and print them
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox pull jobs
  pillarbox pull jobs --count 10 --wait 30s
  pillarbox pull jobs --follow --json | jq .body
  pillarbox pull jobs --then release    (take, and put it back)
  pillarbox pull --follow --private     (a mailbox of its own, such as for replies)
  pillarbox pull jobs --follow --will log='a worker was lost'
  pillarbox pull log --from first --all  (read a stream)
  pillarbox pull log --from 1h --follow
  pillarbox pull log --group billing --follow

A message is settled after it was printed, so one that could not be printed stays in the mailbox.
Without a message the exit code is 4.")]
pub(super) struct Pull {
    /// The mailbox
    #[arg(value_name = "MAILBOX", required_unless_present = "private")]
    named: Option<String>,
    #[arg(skip)]
    mailbox: String,
    /// Take at most so many messages
    #[arg(long, short = 'n', default_value_t = 1)]
    count: u64,
    /// Take everything that is there
    #[arg(long, conflicts_with = "count")]
    all: bool,
    /// Wait so long for the first message
    #[arg(long, short = 'w', value_name = "TIME", value_parser = value::duration, default_value = "0s")]
    wait: Duration,
    /// Go on until interrupted
    #[arg(long, short = 'f', conflicts_with_all = ["count", "all", "wait"])]
    follow: bool,
    /// Only messages that match this condition, as JMS has it: "colour = 'red' AND size > 2"
    #[arg(long, value_name = "CONDITION", requires = "follow")]
    selector: Option<String>,
    /// Read a stream from there: first, last, next, offset=N, last=N, time=SECONDS, or a span like 30m
    #[arg(long, value_name = "START", value_parser = value::start)]
    from: Option<Value>,
    /// Read a stream from where the reader of this name came to; --from says where a new one starts
    #[arg(long, value_name = "NAME")]
    cursor: Option<String>,
    /// Read a stream together with others of this group, each message going to one of them
    #[arg(long, value_name = "NAME", conflicts_with = "cursor")]
    group: Option<String>,
    /// Stand by while an earlier member of the group is there
    #[arg(long, requires = "group")]
    single_active: bool,
    /// Read a stream no further than this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    until: Option<i64>,
    /// What becomes of a message that was printed
    #[arg(long, value_enum, default_value_t = Then::Accept)]
    then: Then,
    /// Let the broker forget messages as it sends them: faster, and lost if they do not arrive
    #[arg(long, conflicts_with = "then")]
    no_ack: bool,
    /// Take from a mailbox of its own, which goes with this command; its name is said on standard error
    #[arg(long, requires = "follow", conflicts_with = "named")]
    private: bool,
    #[command(flatten)]
    will: WillFlags,
    #[command(flatten)]
    printing: Printing,
}

/// How messages are printed.
#[derive(Args)]
pub(super) struct Printing {
    /// Print properties and headers too
    #[arg(long)]
    properties: bool,
    /// Print bodies as they are, without a line end behind them
    #[arg(long)]
    raw: bool,
}

/// What the broker does when this command ends.
#[derive(Args)]
#[command(next_help_heading = "Last will")]
pub(super) struct WillFlags {
    /// Let the broker send this text to a mailbox when the connection is lost
    #[arg(long, value_name = "MAILBOX=TEXT", value_parser = will)]
    will: Option<(String, String)>,
    /// Send it when the connection is lost, or at any end
    #[arg(long, value_enum, default_value_t = On::Loss, requires = "will")]
    will_on: On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    Loss,
    Any,
}

fn will(text: &str) -> Result<(String, String), String> {
    let (mailbox, text) = text.split_once('=').ok_or("write it as MAILBOX=TEXT")?;
    Ok((mailbox.into(), text.into()))
}

impl WillFlags {
    pub(super) async fn leave(&self, client: &Client) -> Result<(), Failure> {
        let Some((mailbox, text)) = &self.will else { return Ok(()) };
        let will = Will::to(mailbox, text.as_str());
        let will = if self.will_on == On::Any { will.on_any_end() } else { will };
        Ok(client.set_will(1, &will).await?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    /// It is done and gone
    Accept,
    /// It returns to its place
    Release,
    /// It goes to the dead letters, or away
    Reject,
}

impl Then {
    fn outcome(self) -> Outcome {
        match self {
            Self::Accept => Outcome::Accepted,
            Self::Release => Outcome::Released,
            Self::Reject => Outcome::Rejected,
        }
    }
}

impl Pull {
    pub(super) async fn run(mut self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        self.will.leave(&client).await?;
        self.mailbox = self.named.take().unwrap_or_default();
        if self.private {
            self.mailbox = client.declare(&Mailbox::private()).await?.name;
            let said = writeln!(io::stderr(), "mailbox {}", self.mailbox);
            said.map_err(|error| Failure::output(&error))?;
        }
        let outcome = if self.follow {
            self.follow(&client, broker).await
        } else if self.reads_stream() {
            self.read(&client, broker).await
        } else {
            self.take(&client, broker).await
        };
        // In good order also where it found nothing: a will is for commands that were lost.
        let closed = client.close().await;
        outcome?;
        Ok(closed?)
    }

    async fn take(&self, client: &Client, broker: &Broker) -> Result<(), Failure> {
        let mut left = if self.all { u64::MAX } else { self.count };
        let mut wait = self.wait;
        let mut held = Vec::new();
        let mut total = 0u64;
        // Where messages go to a file, the terminal is free for this.
        let mut progress = Progress::start("pulled", None, !io::stdout().is_terminal());
        while left > 0 {
            let count = left.min(PULL_MAX.into()) as u32;
            let pulled = if self.no_ack {
                client.pull_settled(&self.mailbox, count, wait).await
            } else {
                client.pull(&self.mailbox, count, wait).await
            };
            let pulled = pulled.map_err(|error| mailbox::explain(error, &self.mailbox))?.deliveries;
            if pulled.is_empty() {
                break;
            }
            wait = Duration::ZERO;
            left -= pulled.len() as u64;
            total += pulled.len() as u64;
            self.printing.print(&pulled, &self.mailbox, broker.json)?;
            progress.add(pulled.len() as u64);
            // Released at once, they would come again.
            if self.then == Then::Release {
                held.extend(pulled);
            } else {
                client.settle(&pulled, self.then.outcome()).await?;
            }
        }
        client.settle(&held, self.then.outcome()).await?;
        match total {
            0 => Err(Failure::nothing(format!("no message in '{}'", self.mailbox))),
            _ => Ok(()),
        }
    }

    fn reads_stream(&self) -> bool {
        let place = self.cursor.as_ref().or(self.group.as_ref());
        self.from.is_some() || self.until.is_some() || place.is_some()
    }

    /// What is asked of a stream.
    fn subscribe(&self, credit: u32) -> Subscribe {
        let mut subscribe = Subscribe { credit, settled: self.no_ack, ..Subscribe::default() };
        if let Some(from) = &self.from {
            subscribe = subscribe.argument("x-stream-offset", from.clone());
        }
        if let Some(cursor) = &self.cursor {
            subscribe = subscribe.argument("x-stream-cursor", Value::text(cursor));
        }
        if let Some(group) = &self.group {
            subscribe = subscribe.argument("x-group", Value::text(group));
        }
        if self.single_active {
            subscribe = subscribe.argument("x-single-active-consumer", Value::Bool(true));
        }
        match self.until {
            Some(until) => subscribe.argument("x-stream-until", Value::I64(until)),
            None if self.follow => subscribe,
            None => subscribe.argument("x-stream-until", Value::text("last")),
        }
    }

    /// Messages of a stream that are there.
    async fn read(&self, client: &Client, broker: &Broker) -> Result<(), Failure> {
        let count = if self.all { u64::MAX } else { self.count };
        let mut left = count;
        let subscribe = self.subscribe(left.min(FOLLOW_CREDIT.into()) as u32);
        let subscribed = client.subscribe(&self.mailbox, &subscribe).await;
        let mut messages = subscribed.map_err(|error| mailbox::explain(error, &self.mailbox))?;
        while left > 0 {
            let mut batch = messages.next_batch().await?;
            if batch.is_empty() {
                break;
            }
            // More than asked for goes back unread, as far as a cursor or a group is concerned.
            batch.truncate(left.min(batch.len() as u64) as usize);
            left -= batch.len() as u64;
            self.printing.print(&batch, &self.mailbox, broker.json)?;
            client.settle(&batch, self.then.outcome()).await?;
        }
        messages.end().await?;
        if left == count {
            return Err(Failure::nothing(format!("no message in '{}'", self.mailbox)));
        }
        Ok(())
    }

    async fn follow(&self, client: &Client, broker: &Broker) -> Result<(), Failure> {
        let selector = self.selector.clone();
        let subscribe = Subscribe { selector, ..self.subscribe(FOLLOW_CREDIT) };
        let subscribed = client.subscribe(&self.mailbox, &subscribe).await;
        let mut messages = subscribed.map_err(|error| mailbox::explain(error, &self.mailbox))?;
        loop {
            let batch = tokio::select! {
                batch = messages.next_batch() => batch?,
                _ = tokio::signal::ctrl_c() => break,
            };
            if batch.is_empty() {
                break;
            }
            self.printing.print(&batch, &self.mailbox, broker.json)?;
            if self.then != Then::Release {
                client.settle(&batch, self.then.outcome()).await?;
            }
        }
        messages.end().await?;
        Ok(())
    }
}

impl Printing {
    pub(super) fn print<'a>(
        &self,
        deliveries: impl IntoIterator<Item = &'a Delivery>,
        mailbox: &str,
        json: bool,
    ) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let print = || -> io::Result<()> {
            for delivery in deliveries {
                if json {
                    serde_json::to_writer(&mut out, &as_json(delivery, mailbox))?;
                    out.write_all(b"\n")?;
                    continue;
                }
                if self.properties {
                    for (name, value) in fields(delivery) {
                        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        writeln!(out, "{name}: {value}")?;
                    }
                    out.write_all(b"\n")?;
                }
                out.write_all(delivery.body())?;
                if !self.raw {
                    out.write_all(b"\n")?;
                }
            }
            out.flush()
        };
        print().map_err(|error| Failure::output(&error))
    }
}

/// A delivery for programs. A body that is no text is given in base64.
fn as_json(delivery: &Delivery, mailbox: &str) -> Json {
    let mut object = Map::new();
    if !mailbox.is_empty() {
        object.insert("mailbox".into(), mailbox.into());
    }
    object.extend(fields(delivery));
    match std::str::from_utf8(delivery.body()) {
        Ok(text) => object.insert("body".into(), text.into()),
        Err(_) => object.insert("body_base64".into(), STANDARD.encode(delivery.body()).into()),
    };
    Json::Object(object)
}

fn fields(delivery: &Delivery) -> Map<String, Json> {
    let mut object = Map::new();
    match delivery.offset {
        Some(offset) => object.insert("offset".into(), offset.into()),
        None => object.insert("seq".into(), delivery.seq.0.into()),
    };
    if let Some(id) = delivery.id {
        object.insert("id".into(), format!("{id:032x}").into());
    }
    if delivery.redelivered {
        object.insert("redelivered".into(), true.into());
    }
    if let Some(attempts) = delivery.attempts {
        object.insert("attempts".into(), attempts.into());
    }
    if let Some((exchange, key)) = delivery.address() {
        object.insert("exchange".into(), String::from_utf8_lossy(exchange).into());
        let key = String::from_utf8_lossy(key);
        if exchange == b"amq.topic" {
            object.insert("topic".into(), slash::topic(&key).into());
        }
        object.insert("key".into(), key.into());
    }
    object.extend(properties(&delivery.properties()));
    object
}

pub(super) fn properties(p: &Properties) -> Map<String, Json> {
    let mut object = Map::new();
    for (name, text) in p.texts() {
        object.insert(name.into(), String::from_utf8_lossy(text).into());
    }
    if let Some(priority) = p.priority {
        object.insert("priority".into(), priority.into());
    }
    if let Some(timestamp) = p.timestamp {
        object.insert("timestamp".into(), timestamp.into());
    }
    if let Some(headers) = &p.headers {
        object.insert("headers".into(), show::table(headers));
    }
    if p.delivery_mode == Some(1) {
        object.insert("transient".into(), json!(true));
    }
    object
}
