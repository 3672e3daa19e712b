//! An AMQP client that knows its grammar and little else, and one that reads every byte it is sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use pillarbox::sessions::amqp::{AmqpSession, Settings};
use pillarbox::sessions::{Facts, Session};
use pillarbox_amqp::{
    FrameKind, Method, PROTOCOL_HEADER, Properties, decode_content_header, next_frame,
};

use crate::house::Protocol;
use crate::tape::Tape;

const FRAME_MAX: u32 = 131_072;
const PUBLISH: (u16, u16) = (60, 40);

/// What clients say: class, method and arguments.
///
/// `q` queue, `e` exchange, `k` routing key, `y` kind of exchange, `c` consumer tag, `s` any short string, `S` long
/// string, `o` octet, `w` u16, `l` u32, `d` delivery tag, `b` bits that share an octet, `t` table; `0` an unused u16.
const METHODS: [(u16, u16, &str); 34] = [
    (60, 40, "0ekbb"),
    (60, 80, "db"),
    (60, 120, "dbb"),
    (60, 90, "db"),
    (60, 20, "0qcbbbbt"),
    (60, 30, "cb"),
    (60, 70, "0qb"),
    (60, 10, "lwb"),
    (60, 110, "b"),
    (60, 100, "b"),
    (50, 10, "0qbbbbbt"),
    (50, 20, "0qekbt"),
    (50, 50, "0qekt"),
    (50, 30, "0qb"),
    (50, 40, "0qbbb"),
    (40, 10, "0eybbbbbt"),
    (40, 20, "0ebb"),
    (40, 30, "0eekbt"),
    (40, 40, "0eekbt"),
    (85, 10, "b"),
    (90, 10, ""),
    (90, 20, ""),
    (90, 30, ""),
    (20, 10, "s"),
    (20, 20, "b"),
    (20, 21, "b"),
    (20, 40, "wsww"),
    (20, 41, ""),
    (30, 10, "sbbbbb"),
    (10, 50, "wsww"),
    (10, 51, ""),
    (10, 70, "Ss"),
    (10, 31, "wlw"),
    (10, 40, "ssb"),
];

const QUEUES: [&str; 8] = ["a", "b", "c", "", "amq.gen-x", "amq.rabbitmq.reply-to", "d", "no such"];
const EXCHANGES: [&str; 9] =
    ["", "x", "y", "amq.direct", "amq.topic", "amq.headers", "amq.fanout", "z", "no such"];
const KINDS: [&str; 10] = [
    "direct",
    "topic",
    "fanout",
    "headers",
    "x-delayed-message",
    "x-consistent-hash",
    "x-modulus-hash",
    "x-random",
    "x-recent-history",
    "nonsense",
];
const KEYS: [&str; 10] =
    ["a", "b", "c", "a.b", "#", "*.b", "", "1", "amq.rabbitmq.reply-to", "a.b.c"];
const TAGS: [&str; 4] = ["1", "2", "", "amq.ctag-x"];
const ARGUMENTS: [&str; 28] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-priority",
    "x-queue-type",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-match",
    "x-delayed-type",
    "x-delay",
    "x-priority",
    "x-stream-offset",
    "alternate-exchange",
    "CC",
    "BCC",
    "x-modulus",
    "hash-header",
    "x-recent-history-length",
    "x-queue-mode",
    "a",
    "x-a",
    "x-consumer-timeout",
    "x-cancel-on-ha-failover",
];
const TEXTS: [&str; 20] = [
    "a",
    "b",
    "",
    "x",
    "reject-publish",
    "drop-head",
    "reject-publish-dlx",
    "all",
    "any",
    "any-with-x",
    "all-with-x",
    "classic",
    "quorum",
    "stream",
    "at-least-once",
    "topic",
    "first",
    "next",
    "1",
    "c",
];
const NUMBERS: [i64; 10] = [0, 1, 2, 10, 100, 1000, -1, 255, 256, i64::MAX];
const PLAIN: &str = "PLAIN";

pub struct Amqp;

impl Protocol for Amqp {
    type Listener = Listener;

    fn session(facts: Facts) -> Box<dyn Session> {
        let settings = Settings {
            message_size_max: 64 << 10,
            unfinished_bytes_max: 256 << 10,
            transaction_commands_max: 16,
            channel_consumers_max: 4,
            channel_max: 15,
            ..Settings::default()
        };
        Box::new(AmqpSession::new(facts, settings))
    }

    fn greeting(wire: &mut Vec<u8>) {
        greeting(wire, PLAIN);
        method(wire, 1, (20, 10), |out| out.push(0));
        method(wire, 1, (85, 10), |out| out.push(0));
    }

    fn utterance(tape: &mut Tape<'_>, wire: &mut Vec<u8>) {
        let start = wire.len();
        match tape.octet() {
            0..4 => {
                let count = tape.octet();
                wire.extend_from_slice(tape.bytes(count.into()));
            }
            4..6 => wire.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0xCE]),
            6 => greeting(wire, tape.pick(&["AMQPLAIN", "ANONYMOUS", "EXTERNAL", PLAIN])),
            7..96 => publish(tape, wire),
            octet => say(tape, wire, usize::from(octet) % METHODS.len()),
        }
        tape.damage(wire, start);
    }

    fn listen(listener: &mut Listener, heard: &[u8]) {
        listener.listen(heard);
    }
}

fn greeting(wire: &mut Vec<u8>, mechanism: &str) {
    wire.extend_from_slice(&PROTOCOL_HEADER);
    method(wire, 0, (10, 11), |out| {
        let capability = b"\x16consumer_cancel_notifyt\x01\x12connection.blockedt\x01";
        let name = b"\x0ccapabilities";
        let size = name.len() + 1 + 4 + capability.len();
        out.extend_from_slice(&(size as u32).to_be_bytes());
        out.extend_from_slice(name);
        out.push(b'F');
        long_string(out, capability);
        short_string(out, mechanism.as_bytes());
        long_string(out, b"\0guest\0guest");
        short_string(out, b"en_US");
    });
    method(wire, 0, (10, 31), |out| out.extend_from_slice(&[0, 15, 0, 2, 0, 0, 0, 60]));
    method(wire, 0, (10, 40), |out| out.extend_from_slice(b"\x01/\0\0"));
}

fn channel(tape: &mut Tape<'_>) -> u16 {
    tape.pick(&[1, 1, 1, 1, 1, 2, 2, 0, 15, 16])
}

fn say(tape: &mut Tape<'_>, wire: &mut Vec<u8>, number: usize) {
    let (class, id, arguments) = METHODS[number];
    let channel = if class == 10 { tape.pick(&[0, 0, 0, 1]) } else { channel(tape) };
    method(wire, channel, (class, id), |out| put_arguments(tape, arguments, out));
}

/// The method, its header and its body, most of the time as they should be.
fn publish(tape: &mut Tape<'_>, wire: &mut Vec<u8>) {
    let number = channel(tape);
    method(wire, number, PUBLISH, |out| put_arguments(tape, METHODS[0].2, out));
    let size = tape.pick(&[0, 1, 5, 5, 5, 70, 300]);
    let announced = if tape.octet() < 250 { size } else { usize::from(tape.short()) };
    frame(wire, 2, number, |out| {
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(announced as u64).to_be_bytes());
        put_properties(tape, out);
    });
    let pieces = tape.pick(&[1, 1, 1, 2, 3]);
    let body = [b'm'; 300];
    for piece in body[..size].chunks(size.div_ceil(pieces).max(1)) {
        frame(wire, 3, number, |out| out.extend_from_slice(piece));
    }
}

fn put_properties(tape: &mut Tape<'_>, out: &mut Vec<u8>) {
    let flags = tape.pick(&[0, 0x1000, 0x3000, 0x3100, 0x1A00, 0x0010, 0x0100, 0xFFFC]);
    out.extend_from_slice(&u16::to_be_bytes(flags));
    for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
        match bit {
            13 => put_table(tape, out, 0),
            12 => out.push(tape.pick(&[2, 1, 0])),
            11 => out.push(tape.pick(&[0, 1, 9, 255])),
            8 => short_string(out, tape.pick(&["1", "0", "1000", "", "-1", "x"]).as_bytes()),
            6 => out.extend_from_slice(&NUMBERS[9].to_be_bytes()),
            4 => short_string(out, tape.pick(&["guest", "somebody"]).as_bytes()),
            _ => short_string(out, tape.pick(&KEYS).as_bytes()),
        }
    }
}

fn put_arguments(tape: &mut Tape<'_>, kinds: &str, out: &mut Vec<u8>) {
    let mut bits = 0;
    for kind in kinds.chars() {
        if kind != 'b' {
            bits = 0;
        }
        match kind {
            '0' => out.extend_from_slice(&[0, 0]),
            'q' => short_string(out, tape.pick(&QUEUES).as_bytes()),
            'e' => short_string(out, tape.pick(&EXCHANGES).as_bytes()),
            'k' => short_string(out, tape.pick(&KEYS).as_bytes()),
            'y' => short_string(out, tape.pick(&KINDS).as_bytes()),
            'c' => short_string(out, tape.pick(&TAGS).as_bytes()),
            's' => short_string(out, tape.pick(&["", "/", "a"]).as_bytes()),
            'S' => long_string(out, tape.pick(&["", "guest"]).as_bytes()),
            'o' => out.push(tape.octet()),
            'w' => out.extend_from_slice(&u16::to_be_bytes(tape.pick(&[0, 1, 2, 60, 255]))),
            'l' => out.extend_from_slice(&u32::to_be_bytes(tape.pick(&[0, 0, 1, 4096, 131_072]))),
            'd' => {
                let tag = tape.pick(&[1, 2, 3, 4, 0, 5, 9, u64::MAX]);
                out.extend_from_slice(&tag.to_be_bytes());
            }
            'b' => {
                if bits == 0 {
                    out.push(0);
                }
                // Passive, nowait and such are rarer than not.
                let set = tape.octet() > 160;
                *out.last_mut().expect("an octet of bits") |= u8::from(set) << bits;
                bits += 1;
            }
            't' => put_table(tape, out, 0),
            other => unreachable!("no argument {other}"),
        }
    }
}

fn put_table(tape: &mut Tape<'_>, out: &mut Vec<u8>, depth: u32) {
    let mut body = Vec::new();
    for _ in 0..tape.pick(&[0, 0, 1, 1, 2, 3]) {
        short_string(&mut body, tape.pick(&ARGUMENTS).as_bytes());
        put_value(tape, &mut body, depth);
    }
    long_string(out, &body);
}

fn put_value(tape: &mut Tape<'_>, out: &mut Vec<u8>, depth: u32) {
    match tape.octet() % 16 {
        0..5 => {
            out.push(b'S');
            long_string(out, tape.pick(&TEXTS).as_bytes());
        }
        5..9 => {
            out.push(b'l');
            out.extend_from_slice(&tape.pick(&NUMBERS).to_be_bytes());
        }
        9 => {
            out.push(b'I');
            out.extend_from_slice(&(tape.pick(&NUMBERS) as i32).to_be_bytes());
        }
        10..12 => out.extend_from_slice(&[b't', u8::from(tape.flag())]),
        12 => out.extend_from_slice(&[b'b', tape.octet()]),
        13 => {
            out.push(b'A');
            let mut body = Vec::new();
            if depth < 3 {
                for _ in 0..tape.octet() % 3 {
                    put_value(tape, &mut body, depth + 1);
                }
            }
            long_string(out, &body);
        }
        14 if depth < 3 => {
            out.push(b'F');
            put_table(tape, out, depth + 1);
        }
        _ => out.push(b'V'),
    }
}

fn method(
    wire: &mut Vec<u8>,
    channel: u16,
    (class, id): (u16, u16),
    put: impl FnOnce(&mut Vec<u8>),
) {
    frame(wire, 1, channel, |out| {
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        put(out);
    });
}

fn frame(wire: &mut Vec<u8>, kind: u8, channel: u16, put: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = Vec::new();
    put(&mut payload);
    wire.push(kind);
    wire.extend_from_slice(&channel.to_be_bytes());
    long_string(wire, &payload);
    wire.push(0xCE);
}

fn short_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn long_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Reads what the server says, and believes nothing.
#[derive(Default)]
pub struct Listener {
    begun: bool,
    over: bool,
    contents: BTreeMap<u16, Content>,
    answered: BTreeMap<u16, Answered>,
}

/// What must follow on a channel.
enum Content {
    Header,
    Body(u64),
}

/// Publishes of a channel that were acked or nacked.
#[derive(Default)]
struct Answered {
    upto: u64,
    beyond: BTreeSet<u64>,
}

impl Listener {
    fn listen(&mut self, mut heard: &[u8]) {
        if heard.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.begun, true) && heard == PROTOCOL_HEADER {
            self.over = true;
            return;
        }
        while !heard.is_empty() {
            let frame = next_frame(heard, FRAME_MAX).expect("the server's frames are sound");
            let frame = frame.expect("the server's frames are whole");
            // A goodbye that is said again is answered again.
            let last = matches!(Method::decode(frame.payload), Ok(Method::ConnectionCloseOk));
            assert!(!self.over || last, "after the last word: {}", heard.escape_ascii());
            heard = &heard[frame.wire_len()..];
            self.frame(frame.kind, frame.channel, frame.payload);
        }
    }

    fn frame(&mut self, kind: FrameKind, channel: u16, payload: &[u8]) {
        match (self.contents.remove(&channel), kind) {
            (None, FrameKind::Method) => {
                let method = Method::decode(payload).expect("the server's methods are sound");
                self.method(channel, &method);
            }
            (None, FrameKind::Heartbeat) => {
                assert_eq!((channel, payload), (0, &[][..]), "a heartbeat with a message");
            }
            (Some(Content::Header), FrameKind::Header) => {
                let header =
                    decode_content_header(payload).expect("the server's headers are sound");
                Properties::decode(header.properties).expect("properties that were checked");
                if header.body_size > 0 {
                    self.contents.insert(channel, Content::Body(header.body_size));
                }
            }
            (Some(Content::Body(left)), FrameKind::Body) => {
                let size = payload.len() as u64;
                assert!(size > 0 && size <= left, "a body frame of {size} bytes, {left} are left");
                if size < left {
                    self.contents.insert(channel, Content::Body(left - size));
                }
            }
            (_, kind) => panic!("{kind:?} on channel {channel} comes out of turn"),
        }
    }

    fn method(&mut self, channel: u16, method: &Method) {
        let (class, _) = method.ids();
        assert_eq!(class == 10, channel == 0, "{} on channel {channel}", method.name());
        let mut bytes = BytesMut::new();
        method.encode(channel, &mut bytes);
        match *method {
            Method::BasicDeliver { .. }
            | Method::BasicGetOk { .. }
            | Method::BasicReturn { .. } => {
                self.contents.insert(channel, Content::Header);
            }
            Method::ChannelOpenOk => {
                self.answered.insert(channel, Answered::default());
            }
            Method::BasicAck { delivery_tag, multiple }
            | Method::BasicNack { delivery_tag, multiple, .. } => {
                let answered = self.answered.get_mut(&channel).expect("an open channel");
                answered.add(delivery_tag, multiple);
            }
            Method::ConnectionCloseOk => self.over = true,
            _ => {}
        }
    }
}

impl Answered {
    fn add(&mut self, tag: u64, multiple: bool) {
        assert!(tag > self.upto, "publish {tag} is answered twice");
        if multiple {
            let known = self.beyond.range(..=tag).count() as u64;
            assert!(tag - self.upto > known, "nothing new is answered up to {tag}");
            self.upto = tag;
            self.beyond = self.beyond.split_off(&(tag + 1));
        } else {
            assert!(self.beyond.insert(tag), "publish {tag} is answered twice");
        }
        while self.beyond.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }
}
