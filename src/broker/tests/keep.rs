//! Settled messages that a queue keeps, and that come again.

use std::sync::Arc;

use super::house::*;
use super::request::*;
use crate::broker::selector::Selector;
use crate::broker::*;

const HOUR_MS: u64 = 3_600_000;

fn keeping(house: &mut House) -> ConnectionId {
    let c = house.connect();
    house.declare_with(c, "a", &[("x-keep-settled-for", int(HOUR_MS as i64))]);
    c
}

/// Published and settled, `gap_ms` apart.
fn work_through(house: &mut House, c: ConnectionId, numbers: std::ops::Range<u64>, gap_ms: u64) {
    for n in numbers {
        house.publish(c, Post::to("a", &n.to_string()).header("n", int(n as i64)));
        let seen = house.get(c, "a").unwrap();
        assert!(!seen.redelivered);
        house.settle(c, &seen, Outcome::Accepted);
        house.wait(gap_ms);
    }
}

fn all() -> Rewind {
    let (from, to, first, end) = (Time::ZERO, Time(u64::MAX), Seq(0), Seq(u64::MAX));
    Rewind { mailbox: "a".into(), from, to, first, end, selector: None }
}

fn matching(condition: &str) -> Rewind {
    Rewind { selector: Some(Arc::new(Selector::parse(condition).unwrap())), ..all() }
}

/// Until all is done; returns how many came back, and in how many steps.
#[track_caller]
fn rewind(house: &mut House, c: ConnectionId, mut rewind: Rewind) -> (u64, usize) {
    let (mut moved, mut steps) = (0, 0);
    loop {
        let Ok(Reply::Rewound(step)) = house.ask(c, Request::Rewind(rewind.clone())) else {
            panic!("not rewound")
        };
        moved += step.moved;
        steps += 1;
        let Some((first, end)) = step.rest else { return (moved, steps) };
        assert!(first > rewind.first && end <= rewind.end, "it goes on");
        (rewind.first, rewind.end) = (first, end);
    }
}

fn kept(house: &mut House, c: ConnectionId) -> Vec<String> {
    let (mailbox, states, bytes_max) = ("a".into(), "settled".parse().unwrap(), u64::MAX);
    let mut browse = Browse { mailbox, states, selector: None, after: None, count: 90, bytes_max };
    let mut found = Vec::new();
    loop {
        let Ok(Reply::Browsed(step)) = house.ask(c, Request::Browse(browse.clone())) else {
            panic!("no messages")
        };
        let body = |it: &Found| String::from_utf8_lossy(it.message.body()).into_owned();
        assert!(step.found.iter().all(|it| it.at.state == State::Settled && it.offset.is_none()));
        found.extend(step.found.iter().map(body));
        browse.after = step.next;
        if browse.after.is_none() {
            return found;
        }
    }
}

fn texts(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

#[test]
fn settled_messages_come_again_behind_the_others_and_known_to_be_seen() {
    let mut house = House::new();
    let c = keeping(&mut house);
    work_through(&mut house, c, 0..5, 10);
    house.put(c, "a", &["new"]);
    assert_eq!(kept(&mut house, c), texts(0..5));
    assert_eq!(rewind(&mut house, c, all()), (5, 1));
    house.check_books();
    assert_eq!(kept(&mut house, c), [] as [&str; 0]);
    house.consume(c, "a", 1);
    let seen: Vec<_> = house.seen(c).into_iter().map(|it| (it.body, it.redelivered)).collect();
    assert_eq!(seen[0], ("new".into(), false));
    assert!(seen[1..].iter().all(|(_, redelivered)| *redelivered));
    let bodies: Vec<_> = seen[1..].iter().map(|(body, _)| body.clone()).collect();
    assert_eq!(bodies, texts(0..5));
}

#[test]
fn a_range_of_time_is_exact_and_one_of_positions_too() {
    for mut house in [House::new(), House::small()] {
        let c = keeping(&mut house);
        work_through(&mut house, c, 0..100, 1000);
        let at = |second: u64| START.plus_ms(second * 1000);
        assert_eq!(rewind(&mut house, c, Rewind { from: at(10), to: at(20), ..all() }).0, 10);
        assert_eq!(house.empty(c, "a"), texts(10..20));
        // Taken once more they are kept once more, behind the others.
        let (first, end) = (Seq(31), Seq(41));
        assert_eq!(rewind(&mut house, c, Rewind { first, end, ..all() }).0, 10);
        assert_eq!(house.empty(c, "a"), texts(30..40));
        let expected = [0..10, 20..30, 40..100, 10..20, 30..40].map(texts).concat();
        assert_eq!(kept(&mut house, c), expected);
        assert_eq!(rewind(&mut house, c, matching("n IN (15, 55, 77, 200)")).0, 3);
        assert_eq!(house.empty(c, "a"), ["55", "77", "15"]);
        house.check_books();
    }
}

#[test]
fn much_comes_back_in_steps_and_what_is_settled_meanwhile_does_not_come_twice() {
    let mut house = House::small();
    let c = keeping(&mut house);
    house.consume_with(c, "a", 1, |it| it.no_ack = true);
    for n in 0..3000 {
        house.publish(c, Post::to("a", &n.to_string()).header("n", int(n)));
    }
    assert_eq!(house.bodies(c).len(), 3000);
    // The consumer settles each as it comes.
    assert_eq!(rewind(&mut house, c, all()), (3000, 3));
    assert_eq!(house.bodies(c), texts(0..3000));
    assert_eq!(kept(&mut house, c), texts(0..3000));
    house.check_books();
    let (moved, steps) = rewind(&mut house, c, matching("n > 2990"));
    assert_eq!(moved, 9);
    assert!(steps <= 4);
}

#[test]
fn what_was_kept_and_what_came_back_survive_a_crash() {
    let mut house = House::small();
    let c = keeping(&mut house);
    work_through(&mut house, c, 0..50, 1);
    house.crash();
    let c = house.connect();
    assert_eq!(kept(&mut house, c), texts(0..50));
    assert_eq!(rewind(&mut house, c, matching("n < 20")).0, 20);
    house.crash();
    house.check_books();
    let c = house.connect();
    assert_eq!(kept(&mut house, c), texts(20..50));
    house.consume(c, "a", 1);
    let seen = house.seen(c);
    assert!(seen.iter().all(|it| it.redelivered));
    assert_eq!(seen.into_iter().map(|it| it.body).collect::<Vec<_>>(), texts(0..20));
}

#[test]
fn a_crash_finds_each_message_once_wherever_it_strikes() {
    // A settlement, and a step back, are in one batch with what they leave behind.
    for batches in 0..4 {
        let mut house = House::new();
        let c = keeping(&mut house);
        work_through(&mut house, c, 0..3, 0);
        house.put(c, "a", &["3"]);
        house.fast_disk = false;
        let seen = house.get(c, "a");
        if let Some(seen) = seen {
            house.settle(c, &seen, Outcome::Accepted);
        }
        house.seal();
        house.send(c, ONE, Request::Rewind(all()));
        house.seal();
        for _ in 0..batches {
            house.durable();
        }
        house.fast_disk = true;
        house.crash();
        house.check_books();
        let c = house.connect();
        let mut found = kept(&mut house, c);
        found.extend(house.empty(c, "a"));
        found.sort();
        assert_eq!(found, texts(0..4), "after {batches} batches");
    }
}

#[test]
fn kept_messages_go_with_their_time_and_with_their_queue() {
    let mut house = House::new();
    let c = keeping(&mut house);
    work_through(&mut house, c, 0..20, 0);
    house.wait(HOUR_MS / 2);
    work_through(&mut house, c, 20..30, 0);
    house.wait(HOUR_MS / 2 + HOUR_MS / 16);
    assert_eq!(kept(&mut house, c), texts(20..30));
    house.restart();
    let c = house.connect();
    house.wait(HOUR_MS / 2 - HOUR_MS / 16 - 1);
    assert_eq!(kept(&mut house, c), texts(20..30));
    house.wait(1);
    assert_eq!(kept(&mut house, c), [] as [&str; 0]);
    work_through(&mut house, c, 0..2, 0);
    assert!(house.exists("amq.settled.a"));
    house.ask(c, delete("a")).unwrap();
    assert!(!house.exists("amq.settled.a"));
    house.crash();
    assert!(!house.exists("amq.settled.a"));
    assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
}

#[test]
fn a_policy_keeps_them_as_long_as_it_is_there() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.define(Definition::Policy(policy("k", "^a$", &[("keep-settled-for", int(1000))])));
    work_through(&mut house, c, 0..3, 0);
    house.crash();
    let c = house.connect();
    assert_eq!(kept(&mut house, c), texts(0..3));
    let key = Definition::Policy(policy("k", "^a$", &[])).key();
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    house.wait(1);
    assert_eq!(kept(&mut house, c), [] as [&str; 0]);
    work_through(&mut house, c, 3..5, 0);
    assert_eq!(kept(&mut house, c), [] as [&str; 0]);
    house.check_books();
}

#[test]
fn only_what_was_done_is_kept() {
    let mut house = House::new();
    let c = house.connect();
    let keep = ("x-keep-settled-for", int(1000));
    let length = ("x-max-length", int(3));
    house.declare_with(c, "a", &[keep, length, ("x-overflow", text("reject-publish"))]);
    house.put(c, "a", &["rejected", "done"]);
    let (rejected, done) = (house.get(c, "a").unwrap(), house.get(c, "a").unwrap());
    house.settle(c, &rejected, Outcome::Rejected);
    house.settle(c, &done, Outcome::Accepted);
    house.publish(c, Post::to("a", "expired").expiration(1));
    house.put(c, "a", &["purged"]);
    house.wait(2);
    house.ask(c, purge("a")).unwrap();
    assert_eq!(kept(&mut house, c), ["done"]);
    // A full queue takes as many as it has room for.
    work_through(&mut house, c, 0..4, 0);
    assert!(house.ask(c, Request::Rewind(all())).is_ok());
    assert_eq!(house.ready("a"), 3);
    let full = Request::Rewind(all());
    let c = house.connect_lax();
    assert!(house.refused(c, full).contains("is full"));
    assert_eq!(kept(&mut house, c), ["2", "3"]);
    house.check_books();
}

#[test]
fn nobody_else_gets_at_what_is_kept() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare_with(c, "a", &[("x-keep-settled-for", int(1000))]);
    assert_eq!(
        house.ask(c, Request::Rewind(all())).map(|it| matches!(it, Reply::Rewound(_))),
        Ok(true)
    );
    work_through(&mut house, c, 0..1, 0);
    let hidden = "amq.settled.a";
    house.put(c, hidden, &["forged"]);
    assert_eq!(house.ready(hidden), 1);
    for request in [
        delete(hidden),
        purge(hidden),
        mailbox(hidden, &[]),
        Request::Consume(consume(hidden, 7)),
        Request::Bind(binding("amq.fanout", hidden, "")),
        Request::Get { mailbox: hidden.into(), no_ack: true },
    ] {
        house.refused(c, request);
    }
    house.declare(c, "b");
    let other = Rewind { mailbox: "b".into(), ..all() };
    assert!(house.refused(c, Request::Rewind(other)).contains("does not keep"));
    let keep = ("x-keep-settled-for", int(1000));
    let transient = DeclareMailbox { durable: false, ..declare("t", std::slice::from_ref(&keep)) };
    house.refused(c, Request::DeclareMailbox(transient));
    house.refused(c, mailbox("s", &[keep, ("x-queue-type", text("stream"))]));
    house.refused(c, mailbox("n", &[("x-keep-settled-for", int(0))]));
}
