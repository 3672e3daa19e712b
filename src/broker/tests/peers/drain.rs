//! A host that is taken out of service.

use super::super::house::ONE;
use super::*;

pub(super) fn drain(host: &mut Host, leave: bool) -> ConnectionId {
    let admin = host.house.connect_lax();
    assert!(matches!(host.house.ask(admin, Request::Drain { leave }), Ok(Reply::Done)));
    admin
}

pub(super) fn left(host: &Host) -> DrainView {
    host.house.broker.drain_view()
}

/// What the house's clients and other hosts' links are told, they do.
pub(super) fn send_away(it: &mut Hosts, at: usize) {
    let client = it.hosts[at].client;
    let told = it.hosts[at].house.told(client);
    assert_eq!(
        told.last().map(String::as_str),
        Some("closed by force: this host is being drained")
    );
    it.hosts[at].house.close(client);
    let guests: Vec<_> = it.links.iter().filter(|it| it.to == at).map(|it| it.from).collect();
    for from in guests {
        it.cut(from, at);
    }
}

#[test]
fn clients_are_sent_away_with_what_they_hold_and_what_waits_goes_on() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("there");
    it.hosts[A].declare("own");
    it.settle();
    it.hosts[A].put("own", &["1", "2"]);
    assert!(it.hosts[A].get("own").is_some());
    it.hosts[A].put("there", &["3", "4"]);
    let admin = drain(&mut it.hosts[A], false);
    let expected =
        DrainView { connections: 1, unsettled: 1, waiting: 2, resting: 1, ..left(&it.hosts[A]) };
    assert_eq!(left(&it.hosts[A]), expected);
    assert!(expected.draining);
    send_away(&mut it, A);
    it.settle();
    let done = DrainView { draining: true, resting: 2, ..DrainView::default() };
    assert_eq!(left(&it.hosts[A]), done);
    assert_eq!(it.hosts[B].empty("there"), ["3", "4"]);

    // Who stays may look, and no more.
    let house = &mut it.hosts[A].house;
    let get = || Request::Get { mailbox: "own".into(), no_ack: true };
    let consume = Request::Consume(super::super::request::consume("own", 1));
    let drained = "this host is being drained";
    assert_eq!(house.refused(admin, get()), drained);
    assert_eq!(house.refused(admin, consume), drained);
    house.publish(admin, Post::to("own", "5"));
    assert_eq!(house.told(admin), [format!("no: {drained}")]);
    assert!(house.try_connect("guest", "/", true).is_err_and(|it| it.to_string() == drained));
    house.restart();
    let client = house.connect();
    assert_eq!(house.empty(client, "own"), ["1", "2"]);
    it.check();
}

#[test]
fn other_hosts_are_kept_out_and_keep_what_is_for_this_one() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("own");
    it.settle();
    drain(&mut it.hosts[A], false);
    let guest = it.links.iter().find(|it| it.to == A).expect("a link").guest;
    let drained = "closed by force: this host is being drained";
    assert_eq!(it.hosts[A].house.told(guest), [drained]);
    send_away(&mut it, A);
    it.hosts[B].put("own", &["1"]);
    it.ask(A, ConnectionId(77), Peering::Greet { host: "b".into(), run: 1000, tags: Vec::new() });
    assert_eq!(it.hosts[A].house.told(ConnectionId(77)), [drained]);
    assert_eq!(it.hosts[B].view("a").messages, 1);
    it.cut(A, B);
    it.hosts[A].house.restart();
    it.hosts[A].run += 1;
    it.hosts[A].client = it.hosts[A].house.connect();
    it.link(B, A);
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[A].empty("own"), ["1"]);
}

#[test]
fn a_host_that_leaves_tells_the_others_that_nothing_lives_there() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    let a = it.hosts[A].client;
    it.hosts[A].declare("own");
    it.hosts[A].house.bind(a, "amq.topic", "own", "#");
    it.settle();
    assert_eq!((it.hosts[B].view("a").mailboxes, it.hosts[B].view("a").bindings), (1, 1));
    it.cut(A, C);
    let admin = drain(&mut it.hosts[A], true);
    assert_eq!(left(&it.hosts[A]).untold, 2);
    // What comes later is not told either.
    it.hosts[A].house.declare(admin, "late");
    send_away(&mut it, A);
    it.settle();
    assert_eq!((it.hosts[B].view("a").mailboxes, it.hosts[B].view("a").bindings), (0, 0));
    assert_eq!(left(&it.hosts[A]).untold, 1);
    let b = it.hosts[B].client;
    it.hosts[B].house.publish(b, Post::to("own", "1").mandatory());
    assert_eq!(it.hosts[B].house.told(b), ["returned 1"]);
    it.link(A, C);
    it.settle();
    assert_eq!((left(&it.hosts[A]).untold, it.hosts[C].view("a").mailboxes), (0, 0));
}

#[test]
fn only_administrators_drain_and_http_stops_as_well() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("own");
    let house = &mut it.hosts[A].house;
    house.user("anna", [".*", ".*", ".*"]);
    let anna = house.connect_as("anna", "/", false);
    let refused = house.ask(anna, Request::Drain { leave: false });
    assert!(matches!(refused, Err(Refusal::NotAdministrator(_))));
    assert!(!house.broker.drain_view().draining);
    let behalf = |request| {
        let (user, vhost) = ("guest".into(), "/".into());
        Request::OnBehalf(Box::new(OnBehalf { user, vhost, request }))
    };
    let post = |house: &mut House| Request::Post(Post::to("own", "m").publish(house.now).message);
    let request = behalf(post(house));
    assert!(matches!(house.ask_on(SERVER, ONE, request), Ok(Reply::Routed(true))));
    let get = || behalf(Request::Get { mailbox: "own".into(), no_ack: false });
    assert!(matches!(house.ask_on(SERVER, ONE, get()), Ok(Reply::Got(Some(_)))));
    assert!(house.ask_on(SERVER, ONE, Request::Drain { leave: false }).is_ok());
    assert_eq!(house.broker.drain_view().unsettled, 0, "HTTP's leases return at once");
    let request = behalf(post(house));
    let stopped = house.ask_on(SERVER, ONE, request);
    assert!(matches!(stopped, Ok(Reply::Stopped("this host is being drained"))), "{stopped:?}");
    assert!(house.ask_on(SERVER, ONE, get()).is_err());
}
