//! How two hosts prove to each other that they know the secret, without showing it.
//!
//! ```text
//! dialler    PeerHello: who it is, a nonce
//!    other   Challenge: who that is, a nonce
//! dialler    Proof:     HMAC-SHA-256(secret, "dial",   hello, challenge)
//!    other   Welcome:   HMAC-SHA-256(secret, "accept", hello, challenge)
//! ```
//!
//! Both proofs cover all that both said, so neither can be used in another conversation. The one that dialled shows
//! its proof first: whoever only listens for callers learns nothing that it could try secrets on.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use pillarbox_native::{PROOF_SIZE, PeerHello};
use sha2::Sha256;

use super::{Host, HostId, Meeting, PeerAddress, Sighting};
use crate::broker::Time;

/// Which end of a link proves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dial,
    Accept,
}

/// What a link needs to know besides the other end.
pub struct LinkSettings {
    pub me: Host,
    /// What all hosts know; empty where all of them are on this machine.
    pub secret: Vec<u8>,
    /// A sign of life is given twice in this time, and one is missed after twice of it.
    pub heartbeat_ms: u64,
    /// Largest message that is taken.
    pub message_size_max: u64,
    pub frame_size_max: u32,
}

/// Who keeps the list of hosts.
pub trait Registry: Send + Sync {
    /// Somebody proved to be this host: at `via`, if this host dialled it there.
    fn meet(&self, host: &Host, via: Option<&PeerAddress>) -> Meeting;
    /// Whom links reach now.
    fn reached(&self) -> Vec<Sighting>;
    /// A host says whom its links reach. It replaces what that host said before.
    fn told(&self, by: HostId, hosts: Vec<Sighting>);
    /// The link to the host stands.
    fn linked(&self, id: HostId);
    /// It broke.
    fn unlinked(&self, id: HostId);
}

/// While this lives, the registry knows that the link stands.
pub(super) struct Linked {
    registry: Arc<dyn Registry>,
    id: HostId,
}

impl Linked {
    pub(super) fn new(registry: Arc<dyn Registry>, id: HostId) -> Self {
        registry.linked(id);
        Self { registry, id }
    }
}

impl Linked {
    pub(super) fn registry(&self) -> &dyn Registry {
        &*self.registry
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.registry.unlinked(self.id);
    }
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Dial => b"pillarbox 1 dial",
            Self::Accept => b"pillarbox 1 accept",
        }
    }

    fn mac(self, secret: &[u8], hello: &[u8], challenge: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key size will do");
        for part in [self.label(), hello, challenge] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    pub(super) fn prove(self, secret: &[u8], hello: &[u8], challenge: &[u8]) -> [u8; PROOF_SIZE] {
        self.mac(secret, hello, challenge).finalize().into_bytes().into()
    }

    /// Takes the same time for every wrong proof.
    pub(super) fn holds(
        self,
        secret: &[u8],
        hello: &[u8],
        challenge: &[u8],
        proof: &[u8; PROOF_SIZE],
    ) -> bool {
        self.mac(secret, hello, challenge).verify_slice(proof).is_ok()
    }
}

/// This host, as it says who it is.
pub(super) fn hello(me: &Host, nonce: [u8; PROOF_SIZE]) -> PeerHello<'_> {
    PeerHello {
        id: me.id.0,
        name: &me.name,
        incarnation: me.incarnation,
        run: me.run,
        address: me.address.as_ref().map_or("", PeerAddress::as_str),
        tags: me.tags.iter().map(|tag| &**tag).collect(),
        nonce,
    }
}

/// The other host, as it said who it is. `None` for what no host would say.
pub(super) fn host(hello: &PeerHello<'_>) -> Option<Host> {
    let address = match hello.address {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    let host = Host {
        id: HostId(hello.id),
        name: hello.name.into(),
        incarnation: hello.incarnation,
        run: hello.run,
        tags: hello.tags.iter().map(|tag| (*tag).into()).collect(),
        address,
    };
    host.is_well_formed().then_some(host)
}

/// Why a host is not welcome, as it is told.
pub(super) fn objection(meeting: Meeting) -> Option<&'static str> {
    match meeting {
        Meeting::Welcome => None,
        Meeting::Itself => Some("that is this host itself"),
        Meeting::OldIncarnation { .. } => Some("a later start of this host is known"),
        Meeting::Duplicate => Some("another host has the same id: remove host.json of the copy"),
        Meeting::NameTaken => Some("another host has the same name"),
        Meeting::TooMany => Some("too many hosts are known"),
    }
}

/// Signs of life: when to give one, and when the other end gave none for too long.
#[derive(Debug)]
pub(super) struct Pulse {
    heartbeat_ms: u64,
    heard: Time,
    said: Time,
    /// Nothing is read for now, so nothing can be heard.
    pub(super) deaf: bool,
}

impl Pulse {
    pub(super) fn new(heartbeat_ms: u64, now: Time) -> Self {
        Self { heartbeat_ms, heard: now, said: now, deaf: false }
    }

    pub(super) fn hear(&mut self, now: Time) {
        self.heard = now;
    }

    pub(super) fn is_lost(&self, now: Time) -> bool {
        !self.deaf && now >= self.heard.plus_ms(2 * self.heartbeat_ms)
    }

    /// Whether a sign of life is due now, and with it the next one later.
    pub(super) fn beats(&mut self, now: Time) -> bool {
        let due = now >= self.said.plus_ms(self.heartbeat_ms / 2);
        if due {
            self.said = now;
        }
        due
    }

    pub(super) fn deadline(&self) -> Time {
        let beat = self.said.plus_ms(self.heartbeat_ms / 2);
        if self.deaf { beat } else { beat.min(self.heard.plus_ms(2 * self.heartbeat_ms)) }
    }
}
