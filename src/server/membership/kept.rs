//! Whom this host knows, written down: a start without its directory dials whom it knew.

use std::io;
use std::path::Path;

use crate::peers::Host;
use crate::server::file::{read_small, replace};

const FILE: &str = "hosts.json";

/// A file that cannot be read costs no more than the time until the hosts are met anew.
pub(super) fn read(directory: &Path) -> Vec<Host> {
    let path = directory.join(FILE);
    let text = match read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "cannot read {}", path.display());
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Vec<Host>>(&text) {
        Ok(mut hosts) => {
            hosts.retain(Host::is_well_formed);
            hosts
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read {}", path.display());
            Vec::new()
        }
    }
}

pub(super) fn write(directory: &Path, hosts: &[Host]) -> io::Result<()> {
    replace(directory, FILE, &serde_json::to_vec_pretty(hosts)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::HostId;

    #[test]
    fn hosts_are_known_again_and_a_damaged_file_is_as_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), []);
        let host = Host {
            id: HostId(7),
            name: "b".into(),
            incarnation: 3,
            run: u64::MAX,
            tags: vec!["eu".into()],
            address: Some("b.example:8476".parse().unwrap()),
        };
        let strange = Host { name: "a b".into(), ..host.clone() };
        write(directory.path(), &[host.clone(), strange]).unwrap();
        assert_eq!(read(directory.path()), [host]);
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for size in 0..whole.len() {
            std::fs::write(&path, &whole[..size]).unwrap();
            assert_eq!(read(directory.path()), []);
        }
    }
}
