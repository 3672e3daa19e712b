//! Publishers that want hosts with tags.

use rstest::rstest;

use super::super::request::{exchange, mailbox, text};
use super::leave::forget;
use super::*;

/// Three hosts with these tags; `work` lives on the first two.
fn tagged(spread: &str, tags: [&[&str]; 3]) -> Hosts {
    let mut it = linked(tags);
    for at in [A, B] {
        let client = it.hosts[at].house.connect_lax();
        it.ask_as(at, client, mailbox("work", &[("x-spread", text(spread))])).expect("declared");
        it.settle();
    }
    it
}

fn linked(tags: [&[&str]; 3]) -> Hosts {
    let mut it = Hosts::new(&["a", "b", "c"]);
    for (at, tags) in tags.into_iter().enumerate() {
        it.retag(at, tags);
    }
    it
}

fn wants(name: &str, body: &str, tags: &str) -> Post {
    Post::to(name, body).header("x-spread-tags", text(tags))
}

impl Hosts {
    /// The host stops, and starts again with other tags.
    fn retag(&mut self, at: usize, tags: &[&str]) {
        self.cut_all(at);
        self.hosts[at].house.settings.tags = tags.iter().map(|tag| Name::from(*tag)).collect();
        self.hosts[at].crash();
        for other in (0..self.hosts.len()).filter(|other| *other != at) {
            self.link(at, other);
            self.link(other, at);
        }
        self.settle();
    }

    fn publish(&mut self, at: usize, post: Post) {
        let client = self.hosts[at].client;
        self.hosts[at].house.publish(client, post);
    }

    /// What the publisher there is told of it.
    fn told_of(&mut self, at: usize, post: Post) -> Vec<String> {
        self.publish(at, post);
        self.hosts[at].house.sync();
        let client = self.hosts[at].client;
        self.hosts[at].house.told(client)
    }

    /// What is in `work` at each host.
    fn work(&mut self) -> [Vec<String>; 2] {
        self.settle();
        [A, B].map(|at| self.hosts[at].empty("work"))
    }
}

#[test]
fn one_of_the_hosts_with_the_tags_gets_what_is_shared() {
    let mut it = tagged("anycast", [&["eu"], &["eu", "gpu"], &[]]);
    // Also where the publisher's own host has such a queue.
    for (at, n) in [(A, "1"), (B, "2"), (C, "3"), (C, "4")] {
        it.publish(at, wants("work", n, "gpu"));
    }
    let [a, mut b] = it.work();
    b.sort();
    assert_eq!((a, b), (vec![], ["1", "2", "3", "4"].map(String::from).to_vec()));
    // All tags are wanted, in any order and form.
    let both = Value::Array(vec![text("gpu"), text("eu")]);
    it.publish(A, Post::to("work", "5").header("x-spread-tags", both));
    it.publish(A, wants("work", "6", "gpu , eu"));
    assert_eq!(it.work(), [vec![], vec!["5", "6"]]);
    // The own host has what is wanted.
    it.publish(A, wants("work", "7", "eu"));
    assert_eq!(it.work(), [vec!["7"], vec![]]);
    // In turn among those that have it.
    for _ in 0..4 {
        it.publish(C, wants("work", "8", "eu"));
    }
    let [a, b] = it.work();
    assert_eq!((a.len(), b.len()), (2, 2));
    it.check();
}

#[test]
fn what_is_shared_waits_for_a_host_with_the_tags_that_is_away() {
    let mut it = tagged("anycast", [&[], &["gpu"], &[]]);
    it.cut_all(B);
    it.publish(C, wants("work", "1", "gpu"));
    it.publish(A, wants("work", "2", "gpu"));
    assert_eq!([it.hosts[C].view("b").messages, it.hosts[A].view("b").messages], [1, 1]);
    assert_eq!(it.hosts[C].view("a").messages, 0);
    // They are still known after a restart, while the host is away.
    it.cut_all(C);
    it.hosts[C].crash();
    it.publish(C, wants("work", "3", "gpu"));
    assert_eq!(it.hosts[C].view("b").messages, 2);
    assert_eq!(it.hosts[C].view("b").tags, [Name::from("gpu")]);
}

#[test]
fn copies_go_to_hosts_with_the_tags_only() {
    let mut it = tagged("fanout", [&["eu"], &["gpu", "eu"], &[]]);
    for at in [A, B, C] {
        it.publish(at, wants("work", "gpu", "gpu"));
        assert_eq!(it.work(), [vec![], vec!["gpu"]], "from {at}");
        it.publish(at, wants("work", "eu", "eu"));
        assert_eq!(it.work(), [["eu"], ["eu"]], "from {at}");
    }
    // Among several keys too.
    it.hosts[C].declare("own");
    it.settle();
    it.publish(A, wants("own", "m", "gpu").cc(&["work"]));
    assert_eq!(it.work(), [vec![], vec!["m"]]);
    assert_eq!(it.hosts[C].empty("own"), Vec::<String>::new());
    it.check();
}

#[test]
fn what_has_one_home_goes_there_if_that_has_the_tags() {
    let mut it = linked([&["eu"], &["gpu"], &[]]);
    it.hosts[B].declare("work");
    it.settle();
    for at in [A, B] {
        it.publish(at, wants("work", "yes", "gpu"));
        let told = it.told_of(at, wants("work", "no", "eu").mandatory().confirm(1));
        assert_eq!(told, ["returned no", "confirmed 1"], "at {at}");
    }
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["yes", "yes"]);
    it.check();
}

#[rstest]
#[case("anycast")]
#[case("fanout")]
fn what_no_host_may_take_is_unroutable(#[case] spread: &str) {
    let mut it = tagged(spread, [&["eu"], &["gpu"], &["eu", "gpu"]]);
    for at in [A, B, C] {
        for tags in ["none", "gpu,eu"] {
            let before = it.hosts[at].house.broker.totals;
            let told = it.told_of(at, wants("work", "m", tags).mandatory().confirm(1));
            assert_eq!(told, ["returned m", "confirmed 1"]);
            assert_eq!(it.told_of(at, wants("work", "m", tags).confirm(2)), ["confirmed 2"]);
            let after = it.hosts[at].house.broker.totals;
            assert_eq!(after.returned - before.returned, 1);
            assert_eq!(after.unroutable - before.unroutable, 1);
        }
    }
    assert_eq!(it.work(), [Vec::<String>::new(), vec![]]);
    it.check();
}

#[test]
fn no_remembered_route_serves_a_message_that_wants_tags_nor_the_other_way_round() {
    let mut it = tagged("fanout", [&["eu"], &["gpu"], &[]]);
    for _ in 0..2 {
        it.publish(A, Post::to("work", "all"));
        it.publish(A, wants("work", "gpu", "gpu"));
        it.publish(A, wants("work", "eu", "eu"));
    }
    let work = it.work();
    assert_eq!(work, [["all", "eu", "all", "eu"], ["all", "gpu", "all", "gpu"]]);
    // Neighbours of a batch are routed once if they want the same.
    let posts = [Post::to("work", "all"), Post::to("work", "all"), wants("work", "gpu", "gpu")];
    let posts = [&posts[..], &[wants("work", "none", "x"), Post::to("work", "all")]].concat();
    let client = it.hosts[A].client;
    let house = &mut it.hosts[A].house;
    let message = |it: Post| std::sync::Arc::into_inner(it.publish(house.now).message);
    let messages = posts.into_iter().map(|it| message(it).expect("its only owner")).collect();
    let (channel, confirm, mandatory, home) = (super::super::house::ONE, Some(7), true, false);
    let batch = PublishBatch { channel, messages, confirm, mandatory, home };
    house.apply(client, Command::PublishBatch(batch));
    house.sync();
    assert_eq!(house.told(client), [r#"batch 7: 4 taken, missed ["3 Unroutable"]"#]);
    assert_eq!(it.work(), [vec!["all"; 3], vec!["all", "all", "gpu", "all"]]);
    it.check();
}

#[test]
fn an_exchange_leads_to_hosts_with_the_tags_and_else_to_its_alternate() {
    let mut it = linked([&["eu"], &["gpu"], &[]]);
    let alternate = [("alternate-exchange", text("amq.fanout"))];
    for at in [A, B, C] {
        let name = ["qa", "qb", "qc"][at];
        it.hosts[at].declare(name);
        it.hosts[at].ask(exchange("news", "topic", &alternate)).expect("declared");
        let client = it.hosts[at].client;
        it.hosts[at].house.bind(client, "news", name, "#");
    }
    it.hosts[A].declare("rest");
    let a = it.hosts[A].client;
    it.hosts[A].house.bind(a, "amq.fanout", "rest", "");
    it.settle();
    let post = |body: &str, tags: &str| {
        Post::by("news", "k", body).header("x-spread-tags", text(tags)).mandatory()
    };
    it.publish(A, Post::by("news", "k", "all"));
    it.publish(A, post("gpu", "gpu"));
    it.publish(A, post("eu", "eu"));
    it.publish(C, post("gpu", "gpu"));
    it.settle();
    let seen = [(A, "qa"), (B, "qb"), (C, "qc")].map(|(at, name)| it.hosts[at].empty(name));
    assert_eq!(seen, [vec!["all", "eu"], vec!["all", "gpu", "gpu"], vec!["all"]]);
    assert_eq!(it.hosts[A].empty("rest"), Vec::<String>::new());
    // Nobody has it: it is the alternate's, whose queue lives on a host without the tags as well.
    assert_eq!(it.told_of(A, post("none", "x")), ["returned none"]);
    // From A the alternate leads here, where the wanted tag is, while no other binding of the exchange does.
    let gone = Request::Unbind(binding("news", "qa", "#"));
    it.hosts[A].ask(gone).expect("unbound");
    it.publish(A, post("rest", "eu"));
    assert_eq!(it.hosts[A].empty("rest"), ["rest"]);
    it.check();
}

#[test]
fn tags_are_those_that_a_host_had_when_it_was_linked_last() {
    let mut it = tagged("anycast", [&[], &["gpu"], &[]]);
    assert_eq!(it.hosts[A].view("b").tags, [Name::from("gpu")]);
    it.publish(C, wants("work", "1", "gpu"));
    assert_eq!(it.work(), [vec![], vec!["1"]]);
    it.retag(B, &["tpu"]);
    assert_eq!(it.told_of(C, wants("work", "2", "gpu").mandatory()), ["returned 2"]);
    it.retag(A, &["gpu"]);
    it.publish(C, wants("work", "3", "gpu"));
    assert_eq!(it.work(), [vec!["3"], vec![]]);
    // What has none any longer is not remembered either.
    it.retag(B, &[]);
    it.cut_all(C);
    it.hosts[C].crash();
    assert_eq!(it.hosts[C].view("b").tags, Vec::<Name>::new());
    assert_eq!(it.hosts[C].view("a").tags, [Name::from("gpu")]);
    it.check();
}

#[test]
fn what_waits_for_a_host_goes_there_though_its_tags_change() {
    let mut it = tagged("anycast", [&[], &["gpu"], &[]]);
    it.cut_all(B);
    it.publish(C, wants("work", "m", "gpu"));
    it.retag(B, &[]);
    assert_eq!(it.work(), [vec![], vec!["m"]]);
}

#[test]
fn what_goes_on_to_another_host_goes_to_one_with_the_tags() {
    for (tags, arrives) in [(["gpu"], true), (["eu"], false)] {
        let mut it = tagged("anycast", [&tags, &["gpu"], &[]]);
        it.cut(C, A);
        it.publish(C, wants("work", "m", "gpu"));
        let unroutable = it.hosts[B].house.broker.totals.unroutable;
        it.cut(C, B);
        it.hosts[B].ask(delete("work")).expect("deleted");
        it.link(C, B);
        it.settle();
        assert_eq!(!it.hosts[A].empty("work").is_empty(), arrives);
        let lost = it.hosts[B].house.broker.totals.unroutable - unroutable;
        assert_eq!(lost, u64::from(!arrives));
        it.check();
    }
}

#[test]
fn a_message_on_its_way_follows_its_mailbox_whatever_its_new_home_is() {
    let mut it = linked([&[], &["gpu"], &[]]);
    it.hosts[B].declare("work");
    it.settle();
    it.cut(A, B);
    it.publish(A, wants("work", "m", "gpu"));
    it.hosts[B].ask(delete("work")).expect("deleted");
    it.settle();
    it.hosts[C].declare("work");
    it.settle();
    it.link(A, B);
    it.settle();
    assert_eq!(it.hosts[C].empty("work"), ["m"]);
}

#[test]
fn a_dead_letter_and_an_answer_want_nothing() {
    let mut it = linked([&[], &["gpu"], &[]]);
    it.hosts[A].declare("dead");
    it.settle();
    let grave = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    it.hosts[B].ask(mailbox("work", &grave)).expect("declared");
    it.settle();
    it.publish(A, wants("work", "m", "gpu").expiration(10));
    it.settle();
    it.hosts[B].house.wait(20);
    it.settle();
    assert_eq!(it.hosts[A].empty("dead"), ["m"]);
    let address = "amq.rabbitmq.reply-to.x.1";
    let replies = Request::ConsumeReplies { consumer: ConsumerId(9), address: address.into() };
    assert!(it.hosts[A].ask(replies).is_ok());
    it.settle();
    it.publish(B, wants(address, "answer", "gpu"));
    it.settle();
    let client = it.hosts[A].client;
    assert_eq!(it.hosts[A].house.by_consumer(client), [(9, "answer".into())]);
}

#[test]
fn a_delayed_message_finds_a_host_when_it_is_due() {
    let mut it = linked([&[], &["gpu"], &[]]);
    it.hosts[A]
        .ask(exchange("later", "x-delayed-message", &[("x-delayed-type", text("direct"))]))
        .expect("declared");
    it.hosts[A].declare("here");
    let client = it.hosts[A].client;
    it.hosts[A].house.bind(client, "later", "here", "k");
    let post = Post::by("later", "k", "m").header("x-delay", int(100)).mandatory();
    let told = it.told_of(A, post.header("x-spread-tags", text("gpu")));
    assert_eq!(told, Vec::<String>::new(), "it waits first");
    it.cut_all(A);
    it.hosts[A].crash();
    let before = it.hosts[A].house.broker.totals.unroutable;
    it.hosts[A].house.wait(200);
    assert_eq!(it.hosts[A].house.broker.totals.unroutable - before, 1);
    assert_eq!(it.hosts[A].empty("here"), Vec::<String>::new());
}

#[test]
fn a_mailbox_that_moves_away_takes_what_its_new_home_may_take() {
    let mut it = linked([&["old"], &["new"], &[]]);
    it.hosts[A].declare("work");
    it.settle();
    let client = it.hosts[A].house.connect_lax();
    let moved = Request::MoveMailbox { name: "work".into(), to: "b".into() };
    it.ask_as(A, client, moved).expect("it moves");
    assert!(it.hosts[A].house.exists("work"), "it passes on what comes");
    assert_eq!(it.told_of(A, wants("work", "no", "old").mandatory()), ["returned no"]);
    it.publish(A, wants("work", "yes", "new"));
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), ["yes"]);
}

#[test]
fn a_host_that_is_forgotten_has_no_tags() {
    let mut it = tagged("anycast", [&[], &["gpu"], &[]]);
    it.cut_all(B);
    forget(&mut it.hosts[A], "b", Fate::Dropped).expect("forgotten");
    it.hosts[A].crash();
    assert_eq!(it.told_of(A, wants("work", "m", "gpu").mandatory()), ["returned m"]);
    assert!(it.hosts[A].house.broker.peer_views(None, 9).iter().all(|it| it.host != *"b"));
}

#[test]
fn a_broker_without_others_has_its_own_tags() {
    let settings = Settings { tags: vec!["gpu".into()], ..Settings::default() };
    let mut house = House::with(settings);
    let client = house.connect();
    house.declare(client, "work");
    house.publish(client, wants("work", "1", "gpu").mandatory());
    house.publish(client, wants("work", "2", "eu").mandatory());
    assert_eq!(house.told(client), ["returned 2"]);
    assert_eq!(house.empty(client, "work"), ["1"]);
}

#[rstest]
#[case(text(""))]
#[case(text("gpu,,eu"))]
#[case(text("a b"))]
#[case(int(7))]
#[case(Value::Array(Vec::new()))]
#[case(Value::Array(vec![text("gpu"), int(7)]))]
#[case(Value::Array(vec![text("gpu"); 33]))]
fn names_that_no_host_can_have_are_refused(#[case] value: Value) {
    let mut house = House::new();
    let client = house.connect_lax();
    house.declare(client, "work");
    house.publish(client, Post::to("work", "m").header("x-spread-tags", value).confirm(1));
    let told = house.told(client);
    assert!(told[0].starts_with("no: invalid header 'x-spread-tags': it names"), "{told:?}");
    assert_eq!(house.ready("work"), 0);
}
