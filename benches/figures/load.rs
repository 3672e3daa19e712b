//! Messages out and in, and how long that took.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::Value;
use pillarbox::client::{Client, Delivery, Mailbox, NewMessage, Receipt, Subscribe, Subscription};

use super::serving::Serving;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Messages sent together, and how many of such batches wait for their confirm.
pub(crate) const BATCH: u64 = 250;
const WINDOW: usize = 8;

/// What a stretch of the run cost the broker.
pub(crate) struct Meter<'a> {
    serving: &'a Serving,
    begun: Instant,
    cpu: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(serving: &'a Serving) -> Self {
        serving.forget_peak();
        Self { serving, begun: Instant::now(), cpu: serving.cpu() }
    }

    /// A line: so many messages of so many bytes.
    pub(crate) fn tell(&self, what: &str, messages: u64, size: u64) {
        let took = self.begun.elapsed().as_secs_f64();
        let cpu = (self.serving.cpu() - self.cpu) * 1e6 / messages as f64;
        let (now, peak) = self.serving.memory();
        println!(
            "  {what:34} {:6.0} k/s {:6.0} MiB/s {cpu:6.2} CPU-s/1M   memory {now} MiB, at the peak {peak} MiB",
            messages as f64 / took / 1e3,
            (messages * size) as f64 / took / 1_048_576.0,
        );
    }
}

pub(crate) fn mailbox(name: &str, policy: &str) -> Mailbox {
    Mailbox::durable(name).argument("x-queue-type", Value::text(policy))
}

/// Pushes in the background of the confirms, a window ahead.
pub(crate) struct Pushing<'a> {
    client: &'a Client,
    waiting: VecDeque<Receipt>,
}

impl<'a> Pushing<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, waiting: VecDeque::new() }
    }

    pub(crate) async fn push(
        &mut self,
        exchange: &str,
        key: &str,
        messages: &[NewMessage],
    ) -> Result<(), Failure> {
        while self.waiting.len() >= WINDOW {
            self.confirm().await?;
        }
        self.waiting.push_back(self.client.start_push(exchange, key, messages).await?);
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), Failure> {
        if let Some(receipt) = self.waiting.pop_front() {
            receipt.await?.into_result()?;
        }
        Ok(())
    }

    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.confirm().await?;
        }
        Ok(())
    }
}

/// A batch of equal messages.
pub(crate) fn batch(size: u64) -> Vec<NewMessage> {
    let body = Bytes::from(vec![b'x'; size as usize]);
    (0..BATCH).map(|_| NewMessage::new(body.clone())).collect()
}

pub(crate) async fn fill(
    client: &Client,
    name: &str,
    messages: u64,
    size: u64,
) -> Result<(), Failure> {
    let batch = batch(size);
    let mut pushing = Pushing::new(client);
    for _ in 0..messages / BATCH {
        pushing.push("", name, &batch).await?;
    }
    pushing.end().await
}

/// Reads so many messages, each of them settled as it is sent.
pub(crate) async fn read(
    client: &Client,
    name: &str,
    subscribe: &Subscribe,
    messages: u64,
) -> Result<(), Failure> {
    take(client.subscribe(name, subscribe).await?, messages).await
}

/// Reads so many messages to the end of a subscription.
pub(crate) async fn take(mut subscription: Subscription, messages: u64) -> Result<(), Failure> {
    let (mut seen, mut next) = (0, None);
    while seen < messages {
        let batch = subscription.next_batch().await?;
        if batch.is_empty() {
            return Err(format!("no more than {seen} messages came").into());
        }
        for delivery in &batch {
            in_order(delivery, &mut next)?;
        }
        seen += batch.len() as u64;
    }
    subscription.end().await?;
    Ok(())
}

/// Offsets of a stream have no gaps.
fn in_order(delivery: &Delivery, next: &mut Option<u64>) -> Result<(), Failure> {
    let Some(offset) = delivery.offset else { return Ok(()) };
    if next.is_some_and(|next| next != offset) {
        return Err(format!("offset {offset} comes after a gap").into());
    }
    *next = Some(offset + 1);
    Ok(())
}

pub(crate) fn settled() -> Subscribe {
    Subscribe { credit: 0, settled: true, ..Subscribe::default() }
}

pub(crate) fn from_first() -> Subscribe {
    settled().argument("x-stream-offset", Value::text("first"))
}

/// The median, 99 % and the largest, for people.
pub(crate) fn spread(mut values: Vec<Duration>) -> String {
    values.sort_unstable();
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    format!("p50 {:.1?}, p99 {:.1?}, at most {:.1?}", at(0.5), at(0.99), at(1.0))
}
