//! What a client's frames announce, seen before they are put together: the library bounds a message's bytes, not its frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Frames of one message; more, of which most are empty, are an attack.
const FRAMES_MAX: u32 = 16_384;
/// Two bytes, a length of 64 bits and a mask.
const HEAD_SIZE_MAX: usize = 14;

/// A socket that ends where a frame cannot be.
pub(super) struct Frames<I> {
    io: I,
    scan: Scan,
    fault: Option<CloseCode>,
}

impl<I> Frames<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, scan: Scan::default(), fault: None }
    }

    /// Why it ended.
    pub(super) fn fault(&self) -> Option<CloseCode> {
        self.fault
    }
}

#[derive(Default)]
struct Scan {
    head: [u8; HEAD_SIZE_MAX],
    head_size: usize,
    /// Of the payload that passes by.
    payload: u64,
    /// Of the message that is not complete.
    frames: u32,
}

impl Scan {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CloseCode> {
        loop {
            let passing = (bytes.len() as u64).min(self.payload);
            self.payload -= passing;
            bytes = &bytes[passing as usize..];
            let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.head[self.head_size] = *byte;
            self.head_size += 1;
            if self.head_size >= 2 && self.head_size == head_size(self.head[1]) {
                self.head_size = 0;
                self.frame()?;
            }
        }
    }

    /// A head is complete.
    fn frame(&mut self) -> Result<(), CloseCode> {
        let [first, second, ..] = self.head;
        self.payload = match second & 0x7F {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let [_, _, a, b, c, d, e, f, g, h, ..] = self.head;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
            length => u64::from(length),
        };
        if self.payload >> 63 != 0 {
            return Err(CloseCode::Protocol);
        }
        let (last, opcode) = (first & 0x80 != 0, first & 0x0F);
        // Control frames may stand between those of a message.
        if opcode < 8 {
            self.frames += 1;
            if self.frames > FRAMES_MAX {
                return Err(CloseCode::Policy);
            }
            if last {
                self.frames = 0;
            }
        }
        Ok(())
    }
}

fn head_size(second: u8) -> usize {
    let length = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

impl<I: AsyncRead + Unpin> AsyncRead for Frames<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, into))?;
        match this.scan.feed(&into.filled()[before..]) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(code) => {
                this.fault = Some(code);
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Frames<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xFF; payload + if masked { 4 } else { 0 }]);
        frame
    }

    /// Payloads of all lengths are stepped over, wherever the bytes are cut.
    #[test]
    fn frames_are_counted_however_they_come() {
        let mut wire = Vec::new();
        for (at, payload) in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000].into_iter().enumerate() {
            wire.extend(frame(if at == 0 { 0x01 } else { 0x00 }, payload, at % 2 == 0));
            wire.extend(frame(0x89, 3, true));
        }
        for piece in [1, 2, 7, 1000, wire.len()] {
            let mut scan = Scan::default();
            wire.chunks(piece).for_each(|it| scan.feed(it).expect("nothing is wrong"));
            assert_eq!((scan.frames, scan.head_size, scan.payload), (8, 0, 0));
            scan.feed(&frame(0x80, 5, true)).expect("nothing is wrong");
            assert_eq!(scan.frames, 0);
        }
    }

    #[test]
    fn too_many_frames_and_too_long_ones_are_refused() {
        let mut scan = Scan::default();
        for _ in 0..FRAMES_MAX {
            scan.feed(&frame(0x00, 0, true)).expect("as many as may be");
        }
        assert_eq!(scan.feed(&frame(0x00, 0, true)), Err(CloseCode::Policy));
        let mut long = frame(0x82, 65_536, true);
        long[2] = 0x80;
        assert_eq!(Scan::default().feed(&long), Err(CloseCode::Protocol));
    }
}
