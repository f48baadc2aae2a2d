//! The `hello-ok` payload, shaped per protocol version.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{Protocol, Role, ScopeSet, frame::StateVersion};

/// How a connection proved itself, as named in `hello-ok.auth.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    Token,
    Password,
    DeviceToken,
    BootstrapToken,
    Tailscale,
    TrustedProxy,
    None,
    /// The owner's unix socket. On the wire it reads `none`: no secret was needed.
    #[serde(rename = "none", skip_deserializing)]
    Owner,
}

/// `hello-ok.server`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    pub version: String,
    pub conn_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// `hello-ok.auth`. Device tokens are the only secrets a gateway ever sends, and only to the device that owns them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<AuthMethod>,
    pub role: Role,
    /// Exactly what dispatch enforces: as requested (v4) or sorted (v3).
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at_ms: Option<i64>,
    /// Of the other roles a one-time token granted; only in the hello that redeems it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_tokens: Vec<HandedToken>,
}

/// An entry of `hello-ok.auth.deviceTokens`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedToken {
    pub device_token: String,
    pub role: Role,
    pub scopes: Vec<String>,
    pub issued_at_ms: i64,
}

/// `hello-ok.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloPolicy {
    pub max_payload: usize,
    pub max_buffered_bytes: usize,
    pub tick_interval_ms: u64,
}

impl Default for HelloPolicy {
    fn default() -> Self {
        Self {
            max_payload: crate::limits::MAX_PAYLOAD_BYTES,
            max_buffered_bytes: crate::limits::MAX_BUFFERED_BYTES,
            tick_interval_ms: crate::limits::TICK_INTERVAL.as_millis() as u64,
        }
    }
}

/// What every session starts with in the Control UI.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionDefaults {
    pub default_agent_id: String,
    pub main_key: String,
    pub main_session_key: String,
    pub scope: String,
}

impl Default for SessionDefaults {
    fn default() -> Self {
        Self {
            default_agent_id: "main".into(),
            main_key: "main".into(),
            main_session_key: "agent:main:main".into(),
            scope: "per-sender".into(),
        }
    }
}

/// Paths and auth mode: v3 always had them; v4 shows them to admins only, and so do we for both.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminSnapshot {
    pub config_path: String,
    pub state_dir: String,
    pub auth_mode: &'static str,
}

/// `hello-ok.snapshot`. Presence and health are serialised once per change and shared between handshakes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot<'a> {
    pub presence: &'a RawValue,
    pub health: &'a RawValue,
    pub state_version: StateVersion,
    pub uptime_ms: u64,
    pub session_defaults: &'a SessionDefaults,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminSnapshot>,
}

/// The `hello-ok` payload to send.
#[derive(Clone, Debug, Serialize)]
pub struct HelloOk<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub protocol: Protocol,
    pub server: &'a ServerInfo,
    /// `{methods, events, capabilities}`, serialised once at start.
    pub features: &'a RawValue,
    pub snapshot: Snapshot<'a>,
    pub auth: HelloAuth,
    pub policy: HelloPolicy,
}

/// Scopes in the order the version wants them: sorted in v3, as requested in v4.
pub fn scope_names(granted: ScopeSet, requested: &[String], protocol: Protocol) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in requested {
        let kept = crate::Scope::parse(name).is_some_and(|scope| granted.has(scope));
        if kept && !names.contains(name) {
            names.push(name.clone());
        }
    }
    for name in granted.names() {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if protocol == Protocol::V3 {
        names.sort();
    }
    names
}

/// `hello-ok` as a client reads it: the parts it acts upon, the rest left open.
#[derive(Clone, Debug, Deserialize)]
pub struct HelloReceived {
    pub protocol: u32,
    pub server: ServerInfo,
    pub features: Features,
    #[serde(default)]
    pub snapshot: Value,
    #[serde(default)]
    pub auth: Option<AuthReceived>,
    pub policy: HelloPolicy,
}

/// `features` as a client reads it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Features {
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub events: Vec<String>,
}

/// `auth` as a client reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthReceived {
    #[serde(default)]
    pub method: Option<String>,
    pub role: String,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub device_token: Option<crate::Secret>,
    #[serde(default)]
    pub issued_at_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_order_per_version() {
        let requested: Vec<String> =
            ["operator.write", "operator.read", "operator.admin"].into_iter().map(str::to_owned).collect();
        let granted = ScopeSet::parse(&["operator.read", "operator.write"]);
        assert_eq!(scope_names(granted, &requested, Protocol::V4), ["operator.write", "operator.read"]);
        assert_eq!(scope_names(granted, &requested, Protocol::V3), ["operator.read", "operator.write"]);
    }
}
