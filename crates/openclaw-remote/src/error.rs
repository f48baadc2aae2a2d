//! What can go wrong on the way to a gateway, by stage, so that a person or a script can tell a wrong name from a
//! wrong token. Each stage has a stable exit code; each error has at most one command that cures it (`remedy`).

use std::{fmt, io, net::IpAddr, time::Duration};

use openclaw_config::connections::ConnectionName;
use openclaw_protocol::{ErrorCode, ErrorShape};
use serde_json::Value;

use crate::{proxy::ProxyFailure, tls::TlsFailure, url::UrlError};

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before anything was sent: the target itself was refused.
    Target,
    Name,
    /// The way to the gateway's host: no route, no ssh, or ssh refused.
    Ssh,
    /// The HTTP proxy between here and the gateway.
    Proxy,
    Connect,
    Tls,
    Http,
    Protocol,
    /// Who answered is not the gateway that was saved.
    Identity,
    Auth,
    Pairing,
    Scope,
    /// Connected; a method call failed.
    Call,
}

impl Stage {
    /// Name in JSON output and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Name => "name",
            Self::Ssh => "ssh",
            Self::Proxy => "proxy",
            Self::Identity => "identity",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Protocol => "protocol",
            Self::Auth => "auth",
            Self::Pairing => "pairing",
            Self::Scope => "scope",
            Self::Call => "call",
        }
    }

    /// Exit code of a command that failed in this stage. These numbers are part of the CLI's contract (docs/cli.md).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Target | Self::Call => 1,
            Self::Name => 10,
            Self::Connect => 11,
            Self::Tls => 12,
            Self::Http => 13,
            Self::Auth => 14,
            Self::Pairing => 15,
            Self::Scope => 16,
            Self::Protocol => 17,
            Self::Ssh => 19,
            Self::Proxy => 20,
            Self::Identity => 21,
        }
    }
}

/// Exit code of a command whose deadline passed, whatever the stage.
pub const TIMEOUT_EXIT_CODE: u8 = 18;

/// Why the TCP or unix connection did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Somebody is there and nothing listens on the port.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// No route to the host or network.
    Unreachable,
    /// The far side hung up before it said anything.
    Reset,
    /// No permission, no such socket, and whatever else the system says.
    Other,
}

impl ConnectFailure {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
                Self::Reset
            }
            _ => Self::Other,
        }
    }

    /// The errno name the reference prints, where there is one.
    pub const fn errno(self) -> Option<&'static str> {
        match self {
            Self::Refused => Some("ECONNREFUSED"),
            Self::TimedOut => Some("ETIMEDOUT"),
            Self::Unreachable => Some("EHOSTUNREACH"),
            Self::Reset => Some("ECONNRESET"),
            Self::Other => None,
        }
    }
}

/// Plaintext to a place where it may not go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Gateway URL \"{url}\" uses plaintext ws:// to a non-loopback address.")]
pub struct Insecure {
    pub url: String,
    /// The public address the name led to, when one was looked up.
    pub resolved: Option<IpAddr>,
}

/// A device that has to be approved first.
#[derive(Clone, Debug)]
pub struct PairingRequired {
    /// What the owner approves; absent when the gateway keeps it to itself.
    pub request_id: Option<String>,
    /// `not-paired`, `role-upgrade`, `scope-upgrade` or `metadata-upgrade`.
    pub reason: Option<String>,
    pub error: ErrorShape,
}

/// Why one path failed.
#[derive(Debug)]
pub struct PathFailure {
    /// As [`crate::path::GatewayPath::label`] calls it.
    pub path: String,
    pub error: Error,
}

/// Why every path of a connection that was tried failed. Never empty.
#[derive(Debug)]
pub struct PathFailures {
    pub name: Option<ConnectionName>,
    pub failures: Vec<PathFailure>,
}

impl PathFailures {
    /// `failures` in the order of the paths; without any, a connection that has no path.
    pub(crate) fn new(name: Option<ConnectionName>, mut failures: Vec<PathFailure>) -> Self {
        if failures.is_empty() {
            let reason = "there is no path to it".to_owned();
            failures.push(PathFailure { path: String::new(), error: Error::NotAGateway { reason } });
        }
        Self { name, failures }
    }

    /// The one that tells most: of the path that got furthest, and the better path among equals.
    pub fn leading(&self) -> &Error {
        // `max_by_key` takes the last of equals.
        let furthest = self.failures.iter().rev().max_by_key(|failure| failure.error.tells());
        // The constructor sees to it that there is one.
        &furthest.unwrap_or(&self.failures[0]).error
    }
}

impl fmt::Display for PathFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (leading, count) = (self.leading(), self.failures.len());
        match &self.name {
            _ if leading.reached_gateway() || matches!(leading, Error::WrongGateway { .. }) => leading.fmt(f),
            Some(name) if count == 1 => write!(f, "the only path to \"{name}\" does not work"),
            Some(name) => write!(f, "none of the {count} paths to \"{name}\" works"),
            None => write!(f, "none of the {count} paths works"),
        }
    }
}

/// A failure, by stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Url(#[from] UrlError),
    #[error("{0}")]
    Insecure(Insecure),
    #[error("a TLS fingerprint is configured, but {url} is not a wss:// URL")]
    PinWithoutTls { url: String },
    /// The credential rules gave nothing that may be sent.
    #[error("{0}")]
    Credentials(Box<openclaw_config::credentials::CredentialError>),
    /// This machine's device identity cannot be read or written.
    #[error("the device identity cannot be used: {0}")]
    Identity(String),
    /// ssh did not bring the tunnel up, or lost it.
    #[error("{0}")]
    Ssh(Box<crate::ssh::SshFailure>),
    /// `gateway.remote.edgeAuth` cannot be sent.
    #[error("gateway.remote.edgeAuth: {reason}")]
    EdgeAuth { reason: String },
    /// The HTTP proxy did not let the connection through.
    #[error("the proxy {proxy} does not let the connection to {target} through: {failure}")]
    Proxy {
        proxy: String,
        /// Host and port of the gateway.
        target: String,
        failure: Box<ProxyFailure>,
    },
    /// Another gateway answered than the one that was saved. Nothing was sent to it.
    #[error("{}", wrong_gateway_text(expected, shown.as_ref()))]
    WrongGateway {
        expected: openclaw_protocol::GatewayId,
        /// Who proved itself instead; `None` when no proof came.
        shown: Option<openclaw_protocol::GatewayId>,
    },
    /// No path of a connection led to its gateway, or the gateway refused at the end of one.
    #[error("{0}")]
    Paths(Box<PathFailures>),
    #[error("the name {host} could not be resolved")]
    Name { host: String, source: io::Error },
    #[error("{}", connect_text(endpoint, *failure))]
    Connect { endpoint: String, failure: ConnectFailure, source: io::Error },
    #[error("no secure connection to {url}")]
    Tls { url: String, source: TlsFailure },
    /// The upgrade was answered with an ordinary HTTP response.
    #[error("{}", http_text(*status, kind.as_deref(), message.as_deref()))]
    Http { status: u16, kind: Option<String>, message: Option<String> },
    /// Something answered that does not speak WebSocket, or closed during the upgrade.
    #[error("no WebSocket there: {reason}")]
    Upgrade { reason: String },
    /// A WebSocket that is not an OpenClaw gateway.
    #[error("{reason}")]
    NotAGateway { reason: String },
    /// The two sides share no protocol version, or the gateway refused the request's form.
    #[error("{}", message)]
    Protocol { message: String, expected: Option<u32> },
    /// The gateway refused the credentials or the device proof.
    #[error("{}", .0.message)]
    Auth(Box<ErrorShape>),
    #[error("{}", .0.error.message)]
    Pairing(Box<PairingRequired>),
    /// Connected, but without the right to do this.
    #[error("missing scope: {missing}")]
    Scope { missing: String, error: Option<Box<ErrorShape>> },
    /// The gateway is up and not ready: starting, draining, busy or limiting.
    #[error("{}", .0.message)]
    Unavailable(Box<ErrorShape>),
    /// A method answered with an error.
    #[error("{}", .0.message)]
    Refused(Box<ErrorShape>),
    /// The connection was lost before the answer came, and asking again might do it twice.
    #[error("the connection was lost before {method} was answered; whether it was done is not known")]
    OutcomeUnknown { method: String },
    #[error("{}", timeout_text(*stage, *after))]
    Timeout { stage: Stage, after: Duration },
    /// The connection ended.
    #[error("{}", close_text(*code, reason))]
    Closed { stage: Stage, code: Option<u16>, reason: String },
}

impl Error {
    pub(crate) fn name(host: &str, source: io::Error) -> Self {
        Self::Name { host: host.to_owned(), source }
    }

    pub(crate) fn connect(endpoint: String, source: io::Error) -> Self {
        Self::Connect { endpoint, failure: ConnectFailure::of(&source), source }
    }

    /// The stage that failed.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Paths(failures) => failures.leading().stage(),
            Self::Url(_)
            | Self::Insecure(_)
            | Self::PinWithoutTls { .. }
            | Self::EdgeAuth { .. }
            | Self::Credentials(_)
            | Self::Identity(_) => Stage::Target,
            Self::Ssh(_) => Stage::Ssh,
            Self::Proxy { .. } => Stage::Proxy,
            Self::WrongGateway { .. } => Stage::Identity,
            Self::Name { .. } => Stage::Name,
            Self::Connect { .. } => Stage::Connect,
            Self::Tls { .. } => Stage::Tls,
            Self::Http { .. } | Self::Upgrade { .. } => Stage::Http,
            Self::NotAGateway { .. } | Self::Protocol { .. } => Stage::Protocol,
            Self::Auth(_) => Stage::Auth,
            Self::Pairing(_) => Stage::Pairing,
            Self::Scope { .. } => Stage::Scope,
            Self::Unavailable(_) | Self::Refused(_) | Self::OutcomeUnknown { .. } => Stage::Call,
            Self::Timeout { stage, .. } | Self::Closed { stage, .. } => *stage,
        }
    }

    /// Exit code of the command that failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Paths(failures) => failures.leading().exit_code(),
            Self::Timeout { .. } => TIMEOUT_EXIT_CODE,
            other => other.stage().exit_code(),
        }
    }

    /// True when only a person can settle it: trying again, even over another network, gives the same answer.
    pub fn is_settled_by_person(&self) -> bool {
        match self {
            Self::Paths(failures) => failures.failures.iter().all(|failure| failure.error.is_settled_by_person()),
            Self::Auth(shape) => shape.detail_code() != Some("AUTH_RATE_LIMITED"),
            Self::Ssh(failure) => failure.is_fatal(),
            Self::Tls { source: TlsFailure::Pin(_), .. }
            | Self::Pairing(_)
            | Self::Scope { .. }
            | Self::Url(_)
            | Self::Insecure(_)
            | Self::PinWithoutTls { .. }
            | Self::Credentials(_)
            | Self::Identity(_)
            | Self::Protocol { .. } => true,
            _ => false,
        }
    }

    /// How much a failure tells about what to do next: the further a path got, the more; and of ssh's failures those that
    /// only the person can settle before those of the network.
    fn tells(&self) -> u8 {
        match self {
            Self::WrongGateway { .. } => 100,
            _ if self.reached_gateway() => 99,
            Self::Ssh(failure) if failure.kind == crate::ssh::SshFailureKind::GatewayDown => 75,
            Self::Ssh(failure) => {
                if failure.is_fatal() {
                    65
                } else {
                    35
                }
            }
            Self::Tls { source: TlsFailure::Pin(_), .. } => 80,
            Self::NotAGateway { .. } | Self::Protocol { .. } => 70,
            Self::Http { .. } | Self::Upgrade { .. } => 60,
            Self::Tls { .. } => 50,
            Self::Proxy { .. } => 40,
            Self::Connect { failure: ConnectFailure::Refused | ConnectFailure::Reset, .. } => 30,
            Self::Closed { .. } => 25,
            Self::Connect { .. } | Self::Timeout { .. } => 20,
            Self::Name { .. } => 10,
            _ => 5,
        }
    }

    /// One word for JSON output: what went wrong within the stage.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Paths(failures) => failures.leading().kind(),
            Self::Url(_) => "url",
            Self::Insecure(_) => "plaintext_refused",
            Self::PinWithoutTls { .. } => "pin_without_tls",
            Self::EdgeAuth { .. } => "edge_auth",
            Self::Credentials(_) => "credentials",
            Self::Identity(_) => "identity",
            Self::Ssh(failure) => failure.code(),
            Self::Proxy { .. } => "proxy",
            Self::WrongGateway { .. } => "wrong_gateway",
            Self::Name { .. } => "name",
            Self::Connect { failure, .. } => match failure {
                ConnectFailure::Refused => "refused",
                ConnectFailure::TimedOut => "timeout",
                ConnectFailure::Unreachable => "unreachable",
                ConnectFailure::Reset => "reset",
                ConnectFailure::Other => "connect",
            },
            Self::Tls { source: TlsFailure::Pin(_), .. } => "pin_mismatch",
            Self::Tls { source: TlsFailure::Untrusted(_), .. } => "untrusted",
            Self::Tls { .. } => "tls",
            Self::Http { .. } => "http",
            Self::Upgrade { .. } => "upgrade",
            Self::NotAGateway { .. } => "not_a_gateway",
            Self::Protocol { .. } => "protocol",
            Self::Auth(_) => "auth",
            Self::Pairing(_) => "pairing",
            Self::Scope { .. } => "scope",
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "method",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Timeout { .. } => "timeout",
            Self::Closed { .. } => "closed",
        }
    }

    /// `details.code` of the gateway's answer, where it gave one.
    pub fn detail_code(&self) -> Option<&str> {
        self.shape()?.detail_code()
    }

    /// The gateway's own words, where it answered.
    pub fn shape(&self) -> Option<&ErrorShape> {
        match self {
            Self::Auth(shape) | Self::Unavailable(shape) | Self::Refused(shape) => Some(shape),
            Self::Pairing(pairing) => Some(&pairing.error),
            Self::Scope { error, .. } => error.as_deref(),
            Self::Paths(failures) => failures.leading().shape(),
            _ => None,
        }
    }

    /// The error itself, or that of the path which got furthest.
    pub fn leading(&self) -> &Self {
        match self {
            Self::Paths(failures) => failures.leading(),
            other => other,
        }
    }

    /// True when something answered as a gateway does, whatever it answered.
    pub fn reached_gateway(&self) -> bool {
        let error = self.leading();
        matches!(error, Self::Auth(_) | Self::Pairing(_) | Self::Scope { .. } | Self::Unavailable(_) | Self::Refused(_))
            || matches!(error, Self::Protocol { expected: Some(_), .. })
    }

    /// Sorts a refused `connect` into its stage.
    pub(crate) fn of_connect(shape: ErrorShape) -> Self {
        let code = shape.detail_code().unwrap_or_default();
        let text = |key: &str| shape.details.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let number = |key: &str| shape.details.as_ref()?.get(key).and_then(Value::as_u64);
        match code {
            "PAIRING_REQUIRED" => Self::Pairing(Box::new(PairingRequired {
                request_id: text("requestId"),
                reason: text("reason"),
                error: shape,
            })),
            "AUTH_SCOPE_MISMATCH" => Self::Scope {
                missing: "the device token was issued for fewer scopes".into(),
                error: Some(Box::new(shape)),
            },
            "MISSING_SCOPE" => Self::of_call(shape),
            _ if shape.code == ErrorCode::Unavailable => Self::Unavailable(Box::new(shape)),
            // v3 gives `expectedProtocol` and no code.
            _ if code == "PROTOCOL_MISMATCH" || shape.message.contains("protocol mismatch") => Self::Protocol {
                expected: number("expectedProtocol").and_then(|version| u32::try_from(version).ok()),
                message: shape.message,
            },
            _ if code.starts_with("AUTH_")
                || code.starts_with("DEVICE_")
                || code.starts_with("CONTROL_UI_")
                || shape.code == ErrorCode::NotPaired
                || shape.code == ErrorCode::Forbidden
                || shape.message.starts_with("unauthorized") =>
            {
                Self::Auth(Box::new(shape))
            }
            _ => Self::Protocol { message: shape.message, expected: None },
        }
    }

    /// Sorts the error answer of a method. v3 reports a missing scope as `INVALID_REQUEST` without details.
    pub(crate) fn of_call(shape: ErrorShape) -> Self {
        if let Some(missing) = shape.message.strip_prefix("missing scope: ") {
            return Self::Scope { missing: missing.to_owned(), error: Some(Box::new(shape)) };
        }
        match shape.code {
            ErrorCode::Unavailable => Self::Unavailable(Box::new(shape)),
            _ => Self::Refused(Box::new(shape)),
        }
    }
}

fn connect_text(endpoint: &str, failure: ConnectFailure) -> String {
    match failure.errno() {
        Some(errno) => format!("Gateway not reachable at {endpoint} ({errno})."),
        None => format!("Gateway not reachable at {endpoint}."),
    }
}

fn wrong_gateway_text(expected: &openclaw_protocol::GatewayId, shown: Option<&openclaw_protocol::GatewayId>) -> String {
    match shown {
        Some(shown) => format!("another gateway answered: {} instead of {}", shown.short(), expected.short()),
        None => format!("whoever answered did not prove to be the saved gateway {}", expected.short()),
    }
}

fn http_text(status: u16, kind: Option<&str>, message: Option<&str>) -> String {
    match (message, kind) {
        (Some(message), _) => format!("the upgrade was refused with HTTP {status}: {message}"),
        (None, Some(kind)) => format!("the upgrade was refused with HTTP {status} ({kind})"),
        (None, None) => format!("the upgrade was refused with HTTP {status}"),
    }
}

fn timeout_text(stage: Stage, after: Duration) -> String {
    let what = match stage {
        Stage::Target | Stage::Name => "the name look-up took longer than",
        Stage::Ssh => "ssh did not open the tunnel within",
        Stage::Proxy => "the proxy did not answer within",
        Stage::Connect => "nobody answered within",
        Stage::Tls => "the TLS handshake took longer than",
        Stage::Http => "the WebSocket upgrade took longer than",
        Stage::Protocol | Stage::Identity => "no challenge came within",
        Stage::Auth | Stage::Pairing | Stage::Scope => "the gateway did not answer the connect request within",
        Stage::Call => "the gateway did not answer within",
    };
    format!("{what} {} ms", after.as_millis())
}

fn close_text(code: Option<u16>, reason: &str) -> String {
    match (code, reason) {
        (Some(code), "") => format!("the gateway closed the connection ({code})"),
        (Some(code), reason) => format!("the gateway closed the connection ({code}: {reason})"),
        (None, _) => "the connection to the gateway was lost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Error answers as captured from 2026.9.6 and 2026.2.26 (protocol/captures/handshake-errors, v3-handshake-errors).
    #[test]
    fn stage_of_each_refusal() {
        let check = |code: &str, message: &str, details: Value, stage: Stage, exit: u8| {
            let shape: ErrorShape =
                serde_json::from_value(json!({"code": code, "message": message, "details": details})).expect("shape");
            let error = Error::of_connect(shape);
            assert_eq!((error.stage(), error.exit_code()), (stage, exit), "{message}");
        };
        let coded = |code: &str| json!({ "code": code });
        for (code, message, details, stage, exit) in [
            (
                "INVALID_REQUEST",
                "unauthorized: gateway token mismatch (x)",
                coded("AUTH_TOKEN_MISMATCH"),
                Stage::Auth,
                14,
            ),
            (
                "INVALID_REQUEST",
                "unauthorized: gateway token missing (x)",
                coded("AUTH_TOKEN_MISSING"),
                Stage::Auth,
                14,
            ),
            ("NOT_PAIRED", "device identity required", coded("DEVICE_IDENTITY_REQUIRED"), Stage::Auth, 14),
            ("INVALID_REQUEST", "device nonce mismatch", coded("DEVICE_AUTH_NONCE_MISMATCH"), Stage::Auth, 14),
            ("INVALID_REQUEST", "device signature invalid", coded("DEVICE_AUTH_INVALID"), Stage::Auth, 14),
            (
                "NOT_PAIRED",
                "pairing required: device is not approved yet",
                coded("PAIRING_REQUIRED"),
                Stage::Pairing,
                15,
            ),
            ("NOT_PAIRED", "pairing required", coded("PAIRING_REQUIRED"), Stage::Pairing, 15),
            (
                "INVALID_REQUEST",
                "unauthorized: device token scope mismatch (x)",
                coded("AUTH_SCOPE_MISMATCH"),
                Stage::Scope,
                16,
            ),
            ("INVALID_REQUEST", "protocol mismatch", json!({"expectedProtocol": 3}), Stage::Protocol, 17),
            ("INVALID_REQUEST", "protocol mismatch", coded("PROTOCOL_MISMATCH"), Stage::Protocol, 17),
            ("INVALID_REQUEST", "invalid connect params: at /x: must be string", json!(null), Stage::Protocol, 17),
            (
                "INVALID_REQUEST",
                "unauthorized: too many failed authentication attempts (retry later)",
                coded("AUTH_RATE_LIMITED"),
                Stage::Auth,
                14,
            ),
            ("UNAVAILABLE", "gateway starting; retry shortly", json!({"reason": "startup-sidecars"}), Stage::Call, 1),
        ] {
            check(code, message, details, stage, exit);
        }
    }

    #[test]
    fn missing_scope_of_both_versions() {
        for shape in [
            json!({"code":"FORBIDDEN","message":"missing scope: operator.read","details":{"code":"MISSING_SCOPE",
                "missingScope":"operator.read","requiredScopes":["operator.read"]}}),
            json!({"code":"INVALID_REQUEST","message":"missing scope: operator.read"}),
        ] {
            let error = Error::of_call(serde_json::from_value(shape).expect("shape"));
            assert!(matches!(&error, Error::Scope { missing, .. } if missing == "operator.read"), "{error:?}");
            assert_eq!(error.exit_code(), 16);
        }
    }
}
