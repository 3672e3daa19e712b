//! Retry policies, and deliveries whose time is extended.

use super::house::*;
use super::request::*;
use crate::broker::*;

const FAILED: Outcome = Outcome::Modified { delay_ms: None };

fn with_retry(more: &[(&str, Value)]) -> (House, ConnectionId) {
    let mut house = House::new();
    let c = house.connect();
    let mut arguments = vec![("x-retry-delays", text("1s,10s,1m"))];
    arguments.extend_from_slice(more);
    house.declare(c, "dead");
    house.declare_with(c, "a", &arguments);
    house.put(c, "a", &["x"]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    (house, c)
}

fn dead_letters() -> [(&'static str, Value); 2] {
    [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]
}

/// Fails what is delivered; it must come again after so long and no earlier.
fn fail_and_wait(house: &mut House, c: ConnectionId, delay_ms: u64) {
    let seen = house.seen(c);
    assert_eq!(seen.len(), 1);
    house.settle(c, &seen[0], FAILED);
    house.wait(delay_ms - 1);
    assert!(house.events.is_empty(), "too early");
    house.wait(1);
}

#[test]
fn failed_message_comes_again_after_each_delay_and_then_dies() {
    let (mut house, c) = with_retry(&dead_letters());
    for (attempts, delay) in [(0, 1000), (1, 10_000), (2, 60_000)] {
        let attempted = house.events.iter().find_map(|(_, it)| it.deliveries().first()?.attempts);
        assert_eq!(attempted, Some(attempts));
        fail_and_wait(&mut house, c, delay);
    }
    let seen = house.seen(c);
    assert_eq!(seen[0].delivery.attempts, Some(3));
    house.settle(c, &seen[0], FAILED);
    assert_eq!((house.ready("a"), house.ready("dead")), (0, 1));
    house.consume(c, "dead", 2);
    let dead = house.seen(c);
    let header = |name| dead[0].delivery.message.properties().header(name).cloned();
    assert_eq!(header("x-first-death-reason"), Some(text("delivery_limit")));
    house.check_books();
}

#[test]
fn a_limit_of_its_own_repeats_the_last_delay() {
    let (mut house, c) = with_retry(&[("x-delivery-limit", int(4))]);
    for delay in [1000, 10_000, 60_000, 60_000] {
        fail_and_wait(&mut house, c, delay);
    }
    let seen = house.seen(c);
    house.settle(c, &seen[0], FAILED);
    assert_eq!(house.mailbox("a").delayed.len(), 0);
    house.check_books();
}

#[test]
fn only_a_failure_waits() {
    let (mut house, c) = with_retry(&[]);
    let seen = house.seen(c);
    // Given back unread, or with a delay of its own.
    house.settle(c, &seen[0], Outcome::Released);
    let seen = house.seen(c);
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: Some(5) });
    house.wait(5);
    let seen = house.seen(c);
    assert_eq!(seen[0].delivery.attempts, Some(1));
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: Some(0) });
    assert_eq!(house.seen(c)[0].delivery.attempts, Some(2));
    // A connection that is lost counts, and its messages come again at once.
    house.close(c);
    let c = house.connect();
    house.consume(c, "a", 1);
    assert_eq!(house.seen(c)[0].delivery.attempts, Some(3));
    house.check_books();
}

#[test]
fn attempts_and_delay_outlive_a_crash() {
    let (mut house, c) = with_retry(&[]);
    let seen = house.seen(c);
    house.settle(c, &seen[0], FAILED);
    house.wait(1000);
    let seen = house.seen(c);
    house.settle(c, &seen[0], FAILED);
    house.sync();
    house.crash();
    let c = house.connect();
    house.consume(c, "a", 1);
    house.wait(9_999);
    assert!(house.seen(c).is_empty());
    house.wait(1);
    let seen = house.seen(c);
    assert_eq!(seen[0].delivery.attempts, Some(2));
    house.settle(c, &seen[0], FAILED);
    house.wait(59_999);
    assert!(house.seen(c).is_empty());
    house.wait(1);
    assert_eq!(house.seen(c)[0].delivery.attempts, Some(3));
}

#[test]
fn jitter_differs_between_messages_and_not_between_runs() {
    let dues = || {
        let mut house = House::new();
        let c = house.connect();
        let arguments = [("x-retry-delays", text("10s")), ("x-retry-jitter", int(50))];
        house.declare_with(c, "a", &arguments);
        house.put(c, "a", &["1", "2", "3", "4"]);
        house.consume(c, "a", 1);
        for it in house.seen(c) {
            house.settle(c, &it, FAILED);
        }
        let waiting = house.mailbox("a").delayed.after(Default::default());
        waiting.map(|((due, _), _)| due.since_ms(START)).collect::<Vec<_>>()
    };
    let found = dues();
    assert!(found.iter().all(|ms| (5_000..=15_000).contains(ms)), "{found:?}");
    assert!(found.windows(2).all(|it| it[0] < it[1]), "{found:?}");
    assert_eq!(found, dues());
}

#[test]
fn policy_gives_and_takes_delays() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let delays = [("retry-delays", text("7s")), ("retry-jitter", int(0))];
    house.define(Definition::Policy(policy("p", "^a$", &delays)));
    house.put(c, "a", &["x"]);
    house.consume(c, "a", 1);
    fail_and_wait(&mut house, c, 7_000);
    let key = Definition::Policy(policy("p", "^a$", &delays)).key();
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    let seen = house.seen(c);
    house.settle(c, &seen[0], FAILED);
    assert_eq!(house.bodies(c), ["x"], "at once, and for ever");
    for (name, value, called) in [
        ("retry-delays", text("soon"), "list of retry delays"),
        ("retry-jitter", int(101), "retry jitter"),
    ] {
        let definition = Definition::Policy(policy("q", ".", &[(name, value)]));
        let refused = house.ask(SERVER, Request::Define(definition)).unwrap_err().to_string();
        assert!(refused.contains(called), "{refused}");
    }
}

#[test]
fn wrong_delays_are_refused() {
    let mut house = House::new();
    let c = house.connect_lax();
    for (name, value) in [("x-retry-delays", text("soon")), ("x-retry-jitter", int(10))] {
        let refused = house.refused(c, mailbox("a", &[(name, value)]));
        assert!(refused.starts_with(&format!("invalid arg '{name}' for queue 'a'")), "{refused}");
    }
    let stream = [("x-queue-type", text("stream")), ("x-retry-delays", text("1s"))];
    let refused = house.refused(c, mailbox("a", &stream));
    assert!(refused.starts_with("invalid arg 'x-retry-delays'"), "{refused}");
    house.declare_with(c, "a", &[("x-retry-delays", text("1s"))]);
    let refused = house.refused(c, mailbox("a", &[("x-retry-delays", text("2s"))]));
    assert!(refused.starts_with("inequivalent arg 'x-retry-delays'"), "{refused}");
}

#[test]
fn member_of_a_group_has_a_policy_of_its_own() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "s", &[("x-queue-type", text("stream"))]);
    house.declare(c, "dead");
    house.put(c, "s", &["x"]);
    let [exchange, key] = dead_letters();
    let arguments = [
        ("x-group", text("g")),
        ("x-stream-offset", text("first")),
        ("x-retry-delays", text("1s,10s")),
        exchange,
        key,
    ];
    house.consume_with(c, "s", 1, |it| it.arguments = table(&arguments));
    fail_and_wait(&mut house, c, 1_000);
    house.wait(1_000);
    house.sync();
    house.crash();
    let c = house.connect();
    house.consume_with(c, "s", 1, |it| it.arguments = table(&arguments));
    fail_and_wait(&mut house, c, 10_000);
    let seen = house.seen(c);
    assert_eq!(seen[0].delivery.attempts, Some(2));
    house.settle(c, &seen[0], FAILED);
    assert_eq!(house.ready("dead"), 1);
}

fn extend(house: &mut House, c: ConnectionId, seen: &Seen) {
    let Delivery { channel, mailbox, seq, .. } = seen.delivery;
    let deliveries = [Run { mailbox, first: seq, count: 1 }].into_iter().collect();
    house.apply(c, Command::Extend(Extend { channel, deliveries }));
}

#[test]
fn time_to_settle_begins_anew() {
    for stream in [false, true] {
        let mut house = House::new();
        let c = house.connect();
        let kind = if stream { "stream" } else { "classic" };
        house.declare_with(c, "a", &[("x-queue-type", text(kind))]);
        house.put(c, "a", &["1", "2"]);
        let mut arguments = vec![("x-consumer-timeout", int(1000))];
        if stream {
            arguments.push(("x-group", text("g")));
            arguments.push(("x-stream-offset", text("first")));
        }
        house.consume_with(c, "a", 1, |it| it.arguments = table(&arguments));
        let seen = house.seen(c);
        assert_eq!(seen.len(), 2);
        for _ in 0..5 {
            house.wait(900);
            extend(&mut house, c, &seen[0]);
            extend(&mut house, c, &seen[1]);
            assert!(house.told(c).is_empty() && house.seen(c).is_empty(), "{kind}");
        }
        house.settle(c, &seen[0], Outcome::Accepted);
        assert!(house.told(c).is_empty());
        house.wait(1000);
        // Whoever is late is told so when it asks for more.
        house.told(c);
        extend(&mut house, c, &seen[1]);
        assert_eq!(house.told(c), ["no: unknown delivery"], "{kind}");
        house.check_books();
    }
}
