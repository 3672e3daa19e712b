//! Input that means harm: depths, lengths and counts that were never sent.

use std::thread;

use pillarbox_amqp::{
    ContentError, Method, MethodError, Properties, ValueError, decode_amqplain,
    decode_content_header, decode_table,
};
use rstest::rstest;

use crate::bytes_of::wire;
use crate::round_trip::header_payload;

const STACK_SIZE: usize = 512 * 1024;

/// A table body with `levels` tables or arrays inside each other.
pub(crate) fn nested(tag: u8, levels: usize) -> Vec<u8> {
    let entry = if tag == b'F' { 6 } else { 5 };
    let mut body = Vec::with_capacity(levels * entry + 1);
    for level in 0..levels {
        if level == 0 || tag == b'F' {
            body.push(0);
        }
        body.push(tag);
        let inside = u32::try_from((levels - 1 - level) * entry).expect("small");
        body.extend(inside.to_be_bytes());
    }
    body
}

fn sized(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("small");
    [&len.to_be_bytes()[..], body].concat()
}

#[rstest]
fn depth_bomb_is_refused_on_a_small_stack(#[values(b'F', b'A')] tag: u8) {
    let bomb = nested(tag, 100_000);
    let refused = move || {
        assert_eq!(decode_table(&bomb), Err(ValueError::TooDeep));
        assert_eq!(decode_amqplain(&bomb), None);
        let arguments = [wire("0032 000a 0000 01 'q' 00"), sized(&bomb)].concat();
        assert_eq!(
            Method::decode(&arguments),
            Err(MethodError::BadTable { class: 50, method: 10, error: ValueError::TooDeep })
        );
        let raw = [wire("2000"), sized(&bomb)].concat();
        let too_deep = ContentError::BadTable(ValueError::TooDeep);
        assert_eq!(decode_content_header(&header_payload(&raw)), Err(too_deep));
        assert_eq!(Properties::decode(&raw), Err(too_deep));
    };
    let thread = thread::Builder::new().stack_size(STACK_SIZE).spawn(refused);
    thread.expect("a thread").join().expect("no panic");
}

#[rstest]
#[case::table("01 'k' 'F' ffffffff 0000")]
#[case::array("01 'k' 'A' ffffffff 0000")]
#[case::negative_array("01 'k' 'A' 80000000 0000")]
#[case::string("01 'k' 'S' ffffffff 0000")]
#[case::binary("01 'k' 'x' fffffffe 0000")]
#[case::inner("01 'k' 'F' 00000006 00 'S' ffffffff")]
#[case::past_the_inner_end("01 'k' 'F' 00000006 00 'S' 00000002 'ab'")]
#[case::key("ff 'k'")]
fn declared_length_past_the_input_is_refused(#[case] body: &str) {
    let body = wire(body);
    assert_eq!(decode_table(&body), Err(ValueError::Truncated));
    let raw = [wire("2000"), sized(&body)].concat();
    assert_eq!(
        decode_content_header(&header_payload(&raw)),
        Err(ContentError::BadTable(ValueError::Truncated))
    );
}

#[rstest]
#[case::start_ok_table("000a 000b ffffffff 01 'n' 'I' 00000005")]
#[case::start_ok_response("000a 000b 00000000 05 'PLAIN' ffffffff 00 'u' 00 'p'")]
#[case::secret("000a 0046 ffffffff 'jwt'")]
#[case::short_string("0032 001e 0000 ff 'q' 00")]
fn argument_of_four_gigabytes_is_refused(#[case] payload: &str) {
    let refused = Method::decode(&wire(payload)).expect_err("too long");
    assert!(matches!(refused, MethodError::Truncated { .. }));
}

#[test]
fn flood_of_entries_is_refused() {
    let flood = b"\0V".repeat(100_000);
    assert_eq!(decode_table(&flood), Err(ValueError::TooManyEntries));
    let raw = [wire("2000"), sized(&flood)].concat();
    assert_eq!(
        decode_content_header(&header_payload(&raw)),
        Err(ContentError::BadTable(ValueError::TooManyEntries))
    );
}
