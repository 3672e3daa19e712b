//! Values in, values out; whole conversations are in `tests/http`.

use rstest::rstest;
use serde_json::{Value, json};

use super::routes::{Found, ROUTES, decode, encode, find};
use super::*;
use crate::broker::inspect::{MailboxSample, MailboxView, Overview};
use crate::broker::{Counts, MailboxId, Table, Time};

#[rstest]
#[case("/api/queues/%2F/a%2Fb", "Queue", &["/", "a/b"])]
#[case("/api/queues/detailed", "QueuesDetailed", &[])]
#[case("/api/queues/detailed/x", "Queue", &["detailed", "x"])]
#[case("/api/users/without-permissions", "UsersWithoutPermissions", &[])]
#[case("/api/overview/", "Overview", &[])]
#[case("/api/bindings/v/e/s/e/d", "ExchangeBindingsFrom", &["v", "s", "d"])]
fn paths_lead_to_their_routes(#[case] path: &str, #[case] call: &str, #[case] names: &[&str]) {
    let Ok(Found::Route(at, captures)) = find(Some(Method::Get), path) else { panic!("{path}") };
    assert_eq!(format!("{:?}", ROUTES[at].call), call);
    let places = ROUTES[at].path.split('/').filter_map(|it| it.strip_prefix('{'));
    let found: Vec<&str> = places.filter_map(|it| captures.get(it.trim_end_matches('}'))).collect();
    assert_eq!(found, names);
}

#[test]
fn no_path_has_two_meanings() {
    for route in ROUTES {
        let same = ROUTES.iter().filter(|it| it.method == route.method && it.path == route.path);
        assert_eq!(same.count(), 1, "{}", route.path);
    }
}

#[rstest]
#[case("a%2Fb%20c", Some("a/b c"))]
#[case("%C3%A4", Some("\u{e4}"))]
#[case("100%", None)]
#[case("%2", None)]
#[case("%+1", None)]
#[case("%ff", None)]
#[case("a%00", None)]
fn names_are_decoded(#[case] coded: &str, #[case] name: Option<&str>) {
    assert_eq!(decode(coded).ok().as_deref(), name);
    if let Some(name) = name {
        assert_eq!(decode(&encode(name.as_bytes())).as_deref(), Ok(name));
    }
}

#[rstest]
#[case("{\"a\": [1, 2.5, null, true, \"x\"]}", true)]
#[case("{\"a\": 1, \"b\": {\"a\": 1}}", true)]
#[case("{\"a\": 1, \"a\": 1}", false)]
#[case("{\"a\": 1e400}", false)]
#[case("{\"a\": 18446744073709551616}", false)]
#[case("1 2", false)]
#[case("", false)]
fn json_is_read_strictly(#[case] text: &str, #[case] good: bool) {
    assert_eq!(strict::read(text.as_bytes()).is_ok(), good, "{text}");
}

#[test]
fn depth_has_an_end() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(strict::read(nested(64).as_bytes()).is_ok());
    assert!(strict::read(nested(65).as_bytes()).is_err());
}

#[test]
fn tables_survive_both_ways() {
    let json = json!({"s": "text", "n": -5, "f": 1.5, "b": true, "z": null, "l": [1, {"a": "b"}]});
    let table = value::table_of(Some(&json), "arguments").unwrap();
    assert_eq!(value::table_to_json(&table), json);
    assert_eq!(value::table_of(None, "arguments"), Ok(Table::new()));
    assert!(value::table_of(Some(&json!("x")), "arguments").is_err());
}

#[test]
fn rates_are_what_came_between_two_looks() {
    let mut samples = Samples::default();
    let sample = |published, ready| MailboxSample {
        id: MailboxId(1),
        ready,
        unsettled: 0,
        counts: Counts { published, ..Counts::default() },
    };
    for (now, published, ready) in [(1_000, 10, 10), (3_000, 50, 0)] {
        samples.begin(Time(now));
        samples.take_overview(&Overview { ready, ..Overview::default() });
        samples.take_mailboxes(&[sample(published, ready)]);
        samples.end();
    }
    let counts = Counts { published: 60, ..Counts::default() };
    let (stats, [ready, unsettled, both]) = samples.mailbox_stats(MailboxId(1), &counts);
    assert_eq!((&stats["publish"], &stats["publish_details"]["rate"]), (&json!(60), &json!(20.0)));
    assert_eq!((ready, unsettled, both), (-5.0, 0.0, -5.0));
    let totals = samples.queue_totals(&Overview::default(), true);
    let points = totals["messages_ready_details"]["samples"].as_array().unwrap();
    assert_eq!(points[0], json!({"timestamp": 3000, "sample": 0}));
    assert_eq!(points.len(), 2);
    // What is gone is forgotten, and starts anew.
    samples.begin(Time(4_000));
    samples.end();
    let (stats, _) = samples.mailbox_stats(MailboxId(1), &counts);
    assert_eq!(stats["publish_details"]["rate"], json!(0.0));
}

#[test]
fn columns_reach_into_objects() {
    let selection = Query::parse("columns=a,b.c,b.d,x.y&sort=b.c").unwrap().selection().unwrap();
    let rows = vec![json!({"a": 1, "b": {"c": 2, "d": 3, "e": 4}}), json!({"a": 5, "b": {"c": 1}})];
    let list = selection.list(rows, |_| "", |it| it).unwrap();
    assert_eq!(list, json!([{"a": 5, "b": {"c": 1}}, {"a": 1, "b": {"c": 2, "d": 3}}]));
}

/// Lists are ordered by these numbers without making rows, and must be in the order of what the rows say.
#[rstest]
#[case("messages", true)]
#[case("messages_ready", true)]
#[case("messages_unacknowledged", true)]
#[case("message_bytes", true)]
#[case("message_bytes_ready", true)]
#[case("message_bytes_unacknowledged", true)]
#[case("memory", true)]
#[case("consumers", true)]
#[case("state", false)]
#[case("message_stats", false)]
fn numbers_of_a_mailbox_are_those_of_its_row(#[case] column: &str, #[case] known: bool) {
    let view = MailboxView {
        id: MailboxId(1),
        vhost: "/".into(),
        name: "a".into(),
        kind: "classic",
        ready: 1,
        ready_bytes: 20,
        unsettled: 300,
        delayed: 4000,
        unsettled_bytes: 50_000,
        consumers: 600_000,
        durable: true,
        auto_delete: false,
        exclusive: false,
        owner: None,
        internal: false,
        consumers_busy: false,
        policy: None,
        operator_policy: None,
        arguments: Table::new(),
        oldest: None,
        counts: Counts::default(),
        policies: Vec::new(),
    };
    let row = json::mailbox(&view, &Samples::default(), &json::Host::default());
    let number = json::mailbox_number(&view, column);
    assert_eq!(number.is_some(), known);
    if known {
        assert_eq!(row[column].as_u64(), number);
    }
}

/// Whether a list is made at once or in steps.
#[rstest]
#[case("sort=n&sort_reverse=true", "[5, 3, 1]")]
#[case("sort=n&page=2&page_size=2", "[5]")]
#[case("sort_reverse=true&page=1&page_size=2", "[3, 1]")]
fn lists_are_the_same_in_steps(#[case] query: &str, #[case] expected: &str) {
    let selection = Query::parse(query).unwrap().selection().unwrap();
    let all: Vec<Value> = [5, 1, 3].map(|n| json!({"n": n})).to_vec();
    let whole = selection.list(all.clone(), |_| "", |it| it).unwrap();
    let keys = all.iter().map(|it| selection.key(it)).collect();
    let ordered = if selection.is_by_name() {
        selection.by_name(all, |_| "")
    } else {
        selection.by_keys(all, keys)
    };
    let shown = selection.cut(ordered).unwrap();
    let (head, tail) = selection.around(3, 3, shown.len());
    let rows: Vec<String> = shown.iter().map(Value::to_string).collect();
    let text = format!("{head}{}{tail}", rows.join(","));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), whole);
    let numbers: Vec<&Value> = shown.iter().map(|it| &it["n"]).collect();
    assert_eq!(json!(numbers), serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn nothing_that_cannot_be_told_is_told() {
    let refusals = [crate::broker::Refusal::NoSuchVhost { vhost: "v".into() }];
    assert_eq!(refusals.map(|it| Fault::from(it).status), [404]);
    assert_eq!(
        Fault::not_found().body(),
        json!({"error": "Object Not Found", "reason": "Not Found"})
    );
    assert_eq!(Fault::bad_request("x").body()["reason"], Value::from("x"));
}
