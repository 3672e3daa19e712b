//! Hosts that are gone for good, and what becomes of what waits for them.

use super::super::house::{ONE, TWO};
use super::*;

pub(super) fn forget(host: &mut Host, name: &str, fate: Fate) -> Result<u64, String> {
    let client = host.house.connect_lax();
    match host.house.ask(client, Request::ForgetPeer { host: name.into(), fate }) {
        Ok(Reply::Counted(count)) => Ok(count),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.to_string()),
    }
}

fn known(host: &Host) -> Vec<String> {
    host.house.broker.peer_views(None, 10).iter().map(|it| it.host.to_string()).collect()
}

/// Three hosts, of which B is gone while messages wait for it at A.
fn without_b(waiting: &[&str]) -> Hosts {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[B].declare("work");
    let b = it.hosts[B].client;
    it.hosts[B].house.bind(b, "amq.topic", "work", "#");
    it.settle();
    it.cut_all(B);
    it.hosts[A].put("work", waiting);
    it
}

#[test]
fn a_host_is_forgotten_with_its_routes_once_nothing_waits() {
    let mut it = without_b(&["1", "2"]);
    it.hosts[C].declare("there");
    it.settle();
    assert_eq!(
        forget(&mut it.hosts[A], "b", Fate::Absent),
        Err("2 messages wait for host 'b': drop or redirect them".into())
    );
    assert_eq!(it.hosts[A].view("b").messages, 2);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Dropped), Ok(2));
    let told = it.take(A, SERVER);
    let forgotten =
        |it: &Event| matches!(it, Event::Peer(PeerEvent::Forgotten { host }) if *host == *"b");
    assert!(told.iter().any(forgotten), "{told:?}");
    assert_eq!(known(&it.hosts[A]), ["c"]);
    assert!(!it.hosts[A].house.exists("peer/b"));
    let a = it.hosts[A].client;
    it.hosts[A].house.publish(a, Post::to("work", "3").mandatory());
    assert_eq!(it.hosts[A].house.told(a), ["returned 3"]);
    it.hosts[A].house.publish(a, Post::by("amq.topic", "x", "4").mandatory());
    assert_eq!(it.hosts[A].house.told(a), ["returned 4"]);
    it.hosts[A].crash();
    assert_eq!(known(&it.hosts[A]), ["c"]);
    it.check();
}

#[test]
fn who_is_linked_or_unknown_is_not_forgotten() {
    let mut it = Hosts::new(&["a", "b"]);
    let linked = Err("host 'b' is linked: only one that is gone can be forgotten".to_owned());
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Dropped), linked);
    it.cut(A, B);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Dropped), linked);
    it.cut(B, A);
    assert_eq!(forget(&mut it.hosts[A], "x", Fate::Dropped), Err("no host 'x' is known".into()));
    for to in ["x", "b"] {
        let text = format!("no other host '{to}' is known");
        assert_eq!(forget(&mut it.hosts[A], "b", Fate::SentTo(to.into())), Err(text));
    }
    let house = &mut it.hosts[A].house;
    house.user("anna", [".*", ".*", ".*"]);
    let anna = house.connect_as("anna", "/", false);
    let request = Request::ForgetPeer { host: "b".into(), fate: Fate::Dropped };
    assert!(matches!(house.ask(anna, request), Err(Refusal::NotAdministrator(_))));
}

#[test]
fn what_waits_goes_to_another_host_in_order_and_outlives_a_crash() {
    let bodies: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let mut it = without_b(&bodies);
    it.hosts[C].declare("there");
    it.settle();
    // Most of it is in the store only.
    it.hosts[A].crash();
    it.cut_all(C);
    assert_eq!(forget(&mut it.hosts[C], "b", Fate::Dropped), Ok(0));
    it.hosts[C].declare("work");
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::SentTo("c".into())), Ok(40));
    assert_eq!((known(&it.hosts[A]), it.hosts[A].view("c").messages), (vec!["c".into()], 40));
    it.hosts[A].crash();
    it.link(A, C);
    it.settle();
    assert_eq!(it.hosts[C].empty("work"), bodies);
    it.check();
}

#[test]
fn what_waits_goes_to_where_its_mailbox_lives_now() {
    let mut it = without_b(&["1"]);
    let a = it.hosts[A].client;
    it.hosts[A].house.publish(a, Post::by("amq.topic", "x", "2"));
    it.hosts[A].put("work", &["3"]);
    assert_eq!(forget(&mut it.hosts[C], "b", Fate::Absent), Ok(0));
    it.hosts[C].declare("work");
    it.hosts[A].house.declare(a, "own");
    it.hosts[A].house.bind(a, "amq.topic", "own", "x");
    it.settle();
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Routed), Ok(3));
    it.settle();
    assert_eq!(it.hosts[C].empty("work"), ["1", "3"]);
    assert_eq!(it.hosts[A].empty("own"), ["2"]);
    assert_eq!(known(&it.hosts[A]), ["c"]);
    it.check();
}

#[test]
fn what_leads_nowhere_stays_until_its_mailbox_is_there() {
    let mut it = without_b(&["1", "2"]);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Routed), Ok(2));
    let view = it.hosts[A].view("b");
    assert_eq!(view.messages, 2);
    let error = view.error.map(|(_, text)| text);
    assert_eq!(error.as_deref(), Some("what waits stays: no queue 'work' is known"));
    it.hosts[A].declare("work");
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Routed), Ok(2));
    assert_eq!(it.hosts[A].empty("work"), ["1", "2"]);
    assert_eq!(known(&it.hosts[A]), ["c"]);
    it.check();
}

#[test]
fn what_is_sent_on_does_not_go_in_circles() {
    let mut it = without_b(&["1"]);
    it.hosts[C].declare("other");
    it.settle();
    it.cut_all(C);
    it.hosts[A].put("other", &["2"]);
    // Nothing of it is shown before it is durable, so it stays for a while.
    it.hosts[A].house.fast_disk = false;
    it.hosts[A].put("other", &["3"]);
    let a = it.hosts[A].client;
    let request = |host: &str, to: &str| Request::ForgetPeer {
        host: host.into(),
        fate: Fate::SentTo(to.into()),
    };
    it.hosts[A].house.send(a, ONE, request("c", "b"));
    it.hosts[A].house.send(a, TWO, request("b", "c"));
    it.hosts[A].house.fast_disk = true;
    it.hosts[A].house.sync();
    let views = it.hosts[A].house.broker.peer_views(None, 10);
    let waiting: u64 = views.iter().map(|it| it.messages).sum();
    assert_eq!(waiting, 3);
    it.check();
}

#[test]
fn a_host_that_comes_back_takes_what_waits_and_its_repeats_are_known() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    it.hosts[B].put("work", &["1"]);
    let at = it.links.iter().position(|it| it.from == B).expect("a link");
    // It arrives, and the answer is lost.
    it.carry(at);
    it.cut_all(B);
    assert_eq!(forget(&mut it.hosts[A], "b", Fate::Dropped), Ok(0));
    it.hosts[A].crash();
    assert_eq!(known(&it.hosts[A]), Vec::<String>::new());
    for (from, to) in [(A, B), (B, A)] {
        it.link(from, to);
    }
    it.hosts[B].declare("back");
    it.settle();
    it.hosts[A].put("back", &["2"]);
    it.settle();
    assert_eq!(it.hosts[A].empty("work"), ["1"]);
    assert_eq!(it.hosts[B].empty("back"), ["2"]);
    it.check();
}
