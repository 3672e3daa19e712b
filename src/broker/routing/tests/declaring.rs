//! Declaring, deleting, binding and unbinding.

use rstest::rstest;

use super::*;

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
