//! How fast connections are accepted: some at once, then so many each second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Those of so much time may come at once after a quiet while.
const BURST: Duration = Duration::from_secs(4);

/// What all listeners accept at.
pub(super) struct Pace {
    /// 0 for as fast as they come.
    per_second: u32,
    /// When everything that was accepted would have been at an even pace.
    even: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, even: Mutex::default() }
    }

    /// Counts one that is accepted now, and says how long the next has to wait.
    pub(super) fn count(&self, now: Instant) -> Duration {
        if self.per_second == 0 {
            return Duration::ZERO;
        }
        // Nothing in here can leave the state half changed.
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        let at = even.map_or(now, |it| it.max(now)) + Duration::from_secs(1) / self.per_second;
        *even = Some(at);
        at.saturating_duration_since(now + BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_come_at_once_and_the_others_one_after_the_other() {
        let (pace, start) = (Pace::new(10), Instant::now());
        assert!((0..40).all(|_| pace.count(start) == Duration::ZERO));
        assert_eq!(pace.count(start), Duration::from_millis(100));
        let mut now = start + Duration::from_millis(100);
        for _ in 0..20 {
            let wait = pace.count(now);
            assert_eq!(wait, Duration::from_millis(100));
            now += wait;
        }
        // A quiet while lets some come at once again, and no more than before.
        now += Duration::from_secs(60);
        assert!((0..40).all(|_| pace.count(now) == Duration::ZERO));
        assert_eq!(pace.count(now), Duration::from_millis(100));
    }

    #[test]
    fn without_a_pace_nobody_waits() {
        let (pace, now) = (Pace::new(0), Instant::now());
        assert!((0..100_000).all(|_| pace.count(now) == Duration::ZERO));
    }
}
