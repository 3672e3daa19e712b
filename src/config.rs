//! The settings of a broker: defaults, a TOML file, environment variables and flags, in rising precedence.
//!
//! The only reader of files and environment for settings. An unknown key is an error that names the nearest known one.

mod layers;
mod sections;
mod value;

pub use layers::{ConfigError, Source};
pub use sections::{Amqp, Config, Limits, Listen, Log, Login, Memory, Peers, Runtime, Store, Tls};
pub use value::{
    Address, ByteSize, CertificateName, ClientCertificate, DirectoryUrl, DnsSource, HostName,
    HostTags, Identity, KeyPrefix, PeerAddresses, Period, Secret, Share, WebsocketFrame,
};

#[cfg(test)]
mod tests;
