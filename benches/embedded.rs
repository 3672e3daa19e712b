//! A broker inside the program: ten subscribers get 100,000 messages each, in order. How much of one core that takes.
//!
//! `cargo bench --bench embedded`; a number behind it says how many messages.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::time::Instant;

use pillarbox::Broker;
use pillarbox::client::{NewMessage, Subscribe};

const SUBSCRIBERS: u32 = 10;
const MESSAGES: u32 = 100_000;
const BATCH: usize = 500;
/// Batches on their way.
const WINDOW: usize = 8;

/// CPU seconds of this process so far, from the kernel's hundredths.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn main() {
    let messages = std::env::args().find_map(|it| it.parse().ok()).unwrap_or(MESSAGES);
    // One thread: what is measured is one core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run(messages)).expect("a broker that works");
}

async fn run(messages: u32) -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::memory().await?;
    let session = broker.session().await?;
    let subscribe = Subscribe { credit: 0, settled: true, ..Subscribe::default() };
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let client = broker.client().await?;
        let mut stream = client.subscribe_topic("all/#", &subscribe).await?;
        subscribers.push(tokio::spawn(async move {
            let mut next = 0;
            while next < messages {
                for message in stream.next_batch().await.expect("messages until the last") {
                    assert_eq!(message.body(), next.to_le_bytes(), "order");
                    next += 1;
                }
            }
            drop(client);
        }));
    }
    let bodies: Vec<NewMessage> = (0..messages)
        .map(|number| {
            let message = NewMessage::new(number.to_le_bytes().to_vec());
            message.with(|it| it.delivery_mode = Some(1))
        })
        .collect();
    let (start, before) = (Instant::now(), cpu());
    let publisher = session.client().await?;
    let mut receipts = std::collections::VecDeque::new();
    for batch in bodies.chunks(BATCH) {
        receipts.push_back(publisher.start_publish("amq.topic", "all.news", batch).await?);
        if receipts.len() > WINDOW
            && let Some(receipt) = receipts.pop_front()
        {
            receipt.await?;
        }
    }
    for receipt in receipts {
        receipt.await?;
    }
    for subscriber in subscribers {
        subscriber.await?;
    }
    let deliveries = u64::from(messages) * u64::from(SUBSCRIBERS);
    let (took, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    println!("{deliveries} deliveries in order: {used:.2} s of CPU, {took:.2} s on the clock");
    broker.stop().await?;
    Ok(())
}
