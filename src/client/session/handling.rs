//! Handlers: a function for each message, whose error puts the message back.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use super::{Message, Session};
use crate::client::{Error, NewMessage, Outcome, Subscribe};

/// A handler at work. It ends when this is dropped; what it holds returns to the mailbox.
#[must_use = "the handler ends when this is dropped"]
pub struct Handling {
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Session {
    /// Calls a function for each message of a mailbox, up to `credit` of them at the same time.
    ///
    /// `Ok` accepts the message. `Err`, and a panic, is a failed attempt: the message returns to its place, and where the
    /// mailbox has a delivery limit it goes to the dead letters after so many.
    pub async fn handle<F, R, E>(
        &self,
        mailbox: &str,
        subscribe: &Subscribe,
        handler: F,
    ) -> Result<Handling, Error>
    where
        F: Fn(Arc<Message>) -> R + Send + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut messages = self.subscribe(mailbox, subscribe).await?;
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let message = tokio::select! {
                    message = messages.next() => Arc::new(message?),
                    Some(_) = running.join_next() => continue,
                };
                let handled = handler(message.clone());
                running.spawn(async move {
                    let guard = Unhandled(Some(message));
                    let handled = handled.await;
                    if let Err(error) = &handled {
                        tracing::debug!(%error, "a handler failed");
                    }
                    guard.handled(handled.is_ok());
                });
            }
        });
        Ok(Handling { task: Some(task) })
    }

    /// Answers requests to a mailbox: the function's `Ok` is the reply. An error is a failed attempt, as in `handle`.
    pub async fn serve<F, R, E>(
        &self,
        mailbox: &str,
        subscribe: &Subscribe,
        server: F,
    ) -> Result<Handling, Error>
    where
        F: Fn(Arc<Message>) -> R + Send + 'static,
        R: Future<Output = Result<NewMessage, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.handle(mailbox, subscribe, move |message| {
            let reply = server(message.clone());
            async move {
                let reply = reply.await.map_err(|error| error.to_string())?;
                match message.reply(reply).await {
                    // Whoever asked has gone: nobody waits for the answer.
                    Ok(()) | Err(Error::Refused { .. }) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await
    }
}

/// A message whose handler did not come to an end failed.
struct Unhandled(Option<Arc<Message>>);

impl Unhandled {
    fn handled(mut self, well: bool) {
        if let Some(message) = self.0.take() {
            let failed = Outcome::Failed { delay: Duration::ZERO };
            let _ = message.settle(if well { Outcome::Accepted } else { failed });
        }
    }
}

impl Drop for Unhandled {
    fn drop(&mut self) {
        if let Some(message) = self.0.take() {
            let _ = message.settle(Outcome::Failed { delay: Duration::ZERO });
        }
    }
}

impl Handling {
    /// Waits until it ends, which is always for an error.
    pub async fn ended(mut self) -> Error {
        match self.task.take() {
            Some(task) => match task.await {
                Ok(Err(error)) => error,
                Ok(Ok(())) => Error::Lost("the handler has ended".into()),
                Err(error) => Error::Lost(format!("the handler has ended: {error}")),
            },
            None => Error::Lost("the handler has ended".into()),
        }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
