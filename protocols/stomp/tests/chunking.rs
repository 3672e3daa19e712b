//! However the bytes are cut, they mean the same.

use bytes::BytesMut;
use pillarbox_stomp::{
    Command, Decoder, Encoder, Frame, Headers, Input, Limits, ServerCommand, ServerFrameDecoder,
    StompError, Version,
};
use proptest::prelude::*;

/// Frames, heart-beats and the error at the end, if there was one.
#[derive(Debug, PartialEq)]
struct Heard {
    frames: Vec<Frame>,
    heart_beats: u64,
    error: Option<StompError>,
    left: usize,
}

fn limits() -> Limits {
    Limits {
        header_line_size_max: 40,
        header_block_size_max: 90,
        headers_max: 5,
        frame_size_max: 120,
        ..Limits::default()
    }
}

fn hear<'a>(version: Version, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut decoder = Decoder::new(limits());
    decoder.set_version(version);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    let mut error = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Input::Frame(frame))) => frames.push(frame),
                Ok(Some(Input::HeartBeat)) => {}
                Ok(None) => break,
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
    }
    let heart_beats = decoder.heart_beats();
    // Where an error leaves the input is not promised.
    let left = if error.is_some() { 0 } else { input.len() };
    Heard { frames, heart_beats, error, left }
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V10), Just(Version::V11), Just(Version::V12)]
}

/// Bytes that look like STOMP often enough to get anywhere.
fn almost_stomp() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => Just(&b"SEND\n"[..]),
        1 => Just(&b"CONNECT\r\n"[..]),
        1 => Just(&b"NONSENSE"[..]),
        4 => Just(&b"\n"[..]),
        4 => Just(&b"\n\0"[..]),
        2 => Just(&b"\r\n"[..]),
        1 => Just(&b"\r"[..]),
        2 => Just(&b"\0"[..]),
        3 => Just(&b"a: b\n"[..]),
        2 => Just(&b"a\\c:\\n\\\\\r\n"[..]),
        1 => Just(&b"a:\\t\n"[..]),
        1 => Just(&b"\xff"[..]),
        1 => Just(&b":"[..]),
        2 => Just(&b"content-length:3\n"[..]),
        1 => Just(&b"content-length: 3\n"[..]),
        1 => Just(&b"content-length:4\n"[..]),
        2 => Just(&b"\nabc\0"[..]),
        1 => Just(&b"\na\0c\0"[..]),
        1 => Just(&b"xxxxxxxxxxxxxxxxxxxxxxxxx"[..]),
        1 => Just(&b"n:yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n"[..]),
    ];
    proptest::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

fn cut<'a>(wire: &'a [u8], sizes: &'a [usize]) -> Vec<&'a [u8]> {
    let mut rest = wire;
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn headers(text: &'static str) -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec((text, text), 0..6)
}

/// What arrives of `sent`: the first of each name, and the length of the body.
fn expected_headers(sent: &[(String, String)], body: &[u8]) -> Headers {
    let length = (!body.is_empty()).then(|| ("content-length".to_owned(), body.len().to_string()));
    sent.iter().filter(|(name, _)| name != "content-length").cloned().chain(length).collect()
}

proptest! {
    #[test]
    fn one_cut_anywhere_changes_nothing(version in any_version(), wire in almost_stomp()) {
        let whole = hear(version, [&wire[..]]);
        for at in 0..=wire.len() {
            let (front, back) = wire.split_at(at);
            prop_assert_eq!(&hear(version, [front, back]), &whole, "cut at {}", at);
        }
        prop_assert_eq!(&hear(version, wire.chunks(1)), &whole);
    }

    #[test]
    fn many_cuts_change_nothing(
        version in any_version(),
        wire in almost_stomp(),
        sizes in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        prop_assert_eq!(hear(version, cut(&wire, &sizes)), hear(version, [&wire[..]]));
    }

    #[test]
    fn any_bytes_are_taken_without_panic(wire in any::<Vec<u8>>()) {
        let whole = hear(Version::V12, [&wire[..]]);
        prop_assert_eq!(hear(Version::V12, wire.chunks(1)), whole);
    }

    /// Any text without NUL survives 1.1 and 1.2, colons and ends of line included.
    #[test]
    fn message_comes_back(
        version in prop_oneof![Just(Version::V11), Just(Version::V12)],
        headers in headers("[a\\\\:\r\n ö]{1,4}"),
        body in any::<Vec<u8>>(),
        sizes in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        let mut wire = BytesMut::new();
        let pairs = headers.iter().map(|(name, value)| (name, value));
        prop_assert_eq!(Encoder::new(version).encode_message(&mut wire, pairs, &body), 0);

        let mut decoder = ServerFrameDecoder::new(Limits::default());
        decoder.set_version(version);
        let mut input = BytesMut::new();
        let mut frames = Vec::new();
        for piece in cut(&wire, &sizes) {
            input.extend_from_slice(piece);
            while let Some(event) = decoder.decode(&mut input).unwrap() {
                if let Input::Frame(frame) = event {
                    frames.push(frame);
                }
            }
        }
        let expected = Frame {
            command: ServerCommand::Message,
            headers: expected_headers(&headers, &body),
            body: body.into(),
        };
        prop_assert_eq!(frames, [expected]);
    }

    /// Whatever is asked of the encoder, one frame comes out and its body is the one that went in.
    #[test]
    fn one_frame_stays_one_frame(
        version in any_version(),
        command in prop_oneof![Just(Command::Connect), Just(Command::Stomp), Just(Command::Send)],
        headers in proptest::collection::vec((any::<String>(), any::<String>()), 0..4),
        sharp in proptest::collection::vec(("[ab:\r\n\0 ]{0,3}", "[ab:\r\n\0 ]{0,3}"), 0..4),
        body in any::<Vec<u8>>(),
    ) {
        // A backslash sent to 1.0 is ambiguous by nature: the specification has no escapes, RabbitMQ reads them.
        prop_assume!(version != Version::V10 || !headers.iter().any(|(n, v)| n.contains('\\') || v.contains('\\')));
        let mut wire = BytesMut::new();
        let pairs = headers.iter().chain(&sharp).map(|(name, value)| (name, value));
        let dropped = Encoder::new(version).encode_client_frame(&mut wire, command, pairs, &body);
        prop_assert!(dropped <= headers.len() + sharp.len());

        let mut decoder = Decoder::new(Limits::default());
        decoder.set_version(version);
        let Ok(Some(Input::Frame(frame))) = decoder.decode(&mut wire) else {
            panic!("not a frame");
        };
        prop_assert_eq!(frame.command, command);
        prop_assert_eq!(&frame.body[..], &body[..]);
        prop_assert_eq!(&wire[..], b"\n");
    }
}
