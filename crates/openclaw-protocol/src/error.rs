//! Error shapes on the wire. `code` and `details.code` are the contract; `message` is for eyes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{CloseReason, scope::Scope};

/// Top-level error codes the reference emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    InvalidRequest,
    NotPaired,
    Forbidden,
    Unavailable,
    ApprovalNotFound,
    /// A code from a newer peer, kept readable instead of failing the frame.
    #[serde(other)]
    Other,
}

/// The `error` object of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorShape {
    pub code: ErrorCode,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorShape {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, retryable: None, retry_after_ms: None }
    }

    /// `INVALID_REQUEST`: the caller must change something before trying again.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// `UNAVAILABLE`: the gateway or something behind it could not do it now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// `UNAVAILABLE` with `retryable: true` and a delay in milliseconds.
    pub fn retry_later(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retryable: Some(true), retry_after_ms: Some(retry_after_ms), ..Self::unavailable(message) }
    }

    pub fn with_details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// Adds one key to `details`.
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        if !matches!(self.details, Some(Value::Object(_))) {
            self.details = Some(Value::Object(Map::new()));
        }
        if let Some(Value::Object(details)) = &mut self.details {
            details.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The text of `details.code`, if there is one.
    pub fn detail_code(&self) -> Option<&str> {
        self.details.as_ref()?.get("code")?.as_str()
    }

    pub fn unknown_method(name: &str) -> Self {
        Self::invalid(format!("unknown method: {name}"))
    }

    /// The v4 shape; v3 used `INVALID_REQUEST` without details (see [`ErrorShape::for_protocol`]).
    pub fn missing_scope(scope: Scope) -> Self {
        Self::new(ErrorCode::Forbidden, format!("missing scope: {scope}")).with_details(
            json!({"code": "MISSING_SCOPE", "missingScope": scope.as_str(), "requiredScopes": [scope.as_str()]}),
        )
    }

    /// Shapes an error for the version spoken on a socket.
    pub fn for_protocol(self, protocol: crate::Protocol) -> Self {
        if protocol == crate::Protocol::V3 && self.detail_code() == Some("MISSING_SCOPE") {
            return Self::invalid(self.message);
        }
        self
    }

    /// `invalid <method> params: …`, with serde's text turned into the validator words peers expect.
    pub fn invalid_params(method: &str, error: &serde_json::Error) -> Self {
        Self::invalid(format!("invalid {method} params: {}", validator_words(error)))
    }
}

/// Turns serde's "missing field `x`" into "must have required property 'x'" and drops the position, which refers to
/// a fragment the caller never sees.
fn validator_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(head, _)| head);
    match text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) => format!("must have required property '{field}'"),
        None => text.to_owned(),
    }
}

/// A refused handshake: the error response that is sent first, and the close frame that follows it.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub error: ErrorShape,
    pub close: CloseReason,
}

impl Refusal {
    /// Closes with 1008 and the message as reason, as the reference does unless stated otherwise.
    pub fn policy(error: ErrorShape) -> Self {
        let close = CloseReason::policy(error.message.clone());
        Self { error, close }
    }
}

/// Where a remediation command has to be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// The machine the gateway runs on.
    GatewayHost,
    /// The machine that tried to connect.
    ThisClient,
}

/// One command that cures a refusal and the machine to run it on; sent as `details.remediation`. It holds no fact
/// about the gateway beyond what `details.code` already tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remediation {
    pub command: String,
    #[serde(rename = "runOn")]
    pub run_on: Machine,
}

impl From<Remediation> for Value {
    fn from(remedy: Remediation) -> Value {
        json!({"command": remedy.command, "runOn": remedy.run_on})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn missing_scope_per_version() {
        let error = ErrorShape::missing_scope(Scope::Read);
        assert_eq!(
            serde_json::to_value(&error).expect("serialises"),
            json!({"code":"FORBIDDEN","message":"missing scope: operator.read","details":{
                "code":"MISSING_SCOPE","missingScope":"operator.read","requiredScopes":["operator.read"]}})
        );
        assert_eq!(
            serde_json::to_value(error.for_protocol(Protocol::V3)).expect("serialises"),
            json!({"code":"INVALID_REQUEST","message":"missing scope: operator.read"})
        );
    }

    #[test]
    fn params_errors_use_the_validator_words() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(dead_code)]
        struct P {
            idempotency_key: String,
        }
        let error = serde_json::from_str::<P>("{}").expect_err("missing");
        assert_eq!(
            ErrorShape::invalid_params("message.action", &error).message,
            "invalid message.action params: must have required property 'idempotencyKey'"
        );
    }

    #[test]
    fn unknown_codes_stay_readable() {
        let error: ErrorShape = serde_json::from_value(json!({"code":"BRAND_NEW","message":"m"})).expect("parses");
        assert_eq!(error.code, ErrorCode::Other);
    }
}
