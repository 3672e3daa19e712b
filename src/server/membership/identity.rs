//! Who this host is: an id made once and kept in the data directory, and what the settings say.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::broker::{Name, Time};
use crate::config::Peers;
use crate::peers::{Host, HostId, host_name};
use crate::server::file::{read_small, replace};

const FILE: &str = "host.json";

/// Every way in which a host cannot be told who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(
        "{} does not say which host this is: {reason}; bring it back, or remove it to become a new host",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("the machine's name '{0}' cannot be a host's: set peers.name")]
    Name(String),
    #[error("the machine gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// What the file keeps.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: HostId,
    /// Of the last start.
    incarnation: u64,
}

/// Notes this start; without a directory, a host lives as long as its process.
///
/// An incarnation is the time of its start, or one more than the last where the clock was set back. So it grows also
/// where the file came back from a backup.
pub(super) fn open(
    directory: Option<&Path>,
    settings: &Peers,
    now: Time,
) -> Result<Host, IdentityError> {
    let before = match directory {
        Some(directory) => read(directory)?,
        None => None,
    };
    let kept = match before {
        Some(kept) => {
            let incarnation = kept.incarnation.saturating_add(1).max(now.seconds());
            Kept { incarnation, ..kept }
        }
        None => Kept { id: HostId(random()?), incarnation: now.seconds() },
    };
    if let Some(directory) = directory {
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| IdentityError::File {
            path: directory.join(FILE),
            error: error.into(),
        })?;
        // Others refuse one that is older than the last they saw: it is noted before anybody hears of it.
        replace(directory, FILE, &text)
            .map_err(|error| IdentityError::File { path: directory.join(FILE), error })?;
    }
    let run = u64::try_from(random()? >> 64).unwrap_or(u64::MAX);
    let name = name(settings)?;
    let tags = settings.tags.0.clone();
    Ok(Host { id: kept.id, name, incarnation: kept.incarnation, run, tags, address: None })
}

fn read(directory: &Path) -> Result<Option<Kept>, IdentityError> {
    let path = directory.join(FILE);
    let text = match read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::File { path, error }),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| IdentityError::Damaged { path, reason: error.to_string() })
}

fn name(settings: &Peers) -> Result<Name, IdentityError> {
    if let Some(name) = &settings.name {
        return Ok(name.0.clone());
    }
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    host_name(&machine).map_err(|_| IdentityError::Name(machine))
}

fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::HostName;

    fn settings() -> Peers {
        Peers { name: Some(HostName("a".into())), ..Peers::default() }
    }

    #[test]
    fn a_directory_keeps_its_id_and_its_incarnation_grows() {
        let directory = tempfile::tempdir().unwrap();
        let start =
            |seconds: u64| open(Some(directory.path()), &settings(), Time(seconds * 1000)).unwrap();
        let first = start(50);
        let incarnations = [start(50), start(90), start(10)].map(|it| (it.id, it.incarnation));
        assert_eq!(first.incarnation, 50);
        assert_eq!(incarnations, [51, 90, 91].map(|it| (first.id, it)));
        assert_ne!(start(90).run, first.run);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(Some(other.path()), &settings(), Time(0)).unwrap().id, first.id);
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_new_host() {
        let directory = tempfile::tempdir().unwrap();
        open(Some(directory.path()), &settings(), Time(7000)).unwrap();
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for size in 0..whole.len() {
            fs::write(&path, &whole[..size]).unwrap();
            let refused = open(Some(directory.path()), &settings(), Time(7000));
            assert!(matches!(refused, Err(IdentityError::Damaged { .. })), "{size} bytes");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(open(Some(directory.path()), &settings(), Time(7000)).unwrap().incarnation, 8);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let refused = open(Some(Path::new("/proc/no/such")), &settings(), Time(7000));
        assert!(matches!(refused, Err(IdentityError::File { .. })));
    }
}
