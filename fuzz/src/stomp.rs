//! A STOMP client that knows the words, and one that reads every frame it is sent.

use std::collections::BTreeSet;

use bytes::BytesMut;
use pillarbox::sessions::stomp::{Settings, StompSession};
use pillarbox::sessions::{Facts, Session};
use pillarbox_stomp::{Input, Limits, ServerCommand, ServerFrameDecoder, Version};

use crate::house::Protocol;
use crate::tape::Tape;

const COMMANDS: [&str; 16] = [
    "SEND",
    "SEND",
    "SEND",
    "SUBSCRIBE",
    "SUBSCRIBE",
    "ACK",
    "ACK",
    "NACK",
    "UNSUBSCRIBE",
    "BEGIN",
    "COMMIT",
    "ABORT",
    "DISCONNECT",
    "CONNECT",
    "STOMP",
    "MESSAGE",
];
const DESTINATIONS: [&str; 14] = [
    "/queue/a",
    "/queue/b",
    "/amq/queue/a",
    "/topic/a.b",
    "/topic/#",
    "/exchange/amq.topic/a.*",
    "/exchange/amq.fanout",
    "/temp-queue/t",
    "/reply-queue/x",
    "/queue/",
    "",
    "nowhere",
    "/exchange/",
    "/queue/a%2Fb",
];
const IDS: [&str; 5] = ["0", "1", "2", "", "T_1@@session@@1"];
const NAMES: [&str; 40] = [
    "destination",
    "destination",
    "id",
    "id",
    "ack",
    "receipt",
    "transaction",
    "message-id",
    "subscription",
    "content-length",
    "content-type",
    "persistent",
    "expiration",
    "priority",
    "prefetch-count",
    "selector",
    "durable",
    "auto-delete",
    "exclusive",
    "x-message-ttl",
    "x-max-length",
    "x-dead-letter-exchange",
    "x-queue-name",
    "x-queue-type",
    "x-stream-offset",
    "reply-to",
    "correlation-id",
    "requeue",
    "accept-version",
    "heart-beat",
    "host",
    "login",
    "passcode",
    "version",
    "activemq.prefetchSize",
    "x-priority",
    "x-delay",
    "a",
    "",
    "a:b",
];
const VALUES: [&str; 24] = [
    "true",
    "false",
    "0",
    "1",
    "5",
    "-1",
    "100",
    "client",
    "client-individual",
    "auto",
    "1.2",
    "1.0,1.1",
    "0,0",
    "1000,1000",
    "/queue/a",
    "/temp-queue/t",
    "a = 1",
    "guest",
    "/",
    "",
    "\\n\\c\\\\",
    "\\t",
    "first",
    "18446744073709551615",
];

pub struct Stomp;

impl Protocol for Stomp {
    type Listener = Listener;

    fn session(facts: Facts) -> Box<dyn Session> {
        let settings = Settings {
            frame_size_max: 64 << 10,
            headers_max: 30,
            subscriptions_max: 4,
            temp_queues_max: 2,
            declared_max: 2,
            transactions_max: 2,
            transaction_actions_max: 8,
            transaction_bytes_max: 1000,
            ..Settings::default()
        };
        Box::new(StompSession::new(facts, settings))
    }

    fn greeting(wire: &mut Vec<u8>) {
        wire.extend_from_slice(
            b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0",
        );
    }

    fn utterance(tape: &mut Tape<'_>, wire: &mut Vec<u8>) {
        let start = wire.len();
        match tape.octet() {
            0..4 => {
                let count = tape.octet();
                wire.extend_from_slice(tape.bytes(count.into()));
            }
            4..8 => wire.extend_from_slice(tape.pick(&["\n", "\r\n", "\n\n", "\0"]).as_bytes()),
            octet => say(tape, wire, COMMANDS[usize::from(octet) % COMMANDS.len()]),
        }
        tape.damage(wire, start);
    }

    fn listen(listener: &mut Listener, heard: &[u8]) {
        listener.listen(heard);
    }
}

fn say(tape: &mut Tape<'_>, wire: &mut Vec<u8>, command: &str) {
    let end: &str = tape.pick(&["\n", "\n", "\n", "\r\n"]);
    let mut line = |parts: [&str; 3]| {
        wire.extend(parts.iter().flat_map(|part| part.bytes()));
        wire.extend_from_slice(end.as_bytes());
    };
    line([command, "", ""]);
    match command {
        "SEND" => line(["destination", ":", tape.pick(&DESTINATIONS)]),
        "SUBSCRIBE" => {
            line(["destination", ":", tape.pick(&DESTINATIONS)]);
            line(["id", ":", tape.pick(&IDS)]);
            line(["ack", ":", tape.pick(&["client", "client-individual", "auto", "x"])]);
        }
        "UNSUBSCRIBE" | "ACK" | "NACK" => line(["id", ":", tape.pick(&IDS)]),
        "BEGIN" | "COMMIT" | "ABORT" => line(["transaction", ":", tape.pick(&IDS)]),
        _ => {}
    }
    for _ in 0..tape.octet() % 5 {
        line([tape.pick(&NAMES), ":", tape.pick(&VALUES)]);
    }
    if tape.flag() && !command.starts_with("SUB") {
        line(["transaction", ":", tape.pick(&IDS)]);
    }
    if tape.flag() {
        line(["receipt", ":", tape.pick(&IDS)]);
    }
    line(["", "", ""]);
    if command == "SEND" {
        wire.extend_from_slice(tape.pick(&["", "hi", "a longer body", "a\nb"]).as_bytes());
    }
    wire.push(0);
}

/// Reads what the server says: each frame is sound, nothing follows an error, and messages have names of their own.
pub struct Listener {
    decoder: ServerFrameDecoder,
    input: BytesMut,
    connected: bool,
    over: bool,
    messages: BTreeSet<String>,
}

impl Default for Listener {
    fn default() -> Self {
        let limits = Limits { frame_size_max: 1 << 20, headers_max: 1000, ..Limits::default() };
        Self {
            decoder: ServerFrameDecoder::new(limits),
            input: BytesMut::new(),
            connected: false,
            over: false,
            messages: BTreeSet::new(),
        }
    }
}

impl Listener {
    fn listen(&mut self, heard: &[u8]) {
        self.input.extend_from_slice(heard);
        while let Some(input) = self.decoder.decode(&mut self.input).expect("sound frames") {
            let Input::Frame(frame) = input else { continue };
            let wants = |name| frame.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
            assert!(!self.over, "{:?} after an error", frame.command);
            match frame.command {
                ServerCommand::Connected => {
                    assert!(!std::mem::replace(&mut self.connected, true), "CONNECTED twice");
                    let version = Version::parse(wants("version")).expect("a version");
                    self.decoder.set_version(version);
                }
                ServerCommand::Message => {
                    // A subscription without an id, which a client may make, has no header `subscription`.
                    wants("destination");
                    let id = wants("message-id").to_owned();
                    assert!(self.messages.insert(id), "a message-id is used twice");
                }
                ServerCommand::Receipt => {
                    wants("receipt-id");
                }
                // Some errors leave the connection open.
                ServerCommand::Error => {}
            }
        }
        assert!(!self.decoder.is_inside_frame(), "the server's frames are whole");
    }
}
