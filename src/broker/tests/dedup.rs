//! Messages that are published twice.

use std::sync::Arc;

use super::house::*;
use super::request::*;
use crate::broker::*;

/// A message with the id that RabbitMQ's plugin looks for.
fn post(id: &str, body: &str) -> Post {
    Post::to("a", body).header("x-deduplication-header", text(id))
}

fn with_window(more: &[(&str, Value)]) -> (House, ConnectionId) {
    let mut house = House::new();
    let c = house.connect();
    let mut arguments = vec![("x-deduplication-window", int(60_000))];
    arguments.extend_from_slice(more);
    house.declare_with(c, "a", &arguments);
    (house, c)
}

fn take_all(house: &mut House, c: ConnectionId) -> Vec<String> {
    std::iter::from_fn(|| {
        let seen = house.get(c, "a")?;
        house.settle(c, &seen, Outcome::Accepted);
        Some(seen.body)
    })
    .collect()
}

#[test]
fn second_message_of_an_id_is_confirmed_and_not_kept() {
    let (mut house, c) = with_window(&[]);
    house.publish(c, post("1", "first").confirm(1));
    house.publish(c, post("1", "again").confirm(2));
    house.publish(c, post("10", "another").confirm(3));
    // Without an id nothing is compared.
    house.put(c, "a", &["same", "same"]);
    assert_eq!(house.told(c), ["confirmed 1", "confirmed 2", "confirmed 3"]);
    assert_eq!(take_all(&mut house, c), ["first", "another", "same", "same"]);
    // It is gone, and known all the same.
    house.publish(c, post("1", "again"));
    assert_eq!(take_all(&mut house, c), Vec::<String>::new());
    assert_eq!(house.mailbox("a").counts.duplicates, 2);
    house.check_books();
}

#[test]
fn ids_are_known_after_a_crash_and_no_longer_than_the_window() {
    for kind in ["classic", "quorum", "stream"] {
        let (mut house, c) = with_window(&[("x-queue-type", text(kind))]);
        house.publish(c, post("1", "x"));
        house.wait(59_999);
        house.sync();
        house.crash();
        let c = house.connect();
        house.publish(c, post("1", "y"));
        assert_eq!(house.ready("a"), 1, "{kind}");
        house.wait(1);
        house.publish(c, post("1", "y"));
        assert_eq!(house.ready("a"), 2, "{kind}");
        // One is written for the other.
        let written = |house: &House| {
            let kinds = house.disk.definitions.keys().map(|it| it.kind);
            kinds.filter(|it| *it == DefinitionKind::Publication).count()
        };
        assert_eq!(written(&house), 1);
        house.ask(c, delete("a")).unwrap();
        assert_eq!(written(&house), 0);
    }
}

#[test]
fn id_is_durable_with_its_message_or_not_at_all() {
    let (mut house, c) = with_window(&[]);
    house.fast_disk = false;
    house.publish(c, post("1", "lost"));
    house.publish(c, post("2", "not kept").transient());
    house.crash();
    house.fast_disk = true;
    let c = house.connect();
    house.declare_with(c, "a", &[("x-deduplication-window", int(60_000))]);
    house.publish(c, post("2", "transient").transient());
    house.publish(c, post("1", "here"));
    house.crash();
    let c = house.connect();
    house.publish(c, post("2", "transient"));
    house.publish(c, post("1", "again"));
    assert_eq!(take_all(&mut house, c), ["here", "transient"]);
}

#[test]
fn oldest_id_makes_room() {
    let (mut house, c) = with_window(&[("x-cache-size", int(3))]);
    for id in ["1", "2", "3", "4", "2", "1"] {
        house.publish(c, post(id, id));
    }
    assert_eq!(take_all(&mut house, c), ["1", "2", "3", "4", "1"]);
}

#[test]
fn id_is_the_first_of_its_places() {
    let (mut house, c) = with_window(&[]);
    let id = |house: &mut House, id: &str| {
        let mut publish = Post::to("a", "x").publish(house.now);
        let message = Arc::get_mut(&mut publish.message).unwrap();
        let mut properties = message.properties().clone();
        properties.message_id = Some(id.to_owned().into());
        publish.message = Arc::new(message.readdressed(&"".into(), b"a", &properties));
        house.apply(c, Command::Publish(publish));
    };
    id(&mut house, "m");
    id(&mut house, "m");
    house.publish(c, Post::to("a", "x").header("_AMQ_DUPL_ID", text("m")));
    assert_eq!(house.ready("a"), 1);
    id(&mut house, "n");
    assert_eq!(house.ready("a"), 2);
    // Another header, by name; then only that.
    house.declare_with(
        c,
        "b",
        &[
            ("x-message-deduplication", Value::Bool(true)),
            ("x-deduplication-header", text("order")),
        ],
    );
    for header in ["order", "order", "x-deduplication-header", "x-deduplication-header"] {
        house.publish(c, Post::to("b", "x").header(header, text("7")));
    }
    assert_eq!(house.ready("b"), 3);
    // Too long for an id.
    for _ in 0..2 {
        house.publish(c, Post::to("b", "x").header("order", text(&"7".repeat(513))));
    }
    assert_eq!(house.ready("b"), 5);
}

#[test]
fn batch_is_told_where_the_first_one_is() {
    let (mut house, c) = with_window(&[]);
    house.put(c, "a", &["before"]);
    let messages = |house: &House, ids: &[&str]| -> Vec<Message> {
        let one = |id: &&str| Arc::into_inner(post(id, id).publish(house.now).message).unwrap();
        ids.iter().map(one).collect()
    };
    let mut told = |ids: &[&str]| {
        let messages = messages(&house, ids);
        let batch =
            PublishBatch { channel: ONE, messages, confirm: Some(1), mandatory: true, home: false };
        house.apply(c, Command::PublishBatch(batch));
        let confirmed = house.events.drain(..).find_map(|(_, event)| match event {
            Event::BatchConfirmed { taken, missed, duplicates, .. } => {
                assert!(missed.is_empty());
                Some((taken, duplicates))
            }
            _ => None,
        });
        confirmed.expect("a confirm")
    };
    assert_eq!(told(&["1", "2", "1"]), (3, vec![(2, Seq(2))]));
    assert_eq!(told(&["2", "3", "1"]), (3, vec![(0, Seq(3)), (2, Seq(2))]));
}

#[test]
fn dead_letter_comes_back_under_its_id() {
    let (mut house, c) = with_window(&[
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("back")),
    ]);
    let back = [
        ("x-message-ttl", int(1000)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("a")),
    ];
    house.declare_with(c, "back", &back);
    house.publish(c, post("1", "x"));
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Rejected);
    house.wait(1000);
    assert_eq!(house.get(c, "a").map(|it| it.body).as_deref(), Some("x"));
    house.publish(c, post("1", "again"));
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn duplicate_is_no_offence_to_a_full_mailbox() {
    let (mut house, c) =
        with_window(&[("x-max-length", int(1)), ("x-overflow", text("reject-publish"))]);
    house.publish(c, post("1", "x").confirm(1));
    house.publish(c, post("1", "x").confirm(2));
    house.publish(c, post("2", "x").confirm(3));
    assert_eq!(house.told(c), ["confirmed 1", "confirmed 2", "refused 3"]);
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let mut house = House::new();
    let c = house.connect_lax();
    for (name, value) in [
        ("x-deduplication-window", int(0)),
        ("x-cache-size", int(1_000_001)),
        ("x-message-deduplication", text("yes")),
    ] {
        let on = ("x-message-deduplication", Value::Bool(true));
        let arguments = if name == on.0 { vec![(name, value)] } else { vec![on, (name, value)] };
        let refused = house.refused(c, mailbox("a", &arguments));
        assert!(refused.starts_with(&format!("invalid arg '{name}'")), "{refused}");
    }
    house.declare_with(c, "off", &[("x-message-deduplication", Value::Bool(false))]);
    assert_eq!(house.mailbox("off").limits.dedup, None);
}
