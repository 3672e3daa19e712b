//! Key-value mailboxes: the newest value of each key stays.

use super::house::*;
use super::request::*;
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::*;

fn kv(house: &mut House, c: ConnectionId, name: &str, arguments: &[(&str, Value)]) {
    let mut all = vec![("x-queue-type", text("kv"))];
    all.extend_from_slice(arguments);
    house.declare_with(c, name, &all);
}

fn put(house: &mut House, c: ConnectionId, key: &str, value: &str) {
    house.publish(c, Post::to("k", value).header("x-key", text(key)));
}

fn erase(house: &mut House, c: ConnectionId, key: &str) {
    let post = Post::to("k", "").header("x-key", text(key));
    house.publish(c, post.header("x-tombstone", Value::Bool(true)));
}

/// Takes until nothing comes any more.
fn read_with(house: &mut House, c: ConnectionId, arguments: &[(&str, Value)]) -> Vec<String> {
    let id = house.next_id();
    house.consume_with(c, "k", id, |it| {
        it.no_ack = true;
        it.arguments = table(arguments);
    });
    let read = house.bodies(c);
    assert!(house.told(c).contains(&format!("finished {id}")), "it came to its end");
    read
}

fn get(house: &mut House, c: ConnectionId, key: &str) -> Option<String> {
    let arguments = [("x-key", text(key)), ("x-stream-until", text("last"))];
    let mut found = read_with(house, c, &arguments);
    assert!(found.len() <= 1);
    found.pop()
}

fn history(house: &mut House, c: ConnectionId, key: &str) -> Vec<String> {
    let first = ("x-stream-offset", text("first"));
    read_with(house, c, &[("x-key", text(key)), first, ("x-stream-until", text("last"))])
}

fn scan(house: &mut House, c: ConnectionId) -> Vec<String> {
    let first = ("x-stream-offset", text("first"));
    read_with(house, c, &[first, ("x-stream-until", text("last"))])
}

fn keys(house: &mut House, c: ConnectionId, after: Option<&'static str>) -> Vec<(String, u64)> {
    let (vhost, mailbox, after) = ("/".into(), "k".into(), after.map(Into::into));
    let inspect = Inspect::Keys { vhost, mailbox, after, count: 500 };
    let Ok(Reply::Inspection(found)) = house.ask(c, Request::Inspect(inspect)) else {
        panic!("no keys")
    };
    let Inspection::Keys(found) = *found else { panic!("other things") };
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    found.into_iter().map(|it| (text(&it.key), it.offset)).collect()
}

#[test]
fn newest_value_of_a_key_is_found_exactly() {
    let mut house = House::small();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    for n in 0..300 {
        put(&mut house, c, &format!("user{}", n % 30), &n.to_string());
    }
    assert_eq!(house.ready("k"), 30);
    house.check_books();
    assert_eq!(get(&mut house, c, "user1"), Some("271".into()));
    assert_eq!(get(&mut house, c, "user10"), Some("280".into()));
    for never in ["user", "user100", "", "User1"] {
        assert_eq!(get(&mut house, c, never), None, "{never}");
    }
    let stored: usize = house.disk.mailboxes.values().map(|it| it.messages.len()).sum();
    assert_eq!(stored, 30, "what was superseded leaves the store");
    let all = keys(&mut house, c, None);
    assert_eq!(all.len(), 30);
    assert!(all.is_sorted());
    assert_eq!(all[0], ("user0".into(), 270));
    assert_eq!(keys(&mut house, c, Some("user8")), [("user9".into(), 279)]);
    let expected: Vec<String> = (270..300).map(|n: u32| n.to_string()).collect();
    assert_eq!(scan(&mut house, c), expected);
    house.check_books();
}

#[test]
fn values_that_stay_while_others_change_are_read_back_from_the_store() {
    let mut house = House::small();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    for n in 0..200 {
        put(&mut house, c, &format!("old{n}"), &format!("o{n}"));
    }
    for n in 0..2_000 {
        put(&mut house, c, &format!("hot{}", n % 7), &n.to_string());
        if n % 10 == 0 {
            put(&mut house, c, &format!("old{}", n / 10), &format!("n{}", n / 10));
        }
        if n % 500 == 499 {
            house.check_books();
        }
    }
    for n in [0, 1, 77, 199] {
        assert_eq!(get(&mut house, c, &format!("old{n}")), Some(format!("n{n}")));
    }
    assert_eq!(scan(&mut house, c).len(), 207);
    assert_eq!(house.ready("k"), 207);
    house.check_books();
}

#[test]
fn deleted_key_has_no_value_and_its_deletion_goes_after_a_day() {
    let mut house = House::new();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    put(&mut house, c, "a", "1");
    put(&mut house, c, "b", "2");
    erase(&mut house, c, "a");
    assert_eq!(get(&mut house, c, "a"), None);
    assert_eq!(keys(&mut house, c, None), [("b".into(), 1)]);
    // Who reads from the start sees that it was deleted.
    assert_eq!(scan(&mut house, c), ["2", ""]);
    house.wait(23 * 3_600_000);
    assert_eq!(house.ready("k"), 2);
    // A new value in the meantime is none of the deletion's business.
    erase(&mut house, c, "b");
    put(&mut house, c, "b", "3");
    house.wait(2 * 3_600_000);
    assert_eq!(house.ready("k"), 1);
    house.wait(30 * 3_600_000);
    assert_eq!(get(&mut house, c, "b"), Some("3".into()));
    assert_eq!(scan(&mut house, c), ["3"]);
    house.check_books();
}

#[test]
fn history_keeps_so_many_values() {
    let mut house = House::small();
    let c = house.connect();
    kv(&mut house, c, "k", &[("x-max-history", int(3))]);
    for n in 0..100 {
        put(&mut house, c, &format!("key{}", n % 4), &n.to_string());
    }
    assert_eq!(history(&mut house, c, "key1"), ["89", "93", "97"]);
    assert_eq!(get(&mut house, c, "key1"), Some("97".into()));
    assert_eq!(house.ready("k"), 12);
    erase(&mut house, c, "key1");
    assert_eq!(history(&mut house, c, "key1"), [""]);
    put(&mut house, c, "key1", "new");
    assert_eq!(history(&mut house, c, "key1"), ["new"]);
    house.check_books();
}

#[test]
fn watcher_of_a_key_gets_its_value_and_then_its_changes() {
    let mut house = House::new();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    put(&mut house, c, "a", "1");
    put(&mut house, c, "ab", "2");
    house.consume_with(c, "k", 1, |it| it.arguments = table(&[("x-key", text("a"))]));
    assert_eq!(house.bodies(c), ["1"]);
    put(&mut house, c, "ab", "3");
    assert!(house.bodies(c).is_empty());
    put(&mut house, c, "a", "4");
    erase(&mut house, c, "a");
    assert_eq!(house.bodies(c), ["4", ""]);
    house.check_books();
}

#[test]
fn message_without_a_key_is_refused_and_an_exchange_gives_its_routing_key() {
    let mut house = House::new();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    house.publish(c, Post::to("k", "x").confirm(1));
    let long = "x".repeat(256);
    for (tag, wrong) in (2..).zip(["", &long]) {
        house.publish(c, Post::to("k", "x").header("x-key", text(wrong)).confirm(tag));
    }
    assert_eq!(house.told(c), ["refused 1", "refused 2", "refused 3"]);
    assert_eq!((house.ready("k"), house.mailbox("k").counts.refused), (0, 3));
    house.exchange(c, "t", "topic");
    house.bind(c, "t", "k", "sensor.#");
    for (key, value) in [("sensor.a", "1"), ("sensor.b", "2"), ("sensor.a", "3")] {
        house.publish(c, Post::by("t", key, value));
    }
    assert_eq!(get(&mut house, c, "sensor.a"), Some("3".into()));
    assert_eq!(house.ready("k"), 2);
    house.check_books();
}

#[test]
fn keys_are_known_again_after_a_restart() {
    for crash in [true, false] {
        let mut house = House::small();
        let c = house.connect();
        kv(&mut house, c, "k", &[("x-max-history", int(2))]);
        for n in 0..3_000 {
            put(&mut house, c, &format!("key{}", n * 7 % 500), &n.to_string());
        }
        erase(&mut house, c, "key7");
        let before = (scan(&mut house, c), keys(&mut house, c, None));
        house.fast_fetch = false;
        if crash {
            house.crash()
        } else {
            house.restart()
        }
        let c = house.connect();
        // Before all keys are known, who asks waits; what is put meanwhile counts.
        let ask = |it: &mut Consume| it.arguments = table(&[("x-key", text("key3"))]);
        house.consume_with(c, "k", 1, ask);
        put(&mut house, c, "key4", "new");
        assert!(house.bodies(c).is_empty());
        house.fast_fetch = true;
        house.answer_fetches();
        assert_eq!(house.bodies(c).len(), 1);
        house.close(c);
        let c = house.connect();
        assert_eq!(get(&mut house, c, "key4"), Some("new".into()));
        assert_eq!(history(&mut house, c, "key4").len(), 2);
        assert_eq!(get(&mut house, c, "key7"), None);
        assert_eq!(keys(&mut house, c, None).len(), before.1.len());
        assert_eq!(scan(&mut house, c).len(), before.0.len());
        house.check_books();
        house.wait(25 * 3_600_000);
        assert_eq!(history(&mut house, c, "key7"), [""; 0]);
        house.check_books();
    }
}

#[test]
fn only_the_value_that_was_asked_for_is_read_from_the_store() {
    let mut house = House::small();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    for n in 0..2_000 {
        put(&mut house, c, &format!("key{n}"), &n.to_string());
    }
    // Somebody who reads at the end, so that what was read back stays in memory.
    let end = house.connect();
    house.consume(end, "k", 1);
    house.fast_fetch = false;
    let waiting: Vec<_> = (0..8).map(|n| (house.connect(), n * 100 + 7)).collect();
    for (c, n) in &waiting {
        let key = text(&format!("key{n}"));
        house.consume_with(*c, "k", 1, |it| it.arguments = table(&[("x-key", key)]));
    }
    let mut read = 0;
    while let Some(fetch) = house.fetches.pop_front() {
        read += fetch.ranges.iter().map(|(_, count)| count).sum::<u32>();
        let fetched = house.disk.fetch(&fetch, &house.damaged);
        house.apply(SERVER, Command::Fetched(fetched));
    }
    assert_eq!(read, 8);
    for (c, n) in waiting {
        assert_eq!(house.bodies(c), [n.to_string()]);
    }
    // Those who read everything find everything, whatever was read alone before.
    house.fast_fetch = true;
    let all: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    for n in (3..2_000).step_by(17) {
        assert_eq!(get(&mut house, c, &format!("key{n}")), Some(n.to_string()));
    }
    assert_eq!(scan(&mut house, c), all);
    assert_eq!(get(&mut house, c, "key20"), Some("20".into()));
    assert_eq!(scan(&mut house, c), all);
    house.check_books();
}

#[test]
fn damaged_value_is_lost_and_others_are_not() {
    let mut house = House::small();
    let c = house.connect();
    kv(&mut house, c, "k", &[]);
    for n in 0..200 {
        put(&mut house, c, &format!("key{n}"), &n.to_string());
    }
    let id = house.mailbox("k").id;
    house.damaged.insert((id, Seq(11)));
    assert_eq!(get(&mut house, c, "key10"), None);
    assert_eq!(get(&mut house, c, "key11"), Some("11".into()));
    assert_eq!((house.ready("k"), house.disk.quarantined.len()), (199, 1));
    house.damaged.insert((id, Seq(21)));
    house.crash();
    let c = house.connect();
    assert_eq!(get(&mut house, c, "key20"), None);
    assert_eq!(scan(&mut house, c).len(), 198);
    house.check_books();
}

#[test]
fn kv_is_declared_without_limits_of_length() {
    let mut house = House::new();
    let c = house.connect_lax();
    for name in ["x-max-length", "x-max-age", "x-message-ttl"] {
        let wanted = mailbox("k", &[("x-queue-type", text("kv")), (name, text("1h"))]);
        let expected = format!("invalid arg '{name}' for queue 'k' in vhost '/' of queue type kv");
        assert_eq!(house.refused(c, wanted), expected);
    }
    house.declare_with(c, "s", &[("x-queue-type", text("stream"))]);
    let mut wanted = consume("s", 1);
    wanted.arguments = table(&[("x-key", text("a"))]);
    let expected =
        "invalid arg 'x-key' for queue 's' in vhost '/': not a key of a mailbox with keys";
    assert_eq!(house.refused(c, Request::Consume(wanted)), expected);
    let inspect = Inspect::Keys { vhost: "/".into(), mailbox: "s".into(), after: None, count: 5 };
    let expected = "queue 's' in vhost '/' has no keys";
    assert_eq!(house.refused(c, Request::Inspect(inspect)), expected);
}
