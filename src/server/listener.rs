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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{End, House, drive};
use super::http::{self, Admission};
use super::newcomer::{Newcomer, Newcomers};
use super::pace::Pace;
use super::peering::Peering;
use super::throttle::Origin;
use super::tls::{Secured, Tls};
use super::traffic::{Counted, Register};
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
    /// Only the metrics of `Http`, and without a login.
    Metrics,
    Native,
    /// Other hosts.
    Peer,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Stomp => "stomp",
            Self::Http => "http",
            Self::Metrics => "metrics",
            Self::Native => "native",
            Self::Peer => "peers",
        }
    }

    /// The same over TLS.
    pub fn tls_name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp-tls",
            Self::Stomp => "stomp-tls",
            Self::Http => "http-tls",
            Self::Metrics => "metrics-tls",
            Self::Native => "native-tls",
            Self::Peer => "peers-tls",
        }
    }
}

/// A listener that accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub protocol: Protocol,
    pub tls: bool,
    pub address: SocketAddr,
}

impl Listening {
    pub fn name(&self) -> &'static str {
        if self.tls { self.protocol.tls_name() } else { self.protocol.name() }
    }
}

/// Settings of each protocol's sessions.
pub(super) struct Sessions {
    pub(super) amqp: Arc<amqp::Settings>,
    pub(super) stomp: Arc<stomp::Settings>,
    pub(super) native: Arc<native::Settings>,
    /// Of connections inside the process and from this machine.
    pub(super) local: Arc<native::Settings>,
    /// Of other hosts, where there may be any.
    pub(super) peering: Option<Arc<Peering>>,
}

/// What all listeners of a server share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) house: House,
    pub(super) sessions: Arc<Sessions>,
    pub(super) http: Arc<http::Settings>,
    /// Messages that HTTP clients polled.
    pub(super) leases: Arc<http::mailbox::Leases>,
    /// What requests over HTTP share.
    pub(super) estate: Arc<http::Estate>,
    /// What goes through each connection.
    pub(super) register: Arc<Register>,
    /// Those that have not logged in; too many of one place are not let in.
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) pace: Arc<Pace>,
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
    tls: Option<Arc<Tls>>,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(super) async fn bind(
        protocol: Protocol,
        tls: Option<Arc<Tls>>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { protocol, tls, socket, address })
    }

    /// Where it listens; a port that was 0 is known here.
    pub(super) fn listening(&self) -> Listening {
        Listening { protocol: self.protocol, tls: self.tls.is_some(), address: self.address }
    }

    pub(super) async fn accept(self, door: Door) {
        let closed = door.closed.clone();
        closed
            .run_until_cancelled(async {
                loop {
                    let Ok(permit) = door.permits.clone().acquire_owned().await else { return };
                    match self.socket.accept().await {
                        Ok((socket, peer)) => {
                            self.welcome(socket, peer, permit, &door);
                            let wait = door.pace.count(Instant::now());
                            if !wait.is_zero() {
                                tokio::time::sleep(wait).await;
                            }
                        }
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
        let Some(newcomer) = door.newcomers.enter(peer) else {
            tracing::debug!(%peer, "too many of its place have not logged in");
            return;
        };
        // Batches are written whole; waiting for more would only delay them.
        let _ = socket.set_nodelay(true);
        let local = socket.local_addr().unwrap_or(self.address);
        let ends = Ends { peer, local, secured: None, newcomer: Some(newcomer) };
        let door = door.clone();
        let (protocol, tls) = (self.protocol, self.tls.clone());
        door.tasks.clone().spawn(async move {
            match tls {
                None => door.receive(protocol, socket, ends, permit).await,
                // Aside, so that a connection without TLS does not take the room of one with.
                Some(tls) => Box::pin(door.secure(&tls, protocol, socket, ends, permit)).await,
            }
        });
    }
}

type NewSession = fn(Facts, &Sessions) -> Box<dyn Session>;

fn stomp_session(facts: Facts, sessions: &Sessions) -> Box<dyn Session> {
    Box::new(StompSession::new(facts, sessions.stomp.clone()))
}

pub(super) fn native_session(facts: Facts, sessions: &Sessions) -> Box<dyn Session> {
    // The token is of this machine: it does not travel to another.
    let settings = if facts.loopback { &sessions.local } else { &sessions.native };
    Box::new(NativeSession::new(facts, settings.clone()))
}

/// Both ends of a socket.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// What the handshake of TLS showed.
    pub(super) secured: Option<Secured>,
    /// Counted until the client has logged in; nobody where this side made the connection.
    pub(super) newcomer: Option<Arc<Newcomer>>,
}

impl Door {
    async fn secure(
        &self,
        tls: &Tls,
        protocol: Protocol,
        socket: TcpStream,
        mut ends: Ends,
        permit: OwnedSemaphorePermit,
    ) {
        match self.closed.run_until_cancelled(tls.accept(socket)).await {
            Some(Ok((stream, secured))) => {
                ends.secured = Some(secured);
                self.receive(protocol, stream, ends, permit).await;
            }
            // Another host that is refused is somebody's mistake, and holds up what waits for it.
            Some(Err(error)) if protocol == Protocol::Peer => {
                tracing::warn!(peer = %ends.peer, "refused a host: TLS: {error}");
            }
            Some(Err(error)) => {
                tracing::info!(peer = %ends.peer, "no {}: {error}", protocol.tls_name());
            }
            None => {}
        }
    }

    async fn receive<I>(&self, protocol: Protocol, io: I, ends: Ends, permit: OwnedSemaphorePermit)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let session: NewSession = match protocol {
            Protocol::Amqp => {
                |facts, sessions| Box::new(AmqpSession::new(facts, sessions.amqp.clone()))
            }
            Protocol::Stomp => stomp_session,
            Protocol::Native => native_session,
            Protocol::Peer => {
                let Some(peering) = self.sessions.peering.clone() else { return };
                let name =
                    if ends.secured.is_some() { protocol.tls_name() } else { protocol.name() };
                self.converse_as(io, ends, name, |facts, _| peering.guest(facts)).await;
                return drop(permit);
            }
            Protocol::Http => {
                return http::serve(io, ends, permit, self.clone(), Admission::Login).await;
            }
            Protocol::Metrics => {
                return http::serve(io, ends, permit, self.clone(), Admission::Metrics).await;
            }
        };
        let name = if ends.secured.is_some() { protocol.tls_name() } else { protocol.name() };
        self.converse(io, ends, name, session).await;
        drop(permit);
    }

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
        self.converse_as(io, ends, protocol, session).await;
    }

    pub(super) async fn converse_as<I>(
        &self,
        io: I,
        ends: Ends,
        protocol: &'static str,
        session: impl FnOnce(Facts, &Sessions) -> Box<dyn Session>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let Ends { peer, local, secured, newcomer } = ends;
        let facts = Facts {
            peer: peer.to_string(),
            local: local.to_string(),
            loopback: peer.ip().to_canonical().is_loopback(),
            tls: secured.is_some(),
            certificate_user: secured.and_then(|it| it.user),
            seed: RandomState::new().hash_one(id.0),
        };
        let entry = self.register.enter(id, self.house.clock.now(), facts.tls);
        let io = Counted::new(io, entry.traffic.clone());
        let session = session(facts, &self.sessions);
        let span = tracing::info_span!("connection", id = id.0, protocol, peer = %peer);
        tracing::debug!(parent: &span, "accepted");
        let origin = Origin { peer, local };
        let house = self.house.clone();
        match drive(io, id, session, origin, newcomer, house, span.clone()).await {
            end @ (End::Closed | End::ClientGone) => tracing::debug!(parent: &span, "{end}"),
            end @ (End::Panicked | End::BrokerGone) => tracing::error!(parent: &span, "{end}"),
            end => tracing::info!(parent: &span, "closed: {end}"),
        }
    }
}
