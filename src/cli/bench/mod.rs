//! `pillarbox bench`: loads a broker, checks what comes out of it, and says how long it took.

mod amqp;
mod connections;
mod content;
mod histogram;
mod native;
mod plan;
mod scene;
mod stomp;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use pillarbox::client::Client;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::plan::{Found, Plan};
use self::scene::{Lane, Scene, Target};
use super::broker::Broker;
use super::{Failure, show, value};

/// Load a broker, check what comes out, and measure
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  pillarbox bench
  pillarbox bench --protocol amqp --size 1024
  pillarbox bench --rate 5000 --duration 30s    (latency at a steady rate)
  pillarbox bench --fanout 10 --transient       (each message to 10 mailboxes)
  pillarbox bench --fill -n 1000000             (all in, then all out)
  pillarbox bench --stream --fill               (append, then replay)
  pillarbox bench --churn 8 --protocol amqp     (connections made in a second)

Messages go through a mailbox of their own, which is deleted afterwards. Every message is checked:
none lost, none twice, none damaged, in order. With --rate, latency counts from the moment a message
was due, so that a broker which stalls is not spared those it kept waiting; without it, messages are sent
as fast as they are taken, and latency is mostly time in queues. Over AMQP any broker can be loaded.")]
pub(super) struct Bench {
    #[arg(long, value_enum, default_value_t = Protocol::Native)]
    protocol: Protocol,
    /// Where the broker's AMQP listener is
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672")]
    amqp: String,
    /// Where the broker's STOMP listener is
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:61613")]
    stomp: String,
    /// Messages to send; without it and without --duration, 200000
    #[arg(long, short = 'n', value_name = "COUNT")]
    messages: Option<u64>,
    /// How long to send
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    duration: Option<Duration>,
    /// Bytes of a message, at least 16
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(content::HEAD as u64..))]
    size: u64,
    /// Messages in a second; without it as many as the broker takes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Messages sent together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Messages that may wait for their confirm, of each producer
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Messages that a consumer may hold
    #[arg(long, default_value_t = 2000)]
    credit: u32,
    /// Messages and mailboxes need not survive the broker
    #[arg(long)]
    transient: bool,
    /// So many mailboxes, each with a producer and a consumer
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    queues: Option<u32>,
    /// Each message to so many mailboxes, each with a consumer
    #[arg(long, value_name = "COUNT", conflicts_with = "queues", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fanout: Option<u32>,
    /// Through a topic exchange with so many bindings, of which one matches
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["queues", "fanout"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bindings: Option<u32>,
    /// First all in, then all out
    #[arg(long)]
    fill: bool,
    /// Streams in place of queues, read from their first message
    #[arg(long)]
    stream: bool,
    /// No messages: only open so many connections and hold them for --duration (1s)
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["messages", "queues", "fanout", "bindings"])]
    idle: Option<u32>,
    /// No messages: only connect, log in and close, so many at a time, for --duration (3s)
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["idle", "messages", "queues", "fanout", "bindings"])]
    churn: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Native,
    Amqp,
    Stomp,
}

/// A connection that is logged in.
enum Line {
    Native(Client),
    Amqp(Box<amqp::Peer>),
    Stomp(Box<stomp::Peer>),
}

/// A connection that consumes.
enum Listener {
    Native(native::Listener),
    Amqp(Box<amqp::Peer>),
    Stomp(Box<stomp::Peer>),
}

/// How a load went.
struct Outcome {
    sent: u64,
    /// What should have come: with `--fanout`, each message so many times.
    expected: u64,
    started: Instant,
    confirmed: Instant,
    /// When the consumers began, or were let begin.
    opened: Instant,
    found: Found,
}

impl Bench {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        if let Some(count) = self.idle {
            return connections::hold(&self, broker, count).await;
        }
        if let Some(at_once) = self.churn {
            return connections::churn(&self, broker, at_once).await;
        }
        let scene = Scene::of(&self);
        // STOMP can neither declare nor delete.
        let mut stage = match self.protocol {
            Protocol::Stomp => Line::Native(broker.connect().await?),
            Protocol::Native | Protocol::Amqp => self.connect(broker).await?,
        };
        stage.build(&scene).await?;
        let outcome = self.load(broker, &scene).await;
        stage.clear(&scene).await?;
        self.tell(&outcome?, broker.json)
    }

    async fn connect(&self, broker: &Broker) -> Result<Line, Failure> {
        Ok(match self.protocol {
            Protocol::Native => Line::Native(broker.connect().await?),
            Protocol::Amqp => Line::Amqp(Box::new(amqp::Peer::connect(self, broker).await?)),
            Protocol::Stomp => Line::Stomp(Box::new(stomp::Peer::connect(self, broker).await?)),
        })
    }

    async fn load(&self, broker: &Broker, scene: &Scene) -> Result<Outcome, Failure> {
        let lanes = scene.lanes();
        let mut producers = Vec::new();
        for _ in lanes {
            producers.push(self.connect(broker).await?);
        }
        let early = if self.fill { Vec::new() } else { self.listen(broker, lanes).await? };
        let started = Instant::now();
        let count = lanes.len() as u64;
        let plan = |lane: usize| Plan::new(self, started, lane as u64, count);
        let (told, heard): (Vec<_>, Vec<_>) =
            lanes.iter().map(|_| watch::channel(u64::MAX)).unzip();
        let mut consuming: Vec<_> =
            early.into_iter().map(|(at, it)| it.start(plan(at), heard[at].clone(), at)).collect();
        let mut producing = Vec::new();
        for (at, (line, told)) in producers.into_iter().zip(told).enumerate() {
            let (bench, plan, target) = (self.clone(), plan(at), lanes[at].target.clone());
            producing.push(tokio::spawn(async move {
                let outcome = line.produce(&target, &bench, &plan).await;
                let _ = told.send(outcome.as_ref().map_or(0, |(sent, _)| *sent));
                outcome
            }));
        }
        let (mut sent, mut confirmed) = (Vec::new(), started);
        for task in producing {
            let (count, at) = task.await.map_err(Failure::failed)??;
            confirmed = confirmed.max(at);
            sent.push(count);
        }
        let opened = if self.fill { Instant::now() } else { started };
        if self.fill {
            for (at, listener) in self.listen(broker, lanes).await? {
                consuming.push(listener.start(plan(at), heard[at].clone(), at));
            }
        }
        let (mut found, mut expected) = (Found::new(&plan(0)), 0);
        for (at, task) in consuming {
            found.merge(&task.await.map_err(Failure::failed)??);
            expected += sent[at];
        }
        Ok(Outcome { sent: sent.iter().sum(), expected, started, confirmed, opened, found })
    }

    /// Consumers of all mailboxes, each with the place of its producer.
    async fn listen(
        &self,
        broker: &Broker,
        lanes: &[Lane],
    ) -> Result<Vec<(usize, Listener)>, Failure> {
        let mut listeners = Vec::new();
        for (at, lane) in lanes.iter().enumerate() {
            for mailbox in &lane.mailboxes {
                let line = self.connect(broker).await?;
                listeners.push((at, line.listen(mailbox, self).await?));
            }
        }
        Ok(listeners)
    }

    fn tell(&self, outcome: &Outcome, json: bool) -> Result<(), Failure> {
        let Outcome { sent, expected, found, .. } = outcome;
        let rate = |count: u64, since: Instant, until: Instant| {
            let took = until.saturating_duration_since(since).as_secs_f64();
            (count as f64 / took.max(1e-9)).round() as u64
        };
        let latency = |share: f64| found.latency.at(share) as f64 / 1000.0;
        let pushed = rate(*sent, outcome.started, outcome.confirmed);
        let pulled = rate(*expected, outcome.opened, found.last);
        let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
        if json {
            let latency: serde_json::Map<_, _> = shares
                .iter()
                .map(|(name, share)| ((*name).into(), latency(*share).into()))
                .collect();
            show::json_line(&json!({
                "protocol": format!("{:?}", self.protocol).to_lowercase(),
                "messages": sent,
                "deliveries": expected,
                "size": self.size,
                "confirmed_per_second": pushed,
                "delivered_per_second": pulled,
                "latency_ms": latency,
                "lost": expected - found.checker.distinct.min(*expected),
                "repeated": found.checker.repeated,
                "damaged": found.checker.damaged,
                "out_of_order": found.checker.out_of_order,
            }))?;
        } else {
            let figures: Vec<_> = shares
                .iter()
                .map(|(name, share)| format!("{name} {:.2}", latency(*share)))
                .collect();
            show::line(&format!("messages   {sent} of {} bytes", self.size))?;
            show::line(&format!("confirmed  {pushed} in a second"))?;
            show::line(&format!("delivered  {pulled} in a second"))?;
            // What waits until all is in says nothing about the broker.
            if !self.fill {
                show::line(&format!("latency    {} ms", figures.join(", ")))?;
            }
        }
        match found.checker.verdict(*expected) {
            None if json => Ok(()),
            None => show::line("checked    nothing lost, repeated, damaged or out of order"),
            Some(wrong) => Err(Failure::failed(wrong)),
        }
    }
}

impl Line {
    async fn build(&mut self, scene: &Scene) -> Result<(), Failure> {
        match self {
            Self::Native(client) => native::build(client, scene).await,
            Self::Amqp(peer) => peer.build(scene).await,
            Self::Stomp(_) => Ok(()),
        }
    }

    async fn clear(&mut self, scene: &Scene) -> Result<(), Failure> {
        match self {
            Self::Native(client) => native::clear(client, scene).await,
            Self::Amqp(peer) => peer.clear(scene).await,
            Self::Stomp(_) => Ok(()),
        }
    }

    /// How many were sent, and when the last was confirmed.
    async fn produce(
        self,
        target: &Target,
        bench: &Bench,
        plan: &Plan,
    ) -> Result<(u64, Instant), Failure> {
        match self {
            Self::Native(client) => native::produce(&client, target, bench, plan).await,
            Self::Amqp(peer) => peer.produce(target, bench, plan).await,
            Self::Stomp(peer) => peer.produce(target, bench, plan).await,
        }
    }

    async fn listen(self, mailbox: &str, bench: &Bench) -> Result<Listener, Failure> {
        Ok(match self {
            Self::Native(client) => {
                Listener::Native(native::Listener::open(client, mailbox, bench).await?)
            }
            Self::Amqp(mut peer) => {
                peer.listen(mailbox, bench).await?;
                Listener::Amqp(peer)
            }
            Self::Stomp(mut peer) => {
                peer.listen(mailbox, bench).await?;
                Listener::Stomp(peer)
            }
        })
    }
}

type Consuming = JoinHandle<Result<Found, Failure>>;

impl Listener {
    /// Takes messages until as many came as `sent` says at last.
    fn start(self, plan: Plan, sent: watch::Receiver<u64>, at: usize) -> (usize, Consuming) {
        let task = tokio::spawn(async move {
            match self {
                Self::Native(listener) => listener.consume(&plan, sent).await,
                Self::Amqp(peer) => peer.consume(&plan, sent).await,
                Self::Stomp(peer) => peer.consume(&plan, sent).await,
            }
        });
        (at, task)
    }
}
