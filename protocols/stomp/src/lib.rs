//! STOMP 1.0, 1.1 and 1.2: bytes to frames and back.
//!
//! Answers for framing, escapes, limits on what a peer may send, and the three headers whose form the
//! protocol fixes: `accept-version`, `content-length` and `heart-beat`. Knows nothing of sockets,
//! sessions or destinations, and never asks which frame may follow which.

mod command;
mod error;
mod heart_beat;
mod limits;
mod version;

pub use command::{Command, FrameCommand, ServerCommand};
pub use error::StompError;
pub use heart_beat::parse_heart_beat;
pub use limits::Limits;
pub use version::{Version, negotiate_version};
