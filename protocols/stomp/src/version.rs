//! The versions of the protocol, and the choice between them.

use std::fmt;

/// A version of STOMP; later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    /// Also what a client speaks that names no version.
    #[default]
    V10,
    V11,
    V12,
}

impl Version {
    /// Every version, as the `version` header of an ERROR frame lists them.
    pub const SUPPORTED: &str = "1.0,1.1,1.2";

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The version of this name, if it is one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "1.0" => Some(Self::V10),
            "1.1" => Some(Self::V11),
            "1.2" => Some(Self::V12),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The highest version common to both sides, given the `accept-version` header of CONNECT.
///
/// A client without the header speaks 1.0. `None` means that nothing is common.
pub fn negotiate_version(accept_version: Option<&str>) -> Option<Version> {
    let Some(offered) = accept_version else {
        return Some(Version::V10);
    };
    offered.split(',').filter_map(|name| Version::parse(name.trim())).max()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, Some(Version::V10))]
    #[case(Some("1.0"), Some(Version::V10))]
    #[case(Some("1.1,1.0"), Some(Version::V11))]
    #[case(Some("1.0,1.1,1.2"), Some(Version::V12))]
    #[case(Some("1.0, 1.2 ,1.1"), Some(Version::V12))]
    #[case(Some("1.2,3.0"), Some(Version::V12))]
    #[case(Some("3.0"), None)]
    #[case(Some(""), None)]
    #[case(Some("1"), None)]
    fn highest_common_version_wins(
        #[case] accept_version: Option<&str>,
        #[case] expected: Option<Version>,
    ) {
        assert_eq!(negotiate_version(accept_version), expected);
    }

    #[test]
    fn supported_lists_every_version() {
        let all: Vec<_> = Version::SUPPORTED.split(',').map(Version::parse).collect();
        assert_eq!(all, [Some(Version::V10), Some(Version::V11), Some(Version::V12)]);
    }
}
