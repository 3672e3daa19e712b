//! What all requests share: the desk, samples, and facts of this host.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::desk::Desk;
use crate::broker::inspect::{Inspect, Inspection, Overview, SLICE_MAX};
use crate::broker::{Definition, DefinitionKind, Name, PeerView, Time};
use crate::management::json::{Host, ListenerFacts, ProcessFacts};
use crate::management::metrics::Certificates;
use crate::management::{Fault, Samples};
use crate::server::clock::Clock;
use crate::server::committer::Commits;
use crate::server::listener::Listening;
use crate::server::membership::Members;
use crate::server::tls::Tls;
use crate::server::traffic::Register;
use crate::server::watch::{self, Marks};

/// What an estate is made of.
pub(in crate::server) struct Parts {
    pub(in crate::server) desk: Desk,
    pub(in crate::server) clock: Clock,
    pub(in crate::server) register: Arc<Register>,
    pub(in crate::server) commits: Arc<Commits>,
    /// Of the listeners for clients.
    pub(in crate::server) tls: Option<Arc<Tls>>,
    /// Of links to other hosts.
    pub(in crate::server) link_tls: Option<Arc<Tls>>,
    pub(in crate::server) members: Option<Members>,
    pub(in crate::server) marks: Marks,
    pub(in crate::server) connections_max: u32,
}

pub(in crate::server) struct Estate {
    pub(super) desk: Desk,
    pub(super) clock: Clock,
    pub(super) register: Arc<Register>,
    samples: Mutex<Samples>,
    process: Mutex<ProcessFacts>,
    node: String,
    started: Time,
    listeners: Vec<ListenerFacts>,
    marks: Marks,
    connections_max: u64,
    commits: Arc<Commits>,
    tls: Option<Arc<Tls>>,
    link_tls: Option<Arc<Tls>>,
    members: Option<Members>,
}

impl Estate {
    pub(in crate::server) fn new(parts: Parts, listening: &[Listening]) -> Self {
        let Parts {
            desk,
            clock,
            register,
            commits,
            tls,
            link_tls,
            members,
            marks,
            connections_max,
        } = parts;
        let system = rustix::system::uname();
        let host = system.nodename().to_string_lossy();
        let listeners = listening.iter().map(|it| ListenerFacts {
            protocol: it.name(),
            ip: it.address.ip().to_string(),
            port: it.address.port(),
        });
        Self {
            desk,
            clock,
            register,
            samples: Mutex::default(),
            process: Mutex::default(),
            node: format!("pillarbox@{}", host.split('.').next().unwrap_or("localhost")),
            started: clock.now(),
            listeners: listeners.collect(),
            marks,
            connections_max: connections_max.into(),
            commits,
            tls,
            link_tls,
            members,
        }
    }

    /// When the certificate of the listeners with TLS ends, in seconds since 1970.
    pub(super) fn certificate_expires(&self) -> Option<i64> {
        self.tls.as_ref().map(|tls| tls.expires())
    }

    /// When certificates end.
    pub(super) fn certificates(&self) -> Certificates {
        let hosts = self.members.iter().flat_map(Members::hosts);
        let shown = hosts.filter_map(|it| Some((it.host.name, it.certificate_ends?)));
        Certificates {
            clients: self.certificate_expires(),
            links: self.link_tls.as_ref().map(|tls| tls.expires()),
            peers: shown.collect(),
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn listeners(&self) -> &[ListenerFacts] {
        &self.listeners
    }

    pub(super) fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn host(&self) -> Result<Host, Fault> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Host {
            node: self.node.clone(),
            cluster: self.cluster_name().await?,
            started: self.started,
            now: self.clock.now(),
            listeners: self.listeners.clone(),
            process,
            commits: self.commits.measured(),
        })
    }

    /// The global parameter of that name, else the node's.
    async fn cluster_name(&self) -> Result<String, Fault> {
        let named = self.definitions(DefinitionKind::Parameter, None).await?;
        let named = named.into_iter().find_map(|it| match it {
            Definition::Parameter(it) if it.vhost.is_none() && it.name == "cluster_name" => {
                serde_json::from_str::<String>(&it.value).ok()
            }
            _ => None,
        });
        Ok(named.unwrap_or_else(|| self.node.clone()))
    }

    /// Why publishers are stopped, if they are.
    pub(super) async fn alarm(&self) -> Result<Option<&'static str>, Fault> {
        Ok(self.overview_without_sums().await?.alarm)
    }

    /// The broker as a whole. Mailboxes are summed up in slices, which are not of one instant.
    pub(super) async fn overview(&self) -> Result<Overview, Fault> {
        let mut overview = self.overview_without_sums().await?;
        let mut after = None;
        loop {
            let inspect = Inspect::Sums { after, count: SLICE_MAX };
            let Inspection::Sums(sums) = self.desk.inspect(inspect).await? else { break };
            overview.add(&sums);
            if sums.next.is_none() {
                break;
            }
            after = sums.next;
        }
        Ok(overview)
    }

    async fn overview_without_sums(&self) -> Result<Overview, Fault> {
        match self.desk.inspect(Inspect::Overview).await? {
            Inspection::Overview(overview) => Ok(*overview),
            _ => Err(Fault::unavailable("the broker answers something else")),
        }
    }

    /// Other hosts, gathered in slices.
    pub(super) async fn peers(&self) -> Result<Vec<PeerView>, Fault> {
        let mut all: Vec<PeerView> = Vec::new();
        loop {
            let after = all.last().map(|it| it.host.clone());
            let inspect = Inspect::Peers { after, count: SLICE_MAX };
            let Inspection::Peers(found) = self.desk.inspect(inspect).await? else { break };
            let last = found.len() < SLICE_MAX;
            all.extend(found);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// All definitions of one kind, gathered in slices.
    pub(super) async fn definitions(
        &self,
        kind: DefinitionKind,
        vhost: Option<&Name>,
    ) -> Result<Vec<Definition>, Fault> {
        let mut all = Vec::new();
        loop {
            let (vhost, skip) = (vhost.cloned(), all.len());
            let inspect = Inspect::Definitions { kind, vhost, skip, count: SLICE_MAX };
            let Inspection::Definitions(found) = self.desk.inspect(inspect).await? else { break };
            let last = found.len() < SLICE_MAX;
            all.extend(found);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// Takes samples until the broker is gone.
    pub(in crate::server) async fn watch(self: Arc<Self>, interval: Duration) {
        let mut interval = tokio::time::interval(interval.max(Duration::from_millis(10)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let facts = self.read_process();
            *self.process.lock().unwrap_or_else(PoisonError::into_inner) = facts;
            if self.sample().await.is_err() {
                return;
            }
        }
    }

    async fn sample(&self) -> Result<(), Fault> {
        let now = self.clock.now();
        let overview = self.overview().await?;
        {
            let mut samples = self.samples();
            samples.begin(now);
            samples.take_overview(&overview);
            for (id, facts) in self.register.all() {
                samples.take_connection(id, facts.received, facts.sent);
            }
        }
        let mut after = None;
        loop {
            let inspect = Inspect::Samples { after, count: SLICE_MAX };
            let Inspection::Samples(found) = self.desk.inspect(inspect).await? else { break };
            self.samples().take_mailboxes(&found);
            after = found.last().map(|it| it.id);
            if found.len() < SLICE_MAX {
                break;
            }
        }
        let mut after = None;
        loop {
            let inspect = Inspect::Channels { after, count: SLICE_MAX };
            let Inspection::Channels(found) = self.desk.inspect(inspect).await? else { break };
            self.samples().take_channels(&found);
            after = found.last().map(|it| (it.connection, it.channel));
            if found.len() < SLICE_MAX {
                break;
            }
        }
        for vhost in self.definitions(DefinitionKind::Vhost, None).await? {
            let Definition::Vhost(vhost) = vhost else { continue };
            let mut after = None;
            loop {
                let inspect =
                    Inspect::Exchanges { vhost: vhost.name.clone(), after, count: SLICE_MAX };
                // The virtual host may be gone meanwhile.
                let Ok(Inspection::Exchanges(found)) = self.desk.inspect(inspect).await else {
                    break;
                };
                self.samples().take_exchanges(&found);
                after = found.last().map(|it| it.definition.name.clone());
                if found.len() < SLICE_MAX {
                    break;
                }
            }
        }
        self.samples().end();
        Ok(())
    }

    fn read_process(&self) -> ProcessFacts {
        let directory = self.marks.directory.as_deref();
        let size =
            |name| directory.and_then(|it| watch::allocated(&it.join(name)).ok()).unwrap_or(0);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        ProcessFacts {
            pid: std::process::id(),
            memory_used: watch::memory_used().unwrap_or(0),
            memory_limit: self.marks.memory_max,
            disk_free: directory.and_then(|it| watch::disk_free(it).ok()).unwrap_or(0),
            disk_limit: self.marks.disk_free_min,
            files_used: std::fs::read_dir("/proc/self/fd").map_or(0, |it| it.count() as u64),
            files_max: limit.current.unwrap_or(u64::MAX),
            processors: std::thread::available_parallelism().map_or(1, |it| it.get() as u64),
            connections_max: self.connections_max,
            directory: directory.map(|it| it.display().to_string()).unwrap_or_default(),
            journal_size: size("journal.redb"),
            home_size: size("home.redb"),
        }
    }
}
