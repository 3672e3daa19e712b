//! How much a peer may send before it is refused.

/// Bounds on one frame. Whatever crosses one is refused at the byte that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the first line, its end of line not counted.
    pub command_size_max: usize,
    /// Bytes of one header line as sent, its line feed not counted.
    pub header_line_size_max: usize,
    /// Bytes of all header lines with their ends, up to and with the blank one.
    pub header_block_size_max: usize,
    /// Header lines, repeated ones included.
    pub headers_max: usize,
    /// Bytes of command, headers and body together. A server raises it once its client has logged in.
    pub frame_size_max: usize,
}

impl Default for Limits {
    /// What a client may send before it has logged in.
    fn default() -> Self {
        Self {
            command_size_max: 32,
            header_line_size_max: 8 * 1024,
            header_block_size_max: 32 * 1024,
            headers_max: 100,
            frame_size_max: 64 * 1024,
        }
    }
}
