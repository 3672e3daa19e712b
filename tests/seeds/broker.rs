//! Brokers to try things on: inside the test, and as a process that can be killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pillarbox::Broker;
use pillarbox::client::{Client, Connect};
use pillarbox::config::{Address, Config};
use pillarbox::server::Protocol;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// In memory, with an HTTP listener.
pub(crate) async fn broker() -> (Broker, SocketAddr) {
    let mut config = Config::default();
    config.store.in_memory = true;
    config.listen.amqp = Address::Off;
    config.listen.stomp = Address::Off;
    config.listen.native = Address::Off;
    config.listen.http = Address::local(0);
    let broker = Broker::start(config).await.unwrap();
    let http = broker.server().unwrap().address(Protocol::Http).unwrap();
    (broker, http)
}

/// The real thing, which the test never outlives.
pub(crate) struct Process {
    child: Child,
    native: String,
}

impl Process {
    pub(crate) fn start(directory: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["serve", "--amqp-listen", "none", "--stomp-listen", "none"])
            .args(["--http-listen", "none", "--native-listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self { child, native: String::new() };
        let out = BufReader::new(process.child.stdout.take().unwrap());
        let lines = out.lines().map(Result::unwrap).take_while(|line| line != "ready");
        for line in lines {
            if let Some(address) = line.strip_prefix("listening native ") {
                process.native = address.to_owned();
            }
        }
        assert!(!process.native.is_empty(), "the broker does not start");
        process
    }

    pub(crate) async fn client(&self) -> Client {
        let connect = Connect { address: self.native.clone(), ..Connect::default() };
        Client::connect(&connect).await.unwrap()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| it.trim())
    }
}

/// A request that has been sent, and whose answer nobody has read.
pub(crate) fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> TcpStream {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n", body.len());
    socket.write_all(request.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    socket
}

pub(crate) fn receive(mut socket: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Sends a request and reads its answer, on a thread so that the broker can work meanwhile.
pub(crate) async fn http(
    to: SocketAddr,
    method: &'static str,
    path: &str,
    headers: &'static [&'static str],
    body: &[u8],
) -> Answer {
    let (path, body) = (path.to_owned(), body.to_vec());
    let asked = move || receive(send(to, method, &path, headers, &body));
    tokio::task::spawn_blocking(asked).await.unwrap()
}
