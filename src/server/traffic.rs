//! What goes through each socket, for who looks at connections.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::broker::{ConnectionId, Time};
use crate::management::json::ConnectionFacts;

/// One connection's.
#[derive(Debug)]
pub(super) struct Traffic {
    connected_at: Time,
    tls: bool,
    received: AtomicU64,
    sent: AtomicU64,
}

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct Register(Mutex<BTreeMap<ConnectionId, Arc<Traffic>>>);

/// A connection's entry, for as long as it lives.
pub(super) struct Entry {
    register: Arc<Register>,
    id: ConnectionId,
    pub(super) traffic: Arc<Traffic>,
}

impl Register {
    pub(super) fn enter(self: &Arc<Self>, id: ConnectionId, now: Time, tls: bool) -> Entry {
        let traffic = Arc::new(Traffic {
            connected_at: now,
            tls,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        self.lock().insert(id, traffic.clone());
        Entry { register: self.clone(), id, traffic }
    }

    pub(super) fn facts(&self, id: ConnectionId) -> ConnectionFacts {
        self.lock().get(&id).map(|traffic| traffic.facts()).unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<(ConnectionId, ConnectionFacts)> {
        self.lock().iter().map(|(id, traffic)| (*id, traffic.facts())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Arc<Traffic>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traffic {
    fn facts(&self) -> ConnectionFacts {
        ConnectionFacts {
            connected_at: self.connected_at,
            tls: self.tls,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.register.lock().remove(&self.id);
    }
}

/// A socket whose bytes are counted.
pub(super) struct Counted<I> {
    io: I,
    traffic: Arc<Traffic>,
}

impl<I> Counted<I> {
    pub(super) fn new(io: I, traffic: Arc<Traffic>) -> Self {
        Self { io, traffic }
    }

    fn wrote(&self, count: usize) {
        self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, into))?;
        let count = into.filled().len() - before;
        self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write(context, from))?;
        self.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write_vectored(context, from))?;
        self.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
