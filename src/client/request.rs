//! Request and reply: the box for replies is there before the request is sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Client, Delivery, Error, Mailbox, NewMessage, Subscribe};

/// The mailbox in which a client receives replies, and who waits for which.
pub(super) struct Replies {
    mailbox: Bytes,
    waiting: Arc<Mutex<HashMap<Bytes, oneshot::Sender<Delivery>>>>,
    last: AtomicU64,
    task: JoinHandle<()>,
}

impl Client {
    /// Sends a request to a mailbox and waits for the reply.
    pub async fn request(
        &self,
        mailbox: &str,
        message: impl Into<NewMessage>,
        patience: Duration,
    ) -> Result<Delivery, Error> {
        let replies = self.replies.get_or_try_init(|| Replies::start(self)).await?;
        let (to, reply) = oneshot::channel();
        let key = replies.expect(to);
        let waiting = Waiting { replies, key: key.clone() };
        let message = message.into().with(|it| {
            it.reply_to = Some(replies.mailbox.clone());
            it.correlation_id = Some(key);
        });
        let answered = timeout(patience, async {
            self.push(mailbox, message).await?;
            reply.await.map_err(|_| Error::Lost("replies have ended".into()))
        });
        let answered = answered.await.unwrap_or(Err(Error::Timeout));
        drop(waiting);
        answered
    }

    /// Answers a request that was delivered.
    pub async fn reply(
        &self,
        request: &Delivery,
        message: impl Into<NewMessage>,
    ) -> Result<(), Error> {
        let asked = request.properties();
        let to = asked.reply_to.unwrap_or_default();
        let to = String::from_utf8_lossy(&to);
        let message = message.into().with(|it| it.correlation_id = asked.correlation_id);
        self.push(&to, message).await
    }
}

impl Replies {
    async fn start(client: &Client) -> Result<Self, Error> {
        let mailbox = client.declare(&Mailbox::private()).await?.name;
        let subscribe = Subscribe { credit: 0, settled: true, ..Subscribe::default() };
        let mut replies = client.subscribe(&mailbox, &subscribe).await?;
        let waiting: Arc<Mutex<HashMap<Bytes, oneshot::Sender<Delivery>>>> = Arc::default();
        let found = waiting.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(reply)) = replies.next().await {
                let Some(key) = reply.properties().correlation_id else { continue };
                let to = found.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                if let Some(to) = to {
                    let _ = to.send(reply);
                }
            }
            // Nobody will be answered any more.
            found.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Self { mailbox: mailbox.into(), waiting, last: AtomicU64::new(1), task })
    }

    /// A key that was never used before, so that a late reply finds nobody else.
    fn expect(&self, to: oneshot::Sender<Delivery>) -> Bytes {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let key = Bytes::from(number.to_string());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(key.clone(), to);
        key
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody waits any longer once it is dropped.
struct Waiting<'a> {
    replies: &'a Replies,
    key: Bytes,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.replies.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.key);
    }
}
