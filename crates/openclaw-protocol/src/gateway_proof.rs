//! How a gateway proves which one it is, before a client sends a credential.
//!
//! The client puts a nonce into the upgrade request ([`HEADER`]); the gateway answers inside `connect.challenge`, as
//! `payload.gateway`, with its key and a signature over both nonces. Clients that do not ask get the plain challenge, and
//! gateways that do not know the header ignore it. A party that can reach the real gateway could pass the question on, so the
//! proof tells gateways apart; it does not replace TLS or ssh where somebody sits in between.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::device::{DeviceId, DeviceKey, PublicKey};

/// Upgrade header that asks for the proof; its value is the client's nonce.
pub const HEADER: &str = "x-openclaw-gateway-proof";
/// Characters of a nonce: 32 random bytes as unpadded base64url.
const NONCE_CHARS: usize = 43;

/// Lower-case hex SHA-256 of the gateway's public key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayId(DeviceId);

impl GatewayId {
    pub const fn of(key: DeviceId) -> Self {
        Self(key)
    }

    /// Accepts exactly 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        DeviceId::parse(text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// First eight digits, for messages.
    pub fn short(&self) -> &str {
        self.0.short()
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `payload.gateway` of a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayProof {
    pub public_key: String,
    pub signature: String,
}

impl GatewayProof {
    /// Answers a client's nonce; `None` when it is not one of ours, and then the challenge goes out without a proof.
    pub fn sign(key: &DeviceKey, client_nonce: &str, server_nonce: &str) -> Option<Self> {
        is_nonce(client_nonce).then(|| Self {
            public_key: key.public().to_wire(),
            signature: key.sign(&payload(client_nonce, server_nonce)),
        })
    }

    /// Who signed, if the signature is good.
    pub fn verify(&self, client_nonce: &str, server_nonce: &str) -> Option<GatewayId> {
        let key = PublicKey::parse(&self.public_key)?;
        key.verify(&payload(client_nonce, server_nonce), &self.signature).then(|| GatewayId::of(key.device_id()))
    }
}

/// The nonce made of 32 random bytes supplied by the caller.
pub fn nonce(random: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// True for a nonce a client of ours would send.
pub fn is_nonce(text: &str) -> bool {
    text.len() == NONCE_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn payload(client_nonce: &str, server_nonce: &str) -> String {
    format!("openclaw-gateway-proof|v1|{client_nonce}|{server_nonce}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_both_nonces() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let (client, server) = (nonce(&[5; 32]), "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b");
        let proof = GatewayProof::sign(&key, &client, server).expect("proof");
        assert_eq!(proof.verify(&client, server), Some(GatewayId::of(key.id())));
        assert_eq!(proof.verify(&"b".repeat(43), server), None);
        assert_eq!(proof.verify(&client, "other"), None);
        let other = GatewayProof { public_key: DeviceKey::from_seed(&[8; 32]).public().to_wire(), ..proof };
        assert_eq!(other.verify(&client, server), None);
    }

    #[test]
    fn strange_nonces_are_not_signed() {
        let key = DeviceKey::from_seed(&[7; 32]);
        for nonce in ["", "short", &"a".repeat(44), &format!("{}|", "a".repeat(42))] {
            assert_eq!(GatewayProof::sign(&key, nonce, "s"), None, "{nonce}");
        }
    }
}
