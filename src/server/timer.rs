//! One alarm clock for each task, set again only when a deadline comes nearer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use super::clock::Clock;
use crate::broker::Time;

/// Deadlines mostly move away before they are reached, so the alarm stays where it is
/// and rings early rather than being moved each time.
pub(super) struct Timer {
    /// Kept after it rang, to be set again.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it rings; `None` while it is not set.
    set: Option<Time>,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self { sleep: None, set: None }
    }

    /// Ready at the deadline or earlier; the caller looks at the clock again.
    pub(super) fn poll(
        &mut self,
        deadline: Option<Time>,
        clock: &Clock,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = match &mut self.sleep {
            None => {
                self.set = Some(deadline);
                let sleep = tokio::time::sleep_until(clock.instant(deadline));
                self.sleep.insert(Box::pin(sleep))
            }
            Some(sleep) => {
                if self.set.is_none_or(|set| deadline < set) {
                    self.set = Some(deadline);
                    sleep.as_mut().reset(clock.instant(deadline));
                }
                sleep
            }
        };
        let rung = sleep.as_mut().poll(context);
        if rung.is_ready() {
            self.set = None;
        }
        rung
    }

    /// Waits until the deadline, or for ever without one. May end early.
    pub(super) async fn reach(&mut self, deadline: Option<Time>, clock: &Clock) {
        poll_fn(|context| self.poll(deadline, clock, context)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_at_the_nearest_deadline() {
        let clock = Clock::start();
        let start = clock.now();
        let mut timer = Timer::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(timer.poll(Some(start.plus_ms(500)), &clock, &mut context).is_pending());
        timer.reach(Some(start.plus_ms(100)), &clock).await;
        assert_eq!(clock.now().since_ms(start), 100);
        timer.reach(Some(start.plus_ms(200)), &clock).await;
        assert_eq!(clock.now().since_ms(start), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moved_away_rings_early_once() {
        let clock = Clock::start();
        let start = clock.now();
        let mut timer = Timer::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(timer.poll(Some(start.plus_ms(100)), &clock, &mut context).is_pending());
        let later = Some(start.plus_ms(300));
        timer.reach(later, &clock).await;
        assert_eq!(clock.now().since_ms(start), 100);
        timer.reach(later, &clock).await;
        assert_eq!(clock.now().since_ms(start), 300);
    }
}
