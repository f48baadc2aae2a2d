//! From a place and some credentials to an authenticated connection, with the few retries that heal themselves:
//! an older protocol, a stale device token, a shared token that was rotated, a gateway that is still starting.
//!
//! Each is tried once and then reported; nothing here loops, and nothing trips a limiter by repeating a wrong secret.

use std::time::Duration;

use openclaw_protocol::{
    DeviceKey, GatewayId, Protocol, Secret,
    connect::{AuthBlock, ClientInfo, ConnectParams},
};
use serde_json::{Map, Value};

use crate::{
    client::{Client, Events},
    deadline::Deadline,
    dial::Endpoint,
    error::Error,
};

/// Shortest and longest wait before asking a starting gateway again, whatever it says.
const MIN_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Wait when a starting gateway names no delay (it says 500 ms itself; handshake notes section 6.1).
const DEFAULT_WAIT: Duration = Duration::from_millis(500);

/// Who we say we are. The reference's identities (handshake notes section 4); a label, never a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persona {
    /// An operator's command.
    Cli,
    /// A reachability test.
    Probe,
    /// A command that shows approvals to a person.
    Reviewer,
    /// A command that starts one run and shows what it does.
    Caller,
    /// A person at a terminal: talks, watches tools, answers approvals.
    Chat,
    /// A helper of a command, with its purpose as display name (`gateway:health`).
    Backend(&'static str),
}

impl Persona {
    /// Connect parameters without credentials: operator, protocol 3 to 4.
    pub fn params(self, scopes: &[&str]) -> ConnectParams {
        let (id, mode, version, display_name) = match self {
            Self::Cli | Self::Reviewer | Self::Caller | Self::Chat => ("cli", "cli", env!("CARGO_PKG_VERSION"), None),
            Self::Probe => ("cli", "probe", "dev", None),
            Self::Backend(purpose) => {
                ("gateway-client", "backend", env!("CARGO_PKG_VERSION"), Some(format!("gateway:{purpose}")))
            }
        };
        let (platform, family) = match std::env::consts::OS {
            "macos" => ("macos", Some("Mac")),
            "linux" => ("linux", Some("Linux")),
            other => (other, None),
        };
        ConnectParams {
            min_protocol: Protocol::MIN.number(),
            max_protocol: Protocol::MAX.number(),
            client: ClientInfo {
                id: id.to_owned(),
                version: version.to_owned(),
                platform: platform.to_owned(),
                mode: mode.to_owned(),
                display_name,
                device_family: family.map(str::to_owned),
                instance_id: Some(uuid::Uuid::new_v4().to_string()),
                ..ClientInfo::default()
            },
            role: "operator".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            caps: self.caps().iter().map(|cap| (*cap).to_owned()).collect(),
            commands: Vec::new(),
            permissions: Map::new(),
            path_env: None,
            device: None,
            auth: AuthBlock::default(),
            user_agent: None,
        }
    }

    /// What this side makes use of (handshake notes section 4).
    const fn caps(self) -> &'static [&'static str] {
        match self {
            Self::Reviewer => &["exec-approvals"],
            Self::Caller => &["tool-events"],
            Self::Chat => &["exec-approvals", "tool-events"],
            Self::Cli | Self::Probe | Self::Backend(_) => &[],
        }
    }
}

/// When to sign with this machine's device identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceUse {
    /// Not at all.
    Never,
    /// Without a shared secret, if there is an identity already. For probes, which leave no trace.
    IfKnown,
    /// Without a shared secret; made if missing. For what every authenticated connection may do.
    WithoutSecret,
    /// Without a shared token, or when the token alone did not give the scopes asked for; made if missing.
    WhenNeeded,
}

/// A device token this machine holds.
#[derive(Clone, Debug)]
pub struct StoredToken {
    pub token: Secret,
    pub scopes: Vec<String>,
}

/// This machine's device identity and its tokens, each bound to the origin of the gateway that issued it.
pub trait DeviceStore: Sync {
    /// The key; made first when `create` and there is none.
    ///
    /// # Errors
    /// Why it cannot be read or written, for a person.
    fn key(&self, create: bool) -> Result<Option<DeviceKey>, String>;
    /// The token for this role at this gateway.
    fn token(&self, origin: &str, role: &str) -> Option<StoredToken>;
    /// Keeps a token the gateway issued.
    fn remember(&self, origin: &str, role: &str, token: &Secret, scopes: &[String]);
    /// Drops a token the gateway no longer takes.
    fn forget(&self, origin: &str, role: &str);
}

/// A shared secret to prove, already chosen by the credential rules.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    pub token: Option<Secret>,
    pub password: Option<Secret>,
}

impl Secrets {
    pub const fn is_empty(&self) -> bool {
        self.token.is_none() && self.password.is_none()
    }
}

/// Everything one connection needs.
pub struct Plan<'a> {
    pub endpoint: &'a Endpoint,
    pub params: ConnectParams,
    pub secrets: Secrets,
    pub device: DeviceUse,
    /// Stored device tokens may be sent. Not for an explicit URL or credential: those inherit nothing (P-84).
    pub stored_tokens: bool,
    pub store: &'a dyn DeviceStore,
    pub deadline: Deadline,
    /// The gateway that must prove itself before anything is sent; `None` takes whoever answers.
    pub gateway: Option<GatewayId>,
    /// A one-time token that pairs this device, sent signed by it and instead of every other credential.
    pub bootstrap: Option<Secret>,
}

/// Why a connection takes longer, for a progress line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The gateway answers and is not ready.
    Starting(String),
}

/// What one attempt sends besides the plan.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    signed: bool,
    /// Send the stored device token although a shared secret is sent too.
    both: bool,
    /// The stored device token was refused.
    no_device_token: bool,
}

/// Where device tokens of a gateway are kept whose identity is known: it gets them over every path, and nobody else does.
pub fn token_origin(gateway: &GatewayId) -> String {
    format!("gateway:{gateway}")
}

/// Connects as planned.
///
/// # Errors
/// The last attempt's error. [`Error::Identity`] when the device identity cannot be read or written;
/// [`Error::WrongGateway`] when the gateway had to be a certain one and is not, before anything was sent.
pub async fn connect(mut plan: Plan<'_>, waiting: &(dyn Fn(Waiting) + Sync)) -> Result<(Client, Events), Error> {
    let (origin, direct) = match plan.endpoint {
        Endpoint::OwnerSocket(_) => (None, true),
        // Only this user can open the near end, and ssh has checked the far one's host key.
        Endpoint::Tunnel { origin, .. } => (Some(origin.clone()), true),
        Endpoint::Url { url, pin, .. } => (Some(url.origin()), url.is_loopback() || (url.is_secure() && pin.is_some())),
    };
    let origin = plan.gateway.as_ref().map(token_origin).filter(|_| origin.is_some()).or(origin);
    let device = match (&plan.bootstrap, &origin) {
        (Some(_), _) => DeviceUse::WhenNeeded,
        (None, Some(_)) => plan.device,
        // The owner's socket proves who we are by itself.
        (None, None) => DeviceUse::Never,
    };
    if plan.bootstrap.is_some() {
        (plan.secrets, plan.stored_tokens) = (Secrets::default(), false);
    }
    let role = plan.params.role.clone();
    let token_origin = origin.as_deref().filter(|_| plan.stored_tokens);
    let stored = |store: &dyn DeviceStore| token_origin.and_then(|origin| store.token(origin, &role));
    let paired_elsewhere = |store: &dyn DeviceStore| !direct && stored(store).is_some();

    let mut attempt = Attempt {
        signed: match device {
            DeviceUse::Never => false,
            DeviceUse::IfKnown | DeviceUse::WithoutSecret => plan.secrets.is_empty(),
            // A token alone suffices next to the gateway. Far away it gives no scopes, so where this device is paired
            // already it signs at once.
            DeviceUse::WhenNeeded => plan.secrets.token.is_none() || paired_elsewhere(plan.store),
        },
        ..Attempt::default()
    };
    let (mut retried_token, mut retried_protocol) = (false, false);
    loop {
        let key = match attempt.signed {
            true => {
                plan.store.key(!matches!(device, DeviceUse::Never | DeviceUse::IfKnown)).map_err(Error::Identity)?
            }
            false => None,
        };
        let held = if key.is_some() && !attempt.no_device_token { stored(plan.store) } else { None };
        let mut params = plan.params.clone();
        if key.is_some() && params.client.display_name.is_none() {
            // So that the owner who approves sees which machine asks.
            params.client.display_name = Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
        }
        params.auth = AuthBlock {
            token: plan.secrets.token.clone(),
            password: plan.secrets.password.clone(),
            device_token: held
                .as_ref()
                .filter(|_| plan.secrets.is_empty() || attempt.both)
                .map(|held| held.token.clone()),
            bootstrap_token: plan.bootstrap.clone(),
        };
        let sent_device_token = params.auth.device_token.is_some();
        match Client::open(plan.endpoint, params, key.as_ref(), plan.deadline, plan.gateway.as_ref()).await {
            Ok((client, events)) => {
                let granted = client.hello().auth.as_ref();
                if let (Some(origin), Some(auth), true) = (&origin, granted, key.is_some())
                    && let Some(token) = &auth.device_token
                {
                    plan.store.remember(origin, &role, token, &auth.scopes);
                }
                // v3 may leave `auth` out: then nothing was withheld that we could see.
                let lacking =
                    granted.is_some_and(|auth| plan.params.scopes.iter().any(|want| !covers(&auth.scopes, want)));
                if lacking && !attempt.signed && device == DeviceUse::WhenNeeded {
                    client.close().await;
                    attempt.signed = true;
                    continue;
                }
                return Ok((client, events));
            }
            Err(Error::Protocol { expected: Some(version @ (3 | 4)), .. }) if !retried_protocol => {
                retried_protocol = true;
                (plan.params.min_protocol, plan.params.max_protocol) = (version, version);
            }
            Err(Error::Unavailable(shape)) if shape.retryable != Some(false) => {
                let wait = shape.retry_after_ms.map_or(DEFAULT_WAIT, Duration::from_millis).clamp(MIN_WAIT, MAX_WAIT);
                if plan.deadline.left() <= wait {
                    return Err(Error::Unavailable(shape));
                }
                waiting(Waiting::Starting(shape.message));
                tokio::time::sleep(wait).await;
            }
            Err(error) => match error.detail_code() {
                // The shared token was rotated; this device's own token may still be good. Only where nobody between
                // could collect it.
                Some("AUTH_TOKEN_MISMATCH")
                    if !retried_token && direct && held.is_some() && !sent_device_token && may_retry(&error) =>
                {
                    (retried_token, attempt.both) = (true, true);
                }
                Some("AUTH_DEVICE_TOKEN_MISMATCH") if sent_device_token && !attempt.no_device_token => {
                    // A v3 gateway says the same when more scopes are asked for than the token has: not stale then.
                    let stale =
                        held.is_none_or(|held| plan.params.scopes.iter().all(|want| covers(&held.scopes, want)));
                    if let (true, Some(origin)) = (stale, &origin) {
                        plan.store.forget(origin, &role);
                    }
                    if plan.secrets.is_empty() {
                        return Err(error);
                    }
                    (attempt.no_device_token, attempt.both) = (true, false);
                }
                _ => return Err(error),
            },
        }
    }
}

fn may_retry(error: &Error) -> bool {
    let details = error.shape().and_then(|shape| shape.details.as_ref());
    details.and_then(|details| details.get("canRetryWithDeviceToken")).and_then(Value::as_bool) == Some(true)
}

/// True when the granted names include `wanted`, by the implications of scopes.
fn covers(granted: &[String], wanted: &str) -> bool {
    let set = openclaw_protocol::ScopeSet::parse(granted);
    openclaw_protocol::Scope::parse(wanted)
        .map_or_else(|| granted.iter().any(|name| name == wanted), |scope| set.grants(scope))
}
