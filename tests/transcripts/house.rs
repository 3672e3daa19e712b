//! Sessions and a broker without sockets and without a store: every write is durable at once.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pillarbox::broker::{
    self, Broker, Command, ConnectionId, Effect, Event, Recovered, SERVER, Time,
};
use pillarbox::sessions::amqp::{AmqpSession, Settings};
use pillarbox::sessions::{Facts, Outbox, Session};

pub(crate) struct House {
    broker: Broker,
    pub(crate) now: Time,
    pub(crate) peers: BTreeMap<u64, Peer>,
    settings: Settings,
    facts: Facts,
}

pub(crate) struct Peer {
    session: AmqpSession,
    input: BytesMut,
    /// What the server wrote and nobody looked at yet.
    pub(crate) wire: Vec<u8>,
    pub(crate) closed: bool,
    /// The session asked to stop reading, or to go on.
    pub(crate) paused: Option<bool>,
}

impl House {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Time(1_000_000_000_000);
        let mut effects = Vec::new();
        let settings_of_broker = broker::Settings::default();
        let broker = Broker::open(Recovered::default(), settings_of_broker, now, &mut effects);
        let facts = Facts {
            peer: "127.0.0.1:50000".into(),
            local: "127.0.0.1:5672".into(),
            loopback: true,
            tls: false,
            certificate_user: None,
            seed: 0,
        };
        Self { broker, now, peers: BTreeMap::new(), settings, facts }
    }

    /// What the next connections are known by.
    pub(crate) fn facts(&mut self) -> &mut Facts {
        &mut self.facts
    }

    pub(crate) fn accept(&mut self, id: u64) {
        let facts = Facts { seed: id, ..self.facts.clone() };
        let session = AmqpSession::new(facts, self.settings.clone());
        let (input, wire) = (BytesMut::new(), Vec::new());
        self.peers.insert(id, Peer { session, input, wire, closed: false, paused: None });
        self.pass(0);
    }

    /// Bytes from the client.
    pub(crate) fn send(&mut self, id: u64, bytes: &[u8]) {
        let now = self.now;
        let peer = self.peers.get_mut(&id).expect("a connected client");
        if peer.closed {
            return;
        }
        peer.input.extend_from_slice(bytes);
        let mut out = Outbox::default();
        peer.session.receive(&mut peer.input, now, &mut out);
        self.carry_out(id, out);
    }

    /// The client's socket is gone.
    pub(crate) fn hang_up(&mut self, id: u64) {
        self.peers.remove(&id);
        self.apply(id, Command::Close(None));
    }

    pub(crate) fn force_close(&mut self, id: u64, reason: &str) {
        self.tell(id, Event::ForceClose(reason.into()));
    }

    pub(crate) fn alarm(&mut self, memory: bool, disk: bool) {
        self.apply(SERVER.0, Command::Alarm { memory, disk });
    }

    /// Time passes, deadline by deadline.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let sessions = self.peers.values().filter(|it| !it.closed);
            let sessions = sessions.filter_map(|it| it.session.next_deadline());
            let next = sessions.chain(self.broker.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
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
        let due: Vec<u64> = self
            .peers
            .iter()
            .filter(|(_, it)| !it.closed)
            .filter(|(_, it)| it.session.next_deadline().is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let mut out = Outbox::default();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.tick(now, &mut out);
            }
            self.carry_out(id, out);
        }
    }

    fn tell(&mut self, id: u64, event: Event) {
        let mut out = Outbox::default();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session.notify(event, self.now, &mut out);
        }
        self.carry_out(id, out);
    }

    fn carry_out(&mut self, id: u64, mut out: Outbox) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.session.flush(&mut out);
        peer.wire.extend_from_slice(&out.wire);
        peer.closed |= out.close;
        peer.paused = out.pause_reading.or(peer.paused);
        for command in out.commands {
            self.apply(id, command);
        }
        if out.deliveries > 0 {
            let (deliveries, bytes) = (out.deliveries, out.delivery_bytes);
            self.apply(id, Command::Drained { deliveries, bytes });
        }
        if out.close {
            self.apply(id, Command::Close(None));
        }
        if let Some(verify) = out.verify {
            // Everybody's password is their name.
            let accepted = verify.credential.is_some() && verify.password == verify.user.as_bytes();
            let mut out = Outbox::default();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.verified(accepted, now, &mut out);
            }
            self.carry_out(id, out);
        }
    }

    pub(crate) fn apply(&mut self, id: u64, command: Command) {
        let mut effects = Vec::new();
        self.broker.apply(ConnectionId(id), command, self.now, &mut effects);
        self.perform(effects);
    }

    /// Deliveries go at once, answers when what they promise is durable: so deliveries come first.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut answers = Vec::new();
        for effect in effects {
            match effect {
                Effect::Notify(to, event) => self.tell(to.0, event),
                Effect::NotifyDurable(to, event) => answers.push((to, event)),
                Effect::Write(_) | Effect::Fetch(_) => {}
            }
        }
        let epoch = self.broker.seal();
        let mut effects = Vec::new();
        self.broker.durable(epoch, self.now, &mut effects);
        for (to, event) in answers {
            self.tell(to.0, event);
        }
        if !effects.is_empty() {
            self.perform(effects);
        }
    }
}
