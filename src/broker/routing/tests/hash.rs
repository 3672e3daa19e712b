//! `x-consistent-hash` and `x-modulus-hash`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rstest::rstest;

use super::*;

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
