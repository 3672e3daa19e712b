//! Accepts connections on one address and starts a task for each.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{End, House, drive};
use super::http;
use super::throttle::Origin;
use crate::broker::ConnectionId;
use crate::sessions::amqp::{self, AmqpSession};
use crate::sessions::native::{self, NativeSession};
use crate::sessions::stomp::{self, StompSession};
use crate::sessions::{Facts, Session};

/// After a failed accept, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Amqp,
    Stomp,
    /// Requests and answers; a websocket becomes a connection of its own.
    Http,
    Native,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Stomp => "stomp",
            Self::Http => "http",
            Self::Native => "native",
        }
    }
}

/// Settings of each protocol's sessions.
pub(super) struct Sessions {
    pub(super) amqp: Arc<amqp::Settings>,
    pub(super) stomp: Arc<stomp::Settings>,
    pub(super) native: Arc<native::Settings>,
}

/// What all listeners of a server share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) house: House,
    pub(super) sessions: Arc<Sessions>,
    pub(super) http: Arc<http::Settings>,
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
        let ends = Ends { peer, local };
        let session: NewSession = match self.protocol {
            Protocol::Amqp => {
                |facts, sessions| Box::new(AmqpSession::new(facts, sessions.amqp.clone()))
            }
            Protocol::Stomp => stomp_session,
            Protocol::Native => {
                |facts, sessions| Box::new(NativeSession::new(facts, sessions.native.clone()))
            }
            Protocol::Http => {
                door.tasks.spawn(http::serve(socket, ends, permit, door.clone()));
                return;
            }
        };
        let door = door.clone();
        let protocol = self.protocol.name();
        door.tasks.clone().spawn(async move {
            door.converse(socket, ends, protocol, session).await;
            drop(permit);
        });
    }
}

type NewSession = fn(Facts, &Sessions) -> Box<dyn Session>;

pub(super) fn stomp_session(facts: Facts, sessions: &Sessions) -> Box<dyn Session> {
    Box::new(StompSession::new(facts, sessions.stomp.clone()))
}

/// Both ends of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl Door {
    /// Carries one conversation from its first byte to its last.
    pub(super) async fn converse<I>(
        &self,
        io: I,
        ends: Ends,
        protocol: &'static str,
        session: NewSession,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let Ends { peer, local } = ends;
        let facts = Facts {
            peer: peer.to_string(),
            local: local.to_string(),
            loopback: peer.ip().to_canonical().is_loopback(),
            tls: false,
            certificate_user: None,
            seed: RandomState::new().hash_one(id.0),
        };
        let session = session(facts, &self.sessions);
        let span = tracing::info_span!("connection", id = id.0, protocol, peer = %peer);
        tracing::debug!(parent: &span, "accepted");
        match drive(io, id, session, Origin { peer, local }, self.house.clone(), span.clone()).await {
            end @ (End::Closed | End::ClientGone) => tracing::debug!(parent: &span, "{end}"),
            end @ (End::Panicked | End::BrokerGone) => tracing::error!(parent: &span, "{end}"),
            end => tracing::info!(parent: &span, "closed: {end}"),
        }
    }
}
