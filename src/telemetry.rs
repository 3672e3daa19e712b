//! Logs on stderr. Lines of a connection carry its span: id, protocol and peer.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("'{0}' is not a log level such as info or info,pillarbox::server=debug")]
    Level(String),
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

/// Starts logging for the whole process: `info`, or levels for parts of it.
pub fn start(levels: &str) -> Result<(), TelemetryError> {
    let targets: Targets = levels.parse().map_err(|_| TelemetryError::Level(levels.to_owned()))?;
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(targets).with(lines).try_init()?;
    Ok(())
}
