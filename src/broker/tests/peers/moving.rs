//! Mailboxes that move from one host to another.

use super::super::house::ONE;
use super::super::request::{consume, table};
use super::*;

impl Host {
    /// Whether it is the mailbox's home.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.epoch_of(name).is_some()
    }

    /// Where it is the mailbox's home.
    pub(super) fn epoch_of(&self, name: &str) -> Option<u64> {
        self.house.broker.find(&"/".into(), name).map(|it| it.definition.epoch)
    }

    /// The best home elsewhere that it knows of.
    pub(super) fn best_elsewhere(&self, name: &str) -> Option<(u64, Name)> {
        let home = self.house.broker.vhosts.get("/")?.away.get(name)?.first()?;
        Some((home.epoch.0, home.host.clone()))
    }
}

impl Hosts {
    /// As an administrator at that host asks for it, until the other one answered.
    pub(super) fn move_to(&mut self, at: usize, name: &str, to: &str) -> Result<u64, String> {
        let client = self.hosts[at].house.connect_lax();
        let request = Request::MoveMailbox { name: name.into(), to: to.into() };
        match self.ask_as(at, client, request) {
            Ok(Reply::Counted(count)) => Ok(count),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// It is asked for, and nothing is carried yet.
    fn begin_move(&mut self, at: usize, name: &str, to: &str) {
        let client = self.hosts[at].house.connect_lax();
        let request = Request::MoveMailbox { name: name.into(), to: to.into() };
        self.hosts[at].house.send(client, ONE, request);
    }

    fn link_at(&self, from: usize, to: usize) -> usize {
        let at = self.links.iter().position(|it| (it.from, it.to) == (from, to));
        at.expect("a link")
    }

    /// All links that do not stand.
    fn relink(&mut self) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|to| *to != from) {
                if !self.links.iter().any(|it| (it.from, it.to) == (from, to)) {
                    self.link(from, to);
                }
            }
        }
        self.settle();
    }

    /// So that whoever passes on needs it no longer.
    fn linger(&mut self) {
        for host in &mut self.hosts {
            host.house.wait(61_000);
        }
        self.settle();
    }
}

fn numbers(count: u32) -> Vec<String> {
    (0..count).map(|it| it.to_string()).collect()
}

fn put_all(host: &mut Host, name: &str, bodies: &[String]) {
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    host.put(name, &bodies);
}

#[test]
fn a_mailbox_moves_with_all_that_rests_in_it_in_order() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("work");
    it.settle();
    let bodies = numbers(100);
    put_all(&mut it.hosts[A], "work", &bodies);
    assert_eq!(it.move_to(A, "work", "b"), Ok(100));
    it.settle();
    assert_eq!(it.move_to(A, "work", "b"), Ok(0), "asked again, nothing is here any longer");
    assert_eq!((it.hosts[A].serves("work"), it.hosts[B].serves("work")), (false, true));
    // From everywhere it is found there.
    it.hosts[A].put("work", &["from a"]);
    it.hosts[C].put("work", &["from c"]);
    it.settle();
    let more = [bodies, vec!["from a".into(), "from c".into()]].concat();
    assert_eq!(it.hosts[B].empty("work"), more);
    it.linger();
    assert!(!it.hosts[A].house.exists("work"), "nobody takes A for its home any longer");
    for at in [A, B, C] {
        it.hosts[at].put("work", &["later"]);
    }
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["later"; 3]);
    assert!(it.hosts[C].view("a").shadowed.is_empty());
    it.check();
}

#[test]
fn what_is_known_of_a_message_moves_with_it() {
    let mut it = Hosts::new(&["a", "b"]);
    let a = it.hosts[A].client;
    let arguments = [("x-max-priority", int(5)), ("x-queue-mode", text("lazy"))];
    it.hosts[A].house.declare_with(a, "work", &arguments);
    it.settle();
    let house = &mut it.hosts[A].house;
    house.publish(a, Post::to("work", "low"));
    let kept = Post::to("work", "kept").priority(5).expiration(100_000).header("x", text("y"));
    house.publish(a, kept);
    let mut later = Post::to("work", "later").publish(house.now);
    let mut message = later.message.detached();
    message.deliver_at = house.now.plus_ms(50_000);
    later.message = message.into();
    house.apply(a, Command::Publish(later));
    let seen = house.get(a, "work").expect("a message");
    assert_eq!(seen.body, "kept");
    let (id, accepted) = (seen.delivery.message.id, seen.delivery.message.accepted);
    house.settle(a, &seen, Outcome::Released);
    house.wait(40_000);
    it.hosts[B].house.wait(40_000);
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    let b = it.hosts[B].client;
    let house = &mut it.hosts[B].house;
    let found = house.mailbox("work").definition.clone();
    assert_eq!((found.arguments, found.epoch), (table(&arguments), 1));
    let seen = house.get(b, "work").expect("a message");
    let message = &seen.delivery.message;
    assert_eq!((&*seen.body, seen.redelivered), ("kept", true));
    assert_eq!((message.id, message.accepted, message.priority()), (id, accepted, 5));
    assert_eq!(message.properties().header("x"), Some(&text("y")));
    assert_eq!(message.properties().headers.as_ref().map(|it| it.len()), Some(1));
    assert_eq!(
        house.get(b, "work").map(|it| (it.body, it.redelivered)),
        Some(("low".into(), false))
    );
    assert!(house.get(b, "work").is_none(), "one waits for its time");
    house.settle(b, &seen, Outcome::Released);
    house.wait(10_001);
    assert_eq!(house.get(b, "work").map(|it| it.body), Some("kept".into()));
    house.close(b);
    let b = house.connect();
    // Its time to live began at its first home.
    house.wait(50_000);
    assert_eq!(house.empty(b, "work"), ["low", "later"]);
    it.check();
}

#[test]
fn attempts_are_counted_on() {
    let mut it = Hosts::new(&["a", "b"]);
    let a = it.hosts[A].client;
    let arguments = [("x-queue-type", text("quorum")), ("x-delivery-limit", int(3))];
    it.hosts[A].house.declare_with(a, "work", &arguments);
    it.settle();
    it.hosts[A].put("work", &["1"]);
    for _ in 0..2 {
        let seen = it.hosts[A].get("work").expect("a message");
        it.hosts[A].house.settle(a, &seen, Outcome::Modified { delay_ms: Some(0) });
    }
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    it.hosts[B].crash();
    let b = it.hosts[B].client;
    let seen = it.hosts[B].get("work").expect("a message");
    assert_eq!((seen.delivery.attempts, seen.redelivered), (Some(2), true));
    it.hosts[B].house.settle(b, &seen, Outcome::Modified { delay_ms: Some(0) });
    let seen = it.hosts[B].get("work").expect("a message");
    it.hosts[B].house.settle(b, &seen, Outcome::Modified { delay_ms: Some(0) });
    assert!(it.hosts[B].get("work").is_none(), "it failed as often as it may, at two hosts");
}

#[test]
fn delayed_messages_that_only_the_store_holds_move_before_they_are_due() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    let a = it.hosts[A].client;
    let house = &mut it.hosts[A].house;
    for number in 0..40_u64 {
        let mut later = Post::to("work", &number.to_string()).publish(house.now);
        let mut message = later.message.detached();
        message.deliver_at = house.now.plus_ms(1000 + number);
        later.message = message.into();
        house.apply(a, Command::Publish(later));
    }
    it.hosts[A].crash();
    it.relink_after_crash(A);
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    assert_eq!(it.hosts[A].house.mailbox("work").left(), 0);
    assert!(it.hosts[B].get("work").is_none());
    it.hosts[B].house.wait(2000);
    assert_eq!(it.hosts[B].empty("work"), numbers(40));
    it.check();
}

impl Hosts {
    /// Who crashed lost its links.
    fn relink_after_crash(&mut self, at: usize) {
        self.cut_all(at);
        self.relink();
    }
}

#[test]
fn clients_of_the_old_home_are_sent_to_the_new_one() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2", "3"]);
    let reader = it.hosts[A].house.connect();
    it.hosts[A].house.consume_with(reader, "work", 1, |it| it.prefetch = 2);
    let held = it.hosts[A].house.seen(reader);
    assert_eq!(held.len(), 2);
    let afar = it.hosts[B].house.connect();
    it.ask_as(B, afar, Request::Consume(consume("work", 1))).expect("it is read from afar");
    assert_eq!(it.hosts[B].house.bodies(afar), ["3"]);
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    assert_eq!(it.hosts[A].house.told(reader), ["cancelled 1"]);
    assert_eq!(it.hosts[B].house.told(afar), ["cancelled 1"]);
    // What is settled too late is no error, and comes again.
    it.hosts[A].house.settle(reader, &held[0], Outcome::Accepted);
    assert!(it.hosts[A].house.told(reader).is_empty());
    it.ask_as(A, reader, Request::Consume(consume("work", 1))).expect("from afar now");
    it.settle();
    let again = it.hosts[A].house.seen(reader);
    let bodies: Vec<_> = again.iter().map(|it| (&*it.body, it.redelivered)).collect();
    assert_eq!(bodies, [("1", true), ("2", true), ("3", true)]);
    it.check();
}

#[test]
fn who_asks_the_old_home_over_a_link_is_told_where_it_lives() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("work");
    it.settle();
    // C does not hear of it.
    it.cut(B, C);
    it.move_to(A, "work", "b").expect("it moves");
    let client = it.hosts[C].house.connect_lax();
    for request in [
        Request::Consume(consume("work", 1)),
        Request::Get { mailbox: "work".into(), no_ack: true },
        purge("work"),
        delete("work"),
    ] {
        let refusal = it.ask_as(C, client, request).expect_err("it lives elsewhere");
        assert_eq!(refusal.to_string(), "queue 'work' in vhost '/' lives on host 'b'");
    }
    // What is published there is passed on, for as long as it takes.
    it.linger();
    it.hosts[C].put("work", &["1"]);
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    it.check();
}

#[test]
fn it_moves_whatever_crashes_in_between() {
    // Before B was asked, before its answer, and after it; A, B, and both.
    for carried in 0..6 {
        for crashed in [&[A][..], &[B], &[A, B]] {
            let mut it = Hosts::new(&["a", "b", "c"]);
            it.hosts[A].declare("work");
            it.settle();
            let bodies = numbers(30);
            put_all(&mut it.hosts[A], "work", &bodies);
            it.begin_move(A, "work", "b");
            let (there, back) = (it.link_at(A, B), it.link_at(B, A));
            for step in 0..carried {
                match step % 3 {
                    0 => drop(it.carry(there)),
                    1 => drop(it.answer(there)),
                    _ => drop(it.carry(back)),
                }
            }
            for at in crashed {
                it.hosts[*at].crash();
                it.cut_all(*at);
            }
            it.relink();
            let homes = [A, B].map(|at| it.hosts[at].serves("work"));
            assert!(homes[A] != homes[B], "{homes:?} after {carried} steps and {crashed:?}");
            it.move_to(if homes[A] { A } else { B }, "work", "b").ok();
            it.settle();
            assert!(it.hosts[B].serves("work") && !it.hosts[A].serves("work"));
            assert_eq!(it.hosts[B].empty("work"), bodies, "{carried} steps, {crashed:?}");
            it.check();
        }
    }
}

#[test]
fn what_leaves_is_sent_once_it_is_durable_that_it_left() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.hosts[B].declare("other");
    it.settle();
    // The outbox is used already.
    it.hosts[A].put("other", &["1"]);
    it.settle();
    let bodies = numbers(30);
    put_all(&mut it.hosts[A], "work", &bodies);
    it.hosts[A].house.sync();
    it.hosts[A].house.fast_disk = false;
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    // What is handed over is on its way to the disk, and not yet there.
    it.hosts[A].house.seal();
    it.hosts[A].house.durable();
    it.settle();
    assert_eq!(it.hosts[A].house.mailbox("peer/b").counts.published, 32);
    assert_eq!(it.hosts[B].house.mailbox("work").counts.published, 0, "it might come again");
    it.hosts[A].house.fast_disk = true;
    it.hosts[A].crash();
    it.cut_all(A);
    it.relink();
    assert_eq!(it.hosts[B].empty("work"), bodies);
    assert_eq!(it.hosts[B].house.mailbox("work").counts.published, 30);
    it.check();
}

#[test]
fn a_move_ends_however_often_the_link_breaks() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    let bodies = numbers(60);
    put_all(&mut it.hosts[A], "work", &bodies);
    it.move_to(A, "work", "b").expect("it moves");
    it.hosts[B].house.fast_disk = false;
    it.cut_all(B);
    it.hosts[B].house.fast_disk = true;
    it.hosts[B].house.sync();
    it.relink();
    for _ in 0..3 {
        it.hosts[A].put("work", &["more"]);
        let there = it.link_at(A, B);
        it.carry(there);
        it.cut(A, B);
        it.link(A, B);
    }
    it.settle();
    let all = [bodies, vec!["more".into(); 3]].concat();
    assert_eq!(it.hosts[B].empty("work"), all);
    it.check();
}

#[test]
fn a_link_that_breaks_before_the_answer_is_said_and_the_move_asked_again() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1"]);
    let client = it.hosts[A].house.connect_lax();
    let request = || Request::MoveMailbox { name: "work".into(), to: "b".into() };
    let ticket = it.hosts[A].house.send(client, ONE, request());
    it.cut(A, B);
    let answer = it.hosts[A].house.answer(client, ticket).expect("an answer");
    let refusal = answer.expect_err("nobody took it").to_string();
    assert_eq!(refusal, "the link to host 'b' broke: ask again");
    assert!(it.hosts[A].serves("work") && !it.hosts[B].serves("work"));
    let refusal = it.hosts[A].house.ask(client, request()).expect_err("not linked").to_string();
    assert_eq!(refusal, "host 'b' is not linked");
    it.link(A, B);
    it.settle();
    assert_eq!(it.move_to(A, "work", "b"), Ok(1));
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
}

#[test]
fn publishers_on_every_host_lose_nothing_and_keep_their_order_at_the_old_home() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("work");
    it.settle();
    it.begin_move(A, "work", "b");
    let mut count = 0;
    for _ in 0..10 {
        for at in [A, B, C] {
            count += 1;
            let body = format!("{}{count}", ["a", "b", "c"][at]);
            it.hosts[at].put("work", &[&body]);
        }
        for at in 0..it.links.len() {
            it.carry(at);
            it.answer(at);
        }
    }
    it.settle();
    let all = it.hosts[B].empty("work");
    assert_eq!(all.len(), 30, "{all:?}");
    for host in ["a", "b", "c"] {
        let of = all.iter().filter_map(|it| it.strip_prefix(host)?.parse::<u32>().ok());
        let of: Vec<u32> = of.collect();
        assert_eq!(of.len(), 10, "{host} in {all:?}");
        assert!(host != "a" || of.is_sorted(), "{all:?}");
    }
    it.check();
}

#[test]
fn a_host_that_comes_back_with_an_old_store_gives_way() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    let old = it.hosts[A].house.disk.clone();
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    it.hosts[A].house.disk = old;
    it.hosts[A].crash();
    it.cut_all(A);
    // It knows nothing of the move, and serves until it does.
    assert!(it.hosts[A].serves("work"));
    it.hosts[A].put("work", &["1"]);
    it.relink();
    assert!(!it.hosts[A].serves("work"));
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
}

#[test]
fn it_moves_on_and_back_again() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2"]);
    for (from, to) in [(A, "b"), (B, "c"), (C, "a"), (A, "c")] {
        it.move_to(from, "work", to).expect("it moves");
        it.settle();
    }
    assert_eq!([A, B, C].map(|at| it.hosts[at].serves("work")), [false, false, true]);
    for at in [A, B, C] {
        it.hosts[at].put("work", &["3"]);
        it.settle();
    }
    it.linger();
    assert_eq!([A, B].map(|at| it.hosts[at].house.exists("work")), [false, false]);
    assert_eq!(it.hosts[C].empty("work"), ["1", "2", "3", "3", "3"]);
    assert_eq!(it.hosts[C].house.mailbox("work").definition.epoch, 4);
    it.hosts[C].crash();
    assert_eq!(it.hosts[C].house.mailbox("work").definition.epoch, 4);
    it.check();
}

#[test]
fn bindings_move_too_and_each_message_comes_once() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    let a = it.hosts[A].client;
    it.hosts[A].house.exchange(a, "news", "topic");
    let c = it.hosts[C].client;
    it.hosts[C].house.exchange(c, "news", "topic");
    for name in ["work", "other"] {
        it.hosts[A].declare(name);
        it.hosts[A].house.bind(a, "news", name, "x.*");
    }
    // B gets a copy of each for a mailbox of its own as well.
    let b = it.hosts[B].client;
    it.hosts[B].house.exchange(b, "news", "topic");
    it.hosts[B].declare("own");
    it.hosts[B].house.bind(b, "news", "own", "#");
    it.settle();
    it.hosts[A].house.publish(a, Post::by("news", "x.1", "before"));
    it.begin_move(A, "work", "b");
    let mut all = Vec::new();
    let mut expected = vec!["before".to_owned()];
    for number in 0..8 {
        for (at, client) in [(A, a), (C, c)] {
            let body = format!("{number} of {at}");
            it.hosts[at].house.publish(client, Post::by("news", "x.1", &body));
            expected.push(body);
        }
        // Whoever serves hands out what there is.
        for at in [A, B] {
            if it.hosts[at].serves("work") {
                all.extend(it.hosts[at].empty("work"));
            }
        }
        for at in 0..it.links.len() {
            it.carry(at);
            it.answer(at);
        }
    }
    it.settle();
    all.extend(it.hosts[B].empty("work"));
    all.sort();
    expected.sort();
    assert_eq!(all, expected);
    // While its former home still passes on, and after.
    for round in ["passes on", "is gone"] {
        for (at, client) in [(A, a), (B, b), (C, c)] {
            it.hosts[at].house.publish(client, Post::by("news", "x.2", round));
        }
        it.settle();
        assert_eq!(it.hosts[B].empty("work"), [round; 3]);
        it.linger();
    }
    assert!(!it.hosts[A].house.exists("work"));
    let others = it.hosts[A].empty("other");
    assert_eq!(others.len(), expected.len() + 6, "another mailbox stays, with its bindings");
    it.check();
}

#[test]
fn a_mailbox_that_is_deleted_at_its_new_home_is_gone_everywhere() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[A].declare("work");
    it.settle();
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    let client = it.hosts[A].client;
    it.ask_as(A, client, delete("work")).expect("it is deleted where it lives");
    it.settle();
    for at in [A, B, C] {
        assert!(!it.hosts[at].house.exists("work"), "{at}");
        let client = it.hosts[at].client;
        it.hosts[at].house.publish(client, Post::to("work", "1").mandatory());
        assert_eq!(it.hosts[at].house.told(client), ["returned 1"]);
    }
    it.check();
}

#[test]
fn what_still_rests_at_the_old_home_when_the_new_one_lost_the_mailbox_stays_there() {
    let mut it = Hosts::new(&["a", "b"]);
    let a = it.hosts[A].client;
    let request = Request::DeclareMailbox(DeclareMailbox {
        durable: false,
        ..super::super::request::declare("work", &[])
    });
    it.hosts[A].ask(request).expect("a passing mailbox");
    it.settle();
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    it.hosts[B].crash();
    it.cut_all(B);
    it.hosts[A].house.publish(a, Post::to("work", "1"));
    it.relink();
    // B has it no longer, and says so; what waited for B comes back to nobody, and A serves what it has.
    it.hosts[A].declare_if_gone("work");
    it.hosts[A].put("work", &["2"]);
    it.settle();
    assert!(it.hosts[A].serves("work"));
    assert!(it.hosts[A].empty("work").contains(&"2".into()));
}

impl Host {
    fn declare_if_gone(&mut self, name: &str) {
        if !self.serves(name) {
            self.declare(name);
        }
    }
}

#[test]
fn what_moved_to_a_host_that_is_forgotten_lives_here_again() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    it.move_to(A, "work", "b").expect("it moves");
    it.settle();
    it.cut_all(B);
    let client = it.hosts[A].house.connect_lax();
    let request = Request::ForgetPeer { host: "b".into(), fate: Fate::Dropped };
    it.hosts[A].house.ask(client, request).expect("it is gone");
    it.hosts[A].put("work", &["1"]);
    assert_eq!(it.hosts[A].get("work").map(|it| it.body), Some("1".into()));
    // It was not gone after all.
    it.relink();
    assert_eq!([A, B].map(|at| it.hosts[at].serves("work")), [false, true]);
    assert_eq!(it.hosts[B].empty("work"), ["1"]);
    it.check();
}

#[test]
fn what_cannot_move_says_why() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    let a = it.hosts[A].client;
    for (name, arguments) in [
        ("stream", vec![("x-queue-type", text("stream"))]),
        ("spread", vec![("x-spread", text("fanout"))]),
    ] {
        it.hosts[A].house.declare_with(a, name, &arguments);
    }
    for name in ["work", "hashed", "fed", "same"] {
        it.hosts[A].declare(name);
    }
    it.hosts[A].house.exchange(a, "hash", "x-consistent-hash");
    it.hosts[A].house.bind(a, "hash", "hashed", "1");
    it.hosts[A].house.exchange(a, "inner", "fanout");
    it.hosts[A].house.bind(a, "inner", "fed", "");
    let bind = BindingOf {
        destination: Destination::Exchange("inner".into()),
        ..binding("amq.topic", "x", "#")
    };
    it.hosts[A].ask(Request::Bind(bind)).expect("an exchange behind another one");
    it.hosts[B].declare("there");
    it.settle();
    for (name, to, why) in [
        ("stream", "b", "queue 'stream' in vhost '/' cannot be moved: it is a stream"),
        (
            "spread",
            "b",
            "queue 'spread' in vhost '/' cannot be moved: it lives on several hosts ('x-spread')",
        ),
        (
            "hashed",
            "b",
            "queue 'hashed' in vhost '/' is bound to exchange 'hash', whose type 'x-consistent-hash' does not span hosts: it cannot be moved",
        ),
        (
            "fed",
            "b",
            "queue 'fed' in vhost '/' is bound to exchange 'inner', which gets messages from other exchanges: it cannot be moved",
        ),
        ("work", "x", "no other host 'x' is known"),
        ("work", "a", "no other host 'a' is known"),
        ("there", "c", "queue 'there' in vhost '/' lives on host 'b'"),
        ("nowhere", "b", "no queue 'nowhere' in vhost '/'"),
    ] {
        assert_eq!(it.move_to(A, name, to), Err(why.into()), "{name} to {to}");
    }
    let text = it.move_to(A, "peer/b", "c").expect_err("an outbox");
    assert!(text.starts_with("cannot obtain exclusive access to locked queue 'peer/b'"), "{text}");
    // Two that declared one name while they did not know each other.
    it.cut_all(B);
    it.hosts[B].crash();
    it.hosts[B].ask(mailbox("same", &[])).ok();
    it.relink();
    let house = &mut it.hosts[A].house;
    house.user("anna", [".*", ".*", ".*"]);
    let anna = house.connect_as("anna", "/", false);
    let request = Request::MoveMailbox { name: "work".into(), to: "b".into() };
    assert!(matches!(house.ask(anna, request), Err(Refusal::NotAdministrator(_))));
    let request = TakeOver {
        name: "stolen".into(),
        epoch: 1,
        durable: true,
        auto_delete: false,
        arguments: Table::new(),
        bindings: Vec::new(),
    };
    let client = house.connect_lax();
    let refused = house.ask(client, Request::TakeOver(Box::new(request)));
    assert!(matches!(refused, Err(Refusal::NotAllowed(_))));
}

#[test]
fn a_host_that_has_another_mailbox_of_that_name_keeps_it() {
    let mut it = Hosts::new(&["a", "b"]);
    it.cut_all(B);
    for at in [A, B] {
        it.hosts[at].declare("same");
        it.hosts[at].put("same", &["1"]);
    }
    it.relink();
    let text = "queue 'same' in vhost '/' is another one here";
    assert_eq!(it.move_to(A, "same", "b"), Err(text.into()));
    assert!(it.hosts[A].serves("same") && it.hosts[B].serves("same"));
}

#[test]
fn a_host_that_lacks_the_kind_of_an_exchange_takes_nothing() {
    let mut it = Hosts::new(&["a", "b"]);
    let (a, b) = (it.hosts[A].client, it.hosts[B].client);
    it.hosts[A].house.exchange(a, "news", "topic");
    it.hosts[B].house.exchange(b, "news", "fanout");
    it.hosts[A].declare("work");
    it.hosts[A].house.bind(a, "news", "work", "#");
    it.settle();
    let text = "exchange 'news' in vhost '/' is of type 'fanout' here, and of type 'topic' where queue 'work' lives";
    assert_eq!(it.move_to(A, "work", "b"), Err(text.into()));
    assert!(it.hosts[A].serves("work") && !it.hosts[B].house.exists("work"));
}

#[test]
fn a_drained_host_gives_its_mailboxes_away() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[A].declare("work");
    it.settle();
    it.hosts[A].put("work", &["1", "2"]);
    let client = it.hosts[A].house.connect_lax();
    it.hosts[A].house.ask(client, Request::Drain { leave: false }).expect("it is drained");
    let request = || Request::MoveMailbox { name: "work".into(), to: "b".into() };
    assert!(matches!(it.ask_as(A, client, request()), Ok(Reply::Counted(2))));
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["1", "2"]);
    assert_eq!(it.hosts[A].house.broker.drain_view().resting, 0);
}
