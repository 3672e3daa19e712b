//! Two hosts that show each other certificates.

use std::path::Path;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::pki::{Authority, Identity, client, expired, named, server};
use crate::config;
use crate::server::tls::{Files, Tls, TlsError, Watcher};

fn written(directory: &Path, identity: &Identity, ca: &Authority) -> config::Peers {
    let path = |name: &str| directory.join(name);
    std::fs::write(path("host.pem"), &identity.certificate).unwrap();
    std::fs::write(path("host.key"), &identity.key).unwrap();
    std::fs::write(path("hosts.pem"), ca.pem()).unwrap();
    config::Peers {
        certificate: Some(path("host.pem")),
        key: Some(path("host.key")),
        ca: Some(path("hosts.pem")),
        ..config::Peers::default()
    }
}

fn host(directory: &Path, identity: &Identity, ca: &Authority) -> (Tls, Watcher) {
    let settings = written(directory, identity, ca);
    let files = Files::of_links(&settings).unwrap().unwrap();
    Tls::load(files, &config::Tls::default()).unwrap()
}

/// What the dialling host has of it once it heard a byte, and what the other one has.
async fn meet(dialler: &Tls, other: &Tls) -> [Result<(), String>; 2] {
    let (ours, theirs) = duplex(64 << 10);
    let accepting = async {
        let (mut stream, _) = other.accept(ours).await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    let dialling = async {
        let mut stream = dialler.connect(theirs, "10.0.0.7").await?;
        stream.read_u8().await.map(drop)
    };
    let (accepted, dialled) = tokio::join!(accepting, dialling);
    [dialled, accepted].map(|it| it.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn hosts_of_one_authority_meet_under_any_address() {
    let (directory, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let (a, _watcher) = host(directory.path(), &ours.issue(named("a")), &ours);
    let (b, _watcher) = host(directory.path(), &ours.issue(named("b")), &ours);
    assert_eq!(meet(&a, &b).await, [Ok(()), Ok(())]);
}

#[rstest]
#[case::of_another_authority(|ours: &Authority, other: &Authority| [other.issue(named("a")), ours.issue(named("b"))], "UnknownIssuer")]
#[case::that_expired(|ours: &Authority, _: &Authority| [ours.issue(expired(named("a"))), ours.issue(named("b"))], "expired")]
#[case::for_servers_only(|ours: &Authority, _: &Authority| [ours.issue(server()), ours.issue(named("b"))], "certificate")]
#[tokio::test]
async fn a_certificate_that_does_not_hold_is_refused_at_both_ends(
    #[case] issued: fn(&Authority, &Authority) -> [Identity; 2],
    #[case] reason: &str,
) {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let [wrong, right] = issued(&ours, &other);
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, _watcher) = host(directories[0].path(), &wrong, &ours);
    let (b, _watcher) = host(directories[1].path(), &right, &ours);
    let [dialled, accepted] = meet(&a, &b).await;
    assert!(dialled.is_err());
    assert!(accepted.as_ref().is_err_and(|error| error.contains(reason)), "{accepted:?}");
}

#[rstest]
#[case::of_another_authority(|_: &Authority, other: &Authority| other.issue(named("b")), "UnknownIssuer")]
#[case::that_expired(|ours: &Authority, _: &Authority| ours.issue(expired(named("b"))), "expired")]
#[case::for_clients_only(|ours: &Authority, _: &Authority| ours.issue(client("b")), "certificate")]
#[tokio::test]
async fn whoever_answers_must_show_one_that_holds(
    #[case] issued: fn(&Authority, &Authority) -> Identity,
    #[case] reason: &str,
) {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, _watcher) = host(directories[0].path(), &ours.issue(named("a")), &ours);
    let (b, _watcher) = host(directories[1].path(), &issued(&ours, &other), &ours);
    let [dialled, accepted] = meet(&a, &b).await;
    assert!(dialled.as_ref().is_err_and(|error| error.contains(reason)), "{dialled:?}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_at_the_next_dial() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, mut watcher) = host(directories[0].path(), &other.issue(named("a")), &ours);
    let (b, _watcher) = host(directories[1].path(), &ours.issue(named("b")), &ours);
    assert!(meet(&a, &b).await[1].is_err());
    written(directories[0].path(), &ours.issue(both()), &ours);
    (0..4).for_each(|_| watcher.look());
    assert_eq!(meet(&a, &b).await, [Ok(()), Ok(())]);
    assert_eq!(meet(&b, &a).await, [Ok(()), Ok(())]);
}

/// As `openssl` writes it for both ends.
fn both() -> CertificateParams {
    let mut params = named("a");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

#[test]
fn a_part_of_the_files_is_an_error() {
    let all = |name: &str| Some(name.into());
    let half = config::Peers { ca: all("ca.pem"), key: all("a.key"), ..config::Peers::default() };
    assert!(matches!(Files::of_links(&half), Err(TlsError::HalfLink)));
    assert!(Files::of_links(&config::Peers::default()).unwrap().is_none());
}
