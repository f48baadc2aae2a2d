//! Inviting a device: one-time tokens that pair whoever presents them first, and what became of them.
//!
//! `device.pair.setupCode` and `device.pair.setupStatus` are the reference's, for its apps and node hosts.
//! `device.pair.invite` is ours: it hands out exactly the rights it is asked for and says which gateway this is.

use serde::{Deserialize, Serialize, Serializer};

use super::Access;
use crate::{GatewayId, Scope, Secret, method};

const ADMIN: Access = Access::Operator(Scope::Admin);

method!(DevicePairInvite, "device.pair.invite", ADMIN, InviteParams => Invited);
method!(
    /// Left out of `features.methods`, as the reference does.
    DevicePairSetupCode, "device.pair.setupCode", ADMIN, SetupCodeParams => SetupCodeMade, unadvertised
);
method!(
    /// As [`DevicePairSetupCode`].
    DevicePairSetupStatus, "device.pair.setupStatus", ADMIN, SetupStatusParams => SetupStatus, unadvertised
);

method!(
    /// Ours: how far the device that was shown a code has got.
    DevicePairSetupProgress, "device.pair.setupProgress", ADMIN, SetupStatusParams => SetupProgress, unadvertised
);
method!(
    /// Ours: takes a code back that nobody has used.
    DevicePairSetupRevoke, "device.pair.setupRevoke", ADMIN, SetupStatusParams => SetupRevoked, unadvertised
);

/// How long a token lives when nobody says: ten minutes (handshake notes, section 11).
pub const DEFAULT_TTL_MS: u64 = 10 * 60 * 1000;
/// Longest life that may be asked for: one day.
pub const MAX_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// Shortest life that may be asked for: one second.
pub const MIN_TTL_MS: u64 = 1000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteParams {
    /// `operator` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Operators only. Absent: what [`default_scopes`] says. An empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The owner's name for the device that will come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Refuse, and make no token, when nobody but this machine can reach the gateway.
    #[serde(default)]
    pub needs_address: bool,
}

/// Everyday work without administration: what an invitation grants when nobody says.
pub const fn default_scopes() -> [Scope; 5] {
    [Scope::Read, Scope::Write, Scope::Approvals, Scope::Questions, Scope::Talk]
}

/// Result of `device.pair.invite`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invited {
    /// Names the invitation without being of any use to redeem it.
    pub setup_id: String,
    #[serde(serialize_with = "deliver")]
    pub token: Secret,
    pub expires_at_ms: i64,
    pub role: String,
    pub scopes: Vec<String>,
    pub gateway: InvitingGateway,
}

/// Which gateway invites, and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvitingGateway {
    pub id: GatewayId,
    pub version: String,
    /// On loopback, for tunnels.
    pub port: u16,
    /// The port speaks TLS.
    pub tls: bool,
    /// Of the certificate that port shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_fingerprint: Option<String>,
    /// Best first; empty when only this machine can reach it.
    #[serde(default)]
    pub addresses: Vec<GatewayAddress>,
}

/// One way to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayAddress {
    pub kind: AddressKind,
    /// `ws://` or `wss://`
    pub url: String,
    /// Where the gateway's own certificate is shown there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_fingerprint: Option<String>,
}

/// Who can use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// Machines on the same private network.
    Lan,
    /// Machines of the same tailnet.
    Tailnet,
    /// Everybody.
    Public,
}

/// Parameters of `device.pair.setupCode`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupCodeParams {
    /// Goes into the code instead of the gateway's own addresses.
    #[serde(default)]
    pub public_url: Option<String>,
    #[serde(default)]
    pub prefer_remote_url: bool,
    /// Absent: everything a phone's owner may do.
    #[serde(default)]
    pub bootstrap_profile: Option<String>,
    /// Also make a URL that gives the code out once; for nodes only.
    #[serde(default)]
    pub join_url: bool,
    /// Absent: with a picture of the code.
    #[serde(default)]
    pub include_qr: Option<bool>,
}

/// Result of `device.pair.setupCode`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupCodeMade {
    pub setup_id: String,
    #[serde(serialize_with = "deliver")]
    pub setup_code: Secret,
    /// Where the code can be fetched once.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "deliver_some")]
    pub join_url: Option<Secret>,
    /// The code as a picture, `data:image/png;base64,…`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "deliver_some")]
    pub qr_data_url: Option<Secret>,
    pub gateway_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_urls: Option<Vec<String>>,
    /// `token` or `password`: how the gateway authenticates otherwise.
    pub auth: String,
    pub url_source: String,
    pub access: SetupAccess,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_downgraded: Option<bool>,
    pub expires_at_ms: i64,
}

/// What a setup code is good for, in the reference's three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetupAccess {
    /// Administration included.
    Full,
    Limited,
    /// A node and nothing else.
    Node,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupStatusParams {
    pub setup_id: String,
}

/// Result of `device.pair.setupStatus`; empty while the token is unused, and for ids nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<SetupOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_uncertain: Option<SetupOutcome>,
}

/// Result of `device.pair.setupProgress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupProgress {
    /// The gateway's clock.
    pub now_ms: i64,
    /// When the code ends, while it still waits; absent once it was used, taken back or is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Who came to the gateway's ports since codes are out, one entry for each address, oldest first.
    #[serde(default)]
    pub arrivals: Vec<Arrival>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<SetupOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_uncertain: Option<SetupOutcome>,
}

/// How far somebody got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// Where from.
    pub address: String,
    pub stage: ArrivalStage,
    /// TLS was spoken.
    pub tls: bool,
    /// The last time anything was heard from there.
    pub at_ms: i64,
    /// The pairing request made there, where the stage is [`ArrivalStage::Waiting`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The three words of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

/// Stages on the way to being paired, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArrivalStage {
    /// A connection was made.
    Reached,
    /// It did not come to TLS, where the gateway speaks it.
    TlsRefused,
    /// TLS stands.
    Secured,
    /// It asked for a WebSocket, as apps and nodes do.
    Greeted,
    /// The code it brought was none (any more).
    CodeRefused,
    /// It asks to be paired, and the owner has to answer.
    Waiting,
    /// It brought a code that was good.
    Paired,
}

/// Result of `device.pair.setupRevoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupRevoked {
    pub setup_id: String,
    /// False when there was nothing to take back: used, over, or never made.
    pub revoked: bool,
}

/// Who redeemed a token; also the payload of `device.pair.setup.completed` and `device.pair.setup.deliveryUncertain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetupOutcome {
    pub setup_id: String,
    pub device_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    pub access: SetupAccess,
    pub ts: i64,
}

/// The one place where a one-time token leaves: to the administrator who asked for it.
fn deliver<S: Serializer>(token: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    token.expose().serialize(serializer)
}

fn deliver_some<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => deliver(secret, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_setup_code_has_the_published_shape() {
        let made = SetupCodeMade {
            setup_id: "s".into(),
            setup_code: Secret::new("c0de"),
            join_url: None,
            qr_data_url: None,
            gateway_url: "ws://192.168.1.2:18789".into(),
            gateway_urls: None,
            auth: "token".into(),
            url_source: "gateway.bind=lan".into(),
            access: SetupAccess::Limited,
            access_downgraded: Some(true),
            expires_at_ms: 7,
        };
        let wire = json!({
            "setupId": "s", "setupCode": "c0de", "gatewayUrl": "ws://192.168.1.2:18789", "auth": "token",
            "urlSource": "gateway.bind=lan", "access": "limited", "accessDowngraded": true, "expiresAtMs": 7
        });
        assert_eq!(serde_json::to_value(&made).expect("writes"), wire);
        assert!(!format!("{made:?}").contains("c0de"));
        let read: SetupCodeMade = serde_json::from_value(wire).expect("reads");
        assert_eq!(read.setup_code.expose(), "c0de");
    }

    #[test]
    fn defaults_administrate_nothing() {
        let granted: crate::ScopeSet = default_scopes().into_iter().collect();
        assert!(!granted.grants(Scope::Admin) && !granted.grants(Scope::Pairing) && granted.grants(Scope::Write));
    }
}
