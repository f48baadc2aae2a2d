//! A string that must not be seen: tokens, passwords, private keys, setup codes.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A secret string. It has no `Display` and no `Serialize`; `Debug` shows a placeholder. The only way to the text is
/// [`Secret::expose`], so every place that lets a secret out can be found by searching for that word.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Takes the trimmed text; empty or blank means there is no secret (credentials.json, `emptyRule`).
    pub fn from_input(text: &str) -> Option<Self> {
        let trimmed = text.trim();
        (!trimmed.is_empty()).then(|| Self(trimmed.to_owned()))
    }

    /// The text itself. Callers put it on the wire or into a 0600 file and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in time that depends on neither the position of the first difference nor the length of `self`:
    /// both sides are hashed first.
    pub fn matches(&self, given: &str) -> bool {
        let ours = Sha256::digest(self.0.as_bytes());
        let theirs = Sha256::digest(given.as_bytes());
        ours.as_slice().ct_eq(theirs.as_slice()).into()
    }

    /// First 8 hex digits of the SHA-256, for telling two secrets apart in diagnostics without showing either.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes())[..4])
    }

    /// Length in bytes, for strength checks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

/// Reads a secret from the wire (`auth.token` and its kin). There is deliberately no way back.
impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("abcdef")), "Secret(…)");
    }

    #[test]
    fn blank_input_is_no_secret() {
        assert!(Secret::from_input("  \n").is_none());
        assert_eq!(Secret::from_input(" x ").map(|s| s.expose().to_owned()), Some("x".to_owned()));
    }

    #[test]
    fn comparison_is_exact() {
        let secret = Secret::new("token");
        assert!(secret.matches("token"));
        for wrong in ["token\n", "token\0", "Token", "toke", "tokenn", ""] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }
}
