//! What is there again after a crash or a stop.

use super::disk::DiskMailbox;
use super::house::*;
use super::request::*;
use crate::broker::*;

fn consumed(house: &mut House, mailbox: &str) -> Vec<(String, bool)> {
    let c = house.connect();
    house.consume(c, mailbox, 1);
    let seen = house.seen(c);
    seen.into_iter().map(|it| (it.body, it.redelivered)).collect()
}

fn expected(all: &[(&str, bool)]) -> Vec<(String, bool)> {
    all.iter().map(|(body, redelivered)| ((*body).to_owned(), *redelivered)).collect()
}

#[test]
fn everything_durable_is_there_again_in_order() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3"]);
    let first = house.get(c, "a").unwrap();
    house.settle(c, &first, Outcome::Accepted);
    house.crash();
    assert_eq!(house.ready("a"), 2);
    house.check_books();
    assert_eq!(consumed(&mut house, "a").len(), 2);
}

#[test]
fn what_was_not_durable_is_gone() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1"]);
    house.fast_disk = false;
    house.publish(c, Post::to("a", "2").confirm(2));
    house.seal();
    house.publish(c, Post::to("a", "3").confirm(3));
    house.durable();
    assert_eq!(house.told(c), ["confirmed 2"]);
    house.crash();
    assert_eq!(house.ready("a"), 2);
}

#[test]
fn transient_messages_and_mailboxes_do_not_outlive_a_restart() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let mut passing = declare("passing", &[]);
    passing.durable = false;
    house.ask(c, Request::DeclareMailbox(passing)).unwrap();
    let mut own = declare("own", &[]);
    own.exclusive = true;
    house.ask(c, Request::DeclareMailbox(own)).unwrap();
    house.publish(c, Post::to("a", "1").transient());
    house.put(c, "a", &["2"]);
    house.put(c, "passing", &["3"]);
    house.bind(c, "amq.fanout", "passing", "");
    house.crash();
    assert_eq!(house.ready("a"), 1);
    assert!(!house.exists("passing") && !house.exists("own"));
    assert_eq!(house.disk.mailboxes.len(), 1);
}

#[test]
fn only_what_may_have_been_seen_is_redelivered_after_a_stop() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3"]);
    house.get(c, "a");
    house.get(c, "a");
    house.restart();
    let seen = consumed(&mut house, "a");
    assert_eq!(seen, expected(&[("1", true), ("2", true), ("3", false)]));
}

#[test]
fn crash_flags_everything_that_may_have_been_seen() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2"]);
    house.get(c, "a");
    house.crash();
    let c = house.connect();
    house.put(c, "a", &["3"]);
    let seen = consumed(&mut house, "a");
    assert!(seen[0].1, "it was delivered");
    assert_eq!(seen[2], ("3".into(), false), "nobody can have seen it");
}

#[test]
fn stored_message_is_shown_only_when_a_crash_would_remember() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1"]);
    house.fast_disk = false;
    let c2 = house.connect();
    house.consume(c2, "a", 1);
    // The message is durable, the mark is not yet.
    assert!(house.seen(c2).is_empty());
    house.put(c, "a", &["2"]);
    house.seal();
    house.durable();
    assert_eq!(house.bodies(c2), ["1", "2"]);
    // A new message and the mark share a batch at the latest.
    house.put(c, "a", &["3"]);
    assert_eq!(house.bodies(c2), ["3"]);
}

#[test]
fn any_crash_keeps_the_redelivered_promise() {
    // Batches become durable at every possible moment between deliveries.
    for durable_after in 0..12 {
        let mut house = House::new();
        let c = house.connect();
        house.declare(c, "a");
        house.fast_disk = false;
        let reader = house.connect();
        house.sync();
        house.consume(reader, "a", 1);
        let mut seen = Vec::new();
        for step in 0..12 {
            house.publish(c, Post::to("a", &step.to_string()));
            house.seal();
            if step < durable_after {
                house.durable();
            }
            seen.extend(house.bodies(reader));
        }
        house.crash();
        house.fast_disk = true;
        for (body, redelivered) in consumed(&mut house, "a") {
            assert!(redelivered || !seen.contains(&body), "{body} after {durable_after}");
        }
    }
}

#[test]
fn positions_are_never_given_twice() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let mut last = Seq(0);
    for round in 0..4 {
        let c = house.connect();
        house.put(c, "a", &["x", "y"]);
        for _ in 0..2 {
            let seen = house.get_with(c, "a", true).0.unwrap();
            assert!(seen.delivery.seq > last, "round {round}");
            last = seen.delivery.seq;
        }
        if round % 2 == 0 { house.crash() } else { house.restart() }
    }
}

#[test]
fn mailbox_of_the_same_name_gets_a_new_id() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let first = house.mailbox("a").id;
    house.ask(c, delete("a")).unwrap();
    house.wait(1);
    house.crash();
    let c = house.connect();
    house.declare(c, "a");
    assert!(house.mailbox("a").id > first);
}

#[test]
fn expiries_attempts_and_priorities_survive() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", int(3)), ("x-delivery-limit", int(9))]);
    house.publish(c, Post::to("a", "low"));
    house.publish(c, Post::to("a", "short").expiration(100));
    house.publish(c, Post::to("a", "high").priority(3));
    let high = house.get(c, "a").unwrap();
    house.settle(c, &high, Outcome::Modified { delay_ms: None });
    house.crash();
    let c = house.connect();
    let high = house.get(c, "a").unwrap();
    assert_eq!((high.body.as_str(), high.delivery.attempts), ("high", Some(1)));
    house.wait(100);
    assert_eq!(house.empty(c, "a"), ["low"]);
    house.check_books();
}

#[test]
fn mailbox_time_to_live_counts_from_the_first_day() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-message-ttl", int(100))]);
    house.put(c, "a", &["1"]);
    house.wait(50);
    house.put(c, "a", &["2"]);
    house.crash();
    house.wait(50);
    assert_eq!(house.ready("a"), 1);
    house.wait(50);
    assert_eq!(house.ready("a"), 0);
    assert!(house.disk.mailboxes.values().all(|it| it.messages.is_empty()));
    house.check_books();
}

#[test]
fn delays_survive() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    let kind = [("x-delayed-type", text("direct"))];
    house.ask(c, exchange("later", "x-delayed-message", &kind)).unwrap();
    house.bind(c, "later", "a", "k");
    house.publish(c, Post::by("later", "k", "1").header("x-delay", int(100)));
    house.put(c, "a", &["0"]);
    let held = house.get(c, "a").unwrap();
    house.settle(c, &held, Outcome::Modified { delay_ms: Some(200) });
    house.crash();
    house.check_books();
    let c = house.connect();
    assert!(house.get(c, "a").is_none());
    house.wait(100);
    let seen = house.get(c, "a").unwrap();
    assert_eq!(seen.body, "1");
    house.settle(c, &seen, Outcome::Accepted);
    house.wait(100);
    let seen = house.get(c, "a").unwrap();
    assert_eq!((seen.body.as_str(), seen.redelivered), ("0", true));
    house.check_books();
}

#[test]
fn definitions_lean_on_each_other_in_the_right_order() {
    let mut house = House::new();
    let c = house.connect();
    house.define(Definition::Policy(policy("p", "^a$", &[("max-length", int(1))])));
    house.user("ann", ["", ".*", ".*"]);
    house.declare(c, "a");
    house.exchange(c, "one", "topic");
    house.exchange(c, "two", "fanout");
    house.bind(c, "two", "a", "");
    let between = BindingOf {
        source: "one".into(),
        destination: Destination::Exchange("two".into()),
        key: "k.#".into(),
        arguments: Table::new(),
    };
    house.ask(c, Request::Bind(between)).unwrap();
    for stop in [House::crash, House::restart] {
        stop(&mut house);
        let ann = house.connect_as("ann", "/", true);
        house.publish(ann, Post::by("one", "k.x", "1"));
        house.publish(ann, Post::by("one", "k", "2"));
        let guest = house.connect();
        assert_eq!(house.empty(guest, "a"), ["2"], "the policy holds");
    }
    assert_eq!(house.mailbox("a").policy.as_deref(), Some("p"));
}

#[test]
fn deleted_things_stay_deleted() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.exchange(c, "x", "direct");
    house.bind(c, "x", "a", "k");
    house.put(c, "a", &["1"]);
    house.ask(c, Request::Unbind(binding("x", "a", "k"))).unwrap();
    house.bind(c, "x", "a", "l");
    house.ask(c, delete("a")).unwrap();
    house.ask(c, Request::DeleteExchange { name: "x".into(), if_unused: false }).unwrap();
    assert!(house.disk.mailboxes.is_empty());
    let left: Vec<_> = house.disk.definitions.keys().map(|key| key.kind).collect();
    use DefinitionKind::{Permission, User, Vhost};
    assert_eq!(left, [Vhost, User, Permission]);
}

#[test]
fn guest_comes_only_to_a_blank_broker() {
    let mut house = House::new();
    let key = |kind, name: &'static str| DefinitionKey { kind, path: vec![name.into()] };
    let user = UserDefinition {
        name: "ann".into(),
        credential: Credential::default(),
        max_connections: None,
        max_channels: None,
    };
    house.define(Definition::User(user));
    house.ask(SERVER, Request::Undefine(key(DefinitionKind::Vhost, "/"))).unwrap();
    house.ask(SERVER, Request::Undefine(key(DefinitionKind::User, "guest"))).unwrap();
    house.crash();
    assert!(house.broker.vhosts.is_empty());
    assert!(house.broker.access.user("guest").is_none());
}

#[test]
fn messages_of_an_unknown_mailbox_are_dropped_from_the_store() {
    let mut house = House::new();
    house.disk.mailboxes.insert(MailboxId(7), DiskMailbox::default());
    house.crash();
    assert!(house.disk.mailboxes.is_empty());
}
