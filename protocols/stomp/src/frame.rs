//! A frame, and what else may come between frames.

use bytes::Bytes;

use crate::{Command, Headers};

/// One frame, by default a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<C = Command> {
    pub command: C,
    pub headers: Headers,
    /// A slice of the input: keeping it keeps the whole buffer that it was read into.
    pub body: Bytes,
}

/// What a decoder finds in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<C = Command> {
    Frame(Frame<C>),
    /// Ends of line where a frame could have begun: the peer is alive. One event for as many as there
    /// were in a row; the decoder counts them.
    HeartBeat,
}
