//! The commands: what the first line of a frame may say.

use std::fmt;

use crate::Version;

/// A command that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    Connect,
    /// CONNECT under its newer name, without its exemption from escapes.
    Stomp,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
}

/// A command that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerCommand {
    Connected,
    Message,
    Receipt,
    Error,
}

/// Either side's commands, with what sets their frames apart on the wire.
pub trait FrameCommand: sealed::Sealed + Copy + fmt::Debug {
    /// The command written exactly like this, in capitals.
    fn parse(line: &[u8]) -> Option<Self>;

    fn as_str(self) -> &'static str;

    /// Whether this frame opens the conversation, so that it names its version itself.
    fn is_opening(self) -> bool;

    /// Whether the headers of this frame are written with escapes.
    fn writes_escapes(self, version: Version) -> bool;

    /// Whether escapes in the headers of this frame are taken for escapes.
    fn reads_escapes(self, version: Version) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Command {}
    impl Sealed for super::ServerCommand {}
}

impl FrameCommand for Command {
    fn parse(line: &[u8]) -> Option<Self> {
        Some(match line {
            b"CONNECT" => Self::Connect,
            b"STOMP" => Self::Stomp,
            b"SEND" => Self::Send,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"DISCONNECT" => Self::Disconnect,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
        }
    }

    fn is_opening(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp)
    }

    // "Value Encoding" of 1.1 and 1.2 exempts CONNECT and CONNECTED and does not mention STOMP. stomp.py
    // takes it by the letter: it escapes the headers of STOMP and not those of CONNECT.
    fn writes_escapes(self, version: Version) -> bool {
        version != Version::V10 && self != Self::Connect
    }

    // 1.0 has no escapes, but RabbitMQ decodes them there too.
    fn reads_escapes(self, _: Version) -> bool {
        self != Self::Connect
    }
}

impl FrameCommand for ServerCommand {
    fn parse(line: &[u8]) -> Option<Self> {
        Some(match line {
            b"CONNECTED" => Self::Connected,
            b"MESSAGE" => Self::Message,
            b"RECEIPT" => Self::Receipt,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    // CONNECTED names its version too, in `version`; no value in it begins with a blank.
    fn is_opening(self) -> bool {
        false
    }

    fn writes_escapes(self, version: Version) -> bool {
        version != Version::V10 && self != Self::Connected
    }

    fn reads_escapes(self, version: Version) -> bool {
        self.writes_escapes(version)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ServerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
