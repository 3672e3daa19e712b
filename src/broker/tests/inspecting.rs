//! What is counted, what can be looked at, and what the server does for others.

use super::house::*;
use super::request::*;
use crate::broker::inspect::*;
use crate::broker::*;

fn inspect(house: &mut House, inspect: Inspect) -> Inspection {
    match house.ask(SERVER, Request::Inspect(inspect)).expect("an inspection") {
        Reply::Inspection(found) => *found,
        other => panic!("got {other:?}"),
    }
}

fn channel(house: &mut House) -> ChannelView {
    match inspect(house, Inspect::Channels { after: None, count: 10 }) {
        Inspection::Channels(views) => views.into_iter().find(|it| it.channel == ONE).unwrap(),
        other => panic!("got {other:?}"),
    }
}

fn overview(house: &mut House) -> Overview {
    match inspect(house, Inspect::Overview) {
        Inspection::Overview(overview) => *overview,
        other => panic!("got {other:?}"),
    }
}

fn passages(house: &mut House) -> Vec<(String, u64, u64)> {
    let all = Inspect::Exchanges { vhost: "/".into(), after: None, count: 100 };
    let Inspection::Exchanges(views) = inspect(house, all) else { panic!("not exchanges") };
    let used = views.into_iter().filter(|it| it.passage != Passage::default());
    let row = |it: ExchangeView| {
        (it.definition.name.to_string(), it.passage.inwards, it.passage.outwards)
    };
    used.map(row).collect()
}

/// The first ready messages.
fn first(mailbox: &str, count: usize, bytes_max: u64) -> Browse {
    let (mailbox, states) = (mailbox.into(), States::only(State::Ready));
    Browse { mailbox, states, selector: None, after: None, count, bytes_max }
}

fn browse(house: &mut House, mailbox: &str, count: usize) -> Vec<(String, bool)> {
    let request = Request::Browse(first(mailbox, count, u64::MAX));
    let (user, vhost) = ("guest".into(), "/".into());
    let behalf = Request::OnBehalf(Box::new(OnBehalf { user, vhost, request }));
    match house.ask(SERVER, behalf).expect("messages") {
        Reply::Browsed(browsed) => {
            let body = |it: &Found| String::from_utf8_lossy(it.message.body()).into_owned();
            browsed.found.iter().map(|it| (body(it), it.rest.redelivered)).collect()
        }
        other => panic!("got {other:?}"),
    }
}

fn on_behalf(house: &mut House, user: &str, request: Request) -> Result<Reply, Refusal> {
    let (user, vhost) = (user.into(), "/".into());
    house.ask(SERVER, Request::OnBehalf(Box::new(OnBehalf { user, vhost, request })))
}

#[test]
fn every_way_of_a_message_is_counted_once() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3", "4", "5"]);
    house.publish(c, Post::to("a", "6").confirm(1));
    house.publish(c, Post::to("nowhere", "7").mandatory());
    house.publish(c, Post::to("nowhere", "8"));
    let inflow = Inflow { published: 8, routed: 6, confirmed: 1, returned: 1, unroutable: 1 };
    assert_eq!(channel(&mut house).inflow, inflow);

    assert!(house.get_with(c, "a", true).0.is_some());
    let got = house.get(c, "a").unwrap();
    house.settle(c, &got, Outcome::Released);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    let seen = house.seen(c).remove(0);
    assert!(seen.redelivered);
    house.settle(c, &seen, Outcome::Accepted);
    house.ask(c, Request::Cancel(ConsumerId(1))).unwrap();
    house.ask(c, Request::Recover).unwrap();
    house.consume_with(c, "a", 2, |it| it.no_ack = true);
    house.ask(c, Request::Cancel(ConsumerId(2))).unwrap();
    assert!(house.get(c, "a").is_none());

    let outflow = Outflow {
        delivered: 2,
        delivered_settled: 4,
        got: 1,
        got_settled: 1,
        got_nothing: 1,
        redelivered: 2,
        acknowledged: 1,
    };
    assert_eq!(channel(&mut house).outflow, outflow);
    let counts = house.mailbox("a").counts;
    assert_eq!((counts.delivered, counts.redelivered), (8, 2));
    assert_eq!((counts.delivered_settled, counts.got, counts.got_settled), (4, 1, 1));
    assert_eq!((counts.got_nothing, counts.acknowledged), (1, 1));
    let flows = overview(&mut house).flows;
    let test = flows.iter().find(|flow| flow.protocol == "test").unwrap();
    assert_eq!((test.inflow, test.outflow[0]), (inflow, outflow));
    house.close(c);
    let overview = overview(&mut house);
    assert_eq!(overview.flows, flows);
    assert_eq!((overview.totals.channels_opened, overview.totals.channels_closed), (1, 1));
    house.check_books();
}

/// Also what a channel counted with the route it remembered, while it lives and when it is gone.
#[test]
fn exchange_counts_what_came_and_what_went_on() {
    let mut house = House::new();
    let c = house.connect();
    house.exchange(c, "x", "fanout");
    for name in ["a", "b"] {
        house.declare(c, name);
        house.bind(c, "x", name, "");
    }
    for _ in 0..3 {
        house.publish(c, Post::by("x", "k", "1"));
    }
    assert_eq!(passages(&mut house), [("x".into(), 3, 6)]);
    house.put(c, "a", &["2", "3"]);
    house.publish(c, Post::by("amq.direct", "k", "4"));
    house.publish(c, Post::by("amq.direct", "k", "5"));
    house.close(c);
    let expected = [("".into(), 2, 2), ("amq.direct".into(), 2, 0), ("x".into(), 3, 6)];
    assert_eq!(passages(&mut house), expected);
}

#[test]
fn sizes_and_deaths_are_counted() {
    let mut house = House::new();
    let c = house.connect();
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("b"))];
    house.declare_with(c, "a", &dead);
    house.declare(c, "b");
    for size in [0, 100, 101, 20_000] {
        house.publish(c, Post::to("a", &"x".repeat(size)));
    }
    let got = house.get(c, "a").unwrap();
    house.settle(c, &got, Outcome::Rejected);
    let totals = overview(&mut house).totals;
    assert_eq!(totals.sizes.counts, [2, 1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(totals.sizes.sum, 20_201);
    assert_eq!(totals.deaths, Deaths { rejected: 1, ..Deaths::default() });
}

/// A broker with very many mailboxes never stops for all of them.
#[test]
fn mailboxes_are_summed_up_in_slices() {
    let mut house = House::new();
    let c = house.connect();
    for name in ["a", "b", "c", "d"] {
        house.declare(c, name);
        house.put(c, name, &["1", "22"]);
        house.wait(5);
    }
    let oldest = house.now.0 - 20;
    house.get(c, "b").unwrap();
    let slice =
        |house: &mut House, after, count| match inspect(house, Inspect::Sums { after, count }) {
            Inspection::Sums(sums) => sums,
            other => panic!("got {other:?}"),
        };
    let (mut sum, mut after, mut slices) = (overview(&mut house), None, 0);
    assert_eq!((sum.mailboxes, sum.ready), (4, 0));
    loop {
        let sums = slice(&mut house, after, 2);
        sum.add(&sums);
        (after, slices) = (sums.next, slices + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((sum.ready, sum.ready_bytes), (7, 11));
    assert_eq!((sum.unsettled, sum.unsettled_bytes), (1, 1));
    assert_eq!((sum.oldest, slices), (Some(Time(oldest)), 3));
    let all = slice(&mut house, None, 5);
    assert_eq!((all.ready, all.next), (7, None));
}

#[test]
fn looking_changes_nothing() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    let all: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for body in &all {
        house.publish(c, Post::to("a", body));
    }
    let first = house.get(c, "a").unwrap();
    house.settle(c, &first, Outcome::Released);
    let counts = house.mailbox("a").counts;
    let expected: Vec<(String, bool)> =
        all.iter().map(|body| (body.clone(), body == "0")).collect();
    assert_eq!(browse(&mut house, "a", 100), expected);
    assert_eq!(browse(&mut house, "a", 1), expected[..1]);
    assert_eq!(browse(&mut house, "a", 0), []);
    assert_eq!(house.mailbox("a").counts, counts);
    house.check_books();
    assert_eq!(house.empty(c, "a"), all);
    assert_eq!(browse(&mut house, "a", 10), []);
}

#[test]
fn a_look_shows_the_order_of_delivery_and_keeps_to_its_size() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-priority", int(5))]);
    for (body, priority) in [("low", 0), ("high", 5), ("also high", 5)] {
        house.publish(c, Post::to("a", body).priority(priority));
    }
    let bodies: Vec<_> = browse(&mut house, "a", 10).into_iter().map(|it| it.0).collect();
    assert_eq!(bodies, ["high", "also high", "low"]);
    let request = Request::Browse(first("a", 10, 5));
    match on_behalf(&mut house, "guest", request) {
        Ok(Reply::Browsed(it)) => assert_eq!((it.found.len(), it.ready), (2, 3)),
        other => panic!("got {other:?}"),
    }
}

#[test]
fn who_looks_hears_that_the_mailbox_is_gone() {
    let mut house = House::small();
    let c = house.connect();
    house.declare(c, "a");
    for n in 0..100 {
        house.publish(c, Post::to("a", &n.to_string()));
    }
    house.fast_fetch = false;
    let request = Request::Browse(first("a", 100, u64::MAX));
    let ticket = house.send(c, ONE, request);
    assert!(house.answer(c, ticket).is_none());
    house.ask_on(c, TWO, delete("a")).unwrap();
    assert!(matches!(house.answer(c, ticket), Some(Err(Refusal::NoSuchMailbox { .. }))));
    house.answer_fetches();
}

#[test]
fn the_server_acts_with_the_rights_of_whom_it_acts_for() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.user("ann", ["^ann", "", "^a$"]);
    assert!(on_behalf(&mut house, "ann", mailbox("ann.1", &[])).is_ok());
    assert!(on_behalf(&mut house, "ann", purge("a")).is_ok());
    let post = |key: &str| Request::Post(Post::to(key, "x").publish(START).message);
    for request in [mailbox("b", &[]), post("a")] {
        let refused = on_behalf(&mut house, "ann", request);
        assert!(matches!(refused, Err(Refusal::Forbidden { .. })), "{refused:?}");
    }
    for (key, routed) in [("a", true), ("nowhere", false)] {
        match on_behalf(&mut house, "guest", post(key)) {
            Ok(Reply::Routed(it)) => assert_eq!(it, routed, "{key}"),
            other => panic!("got {other:?}"),
        }
    }
    assert_eq!(house.ready("a"), 1);
    // Who may not publish hears that rather than of a shortage.
    house.broker.raise_alarm(true, false, &mut Vec::new());
    assert!(matches!(on_behalf(&mut house, "ann", post("a")), Err(Refusal::Forbidden { .. })));
    let stopped = on_behalf(&mut house, "guest", post("a"));
    assert!(matches!(stopped, Ok(Reply::Stopped("low on memory"))), "{stopped:?}");
    house.broker.raise_alarm(false, false, &mut Vec::new());
    assert!(matches!(on_behalf(&mut house, "guest", post("a")), Ok(Reply::Routed(true))));
    assert_eq!(house.ready("a"), 2);
    // Nobody else acts for others, and nobody acts where there is no such place.
    let (user, vhost) = ("guest".into(), "/".into());
    let request = Request::OnBehalf(Box::new(OnBehalf { user, vhost, request: purge("a") }));
    assert!(matches!(house.ask(c, request), Err(Refusal::NotAdministrator(_))));
    let (user, vhost) = ("guest".into(), "none".into());
    let request = Request::OnBehalf(Box::new(OnBehalf { user, vhost, request: purge("a") }));
    assert!(matches!(house.ask(SERVER, request), Err(Refusal::NoSuchVhost { .. })));
}

#[test]
fn a_connection_can_be_ended_by_an_administrator() {
    let mut house = House::new();
    let (c, other) = (house.connect(), house.connect());
    let end = |connection| Request::Disconnect { connection, reason: "enough".into() };
    assert!(matches!(house.ask(c, end(other)), Ok(Reply::Counted(1))));
    assert_eq!(house.told(other), ["closed by force: enough"]);
    assert!(matches!(house.ask(c, end(ConnectionId(99))), Ok(Reply::Counted(0))));
}

#[test]
fn parameters_are_kept_with_their_virtual_host() {
    let mut house = House::new();
    let parameter = |vhost: Option<&str>, name: &str| {
        Definition::Parameter(ParameterDefinition {
            vhost: vhost.map(Name::from),
            component: "shovel".into(),
            name: name.into(),
            value: "{}".into(),
        })
    };
    house.define(Definition::Vhost(VhostDefinition {
        name: "v".into(),
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected: false,
        max_connections: None,
        max_mailboxes: None,
    }));
    let all = [parameter(None, "g"), parameter(Some("v"), "p"), parameter(Some("/"), "q")];
    all.iter().for_each(|it| house.define(it.clone()));
    let refused = house.ask(SERVER, Request::Define(parameter(Some("none"), "p")));
    assert!(matches!(refused, Err(Refusal::NoSuchVhost { .. })));
    house.restart();
    let listed = |house: &mut House| {
        let kind = DefinitionKind::Parameter;
        match inspect(house, Inspect::Definitions { kind, vhost: None, skip: 0, count: 10 }) {
            Inspection::Definitions(found) => found,
            other => panic!("got {other:?}"),
        }
    };
    let mut found = listed(&mut house);
    found.sort_by_key(Definition::key);
    let mut expected = all.to_vec();
    expected.sort_by_key(Definition::key);
    assert_eq!(found, expected);
    let vhost = DefinitionKey { kind: DefinitionKind::Vhost, path: vec!["v".into()] };
    house.ask(SERVER, Request::Undefine(vhost)).unwrap();
    house.ask(SERVER, Request::Undefine(all[0].key())).unwrap();
    assert_eq!(listed(&mut house), all[2..]);
    house.restart();
    assert_eq!(listed(&mut house), all[2..]);
}
