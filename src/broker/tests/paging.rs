//! Mailboxes much longer than what memory keeps of them.

use super::house::*;
use super::request::*;
use crate::broker::*;

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn fill(house: &mut House, c: ConnectionId, mailbox: &str, range: std::ops::Range<u32>) {
    for n in range {
        house.publish(c, Post::to(mailbox, &n.to_string()));
    }
}

/// Entries in memory.
fn hot(house: &House, name: &str) -> usize {
    house.mailbox(name).lanes.iter().map(|lane| lane.hot().count()).sum()
}

#[test]
fn long_mailbox_keeps_little_in_memory_and_drains_in_order() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..3_000);
    assert!(hot(&house, "a") <= 24, "{} in memory", hot(&house, "a"));
    house.check_books();
    house.consume_with(c, "a", 1, |it| it.prefetch = 5);
    let mut got = Vec::new();
    loop {
        let seen = house.seen(c);
        if seen.is_empty() {
            break;
        }
        for it in seen {
            house.settle(c, &it, Outcome::Accepted);
            got.push(it.body);
        }
    }
    assert_eq!(got, names(0..3_000));
    assert_eq!(house.mailbox("a").ready_bytes, 0);
    house.check_books();
}

#[test]
fn recovered_mailbox_reads_nothing_until_somebody_wants_it() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..500);
    house.fast_fetch = false;
    house.crash();
    assert!(house.fetches.is_empty());
    assert_eq!(house.ready("a"), 500);
    house.check_books();
    house.fast_fetch = true;
    let c = house.connect();
    assert_eq!(house.empty(c, "a"), names(0..500));
    house.check_books();
}

#[test]
fn get_waits_for_a_message_that_is_still_cold() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..3);
    house.crash();
    house.fast_fetch = false;
    let c = house.connect();
    let get = || Request::Get { mailbox: "a".into(), no_ack: false };
    let tickets = [get(), get()].map(|request| house.send(c, ONE, request));
    assert!(house.answer(c, tickets[0]).is_none());
    house.answer_fetches();
    for (ticket, expected) in tickets.into_iter().zip(["0", "1"]) {
        let Some(Ok(Reply::Got(Some(got)))) = house.answer(c, ticket) else { panic!("no message") };
        assert_eq!(got.0.message.body(), expected.as_bytes());
    }
    house.check_books();
}

#[test]
fn asker_that_leaves_gets_nothing() {
    for close in [true, false] {
        let mut house = House::small();
        let c = house.connect();
        house.declare(c, "a");
        fill(&mut house, c, "a", 0..3);
        house.crash();
        house.fast_fetch = false;
        let c = house.connect();
        house.send(c, ONE, Request::Get { mailbox: "a".into(), no_ack: false });
        if close {
            house.close(c)
        } else {
            house.close_channel(c, ONE)
        }
        house.answer_fetches();
        assert_eq!((house.ready("a"), house.mailbox("a").unsettled()), (3, 0));
        house.check_books();
    }
}

#[test]
fn asker_is_answered_when_the_mailbox_is_purged_or_deleted() {
    for (request, is_gone) in [(purge("a"), false), (delete("a"), true)] {
        let mut house = House::small();
        let c = house.connect();
        house.declare(c, "a");
        fill(&mut house, c, "a", 0..3);
        house.crash();
        house.fast_fetch = false;
        let (c, other) = (house.connect(), house.connect());
        let ticket = house.send(c, ONE, Request::Get { mailbox: "a".into(), no_ack: false });
        house.ask(other, request).unwrap();
        match house.answer(c, ticket).expect("an answer") {
            Ok(Reply::Got(None)) => assert!(!is_gone),
            Err(Refusal::NoSuchMailbox { .. }) => assert!(is_gone),
            unexpected => panic!("{unexpected:?}"),
        }
        house.answer_fetches();
        house.check_books();
    }
}

#[test]
fn returned_messages_come_before_cold_ones_and_stay_marked() {
    let mut house = House::small();
    let c = house.connect();
    let other = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..200);
    // More than memory keeps come back at once, and are cooled again.
    house.consume_with(other, "a", 1, |it| it.prefetch = 100);
    assert_eq!(house.seen(other).len(), 100);
    house.close(other);
    house.put(c, "a", &["200"]);
    house.check_books();
    assert!(hot(&house, "a") <= 40, "{} in memory", hot(&house, "a"));
    house.consume(c, "a", 1);
    let seen = house.seen(c);
    let bodies: Vec<String> = seen.iter().map(|it| it.body.clone()).collect();
    assert_eq!(bodies, names(0..201));
    assert!(seen.iter().enumerate().all(|(at, it)| it.redelivered == (at < 100)));
    house.check_books();
}

#[test]
fn single_requeues_while_draining_keep_their_places() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..300);
    let mut got = Vec::new();
    let mut turns = 0;
    while let Some(seen) = house.get(c, "a") {
        turns += 1;
        if turns % 3 == 0 && !seen.redelivered {
            house.settle(c, &seen, Outcome::Released);
        } else {
            house.settle(c, &seen, Outcome::Accepted);
            got.push(seen.body);
        }
    }
    assert_eq!(got, names(0..300));
    house.check_books();
}

#[test]
fn priorities_page_each_for_itself() {
    let mut house = House::small();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", int(2))]);
    for n in 0..600u32 {
        house.publish(c, Post::to("a", &n.to_string()).priority((n % 3) as u8));
    }
    assert!(hot(&house, "a") <= 72, "{} in memory", hot(&house, "a"));
    house.crash();
    house.check_books();
    let c = house.connect();
    let expected: Vec<String> = [2, 1, 0]
        .iter()
        .flat_map(|level| (0..200).map(move |n| (n * 3 + level).to_string()))
        .collect();
    assert_eq!(house.empty(c, "a"), expected);
    house.check_books();
}

#[test]
fn cold_messages_expire() {
    for dead_letters in [false, true] {
        let mut house = House::small();
        let c = house.connect();
        house.declare(c, "dead");
        let dlx =
            [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
        house.declare_with(c, "a", if dead_letters { &dlx } else { &[] });
        for n in 0..2_000u32 {
            let post = Post::to("a", &n.to_string());
            let expires = n % 2 == 0;
            house.publish(c, if expires { post.expiration(3_000 - u64::from(n)) } else { post });
        }
        house.crash();
        house.wait(1_500);
        house.check_books();
        house.wait(1_500);
        house.check_books();
        assert_eq!(house.ready("a"), 1_000);
        assert_eq!(house.ready("dead"), if dead_letters { 1_000 } else { 0 });
        let c = house.connect();
        assert_eq!(house.empty(c, "a").len(), 1_000);
        assert_eq!(house.mailbox("a").ready_bytes, 0);
        house.check_books();
    }
}

#[test]
fn message_that_expires_on_its_way_from_the_store_is_not_delivered() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    for n in 0..10u32 {
        house.publish(c, Post::to("a", &n.to_string()).expiration(100));
    }
    house.put(c, "a", &["last"]);
    house.crash();
    house.fast_fetch = false;
    let c = house.connect();
    house.consume(c, "a", 1);
    assert!(!house.fetches.is_empty());
    house.wait(200);
    house.fast_fetch = true;
    house.answer_fetches();
    house.wait(200);
    assert_eq!(house.bodies(c), ["last"]);
    assert_eq!(house.mailbox("a").counts.expired, 10);
    house.check_books();
}

#[test]
fn cold_mailbox_time_to_live_needs_no_consumer() {
    let mut house = House::small();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-message-ttl", int(1_000))]);
    fill(&mut house, c, "a", 0..100);
    house.wait(500);
    fill(&mut house, c, "a", 100..200);
    house.wait(500);
    assert_eq!(house.ready("a"), 100);
    house.wait(500);
    assert_eq!(house.ready("a"), 0);
    assert_eq!(house.broker.next_deadline(), None);
    house.check_books();
}

#[test]
fn slow_store_causes_no_idle_ticks() {
    let mut house = House::small();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-message-ttl", int(100))]);
    fill(&mut house, c, "a", 0..100);
    house.crash();
    house.fast_fetch = false;
    house.wait(100);
    assert_eq!(house.broker.next_deadline(), None, "nothing can be done before the store answers");
    assert_eq!(house.fetches.len(), 1);
    house.fast_fetch = true;
    house.answer_fetches();
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn length_is_kept_also_where_the_front_is_cold() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..300);
    house.define(Definition::Policy(policy("p", "a", &[("max-length", int(50))])));
    assert_eq!(house.ready("a"), 50);
    fill(&mut house, c, "a", 300..400);
    assert_eq!(house.empty(c, "a"), names(350..400));
    house.check_books();
}

#[test]
fn purge_takes_what_is_cold_or_on_its_way() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..300);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    house.fast_fetch = false;
    for seen in house.seen(c) {
        house.settle(c, &seen, Outcome::Accepted);
    }
    for _ in 0..20 {
        for seen in house.seen(c) {
            house.settle(c, &seen, Outcome::Accepted);
        }
    }
    let held = house.seen(c).len();
    assert!(!house.fetches.is_empty());
    let unsettled = house.mailbox("a").unsettled();
    house.ask(c, purge("a")).unwrap();
    house.check_books();
    // A new load must not take the old answer for its own.
    fill(&mut house, c, "a", 300..400);
    house.answer_fetches();
    house.check_books();
    house.fast_fetch = true;
    house.answer_fetches();
    house.close_channel(c, ONE);
    house.check_books();
    let left = house.empty(c, "a");
    assert_eq!(left.len() as u64, 100 + unsettled, "held {held}");
    assert_eq!(left[unsettled as usize..], names(300..400));
    assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
    house.check_books();
}

#[test]
fn answer_for_a_deleted_mailbox_is_ignored() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..100);
    house.crash();
    house.fast_fetch = false;
    let c = house.connect();
    house.consume(c, "a", 1);
    let (fetch, disk) = (house.fetches[0].clone(), house.disk.clone());
    house.ask(c, delete("a")).unwrap();
    house.declare(c, "a");
    house.fetches.clear();
    let messages = disk.mailboxes[&fetch.mailbox]
        .messages
        .values()
        .map(|it| FetchedMessage { seq: it.seq, rest: it.rest, message: Ok(it.message.clone()) })
        .collect();
    let fetched = Fetched { mailbox: fetch.mailbox, lane: fetch.lane, messages };
    house.apply(SERVER, Command::Fetched(fetched));
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn damaged_record_is_set_aside_and_its_neighbours_delivered() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..50);
    let id = house.mailbox("a").id;
    house.damaged = [(id, Seq(3)), (id, Seq(4)), (id, Seq(50))].into();
    house.crash();
    let c = house.connect();
    let got = house.empty(c, "a");
    assert_eq!(got.len(), 47);
    assert!(!got.contains(&"2".to_owned()) && got.contains(&"4".to_owned()));
    assert_eq!(house.mailbox("a").counts.damaged, 3);
    assert_eq!(house.disk.quarantined[0], (id, Seq(3), "checksum".into()));
    assert_eq!((house.ready("a"), house.mailbox("a").ready_bytes), (0, 0));
    house.check_books();
}

#[test]
fn damaged_record_that_expired_or_came_due_is_set_aside() {
    let mut house = House::small();
    let c = house.connect();
    let dlx = ("x-dead-letter-exchange", text("amq.fanout"));
    house.declare_with(c, "a", &[dlx]);
    house.publish(c, Post::to("a", "1").expiration(10));
    house.put(c, "a", &["2", "3"]);
    let [first, second] = [0, 1].map(|_| house.get(c, "a").unwrap());
    house.settle(c, &second, Outcome::Modified { delay_ms: Some(10) });
    house.settle(c, &first, Outcome::Released);
    let id = house.mailbox("a").id;
    house.damaged = [(id, Seq(1)), (id, Seq(2))].into();
    house.crash();
    house.wait(10);
    assert_eq!(house.mailbox("a").counts.damaged, 2);
    assert_eq!(house.ready("a"), 1);
    house.check_books();
}

#[test]
fn store_that_answers_too_little_loses_no_count() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    fill(&mut house, c, "a", 0..20);
    house.crash();
    let id = house.mailbox("a").id;
    house.disk.mailboxes.get_mut(&id).unwrap().messages.remove(&Seq(5));
    let c = house.connect();
    assert_eq!(house.empty(c, "a").len(), 19);
    house.check_books();
}

#[test]
fn memory_runs_out_and_transient_messages_are_spilled() {
    for persistent_too in [false, true] {
        let settings =
            Settings { hot_messages: 8, hot_bytes: 4096, memory_max: 8_000, ..Settings::default() };
        let mut house = House::with(settings);
        let c = house.connect();
        house.declare(c, "a");
        for n in 0..1_000u32 {
            let post = Post::to("a", &n.to_string());
            let transient = !persistent_too || n % 3 != 0;
            house.publish(c, if transient { post.transient() } else { post });
        }
        assert!(house.broker.memory < 12_000, "{} bytes in memory", house.broker.memory);
        house.check_books();
        assert_eq!(house.empty(c, "a"), names(0..1_000));
        assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
        house.check_books();
        for n in 0..1_000u32 {
            house.publish(c, Post::to("a", &n.to_string()).transient());
        }
        house.crash();
        assert_eq!(house.ready("a"), 0, "spilled is not saved");
    }
}

fn appended(write: &Write) -> usize {
    match write {
        Write::Append(append) => append.message.size(),
        _ => 0,
    }
}

#[test]
fn spilling_goes_in_shares_and_leaves_the_rest_in_place() {
    let settings = Settings { hot_messages: 8, memory_max: 64_000, ..Settings::default() };
    let mut house = House::with(settings);
    let c = house.connect();
    house.declare(c, "a");
    house.fast_disk = false;
    let mut appends = Vec::new();
    for n in 0..1_000u32 {
        house.publish(c, Post::to("a", &format!("{n:0100}")).transient());
        let bytes: usize = house.open_writes().map(appended).sum();
        if bytes > 0 {
            appends.push(bytes);
            house.seal();
            if appends.len() % 4 == 0 {
                while house.durable() {}
            }
        }
    }
    assert!(appends.len() > 50, "{} shares", appends.len());
    // A sixteenth, and what is larger than that by one message.
    assert!(appends.iter().all(|bytes| *bytes < 4_000 + 200), "{appends:?}");
    assert!(house.broker.memory < 64_000 + 5 * 5_000, "{} in memory", house.broker.memory);
    assert!(house.mailbox("a").lanes.iter().all(|lane| lane.strays() == 0));
    house.check_books();
    house.fast_disk = true;
    house.sync();
    let bodies: Vec<String> = (0..1_000).map(|n| format!("{n:0100}")).collect();
    assert_eq!(house.empty(c, "a"), bodies);
    assert_eq!(house.broker.memory, 0);
    house.check_books();
}

#[test]
fn long_mailbox_gives_its_memory_back_once_it_is_empty() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let capacity = |house: &House| -> usize {
        house.mailbox("a").lanes.iter().map(|lane| lane.capacity()).sum()
    };
    for n in 0..40_000u32 {
        house.publish(c, Post::to("a", &n.to_string()).transient());
    }
    assert!(capacity(&house) >= 40_000);
    assert_eq!(house.empty(c, "a").len(), 40_000);
    assert!(capacity(&house) < 40_000, "{}", capacity(&house));
}

#[test]
fn delayed_transient_messages_are_spilled_too() {
    let settings = Settings { hot_messages: 8, memory_max: 8_000, ..Settings::default() };
    let mut house = House::with(settings);
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "");
    for n in 0..1_000i64 {
        let post = Post::by("later", "", &n.to_string()).transient();
        // In front of those that were spilled, and behind.
        house.publish(c, post.header("x-delay", int(10_000 + n * (n % 3 - 1))));
    }
    assert!(house.broker.memory < 12_000, "{} bytes in memory", house.broker.memory);
    house.check_books();
    house.now = house.now.plus_ms(11_000);
    house.tick();
    assert_eq!(house.empty(c, "a").len(), 1_000);
    house.check_books();
    assert_eq!(house.broker.memory, 0);
}

/// A consumer without a prefetch does not run the broker out of memory.
#[test]
fn connection_that_holds_too_much_waits_until_it_settles() {
    let settings = Settings { hot_messages: 8, memory_max: 8_000, ..Settings::default() };
    let mut house = House::with(settings);
    let c = house.connect();
    for mailbox in ["a", "b", "c"] {
        house.declare(c, mailbox);
    }
    fill(&mut house, c, "a", 0..1_000);
    house.consume(c, "a", 1);
    house.consume(c, "b", 2);
    let mut seen = house.seen(c);
    assert!(seen.len() < 1_000 && house.broker.memory < 16_000, "{} leased", seen.len());
    // Others are served.
    let other = house.connect();
    house.put(other, "b", &["x"]);
    house.put(other, "c", &["y"]);
    assert_eq!(house.empty(other, "c"), ["y"]);
    assert_eq!(house.bodies(c), [""; 0]);
    house.check_books();
    let mut got = 0;
    while !seen.is_empty() {
        got += seen.len();
        for delivery in &seen {
            house.settle(c, delivery, Outcome::Accepted);
        }
        house.check_books();
        seen = house.seen(c);
    }
    assert_eq!(got, 1_001);
}

#[test]
fn spilled_mailbox_of_a_connection_leaves_nothing_behind() {
    let settings = Settings { hot_messages: 8, memory_max: 100, ..Settings::default() };
    let mut house = House::with(settings);
    let c = house.connect();
    let mut own = declare("own", &[]);
    own.exclusive = true;
    house.ask(c, Request::DeclareMailbox(own)).unwrap();
    fill(&mut house, c, "own", 0..100);
    assert!(!house.disk.mailboxes.is_empty());
    house.close(c);
    assert!(house.disk.mailboxes.is_empty());
    assert_eq!(house.broker.memory, 0);
}

#[test]
fn delayed_messages_leave_memory_and_come_back() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("fanout"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "");
    for n in 0..2_000i64 {
        let post = Post::by("later", "", &n.to_string());
        house.publish(c, post.header("x-delay", int(10_000 - n)));
    }
    assert!(house.broker.memory < 4_000, "{} bytes in memory", house.broker.memory);
    house.check_books();
    house.now = house.now.plus_ms(10_000);
    house.tick();
    house.check_books();
    let got = house.empty(c, "a");
    assert_eq!(got.len(), 2_000);
    assert_eq!(house.broker.next_deadline(), None);
    house.check_books();
}

#[test]
fn few_large_messages_stay_in_memory() {
    let mut house = House::with(Settings { hot_bytes: 64 * 1024, ..Settings::default() });
    let c = house.connect();
    house.declare(c, "a");
    let body = "x".repeat(10_000);
    for _ in 0..100 {
        house.publish(c, Post::to("a", &body));
    }
    assert!(house.broker.memory < 200_000, "{} bytes in memory", house.broker.memory);
    house.check_books();
    assert_eq!(house.empty(c, "a").len(), 100);
}
