//! TLS towards a broker: whom the client believes, and who it is itself.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;

/// How to speak TLS with a broker. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Tls {
    /// Believes brokers whose certificate leads to one of these authorities, as PEM, and shows the
    /// certificate with its key, as PEM, to those that ask for one.
    pub fn new(authorities: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, Error> {
        let wrong = |what: &str, error: &dyn fmt::Display| Error::Tls(format!("{what}: {error}"));
        let certificates = |pem: &[u8], what: &str| {
            let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            match found.map_err(|error| wrong(what, &error))? {
                found if found.is_empty() => Err(wrong(what, &"there is no certificate in it")),
                found => Ok(found),
            }
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities, "the authorities")? {
            roots.add(authority).map_err(|error| wrong("the authorities", &error))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("the library", &error))?
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("the key", &error))?;
                let own = certificates(certificate, "the certificate")?;
                let built = builder.with_client_auth_cert(own, key);
                built.map_err(|error| wrong("the certificate", &error))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// The handshake. The broker's certificate must be that of the host in `HOST:PORT`.
    pub async fn connect(
        &self,
        socket: TcpStream,
        address: &str,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |error: &dyn fmt::Display| Error::Tls(format!("{address}: {error}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(self.0.clone());
        connector.connect(name, socket).await.map_err(|error| failed(&error))
    }
}
