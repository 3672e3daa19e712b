use pillarbox_amqp::{ReplyCode, decode_amqplain, decode_plain, reply_text};
use rstest::rstest;

use crate::bytes_of::wire;

#[rstest]
#[case(200, "REPLY_SUCCESS", false)]
#[case(311, "CONTENT_TOO_LARGE", false)]
#[case(312, "NO_ROUTE", false)]
#[case(313, "NO_CONSUMERS", false)]
#[case(320, "CONNECTION_FORCED", true)]
#[case(402, "INVALID_PATH", true)]
#[case(403, "ACCESS_REFUSED", false)]
#[case(404, "NOT_FOUND", false)]
#[case(405, "RESOURCE_LOCKED", false)]
#[case(406, "PRECONDITION_FAILED", false)]
#[case(501, "FRAME_ERROR", true)]
#[case(502, "SYNTAX_ERROR", true)]
#[case(503, "COMMAND_INVALID", true)]
#[case(504, "CHANNEL_ERROR", true)]
#[case(505, "UNEXPECTED_FRAME", true)]
#[case(506, "RESOURCE_ERROR", true)]
#[case(530, "NOT_ALLOWED", true)]
#[case(540, "NOT_IMPLEMENTED", true)]
#[case(541, "INTERNAL_ERROR", true)]
fn code_has_its_name(#[case] number: u16, #[case] name: &str, #[case] is_connection: bool) {
    let code = ReplyCode::from_number(number).expect("a code of the protocol");
    assert_eq!((code.number(), code.name()), (number, name));
    assert_eq!(code.is_connection(), is_connection);
}

#[test]
fn other_numbers_are_no_codes() {
    assert_eq!((0..=u16::MAX).filter_map(ReplyCode::from_number).count(), 19);
}

#[rstest]
#[case("no queue 'q' in vhost '/'", "NOT_FOUND - no queue 'q' in vhost '/'")]
#[case("", "NOT_FOUND - ")]
fn reply_begins_with_the_name(#[case] explanation: &str, #[case] expected: &str) {
    assert_eq!(reply_text(ReplyCode::NOT_FOUND, explanation), expected);
}

#[rstest]
#[case("x".repeat(243), 255)]
#[case("x".repeat(244), 255)]
#[case("ä".repeat(200), 254)]
#[case(format!("x{}", "ä".repeat(200)), 255)]
fn reply_is_cut_between_characters(#[case] explanation: String, #[case] len: usize) {
    let text = reply_text(ReplyCode::NOT_FOUND, &explanation);
    assert_eq!(text.len(), len);
    assert!(text.as_str().is_some());
}

#[rstest]
#[case("00 'user' 00 'secret'", Some(("user", "secret")))]
#[case("00 00", Some(("", "")))]
#[case("00 'user' 00", Some(("user", "")))]
#[case("", None)]
#[case("'user'", None)]
#[case("00 'user'", None)]
#[case("'user' 00 'secret'", None)]
#[case("'other' 00 'user' 00 'secret'", None)]
#[case("00 'user' 00 'sec' 00 'ret'", None)]
fn plain_response_has_two_parts(#[case] response: &str, #[case] expected: Option<(&str, &str)>) {
    let expected = expected.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
    assert_eq!(decode_plain(&wire(response)), expected);
}

#[rstest]
#[case("05 'LOGIN' 'S' 00000001 'u' 08 'PASSWORD' 'S' 00000001 'p'", true)]
#[case("08 'PASSWORD' 'S' 00000001 'p' 01 'x' 'V' 05 'LOGIN' 'S' 00000001 'u'", true)]
#[case("05 'LOGIN' 'S' 00000001 'u'", false)]
#[case("05 'LOGIN' 'S' 00000001 'u' 08 'PASSWORD' 'x' 00000001 'p'", false)]
#[case("05 'LOGIN' 'S' 00000001 'u' 08 'PASSWORD' 'S' 00000002 'p'", false)]
#[case("05 'LOGIN' 'S' 00000001 'u' 08 'PASSWORD' 'S' 00000001 'p' 00", false)]
#[case("", false)]
fn amqplain_response_is_a_table(#[case] response: &str, #[case] accepted: bool) {
    let expected = accepted.then_some((&b"u"[..], &b"p"[..]));
    assert_eq!(decode_amqplain(&wire(response)), expected);
}
