//! Messages that come from another host in one go, most of them with the same address.

use super::*;

/// B has these mailboxes and knows A, which knows of them.
fn with(mailboxes: &[(&str, &[(&str, Value)])]) -> Hosts {
    let mut it = Hosts::new(&["a", "b"]);
    for (name, arguments) in mailboxes {
        it.hosts[B].ask(mailbox(name, arguments)).expect("declared");
    }
    it.settle();
    it
}

fn publish(it: &mut Hosts, post: Post) {
    let client = it.hosts[A].client;
    it.hosts[A].house.publish(client, post);
}

#[test]
fn what_goes_elsewhere_or_bears_more_keys_parts_the_others() {
    let mut it = with(&[("one", &[]), ("two", &[]), ("bound", &[])]);
    let b = it.hosts[B].client;
    it.hosts[B].house.bind(b, "amq.direct", "bound", "one");
    it.settle();
    it.hosts[A].put("one", &["1", "2"]);
    publish(&mut it, Post::to("one", "3").cc(&["two"]));
    it.hosts[A].put("two", &["4"]);
    publish(&mut it, Post::by("amq.direct", "one", "5"));
    it.hosts[A].put("one", &["6", "7"]);
    it.hosts[A].put("nobody", &["8"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("one"), ["1", "2", "3", "6", "7"]);
    assert_eq!(it.hosts[B].empty("two"), ["3", "4"]);
    assert_eq!(it.hosts[B].empty("bound"), ["5"]);
    assert_eq!(it.hosts[B].view("a").arrived, 7);
    it.check();
}

#[test]
fn the_way_is_looked_for_again_after_a_change() {
    let mut it = with(&[("bound", &[]), ("late", &[])]);
    let b = it.hosts[B].client;
    it.hosts[B].house.bind(b, "amq.fanout", "bound", "");
    it.settle();
    publish(&mut it, Post::by("amq.fanout", "", "1"));
    it.settle();
    it.hosts[B].house.bind(b, "amq.fanout", "late", "");
    publish(&mut it, Post::by("amq.fanout", "", "2"));
    publish(&mut it, Post::by("amq.fanout", "", "3"));
    it.settle();
    assert_eq!(it.hosts[B].empty("late"), ["2", "3"]);
    let unbind = Request::Unbind(binding("amq.fanout", "bound", ""));
    it.hosts[B].ask(unbind).expect("unbound");
    publish(&mut it, Post::by("amq.fanout", "", "4"));
    it.settle();
    assert_eq!(it.hosts[B].empty("bound"), ["1", "2", "3"]);
    assert_eq!(it.hosts[B].empty("late"), ["4"]);
    it.check();
}

#[test]
fn a_mailbox_that_says_no_takes_no_more_of_them() {
    let full: &[_] = &[("x-max-length", int(2)), ("x-overflow", text("reject-publish"))];
    let mut it = with(&[("full", full)]);
    it.hosts[A].put("full", &["1"]);
    it.settle();
    it.hosts[A].put("full", &["2", "3", "4"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("full"), ["1", "2"]);
    assert_eq!(it.hosts[B].house.mailbox("full").counts.refused, 2);
    it.hosts[A].put("full", &["5"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("full"), ["5"]);
    it.check();
}

#[test]
fn ids_are_compared_in_what_comes_in_one_go() {
    let mut it = with(&[("once", &[("x-deduplication-window", int(60_000))])]);
    for (id, body) in [("1", "first"), ("1", "again"), ("2", "other"), ("2", "again")] {
        publish(&mut it, Post::to("once", body).header("x-deduplication-header", text(id)));
    }
    it.settle();
    assert_eq!(it.hosts[B].empty("once"), ["first", "other"]);
    it.check();
}

#[test]
fn a_mailbox_that_is_gone_is_not_found_again() {
    let mut it = with(&[("work", &[])]);
    it.hosts[A].put("work", &["1"]);
    it.settle();
    it.hosts[B].ask(delete("work")).expect("deleted");
    // On its way before A hears of it.
    it.hosts[A].put("work", &["2"]);
    it.settle();
    assert_eq!(it.hosts[B].house.broker.totals.unroutable, 1);
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["3"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["3"]);
    it.check();
}
