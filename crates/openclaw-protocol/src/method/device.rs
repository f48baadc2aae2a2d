//! Device pairing and device tokens.
//!
//! Roles and scopes are plain strings here: a newer peer may name some we do not know, and a list must stay readable.
//! What they grant is decided from the typed sets of [`crate::scope`], never from these strings.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{Access, NoParams};
use crate::{Scope, Secret, method};

const PAIRING: Access = Access::Operator(Scope::Pairing);

method!(DevicePairList, "device.pair.list", PAIRING, NoParams => DevicePairings);
method!(DevicePairApprove, "device.pair.approve", PAIRING, RequestParams => DeviceApproved);
method!(DevicePairReject, "device.pair.reject", PAIRING, RequestParams => DeviceRejected);
method!(DevicePairRemove, "device.pair.remove", PAIRING, DeviceParams => DeviceRemoved);
method!(DevicePairRename, "device.pair.rename", PAIRING, RenameParams => DeviceRenamed);
method!(DeviceTokenRotate, "device.token.rotate", PAIRING, RotateParams => TokenRotated);
method!(DeviceTokenRevoke, "device.token.revoke", PAIRING, RevokeParams => TokenRevoked);

/// Longest label of `device.pair.rename`, in characters (published schema, `DevicePairRenameParams`).
pub const MAX_LABEL_CHARS: usize = 64;

/// Parameters of `device.pair.approve` and `device.pair.reject`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestParams {
    pub request_id: String,
}

/// Parameters of `device.pair.remove`. A string, so that nonsense is an unknown device rather than a schema failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceParams {
    pub device_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenameParams {
    pub device_id: String,
    /// 1 to 64 characters.
    pub label: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotateParams {
    pub device_id: String,
    pub role: String,
    /// Absent: the scopes of the token being replaced. An empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeParams {
    pub device_id: String,
    pub role: String,
}

/// Result of `device.pair.list`, newest first in both lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DevicePairings {
    #[serde(default)]
    pub pending: Vec<PendingDevice>,
    #[serde(default)]
    pub paired: Vec<PairedDevice>,
}

/// A device that waits for approval; also the payload of the event `device.pair.requested`, whose schema is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingDevice {
    pub request_id: String,
    pub device_id: String,
    pub public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    #[serde(default)]
    pub silent: bool,
    /// True when the device is paired already and asks for more, or for the same under another platform.
    #[serde(default)]
    pub is_repair: bool,
    /// When the request was made, ms since the epoch.
    pub ts: i64,
}

/// A paired device. The text of its tokens is never part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairedDevice {
    pub device_id: String,
    pub public_key: String,
    /// What the device calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The owner's own name for it (`device.pair.rename`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// `silent`, `owner`, `bootstrap`, `trusted-cidr`, `ssh-verified`, `trusted-proxy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_via: Option<String>,
    /// The node surface that waits for approval, filled in by whoever knows nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_node_surface: Option<Value>,
    #[serde(default)]
    pub created_at_ms: i64,
    #[serde(default)]
    pub approved_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_reason: Option<String>,
    /// In list results only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    #[serde(default)]
    pub tokens: Vec<TokenSummary>,
}

/// What may be told about a device token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSummary {
    pub role: String,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub created_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at_ms: Option<i64>,
}

/// Result of `device.pair.approve`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceApproved {
    pub request_id: String,
    pub device: PairedDevice,
}

/// Result of `device.pair.reject`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRejected {
    pub request_id: String,
    pub device_id: String,
}

/// Result of `device.pair.remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRemoved {
    pub device_id: String,
}

/// Result of `device.pair.rename`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRenamed {
    pub device_id: String,
    pub label: String,
}

/// Result of `device.token.rotate`. The bearer is in it only for the device it belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRotated {
    pub device_id: String,
    pub role: String,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "deliver")]
    pub token: Option<Secret>,
    #[serde(default)]
    pub scopes: Vec<String>,
    pub rotated_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_delivery: Option<TokenDelivery>,
}

/// Where a rotated token went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenDelivery {
    /// In this very response.
    InBand,
    /// Nowhere: the caller is not the device using its own token.
    WithheldCrossDevice,
}

/// Result of `device.token.revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRevoked {
    pub device_id: String,
    pub role: String,
    pub revoked_at_ms: i64,
}

/// Payload of the event `device.pair.resolved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairResolved {
    pub request_id: String,
    pub device_id: String,
    pub decision: Decision,
    pub ts: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Approved,
    Rejected,
    /// A decision from a newer peer.
    #[serde(other)]
    Other,
}

/// Payload of the event `device.pair.changed`: the record of a device changed other than by an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairChanged {
    pub device_id: String,
    pub ts: i64,
}

/// The one place where a device token leaves through this family of methods.
fn deliver<S: Serializer>(token: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(Secret::expose).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Captured from release 2026.9.6 (`password-and-pairing`, `device.pair.list`).
    #[test]
    fn pending_device_keeps_the_captured_shape() {
        let captured = json!({
            "requestId": "2969839f-c740-40be-b0cd-3644181f6e18",
            "deviceId": "969519f72d935601f1e0e6bc18bdb367b0072818fc41b62c00e8059103e840a2",
            "publicKey": "lrwfpL6Ro8arAzp9-XIwrKy3J7dCLcrrfKgaoFzgcPE",
            "displayName": "N1", "platform": "linux", "deviceFamily": "Linux", "clientId": "node-host",
            "clientMode": "node", "role": "node", "roles": ["node"], "scopes": [], "silent": false, "isRepair": false,
            "ts": 1795230158847_i64
        });
        let read: PendingDevice = serde_json::from_value(captured.clone()).expect("reads");
        assert_eq!(serde_json::to_value(read).expect("writes"), captured);
    }

    /// Captured from release 2026.9.6 (`password-and-pairing`, `device.pair.approve`).
    #[test]
    fn approval_keeps_the_captured_shape() {
        let captured = json!({
            "requestId": "8a98d942-36c2-44af-860c-b7c264ae43b4",
            "device": {
                "deviceId": "be6491d56626acf8cc772f0a0b6576d59399a27a043ccc04340e6c1108dc1001",
                "publicKey": "ESVihY-zVWz_bdZWzooApNIcsNQaPCNMe-4_IQkKjDs", "platform": "linux", "clientId": "cli",
                "clientMode": "cli", "role": "operator", "roles": ["operator"], "scopes": ["operator.read"],
                "approvedVia": "owner", "createdAtMs": 1795230159271_i64, "approvedAtMs": 1795230159271_i64,
                "tokens": [{"role": "operator", "scopes": ["operator.read"], "createdAtMs": 1795230159271_i64}]
            }
        });
        let read: DeviceApproved = serde_json::from_value(captured.clone()).expect("reads");
        assert_eq!(serde_json::to_value(read).expect("writes"), captured);
    }

    /// Captured from release 2026.9.6 (`password-and-pairing`, `device.token.rotate`).
    #[test]
    fn a_withheld_token_leaves_no_key() {
        let captured = json!({
            "deviceId": "be6491d56626acf8cc772f0a0b6576d59399a27a043ccc04340e6c1108dc1001", "role": "operator",
            "scopes": ["operator.read"], "rotatedAtMs": 1795230159555_i64, "tokenDelivery": "withheld-cross-device"
        });
        let read: TokenRotated = serde_json::from_value(captured.clone()).expect("reads");
        assert!(read.token.is_none());
        assert_eq!(serde_json::to_value(&read).expect("writes"), captured);
        let mine =
            TokenRotated { token: Some(Secret::new("t0k")), token_delivery: Some(TokenDelivery::InBand), ..read };
        assert_eq!(serde_json::to_value(&mine).expect("writes")["token"], "t0k");
        assert!(!format!("{mine:?}").contains("t0k"));
    }
}
