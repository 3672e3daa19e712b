//! A stream of messages that goes on over lost connections.

use std::ops::Deref;
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::client::{Client, Delivery, Error, NewMessage, Outcome, Subscribe, Subscription};

/// Messages of one mailbox. Dropping it returns what is unsettled.
pub struct Messages {
    session: Session,
    mailbox: String,
    subscribe: Subscribe,
    now: Option<(Client, Subscription)>,
    /// The mailbox was made for this stream and is deleted with it.
    own: bool,
}

/// A message that came, and the way back to its broker.
pub struct Message {
    delivery: Delivery,
    client: Client,
}

impl Messages {
    pub(super) async fn start(
        session: Session,
        mailbox: String,
        subscribe: Subscribe,
        own: bool,
    ) -> Result<Self, Error> {
        let mut messages = Self { session, mailbox, subscribe, now: None, own };
        messages.again().await?;
        Ok(messages)
    }

    /// The mailbox they come from.
    pub fn mailbox(&self) -> &str {
        &self.mailbox
    }

    /// Subscribes unless it is.
    async fn again(&mut self) -> Result<&mut (Client, Subscription), Error> {
        while self.now.is_none() {
            let client = self.session.client().await?;
            match client.subscribe(&self.mailbox, &self.subscribe).await {
                Ok(subscription) => self.now = Some((client, subscription)),
                Err(error) if error.is_lost() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.now.as_mut().expect("it was put there"))
    }

    /// The next message. An error ends the stream: the mailbox is gone, or the broker does not come back.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let (client, subscription) = self.again().await?;
            match subscription.next().await {
                Ok(Some(delivery)) => {
                    return Ok(Message { delivery, client: client.clone() });
                }
                Ok(None) => return Err(Error::Lost("the subscription was ended".into())),
                Err(error) if error.is_lost() => self.now = None,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a message that fits, at most so long. What does not fit is left alone: it returns to its place.
    pub async fn wait_until(
        &mut self,
        fits: impl Fn(&Delivery) -> bool,
        patience: Duration,
    ) -> Result<Message, Error> {
        let until = Instant::now() + patience;
        let mut others: Vec<Message> = Vec::new();
        let found = loop {
            let message = match timeout_at(until, self.next()).await {
                Err(_) => break Err(Error::Timeout),
                Ok(Err(error)) => break Err(error),
                Ok(Ok(message)) => message,
            };
            if fits(&message) {
                break Ok(message);
            }
            others.push(message);
            let credit = self.subscribe.credit;
            if credit > 0
                && others.len() as u64 >= u64::from(credit)
                && let Some((_, subscription)) = &self.now
            {
                // They are all held: room for one more.
                subscription.set_credit(others.len() as u32 + 1).await?;
            }
        };
        let held = others.len() as u64 >= u64::from(self.subscribe.credit);
        if held && let Some((_, subscription)) = &self.now {
            subscription.set_credit(self.subscribe.credit).await?;
        }
        for other in &others {
            other.settle(Outcome::Released)?;
        }
        found
    }

    /// As a `Stream`, which ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Message, Error>> + Send {
        stream::unfold(Some(self), |messages| async move {
            let mut messages = messages?;
            match messages.next().await {
                Ok(message) => Some((Ok(message), Some(messages))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if self.own {
            self.session.forget(&self.mailbox);
            if let Some((client, _)) = &self.now {
                client.delete_later(&self.mailbox);
            }
        }
    }
}

impl Message {
    /// Settles it. What happened to the connection it came by happened to it too: then it comes again.
    pub fn settle(&self, outcome: Outcome) -> Result<(), Error> {
        match self.client.settle_later([&self.delivery], outcome) {
            Err(error) if error.is_lost() => Ok(()),
            other => other,
        }
    }

    /// It is done and goes.
    pub fn accept(&self) -> Result<(), Error> {
        self.settle(Outcome::Accepted)
    }

    /// Back to its place.
    pub fn release(&self) -> Result<(), Error> {
        self.settle(Outcome::Released)
    }

    /// To the dead letters, or away.
    pub fn reject(&self) -> Result<(), Error> {
        self.settle(Outcome::Rejected)
    }

    /// Settles it and waits until the broker has it done; an error if it was not held any longer.
    pub async fn settle_surely(&self, outcome: Outcome) -> Result<(), Error> {
        self.client.settle([&self.delivery], outcome).await
    }

    /// Answers a request.
    pub async fn reply(&self, message: impl Into<NewMessage>) -> Result<(), Error> {
        self.client.reply(&self.delivery, message).await
    }
}

impl Deref for Message {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}
