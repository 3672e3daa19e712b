//! Last wills.

use bytes::BytesMut;
use pillarbox_native::{Due, Kind, NewMessage, PushBatch, write_empty};

use crate::house::House;

fn will(number: u16, any: bool, body: &'static str) -> impl FnOnce(&mut BytesMut) {
    move |out| {
        let mut will = PushBatch::will(9, number, any, "", b"log", out);
        if !body.is_empty() {
            will.add(NewMessage { body: body.as_bytes(), ..NewMessage::default() }, out);
        }
        will.end(out);
    }
}

#[test]
fn a_will_is_published_when_its_client_is_lost() {
    let mut house = House::new();
    let (dies, stays) = (house.client(), house.client());
    house.declare(stays, "log");
    house.say(dies, will(1, false, "lost"));
    house.say(dies, will(2, true, "ended"));
    house.say(dies, will(3, false, "taken back"));
    house.say(dies, will(3, false, ""));
    assert_eq!(house.heard(dies), ["Done 9", "Done 9", "Done 9", "Done 9"]);
    house.lose(dies);
    house.pull(stays, 4, "log", 10, 0);
    assert_eq!(house.heard(stays), ["Pulled 4 lost ended"]);
}

#[test]
fn a_will_cannot_wait() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "log");
    house.say(client, |out| {
        let mut will = PushBatch::will(9, 1, false, "", b"log", out);
        will.add(NewMessage { due: Due::After(5), body: b"x", ..NewMessage::default() }, out);
        will.end(out);
    });
    assert_eq!(house.heard(client), ["Refused 9 400"]);
}

/// Seeds: Vega's will was published at every end, so a client could not leave in peace.
#[test]
fn after_a_goodbye_only_the_will_for_any_end_is_published() {
    let mut house = House::new();
    let (leaves, stays) = (house.client(), house.client());
    house.declare(stays, "log");
    house.say(leaves, will(1, false, "lost"));
    house.say(leaves, will(2, true, "ended"));
    house.say(leaves, |out| write_empty(Kind::Close, 5, out));
    house.lose(leaves);
    house.pull(stays, 4, "log", 10, 0);
    assert_eq!(house.heard(stays), ["Pulled 4 ended"]);
}

#[test]
fn a_client_that_breaks_the_protocol_is_lost() {
    let mut house = House::new();
    let (breaks, stays) = (house.client(), house.client());
    house.declare(stays, "log");
    house.say(breaks, will(1, false, "lost"));
    house.say(breaks, |out| out.extend_from_slice(&[6, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0]));
    house.pull(stays, 4, "log", 10, 0);
    assert_eq!(house.heard(stays), ["Pulled 4 lost"]);
}

#[test]
fn wills_have_limits() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "log");
    for number in 0..64 {
        house.say(client, will(number, false, "x"));
    }
    house.heard(client);
    house.say(client, will(64, false, "x"));
    house.say(client, will(63, false, "y"));
    let heard = house.heard(client);
    assert!(heard[0].starts_with("Refused 9"), "{heard:?}");
    assert_eq!(heard[1], "Done 9");
    house.say(client, |out| {
        let mut will = PushBatch::will(9, 1, false, "", b"log", out);
        will.add(NewMessage { body: &[0; 70_000], ..NewMessage::default() }, out);
        will.end(out);
    });
    assert!(house.heard(client)[0].starts_with("Refused 9"));
}
