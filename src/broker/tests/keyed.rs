//! Messages with keys: of each key one is out at a time, in order.

use std::collections::{BTreeMap, BTreeSet};

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::selector::Selector;
use crate::broker::*;

fn grouped(house: &mut House, more: &[(&str, Value)]) -> ConnectionId {
    let c = house.connect();
    let mut arguments = vec![("x-message-groups", Value::Bool(true))];
    arguments.extend_from_slice(more);
    house.declare_with(c, "a", &arguments);
    c
}

/// Bodies like `A1`, whose letter is the key; a dot means none.
fn put(house: &mut House, c: ConnectionId, bodies: &[&str]) {
    for body in bodies {
        let post = Post::to("a", body);
        let key = text(&body[..1]);
        let post = if body.starts_with('.') { post } else { post.header("JMSXGroupID", key) };
        house.publish(c, post);
    }
}

/// What each consumer was given.
fn given(house: &mut House, c: ConnectionId) -> Vec<Seen> {
    house.seen(c)
}

fn bodies(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|it| it.body.as_str()).collect()
}

#[test]
fn one_of_each_key_is_out_and_others_flow_on() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    put(&mut house, c, &["A1", "A2", ".1", "B1", "A3", "B2", ".2"]);
    house.consume(c, "a", 1);
    let first = given(&mut house, c);
    assert_eq!(bodies(&first), ["A1", ".1", "B1", ".2"]);
    house.settle(c, &first[2], Outcome::Accepted);
    assert_eq!(bodies(&given(&mut house, c)), ["B2"]);
    house.settle(c, &first[0], Outcome::Accepted);
    let second = given(&mut house, c);
    assert_eq!(bodies(&second), ["A2"]);
    put(&mut house, c, &["C1", "A4"]);
    assert_eq!(bodies(&given(&mut house, c)), ["C1"]);
    house.check_books();
    assert_eq!(house.ready("a"), 2);
}

#[test]
fn a_key_does_not_stick_to_a_consumer() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    for consumer in [1, 2, 3] {
        house.consume_with(c, "a", consumer, |it| it.prefetch = 1);
    }
    put(&mut house, c, &["A1", "A2", "A3", "A4", "A5", "A6"]);
    let mut had = BTreeSet::new();
    for n in 1..=6 {
        let seen = given(&mut house, c);
        assert_eq!(bodies(&seen), [format!("A{n}")]);
        had.insert(seen[0].consumer);
        house.settle(c, &seen[0], Outcome::Accepted);
    }
    assert!(had.len() > 1, "all went to {had:?}");
}

#[rstest]
#[case(Outcome::Released)]
#[case(Outcome::Modified { delay_ms: Some(0) })]
#[case(Outcome::Modified { delay_ms: Some(500) })]
fn what_comes_back_goes_before_its_key_s_others(#[case] outcome: Outcome) {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    put(&mut house, c, &["A1", "A2", "B1"]);
    house.consume(c, "a", 1);
    let first = given(&mut house, c);
    assert_eq!(bodies(&first), ["A1", "B1"]);
    house.settle(c, &first[0], outcome);
    house.wait(499);
    put(&mut house, c, &["A3", "B2"]);
    house.settle(c, &first[1], Outcome::Accepted);
    house.wait(1);
    let again = given(&mut house, c);
    let mut came: Vec<_> = again.iter().map(|it| (it.body.as_str(), it.redelivered)).collect();
    came.sort_unstable();
    assert_eq!(came, [("A1", true), ("B2", false)]);
    let a1 = again.iter().find(|it| it.body == "A1").unwrap();
    house.settle(c, a1, Outcome::Rejected);
    assert_eq!(bodies(&given(&mut house, c)), ["A2"]);
    house.check_books();
}

#[test]
fn a_message_that_waits_to_be_tried_again_can_be_cancelled_and_frees_its_key() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    put(&mut house, c, &["A1", "A2"]);
    let a1 = house.get(c, "a").unwrap();
    assert!(house.get(c, "a").is_none(), "its key is busy, and who asks hears so");
    house.settle(c, &a1, Outcome::Modified { delay_ms: Some(1000) });
    assert!(house.get(c, "a").is_none());
    let (due, seq) = (START.plus_ms(1000), a1.delivery.seq);
    house.ask(c, Request::Retime(Retime { mailbox: "a".into(), due, seq, to: None })).unwrap();
    assert_eq!(house.get(c, "a").unwrap().body, "A2");
    house.check_books();
}

#[test]
fn a_consumer_that_goes_leaves_its_keys_to_others() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    let worker = house.connect();
    house.consume(worker, "a", 1);
    put(&mut house, c, &["A1", "A2", "B1"]);
    assert_eq!(bodies(&given(&mut house, worker)), ["A1", "B1"]);
    house.close(worker);
    house.consume(c, "a", 1);
    assert_eq!(bodies(&given(&mut house, c)), ["A1", "B1"]);
    house.check_books();
}

#[test]
fn what_expires_or_is_purged_does_not_hold_up_its_key() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    put(&mut house, c, &["A1"]);
    let header = text("A");
    let post = Post::to("a", "A2").expiration(10).header("JMSXGroupID", header);
    house.publish(c, post);
    put(&mut house, c, &["A3"]);
    house.consume(c, "a", 1);
    let a1 = given(&mut house, c);
    house.wait(20);
    house.settle(c, &a1[0], Outcome::Accepted);
    let a3 = given(&mut house, c);
    assert_eq!(bodies(&a3), ["A3"]);
    put(&mut house, c, &["A4", "A5"]);
    house.ask_on(c, TWO, purge("a")).unwrap();
    put(&mut house, c, &["A6"]);
    house.settle(c, &a3[0], Outcome::Accepted);
    assert_eq!(bodies(&given(&mut house, c)), ["A6"]);
    house.check_books();
}

#[test]
fn consumers_that_do_not_acknowledge_get_all_in_order() {
    let mut house = House::new();
    let c = grouped(&mut house, &[]);
    put(&mut house, c, &["A1", "A2", "B1"]);
    house.consume_with(c, "a", 1, |it| it.no_ack = true);
    put(&mut house, c, &["A3"]);
    assert_eq!(bodies(&given(&mut house, c)), ["A1", "A2", "B1", "A3"]);
}

#[test]
fn keys_are_where_the_queue_says() {
    for (source, header) in [("team", true), ("routing-key", false)] {
        let mut house = House::new();
        let c = house.connect();
        house.declare_with(c, "a", &[("x-message-groups", text(source))]);
        house.bind(c, "amq.topic", "a", "#");
        for (key, body) in [("x", "1"), ("y", "2"), ("x", "3")] {
            let key_of = if header { "k" } else { key };
            house.publish(c, Post::by("amq.topic", key_of, body).header("team", text(key)));
        }
        house.consume(c, "a", 1);
        assert_eq!(bodies(&given(&mut house, c)), ["1", "2"], "{source}");
    }
    let mut house = House::new();
    let c = house.connect_lax();
    house.refused(c, mailbox("n", &[("x-message-groups", int(3))]));
    let stream = ("x-queue-type", text("stream"));
    house.refused(c, mailbox("s", &[("x-message-groups", Value::Bool(true)), stream]));
    house.declare_with(c, "a", &[("x-message-groups", Value::Bool(true))]);
    house.refused(c, mailbox("a", &[]));
    let mut chosen = consume("a", 1);
    let selector = Selector::parse("a = 1").unwrap().into();
    chosen.selection = Some(Selection { selector, drops_others: false });
    assert!(house.refused(c, Request::Consume(chosen)).contains("no selectors"));
}

#[test]
fn others_are_found_behind_a_long_row_on_disk_up_to_a_limit() {
    let settings = Settings { hot_messages: 64, hot_bytes: 64 << 10, ..Settings::default() };
    let mut house = House::with(settings);
    let c = grouped(&mut house, &[]);
    for n in 0..20_000 {
        house.publish(c, Post::to("a", &n.to_string()).header("JMSXGroupID", text("A")));
        if n == 9_999 {
            put(&mut house, c, &["B1", "B2"]);
        }
    }
    put(&mut house, c, &["C1"]);
    house.consume(c, "a", 1);
    house.wait(10);
    let first = given(&mut house, c);
    // The last of them lies beyond what is looked at.
    assert_eq!(bodies(&first), ["0", "B1"]);
    house.settle(c, &first[1], Outcome::Accepted);
    house.wait(10);
    assert_eq!(bodies(&given(&mut house, c)), ["B2"]);
    let memory = house.mailbox("a").lanes.iter().map(|lane| lane.hot().count()).sum::<usize>();
    assert!(memory < 400, "{memory} in memory");
    // As the row shortens, others come into sight.
    let mut next = first.into_iter().next();
    let mut bodies = Vec::new();
    while let Some(seen) = next {
        house.settle(c, &seen, Outcome::Accepted);
        if bodies.len().is_multiple_of(1000) {
            house.wait(1);
            house.check_books();
        }
        let came = given(&mut house, c);
        bodies.extend(came.iter().map(|it| it.body.clone()));
        next = came.into_iter().find(|it| it.body != "C1");
    }
    assert!(bodies.iter().any(|it| it == "C1"));
    bodies.retain(|it| it != "C1");
    assert!(bodies.iter().map(|it| it.parse::<u32>().unwrap()).eq(1..20_000));
    house.check_books();
}

/// Each key's messages are settled in the order of their numbers, one at a time, whatever happens.
#[rstest]
fn order_holds_for_each_key_whatever_happens(#[values(1, 2, 3, 4, 5, 6, 7, 8)] seed: u64) {
    let mut state = seed;
    let mut pick = move |most: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % most
    };
    let mut house = if seed.is_multiple_of(2) { House::small() } else { House::new() };
    let mut c = grouped(&mut house, &[("x-max-length", int(5000))]);
    let mut published: BTreeMap<char, u32> = BTreeMap::new();
    let mut settled: BTreeMap<char, u32> = BTreeMap::new();
    let mut held: BTreeMap<char, Seen> = BTreeMap::new();
    let mut consumers = 0;
    for step in 0..1500 {
        match pick(16) {
            0..=4 => {
                let key = char::from(b'A' + pick(6) as u8);
                let number = published.entry(key).or_default();
                put(&mut house, c, &[&format!("{key}{number}")]);
                *number += 1;
            }
            5 if consumers < 3 => {
                consumers += 1;
                let prefetch = pick(4) as u32;
                house.consume_with(c, "a", 10_000 + step, |it| it.prefetch = prefetch);
            }
            6 => house.wait(pick(400)),
            7 if pick(8) == 0 => {
                house.crash();
                held.clear();
                consumers = 0;
                c = house.connect();
            }
            8 if pick(4) == 0 => {
                house.close(c);
                held.clear();
                house.events.clear();
                consumers = 0;
                c = house.connect();
            }
            _ if !held.is_empty() => {
                let key = *held.keys().nth(pick(held.len() as u64) as usize).unwrap();
                let seen = held.remove(&key).unwrap();
                // After a crash one that waits does not hold its key any more: none waits for long here.
                match pick(8) {
                    0 => house.settle(c, &seen, Outcome::Released),
                    1 => house.settle(c, &seen, Outcome::Modified { delay_ms: Some(0) }),
                    2 if seed > 4 => {
                        let delay_ms = Some(pick(300) + 1);
                        house.settle(c, &seen, Outcome::Modified { delay_ms });
                        house.wait(300);
                    }
                    _ => {
                        let number: u32 = seen.body[1..].parse().unwrap();
                        assert_eq!(number, *settled.entry(key).or_default(), "{key} in order");
                        settled.insert(key, number + 1);
                        house.settle(c, &seen, Outcome::Accepted);
                    }
                }
            }
            _ => {}
        }
        for seen in given(&mut house, c) {
            let key = seen.body.chars().next().unwrap();
            assert!(held.insert(key, seen).is_none(), "one of {key} at a time");
        }
        if step % 50 == 0 {
            house.check_books();
        }
    }
    house.consume(c, "a", 77);
    loop {
        house.wait(400);
        for seen in given(&mut house, c) {
            let key = seen.body.chars().next().unwrap();
            assert!(held.insert(key, seen).is_none(), "one of {key} at a time");
        }
        let Some((key, seen)) = held.pop_first() else { break };
        let number: u32 = seen.body[1..].parse().unwrap();
        assert_eq!(number, *settled.entry(key).or_default(), "{key} in order");
        settled.insert(key, number + 1);
        house.settle(c, &seen, Outcome::Accepted);
    }
    assert_eq!(settled, published);
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}
