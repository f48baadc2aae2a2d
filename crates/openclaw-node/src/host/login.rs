//! One attempt to be this gateway's node: a path, a credential, a hello.
//!
//! Credentials are tried from the narrowest to the widest, each once: a one-time code that was just given, this node's
//! own token, the shared secret, nothing at all (which lets an owner approve the request). A token the gateway no longer
//! takes is forgotten, so that revoking a node and approving it again needs nobody at the node.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use openclaw_protocol::{
    DeviceKey, GatewayId, Protocol, Role, Secret,
    connect::{AuthBlock, ClientInfo, ConnectParams},
};
use openclaw_remote::{
    Client, Deadline, Endpoint, Error, Events, GatewayPath, Route,
    connect::{DeviceStore, Secrets, token_origin},
    route::Tunnels,
    ssh::{Forward, Interaction, SshSpec},
};
use serde_json::Map;

use crate::surface::Surface;

/// The gateway this node belongs to, and what may be sent there.
pub struct Home {
    /// Paths to it, best first, and who has to prove itself before anything is sent.
    pub route: Route,
    pub secrets: Secrets,
    /// One-time tokens of a setup code; taken out once used.
    pub bootstrap: Mutex<Option<Secret>>,
    /// Prefer the node's own token to the code, as far as there is one.
    pub code_only_if_needed: bool,
    pub tunnels: Tunnels,
    /// Sockets of an ssh that lives as long as one connection.
    pub ssh_dir: PathBuf,
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub instance_id: String,
    pub display_name: String,
    pub surface: Surface,
}

/// A connection in the node role, and the ssh below it, if any.
pub struct Link {
    pub client: Client,
    pub path: GatewayPath,
    pub forward: Option<Forward>,
}

/// The version this gateway took last time; asking for another first costs a connection.
#[derive(Debug)]
pub struct Era(AtomicU32);

impl Default for Era {
    fn default() -> Self {
        Self(AtomicU32::new(Protocol::V4.number()))
    }
}

impl Identity {
    /// `connect` without credentials, as the reference's node host sends it.
    fn params(&self, version: u32) -> ConnectParams {
        let (platform, family) = match std::env::consts::OS {
            "macos" => ("macos", "Mac"),
            "linux" => ("linux", "Linux"),
            other => (other, ""),
        };
        ConnectParams {
            min_protocol: version,
            max_protocol: version,
            client: ClientInfo {
                id: "node-host".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                platform: platform.to_owned(),
                mode: "node".to_owned(),
                display_name: Some(self.display_name.clone()),
                device_family: Some(family.to_owned()).filter(|family| !family.is_empty()),
                instance_id: Some(self.instance_id.clone()),
                ..ClientInfo::default()
            },
            role: Role::Node.as_str().to_owned(),
            scopes: Vec::new(),
            caps: self.surface.caps.clone(),
            commands: self.surface.commands.clone(),
            permissions: Map::new(),
            path_env: Some(self.surface.path_env.clone()),
            device: None,
            auth: AuthBlock::default(),
            user_agent: None,
        }
    }
}

/// Which credential an attempt sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Code,
    OwnToken,
    Shared,
    Nothing,
}

/// Connects over one path.
///
/// # Errors
/// The last attempt's, [`Error::Identity`] when this machine's key cannot be read or made.
pub async fn open(
    home: &Home,
    path: &GatewayPath,
    identity: &Identity,
    store: &dyn DeviceStore,
    era: &Era,
    deadline: Deadline,
) -> Result<(Link, Events), Error> {
    let key = store.key(true).map_err(Error::Identity)?;
    let key = key.ok_or_else(|| Error::Identity("no key could be made".to_owned()))?;
    let attempt = Attempt { home, identity, store, era, deadline, key: &key };
    match path {
        GatewayPath::Direct(direct) => {
            let (client, events) = attempt.over(&direct.endpoint()).await?;
            Ok((Link { client, path: path.clone(), forward: None }, events))
        }
        GatewayPath::Ssh(spec) => {
            let (client, events, forward) = attempt.through(spec).await?;
            Ok((Link { client, path: path.clone(), forward }, events))
        }
    }
}

struct Attempt<'a> {
    home: &'a Home,
    identity: &'a Identity,
    store: &'a dyn DeviceStore,
    era: &'a Era,
    deadline: Deadline,
    key: &'a DeviceKey,
}

impl Attempt<'_> {
    /// A running tunnel, else an ssh of our own.
    async fn through(&self, spec: &SshSpec) -> Result<(Client, Events, Option<Forward>), Error> {
        if let Some(socket) = self.home.tunnels.running(spec).await {
            match self.over(&Endpoint::Tunnel { socket, origin: spec.origin(), pin: None }).await {
                // The tunnel is down just now or was left behind; a fresh ssh may do, or knows why not.
                Err(Error::Connect { .. } | Error::Upgrade { .. }) => {}
                outcome => return outcome.map(|(client, events)| (client, events, None)),
            }
        }
        let forward = Forward::open(spec, &self.home.ssh_dir, Interaction::Batch, self.deadline).await;
        let forward = forward.map_err(|failure| Error::Ssh(Box::new(failure)))?;
        match self.over(&forward.endpoint()).await {
            Ok((client, events)) => Ok((client, events, Some(forward))),
            // Only ssh knows that nothing listens behind it.
            Err(error) => Err(forward.explain(error).await),
        }
    }

    async fn over(&self, endpoint: &Endpoint) -> Result<(Client, Events), Error> {
        let origin = origin(endpoint, self.home.route.gateway.as_ref());
        let code = self.home.bootstrap.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let held = origin.as_deref().and_then(|origin| self.store.token(origin, Role::Node.as_str()));
        let proofs = proofs(
            code.is_some() && !(self.home.code_only_if_needed && held.is_some()),
            held.is_some(),
            !self.home.secrets.is_empty(),
        );
        let mut last = None;
        for proof in proofs {
            let auth = match proof {
                Proof::Code => AuthBlock { bootstrap_token: code.clone(), ..AuthBlock::default() },
                Proof::OwnToken => {
                    AuthBlock { device_token: held.as_ref().map(|held| held.token.clone()), ..AuthBlock::default() }
                }
                Proof::Shared => AuthBlock {
                    token: self.home.secrets.token.clone(),
                    password: self.home.secrets.password.clone(),
                    ..AuthBlock::default()
                },
                Proof::Nothing => AuthBlock::default(),
            };
            match self.prove(endpoint, &auth).await {
                Ok((client, events)) => {
                    // A code is good once; whether it was this one or not, the node has its own token now.
                    *self.home.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    self.keep_token(origin.as_deref(), &client);
                    return Ok((client, events));
                }
                Err(error) => {
                    let refused = is_refused(proof, &error);
                    if refused
                        && proof == Proof::OwnToken
                        && let Some(origin) = &origin
                    {
                        self.store.forget(origin, Role::Node.as_str());
                    }
                    // The first refusal says what went wrong; "nothing was sent" after it would not.
                    let keep_first = proof == Proof::Nothing && !matches!(error, Error::Pairing(_));
                    if !keep_first || last.is_none() {
                        last = Some(error);
                    }
                    if !refused {
                        break;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Identity("there was nothing to try".to_owned())))
    }

    /// One credential, over whichever protocol the gateway takes.
    async fn prove(&self, endpoint: &Endpoint, auth: &AuthBlock) -> Result<(Client, Events), Error> {
        let mut version = self.era.0.load(Ordering::Relaxed);
        let mut fell_back = false;
        loop {
            let params = ConnectParams { auth: auth.clone(), ..self.identity.params(version) };
            let expected = self.home.route.gateway.as_ref();
            match Client::open(endpoint, params, Some(self.key), self.deadline, expected).await {
                Err(Error::Protocol { expected: Some(other @ (3 | 4)), .. }) if !fell_back && other != version => {
                    (fell_back, version) = (true, other);
                }
                Ok((client, events)) => {
                    // A newer gateway takes old nodes; it is asked for its own version next time.
                    self.era.0.store(client.protocol().number(), Ordering::Relaxed);
                    return Ok((client, events));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn keep_token(&self, origin: Option<&str>, client: &Client) {
        if let (Some(origin), Some(auth)) = (origin, client.hello().auth.as_ref())
            && let Some(token) = &auth.device_token
        {
            self.store.remember(origin, Role::Node.as_str(), token, &auth.scopes);
        }
    }
}

/// What is tried, in this order.
fn proofs(code: bool, own_token: bool, shared: bool) -> Vec<Proof> {
    let mut proofs = Vec::new();
    let tries = [(code, Proof::Code), (own_token, Proof::OwnToken), (shared, Proof::Shared)];
    proofs.extend(tries.into_iter().filter(|(has, _)| *has).map(|(_, proof)| proof));
    // A gateway that wants no secret takes nothing; others answer with what they want.
    if !shared {
        proofs.push(Proof::Nothing);
    }
    proofs
}

/// True when the gateway refused this very credential, so that the next one may do.
fn is_refused(proof: Proof, error: &Error) -> bool {
    match (proof, error.detail_code()) {
        (Proof::Code, Some("AUTH_BOOTSTRAP_TOKEN_INVALID")) => true,
        // Protocol 3 has no such field and says so.
        (Proof::Code, None) => matches!(error, Error::Protocol { message, .. } if message.contains("bootstrapToken")),
        (Proof::OwnToken, Some(code)) => {
            matches!(code, "AUTH_DEVICE_TOKEN_MISMATCH" | "AUTH_TOKEN_MISMATCH" | "AUTH_SCOPE_MISMATCH")
        }
        _ => false,
    }
}

/// What the node's token belongs to: the identity a gateway proves where it is known, else the address.
fn origin(endpoint: &Endpoint, gateway: Option<&GatewayId>) -> Option<String> {
    let by_address = match endpoint {
        Endpoint::OwnerSocket(_) => return None,
        Endpoint::Tunnel { origin, .. } => origin.clone(),
        Endpoint::Url { url, .. } => url.origin(),
    };
    Some(gateway.map_or(by_address, token_origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_credentials_first() {
        use Proof::{Code, Nothing, OwnToken, Shared};
        for ((code, own, shared), expected) in [
            ((true, true, true), &[Code, OwnToken, Shared][..]),
            ((true, false, false), &[Code, Nothing]),
            ((false, true, true), &[OwnToken, Shared]),
            ((false, true, false), &[OwnToken, Nothing]),
            ((false, false, true), &[Shared]),
            ((false, false, false), &[Nothing]),
        ] {
            assert_eq!(proofs(code, own, shared), expected);
        }
    }

    /// `node-run-pair-invoke`, `v3-node-on-v3-gateway`: the fields of connect that tell who it is.
    #[test]
    fn connect_looks_like_the_reference() {
        let identity = Identity {
            instance_id: "0db30324-1d52-434e-9d8f-d06c89de43f4".into(),
            display_name: "Test Node".into(),
            surface: Surface {
                caps: vec!["system".into()],
                commands: vec!["system.which".into()],
                path_env: "/bin".into(),
            },
        };
        for (protocol, number) in [(Protocol::V4, 4), (Protocol::V3, 3)] {
            let wire = identity.params(number).to_wire(protocol);
            let keys: Vec<&str> = wire.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["minProtocol", "maxProtocol", "client", "role", "scopes", "caps", "commands", "pathEnv"]);
            assert_eq!((&wire["minProtocol"], &wire["maxProtocol"]), (&number.into(), &number.into()));
            assert_eq!((&wire["client"]["id"], &wire["client"]["mode"]), (&"node-host".into(), &"node".into()));
            assert_eq!(wire["client"]["instanceId"], "0db30324-1d52-434e-9d8f-d06c89de43f4");
            assert_eq!((&wire["role"], &wire["scopes"]), (&"node".into(), &serde_json::json!([])));
        }
    }
}
