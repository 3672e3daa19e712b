//! From a publisher to mailboxes, and what the publisher is told.

use std::sync::Arc;

use super::house::*;
use super::request::*;
use crate::broker::*;

#[test]
fn message_goes_to_every_bound_mailbox_once() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b", "c"] {
        house.declare(c, name);
    }
    house.bind(c, "amq.topic", "a", "x.#");
    house.bind(c, "amq.topic", "a", "#.y");
    house.bind(c, "amq.topic", "b", "x.*");
    house.bind(c, "amq.topic", "c", "z");
    house.publish(c, Post::by("amq.topic", "x.y", "hello"));
    assert_eq!(["a", "b", "c"].map(|name| house.ready(name)), [1, 1, 0]);
    house.check_books();
}

#[test]
fn fan_out_shares_one_message_with_one_id() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b"] {
        house.declare(c, name);
        house.bind(c, "amq.fanout", name, "");
    }
    house.publish(c, Post::by("amq.fanout", "", "first"));
    house.publish(c, Post::by("amq.fanout", "", "second"));
    let [a, b] = ["a", "b"].map(|name| house.get(c, name).unwrap().delivery.message);
    assert!(Arc::ptr_eq(&a, &b));
    assert!(a.id > MessageId::default());
    let next = house.get(c, "a").unwrap().delivery.message;
    assert!(next.id > a.id);
}

#[test]
fn message_that_somebody_else_holds_gets_an_id_too() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let publish = Post::to("a", "shared").publish(house.now);
    let _kept = publish.message.clone();
    house.apply(c, Command::Publish(publish));
    assert!(house.get(c, "a").unwrap().delivery.message.id > MessageId::default());
}

#[test]
fn messages_keep_the_order_they_were_published_in() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3"]);
    house.consume(c, "a", 1);
    house.put(c, "a", &["4"]);
    assert_eq!(house.bodies(c), ["1", "2", "3", "4"]);
}

#[test]
fn confirms_come_in_order_also_with_returns_and_refusals() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.declare_with(
        c,
        "full",
        &[("x-max-length", int(0)), ("x-overflow", text("reject-publish"))],
    );
    house.fast_disk = false;
    house.publish(c, Post::to("a", "1").confirm(1));
    house.publish(c, Post::to("nobody", "2").confirm(2).mandatory());
    house.publish(c, Post::to("nobody", "3").confirm(3));
    house.publish(c, Post::to("full", "4").confirm(4));
    assert!(house.told(c).is_empty(), "nothing is said before the batch is durable");
    house.sync();
    let told = house.told(c);
    assert_eq!(told, ["confirmed 1", "returned 2", "confirmed 2", "confirmed 3", "refused 4"]);
    assert_eq!(house.broker.totals.returned, 1);
    assert_eq!(house.broker.totals.unroutable, 1);
}

#[test]
fn transient_message_confirms_without_a_write() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let appends = house.disk.appends;
    house.fast_disk = false;
    house.publish(c, Post::to("a", "1").transient().confirm(1));
    assert_eq!(house.told(c), ["confirmed 1"]);
    house.sync();
    assert_eq!(house.disk.appends, appends);
}

#[test]
fn unknown_exchange_ends_a_strict_channel() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.publish(c, Post::by("nowhere", "a", "1").confirm(1));
    // Everything that was already on its way is ignored.
    house.publish(c, Post::to("a", "2").confirm(2));
    let ticket = house.send(c, ONE, purge("a"));
    assert!(house.answer(c, ticket).is_none());
    assert_eq!(house.told(c), ["no: no exchange 'nowhere' in vhost '/'"]);
    assert_eq!(house.ready("a"), 0);
    let mut other = Post::to("a", "3");
    other.channel = TWO;
    house.publish(c, other);
    assert_eq!(house.ready("a"), 1);
    house.close_channel(c, ONE);
    house.publish(c, Post::to("a", "4"));
    assert_eq!(house.ready("a"), 2);
}

#[test]
fn lax_channel_goes_on_after_a_refusal() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    house.publish(c, Post::by("nowhere", "a", "1"));
    house.publish(c, Post::to("a", "2"));
    assert_eq!(house.ready("a"), 1);
}

#[test]
fn route_is_found_anew_when_bindings_change() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.declare(c, "b");
    house.bind(c, "amq.direct", "a", "k");
    house.publish(c, Post::by("amq.direct", "k", "1"));
    house.bind(c, "amq.direct", "b", "k");
    house.publish(c, Post::by("amq.direct", "k", "2"));
    house.ask(c, Request::Unbind(binding("amq.direct", "a", "k"))).unwrap();
    house.publish(c, Post::by("amq.direct", "k", "3"));
    assert_eq!(house.empty(c, "a"), ["1", "2"]);
    assert_eq!(house.empty(c, "b"), ["2", "3"]);
    house.ask(c, delete("b")).unwrap();
    house.publish(c, Post::by("amq.direct", "k", "4").confirm(1).mandatory());
    assert_eq!(house.told(c), ["returned 4", "confirmed 1"]);
}

#[test]
fn cc_keys_route_too_and_each_mailbox_gets_one() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.declare(c, "b");
    house.publish(c, Post::to("a", "1").cc(&["b", "a"]));
    assert_eq!([house.ready("a"), house.ready("b")], [1, 1]);
}

#[test]
fn alternate_exchange_takes_what_has_no_binding() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "rest");
    house
        .ask(c, exchange("main", "direct", &[("alternate-exchange", text("amq.fanout"))]))
        .unwrap();
    house.bind(c, "amq.fanout", "rest", "");
    house.publish(c, Post::by("main", "k", "1").confirm(1).mandatory());
    assert_eq!(house.told(c), ["confirmed 1"]);
    assert_eq!(house.ready("rest"), 1);
}

#[test]
fn internal_exchange_is_not_published_to() {
    let mut house = House::new();
    let c = house.connect();
    house.publish(c, Post::by("amq.rabbitmq.trace", "k", "1"));
    let told = house.told(c);
    assert_eq!(told, ["no: cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"]);
}

#[test]
fn expiration_beyond_ten_years_is_refused() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.publish(c, Post::to("a", "1").expiration(315_360_000_000).confirm(1));
    house.publish(c, Post::to("a", "2").expiration(315_360_000_001).confirm(2));
    let told = house.told(c);
    assert_eq!(
        told,
        ["confirmed 1", "no: invalid expiration '315360000001': {value_too_big,315360000001}"]
    );
}

#[test]
fn alarm_reaches_publishers_only() {
    let mut house = House::new();
    let publisher = house.connect();
    let reader = house.connect();
    house.declare(publisher, "a");
    house.put(publisher, "a", &["1"]);
    house.apply(SERVER, Command::Alarm { memory: true, disk: false });
    house.apply(SERVER, Command::Alarm { memory: true, disk: false });
    assert_eq!(house.told(publisher), ["blocked: low on memory"]);
    assert!(house.told(reader).is_empty());
    house.put(reader, "a", &["2"]);
    assert_eq!(house.told(reader), ["blocked: low on memory"]);
    house.apply(SERVER, Command::Alarm { memory: true, disk: true });
    house.apply(SERVER, Command::Alarm { memory: false, disk: false });
    assert_eq!(house.told(reader), ["blocked: low on memory & disk", "unblocked"]);
}

#[test]
fn replies_go_straight_to_who_asked() {
    let mut house = House::new();
    let asker = house.connect();
    let server = house.connect();
    let address = "amq.rabbitmq.reply-to.g1h2AA";
    let replies = || Request::ConsumeReplies { consumer: ConsumerId(7), address: address.into() };
    house.ask(asker, replies()).unwrap();
    assert_eq!(house.refused(asker, replies()), "reply consumer already set");
    house.close_channel(asker, ONE);
    house.ask(asker, replies()).unwrap();
    house.publish(server, Post::to(address, "pong").mandatory().confirm(1));
    let seen = house.seen(asker);
    assert_eq!((seen[0].body.as_str(), seen[0].consumer), ("pong", 7));
    assert!(seen[0].delivery.settled);
    assert_eq!(house.told(server), ["confirmed 1"]);
    house.ask(asker, Request::Cancel(ConsumerId(7))).unwrap();
    house.publish(server, Post::to(address, "late").mandatory());
    assert_eq!(house.told(server), ["returned late"]);
}

#[test]
fn transaction_becomes_durable_as_one() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.declare(c, "b");
    house.put(c, "a", &["old"]);
    let old = house.get(c, "a").unwrap();
    house.fast_disk = false;
    let commands = vec![
        Command::Publish(Post::to("b", "1").publish(house.now)),
        Command::Settle(settlement(ONE, &old, Outcome::Accepted)),
        Command::Publish(Post::to("b", "2").publish(house.now)),
    ];
    let ticket = house.send(c, ONE, Request::Commit(commands));
    assert!(house.answer(c, ticket).is_none());
    house.seal();
    assert!(house.durable());
    house.answer(c, ticket).unwrap().unwrap();
    house.crash();
    let c = house.connect();
    assert!(house.empty(c, "a").is_empty());
    house.sync();
    assert_eq!(house.ready("b"), 2);
}

#[test]
fn transaction_with_a_mistake_changes_nothing() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    house.put(c, "a", &["old"]);
    let old = house.get(c, "a").unwrap();
    let publish = |house: &House, to: Post| Command::Publish(to.publish(house.now));
    let settle = || Command::Settle(settlement(ONE, &old, Outcome::Accepted));
    for (wrong, text) in [
        (publish(&house, Post::by("x", "k", "")), "no exchange 'x' in vhost '/'"),
        (settle(), "unknown delivery"),
        (Command::Close(None), "not part of a transaction"),
    ] {
        let commands = vec![publish(&house, Post::to("a", "new")), settle(), wrong];
        assert_eq!(house.refused(c, Request::Commit(commands)), text);
        assert_eq!((house.ready("a"), house.mailbox("a").unsettled()), (0, 1));
        assert!(house.told(c).is_empty(), "the reply says it all");
    }
    house.ask(c, Request::Commit(vec![settle()])).unwrap();
    assert_eq!(house.mailbox("a").unsettled(), 0);
}

#[test]
fn transaction_that_a_full_mailbox_refuses_is_partial() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-length", int(1)), ("x-overflow", text("reject-publish"))]);
    let publish = |house: &House| Command::Publish(Post::to("a", "1").publish(house.now));
    let commands = vec![publish(&house), publish(&house)];
    assert_eq!(house.refused(c, Request::Commit(commands)), "partial tx completion");
    assert_eq!(house.ready("a"), 1);
}

#[test]
fn recent_history_is_replayed_to_a_new_binding() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.exchange(c, "history", "x-recent-history");
    for body in ["1", "2"] {
        house.publish(c, Post::by("history", "", body));
    }
    house.bind(c, "history", "a", "");
    assert_eq!(house.empty(c, "a"), ["1", "2"]);
}
