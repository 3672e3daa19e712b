//! `headers`: all four ways to match.

use rstest::rstest;

use super::*;

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
