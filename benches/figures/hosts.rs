//! A durable queue on another host beside one on the producer's own host, in turns. Consumers are where the queue is.
//!
//! First all share the machine. Then each host has one core, with the clients that are on it: what each of several
//! machines would do.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pillarbox::client::{self, Client, Subscribe, Subscription};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::load::{Failure, Meter, Outcome, fill, mailbox};
use super::serving::Serving;

const MESSAGES: u64 = 500_000;
const SIZE: u64 = 1024;
/// Messages that the consumer may hold.
const CREDIT: u32 = 2000;
const ROUNDS: u32 = 3;
const MET_WITHIN: Duration = Duration::from_secs(20);

/// The cores of the two hosts, and of their clients.
type Cores = Option<(usize, usize)>;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move {
        measure(&directory.join("shared"), None)?;
        if thread::available_parallelism()?.get() < 2 {
            return Ok(());
        }
        println!("  one core for each host");
        measure(&directory.join("apart"), Some((0, 1)))
    })
}

fn measure(directory: &Path, cores: Cores) -> Result<(), Failure> {
    let (here, there) = cores.map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let path = directory.join("far");
    let far = ended(on(there, move || Serving::start_host(&path, "far", &[])))?;
    let (path, peers) = (directory.join("near"), far.peers.clone());
    let near = ended(on(here, move || Serving::start_host(&path, "near", &[&peers])))?;
    let (mut local, mut forwarded) = (0.0, 0.0);
    for round in 1..=ROUNDS {
        let name = format!("near-{round}");
        let meter = Meter::start(&near);
        local += carry(&near, here, &near, here, &name)?;
        meter.tell("to a queue on the same host", MESSAGES, SIZE);
        let name = format!("far-{round}");
        let (from, to) = (Meter::start(&near), Meter::start(&far));
        forwarded += carry(&near, here, &far, there, &name)?;
        from.tell("to a queue on another host: here", MESSAGES, SIZE);
        to.tell("                            there", MESSAGES, SIZE);
    }
    println!(
        "  the other host's queue got {:.0} % of the own one's rate",
        100.0 * local / forwarded
    );
    Ok(())
}

/// From a producer at one host to a consumer at the other, or the same; in seconds.
fn carry(
    from: &Serving,
    producing: Option<usize>,
    to: &Serving,
    consuming: Option<usize>,
    name: &str,
) -> Result<f64, Failure> {
    let (address, name) = (to.address.clone(), name.to_owned());
    let (from, queue) = (from.address.clone(), name.clone());
    let (declared, ready) = std::sync::mpsc::channel();
    let consumer = on(consuming, move || {
        alone(async {
            let consumer = Serving::client_at(&address).await?;
            consumer.declare(&mailbox(&name, "classic")).await?;
            let subscribe = Subscribe { credit: CREDIT, ..Subscribe::default() };
            let subscription = consumer.subscribe(&name, &subscribe).await?;
            declared.send(())?;
            accept(&consumer, subscription).await?;
            Ok(Instant::now())
        })
    });
    // An error is the consumer's to tell.
    let _ = ready.recv();
    let producer = on(producing, move || {
        alone(async {
            let producer = Serving::client_at(&from).await?;
            known(&producer, &queue).await?;
            let begun = Instant::now();
            fill(&producer, &queue, MESSAGES, SIZE).await?;
            Ok(begun)
        })
    });
    let begun = ended(producer)?;
    Ok(ended(consumer)?.duration_since(begun).as_secs_f64())
}

type Running<T> = JoinHandle<Result<T, Failure>>;

/// On a thread that keeps to this core, as does whatever it starts.
fn on<T: Send + 'static>(
    core: Option<usize>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Running<T> {
    thread::spawn(move || {
        if let Some(core) = core {
            let mut cores = CpuSet::new();
            cores.set(core);
            sched_setaffinity(None, &cores)?;
        }
        work()
    })
}

fn ended<T>(running: Running<T>) -> Result<T, Failure> {
    running.join().map_err(|_| "a client panicked")?
}

fn alone<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Acknowledges what comes, batch by batch.
async fn accept(consumer: &Client, mut subscription: Subscription) -> Result<(), Failure> {
    let mut seen = 0;
    while seen < MESSAGES {
        let batch = subscription.next_batch().await?;
        if batch.is_empty() || batch.iter().any(|it| it.redelivered) {
            return Err(format!("after {seen} messages came none, or one again").into());
        }
        seen += batch.len() as u64;
        consumer.settle_later(&batch, client::Outcome::Accepted)?;
    }
    subscription.end().await?;
    Ok(())
}

/// Until the producer's host knows where the queue lives.
async fn known(producer: &Client, name: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    while producer.find(name).await.is_err() {
        if begun.elapsed() > MET_WITHIN {
            return Err(format!("the producer's host never heard of '{name}'").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
