//! A websocket as a stream of bytes, so that a session behind it sees no difference from a socket.
//!
//! Inwards, messages of either kind are joined. Outwards, each STOMP frame is a message of its own, as text
//! where it is text, unless binary is wanted; one larger than `PIECE_SIZE_MAX` goes out in pieces.

mod frames;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use self::frames::Frames;
use crate::config::WebsocketFrame;

/// Larger STOMP frames go out in several messages.
const PIECE_SIZE_MAX: usize = 64 << 10;
/// Gathered before the socket is written.
const WRITE_SIZE: usize = 128 << 10;
/// Beyond this the socket must take something first.
const WRITE_SIZE_MAX: usize = 1 << 20;
/// Pings in a second; more are a flood and end the connection.
const PINGS_MAX: u32 = 100;
const PING_WINDOW: Duration = Duration::from_secs(1);

pub(super) struct Websocket<I> {
    stream: WebSocketStream<Frames<I>>,
    /// What goes out.
    frame: WebsocketFrame,
    /// Of the message that is being read.
    input: Bytes,
    pings: u32,
    pings_since: Instant,
    /// Left of a STOMP frame that goes out in pieces.
    rest: usize,
    /// Why this side closes.
    closing: Option<CloseCode>,
    close_sent: bool,
    /// Nothing more comes from the other side.
    ended: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Websocket<I> {
    /// A socket whose handshake is over.
    pub(super) async fn new(io: I, message_size_max: usize, frame: WebsocketFrame) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(WRITE_SIZE)
            .max_write_buffer_size(WRITE_SIZE_MAX)
            .max_message_size(Some(message_size_max))
            .max_frame_size(Some(message_size_max));
        Self {
            stream: WebSocketStream::from_raw_socket(Frames::new(io), Role::Server, Some(config))
                .await,
            frame,
            input: Bytes::new(),
            pings: 0,
            pings_since: Instant::now(),
            rest: 0,
            closing: None,
            close_sent: false,
            ended: false,
        }
    }

    /// Reads the next part of the stream; false at its end.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.closing.is_some() && !self.ended {
                // The reader takes the end for a client that is gone, and would say nothing more.
                self.ended = true;
                ready!(Pin::new(&mut *self).poll_shutdown(context))?;
            }
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            let next = ready!(Pin::new(&mut self.stream).poll_next(context));
            match next {
                Some(Ok(Message::Text(text))) => self.input = text.into(),
                Some(Ok(Message::Binary(bytes))) => self.input = bytes,
                Some(Ok(Message::Ping(_))) => self.count_ping(),
                // After a close, the answer to it is on its way until the stream ends.
                Some(Ok(Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => {}
                None => self.ended = true,
                Some(Err(error)) => {
                    match self.stream.get_ref().fault().or_else(|| close_code(&error)) {
                        Some(code) => self.closing = Some(code),
                        None => {
                            self.ended = true;
                            if let Error::Io(error) = error {
                                return Poll::Ready(Err(error));
                            }
                        }
                    }
                }
            }
            if !self.input.is_empty() {
                return Poll::Ready(Ok(true));
            }
        }
    }

    /// The library keeps one answer at most; what a flood would cost is the reading.
    fn count_ping(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.pings_since) >= PING_WINDOW {
            self.pings_since = now;
            self.pings = 0;
        }
        self.pings += 1;
        if self.pings > PINGS_MAX {
            self.closing = Some(CloseCode::Policy);
        }
    }
}

/// How an error is told to the other side; `None` where nobody is there to be told.
fn close_code(error: &Error) -> Option<CloseCode> {
    Some(match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    })
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Websocket<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.input.is_empty() && !ready!(this.poll_input(context))? {
            return Poll::Ready(Ok(()));
        }
        let count = this.input.len().min(into.remaining());
        into.put_slice(&this.input[..count]);
        this.input.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Websocket<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.close_sent || this.closing.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(Pin::new(&mut this.stream).poll_ready(context)).map_err(io_error)?;
        let size = if this.rest > 0 { this.rest } else { frame_size(bytes) };
        let size = size.min(bytes.len());
        let (piece, count) = piece(&bytes[..size], this.frame);
        this.rest = size - count;
        Pin::new(&mut this.stream).start_send(piece).map_err(io_error)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.close_sent {
            ready!(Pin::new(&mut this.stream).poll_ready(context)).map_err(io_error)?;
            this.close_sent = true;
            let code = this.closing.unwrap_or(CloseCode::Normal);
            let close = Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
            Pin::new(&mut this.stream).start_send(close).map_err(io_error)?;
        }
        match Pin::new(&mut this.stream).poll_flush(context) {
            Poll::Ready(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => Poll::Ready(Ok(())),
            flushed => flushed.map_err(io_error),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// The next message of a STOMP frame, and how much of it that is.
fn piece(frame: &[u8], kind: WebsocketFrame) -> (Message, usize) {
    let bytes = &frame[..frame.len().min(PIECE_SIZE_MAX)];
    if kind == WebsocketFrame::Binary {
        return (Message::binary(Bytes::copy_from_slice(bytes)), bytes.len());
    }
    match str::from_utf8(bytes) {
        Ok(text) => (Message::text(text), bytes.len()),
        // A character that is cut belongs to the next piece.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            let whole = &bytes[..error.valid_up_to()];
            (Message::text(String::from_utf8_lossy(whole).into_owned()), whole.len())
        }
        Err(_) => (Message::binary(Bytes::copy_from_slice(bytes)), bytes.len()),
    }
}

/// How long the STOMP frame is that the bytes begin with, with the ends of line behind it.
/// Anything that is not one is taken as a whole.
fn frame_size(bytes: &[u8]) -> usize {
    let Some(head) = bytes.windows(2).position(|it| it == b"\n\n") else { return bytes.len() };
    let length = bytes[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"content-length:"))
        .and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let body = head + 2;
    let nul = match length {
        Some(length) => body.saturating_add(length),
        None => {
            bytes[body..].iter().position(|byte| *byte == 0).map_or(bytes.len(), |at| body + at)
        }
    };
    let mut size = nul.saturating_add(1).min(bytes.len());
    while bytes.get(size) == Some(&b'\n') {
        size += 1;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &[u8]) -> Vec<Message> {
        pieces_of(bytes, WebsocketFrame::Text)
    }

    fn pieces_of(mut bytes: &[u8], kind: WebsocketFrame) -> Vec<Message> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (mut frame, rest) = bytes.split_at(frame_size(bytes));
            while !frame.is_empty() {
                let (message, count) = piece(frame, kind);
                assert!(count > 0);
                all.push(message);
                frame = &frame[count..];
            }
            bytes = rest;
        }
        all
    }

    #[test]
    fn each_frame_is_a_message() {
        let wire = b"RECEIPT\nreceipt-id:1\n\n\0\nMESSAGE\ncontent-length:4\n\na\0\n\n\0\n\
                     MESSAGE\ncontent-length:2\n\n\xFF\xFE\0\n";
        let expected = [
            Message::text("RECEIPT\nreceipt-id:1\n\n\0\n"),
            Message::text("MESSAGE\ncontent-length:4\n\na\0\n\n\0\n"),
            Message::binary(&b"MESSAGE\ncontent-length:2\n\n\xFF\xFE\0\n"[..]),
        ];
        assert_eq!(pieces(wire), expected);
        assert_eq!(pieces(b"\n"), [Message::text("\n")]);
    }

    #[test]
    fn text_is_binary_where_that_is_wanted() {
        let wire = b"RECEIPT\nreceipt-id:1\n\n\0\nRECEIPT\nreceipt-id:2\n\n\0\n";
        let (one, two) = wire.split_at(wire.len() / 2);
        let expected = [one, two].map(|it| Message::binary(it.to_vec()));
        assert_eq!(pieces_of(wire, WebsocketFrame::Binary), expected);
    }

    #[test]
    fn large_frame_goes_out_in_pieces_of_whole_characters() {
        let wire = format!("MESSAGE\ncontent-length:100000\n\n{}\0\n", "ä".repeat(50_000));
        let sent = pieces(wire.as_bytes());
        assert!(sent.len() == 2 && sent.iter().all(Message::is_text));
        let joined: Vec<u8> = sent.into_iter().flat_map(Message::into_data).collect();
        assert_eq!(joined, wire.as_bytes());
    }
}
