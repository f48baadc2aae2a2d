//! `connect` parameters: what a client says of itself before anything about it is believed.
//!
//! Required fields and types are checked; unknown keys are ignored, because newer clients add them. Everything here is a
//! claim. Nothing in this file grants a right.

use serde_json::{Map, Value, json};

use crate::{DeviceId, DeviceKey, ErrorShape, Protocol, Secret, device::ProofPayload};

/// Client ids the reference knows. A label, never a right.
pub const CLIENT_IDS: &[&str] = &[
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-browser-copilot",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "node-host",
    "openclaw-worker",
    "test",
    "fingerprint",
    "openclaw-probe",
];

/// Client modes the reference knows.
pub const CLIENT_MODES: &[&str] = &["webchat", "cli", "ui", "backend", "node", "worker", "probe", "test"];

/// Free-text client fields are cut to this many characters: they end up in logs and tables.
const MAX_LABEL_CHARS: usize = 200;
/// A node's search path is used, not only shown; it may be long.
const MAX_PATH_CHARS: usize = 16_384;
/// Lists (`scopes`, `caps`, `commands`) keep at most this many entries.
const MAX_LIST: usize = 512;

/// The `client` object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    pub id: String,
    pub version: String,
    pub platform: String,
    pub mode: String,
    pub display_name: Option<String>,
    pub device_family: Option<String>,
    pub model_identifier: Option<String>,
    pub instance_id: Option<String>,
    pub time_zone: Option<String>,
}

impl ClientInfo {
    /// True for browser user interfaces, which must present an acceptable `Origin`.
    pub fn is_browser_ui(&self) -> bool {
        matches!(self.id.as_str(), "openclaw-control-ui" | "webchat-ui" | "webchat" | "openclaw-browser-copilot")
    }
}

/// The `device` object, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBlock {
    pub id: String,
    pub public_key: String,
    pub signature: String,
    pub signed_at_ms: i64,
    pub nonce: String,
}

/// The `auth` object. Empty strings count as absent.
#[derive(Clone, Debug, Default)]
pub struct AuthBlock {
    pub token: Option<Secret>,
    pub password: Option<Secret>,
    pub device_token: Option<Secret>,
    pub bootstrap_token: Option<Secret>,
}

impl AuthBlock {
    /// The text a device signs: the first present of token, device token, bootstrap token; never the password.
    pub fn signed_token(&self) -> &str {
        [&self.token, &self.device_token, &self.bootstrap_token].into_iter().flatten().next().map_or("", Secret::expose)
    }

    /// True when no credential of any kind was sent.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.password.is_none() && self.device_token.is_none() && self.bootstrap_token.is_none()
    }
}

/// Everything a `connect` request says.
#[derive(Clone, Debug)]
pub struct ConnectParams {
    pub min_protocol: u32,
    pub max_protocol: u32,
    pub client: ClientInfo,
    /// As sent; `operator` when absent.
    pub role: String,
    /// As sent and in order, for the signature.
    pub scopes: Vec<String>,
    pub caps: Vec<String>,
    pub commands: Vec<String>,
    pub permissions: Map<String, Value>,
    pub path_env: Option<String>,
    pub device: Option<DeviceBlock>,
    pub auth: AuthBlock,
    pub user_agent: Option<String>,
}

impl ConnectParams {
    /// Reads and checks the parameters.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, `invalid connect params: …` with the validator words of the reference, all problems joined.
    pub fn parse(params: &Value) -> Result<Self, ErrorShape> {
        let mut check = Check::default();
        let Some(root) = params.as_object() else {
            return Err(ErrorShape::invalid("invalid connect params: at root: must be object"));
        };
        let min_protocol = check.version(root, "minProtocol");
        let max_protocol = check.version(root, "maxProtocol");
        let empty = Map::new();
        let client = check.object(root, "client", true).unwrap_or(&empty);
        let client = ClientInfo {
            id: check.one_of(client, "/client", "id", CLIENT_IDS),
            version: check.text(client, "/client", "version", true).unwrap_or_default(),
            platform: check.text(client, "/client", "platform", true).unwrap_or_default(),
            mode: check.one_of(client, "/client", "mode", CLIENT_MODES),
            display_name: check.text(client, "/client", "displayName", false),
            device_family: check.text(client, "/client", "deviceFamily", false),
            model_identifier: check.text(client, "/client", "modelIdentifier", false),
            instance_id: check.text(client, "/client", "instanceId", false),
            time_zone: check.text(client, "/client", "timeZone", false),
        };
        let role = match root.get("role") {
            None | Some(Value::Null) => "operator".to_owned(),
            Some(Value::String(role)) => role.clone(),
            Some(_) => check.fail("/role", "must be string", String::new()),
        };
        let device = check.object(root, "device", false).map(|device| DeviceBlock {
            id: check.raw_text(device, "/device", "id"),
            public_key: check.raw_text(device, "/device", "publicKey"),
            signature: check.raw_text(device, "/device", "signature"),
            signed_at_ms: match device.get("signedAt").and_then(Value::as_i64) {
                Some(at) => at,
                None => check.fail("/device/signedAt", "must be integer", 0),
            },
            nonce: check.raw_text(device, "/device", "nonce"),
        });
        let auth = check.object(root, "auth", false).unwrap_or(&empty);
        let auth = AuthBlock {
            token: check.secret(auth, "token"),
            password: check.secret(auth, "password"),
            device_token: check.secret(auth, "deviceToken"),
            bootstrap_token: check.secret(auth, "bootstrapToken"),
        };
        let parsed = Self {
            min_protocol,
            max_protocol,
            client,
            role,
            scopes: check.list(root, "scopes"),
            caps: check.list(root, "caps"),
            commands: check.list(root, "commands"),
            permissions: check.object(root, "permissions", false).cloned().unwrap_or_default(),
            path_env: check.text_of(root, "", "pathEnv", false, MAX_PATH_CHARS),
            device,
            auth,
            user_agent: check.text(root, "", "userAgent", false),
        };
        check.finish(parsed)
    }

    /// What the device of this request signed, if there is a device block.
    pub fn proof_payload(&self) -> Option<ProofPayload<'_>> {
        let device = self.device.as_ref()?;
        Some(ProofPayload {
            device_id: &device.id,
            client_id: &self.client.id,
            client_mode: &self.client.mode,
            role: &self.role,
            scopes: &self.scopes,
            signed_at_ms: device.signed_at_ms,
            token: self.auth.signed_token(),
            nonce: &device.nonce,
            platform: &self.client.platform,
            device_family: self.client.device_family.as_deref().unwrap_or(""),
        })
    }

    /// Adds a device block signed with `key` over the challenge.
    pub fn sign(&mut self, key: &DeviceKey, nonce: &str, signed_at_ms: i64) {
        let id: DeviceId = key.id();
        self.device = Some(DeviceBlock {
            id: id.as_str().to_owned(),
            public_key: key.public().to_wire(),
            signature: String::new(),
            signed_at_ms,
            nonce: nonce.to_owned(),
        });
        let signature = self.proof_payload().map(|payload| key.sign(&payload.v3()));
        if let (Some(device), Some(signature)) = (&mut self.device, signature) {
            device.signature = signature;
        }
    }

    /// The JSON to send. This is the one place where a client's secrets are put on the wire. `protocol` is the highest
    /// version offered: a v3 gateway refuses fields it does not know.
    pub fn to_wire(&self, protocol: Protocol) -> Value {
        let mut client = json!({
            "id": self.client.id, "version": self.client.version,
            "platform": self.client.platform, "mode": self.client.mode,
        });
        let optional = [
            ("displayName", &self.client.display_name),
            ("deviceFamily", &self.client.device_family),
            ("modelIdentifier", &self.client.model_identifier),
            ("instanceId", &self.client.instance_id),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                client[key] = json!(value);
            }
        }
        if let (Some(zone), Protocol::V4) = (&self.client.time_zone, protocol) {
            client["timeZone"] = json!(zone);
        }
        let mut root = json!({
            "minProtocol": self.min_protocol, "maxProtocol": self.max_protocol, "client": client,
            "role": self.role, "scopes": self.scopes, "caps": self.caps,
        });
        if !self.commands.is_empty() {
            root["commands"] = json!(self.commands);
        }
        if !self.permissions.is_empty() {
            root["permissions"] = Value::Object(self.permissions.clone());
        }
        if let Some(path) = &self.path_env {
            root["pathEnv"] = json!(path);
        }
        if let Some(device) = &self.device {
            root["device"] = json!({
                "id": device.id, "publicKey": device.public_key, "signature": device.signature,
                "signedAt": device.signed_at_ms, "nonce": device.nonce,
            });
        }
        let mut auth = Map::new();
        let secrets = [
            ("token", &self.auth.token),
            ("password", &self.auth.password),
            ("deviceToken", &self.auth.device_token),
            ("bootstrapToken", &self.auth.bootstrap_token),
        ];
        for (key, secret) in secrets {
            if let Some(secret) = secret {
                auth.insert(key.to_owned(), json!(secret.expose()));
            }
        }
        if !auth.is_empty() {
            root["auth"] = Value::Object(auth);
        }
        root
    }
}

/// Collects every problem, so that one answer names them all.
#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn fail<T>(&mut self, path: &str, problem: &str, fallback: T) -> T {
        // A hostile peer could send thousands of wrong fields; a person reads the first few.
        if self.problems.len() < 8 {
            let at = if path.is_empty() { "root" } else { path };
            self.problems.push(format!("at {at}: {problem}"));
        }
        fallback
    }

    fn missing<T>(&mut self, path: &str, key: &str, fallback: T) -> T {
        self.fail(path, &format!("must have required property '{key}'"), fallback)
    }

    fn version(&mut self, root: &Map<String, Value>, key: &str) -> u32 {
        match root.get(key) {
            None => self.missing("", key, 0),
            // Any positive integer is a version; huge ones are simply versions we do not speak.
            Some(value) => match value.as_u64() {
                Some(0) => self.fail(&format!("/{key}"), "must be >= 1", 0),
                Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
                None => self.fail(&format!("/{key}"), "must be integer", 0),
            },
        }
    }

    fn object<'a>(
        &mut self,
        root: &'a Map<String, Value>,
        key: &str,
        required: bool,
    ) -> Option<&'a Map<String, Value>> {
        match root.get(key) {
            Some(Value::Object(object)) => Some(object),
            None | Some(Value::Null) if required => self.missing("", key, None),
            None | Some(Value::Null) => None,
            Some(_) => self.fail(&format!("/{key}"), "must be object", None),
        }
    }

    fn text(&mut self, object: &Map<String, Value>, at: &str, key: &str, required: bool) -> Option<String> {
        self.text_of(object, at, key, required, MAX_LABEL_CHARS)
    }

    /// A text cut to `most` characters.
    fn text_of(
        &mut self,
        object: &Map<String, Value>,
        at: &str,
        key: &str,
        required: bool,
        most: usize,
    ) -> Option<String> {
        match object.get(key) {
            Some(Value::String(text)) if text.is_empty() && required => {
                self.fail(&format!("{at}/{key}"), "must NOT have fewer than 1 characters", None)
            }
            Some(Value::String(text)) => Some(text.chars().take(most).collect()),
            None | Some(Value::Null) if required => self.missing(at, key, None),
            None | Some(Value::Null) => None,
            Some(_) => self.fail(&format!("{at}/{key}"), "must be string", None),
        }
    }

    /// A required string that may be empty and is kept whole: what it means is decided elsewhere.
    fn raw_text(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> String {
        match object.get(key) {
            Some(Value::String(text)) => text.clone(),
            None => self.missing(at, key, String::new()),
            Some(_) => self.fail(&format!("{at}/{key}"), "must be string", String::new()),
        }
    }

    fn one_of(&mut self, object: &Map<String, Value>, at: &str, key: &str, allowed: &[&str]) -> String {
        match object.get(key) {
            Some(Value::String(text)) if allowed.contains(&text.as_str()) => text.clone(),
            None => self.missing(at, key, String::new()),
            Some(_) => self.fail(&format!("{at}/{key}"), "must be equal to one of the allowed values", String::new()),
        }
    }

    fn list(&mut self, root: &Map<String, Value>, key: &str) -> Vec<String> {
        match root.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) if items.len() <= MAX_LIST && items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::Array(items)) if items.len() > MAX_LIST => {
                self.fail(&format!("/{key}"), "must NOT have more than 512 items", Vec::new())
            }
            Some(_) => self.fail(&format!("/{key}"), "must be array of string", Vec::new()),
        }
    }

    fn secret(&mut self, auth: &Map<String, Value>, key: &str) -> Option<Secret> {
        match auth.get(key) {
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(Secret::new(text.clone())),
            None | Some(Value::Null) => None,
            Some(_) => self.fail(&format!("/auth/{key}"), "must be string", None),
        }
    }

    fn finish(self, parsed: ConnectParams) -> Result<ConnectParams, ErrorShape> {
        if self.problems.is_empty() {
            return Ok(parsed);
        }
        Err(ErrorShape::invalid(format!("invalid connect params: {}", self.problems.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Value {
        json!({"minProtocol":4,"maxProtocol":4,"client":{"id":"cli","version":"1","platform":"linux","mode":"cli"}})
    }

    fn message(change: impl FnOnce(&mut Value)) -> String {
        let mut value = base();
        change(&mut value);
        ConnectParams::parse(&value).map_or_else(|e| e.message, |_| "ok".to_owned())
    }

    #[test]
    fn reference_words() {
        assert_eq!(message(|_| ()), "ok");
        assert_eq!(
            message(|v| v["client"]["id"] = json!("evil")),
            "invalid connect params: at /client/id: must be equal to one of the allowed values"
        );
        assert_eq!(
            message(|v| v["client"] = json!({"id":"cli"})),
            "invalid connect params: at /client: must have required property 'version'; at /client: must have required \
             property 'platform'; at /client: must have required property 'mode'"
        );
        assert_eq!(message(|v| v["minProtocol"] = json!(0)), "invalid connect params: at /minProtocol: must be >= 1");
        assert_eq!(
            message(|v| v["minProtocol"] = json!(3.5)),
            "invalid connect params: at /minProtocol: must be integer"
        );
        assert_eq!(message(|v| v["role"] = json!(["operator"])), "invalid connect params: at /role: must be string");
    }

    #[test]
    fn newer_fields_are_ignored() {
        assert_eq!(
            message(|v| {
                v["modelCatalog"] = json!({"sessionKey": "main"});
                v["client"]["buildId"] = json!("x");
                v["auth"] = json!({"token": "t", "approvalRuntimeToken": "x", "brandNew": 1});
            }),
            "ok"
        );
    }

    #[test]
    fn a_search_path_is_kept_and_a_label_is_cut() {
        let mut value = base();
        value["pathEnv"] = json!("/usr/bin:".repeat(100));
        value["client"]["displayName"] = json!("x".repeat(1_000));
        let params = ConnectParams::parse(&value).expect("parses");
        assert_eq!(params.path_env.map(|path| path.len()), Some(900));
        assert_eq!(params.client.display_name.map(|name| name.len()), Some(200));
    }

    #[test]
    fn empty_secrets_are_absent() {
        let mut value = base();
        value["auth"] = json!({"token": "", "password": ""});
        assert!(ConnectParams::parse(&value).expect("parses").auth.is_empty());
    }

    #[test]
    fn wire_round_trip_keeps_the_signature_valid() {
        let mut params = ConnectParams::parse(&base()).expect("parses");
        params.auth.password = Some(Secret::new("p"));
        params.auth.device_token = Some(Secret::new("d"));
        params.scopes = vec!["operator.read".into()];
        let key = DeviceKey::from_seed(&[1; 32]);
        params.sign(&key, "nonce", 42);
        let back = ConnectParams::parse(&params.to_wire(Protocol::V4)).expect("parses");
        let (device, payload) = (back.device.as_ref().expect("device"), back.proof_payload().expect("payload"));
        assert_eq!(payload.token, "d");
        assert!(crate::device::verify_proof(&device.public_key, &device.signature, &payload, "nonce", 42).is_ok());
    }
}
