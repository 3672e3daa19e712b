//! Messages that wait for their time: seen, moved, taken away.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::*;

const HIDDEN: &str = "amq.delayed.later";

/// Where each waits: due in so many ms, and its position.
fn waiting(house: &mut House, mailbox: &str) -> Vec<(Time, Seq)> {
    let (vhost, mailbox) = ("/".into(), mailbox.into());
    let inspect = Inspect::Delayed { vhost, mailbox, after: None, count: 100 };
    match house.ask(SERVER, Request::Inspect(inspect)).expect("a list") {
        Reply::Inspection(found) => match *found {
            Inspection::Delayed(views) => views.iter().map(|it| (it.due, it.seq)).collect(),
            other => panic!("got {other:?}"),
        },
        other => panic!("got {other:?}"),
    }
}

fn retime(mailbox: &str, (due, seq): (Time, Seq), to: Option<Time>) -> Request {
    Request::Retime(Retime { mailbox: mailbox.into(), due, seq, to })
}

/// Three messages that an exchange delays by 100, 200 and 300 ms, on their way to `a`.
fn three_delayed(house: &mut House) -> ConnectionId {
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "");
    for (body, delay) in [("3", 300), ("1", 100), ("2", 200)] {
        house.publish(c, Post::by("later", "", body).header("x-delay", int(delay)));
    }
    c
}

/// Whether they are in memory, only in the store, or came back from it after a crash.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Hot,
    Cold,
    Recovered,
}

#[rstest]
fn delayed_messages_can_be_moved_and_taken_away(
    #[values(Kept::Hot, Kept::Cold, Kept::Recovered)] kept: Kept,
    #[values(false, true)] crash_after: bool,
) {
    let settings =
        Settings { hot_messages: usize::from(kept != Kept::Cold), ..Settings::default() };
    let mut house = House::with(settings);
    let mut c = three_delayed(&mut house);
    if kept == Kept::Recovered {
        house.crash();
        c = house.connect();
    }
    house.sync();
    let found = waiting(&mut house, HIDDEN);
    let due = |ms| START.plus_ms(ms);
    assert_eq!(found.iter().map(|it| it.0).collect::<Vec<_>>(), [due(100), due(200), due(300)]);
    house.ask(c, retime(HIDDEN, found[0], Some(due(1_000)))).unwrap();
    house.ask(c, retime(HIDDEN, found[1], None)).unwrap();
    house.ask(c, retime(HIDDEN, found[2], Some(Time(5)))).unwrap();
    if crash_after {
        house.crash();
        c = house.connect();
    }
    house.check_books();
    assert_eq!(house.empty(c, "a"), ["3"], "the past is now");
    house.wait(999);
    assert_eq!(house.ready("a"), 0);
    house.wait(1);
    assert_eq!(house.empty(c, "a"), ["1"]);
    assert_eq!(waiting(&mut house, HIDDEN), []);
    assert_eq!(house.broker.next_deadline(), None);
    house.check_books();
}

#[test]
fn delayed_attempt_keeps_its_count_when_it_is_moved() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-queue-type", text("quorum"))]);
    house.put(c, "a", &["1"]);
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Modified { delay_ms: Some(60_000) });
    house.crash();
    let c = house.connect();
    let found = waiting(&mut house, "a");
    house.ask(c, retime("a", found[0], Some(Time(0)))).unwrap();
    // What is ready stays so: its old time does not come back.
    house.crash();
    let c = house.connect();
    let again = house.get(c, "a").unwrap();
    assert_eq!((again.redelivered, again.delivery.attempts), (true, Some(1)));
    house.check_books();
}

#[test]
fn only_what_waits_can_be_moved() {
    let mut house = House::new();
    three_delayed(&mut house);
    let lax = house.connect_lax();
    let found = waiting(&mut house, HIDDEN);
    house.ask(lax, retime(HIDDEN, found[0], None)).unwrap();
    let text = "no such delayed message in queue 'amq.delayed.later' in vhost '/'";
    assert_eq!(house.refused(lax, retime(HIDDEN, found[0], None)), text);
    assert_eq!(house.refused(lax, retime("none", found[1], None)), "no queue 'none' in vhost '/'");
}

#[test]
fn moving_needs_a_permission() {
    let mut house = House::new();
    three_delayed(&mut house);
    house.user("ann", ["^a$", ".*", ".*"]);
    let ann = house.connect_as("ann", "/", false);
    let found = waiting(&mut house, HIDDEN);
    assert_eq!(
        house.refused(ann, retime(HIDDEN, found[0], None)),
        "configure access to exchange 'later' in vhost '/' refused for user 'ann'"
    );
}
