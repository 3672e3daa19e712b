//! Connections and nothing else: how fast they are made, alone or to stay.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bench, Line};
use crate::cli::broker::Broker;
use crate::cli::{Failure, show};

/// Connections that stay do so for this long, where nothing else is said.
const HELD: Duration = Duration::from_secs(1);
/// So long one after another is made and closed, where nothing else is said.
const CHURNED: Duration = Duration::from_secs(3);

/// Opens so many, one after another, and holds them.
pub(super) async fn hold(bench: &Bench, broker: &Broker, count: u32) -> Result<(), Failure> {
    let start = Instant::now();
    let mut all = Vec::with_capacity(count as usize);
    for _ in 0..count {
        all.push(bench.connect(broker).await?);
    }
    let took = start.elapsed();
    tokio::time::sleep(bench.duration.unwrap_or(HELD)).await;
    for line in all {
        line.close().await?;
    }
    tell(u64::from(count), took, broker.json)
}

/// Connects, logs in and closes, so many at a time.
pub(super) async fn churn(bench: &Bench, broker: &Broker, at_once: u32) -> Result<(), Failure> {
    let start = Instant::now();
    let until = start + bench.duration.unwrap_or(CHURNED);
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (bench, broker) = (bench.clone(), broker.clone());
            tokio::spawn(async move {
                let mut made = 0u64;
                while Instant::now() < until {
                    bench.connect(&broker).await?.close().await?;
                    made += 1;
                }
                Ok::<_, Failure>(made)
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await.map_err(Failure::failed)??;
    }
    tell(made, start.elapsed(), broker.json)
}

fn tell(made: u64, took: Duration, json: bool) -> Result<(), Failure> {
    let rate = (made as f64 / took.as_secs_f64().max(1e-9)).round() as u64;
    if json {
        return show::json_line(&json!({ "connections": made, "connections_per_second": rate }));
    }
    show::line(&format!("connections  {made}, {rate} in a second"))
}

impl Line {
    async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Native(client) => Ok(client.close().await?),
            Self::Amqp(peer) => peer.close().await,
            Self::Stomp(peer) => peer.close().await,
        }
    }
}
