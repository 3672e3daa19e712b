//! Consumers, their turns and credit, and what becomes of deliveries.

use super::house::*;
use super::request::*;
use crate::broker::*;

const RETRY: Outcome = Outcome::Modified { delay_ms: None };

fn three(house: &mut House) -> ConnectionId {
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3"]);
    c
}

#[test]
fn consumers_take_turns() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    for consumer in 1..=3 {
        house.consume(c, "a", consumer);
    }
    house.put(c, "a", &["a", "b", "c", "d", "e", "f"]);
    let consumers: Vec<u32> = house.seen(c).iter().map(|seen| seen.consumer).collect();
    assert_eq!(consumers, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn turns_stay_fair_when_consumers_come_and_go() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    for consumer in 1..=3 {
        house.consume(c, "a", consumer);
    }
    house.put(c, "a", &["x"]);
    house.consume_with(c, "a", 9, |it| {
        it.priority = 5;
        it.prefetch = 1;
    });
    house.put(c, "a", &["x", "x"]);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.put(c, "a", &["x"]);
    let consumers: Vec<u32> = house.seen(c).iter().map(|seen| seen.consumer).collect();
    assert_eq!(consumers, [1, 9, 2, 3]);
}

#[test]
fn higher_priority_is_served_first_while_it_has_credit() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.consume(c, "a", 1);
    house.consume_with(c, "a", 2, |it| {
        it.priority = 10;
        it.prefetch = 2;
    });
    house.put(c, "a", &["a", "b", "c"]);
    let seen = house.seen(c);
    assert_eq!(seen.iter().map(|it| it.consumer).collect::<Vec<_>>(), [2, 2, 1]);
    house.settle(c, &seen[0], Outcome::Accepted);
    house.put(c, "a", &["d"]);
    assert_eq!(house.by_consumer(c), [(2, "d".into())]);
    house.check_books();
}

#[test]
fn prefetch_bounds_what_a_consumer_holds() {
    let mut house = House::new();
    let c = three(&mut house);
    house.consume_with(c, "a", 1, |it| it.prefetch = 2);
    let seen = house.seen(c);
    assert_eq!(seen.len(), 2);
    house.settle(c, &seen[1], Outcome::Accepted);
    assert_eq!(house.bodies(c), ["3"]);
    house.check_books();
}

#[test]
fn no_ack_consumer_is_not_bound_by_prefetch() {
    let mut house = House::new();
    let c = three(&mut house);
    house.consume_with(c, "a", 1, |it| {
        it.prefetch = 1;
        it.no_ack = true;
    });
    assert_eq!(house.bodies(c).len(), 3);
    assert_eq!(house.mailbox("a").unsettled(), 0);
    house.check_books();
}

#[test]
fn later_qos_raises_consumers_but_never_lowers_them() {
    let mut house = House::new();
    let c = three(&mut house);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    assert_eq!(house.bodies(c).len(), 1);
    let qos = |limit| Request::Qos { limit, scope: QosScope::NewConsumers };
    house.ask(c, qos(2)).unwrap();
    assert_eq!(house.bodies(c), ["2"]);
    house.ask(c, qos(1)).unwrap();
    house.ask(c, qos(0)).unwrap();
    assert_eq!(house.bodies(c), ["3"]);
}

#[test]
fn channel_limit_is_shared_and_live() {
    let mut house = House::new();
    let c = three(&mut house);
    house.declare(c, "b");
    house.put(c, "b", &["4"]);
    let qos = |limit| Request::Qos { limit, scope: QosScope::Channel };
    house.ask(c, qos(2)).unwrap();
    house.consume(c, "a", 1);
    house.consume(c, "b", 2);
    let seen = house.seen(c);
    assert_eq!(seen.len(), 2);
    house.ask(c, qos(3)).unwrap();
    assert_eq!(house.by_consumer(c), [(1, "3".into())]);
    // Credit that one mailbox's message gives back serves another mailbox.
    house.settle(c, &seen[0], Outcome::Accepted);
    assert_eq!(house.by_consumer(c), [(2, "4".into())]);
    house.check_books();
}

#[test]
fn channel_limit_counts_no_single_gets() {
    let mut house = House::new();
    let c = three(&mut house);
    house.ask(c, Request::Qos { limit: 1, scope: QosScope::Channel }).unwrap();
    assert!(house.get(c, "a").is_some());
    house.consume(c, "a", 1);
    assert_eq!(house.bodies(c), ["2"]);
    house.check_books();
}

#[test]
fn deleting_a_mailbox_gives_its_credit_back() {
    let mut house = House::new();
    let c = three(&mut house);
    house.declare(c, "b");
    house.put(c, "b", &["4"]);
    house.ask(c, Request::Qos { limit: 1, scope: QosScope::Channel }).unwrap();
    house.consume(c, "a", 1);
    house.consume(c, "b", 2);
    assert_eq!(house.bodies(c), ["1"]);
    house.ask(c, delete("a")).unwrap();
    assert_eq!(house.bodies(c), ["4"]);
    house.check_books();
}

#[test]
fn recover_wakes_other_mailboxes_of_a_full_channel() {
    let mut house = House::new();
    let c = three(&mut house);
    house.declare_with(c, "b", &[("x-message-ttl", int(5))]);
    house.publish(c, Post::to("b", "4"));
    house.ask(c, Request::Qos { limit: 1, scope: QosScope::Channel }).unwrap();
    house.consume(c, "b", 2);
    house.consume(c, "a", 1);
    assert_eq!(house.bodies(c), ["4"]);
    house.now = house.now.plus_ms(10);
    house.ask(c, Request::Recover).unwrap();
    assert_eq!(house.bodies(c), ["1"]);
}

#[test]
fn connection_gets_no_more_than_its_window() {
    let mut house = House::with(Settings { window_deliveries: 4, ..Settings::default() });
    house.drains = false;
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3", "4", "5", "6"]);
    house.consume_with(c, "a", 1, |it| it.no_ack = true);
    assert_eq!(house.bodies(c), ["1", "2", "3", "4"]);
    house.apply(c, Command::Drained { deliveries: 1, bytes: 1 });
    assert!(house.bodies(c).is_empty(), "woken only when half is free");
    house.apply(c, Command::Drained { deliveries: 2, bytes: 2 });
    assert_eq!(house.bodies(c), ["5", "6"]);
}

#[test]
fn window_of_one_still_moves() {
    let settings = Settings { window_deliveries: 1, window_bytes: 1, ..Settings::default() };
    let mut house = House::with(settings);
    house.drains = false;
    let c = three(&mut house);
    house.consume(c, "a", 1);
    for body in ["1", "2", "3"] {
        assert_eq!(house.bodies(c), [body]);
        house.apply(c, Command::Drained { deliveries: 1, bytes: 1 });
    }
}

#[test]
fn full_connection_leaves_messages_to_others() {
    let mut house = House::with(Settings { window_bytes: 1, ..Settings::default() });
    house.drains = false;
    let slow = house.connect();
    let fast = house.connect();
    house.declare(slow, "a");
    house.consume(slow, "a", 1);
    house.put(slow, "a", &["1"]);
    house.consume(fast, "a", 1);
    house.put(slow, "a", &["2"]);
    assert_eq!(house.bodies(slow), ["1"]);
    assert_eq!(house.bodies(fast), ["2"]);
}

#[test]
fn released_message_keeps_its_place() {
    for outcome in [Outcome::Released, RETRY] {
        let mut house = House::new();
        let c = three(&mut house);
        let [first, second] = [0, 1].map(|_| house.get(c, "a").unwrap());
        house.settle(c, &second, outcome);
        house.settle(c, &first, outcome);
        let flags = [0, 1, 2].map(|_| {
            let seen = house.get(c, "a").unwrap();
            (seen.body, seen.redelivered)
        });
        let expected = [("1", true), ("2", true), ("3", false)];
        assert_eq!(flags, expected.map(|(body, flag)| (body.to_owned(), flag)));
        house.check_books();
    }
}

#[test]
fn delayed_retry_comes_back_in_time_to_its_place() {
    let mut house = House::new();
    let c = three(&mut house);
    let first = house.get(c, "a").unwrap();
    house.settle(c, &first, Outcome::Modified { delay_ms: Some(100) });
    assert_eq!(house.ready("a"), 2);
    house.check_books();
    house.wait(99);
    assert_eq!(house.ready("a"), 2);
    house.wait(1);
    let again = house.get(c, "a").unwrap();
    assert_eq!((again.body.as_str(), again.redelivered), ("1", true));
    house.check_books();
}

#[test]
fn unknown_delivery_is_refused_but_others_are_settled() {
    let mut house = House::new();
    let c = three(&mut house);
    let seen = house.get(c, "a").unwrap();
    let mut settle = settlement(ONE, &seen, Outcome::Accepted);
    settle.deliveries[0].count = 2;
    house.apply(c, Command::Settle(settle));
    assert_eq!(house.told(c), ["no: unknown delivery"]);
    assert_eq!(house.mailbox("a").unsettled(), 0);
}

#[test]
fn lease_belongs_to_its_channel() {
    let mut house = House::new();
    let c = three(&mut house);
    let other = house.connect();
    let seen = house.get(c, "a").unwrap();
    house.settle_on(c, TWO, &seen, Outcome::Accepted);
    house.settle(other, &seen, Outcome::Accepted);
    assert_eq!(house.told(c), ["no: unknown delivery"]);
    assert_eq!(house.told(other), ["no: unknown delivery"]);
    assert_eq!(house.mailbox("a").unsettled(), 1);
}

#[test]
fn settling_after_the_mailbox_went_is_no_mistake() {
    let mut house = House::new();
    let c = three(&mut house);
    let seen = house.get(c, "a").unwrap();
    house.ask(c, delete("a")).unwrap();
    house.settle(c, &seen, Outcome::Accepted);
    assert!(house.told(c).is_empty());
}

#[test]
fn closed_channel_returns_everything_in_order() {
    let mut house = House::new();
    let c = three(&mut house);
    let other = house.connect();
    house.consume(c, "a", 1);
    assert_eq!(house.seen(c).len(), 3);
    house.close_channel(c, ONE);
    assert_eq!(house.ready("a"), 3);
    house.consume(other, "a", 1);
    let seen = house.seen(other);
    assert!(seen.iter().all(|it| it.redelivered));
    assert_eq!(seen.iter().map(|it| it.body.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    house.check_books();
}

#[test]
fn closed_connection_hands_nothing_to_itself() {
    let mut house = House::new();
    let c = three(&mut house);
    house.ask_on(c, TWO, Request::Consume(consume("a", 2))).unwrap();
    house.consume(c, "a", 1);
    let delivered = house.mailbox("a").counts.delivered;
    house.close(c);
    assert_eq!(house.mailbox("a").counts.delivered, delivered);
    assert_eq!(house.ready("a"), 3);
    house.check_books();
}

#[test]
fn recover_returns_what_the_channel_holds() {
    let mut house = House::new();
    let c = three(&mut house);
    house.consume_with(c, "a", 1, |it| it.prefetch = 2);
    house.seen(c);
    house.ask(c, Request::Recover).unwrap();
    let seen = house.seen(c);
    assert_eq!(seen.iter().map(|it| it.body.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(seen.iter().all(|it| it.redelivered));
    house.check_books();
}

#[test]
fn exclusive_consumer_is_alone() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    let with = |consumer, exclusive| {
        let mut it = consume("a", consumer);
        it.exclusive = exclusive;
        Request::Consume(it)
    };
    house.ask(c, with(1, false)).unwrap();
    let text = "queue 'a' in vhost '/' in exclusive use";
    assert_eq!(house.refused(c, with(2, true)), text);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.ask(c, with(2, true)).unwrap();
    assert_eq!(house.refused(c, with(3, false)), text);
    house.declare_with(c, "s", &[("x-single-active-consumer", Value::Bool(true))]);
    let mut sac = consume("s", 4);
    sac.exclusive = true;
    assert_eq!(house.refused(c, Request::Consume(sac)), "queue 's' in vhost '/' in exclusive use");
}

#[test]
fn cancelled_consumer_keeps_its_deliveries_and_gets_no_more() {
    let mut house = House::new();
    let c = three(&mut house);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    let seen = house.seen(c);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.settle(c, &seen[0], Outcome::Accepted);
    assert!(house.seen(c).is_empty());
    assert_eq!(house.ready("a"), 2);
    house.check_books();
}

#[test]
fn deleted_mailbox_cancels_its_consumers() {
    let mut house = House::new();
    let c = three(&mut house);
    let other = house.connect();
    house.consume(c, "a", 5);
    house.ask(other, delete("a")).unwrap();
    assert_eq!(house.told(c), ["cancelled 5"]);
    house.close(c);
    house.check_books();
}

#[test]
fn auto_delete_mailbox_goes_with_its_last_consumer() {
    let mut house = House::new();
    let c = house.connect();
    let mut wanted = declare("a", &[]);
    wanted.auto_delete = true;
    house.ask(c, Request::DeclareMailbox(wanted.clone())).unwrap();
    assert!(house.get(c, "a").is_none());
    assert!(house.exists("a"), "getting does not count");
    house.consume(c, "a", 1);
    house.consume(c, "a", 2);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    assert!(house.exists("a"));
    house.ask(c, Request::Cancel(ConsumerId(2))).unwrap();
    assert!(!house.exists("a"));
    house.ask(c, Request::DeclareMailbox(wanted.clone())).unwrap();
    house.consume(c, "a", 1);
    house.close_channel(c, ONE);
    assert!(!house.exists("a"));
    house.ask(c, Request::DeclareMailbox(wanted)).unwrap();
    house.consume(c, "a", 1);
    house.close(c);
    assert!(!house.exists("a"));
}

#[test]
fn one_active_consumer_until_it_leaves() {
    let mut house = House::new();
    let c = house.connect();
    let other = house.connect();
    house.declare_with(c, "a", &[("x-single-active-consumer", Value::Bool(true))]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    house.consume(other, "a", 2);
    house.consume_with(other, "a", 3, |it| it.priority = 5);
    house.put(c, "a", &["1", "2"]);
    assert_eq!(house.by_consumer(c), [(1, "1".into())]);
    assert!(house.seen(other).is_empty(), "the active one is full, the others wait");
    house.close(c);
    assert_eq!(house.by_consumer(other), [(3, "1".into()), (3, "2".into())]);
    house.ask(other, Request::Cancel(ConsumerId(3))).unwrap();
    house.put(other, "a", &["3"]);
    assert_eq!(house.by_consumer(other), [(2, "3".into())]);
    house.check_books();
}

#[test]
fn get_tells_how_many_are_left() {
    let mut house = House::new();
    let c = three(&mut house);
    let (seen, left) = house.get_with(c, "a", false);
    assert_eq!((seen.unwrap().body.as_str(), left), ("1", 2));
    let (seen, left) = house.get_with(c, "a", true);
    assert_eq!((seen.unwrap().body.as_str(), left), ("2", 1));
    assert_eq!(house.mailbox("a").unsettled(), 1);
    house.get_with(c, "a", true);
    assert!(house.get(c, "a").is_none());
    house.check_books();
}

#[test]
fn quorum_mailbox_with_one_active_consumer_is_not_got_from() {
    let mut house = House::new();
    let c = house.connect();
    let single = ("x-single-active-consumer", Value::Bool(true));
    house.declare_with(c, "a", &[("x-queue-type", text("quorum")), single]);
    let request = Request::Get { mailbox: "a".into(), no_ack: false };
    assert!(matches!(house.ask(c, request), Err(Refusal::OneReaderOnly { .. })));
}

#[test]
fn purge_takes_the_ready_and_leaves_the_leased() {
    let mut house = House::new();
    let c = three(&mut house);
    let held = house.get(c, "a").unwrap();
    assert!(matches!(house.ask(c, purge("a")), Ok(Reply::Counted(2))));
    house.check_books();
    house.settle(c, &held, Outcome::Released);
    assert_eq!(house.empty(c, "a"), ["1"]);
    house.check_books();
    assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
}

#[test]
fn late_words_of_a_closed_connection_leave_no_trace() {
    let mut house = House::new();
    let c = three(&mut house);
    house.close(c);
    for request in [
        Request::Cancel(ConsumerId(1)),
        Request::Recover,
        Request::Qos { limit: 1, scope: QosScope::Channel },
    ] {
        assert!(house.ask(c, request).is_err());
    }
    house.publish(c, Post::to("a", "late"));
    house.close_channel(c, ONE);
    house.apply(c, Command::Drained { deliveries: 1, bytes: 1 });
    house.apply(c, Command::Close(None));
    assert!(house.broker.connections.is_empty());
    assert_eq!(house.ready("a"), 3);
}

#[test]
fn attempts_are_told_where_they_are_counted() {
    let mut house = House::new();
    let c = house.connect();
    let unlimited = ("x-delivery-limit", int(-1));
    house.declare_with(c, "a", &[("x-queue-type", text("quorum")), unlimited]);
    house.declare(c, "plain");
    house.put(c, "a", &["1"]);
    house.put(c, "plain", &["2"]);
    for attempts in 0..30 {
        let seen = house.get(c, "a").unwrap();
        assert_eq!(seen.delivery.attempts, Some(attempts));
        house.settle(c, &seen, RETRY);
    }
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Released);
    assert_eq!(house.get(c, "a").unwrap().delivery.attempts, Some(30));
    assert_eq!(house.get(c, "plain").unwrap().delivery.attempts, None);
}
