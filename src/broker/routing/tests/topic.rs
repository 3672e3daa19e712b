//! `topic`: patterns of words.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

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
        restore(&mut exchanges, "x", &(at + 1).to_string(), pattern);
    }
    let found = route(&mut exchanges, "x", key);
    let set = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(&found), set(expected));
}

#[test]
fn topic_survives_many_hashes() {
    let mut exchanges = with("x", "topic", &[]);
    restore(&mut exchanges, "x", "a", &["#.w"; 64].join("."));
    restore(&mut exchanges, "x", "b", &["#.*"; 64].join("."));
    restore(&mut exchanges, "x", "c", &format!("{}.z", ["#.w"; 63].join(".")));
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
                restore(&mut exchanges, "x", &to, &pattern);
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
}

#[rstest]
#[case("#.#", "")]
#[case("#.a.#", "")]
#[case("##.#.###.#", "")]
#[case("#.#.#", "invalid binding key '#.#.#': 3 '#' wildcards, at most 2 are allowed")]
#[case(
    "#.a.#.b.#.c.#",
    "invalid binding key '#.a.#.b.#.c.#': 4 '#' wildcards, at most 2 are allowed"
)]
fn new_pattern_has_few_hashes(#[case] key: &str, #[case] expected: &str) {
    let mut exchanges = with("x", "topic", &[]);
    let text = exchanges.bind(&binding("x", "a", key, &[])).err().map(|it| it.to_string());
    assert_eq!(text.unwrap_or_default(), expected);
}

#[test]
fn new_pattern_has_few_words() {
    let mut exchanges = with("x", "x-delayed-message", &[("x-delayed-type", text("topic"))]);
    let key = ["w"; 128].join(".");
    bind(&mut exchanges, "x", "a", &key);
    let refusal = exchanges.bind(&binding("x", "a", &format!("{key}."), &[])).expect_err("refused");
    assert!(refusal.to_string().ends_with(": 129 words, at most 128 are allowed"), "{refusal}");
    bind(&mut exchanges, "amq.direct", "a", &["#"; 100].join("."));
}
