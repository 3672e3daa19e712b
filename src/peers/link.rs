//! The dialling end of a link: takes what waits for the other host there, and tells it what lives here.
//!
//! To the core it is a connection that consumes outboxes. What the other host has taken durably is settled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use pillarbox_native::{
    Code, Declined, ForwardBatch, Frame, FrameError, HostRef, Kind, PREFACE_SIZE, PROBE,
    PROOF_SIZE, PeerHello, Preface, Refused, Taken, VERSION, Welcome, decode_learned, encode_hosts,
    encode_preface, encode_proof, next_frame, read_answer, write_empty,
};

use super::handshake::{self, LinkSettings, Linked, Pulse, Registry, Side};
use super::message::forwarded;
use super::told::Told;
use super::{Host, HostId, PeerAddress, Sighting, routes, wish};
use crate::broker::{
    ASK_SIZE, ChannelId, Command, Delivery, Event, MailboxId, Name, Outcome, PeerEvent, Peering,
    Run, Seq, Settle, Time,
};
use crate::sessions::{Outbox, Session};

/// A frame is ended once it has so many bytes.
const FRAME_SIZE: usize = 128 << 10;
/// What a frame begins with: its size, without itself.
const SIZE_SIZE: usize = 4;
/// Why a message cannot go.
pub(super) const TOO_LARGE: &str = "the message is larger than its home takes";

/// One link to another host, from its first byte to its last.
pub struct Link {
    settings: Arc<LinkSettings>,
    registry: Arc<dyn Registry>,
    via: PeerAddress,
    /// `None` to find out who is there.
    expected: Option<HostId>,
    nonce: [u8; PROOF_SIZE],
    state: State,
    pulse: Pulse,
    /// Bytes to come of a frame that is too large.
    skipped: usize,
}

/// ```text
/// New -> Preface -> Challenged -> Proven -> Open -> Over
///   any --fault, another host than expected--> Over
/// ```
enum State {
    New,
    Preface { hello: Vec<u8> },
    Challenged { hello: Vec<u8> },
    Proven { hello: Vec<u8>, challenge: Vec<u8>, host: Host, probe: bool },
    Open(Box<Open>),
    Over,
}

struct Open {
    host: Host,
    outboxes: BTreeMap<MailboxId, Carried>,
    filling: Option<Filling>,
    /// The other host was told of these.
    hosts: Vec<Sighting>,
    /// Version and base of the routes that were told last.
    told: (u64, u64),
    /// Largest frame that the other host takes.
    frame_size_max: usize,
    /// Properties on their way to the neutral form.
    scratch: Vec<u8>,
    /// What clients are told.
    said: Told,
    linked: Linked,
}

/// An outbox and what of it is on its way.
struct Carried {
    vhost: Name,
    sent: VecDeque<Run>,
}

struct Filling {
    batch: ForwardBatch,
    outbox: MailboxId,
}

impl Link {
    pub fn new(
        settings: Arc<LinkSettings>,
        registry: Arc<dyn Registry>,
        via: PeerAddress,
        expected: Option<HostId>,
        nonce: [u8; PROOF_SIZE],
    ) -> Self {
        let pulse = Pulse::new(settings.heartbeat_ms, Time::ZERO);
        let state = State::New;
        Self { settings, registry, via, expected, nonce, state, pulse, skipped: 0 }
    }

    fn begin(&mut self, now: Time, out: &mut Outbox) {
        self.pulse = Pulse::new(self.settings.heartbeat_ms, now);
        encode_preface(&mut out.wire);
        let start = out.wire.len();
        handshake::hello(&self.settings.me, self.nonce).encode(Kind::PeerHello, &mut out.wire);
        let hello = payload(&out.wire[start..]);
        self.state = State::Preface { hello };
    }

    fn advance(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) -> Result<(), String> {
        if let State::Preface { hello } = &mut self.state {
            match read_answer(input) {
                Preface::NeedMore => return Ok(()),
                Preface::Server { chosen: VERSION, .. } => {
                    let _ = input.split_to(PREFACE_SIZE);
                    let hello = std::mem::take(hello);
                    self.state = State::Challenged { hello };
                }
                Preface::Server { highest, .. } => {
                    return Err(format!("it speaks version {highest}, this host {VERSION}"));
                }
                Preface::Client { .. } | Preface::Other => {
                    return Err("no host of this kind answers there".into());
                }
            }
        }
        loop {
            if let State::Over = self.state {
                input.clear();
                return Ok(());
            }
            let passed = self.skipped.min(input.len());
            input.advance(passed);
            self.skipped -= passed;
            let frame = match next_frame(input, self.settings.frame_size_max) {
                Err(FrameError::TooLarge { size, .. }) if self.is_open() => {
                    let Some(visit) = told_visit(input)? else { return Ok(()) };
                    self.skipped = SIZE_SIZE + size as usize;
                    self.send_away(visit, out);
                    continue;
                }
                frame => frame,
            };
            let Some(frame) = frame.map_err(|error| error.to_string())? else { return Ok(()) };
            // Messages are slices of what came in.
            let size = frame.wire_len();
            let bytes = input.split_to(size).freeze();
            let frame = next_frame(&bytes, self.settings.frame_size_max);
            let Some(frame) = frame.map_err(|error| error.to_string())? else { return Ok(()) };
            self.take(&frame, &bytes, now, out)?;
        }
    }

    fn take(
        &mut self,
        frame: &Frame<'_>,
        bytes: &Bytes,
        _now: Time,
        out: &mut Outbox,
    ) -> Result<(), String> {
        if frame.kind == Kind::Goodbye {
            let said = Refused::decode(frame.payload);
            return Err(said.map_or_else(|error| error.to_string(), |it| it.text.into()));
        }
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Challenged { hello }, Kind::Challenge) => {
                let said = PeerHello::decode(frame.payload).map_err(|error| error.to_string())?;
                let host = handshake::host(&said).ok_or("it says what no host would say")?;
                let challenge = frame.payload.to_vec();
                let probe = self.expected != Some(host.id);
                let proof = Side::Dial.prove(&self.settings.secret, &hello, &challenge);
                let flags = if probe { PROBE } else { 0 };
                encode_proof(flags, &proof, &mut out.wire);
                self.state = State::Proven { hello, challenge, host, probe };
                Ok(())
            }
            (State::Proven { hello, challenge, host, probe }, Kind::Welcome) => {
                let welcome = Welcome::decode(frame.payload).map_err(|error| error.to_string())?;
                let secret = &self.settings.secret;
                if !Side::Accept.holds(secret, &hello, &challenge, &welcome.proof) {
                    return Err("it does not know the secret".into());
                }
                self.welcomed(host, probe, &welcome, out)
            }
            (State::Open(mut open), _) => {
                let taken = open.take(frame, bytes, out);
                self.state = State::Open(open);
                taken
            }
            (_, kind) => Err(format!("{kind:?} came out of turn")),
        }
    }

    fn welcomed(
        &mut self,
        host: Host,
        probe: bool,
        welcome: &Welcome,
        out: &mut Outbox,
    ) -> Result<(), String> {
        let meeting = self.registry.meet(&host, Some(&self.via));
        if probe {
            out.close = true;
            return Ok(());
        }
        if let Some(objection) = handshake::objection(meeting) {
            return Err(objection.into());
        }
        let peer = |peering| Command::Peer(Box::new(peering));
        let (name, tags) = (host.name.clone(), host.tags.clone());
        out.commands.push(peer(Peering::Carry { host: name, tags }));
        out.commands.push(peer(Peering::Advertise { after: welcome.known, base: 0 }));
        out.remarks.push(format!("linked to host {}", host.name));
        self.state = State::Open(Box::new(Open {
            linked: Linked::new(self.registry.clone(), host.id),
            host,
            outboxes: BTreeMap::new(),
            filling: None,
            hosts: Vec::new(),
            told: (welcome.known, 0),
            frame_size_max: welcome.frame_size_max as usize,
            scratch: Vec::new(),
            said: Told::new(self.settings.message_size_max),
        }));
        Ok(())
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// A client of this host is given a message that this host does not take. Others and what waits go on.
    fn send_away(&mut self, visit: u32, out: &mut Outbox) {
        let State::Open(open) = &mut self.state else { return };
        open.flush(out);
        let remark = format!("a message of host {} is larger than this host takes", open.host.name);
        out.remarks.push(format!("{remark}: its reader is sent away"));
        let event = Event::ForceClose(remark);
        out.commands.push(Command::Peer(Box::new(Peering::Told { visit, event })));
        wish::write_wish(visit, Command::Close(None), &mut out.wire);
    }

    fn fail(&mut self, reason: &str, out: &mut Outbox) {
        let via = &self.via;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Open(mut open) => {
                open.flush(out);
                let (host, error) = (open.host.name.clone(), reason.to_owned());
                out.remarks.push(format!("the link to host {host} ends: {error}"));
                out.commands.push(Command::Peer(Box::new(Peering::Remark { host, error })));
            }
            State::Proven { host, .. } => {
                let (host, error) = (host.name, reason.to_owned());
                out.remarks.push(format!("no link to host {host} at {via}: {error}"));
                out.commands.push(Command::Peer(Box::new(Peering::Remark { host, error })));
            }
            _ => out.remarks.push(format!("no link to {via}: {reason}")),
        }
        out.close = true;
    }
}

impl Session for Link {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        self.pulse.hear(now);
        if let Err(reason) = self.advance(input, now, out) {
            input.clear();
            self.fail(&reason, out);
        }
    }

    fn notify(&mut self, event: Event, _now: Time, out: &mut Outbox) {
        match (event, &mut self.state) {
            (Event::ForceClose(reason), _) => self.fail(&reason, out),
            (event, State::Open(open)) => open.notify(event, out),
            (event, _) => count_unsent(&event, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        match &mut self.state {
            State::New => self.begin(now, out),
            State::Over => {}
            _ if self.pulse.is_lost(now) => self.fail("nothing was heard for too long", out),
            State::Open(open) => {
                if self.pulse.beats(now) {
                    open.flush(out);
                    open.tell_hosts(out);
                    write_empty(Kind::Ping, 0, &mut out.wire);
                }
            }
            // What is due is said; until the other answers, the pulse only bounds its silence.
            _ => drop(self.pulse.beats(now)),
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::New => Some(Time::ZERO),
            State::Over => None,
            _ => Some(self.pulse.deadline()),
        }
    }

    fn verified(&mut self, _accepted: bool, _now: Time, _out: &mut Outbox) {}

    fn flush(&mut self, out: &mut Outbox) {
        if let State::Open(open) = &mut self.state {
            open.flush(out);
        }
    }

    fn lost(&mut self, out: &mut Outbox) {
        if let State::Open(_) = self.state {
            self.fail("the connection broke", out);
        }
    }
}

impl Open {
    fn take(&mut self, frame: &Frame<'_>, bytes: &Bytes, out: &mut Outbox) -> Result<(), String> {
        let payload = frame.payload;
        let damaged = |error: pillarbox_native::Malformed| error.to_string();
        match frame.kind {
            Kind::Pong => {}
            Kind::Answer | Kind::Given | Kind::Ended => {
                if let Some(event) = self.said.read(frame, bytes)? {
                    let told = Peering::Told { visit: frame.id, event };
                    out.commands.push(Command::Peer(Box::new(told)));
                }
            }
            Kind::Learned => {
                let version = decode_learned(payload).map_err(damaged)?;
                let (told, base) = self.told;
                if version != told {
                    return Err("it learned what nobody told it".into());
                }
                let after = Peering::Advertise { after: version, base };
                out.commands.push(Command::Peer(Box::new(after)));
            }
            Kind::Taken => {
                let Taken { outbox, upto } = Taken::decode(payload).map_err(damaged)?;
                self.taken(MailboxId(outbox), Seq(upto), out);
            }
            Kind::Declined => {
                let Declined { outbox, seq, text } = Declined::decode(payload).map_err(damaged)?;
                self.declined(MailboxId(outbox), Seq(seq), text, out);
            }
            kind => return Err(format!("{kind:?} came out of turn")),
        }
        Ok(())
    }

    /// Everything of the outbox up to there rests at the other host.
    fn taken(&mut self, outbox: MailboxId, upto: Seq, out: &mut Outbox) {
        let Some(carried) = self.outboxes.get_mut(&outbox) else { return };
        let mut settle = Settle {
            channel: ChannelId(0),
            deliveries: Default::default(),
            outcome: Outcome::Accepted,
        };
        while let Some(run) = carried.sent.front_mut()
            && run.first <= upto
        {
            let count = u32::try_from(upto.0 - run.first.0 + 1).unwrap_or(u32::MAX).min(run.count);
            settle.deliveries.push(Run { count, ..*run });
            if count == run.count {
                carried.sent.pop_front();
            } else {
                run.first.0 += u64::from(count);
                run.count -= count;
            }
        }
        if !settle.deliveries.is_empty() {
            out.commands.push(Command::Settle(settle));
        }
    }

    /// The other host never takes this message.
    fn declined(&mut self, outbox: MailboxId, seq: Seq, text: &str, out: &mut Outbox) {
        let Some(carried) = self.outboxes.get_mut(&outbox) else { return };
        let end = |run: &Run| run.first.0 + u64::from(run.count);
        let holds = |run: &Run| (run.first.0..end(run)).contains(&seq.0);
        let Some(at) = carried.sent.iter().position(holds) else { return };
        let Some(run) = carried.sent.remove(at) else { return };
        let rest = Run { first: Seq(seq.0 + 1), count: (end(&run) - seq.0 - 1) as u32, ..run };
        let before = Run { count: (seq.0 - run.first.0) as u32, ..run };
        for part in [rest, before].into_iter().filter(|part| part.count > 0) {
            carried.sent.insert(at, part);
        }
        self.refuse(outbox, seq, text, out);
    }

    fn refuse(&self, outbox: MailboxId, seq: Seq, reason: &str, out: &mut Outbox) {
        let host = &self.host.name;
        out.remarks.push(format!("host {host} does not take message {}: {reason}", seq.0));
        let refuse = Peering::Refuse { outbox, seq, reason: reason.into() };
        out.commands.push(Command::Peer(Box::new(refuse)));
    }

    fn notify(&mut self, event: Event, out: &mut Outbox) {
        match event {
            Event::Delivered(delivery) => self.forward(&delivery, out),
            Event::DeliveredBatch(batch) => batch.iter().for_each(|it| self.forward(it, out)),
            Event::Peer(PeerEvent::Carries { outbox, vhost }) => {
                self.outboxes.insert(outbox, Carried { vhost, sent: VecDeque::new() });
            }
            Event::Peer(PeerEvent::Adverts { changes, begins, ends, version, base }) => {
                self.flush(out);
                self.told = (version, base);
                routes::write(changes, version, begins, ends, &mut out.wire);
            }
            Event::Peer(PeerEvent::Ask { visit, command }) => {
                self.flush(out);
                count_ask(out);
                wish::write_wish(visit, command, &mut out.wire);
            }
            _ => {}
        }
    }

    fn forward(&mut self, delivery: &Delivery, out: &mut Outbox) {
        out.deliveries += 1;
        out.delivery_bytes += delivery.message.size() as u64;
        let outbox = delivery.mailbox;
        let Some(carried) = self.outboxes.get_mut(&outbox) else { return };
        let (seq, again) = (delivery.seq, delivery.redelivered);
        let forwarded = forwarded(&delivery.message, seq, again, &mut self.scratch);
        let alone = ForwardBatch::frame_size(&carried.vhost, forwarded.wire_len());
        if alone > self.frame_size_max {
            return self.refuse(outbox, seq, TOO_LARGE, out);
        }
        match carried.sent.back_mut() {
            Some(run) if run.first.0 + u64::from(run.count) == delivery.seq.0 => run.count += 1,
            _ => carried.sent.push_back(Run { mailbox: outbox, first: delivery.seq, count: 1 }),
        }
        let has_room = |it: &Filling| {
            let filled = it.batch.size(&out.wire);
            filled < FRAME_SIZE && filled + alone <= self.frame_size_max
        };
        let mut filling = match self.filling.take() {
            Some(it) if it.outbox == outbox && has_room(&it) => it,
            other => {
                if let Some(full) = other {
                    full.batch.end(&mut out.wire);
                }
                let batch = ForwardBatch::begin(&carried.vhost, outbox.0, &mut out.wire);
                Filling { batch, outbox }
            }
        };
        filling.batch.add(&forwarded, &mut out.wire);
        self.filling = Some(filling);
    }

    /// Whom links reach, where that is news.
    fn tell_hosts(&mut self, out: &mut Outbox) {
        let mut hosts = self.linked.registry().reached();
        hosts.retain(|it| it.host.is_none_or(|(id, _)| id != self.host.id));
        if hosts == self.hosts {
            return;
        }
        let all = hosts.iter().filter_map(|it| {
            let (HostId(id), incarnation) = it.host?;
            Some(HostRef { id, incarnation, address: it.address.as_str() })
        });
        let all: Vec<_> = all.collect();
        encode_hosts(all.into_iter(), &mut out.wire);
        self.hosts = hosts;
    }

    /// Ends the frame that is being filled.
    fn flush(&mut self, out: &mut Outbox) {
        if let Some(filling) = self.filling.take() {
            filling.batch.end(&mut out.wire);
        }
    }
}

/// For which client the frame is that begins here. `None` while its head is not whole.
fn told_visit(input: &[u8]) -> Result<Option<u32>, String> {
    let Some(head) = input.first_chunk::<{ pillarbox_native::FRAME_HEAD_SIZE }>() else {
        return Ok(None);
    };
    let [.., kind, _flags, a, b, c, d] = *head;
    match Kind::from_octet(kind) {
        Some(Kind::Answer | Kind::Given) => Ok(Some(u32::from_le_bytes([a, b, c, d]))),
        _ => Err("a frame is larger than the maximum".into()),
    }
}

/// The payload of the one frame that the bytes are.
fn payload(bytes: &[u8]) -> Vec<u8> {
    bytes[pillarbox_native::FRAME_HEAD_SIZE..].to_vec()
}

/// The core counts what it asks as it counts what it gives.
fn count_ask(out: &mut Outbox) {
    out.deliveries += 1;
    out.delivery_bytes += ASK_SIZE;
}

/// What goes nowhere counts as written all the same.
fn count_unsent(event: &Event, out: &mut Outbox) {
    if let Event::Peer(PeerEvent::Ask { .. }) = event {
        count_ask(out);
    }
    for delivery in event.deliveries() {
        out.deliveries += 1;
        out.delivery_bytes += delivery.message.size() as u64;
    }
}

/// The last word of an end, for the other one to show.
pub(super) fn goodbye(code: Code, text: &str, out: &mut Outbox) {
    Refused { code, text }.encode(Kind::Goodbye, 0, &mut out.wire);
    out.close = true;
}
