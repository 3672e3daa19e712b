//! Two clients' sessions, a broker, and a store in memory where every write is durable at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use bytes::BytesMut;
use pillarbox::broker::{
    self, Append, Broker, ChannelId, Command, ConnectionId, Effect, Event, Fetched, FetchedMessage,
    MailboxId, Recovered, Request, SERVER, Seq, Time, Write,
};
use pillarbox::sessions::{Facts, Outbox, Session};

use crate::cuts::Cuts;
use crate::tape::Tape;

/// What a client may leave unread in its buffer: a frame that is not complete.
const HELD_MAX: usize = 256 << 10;
/// Of what one conversation sends: above, it is a test of patience.
const STEPS_MAX: usize = 64;
/// Deadlines met while time passes in one step.
const DEADLINES_MAX: usize = 10_000;

/// Makes clients speak, and judges what they are told.
pub trait Protocol {
    /// Checks what one client hears, from its first byte to the last.
    type Listener: Default;

    fn session(facts: Facts) -> Box<dyn Session>;
    /// What a well-behaved client sends first.
    fn greeting(wire: &mut Vec<u8>);
    /// Something a client says.
    fn utterance(tape: &mut Tape<'_>, wire: &mut Vec<u8>);
    fn listen(listener: &mut Self::Listener, heard: &[u8]);
}

/// Holds the conversation on the tape, whole and cut; panics where they differ or a promise is broken.
pub fn converse<P: Protocol>(bytes: &[u8]) {
    let whole = hold::<P>(bytes, false, false);
    let cut = hold::<P>(bytes, true, false);
    if whole.comparable(&cut) != cut.comparable(&whole) {
        let (whole, cut) = (hold::<P>(bytes, false, true), hold::<P>(bytes, true, true));
        let pairs = whole.text.lines().zip(cut.text.lines());
        let (line, (whole, cut)) = pairs
            .enumerate()
            .find(|(_, (whole, cut))| whole != cut)
            .unwrap_or((0, ("", "one of them goes on")));
        panic!("cutting changes the meaning, line {line}\nwhole: {whole}\ncut:   {cut}");
    }
}

fn hold<P: Protocol>(bytes: &[u8], cut: bool, in_words: bool) -> Trace {
    let mut tape = crate::tape(bytes);
    let flags = tape.octet();
    let mut house = House::<P>::new(flags & 1 != 0, in_words);
    for (id, silent) in [(1, flags & 2 != 0), (2, flags & 4 != 0)] {
        house.accept(id);
        if !silent {
            house.greet(id);
        }
    }
    for _ in 0..STEPS_MAX {
        if tape.is_over() {
            break;
        }
        house.step(&mut tape, cut);
        house.end_step();
    }
    for id in [1, 2] {
        house.hang_up(id);
    }
    house.pass(1000);
    house.trace
}

struct House<P: Protocol> {
    broker: Broker,
    store: BTreeMap<(MailboxId, Seq), Append>,
    now: Time,
    peers: BTreeMap<u64, Peer<P>>,
    next_connection: u64,
    /// Publishes that asked for a confirm and have none yet.
    unconfirmed: BTreeMap<(u64, ChannelId, u64), u32>,
    trace: Trace,
}

struct Peer<P: Protocol> {
    connection: u64,
    session: Box<dyn Session>,
    listener: P::Listener,
    input: BytesMut,
    paused: bool,
    verifying: bool,
    closed: bool,
}

/// Everything that was said, as digests, or in words where somebody wants to read it.
#[derive(Default)]
struct Trace {
    digests: Vec<u64>,
    text: String,
    in_words: bool,
    /// How many digests there were after each step, until one left bytes unread.
    ends: Vec<usize>,
    unread: bool,
}

impl Trace {
    /// What must be the same however the bytes are cut: all until something was said by halves. A session may look at
    /// the half at once or when the rest comes.
    fn comparable(&self, other: &Self) -> &[u64] {
        if !self.unread && !other.unread {
            return &self.digests;
        }
        let steps = self.ends.len().min(other.ends.len());
        &self.digests[..steps.checked_sub(1).map_or(0, |last| self.ends[last])]
    }

    fn note(&mut self, connection: u64, out: &Outbox) {
        struct Digest(DefaultHasher);
        impl std::fmt::Write for Digest {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let wire = out.wire.escape_ascii();
        let mut digest = Digest(DefaultHasher::new());
        digest.0.write_u64(connection);
        digest.0.write(&out.wire);
        let _ = write!(digest, "{:?} {} {:?}", out.commands, out.close, out.pause_reading);
        self.digests.push(digest.0.finish());
        if self.in_words {
            let (commands, close, pause) = (&out.commands, out.close, out.pause_reading);
            let said = format!("{connection}: {wire} {commands:?} close {close} pause {pause:?}");
            let _ = writeln!(self.text, "{}", said.replace('\n', "\\n"));
        }
    }
}

impl<P: Protocol> House<P> {
    fn new(cramped: bool, in_words: bool) -> Self {
        let now = Time(1_000_000_000_000);
        let mut settings = broker::Settings::default();
        if cramped {
            // Nearly everything comes back from the store, a few messages at a time.
            settings.hot_messages = 2;
            settings.hot_bytes = 64;
            settings.memory_max = 128;
            settings.window_deliveries = 2;
            settings.window_bytes = 64;
        }
        let mut effects = Vec::new();
        let broker = Broker::open(Recovered::default(), settings, now, &mut effects);
        let mut house = Self {
            broker,
            store: BTreeMap::new(),
            now,
            peers: BTreeMap::new(),
            next_connection: 1,
            unconfirmed: BTreeMap::new(),
            trace: Trace { in_words, ..Trace::default() },
        };
        house.perform(effects);
        house
    }

    fn step(&mut self, tape: &mut Tape<'_>, cut: bool) {
        let octet = tape.octet();
        let id = 1 + u64::from(octet >> 7);
        match octet & 0x7F {
            0..8 => self.pass(tape.pick(&[1, 10, 100, 999, 5000, 10_000, 60_000, 120_000])),
            8..10 => self.hang_up(id),
            10 => self.tell(id, Event::ForceClose("the operator is bored".into())),
            11 => {
                let (memory, disk) = (tape.flag(), tape.flag());
                self.apply(SERVER.0, Command::Alarm { memory, disk });
            }
            _ => {
                let cuts = Cuts::Seeded(tape.octet());
                let mut wire = Vec::new();
                for _ in 0..1 + tape.octet() % 8 {
                    P::utterance(tape, &mut wire);
                }
                self.send(id, &wire, if cut { cuts } else { Cuts::Whole });
            }
        }
        // Who was sent away comes back.
        if self.peers.get(&id).is_none_or(|peer| peer.closed) && tape.flag() {
            self.hang_up(id);
            self.accept(id);
            self.greet(id);
        }
    }

    fn end_step(&mut self) {
        self.trace.unread |= self.peers.values().any(|peer| !peer.input.is_empty());
        if !self.trace.unread {
            self.trace.ends.push(self.trace.digests.len());
        }
    }

    fn accept(&mut self, id: u64) {
        let connection = self.next_connection;
        self.next_connection += 1;
        let facts = Facts {
            peer: "127.0.0.1:50000".into(),
            local: "127.0.0.1:5672".into(),
            loopback: true,
            tls: false,
            certificate_user: None,
            seed: connection,
        };
        let peer = Peer {
            connection,
            session: P::session(facts),
            listener: P::Listener::default(),
            input: BytesMut::new(),
            paused: false,
            verifying: false,
            closed: false,
        };
        self.peers.insert(id, peer);
        self.pass(0);
    }

    fn greet(&mut self, id: u64) {
        let mut wire = Vec::new();
        P::greeting(&mut wire);
        self.send(id, &wire, Cuts::Whole);
    }

    /// Bytes from a client, all of them before the broker says a word.
    fn send(&mut self, id: u64, bytes: &[u8], cuts: Cuts) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.paused || peer.verifying {
            // They wait in the socket; here they are lost, with the sense of what follows.
            return;
        }
        let mut out = Outbox::default();
        for piece in cuts.pieces(bytes) {
            if peer.closed || out.close {
                break;
            }
            peer.input.extend_from_slice(piece);
            peer.session.receive(&mut peer.input, self.now, &mut out);
        }
        self.carry_out(id, out);
    }

    /// The client's socket is gone.
    fn hang_up(&mut self, id: u64) {
        if let Some(peer) = self.peers.remove(&id) {
            self.apply(peer.connection, Command::Close(None));
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        for deadlines in 0.. {
            assert!(deadlines < DEADLINES_MAX, "time stands still at {:?}", self.now);
            let sessions = self.peers.values().filter(|it| !it.closed);
            let sessions = sessions.filter_map(|it| it.session.next_deadline());
            let next = sessions.chain(self.broker.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.tick();
        }
        self.now = end;
    }

    fn tick(&mut self) {
        let now = self.now;
        let mut effects = Vec::new();
        self.broker.tick(now, &mut effects);
        self.perform(effects);
        for id in [1, 2] {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if !peer.closed && peer.session.next_deadline().is_some_and(|due| due <= now) {
                let mut out = Outbox::default();
                peer.session.tick(now, &mut out);
                self.carry_out(id, out);
            }
        }
    }

    fn tell(&mut self, id: u64, event: Event) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.closed) else { return };
        let mut out = Outbox::default();
        peer.session.notify(event, self.now, &mut out);
        if !peer.input.is_empty() && !peer.verifying && !out.close {
            peer.session.receive(&mut peer.input, self.now, &mut out);
        }
        self.carry_out(id, out);
    }

    fn carry_out(&mut self, id: u64, mut out: Outbox) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.session.flush(&mut out);
        let connection = peer.connection;
        self.trace.note(connection, &out);
        P::listen(&mut peer.listener, &out.wire);
        peer.closed |= out.close;
        peer.paused = out.pause_reading.unwrap_or(peer.paused);
        peer.verifying |= out.verify.is_some();
        assert!(peer.input.len() <= HELD_MAX, "{} bytes are held", peer.input.len());
        for command in out.commands {
            self.apply(connection, command);
        }
        if out.deliveries > 0 {
            let (deliveries, bytes) = (out.deliveries, out.delivery_bytes);
            self.apply(connection, Command::Drained { deliveries, bytes });
        }
        if out.close {
            self.apply(connection, Command::Close(None));
        }
        if let Some(verify) = out.verify {
            // Everybody's password is their name.
            let accepted = verify.credential.is_some() && verify.password == verify.user.as_bytes();
            let Some(peer) = self.peers.get_mut(&id) else { return };
            peer.verifying = false;
            let mut out = Outbox::default();
            peer.session.verified(accepted, self.now, &mut out);
            if !peer.input.is_empty() && !out.close {
                peer.session.receive(&mut peer.input, self.now, &mut out);
            }
            self.carry_out(id, out);
        }
    }

    fn apply(&mut self, connection: u64, command: Command) {
        self.expect_confirms(connection, &command);
        let mut effects = Vec::new();
        self.broker.apply(ConnectionId(connection), command, self.now, &mut effects);
        self.perform(effects);
    }

    fn expect_confirms(&mut self, connection: u64, command: &Command) {
        match command {
            Command::Publish(publish) => {
                if let Some(tag) = publish.confirm {
                    let key = (connection, publish.channel, tag);
                    *self.unconfirmed.entry(key).or_default() += 1;
                }
            }
            Command::PublishBatch(batch) => {
                if let Some(tag) = batch.confirm {
                    *self.unconfirmed.entry((connection, batch.channel, tag)).or_default() += 1;
                }
            }
            Command::Request(_, _, request) => {
                if let Request::Commit(commands) = &**request {
                    for command in commands {
                        self.expect_confirms(connection, command);
                    }
                }
            }
            _ => {}
        }
    }

    fn confirm(&mut self, connection: u64, event: &Event) {
        if let Event::Confirmed { channel, tag, .. } | Event::BatchConfirmed { channel, tag, .. } =
            event
        {
            let left = self.unconfirmed.get_mut(&(connection, *channel, *tag));
            let left = left.filter(|left| **left > 0);
            *left.unwrap_or_else(|| panic!("{event:?} answers no publish, or one twice")) -= 1;
        }
    }

    /// Deliveries go at once, answers when what they promise is durable: so deliveries come first.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut answers = Vec::new();
        let mut fetched = Vec::new();
        for effect in effects {
            match effect {
                Effect::Notify(to, event) => self.answer(to, event),
                Effect::NotifyDurable(to, event) => answers.push((to, event)),
                Effect::Write(write) => self.write(write),
                Effect::Fetch(fetch) => fetched.push(self.read(&fetch)),
            }
        }
        let epoch = self.broker.seal();
        let mut effects = Vec::new();
        self.broker.durable(epoch, self.now, &mut effects);
        for (to, event) in answers {
            self.answer(to, event);
        }
        for fetched in fetched {
            self.apply(SERVER.0, Command::Fetched(fetched));
        }
        if !effects.is_empty() {
            self.perform(effects);
        }
    }

    fn answer(&mut self, to: ConnectionId, event: Event) {
        self.confirm(to.0, &event);
        let id = self.peers.iter().find(|(_, it)| it.connection == to.0).map(|(id, _)| *id);
        if let Some(id) = id {
            self.tell(id, event);
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Append(append) => {
                let key = (append.mailbox, append.seq);
                assert!(self.store.insert(key, append).is_none(), "{key:?} is written twice");
            }
            Write::Remove { mailbox, first, count } => {
                for seq in first.0..first.0 + u64::from(count) {
                    self.store.remove(&(mailbox, Seq(seq)));
                }
            }
            Write::Attempts { mailbox, seq, attempts, deliver_at } => {
                if let Some(append) = self.store.get_mut(&(mailbox, seq)) {
                    append.rest.attempts = attempts;
                    append.rest.deliver_at = deliver_at;
                }
            }
            Write::Drop { mailbox } => self.store.retain(|(of, _), _| *of != mailbox),
            Write::Quarantine { mailbox, seq, reason } => {
                panic!("{mailbox:?} {seq:?} is said to be damaged: {reason}")
            }
            Write::Mark { .. } | Write::Define(_) | Write::Undefine(_) => {}
        }
    }

    fn read(&self, fetch: &broker::Fetch) -> Fetched {
        let mut messages = Vec::new();
        for &(first, count) in &fetch.ranges {
            for seq in (first.0..first.0 + u64::from(count)).map(Seq) {
                let stored = self.store.get(&(fetch.mailbox, seq));
                let stored =
                    stored.unwrap_or_else(|| panic!("{:?} {seq:?} is not stored", fetch.mailbox));
                let message = Ok(stored.message.clone());
                messages.push(FetchedMessage { seq, rest: stored.rest, message });
            }
        }
        Fetched { mailbox: fetch.mailbox, lane: fetch.lane, messages }
    }
}
