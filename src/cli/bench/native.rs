//! The load over the native protocol.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::{Properties, Value};
use pillarbox::client::{
    Binding, Client, Exchange, Mailbox, NewMessage, Outcome, Receipt, Subscribe, Subscription,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::Failure;
use super::plan::{Found, Plan};
use super::scene::{Scene, Target};
use super::{Bench, content};

/// What still comes must come so soon.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn build(client: &Client, scene: &Scene) -> Result<(), Failure> {
    for name in &scene.mailboxes {
        let mut mailbox = Mailbox { durable: scene.durable, ..Mailbox::durable(name) };
        if scene.stream {
            mailbox = mailbox.argument("x-queue-type", Value::text("stream"));
        }
        client.declare(&mailbox).await?;
    }
    if let Some(exchange) = &scene.exchange {
        let (name, kind) = (exchange.name.clone(), exchange.kind.into());
        let exchange = Exchange { name, kind, durable: scene.durable, ..Exchange::default() };
        client.declare_exchange(&exchange).await?;
    }
    for (source, key, mailbox) in scene.bindings() {
        let (source, destination) = (source.into(), mailbox.into());
        let binding = Binding { source, destination, key: key.into(), ..Binding::default() };
        client.bind(&binding).await?;
    }
    Ok(())
}

pub(super) async fn clear(client: &Client, scene: &Scene) -> Result<(), Failure> {
    for name in &scene.mailboxes {
        client.delete(name, false, false).await?;
    }
    if let Some(exchange) = &scene.exchange {
        client.delete_exchange(&exchange.name, false).await?;
    }
    Ok(())
}

pub(super) async fn produce(
    client: &Client,
    target: &Target,
    bench: &Bench,
    plan: &Plan,
) -> Result<(u64, Instant), Failure> {
    let transient = Properties { delivery_mode: Some(1), ..Properties::default() };
    let properties = bench.transient.then(|| Box::new(transient));
    let mut waiting: VecDeque<(Receipt, u32)> = VecDeque::new();
    let (mut sent, mut unconfirmed) = (0u64, 0u32);
    let mut messages = Vec::new();
    let mut progress = plan.progress();
    let several = target.keys.len() > 1;
    while let Some(due) = plan.due(sent, bench.batch.into(), Instant::now()) {
        if due == 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
            continue;
        }
        while unconfirmed > 0 && unconfirmed + due as u32 > bench.window {
            let Some((receipt, count)) = waiting.pop_front() else { break };
            confirm(receipt).await?;
            unconfirmed -= count;
        }
        // One buffer for all bodies of a batch.
        let size = bench.size as usize;
        let mut bodies = Vec::with_capacity(due as usize * size);
        let now = Instant::now();
        for number in sent..sent + due {
            content::write(number, plan.due_at(number, now), size, &mut bodies);
        }
        let bodies = Bytes::from(bodies);
        messages.clear();
        for at in 0..due as usize {
            let body = bodies.slice(at * size..(at + 1) * size);
            let key = several.then(|| target.keys[target.place(sent + at as u64)].clone());
            let properties = properties.clone();
            messages.push(NewMessage { body, key, properties, ..NewMessage::default() });
        }
        let receipt = client.start_push(&target.exchange, &target.keys[0], &messages).await?;
        waiting.push_back((receipt, due as u32));
        sent += due;
        progress.add(due);
        unconfirmed += due as u32;
    }
    for (receipt, _) in waiting {
        confirm(receipt).await?;
    }
    Ok((sent, Instant::now()))
}

async fn confirm(receipt: Receipt) -> Result<(), Failure> {
    match receipt.await?.refused.into_iter().next() {
        None => Ok(()),
        Some(refused) => Err(Failure::failed(refused.text)),
    }
}

pub(super) struct Listener {
    client: Client,
    messages: Subscription,
}

impl Listener {
    pub(super) async fn open(
        client: Client,
        mailbox: &str,
        bench: &Bench,
    ) -> Result<Self, Failure> {
        let mut subscribe = Subscribe { credit: bench.credit, ..Subscribe::default() };
        if bench.stream {
            subscribe = subscribe.argument("x-stream-offset", Value::text("first"));
        }
        let messages = client.subscribe(mailbox, &subscribe).await?;
        Ok(Self { client, messages })
    }

    pub(super) async fn consume(
        self,
        plan: &Plan,
        mut sent: watch::Receiver<u64>,
    ) -> Result<Found, Failure> {
        let Self { client, mut messages } = self;
        let mut found = Found::new(plan);
        let mut total = 0u64;
        loop {
            let wanted = *sent.borrow_and_update();
            if total >= wanted {
                break;
            }
            let batch = tokio::select! {
                batch = timeout(PATIENCE, messages.next_batch()) => match batch {
                    Ok(batch) => batch?,
                    Err(_) if wanted == u64::MAX => continue,
                    Err(_) => break,
                },
                Ok(()) = sent.changed() => continue,
            };
            for delivery in &batch {
                found.take(delivery.body(), plan);
            }
            total += batch.len() as u64;
            found.last = Instant::now();
            client.settle_later(&batch, Outcome::Accepted)?;
        }
        messages.end().await?;
        Ok(found)
    }
}
