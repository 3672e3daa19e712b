//! Policies and definitions by operators, applied to what is there.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::*;

fn undefine(kind: DefinitionKind, path: &[&str]) -> Request {
    let path = path.iter().map(|part| bytes::Bytes::copy_from_slice(part.as_bytes())).collect();
    Request::Undefine(DefinitionKey { kind, path })
}

fn put(house: &mut House, name: &str, operator: bool, priority: i64, values: &[(&str, Value)]) {
    let policy = policy(name, "^a", values);
    house.define(Definition::Policy(PolicyDefinition { operator, priority, ..policy }));
}

#[test]
fn numbers_take_the_smallest_of_argument_policy_and_operator() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-max-length", int(10))]);
    put(&mut house, "p", false, 0, &[("max-length", int(20)), ("message-ttl", int(500))]);
    assert_eq!(house.mailbox("a").limits.length_max, Some(10));
    assert_eq!(house.mailbox("a").limits.message_ttl_ms, Some(500));
    put(&mut house, "op", true, 0, &[("max-length", int(5)), ("message-ttl", int(900))]);
    assert_eq!(house.mailbox("a").limits.length_max, Some(5));
    assert_eq!(house.mailbox("a").limits.message_ttl_ms, Some(500));
    house.ask(SERVER, undefine(DefinitionKind::OperatorPolicy, &["/", "op"])).unwrap();
    assert_eq!(house.mailbox("a").limits.length_max, Some(10));
}

#[test]
fn highest_priority_wins_alone() {
    let mut house = House::new();
    let c = house.connect();
    put(&mut house, "low", false, 1, &[("max-length", int(1)), ("expires", int(1_000))]);
    put(&mut house, "high", false, 2, &[("max-length", int(2))]);
    house.declare(c, "a");
    house.declare(c, "b");
    let limits = |house: &House| {
        let it = house.mailbox("a");
        (it.policy.clone().unwrap(), it.limits.length_max, it.limits.expires_ms)
    };
    assert_eq!(limits(&house), ("high".into(), Some(2), None));
    assert_eq!(house.mailbox("b").policy, None);
    house.ask(SERVER, undefine(DefinitionKind::Policy, &["/", "high"])).unwrap();
    assert_eq!(limits(&house), ("low".into(), Some(1), Some(1_000)));
}

#[test]
fn texts_of_arguments_win() {
    let mut house = House::new();
    let c = house.connect();
    let given = [("x-dead-letter-exchange", text("mine")), ("x-overflow", text("drop-head"))];
    house.declare_with(c, "a", &given);
    house.declare(c, "ab");
    let texts = [
        ("dead-letter-exchange", text("theirs")),
        ("dead-letter-routing-key", text("k")),
        ("overflow", text("reject-publish")),
    ];
    put(&mut house, "p", false, 0, &texts);
    let limits = |name| house.mailbox(name).limits.clone();
    assert_eq!(limits("a").dead_letter_exchange.as_deref(), Some("mine"));
    assert_eq!(limits("a").dead_letter_key.as_deref(), Some("k"));
    assert_eq!(limits("a").overflow, Overflow::DropHead);
    assert_eq!(limits("ab").dead_letter_exchange.as_deref(), Some("theirs"));
    assert_eq!(limits("ab").overflow, Overflow::RejectPublish);
}

#[test]
fn overflow_of_a_policy_wins_with_quorum_queues() {
    let mut house = House::new();
    let c = house.connect();
    let given = [("x-queue-type", text("quorum")), ("x-overflow", text("reject-publish"))];
    house.declare_with(c, "a", &given);
    assert_eq!(house.mailbox("a").limits.overflow, Overflow::RejectPublish);
    put(&mut house, "p", false, 0, &[("overflow", text("drop-head"))]);
    assert_eq!(house.mailbox("a").limits.overflow, Overflow::DropHead);
}

#[rstest]
#[case(false, "all", &[("message-ttl", int(0)), ("ha-mode", text("all"))], "")]
#[case(false, "exchanges", &[("alternate-exchange", text("x"))], "")]
#[case(true, "queues", &[("expires", int(1)), ("delivery-limit", int(-1))], "")]
#[case(false, "all", &[("message-tl", int(0))], "message-tl is not recognised as a policy setting")]
#[case(false, "all", &[("expires", int(0))], "0 is not a valid queue expiry")]
#[case(false, "all", &[("max-length", text("ten"))], "ten is not a valid maximum length")]
#[case(false, "all", &[("overflow", text("spill"))], "spill is not a valid overflow mode")]
#[case(false, "all", &[("dead-letter-exchange", int(1))], "1 is not a valid dead letter exchange name")]
#[case(true, "all", &[("overflow", text("drop-head"))], "overflow is not recognised as a policy setting")]
#[case(false, "streets", &[], "apply-to 'streets' unrecognised; should be one of all, queues, exchanges, classic_queues, quorum_queues, streams")]
#[case(true, "exchanges", &[], "apply-to 'exchanges' unrecognised; should be one of all, queues, exchanges, classic_queues, quorum_queues, streams")]
fn policy_is_checked(
    #[case] operator: bool,
    #[case] apply_to: &str,
    #[case] values: &[(&str, Value)],
    #[case] expected: &str,
) {
    let mut house = House::new();
    let apply_to = apply_to.to_owned();
    let policy = PolicyDefinition { operator, apply_to, ..policy("p", "^a", values) };
    let result = house.ask(SERVER, Request::Define(Definition::Policy(policy)));
    let text = result.err().map(|refusal| refusal.to_string()).unwrap_or_default();
    assert_eq!(text.strip_prefix("Validation failed\n\n").unwrap_or(&text), expected);
}

#[test]
fn stored_policy_is_not_checked_again() {
    let mut house = House::new();
    let old = policy("p", "^a", &[("max-length", int(3)), ("gone-since", int(1))]);
    let key = Definition::Policy(old.clone()).key();
    house.disk.definitions.insert(key, Definition::Policy(old));
    house.crash();
    let c = house.connect();
    house.declare(c, "a");
    assert_eq!(house.mailbox("a").limits.length_max, Some(3));
}

#[test]
fn delivery_limit_below_zero_means_none() {
    let mut house = House::new();
    let c = house.connect();
    let quorum = ("x-queue-type", text("quorum"));
    house.declare_with(c, "a", std::slice::from_ref(&quorum));
    house.declare_with(c, "a-none", &[quorum.clone(), ("x-delivery-limit", int(-1))]);
    house.declare_with(c, "a-five", &[quorum, ("x-delivery-limit", int(5))]);
    let limits = |house: &House| {
        ["a", "a-none", "a-five"].map(|name| house.mailbox(name).limits.delivery_limit)
    };
    assert_eq!(limits(&house), [Some(20), None, Some(5)]);
    put(&mut house, "p", false, 0, &[("delivery-limit", int(50))]);
    assert_eq!(limits(&house), [Some(50), Some(50), Some(5)]);
    put(&mut house, "p", false, 0, &[("delivery-limit", int(-1))]);
    assert_eq!(limits(&house), [None, None, Some(5)]);
}

#[test]
fn new_limits_act_at_once() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2", "3"]);
    house.wait(100);
    put(&mut house, "p", false, 0, &[("max-length", int(2))]);
    assert_eq!(house.ready("a"), 2);
    put(&mut house, "p", false, 0, &[("message-ttl", int(150))]);
    house.wait(49);
    assert_eq!(house.ready("a"), 2);
    house.wait(1);
    assert_eq!(house.ready("a"), 0);
    house.put(c, "a", &["4"]);
    house.ask(SERVER, undefine(DefinitionKind::Policy, &["/", "p"])).unwrap();
    house.wait(1_000);
    assert_eq!(house.ready("a"), 1);
    house.check_books();
}

#[test]
fn idle_time_counts_from_when_the_policy_came() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.wait(1_000);
    put(&mut house, "p", false, 0, &[("expires", int(100))]);
    house.wait(99);
    assert!(house.exists("a"));
    house.wait(1);
    assert!(!house.exists("a"));
}

#[test]
fn policy_applies_to_its_kind() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.declare_with(c, "aq", &[("x-queue-type", text("quorum"))]);
    let with = |to: &str, house: &mut House| {
        let mut it = policy("p", "^a", &[("max-length", int(1))]);
        it.apply_to = to.into();
        house.define(Definition::Policy(it));
        ["a", "aq"].map(|name| house.mailbox(name).limits.length_max.is_some())
    };
    assert_eq!(with("all", &mut house), [true, true]);
    assert_eq!(with("queues", &mut house), [true, true]);
    assert_eq!(with("classic_queues", &mut house), [true, false]);
    assert_eq!(with("quorum_queues", &mut house), [false, true]);
    assert_eq!(with("exchanges", &mut house), [false, false]);
    assert_eq!(with("streams", &mut house), [false, false]);
}

#[test]
fn alternate_exchange_by_policy() {
    let mut house = House::new();
    let c = house.connect();
    house.exchange(c, "ax", "direct");
    house.declare(c, "rest");
    house.bind(c, "amq.fanout", "rest", "");
    house.publish(c, Post::by("ax", "k", "1"));
    put(&mut house, "p", false, 0, &[("alternate-exchange", text("amq.fanout"))]);
    house.publish(c, Post::by("ax", "k", "2"));
    house.ask(SERVER, undefine(DefinitionKind::Policy, &["/", "p"])).unwrap();
    house.publish(c, Post::by("ax", "k", "3"));
    assert_eq!(house.empty(c, "rest"), ["2"]);
}

#[test]
fn operators_define_and_undefine_everything() {
    let mut house = House::new();
    let before: Vec<_> = house.disk.definitions.keys().cloned().collect();
    let exchange = ExchangeDefinition {
        vhost: "/".into(),
        name: "x".into(),
        kind: "direct".into(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::new(),
    };
    let mailbox = MailboxDefinition {
        id: MailboxId(0),
        vhost: "/".into(),
        name: "a".into(),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        epoch: 0,
    };
    let binding = BindingDefinition {
        vhost: "/".into(),
        source: "x".into(),
        destination: Destination::Mailbox("a".into()),
        key: "k".into(),
        arguments: Table::new(),
    };
    let topics = TopicPermissionDefinition {
        vhost: "/".into(),
        user: "guest".into(),
        exchange: "amq.topic".into(),
        write: "^a".into(),
        read: "^b".into(),
    };
    let all = [
        Definition::Exchange(exchange),
        Definition::Mailbox(mailbox),
        Definition::Binding(binding),
        Definition::Policy(policy("p", "a", &[])),
        Definition::TopicPermission(topics),
    ];
    for definition in &all {
        house.define(definition.clone());
        house.define(definition.clone());
    }
    assert_eq!(house.disk.definitions.len(), before.len() + all.len());
    let c = house.connect();
    house.publish(c, Post::by("x", "k", "1"));
    assert_eq!(house.ready("a"), 1);
    house.crash();
    assert_eq!(house.ready("a"), 1);
    for definition in all.iter().rev() {
        house.ask(SERVER, Request::Undefine(definition.key())).unwrap();
        house.ask(SERVER, Request::Undefine(definition.key())).unwrap();
    }
    assert_eq!(house.disk.definitions.keys().cloned().collect::<Vec<_>>(), before);
    let c = house.connect();
    house.publish(c, Post::by("amq.topic", "free", "1"));
    assert!(house.told(c).is_empty());
}

#[test]
fn only_administrators_define() {
    let mut house = House::new();
    let user = UserDefinition {
        name: "ann".into(),
        credential: Credential::default(),
        max_connections: None,
        max_channels: None,
    };
    house.define(Definition::User(user.clone()));
    let permission = PermissionDefinition {
        vhost: "/".into(),
        user: "ann".into(),
        configure: ".*".into(),
        write: ".*".into(),
        read: ".*".into(),
    };
    house.define(Definition::Permission(permission));
    let ann = house.connect_as("ann", "/", false);
    let text = "user 'ann' is not an administrator";
    assert_eq!(house.refused(ann, Request::Define(Definition::User(user.clone()))), text);
    assert_eq!(house.refused(ann, undefine(DefinitionKind::User, &["ann"])), text);
    let mut maker = user;
    maker.credential.tags.push("policymaker".into());
    house.define(Definition::User(maker.clone()));
    let mut it = policy("p", "^a", &[("max-length", int(1))]);
    house.ask(ann, Request::Define(Definition::Policy(it.clone()))).unwrap();
    house.ask(ann, undefine(DefinitionKind::Policy, &["/", "p"])).unwrap();
    assert_eq!(house.refused(ann, undefine(DefinitionKind::OperatorPolicy, &["/", "p"])), text);
    assert_eq!(house.refused(ann, Request::Define(Definition::User(maker))), text);
    it.vhost = "elsewhere".into();
    assert_eq!(house.refused(ann, Request::Define(Definition::Policy(it.clone()))), text);
    (it.vhost, it.operator) = ("/".into(), true);
    assert_eq!(house.refused(ann, Request::Define(Definition::Policy(it))), text);
    house.ask(SERVER, undefine(DefinitionKind::User, &["ann"])).unwrap();
    assert_eq!(house.told(ann), ["closed by force: user 'ann' was deleted"]);
    assert!(house.ask(ann, Request::CheckAccess).is_err());
    assert!(house.try_connect("ann", "/", true).is_err());
}
