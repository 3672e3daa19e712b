//! Whole servers behind TLS: what each protocol says there.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::handshakes::BOTH;
use super::pki::{Authority, Identity, settings};
use crate::client::{self, Client};
use crate::config::{Address, CertificateName, Config, Secret};
use crate::server::{Protocol, Server, StartError, TlsError};

const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    server: Server,
    authority: Authority,
    _directory: tempfile::TempDir,
}

fn config() -> Config {
    let mut config = Config::default();
    config.store.in_memory = true;
    let listen = &mut config.listen;
    for plain in [&mut listen.stomp, &mut listen.http, &mut listen.native] {
        *plain = Address::Off;
    }
    listen.amqp = Address::local(0);
    config
}

async fn house() -> House {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let mut config = config();
    config.tls = settings(directory.path(), &authority.server(), Some(&authority));
    config.tls.user_from = CertificateName::CommonName;
    config.stomp.certificate_login = true;
    let listen = &mut config.listen;
    for tls in
        [&mut listen.amqp_tls, &mut listen.stomp_tls, &mut listen.http_tls, &mut listen.native_tls]
    {
        *tls = Address::local(0);
    }
    config.login.user = "anna".into();
    config.login.password = Secret::new("s3cret");
    let server = Server::start(config).await.unwrap();
    House { server, authority, _directory: directory }
}

impl House {
    async fn connect(
        &self,
        protocol: Protocol,
        identity: Option<&Identity>,
    ) -> TlsStream<TcpStream> {
        let address = self.server.tls_address(protocol).expect("it listens");
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.authority.believer(identity, BOTH)));
        connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
    }
}

/// Reads until the text is there.
async fn hears(stream: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut heard = Vec::new();
    timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&heard).contains(text) {
            let count = stream.read_buf(&mut heard).await.unwrap();
            assert_ne!(count, 0, "{:?}", String::from_utf8_lossy(&heard));
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {text:?} in {:?}", String::from_utf8_lossy(&heard)));
    String::from_utf8_lossy(&heard).into_owned()
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// A method on channel 0.
fn method(ids: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let size = (arguments.len() as u32 + 4).to_be_bytes();
    let ids = [ids.0.to_be_bytes(), ids.1.to_be_bytes()].concat();
    [&[1, 0, 0][..], &size, &ids, arguments, &[0xCE]].concat()
}

/// Client properties that allow a refusal to be read, the mechanism, and an empty response.
fn start_ok(mechanism: &str) -> Vec<u8> {
    let mut capabilities = vec![28];
    capabilities.extend(b"authentication_failure_closet\x01");
    let mut properties = vec![12];
    properties.extend(b"capabilitiesF");
    properties.extend((capabilities.len() as u32).to_be_bytes());
    properties.extend(capabilities);
    let mut arguments = (properties.len() as u32).to_be_bytes().to_vec();
    arguments.extend(properties);
    arguments.push(mechanism.len() as u8);
    arguments.extend(mechanism.as_bytes());
    arguments.extend([0, 0, 0, 0, 5]);
    arguments.extend(b"en_US");
    method((10, 11), &arguments)
}

const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

#[tokio::test]
async fn amqp_offers_external_to_whoever_has_a_certificate() {
    let house = house().await;
    let anna = house.authority.client("anna");
    let mut client = house.connect(Protocol::Amqp, Some(&anna)).await;
    say(&mut client, HEADER).await;
    hears(&mut client, "PLAIN AMQPLAIN EXTERNAL").await;
    say(&mut client, &start_ok("EXTERNAL")).await;
    hears(&mut client, "\x0A\0\x1E").await;

    let mut client = house.connect(Protocol::Amqp, None).await;
    say(&mut client, HEADER).await;
    let start = hears(&mut client, "en_US").await;
    assert!(start.contains("PLAIN AMQPLAIN") && !start.contains("EXTERNAL"), "{start}");
    say(&mut client, &start_ok("EXTERNAL")).await;
    hears(&mut client, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'").await;
}

#[tokio::test]
async fn certificate_of_nobody_known_is_refused() {
    let house = house().await;
    let stranger = house.authority.client("stranger");
    let mut client = house.connect(Protocol::Amqp, Some(&stranger)).await;
    say(&mut client, HEADER).await;
    hears(&mut client, "EXTERNAL").await;
    say(&mut client, &start_ok("EXTERNAL")).await;
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL.";
    hears(&mut client, text).await;
}

#[tokio::test]
async fn stomp_and_websockets_know_the_certificate_too() {
    let house = house().await;
    let anna = house.authority.client("anna");
    let mut client = house.connect(Protocol::Stomp, Some(&anna)).await;
    say(&mut client, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").await;
    hears(&mut client, "CONNECTED\n").await;

    let mut client = house.connect(Protocol::Http, Some(&anna)).await;
    let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
                   upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    say(&mut client, request.as_bytes()).await;
    hears(&mut client, "HTTP/1.1 101 ").await;
    let frame = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";
    let mut masked = vec![0x81, 0x80 | frame.len() as u8, 0, 0, 0, 0];
    masked.extend(frame);
    say(&mut client, &masked).await;
    hears(&mut client, "CONNECTED\n").await;
}

#[tokio::test]
async fn the_end_of_the_certificate_is_watched() {
    let house = house().await;
    // Certificates of the tests end with the year 2099.
    for (within, expected) in [("1/years", "HTTP/1.1 200 "), ("9000/years", "HTTP/1.1 503 ")] {
        let mut client = house.connect(Protocol::Http, None).await;
        let request = format!(
            "GET /api/health/checks/certificate-expiration/{within} HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Basic YW5uYTpzM2NyZXQ=\r\nconnection: close\r\n\r\n"
        );
        say(&mut client, request.as_bytes()).await;
        hears(&mut client, expected).await;
    }
    let mut client = house.connect(Protocol::Http, None).await;
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\
                   authorization: Basic YW5uYTpzM2NyZXQ=\r\nconnection: close\r\n\r\n";
    say(&mut client, request.as_bytes()).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let line = "pillarbox_certificate_expiry_timestamp_seconds{shown_to=\"clients\"} 4102444800";
    assert!(answer.lines().any(|it| it == line), "{answer}");
}

/// With the library that the command line uses.
#[tokio::test]
async fn native_protocol_is_spoken_over_tls() {
    let house = house().await;
    let port = house.server.tls_address(Protocol::Native).unwrap().port();
    let connect = |tls| client::Connect {
        address: format!("localhost:{port}"),
        user: "anna".into(),
        proof: client::Proof::Password("s3cret".into()),
        tls: Some(tls),
        ..client::Connect::default()
    };
    let anna = house.authority.client("anna");
    let own = (anna.certificate.as_bytes(), anna.key.as_bytes());
    for own in [None, Some(own)] {
        let tls = client::Tls::new(house.authority.pem().as_bytes(), own).unwrap();
        let client = Client::connect(&connect(tls)).await.unwrap();
        client.declare(&client::Mailbox::durable("jobs")).await.unwrap();
        client.push("jobs", vec![7; 1 << 20]).await.unwrap();
        client.purge("jobs").await.unwrap();
    }
    // The certificate alone will do, for whom it names.
    let tls = client::Tls::new(house.authority.pem().as_bytes(), Some(own)).unwrap();
    let certified = client::Connect { proof: client::Proof::Certificate, ..connect(tls) };
    let client = Client::connect(&certified).await.unwrap();
    client.push("jobs", "x").await.unwrap();
    let none = client::Tls::new(house.authority.pem().as_bytes(), None).unwrap();
    let uncertified = client::Connect { proof: client::Proof::Certificate, ..connect(none) };
    let error = Client::connect(&uncertified).await.err().unwrap();
    assert!(matches!(error, client::Error::Login(_)), "{error}");
    let theirs = client::Tls::new(Authority::new("theirs").pem().as_bytes(), None).unwrap();
    let error = Client::connect(&connect(theirs)).await.err().unwrap().to_string();
    let start = format!("TLS with localhost:{port}: invalid peer certificate: ");
    assert!(error.starts_with(&start), "{error}");
    let empty = client::Tls::new(b"", None).unwrap_err().to_string();
    assert_eq!(empty, "TLS with the authorities: there is no certificate in it");
}

#[tokio::test]
async fn wrong_door_is_closed() {
    let house = house().await;
    let plain = house.server.address(Protocol::Amqp).unwrap();
    let secure = house.server.tls_address(Protocol::Amqp).unwrap();
    let mut client = TcpStream::connect(secure).await.unwrap();
    say(&mut client, HEADER).await;
    let mut heard = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut heard)).await.unwrap().unwrap();
    // An alert, which is fatal.
    assert_eq!((heard[0], heard[5]), (21, 2), "{heard:?}");

    let socket = TcpStream::connect(plain).await.unwrap();
    let connector = TlsConnector::from(Arc::new(house.authority.believer(None, BOTH)));
    let name = ServerName::try_from("localhost").unwrap();
    let refused = timeout(PATIENCE, connector.connect(name, socket)).await.unwrap();
    assert!(refused.is_err());
}

#[tokio::test]
async fn tls_without_a_certificate_is_a_mistake() {
    let mut config = config();
    config.listen.stomp_tls = Address::local(0);
    let error = Server::start(config).await.err().expect("it does not start");
    assert!(matches!(error, StartError::Tls(TlsError::NoCertificate("stomp-tls"))), "{error}");
    let expected = "TLS: listen.stomp_tls is set, but tls.certificate is not";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn handshake_under_way_does_not_hold_up_the_stop() {
    let house = house().await;
    let secure = house.server.tls_address(Protocol::Amqp).unwrap();
    let mut client = TcpStream::connect(secure).await.unwrap();
    client.write_all(&[0x16]).await.unwrap();
    tokio::task::yield_now().await;
    let started = std::time::Instant::now();
    timeout(PATIENCE, house.server.stop()).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(4));
}
