//! A broker process among others, and what is asked of it again and again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pillarbox::broker::{Table, Value};
use pillarbox::client::{Client, Connect, List, NewMessage};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker process, which never outlives the test.
pub(crate) struct Broker {
    pub(crate) name: &'static str,
    directory: PathBuf,
    child: Child,
    _out: BufReader<ChildStdout>,
    pub(crate) native: String,
    pub(crate) http: String,
    pub(crate) amqp: String,
    pub(crate) stomp: String,
    pub(crate) peers: String,
}

impl Broker {
    /// `peers` is where it listened before, or port 0.
    pub(crate) fn start(
        directory: &Path,
        name: &'static str,
        peers: &str,
        others: &[&str],
    ) -> Self {
        Self::start_with(directory, name, peers, others, &[])
    }

    pub(crate) fn start_with(
        directory: &Path,
        name: &'static str,
        peers: &str,
        others: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        for listener in ["AMQP", "STOMP"] {
            command.env(format!("PILLARBOX__LISTEN__{listener}"), "none");
        }
        command.env("PILLARBOX__PEERS__HEARTBEAT", "2 s");
        command.args(["serve", "--native-listen", "127.0.0.1:0", "--peer-listen", peers]);
        command.args(["--http-listen", "127.0.0.1:0"]);
        command.args(["--host-name", name, "--data-dir"]).arg(directory.join(name));
        for other in others {
            command.args(["--peer", other]);
        }
        command.envs(settings.iter().copied());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{name}.log")))
            .expect("a log");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (mut native, mut http, mut peers) = (String::new(), String::new(), String::new());
        let (mut amqp, mut stomp) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            out.read_line(&mut line).expect("its words");
            match line.trim_end() {
                "ready" => break,
                "" => panic!("host {name} does not start; see {}", directory.display()),
                line => {
                    if let Some(address) = line.strip_prefix("listening native ") {
                        native = address.into();
                    }
                    if let Some(address) = line.strip_prefix("listening http ") {
                        http = address.into();
                    }
                    if let Some(address) = line.strip_prefix("listening amqp ") {
                        amqp = address.into();
                    }
                    if let Some(address) = line.strip_prefix("listening stomp ") {
                        stomp = address.into();
                    }
                    for prefix in ["listening peers ", "listening peers-tls "] {
                        if let Some(address) = line.strip_prefix(prefix) {
                            peers = address.into();
                        }
                    }
                }
            }
        }
        Self {
            name,
            directory: directory.into(),
            child,
            _out: out,
            native,
            http,
            amqp,
            stomp,
            peers,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let connect = Connect { address: self.native.clone(), ..Connect::default() };
        Client::connect(&connect).await.expect("a client may come in")
    }

    /// A foreign client's channel with confirms.
    pub(crate) async fn confirming(&self) -> (lapin::Connection, lapin::Channel) {
        let uri = format!("amqp://{}", self.amqp);
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&uri, properties).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let options = lapin::options::ConfirmSelectOptions::default();
        channel.confirm_select(options).await.expect("confirms");
        (connection, channel)
    }

    /// What an administrator is answered over HTTP.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.http).expect("it listens");
        let (host, size) = (&self.http, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
             content-length: {size}\r\nconnection: close\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).expect("taken");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// What a verb of the command line says, and its exit code.
    pub(crate) fn cli(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        let ran = command.args(arguments).env("PILLARBOX_BROKER", &self.native).output();
        let ran = ran.expect("it runs");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code().expect("a code"), String::from_utf8(said).expect("text"))
    }

    /// What an administrator gets over HTTP.
    pub(crate) fn get(&self, path: &str) -> String {
        let answer = self.send("GET", path, "");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is a child");
    }

    /// On the same directory and peer address.
    pub(crate) fn restart(mut self, others: &[&str]) -> Self {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
        Self::start(&self.directory.clone(), self.name, &self.peers.clone(), others)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn peer(client: &Client, name: &str) -> Option<Table> {
    let rows = client.list(List::Peers, "").await.expect("a list");
    rows.into_iter().find(|row| row.get("name").and_then(Value::as_str) == Some(name))
}

pub(crate) fn number(row: &Table, name: &str) -> i64 {
    row.get(name).and_then(Value::as_i64).unwrap_or(0)
}

/// Until the host's links are up both ways and it told of so many mailboxes and bindings.
pub(crate) async fn knows(client: &Client, name: &str, mailboxes: i64, bindings: i64) {
    until(&format!("links with {name}"), async || {
        let row = peer(client, name).await?;
        let up = |way: &str| row.get(way).and_then(Value::as_str) == Some("up");
        let told = (number(&row, "mailboxes"), number(&row, "bindings")) == (mailboxes, bindings);
        (up("to") && up("from") && told).then_some(())
    })
    .await;
}

pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes so many messages, and sees that there are no more.
pub(crate) async fn take(client: &Client, mailbox: &str, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    let began = Instant::now();
    while all.len() < count && began.elapsed() < PATIENCE {
        let wait = Duration::from_millis(200);
        let pulled = client.pull(mailbox, 1000, wait).await.expect("messages");
        for delivery in &pulled.deliveries {
            all.push(String::from_utf8_lossy(delivery.body()).into_owned());
        }
        client
            .settle(&pulled.deliveries, pillarbox::client::Outcome::Accepted)
            .await
            .expect("settled");
    }
    let more = client.pull(mailbox, 1, Duration::from_millis(300)).await.expect("an answer");
    assert!(more.deliveries.is_empty(), "{mailbox}: more than {count}");
    all
}

pub(crate) async fn push(client: &Client, mailbox: &str, bodies: impl IntoIterator<Item = String>) {
    let messages: Vec<NewMessage> = bodies.into_iter().map(|body| body.as_str().into()).collect();
    let pushed = client.push_batch(mailbox, &messages).await.expect("an answer");
    pushed.into_result().expect("confirmed");
}

pub(crate) fn bodies(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("m{n}")).collect()
}
