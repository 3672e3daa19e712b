//! The only `now()` of the house: wall time at start plus what has passed since, so it never goes back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::broker::Time;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: millis(since_epoch) }
    }

    pub(super) fn now(&self) -> Time {
        Time(self.started_ms + millis(self.started.elapsed()))
    }

    /// The runtime's moment at which `now` reaches `time`.
    pub(super) fn instant(&self, time: Time) -> Instant {
        // A deadline further away than the timer can count is as good as this one.
        const FAR_MS: u64 = 365 * 24 * 3600 * 1000;
        let ahead = time.0.saturating_sub(self.started_ms);
        let passed = millis(self.started.elapsed());
        self.started + Duration::from_millis(ahead.min(passed + FAR_MS))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_follows_the_runtime() {
        let clock = Clock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now().since_ms(before), 1500);
        tokio::time::sleep_until(clock.instant(before.plus_ms(2000))).await;
        assert_eq!(clock.now().since_ms(before), 2000);
    }

    #[tokio::test]
    async fn far_deadlines_do_not_overflow() {
        let clock = Clock::start();
        assert!(clock.instant(Time(u64::MAX)) > Instant::now());
        assert!(clock.instant(Time::ZERO) <= Instant::now());
    }
}
