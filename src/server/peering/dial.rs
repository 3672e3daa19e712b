//! Keeps one link up: dials, talks until the link breaks, waits, dials again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::Peering;
use super::backoff::Backoff;
use crate::broker::{Command, Peering as Say};
use crate::peers::{HostId, PeerAddress};
use crate::server::listener::{Door, Ends};
use crate::server::tls::{Secured, shown_ends};

/// A host that does not answer for so long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A link that stood for so long was good.
const GOOD: Duration = Duration::from_secs(5);

pub(super) struct Dialler {
    peering: Arc<Peering>,
    door: Door,
    /// `None` to find out who is there.
    id: Option<HostId>,
    addresses: watch::Receiver<Vec<PeerAddress>>,
    wake: Arc<Notify>,
    backoff: Backoff,
    /// Said once, not at every attempt.
    complaint: Option<String>,
}

impl Dialler {
    pub(super) fn new(
        peering: Arc<Peering>,
        door: Door,
        id: Option<HostId>,
        addresses: watch::Receiver<Vec<PeerAddress>>,
        wake: Arc<Notify>,
    ) -> Self {
        let backoff = Backoff::new(RandomState::new().hash_one(id));
        Self { peering, door, id, addresses, wake, backoff, complaint: None }
    }

    pub(super) async fn run(mut self) {
        while !self.door.closed.is_cancelled() && self.addresses.has_changed().is_ok() {
            let addresses = self.addresses.borrow_and_update().clone();
            for address in addresses {
                self.try_at(address).await;
            }
            let wait = self.backoff.next();
            let closed = self.door.closed.clone();
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified() => {}
                changed = self.addresses.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One attempt, which lasts as long as the link.
    async fn try_at(&mut self, address: PeerAddress) {
        let closed = self.door.closed.clone();
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address.as_str()));
        let Some(connected) = closed.run_until_cancelled(connecting).await else { return };
        let socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return self.complain(&address, &error.to_string()).await,
            Err(_) => return self.complain(&address, "no answer in time").await,
        };
        let (Ok(peer), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else { return };
        let _ = socket.set_nodelay(true);
        let began = Instant::now();
        let ends = Ends { peer, local, secured: None, newcomer: None };
        match self.peering.tls.clone() {
            None => {
                self.complaint = None;
                let session = self.peering.link(address, self.id, None);
                self.door.converse_as(socket, ends, "link", |_, _| session).await;
            }
            Some(tls) => {
                let securing = closed.run_until_cancelled(tls.connect(socket, address.name()));
                let stream = match securing.await {
                    Some(Ok(stream)) => stream,
                    Some(Err(error)) => {
                        return self.complain(&address, &format!("TLS: {error}")).await;
                    }
                    None => return,
                };
                self.complaint = None;
                let session = self.peering.link(address, self.id, shown_ends(&stream));
                let ends = Ends { secured: Some(Secured { user: None }), ..ends };
                self.door.converse_as(stream, ends, "link-tls", |_, _| session).await;
            }
        }
        if began.elapsed() >= GOOD {
            self.backoff.reset();
        }
    }

    async fn complain(&mut self, address: &PeerAddress, error: &str) {
        let error = format!("{address}: {error}");
        if self.complaint.as_ref() != Some(&error) {
            tracing::info!("cannot dial {error}");
            self.complaint = Some(error.clone());
        }
        if let Some(host) = self.id.and_then(|id| self.peering.name_of(id)) {
            let remark = Say::Remark { host, error };
            self.door.house.requests.tell(Command::Peer(Box::new(remark))).await;
        }
    }
}
