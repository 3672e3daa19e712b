//! A broker in memory, and clients that speak with it in frames.

use bytes::BytesMut;
use pillarbox::broker::{Broker, ConnectionId, Effect, Recovered, Settings, Time};
use pillarbox::sessions::native::{self, NativeSession};
use pillarbox::sessions::{Facts, Outbox, Session};
use pillarbox_native::{
    Code, Deliveries, Kind, Login, NewMessage, Outcome, Pull, PushBatch, Refused, Run, Settle,
    Subscribe, decode_pushed, encode_preface, next_frame,
};

pub(crate) struct House {
    broker: Broker,
    clients: Vec<Client>,
    pub(crate) now: Time,
}

struct Client {
    session: NativeSession,
    out: Outbox,
    heard: Vec<Frame>,
    closed: bool,
    /// What the session left unread.
    rest: BytesMut,
}

/// A frame as the client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) id: u32,
    pub(crate) payload: Vec<u8>,
}

/// A delivery as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) mailbox: u64,
    pub(crate) seq: u64,
    pub(crate) redelivered: bool,
    pub(crate) body: String,
}

impl House {
    pub(crate) fn new() -> Self {
        let now = Time(1_000_000);
        let broker = Broker::open(Recovered::default(), Settings::default(), now, &mut Vec::new());
        Self { broker, clients: Vec::new(), now }
    }

    /// A connection that has said nothing.
    pub(crate) fn connect(&mut self, settings: native::Settings, loopback: bool) -> usize {
        self.enter(settings, loopback, None)
    }

    /// One that came with a certificate, which names this user.
    pub(crate) fn connect_certified(&mut self, user: Option<&str>) -> usize {
        self.enter(native::Settings::default(), true, user.map(str::to_owned))
    }

    fn enter(
        &mut self,
        settings: native::Settings,
        loopback: bool,
        certificate_user: Option<String>,
    ) -> usize {
        let facts = Facts {
            peer: "127.0.0.1:1".into(),
            local: "127.0.0.1:8475".into(),
            loopback,
            tls: false,
            certificate_user,
            seed: self.clients.len() as u64,
        };
        let session = NativeSession::new(facts, settings);
        self.clients.push(Client {
            session,
            out: Outbox::default(),
            heard: Vec::new(),
            closed: false,
            rest: BytesMut::new(),
        });
        self.clients.len() - 1
    }

    /// A connection that has logged in.
    pub(crate) fn client(&mut self) -> usize {
        let client = self.connect(native::Settings::default(), true);
        self.say(client, |out| {
            encode_preface(out);
            login("guest", "guest").encode(1, out);
        });
        let answers = self.heard_raw(client);
        assert_eq!(answers[answers.len() - 1].kind, Kind::Done, "{answers:?}");
        client
    }

    pub(crate) fn say(&mut self, client: usize, write: impl FnOnce(&mut BytesMut)) {
        let mut input = BytesMut::new();
        write(&mut input);
        self.say_bytes(client, input);
    }

    pub(crate) fn say_bytes(&mut self, client: usize, mut input: BytesMut) {
        let party = &mut self.clients[client];
        party.session.receive(&mut input, self.now, &mut party.out);
        self.settle_down(client, &mut input);
        self.clients[client].rest = input;
    }

    /// What the session left of what was said last.
    pub(crate) fn rest(&mut self, client: usize) -> BytesMut {
        std::mem::take(&mut self.clients[client].rest)
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let mut effects = Vec::new();
        self.broker.tick(self.now, &mut effects);
        self.perform(effects);
        for client in 0..self.clients.len() {
            let party = &mut self.clients[client];
            if party.session.next_deadline().is_some_and(|it| it <= self.now) {
                party.session.tick(self.now, &mut party.out);
            }
            self.settle_down(client, &mut BytesMut::new());
        }
    }

    /// The client goes without a word.
    pub(crate) fn lose(&mut self, client: usize) {
        let party = &mut self.clients[client];
        party.session.lost(&mut party.out);
        let mut commands = std::mem::take(&mut party.out.commands);
        commands.push(pillarbox::broker::Command::Close(None));
        for command in commands {
            let mut effects = Vec::new();
            self.broker.apply(connection(client), command, self.now, &mut effects);
            self.perform(effects);
        }
    }

    /// The server ends the connection.
    pub(crate) fn send_away(&mut self, client: usize, why: &str) {
        let party = &mut self.clients[client];
        let event = pillarbox::broker::Event::ForceClose(why.into());
        party.session.notify(event, self.now, &mut party.out);
        self.settle_down(client, &mut BytesMut::new());
    }

    /// Carries commands and events until nobody has anything to say.
    fn settle_down(&mut self, client: usize, input: &mut BytesMut) {
        loop {
            let party = &mut self.clients[client];
            if let Some(verify) = party.out.verify.take() {
                let accepted = verify.credential.is_some() && verify.password == b"guest";
                party.session.verified(accepted, self.now, &mut party.out);
            }
            let mut moved = false;
            for other in 0..self.clients.len() {
                let party = &mut self.clients[other];
                party.session.flush(&mut party.out);
                let commands = std::mem::take(&mut party.out.commands);
                moved |= !commands.is_empty();
                let mut effects = Vec::new();
                for command in commands {
                    self.broker.apply(connection(other), command, self.now, &mut effects);
                }
                self.perform(effects);
            }
            let party = &mut self.clients[client];
            if !input.is_empty() && !party.out.close {
                let before = input.len();
                party.session.receive(input, self.now, &mut party.out);
                moved |= input.len() != before;
            }
            if !moved && party.out.commands.is_empty() && party.out.verify.is_none() {
                break;
            }
        }
        self.listen();
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Notify(to, event) => now.push((to, event)),
                Effect::NotifyDurable(to, event) => later.push((to, event)),
                Effect::Write(_) | Effect::Fetch(_) => {}
            }
        }
        let epoch = self.broker.seal();
        let mut more = Vec::new();
        self.broker.durable(epoch, self.now, &mut more);
        for (to, event) in now.into_iter().chain(later) {
            if let Some(party) = self.clients.get_mut(to.0 as usize - 1) {
                party.session.notify(event, self.now, &mut party.out);
            }
        }
        if !more.is_empty() {
            self.perform(more);
        }
    }

    /// What was written is read by the clients; what they took is told to the broker.
    fn listen(&mut self) {
        for at in 0..self.clients.len() {
            let party = &mut self.clients[at];
            party.session.flush(&mut party.out);
            let wire = party.out.wire.split();
            let mut rest = &wire[..];
            if rest.starts_with(b"PBOX") {
                rest = &rest[8..];
            }
            while let Some(frame) = next_frame(rest, u32::MAX).unwrap() {
                rest = &rest[frame.wire_len()..];
                let (kind, flags, id) = (frame.kind, frame.flags, frame.id);
                let payload = frame.payload.to_vec();
                party.heard.push(Frame { kind, flags, id, payload });
            }
            assert!(rest.is_empty(), "half a frame was written");
            party.closed |= party.out.close;
            let deliveries = std::mem::take(&mut party.out.deliveries);
            let bytes = std::mem::take(&mut party.out.delivery_bytes);
            let drained = pillarbox::broker::Command::Drained { deliveries, bytes };
            let mut effects = Vec::new();
            self.broker.apply(connection(at), drained, self.now, &mut effects);
            if !effects.is_empty() {
                self.perform(effects);
            }
        }
    }

    pub(crate) fn heard_raw(&mut self, client: usize) -> Vec<Frame> {
        std::mem::take(&mut self.clients[client].heard)
    }

    pub(crate) fn is_closed(&self, client: usize) -> bool {
        self.clients[client].closed
    }

    /// What the client heard, as lines.
    pub(crate) fn heard(&mut self, client: usize) -> Vec<String> {
        self.heard_raw(client).iter().map(Frame::line).collect()
    }

    // What clients often say.

    pub(crate) fn declare(&mut self, client: usize, name: &str) {
        let declare = pillarbox_native::DeclareMailbox {
            name,
            durable: true,
            ..pillarbox_native::DeclareMailbox::default()
        };
        self.say(client, |out| declare.encode(2, out));
        assert_eq!(self.heard_raw(client)[0].kind, Kind::Done);
    }

    pub(crate) fn push(&mut self, client: usize, id: u32, mailbox: &str, bodies: &[&str]) {
        self.say(client, |out| push(id, 0, "", mailbox, bodies, out));
    }

    pub(crate) fn pull(&mut self, client: usize, id: u32, mailbox: &str, count: u32, wait_ms: u32) {
        self.say(client, |out| Pull { mailbox, count, wait_ms, settled: false }.encode(id, out));
    }

    pub(crate) fn pull_settled(
        &mut self,
        client: usize,
        id: u32,
        mailbox: &str,
        count: u32,
        wait_ms: u32,
    ) {
        self.say(client, |out| Pull { mailbox, count, wait_ms, settled: true }.encode(id, out));
    }

    pub(crate) fn subscribe(&mut self, client: usize, number: u16, mailbox: &str, credit: u32) {
        let subscribe = Subscribe {
            subscription: number,
            mailbox,
            credit,
            priority: 0,
            settled: false,
            exclusive: false,
            ids: false,
            arguments: &[],
        };
        self.say(client, |out| subscribe.encode(900, out));
    }

    pub(crate) fn settle(
        &mut self,
        client: usize,
        id: u32,
        subscription: u16,
        outcome: Outcome,
        got: &Got,
    ) {
        let run = Run { mailbox: got.mailbox, first: got.seq, count: 1 };
        self.say(client, |out| Settle::encode(id, subscription, outcome, &[run], out));
    }

    /// The deliveries a client heard; answers besides are forgotten.
    pub(crate) fn got(&mut self, client: usize) -> Vec<Got> {
        let frames = self.heard_raw(client);
        frames.iter().flat_map(|frame| frame.deliveries()).collect()
    }
}

fn connection(client: usize) -> ConnectionId {
    ConnectionId(client as u64 + 1)
}

pub(crate) fn login<'a>(user: &'a str, password: &'a str) -> Login<'a> {
    Login {
        mechanism: Login::PASSWORD,
        user,
        proof: password.as_bytes(),
        vhost: "/",
        client_name: "test",
        silence_max_s: 0,
        properties: &[],
    }
}

pub(crate) fn push(
    id: u32,
    flags: u8,
    exchange: &str,
    key: &str,
    bodies: &[&str],
    out: &mut BytesMut,
) {
    let mut push = PushBatch::begin(id, flags, exchange, key.as_bytes(), out);
    for body in bodies {
        push.add(NewMessage { body: body.as_bytes(), ..NewMessage::default() }, out);
    }
    push.end(out);
}

impl Frame {
    pub(crate) fn deliveries(&self) -> Vec<Got> {
        if !matches!(self.kind, Kind::Delivered | Kind::Pulled) {
            return Vec::new();
        }
        let found = Deliveries::decode(&self.payload).unwrap();
        let got = |it: pillarbox_native::DeliveryRef<'_>| Got {
            mailbox: found.mailbox,
            seq: it.seq,
            redelivered: it.marks.has(pillarbox_native::DeliveryMarks::REDELIVERED),
            body: String::from_utf8(it.body.to_vec()).unwrap(),
        };
        found.messages().map(|it| got(it.unwrap())).collect()
    }

    pub(crate) fn code(&self) -> Code {
        Refused::decode(&self.payload).unwrap().code
    }

    fn line(&self) -> String {
        let id = self.id;
        match self.kind {
            Kind::Refused | Kind::Goodbye | Kind::Cancelled => {
                format!("{:?} {id} {}", self.kind, self.code())
            }
            Kind::Pushed => {
                let pushed = decode_pushed(&self.payload).unwrap();
                let (taken, refused) = (pushed.taken, pushed.refused);
                let refused: Vec<_> =
                    refused.iter().map(|it| format!(" {}:{}", it.index, it.refused.code)).collect();
                format!("Pushed {id} {taken}{}", refused.concat())
            }
            Kind::Delivered | Kind::Pulled => {
                let bodies: Vec<_> = self
                    .deliveries()
                    .into_iter()
                    .map(|it| format!(" {}{}", it.body, if it.redelivered { "*" } else { "" }))
                    .collect();
                format!("{:?} {id}{}", self.kind, bodies.concat())
            }
            kind => format!("{kind:?} {id}"),
        }
    }
}
