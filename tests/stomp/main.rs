//! STOMP as a conversation: the transcripts in `tests/transcripts/stomp`, played against a session and a broker
//! without a socket, whole and byte by byte.
//!
//! ```text
//! # Why this conversation is here.
//! C1: (connects 1.2)                      CONNECT with the default user, and CONNECTED
//! C1: SEND\ndestination:/queue/a\n\nhi^@  bytes from client 1; \n \r \\ and ^@ stand for bytes
//! S1: RECEIPT\nreceipt-id:1\n\n^@         the next frame for client 1; … stands for anything
//! S1: (nothing)                           no frame is waiting
//! S1: (closes)                            the session closed the connection
//! C1: (closes)                            the client went away
//! T: 1500                                 so many milliseconds pass
//! D: (holds)  D: (syncs)                  the disk takes its time, and is done
//! O: (CONNECT may be left out)            settings of those that come from now on
//! O: (everybody is NAME)
//! O: (nobody is without a name)
//! O: (NACK throws away)
//! ```
//!
//! `<session>` stands for the session's id, in both directions.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use bytes::BytesMut;
use pillarbox::broker::{Broker, Command, ConnectionId, Effect, Event, Recovered, Settings, Time};
use pillarbox::sessions::stomp::{self, StompSession};
use pillarbox::sessions::{Facts, Outbox, Session};

mod cases;

/// A broker and its clients, with a clock that only moves when it is told to.
struct House {
    broker: Broker,
    now: Time,
    clients: BTreeMap<u64, Client>,
    /// What waits for the disk.
    waiting: Option<Vec<(ConnectionId, Event)>>,
    settings: stomp::Settings,
    loopback: bool,
}

struct Client {
    session: StompSession,
    input: BytesMut,
    wire: BytesMut,
    events: VecDeque<Event>,
    paused: bool,
    closed: bool,
    /// Gone from the broker's sight.
    left: bool,
    id: String,
}

impl House {
    fn new() -> Self {
        let now = Time(1_000_000);
        let mut effects = Vec::new();
        let broker = Broker::open(Recovered::default(), Settings::default(), now, &mut effects);
        Self {
            broker,
            now,
            clients: BTreeMap::new(),
            waiting: None,
            settings: stomp::Settings::default(),
            loopback: true,
        }
    }

    fn client(&mut self, number: u64) -> &mut Client {
        let facts = Facts {
            peer: format!("127.0.0.1:{number}"),
            local: "127.0.0.1:61613".into(),
            loopback: self.loopback,
            tls: false,
            certificate_user: None,
            seed: number,
        };
        let settings = self.settings.clone();
        self.clients.entry(number).or_insert_with(|| Client {
            session: StompSession::new(facts, settings),
            input: BytesMut::new(),
            wire: BytesMut::new(),
            events: VecDeque::new(),
            paused: false,
            closed: false,
            left: false,
            id: String::new(),
        })
    }

    fn sends(&mut self, number: u64, bytes: &[u8]) {
        let client = self.client(number);
        client.input.extend_from_slice(bytes);
        self.turn(number, |_, _, _| {});
        self.settle();
    }

    /// Calls the session and carries what it wants to the broker.
    fn turn(&mut self, number: u64, call: impl FnOnce(&mut StompSession, Time, &mut Outbox)) {
        let now = self.now;
        let client = self.client(number);
        if client.closed {
            return;
        }
        let mut out = Outbox::default();
        call(&mut client.session, now, &mut out);
        loop {
            client.session.flush(&mut out);
            client.paused = out.pause_reading.take().unwrap_or(client.paused);
            if let Some(verify) = out.verify.take() {
                let accepted = verify.credential.is_some() && verify.password == b"guest";
                client.session.verified(accepted, now, &mut out);
                continue;
            }
            if !client.paused && !out.close {
                let before = client.input.len();
                client.session.receive(&mut client.input, now, &mut out);
                if client.input.len() < before && out.pause_reading.is_some() {
                    continue;
                }
            }
            client.paused = out.pause_reading.take().unwrap_or(client.paused);
            break;
        }
        client.wire.extend_from_slice(&out.wire);
        client.closed |= out.close;
        let mut commands = out.commands;
        if out.close && !client.left {
            client.left = true;
            commands.push(Command::Close(None));
        } else if out.deliveries > 0 {
            let (deliveries, bytes) = (out.deliveries, out.delivery_bytes);
            commands.push(Command::Drained { deliveries, bytes });
        }
        for command in commands {
            self.apply(ConnectionId(number), command);
        }
    }

    fn apply(&mut self, from: ConnectionId, command: Command) {
        let mut effects = Vec::new();
        self.broker.apply(from, command, self.now, &mut effects);
        self.heed(effects);
    }

    fn heed(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match (effect, &mut self.waiting) {
                (Effect::NotifyDurable(to, event), Some(waiting)) => waiting.push((to, event)),
                (Effect::Notify(to, event) | Effect::NotifyDurable(to, event), _) => {
                    self.tell(to, event);
                }
                (Effect::Write(_) | Effect::Fetch(_), _) => {}
            }
        }
    }

    fn tell(&mut self, to: ConnectionId, event: Event) {
        if let Some(client) = self.clients.get_mut(&to.0) {
            client.events.push_back(event);
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let speaks =
                |(number, client): (&u64, &Client)| (!client.events.is_empty()).then_some(*number);
            let Some(number) = self.clients.iter().find_map(speaks) else { break };
            let Some(event) = self.client(number).events.pop_front() else { break };
            self.turn(number, |session, now, out| session.notify(event, now, out));
        }
        if self.waiting.is_none() {
            let (epoch, mut effects) = (self.broker.seal(), Vec::new());
            self.broker.durable(epoch, self.now, &mut effects);
            if !effects.is_empty() {
                self.heed(effects);
                self.settle();
            }
        }
    }

    fn leaves(&mut self, number: u64) {
        let client = self.client(number);
        client.closed = true;
        if !std::mem::replace(&mut client.left, true) {
            self.apply(ConnectionId(number), Command::Close(None));
        }
        self.settle();
    }

    fn passes(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let sessions = self.clients.iter().filter(|(_, client)| !client.closed);
            let next = sessions
                .filter_map(|(number, client)| Some((client.session.next_deadline()?, *number)))
                .min();
            match next {
                Some((at, number)) if at <= end => {
                    self.now = self.now.max(at);
                    self.turn(number, |session, now, out| session.tick(now, out));
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
        let mut effects = Vec::new();
        self.broker.tick(end, &mut effects);
        self.heed(effects);
        self.settle();
    }

    fn holds(&mut self) {
        self.waiting = Some(Vec::new());
    }

    fn syncs(&mut self) {
        for (to, event) in self.waiting.take().unwrap_or_default() {
            self.tell(to, event);
        }
        self.settle();
    }

    /// The next frame for a client, without the line feed behind it. Heart-beats are a `\n` of their own.
    fn hears(&mut self, number: u64) -> Option<String> {
        let client = self.client(number);
        let mut length = client.wire.iter().position(|byte| *byte == 0).map(|at| at + 1);
        let text = String::from_utf8_lossy(&client.wire).into_owned();
        if let Some(at) =
            text.find("\ncontent-length:").filter(|at| length.is_some_and(|end| *at < end))
        {
            let digits = text[at + 16..].split('\n').next().unwrap_or_default();
            let body = text.find("\n\n").map_or(0, |at| at + 2);
            length = Some(body + digits.parse::<usize>().unwrap_or(0) + 1);
        }
        if text.starts_with('\n') {
            length = Some(1);
        }
        let frame = client.wire.split_to(length?);
        if frame.len() > 1 && client.wire.first() == Some(&b'\n') {
            let _ = client.wire.split_to(1);
        }
        let frame = String::from_utf8_lossy(&frame).into_owned();
        if let Some((_, rest)) =
            frame.split_once("\nsession:").filter(|_| frame.starts_with("CONNECTED"))
        {
            client.id = rest.split('\n').next().unwrap_or_default().to_owned();
        }
        Some(if client.id.is_empty() { frame } else { frame.replace(&client.id, "<session>") })
    }

    fn connects(&mut self, number: u64, version: &str) {
        let hello = format!("CONNECT\naccept-version:{version}\nhost:/\n\n\0");
        self.sends(number, hello.as_bytes());
        let heard = self.hears(number).unwrap_or_default();
        assert!(heard.starts_with("CONNECTED\n"), "{}", shown(&heard));
    }

    /// Plays one line of a transcript.
    fn play(&mut self, line: &str, piece: usize) {
        let (who, what) = line.split_once(": ").unwrap_or_else(|| panic!("odd line: {line}"));
        let number = || who[1..].parse().unwrap_or(1);
        match (&who[..1], what) {
            ("T", ms) => self.passes(ms.parse().expect("milliseconds")),
            ("D", "(holds)") => self.holds(),
            ("D", "(syncs)") => self.syncs(),
            ("O", "(CONNECT may be left out)") => self.settings.implicit_connect = true,
            ("O", "(NACK throws away)") => self.settings.nack_requeues = false,
            ("O", "(nobody is without a name)") => self.settings.default_login.clear(),
            ("O", what) if what.starts_with("(everybody is ") => {
                self.settings.forced_login = true;
                self.settings.default_login = what[14..].trim_end_matches(')').into();
            }
            ("C", "(closes)") => self.leaves(number()),
            ("C", what) if what.starts_with("(connects ") => {
                self.connects(number(), what[10..].trim_end_matches(')'));
            }
            ("C", text) => {
                let id = self.client(number()).id.clone();
                let bytes = bytes_of(&text.replace("<session>", &id));
                bytes.chunks(piece).for_each(|piece| self.sends(number(), piece));
            }
            ("S", "(nothing)") => {
                assert_eq!(self.hears(number()).map(|it| shown(&it)), None, "{line}")
            }
            ("S", "(closes)") => {
                assert_eq!(self.hears(number()).map(|it| shown(&it)), None, "{line}");
                assert!(self.client(number()).closed, "{line}");
            }
            ("S", expected) => {
                let heard =
                    self.hears(number()).map_or_else(|| "(nothing)".into(), |it| shown(&it));
                assert!(
                    matches(expected, &heard),
                    "\nexpected {expected}\n   heard {heard}\n  line by {who}"
                );
            }
            _ => panic!("odd line: {line}"),
        }
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    let text = text.replace("^@", "\0").replace("\\\\", "\u{1}");
    text.replace("\\n", "\n").replace("\\r", "\r").replace('\u{1}', "\\").into_bytes()
}

fn shown(frame: &str) -> String {
    let frame = frame.replace('\\', "\\\\").replace('\n', "\\n");
    frame.replace('\r', "\\r").replace('\0', "^@")
}

/// Whether a text is what was expected, where `…` stands for anything.
fn matches(expected: &str, heard: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = heard.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

#[test]
fn transcripts_are_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/stomp");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the transcripts are there")
        .map(|entry| entry.expect("a listed file can be read").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut failed = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a listed file can be read");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Conversations of a file are apart from each other by a blank line.
        for (scene, piece) in text.split("\n\n").flat_map(|it| [(it, usize::MAX), (it, 1)]) {
            let played = catch_unwind(|| {
                let mut house = House::new();
                let lines = scene.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
                lines.for_each(|line| house.play(line, piece));
            });
            if played.is_err() {
                let title = scene.lines().next().unwrap_or_default();
                failed.push(format!("{name}, {piece} bytes at a time: {title}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
