//! As much of an HTTP client as directories need: one connection for each request, bounded in time and size.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::directory::DirectoryError;
use crate::peers::PeerAddress;

/// Enough for a thousand hosts.
pub(super) const BODY_MAX: usize = 4 << 20;
/// Of an answer that says no.
const TEXT_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct Client {
    place: PeerAddress,
    /// Goes with each request.
    header: Option<(HeaderName, HeaderValue)>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer that is still being said. Dropping it closes the connection.
pub(super) struct Stream {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    pub(super) fn new(place: PeerAddress) -> Self {
        Self { place, header: None }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).ok().map(|mut value| {
            value.set_sensitive(true);
            (HeaderName::from_static(name), value)
        });
        self.header = value;
        self
    }

    /// The whole answer, whatever its status.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
        patience: Duration,
    ) -> Result<Answer, DirectoryError> {
        let asked = async {
            let mut stream = self.open(method, path, body).await?;
            let mut body = BytesMut::new();
            while let Some(part) = stream.next().await? {
                if body.len() + part.len() > BODY_MAX {
                    return Err(DirectoryError::TooLong(BODY_MAX));
                }
                body.extend_from_slice(&part);
            }
            let headers = std::mem::take(&mut stream.headers);
            Ok(Answer { status: stream.status, headers, body: body.freeze() })
        };
        timeout(patience, asked).await.map_err(|_| DirectoryError::Slow)?
    }

    /// Sends a request, and reads the head of its answer.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Stream, DirectoryError> {
        let socket = TcpStream::connect(self.place.as_str()).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
        let connection = tokio::spawn(async move {
            // What goes wrong is told to whoever waits for the answer.
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.place.as_str())
            .header(header::CONNECTION, "close");
        if let Some((name, value)) = &self.header {
            request = request.header(name, value);
        }
        let request = request.body(body);
        let request = request.map_err(|error| DirectoryError::Garbage(error.to_string()))?;
        match sender.send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Stream { status: head.status, headers: head.headers, body, connection })
            }
            Err(error) => {
                connection.abort();
                Err(broken(error))
            }
        }
    }
}

impl Stream {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The next part of the body; `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, DirectoryError> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let Some(frame) = frame else { return Ok(None) };
            // Trailers say nothing here.
            if let Ok(part) = frame.map_err(broken)?.into_data() {
                return Ok(Some(part));
            }
        }
    }
}

impl Answer {
    /// The answer, unless it says no.
    pub(super) fn accepted(self) -> Result<Self, DirectoryError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let shown = &self.body[..self.body.len().min(TEXT_MAX)];
        let text = String::from_utf8_lossy(shown).trim().to_owned();
        Err(DirectoryError::Refused { status: self.status.as_u16(), text })
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, DirectoryError> {
        serde_json::from_slice(&self.body).map_err(garbage)
    }
}

pub(super) fn garbage(error: impl std::fmt::Display) -> DirectoryError {
    DirectoryError::Garbage(error.to_string())
}

fn broken(error: hyper::Error) -> DirectoryError {
    if error.is_parse() { garbage(error) } else { DirectoryError::Io(std::io::Error::other(error)) }
}
