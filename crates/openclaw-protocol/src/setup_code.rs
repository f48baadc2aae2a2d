//! Setup codes: where a gateway is and the one-time token that pairs a device with it, in one line that can be pasted.
//!
//! Unpadded base64url of `{url, urls?, bootstrapToken, expiresAtMs?, tlsFingerprint?}` (handshake notes, section 11), also
//! written `oc-pair://<code>`. This gateway adds `gatewayId`, so that the token goes to no other gateway, and in invitations
//! `role`; readers that do not know them pass them over.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{GatewayId, Role, Secret};

/// The link form.
pub const SCHEME: &str = "oc-pair://";
/// Longest code that is looked at: 8 KiB. A code with eight URLs has about one.
const MAX_CHARS: usize = 8 * 1024;
/// URLs in one code (published schema, `DevicePairSetupCodeResult`).
pub const MAX_URLS: usize = 8;

/// What a setup code says. A claim of whoever handed it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupCode {
    /// `ws://` or `wss://`, best first; at least one.
    pub urls: Vec<String>,
    pub bootstrap_token: Secret,
    /// When the token ends, ms since the epoch by the gateway's clock.
    pub expires_at_ms: Option<i64>,
    /// Of the certificate the `wss://` URLs show, as text.
    pub tls_fingerprint: Option<String>,
    pub gateway_id: Option<GatewayId>,
    pub role: Option<Role>,
}

/// Why a text is no setup code. Nothing of the text is repeated: it may be a secret all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupCodeError {
    Unreadable,
    NoUrl,
    NoToken,
    TooLong,
}

impl fmt::Display for SetupCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "this is not a setup code: it is cut off, or something was added to it",
            Self::NoUrl => "this setup code names no gateway",
            Self::NoToken => {
                "this setup code holds no one-time token; codes of older releases hold the shared secret and are not taken"
            }
            Self::TooLong => "this setup code is longer than any gateway makes them",
        })
    }
}

impl std::error::Error for SetupCodeError {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    url: Option<String>,
    #[serde(default)]
    urls: Vec<String>,
    bootstrap_token: Option<Secret>,
    expires_at_ms: Option<i64>,
    tls_fingerprint: Option<String>,
    gateway_id: Option<String>,
    role: Option<String>,
}

impl SetupCode {
    /// The code. It holds the token, so it is as secret as that.
    pub fn encode(&self) -> Secret {
        let mut payload = json!({"url": self.urls.first()});
        if self.urls.len() > 1 {
            payload["urls"] = json!(self.urls);
        }
        payload["bootstrapToken"] = json!(self.bootstrap_token.expose());
        let optional: [(&str, Option<Value>); 4] = [
            ("expiresAtMs", self.expires_at_ms.map(Value::from)),
            ("tlsFingerprint", self.tls_fingerprint.clone().map(Value::from)),
            ("gatewayId", self.gateway_id.as_ref().map(|id| Value::from(id.as_str()))),
            ("role", self.role.map(|role| Value::from(role.as_str()))),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                payload[key] = value;
            }
        }
        Secret::new(URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    /// Reads a code or its link form. Blanks around it and padding behind it are dropped.
    ///
    /// # Errors
    /// [`SetupCodeError`]
    pub fn parse(text: &str) -> Result<Self, SetupCodeError> {
        let text = text.trim();
        let code = match text.get(..SCHEME.len()) {
            Some(start) if start.eq_ignore_ascii_case(SCHEME) => text.get(SCHEME.len()..).unwrap_or_default(),
            _ => text,
        };
        if code.len() > MAX_CHARS {
            return Err(SetupCodeError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(code.trim_end_matches(['/', '=']));
        let bytes = bytes.map_err(|_| SetupCodeError::Unreadable)?;
        let payload: Payload = serde_json::from_slice(&bytes).map_err(|_| SetupCodeError::Unreadable)?;
        let mut urls: Vec<String> = Vec::new();
        for url in payload.url.into_iter().chain(payload.urls) {
            let known = url.starts_with("ws://") || url.starts_with("wss://");
            if known && !urls.contains(&url) && urls.len() < MAX_URLS {
                urls.push(url);
            }
        }
        if urls.is_empty() {
            return Err(SetupCodeError::NoUrl);
        }
        let bootstrap_token = payload.bootstrap_token.filter(|token| !token.expose().trim().is_empty());
        Ok(Self {
            urls,
            bootstrap_token: bootstrap_token.ok_or(SetupCodeError::NoToken)?,
            expires_at_ms: payload.expires_at_ms,
            tls_fingerprint: payload.tls_fingerprint.filter(|text| !text.trim().is_empty()),
            // A code whose identity cannot be read must not pass for one without.
            gateway_id: match payload.gateway_id {
                Some(id) => Some(GatewayId::parse(&id).ok_or(SetupCodeError::Unreadable)?),
                None => None,
            },
            role: payload.role.as_deref().and_then(Role::parse),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceKey;

    fn code() -> SetupCode {
        SetupCode {
            urls: vec!["wss://192.168.77.10:18789".into(), "wss://gateway.example".into()],
            bootstrap_token: Secret::new("t0k3n"),
            expires_at_ms: Some(1_795_230_139_714),
            tls_fingerprint: Some("ab".repeat(32)),
            gateway_id: Some(GatewayId::of(DeviceKey::from_seed(&[7; 32]).id())),
            role: Some(Role::Operator),
        }
    }

    #[test]
    fn a_code_survives_the_clipboard() {
        let text = code().encode();
        let text = text.expose();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        for form in
            [text.to_owned(), format!("oc-pair://{text}"), format!("  OC-Pair://{text}/\n"), format!("{text}==")]
        {
            assert_eq!(SetupCode::parse(&form), Ok(code()), "{form}");
        }
        let plain = SetupCode { tls_fingerprint: None, gateway_id: None, role: None, expires_at_ms: None, ..code() };
        assert_eq!(SetupCode::parse(plain.encode().expose()), Ok(plain));
    }

    /// The fields and forms of handshake notes section 11.
    #[test]
    fn codes_of_the_reference() {
        let encode = |payload: Value| URL_SAFE_NO_PAD.encode(payload.to_string());
        let read = |payload: Value| SetupCode::parse(&encode(payload));
        let read_ok = read(json!({"url": "ws://192.168.1.2:18789", "bootstrapToken": "b"})).expect("a code");
        assert_eq!((read_ok.urls.len(), read_ok.gateway_id, read_ok.role), (1, None, None));
        let many =
            json!({"url": "ws://a", "urls": ["ws://a", "wss://b", "https://c", "wss://d"], "bootstrapToken": "b"});
        assert_eq!(read(many).expect("a code").urls, ["ws://a", "wss://b", "wss://d"]);
        for (payload, expected) in [
            (json!({"url": "ws://a", "token": "shared"}), SetupCodeError::NoToken),
            (json!({"url": "ws://a", "bootstrapToken": " "}), SetupCodeError::NoToken),
            (json!({"bootstrapToken": "b"}), SetupCodeError::NoUrl),
            (json!({"url": "http://a", "bootstrapToken": "b"}), SetupCodeError::NoUrl),
            (json!({"url": "ws://a", "bootstrapToken": "b", "gatewayId": "x"}), SetupCodeError::Unreadable),
            (json!([1]), SetupCodeError::Unreadable),
        ] {
            assert_eq!(read(payload.clone()), Err(expected), "{payload}");
        }
        for (text, expected) in [
            ("", SetupCodeError::Unreadable),
            ("oc-pair://", SetupCodeError::Unreadable),
            ("a b", SetupCodeError::Unreadable),
            (&"A".repeat(9000), SetupCodeError::TooLong),
        ] {
            assert_eq!(SetupCode::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn nothing_shows_the_token() {
        assert!(!format!("{:?}", code()).contains("t0k3n"));
        assert!(!format!("{:?}", code().encode()).contains(code().encode().expose()));
    }
}
