//! A session that lasts: when its connection breaks it comes back, with all that was declared.
//!
//! The same over the network and for a broker inside the process:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pillarbox::client::{Connect, Mailbox, Session};
//!
//! // One line decides where the broker is:
//! let session = Session::connect(&Connect::default()).await?;
//! // let session = pillarbox::Broker::open("data").await?.session().await?;
//!
//! session.declare(&Mailbox::durable("jobs")).await?;
//! session.push("jobs", "hello").await?;
//! # Ok(())
//! # }
//! ```

mod handling;
mod messages;
mod producer;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::topic::EXCHANGE;
use super::{
    Binding, Client, Connect, Declared, Delivery, Error, Exchange, Mailbox, NewMessage, Pushed,
    Subscribe, Will, topic_binding,
};
use crate::broker::slash;

pub use self::handling::Handling;
pub use self::messages::{Message, Messages};
pub use self::producer::{Linger, Producer, Taken};

/// Makes a new connection.
pub type Opener =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Client, Error>> + Send>> + Send + Sync>;

/// How a session comes back.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// Before the second attempt; doubled each time up to `pause_max`.
    pub pause: Duration,
    pub pause_max: Duration,
    /// Then it gives up, and calls fail.
    pub patience: Duration,
}

impl Default for Again {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }
}

/// Clones share one connection.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    open: Opener,
    again: Again,
    client: tokio::sync::Mutex<Client>,
    known: Mutex<Known>,
}

/// What comes back with a connection, in the order it was asked for.
#[derive(Default)]
struct Known {
    exchanges: Vec<Exchange>,
    mailboxes: Vec<Mailbox>,
    bindings: Vec<Binding>,
    wills: Vec<(u16, Will)>,
}

/// Calls again with a new connection when the old one was lost.
macro_rules! lasting {
    ($session:expr, $client:ident => $call:expr) => {
        loop {
            let $client = $session.client().await?;
            match $call.await {
                Err(error) if error.is_lost() && $client.ended().is_some() => {}
                other => break other,
            }
        }
    };
}

impl Session {
    /// A session with a broker over the network.
    pub async fn connect(connect: &Connect) -> Result<Self, Error> {
        let connect = connect.clone();
        let open: Opener = Box::new(move || {
            let connect = connect.clone();
            Box::pin(async move { Client::connect(&connect).await })
        });
        Self::open(open, Again::default()).await
    }

    /// A session over connections of any kind. The first one must come at once.
    pub async fn open(open: Opener, again: Again) -> Result<Self, Error> {
        let client = tokio::sync::Mutex::new(open().await?);
        let shared = Shared { open, again, client, known: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The connection there is, or a new one.
    pub async fn client(&self) -> Result<Client, Error> {
        let mut client = self.shared.client.lock().await;
        if client.ended().is_none() {
            return Ok(client.clone());
        }
        let Again { mut pause, pause_max, patience } = self.shared.again;
        let until = Instant::now() + patience;
        loop {
            let error = match self.come_back().await {
                Ok(new) => {
                    *client = new.clone();
                    return Ok(new);
                }
                Err(error) if error.is_lost() => error,
                Err(error) => return Err(error),
            };
            if Instant::now() + pause >= until {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn come_back(&self) -> Result<Client, Error> {
        let client = (self.shared.open)().await?;
        let (exchanges, mailboxes, bindings, wills) = {
            let known = self.known();
            let Known { exchanges, mailboxes, bindings, wills } = &*known;
            (exchanges.clone(), mailboxes.clone(), bindings.clone(), wills.clone())
        };
        for exchange in &exchanges {
            client.declare_exchange(exchange).await?;
        }
        for mailbox in &mailboxes {
            client.declare(mailbox).await?;
        }
        for binding in &bindings {
            client.bind(binding).await?;
        }
        for (number, will) in &wills {
            client.set_will(*number, will).await?;
        }
        Ok(client)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a mailbox, or finds it as it was declared before; again after a lost connection.
    pub async fn declare(&self, mailbox: &Mailbox) -> Result<Declared, Error> {
        let declared = lasting!(self, client => client.declare(mailbox))?;
        let named = Mailbox { name: declared.name.clone(), ..mailbox.clone() };
        let mut known = self.known();
        known.mailboxes.retain(|it| it.name != named.name);
        known.mailboxes.push(named);
        Ok(declared)
    }

    pub async fn declare_exchange(&self, exchange: &Exchange) -> Result<(), Error> {
        lasting!(self, client => client.declare_exchange(exchange))?;
        let mut known = self.known();
        known.exchanges.retain(|it| it.name != exchange.name);
        known.exchanges.push(exchange.clone());
        Ok(())
    }

    pub async fn bind(&self, binding: &Binding) -> Result<(), Error> {
        lasting!(self, client => client.bind(binding))?;
        let mut known = self.known();
        if !known.bindings.contains(binding) {
            known.bindings.push(binding.clone());
        }
        Ok(())
    }

    pub async fn unbind(&self, binding: &Binding) -> Result<(), Error> {
        self.known().bindings.retain(|it| it != binding);
        lasting!(self, client => client.unbind(binding))
    }

    /// Deletes a mailbox with everything in it; returns how many messages that was.
    pub async fn delete(&self, mailbox: &str) -> Result<u64, Error> {
        self.forget(mailbox);
        lasting!(self, client => client.delete(mailbox, false, false))
    }

    /// It does not come back with the next connection.
    fn forget(&self, mailbox: &str) {
        let mut known = self.known();
        known.mailboxes.retain(|it| it.name != mailbox);
        known.bindings.retain(|it| it.to_exchange || it.destination != mailbox);
    }

    /// What is known of a mailbox; an error if there is none.
    pub async fn find(&self, mailbox: &str) -> Result<Declared, Error> {
        lasting!(self, client => client.find(mailbox))
    }

    /// Leaves a will, in the place of an earlier one of the same number.
    pub async fn set_will(&self, number: u16, will: &Will) -> Result<(), Error> {
        lasting!(self, client => client.set_will(number, will))?;
        let mut known = self.known();
        known.wills.retain(|(it, _)| *it != number);
        known.wills.push((number, will.clone()));
        Ok(())
    }

    pub async fn clear_will(&self, number: u16) -> Result<(), Error> {
        self.known().wills.retain(|(it, _)| *it != number);
        lasting!(self, client => client.clear_will(number))
    }

    /// Adds a message to a mailbox; returns when the broker has it safely.
    ///
    /// A connection that is lost before the broker's word makes it be sent again: it may come twice.
    pub async fn push(&self, mailbox: &str, message: impl Into<NewMessage>) -> Result<(), Error> {
        let message = message.into();
        lasting!(self, client => client.push(mailbox, message.clone()))
    }

    /// Adds messages to a mailbox in one go.
    pub async fn push_batch(
        &self,
        mailbox: &str,
        messages: &[NewMessage],
    ) -> Result<Pushed, Error> {
        lasting!(self, client => client.push_batch(mailbox, messages))
    }

    /// Publishes to whoever subscribed to the topic (`a/b/c`); nobody is no error.
    pub async fn publish_topic(
        &self,
        topic: &str,
        message: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        let (message, key) = (message.into(), slash::key(topic)?);
        lasting!(self, client => async {
            let receipt = client.start_publish(EXCHANGE, &key, [&message]).await?;
            receipt.pushed().await?.into_result()
        })
    }

    /// Messages of a mailbox as they come, also over lost connections: what was not settled comes again.
    pub async fn subscribe(&self, mailbox: &str, subscribe: &Subscribe) -> Result<Messages, Error> {
        Messages::start(self.clone(), mailbox.into(), subscribe.clone(), false).await
    }

    /// Messages of all topics that match the pattern (`a/+/c`, `a/#`), from now on.
    pub async fn subscribe_topic(
        &self,
        pattern: &str,
        subscribe: &Subscribe,
    ) -> Result<Messages, Error> {
        let mailbox = self.declare(&Mailbox::private()).await?.name;
        self.bind(&topic_binding(pattern, &mailbox)?).await?;
        Messages::start(self.clone(), mailbox, subscribe.clone(), true).await
    }

    /// Sends a request to a mailbox and waits for the reply. The box for it is there before the request is sent.
    ///
    /// Not sent again when the connection is lost, as it may have been done.
    pub async fn request(
        &self,
        mailbox: &str,
        message: impl Into<NewMessage>,
        patience: Duration,
    ) -> Result<Delivery, Error> {
        self.client().await?.request(mailbox, message, patience).await
    }

    /// Gathers single messages into batches.
    pub fn producer(&self, mailbox: &str, linger: Linger) -> Producer {
        Producer::start(self.clone(), mailbox.into(), linger)
    }

    /// Says goodbye. Subscriptions, producers and handlers of the session end with errors.
    pub async fn close(self) -> Result<(), Error> {
        self.shared.client.lock().await.clone().close().await
    }
}
