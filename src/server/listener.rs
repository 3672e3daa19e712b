//! Accepts connections on one address and starts a task for each.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{End, House, drive};
use crate::broker::ConnectionId;
use crate::sessions::amqp::{self, AmqpSession};
use crate::sessions::native::{self, NativeSession};
use crate::sessions::{Facts, Session};

/// After a failed accept, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Amqp,
    Native,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Native => "native",
        }
    }

    fn session(self, facts: Facts, sessions: &Sessions) -> Box<dyn Session> {
        match self {
            Self::Amqp => Box::new(AmqpSession::new(facts, sessions.amqp.clone())),
            Self::Native => Box::new(NativeSession::new(facts, sessions.native.clone())),
        }
    }
}

/// Settings of each protocol's sessions.
pub(super) struct Sessions {
    pub(super) amqp: Arc<amqp::Settings>,
    pub(super) native: Arc<native::Settings>,
}

/// What all listeners of a server share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) house: House,
    pub(super) sessions: Arc<Sessions>,
    /// One permit for each connection; further clients wait to be accepted.
    pub(super) permits: Arc<Semaphore>,
    pub(super) next_id: Arc<AtomicU64>,
    /// Every connection's task.
    pub(super) tasks: TaskTracker,
    /// Stops the accepting, not the connections.
    pub(super) closed: CancellationToken,
}

pub(super) struct Listener {
    protocol: Protocol,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(super) async fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { protocol, socket, address })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it listens; a port that was 0 is known here.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn accept(self, door: Door) {
        let closed = door.closed.clone();
        closed
            .run_until_cancelled(async {
                loop {
                    let Ok(permit) = door.permits.clone().acquire_owned().await else { return };
                    match self.socket.accept().await {
                        Ok((socket, peer)) => self.welcome(socket, peer, permit, &door),
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            })
            .await;
    }

    fn welcome(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        door: &Door,
    ) {
        // Batches are written whole; waiting for more would only delay them.
        let _ = socket.set_nodelay(true);
        let local = socket.local_addr().unwrap_or(self.address);
        let id = ConnectionId(door.next_id.fetch_add(1, Ordering::Relaxed));
        let facts = Facts {
            peer: peer.to_string(),
            local: local.to_string(),
            loopback: peer.ip().to_canonical().is_loopback(),
            tls: false,
            certificate_user: None,
            seed: RandomState::new().hash_one(id.0),
        };
        let session = self.protocol.session(facts, &door.sessions);
        let protocol = self.protocol.name();
        let span = tracing::info_span!("connection", id = id.0, protocol, peer = %peer);
        let house = door.house.clone();
        door.tasks.spawn(async move {
            tracing::debug!(parent: &span, "accepted");
            match drive(socket, id, session, house, span.clone()).await {
                end @ (End::Closed | End::ClientGone) => {
                    tracing::debug!(parent: &span, "{end}");
                }
                end @ (End::Panicked | End::BrokerGone) => {
                    tracing::error!(parent: &span, "{end}");
                }
                end => tracing::info!(parent: &span, "closed: {end}"),
            }
            drop(permit);
        });
    }
}
