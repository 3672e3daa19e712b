//! STOMP through real sockets: TCP, and websockets with the malformed rows W1 to W9.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pillarbox::config::{Address, Config, WebsocketFrame};
use pillarbox::server::{Protocol, Server};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const PATIENCE: Duration = Duration::from_secs(20);

async fn server() -> Server {
    server_with(|_| {}).await
}

async fn server_with(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.store.in_memory = true;
    let anywhere = Address::At(([127, 0, 0, 1], 0).into());
    (config.listen.amqp, config.listen.stomp, config.listen.http) =
        (Address::Off, anywhere, anywhere);
    config.listen.native = Address::Off;
    change(&mut config);
    Server::start(config).await.expect("the server starts")
}

async fn connect(server: &Server, protocol: Protocol) -> TcpStream {
    let address = server.address(protocol).expect("the listener is there");
    TcpStream::connect(address).await.expect("the listener accepts")
}

/// Sends a request and returns the head of the answer.
async fn request(socket: &mut TcpStream, line: &str, headers: &[&str]) -> String {
    let request = format!("{line} HTTP/1.1\r\n{}\r\n", headers.concat());
    socket.write_all(request.as_bytes()).await.expect("the request is taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match timeout(PATIENCE, socket.read_u8()).await.expect("an answer comes") {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("the head is text")
}

const HOST: &str = "host: localhost\r\n";
const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn websocket(server: &Server, path: &str) -> WebSocketStream<TcpStream> {
    let mut socket = connect(server, Protocol::Http).await;
    let subprotocol = "sec-websocket-protocol: v11.stomp, v12.stomp\r\n";
    let line = format!("GET {path}");
    let head = request(&mut socket, &line, &[HOST, UPGRADE, subprotocol]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-protocol: v12.stomp\r\n"), "{head}");
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

async fn hears(socket: &mut WebSocketStream<TcpStream>) -> String {
    let message = timeout(PATIENCE, socket.next()).await.expect("a message comes");
    let message = message.expect("the socket is open").expect("the message is whole");
    message.into_text().expect("the message is text").to_string()
}

#[rstest]
#[case("/ws")]
#[case("/stomp/websocket")]
#[tokio::test]
async fn page_sends_to_itself(#[case] path: &str) {
    let server = server().await;
    let mut socket = websocket(&server, path).await;
    let send = |text: &'static str| Message::text(text);
    // Frames span messages, messages hold several frames, and both kinds of message will do.
    socket.send(send("CONNECT\naccept-version:1.2\nho")).await.expect("taken");
    socket.send(Message::binary(&b"st:/\n\n\0"[..])).await.expect("taken");
    assert!(hears(&mut socket).await.starts_with("CONNECTED\n"));
    let both =
        "SUBSCRIBE\nid:0\ndestination:/topic/t\n\n\0\nSEND\ndestination:/topic/t\n\nh\u{e9}\0";
    socket.send(send(both)).await.expect("taken");
    let heard = hears(&mut socket).await;
    assert!(heard.starts_with("MESSAGE\nsubscription:0\n"), "{heard}");
    assert!(heard.ends_with("\n\nh\u{e9}\0\n"), "{heard}");
    socket.send(Message::Ping("there?".into())).await.expect("taken");
    let pong = timeout(PATIENCE, socket.next()).await.expect("an answer comes");
    assert_eq!(pong.and_then(Result::ok), Some(Message::Pong("there?".into())));
    socket.send(send("DISCONNECT\nreceipt:bye\n\n\0")).await.expect("taken");
    assert_eq!(hears(&mut socket).await, "RECEIPT\nreceipt-id:bye\n\n\0\n");
    let close = timeout(PATIENCE, socket.next()).await.expect("the server closes");
    match close {
        Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 1000),
        other => panic!("unexpected {other:?}"),
    }
    server.stop().await.expect("the server stops");
}

#[rstest]
#[case::other_page("GET /ws", &[HOST, UPGRADE, "origin: https://evil.example\r\n"], 403)]
#[case::no_page("GET /ws", &[HOST, UPGRADE, "origin: null\r\n"], 403)]
#[case::own_page("GET /ws", &[HOST, UPGRADE, "origin: http://localhost\r\n"], 101)]
#[case::other_protocol("GET /ws", &[HOST, UPGRADE, "sec-websocket-protocol: mqtt\r\n"], 400)]
#[case::no_upgrade("GET /ws", &[HOST], 400)]
#[case::post("POST /ws", &[HOST, UPGRADE, "content-length: 0\r\n"], 405)]
#[case::no_key("GET /ws", &[HOST, "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"], 400)]
#[case::old_version("GET /ws", &[HOST, "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 12\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"], 426)]
#[case::not_a_connection_header("GET /ws", &[HOST, "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"], 400)]
#[case::compression("GET /ws", &[HOST, UPGRADE, "sec-websocket-extensions: permessage-deflate\r\n"], 101)]
#[case::nothing_there("GET /wss", &[HOST, UPGRADE], 404)]
#[case::rebound_name("GET /ws", &["host: evil.example\r\n", UPGRADE], 421)]
#[case::no_host("GET /ws", &[UPGRADE], 400)]
#[case::page("GET /examples/stomp", &[HOST], 200)]
#[case::script("GET /examples/stomp/chat.js", &[HOST], 200)]
#[case::rebound_page("GET /examples/stomp", &["host: evil.example\r\n"], 421)]
#[tokio::test]
async fn requests_are_answered(#[case] line: &str, #[case] headers: &[&str], #[case] status: u16) {
    let server = server().await;
    let mut socket = connect(&server, Protocol::Http).await;
    let head = request(&mut socket, line, headers).await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    // Compression is not agreed on, so that no few bytes become very many.
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    if status == 200 {
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    }
}

/// A client's frame with a mask of zeros, which leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn announced(length: u64) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame
}

#[rstest]
#[case::unmasked(vec![0x81, 1, b'x'], 1002)]
#[case::reserved_bit(frame(0xC1, b"x"), 1002)]
#[case::reserved_opcode(frame(0x83, b"x"), 1002)]
#[case::long_control(frame(0x89, &[b'x'; 126]), 1002)]
#[case::fragmented_control(frame(0x09, b"x"), 1002)]
#[case::continuation_of_nothing(frame(0x80, b"x"), 1002)]
#[case::frame_inside_a_message([frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002)]
#[case::huge(announced(1 << 62), 1009)]
#[case::beyond_the_largest(announced(1 << 63), 1002)]
#[case::endless_fragments([frame(0x01, &[b'x'; 60_000]), frame(0x00, &[b'x'; 60_000]).repeat(300)].concat(), 1009)]
#[case::empty_fragments([frame(0x01, b""), frame(0x00, b"").repeat(100_000)].concat(), 1008)]
#[case::large(announced((16 << 20) + 1), 1009)]
#[case::not_utf8(frame(0x81, b"\xFF"), 1007)]
#[case::close_code_999(frame(0x88, &999u16.to_be_bytes()), 1002)]
#[case::close_code_1005(frame(0x88, &1005u16.to_be_bytes()), 1002)]
#[case::half_a_close_code(frame(0x88, b"x"), 1002)]
#[case::ping_flood(frame(0x89, b"x").repeat(1000), 1008)]
#[tokio::test]
async fn broken_websocket_is_closed_with_its_code(#[case] bytes: Vec<u8>, #[case] code: u16) {
    let server = server().await;
    let mut socket = connect(&server, Protocol::Http).await;
    let head = request(&mut socket, "GET /ws", &[HOST, UPGRADE]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The server may close before it has taken everything.
    let _ = socket.write_all(&bytes).await;
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("the socket ends");
    assert!(matches!(
        ended.as_ref().map_err(io::Error::kind),
        Ok(_) | Err(io::ErrorKind::ConnectionReset)
    ));
    let close =
        heard.windows(4).find(|it| it[0] == 0x88).map(|it| u16::from_be_bytes([it[2], it[3]]));
    assert_eq!(close, Some(code), "{heard:?}");
    // Nobody else notices.
    let mut other = websocket(&server, "/ws").await;
    other.send(Message::text("CONNECT\naccept-version:1.2\n\n\0")).await.expect("taken");
    assert!(hears(&mut other).await.starts_with("CONNECTED\n"));
}

/// `guest:guest`, `guest:wrong`, and what is no login.
#[rstest]
#[case::right("authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n", 101, "CONNECTED\n")]
#[case::wrong("authorization: basic Z3Vlc3Q6d3Jvbmc=\r\n", 101, "ERROR\nmessage:Bad CONNECT\n")]
#[case::default_user("", 101, "CONNECTED\n")]
#[case::not_basic("authorization: Bearer Z3Vlc3Q6Z3Vlc3Q=\r\n", 401, "")]
#[case::not_base64("authorization: Basic ?\r\n", 401, "")]
#[case::no_colon("authorization: Basic Z3Vlc3Q=\r\n", 401, "")]
#[case::two(
    "authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nauthorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n",
    401,
    ""
)]
#[tokio::test]
async fn request_says_who_comes_where_it_is_asked(
    #[case] login: &str,
    #[case] status: u16,
    #[case] answer: &str,
) {
    let server = server_with(|config| config.stomp.http_login = true).await;
    let mut socket = connect(&server, Protocol::Http).await;
    let head = request(&mut socket, "GET /ws", &[HOST, UPGRADE, login]).await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert_eq!(head.contains("www-authenticate: Basic "), status == 401, "{head}");
    if status == 101 {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, None).await;
        let connect = "CONNECT\naccept-version:1.2\nlogin:nobody\npasscode:nothing\n\n\0";
        socket.send(Message::text(connect)).await.expect("taken");
        let heard = hears(&mut socket).await;
        assert!(heard.starts_with(answer), "{heard}");
    }
}

#[tokio::test]
async fn messages_are_binary_where_that_is_wanted() {
    let binary = |config: &mut Config| config.stomp.websocket_frame = WebsocketFrame::Binary;
    let server = server_with(binary).await;
    let mut socket = websocket(&server, "/ws").await;
    socket.send(Message::text("CONNECT\naccept-version:1.2\n\n\0")).await.expect("taken");
    let message = timeout(PATIENCE, socket.next()).await.expect("a message comes");
    let message = message.expect("the socket is open").expect("the message is whole");
    assert!(message.is_binary() && message.into_data().starts_with(b"CONNECTED\n"));
}

#[tokio::test]
async fn tcp_client_gets_its_receipt() {
    let server = server().await;
    let mut socket = connect(&server, Protocol::Stomp).await;
    let frames = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0\
                   SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\nhi\0DISCONNECT\nreceipt:2\n\n\0";
    socket.write_all(frames).await.expect("taken");
    let mut heard = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut heard))
        .await
        .expect("it ends")
        .expect("it is text");
    assert!(heard.starts_with("CONNECTED\n"), "{heard}");
    assert!(
        heard.ends_with("RECEIPT\nreceipt-id:1\n\n\0\nRECEIPT\nreceipt-id:2\n\n\0\n"),
        "{heard}"
    );
}
