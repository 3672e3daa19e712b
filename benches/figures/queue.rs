//! A stream beside a durable queue, in turns: appending, and reading at the end while others append.

use std::path::{Path, PathBuf};

use super::load::{Failure, Meter, Outcome, fill, mailbox, settled, take};
use super::serving::Serving;

const MESSAGES: u64 = 1_000_000;
const SIZE: u64 = 1024;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let serving = Serving::start(directory)?;
    let (producer, consumer) = (serving.client().await?, serving.client().await?);
    for round in 1..=3 {
        for policy in ["classic", "stream"] {
            let name = format!("{policy}-{round}");
            producer.declare(&mailbox(&name, policy)).await?;
            let meter = Meter::start(&serving);
            fill(&producer, &name, MESSAGES, SIZE).await?;
            meter.tell(&format!("append to {policy}"), MESSAGES, SIZE);
            producer.delete(&name, false, false).await?;
            producer.declare(&mailbox(&name, policy)).await?;
            let meter = Meter::start(&serving);
            // Before the first message: it reads what comes from now on.
            let subscription = consumer.subscribe(&name, &settled()).await?;
            let (filled, taken) =
                tokio::join!(fill(&producer, &name, MESSAGES, SIZE), take(subscription, MESSAGES));
            filled.and(taken)?;
            meter.tell(&format!("append to and read {policy}"), MESSAGES, SIZE);
            producer.delete(&name, false, false).await?;
        }
    }
    Ok(())
}
