//! What reading and writing a message costs in the codecs, without a session or a broker.
//!
//! `cargo bench --bench codec`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use pillarbox_amqp as amqp;
use pillarbox_stomp as stomp;

const BATCH: u64 = 64;
const MESSAGES: u64 = 2_000_000;
const ROUNDS: u32 = 20;
const FRAME_MAX: u32 = 131_072;
const BODY: [u8; 100] = [b'x'; 100];
/// content-type and delivery-mode.
const PROPERTIES: &[u8] = b"\x90\x00\x0atext/plain\x02";

/// A publish and its content as clients write them.
fn amqp_publish(out: &mut BytesMut) {
    let arguments = b"\x00\x3c\x00\x28\x00\x00\x09amq.topic\x0aorders.new\x00";
    out.put_u8(1);
    out.put_u16(1);
    out.put_u32(arguments.len() as u32);
    out.put_slice(arguments);
    out.put_u8(amqp::FRAME_END);
    amqp::encode_content(out, 1, PROPERTIES, &BODY, FRAME_MAX);
}

fn read_amqp(input: &BytesMut) {
    let mut rest = &input[..];
    while let Some(frame) = amqp::next_frame(rest, FRAME_MAX).expect("good frames") {
        match frame.kind {
            amqp::FrameKind::Method => {
                black_box(amqp::decode_publish(frame.payload).expect("a publish"));
            }
            amqp::FrameKind::Header => {
                black_box(amqp::decode_content_header(frame.payload).expect("a header"));
            }
            amqp::FrameKind::Body | amqp::FrameKind::Heartbeat => {
                black_box(frame.payload);
            }
        }
        rest = &rest[frame.wire_len()..];
    }
}

fn write_amqp(out: &mut BytesMut) {
    for tag in 0..BATCH {
        amqp::encode_deliver(out, 1, b"ctag1.0", tag, false, b"amq.topic", b"orders.new");
        amqp::encode_content(out, 1, PROPERTIES, &BODY, FRAME_MAX);
    }
}

fn read_stomp(input: &BytesMut) {
    let mut decoder = stomp::Decoder::new(stomp::Limits::default());
    decoder.set_version(stomp::Version::V12);
    let mut input = input.clone();
    while let Some(frame) = decoder.decode(&mut input).expect("good frames") {
        black_box(frame);
    }
}

fn write_stomp(out: &mut BytesMut) {
    let encoder = stomp::Encoder::new(stomp::Version::V12);
    for _ in 0..BATCH {
        let headers = [
            ("subscription", "0"),
            ("message-id", "T_0@@session-1@@1"),
            ("destination", "/topic/orders.new"),
        ];
        encoder.encode_message(out, headers, &BODY);
    }
}

/// Nanoseconds for each message, of the best round.
fn best(messages: u64, mut batch: impl FnMut()) -> f64 {
    let batches = (messages / u64::from(ROUNDS) / BATCH).max(1);
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..batches).for_each(|_| batch());
        start.elapsed().as_nanos() as f64 / (batches * BATCH) as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let messages = std::env::var("BENCH_MESSAGES").ok().and_then(|text| text.parse().ok());
    let messages = messages.unwrap_or(MESSAGES);
    let report = |name: &str, batch: &mut dyn FnMut()| {
        if wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())) {
            println!("{name:<48} {:>6.0} ns a message", best(messages, batch));
        }
    };

    let mut input = BytesMut::new();
    (0..BATCH).for_each(|_| amqp_publish(&mut input));
    report("AMQP, read a publish", &mut || read_amqp(&input));
    let mut out = BytesMut::new();
    report("AMQP, write a delivery", &mut || {
        out.clear();
        write_amqp(&mut out);
    });

    let mut input = BytesMut::new();
    for _ in 0..BATCH {
        let headers = [("destination", "/topic/orders.new"), ("receipt", "1")];
        let encoder = stomp::Encoder::new(stomp::Version::V12);
        encoder.encode_client_frame(&mut input, stomp::Command::Send, headers, &BODY);
    }
    report("STOMP, read a SEND", &mut || read_stomp(&input));
    let mut out = BytesMut::new();
    report("STOMP, write a MESSAGE", &mut || {
        out.clear();
        write_stomp(&mut out);
    });
}
