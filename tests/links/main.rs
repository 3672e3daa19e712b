//! Both ends of a link as values: what each says to the other, byte by byte, and what harm does.

mod afar;

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use pillarbox::broker::selector::Selector;
use pillarbox::broker::{
    BindingOf, Bookmark, Browse, Browsed, Cause, ChannelId, Command, ConnectionId, Consume,
    ConsumerId, Delivery, Destination, Event, Extend, Found, HolderView, MailboxId, Message,
    MovedBinding, NEUTRAL, Outcome, PeerEvent, Peering, Properties, QosScope, Refusal, Reply,
    Request, Rest, Run, SeekCursor, Selection, Seq, Settle, Source, State, States, Table, TakeOver,
    Ticket, Time, Value,
};
use pillarbox::peers::{
    Guest, Host, HostId, Known, Link, LinkSettings, Meeting, Membership, PeerAddress, Registry,
    Sighting, Source as Said,
};
use pillarbox::sessions::{Outbox, Session};
use pillarbox_native::{
    ForwardBatch, ForwardedRef, Kind, PROOF_SIZE, Refused, encode_preface, encode_proof,
    next_frame, write_empty,
};
use rstest::rstest;

const NOW: Time = Time(1_700_000_000_000);
const HEARTBEAT_MS: u64 = 10_000;
const SECRET: &str = "sixteen bytes at least";

/// The list of hosts of one host.
struct Hosts(Mutex<Membership>);

impl Registry for Hosts {
    fn meet(&self, host: &Host, via: Option<&PeerAddress>) -> Meeting {
        self.0.lock().expect("no panic").meet(host, via, NOW)
    }

    fn reached(&self) -> Vec<Sighting> {
        let hosts = self.0.lock().expect("no panic");
        let sighting = |it: &Known| {
            let address = "c.example:8476".parse().expect("an address");
            Sighting { address, host: Some((it.host.id, it.host.incarnation)) }
        };
        hosts.hosts().filter(|it| it.linked).map(sighting).collect()
    }

    fn told(&self, by: HostId, hosts: Vec<Sighting>) {
        assert_eq!(by, HostId(1));
        self.0.lock().expect("no panic").see(Said::Gossip, hosts, NOW);
    }

    fn linked(&self, id: HostId) {
        self.0.lock().expect("no panic").linked(id, NOW);
    }

    fn unlinked(&self, id: HostId) {
        self.0.lock().expect("no panic").unlinked(id, NOW);
    }
}

fn host(number: u128) -> Host {
    let name = ["a", "b", "c"][number as usize - 1];
    Host {
        id: HostId(number),
        name: name.into(),
        incarnation: 1,
        run: 1,
        tags: vec!["gpu".into()],
        address: None,
    }
}

fn settings(me: Host, secret: &str) -> Arc<LinkSettings> {
    Arc::new(LinkSettings {
        me,
        secret: secret.into(),
        heartbeat_ms: HEARTBEAT_MS,
        message_size_max: 1 << 20,
        frame_size_max: 2 << 20,
    })
}

fn hosts(me: Host) -> Arc<Hosts> {
    Arc::new(Hosts(Mutex::new(Membership::new(me, Vec::new(), 1000, NOW))))
}

/// A link and the guest at its other end.
struct Talk {
    link: Link,
    guest: Guest,
    at_link: Arc<Hosts>,
    at_guest: Arc<Hosts>,
    to_guest: BytesMut,
    to_link: BytesMut,
    asked_by_link: Vec<Command>,
    asked_by_guest: Vec<Command>,
    remarks: Vec<String>,
    link_closed: bool,
    guest_closed: bool,
    /// Bytes that pass at once.
    chunk: usize,
    now: Time,
}

impl Talk {
    fn between(dialler: Host, other: Host, expected: Option<u128>, secrets: [&str; 2]) -> Self {
        let (at_link, at_guest) = (hosts(dialler.clone()), hosts(other.clone()));
        let via: PeerAddress = "b.example:8476".parse().expect("an address");
        let expected = expected.map(HostId);
        let registry = at_link.clone();
        let link =
            Link::new(settings(dialler, secrets[0]), registry, via, expected, [1; PROOF_SIZE]);
        let guest = Guest::new(
            settings(other, secrets[1]),
            at_guest.clone(),
            "peer".into(),
            [2; PROOF_SIZE],
        );
        Self {
            link,
            guest,
            at_link,
            at_guest,
            to_guest: BytesMut::new(),
            to_link: BytesMut::new(),
            asked_by_link: Vec::new(),
            asked_by_guest: Vec::new(),
            remarks: Vec::new(),
            link_closed: false,
            guest_closed: false,
            chunk: usize::MAX,
            now: NOW,
        }
    }

    fn new() -> Self {
        Self::between(host(1), host(2), Some(2), [SECRET; 2])
    }

    fn open() -> Self {
        let mut talk = Self::new();
        talk.begin();
        talk
    }

    fn begin(&mut self) {
        self.tick();
        self.run();
        self.tell_guest(Event::Peer(PeerEvent::Greeted { known: 0 }));
        self.run();
        assert!(!self.link_closed && !self.guest_closed, "{:?}", self.remarks);
        self.asked_by_guest.clear();
        self.asked_by_link.clear();
    }

    fn heard_from_link(&mut self, mut out: Outbox) {
        self.to_guest.extend_from_slice(&out.wire);
        self.asked_by_link.append(&mut out.commands);
        self.remarks.append(&mut out.remarks);
        self.link_closed |= out.close;
    }

    fn heard_from_guest(&mut self, mut out: Outbox) {
        self.to_link.extend_from_slice(&out.wire);
        self.asked_by_guest.append(&mut out.commands);
        self.remarks.append(&mut out.remarks);
        self.guest_closed |= out.close;
    }

    /// Carries bytes until both are silent.
    fn run(&mut self) {
        let mut input = [BytesMut::new(), BytesMut::new()];
        while !self.to_guest.is_empty() || !self.to_link.is_empty() {
            let count = self.chunk.min(self.to_guest.len());
            input[0].extend_from_slice(&self.to_guest.split_to(count));
            let mut out = Outbox::default();
            self.guest.receive(&mut input[0], self.now, &mut out);
            self.guest.flush(&mut out);
            self.heard_from_guest(out);
            let count = self.chunk.min(self.to_link.len());
            input[1].extend_from_slice(&self.to_link.split_to(count));
            let mut out = Outbox::default();
            self.link.receive(&mut input[1], self.now, &mut out);
            self.link.flush(&mut out);
            self.heard_from_link(out);
        }
    }

    fn tick(&mut self) {
        let mut out = Outbox::default();
        self.link.tick(self.now, &mut out);
        self.heard_from_link(out);
        let mut out = Outbox::default();
        self.guest.tick(self.now, &mut out);
        self.heard_from_guest(out);
    }

    fn tell_link(&mut self, events: Vec<Event>) {
        let mut out = Outbox::default();
        for event in events {
            self.link.notify(event, self.now, &mut out);
        }
        self.link.flush(&mut out);
        self.heard_from_link(out);
    }

    fn tell_guest(&mut self, event: Event) {
        let mut out = Outbox::default();
        self.guest.notify(event, self.now, &mut out);
        self.guest.flush(&mut out);
        self.heard_from_guest(out);
    }

    /// What a stranger sends to the guest.
    fn say_to_guest(&mut self, bytes: &[u8]) {
        self.to_guest.extend_from_slice(bytes);
        let mut input = self.to_guest.split();
        let mut out = Outbox::default();
        self.guest.receive(&mut input, self.now, &mut out);
        self.heard_from_guest(out);
    }

    /// The other host takes only small messages.
    fn with_small_guest() -> Self {
        let mut talk = Self::new();
        let settings = LinkSettings {
            me: host(2),
            secret: SECRET.into(),
            heartbeat_ms: HEARTBEAT_MS,
            message_size_max: 100,
            frame_size_max: 400,
        };
        let registry = talk.at_guest.clone();
        talk.guest = Guest::new(Arc::new(settings), registry, "peer".into(), [2; PROOF_SIZE]);
        talk.begin();
        talk
    }

    /// What the link asked the core to take out of outboxes.
    fn refused(&mut self) -> Vec<(u64, u64, String)> {
        let asked = self.asked_by_link.drain(..);
        let refused = asked.filter_map(|command| match command {
            Command::Peer(peering) => match *peering {
                Peering::Refuse { outbox, seq, reason } => Some((outbox.0, seq.0, reason)),
                _ => None,
            },
            _ => None,
        });
        refused.collect()
    }

    /// The last word to the link.
    fn goodbye(&self) -> Option<String> {
        let mut rest = &self.to_link[..];
        if rest.starts_with(b"PBOX") {
            rest = &rest[8..];
        }
        while let Ok(Some(frame)) = next_frame(rest, u32::MAX) {
            if frame.kind == Kind::Goodbye {
                return Some(Refused::decode(frame.payload).expect("words").text.into());
            }
            rest = &rest[frame.wire_len()..];
        }
        None
    }
}

fn delivery(outbox: u64, seq: u64, body: &str) -> Delivery {
    let properties = Properties { priority: Some(3), ..Properties::default() };
    let message = Message::build(&Source {
        exchange: &"news".into(),
        key: b"a.b",
        properties: &properties,
        body: body.as_bytes(),
        form: &NEUTRAL,
        persistent: true,
        accepted: NOW,
    });
    Delivery {
        channel: ChannelId(0),
        consumer: ConsumerId(1),
        mailbox: MailboxId(outbox),
        seq: Seq(seq),
        message: Arc::new(message),
        redelivered: false,
        attempts: None,
        acquired: 0,
        offset: None,
        settled: false,
    }
}

fn carries(outbox: u64, vhost: &str) -> Event {
    Event::Peer(PeerEvent::Carries { outbox: MailboxId(outbox), vhost: vhost.into() })
}

#[rstest]
#[case::at_once(usize::MAX)]
#[case::byte_by_byte(1)]
#[case::in_sevens(7)]
fn two_hosts_with_one_secret_are_linked(#[case] chunk: usize) {
    let mut talk = Talk::new();
    talk.chunk = chunk;
    talk.tick();
    talk.run();
    let greeting = format!("{:?}", talk.asked_by_guest);
    assert_eq!(greeting, r#"[Peer(Greet { host: "a", run: 1, tags: ["gpu"] })]"#);
    assert!(talk.asked_by_link.is_empty(), "nothing is said before the welcome");
    talk.tell_guest(Event::Peer(PeerEvent::Greeted { known: 5 }));
    talk.run();
    let asked = format!("{:?}", talk.asked_by_link);
    assert_eq!(
        asked,
        r#"[Peer(Carry { host: "b", tags: ["gpu"] }), Peer(Advertise { after: 5, base: 0 })]"#
    );
    assert!(talk.at_link.0.lock().expect("no panic").get(HostId(2)).expect("met").linked);
    drop(talk.link);
    assert!(!talk.at_link.0.lock().expect("no panic").get(HostId(2)).expect("met").linked);
}

#[rstest]
#[case::other(SECRET, "another secret of some length")]
#[case::none(SECRET, "")]
#[case::none_here("", SECRET)]
fn hosts_with_other_secrets_stay_apart(#[case] dialler: &str, #[case] other: &str) {
    let mut talk = Talk::between(host(1), host(2), Some(2), [dialler, other]);
    talk.tick();
    talk.run();
    assert!(talk.guest_closed && talk.link_closed);
    assert!(talk.asked_by_guest.is_empty());
    assert!(talk.remarks.iter().any(|it| it.contains("the secrets of both hosts differ")));
    assert_eq!(talk.at_link.0.lock().expect("no panic").hosts().count(), 0);
}

#[test]
fn a_host_that_does_not_know_the_secret_cannot_welcome() {
    let mut talk = Talk::new();
    talk.tick();
    talk.run();
    // Somebody in between answers in the other's place.
    let mut out = BytesMut::new();
    let welcome = pillarbox_native::Welcome { proof: [0; PROOF_SIZE], known: 0, frame_size_max: 9 };
    welcome.encode(&mut out);
    talk.to_link = out;
    talk.run();
    assert!(talk.link_closed);
    assert!(talk.remarks.iter().any(|it| it.contains("it does not know the secret")));
}

#[test]
fn a_proof_is_of_one_conversation() {
    let mut first = Talk::new();
    first.tick();
    let preface_and_hello = first.to_guest.clone();
    first.run();
    let mut second = Talk::new();
    second.guest =
        Guest::new(settings(host(2), SECRET), hosts(host(2)), "peer".into(), [9; PROOF_SIZE]);
    second.say_to_guest(&preface_and_hello);
    // What the first conversation proved.
    let mut eavesdropped = Talk::new();
    eavesdropped.tick();
    let mut input = eavesdropped.to_guest.split();
    let mut out = Outbox::default();
    eavesdropped.guest.receive(&mut input, NOW, &mut out);
    eavesdropped.heard_from_guest(out);
    let mut input = eavesdropped.to_link.split();
    let mut out = Outbox::default();
    eavesdropped.link.receive(&mut input, NOW, &mut out);
    second.say_to_guest(&out.wire);
    assert_eq!(second.goodbye().as_deref(), Some("the secrets of both hosts differ"));
}

#[test]
fn a_probe_finds_out_who_is_there_and_leaves() {
    for expected in [None, Some(3)] {
        let mut talk = Talk::between(host(1), host(2), expected, [SECRET; 2]);
        talk.tick();
        talk.run();
        assert!(talk.link_closed && talk.guest_closed);
        assert!(talk.asked_by_guest.is_empty(), "no link that stands is replaced");
        let known = talk.at_link.0.lock().expect("no panic");
        assert_eq!(known.get(HostId(2)).expect("met").host.name, *"b");
    }
}

#[test]
fn a_host_that_claims_another_ones_id_is_refused() {
    let mut talk = Talk::between(Host { run: 2, ..host(2) }, host(2), Some(2), [SECRET; 2]);
    talk.tick();
    talk.run();
    assert!(talk.guest_closed && talk.asked_by_guest.is_empty());
    assert!(talk.remarks.iter().any(|it| it.contains("another host has the same id")));
}

#[test]
fn messages_go_over_and_are_settled_once_they_are_taken() {
    let mut talk = Talk::open();
    let deliveries = vec![delivery(7, 5, "one"), delivery(7, 6, "two"), delivery(7, 9, "three")];
    talk.tell_link(vec![
        carries(7, "/"),
        carries(8, "v"),
        Event::DeliveredBatch(deliveries),
        Event::Delivered(delivery(8, 1, "four")),
    ]);
    talk.run();
    let mut arrived = Vec::new();
    for command in talk.asked_by_guest.drain(..) {
        let Command::Peer(peering) = command else { panic!("{command:?}") };
        let Peering::Arrive(it) = *peering else { panic!("{peering:?}") };
        for (seq, message) in it.messages {
            assert_eq!(message.properties().priority, Some(3));
            assert_eq!((&**message.exchange(), message.key()), ("news", &b"a.b"[..]));
            let body = String::from_utf8_lossy(message.body()).into_owned();
            arrived.push((it.vhost.to_string(), it.outbox.0, seq.0, body));
        }
    }
    let expected =
        [("/", 7, 5, "one"), ("/", 7, 6, "two"), ("/", 7, 9, "three"), ("v", 8, 1, "four")];
    let expected =
        expected.map(|(vhost, outbox, seq, body)| (vhost.into(), outbox, seq, body.into()));
    assert_eq!(arrived, expected);
    for (upto, settled) in [(5, vec![(5, 1)]), (8, vec![(6, 1)]), (8, vec![]), (9, vec![(9, 1)])] {
        talk.tell_guest(Event::Peer(PeerEvent::Arrived { outbox: MailboxId(7), upto: Seq(upto) }));
        talk.run();
        let runs: Vec<_> = talk
            .asked_by_link
            .drain(..)
            .flat_map(|command| match command {
                Command::Settle(settle) => settle.deliveries.to_vec(),
                other => panic!("{other:?}"),
            })
            .map(|run| (run.first.0, run.count))
            .collect();
        assert_eq!(runs, settled, "up to {upto}");
    }
}

#[test]
fn a_message_that_is_too_large_is_taken_out_and_those_around_it_go_on() {
    let mut talk = Talk::with_small_guest();
    let (fits, large, huge) = ("m".repeat(60), "m".repeat(150), "m".repeat(1000));
    let bodies = [&fits, &huge, &fits, &large, &fits, &fits, &fits, &fits, &huge];
    let deliveries = (1..).zip(bodies).map(|(seq, body)| delivery(7, seq, body)).collect();
    talk.tell_link(vec![carries(7, "/"), Event::DeliveredBatch(deliveries)]);
    talk.run();
    assert!(!talk.link_closed && !talk.guest_closed, "{:?}", talk.remarks);
    let why = "the message is larger than its home takes".to_owned();
    assert_eq!(talk.refused(), [(7, 2, why.clone()), (7, 9, why.clone()), (7, 4, why)]);
    let arrived: Vec<u64> = talk
        .asked_by_guest
        .drain(..)
        .flat_map(|command| match command {
            Command::Peer(peering) => match *peering {
                Peering::Arrive(it) => it.messages,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .map(|(seq, _)| seq.0)
        .collect();
    assert_eq!(arrived, [1, 3, 5, 6, 7, 8]);
    assert!(talk.remarks.iter().any(|it| it.contains("host b does not take message 4")));
    // What was declined is not settled as taken.
    talk.tell_guest(Event::Peer(PeerEvent::Arrived { outbox: MailboxId(7), upto: Seq(8) }));
    talk.run();
    let [Command::Settle(settle)] = &talk.asked_by_link[..] else {
        panic!("{:?}", talk.asked_by_link)
    };
    let settled: Vec<u64> = settle
        .deliveries
        .iter()
        .flat_map(|it| it.first.0..it.first.0 + u64::from(it.count))
        .collect();
    assert_eq!(settled, [1, 3, 5, 6, 7, 8]);
}

#[test]
fn routes_are_told_a_slice_at_a_time() {
    let mut talk = Talk::open();
    let adverts = |version| {
        let (changes, begins, ends, base) = (Vec::new(), version == 3, version == 7, 7);
        Event::Peer(PeerEvent::Adverts { changes, begins, ends, version, base })
    };
    talk.tell_link(vec![adverts(3)]);
    talk.run();
    let learned = format!("{:?}", talk.asked_by_guest.drain(..).collect::<Vec<_>>());
    assert_eq!(
        learned,
        "[Peer(Learn(Learn { changes: [], begins: true, ends: false, version: 3 }))]"
    );
    assert!(talk.asked_by_link.is_empty(), "the next slice waits for the answer");
    talk.tell_guest(Event::Peer(PeerEvent::Learned { version: 3 }));
    talk.run();
    let asked = format!("{:?}", talk.asked_by_link);
    assert_eq!(asked, "[Peer(Advertise { after: 3, base: 7 })]");
}

#[test]
fn a_host_tells_whom_it_reaches_once() {
    let mut talk = Talk::open();
    let beat = |talk: &mut Talk| {
        talk.now = talk.now.plus_ms(HEARTBEAT_MS / 2);
        talk.tick();
        let said = talk.to_guest.len();
        talk.run();
        said
    };
    let quiet = beat(&mut talk);
    // Nothing of the host that is told.
    assert_eq!(talk.at_guest.0.lock().expect("no panic").dials().len(), 0);
    talk.at_link.meet(&host(3), None);
    talk.at_link.linked(HostId(3));
    assert!(beat(&mut talk) > quiet);
    let dials = talk.at_guest.0.lock().expect("no panic").dials();
    let addresses: Vec<_> =
        dials.iter().flat_map(|it| &it.addresses).map(|it| it.as_str()).collect();
    assert_eq!(addresses, ["c.example:8476"]);
    assert_eq!(beat(&mut talk), quiet);
}

#[test]
fn an_address_that_is_none_ends_the_link() {
    let mut talk = Talk::open();
    let mut out = BytesMut::new();
    let host = pillarbox_native::HostRef { id: 3, incarnation: 1, address: "not an address" };
    pillarbox_native::encode_hosts([host].into_iter(), &mut out);
    talk.say_to_guest(&out);
    assert_eq!(talk.goodbye().as_deref(), Some("an address cannot be read"));
}

#[test]
fn signs_of_life_are_given_and_missed() {
    let mut talk = Talk::open();
    for _ in 0..10 {
        talk.now = talk.now.plus_ms(HEARTBEAT_MS / 2);
        talk.tick();
        assert!(!talk.to_guest.is_empty() && !talk.to_link.is_empty());
        talk.run();
        assert!(!talk.link_closed && !talk.guest_closed);
    }
    // The wire is cut.
    for _ in 0..4 {
        talk.now = talk.now.plus_ms(HEARTBEAT_MS / 2);
        talk.tick();
        talk.to_guest.clear();
    }
    assert!(talk.link_closed && talk.guest_closed, "{:?}", talk.remarks);
    let remark = format!("{:?}", talk.asked_by_link);
    assert!(remark.contains(r#"Remark { host: "b", error: "nothing was heard for too long" }"#));
}

#[test]
fn a_host_that_is_short_of_room_reads_nothing_and_misses_nothing() {
    let mut talk = Talk::open();
    let mut out = Outbox::default();
    talk.guest.notify(Event::Blocked(Some("low on disk")), talk.now, &mut out);
    assert_eq!(out.pause_reading, Some(true));
    for _ in 0..8 {
        talk.now = talk.now.plus_ms(HEARTBEAT_MS / 2);
        talk.tick();
        talk.to_guest.clear();
        // Its own signs of life go on.
        assert!(!talk.to_link.is_empty());
        talk.run();
    }
    assert!(!talk.guest_closed && !talk.link_closed);
    let mut out = Outbox::default();
    talk.guest.notify(Event::Blocked(None), talk.now, &mut out);
    assert_eq!(out.pause_reading, Some(false));
}

#[test]
fn who_does_not_greet_in_time_is_sent_away() {
    let mut talk = Talk::new();
    let mut out = Outbox::default();
    talk.guest.tick(talk.now, &mut out);
    let due = talk.guest.next_deadline().expect("it waits");
    assert!(due <= talk.now.plus_ms(10_000));
    talk.guest.tick(due, &mut out);
    assert!(out.close);
}

fn preface() -> BytesMut {
    let mut out = BytesMut::new();
    encode_preface(&mut out);
    out
}

fn framed(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = preface();
    write(&mut out);
    out
}

#[rstest]
#[case::another_protocol(b"GET / HTTP/1.1\r\n\r\n".to_vec())]
#[case::another_version(b"PBOX\x02\x03\0\0".to_vec())]
#[case::a_client(framed(|out| write_empty(Kind::Login, 1, out)).to_vec())]
#[case::proof_first(framed(|out| encode_proof(0, &[0; PROOF_SIZE], out)).to_vec())]
#[case::forward_first(framed(|out| ForwardBatch::begin("/", 1, out).end(out)).to_vec())]
#[case::oversized([&preface()[..], &[255, 255, 255, 255]].concat())]
#[case::tiny([&preface()[..], &[0, 0, 0, 0]].concat())]
#[case::unknown_kind([&preface()[..], &[6, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0]].concat())]
#[case::short_hello(framed(|out| write_empty(Kind::PeerHello, 0, out)).to_vec())]
fn strangers_are_sent_away(#[case] bytes: Vec<u8>) {
    let mut talk = Talk::new();
    talk.say_to_guest(&bytes);
    assert!(talk.guest_closed);
    assert!(talk.asked_by_guest.is_empty());
    // Whatever comes after the last word is not looked at.
    talk.say_to_guest(&[0xff; 100]);
}

#[rstest]
#[case::out_of_order(&[5, 5], "messages come out of order")]
#[case::backwards(&[5, 4], "messages come out of order")]
#[case::position_zero(&[0], "messages come out of order")]
fn messages_out_of_order_end_the_link(#[case] positions: &[u64], #[case] reason: &str) {
    let mut talk = Talk::open();
    let mut out = BytesMut::new();
    let mut batch = ForwardBatch::begin("/", 7, &mut out);
    for seq in positions {
        batch.add(&forwarded(*seq, &[]), &mut out);
    }
    batch.end(&mut out);
    talk.say_to_guest(&out);
    assert_eq!(talk.goodbye().as_deref(), Some(reason));
    assert!(talk.asked_by_guest.is_empty());
}

fn forwarded(seq: u64, properties: &[u8]) -> ForwardedRef<'_> {
    ForwardedRef {
        seq,
        persistent: true,
        again: false,
        exchange: "",
        key: b"work",
        id: 1,
        accepted_ms: 1,
        properties,
        body: b"m",
    }
}

#[test]
fn a_message_with_damaged_properties_is_declined() {
    let mut talk = Talk::open();
    talk.tell_link(vec![carries(7, "/"), Event::Delivered(delivery(7, 1, "m"))]);
    talk.to_guest.clear();
    let mut out = BytesMut::new();
    let mut batch = ForwardBatch::begin("/", 7, &mut out);
    batch.add(&forwarded(1, &[0xff, 0xff, 1]), &mut out);
    batch.end(&mut out);
    talk.say_to_guest(&out);
    assert!(talk.asked_by_guest.is_empty() && !talk.guest_closed);
    talk.run();
    assert_eq!(talk.refused(), [(7, 1, "properties cannot be read".into())]);
}

#[rstest]
#[case::a_second_hello(Kind::PeerHello)]
#[case::a_second_proof(Kind::Proof)]
#[case::a_client_word(Kind::Push)]
#[case::the_other_sides_word(Kind::Taken)]
fn words_out_of_turn_end_an_open_link(#[case] kind: Kind) {
    let mut talk = Talk::open();
    let mut out = BytesMut::new();
    write_empty(kind, 0, &mut out);
    talk.say_to_guest(&out);
    assert_eq!(talk.goodbye(), Some(format!("{kind:?} came out of turn")));
    let mut talk = Talk::open();
    let mut input = BytesMut::new();
    let wrong = if kind == Kind::Taken { Kind::Forward } else { kind };
    write_empty(wrong, 0, &mut input);
    let mut out = Outbox::default();
    talk.link.receive(&mut input, NOW, &mut out);
    assert!(out.close);
}
