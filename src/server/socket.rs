//! A socket with what was read from it and not understood yet, and what is to be written.
//!
//! Memory follows use: an idle connection holds no buffers, a busy one reads up to 128 KiB at a time.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// A read of a quiet connection goes through the stack and costs no buffer while it waits.
const PROBE_SIZE: usize = 8 << 10;
const READ_SIZE: usize = 64 << 10;
const READ_SIZE_MAX: usize = 128 << 10;
/// Buffers of this size stay with a connection that has nothing to say.
const IDLE_SIZE_MAX: usize = 1 << 10;

pub(super) struct Socket<I> {
    io: I,
    /// Read and not consumed.
    pub(super) input: BytesMut,
    /// How much to read at once; 0 for a probe.
    read_size: usize,
    /// How much of the wire's front was written.
    written: usize,
    /// Written and perhaps still held back by a layer below (TLS).
    unflushed: bool,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Socket<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, input: BytesMut::new(), read_size: 0, written: 0, unflushed: false }
    }

    /// Reads once and appends to `input`. `Ok(0)` is the end. Only a `trusted` client gets a large buffer.
    pub(super) fn poll_read(
        &mut self,
        trusted: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.read_size == 0 || !trusted {
            return self.poll_probe(context);
        }
        if self.input.capacity() - self.input.len() < self.read_size / 2 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), context, &mut self.input))?;
        if count == room {
            self.read_size = READ_SIZE_MAX;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_probe(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut probe = [const { MaybeUninit::uninit() }; PROBE_SIZE];
        let mut probe = ReadBuf::uninit(&mut probe);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut probe))?;
        let count = probe.filled().len();
        self.input.extend_from_slice(probe.filled());
        if count == PROBE_SIZE {
            self.read_size = READ_SIZE;
        }
        Poll::Ready(Ok(count))
    }

    /// Writes until the wire is empty or the socket takes no more; says how much was written.
    pub(super) fn poll_write(
        &mut self,
        wire: &mut BytesMut,
        context: &mut Context<'_>,
    ) -> io::Result<usize> {
        let before = self.written;
        while self.written < wire.len() {
            let rest = &wire[self.written..];
            match Pin::new(&mut self.io).poll_write(context, rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        let count = self.written - before;
        self.unflushed |= count > 0;
        if self.written == wire.len() {
            wire.clear();
            self.written = 0;
            if self.unflushed && Pin::new(&mut self.io).poll_flush(context)?.is_ready() {
                self.unflushed = false;
            }
        } else if self.written > READ_SIZE_MAX {
            wire.advance(self.written);
            self.written = 0;
        }
        Ok(count)
    }

    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    /// Reads and forgets, so that the last words written are not torn by a reset.
    pub(super) fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.clear();
        self.read_size = 0;
        self.poll_probe(context)
    }

    /// Gives back memory after a burst.
    pub(super) fn shrink(&mut self, wire: &mut BytesMut) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.read_size = 0;
        }
        if wire.is_empty() && wire.capacity() > IDLE_SIZE_MAX {
            *wire = BytesMut::new();
        }
    }
}
