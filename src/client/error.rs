//! What can go wrong between a program and its broker.

use std::io;

use pillarbox_native::{Code, Malformed};

/// Every way a client call fails. Clones tell all callers of a broken connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no broker answers on {address} ({reason}): start one with `pillarbox serve`")]
    NoBroker { address: String, reason: String },
    #[error("what answers on {address} does not speak the native protocol")]
    OtherProtocol { address: String },
    /// No handshake, or nothing to begin one with.
    #[error("TLS with {0}")]
    Tls(String),
    #[error("login refused: {0}")]
    Login(String),
    /// The broker says no.
    #[error("{text}")]
    Refused { code: Code, text: String },
    /// The broker ended the connection.
    #[error("the broker closed the connection: {0}")]
    Closed(String),
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
    #[error("the broker sent what cannot be read: {0}")]
    Malformed(String),
    #[error("no answer came in time")]
    Timeout,
    #[error("{0}")]
    Topic(String),
}

impl Error {
    pub(super) fn lost(error: &io::Error) -> Self {
        Self::Lost(error.to_string())
    }

    pub(super) fn unexpected(to: &str) -> Self {
        Self::Malformed(format!("an answer that does not belong to {to}"))
    }

    /// The connection is no more: what was asked may or may not have been done.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Closed(_) | Self::NoBroker { .. })
    }

    /// The reason of a refusal, for programs.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Login(_) => Some(Code::LoginFailed),
            _ => None,
        }
    }
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.to_string())
    }
}
