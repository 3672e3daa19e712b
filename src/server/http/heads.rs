//! The heads of requests, seen before the library reads them: it drops a length that stands beside chunks, and nobody
//! behind it could tell that there was one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket whose requests are looked at.
pub(super) struct Heads<I> {
    io: I,
    scan: Scan,
    ambiguous: Ambiguous,
}

/// Whether a request came whose end others may see elsewhere.
#[derive(Clone, Default)]
pub(super) struct Ambiguous(Arc<AtomicBool>);

impl Ambiguous {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<I> Heads<I> {
    pub(super) fn new(io: I) -> (Self, Ambiguous) {
        let ambiguous = Ambiguous::default();
        let scan = Scan::Head { line: Vec::new(), length: None, chunked: false };
        (Self { io, scan, ambiguous: ambiguous.clone() }, ambiguous)
    }
}

/// ```text
/// Head --empty line--> Body --all of it--> Head
///   chunks, an upgrade, a line too long: Over
/// ```
enum Scan {
    Head {
        line: Vec<u8>,
        length: Option<u64>,
        chunked: bool,
    },
    /// So many bytes of it are to come.
    Body(u64),
    /// The connection ends with this request, or is none of HTTP's any more.
    Over,
}

/// The library refuses larger heads.
const LINE_MAX: usize = super::HEAD_SIZE_MAX;

impl Scan {
    /// False where a request says both how long it is and that it comes in chunks.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self {
                Self::Over => return true,
                Self::Body(rest) => {
                    let passing = (bytes.len() as u64).min(*rest);
                    *rest -= passing;
                    bytes = &bytes[passing as usize..];
                    if *rest == 0 {
                        *self = Self::Head { line: Vec::new(), length: None, chunked: false };
                    }
                }
                Self::Head { line, length, chunked } => {
                    let end = bytes.iter().position(|it| *it == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
                    bytes = rest;
                    if line.len() + part.len() > LINE_MAX {
                        *self = Self::Over;
                        return true;
                    }
                    line.extend_from_slice(part);
                    if end.is_none() {
                        return true;
                    }
                    let text = String::from_utf8_lossy(line.trim_ascii()).to_ascii_lowercase();
                    let blank = text.is_empty();
                    if let Some((name, value)) = text.split_once(':') {
                        match name {
                            "content-length" => *length = Some(value.trim().parse().unwrap_or(0)),
                            "transfer-encoding" => *chunked = true,
                            "upgrade" => *self = Self::Over,
                            _ => {}
                        }
                    }
                    if let Self::Head { line, length, chunked } = self {
                        line.clear();
                        if *chunked && length.is_some() {
                            return false;
                        }
                        if blank {
                            *self = match (*chunked, *length) {
                                (true, _) => Self::Over,
                                (false, Some(length @ 1..)) => Self::Body(length),
                                _ => Self::Head { line: Vec::new(), length: None, chunked: false },
                            };
                        }
                    }
                }
            }
        }
        true
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heads<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, into))?;
        if !this.scan.feed(&into.filled()[before..]) {
            this.ambiguous.0.store(true, Ordering::Relaxed);
            this.scan = Scan::Over;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heads<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
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
    use rstest::rstest;

    use super::*;

    const LENGTH: &str = "Content-Length: 2\r\n";
    const CHUNKS: &str = "transfer-ENCODING:chunked\r\n";

    #[rstest]
    #[case::one(&[LENGTH, "\r\n{}"], true)]
    #[case::other(&[CHUNKS, "\r\n2\r\n{}\r\n0\r\n\r\n"], true)]
    #[case::both(&[LENGTH, CHUNKS, "\r\n"], false)]
    #[case::both_turned(&[CHUNKS, LENGTH, "\r\n"], false)]
    #[case::in_a_body(&["content-length: 49\n\n", CHUNKS, LENGTH, "xxx"], true)]
    #[case::behind_a_body(&[LENGTH, "\r\n{}POST / HTTP/1.1\r\n", LENGTH, CHUNKS, "\r\n"], false)]
    #[case::in_two_requests(&[LENGTH, "\r\n{}POST / HTTP/1.1\r\n", CHUNKS, "\r\n"], true)]
    #[case::behind_an_upgrade(&["upgrade: websocket\r\n", LENGTH, CHUNKS, "\r\n"], true)]
    #[case::long_line(&["x: ", &"x".repeat(LINE_MAX), "\r\n", LENGTH, CHUNKS, "\r\n"], true)]
    fn lengths_beside_chunks_are_noticed(#[case] parts: &[&str], #[case] fine: bool) {
        let wire = format!("POST / HTTP/1.1\r\nhost: h\r\n{}", parts.concat());
        for piece in [1, 3, wire.len()] {
            let mut scan = Scan::Head { line: Vec::new(), length: None, chunked: false };
            let found = wire.as_bytes().chunks(piece).all(|it| scan.feed(it));
            assert_eq!(found, fine, "in pieces of {piece}");
        }
    }
}
