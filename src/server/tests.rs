//! A whole server in this process, over real sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";

fn in_memory() -> Config {
    let mut config = Config::default();
    config.store.in_memory = true;
    config.listen.amqp = Address::local(0);
    // The ports of the others are the same for all tests.
    config.listen.stomp = Address::Off;
    config.listen.http = Address::Off;
    config.listen.native = Address::Off;
    config
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.amqp_address().unwrap()).await.unwrap()
}

/// Says the protocol header and waits for connection.start.
async fn greet(client: &mut TcpStream) {
    client.write_all(HEADER).await.unwrap();
    let mut head = [0; 11];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], &head[7..]), (1, &[0, 10, 0, 10][..]));
}

async fn ends(client: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("the socket closes");
}

#[tokio::test]
async fn a_server_in_memory_starts_serves_and_stops() {
    let server = Server::start(in_memory()).await.unwrap();
    let mut client = connect(&server).await;
    greet(&mut client).await;
    let mut wrong = connect(&server).await;
    wrong.write_all(b"AMQP\x00\x01\x00\x00").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, wrong.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, HEADER);
    let address = server.amqp_address().unwrap();
    drop(client);
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn two_servers_live_side_by_side() {
    let (one, two) =
        (Server::start(in_memory()).await.unwrap(), Server::start(in_memory()).await.unwrap());
    greet(&mut connect(&one).await).await;
    one.stop().await.unwrap();
    greet(&mut connect(&two).await).await;
    two.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_is_locked_while_its_server_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = in_memory();
    config.store.in_memory = false;
    config.store.directory = directory.path().join("data");
    let first = Server::start(config.clone()).await.unwrap();
    let second = Server::start(config.clone()).await.err().expect("it is locked");
    assert!(matches!(second, StartError::Locked(_)), "{second}");
    first.stop().await.unwrap();
    Server::start(config).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Server::start(in_memory()).await.unwrap();
    let address = server.amqp_address().unwrap();
    let mut config = in_memory();
    config.listen.amqp = Address::At(address);
    let error = Server::start(config).await.err().expect("the port is taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} for amqp: ")), "{error}");
}

#[tokio::test]
async fn further_clients_wait_to_be_accepted() {
    let mut config = in_memory();
    config.limits.connections_max = 1;
    let server = Server::start(config).await.unwrap();
    let mut first = connect(&server).await;
    greet(&mut first).await;
    let mut second = connect(&server).await;
    let early = timeout(Duration::from_millis(100), greet(&mut second)).await;
    assert!(early.is_err());
    drop(first);
    let mut head = [0; 11];
    timeout(PATIENCE, second.read_exact(&mut head)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_leave_is_severed() {
    let mut config = in_memory();
    config.runtime.stop_timeout = Period(Duration::from_millis(100));
    let server = Server::start(config).await.unwrap();
    let mut client = connect(&server).await;
    greet(&mut client).await;
    let started = std::time::Instant::now();
    server.stop().await.unwrap();
    assert!(started.elapsed() < PATIENCE);
    ends(&mut client).await;
}

/// What is written beside each other in two places is the same.
#[test]
fn sessions_have_the_defaults_of_the_settings() {
    let config = Config::default();
    let shown = |it: &dyn std::fmt::Debug| format!("{it:#?}");
    assert_eq!(shown(&amqp_settings(&config)), shown(&amqp::Settings::default()));
    assert_eq!(shown(&stomp_settings(&config)), shown(&stomp::Settings::default()));
}

#[test]
fn limits_of_the_settings_reach_the_sessions() {
    let mut config = Config::default();
    config.amqp.login_frame_max = 1;
    config.amqp.channel_consumers_max = 2;
    config.amqp.transaction_operations_max = 3;
    config.amqp.transaction_bytes_max = ByteSize(4);
    config.amqp.unfinished_bytes_max = ByteSize(5);
    let amqp = amqp_settings(&config);
    assert_eq!(amqp.handshake_frame_max, 4096);
    assert_eq!((amqp.channel_consumers_max, amqp.transaction_commands_max), (2, 3));
    assert_eq!((amqp.transaction_bytes_max, amqp.unfinished_bytes_max), (4, 5));
    config.stomp.login_frame_size_max = ByteSize(1 << 20);
    config.stomp.headers_max = 1;
    config.stomp.header_size_max = ByteSize(2);
    config.stomp.headers_size_max = ByteSize(3);
    config.stomp.subscriptions_max = 4;
    config.stomp.temp_queues_max = 5;
    config.stomp.transactions_max = 6;
    config.stomp.transaction_frames_max = 7;
    config.stomp.transaction_bytes_max = ByteSize(8);
    let stomp = stomp_settings(&config);
    assert_eq!(stomp.login_frame_max, 64 << 10);
    let headers = [stomp.headers_max, stomp.header_line_size_max, stomp.header_block_size_max];
    assert_eq!(headers, [1, 2, 3]);
    assert_eq!((stomp.subscriptions_max, stomp.temp_queues_max), (4, 5));
    assert_eq!((stomp.transactions_max, stomp.transaction_actions_max), (6, 7));
    assert_eq!(stomp.transaction_bytes_max, 8);
}

#[tokio::test]
async fn connections_are_accepted_at_the_pace_of_the_settings() {
    let mut config = in_memory();
    config.limits.accepts_per_second = 10;
    let server = Server::start(config).await.unwrap();
    let started = std::time::Instant::now();
    let mut clients = Vec::new();
    for _ in 0..45 {
        let mut client = connect(&server).await;
        greet(&mut client).await;
        clients.push(client);
    }
    // Forty at once, and five in half a second.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(400) && took < PATIENCE, "{took:?}");
}
