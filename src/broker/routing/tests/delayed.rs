//! `x-delayed-message` and `x-recent-history`: messages that stay at an exchange.

use rstest::rstest;

use super::*;

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
