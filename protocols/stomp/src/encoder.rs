//! Frames to bytes, written straight into the buffer that is sent.

use bytes::{BufMut, BytesMut};

use crate::escape::escape;
use crate::{Command, FrameCommand, ServerCommand, Version};

const CONTENT_LENGTH: &str = "content-length";

/// How one side of a conversation writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoder {
    pub version: Version,
    /// Whether a line feed follows the NUL of each frame, as RabbitMQ sends it by default.
    pub line_feed_after_frame: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new(Version::V10)
    }
}

impl Encoder {
    pub fn new(version: Version) -> Self {
        Self { version, line_feed_after_frame: true }
    }

    /// Begins a frame; headers are then written as they are known.
    pub fn begin<C: FrameCommand>(self, out: &mut BytesMut, command: C) -> FrameWriter<'_> {
        out.put_slice(command.as_str().as_bytes());
        out.put_u8(b'\n');
        FrameWriter {
            out,
            escapes: command.writes_escapes(self.version),
            line_feed_after_frame: self.line_feed_after_frame,
            dropped: 0,
        }
    }

    /// Writes a server's frame and returns how many headers were dropped. See [`FrameWriter::header`].
    pub fn encode_frame(
        self,
        out: &mut BytesMut,
        command: ServerCommand,
        headers: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
        body: &[u8],
    ) -> usize {
        self.encode(out, command, headers, body)
    }

    /// Writes a MESSAGE and returns how many headers were dropped.
    pub fn encode_message(
        self,
        out: &mut BytesMut,
        headers: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
        body: &[u8],
    ) -> usize {
        self.encode(out, ServerCommand::Message, headers, body)
    }

    /// Writes a client's frame and returns how many headers were dropped: for clients, tests and load
    /// tools.
    pub fn encode_client_frame(
        self,
        out: &mut BytesMut,
        command: Command,
        headers: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
        body: &[u8],
    ) -> usize {
        self.encode(out, command, headers, body)
    }

    /// Writes the end of line that says that the sender is alive.
    pub fn encode_heart_beat(self, out: &mut BytesMut) {
        out.put_u8(b'\n');
    }

    fn encode(
        self,
        out: &mut BytesMut,
        command: impl FrameCommand,
        headers: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
        body: &[u8],
    ) -> usize {
        let mut frame = self.begin(out, command);
        for (name, value) in headers {
            frame.header(name.as_ref(), value.as_ref());
        }
        frame.finish(body)
    }
}

/// A frame whose command is written and whose headers are being written.
#[derive(Debug)]
#[must_use = "a frame ends with `finish`"]
pub struct FrameWriter<'a> {
    out: &'a mut BytesMut,
    escapes: bool,
    line_feed_after_frame: bool,
    dropped: usize,
}

impl FrameWriter<'_> {
    /// Writes a header, or drops and counts it if the frame cannot carry it.
    ///
    /// No frame carries an empty name or a NUL. Without escapes, which is in 1.0 and in CONNECT and
    /// CONNECTED, none carries an end of line or a colon in a name. A `content-length` is passed over:
    /// it is written from the body, and another one would let a message end its frame where it likes.
    pub fn header(&mut self, name: &str, value: &str) {
        if name == CONTENT_LENGTH {
            return;
        }
        if !self.can_carry(name, value) {
            self.dropped += 1;
            return;
        }
        if self.escapes {
            escape(name, self.out);
            self.out.put_u8(b':');
            escape(value, self.out);
        } else {
            self.out.put_slice(name.as_bytes());
            self.out.put_u8(b':');
            self.out.put_slice(value.as_bytes());
        }
        self.out.put_u8(b'\n');
    }

    /// Writes a header with a number for its value.
    pub fn header_number(&mut self, name: &str, value: u64) {
        let mut digits = [0; DIGITS_MAX];
        self.header(name, decimal(value, &mut digits));
    }

    /// Ends the headers, writes the body and returns how many headers were dropped.
    pub fn finish(self, body: &[u8]) -> usize {
        if !body.is_empty() {
            let mut digits = [0; DIGITS_MAX];
            let length = decimal(body.len() as u64, &mut digits);
            self.out.put_slice(CONTENT_LENGTH.as_bytes());
            self.out.put_u8(b':');
            self.out.put_slice(length.as_bytes());
            self.out.put_u8(b'\n');
        }
        self.out.reserve(body.len() + 3);
        self.out.put_u8(b'\n');
        self.out.put_slice(body);
        self.out.put_u8(0);
        if self.line_feed_after_frame {
            self.out.put_u8(b'\n');
        }
        self.dropped
    }

    fn can_carry(&self, name: &str, value: &str) -> bool {
        let carried = |byte: &u8| match byte {
            0 => false,
            b'\n' | b'\r' => self.escapes,
            _ => true,
        };
        !name.is_empty()
            && (self.escapes || !name.contains(':'))
            && name.as_bytes().iter().all(carried)
            && value.as_bytes().iter().all(carried)
    }
}

/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;

fn decimal(mut number: u64, digits: &mut [u8; DIGITS_MAX]) -> &str {
    let mut first = DIGITS_MAX;
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&digits[first..]).expect("digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 65_535, u64::MAX] {
            let mut digits = [0; DIGITS_MAX];
            assert_eq!(decimal(number, &mut digits), number.to_string());
        }
    }
}
