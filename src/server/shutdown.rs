//! The orderly stop: no new connections, a word to those there are, everything to the disk.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Server;
use super::notice::Notice;
use super::stand_in::StoreError;
use crate::config::Period;

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

/// Waits for SIGTERM or SIGINT and names it.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
