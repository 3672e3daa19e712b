//! Bytes to frames, a piece at a time.

use bytes::{Buf, Bytes, BytesMut};

use crate::scan::{Bound, Scan};
use crate::{
    Command, Frame, FrameCommand, Headers, Input, Limits, ServerCommand, StompError, Version,
    negotiate_version,
};

/// Reads what clients send.
pub type Decoder = FrameDecoder<Command>;

/// Reads what servers send: for clients, tests and load tools.
pub type ServerFrameDecoder = FrameDecoder<ServerCommand>;

/// Takes frames from the front of a buffer that grows at its end.
///
/// The work is linear in the input however it is cut, and nothing is allocated for what has only been
/// announced. Finished lines are consumed at once, so the buffer holds at most one line or one body
/// that is not complete.
#[derive(Debug)]
pub struct FrameDecoder<C> {
    limits: Limits,
    version: Version,
    stage: Stage<C>,
    scan: Scan,
    /// Bytes consumed of the frame that has begun, and of its header block.
    frame_size: usize,
    header_block_size: usize,
    header_lines: usize,
    heart_beats: u64,
    /// After an error nobody knows where the next frame begins.
    failed: Option<StompError>,
}

/// ```text
/// Between -> Command -> Headers -> Body -> Between
/// ```
#[derive(Debug)]
enum Stage<C> {
    Between,
    Command,
    Headers {
        command: C,
        headers: Headers,
    },
    Body {
        command: C,
        headers: Headers,
        /// From content-length, and within the limit; without it the first NUL ends the body.
        length: Option<usize>,
    },
}

impl<C: FrameCommand> FrameDecoder<C> {
    /// A decoder at the start of a conversation, where the version is 1.0 until something else is agreed.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            version: Version::V10,
            stage: Stage::Between,
            scan: Scan::default(),
            frame_size: 0,
            header_block_size: 0,
            header_lines: 0,
            heart_beats: 0,
            failed: None,
        }
    }

    /// Takes effect at once, also for a frame that has begun.
    pub fn set_frame_size_max(&mut self, frame_size_max: usize) {
        self.limits.frame_size_max = frame_size_max;
    }

    /// The version of the frames that follow. To be set between CONNECT and the next call of `decode`.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Ends of line seen between frames so far, for whoever limits their rate.
    pub fn heart_beats(&self) -> u64 {
        self.heart_beats
    }

    /// Whether the input so far ends inside a frame.
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.stage, Stage::Between)
    }

    /// Takes one frame or one run of heart-beats from the front of `input`; `None` asks for more bytes.
    ///
    /// What is left in `input` must stay at its front. An error is final and repeats itself.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Input<C>>, StompError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let decoded = self.resume(input);
        if let Err(error) = &decoded {
            self.failed = Some(error.clone());
        }
        decoded
    }

    fn resume(&mut self, input: &mut BytesMut) -> Result<Option<Input<C>>, StompError> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Between) {
                Stage::Between => {
                    if self.skip_heart_beats(input) {
                        return Ok(Some(Input::HeartBeat));
                    }
                    // A lone CR may be the first half of a heart-beat.
                    if matches!(**input, [] | [b'\r']) {
                        return Ok(None);
                    }
                    self.stage = Stage::Command;
                }
                Stage::Command => {
                    let Some(command) = self.read_command(input)? else {
                        self.stage = Stage::Command;
                        return Ok(None);
                    };
                    self.stage = Stage::Headers { command, headers: Headers::new() };
                }
                Stage::Headers { command, mut headers } => {
                    if !self.read_headers(input, command, &mut headers)? {
                        self.stage = Stage::Headers { command, headers };
                        return Ok(None);
                    }
                    let length = self.settle_headers(command, &mut headers)?;
                    self.stage = Stage::Body { command, headers, length };
                }
                Stage::Body { command, headers, length } => {
                    let Some(body) = self.read_body(input, length)? else {
                        self.stage = Stage::Body { command, headers, length };
                        return Ok(None);
                    };
                    return Ok(Some(Input::Frame(Frame { command, headers, body })));
                }
            }
        }
    }

    /// Consumes ends of line, and NULs as RabbitMQ does; says whether there were any.
    fn skip_heart_beats(&mut self, input: &mut BytesMut) -> bool {
        let mut at = 0;
        let mut beats = 0;
        loop {
            at += match &input[at..] {
                [b'\n' | 0, ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => break,
            };
            beats += 1;
        }
        self.scan.note(at);
        input.advance(at);
        self.heart_beats += beats;
        beats > 0
    }

    fn read_command(&mut self, input: &mut BytesMut) -> Result<Option<C>, StompError> {
        let Limits { command_size_max: max, frame_size_max, .. } = self.limits;
        let bounds = [
            Bound::on_line(max, StompError::CommandTooLong { max }),
            Bound::on_block(frame_size_max, 0, StompError::FrameTooLarge { max: frame_size_max }),
        ];
        let Some(end) = self.scan.line_end(input, bounds)? else {
            return Ok(None);
        };
        let line = without_cr(&input[..end]);
        let command = C::parse(line).ok_or_else(|| {
            StompError::UnknownCommand(String::from_utf8_lossy(line).into_owned())
        })?;
        input.advance(end + 1);
        self.frame_size = end + 1;
        self.header_block_size = 0;
        self.header_lines = 0;
        Ok(Some(command))
    }

    /// Reads header lines up to the blank one; says whether that was reached.
    fn read_headers(
        &mut self,
        input: &mut BytesMut,
        command: C,
        headers: &mut Headers,
    ) -> Result<bool, StompError> {
        let limits = self.limits;
        let escapes = command.reads_escapes(self.version);
        let mut at = 0;
        let complete = loop {
            let rest = &input[at..];
            let max = limits.header_line_size_max;
            let line_bound = Bound::on_line(max, StompError::HeaderLineTooLong { max });
            let max = limits.header_block_size_max;
            let block_bound = Bound::on_block(
                max,
                self.header_block_size,
                StompError::HeaderBlockTooLong { max },
            );
            let max = limits.frame_size_max;
            let frame_bound =
                Bound::on_block(max, self.frame_size, StompError::FrameTooLarge { max });
            let Some(end) = self.scan.line_end(rest, [line_bound, block_bound, frame_bound])?
            else {
                break false;
            };
            at += end + 1;
            self.header_block_size += end + 1;
            self.frame_size += end + 1;
            let line = without_cr(&rest[..end]);
            if line.is_empty() {
                break true;
            }
            self.header_lines += 1;
            if self.header_lines > limits.headers_max {
                let max = limits.headers_max;
                return Err(StompError::TooManyHeaders { max });
            }
            headers.push_line(line, escapes)?;
        };
        input.advance(at);
        Ok(complete)
    }

    /// Does what has to wait for the last header, and returns the length of the body if declared.
    fn settle_headers(
        &self,
        command: C,
        headers: &mut Headers,
    ) -> Result<Option<usize>, StompError> {
        let version = if command.is_opening() {
            // Without a common version there will be no conversation, so nothing is lost by not trimming.
            negotiate_version(headers.get("accept-version")).unwrap_or(Version::V12)
        } else {
            self.version
        };
        if version == Version::V10 {
            headers.trim_values();
        }
        let Some(length) = headers.settle_content_length()? else {
            return Ok(None);
        };
        let max = self.limits.frame_size_max;
        match usize::try_from(length) {
            Ok(length) if length <= max.saturating_sub(self.frame_size) => Ok(Some(length)),
            _ => Err(StompError::FrameTooLarge { max }),
        }
    }

    /// Reads a body and the NUL after it.
    fn read_body(
        &mut self,
        input: &mut BytesMut,
        length: Option<usize>,
    ) -> Result<Option<Bytes>, StompError> {
        let length = match length {
            Some(length) => match input.get(length) {
                None => return Ok(None),
                Some(0) => length,
                Some(_) => return Err(StompError::BodyWithoutNul),
            },
            None => {
                let max = self.limits.frame_size_max;
                let found = self.scan.nul(input);
                if found.unwrap_or(input.len()) > max.saturating_sub(self.frame_size) {
                    return Err(StompError::FrameTooLarge { max });
                }
                let Some(length) = found else {
                    return Ok(None);
                };
                length
            }
        };
        let body = input.split_to(length).freeze();
        input.advance(1);
        Ok(Some(body))
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const INPUT_SIZE: usize = 60_000;

    fn long_line() -> Vec<u8> {
        let mut input = b"SEND\na:".to_vec();
        input.resize(INPUT_SIZE, b'x');
        input.extend_from_slice(b"\n\n\0");
        input
    }

    fn long_body(headers: &str) -> Vec<u8> {
        let mut input = format!("SEND\n{headers}\n").into_bytes();
        input.resize(input.len() + INPUT_SIZE, b'x');
        input.push(0);
        input
    }

    #[rstest]
    #[case::line(long_line())]
    #[case::body(long_body(""))]
    #[case::counted_body(long_body("content-length:60000\n"))]
    #[case::headers(format!("SEND\n{}\n\0", "a:b\n".repeat(INPUT_SIZE / 4)).into_bytes())]
    #[case::heart_beats([b"\r\n".repeat(INPUT_SIZE / 2), b"SEND\n\n\0".to_vec()].concat())]
    #[case::commands(b"SEND\n\n\0".repeat(INPUT_SIZE / 7))]
    fn every_byte_is_examined_once(
        #[case] bytes: Vec<u8>,
        #[values(1, 7, usize::MAX)] step: usize,
    ) {
        let limits = Limits {
            header_line_size_max: usize::MAX,
            header_block_size_max: usize::MAX,
            headers_max: usize::MAX,
            frame_size_max: usize::MAX,
            ..Limits::default()
        };
        let mut decoder = Decoder::new(limits);
        let mut input = BytesMut::new();
        let mut frames = 0;
        for piece in bytes.chunks(step.min(bytes.len())) {
            input.extend_from_slice(piece);
            while let Some(event) = decoder.decode(&mut input).unwrap() {
                frames += usize::from(event != Input::HeartBeat);
            }
        }
        assert!(frames > 0);
        assert!(!decoder.is_inside_frame());
        assert!(decoder.scan.examined <= bytes.len());
    }

    #[test]
    fn announced_length_allocates_nothing() {
        let mut decoder = Decoder::new(Limits::default());
        let mut input = BytesMut::from("SEND\ncontent-length:60000\n\nabc");
        let capacity = input.capacity();
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(input.capacity() <= capacity);
        assert!(decoder.is_inside_frame());
    }

    #[test]
    fn body_is_a_slice_of_the_input() {
        let mut decoder = Decoder::new(Limits::default());
        let mut input = BytesMut::from("SEND\n\nbody\0");
        let body_at = input[6..].as_ptr();
        let Ok(Some(Input::Frame(frame))) = decoder.decode(&mut input) else {
            panic!("the frame is complete");
        };
        assert_eq!(frame.body, "body");
        assert_eq!(frame.body.as_ptr(), body_at);
    }
}
