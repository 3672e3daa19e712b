//! Heartbeats both ways: when to send one, and when the peer is dead.

use crate::broker::Time;

/// Silence is counted with at least this interval, so that a busy host does not lose a client
/// that asked for heartbeats every second.
const DEAD_INTERVAL_MIN_MS: u64 = 5000;
/// Sent at least this often, however long the client's interval is.
const SEND_INTERVAL_MAX_MS: u64 = 150_000;

/// The beats of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// Negotiated; 0 for none.
    interval_ms: u64,
    heard: Time,
    said: Time,
    /// The socket is not read: silence says nothing.
    paused: bool,
}

impl Heartbeat {
    pub(super) fn new(interval_s: u16, now: Time) -> Self {
        Self { interval_ms: u64::from(interval_s) * 1000, heard: now, said: now, paused: false }
    }

    /// Any byte from the peer counts.
    pub(super) fn hear(&mut self, now: Time) {
        self.heard = now;
    }

    /// Any byte to the peer counts.
    pub(super) fn say(&mut self, now: Time) {
        self.said = now;
    }

    /// The socket is read, or not. Whoever is read again has the whole time to be heard.
    pub(super) fn pause(&mut self, paused: bool, now: Time) {
        if self.paused && !paused {
            self.heard = now;
        }
        self.paused = paused;
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.interval_ms > 0 && now >= self.send_at()
    }

    pub(super) fn is_dead(&self, now: Time) -> bool {
        self.interval_ms > 0 && !self.paused && now >= self.dead_at()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        match (self.interval_ms, self.paused) {
            (0, _) => None,
            (_, true) => Some(self.send_at()),
            (_, false) => Some(self.send_at().min(self.dead_at())),
        }
    }

    fn send_at(&self) -> Time {
        self.said.plus_ms((self.interval_ms / 2).min(SEND_INTERVAL_MAX_MS))
    }

    /// More than two silent intervals.
    fn dead_at(&self) -> Time {
        let interval = self.interval_ms.max(DEAD_INTERVAL_MIN_MS);
        self.heard.plus_ms(2 * interval + interval / 2)
    }
}
