use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::broker::{Properties, Source, Time, Value, WireForm};

/// Keeps properties as they are, by number: tests need no wire format.
static FORM: WireForm = WireForm { id: 0, name: "test", decode, encode };

thread_local! {
    static PROPERTIES: RefCell<Vec<Properties>> = const { RefCell::new(Vec::new()) };
}

fn encode(properties: &Properties, to: &mut Vec<u8>) {
    PROPERTIES.with_borrow_mut(|all| {
        to.extend_from_slice(&(all.len() as u32).to_be_bytes());
        all.push(properties.clone());
    });
}

fn decode(bytes: &[u8]) -> Properties {
    let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    PROPERTIES.with_borrow(|all| all[number as usize].clone())
}

fn message_with(properties: &Properties) -> Arc<Message> {
    Arc::new(Message::build(&Source {
        exchange: &"".into(),
        key: b"",
        properties,
        body: b"",
        form: &FORM,
        persistent: false,
        accepted: Time::ZERO,
    }))
}

fn message(headers: &[(&str, Value)]) -> Arc<Message> {
    message_with(&Properties { headers: Some(table(headers)), ..Properties::default() })
}

fn table(values: &[(&str, Value)]) -> Table {
    values.iter().map(|(name, value)| (TableKey::from(*name), value.clone())).collect()
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn exchanges() -> Exchanges {
    Exchanges::new("v".into(), 7)
}

fn declaration(name: &str, kind: &str, arguments: &[(&str, Value)]) -> DeclareExchange {
    DeclareExchange {
        name: name.into(),
        kind: kind.into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(arguments),
    }
}

fn with(name: &str, kind: &str, arguments: &[(&str, Value)]) -> Exchanges {
    let mut exchanges = exchanges();
    exchanges.declare(&declaration(name, kind, arguments)).expect("a good declaration");
    exchanges
}

/// A destination that begins with `x` is an exchange.
fn binding(source: &str, to: &str, key: &str, arguments: &[(&str, Value)]) -> BindingOf {
    let destination = if to.starts_with('x') {
        Destination::Exchange(to.into())
    } else {
        Destination::Mailbox(to.into())
    };
    BindingOf {
        source: source.into(),
        destination,
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: table(arguments),
    }
}

fn bind(exchanges: &mut Exchanges, source: &str, to: &str, key: &str) {
    exchanges.bind(&binding(source, to, key, &[])).expect("a good binding");
}

fn route_message(exchanges: &mut Exchanges, from: &str, key: &str, of: &Arc<Message>) -> String {
    let mut out = Vec::new();
    exchanges.route(&from.into(), key.as_bytes(), &[], of, &mailbox, &mut out);
    let unique: BTreeSet<_> = out.iter().cloned().collect();
    assert_eq!(unique.len(), out.len(), "each mailbox once: {out:?}");
    unique.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")
}

fn route(exchanges: &mut Exchanges, from: &str, key: &str) -> String {
    route_message(exchanges, from, key, &message(&[]))
}

/// The mailboxes of these tests are called by one letter.
fn mailbox(name: &str) -> Option<Name> {
    (name.len() == 1).then(|| name.into())
}

#[rstest]
#[case("direct", "red:a red:b blue:c", "red", "a b")]
#[case("direct", "red:a red:a blue:a", "red", "a")]
#[case("direct", "red:a", "green", "")]
#[case("direct", "red.*:a #:b", "red.x", "")]
#[case("fanout", "red:a blue:a :b", "whatever", "a b")]
#[case("topic", "logs.*:a", "logs.error", "a")]
#[case("topic", "logs.*:a", "logs.app.error", "")]
#[case("topic", "logs.#:a #.error:b *.*:c", "logs.error", "a b c")]
#[case("topic", "logs.#:a", "logs", "a")]
#[case("topic", "logs.#.error:a", "logs.error", "a")]
#[case("topic", "#.#:a *.#:b #.*:c *:d", "", "a")]
#[case("topic", "a..b:a a.*.b:b", "a..b", "a b")]
#[case("topic", "lo*:a l#:b", "log", "")]
#[case("x-modulus-hash", "1:a", "any", "a")]
#[case("x-random", "1:a 1:a", "any", "a")]
#[case("x-local-random", "1:a", "any", "a")]
#[case("x-consistent-hash", "1:a", "any", "a")]
#[case("x-consistent-hash", "", "any", "")]
#[case("x-random", "", "any", "")]
#[case("x-modulus-hash", "", "any", "")]
#[case("x-recent-history", "1:a 2:b", "any", "a b")]
fn kind_routes(
    #[case] kind: &str,
    #[case] bindings: &str,
    #[case] key: &str,
    #[case] expected: &str,
) {
    let mut exchanges = with("x", kind, &[]);
    let parsed: Vec<_> = bindings.split_whitespace().filter_map(|it| it.split_once(':')).collect();
    for (key, to) in &parsed {
        bind(&mut exchanges, "x", to, key);
    }
    assert_eq!(route(&mut exchanges, "x", key), expected);
    for (key, to) in &parsed {
        exchanges.unbind(&binding("x", to, key, &[])).expect("unbound");
    }
    assert_eq!(route(&mut exchanges, "x", key), "");
    assert_eq!(exchanges.bindings().count(), 0);
}

/// The bindings and expectations of RabbitMQ's own test of its topic exchange.
#[rstest]
#[case("a.b.c", "1 2 5 6 10 11 12 18 20 21 22 23 24 26")]
#[case("a.b", "3 5 6 7 8 9 11 12 15 21 22 23 24 26")]
#[case("a.b.b", "3 5 6 7 11 12 14 18 21 22 23 24 26")]
#[case("", "5 6 17 24")]
#[case("b.c.c", "5 6 18 21 22 23 24 26")]
#[case("a.a.a.a.a", "5 6 11 12 21 22 23 24")]
#[case("vodka.gin", "5 6 8 21 22 23 24")]
#[case("vodka.martini", "5 6 8 19 21 22 23 24")]
#[case("b.b.c", "5 6 10 13 18 21 22 23 24 26")]
#[case("nothing.here.at.all", "5 6 21 22 23 24")]
#[case("oneword", "5 6 21 22 23 24 25")]
fn topic_matches_as_rabbitmq(#[case] key: &str, #[case] expected: &str) {
    let patterns = [
        "a.b.c",
        "a.*.c",
        "a.#.b",
        "a.b.b.c",
        "#",
        "#.#",
        "#.b",
        "*.*",
        "a.*",
        "*.b.c",
        "a.#",
        "a.#.#",
        "b.b.c",
        "a.b.b",
        "a.b",
        "b.c",
        "",
        "*.*.*",
        "vodka.martini",
        "a.b.c",
        "*.#",
        "#.*.#",
        "*.#.#",
        "#.#.#",
        "*",
        "#.b.#",
    ];
    let mut exchanges = with("x", "topic", &[]);
    for (at, pattern) in patterns.iter().enumerate() {
        bind(&mut exchanges, "x", &(at + 1).to_string(), pattern);
    }
    let found = route(&mut exchanges, "x", key);
    let set = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(&found), set(expected));
}

#[test]
fn topic_survives_many_hashes() {
    let mut exchanges = with("x", "topic", &[]);
    bind(&mut exchanges, "x", "a", &["#.w"; 64].join("."));
    bind(&mut exchanges, "x", "b", &["#.*"; 64].join("."));
    bind(&mut exchanges, "x", "c", &format!("{}.z", ["#.w"; 63].join(".")));
    assert_eq!(route(&mut exchanges, "x", &["w"; 128].join(".")), "a b");
    assert_eq!(route(&mut exchanges, "x", &["w"; 63].join(".")), "");
}

/// What a pattern means, written down as shortly as possible.
fn naive(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => {
            naive(rest, key) || key.split_first().is_some_and(|(_, key)| naive(pattern, key))
        }
        (Some((&"*", rest)), Some((_, key))) => naive(rest, key),
        (Some((word, rest)), Some((first, key))) => word == first && naive(rest, key),
        _ => false,
    }
}

fn split(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

proptest! {
    #[test]
    fn topic_tree_agrees_with_naive_matcher(
        steps in prop::collection::vec(
            (any::<bool>(), "(a|b|c||\\*|#)(\\.(a|b||\\*|#)){0,4}", "[p-s]"),
            1..30,
        ),
        keys in prop::collection::vec("(a|b|d|)(\\.(a|b|c|)){0,5}", 1..6),
    ) {
        let mut exchanges = with("x", "topic", &[]);
        let mut model: BTreeSet<(String, String)> = BTreeSet::new();
        for (add, pattern, to) in steps {
            if add {
                bind(&mut exchanges, "x", &to, &pattern);
                model.insert((pattern, to));
            } else if let Some((pattern, to)) = model.pop_first() {
                let removed = exchanges.unbind(&binding("x", &to, &pattern, &[])).expect("unbound");
                prop_assert_eq!(removed.bindings.len(), 1);
            }
            for key in &keys {
                let expected: BTreeSet<&str> = model
                    .iter()
                    .filter(|(pattern, _)| naive(&split(pattern), &split(key)))
                    .map(|(_, to)| to.as_str())
                    .collect();
                let expected = expected.into_iter().collect::<Vec<_>>().join(" ");
                prop_assert_eq!(route(&mut exchanges, "x", key), expected, "key {:?}", key);
            }
        }
    }

    #[test]
    fn direct_agrees_with_a_map(
        steps in prop::collection::vec((any::<bool>(), "[k-o]{1,2}", "[p-s]"), 1..60),
    ) {
        let mut exchanges = with("x", "direct", &[]);
        let mut model: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (add, key, to) in steps {
            if add {
                bind(&mut exchanges, "x", &to, &key);
                model.entry(key.clone()).or_default().insert(to);
            } else {
                exchanges.unbind(&binding("x", &to, &key, &[])).expect("unbound");
                model.entry(key.clone()).or_default().remove(&to);
            }
            let expected = model[&key].iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(route(&mut exchanges, "x", &key), expected);
        }
    }
}

const ALL: (&str, &str) = ("x-match", "all");
const ANY: (&str, &str) = ("x-match", "any");
const ALL_X: (&str, &str) = ("x-match", "all-with-x");
const ANY_X: (&str, &str) = ("x-match", "any-with-x");

#[rstest]
#[case::all_of_them(&[ALL], &[("a", text("1")), ("b", text("2"))], &[("b", text("2")), ("a", text("1")), ("c", text("3"))], true)]
#[case::one_missing(&[ALL], &[("a", text("1")), ("b", text("2"))], &[("a", text("1"))], false)]
#[case::one_other(&[ALL], &[("a", text("1"))], &[("a", text("2"))], false)]
#[case::all_is_default(&[], &[("a", text("1")), ("b", text("2"))], &[("a", text("1"))], false)]
#[case::any_of_them(&[ANY], &[("a", text("1")), ("b", text("2"))], &[("b", text("2"))], true)]
#[case::none_of_them(&[ANY], &[("a", text("1"))], &[("b", text("1"))], false)]
#[case::no_criteria_all(&[ALL], &[], &[], true)]
#[case::no_criteria_any(&[ANY], &[], &[("a", text("1"))], false)]
#[case::only_x_criteria_all(&[ALL], &[("x-a", text("1"))], &[], true)]
#[case::only_x_criteria_any(&[ANY], &[("x-a", text("1"))], &[("x-a", text("1"))], false)]
#[case::all_with_x(&[ALL_X], &[("x-a", text("1"))], &[], false)]
#[case::all_with_x_there(&[ALL_X], &[("x-a", text("1"))], &[("x-a", text("1"))], true)]
#[case::any_with_x(&[ANY_X], &[("x-a", text("1"))], &[("x-a", text("1"))], true)]
#[case::void_is_presence(&[ALL], &[("a", Value::Void)], &[("a", Value::I32(9))], true)]
#[case::void_absent(&[ALL], &[("a", Value::Void)], &[("b", Value::I32(9))], false)]
#[case::widths(&[ALL], &[("a", Value::I8(9))], &[("a", Value::I64(9))], true)]
#[case::number_is_no_text(&[ALL], &[("a", Value::I32(9))], &[("a", text("9"))], false)]
#[case::fraction_is_no_whole(&[ALL], &[("a", Value::I32(9))], &[("a", Value::F64(9.0))], false)]
#[case::float_widths(&[ALL], &[("a", Value::F32(0.5))], &[("a", Value::F64(0.5))], true)]
#[case::bool(&[ALL], &[("a", Value::Bool(true))], &[("a", Value::Bool(false))], false)]
#[case::first_of_a_name(&[ALL], &[("a", text("1"))], &[("a", text("1")), ("a", text("2"))], true)]
fn headers_match(
    #[case] mode: &[(&str, &str)],
    #[case] criteria: &[(&str, Value)],
    #[case] headers: &[(&str, Value)],
    #[case] expected: bool,
) {
    let mut exchanges = with("x", "headers", &[]);
    let mut arguments = criteria.to_vec();
    arguments.extend(mode.iter().map(|(name, mode)| (*name, text(mode))));
    exchanges.bind(&binding("x", "a", "", &arguments)).expect("a good binding");
    let found = route_message(&mut exchanges, "x", "", &message(headers));
    assert_eq!(found == "a", expected);
}

#[test]
fn headers_exchange_takes_messages_without_headers() {
    let mut exchanges = with("x", "headers", &[]);
    exchanges.bind(&binding("x", "a", "", &[("k", text("1"))])).expect("a good binding");
    exchanges.bind(&binding("x", "b", "", &[])).expect("a good binding");
    let bare = message_with(&Properties::default());
    assert_eq!(route_message(&mut exchanges, "x", "", &bare), "b");
}

fn int(number: i32) -> Value {
    Value::I32(number)
}

#[rstest]
#[case("x", "nonesuch", &[], "unknown exchange type 'nonesuch'")]
#[case("", "direct", &[], "operation not permitted on the default exchange")]
#[case("", "nonesuch", &[], "unknown exchange type 'nonesuch'")]
#[case("amq.x", "direct", &[], "exchange name 'amq.x' contains reserved prefix 'amq.*'")]
#[case("amq.direct", "fanout", &[], "inequivalent arg 'type' for exchange 'amq.direct' in vhost 'v': received 'fanout' but current is 'direct'")]
#[case("x", "direct", &[("alternate-exchange", int(1))], "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost 'v'")]
#[case("x", "x-delayed-message", &[], "Invalid argument, 'x-delayed-type' must be an existing exchange type")]
#[case("x", "x-delayed-message", &[("x-delayed-type", text("x-delayed-message"))], "Invalid argument, 'x-delayed-type' must be an existing exchange type")]
#[case("x", "x-delayed-message", &[("x-delayed-type", text("odd"))], "unknown exchange type 'odd'")]
#[case("x", "x-consistent-hash", &[("hash-header", text("h")), ("hash-property", text("message_id"))], "hash-header and hash-property are mutually exclusive")]
#[case("x", "x-consistent-hash", &[("hash-property", text("app_id"))], "Unsupported property: app_id")]
#[case("x", "x-recent-history", &[("x-recent-history-length", int(0))], "Invalid argument 0, 'x-recent-history-length' must be a positive integer")]
#[case("x", "x-recent-history", &[("x-recent-history-length", text("ten"))], "Invalid argument ten, 'x-recent-history-length' must be a positive integer")]
fn declaration_is_refused(
    #[case] name: &str,
    #[case] kind: &str,
    #[case] arguments: &[(&str, Value)],
    #[case] expected: &str,
) {
    let mut exchanges = exchanges();
    let before = exchanges.generation();
    let refusal = exchanges.declare(&declaration(name, kind, arguments)).expect_err("refused");
    assert_eq!(refusal.to_string(), expected);
    assert_eq!(exchanges.generation(), before);
}

#[rstest]
#[case(|it: &mut DeclareExchange| it.kind = "fanout".into(), "inequivalent arg 'type' for exchange 'x' in vhost 'v': received 'fanout' but current is 'direct'")]
#[case(|it: &mut DeclareExchange| { it.kind = "fanout".into(); it.durable = false }, "inequivalent arg 'type' for exchange 'x' in vhost 'v': received 'fanout' but current is 'direct'")]
#[case(|it: &mut DeclareExchange| { it.durable = false; it.auto_delete = true }, "inequivalent arg 'durable' for exchange 'x' in vhost 'v': received 'false' but current is 'true'")]
#[case(|it: &mut DeclareExchange| { it.auto_delete = true; it.internal = true }, "inequivalent arg 'auto_delete' for exchange 'x' in vhost 'v': received 'true' but current is 'false'")]
#[case(|it: &mut DeclareExchange| { it.internal = true; it.arguments = Table::new() }, "inequivalent arg 'internal' for exchange 'x' in vhost 'v': received 'true' but current is 'false'")]
#[case(|it: &mut DeclareExchange| it.arguments = Table::new(), "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost 'v': received none but current is the value 'ae' of type 'longstr'")]
#[case(|it: &mut DeclareExchange| it.arguments.set("alternate-exchange", text("other")), "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost 'v': received 'other' but current is 'ae'")]
#[case(|it: &mut DeclareExchange| it.arguments.set("x-unknown", int(1)), "")]
#[case(|_: &mut DeclareExchange| {}, "")]
fn redeclaration_must_mean_the_same(
    #[case] change: fn(&mut DeclareExchange),
    #[case] expected: &str,
) {
    let mut exchanges = with("x", "direct", &[("alternate-exchange", text("ae"))]);
    let mut again = declaration("x", "direct", &[("alternate-exchange", text("ae"))]);
    change(&mut again);
    match exchanges.declare(&again) {
        Ok(declared) => assert_eq!((declared, expected), (Declared::Exists, "")),
        Err(refusal) => assert_eq!(refusal.to_string(), expected),
    }
}

#[test]
fn alternate_added_later_is_inequivalent() {
    let mut exchanges = with("x", "direct", &[]);
    let again = declaration("x", "direct", &[("alternate-exchange", text("ae"))]);
    assert_eq!(
        exchanges.declare(&again).expect_err("refused").to_string(),
        "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost 'v': \
         received the value 'ae' of type 'longstr' but current is none"
    );
}

#[rstest]
#[case("x", "")]
#[case("amq.topic", "")]
#[case("y", "no exchange 'y' in vhost 'v'")]
#[case("", "operation not permitted on the default exchange")]
fn passive_declaration_only_looks(#[case] name: &str, #[case] expected: &str) {
    let mut exchanges = with("x", "direct", &[]);
    let mut passive = declaration(name, "nonesuch", &[]);
    passive.passive = true;
    match exchanges.declare(&passive) {
        Ok(declared) => assert_eq!((declared, expected), (Declared::Exists, "")),
        Err(refusal) => assert_eq!(refusal.to_string(), expected),
    }
}

#[rstest]
#[case("x", false, "")]
#[case("missing", true, "")]
#[case("x", true, "exchange 'x' in vhost 'v' in use")]
#[case("", false, "operation not permitted on the default exchange")]
#[case("amq.direct", false, "deletion of system exchange 'amq.direct' in vhost 'v' not allowed")]
fn deletion(#[case] name: &str, #[case] if_unused: bool, #[case] expected: &str) {
    let mut exchanges = with("x", "direct", &[]);
    bind(&mut exchanges, "x", "a", "k");
    match exchanges.delete(name, if_unused) {
        Ok(removed) => {
            let existed = usize::from(name == "x");
            assert_eq!((removed.exchanges.len(), removed.bindings.len()), (existed, existed));
            assert_eq!(expected, "");
        }
        Err(refusal) => assert_eq!(refusal.to_string(), expected),
    }
}

#[rstest]
#[case("missing", "a", "", &[], "no exchange 'missing' in vhost 'v'")]
#[case("missing", "xmissing", "", &[], "no exchange 'missing' in vhost 'v'")]
#[case("amq.direct", "xmissing", "", &[], "no exchange 'xmissing' in vhost 'v'")]
#[case("", "a", "a", &[], "operation not permitted on the default exchange")]
#[case("amq.headers", "a", "", &[("x-match", text("some"))], "Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x")]
#[case("amq.headers", "a", "", &[("x-match", int(1))], "Invalid x-match field type signedint (value 1); expected longstr")]
#[case("xhash", "a", "0", &[], "The binding key must be greater than 0")]
#[case("xhash", "a", "", &[], "The binding key must be an integer: <<>>")]
#[case("xhash", "a", "many", &[], "The binding key must be an integer: <<\"many\">>")]
fn binding_is_refused(
    #[case] source: &str,
    #[case] to: &str,
    #[case] key: &str,
    #[case] arguments: &[(&str, Value)],
    #[case] expected: &str,
) {
    let mut exchanges = with("xhash", "x-consistent-hash", &[]);
    let refusal = exchanges.bind(&binding(source, to, key, arguments)).expect_err("refused");
    assert_eq!(refusal.to_string(), expected);
    assert_eq!(exchanges.bindings().count(), 0);
}

#[test]
fn default_exchange_is_no_destination() {
    let mut exchanges = exchanges();
    let mut binding = binding("amq.direct", "a", "k", &[]);
    binding.destination = Destination::Exchange("".into());
    assert_eq!(exchanges.bind(&binding).expect_err("refused"), Refusal::DefaultExchange);
    assert_eq!(exchanges.unbind(&binding), Err(Refusal::DefaultExchange));
}

#[test]
fn binding_is_known_by_its_arguments_in_any_order() {
    let mut exchanges = exchanges();
    let one = [("a", int(1)), ("b", int(2))];
    let two = [("b", int(2)), ("a", int(1))];
    let first = exchanges.bind(&binding("amq.headers", "a", "", &one)).expect("bound");
    assert!(matches!(first, Bound::New { .. }));
    let again = exchanges.bind(&binding("amq.headers", "a", "", &two)).expect("bound");
    assert!(matches!(again, Bound::Exists));
    let other = exchanges.bind(&binding("amq.headers", "a", "", &[])).expect("bound");
    assert!(matches!(other, Bound::New { .. }));
    assert_eq!(exchanges.bindings().count(), 2);
    let removed = exchanges.unbind(&binding("amq.headers", "a", "", &two)).expect("unbound");
    assert_eq!(removed.bindings.len(), 1);
    let nothing = exchanges.unbind(&binding("amq.headers", "a", "", &two)).expect("unbound");
    assert_eq!(nothing, Removed::default());
}

#[test]
fn removed_binding_is_told_as_it_was_made() {
    let mut exchanges = exchanges();
    let made = exchanges.bind(&binding("amq.headers", "a", "", &[("n", int(1))])).expect("bound");
    let Bound::New { definition, .. } = made else { panic!("a new binding") };
    let other_width = binding("amq.headers", "a", "", &[("n", Value::U8(1))]);
    let removed = exchanges.unbind(&other_width).expect("unbound");
    assert_eq!(removed.bindings[0].key(), definition.key());
}

#[test]
fn default_exchange_finds_mailboxes_by_name() {
    let mut exchanges = exchanges();
    assert_eq!(route(&mut exchanges, "", "a"), "a");
    assert_eq!(route(&mut exchanges, "", "unknown"), "");
    let mut out = Vec::new();
    let keys = ["b".into(), "a".into(), "unknown".into()];
    exchanges.route(&"".into(), b"a", &keys, &message(&[]), &mailbox, &mut out);
    assert_eq!(out, ["a", "b"]);
}

#[test]
fn further_keys_route_too() {
    let mut exchanges = exchanges();
    for (source, to, key) in [
        ("amq.topic", "a", "k.*"),
        ("amq.topic", "b", "l"),
        ("amq.direct", "a", "k.1"),
        ("amq.direct", "b", "l"),
    ] {
        bind(&mut exchanges, source, to, key);
    }
    for source in ["amq.topic", "amq.direct"] {
        let mut out = Vec::new();
        let keys = ["l".into(), "k.2".into()];
        let routed =
            exchanges.route(&source.into(), b"k.1", &keys, &message(&[]), &mailbox, &mut out);
        assert_eq!(out, ["a", "b"]);
        assert!(!routed.cacheable);
    }
}

#[test]
fn exchanges_in_a_circle_are_each_passed_once() {
    let mut exchanges = exchanges();
    for name in ["x1", "x2", "x3"] {
        exchanges.declare(&declaration(name, "fanout", &[])).expect("declared");
    }
    for (from, to) in
        [("x1", "x2"), ("x2", "x3"), ("x3", "x1"), ("x1", "x1"), ("x3", "a"), ("x2", "a")]
    {
        bind(&mut exchanges, from, to, "");
    }
    for from in ["x1", "x2", "x3"] {
        assert_eq!(route(&mut exchanges, from, ""), "a");
    }
    exchanges.delete("x2", false).expect("deleted");
    assert_eq!(route(&mut exchanges, "x1", ""), "");
    assert_eq!(route(&mut exchanges, "x3", ""), "a");
    exchanges.delete("x1", false).expect("deleted");
    let left: Vec<_> = exchanges.bindings().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].source, "x3");
}

#[test]
fn alternate_takes_what_own_bindings_leave() {
    let mut exchanges = exchanges();
    for (name, alternate) in [("x1", "x2"), ("x2", "x3"), ("x3", "x1"), ("x4", "missing")] {
        let declaration = declaration(name, "direct", &[("alternate-exchange", text(alternate))]);
        exchanges.declare(&declaration).expect("declared");
    }
    bind(&mut exchanges, "x1", "a", "one");
    bind(&mut exchanges, "x2", "b", "two");
    bind(&mut exchanges, "x3", "c", "one");
    assert_eq!(route(&mut exchanges, "x1", "one"), "a");
    assert_eq!(route(&mut exchanges, "x1", "two"), "b");
    assert_eq!(route(&mut exchanges, "x2", "one"), "c");
    assert_eq!(route(&mut exchanges, "x1", "none"), "");
    assert_eq!(route(&mut exchanges, "x4", "any"), "");
    // A binding to an exchange is a binding, even where nothing comes of it.
    bind(&mut exchanges, "x1", "x4", "two");
    assert_eq!(route(&mut exchanges, "x1", "two"), "");
}

#[test]
fn alternate_may_be_the_default_exchange() {
    let mut exchanges = with("x1", "fanout", &[]);
    let declaration = declaration("x2", "direct", &[("alternate-exchange", text(""))]);
    exchanges.declare(&declaration).expect("declared");
    bind(&mut exchanges, "x1", "x2", "");
    bind(&mut exchanges, "x1", "a", "");
    assert_eq!(route(&mut exchanges, "x2", "b"), "b");
    assert_eq!(route(&mut exchanges, "x1", "b"), "a b");
    assert_eq!(route(&mut exchanges, "x1", "a"), "a");
}

#[test]
fn alternate_of_a_policy_yields_to_the_argument() {
    let mut exchanges = with("x1", "direct", &[]);
    let declaration = declaration("x2", "direct", &[("alternate-exchange", text("amq.direct"))]);
    exchanges.declare(&declaration).expect("declared");
    bind(&mut exchanges, "amq.fanout", "a", "");
    let before = exchanges.generation();
    exchanges.set_alternate_by_policy("x1", Some("amq.fanout".into()));
    assert!(exchanges.generation() > before);
    exchanges.set_alternate_by_policy("x2", Some("amq.fanout".into()));
    assert_eq!(route(&mut exchanges, "x1", ""), "a");
    assert_eq!(route(&mut exchanges, "x2", ""), "");
    exchanges.set_alternate_by_policy("x1", None);
    assert_eq!(route(&mut exchanges, "x1", ""), "");
}

#[test]
fn auto_delete_exchanges_go_with_their_last_binding() {
    let mut exchanges = exchanges();
    for name in ["x1", "x2", "x3"] {
        let mut declaration = declaration(name, "fanout", &[]);
        declaration.auto_delete = true;
        exchanges.declare(&declaration).expect("declared");
    }
    bind(&mut exchanges, "x1", "x2", "");
    bind(&mut exchanges, "x2", "a", "one");
    bind(&mut exchanges, "x2", "a", "two");
    // Nothing was ever bound from x3.
    bind(&mut exchanges, "amq.fanout", "x3", "");

    let removed = exchanges.unbind(&binding("x2", "a", "one", &[])).expect("unbound");
    assert_eq!((removed.exchanges.len(), removed.bindings.len()), (0, 1));
    let removed = exchanges.unbind_mailbox(&"a".into());
    let names: Vec<_> = removed.exchanges.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["x2", "x1"]);
    assert_eq!(removed.bindings.len(), 2);
    assert!(exchanges.get("x3").is_some());
    assert_eq!(exchanges.bindings().count(), 1);
}

#[test]
fn long_chain_of_auto_delete_exchanges_goes_at_once() {
    let mut exchanges = exchanges();
    for at in 0..5000 {
        let mut declaration = declaration(&format!("x{at}"), "fanout", &[]);
        declaration.auto_delete = true;
        exchanges.declare(&declaration).expect("declared");
        let to = if at == 0 { "a".to_owned() } else { format!("x{}", at - 1) };
        bind(&mut exchanges, &format!("x{at}"), &to, "");
    }
    assert_eq!(route(&mut exchanges, "x4999", ""), "a");
    let removed = exchanges.unbind_mailbox(&"a".into());
    assert_eq!((removed.exchanges.len(), removed.bindings.len()), (5000, 5000));
    assert_eq!(exchanges.count(), PREDECLARED.len());
}

#[test]
fn bindings_are_listed_from_both_ends() {
    let mut exchanges = with("x", "fanout", &[]);
    for (source, to, key) in [
        ("x", "b", "2"),
        ("x", "a", "1"),
        ("amq.direct", "a", "3"),
        ("amq.direct", "a", "0"),
        ("amq.direct", "x", "4"),
    ] {
        bind(&mut exchanges, source, to, key);
    }
    let keys = |bindings: Vec<BindingDefinition>| {
        bindings
            .iter()
            .map(|it| String::from_utf8_lossy(&it.key.0).into_owned())
            .collect::<String>()
    };
    assert_eq!(keys(exchanges.bindings().collect()), "03412");
    assert_eq!(keys(exchanges.bindings_from("x").collect()), "12");
    assert_eq!(keys(exchanges.bindings_to(&Destination::Mailbox("a".into())).collect()), "031");
    assert_eq!(keys(exchanges.bindings_to(&Destination::Exchange("x".into())).collect()), "4");
    assert_eq!(exchanges.bindings_to(&Destination::Mailbox("z".into())).count(), 0);
}

#[test]
fn what_was_stored_comes_back() {
    let mut exchanges = with("x", "topic", &[]);
    bind(&mut exchanges, "x", "a", "k.#");
    bind(&mut exchanges, "amq.fanout", "x", "");
    let mut restored = self::exchanges();
    for exchange in exchanges.iter() {
        restored.restore_exchange(exchange.definition().clone()).expect("a good exchange");
    }
    for binding in exchanges.bindings() {
        restored.restore_binding(binding).expect("a good binding");
    }
    assert!(restored.bindings().eq(exchanges.bindings()));
    assert_eq!(route(&mut restored, "amq.fanout", "k.1"), "a");

    let mut unknown = exchanges.get("x").expect("declared").definition().clone();
    unknown.name = "y".into();
    unknown.kind = "nonesuch".into();
    assert!(restored.restore_exchange(unknown).is_err());
}

#[test]
fn every_change_of_routes_moves_the_generation() {
    let mut exchanges = exchanges();
    let mut last = exchanges.generation();
    let mut moved = |exchanges: &Exchanges| {
        let moved = exchanges.generation() != last;
        last = exchanges.generation();
        moved
    };
    exchanges.declare(&declaration("x", "fanout", &[])).expect("declared");
    assert!(moved(&exchanges));
    exchanges.declare(&declaration("x", "fanout", &[])).expect("declared");
    assert!(!moved(&exchanges));
    bind(&mut exchanges, "x", "a", "");
    assert!(moved(&exchanges));
    bind(&mut exchanges, "x", "a", "");
    assert!(!moved(&exchanges));
    route(&mut exchanges, "x", "");
    assert!(!moved(&exchanges));
    exchanges.unbind(&binding("x", "a", "", &[])).expect("unbound");
    assert!(moved(&exchanges));
    exchanges.unbind_mailbox(&"b".into());
    assert!(moved(&exchanges));
    exchanges.delete("x", true).expect("deleted");
    assert!(moved(&exchanges));
    exchanges.delete("x", true).expect("deleted");
    assert!(!moved(&exchanges));
}

#[rstest]
#[case("amq.direct", true)]
#[case("amq.topic", true)]
#[case("amq.fanout", true)]
#[case("", true)]
#[case("missing", true)]
#[case("amq.headers", false)]
#[case("x", false)]
#[case("x1", false)]
fn routes_by_key_alone_may_be_kept(#[case] from: &str, #[case] expected: bool) {
    let mut exchanges = with("x", "x-random", &[]);
    exchanges.declare(&declaration("x1", "fanout", &[])).expect("declared");
    bind(&mut exchanges, "x1", "x", "");
    let message = message(&[]);
    let routed = exchanges.route(&from.into(), b"k", &[], &message, &mailbox, &mut Vec::new());
    assert_eq!(routed.cacheable, expected);
}

fn shares(exchanges: &mut Exchanges, keys: u32) -> BTreeMap<String, Vec<u32>> {
    let mut shares: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for key in 0..keys {
        shares.entry(route(exchanges, "x", &format!("key-{key}"))).or_default().push(key);
    }
    shares
}

#[test]
fn consistent_hash_shares_by_weight_and_moves_little() {
    let mut exchanges = with("x", "x-consistent-hash", &[]);
    for (to, weight) in [("a", "1"), ("b", "2"), ("c", "1")] {
        bind(&mut exchanges, "x", to, weight);
    }
    let before = shares(&mut exchanges, 4000);
    for (name, expected) in [("a", 1000), ("b", 2000), ("c", 1000)] {
        let share = before[name].len();
        assert!(share.abs_diff(expected) < 120, "{name} has {share}");
    }
    // A newcomer only takes.
    bind(&mut exchanges, "x", "d", "1");
    let after = shares(&mut exchanges, 4000);
    for name in ["a", "b", "c"] {
        assert!(after[name].iter().all(|key| before[name].contains(key)));
    }
    // When it goes all is as before, also in another order of binding.
    exchanges.unbind_mailbox(&"d".into());
    assert_eq!(shares(&mut exchanges, 4000), before);
    exchanges.unbind(&binding("x", "a", "1", &[])).expect("unbound");
    bind(&mut exchanges, "x", "a", "1");
    assert_eq!(shares(&mut exchanges, 4000), before);
}

#[test]
fn consistent_hash_counts_the_first_binding_of_a_mailbox() {
    let mut exchanges = with("x", "x-consistent-hash", &[]);
    bind(&mut exchanges, "x", "a", "1");
    bind(&mut exchanges, "x", "b", "1");
    let before = shares(&mut exchanges, 500);
    bind(&mut exchanges, "x", "a", "100");
    assert_eq!(shares(&mut exchanges, 500), before);
    exchanges.unbind(&binding("x", "a", "1", &[])).expect("unbound");
    assert!(shares(&mut exchanges, 500)["a"].len() > 450);
}

#[rstest]
#[case("hash-header", "h")]
#[case("hash-property", "message_id")]
#[case("hash-property", "correlation_id")]
#[case("hash-property", "timestamp")]
fn consistent_hash_of_something_else_ignores_the_key(#[case] argument: &str, #[case] of: &str) {
    let mut exchanges = with("x", "x-consistent-hash", &[(argument, text(of))]);
    for to in ["a", "b", "c", "d"] {
        bind(&mut exchanges, "x", to, "1");
    }
    let mut used = BTreeSet::new();
    for number in 0..50u64 {
        let value = Some(Bytes::from(number.to_string()));
        let message = message_with(&Properties {
            headers: Some(table(&[("h", Value::I64(number as i64))])),
            message_id: value.clone(),
            correlation_id: value,
            timestamp: Some(number),
            ..Properties::default()
        });
        let to = route_message(&mut exchanges, "x", "one", &message);
        assert_eq!(to, route_message(&mut exchanges, "x", "two", &message));
        used.insert(to);
    }
    assert_eq!(used.len(), 4);
    // Messages without the value stay together.
    let bare = message_with(&Properties::default());
    let to = route_message(&mut exchanges, "x", "one", &bare);
    assert_eq!(to, route_message(&mut exchanges, "x", "two", &bare));
}

#[test]
fn modulus_hash_does_not_depend_on_order_of_binding() {
    let mut one = with("x", "x-modulus-hash", &[]);
    let mut two = with("x", "x-modulus-hash", &[]);
    for (first, second) in [("a", "c"), ("b", "b"), ("c", "a")] {
        bind(&mut one, "x", first, "");
        bind(&mut two, "x", second, "");
    }
    let shares = shares(&mut one, 300);
    assert_eq!(shares, self::shares(&mut two, 300));
    assert!(shares.values().all(|keys| keys.len() > 60));
}

#[test]
fn random_repeats_with_its_seed() {
    let run = |seed| {
        let mut exchanges = Exchanges::new("v".into(), seed);
        exchanges.declare(&declaration("x", "x-random", &[])).expect("declared");
        for to in ["a", "b", "c"] {
            bind(&mut exchanges, "x", to, "");
        }
        (0..300).map(|_| route(&mut exchanges, "x", "")).collect::<String>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(["a", "b", "c"].iter().all(|to| run(1).matches(to).count() > 60));
}

#[test]
fn recent_history_is_given_to_new_bindings() {
    let mut exchanges = with("x", "x-recent-history", &[("x-recent-history-length", int(3))]);
    for number in 0..5 {
        route_message(&mut exchanges, "x", "", &message(&[("n", int(number))]));
    }
    let no_store = message(&[("n", int(9)), ("x-recent-history-no-store", Value::Bool(true))]);
    route_message(&mut exchanges, "x", "", &no_store);
    let Ok(Bound::New { replay, .. }) = exchanges.bind(&binding("x", "a", "", &[])) else {
        panic!("a new binding");
    };
    let numbers: Vec<_> = replay
        .iter()
        .filter_map(|message| message.properties().header("n").and_then(Value::as_i64))
        .collect();
    assert_eq!(numbers, [2, 3, 4]);
}

#[rstest]
#[case(Some(int(5000)), Some(5000))]
#[case(Some(Value::U8(1)), Some(1))]
#[case(Some(Value::I64(315_360_000_000)), Some(315_360_000_000))]
#[case(Some(Value::I64(315_360_000_001)), None)]
#[case(Some(int(0)), None)]
#[case(Some(int(-5000)), None)]
#[case(Some(text("250")), Some(250))]
#[case(Some(text("soon")), None)]
#[case(Some(Value::F64(1.9)), Some(1))]
#[case(Some(Value::F64(f64::NAN)), None)]
#[case(Some(Value::Decimal { scale: 1, value: 25 }), Some(2))]
#[case(Some(Value::Decimal { scale: 255, value: 25 }), None)]
#[case(Some(Value::Bool(true)), None)]
#[case(None, None)]
fn delay_of(#[case] header: Option<Value>, #[case] expected: Option<u64>) {
    let headers: Vec<_> = header.into_iter().map(|value| ("x-delay", value)).collect();
    assert_eq!(delay_ms(&message(&headers)), expected);
}

#[test]
fn delayed_exchange_routes_by_its_type_once_the_wait_is_over() {
    let mut exchanges = with("x", "x-delayed-message", &[("x-delayed-type", text("topic"))]);
    assert!(exchanges.get("x").expect("declared").delayed());
    bind(&mut exchanges, "x", "a", "k.*");
    bind(&mut exchanges, "amq.fanout", "x", "");
    bind(&mut exchanges, "amq.fanout", "b", "");
    for (from, now) in [("x", ""), ("amq.fanout", "b")] {
        let mut out = Vec::new();
        let waits = message(&[("x-delay", int(10))]);
        let routed = exchanges.route(&from.into(), b"k.1", &[], &waits, &mailbox, &mut out);
        assert_eq!(out.iter().map(Name::as_str).collect::<String>(), now);
        assert_eq!(routed, Routed { cacheable: false, delayed: vec!["x".into()] });
    }
    let waited = message(&[("x-delay", int(-10))]);
    assert_eq!(route_message(&mut exchanges, "x", "k.1", &waited), "a");
    assert_eq!(route_message(&mut exchanges, "x", "other", &waited), "");
}
