//! Requests to the broker's HTTP API: one connection, one question.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;
use super::broker::Broker;

/// The broker may have much to say before it answers.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) login: Login<'a>,
    pub(super) body: &'a [u8],
}

#[derive(Clone, Copy)]
pub(super) enum Login<'a> {
    Nobody,
    User(&'a str, &'a str),
    /// The secret of the broker's run, as its `owner.json` has it.
    Owner(&'a str),
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks the HTTP listener at this address.
pub(super) async fn ask(
    address: &str,
    broker: &Broker,
    question: &Question<'_>,
) -> Result<Answer, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::no_broker(format!("no broker's HTTP listener at {address}: {error}"))
    };
    let socket = timeout(CONNECT_PATIENCE, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(&"no answer in time"))?
        .map_err(|error| unreachable(&error))?;
    match broker.tls()? {
        None => exchange(socket, question).await,
        Some(tls) => {
            let stream = tls.connect(socket, address).await.map_err(|error| unreachable(&error))?;
            exchange(stream, question).await
        }
    }
}

/// The same over a stream that leads there.
pub(super) async fn exchange(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    question: &Question<'_>,
) -> Result<Answer, Failure> {
    let Question { method, path, login, body } = question;
    let login = match login {
        Login::Nobody => String::new(),
        Login::User(user, password) => {
            let coded = STANDARD.encode(format!("{user}:{password}"));
            format!("authorization: Basic {coded}\r\n")
        }
        Login::Owner(token) => format!("authorization: Bearer {token}\r\n"),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{login}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let conversation = async {
        // Who refuses may answer and close before everything was sent.
        let _ = io.write_all(&[head.as_bytes(), body].concat()).await;
        let mut heard = Vec::new();
        let ended = io.read_to_end(&mut heard).await;
        read(&heard).ok_or_else(|| match ended {
            Err(error) => Failure::no_broker(format!("the connection is lost: {error}")),
            Ok(_) => Failure::no_broker("this is no HTTP listener of a broker"),
        })
    };
    let answer = timeout(PATIENCE, conversation).await;
    answer.map_err(|_| Failure::no_broker("no answer in time"))?
}

/// An answer that came whole.
fn read(heard: &[u8]) -> Option<Answer> {
    let end = heard.windows(4).position(|it| it == b"\r\n\r\n")?;
    let (head, body) = (str::from_utf8(&heard[..end]).ok()?, &heard[end + 4..]);
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = length.is_none_or(|length| length == body.len());
    whole.then(|| Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let wire = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        let answer = read(wire).expect("it is whole");
        assert_eq!((answer.status, &answer.body[..]), (503, &b"{}"[..]));
        for cut in 0..wire.len() {
            assert!(read(&wire[..cut]).is_none(), "{cut}");
        }
        assert!(read(b"AMQP\0\0\x09\x01").is_none());
    }
}
