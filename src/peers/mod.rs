//! Other hosts: who they are, whom to dial, and the links to them.
//!
//! Values only; the sockets, files and directories are in `server/`.

#[cfg(feature = "gossip")]
mod datagram;
mod guest;
mod handshake;
mod host;
mod link;
mod membership;
mod message;
mod refusal;
mod routes;
mod told;
mod wish;

#[cfg(feature = "gossip")]
pub use datagram::{Broken, Halves, Seal};
pub use guest::Guest;
pub use handshake::{LinkSettings, Registry};
pub use host::{Host, HostId, NotAHostName, NotAPeerAddress, PeerAddress, host_name};
pub use link::Link;
pub use membership::{Dial, Known, Meeting, Membership, Sighting, Source};
