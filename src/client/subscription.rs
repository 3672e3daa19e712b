//! Subscriptions: messages as they come, as many as the credit lets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pillarbox_native::{self as wire, Unsubscribe};
use tokio::sync::Notify;

use super::line::{Line, Receipt};
use super::message::Delivery;
use super::{Client, Error, table};
use crate::broker::{Table, Value};

/// Deliveries that are settled when they are sent know no credit: beyond this nothing more is read
/// from the connection, also no answers, until they are taken.
const UNTAKEN_MAX: usize = 16 << 20;

/// How to subscribe.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Messages that may be unsettled at the same time; 0 for no limit.
    pub credit: u32,
    /// Messages are gone from the mailbox once they are sent.
    pub settled: bool,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Consumers of a higher priority are served first.
    pub priority: i32,
    /// Only messages that match this condition, as JMS has it; the others stay in the mailbox.
    pub selector: Option<String>,
    /// `x-stream-offset`, `x-stream-until`, `x-stream-cursor` and others.
    pub arguments: Table,
}

impl Subscribe {
    #[must_use]
    pub fn argument(mut self, name: &str, value: Value) -> Self {
        self.arguments.set(name, value);
        self
    }
}

impl Default for Subscribe {
    fn default() -> Self {
        Self {
            credit: 100,
            settled: false,
            exclusive: false,
            priority: 0,
            selector: None,
            arguments: Table::new(),
        }
    }
}

/// Messages of a mailbox. Dropping it returns what is unsettled.
pub struct Subscription {
    line: Arc<Line>,
    number: u16,
    queue: Arc<Queue>,
    /// Taken out of the queue and not yet out of here.
    taken: VecDeque<Delivery>,
    ended: bool,
}

/// Deliveries on their way from the reader to the subscriber.
pub(super) struct Queue {
    state: Mutex<Queued>,
    filled: Notify,
    emptied: Notify,
    settled: bool,
}

#[derive(Default)]
struct Queued {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    ended: Option<Option<Error>>,
}

impl Client {
    /// Messages of a mailbox, as they come.
    pub async fn subscribe(
        &self,
        mailbox: &str,
        subscribe: &Subscribe,
    ) -> Result<Subscription, Error> {
        let (number, queue) = self.line.subscription(subscribe.settled)?;
        let line = self.line.clone();
        let subscription =
            Subscription { line, number, queue, taken: VecDeque::new(), ended: false };
        let mut arguments = subscribe.arguments.clone();
        if let Some(selector) = &subscribe.selector {
            arguments.set("selector", Value::text(selector));
        }
        let arguments = table::encode(&arguments);
        let asked = wire::Subscribe {
            subscription: number,
            mailbox,
            credit: subscribe.credit,
            priority: subscribe.priority,
            settled: subscribe.settled,
            exclusive: subscribe.exclusive,
            ids: false,
            arguments: &arguments,
        };
        self.line.ask(|id, out| asked.encode(id, out))?.done().await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// Told apart by it from the connection's others.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// The next message; `None` once the subscription was ended by this side, or everything was sent up to `x-stream-until`.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            if let Some(delivery) = self.taken.pop_front() {
                return Ok(Some(delivery));
            }
            if !self.take().await? {
                return Ok(None);
            }
        }
    }

    /// All messages there are, at least one; none where `next` has none.
    pub async fn next_batch(&mut self) -> Result<VecDeque<Delivery>, Error> {
        if self.taken.is_empty() {
            self.take().await?;
        }
        Ok(std::mem::take(&mut self.taken))
    }

    /// Waits for messages. False at the end.
    async fn take(&mut self) -> Result<bool, Error> {
        loop {
            let filled = self.queue.filled.notified();
            {
                let mut queued = self.queue.lock();
                if !queued.deliveries.is_empty() {
                    std::mem::swap(&mut queued.deliveries, &mut self.taken);
                    queued.bytes = 0;
                    self.queue.emptied.notify_one();
                    return Ok(true);
                }
                match &queued.ended {
                    Some(Some(error)) => return Err(error.clone()),
                    Some(None) => return Ok(false),
                    None => {}
                }
            }
            filled.await;
        }
    }

    /// Changes how many messages may be unsettled.
    pub async fn set_credit(&self, credit: u32) -> Result<(), Error> {
        let number = self.number;
        let receipt = self.line.ask(|id, out| wire::encode_credit(id, number, credit, out))?;
        receipt.done().await.map(drop)
    }

    /// Ends the subscription and waits until what is unsettled is back in the mailbox.
    pub async fn end(mut self) -> Result<(), Error> {
        match self.let_go() {
            Some(receipt) => receipt?.done().await.map(drop),
            None => Ok(()),
        }
    }

    /// Tells the broker, once.
    fn let_go(&mut self) -> Option<Result<Receipt, Error>> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        self.queue.end(None);
        let asked = Unsubscribe { subscription: self.number, keep: false };
        let receipt = self.line.ask(|id, out| asked.encode(id, out));
        // The broker reads in order, so the number is free for whoever asks next.
        self.line.forget_subscription(self.number);
        Some(receipt)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Nobody waits for the answer.
        drop(self.let_go());
    }
}

impl Queue {
    pub(super) fn new(settled: bool) -> Self {
        let state = Mutex::default();
        Self { state, filled: Notify::new(), emptied: Notify::new(), settled }
    }

    /// True if the reader should wait.
    pub(super) fn add(&self, deliveries: Vec<Delivery>) -> bool {
        let mut queued = self.lock();
        if queued.ended.is_some() {
            return false;
        }
        if self.settled {
            queued.bytes += deliveries.iter().map(Delivery::size).sum::<usize>();
        }
        queued.deliveries.extend(deliveries);
        let full = queued.bytes > UNTAKEN_MAX;
        drop(queued);
        self.filled.notify_one();
        full
    }

    pub(super) async fn has_room(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let queued = self.lock();
                if queued.bytes <= UNTAKEN_MAX || queued.ended.is_some() {
                    return;
                }
            }
            emptied.await;
        }
    }

    pub(super) fn end(&self, error: Option<Error>) {
        self.lock().ended.get_or_insert(error);
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
