//! The STOMP codec on any bytes. The first octet says which version, the second how they are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

use std::fmt::Debug;

use bytes::BytesMut;
use pillarbox_fuzz::cuts::Cuts;
use pillarbox_stomp::{
    Command, Encoder, Frame, FrameCommand, FrameDecoder, Input, Limits, ServerCommand, StompError,
    Version, negotiate_version, parse_heart_beat,
};

const LIMITS: Limits = Limits {
    command_size_max: 32,
    header_line_size_max: 80,
    header_block_size_max: 300,
    headers_max: 8,
    frame_size_max: 500,
};

fuzz_target!(|bytes: &[u8]| {
    let [version, cuts, bytes @ ..] = bytes else { return };
    let versions = [Version::V10, Version::V11, Version::V12];
    let version = versions[usize::from(*version) % versions.len()];
    check::<Command>(bytes, version, Cuts::Seeded(*cuts));
    check::<ServerCommand>(bytes, version, Cuts::Seeded(*cuts));
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = parse_heart_beat(text);
        negotiate_version(Some(text));
    }
});

fn check<C: FrameCommand + PartialEq>(bytes: &[u8], version: Version, cuts: Cuts) {
    let whole = hear::<C>(bytes, version, Cuts::Whole, LIMITS);
    assert_eq!(whole, hear(bytes, version, cuts, LIMITS), "cutting changes the frames");
    for frame in whole.frames {
        encode_and_back(&frame, version);
    }
}

#[derive(Debug, PartialEq)]
struct Heard<C> {
    frames: Vec<Frame<C>>,
    heart_beats: u64,
    inside: bool,
    error: Option<StompError>,
}

fn hear<C: FrameCommand + PartialEq>(
    bytes: &[u8],
    version: Version,
    cuts: Cuts,
    limits: Limits,
) -> Heard<C> {
    let mut decoder = FrameDecoder::<C>::new(limits);
    decoder.set_version(version);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    let mut error = None;
    'pieces: for piece in cuts.pieces(bytes) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Input::Frame(frame))) => frames.push(frame),
                Ok(Some(Input::HeartBeat)) => {}
                Ok(None) => break,
                Err(found) => {
                    error = Some(found);
                    break 'pieces;
                }
            }
        }
        assert!(input.len() <= limits.frame_size_max, "more than a frame is left");
    }
    let (heart_beats, inside) = (decoder.heart_beats(), decoder.is_inside_frame());
    // A frame may be cut where an error is seen.
    let inside = inside && error.is_none();
    Heard { frames, heart_beats, inside, error }
}

fn encode_and_back<C: FrameCommand + PartialEq>(frame: &Frame<C>, version: Version) {
    let one_way = frame.command.reads_escapes(version) && !frame.command.writes_escapes(version);
    if one_way && frame.headers.iter().any(|(name, value)| [name, value].concat().contains('\\')) {
        // As RabbitMQ the broker reads escapes in 1.0 too, which a client of 1.0 knows nothing of.
        return;
    }
    let mut wire = BytesMut::new();
    let mut writer = Encoder::new(version).begin(&mut wire, frame.command);
    for (name, value) in frame.headers.iter() {
        writer.header(name, value);
    }
    if writer.finish(&frame.body) > 0 {
        return;
    }
    let limits = Limits::default();
    let again = hear::<C>(&wire, version, Cuts::Whole, limits);
    assert_eq!(again.error, None);
    let [again] = &again.frames[..] else { panic!("one frame is not one any more") };
    let headers = |frame: &Frame<C>| {
        let own = frame.headers.iter().filter(|(name, _)| *name != "content-length");
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!((again.command, &again.body), (frame.command, &frame.body));
    assert_eq!(headers(again), headers(frame));
}
