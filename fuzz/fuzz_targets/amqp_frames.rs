//! The AMQP codec on any bytes. The first octet says how they are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

use bytes::BytesMut;
use pillarbox_amqp::{
    FrameError, FrameKind, Method, Properties, PropertiesRef, array_values, decode_ack,
    decode_amqplain, decode_content_header, decode_plain, decode_publish, decode_table, next_frame,
    protocol_header, table_entries,
};
use pillarbox_fuzz::cuts::Cuts;

const FRAME_MAX: u32 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((cuts, bytes)) = bytes.split_first() else { return };
    let whole = frames(bytes, Cuts::Whole);
    assert_eq!(whole, frames(bytes, Cuts::Seeded(*cuts)), "cutting changes the frames");
    for (kind, _, payload) in whole.0 {
        match kind {
            FrameKind::Method => method(&payload),
            FrameKind::Header => header(&payload),
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
    // The frames need not be found first.
    method(bytes);
    header(bytes);
    properties(bytes);
    table(bytes);
    protocol_header(bytes);
    decode_plain(bytes);
    decode_amqplain(bytes);
    table_entries(bytes).for_each(drop);
    array_values(bytes).for_each(drop);
});

type Frames = (Vec<(FrameKind, u16, Vec<u8>)>, Option<FrameError>);

fn frames(bytes: &[u8], cuts: Cuts) -> Frames {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in cuts.pieces(bytes) {
        input.extend_from_slice(piece);
        loop {
            match next_frame(&input, FRAME_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    frames.push((frame.kind, frame.channel, frame.payload.to_vec()));
                    let size = frame.wire_len();
                    let _ = input.split_to(size);
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    assert!(input.len() < FRAME_MAX as usize, "a whole frame is left");
    (frames, None)
}

/// Values are compared in words: a NaN equals nothing.
fn method(payload: &[u8]) {
    let decoded = Method::decode(payload);
    if let Ok(publish) = decode_publish(payload) {
        let Ok(Method::BasicPublish { exchange, routing_key, .. }) = &decoded else {
            panic!("only one of two readers takes the publish");
        };
        assert_eq!((publish.exchange, publish.routing_key), (&exchange[..], &routing_key[..]));
    } else {
        assert!(!matches!(decoded, Ok(Method::BasicPublish { .. })), "the other reader takes it");
    }
    if let Some((tag, all)) = decode_ack(payload) {
        assert_eq!(decoded, Ok(Method::BasicAck { delivery_tag: tag, multiple: all }));
    }
    let Ok(method) = decoded else { return };
    let mut wire = BytesMut::new();
    method.encode(7, &mut wire);
    let frame = next_frame(&wire, u32::MAX).expect("a frame").expect("the whole frame");
    assert_eq!((frame.kind, frame.channel, frame.wire_len()), (FrameKind::Method, 7, wire.len()));
    let again = Method::decode(frame.payload).expect("what was written can be read");
    assert_eq!(format!("{method:?}"), format!("{again:?}"));
}

fn header(payload: &[u8]) {
    if let Ok(header) = decode_content_header(payload) {
        Properties::decode(header.properties).expect("properties that were checked");
        properties(header.properties);
    }
}

fn properties(raw: &[u8]) {
    let found = PropertiesRef::parse(raw);
    let Ok(properties) = Properties::decode(raw) else { return };
    assert_eq!(found.map(|it| it.headers.is_some()), Ok(properties.headers.is_some()));
    let mut wire = BytesMut::new();
    properties.encode(&mut wire);
    let again = Properties::decode(&wire).expect("what was written can be read");
    assert_eq!(format!("{properties:?}"), format!("{again:?}"));
}

fn table(payload: &[u8]) {
    let Ok(table) = decode_table(payload) else { return };
    let mut wire = BytesMut::new();
    Properties { headers: Some(table.clone()), ..Properties::default() }.encode(&mut wire);
    let again = Properties::decode(&wire).expect("what was written can be read").headers;
    assert_eq!(format!("{:?}", Some(table)), format!("{again:?}"));
}
