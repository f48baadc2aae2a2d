//! TLS to a gateway: the system's trust, or a pinned certificate.
//!
//! A pin is the SHA-256 of the leaf certificate. It replaces the system's trust and needs no host-name match, and it is
//! only ever taken from the owner's configuration, never from the peer.

use std::{fmt, io, str::FromStr, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use openclaw_protocol::secret::hex;

/// SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is not a SHA-256 fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TLS fingerprint is 64 hex digits, optionally in pairs with colons and after `sha256:`")]
pub struct BadFingerprint;

impl Fingerprint {
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    /// Accepts 64 hex digits, or 32 pairs with colons, with an optional `sha256:` in any case.
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let text = text.trim();
        let digits = match text.get(..7) {
            Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => &text[7..],
            _ => text,
        };
        let pairs: Vec<&[u8]> = if digits.contains(':') {
            digits.split(':').map(str::as_bytes).collect()
        } else {
            digits.as_bytes().chunks(2).collect()
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(BadFingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let digit = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = match *pair {
                [high, low] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low).ok_or(BadFingerprint)?,
                _ => return Err(BadFingerprint),
            };
        }
        Ok(Self(bytes))
    }
}

/// 64 lower-case hex digits, the form that is stored and advertised.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The peer showed another certificate than the pinned one. Nothing was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate's fingerprint is {shown}, not the pinned {pinned}")]
pub struct PinMismatch {
    pub pinned: Fingerprint,
    pub shown: Fingerprint,
}

/// Why TLS did not come up.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error(transparent)]
    Pin(#[from] PinMismatch),
    /// The system does not trust the certificate, or it is for another name, or out of date.
    #[error("the certificate is not trusted ({0})")]
    Untrusted(CertificateError),
    /// The peer does not speak TLS, or no version or cipher is shared.
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
pub async fn connect(
    stream: TcpStream,
    server: ServerName<'static>,
    pin: Option<Fingerprint>,
) -> Result<TlsStream<TcpStream>, TlsFailure> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match pin {
        Some(pinned) => Arc::new(PinVerifier { pinned, provider: Arc::clone(&provider) }),
        None => {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            Arc::new(system.map_err(|error| TlsFailure::Store(error.to_string()))?)
        }
    };
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
            match other.downcast_ref::<PinMismatch>() {
                Some(mismatch) => TlsFailure::Pin(*mismatch),
                None => TlsFailure::Untrusted(CertificateError::Other(OtherError(Arc::clone(other)))),
            }
        }
        Some(RustlsError::InvalidCertificate(reason)) => TlsFailure::Untrusted(reason.clone()),
        Some(other) => TlsFailure::Handshake(other.to_string()),
        None => TlsFailure::Handshake(error.to_string()),
    }
}

/// Accepts exactly one certificate. The signatures of the handshake are still checked: without them the peer would
/// not have to own the key of the certificate it shows.
#[derive(Debug)]
struct PinVerifier {
    pinned: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let shown = Fingerprint::of(leaf);
        if shown == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = PinMismatch { pinned: self.pinned, shown };
        Err(RustlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
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

    #[test]
    fn accepted_fingerprints() {
        // SHA-256 of the empty string.
        let plain = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let colons = plain.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
        let colons = colons.collect::<Vec<_>>().join(":");
        for text in [
            plain.to_owned(),
            plain.to_uppercase(),
            format!("sha256:{plain}"),
            format!("SHA256:{colons}"),
            format!(" {colons}\n"),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Ok(Fingerprint::of(b"")), "{text}");
        }
        assert_eq!(Fingerprint::of(b"").to_string(), plain);
        for text in ["", "sha256:", &plain[1..], &format!("{plain}00"), &plain.replace('e', "g"), "sha1:00", "é"] {
            assert_eq!(text.parse::<Fingerprint>(), Err(BadFingerprint), "{text}");
        }
    }
}
