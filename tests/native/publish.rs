//! Pushing.

use pillarbox_native::{Due, NewMessage, Push, PushBatch};

use crate::house::{House, push};

#[test]
fn a_push_is_answered_once_with_what_was_taken() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 7, "jobs", &["one", "two", "three"]);
    assert_eq!(house.heard(client), ["Pushed 7 3"]);
}

#[test]
fn messages_wait_for_so_long_or_until_then() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    let then = house.now.0 + 3000;
    let pushed = [
        (Due::After(2000), &b"second"[..]),
        (Due::At(then), b"third"),
        (Due::At(1), b"past"),
        (Due::After(0), b"first"),
    ];
    house.say(client, |out| {
        let mut push = PushBatch::begin(7, 0, "", b"jobs", out);
        for (due, body) in pushed {
            push.add(NewMessage { due, body, ..NewMessage::default() }, out);
        }
        push.end(out);
    });
    assert_eq!(house.heard(client), ["Pushed 7 4"]);
    for (id, waited, expected) in [(1, 0, "past first"), (2, 2000, "second"), (3, 1000, "third")] {
        house.pass(waited);
        house.pull_settled(client, id, "jobs", 10, 0);
        assert_eq!(house.heard(client), [format!("Pulled {id} {expected}")]);
    }
    house.say(client, |out| {
        let mut push = PushBatch::begin(8, 0, "", b"jobs", out);
        let due = Due::After(315_360_000_001);
        push.add(NewMessage { due, body: b"x", ..NewMessage::default() }, out);
        push.end(out);
    });
    assert_eq!(house.heard(client), ["Refused 8 412"], "more than ten years");
}

/// Seeds, case 7: an unknown mailbox is told, not swallowed.
#[test]
fn a_message_for_no_mailbox_is_refused() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| {
        let mut push = PushBatch::begin(7, 0, "", b"jobs", out);
        push.add(NewMessage { body: b"one", ..NewMessage::default() }, out);
        push.add(NewMessage { key: Some(b"none"), body: b"two", ..NewMessage::default() }, out);
        push.add(NewMessage { body: b"three", ..NewMessage::default() }, out);
        push.end(out);
    });
    assert_eq!(house.heard(client), ["Pushed 7 2 1:404"]);
}

/// Seeds, case 9: publishing without a subscriber succeeds, unless it is asked for.
#[test]
fn an_exchange_without_bindings_takes_everything() {
    let mut house = House::new();
    let client = house.client();
    house.say(client, |out| push(7, 0, "amq.fanout", "k", &["one"], out));
    house.say(client, |out| push(8, Push::MANDATORY, "amq.fanout", "k", &["one"], out));
    assert_eq!(house.heard(client), ["Pushed 7 1", "Pushed 8 0 0:404"]);
}

#[test]
fn a_push_to_a_mailbox_of_this_host_is_home() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| push(7, Push::HOME, "", "jobs", &["one", "two"], out));
    house.say(client, |out| push(8, Push::HOME, "", "none", &["three"], out));
    assert_eq!(house.heard(client), ["Pushed 7 2", "Pushed 8 0 0:404"]);
}

#[test]
fn each_message_of_a_refused_push_is_told() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| {
        push(7, 0, "no such exchange", "k", &["one", "two"], out);
        push(8, 0, "", "jobs", &["three"], out);
    });
    assert_eq!(house.heard(client), ["Pushed 7 0 0:404 1:404", "Pushed 8 1"]);
}

#[test]
fn a_push_without_id_is_not_answered_and_disturbs_no_other() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| {
        push(0, 0, "no such exchange", "k", &["one", "two"], out);
        push(0, 0, "", "jobs", &["three"], out);
        push(8, 0, "", "jobs", &["four"], out);
    });
    assert_eq!(house.heard(client), ["Refused 0 404", "Pushed 8 1"]);
}

/// Seeds, case 24: a half-failed batch is never visible.
#[test]
fn nothing_of_a_push_with_bad_properties_is_taken() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| {
        let mut push = PushBatch::begin(7, 0, "", b"jobs", out);
        push.add(NewMessage { body: b"one", ..NewMessage::default() }, out);
        push.add(NewMessage { properties: &[0, 0x80], ..NewMessage::default() }, out);
        push.end(out);
    });
    assert_eq!(house.heard(client), ["Refused 7 400"]);
    house.pull(client, 8, "jobs", 10, 0);
    assert_eq!(house.heard(client), ["Pulled 8"]);
}
