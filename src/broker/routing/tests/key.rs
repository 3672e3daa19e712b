//! Kinds that look at the key as it is, or not at all: direct, fanout, random; and what all kinds do alike.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

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

proptest! {
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
