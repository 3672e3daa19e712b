//! The native codec on any bytes, in both directions. The first octet says how they are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;

use bytes::BytesMut;
use pillarbox_fuzz::cuts::Cuts;
use pillarbox_native::{
    Answer, AskRef, Declined, Deliveries, Ended, Forward, Frame, FrameError, Given, Hello, Kind,
    NewMessage, PeerHello, PropertiesRef, Push, PushBatch, PushedRef, Refused, Request, Routes,
    Settle, Taken, VisitRef, Welcome, decode_hosts, decode_pushed, is_table, next_frame,
    read_answer, read_preface,
};

const SIZE_MAX: u32 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Some((cuts, bytes)) = bytes.split_first() else { return };
    let whole = frames(bytes, Cuts::Whole);
    assert_eq!(whole, frames(bytes, Cuts::Seeded(*cuts)), "cutting changes the frames");
    for (kind, flags, id, payload) in &whole.0 {
        look_at(&Frame { kind: *kind, flags: *flags, id: *id, payload });
    }
    read_preface(bytes);
    read_answer(bytes);
    is_table(bytes);
    let _ = PropertiesRef::parse(bytes);
});

type Frames = (Vec<(Kind, u8, u32, Vec<u8>)>, Option<FrameError>);

fn frames(bytes: &[u8], cuts: Cuts) -> Frames {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in cuts.pieces(bytes) {
        input.extend_from_slice(piece);
        loop {
            match next_frame(&input, SIZE_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    frames.push((frame.kind, frame.flags, frame.id, frame.payload.to_vec()));
                    let size = frame.wire_len();
                    let _ = input.split_to(size);
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    assert!(input.len() < SIZE_MAX as usize + 4, "a whole frame is left");
    (frames, None)
}

fn look_at(frame: &Frame<'_>) {
    let request = Request::decode(frame);
    match &request {
        Ok(Request::Push(push)) => push_and_back(push, frame),
        Ok(Request::Settle(settle)) => settle_and_back(settle, frame),
        _ => {}
    }
    if let Ok(deliveries) = Deliveries::decode(frame.payload) {
        deliveries.messages().for_each(drop);
    }
    let _ = Refused::decode(frame.payload);
    let _ = Hello::decode(frame.payload);
    let _ = decode_pushed(frame.payload);
    words_of_hosts(frame);
}

fn words_of_hosts(frame: &Frame<'_>) {
    let _ = PeerHello::decode(frame.payload);
    let _ = Welcome::decode(frame.payload);
    let _ = Taken::decode(frame.payload);
    let _ = Declined::decode(frame.payload);
    let _ = Routes::decode(frame.flags, frame.payload);
    let _ = decode_hosts(frame.payload);
    let _ = VisitRef::decode(frame.payload);
    let _ = AskRef::decode(frame.payload);
    let _ = Answer::decode(frame.payload);
    let _ = Given::decode(frame.payload);
    let _ = Ended::decode(frame.payload);
    if let Ok(forward) = Forward::decode(frame.payload) {
        for message in forward.messages().flatten() {
            let _ = PropertiesRef::parse(message.properties);
        }
    }
}

fn push_and_back(push: &Push<'_>, frame: &Frame<'_>) {
    let messages: Result<Vec<_>, _> = push.messages().collect();
    let Ok(messages) = messages else { return };
    let mut wire = BytesMut::new();
    let mut batch = PushBatch::begin(frame.id, frame.flags, push.exchange, push.key, &mut wire);
    for message in messages {
        let _ = PropertiesRef::parse(message.properties);
        let PushedRef { key, due, properties, body } = message;
        batch.add(NewMessage { key, due, properties, body }, &mut wire);
    }
    batch.end(&mut wire);
    assert_eq!(next_frame(&wire, u32::MAX), Ok(Some(*frame)));
}

fn settle_and_back(settle: &Settle<'_>, frame: &Frame<'_>) {
    let runs: Vec<_> = settle.runs().collect();
    let mut wire = BytesMut::new();
    Settle::encode(frame.id, settle.subscription, settle.outcome, &runs, &mut wire);
    let frame = next_frame(&wire, u32::MAX).expect("a frame").expect("the whole frame");
    let again = Settle::decode(frame.payload).expect("what was written can be read");
    assert_eq!((again.subscription, again.outcome), (settle.subscription, settle.outcome));
    assert!(again.runs().eq(runs), "runs change");
}
