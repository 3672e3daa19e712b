//! Cursors: where a stream's consumer goes on, by its name.

use super::house::*;
use super::request::*;
use super::streams::{accept_all, bodies, fill, from, names, read, stream};
use crate::broker::*;

#[test]
fn cursor_remembers_how_far_its_consumer_came() {
    let tracked = |house: &mut House, c, arguments: &[(&str, Value)]| {
        house.consume_with(c, "s", 1, |it| {
            it.tag = "billing".into();
            it.prefetch = 10;
            it.arguments = table(arguments);
        });
    };
    let mut house = House::small();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..5);
    tracked(&mut house, c, &[]);
    fill(&mut house, c, "s", 5..25);
    // A new cursor starts with what comes next; the first of what it holds counts.
    let seen = house.seen(c);
    assert_eq!(bodies(&seen), names(5..15));
    for it in [&seen[0], &seen[1], &seen[3]] {
        house.settle(c, it, Outcome::Accepted);
    }
    house.wait(1_100);
    house.crash();
    let c = house.connect();
    tracked(&mut house, c, &[]);
    let seen = house.seen(c);
    assert_eq!(bodies(&seen), names(7..17));
    house.settle(c, &seen[0], Outcome::Accepted);
    // Written when the consumer leaves.
    house.close(c);
    house.crash();
    let c = house.connect();
    // An offset of its own does not move the cursor, unless it is asked to.
    tracked(&mut house, c, &from(text("first")));
    assert_eq!(bodies(&accept_all(&mut house, c)), names(0..25));
    house.close(c);
    let c = house.connect();
    let argument = ("x-stream-automatic-offset-tracking", Value::Bool(true));
    tracked(&mut house, c, &[from(text("first"))[0].clone(), argument.clone()]);
    assert_eq!(bodies(&accept_all(&mut house, c)), names(8..25));
    house.restart();
    let c = house.connect();
    tracked(&mut house, c, &[argument]);
    fill(&mut house, c, "s", 25..26);
    assert_eq!(bodies(&accept_all(&mut house, c)), names(25..26));
    house.check_books();
    // Names of cursors are exact, and go with the stream.
    house.ask(c, delete("s")).unwrap();
    let left = house.disk.definitions.keys().filter(|it| it.kind == DefinitionKind::Cursor);
    assert_eq!(left.count(), 0);
}

#[test]
fn cursor_may_have_a_name_of_its_own() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    fill(&mut house, c, "s", 0..10);
    for expected in [0..3, 3..6, 6..9] {
        let id = expected.start + 1;
        read(
            &mut house,
            c,
            id,
            3,
            &[from(text("first"))[0].clone(), ("x-stream-cursor", text("audit"))],
        );
        let seen = house.seen(c);
        assert_eq!(bodies(&seen), names(expected));
        house.ask(c, Request::Cancel(ConsumerId(id))).unwrap();
        for it in &seen {
            house.settle(c, it, Outcome::Accepted);
        }
    }
    house.check_books();
}

#[test]
fn cursor_stays_before_what_was_given_back() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    let start = |house: &mut House, id: u32, c| {
        house.consume_with(c, "s", id, |it| it.tag = "billing".into());
        house.seen(c)
    };
    start(&mut house, 1, c);
    fill(&mut house, c, "s", 0..10);
    let seen = house.seen(c);
    for it in &seen[..4] {
        house.settle(c, it, Outcome::Accepted);
    }
    // As pika does: it cancels, and gives back what its program did not see.
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    for it in &seen[6..] {
        house.settle(c, it, Outcome::Released);
    }
    assert_eq!(bodies(&start(&mut house, 2, c)), names(4..10));
    house.ask(c, Request::Cancel(ConsumerId(2))).unwrap();
    // What was settled behind the cancel counts too.
    house.settle(c, &seen[4], Outcome::Accepted);
    house.settle(c, &seen[5], Outcome::Rejected);
    assert_eq!(bodies(&start(&mut house, 3, c)), names(6..10));
    house.check_books();
}

#[test]
fn cursor_is_written_rarely() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    house.consume_with(c, "s", 1, |it| it.tag = "billing".into());
    house.fast_disk = false;
    let mut writes = 0;
    for n in 0..100 {
        fill(&mut house, c, "s", n..n + 1);
        house.sync();
        for it in house.seen(c) {
            house.settle(c, &it, Outcome::Accepted);
        }
        house.wait(50);
        writes += house.open_writes().filter(|it| matches!(it, Write::Define(_))).count();
        house.sync();
    }
    assert!((3..=6).contains(&writes), "{writes} writes in 5 seconds");
}

#[test]
fn generated_tags_make_no_cursor() {
    let mut house = House::new();
    let c = house.connect();
    stream(&mut house, c, "s", &[]);
    for (id, tag) in (1..).zip(["amq.ctag-x", "ctag1.c0ffee", "ctag-./app-1", "bunny-1-2"]) {
        house.consume_with(c, "s", id, |it| it.tag = tag.into());
    }
    fill(&mut house, c, "s", 0..3);
    accept_all(&mut house, c);
    house.close(c);
    assert!(house.disk.definitions.keys().all(|it| it.kind != DefinitionKind::Cursor));
}
