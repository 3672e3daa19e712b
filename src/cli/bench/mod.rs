//! `pillarbox bench`: loads a broker, checks what comes out of it, and says how long it took.

mod amqp;
mod content;
mod histogram;
mod native;
mod stomp;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::content::Checker;
use self::histogram::Histogram;
use super::broker::Broker;
use super::progress::Progress;
use super::{Failure, show, value};

/// Load a broker, check what comes out, and measure
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  pillarbox bench
  pillarbox bench --protocol amqp --size 1024
  pillarbox bench --rate 5000 --duration 30s    (latency at a steady rate)

Messages go through a mailbox of their own, which is deleted afterwards. Every message is checked:
none lost, none twice, none damaged, in order. With --rate, latency counts from the moment a message
was due, so that a broker which stalls is not spared those it kept waiting; without it, messages are sent
as fast as they are taken, and latency is mostly time in queues.")]
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
    /// Bytes of a message, at least 24
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(24..))]
    size: u64,
    /// Messages in a second; without it as many as the broker takes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Messages sent together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Messages that may wait for their confirm
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Messages that the consumer may hold
    #[arg(long, default_value_t = 2000)]
    credit: u32,
    /// Messages and mailbox need not survive the broker
    #[arg(long)]
    transient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Native,
    Amqp,
    Stomp,
}

/// When messages are due, and when there are enough.
#[derive(Clone)]
struct Plan {
    start: Instant,
    rate: Option<u64>,
    messages: u64,
    until: Option<Instant>,
}

/// What a consumer found.
struct Found {
    checker: Checker,
    latency: Histogram,
    last: Instant,
}

impl Bench {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let plan = Plan {
            start: Instant::now(),
            rate: self.rate,
            messages: match (self.messages, self.duration) {
                (Some(messages), _) => messages,
                (None, Some(_)) => u64::MAX,
                (None, None) => 200_000,
            },
            until: self.duration.map(|it| Instant::now() + it),
        };
        let (sent, confirmed, found) = match self.protocol {
            Protocol::Native => native::run(&self, broker, plan.clone()).await?,
            Protocol::Amqp => amqp::run(&self, broker, plan.clone()).await?,
            Protocol::Stomp => stomp::run(&self, broker, plan.clone()).await?,
        };
        self.tell(&plan, sent, confirmed, &found, broker.json)
    }

    fn tell(
        &self,
        plan: &Plan,
        sent: u64,
        confirmed: Instant,
        found: &Found,
        json: bool,
    ) -> Result<(), Failure> {
        let rate = |until: Instant| {
            let took = until.saturating_duration_since(plan.start).as_secs_f64();
            (sent as f64 / took.max(1e-9)).round() as u64
        };
        let latency = |share: f64| found.latency.at(share) as f64 / 1000.0;
        let (pushed, pulled) = (rate(confirmed), rate(found.last));
        let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
        if json {
            let latency: serde_json::Map<_, _> = shares
                .iter()
                .map(|(name, share)| ((*name).into(), latency(*share).into()))
                .collect();
            show::json_line(&json!({
                "protocol": format!("{:?}", self.protocol).to_lowercase(),
                "messages": sent,
                "size": self.size,
                "confirmed_per_second": pushed,
                "delivered_per_second": pulled,
                "latency_ms": latency,
                "lost": sent - found.checker.distinct.min(sent),
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
            show::line(&format!("latency    {} ms", figures.join(", ")))?;
        }
        match found.checker.verdict(sent) {
            None if json => Ok(()),
            None => show::line("checked    nothing lost, repeated, damaged or out of order"),
            Some(wrong) => Err(Failure::failed(wrong)),
        }
    }
}

impl Plan {
    /// How many of the next messages are due, at most `most`; `None` once there are enough.
    fn due(&self, sent: u64, most: u64, now: Instant) -> Option<u64> {
        if sent >= self.messages || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let left = most.min(self.messages - sent);
        let Some(rate) = self.rate else { return Some(left) };
        let passed = now.saturating_duration_since(self.start).as_nanos();
        let due = passed.saturating_mul(rate.into()) / 1_000_000_000 + 1;
        Some(u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(sent).min(left))
    }

    /// How far the sending is, for who watches.
    fn progress(&self) -> Progress {
        Progress::start("sent", (self.messages < u64::MAX).then_some(self.messages), true)
    }

    /// When a message was due; without a rate, when it is sent.
    fn due_at(&self, number: u64, now: Instant) -> Duration {
        match self.rate {
            Some(rate) => {
                Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(rate)) as u64)
            }
            None => now.saturating_duration_since(self.start),
        }
    }
}

impl Found {
    fn new(plan: &Plan) -> Self {
        Self { checker: Checker::default(), latency: Histogram::default(), last: plan.start }
    }

    fn take(&mut self, body: &[u8], plan: &Plan) {
        if let Some(due) = self.checker.check(body) {
            let now = plan.start.elapsed();
            self.latency.add(now.saturating_sub(due).as_micros() as u64);
        }
    }
}
