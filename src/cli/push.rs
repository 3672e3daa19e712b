//! `pillarbox push`: sends messages from arguments, a file or standard input.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use pillarbox::broker::{Cron, Properties, Value};
use pillarbox::client::{Due, NewMessage, Pushed, Receipt};
use pillarbox_native::Code;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::broker::Broker;
use super::progress::Progress;
use super::{Failure, mailbox, show, value};

/// Messages of a batch, and its bytes.
const BATCH_COUNT: usize = 500;
const BATCH_BYTES: usize = 256 << 10;
/// Batches on their way at the same time.
const BATCHES_MAX: usize = 8;

/// Send messages to a mailbox, or to an exchange
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox push jobs 'resize 17.png'
  pillarbox push jobs --file photo.png --content-type image/png
  ls *.png | pillarbox push jobs --lines
  pillarbox push --exchange logs --key app.error 'disk full'
  pillarbox push jobs --delay 5min 'look again'
  pillarbox push --exchange later --key jobs --cron '0 6 * * mon-fri' 'good morning'")]
pub(super) struct Push {
    /// The mailbox
    #[arg(required_unless_present = "exchange")]
    mailbox: Option<String>,
    /// The message; without one it is read from standard input
    text: Option<String>,
    /// Read the message from a file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Each line is a message
    #[arg(long, conflicts_with = "text")]
    lines: bool,
    /// Send to this exchange instead of a mailbox
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,
    /// Routing key for the exchange
    #[arg(long, value_name = "KEY", requires = "exchange")]
    key: Option<String>,
    /// Let it wait in the broker for so long
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    delay: Option<Duration>,
    /// Let it wait until then: seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "delay")]
    at: Option<u64>,
    /// Let it come again and again at an exchange of the kind x-delayed-message: minute, hour, day of the month, month
    /// and day of the week, in UTC
    #[arg(long, value_name = "EXPRESSION", value_parser = cron, requires = "exchange", conflicts_with = "every")]
    cron: Option<String>,
    /// The same, so far apart
    #[arg(long, value_name = "TIME", value_parser = value::duration, requires = "exchange")]
    every: Option<Duration>,
    /// So often after the first time; without it for ever
    #[arg(long, value_name = "COUNT", requires = "exchange")]
    times: Option<u32>,
    /// Wait until the broker here has it safely, or the host where the mailbox lives
    #[arg(long, value_enum, default_value = "here", value_name = "WHERE")]
    confirm: Confirm,
    #[command(flatten)]
    properties: PropertyFlags,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Confirm {
    Here,
    Home,
}

fn cron(text: &str) -> Result<String, String> {
    Cron::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[derive(Args)]
#[command(next_help_heading = "Properties")]
struct PropertyFlags {
    /// Add a header
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = value::pair)]
    header: Vec<(String, Value)>,
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Where to send an answer
    #[arg(long, value_name = "MAILBOX")]
    reply_to: Option<String>,
    /// What kind of message it is
    #[arg(long = "type", value_name = "TEXT")]
    kind: Option<String>,
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u8>,
    /// Drop the message if nobody takes it for so long
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    ttl: Option<Duration>,
    /// The message need not survive a restart of the broker
    #[arg(long)]
    transient: bool,
}

impl PropertyFlags {
    fn properties(&self) -> Option<Box<Properties>> {
        let bytes =
            |text: &Option<String>| text.as_deref().map(|it| Bytes::copy_from_slice(it.as_bytes()));
        let properties = Properties {
            content_type: bytes(&self.content_type),
            headers: (!self.header.is_empty()).then(|| value::table(&self.header)),
            delivery_mode: self.transient.then_some(1),
            priority: self.priority,
            correlation_id: bytes(&self.correlation_id),
            reply_to: bytes(&self.reply_to),
            expiration: self.ttl.map(|it| Bytes::from(it.as_millis().to_string())),
            message_id: bytes(&self.message_id),
            kind: bytes(&self.kind),
            ..Properties::default()
        };
        (properties != Properties::default()).then(|| Box::new(properties))
    }
}

impl Push {
    pub(super) async fn run(mut self, broker: &Broker) -> Result<(), Failure> {
        let exchange = self.exchange.clone().unwrap_or_default();
        if self.exchange.is_some() && self.text.is_none() {
            // With an exchange the one word is the message.
            self.text = self.mailbox.take();
        }
        let key = match &self.exchange {
            Some(_) => self.key.clone().unwrap_or_default(),
            None => self.mailbox.clone().unwrap_or_default(),
        };
        let mut header = |name: &str, value| self.properties.header.push((name.into(), value));
        if let Some(cron) = &self.cron {
            header("x-repeat-cron", Value::text(cron));
        }
        if let Some(every) = self.every {
            header("x-repeat-period", Value::I64(every.as_millis() as i64));
        }
        if let Some(times) = self.times {
            header("x-repeat-count", Value::I64(times.into()));
        }
        let client = broker.connect().await?;
        let properties = self.properties.properties();
        let due = match (self.delay, self.at) {
            (Some(delay), _) => NewMessage::default().delay(delay).due,
            (None, Some(seconds)) => Due::At(seconds.saturating_mul(1000)),
            (None, None) => Due::Now,
        };
        let mut batches = self.batches()?;
        let mut receipts: VecDeque<Receipt> = VecDeque::new();
        let mut tally = Tally::default();
        let mut progress = Progress::start("pushed", None, true);
        while let Some(batch) = batches.recv().await {
            let messages: Vec<NewMessage> = batch?
                .into_iter()
                .map(|body| NewMessage { body, key: None, properties: properties.clone(), due })
                .collect();
            receipts.push_back(match self.confirm {
                Confirm::Here => client.start_push(&exchange, &key, &messages).await?,
                Confirm::Home => client.start_push_home(&exchange, &key, &messages).await?,
            });
            progress.add(messages.len() as u64);
            if receipts.len() >= BATCHES_MAX
                && let Some(receipt) = receipts.pop_front()
            {
                tally.add(receipt.await?);
            }
        }
        for receipt in receipts {
            tally.add(receipt.await?);
        }
        progress.end();
        self.tell(&tally, &exchange, &key, broker.json)
    }

    fn tell(&self, tally: &Tally, exchange: &str, key: &str, json: bool) -> Result<(), Failure> {
        if let Some((code, text)) = &tally.refused {
            let failure = match (code, &self.exchange) {
                (Code::NotFound, None) => {
                    let error =
                        pillarbox::client::Error::Refused { code: *code, text: text.clone() };
                    mailbox::explain(error, key)
                }
                _ => Failure::failed(text),
            };
            if tally.taken == 0 && tally.missing == 1 {
                return Err(failure);
            }
            let text = format!(
                "{} of {} messages were not taken: {}",
                tally.missing,
                tally.taken + tally.missing,
                failure.text
            );
            return Err(Failure { text, ..failure });
        }
        let messages = if tally.taken == 1 { "message" } else { "messages" };
        let to = if self.exchange.is_some() {
            format!("exchange '{exchange}'")
        } else {
            format!("'{key}'")
        };
        let fields = json!({"pushed": tally.taken});
        show::done(&format!("pushed {} {messages} to {to}", tally.taken), fields, json)
    }

    /// Bodies in batches, read on a thread of their own.
    fn batches(&self) -> Result<mpsc::Receiver<Result<Vec<Bytes>, Failure>>, Failure> {
        let (to, batches) = mpsc::channel(2);
        if let Some(text) = &self.text {
            let body = Bytes::copy_from_slice(text.as_bytes());
            // The channel is empty.
            let _ = to.try_send(Ok(vec![body]));
            return Ok(batches);
        }
        let source: Box<dyn Read + Send> = match &self.file {
            Some(path) => {
                let failed =
                    |error| Failure::wrong(format!("cannot read {}: {error}", path.display()));
                Box::new(File::open(path).map_err(failed)?)
            }
            None => {
                if io::stdin().is_terminal() {
                    let hint = "type the message and end it with Ctrl-D, or give it as an argument";
                    let _ = io::Write::write_all(&mut io::stderr(), format!("{hint}\n").as_bytes());
                }
                Box::new(io::stdin())
            }
        };
        let lines = self.lines;
        spawn_blocking(move || {
            if let Err(error) = read(source, lines, &to) {
                let _ = to.blocking_send(Err(Failure::failed(format!("cannot read: {error}"))));
            }
        });
        Ok(batches)
    }
}

type Batches = mpsc::Sender<Result<Vec<Bytes>, Failure>>;

fn read(mut source: Box<dyn Read + Send>, lines: bool, to: &Batches) -> io::Result<()> {
    if !lines {
        let mut body = Vec::new();
        source.read_to_end(&mut body)?;
        let _ = to.blocking_send(Ok(vec![body.into()]));
        return Ok(());
    }
    let mut source = BufReader::new(source);
    let mut batch = Vec::new();
    let mut bytes = 0;
    loop {
        let mut line = Vec::new();
        let ended = source.read_until(b'\n', &mut line)? == 0;
        if !ended {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            bytes += line.len();
            batch.push(Bytes::from(line));
        }
        // What is there is sent before more is waited for.
        let waits = source.buffer().is_empty();
        let full = batch.len() >= BATCH_COUNT || bytes >= BATCH_BYTES;
        if !batch.is_empty() && (ended || waits || full) {
            bytes = 0;
            if to.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// What became of all batches.
#[derive(Default)]
struct Tally {
    taken: u64,
    missing: u64,
    /// The first refusal.
    refused: Option<(Code, String)>,
}

impl Tally {
    fn add(&mut self, pushed: Pushed) {
        self.taken += u64::from(pushed.taken);
        self.missing += pushed.refused.len() as u64;
        if let Some(first) = pushed.refused.into_iter().next() {
            self.refused.get_or_insert((first.code, first.text));
        }
    }
}
