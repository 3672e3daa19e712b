//! A client of a broker, over the native protocol.
//!
//! ```no_run
//! # async fn example() -> Result<(), pillarbox::client::Error> {
//! use pillarbox::client::{Client, Connect, Mailbox, Outcome, Subscribe};
//!
//! let client = Client::connect(&Connect::default()).await?;
//! client.declare(&Mailbox::durable("jobs")).await?;
//! client.push("jobs", "hello").await?;
//!
//! let mut jobs = client.subscribe("jobs", &Subscribe::default()).await?;
//! while let Some(job) = jobs.next().await? {
//!     println!("{}", String::from_utf8_lossy(job.body()));
//!     client.settle([&job], Outcome::Accepted).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod browse;
mod connect;
mod cursor;
mod declare;
mod error;
mod kv;
mod line;
mod list;
mod message;
mod owner;
mod pipe;
mod reader;
mod redrive;
mod request;
mod rewind;
mod session;
mod settle;
mod subscription;
mod table;
mod tls;
mod topic;
mod will;

use std::sync::Arc;
use std::time::Duration;

use pillarbox_native::{self as wire, Code, PushBatch};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::browse::{Browse, Browsed};
pub use self::connect::{Connect, Proof};
pub use self::declare::{Binding, Declared, Exchange, Mailbox};
pub use self::error::Error;
pub use self::list::{Defined, List, Row, Waiting};
pub use self::message::{Delivery, Due, NewMessage};
pub(crate) use self::owner::OwnerFile;
pub use self::pipe::{Pipe, PipeListener, PipeReader, PipeWriter};
pub use self::redrive::{Redrive, Redriven};
pub use self::rewind::Rewind;
pub use self::session::{
    Again, Handling, Linger, Message, Messages, Opener, Producer, Session, Taken,
};
pub use self::settle::Outcome;
pub use self::subscription::{Subscribe, Subscription};
pub use self::tls::Tls;
pub use self::topic::topic_binding;
pub use self::will::{Will, WillOn};

pub use self::line::Receipt;
use self::line::{Answer, Line};
use self::request::Replies;

/// A connection to a broker. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Client {
    line: Arc<Line>,
    replies: Arc<tokio::sync::OnceCell<Replies>>,
}

/// What became of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Messages the broker has; they are durable if they were meant to be.
    pub taken: u32,
    pub refused: Vec<RefusedMessage>,
    /// Those among the taken that the mailbox had before: their places in the push, and the positions of the first ones.
    pub duplicates: Vec<(u32, u64)>,
}

/// A message of a push that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMessage {
    /// Its place in the push, from 0.
    pub index: u32,
    pub code: Code,
    pub text: String,
}

impl Pushed {
    /// The first refusal as an error.
    pub fn into_result(self) -> Result<(), Error> {
        match self.refused.into_iter().next() {
            None => Ok(()),
            Some(refused) => Err(Error::Refused { code: refused.code, text: refused.text }),
        }
    }
}

/// The messages of a pull.
#[derive(Clone, Debug, Default)]
pub struct Pulled {
    pub deliveries: Vec<Delivery>,
    /// How many were ready in the mailbox behind them.
    pub left: u64,
}

impl Client {
    /// Opens a connection and logs in.
    pub async fn connect(connect: &Connect) -> Result<Self, Error> {
        let line = connect.open().await?;
        Ok(Self { line: Arc::new(line), replies: Arc::default() })
    }

    /// Logs in over a stream that leads to a broker already, such as one inside the process.
    pub async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        connect: &Connect,
    ) -> Result<Self, Error> {
        let line = connect.open_over(io).await?;
        Ok(Self { line: Arc::new(line), replies: Arc::default() })
    }

    /// Why the connection has ended, if it has.
    pub fn ended(&self) -> Option<Error> {
        self.line.ended()
    }

    /// Adds a message to a mailbox; returns when the broker has it safely.
    pub async fn push(&self, mailbox: &str, message: impl Into<NewMessage>) -> Result<(), Error> {
        self.publish("", mailbox, message).await
    }

    /// Gives a message to an exchange. A message that no mailbox takes is an error.
    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        message: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        self.start_push(exchange, key, [&message.into()]).await?.pushed().await?.into_result()
    }

    /// As `push`, and returns when the host where the mailbox lives has it safely, whichever that is. An error where the
    /// message is lost on its way: refused there, expired, or taken away by an operator.
    pub async fn push_home(
        &self,
        mailbox: &str,
        message: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        self.start_push_home("", mailbox, [&message.into()]).await?.pushed().await?.into_result()
    }

    /// Adds messages to a mailbox in one go.
    pub async fn push_batch(
        &self,
        mailbox: &str,
        messages: impl IntoIterator<Item = &NewMessage>,
    ) -> Result<Pushed, Error> {
        self.start_push("", mailbox, messages).await?.pushed().await
    }

    /// Sends messages and returns before the broker has them; the receipt tells when it does.
    pub async fn start_push(
        &self,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = &NewMessage>,
    ) -> Result<Receipt, Error> {
        self.start(wire::Push::MANDATORY, exchange, key, messages).await
    }

    /// As `start_push`, and the receipt waits for every host to which messages go.
    pub async fn start_push_home(
        &self,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = &NewMessage>,
    ) -> Result<Receipt, Error> {
        self.start(wire::Push::MANDATORY | wire::Push::HOME, exchange, key, messages).await
    }

    /// As `start_push`, and messages of an exchange that no mailbox takes are no error.
    pub async fn start_publish(
        &self,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = &NewMessage>,
    ) -> Result<Receipt, Error> {
        self.start(0, exchange, key, messages).await
    }

    async fn start(
        &self,
        flags: u8,
        exchange: &str,
        key: &str,
        messages: impl IntoIterator<Item = &NewMessage>,
    ) -> Result<Receipt, Error> {
        self.line.has_room().await?;
        let mut properties = Vec::new();
        self.line.ask(|id, out| {
            let mut push = PushBatch::begin(id, flags, exchange, key.as_bytes(), out);
            for message in messages {
                properties.clear();
                message.put_properties(&mut properties);
                let message = wire::NewMessage {
                    key: message.key.as_ref().map(String::as_bytes),
                    due: message.due,
                    properties: &properties,
                    body: &message.body,
                };
                push.add(message, out);
            }
            push.end(out);
        })
    }

    /// Takes up to `count` messages from a mailbox, and waits up to `wait` for the first. They are to be settled.
    pub async fn pull(&self, mailbox: &str, count: u32, wait: Duration) -> Result<Pulled, Error> {
        self.pull_as(mailbox, count, wait, false).await
    }

    /// As `pull`, and the messages are gone from the mailbox once they are sent.
    pub async fn pull_settled(
        &self,
        mailbox: &str,
        count: u32,
        wait: Duration,
    ) -> Result<Pulled, Error> {
        self.pull_as(mailbox, count, wait, true).await
    }

    async fn pull_as(
        &self,
        mailbox: &str,
        count: u32,
        wait: Duration,
        settled: bool,
    ) -> Result<Pulled, Error> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let pull = wire::Pull { mailbox, count, wait_ms, settled };
        match self.line.ask(|id, out| pull.encode(id, out))?.answer().await? {
            Answer::Pulled(pulled) => Ok(pulled),
            _ => Err(Error::unexpected("a pull")),
        }
    }

    /// Says goodbye and waits until the broker has put everything away.
    pub async fn close(self) -> Result<(), Error> {
        self.line.close().await
    }
}
