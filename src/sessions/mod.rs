//! One conversation with a client: bytes in, commands out; events in, bytes out.
//!
//! A session knows its protocol and the broker's words. It knows no socket, no clock and no disk.

pub mod amqp;
pub mod native;
mod random;
pub mod stomp;

use bytes::BytesMut;

use crate::broker::{Command, Credential, Event, Time};

pub trait Session: Send {
    /// Takes whole frames from the front of `input` and leaves the rest of an incomplete one.
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox);

    /// The broker has something to say.
    fn notify(&mut self, event: Event, now: Time, out: &mut Outbox);

    /// Time passed: heartbeats, deadlines.
    fn tick(&mut self, now: Time, out: &mut Outbox);

    /// When `tick` wants to be called next.
    fn next_deadline(&self) -> Option<Time>;

    /// The answer to `Outbox::verify`.
    fn verified(&mut self, accepted: bool, now: Time, out: &mut Outbox);

    /// After a batch of calls: whatever was held back to be said once (cumulative confirms).
    fn flush(&mut self, out: &mut Outbox);

    /// The connection is gone; commands may still go to the broker.
    fn lost(&mut self, _out: &mut Outbox) {}
}

/// What a session wants done, gathered over a batch of calls.
#[derive(Default)]
pub struct Outbox {
    /// Bytes for the socket, in order.
    pub wire: BytesMut,
    /// For the broker, in order.
    pub commands: Vec<Command>,
    /// A password to check outside: slow by design. The answer is `Session::verified`.
    pub verify: Option<Verify>,
    /// Deliveries that were turned into bytes in this batch, reported to the broker once they are written.
    pub deliveries: u32,
    pub delivery_bytes: u64,
    /// Close the socket once `wire` is written.
    pub close: bool,
    /// Stop reading from the socket (`Some(true)`) or go on (`Some(false)`).
    pub pause_reading: Option<bool>,
    /// For the log: why the conversation ends, or what the client did wrong.
    pub remarks: Vec<String>,
}

pub struct Verify {
    pub user: String,
    pub password: Vec<u8>,
    /// `None` for an unknown user: the check costs as much and fails.
    pub credential: Option<Credential>,
}

/// What the server knows of a connection when it is accepted.
#[derive(Clone, Debug)]
pub struct Facts {
    pub peer: String,
    pub local: String,
    pub loopback: bool,
    pub tls: bool,
    /// Distinguished name, common name of the client's certificate, where there is one.
    pub certificate_user: Option<String>,
    /// Random; for names the session makes up.
    pub seed: u64,
}
