//! Last wills: messages that the broker publishes when the connection ends.

use pillarbox_native::{self as wire, PushBatch};

use super::{Client, Error, NewMessage};

/// When a will is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WillOn {
    /// Where the connection is lost, but not where its client said goodbye.
    #[default]
    Loss,
    /// At every end of the connection.
    Any,
}

/// A message to publish when the connection ends.
#[derive(Clone, Debug)]
pub struct Will {
    pub on: WillOn,
    /// Empty: `key` names a mailbox.
    pub exchange: String,
    pub key: String,
    pub message: NewMessage,
}

impl Will {
    /// A will to a mailbox, for when the connection is lost.
    pub fn to(mailbox: &str, message: impl Into<NewMessage>) -> Self {
        Self {
            on: WillOn::Loss,
            exchange: String::new(),
            key: mailbox.into(),
            message: message.into(),
        }
    }

    /// The same at every end of the connection.
    #[must_use]
    pub fn on_any_end(mut self) -> Self {
        self.on = WillOn::Any;
        self
    }
}

impl Client {
    /// Leaves a will with the broker, in the place of an earlier one of the same number.
    ///
    /// The broker publishes it while it lives: should it die too, nobody is left to do so.
    pub async fn set_will(&self, number: u16, will: &Will) -> Result<(), Error> {
        self.put_will(number, Some(will)).await
    }

    pub async fn clear_will(&self, number: u16) -> Result<(), Error> {
        self.put_will(number, None).await
    }

    async fn put_will(&self, number: u16, will: Option<&Will>) -> Result<(), Error> {
        let any = will.is_some_and(|will| will.on == WillOn::Any);
        let (exchange, key) = will.map_or(("", ""), |will| (&*will.exchange, &*will.key));
        let receipt = self.line.ask(|id, out| {
            let mut batch = PushBatch::will(id, number, any, exchange, key.as_bytes(), out);
            if let Some(Will { message, .. }) = will {
                let mut properties = Vec::new();
                message.put_properties(&mut properties);
                let key = message.key.as_ref().map(String::as_bytes);
                let (due, body) = (message.due, &message.body);
                batch.add(wire::NewMessage { key, due, properties: &properties, body }, out);
            }
            batch.end(out);
        })?;
        receipt.done().await.map(drop)
    }
}
