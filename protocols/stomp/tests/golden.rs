//! Frames as they stand on the wire, read and written.

use bytes::BytesMut;
use pillarbox_stomp::{
    Command, Decoder, Encoder, Frame, FrameCommand, FrameDecoder, Headers, Input, Limits,
    ServerCommand, ServerFrameDecoder, Version,
};
use rstest::rstest;

fn only_frame<C: FrameCommand>(mut decoder: FrameDecoder<C>, wire: &str) -> Frame<C> {
    let mut input = BytesMut::from(wire);
    let Ok(Some(Input::Frame(frame))) = decoder.decode(&mut input) else {
        panic!("no frame in {wire:?}");
    };
    assert!(matches!(decoder.decode(&mut input), Ok(None | Some(Input::HeartBeat))));
    assert_eq!(input, "");
    frame
}

fn decoder<C: FrameCommand>(version: Version) -> FrameDecoder<C> {
    let mut decoder = FrameDecoder::new(Limits::default());
    decoder.set_version(version);
    decoder
}

fn frame<C>(command: C, headers: &[(&str, &str)], body: &'static str) -> Frame<C> {
    Frame { command, headers: headers.iter().copied().collect(), body: body.into() }
}

/// What the encoder writes is also what the decoder reads.
#[rstest]
#[case(Version::V10, Command::Connect, &[("login", "ada"), ("passcode", "a:b")], "", "CONNECT\nlogin:ada\npasscode:a:b\n\n\0\n")]
#[case(Version::V12, Command::Connect, &[("accept-version", "1.2"), ("passcode", "a\\nb:c")], "", "CONNECT\naccept-version:1.2\npasscode:a\\nb:c\n\n\0\n")]
#[case(Version::V12, Command::Stomp, &[("accept-version", "1.2"), ("passcode", "a\\b:c")], "", "STOMP\naccept-version:1.2\npasscode:a\\\\b\\cc\n\n\0\n")]
#[case(Version::V12, Command::Send, &[("destination", "/queue/a")], "hi", "SEND\ndestination:/queue/a\ncontent-length:2\n\nhi\0\n")]
#[case(Version::V11, Command::Send, &[("a:b\n", "\\\r")], "", "SEND\na\\cb\\n:\\\\\\r\n\n\0\n")]
#[case(Version::V10, Command::Send, &[("a", "b:c")], "", "SEND\na:b:c\n\n\0\n")]
#[case(Version::V12, Command::Subscribe, &[("id", "0"), ("ack", " client ")], "", "SUBSCRIBE\nid:0\nack: client \n\n\0\n")]
#[case(Version::V12, Command::Unsubscribe, &[("id", "0")], "", "UNSUBSCRIBE\nid:0\n\n\0\n")]
#[case(Version::V12, Command::Ack, &[("id", "")], "", "ACK\nid:\n\n\0\n")]
#[case(Version::V12, Command::Nack, &[("id", "ü")], "", "NACK\nid:ü\n\n\0\n")]
#[case(Version::V12, Command::Begin, &[], "", "BEGIN\n\n\0\n")]
#[case(Version::V12, Command::Commit, &[], "", "COMMIT\n\n\0\n")]
#[case(Version::V12, Command::Abort, &[], "", "ABORT\n\n\0\n")]
#[case(Version::V12, Command::Disconnect, &[("receipt", "7")], "", "DISCONNECT\nreceipt:7\n\n\0\n")]
fn client_frame_both_ways(
    #[case] version: Version,
    #[case] command: Command,
    #[case] headers: &[(&str, &str)],
    #[case] body: &'static str,
    #[case] wire: &str,
) {
    let mut out = BytesMut::new();
    let dropped = Encoder::new(version).encode_client_frame(
        &mut out,
        command,
        headers.iter().copied(),
        body.as_bytes(),
    );
    assert_eq!((out, dropped), (BytesMut::from(wire), 0));

    let mut expected = frame(command, headers, body);
    if !body.is_empty() {
        expected.headers = headers
            .iter()
            .copied()
            .chain([("content-length", body.len().to_string().as_str())])
            .collect();
    }
    assert_eq!(only_frame(decoder(version), wire), expected);
}

#[rstest]
#[case(Version::V12, ServerCommand::Connected, &[("version", "1.2"), ("session", "a:b\\c")], "CONNECTED\nversion:1.2\nsession:a:b\\c\n\n\0\n")]
#[case(Version::V12, ServerCommand::Message, &[("subscription", "a:0"), ("x", "\r\n\\")], "MESSAGE\nsubscription:a\\c0\nx:\\r\\n\\\\\n\n\0\n")]
#[case(Version::V11, ServerCommand::Message, &[("x", "\r\n\\")], "MESSAGE\nx:\\r\\n\\\\\n\n\0\n")]
#[case(Version::V10, ServerCommand::Message, &[("x", "C:\\new")], "MESSAGE\nx:C:\\new\n\n\0\n")]
#[case(Version::V12, ServerCommand::Receipt, &[("receipt-id", "7")], "RECEIPT\nreceipt-id:7\n\n\0\n")]
#[case(Version::V10, ServerCommand::Error, &[("message", "Bad command")], "ERROR\nmessage:Bad command\n\n\0\n")]
fn server_frame_both_ways(
    #[case] version: Version,
    #[case] command: ServerCommand,
    #[case] headers: &[(&str, &str)],
    #[case] wire: &str,
) {
    let mut out = BytesMut::new();
    let dropped =
        Encoder::new(version).encode_frame(&mut out, command, headers.iter().copied(), b"");
    assert_eq!((out, dropped), (BytesMut::from(wire), 0));
    assert_eq!(only_frame(decoder(version), wire), frame(command, headers, ""));
}

/// What others may send and the encoder does not.
#[rstest]
#[case::crlf(Version::V12, "SEND\r\na:b\r\n\r\nx\0\r\n", frame(Command::Send, &[("a", "b")], "x"))]
#[case::mixed_ends(Version::V12, "SEND\na:b\r\nc:d\n\r\nx\0", frame(Command::Send, &[("a", "b"), ("c", "d")], "x"))]
#[case::colon_in_value(Version::V12, "SEND\na:b:c\n\n\0", frame(Command::Send, &[("a", "b:c")], ""))]
#[case::crlf_in_body(Version::V12, "SEND\n\n\r\n\0", frame(Command::Send, &[], "\r\n"))]
#[case::nul_in_body(Version::V12, "SEND\ncontent-length:3\n\na\0b\0", frame(Command::Send, &[("content-length", "3")], "a\0b"))]
#[case::empty_body(Version::V12, "SEND\ncontent-length:0\n\n\0", frame(Command::Send, &[("content-length", "0")], ""))]
#[case::length_on_any_frame(Version::V12, "ACK\ncontent-length:1\n\n\0\0", frame(Command::Ack, &[("content-length", "1")], "\0"))]
#[case::equal_lengths(Version::V12, "SEND\ncontent-length:1\na:b\ncontent-length:01\n\n\0\0", frame(Command::Send, &[("content-length", "1"), ("a", "b")], "\0"))]
#[case::first_wins(Version::V12, "SEND\na:1\nb:2\na:3\n\n\0", frame(Command::Send, &[("a", "1"), ("b", "2")], ""))]
#[case::repeat_behind_escape(Version::V12, "SEND\na\\c:1\na\\c:3\n\n\0", frame(Command::Send, &[("a:", "1")], ""))]
#[case::escapes_in_1_0(Version::V10, "SEND\na:\\n\\r\\c\\\\\n\n\0", frame(Command::Send, &[("a", "\n\r:\\")], ""))]
#[case::escapes_in_1_1(Version::V11, "SEND\na:\\n\\r\\c\\\\\n\n\0", frame(Command::Send, &[("a", "\n\r:\\")], ""))]
#[case::blanks_in_1_0(Version::V10, "SEND\na: \t b \n\n\0", frame(Command::Send, &[("a", "b ")], ""))]
#[case::blanks_in_1_1(Version::V11, "SEND\na: b \n\n\0", frame(Command::Send, &[("a", " b ")], ""))]
#[case::length_in_1_0(Version::V10, "SEND\ncontent-length: 1\n\n\0\0", frame(Command::Send, &[("content-length", "1")], "\0"))]
#[case::connect_of_1_0(Version::V10, "CONNECT\nlogin: ada\n\n\0", frame(Command::Connect, &[("login", "ada")], ""))]
#[case::connect_of_1_1(Version::V10, "CONNECT\nlogin: ada\naccept-version:1.0,1.1\n\n\0", frame(Command::Connect, &[("login", " ada"), ("accept-version", "1.0,1.1")], ""))]
#[case::connect_is_not_escaped(Version::V12, "CONNECT\npasscode:a\\t\\n\n\n\0", frame(Command::Connect, &[("passcode", "a\\t\\n")], ""))]
#[case::stomp_is_escaped(Version::V10, "STOMP\npasscode:a\\\\b\n\n\0", frame(Command::Stomp, &[("passcode", "a\\b")], ""))]
#[case::name_with_blanks(Version::V12, "SEND\n a :b\n\n\0", frame(Command::Send, &[(" a ", "b")], ""))]
fn client_frame_is_read(
    #[case] version: Version,
    #[case] wire: &str,
    #[case] expected: Frame<Command>,
) {
    assert_eq!(only_frame(decoder(version), wire), expected);
}

#[test]
fn ends_of_line_between_frames_are_heart_beats() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::from("\n\r\n\nBEGIN\n\n\0\0\nABORT\n\n\0\r");
    assert_eq!(decoder.decode(&mut input), Ok(Some(Input::HeartBeat)));
    assert_eq!(decoder.heart_beats(), 3);
    let begin = Input::Frame(frame(Command::Begin, &[], ""));
    assert_eq!(decoder.decode(&mut input), Ok(Some(begin)));
    assert_eq!(decoder.decode(&mut input), Ok(Some(Input::HeartBeat)));
    assert_eq!(decoder.heart_beats(), 5);
    let abort = Input::Frame(frame(Command::Abort, &[], ""));
    assert_eq!(decoder.decode(&mut input), Ok(Some(abort)));
    assert_eq!(decoder.decode(&mut input), Ok(None));
    input.extend_from_slice(b"\n");
    assert_eq!(decoder.decode(&mut input), Ok(Some(Input::HeartBeat)));
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!(decoder.heart_beats(), 6);
    assert!(!decoder.is_inside_frame());
}

#[test]
fn message_has_a_length_and_its_nul_a_line_feed_only_on_request() {
    let mut encoder = Encoder::new(Version::V12);
    encoder.line_feed_after_frame = false;
    let mut out = BytesMut::new();
    let dropped = encoder.encode_message(&mut out, [("destination", "/queue/a")], b"a\0b");
    encoder.encode_heart_beat(&mut out);
    assert_eq!(dropped, 0);
    assert_eq!(out, "MESSAGE\ndestination:/queue/a\ncontent-length:3\n\na\0b\0\n");

    let message =
        only_frame(ServerFrameDecoder::new(Limits::default()), str::from_utf8(&out).unwrap());
    assert_eq!(message.body, "a\0b".as_bytes());
}

#[test]
fn frame_is_written_header_by_header() {
    let mut out = BytesMut::new();
    let mut frame = Encoder::new(Version::V12).begin(&mut out, ServerCommand::Message);
    frame.header("subscription", "0");
    frame.header_number("timestamp", 1_700_000_000);
    assert_eq!(frame.finish(b""), 0);
    assert_eq!(out, "MESSAGE\nsubscription:0\ntimestamp:1700000000\n\n\0\n");
}

/// S5: what a version cannot carry is dropped and counted, whole.
#[rstest]
#[case(Version::V10, ServerCommand::Message, "a", "b\nc")]
#[case(Version::V10, ServerCommand::Message, "a", "b\rc")]
#[case(Version::V10, ServerCommand::Message, "a:b", "c")]
#[case(Version::V10, ServerCommand::Message, "a\nb", "c")]
#[case(Version::V12, ServerCommand::Connected, "a", "b\nc:d")]
#[case(Version::V12, ServerCommand::Connected, "a:b", "c")]
#[case(Version::V10, ServerCommand::Message, "a", "b\0c")]
#[case(Version::V11, ServerCommand::Message, "a", "b\0c")]
#[case(Version::V12, ServerCommand::Message, "a\0", "c")]
#[case(Version::V12, ServerCommand::Message, "", "c")]
fn header_that_cannot_be_carried_is_dropped(
    #[case] version: Version,
    #[case] command: ServerCommand,
    #[case] name: &str,
    #[case] value: &str,
) {
    let mut out = BytesMut::new();
    let headers = [("before", "1"), (name, value), ("after", "2")];
    assert_eq!(Encoder::new(version).encode_frame(&mut out, command, headers, b""), 1);
    assert_eq!(
        only_frame(decoder(version), str::from_utf8(&out).unwrap()),
        frame(command, &[("before", "1"), ("after", "2")], "")
    );
}

#[rstest]
fn foreign_content_length_is_not_written(
    #[values(Version::V10, Version::V11, Version::V12)] version: Version,
    #[values("", "body")] body: &'static str,
) {
    let mut out = BytesMut::new();
    let dropped =
        Encoder::new(version).encode_message(&mut out, [("content-length", "1")], body.as_bytes());
    assert_eq!(dropped, 0);
    let message: Frame<ServerCommand> = only_frame(decoder(version), str::from_utf8(&out).unwrap());
    assert_eq!(message.body, body);
}

#[test]
fn headers_are_equal_by_content() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::from("SEND\na:  b\n\n\0");
    let Ok(Some(Input::Frame(frame))) = decoder.decode(&mut input) else {
        panic!("the frame is complete");
    };
    assert_eq!(frame.headers, Headers::from_iter([("a", "b")]));
}
