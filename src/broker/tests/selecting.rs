//! Consumers that take only some messages of a mailbox.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::house::*;
use super::request::*;
use crate::broker::selector::Selector;
use crate::broker::*;

fn selection(condition: &str, drops_others: bool) -> Option<Selection> {
    Some(Selection { selector: Selector::parse(condition).unwrap().into(), drops_others })
}

fn painted(body: &str, colour: &str) -> Post {
    Post::to("a", body).header("colour", text(colour))
}

/// A house with messages in mailbox `a`; each body is its colour and a number.
fn palette(mut house: House, colours: &[&str]) -> (House, ConnectionId) {
    let c = house.connect();
    house.declare(c, "a");
    for (number, colour) in colours.iter().enumerate() {
        house.publish(c, painted(&format!("{colour}{number}"), colour));
    }
    (house, c)
}

fn wants(house: &mut House, c: ConnectionId, consumer: u32, colour: &str, prefetch: u32) {
    house.consume_with(c, "a", consumer, |it| {
        it.selection = selection(&format!("colour = '{colour}'"), false);
        it.prefetch = prefetch;
    });
}

#[test]
fn consumer_takes_what_it_wants_and_leaves_the_rest() {
    let (mut house, c) = palette(House::new(), &["red", "blue", "red"]);
    wants(&mut house, c, 1, "blue", 0);
    assert_eq!(house.bodies(c), ["blue1"]);
    assert_eq!(house.ready("a"), 2);
    house.publish(c, painted("blue3", "blue"));
    house.publish(c, painted("red4", "red"));
    assert_eq!(house.bodies(c), ["blue3"]);
    // The others are there for others, in order.
    house.consume(c, "a", 2);
    assert_eq!(house.by_consumer(c), [(2, "red0".into()), (2, "red2".into()), (2, "red4".into())]);
    house.check_books();
}

#[test]
fn message_that_comes_back_is_offered_again() {
    let (mut house, c) = palette(House::new(), &["red", "blue", "blue"]);
    wants(&mut house, c, 1, "blue", 1);
    let first = house.seen(c);
    wants(&mut house, c, 2, "blue", 1);
    assert_eq!(house.by_consumer(c), [(2, "blue2".into())]);
    house.settle(c, &first[0], Outcome::Released);
    let again = house.seen(c);
    assert_eq!((again[0].consumer, &*again[0].body, again[0].redelivered), (1, "blue1", true));
    house.check_books();
}

#[test]
fn message_that_comes_due_is_offered() {
    let (mut house, c) = palette(House::new(), &["red"]);
    wants(&mut house, c, 1, "blue", 0);
    house.publish(c, painted("blue1", "blue"));
    let seen = house.seen(c);
    house.settle(c, &seen[0], Outcome::Modified { delay_ms: Some(50) });
    assert!(house.bodies(c).is_empty());
    house.wait(50);
    assert_eq!(house.bodies(c), ["blue1"]);
    house.check_books();
}

#[test]
fn more_important_messages_come_first_among_those_wanted() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", int(5))]);
    for (priority, colour) in [(0, "blue"), (5, "red"), (3, "blue")] {
        house.publish(c, painted(&format!("{colour}{priority}"), colour).priority(priority));
    }
    wants(&mut house, c, 1, "blue", 0);
    assert_eq!(house.bodies(c), ["blue3", "blue0"]);
}

#[test]
fn own_mailbox_loses_what_its_consumer_does_not_want() {
    let (mut house, c) = palette(House::new(), &["red", "blue", "red"]);
    house.consume_with(c, "a", 1, |it| it.selection = selection("colour = 'blue'", true));
    house.publish(c, painted("red3", "red"));
    assert_eq!(house.bodies(c), ["blue1"]);
    assert_eq!((house.ready("a"), house.mailbox("a").unsettled()), (0, 1));
    house.check_books();
    // Also on disk.
    house.restart();
    assert_eq!(house.ready("a"), 1);
}

#[test]
fn wanted_messages_are_found_behind_a_backlog_of_others() {
    // Eight messages of a mailbox are kept in memory.
    let mut colours = vec!["red"; 500];
    colours.extend(["blue", "red", "blue"]);
    let (mut house, c) = palette(House::small(), &colours);
    wants(&mut house, c, 1, "blue", 0);
    assert_eq!(house.bodies(c), ["blue500", "blue502"]);
    let mailbox = house.mailbox("a");
    let hot: usize = mailbox.lanes.iter().map(|lane| lane.hot().count()).sum();
    assert!(hot < 50, "{hot} in memory");
    house.check_books();
    // New ones are found without another look at the old ones.
    house.publish(c, painted("blue503", "blue"));
    assert_eq!(house.bodies(c), ["blue503"]);
    // Whoever takes anything starts at the front.
    assert_eq!(house.get(c, "a").unwrap().body, "red0");
    wants(&mut house, c, 2, "red", 2);
    assert_eq!(house.by_consumer(c), [(2, "red1".into()), (2, "red2".into())]);
    house.consume_with(c, "a", 3, |it| it.prefetch = 1);
    assert_eq!(house.by_consumer(c), [(3, "red3".into())]);
    house.check_books();
    house.ask(c, purge("a")).unwrap();
    house.check_books();
}

#[test]
fn consumer_without_credit_does_not_hold_up_another() {
    let colours: Vec<&str> =
        (0..400).map(|at| if at % 40 == 39 { "blue" } else { "red" }).collect();
    let (mut house, c) = palette(House::small(), &colours);
    wants(&mut house, c, 1, "red", 1);
    let mut held = house.seen(c);
    wants(&mut house, c, 2, "blue", 0);
    assert_eq!(house.bodies(c).len(), 10);
    for number in 1..=100 {
        house.settle(c, &held[0], Outcome::Accepted);
        held = house.seen(c);
        let at = number + number / 39;
        assert_eq!(held[0].body, format!("red{at}"));
    }
    house.check_books();
}

#[test]
fn age_and_length_reach_what_was_passed_over() {
    let mut house = House::small();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-message-ttl", int(1000)), ("x-max-length", int(100))]);
    wants(&mut house, c, 1, "blue", 0);
    for number in 0..150 {
        house.publish(c, painted(&format!("red{number}"), "red"));
    }
    house.publish(c, painted("blue", "blue"));
    assert_eq!(house.bodies(c), ["blue"]);
    assert_eq!(house.ready("a"), 100);
    house.check_books();
    house.wait(1001);
    assert_eq!(house.ready("a"), 0);
    house.check_books();
}

#[test]
fn one_turn_looks_at_a_bounded_number_of_messages() {
    let settings = Settings { consumer_timeout_ms: None, ..Settings::default() };
    let mut house = House::with(settings);
    let c = house.connect();
    house.declare(c, "a");
    for number in 0..10_000 {
        house.publish(c, painted(&format!("red{number}"), "red").transient());
    }
    house.publish(c, painted("blue", "blue").transient());
    wants(&mut house, c, 1, "blue", 0);
    assert!(house.seen(c).is_empty());
    assert_eq!(house.broker.next_deadline(), Some(house.now.plus_ms(1)));
    house.wait(10);
    assert_eq!(house.bodies(c), ["blue"]);
    assert_eq!(house.broker.next_deadline(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        colour: usize,
        persistent: bool,
        priority: u8,
    },
    /// Of a colour, or of any.
    Consume {
        colour: usize,
        prefetch: u32,
    },
    Cancel(usize),
    Settle {
        pick: usize,
        outcome: Outcome,
    },
    Get,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcomes = prop_oneof![
        3 => Just(Outcome::Accepted),
        1 => Just(Outcome::Released),
        1 => Just(Outcome::Modified { delay_ms: Some(5) }),
    ];
    prop_oneof![
        12 => (0..3usize, prop::bool::weighted(0.8), 0..3u8)
            .prop_map(|(colour, persistent, priority)| Step::Publish { colour, persistent, priority }),
        2 => (0..5usize, 0..4u32).prop_map(|(colour, prefetch)| Step::Consume { colour, prefetch }),
        1 => any::<usize>().prop_map(Step::Cancel),
        8 => (any::<usize>(), outcomes).prop_map(|(pick, outcome)| Step::Settle { pick, outcome }),
        1 => Just(Step::Get),
        1 => (1..20u64).prop_map(Step::Wait),
    ]
}

const COLOURS: [&str; 3] = ["red", "blue", "green"];

/// Everything ready in mailbox `a`, wherever it is.
fn ready_bodies(house: &House) -> Vec<String> {
    let mailbox = house.mailbox("a");
    let stored = house.disk.mailboxes.get(&mailbox.id);
    let hot = mailbox.lanes.iter().flat_map(|lane| lane.hot()).map(|it| it.message.clone());
    let cold = mailbox.lanes.iter().flat_map(|lane| lane.all_cold()).flat_map(|cold| {
        let range = cold.first..Seq(cold.first.0 + u64::from(cold.count));
        stored.unwrap().messages.range(range).map(|(_, append)| append.message.clone())
    });
    hot.chain(cold).map(|it| String::from_utf8_lossy(it.body()).into_owned()).collect()
}

/// Whoever has credit and a window has been given everything it wants.
fn check_nothing_is_missed(house: &House, consumers: &BTreeMap<u32, (usize, u32)>) {
    let mailbox = house.mailbox("a");
    let ready = ready_bodies(house);
    for consumer in mailbox.consumers.in_turn(false).filter(|it| it.has_credit()) {
        let (wanted, _) = consumers[&consumer.id.0];
        let missed = ready.iter().find(|colour| wanted >= 3 || *colour == COLOURS[wanted]);
        assert_eq!(missed, None, "consumer {} waits for {wanted}", consumer.id.0);
    }
}

proptest! {
    #[test]
    fn every_consumer_gets_what_it_wants(
        priorities in any::<bool>(),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut house = House::small();
        let c = house.connect();
        let most: &[_] = if priorities { &[("x-max-priority", int(2))] } else { &[] };
        house.declare_with(c, "a", most);
        let mut consumers: BTreeMap<u32, (usize, u32)> = BTreeMap::new();
        let mut held: Vec<Seen> = Vec::new();
        let mut next = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Publish { colour, persistent, priority } => {
                    let post = painted(COLOURS[colour], COLOURS[colour]).priority(priority);
                    house.publish(c, if persistent { post } else { post.transient() });
                }
                Step::Consume { colour, prefetch } => {
                    next += 1;
                    consumers.insert(next, (colour, prefetch));
                    house.consume_with(c, "a", next, |it| {
                        it.prefetch = prefetch;
                        if let Some(colour) = COLOURS.get(colour) {
                            it.selection = selection(&format!("colour = '{colour}'"), false);
                        }
                    });
                }
                Step::Cancel(pick) => {
                    let Some(id) = consumers.keys().nth(pick % consumers.len().max(1)).copied() else {
                        continue;
                    };
                    consumers.remove(&id);
                    house.ask(c, Request::Cancel(ConsumerId(id))).unwrap();
                }
                Step::Settle { pick, outcome } => {
                    if !held.is_empty() {
                        let seen = held.swap_remove(pick % held.len());
                        house.settle(c, &seen, outcome);
                    }
                }
                Step::Get => held.extend(house.get(c, "a")),
                Step::Wait(ms) => house.wait(ms),
            }
            for seen in house.seen(c) {
                if let Some((colour, _)) = consumers.get(&seen.consumer)
                    && let Some(colour) = COLOURS.get(*colour)
                {
                    prop_assert_eq!(&seen.body, colour, "step {}", number);
                }
                held.push(seen);
            }
            house.check_books();
            check_nothing_is_missed(&house, &consumers);
        }
    }
}
