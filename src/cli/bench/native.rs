//! The load over the native protocol.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::Properties;
use pillarbox::client::{Client, Mailbox, NewMessage, Outcome, Receipt, Subscribe};

use tokio::time::timeout;

use super::super::Failure;
use super::super::broker::Broker;
use super::{Bench, Found, Plan, content};

/// What still comes must come so soon.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    bench: &Bench,
    broker: &Broker,
    mut plan: Plan,
) -> Result<(u64, Instant, Found), Failure> {
    let (producer, consumer) = (broker.connect().await?, broker.connect().await?);
    let name = format!("bench-{}", std::process::id());
    let durable = !bench.transient;
    let mailbox = Mailbox { durable, ..Mailbox::durable(&name) };
    producer.declare(&mailbox).await?;
    let moved = plan.start.elapsed();
    plan.start += moved;
    plan.until = plan.until.map(|until| until + moved);
    let (sent_to, sent) = tokio::sync::watch::channel(u64::MAX);
    let consuming =
        tokio::spawn(consume(consumer, name.clone(), bench.clone(), plan.clone(), sent));
    let outcome = produce(&producer, &name, bench, &plan).await;
    let _ = sent_to.send(outcome.as_ref().map_or(0, |(sent, _)| *sent));
    let found = consuming.await.map_err(Failure::failed)?;
    producer.delete(&name, false, false).await?;
    let (sent, confirmed) = outcome?;
    Ok((sent, confirmed, found?))
}

async fn produce(
    client: &Client,
    mailbox: &str,
    bench: &Bench,
    plan: &Plan,
) -> Result<(u64, Instant), Failure> {
    let transient = Properties { delivery_mode: Some(1), ..Properties::default() };
    let properties = bench.transient.then(|| Box::new(transient));
    let mut waiting: VecDeque<(Receipt, u32)> = VecDeque::new();
    let (mut sent, mut unconfirmed) = (0u64, 0u32);
    let mut messages = Vec::new();
    let mut progress = plan.progress();
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
            messages.push(NewMessage { body, key: None, properties: properties.clone() });
        }
        waiting.push_back((client.start_push("", mailbox, &messages).await?, due as u32));
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

async fn consume(
    client: Client,
    mailbox: String,
    bench: Bench,
    plan: Plan,
    mut sent: tokio::sync::watch::Receiver<u64>,
) -> Result<Found, Failure> {
    let subscribe = Subscribe { credit: bench.credit, ..Subscribe::default() };
    let mut messages = client.subscribe(&mailbox, &subscribe).await?;
    let mut found = Found::new(&plan);
    let mut total = 0u64;
    loop {
        let wanted = *sent.borrow();
        if total >= wanted {
            break;
        }
        let batch = tokio::select! {
            batch = timeout(PATIENCE, messages.next_batch()) => match batch {
                Ok(batch) => batch?,
                Err(_) if wanted == u64::MAX => continue,
                Err(_) => break,
            },
            _ = sent.changed() => continue,
        };
        for delivery in &batch {
            found.take(delivery.body(), &plan);
        }
        total += batch.len() as u64;
        found.last = Instant::now();
        client.settle_later(&batch, Outcome::Accepted)?;
    }
    messages.end().await?;
    Ok(found)
}
