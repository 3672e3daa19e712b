//! Files that change under a running broker.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rstest::rstest;
use tokio_rustls::client::TlsStream;

use super::handshakes::{BOTH, shake};
use super::pki::{Authority, Identity, expired, server, settings};
use crate::config;
use crate::server::tls::{Files, Tls, Watcher};

struct House {
    directory: tempfile::TempDir,
    authority: Authority,
    settings: config::Tls,
    tls: Tls,
    watcher: Watcher,
}

impl House {
    fn new() -> Self {
        let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        let settings = settings(directory.path(), &authority.server(), Some(&authority));
        let files = Files::wanted(&settings).unwrap().unwrap();
        let (tls, watcher) = Tls::load(files, &settings).unwrap();
        Self { directory, authority, settings, tls, watcher }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, identity: &Identity) {
        settings(self.directory.path(), identity, Some(&self.authority));
    }

    /// Long enough for a change to be seen and taken in; says what was logged.
    fn looks(&mut self) -> String {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..4 {
                self.watcher.look();
            }
        });
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The certificate that a new client is shown.
    async fn shown(&self) -> Vec<u8> {
        let client = Arc::new(self.authority.believer(None, BOTH));
        shown(&shake(&self.tls, &client).await.client.unwrap())
    }
}

fn shown<I>(stream: &TlsStream<I>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn new_certificate_is_for_new_clients() {
    let mut house = House::new();
    assert_eq!(house.looks(), "");
    let before = house.shown().await;
    house.write(&house.authority.server());
    assert_eq!(
        house.looks(),
        format!(" INFO certificate read again: {}\n", house.at("server.pem").display())
    );
    let after = house.shown().await;
    assert_ne!(before, after);
    assert_eq!(house.looks(), "");
    assert_eq!(house.shown().await, after);
}

#[tokio::test]
async fn file_that_still_changes_is_left_alone() {
    let mut house = House::new();
    let before = house.shown().await;
    let next = house.authority.server();
    std::fs::write(house.at("server.pem"), &next.certificate).unwrap();
    house.watcher.look();
    std::fs::write(house.at("server.key"), &next.key).unwrap();
    house.watcher.look();
    assert_eq!(house.shown().await, before);
    house.watcher.look();
    assert_ne!(house.shown().await, before);
}

/// The way in which certificates come into a container: a link to a directory is moved.
#[tokio::test]
async fn moved_link_is_a_change() {
    let mut house = House::new();
    let [old, new, link] = ["old", "new", "current"].map(|name| house.at(name));
    for directory in [&old, &new] {
        std::fs::create_dir(directory).unwrap();
        settings(directory, &house.authority.server(), Some(&house.authority));
    }
    std::os::unix::fs::symlink(&old, &link).unwrap();
    house.settings = config::Tls {
        certificate: Some(link.join("server.pem")),
        key: Some(link.join("server.key")),
        ..config::Tls::default()
    };
    let files = Files::wanted(&house.settings).unwrap().unwrap();
    (house.tls, house.watcher) = Tls::load(files, &house.settings).unwrap();
    let before = house.shown().await;
    std::os::unix::fs::symlink(&new, house.at("next")).unwrap();
    std::fs::rename(house.at("next"), &link).unwrap();
    house.looks();
    assert_ne!(house.shown().await, before);
}

#[rstest]
#[case::another_key(
    |house: &House| std::fs::write(house.at("server.key"), house.authority.server().key).unwrap(),
    "is not that of the certificate"
)]
#[case::damaged(
    |house: &House| std::fs::write(house.at("server.pem"), "-----BEGIN").unwrap(),
    "server.pem"
)]
#[case::gone(|house: &House| std::fs::remove_file(house.at("server.key")).unwrap(), "cannot read")]
#[case::expired(
    |house: &House| house.write(&house.authority.issue(expired(server()))),
    "it expired on 2021-01-01"
)]
#[case::no_authority(
    |house: &House| std::fs::write(house.at("clients.pem"), "").unwrap(),
    "there is no certificate in"
)]
#[tokio::test]
async fn broken_file_leaves_the_old_certificate_and_is_told_once(
    #[case] break_it: fn(&House),
    #[case] reason: &str,
) {
    let mut house = House::new();
    let before = house.shown().await;
    break_it(&house);
    let said = house.looks();
    assert!(said.starts_with(" WARN the old certificate stays: "), "{said}");
    assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
    assert_eq!(house.shown().await, before);
    assert_eq!(house.looks(), "");
    house.write(&house.authority.server());
    assert!(house.looks().starts_with(" INFO "));
    assert_ne!(house.shown().await, before);
}

#[tokio::test]
async fn authority_that_was_taken_away_lets_nobody_in() {
    let mut house = House::new();
    let identity = house.authority.client("anna");
    let client = Arc::new(house.authority.believer(Some(&identity), BOTH));
    assert!(shake(&house.tls, &client).await.server.is_ok());
    std::fs::write(house.at("clients.pem"), Authority::new("ours").pem()).unwrap();
    house.looks();
    assert!(shake(&house.tls, &client).await.server.is_err());
}
