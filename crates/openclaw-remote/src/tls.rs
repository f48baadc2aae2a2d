//! TLS to a gateway: the system's trust, or a pinned certificate or key.
//!
//! A pin is the SHA-256 of the leaf certificate, or of the public key in it. It replaces the system's trust and needs no
//! host-name match, no date and no authority, and it is only ever taken from the owner's configuration, never from the
//! peer.

use std::{fmt, io, sync::Arc};

use openclaw_config::{Certificate, GatewayConfig, Paths, TlsFiles};
pub use openclaw_protocol::fingerprint::{BadFingerprint, Fingerprint, Pinned};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, InvalidMessage, OtherError,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What the gateway of this machine will show: the pin of the key in its certificate file, which stays the same while a
/// renewal is being taken. `None` without `gateway.tls`, and where the file is missing or unreadable: then the system's
/// trust decides, as for any other gateway.
pub fn local_pin(config: &GatewayConfig, paths: &Paths) -> Option<Fingerprint> {
    if !config.tls.enabled {
        return None;
    }
    match Certificate::read(&TlsFiles::of(config, paths).certificate) {
        Ok(certificate) => Some(certificate.key_fingerprint),
        Err(error) => {
            tracing::debug!("no pin for the gateway of this machine: {error}");
            None
        }
    }
}

/// The peer showed another certificate or key than the pinned one. Nothing was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {}'s fingerprint is {shown}, not the pinned {pinned}", what(pinned.of))]
pub struct PinMismatch {
    pub pinned: Fingerprint,
    /// Of the same kind as `pinned`.
    pub shown: Fingerprint,
}

const fn what(pinned: Pinned) -> &'static str {
    match pinned {
        Pinned::Certificate => "certificate",
        Pinned::Key => "key",
    }
}

/// A certificate this machine has no reason to trust. Nothing was sent to its owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Untrusted {
    pub reason: CertificateError,
    /// Something to compare with what the gateway's owner says; never learned by itself.
    pub shown: Fingerprint,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CertificateError as C;
        f.write_str("the certificate is not trusted: ")?;
        match &self.reason {
            C::UnknownIssuer => f.write_str("no authority known to this machine has issued it"),
            C::BadSignature => f.write_str("it was not signed by whom it names"),
            C::Expired | C::ExpiredContext { .. } => f.write_str("it has expired"),
            C::NotValidYet | C::NotValidYetContext { .. } => f.write_str("it is not valid yet"),
            C::NotValidForName | C::NotValidForNameContext { .. } => f.write_str("it is for another name"),
            other => write!(f, "{other}"),
        }?;
        write!(f, "; its fingerprint is {}", self.shown)
    }
}

impl std::error::Error for Untrusted {}

/// Why TLS did not come up.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error(transparent)]
    Pin(#[from] PinMismatch),
    /// The system does not trust the certificate, or it is for another name, or out of date.
    #[error(transparent)]
    Untrusted(#[from] Box<Untrusted>),
    /// The URL says TLS and the peer answered in the clear.
    #[error("whoever answered does not speak TLS")]
    NotTls,
    /// The URL says no TLS and the gateway wants it.
    #[error("TLS is wanted there; the address is {url}")]
    Wanted {
        /// The same host with `wss://`.
        url: String,
    },
    /// No version or cipher is shared, or the peer hung up.
    #[error("the TLS handshake failed ({0})")]
    Handshake(String),
    /// The system's trust store cannot be read.
    #[error("the system's certificate store cannot be used ({0})")]
    Store(String),
}

/// Starts TLS over `stream`.
///
/// # Errors
/// See [`TlsFailure`]. With a pin, a mismatch is found before any application byte is sent.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: ServerName<'static>,
    pin: Option<Fingerprint>,
) -> Result<TlsStream<S>, TlsFailure> {
    let provider = Arc::new(ring::default_provider());
    let trust = match pin {
        Some(pinned) => Trust::Pin(pinned),
        None => {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            Trust::System(system.map_err(|error| TlsFailure::Store(error.to_string()))?)
        }
    };
    start(stream, server, trust, provider).await
}

/// Starts TLS inside a tunnel: ssh has proven the host and encrypts the way, so with whatever certificate the gateway there
/// has, this is as good as without TLS. With a pin it has to be that one.
///
/// # Errors
/// As [`connect`].
pub async fn connect_behind_ssh<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    pin: Option<Fingerprint>,
) -> Result<TlsStream<S>, TlsFailure> {
    let server = ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into());
    let trust = pin.map_or(Trust::Host, Trust::Pin);
    start(stream, server, trust, Arc::new(ring::default_provider())).await
}

async fn start<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    server: ServerName<'static>,
    trust: Trust,
    provider: Arc<CryptoProvider>,
) -> Result<TlsStream<S>, TlsFailure> {
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFailure::Handshake(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|error| failure(&error))
}

/// Digs the reason out of the I/O error that tokio-rustls wraps it in.
fn failure(error: &io::Error) -> TlsFailure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
    match inner {
        Some(RustlsError::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            let (pin, trust) = (other.downcast_ref::<PinMismatch>(), other.downcast_ref::<Untrusted>());
            match (pin, trust) {
                (Some(mismatch), _) => TlsFailure::Pin(*mismatch),
                (None, Some(untrusted)) => TlsFailure::Untrusted(Box::new(untrusted.clone())),
                (None, None) => TlsFailure::Handshake(other.to_string()),
            }
        }
        Some(RustlsError::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => TlsFailure::NotTls,
        Some(other) => TlsFailure::Handshake(other.to_string()),
        None => TlsFailure::Handshake(error.to_string()),
    }
}

/// Whom to believe.
#[derive(Debug)]
enum Trust {
    /// Exactly one certificate or key.
    Pin(Fingerprint),
    /// Any: something else has proven the host.
    Host,
    System(rustls_platform_verifier::Verifier),
}

/// Decides about the certificate. The signatures of the handshake are checked in any case: without them the peer would
/// not have to own the key of the certificate it shows.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let refused = |why: OtherError| RustlsError::InvalidCertificate(CertificateError::Other(why));
        match &self.trust {
            Trust::Pin(pinned) => {
                let shown = match pinned.of {
                    Pinned::Certificate => Fingerprint::of(leaf),
                    Pinned::Key => Fingerprint::of_key(&ParsedCertificate::try_from(leaf)?.subject_public_key_info()),
                };
                if shown == *pinned {
                    return Ok(ServerCertVerified::assertion());
                }
                Err(refused(OtherError(Arc::new(PinMismatch { pinned: *pinned, shown }))))
            }
            Trust::Host => Ok(ServerCertVerified::assertion()),
            Trust::System(system) => match system.verify_server_cert(leaf, intermediates, name, ocsp, now) {
                Err(RustlsError::InvalidCertificate(reason)) => {
                    Err(refused(OtherError(Arc::new(Untrusted { reason, shown: Fingerprint::of(leaf) }))))
                }
                other => other,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Document, Env, Profile};

    #[test]
    fn the_local_pin_is_that_of_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().expect("path"))]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let pin = |config: &str| {
            let document = Document::from_text(config, &paths, &env).expect("config");
            local_pin(&GatewayConfig::read(&document).expect("gateway section"), &paths)
        };
        let (on, off) = ("{gateway: {tls: {enabled: true}}}", "{}");
        assert_eq!(pin(on), None, "not made yet");
        std::fs::create_dir_all(paths.tls_dir()).expect("dir");
        let pem = include_str!("../../openclaw-config/tests/fixtures/openclaw-gateway.pem");
        let facts = include_str!("../../openclaw-config/tests/fixtures/openclaw-gateway.txt");
        std::fs::write(paths.tls_dir().join("gateway-cert.pem"), pem).expect("certificate");
        let key = facts.lines().find_map(|line| line.strip_prefix("key=")).expect("key");
        assert_eq!(pin(on).map(|pin| pin.to_string()), Some(format!("key-sha256:{key}")));
        assert_eq!(pin(off), None);
        // A peer's certificate is read by the TLS library, ours by our own few lines: they agree.
        use rustls::pki_types::pem::PemObject as _;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate");
        let theirs = ParsedCertificate::try_from(&der).expect("parses").subject_public_key_info();
        assert_eq!(pin(on), Some(Fingerprint::of_key(&theirs)));
    }
}
