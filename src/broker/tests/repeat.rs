//! Messages that come again and again.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::*;

/// As a STOMP session publishes it: hidden until its first time.
fn post_at(house: &mut House, c: ConnectionId, post: Post, due: Option<Time>) {
    let mut publish = post.publish(house.now);
    let message = std::sync::Arc::get_mut(&mut publish.message).unwrap();
    let repeat = Repeat::of(message.properties()).unwrap().unwrap();
    message.deliver_at = due.unwrap_or_else(|| repeat.first(house.now));
    house.apply(c, Command::Publish(publish));
}

fn amq(body: &str, headers: &[(&str, &str)]) -> Post {
    headers.iter().fold(Post::to("a", body), |post, (name, value)| {
        post.header(&format!("AMQ_SCHEDULED_{name}"), text(value))
    })
}

/// When each came since the start, in ms, as it is taken. Nothing is left when it is looked at again.
fn arrivals(house: &mut House, c: ConnectionId, span_ms: u64, step_ms: u64) -> Vec<u64> {
    let mut came = Vec::new();
    for _ in 0..span_ms / step_ms {
        for seen in house.seen(c) {
            came.push(house.now.since_ms(START));
            assert!(!seen.redelivered);
            house.settle(c, &seen, Outcome::Accepted);
        }
        house.wait(step_ms);
    }
    came
}

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

#[test]
fn a_period_repeats_so_often_and_then_is_over() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.consume(c, "a", 1);
    let post = amq("x", &[("PERIOD", "1000"), ("REPEAT", "3")]);
    post_at(&mut house, c, post, Some(START.plus_ms(500)));
    assert_eq!(arrivals(&mut house, c, 10_000, 100), [500, 1500, 2500, 3500]);
    assert_eq!(waiting(&mut house, "a"), []);
    assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
    house.check_books();
}

#[test]
fn what_comes_says_no_more_that_it_repeats_and_has_an_id_of_its_own() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.consume(c, "a", 1);
    let post = amq("x", &[("PERIOD", "1000"), ("REPEAT", "-1")]).header("n", int(1));
    post_at(&mut house, c, post, None);
    house.wait(5000);
    let seen = house.seen(c);
    assert_eq!(seen.len(), 5);
    let headers = seen[0].delivery.message.properties().headers.clone().unwrap();
    assert_eq!(headers, table(&[("n", int(1))]));
    let mut ids: Vec<_> = seen.iter().map(|it| it.delivery.message.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    // One that fails is one of its own.
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: Some(300) });
    house.wait(500);
    assert_eq!(house.seen(c).iter().filter(|it| it.redelivered).count(), 1);
    assert_eq!(waiting(&mut house, "a").len(), 1);
    house.check_books();
}

#[rstest]
fn a_cron_expression_goes_on_over_crashes_and_catches_up_once(
    #[values(0, 100)] hot_messages: usize,
) {
    let mut house = House::with(Settings { hot_messages, ..Settings::default() });
    let mut c = house.connect();
    house.declare(c, "a");
    let minute = 60_000;
    post_at(&mut house, c, amq("x", &[("CRON", "*/10 * * * *")]), None);
    // The start is 13 minutes and 20 seconds past.
    let first = START.plus_ms(6 * minute + 40_000);
    assert_eq!(waiting(&mut house, "a").iter().map(|it| it.0).collect::<Vec<_>>(), [first]);
    for hour in 0..3 {
        house.wait(60 * minute);
        assert_eq!(house.ready("a"), 6 * (hour + 1));
        house.crash();
        house.check_books();
        c = house.connect();
    }
    assert_eq!(house.empty(c, "a").len(), 18);
    // What was missed while the broker was away does not come for each time.
    house.now = house.now.plus_ms(60 * minute);
    house.crash();
    c = house.connect();
    house.tick();
    assert_eq!(house.empty(c, "a").len(), 1);
    let next = waiting(&mut house, "a");
    assert_eq!(next[0].0, START.plus_ms(4 * 60 * minute + 6 * minute + 40_000));
    assert_eq!(house.mailbox("a").delayed.len(), 1);
    house.check_books();
}

#[test]
fn repeating_is_cancelled_and_moved_like_any_other_delay() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let post = amq("x", &[("PERIOD", "1000"), ("REPEAT", "-1")]);
    post_at(&mut house, c, post, Some(START.plus_ms(1000)));
    house.wait(1500);
    let retime = |(due, seq), to| Request::Retime(Retime { mailbox: "a".into(), due, seq, to });
    let at = waiting(&mut house, "a")[0];
    // Now, and then in its rhythm from there.
    house.ask(c, retime(at, Some(Time::ZERO))).unwrap();
    house.wait(1);
    assert_eq!(house.empty(c, "a").len(), 2);
    let at = waiting(&mut house, "a")[0];
    assert_eq!(at.0, START.plus_ms(2500));
    house.ask(c, retime(at, None)).unwrap();
    house.wait(10_000);
    assert_eq!((house.ready("a"), waiting(&mut house, "a")), (0, vec![]));
    house.crash();
    assert_eq!(waiting(&mut house, "a"), []);
    house.check_books();
}

#[test]
fn a_full_queue_misses_a_time_and_not_the_next() {
    let mut house = House::new();
    let c = house.connect();
    let full = [("x-max-length", int(1)), ("x-overflow", text("reject-publish"))];
    house.declare_with(c, "a", &full);
    post_at(&mut house, c, amq("x", &[("PERIOD", "1000"), ("REPEAT", "-1")]), None);
    house.wait(3500);
    assert_eq!((house.ready("a"), house.mailbox("a").counts.refused), (1, 3));
    assert_eq!(house.empty(c, "a").len(), 1);
    house.wait(1000);
    assert_eq!(house.ready("a"), 1);
    house.check_books();
}

#[test]
fn an_exchange_that_delays_repeats_too() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("direct"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "k");
    let post = || Post::by("later", "k", "x").header("x-repeat-count", int(2));
    house.publish(c, post().header("x-repeat-cron", text("* * * * *")));
    house.publish(c, post().header("x-repeat-period", int(1000)).header("x-delay", int(5000)));
    house.consume(c, "a", 1);
    let expected = [5000, 6000, 7000, 40_000, 100_000, 160_000];
    assert_eq!(arrivals(&mut house, c, 300_000, 1000), expected);
    // What is no expression is no delay.
    house.publish(c, Post::by("later", "k", "y").header("x-repeat-cron", text("often")));
    assert_eq!(house.bodies(c), ["y"]);
    house.check_books();
}

#[test]
fn a_message_that_did_not_wait_does_not_begin_to_repeat_when_it_fails() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.publish(c, Post::to("a", "x").header("x-repeat-period", int(1000)));
    let seen = house.get(c, "a").unwrap();
    house.settle(c, &seen, Outcome::Modified { delay_ms: Some(100) });
    house.crash();
    let c = house.connect();
    house.wait(10_000);
    assert_eq!(house.empty(c, "a"), ["x"]);
    assert_eq!(waiting(&mut house, "a"), []);
}

#[rstest]
#[case(&[("AMQ_SCHEDULED_CRON", "* * * *")], Err("AMQ_SCHEDULED_CRON"))]
#[case(&[("AMQ_SCHEDULED_CRON", "* * * * *"), ("AMQ_SCHEDULED_PERIOD", "1000")], Err("AMQ_SCHEDULED_PERIOD"))]
#[case(&[("AMQ_SCHEDULED_CRON", "* * * * *"), ("AMQ_SCHEDULED_REPEAT", "3")], Err("AMQ_SCHEDULED_REPEAT"))]
#[case(&[("AMQ_SCHEDULED_PERIOD", "99"), ("AMQ_SCHEDULED_REPEAT", "3")], Err("AMQ_SCHEDULED_PERIOD"))]
#[case(&[("AMQ_SCHEDULED_PERIOD", "1000"), ("AMQ_SCHEDULED_REPEAT", "-2")], Err("AMQ_SCHEDULED_REPEAT"))]
#[case(&[("AMQ_SCHEDULED_PERIOD", "soon"), ("AMQ_SCHEDULED_REPEAT", "3")], Err("AMQ_SCHEDULED_PERIOD"))]
#[case(&[("AMQ_SCHEDULED_PERIOD", "1000")], Ok(None))]
#[case(&[("AMQ_SCHEDULED_PERIOD", "1000"), ("AMQ_SCHEDULED_REPEAT", "0")], Ok(None))]
#[case(&[("AMQ_SCHEDULED_REPEAT", "7")], Ok(None))]
#[case(&[("x-repeat-count", "7")], Ok(None))]
#[case(&[("AMQ_SCHEDULED_CRON", "@daily")], Ok(Some("@daily")))]
#[case(&[("x-repeat-period", "1000")], Ok(Some("every 1000 ms")))]
#[case(&[("x-repeat-cron", "5 4 * * *"), ("x-repeat-count", "2")], Ok(Some("5 4 * * *")))]
fn headers_say_how_it_repeats(
    #[case] headers: &[(&str, &str)],
    #[case] expected: Result<Option<&str>, &str>,
) {
    let mut properties = Properties::default();
    for (name, value) in headers {
        properties.headers_mut().set(name, text(value));
    }
    let found = Repeat::of(&properties).map(|it| it.map(|it| it.to_string()));
    assert_eq!(found, expected.map(|it| it.map(str::to_owned)));
}
