use bytes::Bytes;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::broker::{Table, TableKey};

fn properties() -> Properties {
    let headers = [
        ("region", Value::text("eu")),
        ("name", Value::text("it's 100%")),
        ("size", Value::I32(7)),
        ("big", Value::I64(i64::MAX)),
        ("weight", Value::F64(2.5)),
        ("hot", Value::Bool(true)),
        ("nothing", Value::Void),
        ("list", Value::Array(vec![])),
        ("my-header", Value::U8(3)),
        ("price", Value::Decimal { scale: 2, value: 995 }),
    ];
    let headers: Table = headers.into_iter().map(|(key, it)| (TableKey::from(key), it)).collect();
    Properties {
        headers: Some(headers),
        priority: Some(8),
        delivery_mode: Some(2),
        timestamp: Some(12),
        kind: Some(Bytes::from_static(b"order")),
        message_id: Some(Bytes::from_static(b"m1")),
        ..Properties::default()
    }
}

#[rstest]
#[case("region = 'eu'", true)]
#[case("region <> 'eu'", false)]
#[case("region='us'", false)]
#[case("'eu' = region", true)]
#[case("size = 7", true)]
#[case("size = 7.0", true)]
#[case("size <> 8", true)]
#[case("size < 8 and size > 6 AnD size <= 7 AND size >= 7", true)]
#[case("weight > 2", true)]
#[case("weight = 25E-1", true)]
#[case("weight = 2.5d AND size = 7L AND .5 < size AND 7. = size", true)]
#[case("price = 9.95", true)]
#[case("hot", true)]
#[case("hot = TRUE", true)]
#[case("hot <> false", true)]
#[case("hot > false", false)]
#[case("NOT hot", false)]
#[case("not not hot", true)]
#[case("TRUE", true)]
#[case("7", false)]
#[case("region", false)]
// Unlike types: false, whichever way it is asked.
#[case("size = '7'", false)]
#[case("size <> '7'", false)]
#[case("list = 1", false)]
#[case("region < 'z'", false)]
// Unknown.
#[case("missing = 1", false)]
#[case("missing <> 1", false)]
#[case("NOT missing = 1", false)]
#[case("missing = 1 OR hot", true)]
#[case("hot OR missing = 1", true)]
#[case("missing = 1 AND hot", false)]
#[case("NOT (missing = 1 AND NOT hot)", true)]
#[case("NOT (missing = 1 OR NOT hot)", false)]
#[case("missing = missing", false)]
#[case("missing IS NULL", true)]
#[case("missing IS NOT NULL", false)]
#[case("region is not null", true)]
#[case("nothing IS NULL", true)]
#[case("list IS NULL", false)]
#[case("(missing = 1) IS NULL", true)]
// Precedence.
#[case("hot OR hot AND FALSE", true)]
#[case("(hot OR hot) AND FALSE", false)]
#[case("NOT FALSE AND FALSE", false)]
#[case("1 + 2 * 3 = size", true)]
#[case("(1 + 2) * 3 = 9", true)]
#[case("10 - 2 - 1 = size", true)]
#[case("-size = -7 AND - -size = +7", true)]
#[case("size / 2 = 3", true)]
#[case("size / 2.0 = 3.5", true)]
#[case("size / 0 = 1", false)]
#[case("size / 0 IS NULL", true)]
#[case("size + region IS NULL", true)]
#[case("big + 1 > 9.2E18", true)]
#[case("size -1 = 6", true)]
#[case("size BETWEEN 7 AND 9", true)]
#[case("size BETWEEN 8 AND 9", false)]
#[case("size NOT BETWEEN 8 AND 9", true)]
#[case("size BETWEEN 1 + 1 AND 9 AND hot", true)]
#[case("missing BETWEEN 1 AND 2", false)]
#[case("missing NOT BETWEEN 1 AND 2", false)]
#[case("size BETWEEN 9 AND missing", false)]
#[case("size NOT BETWEEN 9 AND missing", true)]
#[case("region IN ('us', 'eu')", true)]
#[case("region IN ('us')", false)]
#[case("region NOT IN ('us')", true)]
#[case("size IN (-1, 7)", true)]
#[case("missing IN ('us')", false)]
#[case("missing NOT IN ('us')", false)]
#[case("region LIKE 'e_'", true)]
#[case("region LIKE '_'", false)]
#[case("region LIKE '%u%'", true)]
#[case("region LIKE ''", false)]
#[case("region NOT LIKE 'u%'", true)]
#[case("name LIKE 'it''s 100\\%' ESCAPE '\\'", true)]
#[case("name LIKE 'it''s 10\\%' ESCAPE '\\'", false)]
#[case("name LIKE '%!%' ESCAPE '!'", true)]
#[case("size LIKE '7'", false)]
#[case("missing LIKE '%'", false)]
#[case("missing NOT LIKE '%'", false)]
#[case("JMSPriority = 8 AND priority = 8", true)]
#[case("JMSDeliveryMode = 'PERSISTENT'", true)]
#[case("JMSTimestamp = 12000 AND timestamp = 12", true)]
#[case("JMSType = 'order' AND type = 'order'", true)]
#[case("JMSMessageID LIKE 'm%'", true)]
#[case("JMSCorrelationID IS NULL", true)]
#[case("\"my-header\" = 3", true)]
#[case("my-header = 3", false)]
#[case("Region = 'eu'", false)]
#[case("  \t\n hot  ", true)]
fn selector_matches(#[case] text: &str, #[case] expected: bool) {
    let selector = Selector::parse(text).expect("a selector");
    assert_eq!(selector.matches(&properties()), expected);
}

#[test]
fn message_without_properties_has_the_default_priority() {
    let selector = Selector::parse("JMSPriority = 4 AND JMSDeliveryMode = 'NON_PERSISTENT'");
    assert!(selector.expect("a selector").matches(&Properties::default()));
}

#[rstest]
#[case("", "a value", 0)]
#[case("a =", "a value", 3)]
#[case("a = 'b", "a closing quote", 4)]
#[case("(a = 1", "')'", 6)]
#[case("a = 1)", "an operator or the end", 5)]
#[case("a b", "an operator or the end", 2)]
#[case("a NOT 1", "BETWEEN, IN or LIKE", 6)]
#[case("a IS 1", "NULL", 5)]
#[case("a BETWEEN 1 OR 2", "AND", 12)]
#[case("a IN ()", "a literal", 6)]
#[case("a IN 1", "'('", 5)]
#[case("a LIKE b", "a text in quotes", 7)]
#[case("a LIKE 'b' ESCAPE 'cd'", "one character in quotes", 17)]
#[case("and = 1", "a value", 0)]
#[case("a = 99999999999999999999", "a number of 64 bits", 4)]
#[case("a = 1x", "a number", 4)]
#[case("a = 1e", "a number", 4)]
#[case("a == 1", "a value", 3)]
fn text_is_no_selector(#[case] text: &str, #[case] expected: &'static str, #[case] at: usize) {
    assert_eq!(Selector::parse(text), Err(SelectorError::Expected { expected, at }));
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&deep(Selector::DEPTH_MAX)).is_ok());
    for text in [deep(Selector::DEPTH_MAX + 1), "NOT ".repeat(500), "-".repeat(500)] {
        assert_eq!(Selector::parse(&text), Err(SelectorError::TooDeep));
    }
    assert_eq!(Selector::parse(&" ".repeat(9000)), Err(SelectorError::TooLong));
    for (operator, expected) in [(" OR ", true), (" AND ", true), ("+", false), ("/", false)] {
        let selector = Selector::parse(&["hot"; 900].join(operator)).expect("a long selector");
        assert_eq!(selector.matches(&properties()), expected);
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        if let Ok(selector) = Selector::parse(&text) {
            selector.matches(&properties());
        }
    }

    #[test]
    fn any_words_are_parsed_or_refused(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "a", "1", "2.5", "'t'", "(", ")", "AND", "OR", "NOT", "=", "<", "+", "-", "*", "/",
                "LIKE", "ESCAPE", "IN", ",", "BETWEEN", "IS", "NULL", "TRUE", "size", "hot",
            ]),
            0..14,
        ),
    ) {
        if let Ok(selector) = Selector::parse(&words.join(" ")) {
            selector.matches(&properties());
        }
    }

    #[test]
    fn like_agrees_with_naive_matcher(pattern in "[ab%_]{0,8}", text in "[ab]{0,8}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern, text) {
                ([], []) => true,
                ([b'%', rest @ ..], _) => {
                    naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..]))
                }
                ([b'_', rest @ ..], [_, text @ ..]) => naive(rest, text),
                ([one, rest @ ..], [other, text @ ..]) => one == other && naive(rest, text),
                _ => false,
            }
        }
        let expected = naive(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(Like::new(&pattern, None).matches(&text), expected);
    }
}
