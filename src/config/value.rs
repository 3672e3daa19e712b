//! What a setting can be: each kind reads itself from text and says itself as text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::Name;
use crate::peers::{Host, PeerAddress, host_name};

/// A kind of setting. The texts of `parse`'s errors end a sentence that names the key and the value.
pub(super) trait Setting: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not true or false".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.replace('_', "")
                    .parse()
                    .map_err(|_| format!("is not a whole number from 0 to {}", Self::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u16 u32);

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// Who the broker says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    RabbitMq,
    Pillarbox,
}

impl Setting for Identity {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "rabbitmq" => Ok(Self::RabbitMq),
            "pillarbox" => Ok(Self::Pillarbox),
            _ => Err("is not rabbitmq or pillarbox".into()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::RabbitMq => "rabbitmq".into(),
            Self::Pillarbox => "pillarbox".into(),
        }
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    Optional,
    Required,
}

impl Setting for ClientCertificate {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err("is not optional or required".into()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Optional => "optional".into(),
            Self::Required => "required".into(),
        }
    }
}

/// The kind of a websocket's messages to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebsocketFrame {
    Text,
    Binary,
}

impl Setting for WebsocketFrame {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "binary" => Ok(Self::Binary),
            _ => Err("is not text or binary".into()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Binary => "binary".into(),
        }
    }
}

/// What of a client's certificate names its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    DistinguishedName,
    CommonName,
    DnsName,
    Email,
    Uri,
}

impl CertificateName {
    const ALL: [(&str, Self); 5] = [
        ("distinguished_name", Self::DistinguishedName),
        ("common_name", Self::CommonName),
        ("dns_name", Self::DnsName),
        ("email", Self::Email),
        ("uri", Self::Uri),
    ];
}

impl Setting for CertificateName {
    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, it)| *it)
            .ok_or_else(|| "is not distinguished_name, common_name, dns_name, email or uri".into())
    }

    fn show(&self) -> String {
        let found = Self::ALL.iter().find(|(_, it)| it == self);
        found.map_or_else(String::new, |(name, _)| (*name).into())
    }
}

/// What there need not be; the empty text stands for none.
impl<T: Setting> Setting for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is not a path".into()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A number of bytes: `4096`, `64KiB`, `64 MiB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Setting for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        measure(text, &SIZES, 1)
            .map(Self)
            .ok_or_else(|| "is not a size such as 4096, \"64KiB\" or \"1GB\"".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_measure(self.0, &SIZES, f)
    }
}

/// A length of time: `30s`, `5min`, `250ms`. Without a unit it is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const PERIODS: [(&str, u64); 7] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("m", 60_000),
    ("s", 1000),
    ("sec", 1000),
    ("ms", 1),
];

impl Period {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Setting for Period {
    fn parse(text: &str) -> Result<Self, String> {
        measure(text, &PERIODS, 1000)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| "is not a time such as 30, \"30s\", \"5min\" or \"250ms\"".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_measure(self.millis(), &PERIODS, f)
    }
}

/// A part of something there is, in percent, or an amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Percent(u8),
    Bytes(ByteSize),
}

impl Share {
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Percent(percent) => whole / 100 * u64::from(percent),
            Self::Bytes(ByteSize(bytes)) => bytes,
        }
    }
}

impl Setting for Share {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().filter(|it| *it <= 100).map(Self::Percent),
            None => ByteSize::parse(text).ok().map(Self::Bytes),
        };
        parsed
            .ok_or_else(|| "is neither a share such as \"60%\" nor a size such as \"4GiB\"".into())
    }

    fn show(&self) -> String {
        match self {
            Self::Percent(percent) => format!("{percent}%"),
            Self::Bytes(size) => size.show(),
        }
    }
}

/// Where to listen, or not to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    Off,
    At(SocketAddr),
}

impl Address {
    pub const fn local(port: u16) -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Other hosts can reach it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::At(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl Setting for Address {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Off);
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.into(),
        };
        numeric.parse().map(Self::At).map_err(|_| {
            "is not ADDR:PORT such as \"127.0.0.1:5672\" or \"[::]:5672\", nor \"none\"".into()
        })
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "none".into(),
            Self::At(address) => address.to_string(),
        }
    }
}

impl Setting for PeerAddress {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|it| format!("{it}"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Where other hosts are dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAddresses(pub Vec<PeerAddress>);

impl Setting for PeerAddresses {
    fn parse(text: &str) -> Result<Self, String> {
        parts(text).map(PeerAddress::parse).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        self.0.iter().map(PeerAddress::show).collect::<Vec<_>>().join(",")
    }
}

/// What people call a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub Name);

impl Setting for HostName {
    fn parse(text: &str) -> Result<Self, String> {
        host_name(text).map(Self).map_err(|it| it.to_string())
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Words that say what kind of host it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTags(pub Vec<Name>);

impl Setting for HostTags {
    fn parse(text: &str) -> Result<Self, String> {
        let tags: Vec<Name> =
            parts(text).map(host_name).collect::<Result<_, _>>().map_err(|it| it.to_string())?;
        if tags.len() > Host::TAGS_MAX {
            return Err(format!("has more than {} tags", Host::TAGS_MAX));
        }
        Ok(Self(tags))
    }

    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// What DNS is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsSource {
    /// All addresses of a name, with this port.
    Addresses(PeerAddress),
    /// The hosts and ports of a service.
    Service(String),
}

impl Setting for DnsSource {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('_') {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if text.len() <= 253 && text.split('.').count() > 2 && text.bytes().all(known) {
                return Ok(Self::Service(text.to_ascii_lowercase()));
            }
        } else if let Ok(address) = text.parse() {
            return Ok(Self::Addresses(address));
        }
        Err("is neither NAME:PORT nor a service such as _peers._tcp.example.com".into())
    }

    fn show(&self) -> String {
        match self {
            Self::Addresses(address) => address.to_string(),
            Self::Service(name) => name.clone(),
        }
    }
}

/// Where a directory answers requests over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUrl(pub PeerAddress);

impl Setting for DirectoryUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let place = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let place = place.and_then(|place| place.parse().ok());
        place.map(Self).ok_or_else(|| {
            "is not http://HOST:PORT (TLS is not spoken: ask the agent on this host)".into()
        })
    }

    fn show(&self) -> String {
        format!("http://{}", self.0)
    }
}

/// What keys of a directory begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for KeyPrefix {
    fn parse(text: &str) -> Result<Self, String> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
        let bare = text.trim_matches('/');
        if bare.is_empty() || bare.len() > 200 || !bare.bytes().all(known) {
            return Err("is not made of letters, digits, '-', '.', '_' and '/'".into());
        }
        Ok(Self::new(bare))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What stands between commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Never shown, neither in logs nor in errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Setting for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".into()) } else { Ok(Self(text.into())) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A number with an optional unit, in the smallest unit.
fn measure(text: &str, units: &[(&str, u64)], default: u64) -> Option<u64> {
    let text = text.trim();
    let digits =
        text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = unit.trim_start();
    let scale = if unit.is_empty() {
        default
    } else {
        units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1
    };
    number.checked_mul(scale)
}

/// In the first unit that leaves no rest.
fn show_measure(amount: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |scale: u64| amount >= scale && amount.is_multiple_of(scale);
    match units.iter().find(|(_, scale)| whole(*scale)) {
        Some((name, scale)) => write!(f, "{}{name}", amount / scale),
        None => write!(f, "{amount}"),
    }
}
