//! A work queue inside the program: a handler whose error puts the job back, and dead letters for what never works.
//!
//! `cargo run --example jobs`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use pillarbox::Broker;
use pillarbox::broker::Value;
use pillarbox::client::{Linger, Mailbox, Subscribe};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // With a directory instead of memory, jobs survive the program: Broker::open("jobs-data").
    let broker = Broker::memory().await?;
    let session = broker.session().await?;
    session.declare(&Mailbox::durable("failed")).await?;
    let jobs = Mailbox::durable("jobs")
        .argument("x-delivery-limit", Value::I64(2))
        .argument("x-dead-letter-exchange", Value::text(""))
        .argument("x-dead-letter-routing-key", Value::text("failed"));
    session.declare(&jobs).await?;

    let worker = session
        .handle("jobs", &Subscribe::default(), |job| async move {
            let text = String::from_utf8_lossy(job.body()).into_owned();
            let number: u32 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
            println!("{number} squared is {}", number * number);
            Ok::<(), String>(())
        })
        .await?;

    let producer = session.producer("jobs", Linger::default());
    let mut taken = Vec::new();
    for job in ["1", "2", "three", "4"] {
        taken.push(producer.send(job).await?);
    }
    for taken in taken {
        taken.await?;
    }

    let mut failed = session.subscribe("failed", &Subscribe::default()).await?;
    let letter = failed.wait_until(|_| true, Duration::from_secs(10)).await?;
    println!("never worked: {}", String::from_utf8_lossy(letter.body()));
    letter.accept()?;
    drop(worker);
    broker.stop().await?;
    Ok(())
}
