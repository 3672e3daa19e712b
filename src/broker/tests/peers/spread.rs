//! Names that live on several hosts at once.

use super::super::request::{mailbox, text};
use super::drain::{drain, left, send_away};
use super::*;

/// Three hosts; `work` lives on the first two.
fn with_spread(spread: &str) -> Hosts {
    let mut it = Hosts::new(&["a", "b", "c"]);
    for at in [A, B] {
        let declared = it.ask_own(at, mailbox("work", &[("x-spread", text(spread))]));
        assert!(matches!(declared, Ok(Reply::Declared { ready: 0, consumers: 0, .. })));
        it.settle();
    }
    assert!(it.hosts[A].house.exists("work") && it.hosts[B].house.exists("work"));
    it
}

impl Hosts {
    fn ask_own(&mut self, at: usize, request: Request) -> Result<Reply, Refusal> {
        let client = self.hosts[at].house.connect_lax();
        self.ask_as(at, client, request)
    }

    /// What is at each host.
    fn spread(&mut self) -> [Vec<String>; 2] {
        self.settle();
        [A, B].map(|at| self.hosts[at].empty("work"))
    }
}

#[test]
fn every_host_of_a_fanned_name_gets_a_copy_wherever_it_is_published() {
    let mut it = with_spread("fanout");
    for (at, body) in [(A, "from a"), (B, "from b"), (C, "from c")] {
        // The second finds the route that the first left.
        it.hosts[at].put("work", &[body, body]);
        assert_eq!(it.spread(), [[body, body], [body, body]]);
    }
    assert!(it.hosts[A].view("b").shadowed.is_empty(), "it is meant so");
    assert!(it.hosts[C].view("b").shadowed.is_empty(), "it is meant so");
    it.check();
}

#[test]
fn a_fanned_name_among_several_keys_counts_once_for_each_host() {
    let mut it = with_spread("fanout");
    for (at, own) in [(A, "own-a"), (C, "own-c")] {
        it.hosts[at].declare(own);
        let client = it.hosts[at].client;
        it.hosts[at].house.publish(client, Post::to("work", "m").cc(&[own, "work"]));
        assert_eq!(it.spread(), [["m"], ["m"]]);
        assert_eq!(it.hosts[at].empty(own), ["m"]);
    }
}

#[test]
fn a_copy_for_a_host_that_gave_its_mailbox_up_goes_nowhere_else() {
    let mut it = with_spread("fanout");
    it.cut_all(B);
    it.hosts[A].put("work", &["1"]);
    it.hosts[B].ask(delete("work")).expect("deleted");
    it.link(A, B);
    it.link(B, A);
    it.settle();
    assert_eq!(it.hosts[A].empty("work"), ["1"]);
    it.hosts[A].put("work", &["2"]);
    it.settle();
    assert_eq!((it.hosts[A].empty("work"), it.hosts[A].view("b").messages), (vec!["2".into()], 0));
}

#[test]
fn one_host_of_a_shared_name_gets_a_message_and_the_own_one_comes_first() {
    let mut it = with_spread("anycast");
    it.hosts[A].put("work", &["1"]);
    it.hosts[B].put("work", &["2"]);
    assert_eq!(it.spread(), [["1"], ["2"]]);
    // A host without one gives to those in turn that it reaches.
    it.hosts[C].put("work", &["1", "2", "3", "4"]);
    let [a, b] = it.spread();
    assert_eq!((a.len(), b.len()), (2, 2));
    it.cut(C, A);
    it.hosts[C].put("work", &["5", "6"]);
    assert_eq!(it.spread(), [vec![], vec!["5", "6"]]);
    // Nobody can be reached: it waits for the oldest.
    it.cut(C, B);
    it.hosts[C].put("work", &["7"]);
    assert_eq!(it.hosts[C].view("a").messages, 1);
    it.link(C, A);
    assert_eq!(it.spread(), [vec!["7"], vec![]]);
    it.check();
}

#[test]
fn a_shared_name_is_given_to_others_while_a_host_is_drained_and_after_it_left() {
    let mut it = with_spread("anycast");
    it.cut(C, B);
    it.cut(C, A);
    it.hosts[C].put("work", &["1"]);
    it.link(C, B);
    it.link(C, A);
    // What waits here for others goes there, and what others have for it stays with them.
    it.hosts[A].put("work", &["own"]);
    let admin = drain(&mut it.hosts[A], false);
    send_away(&mut it, A);
    it.hosts[C].put("work", &["2", "3", "4"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["2", "3", "4"]);
    assert_eq!(it.hosts[C].view("a").messages, 1, "it may have arrived, and stays");
    let view = left(&it.hosts[A]);
    assert_eq!((view.waiting, view.resting), (0, 1));

    // Nobody can be reached: without a leave it waits for the oldest, with one for who still has such a queue.
    it.cut(C, B);
    it.hosts[C].put("work", &["5"]);
    assert_eq!(it.hosts[C].view("a").messages, 2);
    let leave = Request::Drain { leave: true };
    it.hosts[A].house.ask(admin, leave).expect("an administrator may");
    it.settle();
    it.hosts[C].put("work", &["6"]);
    assert_eq!((it.hosts[C].view("a").messages, it.hosts[C].view("b").messages), (2, 1));
    it.link(C, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["6"]);

    // As it starts again it has what rests there, and what waits for it arrives.
    it.cut_all(A);
    let host = &mut it.hosts[A];
    (host.run, host.house.settings.start) = (host.run + 1, host.house.settings.start + 1);
    host.house.restart();
    host.client = host.house.connect();
    it.link(C, A);
    it.link(A, C);
    it.settle();
    assert_eq!(it.hosts[A].empty("work"), ["own", "1", "5"]);
    it.check();
}

#[test]
fn a_fanned_name_keeps_copies_for_a_host_that_is_drained_and_none_for_one_that_left() {
    let mut it = with_spread("fanout");
    let admin = drain(&mut it.hosts[A], false);
    send_away(&mut it, A);
    it.hosts[C].put("work", &["1"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    assert_eq!(it.hosts[C].view("a").messages, 1);
    let leave = Request::Drain { leave: true };
    it.hosts[A].house.ask(admin, leave).expect("an administrator may");
    it.settle();
    it.hosts[C].put("work", &["2"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["2"]);
    assert_eq!(it.hosts[C].view("a").messages, 1);
    it.check();
}

#[test]
fn what_is_known_of_a_spread_name_outlives_a_restart() {
    let mut it = with_spread("fanout");
    it.cut_all(C);
    it.hosts[C].crash();
    it.hosts[C].put("work", &["m"]);
    let waiting = [it.hosts[C].view("a").messages, it.hosts[C].view("b").messages];
    assert_eq!(waiting, [1, 1]);
}

#[test]
fn a_name_is_spread_in_one_way_or_none() {
    let mut it = with_spread("fanout");
    for (arguments, refusal) in [
        (vec![("x-spread", text("anycast"))], "inequivalent arg 'x-spread'"),
        (vec![], "inequivalent arg 'x-spread'"),
        (vec![("x-spread", text("wide"))], "invalid arg 'x-spread'"),
    ] {
        let name = if refusal.starts_with("invalid") { "other" } else { "work" };
        let refused = it.ask_own(C, mailbox(name, &arguments)).expect_err("a refusal").to_string();
        assert!(refused.starts_with(refusal), "{refused}");
    }
}
