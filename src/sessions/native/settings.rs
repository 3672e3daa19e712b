//! What an operator can set of the native protocol, and how far a client may go.

use super::login::Token;
use crate::broker::inspect::SLICE_MAX;

/// Limits and habits of native sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest size of a frame that a client may send.
    pub frame_size_max: u32,
    /// A frame before the login.
    pub login_size_max: u32,
    /// Properties and body of a message; a push with a larger one is refused.
    pub message_size_max: u64,
    /// Messages that one push may have; a larger one is refused.
    pub push_count_max: u32,
    /// Wills of a connection.
    pub wills_max: usize,
    /// Bytes of a will.
    pub will_size_max: usize,
    /// Pulls of a connection that wait at the same time; more are refused.
    pub pulls_max: usize,
    /// Messages that one pull brings at most.
    pub pull_count_max: u32,
    /// A pull stops asking for more beyond this.
    pub pull_bytes_max: u64,
    /// A frame of deliveries is ended at this size and another begun.
    pub delivery_frame_size: usize,
    /// Positions that one settlement names at most.
    pub settle_count_max: u64,
    /// Rows of a list in one answer.
    pub list_count_max: u32,
    /// Proves somebody who can read this host's files; then any user's password is not asked for.
    pub token: Option<Token>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frame_size_max: 129 << 20,
            login_size_max: 16 << 10,
            message_size_max: 128 << 20,
            push_count_max: 1 << 16,
            wills_max: 64,
            will_size_max: 64 << 10,
            pulls_max: 1024,
            pull_count_max: 4096,
            pull_bytes_max: 4 << 20,
            delivery_frame_size: 256 << 10,
            settle_count_max: 1 << 20,
            list_count_max: SLICE_MAX as u32,
            token: None,
        }
    }
}
