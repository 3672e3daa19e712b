//! Who gets in, and as whom.

use std::sync::Arc;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rstest::rstest;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{Authority, Identity, client, expired, named, server, settings};
use crate::config::ClientCertificate::{Optional, Required};
use crate::config::{self, CertificateName, ClientCertificate};
use crate::server::tls::{Files, Secured, Tls, TlsError};

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

pub(super) struct Shaken {
    /// What the server saw, or why it refused.
    pub(super) server: Result<Secured, String>,
    /// What the client has of it, once it heard a byte.
    pub(super) client: Result<TlsStream<DuplexStream>, String>,
}

/// Both sides of a handshake, and one byte from the server.
pub(super) async fn shake(tls: &Tls, client: &Arc<ClientConfig>) -> Shaken {
    let (ours, theirs) = duplex(64 << 10);
    let server = async {
        let (mut stream, secured) = tls.accept(ours).await.map_err(|error| error.to_string())?;
        stream.write_all(b"!").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        Ok((stream, secured))
    };
    let client = async {
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(client.clone()).connect(name, theirs).await?;
        stream.read_u8().await?;
        Ok::<_, std::io::Error>(stream)
    };
    let (server, client) = tokio::join!(server, client);
    let client = client.map_err(|error| error.to_string());
    Shaken { server: server.map(|(_, secured)| secured), client }
}

pub(super) fn loaded(settings: &config::Tls) -> Tls {
    Tls::load(Files::wanted(settings).unwrap().unwrap(), settings).unwrap().0
}

struct House {
    tls: Tls,
    authority: Authority,
    _directory: tempfile::TempDir,
}

fn house(client_certificate: ClientCertificate) -> House {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let mut settings = settings(directory.path(), &authority.server(), Some(&authority));
    settings.client_certificate = client_certificate;
    House { tls: loaded(&settings), authority, _directory: directory }
}

fn anna() -> Result<Secured, String> {
    Ok(Secured { user: Some("CN=anna".into()) })
}

#[rstest]
#[case(&[&TLS12])]
#[case(&[&TLS13])]
#[tokio::test]
async fn certificate_of_the_authority_names_its_user(
    #[case] versions: &[&'static SupportedProtocolVersion],
) {
    for asked in [Optional, Required] {
        let house = house(asked);
        let identity = house.authority.client("anna");
        let client = Arc::new(house.authority.believer(Some(&identity), versions));
        let shaken = shake(&house.tls, &client).await;
        assert_eq!(shaken.server, anna());
        assert!(shaken.client.is_ok());
    }
}

#[rstest]
#[case::expired(|ours: &Authority| ours.issue(expired(client("anna"))))]
#[case::another_authority(|_: &Authority| Authority::new("theirs").client("anna"))]
#[case::look_alike(|_: &Authority| Authority::new("ours").client("anna"))]
#[case::for_servers(|ours: &Authority| {
    let mut params = client("anna");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    ours.issue(params)
})]
#[case::not_yet(|ours: &Authority| {
    let mut params = client("anna");
    params.not_before = rcgen::date_time_ymd(2099, 1, 1);
    ours.issue(params)
})]
#[case::signed_by_an_end(|ours: &Authority| {
    // Whom the authority trusts is no authority.
    let key = rcgen::KeyPair::generate().unwrap();
    let end = rcgen::CertifiedIssuer::signed_by(client("bob"), key, ours.issuer()).unwrap();
    let own = rcgen::KeyPair::generate().unwrap();
    let certificate = client("anna").signed_by(&own, &end).unwrap().pem() + &end.pem();
    Identity { certificate, key: own.serialize_pem() }
})]
#[tokio::test]
async fn certificate_that_cannot_be_believed_is_refused(
    #[case] identity: fn(&Authority) -> Identity,
) {
    for asked in [Optional, Required] {
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let house = house(asked);
            let identity = identity(&house.authority);
            let client = Arc::new(house.authority.believer(Some(&identity), versions));
            let shaken = shake(&house.tls, &client).await;
            let refused = shaken.server.unwrap_err();
            assert!(refused.contains("invalid peer certificate"), "{refused}");
            assert!(shaken.client.is_err());
        }
    }
}

#[tokio::test]
async fn client_without_a_certificate_may_come_where_none_is_required() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let house = house(Optional);
        let client = Arc::new(house.authority.believer(None, versions));
        let shaken = shake(&house.tls, &client).await;
        assert_eq!(shaken.server, Ok(Secured { user: None }));
        assert!(shaken.client.is_ok());

        let house = self::house(Required);
        let client = Arc::new(house.authority.believer(None, versions));
        let shaken = shake(&house.tls, &client).await;
        assert_eq!(shaken.server.unwrap_err(), "peer sent no certificates");
        assert!(shaken.client.is_err());
    }
}

#[tokio::test]
async fn without_an_authority_no_certificate_is_asked_for() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let tls = loaded(&settings(directory.path(), &authority.server(), None));
    let identity = authority.client("anna");
    let client = Arc::new(authority.believer(Some(&identity), BOTH));
    assert_eq!(shake(&tls, &client).await.server, Ok(Secured { user: None }));
}

#[tokio::test]
async fn client_that_does_not_believe_the_broker_goes() {
    let house = house(Optional);
    let client = Arc::new(Authority::new("theirs").believer(None, BOTH));
    let shaken = shake(&house.tls, &client).await;
    assert!(shaken.client.unwrap_err().contains("invalid peer certificate"));
    assert!(shaken.server.unwrap_err().contains("received fatal alert"));
}

/// A session that is taken up again would keep a certificate good that is not any more.
#[tokio::test]
async fn whoever_comes_back_shows_the_certificate_again() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let house = house(Optional);
        let identity = house.authority.client("anna");
        let client = Arc::new(house.authority.believer(Some(&identity), versions));
        for _ in 0..2 {
            let shaken = shake(&house.tls, &client).await;
            let kind = shaken.client.unwrap().get_ref().1.handshake_kind();
            assert_ne!(kind, Some(HandshakeKind::Resumed));
            assert_eq!(shaken.server, anna());
        }
    }
}

#[rstest]
#[case::amqp(b"AMQP\0\0\x09\x01")]
#[case::http(b"GET / HTTP/1.1\r\n\r\n")]
#[case::endless(&[0x16, 3, 1, 0xFF, 0xFF, 1])]
#[tokio::test]
async fn client_without_tls_is_refused(#[case] said: &[u8]) {
    let house = house(Optional);
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(said).await.unwrap();
    theirs.shutdown().await.unwrap();
    assert!(house.tls.accept(ours).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_for() {
    let house = house(Optional);
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(&[0x16, 3, 1]).await.unwrap();
    let started = tokio::time::Instant::now();
    let refused = house.tls.accept(ours).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn setting_says_what_of_a_certificate_is_the_user() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let mut settings = settings(directory.path(), &authority.server(), Some(&authority));
    let mut params = client("anna");
    params.subject_alt_names = vec![rcgen::SanType::DnsName("anna.example".try_into().unwrap())];
    let identity = authority.issue(params);
    for (from, expected) in [
        (CertificateName::CommonName, Some("anna")),
        (CertificateName::DnsName, Some("anna.example")),
        (CertificateName::Email, None),
    ] {
        settings.user_from = from;
        let client = Arc::new(authority.believer(Some(&identity), BOTH));
        let shaken = shake(&loaded(&settings), &client).await;
        assert_eq!(shaken.server, Ok(Secured { user: expected.map(str::to_owned) }));
    }
}

fn refused(settings: &config::Tls) -> String {
    let loaded = Files::wanted(settings).and_then(|files| match files {
        Some(files) => Tls::load(files, settings).map(drop),
        None => Ok(()),
    });
    loaded.unwrap_err().to_string()
}

#[test]
fn wrong_file_is_named() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let at = |name: &str| directory.path().join(name).display().to_string();
    let good = settings(directory.path(), &authority.server(), Some(&authority));
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();

    write("server.key", &authority.server().key);
    let text = format!(
        "the key in {} is not that of the certificate in {}",
        at("server.key"),
        at("server.pem")
    );
    assert_eq!(refused(&good), text);
    write("server.key", &authority.server().certificate);
    assert_eq!(refused(&good), format!("there is no private key in {}", at("server.key")));
    write("server.pem", "nothing");
    assert_eq!(refused(&good), format!("there is no certificate in {}", at("server.pem")));
    let own = authority.server();
    write("server.pem", &own.certificate[..own.certificate.len() / 2]);
    assert!(refused(&good).starts_with(&format!("cannot read {}: ", at("server.pem"))));
    write("server.key", &own.key);
    write("server.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    let text = format!("the certificate in {} cannot be used: ", at("server.pem"));
    assert!(refused(&good).starts_with(&text), "{}", refused(&good));
    std::fs::remove_file(at("server.pem")).unwrap();
    assert!(refused(&good).starts_with(&format!("cannot read {}: ", at("server.pem"))));

    let own = authority.server();
    write("server.pem", &own.certificate);
    write("server.key", &own.key);
    write("clients.pem", "");
    assert_eq!(refused(&good), format!("there is no certificate in {}", at("clients.pem")));
}

#[test]
fn half_a_setting_is_refused() {
    let path = Some("x".into());
    let half = config::Tls { certificate: path.clone(), ..config::Tls::default() };
    assert!(matches!(Files::wanted(&half), Err(TlsError::Half)));
    let half = config::Tls { key: path.clone(), ..config::Tls::default() };
    assert!(matches!(Files::wanted(&half), Err(TlsError::Half)));
    let whole = config::Tls { certificate: path.clone(), key: path, ..config::Tls::default() };
    assert!(matches!(Files::wanted(&whole), Ok(Some(_))));
    let required = config::Tls { client_certificate: Required, ..whole };
    assert!(matches!(Files::wanted(&required), Err(TlsError::NoAuthority)));
    assert!(matches!(Files::wanted(&config::Tls::default()), Ok(None)));
}

/// A broker that does not start would help nobody.
#[test]
fn expired_certificate_is_served_all_the_same() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    loaded(&settings(directory.path(), &authority.issue(expired(server())), None));
    loaded(&settings(directory.path(), &authority.issue(named("x")), None));
}
