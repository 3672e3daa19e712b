//! The dialling end of a link over TLS. A host is whoever has a certificate of the hosts' authority, under any name:
//! hosts are dialled where they were last seen, often at a bare address.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Tls;
use super::certificate::Certificate;

/// Said to who is dialled in place of a name that TLS does not know.
const NO_NAME: &str = "host.invalid";

pub(super) fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Arc<RootCertStore>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = AnyHost { authorities, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    // The other host must show a certificate that is good now, not one that was.
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Tls {
    /// The handshake with a host that was dialled by this name or address.
    pub(in crate::server) async fn connect<I>(
        &self,
        socket: I,
        name: &str,
    ) -> io::Result<TlsStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let link = self.current.borrow().link.clone();
        let link = link.ok_or_else(|| io::Error::other("no certificate for links"))?;
        let name = ServerName::try_from(name.to_owned())
            .or_else(|_| ServerName::try_from(NO_NAME))
            .map_err(io::Error::other)?;
        let connecting = TlsConnector::from(link).connect(name, socket);
        let connected = timeout(self.handshake_timeout, connecting).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// When the certificate of the host that was dialled ends, in seconds since 1970.
pub(in crate::server) fn shown_ends<I>(stream: &TlsStream<I>) -> Option<i64> {
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    Some(Certificate::read(shown)?.not_after.seconds)
}

/// Believes whoever the authorities signed for.
#[derive(Debug)]
struct AnyHost {
    authorities: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let authorities = &self.authorities;
        verify_server_cert_signed_by_trust_anchor(
            &shown,
            authorities,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
