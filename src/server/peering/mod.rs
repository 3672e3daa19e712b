//! Links to other hosts: who is dialled again and when, and what both ends of a link share.

mod backoff;
mod dial;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use pillarbox_native::PROOF_SIZE;
use tokio::sync::{Notify, watch};

use self::dial::Dialler;
use super::listener::Door;
use super::membership::Members;
use super::tls::Tls;
use crate::config::Config;
use crate::peers::{
    Dial, Guest, Host, HostId, Link, LinkSettings, Meeting, PeerAddress, Registry, Sighting, Source,
};
use crate::sessions::{Facts, Session};

/// What all links of this host share.
pub(super) struct Peering {
    members: Members,
    settings: Arc<LinkSettings>,
    registry: Arc<dyn Registry>,
    wakes: Arc<Wakes>,
    /// Where links speak it.
    tls: Option<Arc<Tls>>,
}

/// Diallers that wait until they try again, by the host that they want.
#[derive(Default)]
struct Wakes(Mutex<HashMap<HostId, Arc<Notify>>>);

/// The list of hosts, as links ask it.
struct Desk {
    members: Members,
    wakes: Arc<Wakes>,
    /// Whom each host reaches, as it says.
    told: Mutex<BTreeMap<HostId, Vec<Sighting>>>,
}

impl Peering {
    pub(super) fn new(
        members: Members,
        config: &Config,
        frame_size_max: u32,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let settings = LinkSettings {
            me: members.me().clone(),
            secret: members.secret().map_or_else(Vec::new, |it| it.reveal().as_bytes().to_vec()),
            heartbeat_ms: config.peers.heartbeat.millis().max(1000),
            message_size_max: config.limits.message_size_max.0,
            frame_size_max,
        };
        let wakes = Arc::new(Wakes::default());
        let registry = Arc::new(Desk {
            members: members.clone(),
            wakes: wakes.clone(),
            told: Mutex::default(),
        });
        Self { members, settings: Arc::new(settings), registry, wakes, tls }
    }

    /// The conversation with a host that dialled this one.
    pub(super) fn guest(&self, facts: Facts) -> Box<dyn Session> {
        let (settings, registry) = (self.settings.clone(), self.registry.clone());
        Box::new(Guest::new(settings, registry, facts.peer, nonce()))
    }

    /// `ends` is when the certificate ends that the other end showed.
    fn link(
        &self,
        via: PeerAddress,
        expected: Option<HostId>,
        ends: Option<i64>,
    ) -> Box<dyn Session> {
        let settings = self.settings.clone();
        let registry: Arc<dyn Registry> = match ends {
            None => self.registry.clone(),
            Some(ends) => Arc::new(Certified {
                desk: self.registry.clone(),
                members: self.members.clone(),
                ends,
            }),
        };
        Box::new(Link::new(settings, registry, via, expected, nonce()))
    }

    /// Keeps a link to every host that is known, until the server stops.
    pub(super) async fn dial_all(self: Arc<Self>, door: Door) {
        let mut dials = self.members.dials();
        let mut diallers: HashMap<Key, watch::Sender<Vec<PeerAddress>>> = HashMap::new();
        loop {
            let wanted = dials.borrow_and_update().clone();
            // A dialler whose addresses nobody holds any longer ends.
            diallers.retain(|key, _| wanted.iter().any(|dial| Key::of(dial) == *key));
            for dial in wanted.iter() {
                let key = Key::of(dial);
                if let Some(addresses) = diallers.get(&key) {
                    addresses.send_if_modified(|it| {
                        let changed = *it != dial.addresses;
                        it.clone_from(&dial.addresses);
                        changed
                    });
                    continue;
                }
                let (sender, addresses) = watch::channel(dial.addresses.clone());
                diallers.insert(key, sender);
                let wake = dial.id.map_or_else(Arc::default, |id| self.wakes.of(id));
                let dialler = Dialler::new(self.clone(), door.clone(), dial.id, addresses, wake);
                door.tasks.spawn(dialler.run());
            }
            tokio::select! {
                () = door.closed.cancelled() => return,
                changed = dials.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What people call the host, if it was met.
    fn name_of(&self, id: HostId) -> Option<crate::broker::Name> {
        self.members.hosts().into_iter().find(|it| it.host.id == id).map(|it| it.host.name)
    }
}

/// One dialler for each host, and for each address where nobody is known yet.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Host(HostId),
    Address(String),
}

impl Key {
    fn of(dial: &Dial) -> Self {
        match dial.id {
            Some(id) => Self::Host(id),
            None => {
                Self::Address(dial.addresses.first().map(ToString::to_string).unwrap_or_default())
            }
        }
    }
}

/// The list of hosts, as a link asks it over which the other host showed a certificate.
struct Certified {
    desk: Arc<dyn Registry>,
    members: Members,
    ends: i64,
}

impl Registry for Certified {
    fn meet(&self, host: &Host, via: Option<&PeerAddress>) -> Meeting {
        self.desk.meet(host, via)
    }

    fn reached(&self) -> Vec<Sighting> {
        self.desk.reached()
    }

    fn told(&self, by: HostId, hosts: Vec<Sighting>) {
        self.desk.told(by, hosts);
    }

    fn linked(&self, id: HostId) {
        self.desk.linked(id);
        self.members.certified(id, self.ends);
    }

    fn unlinked(&self, id: HostId) {
        self.desk.unlinked(id);
    }
}

impl Wakes {
    fn of(&self, id: HostId) -> Arc<Notify> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }
}

impl Registry for Desk {
    fn meet(&self, host: &Host, via: Option<&PeerAddress>) -> Meeting {
        let meeting = self.members.meet(host, via);
        if via.is_none() && meeting == Meeting::Welcome {
            // Who dials can surely be dialled.
            self.wakes.of(host.id).notify_one();
        }
        meeting
    }

    fn reached(&self) -> Vec<Sighting> {
        let all = self.members.hosts().into_iter().filter(|it| it.linked);
        all.filter_map(|it| {
            // Where it can be dialled from elsewhere, it says itself.
            let address = it.host.address.or(it.answered_at)?;
            Some(Sighting { address, host: Some((it.host.id, it.host.incarnation)) })
        })
        .collect()
    }

    fn told(&self, by: HostId, hosts: Vec<Sighting>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(by, hosts);
        let me = self.members.me().id;
        let mut all = BTreeMap::new();
        for it in told.values().flatten() {
            let id = it.host.map(|(id, _)| id);
            if id != Some(me) {
                all.insert((id, it.address.clone()), it.clone());
            }
        }
        // Said while the lock is held, so that no older list comes after it.
        self.members.see(Source::Gossip, all.into_values().collect());
    }

    fn linked(&self, id: HostId) {
        self.members.linked(id);
    }

    fn unlinked(&self, id: HostId) {
        self.members.unlinked(id);
    }
}

/// Random, for one handshake.
fn nonce() -> [u8; PROOF_SIZE] {
    let mut nonce = [0; PROOF_SIZE];
    getrandom::fill(&mut nonce).expect("the machine gave random numbers at the start");
    nonce
}
