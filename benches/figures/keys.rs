//! A million keys: putting, getting and knowing them again after a kill.

use std::path::{Path, PathBuf};
use std::time::Instant;

use pillarbox::Broker;
use pillarbox::client::{Client, NewMessage};

use super::load::{BATCH, Failure, Meter, Outcome, Pushing, mailbox, spread};
use super::serving::Serving;

const KEYS: u64 = 1_000_000;
const SIZE: u64 = 100;
const GETS: u64 = 50_000;
/// Not in the order in which they were put.
const STRIDE: u64 = 611_953;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let serving = Serving::start(directory)?;
    let client = serving.client().await?;
    client.declare(&mailbox("table", "kv")).await?;
    let meter = Meter::start(&serving);
    put(&client).await?;
    meter.tell("put 1,000,000 keys", KEYS, SIZE);
    let meter = Meter::start(&serving);
    println!("  get over loopback                  {}", gets(&client).await?);
    meter.tell("", GETS, SIZE);
    let serving = serving.kill_and_start()?;
    let client = serving.client().await?;
    let begun = Instant::now();
    client.get("table", "key-7").await?.ok_or("a key is lost")?;
    let known = begun.elapsed();
    println!(
        "  after kill -9                      ready in {:.0?}, all keys known {known:.0?} later",
        serving.ready_after
    );
    println!("  get over loopback, read again      {}", gets(&client).await?);
    drop(serving);
    let broker = Broker::open(directory).await?;
    let client = broker.client().await?;
    client.get("table", "key-7").await?.ok_or("a key is lost")?;
    println!("  get in process                     {}", gets(&client).await?);
    drop(client);
    broker.stop().await?;
    Ok(())
}

async fn put(client: &Client) -> Result<(), Failure> {
    let mut pushing = Pushing::new(client);
    for first in (0..KEYS).step_by(BATCH as usize) {
        let value = |key: u64| {
            let body = format!("{key:0width$}", width = SIZE as usize);
            NewMessage::new(body).header("x-key", &format!("key-{key}"))
        };
        let messages: Vec<_> = (first..first + BATCH).map(value).collect();
        pushing.push("", "table", &messages).await?;
    }
    pushing.end().await
}

async fn gets(client: &Client) -> Result<String, Failure> {
    let mut took = Vec::new();
    for number in 0..GETS {
        let key = number * STRIDE % KEYS;
        let name = format!("key-{key}");
        let begun = Instant::now();
        let found = client.get("table", &name).await?.ok_or("a key is lost")?;
        took.push(begun.elapsed());
        if !found.body().ends_with(key.to_string().as_bytes()) {
            return Err(format!("'{name}' has the value of another key").into());
        }
    }
    Ok(spread(took))
}
