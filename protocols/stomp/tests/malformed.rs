//! Bytes that are refused: the rows S1 to S19 of the malformed corpus that a codec can decide.

use bytes::BytesMut;
use pillarbox_stomp::{Decoder, Input, Limits, StompError, Version, negotiate_version};
use rstest::rstest;

fn limits() -> Limits {
    Limits { frame_size_max: 1024 * 1024, ..Limits::default() }
}

/// The error that `wire` ends in, and how many bytes it took, at `step` bytes at a time.
fn refusal(limits: Limits, version: Version, wire: &[u8], step: usize) -> (StompError, usize) {
    let mut decoder = Decoder::new(limits);
    decoder.set_version(version);
    let mut input = BytesMut::new();
    let mut sent = 0;
    for piece in wire.chunks(step) {
        sent += piece.len();
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error.clone()));
                    return (error, sent);
                }
            }
        }
    }
    panic!("accepted");
}

fn assert_refused(limits: Limits, version: Version, wire: &[u8], expected: &StompError) {
    for step in [1, 7, wire.len()] {
        let (error, _) = refusal(limits, version, wire, step);
        assert_eq!(error, *expected, "{step} bytes at a time");
    }
}

#[rstest]
#[case::s1("HELLO\n\n\0", StompError::UnknownCommand("HELLO".into()))]
#[case::s1_case("send\n\n\0", StompError::UnknownCommand("send".into()))]
#[case::s1_server_command("MESSAGE\n\n\0", StompError::UnknownCommand("MESSAGE".into()))]
#[case::s1_blank("SEND \n\n\0", StompError::UnknownCommand("SEND ".into()))]
#[case::s1_http("GET / HTTP/1.1\r\nHost: a\r\n\r\n", StompError::UnknownCommand("GET / HTTP/1.1".into()))]
#[case::s1_not_utf8(b"\xff\xfe\n", StompError::UnknownCommand("\u{fffd}\u{fffd}".into()))]
#[case::s1_bare_cr("\rSEND\n\n\0", StompError::UnknownCommand("\rSEND".into()))]
#[case::s2("SEND\nabc\n\n\0", StompError::HeaderWithoutColon)]
#[case::s2_blank_line(" \nSEND\n\n\0", StompError::UnknownCommand(" ".into()))]
#[case::s2_name("SEND\n:b\n\n\0", StompError::EmptyHeaderName)]
#[case::s3("SEND\na:\\t\n\n\0", StompError::UndefinedEscape)]
#[case::s3_name("SEND\na\\t:b\n\n\0", StompError::UndefinedEscape)]
#[case::s3_end("SEND\na:b\\\n\n\0", StompError::UndefinedEscape)]
#[case::s3_end_crlf("SEND\r\na:b\\\r\n\r\n\0", StompError::UndefinedEscape)]
#[case::s3_before_colon("SEND\na\\:b\n\n\0", StompError::UndefinedEscape)]
#[case::s4(
    "SEND\ncontent-length:1\ncontent-length:2\n\nab\0",
    StompError::ConflictingContentLength
)]
#[case::s6("SEND\na:b\0c\n\n\0", StompError::UnexpectedNul)]
#[case::s6_name("SEND\na\0:c\n\n\0", StompError::UnexpectedNul)]
#[case::s6_command("SEND\0\n", StompError::UnexpectedNul)]
#[case::s6_no_blank_line("SEND\na:b\n\0", StompError::UnexpectedNul)]
#[case::s6_not_utf8(b"SEND\na:\xff\n\n\0", StompError::HeaderNotUtf8)]
#[case::s6_overlong(b"SEND\na:\xc0\x8a\n\n\0", StompError::HeaderNotUtf8)]
#[case::s6_surrogate(b"SEND\na:\xed\xa0\x80\n\n\0", StompError::HeaderNotUtf8)]
#[case::s7_minus("SEND\ncontent-length:-1\n\n\0", StompError::InvalidContentLength)]
#[case::s7_plus("SEND\ncontent-length:+5\n\nabcde\0", StompError::InvalidContentLength)]
#[case::s7_blank_after("SEND\ncontent-length:5 \n\nabcde\0", StompError::InvalidContentLength)]
#[case::s7_letter("SEND\ncontent-length:5x\n\nabcde\0", StompError::InvalidContentLength)]
#[case::s7_hex("SEND\ncontent-length:0x5\n\nabcde\0", StompError::InvalidContentLength)]
#[case::s7_empty("SEND\ncontent-length:\n\n\0", StompError::InvalidContentLength)]
#[case::s7_digits("SEND\ncontent-length:٥\n\nabcde\0", StompError::InvalidContentLength)]
#[case::s7_31_bits("SEND\ncontent-length:2147483648\n\n", StompError::FrameTooLarge { max: limits().frame_size_max })]
#[case::s7_64_bits("SEND\ncontent-length:18446744073709551615\n\n", StompError::FrameTooLarge { max: limits().frame_size_max })]
#[case::s7_65_bits(
    "SEND\ncontent-length:18446744073709551616\n\n",
    StompError::InvalidContentLength
)]
#[case::s7_second(
    "SEND\ncontent-length:5\ncontent-length:5x\n\nabcde\0",
    StompError::InvalidContentLength
)]
#[case::s8_short("SEND\ncontent-length:2\n\nabc\0", StompError::BodyWithoutNul)]
#[case::s8_long("SEND\ncontent-length:4\n\nabc\0ACK\n", StompError::BodyWithoutNul)]
#[case::bare_cr("SEND\na:b\rc\n\n\0", StompError::BareCarriageReturn)]
#[case::two_cr("SEND\na:b\r\r\n\n\0", StompError::BareCarriageReturn)]
#[case::second_frame("BEGIN\n\n\0\nX\n", StompError::UnknownCommand("X".into()))]
fn malformed_frame_is_refused(
    #[case] wire: impl AsRef<[u8]>,
    #[case] expected: StompError,
    #[values(Version::V10, Version::V11, Version::V12)] version: Version,
) {
    assert_refused(limits(), version, wire.as_ref(), &expected);
}

/// S7: in 1.0 the blank is trimmed before anyone looks.
#[rstest]
fn blank_before_a_length_is_refused(#[values(Version::V11, Version::V12)] version: Version) {
    let wire = b"SEND\ncontent-length: 5\n\nabcde\0";
    assert_refused(limits(), version, wire, &StompError::InvalidContentLength);
}

/// S9, S10: refused at the byte that is too many, and not before.
#[rstest]
#[case::command("", b'x', 33, StompError::CommandTooLong { max: 32 })]
#[case::header_line("SEND\n", b'x', 8 * 1024 + 1, StompError::HeaderLineTooLong { max: 8 * 1024 })]
#[case::second_header_line("SEND\na:b\n", b'x', 8 * 1024 + 1, StompError::HeaderLineTooLong { max: 8 * 1024 })]
#[case::body("SEND\n\n", b'x', 1024 * 1024 - 6 + 1, StompError::FrameTooLarge { max: 1024 * 1024 })]
fn endless_part_is_refused_at_its_limit(
    #[case] start: &str,
    #[case] filler: u8,
    #[case] taken: usize,
    #[case] expected: StompError,
) {
    let mut wire = start.as_bytes().to_vec();
    wire.resize(16 * 1024 * 1024, filler);
    assert_eq!(refusal(limits(), Version::V12, &wire, 1), (expected.clone(), start.len() + taken));
    assert_refused(limits(), Version::V12, &wire, &expected);
}

/// S10: a block that never ends, in lines that are each short enough.
#[test]
fn endless_header_block_is_refused_at_its_limit() {
    let line = format!("a:{}\n", "x".repeat(997));
    let wire = format!("SEND\n{}", line.repeat(100));
    let max = limits().header_block_size_max;
    let expected = StompError::HeaderBlockTooLong { max };
    let (error, taken) = refusal(limits(), Version::V12, wire.as_bytes(), 1);
    assert_eq!((error, taken), (expected.clone(), "SEND\n".len() + max + 1));
    assert_refused(limits(), Version::V12, wire.as_bytes(), &expected);
}

/// S10: repeated names count too.
#[rstest]
fn too_many_headers_are_refused(#[values("a", "n{}")] name: &str) {
    let headers = |count: usize| {
        let lines: String =
            (0..count).map(|n| format!("{}:b\n", name.replace("{}", &n.to_string()))).collect();
        format!("SEND\n{lines}\n\0")
    };
    let mut decoder = Decoder::new(limits());
    let mut input = BytesMut::from(headers(100).as_str());
    assert!(matches!(decoder.decode(&mut input), Ok(Some(Input::Frame(_)))));
    let expected = StompError::TooManyHeaders { max: 100 };
    assert_refused(limits(), Version::V12, headers(101).as_bytes(), &expected);
}

/// Of several limits the one that was crossed first answers, however the input is cut.
#[rstest]
#[case(10, 20, 100, StompError::HeaderLineTooLong { max: 10 })]
#[case(20, 10, 100, StompError::HeaderBlockTooLong { max: 10 })]
#[case(20, 20, 15, StompError::FrameTooLarge { max: 15 })]
fn first_limit_crossed_answers(
    #[case] header_line_size_max: usize,
    #[case] header_block_size_max: usize,
    #[case] frame_size_max: usize,
    #[case] expected: StompError,
) {
    let limits =
        Limits { header_line_size_max, header_block_size_max, frame_size_max, ..Limits::default() };
    let wire = format!("SEND\na:{}\n\n\0", "x".repeat(50));
    assert_refused(limits, Version::V12, wire.as_bytes(), &expected);
}

#[rstest]
#[case::counted("SEND\ncontent-length:4\n\nabcd\0")]
#[case::searched("SEND\n\nabcd\0")]
#[case::empty("SEND\na:b\n\n\0")]
fn frame_of_exactly_the_limit_passes(#[case] wire: &str) {
    let limits = |max| Limits { frame_size_max: max, ..Limits::default() };
    let size = wire.len() - 1;
    let mut decoder = Decoder::new(limits(size));
    let decoded = decoder.decode(&mut BytesMut::from(wire));
    assert!(matches!(decoded, Ok(Some(Input::Frame(_)))));
    let max = size - 1;
    let expected = StompError::FrameTooLarge { max };
    assert_refused(limits(max), Version::V12, wire.as_bytes(), &expected);
}

#[test]
fn limits_are_those_of_one_frame() {
    let limits = Limits {
        header_block_size_max: 10,
        headers_max: 2,
        frame_size_max: 20,
        ..Limits::default()
    };
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::from("SEND\na:b\nc:d\n\nbody\0".repeat(50).as_str());
    for _ in 0..50 {
        let decoded = decoder.decode(&mut input);
        assert!(matches!(decoded, Ok(Some(Input::Frame(_)))), "{decoded:?}");
    }
}

#[test]
fn frame_limit_is_raised_in_mid_frame() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::from("SEND\n\n");
    assert_eq!(decoder.decode(&mut input), Ok(None));
    decoder.set_frame_size_max(1024 * 1024);
    input.extend_from_slice(&[b'x'; 100 * 1024]);
    assert_eq!(decoder.decode(&mut input), Ok(None));
    input.extend_from_slice(b"\0");
    assert!(matches!(decoder.decode(&mut input), Ok(Some(Input::Frame(_)))));
}

/// S16.
#[test]
fn no_common_version_is_no_version() {
    assert_eq!(negotiate_version(Some("3.0")), None);
}

/// S17.
#[test]
fn million_line_feeds_are_one_event_and_counted() {
    let mut decoder = Decoder::new(limits());
    let mut input = BytesMut::from(vec![b'\n'; 1_000_000].as_slice());
    assert_eq!(decoder.decode(&mut input), Ok(Some(Input::HeartBeat)));
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!(decoder.heart_beats(), 1_000_000);
}

/// S18: what is pipelined behind CONNECT stays where it is until it is asked for.
#[test]
fn nothing_behind_a_frame_is_parsed() {
    let mut decoder = Decoder::new(limits());
    let mut input = BytesMut::from("CONNECT\n\n\0GARBAGE\n");
    assert!(matches!(decoder.decode(&mut input), Ok(Some(Input::Frame(_)))));
    assert_eq!(input, "GARBAGE\n");
}
