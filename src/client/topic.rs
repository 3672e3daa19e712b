//! Topics with slashes: publish to `a/b`, subscribe to `a/+` and `a/#`.

use super::{Binding, Client, Error, Mailbox, NewMessage, Subscribe, Subscription};
use crate::broker::slash::{self, SlashError};

/// The exchange behind topics; AMQP clients find the same messages there, with dots for slashes.
pub(super) const EXCHANGE: &str = "amq.topic";

impl Client {
    /// Publishes to whoever subscribed; nobody is no error.
    pub async fn publish_topic(
        &self,
        topic: &str,
        message: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        let key = slash::key(topic)?;
        let pushed = self.start_publish(EXCHANGE, &key, [&message.into()]).await?.pushed().await?;
        pushed.into_result()
    }

    /// Messages of all topics that match, from now on, in a mailbox that goes with the connection.
    pub async fn subscribe_topic(
        &self,
        pattern: &str,
        subscribe: &Subscribe,
    ) -> Result<Subscription, Error> {
        let mailbox = self.declare(&Mailbox::private()).await?.name;
        self.bind(&topic_binding(pattern, &mailbox)?).await?;
        self.subscribe(&mailbox, subscribe).await
    }
}

/// Lets messages of matching topics come to a mailbox.
pub fn topic_binding(pattern: &str, mailbox: &str) -> Result<Binding, Error> {
    Ok(Binding {
        source: EXCHANGE.into(),
        destination: mailbox.into(),
        key: slash::pattern(pattern)?,
        ..Binding::default()
    })
}

impl From<SlashError> for Error {
    fn from(error: SlashError) -> Self {
        Self::Topic(error.to_string())
    }
}
