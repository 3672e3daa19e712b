//! TLS: the broker's certificate, whose clients' certificates are believed, and the handshake.
//!
//! rustls with aws-lc-rs, TLS 1.2 and 1.3. What is loaded can be replaced at any time; connections there are go on
//! with what they began with.

mod certificate;
mod link;
mod reload;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) use self::link::shown_ends;
pub(super) use self::reload::{Watcher, keep_fresh};

use self::certificate::Certificate;
use crate::config::{self, CertificateName, ClientCertificate};

/// Does the handshakes of all listeners.
pub(super) struct Tls {
    current: watch::Receiver<Served>,
    /// Certificates are those of hosts, and name no users.
    links: bool,
    user_from: CertificateName,
    handshake_timeout: Duration,
}

/// What handshakes are done with.
#[derive(Clone, Debug)]
pub(super) struct Served {
    config: Arc<ServerConfig>,
    /// To dial other hosts with, where it is for links.
    link: Option<Arc<ClientConfig>>,
    /// When the certificate ends, in seconds since 1970.
    expires: i64,
}

/// What a handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secured {
    /// Whom the client's certificate names, where it has one.
    pub(super) user: Option<String>,
}

/// Every way the files can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("there is no {what} in {}", path.display())]
    Missing { what: &'static str, path: PathBuf },
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("the certificate in {} cannot be used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("tls.certificate and tls.key belong together: one of them is not set")]
    Half,
    #[error(
        "tls.client_certificate = \"required\" needs tls.client_ca: the authorities to believe"
    )]
    NoAuthority,
    #[error("peers.certificate, peers.key and peers.ca belong together: one of them is not set")]
    HalfLink,
    #[error("listen.{} is set, but tls.certificate is not", .0.replace('-', "_"))]
    NoCertificate(&'static str),
}

/// Where everything is read from.
#[derive(Clone, Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_required: bool,
    /// For links to other hosts: both ends show a certificate.
    links: bool,
}

impl Files {
    /// `None` where TLS is not wanted.
    pub(super) fn wanted(settings: &config::Tls) -> Result<Option<Self>, TlsError> {
        let (certificate, key) = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) => return Ok(None),
            _ => return Err(TlsError::Half),
        };
        let client_required = settings.client_certificate == ClientCertificate::Required;
        if client_required && settings.client_ca.is_none() {
            return Err(TlsError::NoAuthority);
        }
        let client_ca = settings.client_ca.clone();
        Ok(Some(Self { certificate, key, client_ca, client_required, links: false }))
    }

    /// For links to other hosts. `None` where these do not speak TLS.
    pub(super) fn of_links(settings: &config::Peers) -> Result<Option<Self>, TlsError> {
        let (certificate, key, ca) = (&settings.certificate, &settings.key, &settings.ca);
        match (certificate.clone(), key.clone(), ca.clone()) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(ca)) => {
                let (client_ca, client_required) = (Some(ca), true);
                Ok(Some(Self { certificate, key, client_ca, client_required, links: true }))
            }
            _ => Err(TlsError::HalfLink),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    fn load(&self) -> Result<Loaded, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => missing("private key", &self.key),
            error => unreadable(&self.key, &error),
        })?;
        let read = chain.first().and_then(|own| Certificate::read(own));
        let own = read.ok_or_else(|| self.unusable("it is no X.509 certificate".into()))?;
        let holds = Holds::at(&own, SystemTime::now());
        let expires = own.not_after.seconds;

        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider);
                let verifier = match self.client_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build().map_err(|error| unreadable(path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let link = match &self.client_ca {
            Some(path) if self.links => {
                let dialled = link::config(chain.clone(), key.clone_key(), authorities(path)?);
                Some(Arc::new(dialled.map_err(|error| self.unusable(error.to_string()))?))
            }
            _ => None,
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { key: self.key.clone(), certificate: self.certificate.clone() }
            }
            error => self.unusable(error.to_string()),
        })?;
        if self.client_ca.is_some() {
            // Who comes back must show a certificate that is good now, not one that was.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded { served: Served { config: Arc::new(config), link, expires }, holds })
    }

    fn unusable(&self, reason: String) -> TlsError {
        TlsError::Unusable { path: self.certificate.clone(), reason }
    }
}

struct Loaded {
    served: Served,
    holds: Holds,
}

/// Whether a certificate holds today; the text says since when it does not.
#[derive(Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No(String),
}

impl Holds {
    fn at(certificate: &Certificate<'_>, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let Certificate { not_before, not_after, .. } = certificate;
        if now > not_after.seconds {
            Self::No(format!("it expired on {not_after}"))
        } else if now < not_before.seconds {
            Self::No(format!("it is not valid before {not_before}"))
        } else {
            Self::Yes
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() { Err(missing("certificate", path)) } else { Ok(found) }
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unreadable(path, &error))?;
    }
    Ok(Arc::new(roots))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unreadable { path: path.into(), reason: error.to_string() }
}

fn missing(what: &'static str, path: &Path) -> TlsError {
    TlsError::Missing { what, path: path.into() }
}

impl Tls {
    /// Reads the files for the first time. The watcher replaces what was read.
    pub(super) fn load(files: Files, settings: &config::Tls) -> Result<(Self, Watcher), TlsError> {
        let read = reload::stamps(&files);
        let loaded = files.load()?;
        if let Holds::No(reason) = &loaded.holds {
            // Clients decide; a broker that does not start would help nobody.
            tracing::warn!("the certificate in {}: {reason}", files.certificate.display());
        }
        let links = files.links;
        let (sender, current) = watch::channel(loaded.served);
        let handshake_timeout = settings.handshake_timeout.0;
        let tls = Self { current, links, user_from: settings.user_from, handshake_timeout };
        Ok((tls, Watcher::new(files, sender, read)))
    }

    /// When the certificate ends that is served now, in seconds since 1970.
    pub(super) fn expires(&self) -> i64 {
        self.current.borrow().expires
    }

    /// The handshake; whoever is not done in time is refused.
    pub(super) async fn accept<I>(&self, socket: I) -> io::Result<(TlsStream<I>, Secured)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.current.borrow().config.clone();
        let accepted = timeout(self.handshake_timeout, TlsAcceptor::from(config).accept(socket));
        let stream = accepted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if self.links {
            return Ok((stream, Secured { user: None }));
        }
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let user = shown.and_then(|der| Certificate::read(der)?.user(self.user_from));
        if shown.is_some() && user.is_none() {
            tracing::info!(
                "a client's certificate has no {:?} that a user could have",
                self.user_from
            );
        }
        Ok((stream, Secured { user }))
    }
}
