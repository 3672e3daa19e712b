//! Time to live, length, rejection and what dead letters say; delays.

use super::house::*;
use super::request::*;
use crate::broker::*;

const RETRY: Outcome = Outcome::Modified { delay_ms: None };
const DLX: &str = "x-dead-letter-exchange";

/// A mailbox `a` whose dead letters go to the mailbox `dead`.
fn with_dead(house: &mut House, arguments: &[(&str, Value)]) -> ConnectionId {
    let c = house.connect();
    house.declare(c, "dead");
    house.bind(c, "amq.fanout", "dead", "");
    let mut all = vec![(DLX, text("amq.fanout"))];
    all.extend_from_slice(arguments);
    house.declare_with(c, "a", &all);
    c
}

fn header(seen: &Seen, name: &str) -> Option<Value> {
    seen.delivery.message.properties().header(name).cloned()
}

fn texts(values: &[&str]) -> Value {
    Value::Array(values.iter().map(|it| text(it)).collect())
}

#[test]
fn message_expires_anywhere_in_the_mailbox() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1"]);
    house.publish(c, Post::to("a", "2").expiration(100));
    house.publish(c, Post::to("a", "3").expiration(50));
    house.put(c, "a", &["4"]);
    assert_eq!(house.broker.next_deadline(), Some(START.plus_ms(50)));
    house.wait(50);
    assert_eq!(house.ready("a"), 3);
    house.wait(50);
    assert_eq!(house.ready("a"), 2);
    assert_eq!(house.broker.next_deadline(), None);
    assert_eq!(house.mailbox("a").counts.expired, 2);
    assert_eq!(house.empty(c, "a"), ["1", "4"]);
    house.check_books();
}

#[test]
fn mailbox_time_to_live_bounds_every_message() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-message-ttl", int(100))]);
    house.put(c, "a", &["1"]);
    house.wait(60);
    house.put(c, "a", &["2"]);
    house.publish(c, Post::to("a", "3").expiration(1_000));
    house.wait(40);
    assert_eq!(house.ready("a"), 2);
    house.wait(60);
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn time_to_live_of_zero_is_now_or_never() {
    for own in [true, false] {
        let mut house = House::new();
        let c = house.connect();
        let ttl = [("x-message-ttl", int(0))];
        house.declare_with(c, "a", if own { &[] } else { &ttl });
        let post = || if own { Post::to("a", "x").expiration(0) } else { Post::to("a", "x") };
        house.publish(c, post());
        assert_eq!(house.ready("a"), 0);
        house.consume_with(c, "a", 1, |it| it.prefetch = 1);
        house.publish(c, post());
        let seen = house.seen(c);
        assert_eq!(seen.len(), 1);
        house.publish(c, post());
        assert_eq!(house.ready("a"), 0, "the consumer is full");
        house.wait(1);
        house.settle(c, &seen[0], Outcome::Released);
        assert!(house.seen(c).is_empty(), "it is too old now");
        assert_eq!(house.mailbox("a").counts.expired, 3);
        house.check_books();
    }
}

#[test]
fn leased_message_expires_when_it_comes_back() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.publish(c, Post::to("a", "1").expiration(50));
    let seen = house.get(c, "a").unwrap();
    house.wait(100);
    house.settle(c, &seen, Outcome::Released);
    assert!(house.get(c, "a").is_none());
    house.publish(c, Post::to("a", "2").expiration(50));
    let seen = house.get(c, "a").unwrap();
    house.wait(10);
    house.settle(c, &seen, Outcome::Released);
    house.wait(39);
    assert_eq!(house.ready("a"), 1, "it keeps its first deadline");
    house.wait(1);
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn unused_mailbox_expires() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-expires", int(100))]);
    house.wait(90);
    house.get(c, "a");
    house.wait(90);
    house.declare_with(c, "a", &[("x-expires", int(100))]);
    house.wait(90);
    house.consume(c, "a", 1);
    house.wait(500);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.wait(99);
    assert!(house.exists("a"));
    house.put(c, "a", &["publishing is no use"]);
    house.wait(1);
    assert!(!house.exists("a"));
    house.check_books();
}

#[test]
fn longest_mailbox_drops_its_oldest() {
    let mut house = House::new();
    let c = with_dead(&mut house, &[("x-max-length", int(2))]);
    house.put(c, "a", &["1", "2", "3", "4"]);
    assert_eq!(house.ready("a"), 2);
    assert_eq!(house.empty(c, "dead"), ["1", "2"]);
    assert_eq!(house.empty(c, "a"), ["3", "4"]);
    house.check_books();
}

#[test]
fn length_counts_bodies_in_bytes_and_nothing_leased() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-length-bytes", int(4))]);
    house.put(c, "a", &["aa", "bb"]);
    let held = house.get(c, "a").unwrap();
    house.put(c, "a", &["cc"]);
    assert_eq!(house.ready("a"), 2);
    house.settle(c, &held, Outcome::Released);
    assert_eq!(house.empty(c, "a"), ["bb", "cc"], "the one that came back is the oldest");
    house.put(c, "a", &["ddddd"]);
    assert_eq!(house.ready("a"), 0);
    assert_eq!(house.mailbox("a").counts.dropped, 2);
    house.check_books();
}

#[test]
fn full_mailbox_refuses_publishers() {
    let mut house = House::new();
    let arguments = [("x-max-length-bytes", int(4)), ("x-overflow", text("reject-publish"))];
    let c = with_dead(&mut house, &arguments);
    house.publish(c, Post::to("a", "aaa").confirm(1));
    house.publish(c, Post::to("a", "bb").confirm(2));
    house.publish(c, Post::to("a", "c").confirm(3));
    assert_eq!(house.told(c), ["confirmed 1", "refused 2", "confirmed 3"]);
    assert_eq!(house.ready("dead"), 0);
    assert_eq!(house.mailbox("a").counts.refused, 1);
    house.check_books();
}

#[test]
fn refusal_of_one_mailbox_does_not_take_it_from_others() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(
        c,
        "full",
        &[("x-max-length", int(0)), ("x-overflow", text("reject-publish"))],
    );
    house.declare(c, "a");
    house.publish(c, Post::to("full", "1").cc(&["a"]).confirm(1));
    assert_eq!(house.told(c), ["refused 1"]);
    assert_eq!(house.empty(c, "a"), ["1"]);
}

#[test]
fn refused_message_may_be_dead_lettered() {
    let mut house = House::new();
    let arguments = [("x-max-length", int(1)), ("x-overflow", text("reject-publish-dlx"))];
    let c = with_dead(&mut house, &arguments);
    house.publish(c, Post::to("a", "1").confirm(1));
    house.publish(c, Post::to("a", "2").confirm(2));
    assert_eq!(house.told(c), ["confirmed 1", "refused 2"]);
    let seen = house.get(c, "dead").unwrap();
    assert_eq!(seen.body, "2");
    assert_eq!(header(&seen, "x-first-death-reason"), Some(text("maxlen")));
    house.check_books();
}

#[test]
fn priorities_keep_order_inside_a_level() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", int(5))]);
    for (body, priority) in [("1", 0), ("2", 9), ("3", 3), ("4", 5), ("5", 0), ("6", 3)] {
        house.publish(c, Post::to("a", body).priority(priority));
    }
    house.put(c, "a", &["7"]);
    let first = house.get(c, "a").unwrap();
    house.settle(c, &first, Outcome::Released);
    assert_eq!(house.empty(c, "a"), ["2", "4", "3", "6", "1", "5", "7"]);
    house.check_books();
}

#[test]
fn priority_means_nothing_without_the_argument() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.publish(c, Post::to("a", "1"));
    house.publish(c, Post::to("a", "2").priority(9));
    assert_eq!(house.empty(c, "a"), ["1", "2"]);
}

#[test]
fn dead_letter_says_why_and_whence() {
    let mut house = House::new();
    let c = with_dead(&mut house, &[]);
    house.publish(c, Post::by("amq.topic", "unheard", "0"));
    house.bind(c, "amq.topic", "a", "some.*");
    house.publish(c, Post::by("amq.topic", "some.key", "1").expiration(2_500).cc(&["other"]));
    house.wait(2_500);
    let seen = house.get(c, "dead").unwrap();
    let message = &seen.delivery.message;
    assert_eq!((message.exchange().as_str(), message.key()), ("amq.fanout", &b"some.key"[..]));
    assert_eq!(message.properties().expiration, None);
    assert_eq!(message.expiration_ms(), None);
    let death = table(&[
        ("count", int(1)),
        ("reason", text("expired")),
        ("queue", text("a")),
        ("time", Value::Timestamp(START.plus_ms(2_500).seconds())),
        ("exchange", text("amq.topic")),
        ("routing-keys", texts(&["some.key", "other"])),
        ("original-expiration", text("2500")),
    ]);
    assert_eq!(header(&seen, "x-death"), Some(Value::Array(vec![Value::Table(death)])));
    for (name, expected) in [
        ("x-first-death-reason", "expired"),
        ("x-first-death-queue", "a"),
        ("x-first-death-exchange", "amq.topic"),
        ("x-last-death-reason", "expired"),
        ("x-last-death-queue", "a"),
        ("x-last-death-exchange", "amq.topic"),
    ] {
        assert_eq!(header(&seen, name), Some(text(expected)), "{name}");
    }
    assert_eq!(header(&seen, "CC"), Some(texts(&["other"])));
    assert!(message.id > MessageId::default());
}

#[test]
fn newest_death_stands_first_and_repeats_are_counted() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "work", &[(DLX, text("")), ("x-dead-letter-routing-key", text("retry"))]);
    let back = [
        (DLX, text("")),
        ("x-dead-letter-routing-key", text("work")),
        ("x-message-ttl", int(1_000)),
    ];
    house.declare_with(c, "retry", &back);
    house.put(c, "work", &["x"]);
    for _ in 0..3 {
        let seen = house.get(c, "work").unwrap();
        house.settle(c, &seen, Outcome::Rejected);
        house.wait(1_000);
    }
    let seen = house.get(c, "work").unwrap();
    let Some(Value::Array(deaths)) = header(&seen, "x-death") else { panic!("no deaths") };
    let told: Vec<_> = deaths
        .iter()
        .map(|death| {
            let Value::Table(death) = death else { panic!("no table") };
            let field = |name: &str| death.get(name).cloned().unwrap();
            (field("queue"), field("reason"), field("count"), field("time"))
        })
        .collect();
    let time = |ms| Value::Timestamp(START.plus_ms(ms).seconds());
    let expected = [
        (text("retry"), text("expired"), int(3), time(1_000)),
        (text("work"), text("rejected"), int(3), time(0)),
    ];
    assert_eq!(told, expected);
    assert_eq!(header(&seen, "x-first-death-queue"), Some(text("work")));
    assert_eq!(header(&seen, "x-last-death-queue"), Some(text("retry")));
    house.check_books();
}

#[test]
fn dead_letter_key_replaces_all_keys() {
    let mut house = House::new();
    let c = house.connect();
    let arguments = [(DLX, text("")), ("x-dead-letter-routing-key", text("dead"))];
    house.declare_with(c, "a", &arguments);
    house.declare(c, "dead");
    house.declare(c, "copy");
    house.publish(c, Post::to("a", "1").cc(&["copy"]));
    house.empty(c, "copy");
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    let seen = house.get(c, "dead").unwrap();
    assert_eq!(header(&seen, "CC"), None);
    assert_eq!(seen.delivery.message.key(), b"dead");
    assert_eq!(house.ready("copy"), 0);
}

#[test]
fn dead_letter_keeps_its_keys_without_a_key_of_the_mailbox() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[(DLX, text("amq.direct"))]);
    house.declare(c, "dead");
    house.bind(c, "amq.direct", "dead", "copy");
    house.publish(c, Post::to("a", "1").cc(&["copy"]));
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    let seen = house.get(c, "dead").unwrap();
    assert_eq!(seen.delivery.message.key(), b"a");
}

#[test]
fn circle_without_a_rejection_ends() {
    let mut house = House::new();
    let c = house.connect();
    let to = |key: &str| [(DLX, text("")), ("x-dead-letter-routing-key", text(key))];
    let ttl = ("x-message-ttl", int(10));
    house.declare_with(c, "a", &[&to("b")[..], std::slice::from_ref(&ttl)].concat());
    house.declare_with(c, "b", &[&to("a")[..], &[ttl]].concat());
    house.put(c, "a", &["1"]);
    house.wait(1_000);
    assert_eq!([house.ready("a"), house.ready("b")], [0, 0]);
    assert_eq!(house.mailbox("a").counts.published, 1);
    assert_eq!(house.broker.totals.unroutable, 1);
    let own = [(DLX, text("")), ("x-message-ttl", int(0))];
    house.declare_with(c, "self", &own);
    house.put(c, "self", &["1"]);
    assert_eq!(house.ready("self"), 0);
    house.check_books();
}

#[test]
fn missing_dead_letter_exchange_drops_quietly() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[(DLX, text("not yet"))]);
    house.put(c, "a", &["1", "2"]);
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    house.exchange(c, "not yet", "fanout");
    house.declare(c, "dead");
    house.bind(c, "not yet", "dead", "");
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    assert_eq!(house.empty(c, "dead"), ["2"]);
    house.check_books();
}

#[test]
fn dead_letter_and_its_end_become_durable_together() {
    let mut house = House::new();
    let c = with_dead(&mut house, &[]);
    house.put(c, "a", &["1"]);
    let seen = house.get(c, "a").unwrap();
    house.fast_disk = false;
    house.settle(c, &seen, Outcome::Rejected);
    house.seal();
    house.durable();
    house.crash();
    assert_eq!([house.ready("a"), house.ready("dead")], [0, 1]);
}

#[test]
fn attempts_beyond_the_limit_kill() {
    let mut house = House::new();
    let quorum = ("x-queue-type", text("quorum"));
    let c = with_dead(&mut house, &[quorum, ("x-delivery-limit", int(2))]);
    house.put(c, "a", &["1"]);
    for attempts in 0..3 {
        let seen = house.get(c, "a").unwrap();
        assert_eq!(seen.delivery.attempts, Some(attempts));
        house.settle(c, &seen, Outcome::Released);
        let seen = house.get(c, "a").unwrap();
        house.settle(c, &seen, RETRY);
    }
    let seen = house.get(c, "dead").unwrap();
    assert_eq!(header(&seen, "x-first-death-reason"), Some(text("delivery_limit")));
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn quorum_mailbox_has_the_default_limit() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-queue-type", text("quorum"))]);
    house.put(c, "a", &["1"]);
    for _ in 0..=20 {
        let seen = house.get(c, "a").unwrap();
        house.settle(c, &seen, RETRY);
    }
    assert!(house.get(c, "a").is_none());
}

#[test]
fn delayed_message_comes_in_time_with_its_sign_turned() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("direct"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "k");
    for (body, delay) in
        [("slow", int(500)), ("fast", text("100")), ("now", int(-5)), ("plain", int(0))]
    {
        let post = Post::by("later", "k", body).header("x-delay", delay).mandatory().confirm(1);
        house.publish(c, post);
    }
    assert_eq!(house.told(c).len(), 4, "nothing is returned");
    assert_eq!(house.ready("a"), 2);
    house.check_books();
    house.empty(c, "a");
    house.wait(100);
    let seen = house.get_with(c, "a", true).0.unwrap();
    assert_eq!((seen.body.as_str(), seen.redelivered), ("fast", false));
    assert_eq!(header(&seen, "x-delay"), Some(int(-100)));
    house.wait(400);
    let seen = house.get_with(c, "a", true).0.unwrap();
    assert_eq!(header(&seen, "x-delay"), Some(int(-500)));
    let again = Post::by("later", "k", "again").header("x-delay", int(-500));
    house.publish(c, again);
    assert_eq!(house.ready("a"), 1);
    house.wait(1_000);
    house.publish(c, Post::by("later", "unbound", "lost").header("x-delay", int(5)));
    house.wait(5);
    assert_eq!(house.broker.next_deadline(), None);
    house.check_books();
}

#[test]
fn delayed_message_keeps_the_keys_it_does_not_show() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b", "c"] {
        house.declare(c, name);
    }
    let kind = [("x-delayed-type", text("direct"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    for name in ["a", "b", "c"] {
        house.bind(c, "later", name, name);
    }
    let mut post = Post::by("later", "a", "1").cc(&["b"]).header("x-delay", int(100));
    // As an AMQP session does with BCC: the key is given, and the header is gone.
    post.more_keys.push("c");
    house.publish(c, post);
    house.restart();
    house.wait(100);
    let c = house.connect();
    for name in ["a", "b", "c"] {
        let seen = house.get(c, name).unwrap();
        let headers = seen.delivery.message.properties().headers.clone().unwrap();
        let expected = [("CC", Value::Array(vec![text("b")])), ("x-delay", int(-100))];
        assert_eq!(headers, table(&expected), "{name}");
    }
}

#[test]
fn delays_reach_to_ten_years() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "");
    let most = TIME_SPAN_MAX_MS as i64;
    house.publish(c, Post::by("later", "", "1").header("x-delay", int(most)));
    house.restart();
    house.wait(TIME_SPAN_MAX_MS - 1);
    assert_eq!(house.ready("a"), 0);
    house.wait(1);
    assert_eq!(house.ready("a"), 1);
}

#[test]
fn delaying_mailbox_is_out_of_reach() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "");
    house.publish(c, Post::by("later", "", "1").header("x-delay", int(1_000)));
    let name = "amq.delayed.later";
    assert!(house.exists(name));
    let mut same = declare(name, &[("x-pillarbox-feeds", text("later"))]);
    same.generated = true;
    for request in [
        Request::Consume(consume(name, 1)),
        Request::Get { mailbox: name.into(), no_ack: true },
        purge(name),
        delete(name),
        Request::Bind(binding("amq.fanout", name, "")),
        Request::DeclareMailbox(same),
    ] {
        let said = format!("{request:?}");
        assert!(matches!(house.ask(c, request), Err(Refusal::Locked { .. })), "{said}");
    }
    house.publish(c, Post::to(name, "2").mandatory());
    assert_eq!(house.told(c), ["returned 2"]);
    // Nor do policies that are meant for all.
    let mut policy = policy("all", ".*", &[("expires", int(10)), ("message-ttl", int(10))]);
    policy.apply_to = "exchanges".into();
    house.define(Definition::Policy(policy.clone()));
    policy.apply_to = "all".into();
    policy.pattern = "^amq".into();
    house.define(Definition::Policy(policy));
    house.wait(1_000);
    assert_eq!(house.empty(c, "a"), ["1"]);
    house.ask(c, Request::DeleteExchange { name: "later".into(), if_unused: false }).unwrap();
    assert!(!house.exists(name));
}

#[test]
fn argument_of_a_client_feeds_no_exchange() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-pillarbox-feeds", text("amq.fanout"))]);
    house.put(c, "a", &["1"]);
    assert_eq!(house.empty(c, "a"), ["1"]);
}

const KEEPS: [(&str, &str); 4] = [
    ("x-queue-type", "quorum"),
    ("x-overflow", "reject-publish"),
    ("x-dead-letter-strategy", "at-least-once"),
    ("x-dead-letter-exchange", "graves"),
];

/// `a` keeps its dead letters until `dead`, which has room for one, takes them. One is on its way, behind another.
fn one_unburied(house: &mut House) -> ConnectionId {
    let c = house.connect();
    house.exchange(c, "graves", "fanout");
    let full = [("x-max-length", int(1)), ("x-overflow", text("reject-publish"))];
    house.declare_with(c, "dead", &full);
    house.bind(c, "graves", "dead", "");
    house.declare_with(c, "a", &KEEPS.map(|(name, value)| (name, text(value))));
    house.put(c, "dead", &["stone"]);
    house.put(c, "a", &["1"]);
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    house.check_books();
    assert_eq!((house.ready("a"), house.ready("dead")), (0, 1));
    c
}

#[test]
fn dead_letter_waits_until_there_is_room() {
    let mut house = House::new();
    let c = one_unburied(&mut house);
    house.wait(30_000);
    assert_eq!(house.empty(c, "dead"), ["stone"]);
    house.wait(10_000);
    let seen = house.get(c, "dead").unwrap();
    assert_eq!(seen.body, "1");
    assert_eq!(header(&seen, "x-first-death-reason"), Some(text("rejected")));
    assert_eq!(house.mailbox("a").counts.dead_lettered, 1);
    house.check_books();
    house.crash();
    assert_eq!((house.ready("a"), house.ready("dead")), (0, 1), "in one of them");
}

#[test]
fn dead_letter_that_waits_survives_a_crash() {
    let mut house = House::new();
    one_unburied(&mut house);
    house.crash();
    let c = house.connect();
    let seen = house.get(c, "a").unwrap();
    assert_eq!((seen.body.as_str(), seen.redelivered), ("1", true));
}

#[test]
fn dead_letter_waits_for_an_exchange_and_a_binding() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &KEEPS.map(|(name, value)| (name, text(value))));
    house.publish(c, Post::to("a", "1").expiration(10));
    house.wait(100);
    assert_eq!((house.ready("a"), house.mailbox("a").unburied.len()), (0, 1));
    house.exchange(c, "graves", "fanout");
    house.wait(10_000);
    house.declare(c, "dead");
    house.bind(c, "graves", "dead", "");
    house.wait(10_000);
    assert_eq!(house.empty(c, "dead"), ["1"]);
    house.check_books();
}

#[test]
fn dead_letters_that_wait_count_as_length() {
    let mut house = House::new();
    let c = one_unburied(&mut house);
    house.define(Definition::Policy(policy("p", "^a$", &[("max-length", int(1))])));
    house.publish(c, Post::to("a", "2").confirm(1));
    assert_eq!(house.told(c), ["refused 1"]);
}

#[test]
fn dead_letters_wait_only_where_publishers_are_refused() {
    let mut house = House::new();
    let c = house.connect();
    let arguments = KEEPS.map(|(name, value)| (name, text(value)));
    let drops: Vec<_> = arguments.into_iter().filter(|(name, _)| *name != "x-overflow").collect();
    house.declare_with(c, "a", &drops);
    house.publish(c, Post::to("a", "1").expiration(10));
    house.wait(100);
    assert_eq!(house.mailbox("a").unburied.len(), 0);
    assert_eq!(house.mailbox("a").counts.dead_lettered, 1);
    // A policy that comes later says the same of those that wait already.
    house.check_books();
    let wrong = [("x-dead-letter-strategy", text("twice"))];
    let refused = house.refused(c, mailbox("b", &wrong));
    assert!(refused.ends_with("invalid_dlx_strategy"), "{refused}");
}

#[test]
fn deliveries_are_counted_apart_from_failed_attempts() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-queue-type", text("quorum"))]);
    house.put(c, "a", &["1"]);
    let mut counts = Vec::new();
    for outcome in [Outcome::Released, RETRY, Outcome::Released] {
        let seen = house.get(c, "a").unwrap();
        counts.push((seen.delivery.attempts, seen.delivery.acquired));
        house.settle(c, &seen, outcome);
    }
    let last = house.get(c, "a").unwrap().delivery;
    counts.push((last.attempts, last.acquired));
    assert_eq!(counts, [(Some(0), 0), (Some(0), 1), (Some(1), 2), (Some(1), 3)]);
}
