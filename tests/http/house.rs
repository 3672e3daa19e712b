//! A server, and a client that says exactly what it is told.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pillarbox::config::{Address, Config, Period};
use pillarbox::server::{Protocol, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const BODY_MAX: usize = 64 << 10;

pub(crate) struct House {
    pub(crate) server: Server,
}

#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Heard {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::listening(Address::Off).await
    }

    /// With STOMP and the native protocol there.
    pub(crate) async fn listening(others: Address) -> Self {
        let mut config = Config::default();
        config.store.in_memory = true;
        let anywhere = Address::local(0);
        (config.listen.amqp, config.listen.http) = (anywhere, anywhere);
        (config.listen.stomp, config.listen.native) = (others, others);
        config.http.body_size_max = pillarbox::config::ByteSize(BODY_MAX as u64);
        config.http.sample_interval = Period(Duration::from_millis(50));
        Self { server: Server::start(config).await.expect("the server starts") }
    }

    pub(crate) async fn socket(&self, listener: Protocol) -> TcpStream {
        let address = self.server.address(listener).expect("the listener is there");
        TcpStream::connect(address).await.expect("the listener accepts")
    }

    /// Sends these bytes, reads until the server closes or one whole answer is there.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Option<Heard> {
        self.raw_to(Protocol::Http, bytes).await
    }

    async fn raw_to(&self, listener: Protocol, bytes: &[u8]) -> Option<Heard> {
        let mut socket = self.socket(listener).await;
        // The server may answer and close before it has taken everything.
        let _ = socket.write_all(bytes).await;
        let mut all = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut all)).await.expect("an answer comes");
        let text = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Some(Heard { status, head: head.to_owned(), body })
    }

    /// Without a login or anything else.
    pub(crate) async fn send_to(&self, listener: Protocol, method: &str, path: &str) -> Heard {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.raw_to(listener, request.as_bytes()).await.expect("an answer")
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Heard {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let bytes = [request.as_bytes(), body].concat();
        self.raw(&bytes).await.expect("an answer")
    }

    pub(crate) async fn as_user(
        &self,
        (user, password): (&str, &str),
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Heard {
        let login = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let headers = [("authorization", login.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, &headers, body.as_bytes()).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Heard {
        self.as_user(("guest", "guest"), method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let heard = self.ask("GET", path, None).await;
        assert_eq!(heard.status, 200, "{path}: {heard:?}");
        heard.json()
    }

    pub(crate) async fn does(&self, method: &str, path: &str, body: Value, status: u16) -> Heard {
        let body = (!body.is_null()).then_some(body);
        let heard = self.ask(method, path, body.as_ref()).await;
        assert_eq!(heard.status, status, "{method} {path}: {heard:?}");
        heard
    }

    pub(crate) async fn queue(&self, name: &str) {
        self.does("PUT", &format!("/api/queues/%2F/{name}"), json!({}), 201).await;
    }

    pub(crate) async fn publish(&self, key: &str, payload: &str) -> Value {
        let body = json!({
            "properties": {}, "routing_key": key, "payload": payload, "payload_encoding": "string",
        });
        self.does("POST", "/api/exchanges/%2F/amq.default/publish", body, 200).await.json()
    }

    pub(crate) async fn amqp(&self) -> lapin::Connection {
        let port = self.server.amqp_address().expect("the listener is there").port();
        let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
        let properties = lapin::ConnectionProperties::default();
        lapin::Connection::connect(&uri, properties).await.expect("a connection")
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let value = self.get(path).await;
                if wanted(&value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path} stays as it is"))
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, more) = rest.split_once("\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(size, 16).expect("a number");
        if size == 0 {
            return body;
        }
        body.push_str(&more[..size]);
        rest = more[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
}
