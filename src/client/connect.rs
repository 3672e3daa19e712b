//! Where the broker is, who asks, and the first words of a connection.

use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use pillarbox_native::{
    Code, Kind, Login, PREFACE_SIZE, Preface, Refused, encode_preface, next_frame, read_answer,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;
use super::Tls;
use super::line::Line;
use super::reader::FRAME_SIZE_MAX;

/// How to reach a broker. The default is the broker of this host, as anybody may reach it from here.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `HOST:PORT`.
    pub address: String,
    /// With a token, empty for an administrator, whoever it is.
    pub user: String,
    pub proof: Proof,
    pub vhost: String,
    /// `None` for a listener without TLS.
    pub tls: Option<Tls>,
    /// Shown to people beside the connection.
    pub name: String,
    pub timeout: Duration,
    /// A sign of life is sent so often; the broker drops a connection that gives none for three times as long.
    pub heartbeat: Duration,
}

/// What proves the user.
#[derive(Clone)]
pub enum Proof {
    Password(String),
    /// The broker's secret, from a file on its host.
    Token(Vec<u8>),
    /// The client's certificate (`Connect::tls`) names the user.
    Certificate,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::Token(_) => "Token(…)",
            Self::Certificate => "Certificate",
        })
    }
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8475".into(),
            user: "guest".into(),
            proof: Proof::Password("guest".into()),
            vhost: "/".into(),
            tls: None,
            name: String::new(),
            timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(20),
        }
    }
}

impl Connect {
    pub(super) async fn open(&self) -> Result<Line, Error> {
        let no_broker = |reason: String| Error::NoBroker { address: self.address.clone(), reason };
        let opened = timeout(self.timeout, async {
            let mut socket = TcpStream::connect(&self.address)
                .await
                .map_err(|error| no_broker(error.to_string()))?;
            socket.set_nodelay(true).map_err(|error| Error::lost(&error))?;
            if let Some(tls) = &self.tls {
                return self.open_over(tls.connect(socket, &self.address).await?).await;
            }
            let rest = self.greet(&mut socket).await?;
            let (input, output) = socket.into_split();
            Ok(Line::start(input, output, rest, self.heartbeat))
        });
        opened.await.unwrap_or_else(|_| Err(no_broker("no answer in time".into())))
    }

    /// As `open`, over a stream that leads to a broker already.
    pub(super) async fn open_over(
        &self,
        mut io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Line, Error> {
        let rest = self.greet(&mut io).await?;
        let (input, output) = tokio::io::split(io);
        Ok(Line::start(input, output, rest, self.heartbeat))
    }

    /// Sends preface and login together, and reads until the broker answers. What came behind is returned.
    async fn greet(
        &self,
        socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<BytesMut, Error> {
        let mut out = BytesMut::new();
        encode_preface(&mut out);
        let (mechanism, proof) = match &self.proof {
            Proof::Password(password) => (Login::PASSWORD, password.as_bytes()),
            Proof::Token(token) => (Login::TOKEN, &token[..]),
            Proof::Certificate => (Login::CERTIFICATE, &[][..]),
        };
        let silence_max_s = (self.heartbeat.as_secs() * 3).clamp(1, u64::from(u16::MAX)) as u16;
        let login = Login {
            mechanism,
            // Who that is says the certificate.
            user: if matches!(self.proof, Proof::Certificate) { "" } else { &self.user },
            proof,
            vhost: &self.vhost,
            client_name: &self.name,
            silence_max_s,
            properties: &[],
        };
        login.encode(1, &mut out);
        socket.write_all(&out).await.map_err(|error| Error::lost(&error))?;
        let mut input = BytesMut::with_capacity(4096);
        loop {
            match read_answer(&input) {
                Preface::NeedMore => {}
                Preface::Server { chosen: 1.., .. } => break,
                Preface::Server { chosen: 0, .. } | Preface::Client { .. } | Preface::Other => {
                    return Err(Error::OtherProtocol { address: self.address.clone() });
                }
            }
            self.more(socket, &mut input).await?;
        }
        let _ = input.split_to(PREFACE_SIZE);
        loop {
            while let Some(frame) = next_frame(&input, FRAME_SIZE_MAX)
                .map_err(|error| Error::Malformed(error.to_string()))?
            {
                let size = frame.wire_len();
                match frame.kind {
                    Kind::Done if frame.id == 1 => {
                        let _ = input.split_to(size);
                        return Ok(input);
                    }
                    Kind::Refused | Kind::Goodbye => {
                        let refused = Refused::decode(frame.payload)?;
                        let text = refused.text.to_owned();
                        return Err(match refused.code {
                            Code::LoginFailed => Error::Login(text),
                            code => Error::Refused { code, text },
                        });
                    }
                    _ => {}
                }
                let _ = input.split_to(size);
            }
            self.more(socket, &mut input).await?;
        }
    }

    async fn more(
        &self,
        socket: &mut (impl AsyncRead + Unpin),
        input: &mut BytesMut,
    ) -> Result<(), Error> {
        match socket.read_buf(input).await {
            Ok(0) => Err(Error::OtherProtocol { address: self.address.clone() }),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::lost(&error)),
        }
    }
}
