//! A thousand streams at once.

use std::path::{Path, PathBuf};

use super::load::{BATCH, Failure, Meter, Outcome, Pushing, batch, from_first, mailbox, read};
use super::serving::Serving;

const STREAMS: u64 = 1000;
const EACH: u64 = 2000;
const SIZE: u64 = 1024;
const CONNECTIONS: u64 = 4;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let serving = Serving::start(directory)?;
    let client = serving.client().await?;
    for number in 0..STREAMS {
        client.declare(&mailbox(&name(number), "stream")).await?;
    }
    let meter = Meter::start(&serving);
    let batch = batch(SIZE);
    let mut pushing = Pushing::new(&client);
    for _ in 0..EACH / BATCH {
        for number in 0..STREAMS {
            pushing.push("", &name(number), &batch).await?;
        }
    }
    pushing.end().await?;
    meter.tell("append to 1,000 streams in turns", STREAMS * EACH, SIZE);
    let meter = Meter::start(&serving);
    let mut reading = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = serving.client().await?;
        for number in (0..STREAMS).filter(|it| it % CONNECTIONS == connection) {
            let client = client.clone();
            reading.spawn(async move { read(&client, &name(number), &from_first(), EACH).await });
        }
    }
    while let Some(done) = reading.join_next().await {
        done??;
    }
    meter.tell("read all 1,000 at once", STREAMS * EACH, SIZE);
    Ok(())
}

fn name(number: u64) -> String {
    format!("stream-{number}")
}
