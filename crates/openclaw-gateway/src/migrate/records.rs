//! Paired devices and tokens as OpenClaw wrote them, turned into ours. Whatever cannot be understood is left out, never
//! guessed at: the worst an import may cost is asking again.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_protocol::{DeviceId, PublicKey, Role, ScopeSet, Secret};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::pairing::{ApprovedVia, ClientMeta, DeviceToken, PairedDevice};

/// Shorter texts are no tokens OpenClaw made: 128 bits in base64url take 22 characters.
const MIN_TOKEN_CHARS: usize = 22;
const MAX_LABEL_CHARS: usize = 200;

/// A record of `devices/paired.json`; rows of `device_pairing_paired` are read into the same shape.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StoredDevice {
    pub device_id: String,
    pub public_key: String,
    pub display_name: Option<String>,
    pub operator_label: Option<String>,
    pub platform: Option<String>,
    pub device_family: Option<String>,
    pub client_id: Option<String>,
    pub client_mode: Option<String>,
    pub browser_origin: Option<String>,
    pub role: Option<String>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub approved_scopes: Option<Vec<String>>,
    pub approved_via: Option<String>,
    pub tokens: BTreeMap<String, StoredToken>,
    pub created_at_ms: i64,
    pub approved_at_ms: i64,
    pub last_seen_at_ms: Option<i64>,
    pub last_seen_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredToken {
    pub token: String,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub created_at_ms: i64,
    #[serde(default)]
    pub rotated_at_ms: Option<i64>,
    #[serde(default)]
    pub revoked_at_ms: Option<i64>,
    #[serde(default)]
    pub last_used_at_ms: Option<i64>,
    /// A field we do not know may be a condition we cannot check.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl StoredDevice {
    /// Our record of it, or `None` with the reason in `warnings`.
    pub fn convert(self, warnings: &mut Vec<String>) -> Option<PairedDevice> {
        let name = self.operator_label.as_ref().or(self.display_name.as_ref()).cloned().unwrap_or_default();
        let short: String = self.device_id.chars().take(8).collect();
        let mut warn = |what: String| warnings.push(format!("device {short} {name:?}: {what}"));
        let key = PublicKey::parse(&self.public_key);
        let id = DeviceId::parse(&self.device_id);
        let (Some(public_key), Some(id)) = (key, id) else {
            warn("left out, its id or key cannot be read".into());
            return None;
        };
        if public_key.device_id() != id {
            warn("left out, its id is not that of its key".into());
            return None;
        }
        let listed = self.roles.clone().or_else(|| self.role.clone().map(|role| vec![role])).unwrap_or_default();
        let mut roles: BTreeSet<Role> = listed.iter().filter_map(|role| Role::parse(role)).collect();
        let unknown = listed.iter().filter(|role| Role::parse(role).is_none());
        for role in unknown {
            warn(format!("role {role:?} is unknown here and was left out"));
        }
        let Some(role) = self.role.as_deref().and_then(Role::parse).or_else(|| roles.first().copied()) else {
            warn("left out, it has no role known here".into());
            return None;
        };
        // A revoked token means that the role was taken away, whatever the list of roles still says.
        let revoked = |role: &Role| self.tokens.get(role.as_str()).is_some_and(|token| token.revoked_at_ms.is_some());
        roles.retain(|role| !revoked(role));
        let approved = self.approved_scopes.as_ref().or(self.scopes.as_ref()).cloned().unwrap_or_default();
        let approved_scopes =
            if roles.contains(&Role::Operator) { ScopeSet::parse(&approved) } else { ScopeSet::EMPTY };
        let lost = approved.len().saturating_sub(ScopeSet::parse(&approved).iter().count());
        if lost > 0 {
            warn(format!("{lost} of its scopes are unknown here and were left out"));
        }
        let mut tokens = BTreeMap::new();
        for (role_name, token) in self.tokens {
            let Some(role) = Role::parse(&role_name) else { continue };
            match token.convert(role, &roles, &listed, approved_scopes) {
                Ok(token) => drop(tokens.insert(role, token)),
                Err(why) => warn(format!("its {role} token was left out, {why}")),
            }
        }
        Some(PairedDevice {
            id,
            public_key,
            client: ClientMeta {
                display_name: text(self.display_name),
                platform: text(self.platform),
                device_family: text(self.device_family),
                client_id: text(self.client_id),
                client_mode: text(self.client_mode),
                browser_origin: text(self.browser_origin),
            },
            label: text(self.operator_label),
            role,
            roles,
            approved_scopes,
            approved_via: self.approved_via.as_deref().and_then(ApprovedVia::parse),
            tokens,
            created_at_ms: self.created_at_ms,
            approved_at_ms: self.approved_at_ms,
            last_seen_at_ms: self.last_seen_at_ms,
            last_seen_reason: text(self.last_seen_reason),
        })
    }
}

impl StoredToken {
    fn convert(
        self,
        role: Role,
        approved: &BTreeSet<Role>,
        listed: &[String],
        baseline: ScopeSet,
    ) -> Result<DeviceToken, String> {
        let revoked = self.revoked_at_ms.is_some();
        if self.role.as_deref().is_some_and(|named| named != role.as_str()) {
            return Err("it names another role".into());
        }
        if !listed.iter().any(|name| name == role.as_str()) {
            // Release 2026.2 lets `device.token.rotate` make tokens for roles nobody approved.
            return Err("that role was never approved".into());
        }
        if let Some(field) = self.unknown.keys().next() {
            return Err(format!("its field {field:?} is unknown here; the device gets a new one when it connects"));
        }
        if !revoked && self.token.len() < MIN_TOKEN_CHARS {
            return Err("it is too short to be one".into());
        }
        let scopes = match role {
            Role::Operator if approved.contains(&role) => ScopeSet::parse(&self.scopes).limited_to(baseline),
            _ => ScopeSet::EMPTY,
        };
        Ok(DeviceToken {
            secret: Secret::new(if revoked { String::new() } else { self.token }),
            scopes,
            created_at_ms: self.created_at_ms,
            rotated_at_ms: self.rotated_at_ms,
            revoked_at_ms: self.revoked_at_ms,
            last_used_at_ms: self.last_used_at_ms,
            issuer: None,
        })
    }
}

/// A token this machine holds as a client, as read from either generation.
#[derive(Clone, Debug)]
pub(super) struct StoredClientToken {
    /// Where it is good; `None` when the source does not say.
    pub origin: Option<String>,
    pub device_id: String,
    pub role: String,
    pub token: Secret,
    pub scopes: ScopeSet,
    pub updated_at_ms: i64,
}

fn text(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.trim().is_empty()).map(|text| text.chars().take(MAX_LABEL_CHARS).collect())
}
