//! How long to wait before a host is dialled again: longer each time, and never in step with others.

use std::time::Duration;

const FIRST_MS: u64 = 200;
const MOST_MS: u64 = 15_000;

#[derive(Debug)]
pub(super) struct Backoff {
    next_ms: u64,
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { next_ms: FIRST_MS, random: seed | 1 }
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.next_ms = FIRST_MS;
    }

    /// Between three quarters and five quarters of a span that doubles.
    pub(super) fn next(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let span = self.next_ms;
        self.next_ms = (span * 2).min(MOST_MS);
        Duration::from_millis(span * 3 / 4 + self.random % (span / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        let first = backoff.next();
        assert!((150..250).contains(&first.as_millis()), "{first:?}");
        let waits: Vec<_> = (0..20).map(|_| backoff.next().as_millis() as u64).collect();
        assert!(waits[0] >= 300 && waits.iter().all(|it| *it < MOST_MS * 5 / 4), "{waits:?}");
        assert!(waits[19] >= MOST_MS * 3 / 4);
        backoff.reset();
        assert!(backoff.next() < Duration::from_millis(250));
        assert_ne!(Backoff::new(7).next(), Backoff::new(8).next());
    }
}
