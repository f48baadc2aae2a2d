//! What the gateway remembers of devices: plain data, neither wire types nor table rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use openclaw_protocol::{DeviceId, PublicKey, Role, ScopeSet, Secret, limits::PAIRING_TTL, secret::hex};
use sha2::{Digest as _, Sha256};

use super::words::RequestDigest;
use crate::auth::decide::PairReason;

/// How far a clock may step back before what waits counts as expired, in ms.
pub(super) const BACKWARD_STEP_MS: i64 = 30_000;

/// Id of a pending request, a UUID on the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Takes the text as a peer or the database gave it; an unknown id simply finds nothing.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A fresh random one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

/// What a client says of itself. Shown to the owner; platform and device family are pinned at approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientMeta {
    pub display_name: Option<String>,
    pub platform: Option<String>,
    pub device_family: Option<String>,
    pub client_id: Option<String>,
    pub client_mode: Option<String>,
    pub browser_origin: Option<String>,
}

/// A device asking for a role and scopes. The key is proven by the handshake before this is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingRequest {
    pub device_id: DeviceId,
    pub public_key: PublicKey,
    pub role: Role,
    /// Ignored for nodes, which have no operator scopes.
    pub scopes: ScopeSet,
    pub client: ClientMeta,
    pub remote_ip: Option<IpAddr>,
    pub reason: PairReason,
    /// Shown in the list: this request may be approved without the owner once something else is settled.
    pub silent: bool,
}

impl PairingRequest {
    /// True when approving `other` would grant the same and show the owner the same. Client id, mode, address and
    /// reason are left out: commands of one CLI differ in them, and a retry must find its request again.
    pub fn same_as(&self, other: &Self) -> bool {
        let shown = |r: &Self| {
            let client = &r.client;
            (
                client.display_name.clone(),
                client.platform.clone(),
                client.device_family.clone(),
                client.browser_origin.clone(),
            )
        };
        self.device_id == other.device_id
            && self.public_key == other.public_key
            && self.role == other.role
            && self.scopes == other.scopes
            && shown(self) == shown(other)
    }

    pub fn digest(&self) -> RequestDigest {
        RequestDigest::of(self.public_key, self.role, self.scopes)
    }
}

/// A request that waits for consent. Its content never changes; a different wish is a different request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDevice {
    pub id: RequestId,
    pub request: PairingRequest,
    pub requested_at_ms: i64,
}

impl PendingDevice {
    /// Dead after five minutes, and also when the clock stepped back past its beginning: it must not live longer
    /// because time was set back.
    pub fn expired(&self, now_ms: i64) -> bool {
        let age = now_ms.saturating_sub(self.requested_at_ms);
        !(-BACKWARD_STEP_MS..PAIRING_TTL.as_millis() as i64).contains(&age)
    }
}

/// Where consent came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApprovedVia {
    Silent,
    Owner,
    Bootstrap,
    TrustedCidr,
    SshVerified,
    TrustedProxy,
}

impl ApprovedVia {
    const ALL: [Self; 6] =
        [Self::Silent, Self::Owner, Self::Bootstrap, Self::TrustedCidr, Self::SshVerified, Self::TrustedProxy];

    /// The word on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Owner => "owner",
            Self::Bootstrap => "bootstrap",
            Self::TrustedCidr => "trusted-cidr",
            Self::SshVerified => "ssh-verified",
            Self::TrustedProxy => "trusted-proxy",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|via| via.as_str() == text)
    }
}

/// A paired device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairedDevice {
    pub id: DeviceId,
    pub public_key: PublicKey,
    /// As approved, not as last claimed.
    pub client: ClientMeta,
    /// The owner's own name for it.
    pub label: Option<String>,
    /// The role approved last; what a list shows as "the" role.
    pub role: Role,
    /// Roles that are approved and not revoked.
    pub roles: BTreeSet<Role>,
    /// Operator scopes that are approved. Empty unless [`Role::Operator`] is in `roles`.
    pub approved_scopes: ScopeSet,
    /// Unknown for devices imported from stores that did not say.
    pub approved_via: Option<ApprovedVia>,
    /// At most one per role, kept after revocation so that it can be told apart from "never had one".
    pub tokens: BTreeMap<Role, DeviceToken>,
    pub created_at_ms: i64,
    pub approved_at_ms: i64,
    pub last_seen_at_ms: Option<i64>,
    pub last_seen_reason: Option<String>,
}

impl PairedDevice {
    /// What the device may ask for in a role without asking the owner again; `None` when the role is not approved.
    pub fn baseline(&self, role: Role) -> Option<ScopeSet> {
        let scopes = match role {
            Role::Operator => self.approved_scopes,
            Role::Node => ScopeSet::EMPTY,
        };
        self.roles.contains(&role).then_some(scopes)
    }

    /// True when the role was approved once and taken away since. Consent that was withdrawn does not come back
    /// silently.
    pub fn revoked(&self, role: Role) -> bool {
        !self.roles.contains(&role) && self.tokens.get(&role).is_some_and(|token| token.revoked_at_ms.is_some())
    }

    /// The owner's label, else the device's own name.
    pub fn shown_name(&self) -> Option<&str> {
        self.label.as_deref().or(self.client.display_name.as_deref())
    }
}

/// A device token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    /// 32 random bytes in base64url. Empty once revoked.
    pub secret: Secret,
    pub scopes: ScopeSet,
    pub created_at_ms: i64,
    pub rotated_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    pub last_used_at_ms: Option<i64>,
    /// Set on tokens a browser got for the shared secret: they die with that secret.
    pub issuer: Option<IssuerGeneration>,
}

impl DeviceToken {
    /// When the present text was issued.
    pub fn issued_at_ms(&self) -> i64 {
        self.rotated_at_ms.unwrap_or(self.created_at_ms)
    }

    pub fn live(&self) -> bool {
        self.revoked_at_ms.is_none() && !self.secret.is_empty()
    }
}

/// Tells one shared secret from the next without showing either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerGeneration(String);

impl IssuerGeneration {
    /// The generation of a shared secret: a hash of its own kind, useless for anything else.
    pub fn of(secret: &Secret) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"openclaw issuer generation 1\0");
        hash.update(secret.expose().as_bytes());
        Self(hex(&hash.finalize()[..16]))
    }

    /// As stored.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Canonical source of a request, for counting: IPv4-mapped addresses collapse, IPv6 counts by /64.
pub fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_canonical() {
        for (ip, expected) in [
            ("192.168.1.9", "192.168.1.9"),
            ("::ffff:192.168.1.9", "192.168.1.9"),
            ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::"),
            ("2001:0db8:0001:0002:bbbb:0:0:9", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ] {
            let parse = |text: &str| text.parse::<IpAddr>().expect("address");
            assert_eq!(source_of(parse(ip)), parse(expected), "{ip}");
        }
    }

    #[test]
    fn generations_differ_and_show_no_secret() {
        let one = IssuerGeneration::of(&Secret::new("hunter2"));
        assert_eq!(one, IssuerGeneration::of(&Secret::new("hunter2")));
        assert_ne!(one, IssuerGeneration::of(&Secret::new("hunter3")));
        assert!(!one.as_str().contains("hunter"));
    }
}
