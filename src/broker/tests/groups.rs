//! Groups: consumers that share a stream's messages, and settle each of them for itself.

use super::house::*;
use super::request::*;
use super::streams::{accept_all, bodies, names};
use crate::broker::inspect::*;
use crate::broker::*;

/// A house with a stream `s` of so many messages.
fn with_stream(mut house: House, count: u32) -> (House, ConnectionId) {
    let c = house.connect();
    house.declare_with(c, "s", &[("x-queue-type", text("stream"))]);
    fill(&mut house, c, 0..count);
    (house, c)
}

fn fill(house: &mut House, c: ConnectionId, range: std::ops::Range<u32>) {
    for n in range {
        house.publish(c, Post::to("s", &n.to_string()));
    }
}

/// A member of a group, on a channel of its own.
fn join(house: &mut House, c: ConnectionId, id: u32, group: &str, more: &[(&str, Value)]) {
    let mut arguments = vec![("x-group", text(group)), ("x-stream-offset", text("first"))];
    arguments.extend_from_slice(more);
    let mut wanted = consume("s", id);
    wanted.prefetch = 2;
    wanted.arguments = table(&arguments);
    house.ask_on(c, ChannelId(id as u16), Request::Consume(wanted)).expect("a member");
}

fn refused_member(house: &mut House, c: ConnectionId, more: &[(&str, Value)]) -> String {
    let mut wanted = consume("s", 99);
    wanted.arguments = table(&[("x-group", text("g"))]);
    more.iter().for_each(|(name, value)| wanted.arguments.set(name, value.clone()));
    house.refused(c, Request::Consume(wanted))
}

fn sorted(seen: &[Seen]) -> Vec<u32> {
    let mut all: Vec<u32> = seen.iter().map(|it| it.body.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

fn views(house: &mut House, c: ConnectionId) -> Vec<CursorView> {
    let inspect =
        Inspect::Cursors { vhost: "/".into(), mailbox: "s".into(), after: None, count: 1000 };
    match house.ask(c, Request::Inspect(inspect)) {
        Ok(Reply::Inspection(it)) => match *it {
            Inspection::Cursors(views) => views,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn view(house: &mut House, c: ConnectionId, name: &str) -> CursorView {
    views(house, c).into_iter().find(|it| &*it.name == name).expect("a cursor")
}

fn seek(house: &mut House, c: ConnectionId, cursor: &str, start: Value) -> Result<Reply, Refusal> {
    let (mailbox, cursor) = ("s".into(), cursor.into());
    house.ask(c, Request::SeekCursor(SeekCursor { mailbox, cursor, start }))
}

fn forget(house: &mut House, c: ConnectionId, cursor: &str) -> Result<Reply, Refusal> {
    house.ask(c, Request::DeleteCursor { mailbox: "s".into(), cursor: cursor.into() })
}

#[test]
fn members_take_turns_and_groups_do_not_know_each_other() {
    let (mut house, c) = with_stream(House::small(), 300);
    for (id, group) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
        join(&mut house, c, id, group, &[]);
    }
    let seen = accept_all(&mut house, c);
    let of = |ids: std::ops::Range<u32>| -> Vec<Seen> {
        seen.iter().filter(|it| ids.contains(&it.consumer)).cloned().collect()
    };
    assert_eq!(sorted(&of(1..4)), (0..300).collect::<Vec<_>>());
    assert_eq!(bodies(&of(4..5)), names(0..300));
    for id in 1..4 {
        assert!((90..=110).contains(&of(id..id + 1).len()), "{}", of(id..id + 1).len());
    }
    assert!(seen.iter().all(|it| !it.redelivered && it.delivery.offset.is_some()));
    let a = view(&mut house, c, "a");
    let expected = CursorView {
        name: "a".into(),
        group: true,
        offset: 300,
        lag: 0,
        members: 3,
        unsettled: 0,
        returned: 0,
        missed: 0,
    };
    assert_eq!(a, expected);
    house.check_books();
}

#[test]
fn name_of_a_group_is_exact() {
    let (mut house, c) = with_stream(House::new(), 2);
    join(&mut house, c, 1, "g1", &[]);
    join(&mut house, c, 2, "g10", &[]);
    assert_eq!(accept_all(&mut house, c).len(), 4);
}

#[test]
fn each_message_is_settled_for_itself_also_over_a_restart() {
    let (mut house, c) = with_stream(House::new(), 0);
    join(&mut house, c, 1, "g", &[]);
    join(&mut house, c, 2, "g", &[]);
    join(&mut house, c, 3, "g", &[]);
    fill(&mut house, c, 0..10);
    let seen = house.seen(c);
    assert_eq!(sorted(&seen), [0, 1, 2, 3, 4, 5]);
    for it in seen.iter().filter(|it| ["1", "4", "5"].contains(&&*it.body)) {
        house.settle(c, it, Outcome::Accepted);
    }
    let more = house.seen(c);
    assert_eq!(sorted(&more), [6, 7, 8]);
    house.settle(c, &more[1], Outcome::Accepted);
    let more = house.seen(c);
    let g = view(&mut house, c, "g");
    assert_eq!((g.offset, g.lag, g.unsettled), (0, 6, 6), "{g:?}");
    let done = ["1", "4", "5", "7"];
    // A second later the store knows, without anybody stopping in good order.
    house.wait(1100);
    house.sync();
    house.crash();
    let c = house.connect();
    let g = view(&mut house, c, "g");
    assert_eq!((g.offset, g.lag, g.unsettled, g.returned), (0, 6, 0, 6), "{g:?} {more:?}");
    join(&mut house, c, 1, "g", &[]);
    let seen = accept_all(&mut house, c);
    let expected = names(0..10).into_iter().filter(|it| !done.contains(&&**it));
    assert!(expected.eq(bodies(&seen)), "{:?}", bodies(&seen));
    assert!(seen.iter().all(|it| it.redelivered));
    assert_eq!(view(&mut house, c, "g").offset, 10);
    house.check_books();
}

#[test]
fn what_is_given_back_comes_again_to_somebody() {
    let (mut house, c) = with_stream(House::new(), 4);
    join(&mut house, c, 1, "g", &[]);
    let seen = house.seen(c);
    join(&mut house, c, 2, "g", &[]);
    house.seen(c);
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: None });
    let again = house.seen(c);
    assert_eq!((again[0].body.as_str(), again[0].redelivered), ("0", true));
    assert_eq!((again[0].delivery.attempts, again[0].delivery.acquired), (Some(1), 1));
    // Later, not now; meanwhile the next ones come.
    house.settle(c, &again[0], Outcome::Modified { delay_ms: Some(500) });
    assert!(house.seen(c).is_empty());
    assert_eq!(view(&mut house, c, "g").returned, 1);
    house.wait(499);
    assert!(house.seen(c).is_empty());
    house.wait(1);
    let again = house.seen(c);
    assert_eq!((again[0].body.as_str(), again[0].delivery.attempts), ("0", Some(2)));
    house.settle(c, &again[0], Outcome::Released);
    let again = house.seen(c);
    assert_eq!((again[0].body.as_str(), again[0].delivery.attempts), ("0", Some(2)));
    // A member that goes gives back what it holds.
    house.close_channel(c, ChannelId(1));
    assert_eq!(view(&mut house, c, "g").members, 1);
    house.check_books();
    let mut all = accept_all(&mut house, c);
    join(&mut house, c, 3, "g", &[]);
    all.extend(accept_all(&mut house, c));
    let g = view(&mut house, c, "g");
    // The other member holds two still.
    assert_eq!((g.lag, g.unsettled, g.returned), (2, 2, 0), "{g:?}");
    house.close_channel(c, ChannelId(2));
    all.extend(accept_all(&mut house, c));
    assert_eq!(view(&mut house, c, "g").lag, 0);
    house.check_books();
}

#[test]
fn delay_of_what_was_given_back_outlives_a_restart() {
    let (mut house, c) = with_stream(House::new(), 2);
    join(&mut house, c, 1, "g", &[]);
    let seen = house.seen(c);
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: Some(60_000) });
    house.settle(c, &seen[1], Outcome::Accepted);
    house.restart();
    let c = house.connect();
    join(&mut house, c, 1, "g", &[]);
    assert!(house.seen(c).is_empty());
    house.wait(60_000);
    let seen = house.seen(c);
    assert_eq!(bodies(&seen), ["0"]);
    assert_eq!((seen[0].redelivered, seen[0].delivery.attempts), (true, Some(1)));
}

#[test]
fn delivery_that_lasts_too_long_goes_to_another_and_its_member_stays() {
    let (mut house, c) = with_stream(House::new(), 3);
    join(&mut house, c, 1, "g", &[("x-consumer-timeout", int(1000))]);
    let late = house.seen(c);
    house.wait(600);
    house.settle(c, &late[0], Outcome::Accepted);
    assert_eq!(house.bodies(c), ["2"]);
    join(&mut house, c, 2, "g", &[("x-consumer-timeout", int(0))]);
    house.wait(399);
    assert!(house.seen(c).is_empty());
    house.wait(1);
    let again = house.seen(c);
    assert_eq!((again[0].body.as_str(), again[0].delivery.attempts), ("1", Some(1)));
    // The late settlement is no error, and settles nothing.
    house.settle(c, &late[1], Outcome::Accepted);
    assert_eq!(house.told(c), Vec::<String>::new());
    assert_eq!(view(&mut house, c, "g").lag, 2);
    house.settle(c, &late[1], Outcome::Accepted);
    assert_eq!(house.told(c), ["no: unknown delivery"]);
}

#[test]
fn message_that_fails_too_often_goes_to_the_dead_letters() {
    let (mut house, c) = with_stream(House::new(), 3);
    house.exchange(c, "dlx", "fanout");
    house.declare(c, "dead");
    house.bind(c, "dlx", "dead", "");
    let bounds = [
        ("x-delivery-limit", int(2)),
        ("x-dead-letter-exchange", text("dlx")),
        ("x-dead-letter-routing-key", text("failed")),
    ];
    join(&mut house, c, 1, "g", &bounds);
    let first = house.seen(c);
    house.settle(c, &first[0], Outcome::Rejected);
    for attempts in 0..3 {
        let found = if attempts == 0 {
            first[1].clone()
        } else {
            house.seen(c).into_iter().find(|it| it.body == "1").expect("again")
        };
        assert_eq!(found.delivery.attempts, Some(attempts));
        house.settle(c, &found, Outcome::Modified { delay_ms: None });
    }
    assert_eq!(house.ready("dead"), 2);
    house.consume(c, "dead", 7);
    let dead = house.seen(c);
    let why = |seen: &Seen| {
        let headers = seen.delivery.message.properties().headers.clone().unwrap();
        let reason =
            headers.get("x-first-death-reason").and_then(Value::as_str).unwrap().to_owned();
        (
            seen.body.clone(),
            reason,
            String::from_utf8_lossy(seen.delivery.message.key()).into_owned(),
        )
    };
    let dead: Vec<_> = dead.iter().filter(|it| it.consumer == 7).map(why).collect();
    let expected = [("0", "rejected", "failed"), ("1", "delivery_limit", "failed")];
    assert!(dead.iter().map(|(a, b, c)| (&**a, &**b, &**c)).eq(expected), "{dead:?}");
    // They stay in the stream all the same.
    assert_eq!(house.ready("s"), 3);
    house.check_books();
}

#[test]
fn group_that_falls_behind_the_log_misses_what_went() {
    let mut house = House::small();
    let c = house.connect();
    let limits = [("x-queue-type", text("stream")), ("x-max-length", int(64))];
    house.declare_with(c, "s", &limits);
    fill(&mut house, c, 0..10);
    join(&mut house, c, 1, "g", &[]);
    let held = house.seen(c);
    assert_eq!(bodies(&held), names(0..2));
    fill(&mut house, c, 10..200);
    // What it holds went with the log: giving it back gives it to nobody.
    house.settle(c, &held[0], Outcome::Released);
    house.settle(c, &held[1], Outcome::Accepted);
    let seen = accept_all(&mut house, c);
    let first: u32 = seen[0].body.parse().unwrap();
    assert!((136..=140).contains(&first), "{first}");
    assert_eq!(bodies(&seen), names(first..200));
    let g = view(&mut house, c, "g");
    assert_eq!((g.missed, g.lag), (u64::from(first) - 2, 0));
    house.check_books();
}

#[test]
fn group_is_moved_and_deliveries_from_before_mean_nothing() {
    let (mut house, c) = with_stream(House::new(), 10);
    join(&mut house, c, 1, "g", &[]);
    accept_all(&mut house, c);
    seek(&mut house, c, "g", int(7)).unwrap();
    let before = house.seen(c);
    assert_eq!(bodies(&before), ["7", "8"]);
    seek(&mut house, c, "g", int(2)).unwrap();
    assert_eq!(view(&mut house, c, "g").lag, 8);
    // They give credit, and settle nothing.
    house.settle(c, &before[0], Outcome::Accepted);
    house.settle(c, &before[1], Outcome::Released);
    let seen = accept_all(&mut house, c);
    assert_eq!(bodies(&seen), names(2..10));
    assert_eq!(house.told(c), Vec::<String>::new());
    // It holds at once, whatever happens then.
    seek(&mut house, c, "g", text("next")).unwrap();
    seek(&mut house, c, "new", int(-3)).unwrap();
    house.crash();
    let c = house.connect();
    let lags: Vec<_> = views(&mut house, c).into_iter().map(|it| (it.name, it.lag)).collect();
    assert_eq!(lags, [("g".into(), 0), ("new".into(), 3)]);
}

#[test]
fn group_starts_at_a_time_exactly() {
    let (mut house, c) = with_stream(House::new(), 0);
    for n in 0..10 {
        fill(&mut house, c, n..n + 1);
        house.wait(1000);
    }
    seek(&mut house, c, "g", Value::Timestamp(START.0 / 1000 + 4)).unwrap();
    house.crash();
    let c = house.connect();
    join(&mut house, c, 1, "g", &[]);
    assert_eq!(bodies(&accept_all(&mut house, c)), names(4..10));
}

#[test]
fn cursor_in_use_is_not_moved_and_becomes_a_group_where_it_is() {
    let (mut house, c) = with_stream(House::new(), 10);
    let mut c = {
        let lax = house.connect_lax();
        house.close(c);
        lax
    };
    house.consume_with(c, "s", 1, |it| {
        it.prefetch = 4;
        it.arguments = table(&[("x-stream-cursor", text("k")), ("x-stream-offset", text("first"))]);
    });
    let seen = house.seen(c);
    house.settle(c, &seen[0], Outcome::Accepted);
    let in_use = "cursor 'k' of queue 's' in vhost '/' in use";
    assert_eq!(seek(&mut house, c, "k", int(0)).unwrap_err().to_string(), in_use);
    assert_eq!(forget(&mut house, c, "k").unwrap_err().to_string(), in_use);
    join(&mut house, c, 99, "g", &[]);
    house.close_channel(c, ChannelId(99));
    forget(&mut house, c, "g").unwrap();
    house.close(c);
    c = house.connect_lax();
    seek(&mut house, c, "k", int(3)).unwrap();
    assert!(!view(&mut house, c, "k").group);
    join(&mut house, c, 5, "k", &[]);
    assert_eq!(bodies(&accept_all(&mut house, c)), names(3..10));
    assert!(view(&mut house, c, "k").group);
    let mut alone = consume("s", 6);
    alone.tag = "k".into();
    let expected = "'k' is a group of queue 's' in vhost '/': it is read with x-group";
    assert_eq!(house.refused(c, Request::Consume(alone)), expected);
    house.close_channel(c, ChannelId(5));
    forget(&mut house, c, "k").unwrap();
    let expected = "no cursor 'k' of queue 's' in vhost '/'";
    assert_eq!(forget(&mut house, c, "k").unwrap_err().to_string(), expected);
    house.sync();
    assert!(house.disk.definitions.keys().all(|it| it.kind != DefinitionKind::Cursor));
}

#[test]
fn members_ask_for_nothing_that_would_differ_within_the_group() {
    let (mut house, c) = with_stream(House::new(), 1);
    let c = {
        house.close(c);
        house.connect_lax()
    };
    for argument in ["x-stream-cursor", "x-stream-filter", "x-key"] {
        let expected = format!(
            "invalid arg '{argument}' for queue 's' in vhost '/': not for a member of a group"
        );
        assert_eq!(refused_member(&mut house, c, &[(argument, text("last"))]), expected);
    }
    let wrong = [
        ("x-group", int(1)),
        ("x-group", text("")),
        ("x-delivery-limit", int(-1)),
        ("x-dead-letter-exchange", int(1)),
    ];
    for (argument, value) in wrong {
        let text = refused_member(&mut house, c, &[(argument, value)]);
        assert!(text.starts_with(&format!("invalid arg '{argument}'")), "{text}");
    }
    assert!(views(&mut house, c).is_empty());
}

#[test]
fn member_may_end_with_what_there_is() {
    let (mut house, c) = with_stream(House::new(), 5);
    join(&mut house, c, 1, "g", &[("x-stream-until", text("last"))]);
    let seen = house.seen(c);
    house.settle(c, &seen[0], Outcome::Released);
    fill(&mut house, c, 5..7);
    assert_eq!(bodies(&accept_all(&mut house, c)), ["0", "2", "3", "4"]);
    assert_eq!(house.told(c), ["finished 1"]);
    house.settle(c, &seen[1], Outcome::Accepted);
    let g = view(&mut house, c, "g");
    assert_eq!((g.offset, g.lag, g.members), (5, 2, 0));
    house.check_books();
}

#[test]
fn settled_deliveries_are_done_at_once() {
    let (mut house, c) = with_stream(House::new(), 5);
    let mut wanted = consume("s", 1);
    wanted.no_ack = true;
    wanted.arguments = table(&[("x-group", text("g")), ("x-stream-offset", text("first"))]);
    house.ask(c, Request::Consume(wanted)).unwrap();
    assert_eq!(house.bodies(c), names(0..5));
    let g = view(&mut house, c, "g");
    assert_eq!((g.offset, g.unsettled), (5, 0));
}

#[test]
fn ten_thousand_groups_have_room_and_one_more_has_not() {
    let (mut house, c) = with_stream(House::new(), 1);
    let c = {
        house.close(c);
        house.connect_lax()
    };
    for n in 0..10_000 {
        seek(&mut house, c, &format!("g{n}"), text("first")).unwrap();
    }
    let refusal = seek(&mut house, c, "more", text("first")).unwrap_err();
    assert_eq!(refusal.to_string(), "queue 's' in vhost '/' has 10000 groups");
    join(&mut house, c, 1, "g77", &[]);
    assert_eq!(accept_all(&mut house, c).len(), 1);
}

#[test]
fn one_member_is_active_and_the_others_stand_by_in_order() {
    let (mut house, c) = with_stream(House::new(), 6);
    let single = [("x-single-active-consumer", Value::Bool(true))];
    let (other, third) = (house.connect(), house.connect());
    join(&mut house, c, 1, "g", &single);
    join(&mut house, other, 2, "g", &single);
    join(&mut house, third, 3, "g", &single);
    let first = house.seen(c);
    assert_eq!(sorted(&first), [0, 1]);
    house.settle(c, &first[0], Outcome::Accepted);
    let more = house.seen(c);
    assert_eq!(sorted(&more), [2]);
    assert_eq!((house.seen(other).len(), house.seen(third).len()), (0, 0));
    // It stops, but holds two: nobody goes on before they are done.
    house.ask_on(c, ChannelId(1), Request::Cancel(ConsumerId(1))).unwrap();
    assert_eq!(house.seen(other).len(), 0);
    house.settle(c, &first[1], Outcome::Accepted);
    assert_eq!(house.seen(other).len(), 0);
    house.settle(c, &more[0], Outcome::Released);
    let next = house.seen(other);
    assert_eq!(next.iter().map(|it| it.body.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert!(next[0].redelivered);
    // Whoever is lost leaves its place to the next, with all that was not done, in order.
    house.close(other);
    let last = house.seen(third);
    assert_eq!(last.iter().map(|it| it.body.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    for seen in &last {
        house.settle(third, seen, Outcome::Accepted);
    }
    assert_eq!(sorted(&house.seen(third)), [4, 5]);
    house.check_books();
    let mut wanted = consume("s", 9);
    wanted.arguments = table(&[("x-group", text("g"))]);
    assert!(house.refused(c, Request::Consume(wanted)).contains("do not agree"));
    assert!(
        refused_member(&mut house, third, &[("x-single-active-consumer", int(1))])
            .contains("boolean")
    );
}
