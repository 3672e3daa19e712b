//! AMQP 0-9-1: one client connection, from its protocol header to its last close-ok.
//!
//! This file knows the order of a connection's life. What happens on channels is in `open` and below.

mod channel;
mod confirm;
mod consume;
mod handshake;
mod heartbeat;
mod line;
mod method;
mod name;
mod open;
mod properties;
mod publish;
mod renewal;
mod reply;
mod settings;
mod topology;
mod transaction;
mod unsettled;
mod value;
mod whole;

use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_amqp::{
    FrameError, FrameKind, Method, PROTOCOL_HEADER, ProtocolHeader, RawFrame, ReplyCode,
    encode_heartbeat, next_frame, protocol_header, reply_text,
};

use self::handshake::{Guest, Limits, Login, LoginStep, LookedUp};
use self::heartbeat::Heartbeat;
use self::line::{Alarm, Line, Terms};
use self::open::{Flow, Open};
pub use self::properties::AMQP;
use self::reply::{Fault, OPEN};
pub use self::settings::{Identity, Settings};
use super::{Facts, Outbox, Session};
use crate::broker::{self, ChannelId, Command, Credential, Event, Reply, Request, Ticket, Time};

/// Tickets of the connection itself; those of channels come after.
const CREDENTIAL_TICKET: Ticket = Ticket(1);
const OPEN_TICKET: Ticket = Ticket(2);
const CLOSE_TICKET: Ticket = Ticket(3);
const CHANNEL_TICKETS: u64 = 16;

/// One AMQP 0-9-1 connection.
pub struct AmqpSession {
    facts: Facts,
    settings: Arc<Settings>,
    state: State,
    /// When the present state has lasted long enough. `None` before the first call, and once open.
    deadline: Option<Time>,
    started: bool,
    heartbeat: Heartbeat,
    /// Sent ahead by the client while its login is examined.
    ahead: BytesMut,
}

/// ```text
/// Header -> Start -> Login -> Tune -> Vhost -> Opening -> Open -> Leaving -> Left -> Over
///   Login --refused--> Refused (silent) -> Over
///   any --fault--> Closing --close-ok--> Over
///   any --broken frame--> Over
/// ```
enum State {
    Header,
    Start,
    /// Examined outside; input waits.
    Login(Box<Login>),
    Tune(Box<Guest>),
    Vhost(Box<Guest>, Limits),
    /// The broker opens the connection; input waits.
    Opening(Box<Opening>),
    Open(Box<Open>),
    /// The client closed, perhaps more than once; close-ok when the broker has put everything away.
    Leaving {
        goodbyes: u32,
        /// The stream broke behind the goodbye: nothing more can be read from it.
        deaf: bool,
    },
    /// Said close-ok. The client closes the socket; until then a repeated goodbye is answered too, as RabbitMQ does.
    Left,
    /// This side closed; everything but close and close-ok is thrown away.
    Closing {
        frame_max: u32,
    },
    /// A login was refused and the client cannot be told: the socket is closed at the deadline.
    Refused,
    Over,
}

struct Opening {
    guest: Guest,
    limits: Limits,
    vhost: broker::Name,
    /// The broker may speak of it before it answers.
    blocked: Option<&'static str>,
}

impl AmqpSession {
    pub fn new(facts: Facts, settings: impl Into<Arc<Settings>>) -> Self {
        Self {
            facts,
            settings: settings.into(),
            state: State::Header,
            deadline: None,
            started: false,
            heartbeat: Heartbeat::new(0, Time::ZERO),
            ahead: BytesMut::new(),
        }
    }

    fn begin(&mut self, now: Time) {
        if !self.started {
            self.started = true;
            self.deadline = Some(now.plus_ms(self.settings.handshake_timeout_ms));
        }
    }

    /// Takes as much of `input` as the state lets it.
    fn advance(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        loop {
            match &mut self.state {
                State::Header => match protocol_header(input) {
                    ProtocolHeader::NeedMore => return,
                    ProtocolHeader::V091 | ProtocolHeader::V09 => {
                        let _ = input.split_to(PROTOCOL_HEADER.len());
                        handshake::start(&self.settings, &self.facts).encode(0, &mut out.wire);
                        self.state = State::Start;
                    }
                    ProtocolHeader::Other => {
                        out.wire.extend_from_slice(&PROTOCOL_HEADER);
                        out.remarks.push("not an AMQP 0-9-1 protocol header".into());
                        self.finish(out);
                    }
                },
                State::Start | State::Tune(_) | State::Vhost(..) => {
                    let max = match &self.state {
                        State::Vhost(_, limits) => limits.frame_max,
                        _ => self.settings.handshake_frame_max,
                    };
                    match next_frame(input, max) {
                        Ok(None) => return,
                        Ok(Some(frame)) => {
                            let len = frame.wire_len();
                            let done = self.handshake(handshake_method(&frame), now, out);
                            let _ = input.split_to(len);
                            self.end_on(done, now, out);
                        }
                        Err(error) => self.break_off(error, now, out),
                    }
                }
                State::Login(_) | State::Opening(_) => {
                    self.ahead.extend_from_slice(&input.split());
                    if self.is_far_ahead() {
                        if matches!(self.state, State::Opening(_)) {
                            out.pause_reading = Some(true);
                            return;
                        }
                        let text = "too much was sent before the connection was open";
                        let fault = Fault::new(ReplyCode::FRAME_ERROR, text, (0, 0));
                        self.fail(&fault, now, out);
                        continue;
                    }
                    return;
                }
                State::Open(open) => {
                    let (line, size_max) = (&open.line, self.settings.message_size_max);
                    let (end, broken) = whole::extent(input, line.frame_max, size_max);
                    let read = input.split_to(end).freeze();
                    let mut at = 0;
                    match open.read(&read, &mut at, now, out) {
                        Ok(Flow::On) => match broken {
                            None => return,
                            Some(error) => self.break_off(error, now, out),
                        },
                        Ok(Flow::Leave) => {
                            give_back(&read[at..], input);
                            self.leave(now, out);
                        }
                        Err(fault) => {
                            // The client may have said goodbye behind its fault.
                            give_back(&read[at..], input);
                            self.fail(&fault, now, out);
                        }
                    }
                }
                State::Closing { frame_max } => match last_words(input, *frame_max) {
                    Ok(None) => return,
                    Ok(Some(Some(Method::ConnectionClose { .. }))) => {
                        Method::ConnectionCloseOk.encode(0, &mut out.wire);
                        self.finish(out);
                    }
                    Ok(Some(Some(Method::ConnectionCloseOk))) | Err(_) => self.finish(out),
                    Ok(Some(_)) => {}
                },
                State::Leaving { deaf: true, .. } => {
                    input.clear();
                    return;
                }
                State::Leaving { goodbyes, deaf } => {
                    match last_words(input, self.settings.frame_max) {
                        Ok(None) => return,
                        Ok(Some(Some(Method::ConnectionClose { .. }))) => *goodbyes += 1,
                        Ok(Some(_)) => {}
                        Err(_) => *deaf = true,
                    }
                }
                State::Left => match last_words(input, self.settings.frame_max) {
                    Ok(None) => return,
                    Ok(Some(Some(Method::ConnectionClose { .. }))) => {
                        Method::ConnectionCloseOk.encode(0, &mut out.wire);
                    }
                    Ok(Some(_)) => {}
                    Err(_) => self.finish(out),
                },
                State::Refused | State::Over => {
                    input.clear();
                    return;
                }
            }
        }
    }

    /// Goes on with what was sent ahead.
    fn resume(&mut self, now: Time, out: &mut Outbox) {
        if !self.ahead.is_empty() && !self.state.is_waiting() {
            if self.is_far_ahead() {
                out.pause_reading = Some(false);
            }
            let mut input = std::mem::take(&mut self.ahead);
            self.advance(&mut input, now, out);
            if !self.state.is_waiting() {
                self.ahead = input;
            }
        }
    }

    fn is_far_ahead(&self) -> bool {
        self.ahead.len() > self.settings.handshake_bytes_max
    }

    fn handshake(
        &mut self,
        method: Result<Option<Method>, Fault>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(method) = method? else {
            return Ok(());
        };
        let ids = method.ids();
        match (std::mem::replace(&mut self.state, State::Over), method) {
            (_, Method::ConnectionClose { .. }) => {
                Method::ConnectionCloseOk.encode(0, &mut out.wire);
                self.finish(out);
                Ok(())
            }
            (
                State::Start,
                Method::ConnectionStartOk { client_properties, mechanism, response, .. },
            ) => {
                let login = Login::read(
                    client_properties,
                    &mechanism,
                    &response,
                    &self.facts,
                    &self.settings,
                )?;
                let request = Box::new(Request::Credential(login.user.clone()));
                out.commands.push(Command::Request(ChannelId(0), CREDENTIAL_TICKET, request));
                self.state = State::Login(Box::new(login));
                Ok(())
            }
            (
                State::Tune(guest),
                Method::ConnectionTuneOk { channel_max, frame_max, heartbeat },
            ) => {
                let limits = Limits::negotiate(&self.settings, channel_max, frame_max)?;
                self.heartbeat = Heartbeat::new(heartbeat, now);
                self.state = State::Vhost(guest, limits);
                Ok(())
            }
            (State::Vhost(guest, limits), Method::ConnectionOpen { vhost }) => {
                let vhost = name::name(&vhost, OPEN)?;
                let open = broker::Open {
                    user: guest.user.clone(),
                    vhost: vhost.clone(),
                    protocol: "AMQP 0-9-1",
                    peer: self.facts.peer.clone(),
                    local: self.facts.local.clone(),
                    client_name: guest.client.name.clone(),
                    client_properties: guest.client.properties.clone(),
                    mechanism: guest.mechanism,
                    strict_channels: true,
                    cancel_notify: guest.client.cancel_notify,
                };
                out.commands.push(Command::Open(Box::new(open), OPEN_TICKET));
                let opening = Opening { guest: *guest, limits, vhost, blocked: None };
                self.state = State::Opening(Box::new(opening));
                Ok(())
            }
            (state, _) => {
                let text = format!("unexpected method in connection state {}", state.name());
                Err(Fault::new(ReplyCode::CHANNEL_ERROR, text, ids))
            }
        }
    }

    fn looked_up(&mut self, credential: Option<Box<Credential>>, now: Time, out: &mut Outbox) {
        let State::Login(login) = &mut self.state else {
            return;
        };
        match login.looked_up(credential) {
            LookedUp::Verify(verify) => out.verify = Some(verify),
            LookedUp::Accepted(credential) => self.admit(&credential, now, out),
            LookedUp::Refused => self.refuse(now, out),
        }
    }

    /// The proof is good; some users may come from this machine only.
    fn admit(&mut self, credential: &Credential, now: Time, out: &mut Outbox) {
        if credential.loopback_only && !self.facts.loopback {
            return self.refuse(now, out);
        }
        if let State::Login(login) = std::mem::replace(&mut self.state, State::Over) {
            self.state = State::Tune(Box::new(Guest::new(*login, credential)));
            handshake::tune(&self.settings).encode(0, &mut out.wire);
        }
    }

    fn refuse(&mut self, now: Time, out: &mut Outbox) {
        let State::Login(login) = &self.state else {
            return;
        };
        let fault = login.refusal();
        if login.client.failure_close {
            self.fail(&fault, now, out);
        } else {
            // Clients from before that capability read the end of the socket as a refused login.
            out.remarks.push(fault.text);
            self.deadline = Some(now.plus_ms(self.settings.refusal_delay_ms));
            self.state = State::Refused;
        }
    }

    fn opened(&mut self, result: Result<Reply, broker::Refusal>, now: Time, out: &mut Outbox) {
        let State::Opening(opening) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        if let Err(refusal) = result {
            let fault = Fault::refused(&refusal, ChannelId(0), OPEN);
            return self.fail(&fault, now, out);
        }
        let Opening { guest, limits, vhost, blocked } = *opening;
        let mut line = Line::new(Terms {
            settings: Arc::clone(&self.settings),
            user: guest.user,
            vhost,
            impersonator: guest.impersonator,
            frame_max: limits.frame_max,
            channel_max: limits.channel_max,
            blocked_notify: guest.client.blocked_notify,
            cancel_notify: guest.client.cancel_notify,
            seed: self.facts.seed,
            tickets: CHANNEL_TICKETS,
        });
        line.alarm(blocked, out);
        Method::ConnectionOpenOk.encode(0, &mut out.wire);
        self.state = State::Open(Box::new(Open::new(line)));
        self.deadline = None;
    }

    /// The client closes. What it held is put away before it hears that it is closed.
    fn leave(&mut self, now: Time, out: &mut Outbox) {
        out.commands.push(Command::Close(Some(CLOSE_TICKET)));
        self.state = State::Leaving { goodbyes: 1, deaf: false };
        self.deadline = Some(now.plus_ms(self.settings.closing_timeout_ms));
    }

    fn end_on(&mut self, done: Result<(), Fault>, now: Time, out: &mut Outbox) {
        if let Err(fault) = done {
            self.fail(&fault, now, out);
        }
    }

    /// This side closes the connection.
    fn fail(&mut self, fault: &Fault, now: Time, out: &mut Outbox) {
        let frame_max = match &self.state {
            State::Open(open) => {
                out.commands.push(Command::Close(None));
                if open.line.alarm == Alarm::Stopped {
                    out.pause_reading = Some(false);
                }
                open.line.frame_max
            }
            State::Opening(_) => {
                out.commands.push(Command::Close(None));
                self.settings.frame_max
            }
            _ => self.settings.frame_max,
        };
        let reply_text = reply_text(fault.code, &fault.text);
        out.remarks.push(format!("connection closed: {reply_text}"));
        let (class_id, method_id) = fault.ids;
        let reply_code = fault.code.number();
        Method::ConnectionClose { reply_code, reply_text, class_id, method_id }
            .encode(0, &mut out.wire);
        self.state = State::Closing { frame_max };
        self.deadline = Some(now.plus_ms(self.settings.closing_timeout_ms));
    }

    /// The stream cannot be read any further, so no close-ok can be found in it.
    fn break_off(&mut self, error: FrameError, now: Time, out: &mut Outbox) {
        self.fail(&Fault::of_frame(error), now, out);
        self.finish(out);
    }

    fn finish(&mut self, out: &mut Outbox) {
        out.close = true;
        self.state = State::Over;
        self.deadline = None;
    }

    /// Before the end of each call: what was said counts as a heartbeat, and a client whose socket is
    /// not read is not expected to be heard.
    fn settle_beats(&mut self, said: bool, now: Time) {
        if said {
            self.heartbeat.say(now);
        }
        let stopped = matches!(&self.state, State::Open(open) if open.line.alarm == Alarm::Stopped);
        self.heartbeat.pause(stopped, now);
    }
}

impl Session for AmqpSession {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        self.begin(now);
        self.heartbeat.hear(now);
        let before = out.wire.len();
        if !self.ahead.is_empty() {
            self.ahead.extend_from_slice(input);
            std::mem::swap(input, &mut self.ahead);
            self.ahead.clear();
        }
        self.advance(input, now, out);
        self.settle_beats(out.wire.len() > before, now);
    }

    fn notify(&mut self, event: Event, now: Time, out: &mut Outbox) {
        self.begin(now);
        let before = out.wire.len();
        match (&mut self.state, event) {
            (State::Open(open), event) => {
                if let Err(fault) = open.notify(event, out) {
                    self.fail(&fault, now, out);
                }
            }
            (State::Login(_), Event::Reply { ticket: CREDENTIAL_TICKET, result, .. }) => {
                let credential = match result {
                    Ok(Reply::Credential(credential)) => credential,
                    _ => None,
                };
                self.looked_up(credential, now, out);
                self.resume(now, out);
            }
            (State::Opening(_), Event::Reply { ticket: OPEN_TICKET, result, .. }) => {
                self.opened(result, now, out);
                self.resume(now, out);
            }
            (State::Opening(opening), Event::Blocked(reason)) => opening.blocked = reason,
            (State::Leaving { goodbyes, .. }, Event::Closed(CLOSE_TICKET)) => {
                for _ in 0..*goodbyes {
                    Method::ConnectionCloseOk.encode(0, &mut out.wire);
                }
                self.state = State::Left;
                self.deadline = Some(now.plus_ms(self.settings.goodbye_ms));
            }
            (
                State::Start
                | State::Login(_)
                | State::Tune(_)
                | State::Vhost(..)
                | State::Opening(_),
                Event::ForceClose(reason),
            ) => {
                let fault = Fault::new(ReplyCode::CONNECTION_FORCED, reason, (0, 0));
                self.fail(&fault, now, out);
            }
            (State::Header, Event::ForceClose(_)) => self.finish(out),
            // What the broker said before it heard that the connection ends.
            _ => {}
        }
        self.settle_beats(out.wire.len() > before, now);
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        self.begin(now);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            match &self.state {
                State::Leaving { .. } => Method::ConnectionCloseOk.encode(0, &mut out.wire),
                State::Left | State::Refused | State::Over => {}
                State::Closing { .. } => out.remarks.push("no close-ok in time".into()),
                _ => out.remarks.push("no connection.open in time".into()),
            }
            return self.finish(out);
        }
        if !self.state.beats() {
            return;
        }
        if self.heartbeat.is_dead(now) {
            out.remarks.push("missed heartbeats from client".into());
            return self.finish(out);
        }
        if self.heartbeat.is_due(now) {
            encode_heartbeat(&mut out.wire);
            self.heartbeat.say(now);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        if !self.started {
            return Some(Time::ZERO);
        }
        let beat = if self.state.beats() { self.heartbeat.next_deadline() } else { None };
        match (self.deadline, beat) {
            (Some(deadline), Some(beat)) => Some(deadline.min(beat)),
            (deadline, beat) => deadline.or(beat),
        }
    }

    fn verified(&mut self, accepted: bool, now: Time, out: &mut Outbox) {
        let before = out.wire.len();
        if let State::Login(login) = &mut self.state {
            match (accepted, std::mem::replace(&mut login.step, LoginStep::VerifyNobody)) {
                (true, LoginStep::Verify(credential)) => self.admit(&credential, now, out),
                _ => self.refuse(now, out),
            }
            self.resume(now, out);
        }
        self.settle_beats(out.wire.len() > before, now);
    }

    fn flush(&mut self, out: &mut Outbox) {
        if let State::Open(open) = &mut self.state {
            open.flush(out);
        }
    }
}

impl State {
    /// RabbitMQ's word for it.
    fn name(&self) -> &'static str {
        match self {
            Self::Header | Self::Start => "starting",
            Self::Login(_) | Self::Refused => "securing",
            Self::Tune(_) => "tuning",
            Self::Vhost(..) | Self::Opening(_) => "opening",
            Self::Open(_) => "running",
            Self::Leaving { .. } | Self::Closing { .. } => "closing",
            Self::Left | Self::Over => "closed",
        }
    }

    /// Somebody else has to answer before the client's bytes are read on.
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Opening(_))
    }

    /// Heartbeats run from tune-ok to the end of the conversation.
    fn beats(&self) -> bool {
        matches!(self, Self::Vhost(..) | Self::Opening(_) | Self::Open(_))
    }
}

/// Takes one frame of a conversation that ends: the method on channel 0, if it is one.
fn last_words(input: &mut BytesMut, frame_max: u32) -> Result<Option<Option<Method>>, FrameError> {
    let Some(frame) = next_frame(input, frame_max)? else { return Ok(None) };
    let method = match frame {
        RawFrame { kind: FrameKind::Method, channel: 0, payload } => Method::decode(payload).ok(),
        _ => None,
    };
    let len = frame.wire_len();
    let _ = input.split_to(len);
    Ok(Some(method))
}

/// What was taken from the front of the input and not read.
fn give_back(rest: &[u8], input: &mut BytesMut) {
    let mut whole = BytesMut::from(rest);
    whole.unsplit(input.split());
    *input = whole;
}

/// The method of a frame before the connection is open; `None` for a heartbeat.
fn handshake_method(frame: &RawFrame<'_>) -> Result<Option<Method>, Fault> {
    match (frame.kind, frame.channel) {
        (FrameKind::Method, 0) => Method::decode(frame.payload).map(Some).map_err(Fault::of_method),
        (FrameKind::Heartbeat, 0) if frame.payload.is_empty() => Ok(None),
        (FrameKind::Heartbeat, 0) => {
            Err(Fault::new(ReplyCode::FRAME_ERROR, "heartbeat with a payload", (0, 0)))
        }
        _ => Err(Fault::unexpected_frame("frame before the connection is open", (0, 0))),
    }
}

#[cfg(test)]
mod tests;
