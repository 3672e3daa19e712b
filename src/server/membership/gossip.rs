//! Hosts that tell each other who there is: gossip over UDP, by the crate chitchat, with every datagram sealed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable,
    FailureDetectorConfig, NodeState, Serializable, spawn_chitchat,
};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::address::reached;
use super::directory::{Directory, DirectoryError, entry, read_entry};
use crate::config::{PeerAddresses, Peers, Secret};
use crate::peers::{Broken, Halves, Host, PeerAddress, Seal, Sighting, Source};
use crate::server::clock::Clock;

/// How often a host tells some others.
const INTERVAL: Duration = Duration::from_secs(1);
/// Key under which a host says who it is.
const HOST: &str = "host";
/// Of all that have the secret.
const CLUSTER: &str = "pillarbox 1";
/// Datagrams that are no good are spoken of so often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);
/// After an error of the socket.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Gossip {
    listen: SocketAddr,
    seeds: PeerAddresses,
    seal: Arc<Seal>,
    clock: Clock,
    interval: Duration,
    running: Option<Running>,
}

struct Running {
    chitchat: ChitchatHandle,
    live: watch::Receiver<BTreeMap<ChitchatId, NodeState>>,
}

impl Gossip {
    pub(super) fn new(listen: SocketAddr, settings: &Peers, secret: &Secret, clock: Clock) -> Self {
        let seal = Arc::new(Seal::new(secret.reveal().as_bytes()));
        let seeds = settings.gossip_seeds.clone();
        Self { listen, seeds, seal, clock, interval: INTERVAL, running: None }
    }

    async fn start(&self, me: &Host) -> Result<Running, DirectoryError> {
        let socket = UdpSocket::bind(self.listen).await?;
        let address = reached(socket.local_addr()?, &self.seeds).ok_or_else(|| {
            io::Error::other("this machine has no address for others: set peers.gossip to one")
        })?;
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.id.to_string(), me.incarnation, address),
            cluster_id: CLUSTER.into(),
            gossip_interval: self.interval,
            listen_addr: address,
            seed_nodes: self.seeds.0.iter().map(PeerAddress::to_string).collect(),
            failure_detector_config: FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: Duration::from_secs(3600),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let sealed = Sealed {
            socket,
            seal: self.seal.clone(),
            clock: self.clock,
            // Numbers of an earlier start do not come again.
            number: me.incarnation << 32,
            buffer: vec![0; usize::from(u16::MAX)].into(),
            halves: Halves::default(),
            complaint: None,
        };
        let opened = Opened(Mutex::new(Some(sealed)));
        let started = spawn_chitchat(config, vec![(HOST.into(), entry(me))], &opened).await;
        let chitchat = started.map_err(io::Error::other)?;
        let live = chitchat.chitchat().lock().await.live_nodes_watcher();
        Ok(Running { chitchat, live })
    }

    /// Waits until it ended, or somebody came or went.
    async fn news(running: &mut Running) -> Result<(), DirectoryError> {
        let ended = running.chitchat.termination_watcher();
        tokio::select! {
            ended = ended => {
                let why = ended.err().map_or_else(|| "it ended".into(), |error| error.to_string());
                Err(io::Error::other(why).into())
            }
            changed = running.live.changed() => changed.map_err(|it| io::Error::other(it).into()),
        }
    }
}

impl Directory for Gossip {
    fn source(&self) -> Source {
        Source::Gossip
    }

    async fn look(&mut self, me: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        if let Some(running) = &mut self.running
            && let Err(error) = Self::news(running).await
        {
            // To be started anew.
            self.running = None;
            return Err(error);
        }
        if self.running.is_none() {
            self.running = Some(self.start(me).await?);
        }
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        let live = running.live.borrow_and_update();
        let said = live.values().filter_map(|it| it.get(HOST));
        Ok(said.filter_map(|text| read_entry(text.as_bytes())).collect())
    }

    async fn leave(&mut self) -> Result<(), DirectoryError> {
        match self.running.take() {
            Some(running) => Ok(running.chitchat.shutdown().await.map_err(io::Error::other)?),
            None => Ok(()),
        }
    }
}

/// A socket that is open already, so that its port is known.
struct Opened(Mutex<Option<Sealed>>);

#[async_trait]
impl Transport for Opened {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match socket {
            Some(socket) => Ok(Box::new(socket)),
            None => anyhow::bail!("the socket was taken before"),
        }
    }
}

struct Sealed {
    socket: UdpSocket,
    seal: Arc<Seal>,
    clock: Clock,
    number: u64,
    buffer: Box<[u8]>,
    halves: Halves<SocketAddr>,
    /// When datagrams were last spoken of that are no good, and how many came since.
    complaint: Option<(Instant, u64)>,
}

impl Sealed {
    fn read(&mut self, size: usize, from: SocketAddr) -> Result<Option<ChitchatMessage>, Broken> {
        let piece = self.seal.open(&self.buffer[..size], self.clock.now())?;
        let Some(bytes) = self.halves.join(from, piece) else { return Ok(None) };
        // Another version, perhaps.
        ChitchatMessage::deserialize(&mut &bytes[..]).map(Some).map_err(|_| Broken::Foreign)
    }

    fn complain(&mut self, from: SocketAddr, reason: Broken) {
        match &mut self.complaint {
            Some((last, more)) if last.elapsed() < COMPLAINT_EVERY => *more += 1,
            before => {
                let more = before.map_or(0, |(_, more)| more);
                *before = Some((Instant::now(), 0));
                tracing::warn!(%from, %reason, more, "left a datagram of the hosts' gossip unread");
            }
        }
    }
}

#[async_trait]
impl Socket for Sealed {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.number += 1;
        let bytes = message.serialize_to_vec();
        for datagram in self.seal.seal(&bytes, self.number, self.clock.now()) {
            // The next round may do better.
            if let Err(error) = self.socket.send_to(&datagram, to).await {
                tracing::debug!(%to, %error, "cannot send the hosts' gossip");
            }
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (size, from) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "cannot receive the hosts' gossip");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match self.read(size, from) {
                Ok(Some(message)) => return Ok((from, message)),
                Ok(None) => {}
                Err(reason) => self.complain(from, reason),
            }
        }
    }
}

#[cfg(test)]
mod tests;
