//! From challenge to hello: the first request is read, every claim in it is verified once, and
//! [`decide`](crate::auth::decide) says what it is worth.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use openclaw_protocol::{
    CloseReason, DeviceId, DeviceKey, ErrorShape, Protocol, PublicKey, Role, ScopeSet,
    connect::ConnectParams,
    device::verify_proof,
    error::Refusal,
    event::CONNECT_CHALLENGE,
    frame::{EventHead, FrameError, error_response, event_tail, ok_response, parse_request},
    gateway_proof::GatewayProof,
    hello::{AdminSnapshot, AuthMethod, HelloAuth, HelloOk, HelloPolicy, ServerInfo, Snapshot, scope_names},
    method::invite::ArrivalStage,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Link, Step,
    outbound::Outbound,
    ws::{self, Incoming},
};
use crate::{
    arrivals::Advance,
    auth::{
        Decision, Evidence, Peer, Policy,
        decide::{
            self, Admission, Bootstrap, DeviceToken, Facts, PairReason, PairingNotice, Record, SharedSecret, decide,
        },
        evidence::Origin,
        rate_limit::CredentialClass,
    },
    clock::now_ms,
    gateway::Gateway,
    history::Joined,
    hub::Connection,
    pairing::{
        BootstrapError, ClientMeta, Issued, IssuerGeneration, PairingRequest, TokenCheck, TokenError,
        words::{RequestDigest, three_words},
    },
    setup::Handed,
};

/// The nonce of one socket.
pub struct Challenge {
    nonce: String,
    ts: i64,
}

impl Challenge {
    pub fn new(now_ms: i64) -> Self {
        Self { nonce: uuid::Uuid::new_v4().to_string(), ts: now_ms }
    }

    /// The `connect.challenge` event, with the proof of who we are for a client that asked. Capabilities are left out: the
    /// only one known makes the Control UI send a field we would ignore.
    pub fn frame(&self, identity: &DeviceKey, asked: Option<&str>) -> Vec<u8> {
        let mut payload = json!({"nonce": self.nonce, "ts": self.ts});
        if let Some(proof) = asked.and_then(|nonce| GatewayProof::sign(identity, nonce, &self.nonce)) {
            payload["gateway"] = json!(proof);
        }
        let payload = payload.to_string();
        let mut frame = EventHead::new(CONNECT_CHALLENGE, payload.as_bytes()).bytes().to_vec();
        frame.extend_from_slice(event_tail(None, None).as_bytes());
        frame
    }
}

/// Runs the handshake. On success the hello has been put into the link's write buffer and the connection is in the hub;
/// what a one-time token led to has to be confirmed once that hello is on its way.
///
/// # Errors
/// How to close. An error response, if the peer gets one, is already in the write buffer.
pub(crate) async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Arc<Gateway>,
    link: &mut Link<S>,
    evidence: &Evidence,
    challenge: &Challenge,
) -> Result<(Arc<Connection>, Handed), CloseReason> {
    let text = first_message(link).await?;
    let (id, params) = read_connect(link, &text)?;
    let client_id = params.client.id.clone();
    let caller = Caller { gateway, evidence, challenge };
    match caller.admit(params).await {
        Ok(admitted) => {
            let hello = caller.hello(&admitted)?;
            ws::push_text(&mut link.out, &[&ok_response(&id, &hello)]);
            gateway.connected(&admitted.connection);
            Ok((admitted.connection, admitted.handed))
        }
        Err(Rejection::Silent(close)) => Err(close),
        Err(Rejection::Told(refusal)) => {
            gateway.log_refusal(&evidence.address_text(), &client_id, &refusal.error);
            ws::push_text(&mut link.out, &[&error_response(&id, &refusal.error)]);
            Err(refusal.close)
        }
    }
}

async fn first_message<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<String, CloseReason> {
    loop {
        // Frames behind the first wait here until the hello; more than a handful is not a client.
        if link.inbox.len() > openclaw_protocol::limits::PREAUTH_QUEUED_FRAMES {
            return Err(CloseReason::TOO_MANY_PENDING);
        }
        while !link.inbox.is_empty() {
            match link.inbox.remove(0) {
                Incoming::Text(text) => return Ok(text.to_string()),
                Incoming::Binary => return Err(CloseReason::INVALID_FRAME),
                Incoming::Closed => return Err(CloseReason::NORMAL),
                // Pings show life but buy no time: the deadline counts from accept.
                Incoming::Alive => {}
            }
        }
        match link.step(true).await {
            Step::Read | Step::Wrote => {}
            Step::Lost => return Err(CloseReason::NORMAL),
            Step::Broken(reason) => return Err(reason),
        }
    }
}

fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    text: &str,
) -> Result<(String, ConnectParams), CloseReason> {
    let mut refuse = |id: &str, error: ErrorShape| {
        ws::push_text(&mut link.out, &[&error_response(id, &error)]);
        CloseReason::policy(error.message)
    };
    let request = parse_request(text).map_err(|problem| match problem {
        FrameError::NotJson | FrameError::NotRequest { .. } => CloseReason::INVALID_FRAME,
    })?;
    if request.method != "connect" {
        let error = ErrorShape::invalid("invalid handshake: first request must be connect");
        return Err(refuse(&request.id, error));
    }
    let params: Value = match request.params() {
        Ok(params) => params,
        Err(error) => return Err(refuse(&request.id, error)),
    };
    match ConnectParams::parse(&params) {
        Ok(params) => Ok((request.id.into_owned(), params)),
        Err(error) => Err(refuse(&request.id, error)),
    }
}

enum Rejection {
    /// Closed without an answer, as the reference does for workers.
    Silent(CloseReason),
    Told(Box<Refusal>),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Told(Box::new(refusal))
    }
}

struct Admitted {
    connection: Arc<Connection>,
    requested: Vec<String>,
    token: Option<Issued>,
    handed: Handed,
}

struct Caller<'a> {
    gateway: &'a Arc<Gateway>,
    evidence: &'a Evidence,
    challenge: &'a Challenge,
}

impl Caller<'_> {
    async fn admit(&self, mut params: ConnectParams) -> Result<Admitted, Rejection> {
        let runtime = self.gateway.runtime.load_full();
        let policy = &runtime.policy;
        if params.role == "worker" || params.client.id == "openclaw-worker" || params.client.mode == "worker" {
            return Err(Rejection::Silent(CloseReason::INVALID_HANDSHAKE));
        }
        let Some(role) = Role::parse(&params.role) else {
            return Err(Refusal::policy(ErrorShape::invalid("invalid role")).into());
        };
        let Some(protocol) = Protocol::negotiate(params.min_protocol, params.max_protocol) else {
            return Err(decide::protocol_mismatch(params.min_protocol, params.max_protocol).into());
        };
        self.check_origin(policy, &params)?;
        let device = self.prove_device(&params, protocol)?;
        let requested = if role == Role::Node { ScopeSet::EMPTY } else { ScopeSet::parse(&params.scopes) };
        let secret = self.prove_secret(policy, &params, device.is_some()).await?;
        let device_token = match &device {
            Some((id, _)) => self.prove_device_token(&params, id, role, requested, secret).await?,
            None => DeviceToken::NotGiven,
        };
        let bootstrap = match (&device, secret, device_token) {
            (Some(_), SharedSecret::NotGiven | SharedSecret::NotNeeded, DeviceToken::NotGiven) => {
                self.prove_bootstrap(&params, role, requested).await?
            }
            _ => Bootstrap::NotGiven,
        };
        let record =
            device.as_ref().and_then(|(id, _)| self.gateway.pairing.read(|state| state.get(id).map(Record::from)));
        let facts = Facts {
            evidence: self.evidence,
            params: &params,
            protocol,
            role,
            requested,
            secret,
            device: device.as_ref(),
            device_token,
            bootstrap,
            record: record.as_ref(),
        };
        let admission = match decide(policy, &facts) {
            Decision::Admit(admission) => admission,
            Decision::Refuse(refusal) => return Err(Rejection::Told(refusal)),
            Decision::Ask(reason) => {
                return Err(self
                    .ask(&params, device.as_ref(), role, requested, protocol, reason, record.as_ref())
                    .await);
            }
        };
        let mut handed = Handed::default();
        if let (AuthMethod::BootstrapToken, Some((id, key)), Some(token)) =
            (admission.method, &device, &params.auth.bootstrap_token)
        {
            let reason = admission.approve.unwrap_or(PairReason::ScopeUpgrade);
            let asked = self.pairing_request(&params, id, *key, role, requested, reason, false);
            let redeemed = self.gateway.redeem(token.clone(), asked).await.map_err(Refusal::policy)?;
            // Another device was faster.
            handed = redeemed.ok_or_else(|| decide::bootstrap_refusal(protocol))?;
            self.gateway.arrivals.note(now_ms(), self.evidence.address, ArrivalStage::Paired);
        } else if let (Some(reason), Some((id, key))) = (admission.approve, &device) {
            let asked = self.pairing_request(&params, id, *key, role, requested, reason, true);
            let approved = self.gateway.approve_silently(asked).await.map_err(Refusal::policy)?;
            if !approved {
                return Err(self
                    .ask(&params, device.as_ref(), role, requested, protocol, reason, record.as_ref())
                    .await);
            }
        }
        // An approval this admission rests on may still be on its way to the disk.
        self.gateway
            .pairing
            .settled()
            .await
            .map_err(|error| Rejection::from(Refusal::policy(ErrorShape::retry_later(error.to_string(), 500))))?;
        let secret_generation = runtime.generation.clone().filter(|_| secret == SharedSecret::Proven);
        let token = match &device {
            Some((id, _)) => Some(self.issue_token(&params, id, role, &admission, secret_generation.is_some()).await?),
            None => None,
        };
        // A browser's token dies with the secret it was given for, and so does a connection that rests on it.
        let secret_generation = secret_generation.or_else(|| self.issuer(device.as_ref(), role, &admission));
        let requested_names = std::mem::take(&mut params.scopes);
        params.auth = openclaw_protocol::connect::AuthBlock::default();
        params.device = None;
        let now = now_ms();
        let connection = Connection {
            number: self.gateway.hub.next_number(),
            id: uuid::Uuid::new_v4().to_string(),
            role,
            scopes: admission.scopes,
            protocol,
            method: admission.method,
            device: device.map(|(id, _)| id),
            params,
            address: self.evidence.address_text(),
            key: self.evidence.client_key(),
            direct_local: self.evidence.direct_local(),
            owner: self.evidence.peer == Peer::Owner,
            browser: self.evidence.origin != Origin::Absent,
            secret_generation,
            connected_at_ms: now,
            outbound: Outbound::default(),
            joined: Joined::default(),
            addressed: AtomicU64::new(0),
        };
        // From here on events are queued for it: they follow the hello, never precede it.
        let connection = self.gateway.hub.add(connection);
        if self.overtaken(&connection) {
            self.gateway.hub.remove(connection.number);
            return Err(Rejection::Silent(CloseReason::AUTH_CHANGED));
        }
        Ok(Admitted { connection, requested: requested_names, token, handed })
    }

    fn check_origin(&self, policy: &Policy, params: &ConnectParams) -> Result<(), Rejection> {
        if self.evidence.origin == Origin::Absent && !params.client.is_browser_ui() {
            return Ok(());
        }
        policy.names.check_origin(self.evidence).map_err(|reason| decide::origin_refused(reason, self.evidence).into())
    }

    fn prove_device(
        &self,
        params: &ConnectParams,
        protocol: Protocol,
    ) -> Result<Option<(DeviceId, PublicKey)>, Rejection> {
        let (Some(block), Some(payload)) = (&params.device, params.proof_payload()) else { return Ok(None) };
        verify_proof(&block.public_key, &block.signature, &payload, &self.challenge.nonce, now_ms())
            .map(Some)
            .map_err(|problem| decide::proof_refused(problem, protocol).into())
    }

    /// Compares what was sent with the shared secret. Either field may carry it; when both are sent, the one named like the
    /// mode is used.
    async fn prove_secret(
        &self,
        policy: &Policy,
        params: &ConnectParams,
        has_device: bool,
    ) -> Result<SharedSecret, Rejection> {
        let (token, password) = (params.auth.token.as_ref(), params.auth.password.as_ref());
        let (expected, given) = match &policy.mode {
            decide::Mode::None => return Ok(SharedSecret::NotNeeded),
            decide::Mode::Token(secret) => (secret, token.or(password)),
            decide::Mode::Password(secret) => (secret, password.or(token)),
        };
        let Some(given) = given else { return Ok(SharedSecret::NotGiven) };
        // Older clients put their device token into `auth.token`; that is not a guess at the shared secret.
        if has_device
            && let Some(device) = &params.device
            && let Some(id) = DeviceId::parse(&device.id)
            && self.is_device_token(&id, given.expose())
        {
            return Ok(SharedSecret::NotGiven);
        }
        if self.guess(CredentialClass::SharedSecret, || expected.matches(given.expose())).await? {
            Ok(SharedSecret::Proven)
        } else {
            Ok(SharedSecret::Wrong)
        }
    }

    async fn prove_device_token(
        &self,
        params: &ConnectParams,
        id: &DeviceId,
        role: Role,
        requested: ScopeSet,
        secret: SharedSecret,
    ) -> Result<DeviceToken, Rejection> {
        let explicit = params.auth.device_token.as_ref();
        let fallback = params.auth.token.as_ref().filter(|_| secret == SharedSecret::NotGiven);
        let Some(given) = explicit.or(fallback) else { return Ok(DeviceToken::NotGiven) };
        if secret == SharedSecret::Proven {
            // The shared secret stands on its own; a stale device token beside it neither helps nor hurts.
            return Ok(DeviceToken::NotGiven);
        }
        let mut outcome = DeviceToken::Wrong;
        self.guess(CredentialClass::DeviceToken, || {
            let runtime = self.gateway.runtime.load();
            let check = TokenCheck {
                device_id: id,
                role,
                presented: given.expose(),
                requested,
                generation: runtime.generation.as_ref(),
            };
            outcome = match self.gateway.pairing.read(|state| state.verify(&check)) {
                Ok(_) => DeviceToken::Proven,
                Err(TokenError::ScopeMismatch) => DeviceToken::ScopeMismatch,
                Err(reason) => {
                    tracing::debug!(device = id.short(), %role, "device token refused: {reason}");
                    DeviceToken::Wrong
                }
            };
            outcome != DeviceToken::Wrong
        })
        .await?;
        Ok(outcome)
    }

    fn issuer(
        &self,
        device: Option<&(DeviceId, PublicKey)>,
        role: Role,
        admission: &Admission,
    ) -> Option<IssuerGeneration> {
        let (id, _) = device.filter(|_| admission.method == AuthMethod::DeviceToken)?;
        self.gateway.pairing.read(|state| state.get(id)?.tokens.get(&role)?.issuer.clone())
    }

    /// Looks whether a one-time token would do. Trying one is charged like guessing any other secret; it is redeemed only
    /// when nothing else stands against the connection.
    async fn prove_bootstrap(
        &self,
        params: &ConnectParams,
        role: Role,
        requested: ScopeSet,
    ) -> Result<Bootstrap, Rejection> {
        let Some(given) = params.auth.bootstrap_token.as_ref().filter(|_| self.evidence.peer != Peer::Owner) else {
            return Ok(Bootstrap::NotGiven);
        };
        let mut outcome = Bootstrap::Wrong;
        self.guess(CredentialClass::BootstrapToken, || {
            outcome = match self.gateway.check_bootstrap(given, role, requested) {
                Ok(()) => Bootstrap::Proven,
                Err(BootstrapError::Beyond) => Bootstrap::Beyond,
                Err(BootstrapError::Unknown) => Bootstrap::Wrong,
            };
            outcome != Bootstrap::Wrong
        })
        .await?;
        if outcome != Bootstrap::Proven {
            self.gateway.arrivals.note(now_ms(), self.evidence.address, ArrivalStage::CodeRefused);
        }
        Ok(outcome)
    }

    /// True when `text` is a token of this device in any role, so that it is checked as one and not as a guess at the
    /// shared secret.
    fn is_device_token(&self, id: &DeviceId, text: &str) -> bool {
        self.gateway.pairing.read(|state| {
            state
                .get(id)
                .is_some_and(|device| device.tokens.values().any(|token| token.live() && token.secret.matches(text)))
        })
    }

    /// One guess at a secret: charged before it is tried, its answer held back when it was wrong.
    async fn guess(&self, class: CredentialClass, check: impl FnOnce() -> bool) -> Result<bool, Rejection> {
        let key = self.evidence.client_key();
        let limits = self.gateway.runtime.load().limits;
        let begun = self.gateway.limiter(|limiter| limiter.begin(now_ms(), limits, class, &key));
        if let Err(limited) = begun {
            return Err(decide::rate_limited(limited.retry_after_ms).into());
        }
        if check() {
            self.gateway.limiter(|limiter| limiter.succeed(class, &key));
            return Ok(true);
        }
        let wait = self.gateway.limiter(|limiter| limiter.fail(now_ms(), limits, class, &key));
        let guard = HeldGuess { gateway: self.gateway, class, key };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        drop(guard);
        Ok(false)
    }

    /// True when the rights this connection rests on were taken away between the decision and now. A revocation closes the
    /// sockets it finds in the hub; this one was not there yet.
    fn overtaken(&self, connection: &Connection) -> bool {
        let current = self.gateway.runtime.load();
        if connection.secret_generation.is_some() && connection.secret_generation != current.generation {
            return true;
        }
        let Some(device) = &connection.device else { return false };
        self.gateway.pairing.read(|state| {
            let baseline = state.get(device).and_then(|record| record.baseline(connection.role));
            !baseline.is_some_and(|baseline| baseline.covers(connection.scopes))
        })
    }

    #[allow(clippy::too_many_arguments)] // two call sites; a struct would only rename these
    fn pairing_request(
        &self,
        params: &ConnectParams,
        id: &DeviceId,
        key: PublicKey,
        role: Role,
        requested: ScopeSet,
        reason: PairReason,
        silent: bool,
    ) -> PairingRequest {
        let client = params.client.clone();
        PairingRequest {
            device_id: id.clone(),
            public_key: key,
            role,
            scopes: requested,
            client: ClientMeta {
                display_name: client.display_name,
                platform: Some(client.platform),
                device_family: client.device_family,
                client_id: Some(client.id),
                client_mode: Some(client.mode),
                browser_origin: match &self.evidence.origin {
                    Origin::Given(origin) => Some(origin.clone()),
                    Origin::Absent | Origin::Malformed => None,
                },
            },
            remote_ip: self.evidence.address,
            reason,
            silent,
        }
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename these
    async fn ask(
        &self,
        params: &ConnectParams,
        device: Option<&(DeviceId, PublicKey)>,
        role: Role,
        requested: ScopeSet,
        protocol: Protocol,
        reason: PairReason,
        record: Option<&Record>,
    ) -> Rejection {
        let Some((id, key)) = device else { return decide::device_identity_required().into() };
        let asked = self.pairing_request(params, id, *key, role, requested, reason, false);
        match self.gateway.request_pairing(asked).await {
            Ok(request_id) => {
                let words = three_words(&RequestDigest::of(*key, role, requested)).join("-");
                let request = Some((request_id.as_str().to_owned(), words));
                let advance = Advance { stage: ArrivalStage::Waiting, request };
                self.gateway.arrivals.note(now_ms(), self.evidence.address, advance);
                decide::pairing_required(&PairingNotice {
                    reason,
                    request_id: Some(request_id.as_str()),
                    device_id: id,
                    role,
                    requested_scopes: &params.scopes,
                    approved: record,
                    protocol,
                })
                .into()
            }
            Err(error) => Refusal::policy(error).into(),
        }
    }

    async fn issue_token(
        &self,
        params: &ConnectParams,
        id: &DeviceId,
        role: Role,
        admission: &Admission,
        proved_secret: bool,
    ) -> Result<Issued, Rejection> {
        // Only browsers that logged in with the shared secret are bound to its generation: a person at a CLI can type the
        // new one, and pairing was the consent.
        let browser = self.evidence.origin != Origin::Absent || params.client.is_browser_ui();
        let issued = self.gateway.issue_token(id, role, admission.scopes, proved_secret && browser).await;
        issued.map_err(|error| Rejection::from(Refusal::policy(error)))
    }

    fn hello(&self, admitted: &Admitted) -> Result<Vec<u8>, CloseReason> {
        let (gateway, connection) = (self.gateway, &admitted.connection);
        let runtime = gateway.runtime.load();
        let (presence, health) = (gateway.presence.json(), gateway.health.json(connection.scopes));
        let admin = decide::sees_paths(connection.scopes).then(|| AdminSnapshot {
            config_path: gateway.paths.config_file.display().to_string(),
            state_dir: gateway.paths.state_dir.display().to_string(),
            auth_mode: runtime.policy.mode.name(),
        });
        let server = ServerInfo {
            version: gateway.version.to_owned(),
            conn_id: connection.id.clone(),
            boot_id: Some(gateway.boot_id.clone()),
        };
        let hello = HelloOk {
            kind: "hello-ok",
            protocol: connection.protocol,
            server: &server,
            features: &gateway.features,
            snapshot: Snapshot {
                presence: &presence,
                health: &health,
                state_version: gateway.hub.versions(),
                uptime_ms: gateway.uptime_ms(),
                session_defaults: &gateway.session_defaults,
                admin,
            },
            auth: HelloAuth {
                method: (connection.protocol == Protocol::V4).then_some(match connection.method {
                    AuthMethod::Owner => AuthMethod::None,
                    method => method,
                }),
                role: connection.role,
                scopes: scope_names(connection.scopes, &admitted.requested, connection.protocol),
                device_token: admitted.token.as_ref().map(|token| token.token.expose().to_owned()),
                issued_at_ms: admitted.token.as_ref().map(|token| token.issued_at_ms),
                device_tokens: admitted.handed.tokens(connection.protocol),
            },
            policy: HelloPolicy::default(),
        };
        serde_json::to_vec(&hello).map_err(|_| CloseReason::policy("internal error"))
    }
}

/// Keeps a wrong guess in flight while its answer is held back, also when the peer hangs up meanwhile.
struct HeldGuess<'a> {
    gateway: &'a Gateway,
    class: CredentialClass,
    key: crate::auth::evidence::ClientKey,
}

impl Drop for HeldGuess<'_> {
    fn drop(&mut self) {
        self.gateway.limiter(|limiter| limiter.finish(self.class, &self.key));
    }
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::{GatewayId, gateway_proof};

    use super::*;

    #[test]
    fn who_asks_is_told_who_answers_and_nobody_else_sees_a_difference() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let challenge = Challenge { nonce: "0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b".into(), ts: 1_795_229_493_111 };
        // captures/cli-health, without the capabilities
        let plain = r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"0ba0a5a0-a6b5-4a65-8ed4-e19f3798f77b","ts":1795229493111}}"#;
        for asked in [None, Some("x"), Some("")] {
            assert_eq!(challenge.frame(&key, asked), plain.as_bytes(), "{asked:?}");
        }
        let nonce = gateway_proof::nonce(&[9; 32]);
        let frame: Value = serde_json::from_slice(&challenge.frame(&key, Some(&nonce))).expect("JSON");
        let proof: GatewayProof = serde_json::from_value(frame["payload"]["gateway"].clone()).expect("a proof");
        assert_eq!(proof.verify(&nonce, &challenge.nonce), Some(GatewayId::of(key.id())));
        assert_eq!(
            (&frame["payload"]["nonce"], &frame["payload"]["ts"]),
            (&json!(challenge.nonce), &json!(challenge.ts))
        );
    }
}
