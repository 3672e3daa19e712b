//! Publishes that come in one go: as one after the other, but handed out together.

use super::house::*;
use super::request::*;
use crate::broker::*;

/// What became of the posts: what the publisher was told, what the reader got, what rests in `a`, `b` and `dead`.
type Outcomes = (Vec<String>, Vec<(u32, String)>, Vec<Vec<String>>);

/// One after the other, then in one go.
fn both(prepare: impl Fn(&mut House, ConnectionId), posts: &[Post]) -> Outcomes {
    let run = |together: bool| {
        let mut house = House::new();
        let reader = house.connect();
        house.declare(reader, "dead");
        prepare(&mut house, reader);
        let publisher = house.connect();
        let now = house.now;
        let commands = posts.iter().map(|post| Command::Publish(post.clone().publish(now)));
        let commands: Vec<Command> = commands.collect();
        if together {
            house.apply_all(publisher, commands);
        } else {
            commands.into_iter().for_each(|it| house.apply(publisher, it));
        }
        let (told, got) = (house.told(publisher), house.by_consumer(reader));
        let other = house.connect();
        let rest = ["a", "b", "dead"]
            .map(|name| if house.exists(name) { house.empty(other, name) } else { Vec::new() });
        house.check_books();
        (told, got, rest.to_vec())
    };
    let (one_by_one, together) = (run(false), run(true));
    assert_eq!(one_by_one, together);
    together
}

fn posts(bodies: std::ops::Range<u64>) -> Vec<Post> {
    bodies.map(|number| Post::to("a", &number.to_string()).confirm(number)).collect()
}

fn numbers(of: std::ops::Range<u64>) -> Vec<String> {
    of.map(|number| number.to_string()).collect()
}

#[test]
fn consumers_get_them_in_order_as_far_as_their_credit_goes() {
    let (told, got, rest) = both(
        |house, reader| {
            house.declare(reader, "a");
            house.consume_with(reader, "a", 1, |it| it.prefetch = 2);
            house.consume_with(reader, "a", 2, |it| it.prefetch = 1);
        },
        &posts(0..6),
    );
    assert_eq!(told.len(), 6);
    assert_eq!(got.iter().map(|it| it.1.clone()).collect::<Vec<_>>(), numbers(0..3));
    assert_eq!(rest[0], numbers(3..6));
}

#[test]
fn a_mailbox_that_refuses_counts_what_was_taken_from_it_meanwhile() {
    let (told, got, _) = both(
        |house, reader| {
            let full = [("x-max-length", int(1)), ("x-overflow", text("reject-publish"))];
            house.declare_with(reader, "a", &full);
            house.consume_with(reader, "a", 1, |it| it.no_ack = true);
        },
        &posts(0..5),
    );
    assert!(told.iter().all(|it| it.starts_with("confirmed")), "{told:?}");
    assert_eq!(got.len(), 5);
    let (told, _, rest) = both(
        |house, reader| {
            let full = [("x-max-length-bytes", int(2)), ("x-overflow", text("reject-publish"))];
            house.declare_with(reader, "a", &full);
        },
        &posts(0..4),
    );
    assert_eq!(told, ["confirmed 0", "confirmed 1", "refused 2", "refused 3"]);
    assert_eq!(rest[0], numbers(0..2));
}

#[test]
fn the_oldest_make_room_and_die_in_order() {
    let dying = [
        ("x-max-length", int(2)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    let (_, _, rest) = both(|house, reader| house.declare_with(reader, "a", &dying), &posts(0..5));
    assert_eq!(rest, [numbers(3..5), Vec::new(), numbers(0..3)]);
    let (_, got, rest) = both(
        |house, reader| {
            house.declare_with(reader, "a", &dying);
            house.consume_with(reader, "a", 1, |it| it.prefetch = 2);
        },
        &posts(0..6),
    );
    assert_eq!((got.len(), &rest[0]), (2, &numbers(4..6)));
}

#[test]
fn each_goes_to_all_its_mailboxes() {
    let fanned: Vec<Post> = numbers(0..4).iter().map(|it| Post::by("amq.fanout", "", it)).collect();
    let (_, got, rest) = both(
        |house, reader| {
            for name in ["a", "b"] {
                house.declare(reader, name);
                house.bind(reader, "amq.fanout", name, "");
            }
            house.consume_with(reader, "b", 1, |it| it.prefetch = 3);
        },
        &fanned,
    );
    assert_eq!((got.len(), &rest[0], &rest[1]), (3, &numbers(0..4), &numbers(3..4)));
}

#[test]
fn what_is_wrong_in_between_is_said_in_its_place() {
    let mut some = posts(0..2);
    some.push(Post::to("nowhere", "2").mandatory().confirm(2));
    some.extend(posts(3..4));
    let prepare = |house: &mut House, reader| house.declare(reader, "a");
    let (told, _, rest) = both(prepare, &some);
    assert_eq!(told, ["confirmed 0", "confirmed 1", "returned 2", "confirmed 2", "confirmed 3"]);
    assert_eq!(rest[0], ["0", "1", "3"]);
    some.insert(1, Post::by("missing", "", "no"));
    let (told, _, rest) = both(prepare, &some);
    assert_eq!((told.len(), &rest[0]), (2, &numbers(0..1)), "the channel failed: {told:?}");
}

#[test]
fn one_that_lives_for_no_time_is_for_who_waits_only() {
    let short: Vec<Post> = posts(0..3).into_iter().map(|it| it.expiration(0)).collect();
    let (_, got, rest) = both(
        |house, reader| {
            house.declare(reader, "a");
            house.consume_with(reader, "a", 1, |it| it.prefetch = 1);
        },
        &short,
    );
    assert_eq!((got.len(), rest[0].len()), (1, 0));
}

#[test]
fn what_is_asked_in_between_finds_what_came_before() {
    let mut house = House::new();
    let (c, reader) = (house.connect(), house.connect());
    house.declare(c, "a");
    house.consume_with(reader, "a", 1, |it| it.prefetch = 1);
    let now = house.now;
    let publish = |body: &str| Command::Publish(Post::to("a", body).publish(now));
    let purge = Command::Request(ONE, Ticket(900), Box::new(purge("a")));
    house.apply_all(c, vec![publish("1"), publish("2"), purge, publish("3")]);
    assert_eq!(house.bodies(reader), ["1"], "given before the purge");
    assert_eq!(house.empty(c, "a"), ["3"]);
}

#[test]
fn they_are_handed_out_as_one_burst() {
    let mut house = House::new();
    let (c, reader) = (house.connect(), house.connect());
    house.declare(c, "a");
    house.consume(reader, "a", 1);
    let now = house.now;
    let commands = posts(0..5).into_iter().map(|it| Command::Publish(it.publish(now)));
    let mut effects = Vec::new();
    house.broker.apply_all(c, commands, now, &mut effects);
    let bursts = effects.iter().filter_map(|effect| match effect {
        Effect::Notify(to, event) if *to == reader => Some(event.deliveries().len()),
        _ => None,
    });
    assert_eq!(bursts.collect::<Vec<_>>(), [5]);
}
