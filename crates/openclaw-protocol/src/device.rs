//! Device identity: an Ed25519 key, its id, and the signature that proves it in a handshake.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::secret::hex;

/// Lower-case hex SHA-256 of the 32 raw public key bytes. The id of a node is its device id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DeviceId(String);

impl DeviceId {
    /// Accepts exactly 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// First eight digits, for logs and tables.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({}…)", self.short())
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("device id must be 64 lower-case hex digits"))
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads unpadded base64url of 32 bytes, and also plain base64 or an SPKI PEM, as the reference does.
    pub fn parse(text: &str) -> Option<Self> {
        use ed25519_dalek::pkcs8::DecodePublicKey as _;
        let text = text.trim();
        if text.starts_with("-----BEGIN") {
            return VerifyingKey::from_public_key_pem(text).ok().map(Self);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD.decode(text)).ok()?;
        VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok().map(Self)
    }

    /// Unpadded base64url of the raw bytes: the form on the wire.
    pub fn to_wire(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_bytes())
    }

    /// SPKI PEM, the form in which identity files hold it.
    pub fn to_spki_pem(self) -> String {
        // RFC 8410: the DER of an Ed25519 SPKI is this fixed prefix and the 32 raw bytes.
        const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let der = [PREFIX.as_slice(), self.0.as_bytes()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    pub fn device_id(self) -> DeviceId {
        DeviceId(hex(&Sha256::digest(self.0.as_bytes())))
    }

    /// Verifies a base64url signature over `payload`, refusing weak keys and malleable signatures.
    pub fn verify(self, payload: &str, signature: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(signature).or_else(|_| STANDARD.decode(signature)) else { return false };
        let Ok(signature) = Signature::from_slice(&bytes) else { return false };
        self.0.verify_strict(payload.as_bytes(), &signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_wire())
    }
}

/// A device's private key.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// Makes a key from 32 random bytes supplied by the caller.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a PKCS#8 PEM, the form the reference stores.
    pub fn from_pkcs8_pem(pem: &str) -> Option<Self> {
        use ed25519_dalek::pkcs8::DecodePrivateKey as _;
        SigningKey::from_pkcs8_pem(pem).ok().map(Self)
    }

    /// The 32 seed bytes, for storage in a 0600 file.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// PKCS#8 PEM without the public key, the form the reference stores; for a 0600 file.
    pub fn to_pkcs8_pem(&self) -> crate::Secret {
        // RFC 8410: the DER of a PKCS#8 Ed25519 key is this fixed prefix and the 32 byte seed.
        const PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der = [PREFIX.as_slice(), self.seed()].concat();
        crate::Secret::new(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        ))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub fn id(&self) -> DeviceId {
        self.public().device_id()
    }

    /// Base64url signature over the payload.
    pub fn sign(&self, payload: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.0.sign(payload.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({:?})", self.id())
    }
}

/// What a device signs when it connects. `scopes` are as sent, in order; `token` is the first present of
/// `auth.token`, `auth.deviceToken`, `auth.bootstrapToken` and never the password.
#[derive(Clone, Copy, Debug)]
pub struct ProofPayload<'a> {
    pub device_id: &'a str,
    pub client_id: &'a str,
    pub client_mode: &'a str,
    pub role: &'a str,
    pub scopes: &'a [String],
    pub signed_at_ms: i64,
    pub token: &'a str,
    pub nonce: &'a str,
    pub platform: &'a str,
    pub device_family: &'a str,
}

impl ProofPayload<'_> {
    /// The text of payload version 3: version 2 plus platform and device family, trimmed and ASCII-lower-cased.
    pub fn v3(&self) -> String {
        let tail = |text: &str| text.trim().to_ascii_lowercase();
        format!("v3|{}|{}|{}", self.common(), tail(self.platform), tail(self.device_family))
    }

    /// The text of payload version 2, sent by older clients.
    pub fn v2(&self) -> String {
        format!("v2|{}", self.common())
    }

    fn common(&self) -> String {
        format!(
            "{}|{}|{}|{}|{}|{}|{}|{}",
            self.device_id,
            self.client_id,
            self.client_mode,
            self.role,
            self.scopes.join(","),
            self.signed_at_ms,
            self.token,
            self.nonce
        )
    }
}

/// Why a device block is not a proof. Each variant has its own wire code (handshake section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    IdMismatch,
    NonceMissing,
    NonceMismatch,
    Stale,
    BadSignature,
}

/// Checks a device block against the challenge of this very socket. The order is the reference's: id, freshness,
/// nonce, signature. Version 1 payloads (no nonce) are refused.
pub fn verify_proof(
    public_key: &str,
    signature: &str,
    payload: &ProofPayload<'_>,
    expected_nonce: &str,
    now_ms: i64,
) -> Result<(DeviceId, PublicKey), ProofError> {
    let key = PublicKey::parse(public_key).ok_or(ProofError::IdMismatch)?;
    let id = key.device_id();
    if id.as_str() != payload.device_id {
        return Err(ProofError::IdMismatch);
    }
    let skew = now_ms.checked_sub(payload.signed_at_ms).and_then(i64::checked_abs).unwrap_or(i64::MAX);
    if skew > crate::limits::SIGNATURE_SKEW_MS {
        return Err(ProofError::Stale);
    }
    if payload.nonce.trim().is_empty() {
        return Err(ProofError::NonceMissing);
    }
    if payload.nonce != expected_nonce {
        return Err(ProofError::NonceMismatch);
    }
    if key.verify(&payload.v3(), signature) || key.verify(&payload.v2(), signature) {
        Ok((id, key))
    } else {
        Err(ProofError::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload<'a>(id: &'a str, scopes: &'a [String]) -> ProofPayload<'a> {
        ProofPayload {
            device_id: id,
            client_id: "cli",
            client_mode: "cli",
            role: "operator",
            scopes,
            signed_at_ms: 1_000_000,
            token: "t",
            nonce: "n",
            platform: " Linux ",
            device_family: "",
        }
    }

    #[test]
    fn payload_texts_follow_the_notes() {
        let scopes = ["operator.read".to_owned(), "operator.admin".to_owned()];
        let p = payload("d", &scopes);
        assert_eq!(p.v3(), "v3|d|cli|cli|operator|operator.read,operator.admin|1000000|t|n|linux|");
        assert_eq!(p.v2(), "v2|d|cli|cli|operator|operator.read,operator.admin|1000000|t|n");
    }

    #[test]
    fn proof_matrix() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let (id, public) = (key.id(), key.public().to_wire());
        let p = payload(id.as_str(), &[]);
        let check = |p: &ProofPayload<'_>, signature: &str, nonce: &str, now: i64| {
            verify_proof(&public, signature, p, nonce, now).map(|(id, _)| id)
        };
        assert_eq!(check(&p, &key.sign(&p.v3()), "n", 1_000_000), Ok(id.clone()));
        assert_eq!(check(&p, &key.sign(&p.v2()), "n", 1_115_000), Ok(id.clone()));
        assert_eq!(check(&p, &key.sign(&p.v3()), "n", 1_121_000), Err(ProofError::Stale));
        assert_eq!(check(&p, &key.sign(&p.v3()), "n", i64::MIN), Err(ProofError::Stale));
        assert_eq!(check(&p, &key.sign(&p.v3()), "other", 1_000_000), Err(ProofError::NonceMismatch));
        let blank = ProofPayload { nonce: " ", ..p };
        assert_eq!(check(&blank, &key.sign(&blank.v3()), "n", 1_000_000), Err(ProofError::NonceMissing));
        let v1 = format!("v1|{}|cli|cli|operator||1000000|t", id);
        assert_eq!(check(&p, &key.sign(&v1), "n", 1_000_000), Err(ProofError::BadSignature));
        assert_eq!(check(&p, "", "n", 1_000_000), Err(ProofError::BadSignature));
        let other = DeviceKey::from_seed(&[8; 32]);
        assert_eq!(check(&p, &other.sign(&p.v3()), "n", 1_000_000), Err(ProofError::BadSignature));
        let stolen = ProofPayload { device_id: other.id().as_str(), ..p }.v3();
        let _ = stolen;
        let other_id = other.id();
        let foreign = ProofPayload { device_id: other_id.as_str(), ..p };
        assert_eq!(check(&foreign, &key.sign(&foreign.v3()), "n", 1_000_000), Err(ProofError::IdMismatch));
    }

    #[test]
    fn pem_round_trip() {
        let key = DeviceKey::from_seed(&[9; 32]);
        let pem = key.to_pkcs8_pem();
        assert_eq!(DeviceKey::from_pkcs8_pem(pem.expose()).map(|k| k.id()), Some(key.id()));
    }
}
