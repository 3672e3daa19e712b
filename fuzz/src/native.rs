//! A native client that knows the requests, and one that reads every frame it is sent.

use bytes::BytesMut;
use pillarbox::sessions::native::{NativeSession, Settings};
use pillarbox::sessions::{Facts, Session};
use pillarbox_native::{
    Bind, Browse, DeclareExchange, DeclareMailbox, Define, DeleteExchange, DeleteMailbox,
    Deliveries, Due, Frame, Hello, Kind, List, Login, NewMessage, Outcome, PREFACE_SIZE, Preface,
    PropertiesRef, Pull, PushBatch, Refused, Retime, Rewind, Run, Settle, Subscribe, Undefine,
    Unsubscribe, VERSION, decode_pushed, encode_credit, encode_preface, encode_purge, next_frame,
    read_answer, write_empty,
};

use crate::house::Protocol;
use crate::tape::Tape;

const MAILBOXES: [&str; 8] = ["a", "b", "stream", "kv", "", "no such", "amq.gen-x", "c"];
const EXCHANGES: [&str; 7] = ["", "x", "y", "amq.topic", "amq.fanout", "amq.headers", "no such"];
const KINDS: [&str; 8] = [
    "direct",
    "topic",
    "fanout",
    "headers",
    "x-delayed-message",
    "x-consistent-hash",
    "x-recent-history",
    "nonsense",
];
const KEYS: [&str; 8] = ["a", "b", "stream", "kv", "a.b", "#", "*.b", ""];
const NAMES: [&str; 29] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-queue-type",
    "x-queue-type",
    "x-queue-type",
    "x-delivery-limit",
    "x-delayed-type",
    "x-delay",
    "x-stream-offset",
    "x-stream-filter",
    "x-group",
    "x-key",
    "x-match",
    "alternate-exchange",
    "x-retry-delays",
    "x-deduplication-window",
    "x-message-deduplication",
    "x-consumer-timeout",
    "selector",
    "name",
    "user",
    "mailbox",
    "a",
    "x-priority",
];
const TEXTS: [&str; 14] = [
    "a",
    "b",
    "",
    "x",
    "stream",
    "kv",
    "quorum",
    "classic",
    "first",
    "last",
    "reject-publish",
    "drop-head",
    "1s",
    "a = 1",
];
const CONDITIONS: [&str; 5] = ["", "a = 1", "a LIKE 'x%'", "x IS NULL OR a > 2", "nonsense ("];
const NUMBERS: [u64; 9] = [0, 1, 2, 5, 1000, 1_000_000_000_000, 1 << 40, u64::MAX - 1, u64::MAX];

pub struct Native;

impl Protocol for Native {
    type Listener = Listener;

    fn session(facts: Facts) -> Box<dyn Session> {
        let settings = Settings {
            frame_size_max: 64 << 10,
            message_size_max: 4096,
            push_count_max: 16,
            wills_max: 2,
            will_size_max: 200,
            pulls_max: 4,
            pull_count_max: 8,
            pull_bytes_max: 200,
            delivery_frame_size: 100,
            settle_count_max: 64,
            list_count_max: 3,
            ..Settings::default()
        };
        Box::new(NativeSession::new(facts, settings))
    }

    fn greeting(wire: &mut Vec<u8>) {
        let mut out = BytesMut::new();
        encode_preface(&mut out);
        log_in("guest", b"guest", 0, &mut out);
        wire.extend_from_slice(&out);
    }

    fn utterance(tape: &mut Tape<'_>, wire: &mut Vec<u8>) {
        let start = wire.len();
        match tape.octet() {
            0..4 => {
                let count = tape.octet();
                wire.extend_from_slice(tape.bytes(count.into()));
            }
            octet => {
                let mut out = BytesMut::new();
                say(tape, octet % 32, &mut out);
                wire.extend_from_slice(&out);
            }
        }
        tape.damage(wire, start);
    }

    fn listen(listener: &mut Listener, heard: &[u8]) {
        listener.listen(heard);
    }
}

fn log_in(user: &str, proof: &[u8], silence_max_s: u16, out: &mut BytesMut) {
    let (mechanism, vhost, client_name) = (Login::PASSWORD, "/", "fuzz");
    let properties = &[];
    Login { mechanism, user, proof, vhost, client_name, silence_max_s, properties }.encode(1, out);
}

fn say(tape: &mut Tape<'_>, what: u8, out: &mut BytesMut) {
    // Most want an answer; 0 wants none.
    let id = u32::from(tape.octet() % 8);
    let mailbox = tape.pick(&MAILBOXES);
    let number = |tape: &mut Tape<'_>| tape.pick(&NUMBERS);
    match what {
        0..8 => push(tape, id, out),
        8 | 9 => {
            let (count, wait_ms) = (u32::from(tape.octet() % 12), number(tape) as u32 % 5000);
            Pull { mailbox, count, wait_ms, settled: tape.flag() }.encode(id, out);
        }
        10 | 11 => {
            let arguments = &table(tape);
            let subscription = u16::from(tape.octet() % 4);
            let credit = u32::from(tape.octet() % 4);
            let (priority, settled) = (i32::from(tape.octet()) - 128, tape.flag());
            let (exclusive, ids) = (tape.octet() == 0, tape.flag());
            Subscribe {
                subscription,
                mailbox,
                credit,
                priority,
                settled,
                exclusive,
                ids,
                arguments,
            }
            .encode(id, out);
        }
        12 => {
            let subscription = u16::from(tape.octet() % 4);
            Unsubscribe { subscription, keep: tape.flag() }.encode(id, out);
        }
        13 => encode_credit(id, u16::from(tape.octet() % 4), number(tape) as u32, out),
        14..18 => settle(tape, id, out),
        18 | 19 => {
            let arguments = &table(tape);
            let (passive, durable) = (tape.octet() % 8 == 0, tape.flag());
            let (exclusive, auto_delete) = (tape.octet() % 8 == 0, tape.octet() % 8 == 0);
            let name = mailbox;
            DeclareMailbox { name, passive, durable, exclusive, auto_delete, arguments }
                .encode(id, out);
        }
        20 => DeleteMailbox { name: mailbox, if_unused: tape.flag(), if_empty: tape.flag() }
            .encode(id, out),
        21 => encode_purge(id, mailbox, out),
        22 => {
            let arguments = &table(tape);
            let (name, kind) = (tape.pick(&EXCHANGES), tape.pick(&KINDS));
            let (passive, durable) = (tape.octet() % 8 == 0, tape.flag());
            let (auto_delete, internal) = (tape.flag(), tape.octet() % 8 == 0);
            DeclareExchange { name, kind, passive, durable, auto_delete, internal, arguments }
                .encode(id, out);
        }
        23 => {
            DeleteExchange { name: tape.pick(&EXCHANGES), if_unused: tape.flag() }.encode(id, out)
        }
        24 | 25 => {
            let arguments = &table(tape);
            let source = tape.pick(&EXCHANGES);
            let to_exchange = tape.octet() % 4 == 0;
            let destination = if to_exchange { tape.pick(&EXCHANGES) } else { mailbox };
            let kind = if tape.octet() % 4 == 0 { Kind::Unbind } else { Kind::Bind };
            let key = tape.pick(&KEYS).as_bytes();
            Bind { source, destination, to_exchange, key, arguments }.encode(kind, id, out);
        }
        26 => Retime { mailbox, due_ms: number(tape), seq: number(tape), to_ms: number(tape) }
            .encode(id, out),
        27 => {
            let (states, selector) = (tape.octet() % 34, tape.pick(&CONDITIONS));
            let (size, count) = (tape.octet() % 20, u32::from(tape.octet() % 8));
            let after = tape.bytes(size.into());
            Browse { mailbox, states, selector, after, count }.encode(id, out);
        }
        28 => {
            let (from_ms, to_ms) = (number(tape), number(tape));
            let (first, end, selector) = (number(tape), number(tape), tape.pick(&CONDITIONS));
            Rewind { mailbox, from_ms, to_ms, first, end, selector }.encode(id, out);
        }
        29 => {
            let (what, count) = (tape.octet() % 16, u32::from(tape.octet() % 8));
            let vhost = tape.pick(&["", "/", "no such"]);
            let size = tape.octet() % 20;
            List { what, vhost, name: mailbox, after: tape.bytes(size.into()), count }
                .encode(id, out);
        }
        30 => {
            let what = tape.octet() % 16;
            if tape.flag() {
                Define { what, fields: &table(tape) }.encode(id, out);
            } else {
                let path = (0..tape.octet() % 4).map(|_| tape.pick(&MAILBOXES)).collect();
                Undefine { what, path }.encode(id, out);
            }
        }
        _ => match tape.octet() {
            0..8 => write_empty(Kind::Close, id, out),
            8..16 => log_in("guest", b"guest", number(tape) as u16, out),
            16..24 => encode_preface(out),
            24..64 => will(tape, id, out),
            _ => write_empty(Kind::Ping, id, out),
        },
    }
}

fn push(tape: &mut Tape<'_>, id: u32, out: &mut BytesMut) {
    let (exchange, key) = (tape.pick(&EXCHANGES), tape.pick(&KEYS));
    let mut batch = PushBatch::begin(id, tape.octet() & 1, exchange, key.as_bytes(), out);
    messages(tape, &mut batch, out);
    batch.end(out);
}

fn will(tape: &mut Tape<'_>, id: u32, out: &mut BytesMut) {
    let (exchange, key) = (tape.pick(&EXCHANGES), tape.pick(&KEYS));
    let number = u16::from(tape.octet() % 3);
    let mut batch = PushBatch::will(id, number, tape.flag(), exchange, key.as_bytes(), out);
    messages(tape, &mut batch, out);
    batch.end(out);
}

fn messages(tape: &mut Tape<'_>, batch: &mut PushBatch, out: &mut BytesMut) {
    for _ in 0..tape.octet() % 6 {
        let key = tape.flag().then(|| tape.pick(&KEYS).as_bytes());
        let properties = properties(tape);
        let body = tape.pick(&["", "hi", "a longer body"]).as_bytes();
        let due = tape.pick(&[Due::Now, Due::Now, Due::After(500), Due::At(1), Due::At(u64::MAX)]);
        batch.add(NewMessage { key, due, properties: &properties, body }, out);
    }
}

/// An expiration, an id, headers, how durable and how urgent, each or not.
fn properties(tape: &mut Tape<'_>) -> Vec<u8> {
    let flags = tape.short() & (1 << 4 | 1 << 5 | 1 << 10 | 1 << 11 | 1 << 12);
    let mut bytes = Vec::from(flags.to_le_bytes());
    let mut text = |text: &str| {
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    if flags & 1 << 4 != 0 {
        text(tape.pick(&["0", "1", "1000", "soon"]));
    }
    if flags & 1 << 5 != 0 {
        text(tape.pick(&TEXTS));
    }
    if flags & 1 << 10 != 0 {
        bytes.extend(table(tape));
    }
    if flags & 1 << 11 != 0 {
        bytes.push(1 + tape.octet() % 2);
    }
    if flags & 1 << 12 != 0 {
        bytes.push(tape.octet());
    }
    bytes
}

/// Never empty, as that stands for no table.
fn table(tape: &mut Tape<'_>) -> Vec<u8> {
    let count = tape.octet() % 4;
    let mut bytes = Vec::from(u32::from(count).to_le_bytes());
    let text = |text: &str, bytes: &mut Vec<u8>| {
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    for _ in 0..count {
        text(tape.pick(&NAMES), &mut bytes);
        match tape.octet() % 4 {
            0 => bytes.extend([0, tape.octet() & 1]),
            1 => {
                bytes.push(7);
                bytes.extend((tape.pick(&NUMBERS) as i64).to_le_bytes());
            }
            _ => {
                bytes.push(11);
                text(tape.pick(&TEXTS), &mut bytes);
            }
        }
    }
    bytes
}

fn settle(tape: &mut Tape<'_>, id: u32, out: &mut BytesMut) {
    let outcome = match tape.octet() % 5 {
        0 | 1 => Outcome::Accepted,
        2 => Outcome::Released,
        3 => Outcome::Rejected,
        _ if tape.flag() => Outcome::Extended,
        _ => Outcome::Failed { delay_ms: tape.pick(&NUMBERS) },
    };
    let runs: Vec<Run> = (0..tape.octet() % 4)
        .map(|_| {
            let mailbox = u64::from(tape.octet() % 8);
            let first = u64::from(tape.octet() % 8);
            Run { mailbox, first, count: u32::from(tape.octet() % 4) }
        })
        .collect();
    Settle::encode(id, u16::from(tape.octet() % 4), outcome, &runs, out);
}

/// Reads what the server says: the preface, a hello, then sound frames, and nothing after the last word.
#[derive(Default)]
pub struct Listener {
    input: Vec<u8>,
    answered: bool,
    greeted: bool,
    over: bool,
}

impl Listener {
    fn listen(&mut self, heard: &[u8]) {
        self.input.extend_from_slice(heard);
        if !self.answered && !self.input.is_empty() {
            let answer = read_answer(&self.input);
            let known = matches!(answer, Preface::Server { chosen: 0 | VERSION, highest: VERSION });
            assert!(known, "{answer:?}");
            self.input.drain(..PREFACE_SIZE);
            self.answered = true;
        }
        let mut at = 0;
        while let Some(frame) = next_frame(&self.input[at..], u32::MAX).expect("sound frames") {
            assert!(!self.over, "{:?} after the last word", frame.kind);
            self.greeted |= frame.kind == Kind::Hello;
            self.over = frame.kind == Kind::Goodbye;
            assert!(self.greeted || self.over, "{:?} before the hello", frame.kind);
            read(&frame);
            at += frame.wire_len();
        }
        self.input.drain(..at);
        assert!(self.input.is_empty(), "the server's frames are whole");
    }
}

fn read(frame: &Frame<'_>) {
    match frame.kind {
        Kind::Hello => drop(Hello::decode(frame.payload).expect("a hello")),
        Kind::Refused | Kind::Cancelled | Kind::Goodbye => {
            Refused::decode(frame.payload).expect("a refusal");
        }
        Kind::Pushed => drop(decode_pushed(frame.payload).expect("what became of a push")),
        Kind::Pulled | Kind::Delivered => {
            let deliveries = Deliveries::decode(frame.payload).expect("deliveries");
            for delivery in deliveries.messages() {
                let properties = delivery.expect("a delivery").properties;
                PropertiesRef::parse(properties).expect("properties");
            }
        }
        Kind::Done | Kind::Blocked | Kind::Pong => {}
        other => panic!("{other:?} is no word of a server"),
    }
}
