//! Who the hosts are, kept while the broker runs: this host's identity, the others, and where to dial them.

mod address;
#[cfg(feature = "consul")]
mod consul;
mod directory;
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "gossip")]
mod gossip;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod http;
mod identity;
mod kept;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::identity::IdentityError;
pub use self::secret::SecretError;

pub(super) use self::secret::secret;

use self::directory::follow;
use super::clock::Clock;
use crate::broker::Name;
use crate::config::{Address, Config, DnsSource, Peers, Secret};
use crate::peers::{Dial, Host, HostId, Known, Meeting, Membership, PeerAddress, Sighting, Source};

/// Whoever is gone for too long is looked for so often.
const TICK: Duration = Duration::from_secs(60);

/// The hosts that this one knows. Clones are of the same.
#[derive(Clone)]
pub(super) struct Members {
    shared: Arc<Shared>,
}

struct Shared {
    me: Host,
    secret: Option<Secret>,
    membership: Mutex<Membership>,
    dials: watch::Sender<Arc<[Dial]>>,
    clock: Clock,
    /// Where the hosts are written down.
    directory: Option<PathBuf>,
    changed: Notify,
}

/// Whether other hosts were asked for at all.
pub(super) fn wanted(config: &Config) -> bool {
    let peers = &config.peers;
    config.listen.peers != Address::Off
        || !peers.hosts.0.is_empty()
        || peers.dns.is_some()
        || peers.consul.is_some()
        || peers.etcd.is_some()
        || peers.gossip != Address::Off
}

/// The first directory that is asked for and was left out of this program.
pub(super) fn left_out(config: &Config) -> Option<&'static str> {
    let peers = &config.peers;
    let service = matches!(peers.dns, Some(DnsSource::Service(_)));
    [
        ("dns", service && !cfg!(feature = "dns")),
        ("consul", peers.consul.is_some() && !cfg!(feature = "consul")),
        ("etcd", peers.etcd.is_some() && !cfg!(feature = "etcd")),
        ("gossip", peers.gossip != Address::Off && !cfg!(feature = "gossip")),
    ]
    .into_iter()
    .find_map(|(name, missing)| missing.then_some(name))
}

impl Members {
    /// Tells this host who it is, and whom it knew. `listening` is where other hosts are accepted.
    pub(super) async fn open(
        config: &Config,
        secret: Option<Secret>,
        listening: Option<SocketAddr>,
        clock: Clock,
    ) -> Result<Self, IdentityError> {
        let settings = config.peers.clone();
        let directory = (!config.store.in_memory).then(|| config.store.directory.clone());
        let (place, now) = (directory.clone(), clock.now());
        let opened = spawn_blocking(move || {
            let mut me = identity::open(place.as_deref(), &settings, now)?;
            me.address = address::advertised(&settings, listening);
            let known = place.as_deref().map_or_else(Vec::new, kept::read);
            Ok::<_, IdentityError>((me, known))
        });
        let (me, known) = opened
            .await
            .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
        let forget_after_ms = config.peers.forget_after.millis();
        let membership = Membership::new(me.clone(), known, forget_after_ms, clock.now());
        match &me.address {
            Some(address) => {
                tracing::info!(id = %me.id, name = %me.name, incarnation = me.incarnation, %address, "this host");
            }
            None => {
                tracing::warn!(id = %me.id, name = %me.name, incarnation = me.incarnation, "no other host can dial this one: set listen.peers and peers.advertise");
            }
        }
        let shared = Shared {
            me,
            secret,
            membership: Mutex::new(membership),
            dials: watch::Sender::new(Arc::default()),
            clock,
            directory,
            changed: Notify::new(),
        };
        let members = Self { shared: Arc::new(shared) };
        let addresses = config.peers.hosts.0.iter().cloned();
        members.see(Source::Static, addresses.map(Sighting::from).collect());
        Ok(members)
    }

    /// Follows each directory that the settings name, until it is told to stop.
    pub(super) fn follow(&self, settings: &Peers, tasks: &TaskTracker, closed: &CancellationToken) {
        if let Some(wanted) = &settings.dns {
            let dns = dns::Dns::new(wanted.clone(), settings);
            tasks.spawn(follow(dns, self.clone(), closed.clone()));
        }
        #[cfg(feature = "consul")]
        if let Some(url) = &settings.consul {
            let consul = consul::Consul::new(url, settings);
            tasks.spawn(follow(consul, self.clone(), closed.clone()));
        }
        #[cfg(feature = "etcd")]
        if let Some(url) = &settings.etcd {
            let etcd = etcd::Etcd::new(url, settings);
            tasks.spawn(follow(etcd, self.clone(), closed.clone()));
        }
        #[cfg(feature = "gossip")]
        if let (Address::At(listen), Some(secret)) = (settings.gossip, self.secret()) {
            let gossip = gossip::Gossip::new(listen, settings, secret, self.shared.clock);
            tasks.spawn(follow(gossip, self.clone(), closed.clone()));
        }
    }

    /// Writes down whom it knows, and lets go of those that are gone for good, until it is told to stop.
    pub(super) async fn keep(self, closed: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                () = self.shared.changed.notified() => self.write_down().await,
                _ = ticks.tick() => {
                    let now = self.shared.clock.now();
                    let gone = self.change(|it| it.tick(now));
                    for id in gone {
                        tracing::info!(%id, "a host that was gone for long is no longer dialled");
                    }
                }
            }
        }
    }

    pub(super) fn me(&self) -> &Host {
        &self.shared.me
    }

    /// All that a source has to say now.
    pub(super) fn see(&self, source: Source, seen: Vec<Sighting>) {
        let now = self.shared.clock.now();
        self.change(|it| it.see(source, seen, now));
    }

    fn change<R>(&self, change: impl FnOnce(&mut Membership) -> R) -> R {
        let mut membership = self.lock();
        let result = change(&mut membership);
        let dials = membership.dials();
        // Told while the lock is held, so that no older list comes after it.
        let changed = self.shared.dials.send_if_modified(|told| {
            let changed = **told != *dials;
            if changed {
                *told = dials.into();
            }
            changed
        });
        drop(membership);
        if changed {
            self.shared.changed.notify_one();
        }
        result
    }

    async fn write_down(&self) {
        let Some(directory) = self.shared.directory.clone() else { return };
        let hosts: Vec<Host> = self.lock().hosts().map(|it| it.host.clone()).collect();
        let written = spawn_blocking(move || kept::write(&directory, &hosts)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot write down the hosts that are known"),
            Err(error) => tracing::error!(%error, "cannot write down the hosts that are known"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.shared.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.shared.secret.as_ref()
    }

    /// Whom to dial; changes when somebody comes, moves or is let go.
    pub(super) fn dials(&self) -> watch::Receiver<Arc<[Dial]>> {
        self.shared.dials.subscribe()
    }

    /// Somebody said who it is: at `via`, if this host dialled it there.
    pub(super) fn meet(&self, host: &Host, via: Option<&PeerAddress>) -> Meeting {
        let now = self.shared.clock.now();
        let before = self.lock().get(host.id).map(|it| it.host.incarnation);
        let meeting = self.change(|it| it.meet(host, via, now));
        match meeting {
            Meeting::Welcome if before != Some(host.incarnation) => {
                tracing::info!(id = %host.id, name = %host.name, incarnation = host.incarnation, "met a host");
            }
            Meeting::Welcome | Meeting::Itself => {}
            Meeting::OldIncarnation { known } => {
                tracing::error!(id = %host.id, name = %host.name, incarnation = host.incarnation, known, "refused a host that works with an old copy of its data: remove its host.json to let it be a new host");
            }
            Meeting::Duplicate => {
                tracing::error!(id = %host.id, name = %host.name, incarnation = host.incarnation, "refused a host: another works with a copy of the same data; remove host.json of the copy to let it be a new host");
            }
            Meeting::NameTaken => {
                tracing::error!(id = %host.id, name = %host.name, "refused a host: another has its name; give each a peers.name of its own");
            }
            Meeting::TooMany => {
                tracing::error!(id = %host.id, name = %host.name, "refused a host: too many are known");
            }
        }
        meeting
    }

    /// A link to the host stands.
    pub(super) fn linked(&self, id: HostId) {
        let now = self.shared.clock.now();
        self.change(|it| it.linked(id, now));
    }

    /// At the link to the host, this is when its certificate ends.
    pub(super) fn certified(&self, id: HostId, ends: i64) {
        self.change(|it| it.certified(id, ends));
    }

    /// The link to the host broke.
    pub(super) fn unlinked(&self, id: HostId) {
        let now = self.shared.clock.now();
        self.change(|it| it.unlinked(id, now));
    }

    /// No longer dials the host of this name, until it dials this one or a source names it.
    pub(super) fn forget(&self, name: &Name) {
        let all = self.hosts().into_iter().filter(|it| it.host.name == *name && !it.linked);
        for id in all.map(|it| it.host.id) {
            if self.change(|it| it.forget(id)) {
                tracing::info!(%id, %name, "a host is forgotten, as an administrator asked");
            }
        }
    }

    /// The other hosts as they are known now.
    pub(super) fn hosts(&self) -> Vec<Known> {
        self.lock().hosts().cloned().collect()
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
