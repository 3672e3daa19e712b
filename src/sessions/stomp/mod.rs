//! STOMP 1.0, 1.1 and 1.2: one client connection, from CONNECT to DISCONNECT.
//!
//! This file knows the order of a connection's life. What happens after login is in `open` and beside it.

mod arguments;
mod browse;
mod connect;
mod destination;
mod error;
mod headers;
mod heart_beat;
mod open;
mod receipts;
mod send;
mod settings;
mod subscribe;
mod subscription;
mod transaction;

use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_stomp::{Command as Verb, Decoder, Encoder, Frame, Input, ServerCommand, Version};

use self::connect::{Login, LookedUp};
use self::error::Fault;
use self::heart_beat::HeartBeat;
use self::open::{Flow, Open};
pub use self::settings::Settings;
use super::random::Random;
use super::{Facts, Outbox, Session};
use crate::broker::{ChannelId, Command, Credential, Event, Refusal, Reply, Request, Ticket, Time};

const CREDENTIAL_TICKET: Ticket = Ticket(1);
const OPEN_TICKET: Ticket = Ticket(2);
const CLOSE_TICKET: Ticket = Ticket(3);
/// Those of an open conversation come after.
const OPEN_TICKETS: u64 = 16;

/// One STOMP connection.
pub struct StompSession {
    facts: Facts,
    settings: Arc<Settings>,
    decoder: Decoder,
    encoder: Encoder,
    state: State,
    /// When the client must have logged in. `None` before the first call, and once open.
    deadline: Option<Time>,
    started: bool,
    heart_beat: HeartBeat,
    line_feeds: LineFeeds,
    /// Input that was there at the end of the last call.
    left: usize,
    /// The socket was asked to stand still.
    paused: bool,
}

/// ```text
/// Greeting -> Login -> Opening -> Open -> Leaving -> Over
///   any --fault that closes--> Over
/// ```
enum State {
    Greeting,
    /// Examined outside; input waits.
    Login(Box<Login>),
    /// The broker opens the virtual host; input waits.
    Opening(Box<Login>),
    Open(Box<Open>),
    /// DISCONNECT came; its receipt goes out after all others, when the broker has put everything away.
    Leaving(Box<Open>, Option<String>),
    Over,
}

/// Ends of line between frames in the present second.
#[derive(Default)]
struct LineFeeds {
    since: Time,
    /// Seen before it, and up to now.
    before: u64,
    seen: u64,
    frames: u64,
}

impl StompSession {
    pub fn new(facts: Facts, settings: impl Into<Arc<Settings>>) -> Self {
        let settings = settings.into();
        Self {
            facts,
            decoder: Decoder::new(settings.limits()),
            encoder: Encoder::default(),
            settings,
            state: State::Greeting,
            deadline: None,
            started: false,
            heart_beat: HeartBeat::default(),
            line_feeds: LineFeeds::default(),
            left: 0,
            paused: false,
        }
    }

    fn begin(&mut self, now: Time) {
        if !self.started {
            self.started = true;
            self.deadline = Some(now.plus_ms(self.settings.login_timeout_ms));
        }
    }

    /// Takes frames from the input until one has to wait for something.
    fn advance(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        loop {
            match &self.state {
                State::Greeting => {}
                State::Login(_) | State::Opening(_) => {
                    if input.len() > self.settings.login_frame_max {
                        let detail = "too much was sent before the login was accepted";
                        self.fail(&Fault::login(detail), out);
                    }
                    return;
                }
                State::Open(open) if open.is_held() => return,
                State::Open(_) => {}
                State::Leaving(..) | State::Over => {
                    input.clear();
                    return;
                }
            }
            match self.decoder.decode(input) {
                Ok(None) => return self.count_line_feeds(now, out),
                Ok(Some(Input::HeartBeat)) => self.count_line_feeds(now, out),
                Ok(Some(Input::Frame(frame))) => {
                    self.line_feeds.frames += 1;
                    self.heed(&frame, now, out);
                }
                Err(error) => self.fail(&Fault::of_bytes(&error), out),
            }
        }
    }

    fn heed(&mut self, frame: &Frame, now: Time, out: &mut Outbox) {
        if let Err(fault) = self.frame(frame, now, out) {
            self.fail(&fault.with_receipt(frame.headers.get("receipt")), out);
        }
    }

    fn frame(&mut self, frame: &Frame, now: Time, out: &mut Outbox) -> Result<(), Fault> {
        let State::Open(open) = &mut self.state else {
            return self.greet(frame, now, out);
        };
        let flow = open.frame(frame, now, out)?;
        let receipt = frame.headers.get("receipt");
        match flow {
            Flow::Done => receipt.into_iter().for_each(|receipt| open.receipt(receipt, out)),
            Flow::Later => {}
            Flow::Leave => {
                out.commands.push(Command::Close(Some(CLOSE_TICKET)));
                if let State::Open(open) = std::mem::replace(&mut self.state, State::Over) {
                    self.state = State::Leaving(open, receipt.map(str::to_owned));
                }
            }
        }
        Ok(())
    }

    fn greet(&mut self, frame: &Frame, now: Time, out: &mut Outbox) -> Result<(), Fault> {
        match frame.command {
            Verb::Connect | Verb::Stomp => {
                let login = Login::read(&frame.headers, &self.facts, &self.settings, now)?;
                self.log_in(login, out);
                Ok(())
            }
            Verb::Disconnect => {
                out.close = true;
                self.state = State::Over;
                Ok(())
            }
            _ if self.settings.implicit_connect => {
                let login = Login::implied(frame.clone(), &self.facts, &self.settings, now)?;
                self.log_in(login, out);
                Ok(())
            }
            _ => Err(Fault::fatal("Illegal command", "You must log in using CONNECT first")),
        }
    }

    fn log_in(&mut self, login: Login, out: &mut Outbox) {
        self.encoder = Encoder::new(login.version);
        let request = Box::new(Request::Credential(login.user.clone()));
        out.commands.push(Command::Request(ChannelId(0), CREDENTIAL_TICKET, request));
        self.state = State::Login(Box::new(login));
    }

    fn looked_up(&mut self, credential: Option<Box<Credential>>, out: &mut Outbox) {
        let State::Login(login) = &mut self.state else { return };
        match login.looked_up(credential) {
            LookedUp::Verify(verify) => out.verify = Some(verify),
            LookedUp::Proven => self.admit(out),
            LookedUp::Refused => {
                let refusal = login.refusal();
                self.fail(&refusal, out);
            }
        }
    }

    /// The user is who they say.
    fn admit(&mut self, out: &mut Outbox) {
        let State::Login(login) = std::mem::replace(&mut self.state, State::Over) else { return };
        match login.open(&self.facts) {
            Ok(open) => {
                out.commands.push(Command::Open(Box::new(open), OPEN_TICKET));
                self.state = State::Opening(login);
            }
            Err(fault) => self.fail(&fault.with_receipt(login.receipt.as_deref()), out),
        }
    }

    fn opened(&mut self, result: Result<Reply, Refusal>, now: Time, out: &mut Outbox) {
        let State::Opening(mut login) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        if let Err(refusal) = result {
            let fault = Fault::not_opened(&refusal).with_receipt(login.receipt.as_deref());
            return self.fail(&fault, out);
        }
        self.deadline = None;
        self.decoder.set_version(login.version);
        self.decoder.set_frame_size_max(self.settings.frame_size_max);
        self.heart_beat = std::mem::take(&mut login.heart_beat);
        self.heart_beat.hear(now);
        let mut random = Random::new(self.facts.seed);
        let session = random.name("session-").to_string();
        let first = login.first.take();
        if first.is_none() {
            self.welcome(&session, login.version, out);
        }
        let receipt = login.receipt.take();
        let settings = Arc::clone(&self.settings);
        let open = Open::new(*login, session, random, self.encoder, OPEN_TICKETS, settings);
        // The specification has none for CONNECT; RabbitMQ sends it where it is asked for.
        receipt.iter().for_each(|receipt| open.receipt(receipt, out));
        self.state = State::Open(Box::new(open));
        if let Some(first) = first {
            self.heed(&first, now, out);
        }
    }

    fn welcome(&self, session: &str, version: Version, out: &mut Outbox) {
        let mut frame = self.encoder.begin(&mut out.wire, ServerCommand::Connected);
        if let Some(server) = &self.settings.server {
            frame.header("server", server);
        }
        frame.header("session", session);
        frame.header("heart-beat", &self.heart_beat.header());
        frame.header("version", version.as_str());
        frame.finish(b"");
    }

    fn closed(&mut self, out: &mut Outbox) {
        if let State::Leaving(open, receipt) = std::mem::replace(&mut self.state, State::Over) {
            receipt.iter().for_each(|receipt| open.receipt(receipt, out));
            out.close = true;
        }
    }

    /// Tells the client what went wrong, and ends the connection where that is the rule.
    fn fail(&mut self, fault: &Fault, out: &mut Outbox) {
        fault.encode(self.encoder, &mut out.wire);
        if !fault.closes {
            return;
        }
        out.remarks.push(format!("{}: {}", fault.message, fault.detail));
        if let State::Open(_) | State::Opening(_) = self.state {
            out.commands.push(Command::Close(None));
        }
        self.end(out);
    }

    fn end(&mut self, out: &mut Outbox) {
        out.close = true;
        self.state = State::Over;
        self.deadline = None;
    }

    /// A client may break lines between frames, but not for a living.
    fn count_line_feeds(&mut self, now: Time, out: &mut Outbox) {
        let lines = &mut self.line_feeds;
        let seen = self.decoder.heart_beats();
        if now.since_ms(lines.since) >= 1000 {
            *lines = LineFeeds { since: now, before: lines.seen, seen, frames: 0 };
        }
        lines.seen = seen;
        // Clients end their frames with line feeds too.
        let allowed = self.settings.heart_beats_max + 8 * lines.frames;
        if seen - lines.before > allowed && !matches!(self.state, State::Over) {
            self.fail(&Fault::fatal("Too many heart-beats", ""), out);
        }
    }

    /// Before the end of each call: what was said counts as a heart-beat, and a client that is not read
    /// is not expected to be heard.
    fn settle_call(&mut self, said: bool, now: Time, out: &mut Outbox) {
        if said {
            self.heart_beat.say(now);
        }
        let held = matches!(&self.state, State::Open(open) if open.is_held());
        if held != self.paused {
            self.paused = held;
            self.heart_beat.pause(held, now);
            out.pause_reading = Some(held);
        }
        if let State::Open(open) = &mut self.state
            && let count @ 1.. = std::mem::take(&mut open.unwritten)
        {
            out.remarks.push(format!("{count} headers had no form in STOMP"));
        }
    }
}

impl Session for StompSession {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        self.begin(now);
        // What waited for this side is no sign of life.
        if input.len() > self.left {
            self.heart_beat.hear(now);
        }
        let before = out.wire.len();
        self.advance(input, now, out);
        self.left = input.len();
        self.settle_call(out.wire.len() > before, now, out);
    }

    fn notify(&mut self, event: Event, now: Time, out: &mut Outbox) {
        self.begin(now);
        let before = out.wire.len();
        match (&mut self.state, event) {
            (_, Event::Reply { ticket: CREDENTIAL_TICKET, result, .. }) => {
                let credential = match result {
                    Ok(Reply::Credential(credential)) => credential,
                    _ => None,
                };
                self.looked_up(credential, out);
            }
            (_, Event::Reply { ticket: OPEN_TICKET, result, .. }) => self.opened(result, now, out),
            (_, Event::Closed(CLOSE_TICKET)) => self.closed(out),
            // It goes back to its queue.
            (State::Leaving(..), Event::Delivered(_) | Event::DeliveredBatch(_)) => {}
            (State::Open(open) | State::Leaving(open, _), event) => {
                if let Err(fault) = open.event(event, out) {
                    self.fail(&fault, out);
                }
            }
            (State::Opening(login), Event::Blocked(reason)) => login.blocked = reason,
            (State::Opening(_) | State::Login(_), Event::ForceClose(_)) => self.end(out),
            (State::Greeting | State::Login(_) | State::Opening(_) | State::Over, _) => {}
        }
        self.settle_call(out.wire.len() > before, now, out);
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        self.begin(now);
        let before = out.wire.len();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.fail(&Fault::login("no login in time"), out);
        } else if let State::Open(_) = self.state {
            if self.heart_beat.is_dead(now) {
                out.remarks.push("the client missed its heart-beats".into());
                self.end(out);
            } else if self.heart_beat.is_due(now) {
                self.encoder.encode_heart_beat(&mut out.wire);
            }
        }
        self.settle_call(out.wire.len() > before, now, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        match self.state {
            // The first call says what time it is.
            _ if !self.started => Some(Time::ZERO),
            State::Open(_) => self.heart_beat.next_deadline(),
            State::Over => None,
            _ => self.deadline,
        }
    }

    fn verified(&mut self, accepted: bool, now: Time, out: &mut Outbox) {
        let before = out.wire.len();
        match &self.state {
            State::Login(_) if accepted => self.admit(out),
            State::Login(login) => {
                let refusal = login.refusal().with_receipt(login.receipt.as_deref());
                self.fail(&refusal, out);
            }
            _ => {}
        }
        self.settle_call(out.wire.len() > before, now, out);
    }

    fn flush(&mut self, _: &mut Outbox) {}
}
