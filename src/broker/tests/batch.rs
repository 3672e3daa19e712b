//! Messages that are published together: routed, stored and confirmed as one, delivered in bursts.

use std::sync::Arc;

use super::house::*;
use super::request::*;
use crate::broker::*;

fn batch(house: &House, mandatory: bool, posts: impl IntoIterator<Item = Post>) -> Command {
    let message = |post: Post| Arc::into_inner(post.publish(house.now).message);
    Command::PublishBatch(PublishBatch {
        channel: ONE,
        messages: posts.into_iter().map(|post| message(post).expect("its only owner")).collect(),
        confirm: Some(7),
        mandatory,
        home: false,
    })
}

#[test]
fn a_batch_comes_to_rest_in_order_and_is_confirmed_once() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let bodies: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let command = batch(&house, true, bodies.iter().map(|body| Post::to("a", body)));
    house.apply(c, command);
    house.sync();
    assert_eq!(house.told(c), ["batch 7: 100 taken, missed []"]);
    house.consume(c, "a", 1);
    let seen: Vec<String> = house.seen(c).into_iter().map(|seen| seen.body).collect();
    assert_eq!(seen, bodies);
    house.check_books();
}

#[test]
fn messages_of_a_batch_may_wait_each_for_its_time() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let bodies = ["now", "later", "soon", "at once"];
    let Command::PublishBatch(mut batch) = batch(&house, true, bodies.map(|it| Post::to("a", it)))
    else {
        unreachable!()
    };
    batch.messages[1].deliver_at = house.now.plus_ms(5000);
    batch.messages[2].deliver_at = house.now.plus_ms(1000);
    house.apply(c, Command::PublishBatch(batch));
    house.consume(c, "a", 1);
    assert_eq!(house.bodies(c), ["now", "at once"]);
    house.crash();
    let c = house.connect();
    assert_eq!(house.empty(c, "a"), ["now", "at once"], "nobody settled them");
    house.wait(1000);
    assert_eq!(house.empty(c, "a"), ["soon"]);
    house.wait(3999);
    assert_eq!(house.empty(c, "a"), Vec::<String>::new());
    house.wait(1);
    assert_eq!(house.empty(c, "a"), ["later"]);
    house.check_books();
}

#[test]
fn a_batch_says_which_messages_nobody_takes() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b"] {
        house.declare(c, name);
    }
    let keys = ["a", "a", "none", "b", "none", "a"];
    let posts = || keys.map(|key| Post::to(key, "x"));
    let mandatory = batch(&house, true, posts());
    house.apply(c, mandatory);
    house.sync();
    let missed = r#"missed ["2 Unroutable", "4 Unroutable"]"#;
    assert_eq!(house.told(c), [format!("batch 7: 4 taken, {missed}")]);
    let careless = batch(&house, false, posts());
    house.apply(c, careless);
    house.sync();
    assert_eq!(house.told(c), ["batch 7: 6 taken, missed []"]);
    // Seeds, case 9: dropped, and counted.
    assert_eq!((house.broker.totals.returned, house.broker.totals.unroutable), (2, 2));
    assert_eq!(["a", "b"].map(|name| house.ready(name)), [6, 2]);
    house.check_books();
}

#[test]
fn a_mailbox_that_fills_up_refuses_the_rest_of_a_batch() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(
        c,
        "a",
        &[("x-max-length", Value::I64(2)), ("x-overflow", Value::text("reject-publish"))],
    );
    let posts = ["1", "2", "3", "4"].map(|body| Post::to("a", body));
    let command = batch(&house, true, posts);
    house.apply(c, command);
    house.sync();
    assert_eq!(house.told(c), [r#"batch 7: 2 taken, missed ["2 Full", "3 Full"]"#]);
    assert_eq!(house.ready("a"), 2);
    house.check_books();
}

#[test]
fn one_bad_message_of_a_batch_is_refused_alone() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let posts = [Post::to("a", "1"), Post::by("missing", "a", "2"), Post::to("a", "3")];
    let command = batch(&house, true, posts);
    house.apply(c, command);
    house.sync();
    let told = house.told(c);
    assert!(
        told[0].starts_with("batch 7: 2 taken, missed [\"1 Refused(NoSuchExchange"),
        "{told:?}"
    );
    assert_eq!(house.ready("a"), 2);
}

#[test]
fn a_fan_out_of_a_batch_reaches_every_mailbox_in_order() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b"] {
        house.declare(c, name);
        house.bind(c, "amq.fanout", name, "");
    }
    let posts = ["1", "2", "3"].map(|body| Post::by("amq.fanout", "", body));
    let command = batch(&house, true, posts);
    house.apply(c, command);
    for (name, consumer) in [("a", 1), ("b", 2)] {
        house.consume(c, name, consumer);
        let seen: Vec<String> = house.seen(c).into_iter().map(|seen| seen.body).collect();
        assert_eq!(seen, ["1", "2", "3"]);
    }
    house.check_books();
}

#[test]
fn neighbouring_deliveries_to_a_connection_are_one_event() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.consume(c, "a", 1);
    let large = "x".repeat(10_000);
    let bodies = ["1", "2", "3", &large, "4"];
    let command = batch(&house, true, bodies.map(|body| Post::to("a", body)));
    let mut effects = Vec::new();
    house.broker.apply(c, command, house.now, &mut effects);
    let bursts: Vec<Vec<u64>> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Notify(_, event) => {
                Some(event.deliveries().iter().map(|it| it.seq.0).collect())
            }
            _ => None,
        })
        .collect();
    assert_eq!(bursts, [vec![1, 2, 3], vec![4], vec![5]]);
}
