//! A directory's server inside a test: says what it is told, whatever it is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::config::DirectoryUrl;
use crate::peers::{Host, HostId};

/// What it does with a connection, once it has read the request.
#[derive(Clone)]
pub(super) enum Answer {
    Says(String),
    /// Says that, and then nothing more while the connection stands.
    Hangs(String),
    /// Repeats that for ever.
    Babbles(&'static str),
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// `answer` gets the request, head and body.
    pub(super) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move {
                    let _ = serve(socket, &*answer, &log).await;
                });
            }
        });
        Self { address, asked, task }
    }

    pub(super) fn url(&self) -> DirectoryUrl {
        DirectoryUrl(self.address.to_string().parse().unwrap())
    }

    /// The first lines of all requests so far, without the version.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn serve(
    mut socket: TcpStream,
    answer: &(impl Fn(&str) -> Answer + Sync),
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let text = loop {
        if socket.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap_or_default().parse::<usize>().unwrap());
        if body.len() >= length {
            break text;
        }
    };
    let line = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
    log.lock().unwrap().push(line.to_owned());
    match answer(&text) {
        Answer::Says(said) => socket.write_all(said.as_bytes()).await?,
        Answer::Hangs(said) => {
            socket.write_all(said.as_bytes()).await?;
            let mut rest = [0; 1];
            let _ = socket.read(&mut rest).await?;
        }
        Answer::Babbles(said) => loop {
            socket.write_all(said.as_bytes()).await?;
        },
    }
    Ok(())
}

/// A whole answer with a body.
pub(super) fn says(status: u16, body: &str) -> Answer {
    says_with(status, "", body)
}

pub(super) fn says_with(status: u16, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Says(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}"))
}

pub(super) fn host(number: u128, name: &str) -> Host {
    Host {
        id: HostId(number),
        name: name.into(),
        incarnation: 7,
        run: 0,
        tags: Vec::new(),
        address: Some(format!("{name}:8476").parse().unwrap()),
    }
}

/// What every directory has to bear: a name for each, and what its server does.
pub(super) fn misbehaviour() -> Vec<(&'static str, Answer)> {
    let head = "HTTP/1.1 200 OK\r\n";
    vec![
        ("closes at once", Answer::Says(String::new())),
        ("no HTTP", Answer::Says("SSH-2.0-OpenSSH\r\n".into())),
        ("head cut off", Answer::Says(head.into())),
        ("body cut off", Answer::Says(format!("{head}content-length: 10\r\n\r\n["))),
        ("an error", says(500, "no leader")),
        ("forbidden", says(403, "Permission denied")),
        ("moved", says_with(301, "location: http://127.0.0.1:1/\r\n", "")),
        ("no JSON", says(200, "<html>")),
        ("other JSON", says(200, "{\"result\":null}")),
        ("no text", says(200, "\u{0}\u{1}")),
        ("deep JSON", says(200, &"[".repeat(100_000))),
        ("silence", Answer::Hangs(String::new())),
        ("half an answer", Answer::Hangs(format!("{head}content-length: 10\r\n\r\n["))),
        ("an endless head", Answer::Babbles("x: y\r\n")),
        (
            "an endless body",
            Answer::Babbles("HTTP/1.1 200 OK\r\n\r\n                                "),
        ),
    ]
}
