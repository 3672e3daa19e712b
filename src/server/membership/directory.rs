//! A place where hosts write themselves down and read who else is there, and how it is followed.
//!
//! It may be away, empty or old at any time: what it says is added to what is known, and takes nothing away.

use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Members;
use crate::peers::{Host, Sighting, Source};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A directory that is away does not hold up a stop.
const LEAVE_MAX: Duration = Duration::from_secs(2);

pub(super) trait Directory: Send + 'static {
    fn source(&self) -> Source;

    /// Sees to it that this host is written down, and says who is. Waits for news, a while, if it was asked before.
    fn look(
        &mut self,
        me: &Host,
    ) -> impl Future<Output = Result<Vec<Sighting>, DirectoryError>> + Send;

    /// This host goes, and is no longer written down.
    fn leave(&mut self) -> impl Future<Output = Result<(), DirectoryError>> + Send;
}

/// Every way a directory can fail to answer. It is asked again.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not answer in time")]
    Slow,
    #[cfg(any(feature = "consul", feature = "etcd"))]
    #[error("it answers {status}: {text}")]
    Refused { status: u16, text: String },
    #[cfg(any(feature = "consul", feature = "etcd"))]
    #[error("its answer is not understood: {0}")]
    Garbage(String),
    #[cfg(any(feature = "consul", feature = "etcd"))]
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Asks until it is told to stop, less and less often while there is no answer.
pub(super) async fn follow(
    mut directory: impl Directory,
    members: Members,
    closed: CancellationToken,
) {
    let source = directory.source();
    let mut pause = PAUSE_MIN;
    let mut away = false;
    loop {
        let looked = directory.look(members.me());
        let Some(looked) = closed.run_until_cancelled(looked).await else { break };
        match looked {
            Ok(seen) => {
                if std::mem::take(&mut away) {
                    tracing::info!(?source, "the directory of hosts answers again");
                }
                pause = PAUSE_MIN;
                members.see(source, seen);
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(?source, %error, "the directory of hosts fails; whoever is known stays known");
                }
                if closed.run_until_cancelled(sleep(pause)).await.is_none() {
                    break;
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    match timeout(LEAVE_MAX, directory.leave()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(?source, %error, "did not leave the directory of hosts"),
        Err(_) => tracing::info!(?source, "did not leave the directory of hosts in time"),
    }
}

/// What is written down of a host.
#[cfg(any(feature = "consul", feature = "etcd", feature = "gossip"))]
pub(super) fn entry(host: &Host) -> String {
    serde_json::to_string(host).expect("a host is plain text and numbers")
}

/// What somebody wrote down, if it is the address of a host.
#[cfg(any(feature = "consul", feature = "etcd", feature = "gossip"))]
pub(super) fn read_entry(text: &[u8]) -> Option<Sighting> {
    let host: Host = serde_json::from_slice(text).ok()?;
    let address = host.address.clone().filter(|_| host.is_well_formed())?;
    Some(Sighting { address, host: Some((host.id, host.incarnation)) })
}
