//! The orderly stop: no new connections, a word to those there are, everything to the disk.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Server;
use super::notice::Notice;
use crate::config::Period;
use crate::store::StoreError;

/// What clients are told.
const FAREWELL: &str = "broker shutting down";
/// Severed connections have nothing left to do but end.
const SEVER_TIMEOUT: Period = Period::seconds(2);

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("the store did not close well: {0}")]
    Store(#[from] StoreError),
    #[error("the broker had stopped before")]
    Gone,
}

impl Server {
    /// Stops in good order: when it returns, everything is durable and the data directory is free.
    pub async fn stop(self) -> Result<(), StopError> {
        self.closed.cancel();
        self.connections.close();
        self.notices.send(Notice::GoingDown(FAREWELL.into())).map_err(|_| StopError::Gone)?;
        if timeout(self.stop_timeout.0, self.connections.wait()).await.is_err() {
            tracing::warn!(left = self.connections.len(), "clients did not leave in time");
            self.notices.send(Notice::Sever).map_err(|_| StopError::Gone)?;
            let _ = timeout(SEVER_TIMEOUT.0, self.connections.wait()).await;
        }
        let (answer, closed) = oneshot::channel();
        self.notices.send(Notice::Stop(answer)).map_err(|_| StopError::Gone)?;
        Ok(closed.await.map_err(|_| StopError::Gone)??)
    }
}

impl Server {
    /// Stops without waiting: connections end, and what was accepted is written behind the caller's back.
    pub fn abandon(&self) {
        self.closed.cancel();
        let _ = self.notices.send(Notice::Sever);
        let (answer, _) = oneshot::channel();
        let _ = self.notices.send(Notice::Stop(answer));
    }
}

/// SIGTERM and SIGINT, heard from the moment this exists.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
