//! STOMP 1.0, 1.1 and 1.2: bytes to frames and back.
//!
//! Answers for framing, escapes, limits on what a peer may send, and the three headers whose form the
//! protocol fixes: `accept-version`, `content-length` and `heart-beat`. Knows nothing of sockets,
//! sessions or destinations, and never asks which frame may follow which.
//!
//! A [`Decoder`] reads what clients send and a [`ServerFrameDecoder`] what servers send; an [`Encoder`]
//! writes both kinds.

mod command;
mod decoder;
mod encoder;
mod error;
mod escape;
mod frame;
mod headers;
mod heart_beat;
mod limits;
mod scan;
mod version;

pub use command::{Command, FrameCommand, ServerCommand};
pub use decoder::{Decoder, FrameDecoder, ServerFrameDecoder};
pub use encoder::{Encoder, FrameWriter};
pub use error::StompError;
pub use frame::{Frame, Input};
pub use headers::Headers;
pub use heart_beat::parse_heart_beat;
pub use limits::Limits;
pub use version::{Version, negotiate_version};
