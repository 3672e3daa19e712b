//! When messages are due, and what became of them.

use std::time::{Duration, Instant};

use super::Bench;
use super::content::Checker;
use super::histogram::Histogram;
use crate::cli::progress::Progress;

/// Without a number and without a duration.
const MESSAGES: u64 = 200_000;

/// When the messages of a producer are due, and when there are enough.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) start: Instant,
    /// Of all producers together.
    rate: Option<u64>,
    producers: u64,
    messages: u64,
    until: Option<Instant>,
}

/// What a consumer found.
pub(super) struct Found {
    pub(super) checker: Checker,
    pub(super) latency: Histogram,
    pub(super) last: Instant,
}

impl Plan {
    /// For one of so many producers that begin now.
    pub(super) fn new(bench: &Bench, start: Instant, producer: u64, producers: u64) -> Self {
        let messages = match (bench.messages, bench.duration) {
            (Some(all), _) => share(all, producer, producers),
            (None, Some(_)) => u64::MAX,
            (None, None) => share(MESSAGES, producer, producers),
        };
        let until = bench.duration.map(|it| start + it);
        Self { start, rate: bench.rate, producers, messages, until }
    }

    /// How many of the next messages are due, at most `most`; `None` once there are enough.
    pub(super) fn due(&self, sent: u64, most: u64, now: Instant) -> Option<u64> {
        if sent >= self.messages || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let left = most.min(self.messages - sent);
        let Some(rate) = self.rate else { return Some(left) };
        let passed = now.saturating_duration_since(self.start).as_nanos();
        let due =
            passed.saturating_mul(rate.into()) / (1_000_000_000 * u128::from(self.producers)) + 1;
        Some(u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(sent).min(left))
    }

    /// How far the sending is, for who watches.
    pub(super) fn progress(&self) -> Progress {
        let all = (self.messages < u64::MAX).then_some(self.messages);
        Progress::start("sent", all, self.producers == 1)
    }

    /// When a message was due; without a rate, when it is sent.
    pub(super) fn due_at(&self, number: u64, now: Instant) -> Duration {
        match self.rate {
            Some(rate) => {
                let nanos = u128::from(number) * u128::from(self.producers) * 1_000_000_000;
                Duration::from_nanos((nanos / u128::from(rate)) as u64)
            }
            None => now.saturating_duration_since(self.start),
        }
    }
}

fn share(all: u64, producer: u64, producers: u64) -> u64 {
    all / producers + u64::from(producer < all % producers)
}

impl Found {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { checker: Checker::default(), latency: Histogram::default(), last: plan.start }
    }

    pub(super) fn take(&mut self, body: &[u8], plan: &Plan) {
        if let Some(due) = self.checker.check(body) {
            let now = plan.start.elapsed();
            self.latency.add(now.saturating_sub(due).as_micros() as u64);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.checker.add(&other.checker);
        self.latency.merge(&other.latency);
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: Option<u64>, producers: u64, messages: u64) -> Plan {
        Plan { start: Instant::now(), rate, producers, messages, until: None }
    }

    #[test]
    fn producers_share_messages_and_rate() {
        assert_eq!((0..3).map(|it| share(10, it, 3)).collect::<Vec<_>>(), [4, 3, 3]);
        let plan = plan(Some(1000), 4, 100);
        let later = plan.start + Duration::from_millis(20);
        assert_eq!(plan.due(0, 50, plan.start), Some(1));
        // 1,000 a second of four producers: one in 4 ms each.
        assert_eq!(plan.due(1, 50, later), Some(5));
        assert_eq!(plan.due_at(5, later), Duration::from_millis(20));
        assert_eq!(plan.due(100, 50, later), None);
    }

    #[test]
    fn without_a_rate_as_many_as_go_together_are_due() {
        let plan = plan(None, 1, 120);
        let later = plan.start + Duration::from_millis(7);
        assert_eq!((plan.due(0, 50, later), plan.due(100, 50, later)), (Some(50), Some(20)));
        assert_eq!(plan.due_at(5, later), Duration::from_millis(7));
    }
}
