//! Streams: messages stay, and every reader has a position of its own.

use super::house::*;
use super::request::*;
use crate::broker::selector::Selector;
use crate::broker::*;

pub(super) fn stream(house: &mut House, c: ConnectionId, name: &str, arguments: &[(&str, Value)]) {
    let mut all = vec![("x-queue-type", text("stream"))];
    all.extend_from_slice(arguments);
    house.declare_with(c, name, &all);
}

pub(super) fn fill(house: &mut House, c: ConnectionId, mailbox: &str, range: std::ops::Range<u32>) {
    for n in range {
        house.publish(c, Post::to(mailbox, &n.to_string()));
    }
}

pub(super) fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// A reader with these arguments.
pub(super) fn read(
    house: &mut House,
    c: ConnectionId,
    id: u32,
    prefetch: u32,
    arguments: &[(&str, Value)],
) {
    house.consume_with(c, "s", id, |it| {
        it.prefetch = prefetch;
        it.arguments = table(arguments);
    });
}

pub(super) fn from(value: Value) -> [(&'static str, Value); 1] {
    [("x-stream-offset", value)]
}

/// Takes and acknowledges until nothing comes any more.
pub(super) fn accept_all(house: &mut House, c: ConnectionId) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let seen = house.seen(c);
        if seen.is_empty() {
            return all;
        }
        for it in &seen {
            house.settle(c, it, Outcome::Accepted);
        }
        all.extend(seen);
    }
}

pub(super) fn bodies(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|it| it.body.clone()).collect()
}

#[test]
fn messages_stay_and_are_read_again_and_again() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..500);
    for id in 1..4 {
        read(&mut house, c, id, 7, &from(text("first")));
        let seen = accept_all(&mut house, c);
        assert_eq!(bodies(&seen), names(0..500));
        let offsets: Vec<_> = seen.iter().map(|it| it.delivery.offset).collect();
        assert_eq!(offsets, (0..500).map(Some).collect::<Vec<_>>());
        assert!(seen.iter().all(|it| !it.redelivered));
        house.ask(c, Request::Cancel(ConsumerId(id))).unwrap();
        house.check_books();
    }
    assert_eq!(house.ready("s"), 500);
}

#[test]
fn whatever_the_outcome_the_message_stays_and_is_not_repeated() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..4);
    read(&mut house, c, 1, 1, &from(text("first")));
    let outcomes = [
        Outcome::Accepted,
        Outcome::Rejected,
        Outcome::Released,
        Outcome::Modified { delay_ms: Some(5) },
    ];
    for (n, outcome) in (0..4).zip(outcomes) {
        let seen = house.seen(c);
        assert_eq!(bodies(&seen), [n.to_string()]);
        house.settle(c, &seen[0], outcome);
        house.check_books();
    }
    assert_eq!(house.seen(c).len(), 0);
    assert_eq!((house.ready("s"), house.mailbox("s").unsettled()), (4, 0));
}

#[test]
fn readers_start_where_they_say() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    for n in 0..100 {
        fill(&mut house, c, "s", n..n + 1);
        house.wait(1000);
    }
    let second = START.0 / 1000;
    let cases = [
        (text("first"), 0),
        (text("last"), 99),
        (text("next"), 100),
        (int(0), 0),
        (int(42), 42),
        (int(-3), 97),
        (int(-1000), 0),
        (int(1000), 1000),
        (Value::Timestamp(second), 0),
        (Value::Timestamp(second + 10), 10),
        (Value::Timestamp(second + 1000), 2000),
        (text("30s"), 70),
        (text("1h"), 0),
    ];
    for (id, (start, first)) in (1..).zip(cases.clone()) {
        read(&mut house, c, id, 10, &from(start.clone()));
        let got = bodies(&accept_all(&mut house, c));
        assert_eq!(got, names(first.min(100)..100), "{start:?}");
    }
    // All of them go on with what comes.
    fill(&mut house, c, "s", 100..102);
    let mut got: Vec<u32> = accept_all(&mut house, c).iter().map(|it| it.consumer).collect();
    got.sort_unstable();
    let expected: Vec<u32> =
        (1..).zip(&cases).filter(|it| it.1.1 <= 100).flat_map(|it| [it.0; 2]).collect();
    assert_eq!(got, expected);
    house.check_books();
}

#[test]
fn nobody_sees_a_message_before_it_is_durable() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    house.fast_disk = false;
    read(&mut house, c, 1, 10, &from(text("first")));
    fill(&mut house, c, "s", 0..2);
    assert!(house.seen(c).is_empty());
    house.seal();
    fill(&mut house, c, "s", 2..3);
    house.durable();
    assert_eq!(house.bodies(c), ["0", "1"]);
    house.crash();
    // The position that nobody saw is given again.
    let c = house.connect();
    house.fast_disk = true;
    fill(&mut house, c, "s", 7..8);
    read(&mut house, c, 1, 10, &from(int(2)));
    let seen = house.seen(c);
    assert_eq!((bodies(&seen), seen[0].delivery.offset), (names(7..8), Some(2)));
    house.check_books();
}

#[test]
fn credit_is_each_readers_own_also_on_one_channel() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..6);
    read(&mut house, c, 1, 2, &from(text("first")));
    read(&mut house, c, 2, 3, &from(text("first")));
    let seen = house.seen(c);
    assert_eq!(seen.iter().filter(|it| it.consumer == 1).count(), 2);
    assert_eq!(seen.iter().filter(|it| it.consumer == 2).count(), 3);
    let second = seen.iter().find(|it| it.consumer == 2).unwrap();
    house.settle(c, second, Outcome::Accepted);
    assert_eq!(house.by_consumer(c), [(2, "3".to_owned())]);
    house.check_books();
    // The same one again is not known.
    house.settle(c, second, Outcome::Accepted);
    assert_eq!(house.told(c), ["yes", "yes", "no: unknown delivery"].map(str::to_owned)[2..]);
}

#[test]
fn cancelled_reader_may_still_acknowledge() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..6);
    read(&mut house, c, 1, 3, &from(text("first")));
    let old = house.seen(c);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.check_books();
    // Another takes its place meanwhile.
    read(&mut house, c, 2, 3, &from(text("first")));
    let new = house.seen(c);
    for it in old.iter().chain(&new) {
        house.settle(c, it, Outcome::Accepted);
    }
    assert_eq!(house.told(c), Vec::<String>::new());
    assert_eq!(house.by_consumer(c).len(), 3);
    house.check_books();
    house.close_channel(c, ONE);
    assert_eq!(house.mailbox("s").unsettled(), 0);
    house.check_books();
}

#[test]
fn full_window_stops_a_reader_until_it_drains() {
    let mut house = House::with(Settings { window_deliveries: 4, ..Settings::default() });
    house.drains = false;
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..10);
    house.consume_with(c, "s", 1, |it| {
        it.no_ack = true;
        it.arguments = table(&from(text("first")));
    });
    let mut got = house.bodies(c);
    assert_eq!(got.len(), 4);
    while got.len() < 10 {
        house.apply(c, Command::Drained { deliveries: 4, bytes: 100 });
        let more = house.bodies(c);
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert_eq!(got, names(0..10));
    house.check_books();
}

#[test]
fn memory_is_bounded_however_long_the_stream_and_however_many_readers() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..1_500);
    let in_memory = |house: &House| house.mailbox("s").stream.as_ref().unwrap().in_memory();
    assert!(in_memory(&house) <= 40, "{}", in_memory(&house));
    for id in 1..9 {
        read(&mut house, c, id, 3, &from(int(i64::from(id) * 151)));
        house.check_books();
    }
    // Of what was read back, at most 16 KiB of messages or one block stay.
    assert!(in_memory(&house) <= 40 + 4096, "{}", in_memory(&house));
    let got = accept_all(&mut house, c);
    for id in 1..9 {
        let own = got.iter().filter(|it| it.consumer == id).map(|it| it.body.clone());
        assert!(own.eq(names(id * 151..1_500)), "reader {id}");
    }
    house.check_books();
}

#[test]
fn scarce_memory_is_given_back() {
    let mut house = House::with(Settings { memory_max: 40_000, ..Settings::default() });
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    let body = "x".repeat(1000);
    for _ in 0..200 {
        house.publish(c, Post::to("s", &body));
        assert!(house.broker.memory < 50_000, "{}", house.broker.memory);
    }
    read(&mut house, c, 1, 3, &from(text("first")));
    assert_eq!(accept_all(&mut house, c).len(), 200);
    house.check_books();
}

#[test]
fn oldest_messages_go_by_count_bytes_and_age() {
    let kept = |arguments: &[(&str, Value)], wait: u64| {
        let mut house = House::small();
        let c = house.connect();
        stream(&mut house, c, "s", arguments);
        for n in 0..100 {
            house.publish(c, Post::to("s", &format!("{n:010}")));
            house.wait(100);
        }
        house.wait(wait);
        house.check_books();
        read(&mut house, c, 1, 10, &from(text("first")));
        let seen = accept_all(&mut house, c);
        assert_eq!(house.ready("s") as usize, seen.len());
        let first = seen.first().map(|it| it.delivery.offset.unwrap());
        let stored = house.disk.mailboxes.values().map(|it| it.messages.len()).sum::<usize>();
        assert_eq!(stored, seen.len(), "the store keeps what is kept");
        house.check_books();
        (seen.len(), first)
    };
    assert_eq!(kept(&[], 0), (100, Some(0)));
    assert_eq!(kept(&[("x-max-length", int(10))], 0), (10, Some(90)));
    assert_eq!(kept(&[("x-max-length-bytes", int(150))], 0), (15, Some(85)));
    // One is always kept.
    assert_eq!(kept(&[("x-max-length-bytes", int(5))], 0), (1, Some(99)));
    // Messages go once they are five seconds old, a few at a time.
    assert!((49..=52).contains(&kept(&[("x-max-age", text("5s"))], 0).0));
    assert!((19..=22).contains(&kept(&[("x-max-age", text("5s"))], 3000).0));
    assert_eq!(kept(&[("x-max-age", text("5s"))], 6000), (0, None));
    assert_eq!(kept(&[("x-max-age", text("1Y"))], 6000).0, 100);
}

#[test]
fn policy_trims_a_stream_and_leaves_alone_what_is_not_for_streams() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..50);
    let values = [
        ("max-age", text("10s")),
        ("message-ttl", int(1)),
        ("expires", int(1)),
        ("overflow", text("reject-publish")),
        ("dead-letter-exchange", text("d")),
    ];
    house.define(Definition::Policy(policy("p", ".*", &values)));
    house.wait(9_000);
    assert_eq!(house.ready("s"), 50);
    house.wait(2_000);
    assert_eq!(house.ready("s"), 0);
    assert_eq!(house.mailbox("s").counts.expired, 50);
    house.check_books();
}

#[test]
fn slow_reader_goes_on_behind_what_was_trimmed() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[("x-max-length", int(20))]);
    fill(&mut house, c, "s", 0..10);
    read(&mut house, c, 1, 2, &from(text("first")));
    let seen = house.seen(c);
    fill(&mut house, c, "s", 10..100);
    for it in &seen {
        house.settle(c, it, Outcome::Accepted);
    }
    assert_eq!(bodies(&accept_all(&mut house, c)), names(80..100));
    house.check_books();
}

#[test]
fn stream_is_whole_after_a_restart() {
    for crash in [true, false] {
        let mut house = House::small();
        let c = house.connect();
        stream(&mut house, c, "s", &[("x-max-length", int(3_000))]);
        fill(&mut house, c, "s", 0..2_500);
        house.wait(10_000);
        if crash {
            house.crash()
        } else {
            house.restart()
        }
        house.check_books();
        let c = house.connect();
        stream(&mut house, c, "s", &[("x-max-length", int(3_000))]);
        fill(&mut house, c, "s", 2_500..2_600);
        read(&mut house, c, 1, 50, &from(text("first")));
        let seen = accept_all(&mut house, c);
        assert_eq!(bodies(&seen), names(0..2_600));
        assert!(seen.iter().all(|it| !it.redelivered));
        assert_eq!(seen[2_599].delivery.offset, Some(2_599));
        let second = START.0 / 1000 + 10;
        read(&mut house, c, 2, 50, &from(Value::Timestamp(second)));
        assert_eq!(bodies(&accept_all(&mut house, c)), names(2_500..2_600));
        fill(&mut house, c, "s", 2_600..3_100);
        assert!(house.ready("s") <= 3_000 && house.ready("s") > 2_000);
        house.check_books();
    }
}

#[test]
fn age_counts_on_over_a_restart() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[("x-max-age", text("60s"))]);
    fill(&mut house, c, "s", 0..10);
    house.wait(50_000);
    fill(&mut house, c, "s", 10..20);
    house.wait(20_000);
    house.crash();
    let c = house.connect();
    house.wait(20_000);
    fill(&mut house, c, "s", 20..21);
    house.wait(19_000);
    assert!(house.ready("s") > 1);
    house.wait(2_000);
    assert_eq!(house.ready("s"), 1);
    // Also where what came after the restart is asked for first.
    house.crash();
    house.wait(38_000);
    assert_eq!(house.ready("s"), 1);
    house.wait(2_000);
    assert_eq!(house.ready("s"), 0);
    house.check_books();
}

#[test]
fn damaged_messages_are_passed_over() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..200);
    let id = house.mailbox("s").id;
    let bad = [1, 2, 50, 77, 150];
    house.damaged.extend(bad.map(|n| (id, Seq(n + 1))));
    let expected: Vec<String> =
        (0..200).filter(|n| !bad.contains(n)).map(|n| n.to_string()).collect();
    for reader in 1..3 {
        read(&mut house, c, reader, 5, &from(text("first")));
        assert_eq!(bodies(&accept_all(&mut house, c)), expected);
        house.check_books();
    }
    assert_eq!(house.disk.quarantined.len(), bad.len());
    assert_eq!(house.mailbox("s").counts.damaged, bad.len() as u64);
    house.crash();
    let c = house.connect();
    read(&mut house, c, 1, 5, &from(int(49)));
    assert_eq!(bodies(&accept_all(&mut house, c))[0], "49");
    house.check_books();
}

#[test]
fn trimming_during_a_read_from_the_store_is_no_damage() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[("x-max-length", int(2_000))]);
    fill(&mut house, c, "s", 0..1_500);
    house.fast_fetch = false;
    read(&mut house, c, 1, 5, &from(text("first")));
    fill(&mut house, c, "s", 1_500..4_000);
    house.fast_fetch = true;
    house.answer_fetches();
    let got = bodies(&accept_all(&mut house, c));
    let last: Vec<String> = names(2_200..4_000);
    assert!(got.ends_with(&last), "{} read", got.len());
    assert_eq!(house.mailbox("s").counts.damaged, 0);
    house.check_books();
}

#[test]
fn filters_are_exact() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    for n in 0..300 {
        let post = Post::to("s", &n.to_string());
        house.publish(
            c,
            match n % 3 {
                0 => post.header("x-stream-filter-value", text("a")),
                1 => post.header("x-stream-filter-value", text("ab")),
                _ => post,
            },
        );
    }
    let only = |rest: &[u32]| -> Vec<String> {
        (0..300).filter(|n| rest.contains(&(n % 3))).map(|n: u32| n.to_string()).collect()
    };
    let cases = [
        (text("a"), None, only(&[0])),
        (text("ab"), Some(true), only(&[1, 2])),
        (Value::Array(vec![text("a"), text("ab")]), Some(false), only(&[0, 1])),
        (Value::Array(vec![]), Some(true), only(&[2])),
        (text("nothing"), None, vec![]),
    ];
    for (id, (filter, unfiltered, expected)) in (1..).zip(cases) {
        let mut arguments = from(text("first")).to_vec();
        arguments.push(("x-stream-filter", filter));
        arguments.extend(unfiltered.map(|it| ("x-stream-match-unfiltered", Value::Bool(it))));
        read(&mut house, c, id, 10, &arguments);
        assert_eq!(bodies(&accept_all(&mut house, c)), expected);
    }
    house.check_books();
}

#[test]
fn selectors_pass_over_what_they_do_not_match() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    for n in 0..20 {
        let post = Post::to("s", &n.to_string()).header("n", int(n % 4));
        house.publish(c, post);
    }
    for (id, drops_others) in [(1, false), (2, true)] {
        house.consume_with(c, "s", id, |it| {
            it.arguments = table(&from(text("first")));
            let selector = Selector::parse("n = 3").unwrap().into();
            it.selection = Some(Selection { selector, drops_others });
        });
        assert_eq!(bodies(&accept_all(&mut house, c)), ["3", "7", "11", "15", "19"]);
    }
    assert_eq!(house.ready("s"), 20);
    house.check_books();
}

#[test]
fn reader_of_a_range_is_done_at_its_end() {
    let mut house = House::small();
    let c = house.connect_lax();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..300);
    let range =
        |start: i64, until: Value| [("x-stream-offset", int(start)), ("x-stream-until", until)];
    let cases = [
        (range(10, int(20)), 10..21),
        (range(295, text("last")), 295..300),
        (range(5, int(4)), 0..0),
        (range(300, text("last")), 0..0),
    ];
    for (id, (arguments, expected)) in (1..).zip(cases) {
        read(&mut house, c, id, 4, &arguments);
        let seen = accept_all(&mut house, c);
        assert_eq!(bodies(&seen), names(expected));
        assert_eq!(house.told(c), [format!("finished {id}")]);
        assert_eq!(house.mailbox("s").consumers.len(), 0);
        house.check_books();
    }
    // One that ends beyond what is there waits; what it holds at the end can still be settled.
    read(&mut house, c, 9, 4, &range(299, int(301)));
    let mut seen = house.seen(c);
    fill(&mut house, c, "s", 300..310);
    seen.extend(house.seen(c));
    assert_eq!((bodies(&seen), house.told(c)), (names(299..302), vec!["finished 9".into()]));
    house.check_books();
    for it in &seen {
        house.settle(c, it, Outcome::Accepted);
    }
    assert_eq!(house.told(c), Vec::<String>::new());
    house.check_books();
    read(&mut house, c, 10, 1, &[]);
    let mut wanted = consume("s", 11);
    wanted.arguments = table(&[("x-stream-until", text("soon"))]);
    let expected =
        "invalid arg 'x-stream-until' for queue 's' in vhost '/': neither an offset nor 'last'";
    assert_eq!(house.refused(c, Request::Consume(wanted)), expected);
}

#[test]
fn streams_are_declared_as_rabbitmq_wants() {
    let mut house = House::new();
    let c = house.connect();
    let refused = |house: &mut House, change: &dyn Fn(&mut DeclareMailbox)| {
        let mut wanted = declare("s", &[("x-queue-type", text("stream"))]);
        change(&mut wanted);
        let channel = ChannelId(c.0 as u16 + 10);
        let ticket = house.send(c, channel, Request::DeclareMailbox(wanted));
        let answer = house.answer(c, ticket).unwrap().expect_err("a refusal").to_string();
        house.close_channel(c, channel);
        answer
    };
    let property = |it| format!("invalid property '{it}' for queue 's' in vhost '/'");
    assert_eq!(refused(&mut house, &|it| it.durable = false), property("non-durable"));
    assert_eq!(refused(&mut house, &|it| it.exclusive = true), property("exclusive-owner"));
    assert_eq!(refused(&mut house, &|it| it.auto_delete = true), property("auto-delete"));
    let argument = |house: &mut House, name: &str, value: Value| {
        refused(house, &|it| it.arguments.set(name, value.clone()))
    };
    for name in ["x-message-ttl", "x-dead-letter-exchange", "x-max-priority", "x-overflow"] {
        let expected = format!(
            "invalid arg '{name}' for queue 's' in vhost '/' of queue type rabbit_stream_queue"
        );
        let value = if name.ends_with("exchange") { text("d") } else { int(1) };
        assert_eq!(argument(&mut house, name, value), expected);
    }
    let expected = "invalid arg 'x-max-age' for queue 's' in vhost '/': invalid_max_age";
    for age in ["5", "h", "1w", "-1h", "1.5h", "+1h"] {
        assert_eq!(argument(&mut house, "x-max-age", text(age)), expected);
    }
    assert!(!house.exists("s"));
}

#[test]
fn streams_are_consumed_as_rabbitmq_wants() {
    let mut house = House::new();
    let c = house.connect_lax();
    stream(&mut house, c, "s", &[]);
    let refused = |house: &mut House, change: &dyn Fn(&mut Consume)| {
        let mut wanted = consume("s", 1);
        wanted.prefetch = 1;
        wanted.bounded = true;
        change(&mut wanted);
        house.refused(c, Request::Consume(wanted))
    };
    let queue = "queue 's' in vhost '/'";
    let expected = format!("consumer prefetch count is not set for stream {queue}");
    assert_eq!(refused(&mut house, &|it| it.prefetch = 0), expected);
    let expected = format!("automatic acknowledgement not supported by stream {queue}");
    assert_eq!(refused(&mut house, &|it| it.no_ack = true), expected);
    let offset =
        |value: Value| move |it: &mut Consume| it.arguments.set("x-stream-offset", value.clone());
    let invalid = |reason| format!("invalid arg 'x-stream-offset' for {queue}: {reason}");
    assert_eq!(refused(&mut house, &offset(text("soon"))), invalid("invalid_max_age"));
    assert_eq!(refused(&mut house, &offset(Value::Void)), invalid("{invalid_offset_arg}"));
    let filter = |it: &mut Consume| it.arguments.set("x-stream-filter", int(1));
    assert!(refused(&mut house, &filter).starts_with("invalid arg 'x-stream-filter'"));
    house.ask(c, Request::Qos { limit: 5, scope: QosScope::Channel }).unwrap();
    assert_eq!(refused(&mut house, &|_| {}), format!("{queue} does not support global qos"));
    let get = Request::Get { mailbox: "s".into(), no_ack: true };
    let expected = format!("basic.get not supported by stream queues {queue}");
    assert_eq!(house.refused(c, get), expected);
    let expected = format!("queue.purge not supported by stream queues {queue}");
    assert_eq!(house.refused(c, purge("s")), expected);
    assert_eq!(house.mailbox("s").consumers.len(), 0);
}

#[test]
fn stream_can_be_deleted_while_it_is_read() {
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..100);
    house.ask(c, Request::Qos { limit: 3, scope: QosScope::Channel }).unwrap();
    house.declare(c, "q");
    house.consume(c, "q", 9);
    read(&mut house, c, 1, 10, &from(text("first")));
    let seen = house.seen(c);
    assert_eq!(seen.len(), 3);
    house.put(c, "q", &["x"]);
    assert!(house.seen(c).is_empty(), "the channel is full");
    house.fast_fetch = false;
    house.ask(c, delete("s")).unwrap();
    house.answer_fetches();
    assert_eq!(house.bodies(c), ["x"]);
    house.settle(c, &seen[0], Outcome::Accepted);
    house.check_books();
}
