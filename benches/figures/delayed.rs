//! A million messages that wait, and how late each of them comes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::Value;
use pillarbox::client::{Binding, Client, Exchange, Mailbox, NewMessage};

use super::load::{BATCH, Failure, Meter, Outcome, Pushing, settled, spread};
use super::serving::Serving;

const MESSAGES: u64 = 1_000_000;
const SIZE: usize = 256;
/// They come due so fast.
const RATE: u64 = 10_000;
/// All of them wait before the first one is due.
const FIRST_DUE: Duration = Duration::from_secs(30);

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let serving = Serving::start(directory)?;
    let client = serving.client().await?;
    let mut later = Exchange {
        name: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        ..Exchange::default()
    };
    later.arguments.set("x-delayed-type", Value::text("direct"));
    client.declare_exchange(&later).await?;
    client.declare(&Mailbox::durable("due")).await?;
    let (source, destination) = ("later".into(), "due".into());
    client.bind(&Binding { source, destination, key: "due".into(), ..Binding::default() }).await?;
    let start = Instant::now();
    let meter = Meter::start(&serving);
    send(&client, start).await?;
    let sent = start.elapsed();
    meter.tell("send 1,000,000 that wait", MESSAGES, SIZE as u64);
    if sent > FIRST_DUE {
        println!("  the first were due before the last was sent ({sent:.1?})");
    }
    tokio::time::sleep((FIRST_DUE - Duration::from_secs(1)).saturating_sub(sent)).await;
    println!("  memory with all of them waiting    {} MiB", serving.memory().0);
    let meter = Meter::start(&serving);
    let late = receive(serving.client().await?, start).await?;
    meter.tell("10,000 due in a second", MESSAGES, SIZE as u64);
    println!("  late                               {}", spread(late));
    Ok(())
}

/// When a message is due, from the start.
fn due(number: u64) -> Duration {
    FIRST_DUE + Duration::from_micros(number * 1_000_000 / RATE)
}

async fn send(client: &Client, start: Instant) -> Result<(), Failure> {
    let mut pushing = Pushing::new(client);
    for first in (0..MESSAGES).step_by(BATCH as usize) {
        // The delay is in whole milliseconds: what a message is late counts from there.
        let sent = start.elapsed();
        let messages: Vec<_> = (first..first + BATCH)
            .map(|number| {
                let delay = due(number).saturating_sub(sent).as_millis() as u64;
                let due = (sent + Duration::from_millis(delay)).as_micros() as u64;
                let mut body = vec![0; SIZE];
                body[..8].copy_from_slice(&due.to_le_bytes());
                NewMessage::new(Bytes::from(body))
                    .with(|it| it.headers_mut().set("x-delay", Value::I64(delay as i64)))
            })
            .collect();
        pushing.push("later", "due", &messages).await?;
    }
    pushing.end().await
}

async fn receive(client: Client, start: Instant) -> Result<Vec<Duration>, Failure> {
    let mut subscription = client.subscribe("due", &settled()).await?;
    let mut late = Vec::with_capacity(MESSAGES as usize);
    while late.len() < MESSAGES as usize {
        let batch = subscription.next_batch().await?;
        let now = start.elapsed();
        for delivery in &batch {
            let due = delivery.body().first_chunk().ok_or("a body is cut")?;
            late.push(now.saturating_sub(Duration::from_micros(u64::from_le_bytes(*due))));
        }
    }
    Ok(late)
}
