//! Pins: how a gateway's TLS certificate, or the key in it, is told from any other.
//!
//! A pin of the certificate is OpenClaw's own form and ends with the certificate. A pin of the key is ours: it survives a
//! renewal that keeps the key.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::secret::hex;

/// Prefix that makes a text a pin of the key.
const KEY_PREFIX: &str = "key-sha256:";
/// Optional prefix of a pin of the certificate.
const CERTIFICATE_PREFIX: &str = "sha256:";

/// What a fingerprint was taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pinned {
    /// The leaf certificate in DER form.
    Certificate,
    /// The certificate's public key, as the DER of its `SubjectPublicKeyInfo`.
    Key,
}

/// SHA-256 of a certificate or of its public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    pub of: Pinned,
    digest: [u8; 32],
}

/// A text that is not a SHA-256 fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFingerprint;

impl fmt::Display for BadFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a TLS fingerprint is 64 hex digits, optionally in pairs with colons, after `sha256:` or nothing for a \
             certificate and after `key-sha256:` for a key",
        )
    }
}

impl std::error::Error for BadFingerprint {}

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self { of: Pinned::Certificate, digest: Sha256::digest(certificate).into() }
    }

    /// Of a public key: the DER of its `SubjectPublicKeyInfo`.
    pub fn of_key(public_key_info: &[u8]) -> Self {
        Self { of: Pinned::Key, digest: Sha256::digest(public_key_info).into() }
    }

    /// Upper-case pairs with colons, as `openssl x509 -fingerprint` and browsers print a fingerprint.
    pub fn colons(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    /// Accepts 64 hex digits, or 32 pairs with colons, after one of the prefixes in any case.
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let text = text.trim();
        let after = |prefix: &str| match text.get(..prefix.len()) {
            Some(start) if start.eq_ignore_ascii_case(prefix) => text.get(prefix.len()..),
            _ => None,
        };
        let (of, digits) = match (after(KEY_PREFIX), after(CERTIFICATE_PREFIX)) {
            (Some(digits), _) => (Pinned::Key, digits),
            (None, Some(digits)) => (Pinned::Certificate, digits),
            (None, None) => (Pinned::Certificate, text),
        };
        let pairs: Vec<&[u8]> = if digits.contains(':') {
            digits.split(':').map(str::as_bytes).collect()
        } else {
            digits.as_bytes().chunks(2).collect()
        };
        let mut digest = [0; 32];
        if pairs.len() != digest.len() {
            return Err(BadFingerprint);
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            let digit = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = match *pair {
                [high, low] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low).ok_or(BadFingerprint)?,
                _ => return Err(BadFingerprint),
            };
        }
        Ok(Self { of, digest })
    }
}

/// The form that is stored and advertised: 64 lower-case hex digits, after `key-sha256:` for a key.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.of {
            Pinned::Certificate => "",
            Pinned::Key => KEY_PREFIX,
        };
        write!(f, "{prefix}{}", hex(&self.digest))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_fingerprints() {
        // SHA-256 of the empty string.
        let plain = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let colons = Fingerprint::of(b"").colons();
        assert!(colons.starts_with("E3:B0:C4:") && colons.len() == 95, "{colons}");
        for text in [
            plain.to_owned(),
            plain.to_uppercase(),
            format!("sha256:{plain}"),
            format!("SHA256:{colons}"),
            format!(" {colons}\n"),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Ok(Fingerprint::of(b"")), "{text}");
        }
        for text in [format!("key-sha256:{plain}"), format!(" KEY-SHA256:{colons}")] {
            assert_eq!(text.parse::<Fingerprint>(), Ok(Fingerprint::of_key(b"")), "{text}");
        }
        assert_ne!(Fingerprint::of(b""), Fingerprint::of_key(b""), "a key is no certificate");
        assert_eq!(Fingerprint::of(b"").to_string(), plain);
        assert_eq!(Fingerprint::of_key(b"").to_string(), format!("key-sha256:{plain}"));
        for text in [
            "",
            "sha256:",
            "key-sha256:",
            &plain[1..],
            &format!("{plain}00"),
            &plain.replace('e', "g"),
            &format!("key-sha256:sha256:{plain}"),
            &plain.replace("e3", "+3"),
            "sha1:00",
            "é",
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(BadFingerprint), "{text}");
        }
    }
}
