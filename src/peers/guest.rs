//! The accepting end of a link: another host brings messages, and says what lives there.
//!
//! Nothing is believed before the proof holds, and nothing is answered before it is durable.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    Code, Declined, Forward, Frame, FrameError, HostRef, Kind, Malformed, PREFACE_SIZE, PROBE,
    PROOF_SIZE, PeerHello, Preface, Routes, Taken, VERSION, Welcome, decode_hosts, decode_proof,
    encode_answer, encode_learned, next_frame, read_preface, write_empty,
};

use super::handshake::{self, LinkSettings, Pulse, Registry, Side};
use super::link::{TOO_LARGE, goodbye};
use super::message::{Reception, Unfit};
use super::{Host, HostId, Sighting, routes, told, wish};
use crate::broker::{Arrival, Command, Event, MailboxId, Message, PeerEvent, Peering, Seq, Time};
use crate::sessions::{Outbox, Session};

/// Until the proof holds, frames are small.
const GREETING_SIZE_MAX: u32 = 16 << 10;
/// Who accepts waits so long for a greeting.
const GREETING_TIMEOUT_MS: u64 = 10_000;

/// Further hosts that it names are left out.
const HOSTS_TOLD_MAX: usize = 1000;

/// One link from another host, from its first byte to its last.
pub struct Guest {
    settings: Arc<LinkSettings>,
    registry: Arc<dyn Registry>,
    nonce: [u8; PROOF_SIZE],
    peer: String,
    state: State,
    pulse: Pulse,
    since: Option<Time>,
    reception: Reception,
    /// Properties on their way to the neutral form.
    scratch: Vec<u8>,
}

/// ```text
/// Preface -> Greeting -> Challenged -> Welcomed -> Open -> Over
///                            └ probe ---------------------> Over
///   any --fault, refused host--> Over
/// ```
enum State {
    Preface,
    Greeting,
    Challenged {
        hello: Vec<u8>,
        challenge: Vec<u8>,
        host: Host,
    },
    /// The core looks up what it knows of the host; input waits.
    Welcomed {
        proof: [u8; PROOF_SIZE],
        host: Host,
    },
    Open {
        host: Host,
    },
    Over,
}

/// What the other host did wrong.
struct Fault {
    code: Code,
    text: String,
}

impl Guest {
    pub fn new(
        settings: Arc<LinkSettings>,
        registry: Arc<dyn Registry>,
        peer: String,
        nonce: [u8; PROOF_SIZE],
    ) -> Self {
        let pulse = Pulse::new(settings.heartbeat_ms, Time::ZERO);
        let reception = Reception::new(settings.message_size_max);
        Self {
            settings,
            registry,
            nonce,
            peer,
            state: State::Preface,
            pulse,
            since: None,
            reception,
            scratch: Vec::new(),
        }
    }

    fn advance(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) -> Result<(), Fault> {
        loop {
            let size_max = match self.state {
                State::Preface => match read_preface(input) {
                    Preface::NeedMore => return Ok(()),
                    Preface::Client { lowest, highest }
                        if (lowest..=highest).contains(&VERSION) =>
                    {
                        let _ = input.split_to(PREFACE_SIZE);
                        encode_answer(VERSION, &mut out.wire);
                        self.state = State::Greeting;
                        continue;
                    }
                    _ => {
                        encode_answer(0, &mut out.wire);
                        out.remarks.push("no preface of this protocol and version".into());
                        out.close = true;
                        self.state = State::Over;
                        return Ok(());
                    }
                },
                State::Greeting | State::Challenged { .. } => GREETING_SIZE_MAX,
                State::Welcomed { .. } => return Ok(()),
                State::Open { .. } => self.settings.frame_size_max,
                State::Over => {
                    input.clear();
                    return Ok(());
                }
            };
            let Some(frame) = next_frame(input, size_max)? else { return Ok(()) };
            let size = frame.wire_len();
            if let State::Open { .. } = self.state {
                // Messages are slices of what came in.
                let bytes = input.split_to(size).freeze();
                self.hear(&bytes, now, out)?;
            } else {
                self.greet(&frame, out)?;
                let _ = input.split_to(size);
            }
        }
    }

    fn greet(&mut self, frame: &Frame<'_>, out: &mut Outbox) -> Result<(), Fault> {
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Greeting, Kind::PeerHello) => {
                let said = PeerHello::decode(frame.payload)?;
                let Some(host) = handshake::host(&said) else {
                    return Err(Fault::new(Code::Invalid, "no host would say so of itself"));
                };
                let start = out.wire.len() + pillarbox_native::FRAME_HEAD_SIZE;
                let me = handshake::hello(&self.settings.me, self.nonce);
                me.encode(Kind::Challenge, &mut out.wire);
                let (hello, challenge) = (frame.payload.to_vec(), out.wire[start..].to_vec());
                self.state = State::Challenged { hello, challenge, host };
                Ok(())
            }
            (State::Challenged { hello, challenge, host }, Kind::Proof) => {
                let proof = decode_proof(frame.payload)?;
                let secret = &self.settings.secret;
                if !Side::Dial.holds(secret, &hello, &challenge, &proof) {
                    return Err(Fault::new(Code::LoginFailed, "the secrets of both hosts differ"));
                }
                let proof = Side::Accept.prove(secret, &hello, &challenge);
                self.meet(host, proof, frame.has(PROBE), out)
            }
            (State::Greeting, _) => {
                Err(Fault::new(Code::NotAllowed, "only other hosts are served here"))
            }
            (_, kind) => Err(Fault::out_of_turn(kind)),
        }
    }

    fn meet(
        &mut self,
        host: Host,
        proof: [u8; PROOF_SIZE],
        probe: bool,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let meeting = self.registry.meet(&host, None);
        if probe {
            self.welcome(proof, 0, out);
            out.close = true;
            return Ok(());
        }
        if let Some(objection) = handshake::objection(meeting) {
            return Err(Fault::new(Code::InUse, objection));
        }
        let greeting =
            Peering::Greet { host: host.name.clone(), run: host.run, tags: host.tags.clone() };
        out.commands.push(Command::Peer(Box::new(greeting)));
        self.state = State::Welcomed { proof, host };
        Ok(())
    }

    fn welcome(&self, proof: [u8; PROOF_SIZE], known: u64, out: &mut Outbox) {
        let frame_size_max = self.settings.frame_size_max;
        Welcome { proof, known, frame_size_max }.encode(&mut out.wire);
    }

    fn hear(&mut self, bytes: &Bytes, now: Time, out: &mut Outbox) -> Result<(), Fault> {
        let Some(frame) = next_frame(bytes, self.settings.frame_size_max)? else { return Ok(()) };
        let peering = match frame.kind {
            Kind::Ping => return Ok(()),
            Kind::Hosts => return self.told(&decode_hosts(frame.payload)?),
            Kind::Routes => {
                Peering::Learn(routes::read(&Routes::decode(frame.flags, frame.payload)?))
            }
            Kind::Forward => {
                let forward = Forward::decode(frame.payload)?;
                let mut messages = Vec::with_capacity(forward.count as usize);
                for message in forward.messages() {
                    let message = message?;
                    let last = messages.last().map_or(0, |(seq, _): &(Seq, Message)| seq.0);
                    if message.seq <= last {
                        return Err(Fault::new(Code::Invalid, "messages come out of order"));
                    }
                    let (outbox, seq) = (forward.outbox, message.seq);
                    match self.reception.message(&message, bytes).map_err(Fault::from) {
                        Ok(mut own) => {
                            own.again = message.again;
                            messages.push((Seq(seq), own));
                        }
                        // It goes on alone where it came from; those behind it are not held up.
                        Err(fault) => {
                            let text = &fault.text;
                            let remark =
                                format!("message {seq} of {} is refused: {text}", self.peer);
                            out.remarks.push(remark);
                            Declined { outbox, seq, text }.encode(&mut out.wire);
                        }
                    }
                }
                if messages.is_empty() {
                    return Ok(());
                }
                let (vhost, outbox) = (forward.vhost.into(), MailboxId(forward.outbox));
                Peering::Arrive(Arrival { vhost, outbox, messages })
            }
            kind => match wish::read_wish(&frame) {
                Ok(Some(command)) => Peering::Visit { visit: frame.id, command },
                Ok(None) => return Err(Fault::out_of_turn(kind)),
                Err(text) => return Err(Fault::new(Code::Invalid, text)),
            },
        };
        let _ = now;
        out.commands.push(Command::Peer(Box::new(peering)));
        Ok(())
    }

    /// Whom the other host reaches, this one may reach as well.
    fn told(&self, hosts: &[HostRef<'_>]) -> Result<(), Fault> {
        let State::Open { host } = &self.state else { return Ok(()) };
        let mut sightings = Vec::new();
        for it in hosts.iter().take(HOSTS_TOLD_MAX) {
            let Ok(address) = it.address.parse() else {
                return Err(Fault::new(Code::Invalid, "an address cannot be read"));
            };
            sightings.push(Sighting { address, host: Some((HostId(it.id), it.incarnation)) });
        }
        self.registry.told(host.id, sightings);
        Ok(())
    }

    fn fail(&mut self, fault: &Fault, out: &mut Outbox) {
        let peer = &self.peer;
        let who = match std::mem::replace(&mut self.state, State::Over) {
            State::Challenged { host, .. }
            | State::Welcomed { host, .. }
            | State::Open { host } => {
                format!("host {} at {peer}", host.name)
            }
            _ => peer.clone(),
        };
        goodbye(fault.code, &fault.text, out);
        out.remarks.push(format!("the link of {who} ends: {}", fault.text));
    }
}

impl Session for Guest {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        self.pulse.hear(now);
        if let Err(fault) = self.advance(input, now, out) {
            input.clear();
            self.fail(&fault, out);
        }
    }

    fn notify(&mut self, event: Event, now: Time, out: &mut Outbox) {
        match event {
            Event::Peer(PeerEvent::Greeted { known }) => {
                match std::mem::replace(&mut self.state, State::Over) {
                    State::Welcomed { proof, host } => {
                        self.welcome(proof, known, out);
                        out.remarks.push(format!("host {} is linked to this one", host.name));
                        self.pulse.hear(now);
                        self.state = State::Open { host };
                    }
                    other => self.state = other,
                }
            }
            Event::Peer(PeerEvent::Learned { version }) => encode_learned(version, &mut out.wire),
            Event::Peer(PeerEvent::Arrived { outbox, upto }) => {
                Taken { outbox: outbox.0, upto: upto.0 }.encode(&mut out.wire);
            }
            Event::Peer(PeerEvent::Visitor { visit, event }) => {
                for delivery in event.deliveries() {
                    out.deliveries += 1;
                    out.delivery_bytes += delivery.message.size() as u64;
                }
                told::write_told(visit, *event, &mut self.scratch, &mut out.wire);
            }
            Event::Blocked(reason) => {
                // What waits, waits at its own host; there it is safe.
                self.pulse.deaf = reason.is_some();
                self.pulse.hear(now);
                out.pause_reading = Some(reason.is_some());
            }
            Event::ForceClose(reason) => self.fail(&Fault::new(Code::Closing, reason), out),
            _ => {}
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        let since = *self.since.get_or_insert_with(|| {
            self.pulse.hear(now);
            now
        });
        match self.state {
            State::Over => {}
            State::Open { .. } => {
                if self.pulse.is_lost(now) {
                    let fault = Fault::new(Code::Closing, "nothing was heard for too long");
                    self.fail(&fault, out);
                } else if self.pulse.beats(now) {
                    write_empty(Kind::Pong, 0, &mut out.wire);
                }
            }
            _ if now.since_ms(since) >= GREETING_TIMEOUT_MS => {
                self.fail(&Fault::new(Code::LoginFailed, "no greeting in time"), out);
            }
            _ => {}
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        match (&self.state, self.since) {
            (State::Over, _) => None,
            (_, None) => Some(Time::ZERO),
            (State::Open { .. }, _) => Some(self.pulse.deadline()),
            (_, Some(since)) => Some(since.plus_ms(GREETING_TIMEOUT_MS)),
        }
    }

    fn verified(&mut self, _accepted: bool, _now: Time, _out: &mut Outbox) {}

    fn flush(&mut self, _out: &mut Outbox) {}
}

impl Fault {
    fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn out_of_turn(kind: Kind) -> Self {
        Self::new(Code::NotAllowed, format!("{kind:?} came out of turn"))
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Malformed(error) => error.into(),
            Unfit::TooLarge => Self::new(Code::TooLarge, TOO_LARGE),
        }
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }
}
