//! Looking at messages without taking them.

use super::house::*;
use super::request::*;
use crate::broker::browse::MessageViews;
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::*;

fn browse(house: &mut House, by: ConnectionId, name: &str, count: usize) -> MessageViews {
    let inspect = Inspect::Messages { vhost: "/".into(), mailbox: name.into(), count };
    match house.ask(by, Request::Inspect(inspect)) {
        Ok(Reply::Inspection(found)) => match *found {
            Inspection::Messages(views) => views,
            other => panic!("unexpected {other:?}"),
        },
        other => panic!("unexpected {other:?}"),
    }
}

fn bodies(views: &MessageViews) -> Vec<String> {
    let body = |view: &browse::MessageView| {
        let mark = if view.holder.is_some() { "!" } else { "" };
        format!("{}{mark}", String::from_utf8_lossy(view.message.body()))
    };
    views.messages.iter().map(body).collect()
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
    assert_eq!(bodies(&browse(&mut house, c, "a", 10)), ["also urgent", "1", "2", "urgent!"]);
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
    let holders: Vec<_> = browse(&mut house, other, "a", 10)
        .messages
        .into_iter()
        .map(|it| it.holder.expect("a holder"))
        .map(|it| (it.connection, it.channel, it.tag, it.since.since_ms(START)))
        .collect();
    // More time to settle does not make the delivery younger.
    assert_eq!(holders, [(c, ONE, Some("worker".into()), 0), (other, ONE, None, 500)]);
}

#[test]
fn a_slice_says_how_much_it_does_not_show() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3", "4"]);
    house.get(c, "a").unwrap();
    let views = browse(&mut house, c, "a", 2);
    assert_eq!(bodies(&views), ["2", "3"]);
    assert_eq!((views.more_ready, views.more_unsettled), (1, 1));
}

#[test]
fn what_one_may_not_read_one_may_not_browse() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let inspect = Inspect::Messages { vhost: "/".into(), mailbox: "missing".into(), count: 1 };
    assert!(house.refused(c, Request::Inspect(inspect)).contains("no queue 'missing'"));
}
