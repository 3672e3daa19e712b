//! The file that lets in whoever may read the data directory, without a password.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use tokio::task::spawn_blocking;

use super::StartError;
use super::file::replace;
use super::listener::{Listening, Protocol};
use crate::client::OwnerFile;
use crate::config::Config;
use crate::sessions::native::Token;

/// Takes the file away again when the broker goes.
pub(super) struct Owner(PathBuf);

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the file, with a token of this run, where there is a directory and a listener that this machine reaches.
pub(super) async fn publish(
    config: &Config,
    listening: &[Listening],
    token: &Token,
) -> Result<Option<Owner>, StartError> {
    let reached = |protocol| listening.iter().find_map(|it| reached_from_here(it, protocol));
    let Some(address) = reached(Protocol::Native) else { return Ok(None) };
    if config.store.in_memory {
        return Ok(None);
    }
    let directory = config.store.directory.clone();
    let content = OwnerFile::new(address, reached(Protocol::Http), &token.0).to_json();
    let path = directory.join(OwnerFile::NAME);
    let written = spawn_blocking(move || replace(&directory, OwnerFile::NAME, &content)).await;
    match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(()) => Ok(Some(Owner(path))),
        Err(error) => Err(StartError::Owner { path, error }),
    }
}

/// Where this machine reaches a listener of the protocol over its loopback, without TLS.
fn reached_from_here(listening: &Listening, wanted: Protocol) -> Option<SocketAddr> {
    let Listening { protocol, tls: false, address } = listening else { return None };
    if *protocol != wanted {
        return None;
    }
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip if ip.is_loopback() => ip,
        _ => return None,
    };
    Some(SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Protocol::Native, false, "127.0.0.1:8475", Some("127.0.0.1:8475"))]
    #[case(Protocol::Native, false, "0.0.0.0:1", Some("127.0.0.1:1"))]
    #[case(Protocol::Native, false, "[::]:1", Some("[::1]:1"))]
    #[case(Protocol::Native, false, "10.0.0.1:1", None)]
    #[case(Protocol::Native, true, "127.0.0.1:1", None)]
    #[case(Protocol::Amqp, false, "127.0.0.1:1", None)]
    fn only_what_the_loopback_reaches_is_named(
        #[case] protocol: Protocol,
        #[case] tls: bool,
        #[case] address: &str,
        #[case] expected: Option<&str>,
    ) {
        let listening = Listening { protocol, tls, address: address.parse().unwrap() };
        assert_eq!(
            reached_from_here(&listening, Protocol::Native),
            expected.map(|it| it.parse().unwrap())
        );
    }
}
