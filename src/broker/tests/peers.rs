//! Two and three brokers with links between them, which lose what was on its way when they break.

mod afar;
mod arriving;
mod drain;
mod home;
mod hosts;
mod leave;
mod moving;
mod refused;
mod simulation;
mod spread;
mod tags;

use self::hosts::{Host, Hosts, Link};
use super::house::House;
use super::request::{Post, binding, delete, int, mailbox, purge, text};
use crate::broker::*;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

#[test]
fn a_message_reaches_its_mailbox_wherever_it_lives() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2", "3"]);
    assert_eq!(it.hosts[A].view("b").messages, 3);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "2", "3"]);
    assert_eq!(it.hosts[A].view("b").messages, 0);
    assert!(!it.hosts[A].house.exists("work"));
    it.check();
}

#[test]
fn what_a_host_publishes_while_the_other_is_away_waits_and_comes_in_order() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.cut_all(B);
    let bodies: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    it.hosts[A].put("work", &bodies[..30]);
    it.hosts[A].crash();
    it.hosts[B].crash();
    it.hosts[A].put("work", &bodies[30..]);
    let view = it.hosts[A].view("b");
    assert_eq!((view.messages, view.carried_since), (50, None));
    assert!(view.oldest.is_some() && view.bytes > 50);
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), bodies);
    it.check();
}

#[test]
fn what_was_taken_before_a_link_broke_is_not_taken_again() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2"]);
    let at = it.links.iter().position(|it| it.from == A).expect("a link");
    // It arrives, and the answer is lost.
    it.carry(at);
    it.cut(A, B);
    it.hosts[A].put("work", &["3"]);
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "2", "3"]);
    let view = it.hosts[B].view("a");
    assert_eq!((view.arrived, view.repeated), (3, 2));
    it.check();
}

#[test]
fn a_repeat_is_known_after_the_target_lost_power() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2"]);
    let at = it.links.iter().position(|it| it.from == A).expect("a link");
    it.carry(at);
    it.cut_all(B);
    it.hosts[B].crash();
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "2"]);
    assert_eq!(it.hosts[B].view("a").repeated, 2);
}

#[test]
fn what_was_not_durable_at_the_target_is_brought_again() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2"]);
    it.hosts[B].house.fast_disk = false;
    let at = it.links.iter().position(|it| it.from == A).expect("a link");
    it.carry(at);
    assert!(!it.answer(at), "nothing is said before it is durable");
    it.cut_all(B);
    it.hosts[B].crash();
    it.hosts[B].house.fast_disk = true;
    assert_eq!(it.hosts[B].empty("work"), Vec::<String>::new());
    it.hosts[A].put("work", &["3"]);
    it.link(A, B);
    it.settle();
    // A consumer may have seen the first two before the crash.
    for (body, again) in [("1", true), ("2", true), ("3", false)] {
        let seen = it.hosts[B].get("work").expect("a message").delivery;
        assert_eq!((seen.message.body(), seen.redelivered), (body.as_bytes(), again));
    }
}

#[test]
fn positions_never_repeat_after_a_crash_that_lost_some() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    // Delivered and taken, while the origin wrote nothing of it.
    it.hosts[A].house.fast_disk = false;
    let client = it.hosts[A].client;
    it.hosts[A].house.publish(client, Post::to("work", "transient").transient());
    it.hosts[A].put("work", &["early"]);
    it.settle();
    it.cut_all(A);
    it.hosts[A].crash();
    it.hosts[A].house.fast_disk = true;
    it.link(A, B);
    it.hosts[A].put("work", &["late"]);
    it.settle();
    let all = it.hosts[B].empty("work");
    assert!(all.contains(&"transient".into()) && all.contains(&"late".into()), "{all:?}");
}

#[test]
fn exchanges_of_one_name_and_kind_span_hosts_with_one_copy_for_each() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    for at in [A, B, C] {
        let client = it.hosts[at].client;
        it.hosts[at].house.exchange(client, "news", "topic");
    }
    for (at, name, key) in
        [(A, "qa", "x.#"), (B, "qb1", "x.*"), (B, "qb2", "x.*"), (B, "qb3", "*.y"), (C, "qc", "z")]
    {
        let client = it.hosts[at].client;
        it.hosts[at].declare(name);
        it.hosts[at].house.bind(client, "news", name, key);
    }
    it.settle();
    let client = it.hosts[A].client;
    it.hosts[A].house.publish(client, Post::by("news", "x.y", "m"));
    assert_eq!(it.hosts[A].view("b").messages, 1);
    assert_eq!(it.hosts[A].view("c").messages, 0);
    it.settle();
    assert_eq!(it.hosts[A].empty("qa"), ["m"]);
    for name in ["qb1", "qb2", "qb3"] {
        assert_eq!(it.hosts[B].empty(name), ["m"], "{name}");
    }
    assert_eq!(it.hosts[C].empty("qc"), Vec::<String>::new());
    // Gone here, gone there.
    let client_b = it.hosts[B].client;
    for name in ["qb1", "qb2", "qb3"] {
        it.hosts[B].house.ask(client_b, delete(name)).expect("deleted");
    }
    it.settle();
    it.hosts[A].house.publish(client, Post::by("news", "x.y", "m").mandatory());
    assert_eq!(it.hosts[A].view("b").messages, 0);
    it.check();
}

#[test]
fn a_binding_waits_for_its_exchange_and_one_of_another_kind_stays_apart() {
    let mut it = Hosts::new(&["a", "b"]);
    let (a, b) = (it.hosts[A].client, it.hosts[B].client);
    it.hosts[B].house.exchange(b, "e", "fanout");
    it.hosts[B].declare("q");
    it.hosts[B].house.bind(b, "e", "q", "");
    it.settle();
    it.hosts[A].house.exchange(a, "e", "direct");
    it.hosts[A].house.publish(a, Post::by("e", "", "direct"));
    let gone = Request::DeleteExchange { name: "e".into(), if_unused: true };
    it.hosts[A].house.ask(a, gone).expect("others' bindings do not hold it");
    it.hosts[A].house.exchange(a, "e", "fanout");
    it.hosts[A].house.publish(a, Post::by("e", "", "fanout"));
    it.settle();
    assert_eq!(it.hosts[B].empty("q"), ["fanout"]);
}

#[test]
fn what_arrives_is_not_sent_on_by_bindings() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    for at in [A, B, C] {
        let client = it.hosts[at].client;
        it.hosts[at].declare(["qa", "qb", "qc"][at]);
        it.hosts[at].house.bind(client, "amq.fanout", ["qa", "qb", "qc"][at], "");
    }
    it.settle();
    let client = it.hosts[A].client;
    it.hosts[A].house.publish(client, Post::by("amq.fanout", "", "m"));
    it.settle();
    for at in [A, B, C] {
        assert_eq!(it.hosts[at].empty(["qa", "qb", "qc"][at]), ["m"]);
    }
}

#[test]
fn copies_for_several_keys_go_to_each_host_once() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("qa");
    it.hosts[B].declare("qb");
    it.hosts[B].declare("qb2");
    it.hosts[C].declare("qc");
    it.settle();
    let client = it.hosts[A].client;
    let post = Post::to("qb", "m").cc(&["qa", "qb2", "qc"]);
    it.hosts[A].house.publish(client, post);
    assert_eq!(it.hosts[A].view("b").messages, 1);
    it.settle();
    for (at, name) in [(A, "qa"), (B, "qb"), (B, "qb2"), (C, "qc")] {
        assert_eq!(it.hosts[at].empty(name), ["m"], "{name}");
    }
    it.check();
}

#[test]
fn a_delayed_message_waits_where_it_arrives_and_holds_nobody_up() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    let (client, now) = (it.hosts[A].client, it.hosts[A].house.now);
    let mut later = Post::to("work", "later").publish(now);
    std::sync::Arc::get_mut(&mut later.message).expect("new").deliver_at = now.plus_ms(1000);
    it.hosts[A].house.apply(client, Command::Publish(later));
    it.hosts[A].put("work", &["now"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["now"]);
    it.hosts[B].house.wait(1000);
    let seen = it.hosts[B].get("work").expect("it is due");
    assert_eq!(seen.body, "later");
    assert_eq!(seen.delivery.message.properties(), &Properties::default());
}

#[test]
fn a_message_whose_mailbox_moved_goes_on_and_ends_after_so_many_hosts() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[B].declare("work");
    it.settle();
    // Nobody tells A that it moved.
    it.cut(B, A);
    it.cut(C, A);
    it.hosts[B].ask(delete("work")).expect("deleted");
    it.settle();
    it.hosts[C].declare("work");
    it.settle();
    it.hosts[A].put("work", &["m"]);
    it.settle();
    assert_eq!(it.hosts[C].empty("work"), ["m"]);
    // Each takes the other for its home.
    it.cut(B, C);
    it.cut(C, B);
    it.hosts[C].ask(delete("work")).expect("deleted");
    it.hosts[B].ask(mailbox("other", &[])).expect("declared");
    it.link(B, C);
    it.settle();
    it.cut(B, C);
    it.hosts[B].ask(delete("other")).expect("deleted");
    it.hosts[A].put("work", &["m"]);
    it.settle();
    assert_eq!(it.hosts[B].house.mailbox("peer/c").ready, 1, "it waits for its host");
    it.check();
}

#[test]
fn loops_end() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    // B learns that it lives at A, and A that it lives at B.
    it.cut(B, A);
    it.hosts[B].ask(delete("work")).expect("deleted");
    let guest = it.links[0].guest;
    let definition = MailboxDefinition {
        id: MailboxId(1),
        vhost: "/".into(),
        name: "work".into(),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        epoch: 0,
    };
    let wanted = Wanted::Mailbox(definition);
    let route = RouteDefinition { host: "".into(), vhost: "/".into(), wanted, durable: true };
    let changes = vec![RouteChange { route, gone: false }];
    let learn = Learn { changes, version: 1_000_000, ..Learn::default() };
    it.ask(B, guest, Peering::Learn(learn));
    it.settle();
    it.next += 2;
    let name = it.hosts[B].name.clone();
    let (dial, guest) = (ConnectionId(it.next), ConnectionId(it.next + 1));
    it.ask(A, guest, Peering::Greet { host: name, run: 1, tags: Vec::new() });
    it.ask(B, dial, Peering::Carry { host: "a".into(), tags: Vec::new() });
    it.links.push(Link {
        from: B,
        to: A,
        dial,
        guest,
        outboxes: Vec::new(),
        sent: Vec::new(),
        slow: false,
    });
    it.hosts[A].put("work", &["round"]);
    it.settle();
    let unroutable: u64 = it.hosts.iter().map(|it| it.house.broker.totals.unroutable).sum();
    assert_eq!(unroutable, 1, "it is counted where it ends");
    let passed: u64 = it.hosts.iter().map(|it| it.house.mailbox_published("peer/")).sum();
    assert_eq!(passed, u64::from(HOPS_MAX));
    it.check();
}

#[test]
fn routes_outlive_a_restart_while_their_host_is_away_and_go_when_it_says_so() {
    let mut it = Hosts::new(&["a", "b"]);
    let b = it.hosts[B].client;
    for name in ["stays", "goes"] {
        it.hosts[B].declare(name);
        it.hosts[B].house.bind(b, "amq.topic", name, name);
    }
    it.settle();
    it.cut_all(A);
    it.hosts[A].crash();
    it.hosts[B].house.ask(b, delete("goes")).expect("deleted");
    it.hosts[A].put("stays", &["1"]);
    let a = it.hosts[A].client;
    it.hosts[A].house.publish(a, Post::by("amq.topic", "stays", "2"));
    assert_eq!(it.hosts[A].view("b").messages, 2);
    it.link(B, A);
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[B].empty("stays"), ["1", "2"]);
    let view = it.hosts[A].view("b");
    assert_eq!((view.mailboxes, view.bindings), (1, 1));
    it.hosts[A].house.publish(a, Post::to("goes", "3").mandatory());
    assert_eq!(it.hosts[A].house.told(a), ["returned 3"]);
}

#[test]
fn a_host_that_comes_back_is_told_only_what_is_new() {
    let mut it = Hosts::new(&["a", "b"]);
    for n in 0..600 {
        it.hosts[B].declare(&format!("q{n}"));
    }
    it.settle();
    assert_eq!(it.hosts[A].view("b").mailboxes, 600);
    it.cut(B, A);
    it.hosts[B].ask(delete("q7")).expect("deleted");
    it.hosts[B].declare("new");
    it.link(B, A);
    let dial = it.links.last().expect("a link").dial;
    let events = it.take(B, dial);
    let [Event::Peer(PeerEvent::Adverts { changes, begins: false, ends: true, .. })] = &events[..]
    else {
        panic!("{events:?}")
    };
    let changes: Vec<_> =
        changes.iter().map(|it| (it.route.mailbox().map(|it| it.to_string()), it.gone)).collect();
    assert_eq!(changes, [(Some("q7".into()), true), (Some("new".into()), false)]);
}

#[test]
fn the_older_of_two_homes_wins_and_the_other_serves_its_own_host() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.cut_all(B);
    it.hosts[A].declare("work");
    it.hosts[B].house.wait(10);
    it.hosts[B].declare("work");
    for (from, to) in [(A, B), (B, A), (B, C), (C, B)] {
        it.link(from, to);
    }
    it.settle();
    it.hosts[C].put("work", &["c"]);
    it.hosts[B].put("work", &["b"]);
    it.settle();
    assert_eq!(it.hosts[A].empty("work"), ["c"]);
    assert_eq!(it.hosts[B].empty("work"), ["b"]);
    assert_eq!(it.hosts[C].view("b").shadowed, [Name::from("work")]);
    assert_eq!(it.hosts[C].view("a").shadowed, Vec::<Name>::new());
}

#[test]
fn outboxes_are_out_of_reach_of_clients() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.settle();
    let client = it.hosts[A].client;
    let house = &mut it.hosts[A].house;
    house.broker.apply(client, Command::Close(None), house.now, &mut Vec::new());
    let client = house.connect_lax();
    let locked = "cannot obtain exclusive access to locked queue 'peer/b' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.";
    let get = Request::Get { mailbox: "peer/b".into(), no_ack: true };
    let bind = Request::Bind(binding("amq.fanout", "peer/b", ""));
    let consume = Request::Consume(super::request::consume("peer/b", 1));
    for request in [mailbox("peer/b", &[]), get, bind, consume, delete("peer/b")] {
        assert_eq!(house.refused(client, request), locked);
    }
    assert_eq!(
        house.refused(client, mailbox("peer/new", &[])),
        "queue name 'peer/new' contains reserved prefix 'peer/'"
    );
    house.publish(client, Post::to("peer/b", "no").mandatory());
    assert_eq!(house.told(client), ["returned no"]);
    // Whoever administers may look and throw away.
    house.put(client, "work", &["x"]);
    assert!(matches!(house.ask(client, purge("peer/b")), Ok(Reply::Counted(0 | 1))));
}

#[test]
fn a_mailbox_that_lives_elsewhere_is_declared_as_what_it_is() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].ask(mailbox("work", &[("x-max-length", int(5))])).expect("declared");
    it.settle();
    let client = it.hosts[A].house.connect_lax();
    assert!(it.ask_as(A, client, mailbox("work", &[("x-max-length", int(5))])).is_ok());
    assert!(!it.hosts[A].house.exists("work"));
    let house = &mut it.hosts[A].house;
    assert!(
        house.refused(client, mailbox("work", &[])).starts_with("inequivalent arg 'x-max-length'")
    );
}

#[test]
fn a_client_cannot_bring_the_header_of_outboxes() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.hosts[B].declare("secret");
    it.settle();
    let client = it.hosts[A].client;
    let mut forged = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0];
    forged.extend_from_slice(b"secret");
    let post = Post::to("work", "m").header("x-pillarbox-parcel", Value::Binary(forged.into()));
    it.hosts[A].house.publish(client, post.header("other", text("stays")));
    it.settle();
    assert_eq!(it.hosts[B].empty("secret"), Vec::<String>::new());
    let seen = it.hosts[B].get("work").expect("a message");
    let headers = seen.delivery.message.properties().headers.clone().expect("headers");
    assert_eq!(headers, super::request::table(&[("other", text("stays"))]));
}

#[test]
fn an_old_connection_of_a_host_has_nothing_to_say() {
    let mut it = Hosts::new(&["a", "b"]);
    let old = it.links.iter().find(|it| it.from == A).expect("a link").guest;
    it.ask(B, ConnectionId(77), Peering::Greet { host: "a".into(), run: 1000, tags: Vec::new() });
    assert_eq!(it.hosts[B].house.told(old), ["closed by force: host 'a' came again"]);
    it.hosts[B].declare("work");
    let message = Post::to("work", "late").publish(it.hosts[B].house.now).message.detached();
    let messages = vec![(Seq(5), message)];
    let arrival = Arrival { vhost: "/".into(), outbox: MailboxId(9), messages };
    it.ask(B, old, Peering::Arrive(arrival));
    assert_eq!(it.hosts[B].house.ready("work"), 0);
    assert_eq!(it.hosts[B].house.told(old), Vec::<String>::new());
}

#[test]
fn a_reply_finds_its_way_back_to_whoever_asked() {
    let mut it = Hosts::new(&["a", "b"]);
    let address = "amq.rabbitmq.reply-to.x.1";
    let replies = Request::ConsumeReplies { consumer: ConsumerId(9), address: address.into() };
    assert!(it.hosts[A].ask(replies).is_ok());
    it.settle();
    let passive = || {
        let mut declare = super::request::declare(address, &[]);
        declare.passive = true;
        Request::DeclareMailbox(declare)
    };
    assert!(it.hosts[B].ask(passive()).is_ok());
    it.hosts[B].put(address, &["answer"]);
    it.settle();
    let client = it.hosts[A].client;
    assert_eq!(it.hosts[A].house.by_consumer(client), [(9, "answer".into())]);
    // Nobody waits any longer, and everybody knows.
    assert!(it.hosts[A].ask(Request::Cancel(ConsumerId(9))).is_ok());
    it.settle();
    let b = it.hosts[B].client;
    it.hosts[B].house.publish(b, Post::to(address, "late").mandatory());
    assert_eq!(it.hosts[B].house.told(b), ["returned late"]);
    let b = it.hosts[B].house.connect_lax();
    assert!(it.hosts[B].house.refused(b, passive()).starts_with("no queue"));
    it.check();
}

#[test]
fn a_virtual_host_that_comes_later_finds_what_waits_for_it() {
    let mut it = Hosts::new(&["a", "b"]);
    let vhost = || {
        Definition::Vhost(VhostDefinition {
            name: "v".into(),
            description: String::new(),
            tags: Vec::new(),
            default_queue_type: None,
            tracing: false,
            protected: false,
            max_connections: None,
            max_mailboxes: None,
        })
    };
    let permission = || {
        Definition::Permission(PermissionDefinition {
            vhost: "v".into(),
            user: "guest".into(),
            configure: ".*".into(),
            write: ".*".into(),
            read: ".*".into(),
        })
    };
    it.hosts[B].house.define(vhost());
    it.hosts[B].house.define(permission());
    let b = it.hosts[B].house.connect_as("guest", "v", true);
    it.hosts[B].house.declare(b, "work");
    it.settle();
    it.hosts[A].house.define(vhost());
    it.hosts[A].house.define(permission());
    let a = it.hosts[A].house.connect_as("guest", "v", true);
    it.hosts[A].house.put(a, "work", &["m"]);
    it.settle();
    assert_eq!(it.hosts[B].house.empty(b, "work"), ["m"]);
}
