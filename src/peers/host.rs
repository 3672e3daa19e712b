//! What a host is called: its id, its name, and where others dial it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::broker::{HOST_NAME_SIZE_MAX, HOST_TAGS_MAX, Name, is_host_name};

/// Made once for each data directory, and the same for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostId(pub u128);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HostId {
    type Err = NotAHostId;

    fn from_str(text: &str) -> Result<Self, NotAHostId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAHostId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotAHostId)
    }
}

impl TryFrom<String> for HostId {
    type Error = NotAHostId;

    fn try_from(text: String) -> Result<Self, NotAHostId> {
        text.parse()
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> Self {
        id.to_string()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a host's id of 32 hexadecimal digits")]
pub struct NotAHostId;

/// Where a host is dialled: a name or an address of IP, and a port. Looked up anew for each dial.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress(String);

impl PeerAddress {
    /// The longest name of DNS, brackets, colon and port.
    pub const SIZE_MAX: usize = 253 + 8;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the port, and without the brackets of IPv6.
    pub fn name(&self) -> &str {
        let (name, _) = self.0.rsplit_once(':').unwrap_or((&self.0, ""));
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PeerAddress {
    type Err = NotAPeerAddress;

    fn from_str(text: &str) -> Result<Self, NotAPeerAddress> {
        let (name, port) = text.rsplit_once(':').ok_or(NotAPeerAddress)?;
        let bare = match name.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(NotAPeerAddress)?,
            // An address of IPv6 without brackets has more than one end.
            None if name.contains(':') => return Err(NotAPeerAddress),
            None => name,
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        let port_fits = port.parse::<u16>().is_ok_and(|port| port != 0);
        if bare.is_empty() || text.len() > Self::SIZE_MAX || !bare.bytes().all(known) || !port_fits
        {
            return Err(NotAPeerAddress);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = NotAPeerAddress;

    fn try_from(text: String) -> Result<Self, NotAPeerAddress> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not HOST:PORT such as \"b.example:8476\" or \"10.0.0.2:8476\"")]
pub struct NotAPeerAddress;

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub id: HostId,
    /// What people call it, and others name its outbox after: one host for each name at a time.
    pub name: Name,
    /// Grows with each start of this data directory.
    pub incarnation: u64,
    /// Random for each start: tells apart two processes that claim one id and one incarnation.
    pub run: u64,
    pub tags: Vec<Name>,
    /// Where others dial it; nobody can where it is missing.
    pub address: Option<PeerAddress>,
}

impl Host {
    pub const NAME_SIZE_MAX: usize = HOST_NAME_SIZE_MAX;
    pub const TAGS_MAX: usize = HOST_TAGS_MAX;

    /// Whether name and tags are in the form that settings are held to; what comes from elsewhere is asked too.
    pub fn is_well_formed(&self) -> bool {
        self.tags.len() <= Self::TAGS_MAX
            && self.tags.iter().chain([&self.name]).all(|name| host_name(name).is_ok())
    }
}

/// A host's name, or one of its tags.
pub fn host_name(text: &str) -> Result<Name, NotAHostName> {
    if is_host_name(text) { Ok(text.into()) } else { Err(NotAHostName) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a name of 1 to 63 letters, digits, '-', '.' and '_'")]
pub struct NotAHostName;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = HostId(0xabc);
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "abc", "+0000000000000000000000000000abc", &"g".repeat(32)] {
            assert_eq!(wrong.parse::<HostId>(), Err(NotAHostId), "{wrong}");
        }
    }

    #[rstest]
    #[case("b.example:8476", "b.example")]
    #[case("B.Example:8476", "b.example")]
    #[case("10.0.0.2:1", "10.0.0.2")]
    #[case("[::1]:65535", "::1")]
    #[case("[fe80::1%eth0]:8476", "fe80::1%eth0")]
    fn addresses_are_names_and_ports(#[case] text: &str, #[case] name: &str) {
        assert_eq!(text.parse::<PeerAddress>().unwrap().name(), name);
    }

    #[rstest]
    #[case("")]
    #[case("b.example")]
    #[case(":8476")]
    #[case("b.example:0")]
    #[case("b.example:65536")]
    #[case("b.example:port")]
    #[case("::1:8476")]
    #[case("[::1:8476")]
    #[case("b example:8476")]
    #[case("b.example/x:8476")]
    fn what_is_no_address_is_refused(#[case] text: &str) {
        assert_eq!(text.parse::<PeerAddress>(), Err(NotAPeerAddress));
        let long = format!("{}:8476", "a".repeat(PeerAddress::SIZE_MAX));
        assert_eq!(long.parse::<PeerAddress>(), Err(NotAPeerAddress));
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(host_name("rack-1.b_2").is_ok());
        for wrong in ["", "a b", "a/b", "é", &"a".repeat(64)] {
            assert_eq!(host_name(wrong), Err(NotAHostName), "{wrong}");
        }
    }
}
