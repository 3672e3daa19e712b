//! Key-value mailboxes: the newest value of each key.

use super::list::{List, Row};
use super::{Client, Delivery, Error, NewMessage, Subscribe};
use crate::broker::Value;

impl Client {
    /// Gives a key a new value.
    pub async fn put(
        &self,
        mailbox: &str,
        key: &str,
        value: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        self.push(mailbox, value.into().header("x-key", key)).await
    }

    /// The key has no value any more. Those who watch are told by a message with the header `x-tombstone`.
    pub async fn erase(&self, mailbox: &str, key: &str) -> Result<(), Error> {
        let message = NewMessage::from("").with(|it| {
            it.headers_mut().set("x-tombstone", Value::Bool(true));
        });
        self.put(mailbox, key, message).await
    }

    /// The newest value of a key.
    pub async fn get(&self, mailbox: &str, key: &str) -> Result<Option<Delivery>, Error> {
        let subscribe = of_key(key).argument("x-stream-until", Value::text("last"));
        let mut messages = self.subscribe(mailbox, &subscribe).await?;
        // It has come to its end, and nobody waits until the broker knows that this side knows.
        messages.next().await
    }

    /// The values of a key that are kept, oldest first.
    pub async fn history(&self, mailbox: &str, key: &str) -> Result<Vec<Delivery>, Error> {
        let subscribe = of_key(key)
            .argument("x-stream-offset", Value::text("first"))
            .argument("x-stream-until", Value::text("last"));
        let mut messages = self.subscribe(mailbox, &subscribe).await?;
        let mut found = Vec::new();
        while let Some(delivery) = messages.next().await? {
            found.push(delivery);
        }
        messages.end().await?;
        Ok(found)
    }

    /// Keys that have a value, in order: `name`, `offset` of the newest value, and how many `values` are kept.
    pub async fn keys(&self, mailbox: &str) -> Result<Vec<Row>, Error> {
        self.list(List::Keys, mailbox).await
    }
}

fn of_key(key: &str) -> Subscribe {
    Subscribe { settled: true, ..Subscribe::default() }.argument("x-key", Value::text(key))
}
