//! Ten thousand groups of one stream that nobody reads with, and up to a thousand that all read at once.

use std::path::{Path, PathBuf};

use pillarbox::broker::Value;
use pillarbox::client::{Outcome as Settled, Subscribe};

use super::load::{BATCH, Failure, Meter, Outcome, fill, mailbox, settled, take};
use super::serving::Serving;

const GROUPS: u64 = 10_000;
const MESSAGES: u64 = 1_000_000;
const SIZE: u64 = 1024;
const CONNECTIONS: u64 = 10;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let serving = Serving::start(directory)?;
    tail(&serving, "none", "append and read, no group").await?;
    tail(&serving, "asleep", "append and read, 10,000 groups").await?;
    for groups in [1, 100, 1_000] {
        awake(&serving, groups, (MESSAGES / groups).max(BATCH)).await?;
    }
    Ok(())
}

async fn tail(serving: &Serving, name: &str, what: &str) -> Result<(), Failure> {
    let (producer, consumer) = (serving.client().await?, serving.client().await?);
    producer.declare(&mailbox(name, "stream")).await?;
    if name == "asleep" {
        for group in 0..GROUPS {
            producer.seek(name, &format!("group-{group}"), Value::text("first")).await?;
        }
    }
    for _ in 0..2 {
        let meter = Meter::start(serving);
        let subscription = consumer.subscribe(name, &settled()).await?;
        let (filled, taken) =
            tokio::join!(fill(&producer, name, MESSAGES, SIZE), take(subscription, MESSAGES));
        filled.and(taken)?;
        meter.tell(what, MESSAGES, SIZE);
    }
    Ok(())
}

/// So many groups each read so many messages and settle each of them.
async fn awake(serving: &Serving, groups: u64, each: u64) -> Result<(), Failure> {
    let client = serving.client().await?;
    let name = format!("awake-{groups}");
    client.declare(&mailbox(&name, "stream")).await?;
    fill(&client, &name, each, SIZE).await?;
    let meter = Meter::start(serving);
    let mut reading = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS.min(groups) {
        clients.push(serving.client().await?);
    }
    for (connection, client) in (0..).zip(clients) {
        for group in (0..groups).filter(|it| it % CONNECTIONS == connection) {
            let (client, name) = (client.clone(), name.clone());
            reading.spawn(async move {
                let subscribe = Subscribe { credit: 1000, ..Subscribe::default() }
                    .argument("x-group", Value::text(&format!("group-{group}")))
                    .argument("x-stream-offset", Value::text("first"));
                let mut messages = client.subscribe(&name, &subscribe).await?;
                let mut seen = 0;
                while seen < each {
                    let batch = messages.next_batch().await?;
                    client.settle_later(&batch, Settled::Accepted)?;
                    seen += batch.len() as u64;
                }
                messages.end().await?;
                Ok::<_, Failure>(())
            });
        }
    }
    while let Some(done) = reading.join_next().await {
        done??;
    }
    meter.tell(&format!("read and settle, {groups} groups"), groups * each, SIZE);
    Ok(())
}
