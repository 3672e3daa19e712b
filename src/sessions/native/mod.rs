//! The native protocol: one client connection, from its preface to the goodbye.
//!
//! This file knows the order of a connection's life. What an open connection does is in `open` and below.

mod answer;
mod browse;
mod define;
mod deliver;
mod list;
mod login;
mod open;
mod pull;
mod push;
mod refusal;
mod settings;
mod settle;
mod subscribe;
pub(crate) mod table;
mod topology;
mod will;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    Code, FrameError, Kind, Malformed, PREFACE_SIZE, Preface, Refused, Request, VERSION,
    encode_answer, next_frame, read_preface, write_empty,
};

use self::login::Login;
pub use self::login::Token;
use self::open::{Flow, Open};
pub use self::settings::Settings;
use super::{Facts, Outbox, Session};
use crate::broker::{self, ChannelId, Command, Credential, Event, Reply, Ticket, Time};

/// Tickets of the connection itself; those of requests come after.
const CREDENTIAL_TICKET: Ticket = Ticket(1);
const OPEN_TICKET: Ticket = Ticket(2);
const CLOSE_TICKET: Ticket = Ticket(3);
const REQUEST_TICKETS: u64 = 16;

/// One connection of the native protocol.
pub struct NativeSession {
    facts: Facts,
    settings: Arc<Settings>,
    state: State,
    silence: Silence,
}

/// ```text
/// Preface -> Greeted -> Login -> Opening -> Open -> Leaving -> Over
///   any --fault, refused login--> Over
/// ```
enum State {
    Preface,
    /// The client shall log in.
    Greeted,
    /// Examined outside; input waits.
    Login(Box<Login>),
    /// The broker opens the connection; input waits.
    Opening(Box<Login>),
    Open(Box<Open>),
    /// The client is done; what it asked is still answered, and goodbye is said when the broker has
    /// put everything away.
    Leaving(Box<Open>),
    Over,
}

/// Ends the connection of a client that promised a sign of life and gave none.
struct Silence {
    most_ms: Option<u64>,
    heard: Time,
}

/// What the client did wrong, or what else ends the connection.
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) text: String,
}

impl NativeSession {
    pub fn new(facts: Facts, settings: impl Into<Arc<Settings>>) -> Self {
        Self {
            facts,
            settings: settings.into(),
            state: State::Preface,
            silence: Silence { most_ms: None, heard: Time::ZERO },
        }
    }

    /// Takes as much of `input` as the state lets it.
    fn advance(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) -> Result<(), Fault> {
        loop {
            match &mut self.state {
                State::Preface => match read_preface(input) {
                    Preface::NeedMore => return Ok(()),
                    Preface::Client { lowest, highest }
                        if (lowest..=highest).contains(&VERSION) =>
                    {
                        let _ = input.split_to(PREFACE_SIZE);
                        encode_answer(VERSION, &mut out.wire);
                        login::hello(&self.settings, &self.facts, &mut out.wire);
                        self.state = State::Greeted;
                    }
                    _ => {
                        encode_answer(0, &mut out.wire);
                        out.remarks.push("no preface of this protocol and version".into());
                        out.close = true;
                        self.state = State::Over;
                    }
                },
                State::Greeted => {
                    let Some(frame) = next_frame(input, self.settings.login_size_max)? else {
                        return Ok(());
                    };
                    let size = frame.wire_len();
                    let request = Request::decode(&frame)?;
                    let login = match request {
                        Request::Login(login) => Login::read(frame.id, &login, &self.facts)?,
                        Request::Ping => {
                            write_empty(Kind::Pong, frame.id, &mut out.wire);
                            let _ = input.split_to(size);
                            continue;
                        }
                        _ => {
                            return Err(Fault::new(Code::NotAllowed, "log in first"));
                        }
                    };
                    out.commands.push(login.look_up());
                    let _ = input.split_to(size);
                    self.state = State::Login(Box::new(login));
                }
                State::Login(_) | State::Opening(_) => return Ok(()),
                State::Open(open) => {
                    let (end, broken) = extent(input, self.settings.frame_size_max);
                    let read = input.split_to(end).freeze();
                    let flow = open.read(&read, now, out)?;
                    match (flow, broken) {
                        (Flow::On, Some(error)) => return Err(error.into()),
                        (Flow::On, None) => return Ok(()),
                        // What comes after a close is not looked at.
                        (Flow::Leave, _) => {
                            open.bequeath(false, out);
                            out.commands.push(Command::Close(Some(CLOSE_TICKET)));
                            if let State::Open(open) =
                                std::mem::replace(&mut self.state, State::Over)
                            {
                                self.state = State::Leaving(open);
                            }
                        }
                    }
                }
                State::Leaving(_) | State::Over => {
                    input.clear();
                    return Ok(());
                }
            }
        }
    }

    /// The last word, and the end.
    fn fail(&mut self, fault: &Fault, out: &mut Outbox) {
        if let State::Open(open) | State::Leaving(open) = &mut self.state {
            open.flush(out);
            open.bequeath(true, out);
        }
        // There are no frames yet for who has not said what it speaks.
        if !matches!(self.state, State::Preface) {
            Refused { code: fault.code, text: &fault.text }.encode(Kind::Goodbye, 0, &mut out.wire);
        }
        out.remarks.push(fault.text.clone());
        out.close = true;
        self.state = State::Over;
    }

    fn looked_up(&mut self, credential: Option<Box<Credential>>, out: &mut Outbox) {
        let State::Login(login) = &mut self.state else { return };
        match login.looked_up(credential, &self.settings) {
            login::Next::Verify(verify) => out.verify = Some(verify),
            login::Next::Decided(accepted) => self.examined(accepted, out),
        }
    }

    /// The proof is good or not; some users may come from this machine only.
    fn examined(&mut self, accepted: bool, out: &mut Outbox) {
        let State::Login(login) = &self.state else { return };
        match login.admitted(accepted, &self.facts) {
            Ok(()) => {
                out.commands.push(login.open(&self.facts));
                if let State::Login(login) = std::mem::replace(&mut self.state, State::Over) {
                    self.state = State::Opening(login);
                }
            }
            Err(fault) => self.fail(&fault, out),
        }
    }

    fn opened(&mut self, result: Result<Reply, broker::Refusal>, now: Time, out: &mut Outbox) {
        let State::Opening(login) = &self.state else { return };
        match result {
            Ok(_) => {
                write_empty(Kind::Done, login.id, &mut out.wire);
                self.silence.most_ms = login.silence_max_ms();
                self.silence.heard = now;
                let open = Open::new(login, &self.facts, self.settings.clone());
                self.state = State::Open(Box::new(open));
            }
            Err(refusal) => {
                let fault = Fault::new(refusal::code(&refusal), refusal.to_string());
                self.fail(&fault, out);
            }
        }
    }
}

impl Session for NativeSession {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        self.silence.heard = now;
        if let Err(fault) = self.advance(input, now, out) {
            input.clear();
            self.fail(&fault, out);
        }
    }

    fn notify(&mut self, event: Event, now: Time, out: &mut Outbox) {
        match event {
            Event::Reply { ticket: CREDENTIAL_TICKET, result, .. } => match result {
                Ok(Reply::Credential(credential)) => self.looked_up(credential, out),
                Ok(Reply::Administrator(Some(found))) => {
                    let (user, credential) = *found;
                    if let State::Login(login) = &mut self.state {
                        login.user = user;
                    }
                    self.looked_up(Some(Box::new(credential)), out);
                }
                _ => self.looked_up(None, out),
            },
            Event::Reply { ticket: OPEN_TICKET, result, .. } => self.opened(result, now, out),
            Event::Closed(CLOSE_TICKET) => {
                let fault = Fault::new(Code::Closing, "closed as asked");
                self.fail(&fault, out);
                out.remarks.clear();
            }
            Event::ForceClose(reason) => {
                self.fail(&Fault::new(Code::Closing, reason), out);
            }
            event => match &mut self.state {
                State::Open(open) | State::Leaving(open) => open.notify(event, now, out),
                _ => answer::count_unsent(&event, out),
            },
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        if self.silence.is_over(now) {
            let fault = Fault::new(Code::Closing, "nothing was heard for too long");
            return self.fail(&fault, out);
        }
        if let State::Open(open) = &mut self.state {
            open.tick(now, out);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let open = match &self.state {
            State::Open(open) => open.next_deadline(),
            State::Over => return None,
            _ => None,
        };
        [open, self.silence.deadline()].into_iter().flatten().min()
    }

    fn verified(&mut self, accepted: bool, _now: Time, out: &mut Outbox) {
        self.examined(accepted, out);
    }

    fn flush(&mut self, out: &mut Outbox) {
        if let State::Open(open) = &mut self.state {
            open.flush(out);
        }
    }

    fn lost(&mut self, out: &mut Outbox) {
        if let State::Open(open) = &mut self.state {
            open.bequeath(true, out);
        }
    }
}

impl Silence {
    fn deadline(&self) -> Option<Time> {
        self.most_ms.map(|most| self.heard.plus_ms(most))
    }

    fn is_over(&self, now: Time) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

impl Fault {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooLarge { .. } => Code::TooLarge,
            FrameError::TooSmall(_) | FrameError::UnknownKind(_) => Code::Invalid,
        };
        Self::new(code, error.to_string())
    }
}

/// Where the whole frames end, and what is wrong behind them.
fn extent(input: &[u8], size_max: u32) -> (usize, Option<FrameError>) {
    let mut end = 0;
    loop {
        match next_frame(&input[end..], size_max) {
            Ok(Some(frame)) => end += frame.wire_len(),
            Ok(None) => return (end, None),
            Err(error) => return (end, Some(error)),
        }
    }
}

/// A channel for each subscription; this one for everything else.
const MAIN: ChannelId = ChannelId(0);
/// For pushes without an answer, so that what is refused of them is told apart.
const SILENT: ChannelId = ChannelId(u16::MAX);

/// Where a part of a buffer begins.
fn offset(part: &[u8], whole: &Bytes) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}
