//! What all hosts know and nobody else does.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{Address, Config, Secret};
use crate::peers::PeerAddress;
use crate::server::file::read_small;

/// As many as a tag of HMAC-SHA-256 that is cut in half.
const SIZE_MIN: usize = 16;

/// Every way the hosts' secret can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "{0} leaves this machine, and without a secret anybody could take this host's messages or send it some: \
         give all hosts one file with peers.secret_file (or --peer-secret-file), for example from `openssl rand -hex 32`, \
         or certificates with peers.certificate, peers.key and peers.ca"
    )]
    Missing(String),
    #[error("cannot read peers.secret_file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the secret has {0} bytes; it needs at least {SIZE_MIN}")]
    Short(usize),
    #[error("peers.secret and peers.secret_file are both set")]
    Both,
    #[error(
        "peers.gossip needs a secret, also where links have certificates: give all hosts one file with peers.secret_file"
    )]
    Gossip,
}

pub(in crate::server) fn secret(config: &Config) -> Result<Option<Secret>, SecretError> {
    let peers = &config.peers;
    let secret = match (&peers.secret, &peers.secret_file) {
        (Some(_), Some(_)) => return Err(SecretError::Both),
        (Some(secret), None) => Some(secret.clone()),
        (None, Some(path)) => {
            let text = read_small(path).and_then(|it| {
                String::from_utf8(it).map_err(|_| io::ErrorKind::InvalidData.into())
            });
            match text {
                Ok(text) => Some(Secret::new(text.trim_end())),
                Err(error) => return Err(SecretError::Unreadable { path: path.clone(), error }),
            }
        }
        (None, None) => None,
    };
    match secret {
        Some(secret) if secret.reveal().len() < SIZE_MIN => {
            Err(SecretError::Short(secret.reveal().len()))
        }
        Some(secret) => Ok(Some(secret)),
        None if peers.gossip != Address::Off => Err(SecretError::Gossip),
        // Who shows a certificate of the hosts' authority is no stranger.
        None if peers.ca.is_some() => Ok(None),
        None => beyond(config).map_or(Ok(None), |what| Err(SecretError::Missing(what))),
    }
}

/// The first setting that leads to other machines.
fn beyond(config: &Config) -> Option<String> {
    if let at @ Address::At(address) = config.listen.peers
        && at.is_open()
    {
        return Some(format!("listen.peers = \"{address}\""));
    }
    let peers = &config.peers;
    let directories = [
        ("dns", peers.dns.is_some()),
        ("consul", peers.consul.is_some()),
        ("etcd", peers.etcd.is_some()),
    ];
    let away = peers.hosts.0.iter().find(|it| !is_here(it));
    let away = away.map(|address| format!("peers.hosts = \"{address}\""));
    away.or_else(|| {
        let directory = directories.iter().find(|(_, used)| *used);
        directory.map(|(name, _)| format!("peers.{name}"))
    })
}

fn is_here(address: &PeerAddress) -> bool {
    let name = address.name();
    name == "localhost"
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(settings: &[(&'static str, &str)]) -> Config {
        let flags = settings.iter().map(|(key, value)| ("x", *key, (*value).to_owned()));
        Config::load(None, [], flags).unwrap()
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&[("listen.peers", "127.0.0.1:0"), ("peers.hosts", "localhost:1,[::1]:2")], None)]
    #[case(&[("listen.peers", "0.0.0.0:0")], Some("listen.peers = \"0.0.0.0:0\" leaves this machine"))]
    #[case(&[("peers.hosts", "127.0.0.1:1,b:2")], Some("peers.hosts = \"b:2\" leaves this machine"))]
    #[case(&[("listen.peers", "0.0.0.0:0"), ("peers.secret", "0123456789abcdef")], None)]
    #[case(&[("listen.peers", "0.0.0.0:0"), ("peers.ca", "ca.pem")], None)]
    #[case(&[("peers.gossip", "127.0.0.1:0"), ("peers.ca", "ca.pem")], Some("peers.gossip needs a secret"))]
    #[case(&[("peers.gossip", "127.0.0.1:0"), ("peers.secret", "0123456789abcdef")], None)]
    #[case(&[("peers.secret", "0123456789abcde")], Some("the secret has 15 bytes; it needs at least 16"))]
    #[case(&[("peers.secret", "0123456789abcdef"), ("peers.secret_file", "x")], Some("are both set"))]
    #[case(&[("peers.secret_file", "/no/such")], Some("cannot read peers.secret_file /no/such"))]
    fn other_machines_need_a_secret(
        #[case] settings: &[(&'static str, &str)],
        #[case] expected: Option<&str>,
    ) {
        let refused = secret(&config(settings)).err().map(|it| it.to_string());
        match (refused, expected) {
            (None, None) => {}
            (Some(refused), Some(expected)) => assert!(refused.contains(expected), "{refused}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_may_end_in_a_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let config = config(&[("peers.secret_file", file.path().to_str().unwrap())]);
        assert_eq!(secret(&config).unwrap().unwrap().reveal(), "0123456789abcdef");
    }
}
