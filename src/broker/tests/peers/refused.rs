//! What another host never takes is a dead letter of this one, and holds nothing up.

use super::super::request::policy;
use super::*;

fn dead_letters(host: &mut Host, pattern: &str) {
    let client = host.client;
    host.declare("dead");
    host.house.exchange(client, "graves", "fanout");
    host.house.bind(client, "graves", "dead", "");
    // An outbox is no queue that could be too long.
    let values = [("dead-letter-exchange", text("graves")), ("max-length", int(1))];
    host.house.define(Definition::Policy(policy("p", pattern, &values)));
}

#[test]
fn what_the_other_host_refuses_is_dead_lettered_and_the_rest_goes_on() {
    let mut it = Hosts::new(&["a", "b"]);
    it.too_large.insert("large".into());
    it.hosts[B].declare("work");
    it.settle();
    dead_letters(&mut it.hosts[A], "^peer/");
    let client = it.hosts[A].client;
    it.hosts[A].put("work", &["1"]);
    it.hosts[A].house.publish(client, Post::to("work", "large").header("mine", int(7)));
    it.hosts[A].put("work", &["2"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "2"]);
    let view = it.hosts[A].view("b");
    assert_eq!((view.messages, view.refused), (0, 1));
    assert_eq!(view.error.map(|(_, text)| text).as_deref(), Some("too large"));
    let dead = it.hosts[A].get("dead").expect("a dead letter").delivery.message;
    let properties = dead.properties();
    assert_eq!((dead.body(), properties.header("mine")), (&b"large"[..], Some(&int(7))));
    let header = |name| properties.header(name).and_then(Value::as_str);
    assert_eq!(header("x-peer-refusal"), Some("host 'b': too large"));
    assert_eq!(header("x-first-death-reason"), Some("refused"));
    assert_eq!(header("x-first-death-queue"), Some("peer/b"));
    it.check();
}

#[test]
fn without_a_policy_what_is_refused_is_counted_and_gone() {
    let mut it = Hosts::new(&["a", "b"]);
    it.too_large.insert("large".into());
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["large", "1"]);
    it.settle();
    it.hosts[A].crash();
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    assert_eq!(it.hosts[A].view("b").messages, 0);
    it.check();
}

#[test]
fn a_refused_message_that_was_packed_dies_as_it_was_published() {
    let mut it = Hosts::new(&["a", "b"]);
    it.too_large.insert("large".into());
    it.hosts[B].declare("work");
    it.settle();
    dead_letters(&mut it.hosts[A], ".*");
    let (client, now) = (it.hosts[A].client, it.hosts[A].house.now);
    let mut later = Post::to("work", "large").publish(now);
    std::sync::Arc::get_mut(&mut later.message).expect("new").deliver_at = now.plus_ms(1000);
    it.hosts[A].house.apply(client, Command::Publish(later));
    it.settle();
    let dead = it.hosts[A].get("dead").expect("it waits for nothing").delivery.message;
    let names: Vec<_> = dead.properties().headers.iter().flat_map(|it| it.iter()).collect();
    assert!(names.iter().all(|(name, _)| !format!("{name:?}").contains("parcel")), "{names:?}");
}

#[test]
fn a_dead_letter_does_not_circle_between_hosts() {
    let mut it = Hosts::new(&["a", "b"]);
    it.too_large.insert("large".into());
    it.hosts[B].declare("work");
    it.settle();
    let values = [("dead-letter-exchange", text(""))];
    it.hosts[A].house.define(Definition::Policy(policy("p", ".*", &values)));
    it.hosts[A].put("work", &["large"]);
    it.settle();
    let view = it.hosts[A].view("b");
    assert_eq!((view.messages, view.refused), (0, 1));
    assert_eq!(it.hosts[A].house.broker.totals.unroutable, 1);
}

#[test]
fn a_connection_cannot_refuse_what_it_does_not_hold() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.cut(A, B);
    it.hosts[A].put("work", &["1"]);
    let outbox = it.hosts[A].house.mailbox("peer/b");
    let (outbox, seq) = (outbox.id, Seq(outbox.next.0 - 1));
    it.ask(A, ConnectionId(77), Peering::Refuse { outbox, seq, reason: "no".into() });
    let view = it.hosts[A].view("b");
    assert_eq!((view.messages, view.refused), (1, 0));
}
