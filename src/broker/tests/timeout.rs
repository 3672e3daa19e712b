//! Deliveries that nobody settles.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::*;

const HALF_HOUR: u64 = 1_800_000;

fn two(house: &mut House, c: ConnectionId, arguments: &[(&str, Value)]) {
    house.declare_with(c, "a", arguments);
    house.put(c, "a", &["1", "2"]);
}

#[test]
fn unsettled_delivery_goes_back_and_its_consumer_ends() {
    let mut house = House::new();
    let (slow, other) = (house.connect(), house.connect());
    two(&mut house, slow, &[("x-queue-type", text("quorum"))]);
    house.consume_with(slow, "a", 1, |it| it.prefetch = 1);
    let seen = house.seen(slow);
    house.wait(HALF_HOUR - 1);
    assert!(house.told(slow).is_empty());
    house.consume(other, "a", 1);
    assert_eq!(house.bodies(other), ["2"]);
    house.wait(1);
    assert_eq!(house.told(slow), ["cancelled 1"]);
    let again = house.seen(other);
    assert_eq!((again[0].body.as_str(), again[0].redelivered), ("1", true));
    assert_eq!(again[0].delivery.attempts, Some(0), "no attempt failed");
    assert_eq!(house.mailbox("a").consumers.len(), 1);
    // Who is late is not at fault, once.
    house.settle(slow, &seen[0], Outcome::Accepted);
    assert!(house.told(slow).is_empty());
    house.check_books();
    house.settle(slow, &seen[0], Outcome::Accepted);
    assert_eq!(house.told(slow), ["no: unknown delivery"]);
}

#[test]
fn settled_in_time_nothing_happens() {
    let mut house = House::new();
    let c = house.connect();
    two(&mut house, c, &[]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    for _ in 0..2 {
        house.wait(HALF_HOUR - 1);
        let seen = house.seen(c);
        assert_eq!(seen.len(), 1);
        house.settle(c, &seen[0], Outcome::Accepted);
    }
    house.wait(10 * HALF_HOUR);
    assert!(house.told(c).is_empty());
    assert_eq!(house.broker.next_deadline(), None);
}

#[test]
fn old_client_loses_its_channel() {
    let mut house = House::new();
    let c = house.connect_old();
    two(&mut house, c, &[("x-consumer-timeout", int(5_000))]);
    house.consume(c, "a", 1);
    house.wait(5_000);
    let text = "no: delivery acknowledgement on channel 1 timed out. Timeout value used: 5000 ms. \
                This timeout value can be configured, see consumers doc guide to learn more";
    assert_eq!(house.told(c), [text]);
    house.close_channel(c, ONE);
    assert_eq!(house.ready("a"), 2);
    house.check_books();
}

#[test]
fn message_asked_for_singly_times_out_too() {
    let mut house = House::new();
    let (strict, lax) = (house.connect(), house.connect_lax());
    two(&mut house, strict, &[("x-consumer-timeout", int(5_000))]);
    house.get(strict, "a");
    let second = house.get(lax, "a").unwrap();
    house.wait(5_000);
    assert_eq!(house.ready("a"), 2);
    assert!(house.told(strict)[0].starts_with("no: delivery acknowledgement on channel 1"));
    house.settle(lax, &second, Outcome::Accepted);
    assert!(house.told(lax).is_empty());
    assert_eq!(house.ready("a"), 2);
}

#[rstest]
#[case(None, None, None, HALF_HOUR)]
#[case(None, Some(7_000), None, 7_000)]
#[case(None, Some(7_000), Some(3_000), 3_000)]
#[case(None, Some(7_000), Some(9_000), 7_000)]
#[case(None, None, Some(9_000), 9_000)]
#[case(Some(20_000), Some(7_000), Some(9_000), 20_000)]
#[case(Some(0), Some(7_000), None, u64::MAX)]
#[case(None, Some(0), None, u64::MAX)]
fn consumer_says_how_long_then_queue_and_policy(
    #[case] consumer: Option<i64>,
    #[case] queue: Option<i64>,
    #[case] by_policy: Option<i64>,
    #[case] expected: u64,
) {
    let mut house = House::new();
    let c = house.connect();
    let argument = |given: Option<i64>| given.map(|ms| ("x-consumer-timeout", int(ms)));
    let arguments: Vec<_> = argument(queue).into_iter().collect();
    two(&mut house, c, &arguments);
    house.consume_with(c, "a", 1, |it| {
        it.arguments = table(&argument(consumer).into_iter().collect::<Vec<_>>());
    });
    // Also where it comes when the delivery was made.
    if let Some(ms) = by_policy {
        house.define(Definition::Policy(policy("p", "a", &[("consumer-timeout", int(ms))])));
    }
    let wait = expected.min(10 * HALF_HOUR);
    house.wait(wait - 1);
    assert!(house.told(c).is_empty());
    house.wait(1);
    let ended = house.told(c) == ["cancelled 1"];
    assert_eq!(ended, expected < u64::MAX);
    house.check_books();
}

#[test]
fn timeout_must_be_a_time() {
    let mut house = House::new();
    let c = house.connect_lax();
    let wrong = [("x-consumer-timeout", int(-1))];
    assert_eq!(
        house.refused(c, mailbox("a", &wrong)),
        "invalid arg 'x-consumer-timeout' for queue 'a' in vhost '/': {value_negative,-1}"
    );
    house.declare(c, "a");
    let mut consume = consume("a", 1);
    consume.arguments = table(&[("x-consumer-timeout", text("soon"))]);
    assert_eq!(
        house.refused(c, Request::Consume(consume)),
        "invalid arg 'x-consumer-timeout' for queue 'a' in vhost '/': \"expected integer, got longstr\""
    );
}

#[test]
fn last_consumer_takes_its_mailbox_along() {
    let mut house = House::new();
    let c = house.connect();
    let mut declare = declare("a", &[]);
    declare.auto_delete = true;
    house.ask(c, Request::DeclareMailbox(declare)).unwrap();
    house.put(c, "a", &["1"]);
    house.consume(c, "a", 1);
    house.wait(HALF_HOUR);
    assert_eq!(house.told(c), ["cancelled 1"]);
    assert!(!house.exists("a"));
}

#[test]
fn late_acknowledgement_may_be_part_of_a_transaction() {
    let mut house = House::new();
    let c = house.connect();
    two(&mut house, c, &[]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    let seen = house.seen(c);
    house.wait(HALF_HOUR);
    let settle = Command::Settle(settlement(ONE, &seen[0], Outcome::Accepted));
    house.ask(c, Request::Commit(vec![settle])).unwrap();
    assert_eq!(house.ready("a"), 2);
    house.check_books();
}

/// Many deliveries, each with a moment of its own, do not mean a look at all of them each time.
#[test]
fn leases_are_looked_at_now_and_then() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.consume(c, "a", 1);
    for _ in 0..200 {
        house.put(c, "a", &["x"]);
        house.wait(10_000);
    }
    let mut looks = 0;
    while house.mailbox("a").unsettled() > 0 {
        let due = house.broker.next_deadline().expect("a deadline");
        house.now = due;
        house.tick();
        looks += 1;
    }
    assert!(looks < 100, "{looks}");
}
