//! Heart-beats both ways: when to send one, and when the client is dead.

use pillarbox_stomp::{StompError, parse_heart_beat};

use crate::broker::Time;

/// Silence beyond two intervals, so that a busy host does not lose a client.
const GRACE_MIN_MS: u64 = 1000;

/// The beats of one connection.
#[derive(Debug, Default)]
pub(super) struct HeartBeat {
    /// How often this side promised to be heard; 0 for never.
    sends_ms: u64,
    /// How often the client promised to be heard; 0 for never.
    expects_ms: u64,
    said: Time,
    heard: Time,
    /// The socket is not read: silence says nothing.
    paused: bool,
}

impl HeartBeat {
    /// Reads CONNECT's header: what the client can send, and what it wants. Whole seconds, and at least one.
    pub(super) fn negotiate(header: Option<&str>, now: Time) -> Result<Self, StompError> {
        let (sends, wants) = header.map_or(Ok((0, 0)), parse_heart_beat)?;
        Ok(Self {
            sends_ms: rounded(wants),
            expects_ms: rounded(sends),
            said: now,
            heard: now,
            paused: false,
        })
    }

    /// CONNECTED's header.
    pub(super) fn header(&self) -> String {
        format!("{},{}", self.sends_ms, self.expects_ms)
    }

    /// Any byte from the client counts.
    pub(super) fn hear(&mut self, now: Time) {
        self.heard = now;
    }

    /// Any byte to the client counts.
    pub(super) fn say(&mut self, now: Time) {
        self.said = now;
    }

    pub(super) fn pause(&mut self, paused: bool, now: Time) {
        self.paused = paused;
        self.heard = now;
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.send_at().is_some_and(|at| at <= now)
    }

    pub(super) fn is_dead(&self, now: Time) -> bool {
        self.dead_at().is_some_and(|at| at <= now)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.send_at().into_iter().chain(self.dead_at()).min()
    }

    /// Early enough to arrive in time.
    fn send_at(&self) -> Option<Time> {
        (self.sends_ms > 0).then(|| self.said.plus_ms(self.sends_ms * 3 / 4))
    }

    fn dead_at(&self) -> Option<Time> {
        let silence = 2 * self.expects_ms + (self.expects_ms / 2).max(GRACE_MIN_MS);
        (self.expects_ms > 0 && !self.paused).then(|| self.heard.plus_ms(silence))
    }
}

fn rounded(ms: u32) -> u64 {
    match u64::from(ms) {
        0 => 0,
        1..1000 => 1000,
        ms => ms / 1000 * 1000,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, "0,0")]
    #[case(Some("0,0"), "0,0")]
    #[case(Some("1,999"), "1000,1000")]
    #[case(Some("1999,5000"), "5000,1000")]
    #[case(Some("4294967295,0"), "0,4294967000")]
    fn client_is_answered_in_whole_seconds(#[case] header: Option<&str>, #[case] expected: &str) {
        let beat = HeartBeat::negotiate(header, Time(0)).expect("the header is valid");
        assert_eq!(beat.header(), expected);
    }

    #[test]
    fn silence_is_noticed_and_broken() {
        let mut beat = HeartBeat::negotiate(Some("2000,4000"), Time(0)).expect("valid");
        assert!(!beat.is_due(Time(2999)));
        assert!(beat.is_due(Time(3000)));
        beat.say(Time(3000));
        assert!(!beat.is_due(Time(5999)));
        assert!(!beat.is_dead(Time(4999)));
        assert!(beat.is_dead(Time(5000)));
        beat.hear(Time(4999));
        assert_eq!(beat.next_deadline(), Some(Time(6000)));
        beat.pause(true, Time(5000));
        assert!(!beat.is_dead(Time(99_000)));
    }
}
