//! Other hosts: who they are, and whom to dial.
//!
//! Values only; the sockets, files and directories are in `server/`.

mod host;
mod membership;

pub use host::{Host, HostId, NotAHostName, NotAPeerAddress, PeerAddress, host_name};
pub use membership::{Dial, Known, Meeting, Membership, Sighting, Source};
