//! A broker of this machine, for whoever may read its data directory.

use std::fmt::Display;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Connect, Error, Proof};

/// Where the broker of a data directory is reached, and the secret of its run. Only the directory's owner can read it.
#[derive(Serialize, Deserialize)]
pub(crate) struct OwnerFile {
    address: SocketAddr,
    /// The HTTP listener, where the loopback reaches one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<SocketAddr>,
    token: String,
}

impl OwnerFile {
    pub(crate) const NAME: &str = "owner.json";

    pub(crate) fn new(address: SocketAddr, http: Option<SocketAddr>, token: &[u8]) -> Self {
        Self { address, http, token: STANDARD.encode(token) }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an address and a text")
    }
}

impl Connect {
    /// To a broker of this machine, as its administrator, by what `owner.json` in its data directory says: whoever may
    /// read that needs no password. The file is there while the broker runs, if its native listener is on a loopback address.
    pub fn by_owner(file: &[u8]) -> Result<Self, Error> {
        let malformed = |error: &dyn Display| Error::Malformed(format!("no owner's file: {error}"));
        let file: OwnerFile = serde_json::from_slice(file).map_err(|it| malformed(&it))?;
        let token = STANDARD.decode(&file.token).map_err(|it| malformed(&it))?;
        Ok(Self {
            address: file.address.to_string(),
            user: String::new(),
            proof: Proof::Token(token),
            ..Self::default()
        })
    }
}
