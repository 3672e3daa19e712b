//! Looking at messages without taking them.

use std::sync::Arc;

use super::house::*;
use super::request::*;
use crate::broker::selector::Selector;
use crate::broker::*;

fn all(name: &str, count: usize) -> Browse {
    let (mailbox, states, bytes_max) = (name.into(), States::ALL, u64::MAX);
    Browse { mailbox, states, selector: None, after: None, count, bytes_max }
}

fn only(states: &str, browse: Browse) -> Browse {
    Browse { states: states.parse().unwrap(), ..browse }
}

fn matching(condition: &str, browse: Browse) -> Browse {
    let selector = Some(Arc::new(Selector::parse(condition).unwrap()));
    Browse { selector, ..browse }
}

#[track_caller]
fn look(house: &mut House, by: ConnectionId, browse: Browse) -> Browsed {
    match house.ask(by, Request::Browse(browse)) {
        Ok(Reply::Browsed(browsed)) => browsed,
        other => panic!("unexpected {other:?}"),
    }
}

fn bodies(browsed: &Browsed) -> Vec<String> {
    let body = |found: &Found| String::from_utf8_lossy(found.message.body()).into_owned();
    browsed.found.iter().map(body).collect()
}

fn with_states(browsed: &Browsed) -> Vec<(State, String)> {
    browsed.found.iter().map(|it| it.at.state).zip(bodies(browsed)).collect()
}

/// Goes on from step to step; returns what was found, and how many steps that took.
fn search(house: &mut House, by: ConnectionId, mut browse: Browse) -> (Vec<String>, usize) {
    let (mut found, mut steps) = (Vec::new(), 0);
    loop {
        let browsed = look(house, by, browse.clone());
        assert!(browsed.found.len() <= browse.count);
        found.extend(bodies(&browsed));
        steps += 1;
        match browsed.next {
            Some(next) => {
                assert!(browse.after.is_none_or(|after| after < next), "it goes on");
                browse.after = Some(next.to_string().parse().unwrap());
            }
            None => return (found, steps),
        }
    }
}

#[test]
fn ready_messages_come_first_then_those_that_consumers_hold() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", Value::I64(5))]);
    house.put(c, "a", &["1", "2"]);
    house.publish(c, Post::to("a", "urgent").priority(5));
    assert_eq!(house.get(c, "a").unwrap().body, "urgent");
    house.publish(c, Post::to("a", "also urgent").priority(5));
    let browsed = look(&mut house, c, all("a", 10));
    assert_eq!(bodies(&browsed), ["also urgent", "1", "2", "urgent"]);
    assert_eq!((browsed.next, browsed.ready), (None, 3));
    assert!(browsed.found[3].holder.is_some() && browsed.found[0].holder.is_none());
    // Nothing was taken, and nobody is said to have seen them.
    let first = house.get(c, "a").unwrap();
    assert_eq!((first.body.as_str(), first.redelivered), ("also urgent", false));
    house.check_books();
}

#[test]
fn it_is_seen_who_holds_a_message_and_since_when() {
    let mut house = House::new();
    let (c, other) = (house.connect(), house.connect());
    house.declare(c, "a");
    house.put(c, "a", &["1", "2"]);
    house.consume_with(c, "a", 1, |it| (it.prefetch, it.tag) = (1, "worker".into()));
    house.wait(500);
    house.get(other, "a").unwrap();
    house.wait(500);
    let seen = house.seen(c);
    let Delivery { channel, mailbox, seq, .. } = seen[0].delivery;
    let deliveries = [Run { mailbox, first: seq, count: 1 }].into_iter().collect();
    house.apply(c, Command::Extend(Extend { channel, deliveries }));
    let holders: Vec<_> = look(&mut house, other, only("unsettled", all("a", 10)))
        .found
        .into_iter()
        .map(|it| it.holder.expect("a holder"))
        .map(|it| (it.connection, it.channel, it.tag, it.since.since_ms(START)))
        .collect();
    // More time to settle does not make the delivery younger.
    assert_eq!(holders, [(c, ONE, Some("worker".into()), 0), (other, ONE, None, 500)]);
}

/// 60 messages, of which most are on disk only: some held, some that failed and wait, the others ready.
fn in_all_states(house: &mut House) -> (ConnectionId, Vec<String>) {
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", Value::I64(3))]);
    for n in 0..60 {
        let post = Post::to("a", &n.to_string()).priority((n % 3 == 0).into());
        house.publish(c, post.header("n", int(n)));
    }
    let held: Vec<Seen> = (0..30).map(|_| house.get(c, "a").unwrap()).collect();
    for (n, seen) in held.iter().enumerate().take(20) {
        let delay_ms = Some(1000 * (n as u64 % 7) + 1000);
        house.settle(c, seen, Outcome::Modified { delay_ms });
    }
    let mut delayed: Vec<(u64, String)> =
        held[..20].iter().enumerate().map(|(n, it)| (n as u64 % 7, it.body.clone())).collect();
    delayed.sort_by_key(|(due, body)| (*due, body.parse::<u64>().unwrap()));
    // The urgent ones went first, so that those in between are ready still.
    let mut expected: Vec<String> = (0..60)
        .map(|n: u64| n.to_string())
        .filter(|body| held.iter().all(|seen| seen.body != *body))
        .collect();
    let mut unsettled: Vec<&Seen> = held[20..].iter().collect();
    unsettled.sort_by_key(|seen| seen.delivery.seq);
    expected.extend(unsettled.iter().map(|seen| seen.body.clone()));
    expected.extend(delayed.into_iter().map(|(_, body)| body));
    (c, expected)
}

#[test]
fn pages_show_each_message_once_wherever_it_is() {
    let mut house = House::small();
    let (c, expected) = in_all_states(&mut house);
    assert_eq!(bodies(&look(&mut house, c, all("a", 100))), expected);
    for count in [1, 7, 59, 60] {
        assert_eq!(search(&mut house, c, all("a", count)).0, expected, "pages of {count}");
    }
    let some = only("delayed, ready", all("a", 11));
    let (found, _) = search(&mut house, c, some);
    assert_eq!(found.len(), 50);
    house.check_books();
    // After a crash nobody holds any.
    house.crash();
    let c = house.connect();
    let (mut found, _) = search(&mut house, c, all("a", 9));
    found.sort_by_key(|body| body.parse::<u64>().unwrap());
    assert_eq!(found, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn delayed_messages_say_when_they_come_and_how_often_they_failed() {
    for hot_messages in [0, 10] {
        let mut house = House::with(Settings { hot_messages, ..Settings::default() });
        let c = house.connect();
        house.declare_with(c, "a", &[("x-delivery-limit", int(5))]);
        house.put(c, "a", &["1", "2"]);
        for delay in [500, 100] {
            let seen = house.get(c, "a").unwrap();
            house.settle(c, &seen, Outcome::Modified { delay_ms: Some(delay) });
        }
        let browsed = look(&mut house, c, all("a", 10));
        let row =
            |it: &Found| (it.rest.deliver_at.since_ms(START), it.attempts, it.rest.redelivered);
        let rows: Vec<_> = browsed.found.iter().map(row).collect();
        assert_eq!(rows, [(100, Some(1), true), (500, Some(1), true)], "{hot_messages} in memory");
        assert_eq!(bodies(&browsed), ["2", "1"]);
    }
}

#[test]
fn a_search_goes_through_the_disk_in_steps() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    for n in 0..3000 {
        house.publish(c, Post::to("a", &n.to_string()).header("n", int(n)));
    }
    let wanted = matching("n BETWEEN 1998 AND 2001 OR n = 2999", all("a", 2));
    // The first step looks at a thousand and finds none of them.
    let first = look(&mut house, c, wanted.clone());
    assert_eq!(first.found.len(), 0);
    assert!(first.next.is_some_and(|next| next.seq <= Seq(1024)));
    let (found, steps) = search(&mut house, c, wanted);
    assert_eq!(found, ["1998", "1999", "2000", "2001", "2999"]);
    assert!(steps <= 6, "{steps} steps");
    // No step reads more than its share of large ones.
    house.declare(c, "large");
    let large = "x".repeat(1 << 20);
    for n in 0..12 {
        house.publish(c, Post::to("large", &large).header("n", int(n)));
    }
    house.fast_fetch = false;
    let ticket = house.send(c, ONE, Request::Browse(matching("n = 11", all("large", 10))));
    let asked: u32 = house.fetches.iter().flat_map(|it| &it.ranges).map(|(_, count)| count).sum();
    assert!((1..=4).contains(&asked), "{asked} read at once");
    house.answer_fetches();
    assert!(matches!(house.answer(c, ticket), Some(Ok(Reply::Browsed(it))) if it.next.is_some()));
    house.fast_fetch = true;
    assert_eq!(search(&mut house, c, matching("n = 11", all("large", 10))).0.len(), 1);
}

#[test]
fn bodies_of_a_page_have_a_limit_and_one_comes_in_any_case() {
    for house in [&mut House::new(), &mut House::small()] {
        let c = house.connect();
        house.declare(c, "a");
        for n in 0..40 {
            house.publish(c, Post::to("a", &format!("{n:0100}")).header("n", int(n)));
        }
        let small = |count| Browse { bytes_max: 250, ..all("a", count) };
        assert_eq!(look(house, c, small(10)).found.len(), 3);
        let none = Browse { bytes_max: 0, ..all("a", 10) };
        assert_eq!(look(house, c, none).found.len(), 1);
        assert_eq!(search(house, c, small(10)).0.len(), 40);
        assert_eq!(look(house, c, matching("n >= 20", small(10))).found.len(), 3);
        assert_eq!(search(house, c, matching("n >= 20", small(10))).0.len(), 20);
    }
}

#[test]
fn streams_and_keys_are_looked_at_by_offset() {
    for kind in ["stream", "kv"] {
        let mut house = House::small();
        let c = house.connect();
        house.declare_with(c, "s", &[("x-queue-type", text(kind))]);
        for n in 0..200 {
            let post = Post::to("s", &n.to_string()).header("n", int(n));
            house.publish(c, post.header("x-key", text(&(n % 150).to_string())));
        }
        let newest = if kind == "kv" { 50..200 } else { 0..200 };
        let expected: Vec<String> = newest.clone().map(|n| n.to_string()).collect();
        for crash in [false, true] {
            if crash {
                house.crash();
            }
            let c = house.connect();
            assert_eq!(search(&mut house, c, all("s", 7)).0, expected, "{kind}");
            let browsed = look(&mut house, c, matching("n = 177", all("s", 7)));
            assert_eq!(browsed.found[0].offset, Some(177));
            assert_eq!(
                search(&mut house, c, matching("n IN (3, 120)", all("s", 7))).0.len(),
                if kind == "kv" { 1 } else { 2 }
            );
        }
        house.check_books();
    }
}

#[test]
fn dead_letters_that_wait_are_seen() {
    let mut house = House::new();
    let c = house.connect();
    house.exchange(c, "graves", "fanout");
    let keeps = [
        ("x-queue-type", "quorum"),
        ("x-overflow", "reject-publish"),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-dead-letter-exchange", "graves"),
    ];
    house.declare_with(c, "a", &keeps.map(|(name, value)| (name, text(value))));
    house.put(c, "a", &["1", "2"]);
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    let browsed = look(&mut house, c, all("a", 10));
    let (two, one) = ((State::Ready, "2".to_owned()), (State::Dead, "1".to_owned()));
    assert_eq!(with_states(&browsed), [two, one.clone()]);
    assert_eq!(with_states(&look(&mut house, c, only("dead", all("a", 10)))), [one]);
}

#[test]
fn what_an_exchange_delays_is_for_who_may_configure_it() {
    let mut house = House::new();
    let c = house.connect();
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.publish(c, Post::by("later", "", "1").header("x-delay", int(100)));
    let hidden = || Request::Browse(all("amq.delayed.later", 5));
    assert!(matches!(house.ask(c, hidden()), Ok(Reply::Browsed(it)) if it.found.len() == 1));
    house.user("ann", ["", "", ".*"]);
    let ann = house.connect_as("ann", "/", false);
    assert!(house.refused(ann, hidden()).contains("later"));
    house.ask(c, mailbox("a", &[])).unwrap();
    assert!(house.ask(ann, Request::Browse(all("a", 5))).is_ok());
    let missing = Request::Browse(all("missing", 5));
    assert!(house.refused(ann, missing).contains("no queue 'missing'"));
}

#[test]
fn places_and_states_are_texts() {
    for text in ["", "ready", "ready-1", "sold-1-2", "ready-1-2-3", "ready--1-2", "ready-1-x"] {
        assert!(text.parse::<Bookmark>().is_err(), "{text}");
    }
    let place: Bookmark = "delayed-1700000000500-17".parse().unwrap();
    assert_eq!((place.state, place.seq), (State::Delayed, Seq(17)));
    assert_eq!(place.to_string(), "delayed-1700000000500-17");
    assert_eq!("".parse(), Ok(States::ALL));
    assert_eq!("dead,dead".parse(), Ok(States::only(State::Dead)));
    assert_eq!("ready,gone".parse::<States>(), Err(NoState("gone".into())));
    // A place from elsewhere leads nowhere, and harms nobody.
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1"]);
    for place in ["ready-99-18446744073709551615", "delayed-18446744073709551615-0"] {
        let browse = Browse { after: place.parse().ok(), ..all("a", 5) };
        assert_eq!(look(&mut house, c, browse).found.len(), 0);
    }
}
