//! The admission decision: a pure function of policy, evidence, verified proofs and the device record. Nothing else in the
//! gateway may branch on a raw credential field or on an address to grant something.
//!
//! ```text
//! owner socket ───────────────────────────────► admit what is asked
//! no device ── node ──────────────────────────► refuse: device identity required
//!           ├─ browser ───────────────────────► refuse, unless allowInsecureAuth and a proven secret
//!           ├─ no / wrong secret ─────────────► refuse
//!           └─ proven secret ── direct local ─► admit what is asked
//!                            └─ elsewhere ────► admit with no scopes
//! device ──── one-time token ─────────────────► admit, and redeem it; refuse when it does not hold
//!         ├── nothing proven ─────────────────► refuse, naming the credential that failed
//!         └── proven ── record covers it ─────► admit
//!                    ├─ silent pairing allowed► approve, then admit
//!                    └─ otherwise ────────────► pending request
//! ```
//!
//! The client id a caller gives itself changes wording, never the outcome.

use openclaw_protocol::{
    CloseReason, DeviceId, ErrorCode, ErrorShape, Protocol, PublicKey, Role, Scope, ScopeSet,
    connect::ConnectParams,
    device::ProofError,
    error::{Machine, Refusal, Remediation},
    hello::AuthMethod,
};
use serde_json::{Value, json};

use super::{
    evidence::{Evidence, Peer},
    hosts::Names,
};

/// How this gateway authenticates; built from settings at start and at each reload.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: Mode,
    /// `gateway.nodes.pairing.autoApproveLocal`
    pub auto_approve_local: bool,
    /// `gateway.controlUi.allowInsecureAuth`
    pub allow_insecure_auth: bool,
    pub names: Names,
}

/// The shared secret in force.
#[derive(Clone, Debug)]
pub enum Mode {
    None,
    Token(openclaw_protocol::Secret),
    Password(openclaw_protocol::Secret),
}

impl Mode {
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Password(_) => "password",
        }
    }
}

/// What became of the shared secret, after the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedSecret {
    /// The gateway asks for none.
    NotNeeded,
    NotGiven,
    Wrong,
    Proven,
}

/// What became of the device token, after the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceToken {
    NotGiven,
    Wrong,
    /// Right token, but the scopes asked for are beyond it.
    ScopeMismatch,
    Proven,
}

/// What became of the one-time token, after the limiter. It is redeemed only once everything else is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    NotGiven,
    Wrong,
    /// Right token, but the role or the scopes asked for are beyond it.
    Beyond,
    Proven,
}

/// Why a person has to consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairReason {
    NotPaired,
    RoleUpgrade,
    ScopeUpgrade,
    MetadataUpgrade,
}

impl PairReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPaired => "not-paired",
            Self::RoleUpgrade => "role-upgrade",
            Self::ScopeUpgrade => "scope-upgrade",
            Self::MetadataUpgrade => "metadata-upgrade",
        }
    }

    const fn requirement(self) -> &'static str {
        match self {
            Self::NotPaired => "device is not approved yet",
            Self::RoleUpgrade => "device is asking for a higher role than currently approved",
            Self::ScopeUpgrade => "device is asking for more scopes than currently approved",
            Self::MetadataUpgrade => "device identity changed and must be re-approved",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::NotPaired => "Approve the pending request on the gateway host.",
            Self::RoleUpgrade | Self::ScopeUpgrade => "Review the requested rights, then approve the pending request.",
            Self::MetadataUpgrade => "Review the changed device details, then approve the pending request.",
        }
    }
}

/// The paired record of a device, reduced to what the decision needs.
#[derive(Clone, Debug)]
pub struct Record {
    pub roles: Vec<Role>,
    pub approved_scopes: ScopeSet,
    pub platform: Option<String>,
    pub device_family: Option<String>,
}

/// Everything known about a caller when the decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub evidence: &'a Evidence,
    pub params: &'a ConnectParams,
    pub protocol: Protocol,
    pub role: Role,
    pub requested: ScopeSet,
    pub secret: SharedSecret,
    pub device: Option<&'a (DeviceId, PublicKey)>,
    pub device_token: DeviceToken,
    pub bootstrap: Bootstrap,
    pub record: Option<&'a Record>,
}

/// The outcome.
#[derive(Debug)]
pub enum Decision {
    Admit(Admission),
    /// Create (or find) the pending request, then refuse with its id.
    Ask(PairReason),
    Refuse(Box<Refusal>),
}

/// What an admitted caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub method: AuthMethod,
    pub scopes: ScopeSet,
    /// Approve this pairing before saying hello: silently, or with [`AuthMethod::BootstrapToken`] by redeeming the token,
    /// which is used up also when nothing had to be approved.
    pub approve: Option<PairReason>,
}

/// See the module documentation.
pub fn decide(policy: &Policy, facts: &Facts<'_>) -> Decision {
    if facts.evidence.peer == Peer::Owner && facts.device.is_none() && facts.role == Role::Operator {
        return admit(AuthMethod::Owner, facts.requested, None);
    }
    match facts.device {
        None => without_device(policy, facts),
        Some(_) => with_device(policy, facts),
    }
}

fn without_device(policy: &Policy, facts: &Facts<'_>) -> Decision {
    if facts.role == Role::Node {
        return refuse(device_identity_required());
    }
    let method = match facts.secret {
        SharedSecret::Wrong => return refuse(secret_refusal(policy, facts)),
        SharedSecret::NotGiven => return refuse(device_identity_required()),
        SharedSecret::Proven => shared_method(policy),
        SharedSecret::NotNeeded => AuthMethod::None,
    };
    let browser = facts.params.client.is_browser_ui() || facts.evidence.origin != super::evidence::Origin::Absent;
    if browser {
        if policy.allow_insecure_auth {
            return admit(method, facts.requested, None);
        }
        return refuse(Refusal::policy(
            ErrorShape::invalid("control ui requires device identity (use HTTPS or localhost secure context)")
                .detail("code", "CONTROL_UI_DEVICE_IDENTITY_REQUIRED")
                .detail("remediation", remedy("ssh -N -L 18789:127.0.0.1:18789 user@host", Machine::ThisClient)),
        ));
    }
    let scopes = if facts.evidence.direct_local() { facts.requested } else { ScopeSet::EMPTY };
    admit(method, scopes, None)
}

fn with_device(policy: &Policy, facts: &Facts<'_>) -> Decision {
    let owner = facts.evidence.peer == Peer::Owner;
    match facts.bootstrap {
        Bootstrap::NotGiven => {}
        Bootstrap::Wrong => return refuse(bootstrap_refusal(facts.protocol)),
        Bootstrap::Beyond => return refuse(bootstrap_beyond(facts.protocol)),
        // Consent was given when the token was made, for whatever device brings it.
        Bootstrap::Proven => return admit(AuthMethod::BootstrapToken, facts.requested, pairing_needed(facts)),
    }
    let shared = owner || matches!(facts.secret, SharedSecret::Proven | SharedSecret::NotNeeded);
    let method = match (shared, facts.device_token) {
        (true, _) if owner => AuthMethod::Owner,
        (true, _) => shared_method(policy),
        (false, DeviceToken::Proven) => AuthMethod::DeviceToken,
        (false, DeviceToken::ScopeMismatch) => return refuse(scope_mismatch(facts.protocol)),
        (false, DeviceToken::NotGiven | DeviceToken::Wrong) => return refuse(secret_refusal(policy, facts)),
    };
    let Some(reason) = pairing_needed(facts) else {
        return admit(method, facts.requested, None);
    };
    // Consent may be taken as given only from a direct local caller that proved the owner's secret. A browser never is
    // one: whatever a stripping proxy makes it look like, it sends an Origin.
    let consented = shared && policy.auto_approve_local && facts.evidence.direct_local();
    let silent = match reason {
        PairReason::NotPaired | PairReason::ScopeUpgrade => consented,
        PairReason::RoleUpgrade => consented && facts.role == Role::Operator,
        PairReason::MetadataUpgrade => false,
    };
    if silent { admit(method, facts.requested, Some(reason)) } else { Decision::Ask(reason) }
}

fn pairing_needed(facts: &Facts<'_>) -> Option<PairReason> {
    let Some(record) = facts.record else { return Some(PairReason::NotPaired) };
    if !record.roles.contains(&facts.role) {
        return Some(PairReason::RoleUpgrade);
    }
    let client = &facts.params.client;
    let changed = |pinned: &Option<String>, claimed: Option<&str>| match (pinned.as_deref(), claimed) {
        (Some(pinned), Some(claimed)) => platform_name(pinned) != platform_name(claimed),
        // Protocol 3 clients do not send a device family; leaving it out claims nothing.
        _ => false,
    };
    if changed(&record.platform, Some(&client.platform))
        || changed(&record.device_family, client.device_family.as_deref())
    {
        return Some(PairReason::MetadataUpgrade);
    }
    (!record.approved_scopes.covers(facts.requested)).then_some(PairReason::ScopeUpgrade)
}

/// The reference node falls back to protocol 3 with other spellings of the same platform.
fn platform_name(text: &str) -> String {
    match text.trim().to_ascii_lowercase().as_str() {
        "darwin" => "macos".into(),
        "win32" => "windows".into(),
        other => other.to_owned(),
    }
}

fn shared_method(policy: &Policy) -> AuthMethod {
    match policy.mode {
        Mode::None => AuthMethod::None,
        Mode::Token(_) => AuthMethod::Token,
        Mode::Password(_) => AuthMethod::Password,
    }
}

fn admit(method: AuthMethod, scopes: ScopeSet, approve: Option<PairReason>) -> Decision {
    Decision::Admit(Admission { method, scopes, approve })
}

fn refuse(refusal: Refusal) -> Decision {
    Decision::Refuse(Box::new(refusal))
}

fn remedy(command: &str, run_on: Machine) -> Value {
    Remediation { command: command.to_owned(), run_on }.into()
}

/// What a caller without device and without a usable secret is told.
pub fn device_identity_required() -> Refusal {
    Refusal::policy(
        ErrorShape::new(ErrorCode::NotPaired, "device identity required")
            .detail("code", "DEVICE_IDENTITY_REQUIRED")
            .detail("remediation", remedy("openclaw doctor --why", Machine::ThisClient)),
    )
}

/// The credential that was given and failed, or the one that is missing.
fn secret_refusal(policy: &Policy, facts: &Facts<'_>) -> Refusal {
    let auth = &facts.params.auth;
    let given_wrong = facts.secret == SharedSecret::Wrong;
    if facts.device_token == DeviceToken::Wrong && (auth.device_token.is_some() || !given_wrong) {
        return auth_refusal(
            facts,
            "AUTH_DEVICE_TOKEN_MISMATCH",
            "device_token_mismatch",
            "unauthorized: device token mismatch (rotate/reissue device token)".into(),
            "update_auth_credentials",
        );
    }
    let password = matches!(policy.mode, Mode::Password(_));
    let hint = hint(password, facts);
    let (word, code, reason) = match (password, given_wrong) {
        (false, true) => ("mismatch", "AUTH_TOKEN_MISMATCH", "token_mismatch"),
        (false, false) => ("missing", "AUTH_TOKEN_MISSING", "token_missing"),
        (true, true) => ("mismatch", "AUTH_PASSWORD_MISMATCH", "password_mismatch"),
        (true, false) => ("missing", "AUTH_PASSWORD_MISSING", "password_missing"),
    };
    let secret = if password { "password" } else { "token" };
    // "invalid token" and "invalid password" are the words of the seeds (C-20); the rest is the release's.
    let invalid = if given_wrong { format!("; invalid {secret}") } else { String::new() };
    let message = format!("unauthorized: gateway {secret} {word} ({hint}{invalid})");
    let can_retry = given_wrong && !password && facts.device.is_some() && auth.device_token.is_none();
    let next = match (given_wrong, can_retry) {
        (false, _) => "update_auth_configuration",
        (true, true) => "retry_with_device_token",
        (true, false) => "update_auth_credentials",
    };
    auth_refusal(facts, code, reason, message, next)
}

fn auth_refusal(facts: &Facts<'_>, code: &str, reason: &str, message: String, next: &str) -> Refusal {
    let mut error = ErrorShape::invalid(message).detail("code", code).detail("authReason", reason);
    if facts.protocol == Protocol::V4 {
        error = error
            .detail("canRetryWithDeviceToken", next == "retry_with_device_token")
            .detail("recommendedNextStep", next);
    }
    Refusal::policy(error.detail("remediation", remedy("openclaw doctor --why", Machine::ThisClient)))
}

fn hint(password: bool, facts: &Facts<'_>) -> &'static str {
    let cli = facts.params.client.mode == "cli";
    let local = facts.evidence.direct_local() && facts.protocol == Protocol::V4;
    match (password, facts.params.client.is_browser_ui(), cli, local) {
        (false, true, ..) => "paste the gateway token in Control UI settings",
        (true, true, ..) => "enter the password in Control UI settings",
        (false, _, true, true) => "use this gateway's gateway.auth.token or pair the device",
        (true, _, true, true) => "use this gateway's gateway.auth.password",
        (false, _, true, false) => "set gateway.remote.token to match gateway.auth.token",
        (true, _, true, false) => "set gateway.remote.password to match gateway.auth.password",
        (false, _, false, _) => "provide gateway auth token",
        (true, _, false, _) => "provide gateway auth password",
    }
}

fn scope_mismatch(protocol: Protocol) -> Refusal {
    let error = match protocol {
        Protocol::V4 => {
            ErrorShape::invalid("unauthorized: device token scope mismatch (re-pair or approve scope upgrade)")
                .with_details(json!({
                    "code": "AUTH_SCOPE_MISMATCH", "authReason": "scope_mismatch", "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "review_auth_configuration",
                }))
        }
        Protocol::V3 => ErrorShape::invalid("unauthorized: device token mismatch (rotate/reissue device token)")
            .with_details(json!({"code": "AUTH_DEVICE_TOKEN_MISMATCH", "authReason": "device_token_mismatch"})),
    };
    Refusal::policy(error.detail("remediation", remedy("openclaw devices list", Machine::GatewayHost)))
}

/// A refused setup code. The same words whether it never existed, was used, or has expired.
pub fn bootstrap_refusal(protocol: Protocol) -> Refusal {
    let mut error = ErrorShape::invalid(
        "unauthorized: setup code invalid, expired, revoked, or already used (create a new code; review `openclaw devices \
         list`)",
    )
    .detail("code", "AUTH_BOOTSTRAP_TOKEN_INVALID")
    .detail("authReason", "bootstrap_token_invalid");
    if protocol == Protocol::V4 {
        error =
            error.detail("canRetryWithDeviceToken", false).detail("recommendedNextStep", "review_auth_configuration");
    }
    Refusal::policy(error.detail("remediation", remedy("openclaw devices invite", Machine::GatewayHost)))
}

/// A setup code that holds and grants less than was asked for. It is not used up.
fn bootstrap_beyond(protocol: Protocol) -> Refusal {
    let mut error = ErrorShape::invalid(
        "unauthorized: setup code was made for another role or for fewer scopes (it is still unused)",
    )
    .detail("code", "AUTH_SCOPE_MISMATCH")
    .detail("authReason", "scope_mismatch");
    if protocol == Protocol::V4 {
        error =
            error.detail("canRetryWithDeviceToken", false).detail("recommendedNextStep", "review_auth_configuration");
    }
    Refusal::policy(error.detail("remediation", remedy("openclaw devices invite --admin", Machine::GatewayHost)))
}

/// Too many guesses.
pub fn rate_limited(retry_after_ms: u64) -> Refusal {
    let mut error = ErrorShape::invalid("unauthorized: too many failed authentication attempts (retry later)")
        .with_details(json!({
            "code": "AUTH_RATE_LIMITED", "authReason": "rate_limited", "canRetryWithDeviceToken": false,
            "recommendedNextStep": "wait_then_retry",
        }));
    error.retryable = Some(true);
    error.retry_after_ms = Some(retry_after_ms);
    Refusal::policy(error)
}

/// An `Origin` that is not ours. The origin seen is the caller's own word, so naming it tells nothing new.
pub fn origin_refused(reason: &str, evidence: &Evidence) -> Refusal {
    let mut error = ErrorShape::invalid(
        "origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)",
    )
    .detail("code", "CONTROL_UI_ORIGIN_NOT_ALLOWED")
    .detail("reason", reason);
    if let super::evidence::Origin::Given(origin) = &evidence.origin {
        let command = format!("openclaw config set gateway.controlUi.allowedOrigins '[\"{origin}\"]'");
        error = error.detail("remediation", remedy(&command, Machine::GatewayHost));
    }
    Refusal::policy(error)
}

/// A device block that is no proof.
pub fn proof_refused(problem: ProofError, protocol: Protocol) -> Refusal {
    let (message, code, reason) = match problem {
        ProofError::IdMismatch => ("device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch"),
        ProofError::Stale => ("device signature expired", "DEVICE_AUTH_SIGNATURE_EXPIRED", "device-signature-stale"),
        ProofError::NonceMissing => ("device nonce required", "DEVICE_AUTH_NONCE_REQUIRED", "device-nonce-missing"),
        ProofError::NonceMismatch => ("device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH", "device-nonce-mismatch"),
        ProofError::BadSignature => ("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature"),
    };
    let code = if protocol == Protocol::V3 { "DEVICE_AUTH_INVALID" } else { code };
    let mut error = ErrorShape::invalid(message).detail("code", code).detail("reason", reason);
    if problem == ProofError::Stale {
        error = error.detail("remediation", remedy("timedatectl set-ntp true", Machine::ThisClient));
    }
    Refusal::policy(error)
}

/// A version range that misses 3 and 4. The numeric `expectedProtocol` lets a reference node step down by itself.
pub fn protocol_mismatch(min: u32, max: u32) -> Refusal {
    let error = ErrorShape::invalid("protocol mismatch").with_details(json!({
        "code": "PROTOCOL_MISMATCH", "clientMinProtocol": min, "clientMaxProtocol": max,
        "expectedProtocol": Protocol::MAX.number(), "minimumProtocol": Protocol::MIN.number(),
        "minimumProbeProtocol": Protocol::MIN.number(),
        "remediation": Remediation { command: "openclaw --version".into(), run_on: Machine::ThisClient },
    }));
    Refusal { error, close: CloseReason::PROTOCOL_MISMATCH }
}

/// What a device is told while its request waits for consent.
pub struct PairingNotice<'a> {
    pub reason: PairReason,
    pub request_id: Option<&'a str>,
    pub device_id: &'a DeviceId,
    pub role: Role,
    pub requested_scopes: &'a [String],
    /// Shown only when the stored key equals the presented one.
    pub approved: Option<&'a Record>,
    pub protocol: Protocol,
}

/// `NOT_PAIRED` / `PAIRING_REQUIRED`.
pub fn pairing_required(notice: &PairingNotice<'_>) -> Refusal {
    let id = notice.request_id;
    let command = id.map_or_else(|| "openclaw devices list".to_owned(), |id| format!("openclaw devices approve {id}"));
    let remediation = remedy(&command, Machine::GatewayHost);
    if notice.protocol == Protocol::V3 {
        let mut error = ErrorShape::new(ErrorCode::NotPaired, "pairing required").detail("code", "PAIRING_REQUIRED");
        if let Some(id) = id {
            error = error.detail("requestId", id);
        }
        let error = error.detail("reason", notice.reason.as_str()).detail("remediation", remediation);
        return Refusal { close: CloseReason::policy("pairing required"), error };
    }
    let message = format!("pairing required: {}", notice.reason.requirement());
    let close = id.map_or_else(|| message.clone(), |id| format!("{message} (requestId: {id})"));
    let mut error = ErrorShape::new(ErrorCode::NotPaired, message)
        .detail("code", "PAIRING_REQUIRED")
        .detail("reason", notice.reason.as_str());
    if let Some(id) = id {
        error = error.detail("requestId", id);
    }
    error = error
        .detail("remediationHint", notice.reason.hint())
        .detail("deviceId", notice.device_id.as_str())
        .detail("requestedRole", notice.role.as_str());
    if !notice.requested_scopes.is_empty() {
        error = error.detail("requestedScopes", json!(notice.requested_scopes));
    }
    if let Some(record) = notice.approved {
        let roles: Vec<_> = record.roles.iter().map(|role| role.as_str()).collect();
        error =
            error.detail("approvedRoles", json!(roles)).detail("approvedScopes", json!(record.approved_scopes.names()));
    }
    Refusal { error: error.detail("remediation", remediation), close: CloseReason::policy(close) }
}

/// Whether the wish for this event stream or list includes admin: used for snapshots that only admins see.
pub fn sees_paths(scopes: ScopeSet) -> bool {
    scopes.grants(Scope::Admin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_protocol::{DeviceKey, Secret, connect::CLIENT_IDS};

    fn policy() -> Policy {
        Policy {
            mode: Mode::Token(Secret::new("right")),
            auto_approve_local: true,
            allow_insecure_auth: false,
            names: Names::default(),
        }
    }

    fn evidence(peer: &str, origin: Option<&str>) -> Evidence {
        let mut headers = http::HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().expect("origin"));
        }
        let peer = if peer == "owner" { Peer::Owner } else { Peer::Tcp(peer.parse().expect("peer")) };
        Evidence::gather(peer, &headers, |_| false)
    }

    fn params(id: &str, scopes: &[&str]) -> ConnectParams {
        ConnectParams::parse(&json!({
            "minProtocol": 4, "maxProtocol": 4, "scopes": scopes,
            "client": {"id": id, "version": "1", "platform": "linux", "mode": "cli"},
        }))
        .expect("params")
    }

    struct Case {
        policy: Policy,
        evidence: Evidence,
        params: ConnectParams,
        role: Role,
        secret: SharedSecret,
        device: bool,
        token: DeviceToken,
        bootstrap: Bootstrap,
        record: Option<Record>,
    }

    impl Case {
        fn new(peer: &str, origin: Option<&str>) -> Self {
            Self {
                policy: policy(),
                evidence: evidence(peer, origin),
                params: params("cli", &["operator.admin"]),
                role: Role::Operator,
                secret: SharedSecret::Proven,
                device: false,
                token: DeviceToken::NotGiven,
                bootstrap: Bootstrap::NotGiven,
                record: None,
            }
        }

        fn decide(&self) -> String {
            let device = DeviceKey::from_seed(&[3; 32]);
            let device = (device.id(), device.public());
            let decision = decide(
                &self.policy,
                &Facts {
                    evidence: &self.evidence,
                    params: &self.params,
                    protocol: Protocol::V4,
                    role: self.role,
                    requested: ScopeSet::parse(&self.params.scopes),
                    secret: self.secret,
                    device: self.device.then_some(&device),
                    device_token: self.token,
                    bootstrap: self.bootstrap,
                    record: self.record.as_ref(),
                },
            );
            match decision {
                Decision::Admit(a) => {
                    let silent = a.approve.map_or(String::new(), |r| format!(" silent {}", r.as_str()));
                    format!("admit [{}]{silent}", a.scopes.names().join(","))
                }
                Decision::Ask(reason) => format!("ask {}", reason.as_str()),
                Decision::Refuse(r) => r.error.detail_code().unwrap_or("?").to_owned(),
            }
        }
    }

    const LOCAL: &str = "127.0.0.1:5";
    const LAN: &str = "192.168.1.9:5";
    const UI: Option<&str> = Some("http://127.0.0.1:18789");

    #[test]
    fn p_28_client_id_changes_nothing() {
        for (peer, expected) in [(LOCAL, "admit [operator.admin]"), (LAN, "admit []")] {
            for id in CLIENT_IDS {
                let mut case = Case::new(peer, None);
                case.params = params(id, &["operator.admin"]);
                let expected =
                    if case.params.client.is_browser_ui() { "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" } else { expected };
                assert_eq!(case.decide(), expected, "{id} from {peer}");
            }
        }
    }

    #[test]
    fn p_16_no_credential_is_refused_everywhere() {
        for peer in [LOCAL, LAN] {
            let mut case = Case::new(peer, None);
            case.secret = SharedSecret::NotGiven;
            assert_eq!(case.decide(), "DEVICE_IDENTITY_REQUIRED");
            case.device = true;
            assert_eq!(case.decide(), "AUTH_TOKEN_MISSING");
        }
    }

    #[test]
    fn p_93_browsers_are_never_paired_silently() {
        for peer in [LOCAL, LAN] {
            let mut case = Case::new(peer, UI);
            case.device = true;
            assert_eq!(case.decide(), "ask not-paired");
        }
        let mut cli = Case::new(LOCAL, None);
        cli.device = true;
        assert_eq!(cli.decide(), "admit [operator.admin] silent not-paired");
        cli.policy.auto_approve_local = false;
        assert_eq!(cli.decide(), "ask not-paired");
        cli.evidence = evidence(LAN, None);
        assert_eq!(cli.decide(), "ask not-paired");
    }

    #[test]
    fn upgrades_follow_the_table() {
        let record = |roles: &[Role], scopes: &[&str], platform: &str| {
            Some(Record {
                roles: roles.to_vec(),
                approved_scopes: ScopeSet::parse(scopes),
                platform: Some(platform.into()),
                device_family: None,
            })
        };
        let mut case = Case::new(LOCAL, None);
        case.device = true;
        case.record = record(&[Role::Operator], &["operator.read"], "linux");
        assert_eq!(case.decide(), "admit [operator.admin] silent scope-upgrade");
        case.secret = SharedSecret::NotGiven;
        case.token = DeviceToken::ScopeMismatch;
        assert_eq!(case.decide(), "AUTH_SCOPE_MISMATCH");
        case.token = DeviceToken::Proven;
        assert_eq!(case.decide(), "ask scope-upgrade");
        case.secret = SharedSecret::Proven;
        case.record = record(&[Role::Operator], &["operator.admin"], "ios 18");
        assert_eq!(case.decide(), "ask metadata-upgrade");
        case.record = record(&[Role::Operator], &["operator.admin"], "Linux ");
        assert_eq!(case.decide(), "admit [operator.admin]");
        case.role = Role::Node;
        case.params.scopes.clear();
        assert_eq!(case.decide(), "ask role-upgrade");
        case.role = Role::Operator;
        case.record = record(&[Role::Node], &[], "linux");
        assert_eq!(case.decide(), "admit [] silent role-upgrade");
    }

    #[test]
    fn p_44_a_one_time_token_is_consent_given_ahead() {
        for (peer, origin) in [(LOCAL, None), (LAN, None), (LAN, UI)] {
            let mut case = Case::new(peer, origin);
            (case.secret, case.device) = (SharedSecret::NotGiven, true);
            for (bootstrap, expected) in [
                (Bootstrap::Wrong, "AUTH_BOOTSTRAP_TOKEN_INVALID"),
                (Bootstrap::Beyond, "AUTH_SCOPE_MISMATCH"),
                (Bootstrap::Proven, "admit [operator.admin] silent not-paired"),
            ] {
                case.bootstrap = bootstrap;
                assert_eq!(case.decide(), expected, "{peer}");
                // A gateway without a secret does not take a wrong one for none either.
                case.secret = SharedSecret::NotNeeded;
                assert_eq!(case.decide(), expected, "{peer}");
                case.secret = SharedSecret::NotGiven;
            }
            case.device = false;
            assert_ne!(case.decide(), "admit [operator.admin]", "it is worth nothing without a device");
        }
    }

    #[test]
    fn s_192_insecure_auth_is_an_explicit_break_glass() {
        let mut case = Case::new(LAN, Some("http://192.168.1.2:18789"));
        assert_eq!(case.decide(), "CONTROL_UI_DEVICE_IDENTITY_REQUIRED");
        case.policy.allow_insecure_auth = true;
        assert_eq!(case.decide(), "admit [operator.admin]");
        case.secret = SharedSecret::Wrong;
        assert_eq!(case.decide(), "AUTH_TOKEN_MISMATCH");
    }

    #[test]
    fn owner_socket_needs_no_secret() {
        let mut case = Case::new("owner", None);
        case.secret = SharedSecret::NotGiven;
        assert_eq!(case.decide(), "admit [operator.admin]");
        case.role = Role::Node;
        assert_eq!(case.decide(), "DEVICE_IDENTITY_REQUIRED");
    }

    #[test]
    fn nodes_always_need_a_device() {
        let mut case = Case::new(LOCAL, None);
        case.role = Role::Node;
        assert_eq!(case.decide(), "DEVICE_IDENTITY_REQUIRED");
    }
}
