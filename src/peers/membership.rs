//! Who the hosts are, and where to dial them: what several sources say, merged.
//!
//! A source (the settings, a directory) only ever adds. Whom this host knows is dialled until it is forgotten,
//! so that a source that is late, gone, empty or old takes nobody away.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Host, HostId, PeerAddress};
use crate::broker::Time;

/// Further hosts are not taken in.
const HOSTS_MAX: usize = 1000;
/// Further addresses of one source are left out.
const SIGHTINGS_MAX: usize = 1000;

/// Who says that there is a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The settings name its address.
    Static,
    Dns,
    Gossip,
    Consul,
    Etcd,
}

/// What a source knows of a host: an address, and perhaps whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub address: PeerAddress,
    /// The host and its incarnation when it wrote this down.
    pub host: Option<(HostId, u64)>,
}

impl From<PeerAddress> for Sighting {
    fn from(address: PeerAddress) -> Self {
        Self { address, host: None }
    }
}

/// Another host that there is, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// As it said of itself when last met.
    pub host: Host,
    /// Where it answered last.
    pub answered_at: Option<PeerAddress>,
    /// A link to it stands.
    pub linked: bool,
    /// When the certificate ends that it showed at the link which stands, in seconds since 1970.
    pub certificate_ends: Option<i64>,
    /// When a link stood, or it was met, or a source last named it.
    pub seen: Time,
}

/// How to reach somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Whom to expect; nobody answered there yet where it is missing.
    pub id: Option<HostId>,
    /// To be tried in turn; never empty.
    pub addresses: Vec<PeerAddress>,
}

/// What to make of a host that says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    Welcome,
    /// This host itself.
    Itself,
    /// A later start of that host is known: this one works with an old copy of its data.
    OldIncarnation {
        known: u64,
    },
    /// Another process has the same id and incarnation: one of the two works with a copy of the other's data.
    Duplicate,
    /// This host, or one that a link reaches now, has the same name and another id.
    NameTaken,
    /// There are too many hosts already.
    TooMany,
}

/// The hosts, as this one knows them.
#[derive(Debug)]
pub struct Membership {
    me: Host,
    known: BTreeMap<HostId, Known>,
    /// What each source said last.
    sources: BTreeMap<Source, Vec<Sighting>>,
    /// Who answered at an address, when it was last dialled.
    answers: BTreeMap<PeerAddress, HostId>,
    forget_after_ms: u64,
}

impl Membership {
    /// `known` are the hosts that an earlier run knew.
    pub fn new(me: Host, known: Vec<Host>, forget_after_ms: u64, now: Time) -> Self {
        let mut membership = Self {
            me,
            known: BTreeMap::new(),
            sources: BTreeMap::new(),
            answers: BTreeMap::new(),
            forget_after_ms,
        };
        for host in known.into_iter().take(HOSTS_MAX) {
            if host.id != membership.me.id {
                membership.note(host, now);
            }
        }
        membership
    }

    pub fn me(&self) -> &Host {
        &self.me
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    pub fn get(&self, id: HostId) -> Option<&Known> {
        self.known.get(&id)
    }

    /// Somebody said who it is: at `via`, if this host dialled it there.
    pub fn meet(&mut self, host: &Host, via: Option<&PeerAddress>, now: Time) -> Meeting {
        if host.id == self.me.id {
            if host.run != self.me.run {
                return Meeting::Duplicate;
            }
            self.answer(via, host.id);
            return Meeting::Itself;
        }
        if let Some(known) = self.known.get(&host.id) {
            if host.incarnation < known.host.incarnation {
                return Meeting::OldIncarnation { known: known.host.incarnation };
            }
            if host.incarnation == known.host.incarnation && host.run != known.host.run {
                return Meeting::Duplicate;
            }
        }
        let namesake = |known: &&Known| known.host.name == host.name && known.host.id != host.id;
        let namesake = self.known.values().find(namesake).map(|it| (it.host.id, it.linked));
        match namesake {
            _ if host.name == self.me.name => return Meeting::NameTaken,
            Some((_, true)) => return Meeting::NameTaken,
            // A host that was built anew takes the place of the one that had its name.
            Some((id, false)) => {
                self.forget(id);
            }
            None if self.known.contains_key(&host.id) => {}
            None if self.known.len() >= HOSTS_MAX => return Meeting::TooMany,
            None => {}
        }
        self.note(host.clone(), now);
        self.answer(via, host.id);
        if let (Some(via), Some(known)) = (via, self.known.get_mut(&host.id)) {
            known.answered_at = Some(via.clone());
        }
        Meeting::Welcome
    }

    /// A link to the host stands.
    pub fn linked(&mut self, id: HostId, now: Time) {
        self.set_linked(id, true, now);
    }

    /// At the link to the host, this is when its certificate ends.
    pub fn certified(&mut self, id: HostId, ends: i64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.certificate_ends = Some(ends);
        }
    }

    /// The link to the host broke.
    pub fn unlinked(&mut self, id: HostId, now: Time) {
        self.set_linked(id, false, now);
    }

    /// All that a source has to say now. It replaces what the source said before, and takes no host away.
    pub fn see(&mut self, source: Source, mut seen: Vec<Sighting>, now: Time) {
        seen.truncate(SIGHTINGS_MAX);
        for (id, _) in seen.iter().filter_map(|it| it.host) {
            if let Some(known) = self.known.get_mut(&id) {
                known.seen = now;
            }
        }
        self.sources.insert(source, seen);
        self.tidy();
    }

    /// Lets go of hosts that no source names and no link reached for long.
    pub fn tick(&mut self, now: Time) -> Vec<HostId> {
        let named: Vec<HostId> = self.sighted().0.into_keys().collect();
        for id in named {
            if let Some(known) = self.known.get_mut(&id) {
                known.seen = now;
            }
        }
        let gone: Vec<HostId> = self
            .known
            .iter()
            .filter(|(_, it)| !it.linked && now.since_ms(it.seen) >= self.forget_after_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.forget(*id);
        }
        gone
    }

    /// No longer dials the host, until it dials this one or a source names it to be met anew.
    pub fn forget(&mut self, id: HostId) -> bool {
        self.answers.retain(|_, it| *it != id);
        self.known.remove(&id).is_some()
    }

    /// Whom to dial, and where: each known host, and each address where nobody answered yet.
    pub fn dials(&self) -> Vec<Dial> {
        let (sighted, strangers) = self.sighted();
        let mut dials = Vec::new();
        for (id, known) in &self.known {
            let sighted = sighted.get(id).map_or(&[][..], Vec::as_slice);
            let addresses = self.addresses(known, sighted);
            if !addresses.is_empty() {
                dials.push(Dial { id: Some(*id), addresses });
            }
        }
        let strangers = strangers.into_iter().filter(|it| self.me.address.as_ref() != Some(*it));
        dials.extend(strangers.map(|it| Dial { id: None, addresses: vec![it.clone()] }));
        dials
    }

    /// Where it answered, where a source saw it since, and where it says it is.
    fn addresses(&self, known: &Known, sighted: &[&Sighting]) -> Vec<PeerAddress> {
        // What was written down before the host's last start is old news.
        let fresh = sighted
            .iter()
            .filter(|it| {
                it.host.is_none_or(|(_, incarnation)| incarnation >= known.host.incarnation)
            })
            .map(|it| &it.address);
        let mut addresses: Vec<PeerAddress> = Vec::new();
        for address in known.answered_at.iter().chain(fresh).chain(&known.host.address) {
            let answers = self.answers.get(address);
            if answers.is_none_or(|id| *id == known.host.id) && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// What the sources say of each host that is known, and addresses of nobody who is.
    ///
    /// An address is of whom answered there, else of whom the source says, else of whom says so.
    fn sighted(&self) -> (BTreeMap<HostId, Vec<&Sighting>>, BTreeSet<&PeerAddress>) {
        let said: BTreeMap<&PeerAddress, HostId> = self
            .known
            .values()
            .filter_map(|it| Some((it.host.address.as_ref()?, it.host.id)))
            .collect();
        let here = |id: &HostId| *id == self.me.id || self.known.contains_key(id);
        let (mut sighted, mut strangers) = (BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
        for sighting in self.sources.values().flatten() {
            let named = || sighting.host.map(|(id, _)| id).filter(here);
            let answered = self.answers.get(&sighting.address).copied();
            match answered.or_else(named).or_else(|| said.get(&sighting.address).copied()) {
                Some(id) => sighted.entry(id).or_default().push(sighting),
                None => {
                    strangers.insert(&sighting.address);
                }
            }
        }
        (sighted, strangers)
    }

    fn note(&mut self, host: Host, now: Time) {
        let before = self.known.remove(&host.id);
        let known = match before {
            Some(before) => Known { host, seen: now, ..before },
            None => {
                Known { host, answered_at: None, linked: false, certificate_ends: None, seen: now }
            }
        };
        self.known.insert(known.host.id, known);
    }

    fn answer(&mut self, via: Option<&PeerAddress>, id: HostId) {
        let Some(via) = via else { return };
        self.answers.insert(via.clone(), id);
        for known in self.known.values_mut() {
            if known.host.id != id && known.answered_at.as_ref() == Some(via) {
                known.answered_at = None;
            }
        }
    }

    /// Answers are kept for addresses that somebody still names.
    fn tidy(&mut self) {
        let mut named: BTreeSet<&PeerAddress> =
            self.sources.values().flatten().map(|it| &it.address).collect();
        for known in self.known.values() {
            named.extend(known.answered_at.iter().chain(&known.host.address));
        }
        let gone: Vec<PeerAddress> =
            self.answers.keys().filter(|it| !named.contains(it)).cloned().collect();
        for address in gone {
            self.answers.remove(&address);
        }
    }

    fn set_linked(&mut self, id: HostId, linked: bool, now: Time) {
        if let Some(known) = self.known.get_mut(&id) {
            known.linked = linked;
            known.certificate_ends = known.certificate_ends.filter(|_| linked);
            known.seen = now;
        }
    }
}

#[cfg(test)]
mod tests;
