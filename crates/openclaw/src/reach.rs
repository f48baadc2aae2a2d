//! From a command's arguments to an open connection, with failures that say where it went and why.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openclaw_config::{
    Connections,
    connections::ConnectionsError,
    credentials::{ClientFlags, Considered, CredentialError, Surface, UrlSource},
};
use openclaw_protocol::Secret;
use openclaw_remote::{
    Deadline, Error as RemoteError, Events, Link, Place, Session, Target, TargetError,
    connect::{DeviceStore as _, DeviceUse, Persona, Secrets, Waiting},
    route::{self, Ask, Taken, Tunnels},
    rules::RuleError,
    session::{Notice, Setup},
    store::IdentityStore,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    args::PortTargetArgs,
    context::{Context, Loaded},
    failure::{Failure, capitalised},
    output::inert,
};

pub use openclaw_config::credentials::Surface as Purpose;

/// Runs a command's network part. One thread is enough, and a CLI must start in milliseconds.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("The system gives no event loop: {error}.")))?;
    let outcome = runtime.block_on(work);
    // A name look-up that never answers must not keep the program.
    runtime.shutdown_background();
    outcome
}

/// A gateway a command may talk to.
pub struct Reach<'a> {
    context: &'a Context,
    pub loaded: Loaded,
    pub target: Target,
    store: IdentityStore,
    tunnels: Tunnels,
    timeout: Duration,
}

impl Context {
    /// Flags as the credential rules take them, `--on` among them.
    pub fn flags(&self, at: &PortTargetArgs) -> ClientFlags {
        let secret = |text: &Option<String>| text.as_deref().and_then(Secret::from_input);
        ClientFlags {
            url: at.target.url.clone(),
            token: secret(&at.target.token),
            password: secret(&at.target.password),
            port: at.port,
            on: self.on.clone(),
        }
    }

    /// Settles target, credentials and deadline for a command that acts. Sends nothing.
    ///
    /// An unusable config stops it, since it might act on the wrong gateway; only the owner's socket, which can lead
    /// nowhere else, is used all the same.
    pub fn reach(&self, at: &PortTargetArgs, default_timeout: Duration) -> Result<Reach<'_>, Failure> {
        let loaded = self.config_for_diagnosis()?;
        let problem = loaded.problem.clone();
        let reach = self.reach_with(loaded, at, Surface::Call, default_timeout)?;
        match problem {
            Some(problem) if reach.target.owner_socket.is_none() => Err(self.invalid(&problem)),
            problem => {
                self.note_problem(problem.as_ref());
                Ok(reach)
            }
        }
    }

    /// The same for a diagnostic, which runs on built-in settings when the config is unusable.
    pub fn reach_for_diagnosis(&self, at: &PortTargetArgs, default_timeout: Duration) -> Result<Reach<'_>, Failure> {
        let loaded = self.config_for_diagnosis()?;
        self.note_problem(loaded.problem.as_ref());
        self.reach_with(loaded, at, Surface::Call, default_timeout)
    }

    /// The same with a config that is loaded already.
    pub fn reach_with(
        &self,
        loaded: Loaded,
        at: &PortTargetArgs,
        surface: Surface,
        default_timeout: Duration,
    ) -> Result<Reach<'_>, Failure> {
        let target = Target::resolve(surface, &self.flags(at), &loaded.gateway, self.secrets(&loaded.document))
            .map_err(|error| self.no_target(&error, at))?;
        let timeout = at.target.timeout.map_or(default_timeout, Duration::from_millis);
        let (store, tunnels) =
            (IdentityStore::new(self.paths.clone()), Tunnels::new(&self.paths).expecting(target.pin_behind_ssh));
        Ok(Reach { context: self, loaded, target, store, tunnels, timeout })
    }

    /// Why there is no target, in the reference's layout.
    pub fn no_target(&self, error: &TargetError, at: &PortTargetArgs) -> Failure {
        let failure = match error {
            TargetError::Credentials(error) => credential_failure(error),
            TargetError::Rule { from, error } => unusable(*from, error),
            TargetError::Connections(error) => no_connection(error),
            TargetError::NoPath { name } | TargetError::BadPath { name, .. } => Failure::new(format!("{error}."))
                .remedy("look at it", format!("openclaw connections show {name}"))
                .remedy("or forget it, then connect anew", format!("openclaw connections rm {name}")),
            TargetError::Edge(unread) => Failure::new(format!("{error}."))
                .detail("Nothing was sent: the edge in front of the gateway would refuse it without the header.")
                .remedy("see the reference", format!("openclaw config get {}", unread.path)),
            other => Failure::new(other.to_string()),
        };
        let url = at.target.url.as_deref().map(str::trim).filter(|url| !url.is_empty() && !url.contains('@'));
        let url = url.map(|url| url.split(['?', '#']).next().unwrap_or_default());
        failure
            .fact("Config", self.config_path())
            .beside("gateway", json!({"url": url, "urlSource": url.map(|_| UrlSource::Flag.as_str())}))
    }
}

/// A URL that means nothing, alone or beside the rest of `gateway.remote`. The URL itself may hold a secret, so it is not
/// repeated.
fn unusable(from: UrlSource, error: &RuleError) -> Failure {
    let (message, remedy) = match error {
        RuleError::Url(_) | RuleError::SshUrl(_) => (
            format!("Unusable gateway URL: {error}."),
            Some(("set another", "openclaw config set gateway.remote.url wss://host:port")),
        ),
        RuleError::SshTarget(_) | RuleError::NoSshTarget => {
            (format!("{error}."), Some(("set it", "openclaw config set gateway.remote.sshTarget user@host")))
        }
        RuleError::SshUrlDirect => {
            (format!("{error}."), Some(("let ssh carry it", "openclaw config set gateway.remote.transport ssh")))
        }
    };
    let failure = Failure::new(message).fact("Source", from.as_str());
    match (from, remedy) {
        (UrlSource::RemoteConfig | UrlSource::SshTarget, Some((what, command))) => failure.remedy(what, command),
        _ => failure,
    }
}

/// The saved connections have no such name, or cannot be read.
pub fn no_connection(error: &ConnectionsError) -> Failure {
    let failure = Failure::new(format!("{}.", capitalised(&inert(&error.to_string()))));
    match error {
        ConnectionsError::Unknown { .. } => failure.remedy("see which there are", "openclaw connections ls"),
        ConnectionsError::Damaged { .. } => failure
            .detail("It was left as it is. Repair it, or move it away and connect anew; --on local works meanwhile."),
        ConnectionsError::File(_) => failure.remedy("see who may read the state directory", "openclaw doctor"),
        ConnectionsError::Taken(_) => failure,
    }
}

fn credential_failure(error: &CredentialError) -> Failure {
    let failure = Failure::new(error.to_string());
    error.fix().into_iter().fold(failure, Failure::detail).error_code(error.code())
}

impl Reach<'_> {
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The gateway of this machine, named by nothing but its config.
    pub fn is_local(&self) -> bool {
        self.target.is_local()
    }

    /// What to call it in messages.
    pub fn describe(&self) -> String {
        match &self.target.owner_socket {
            Some(path) => format!("{} (owner's socket)", inert(&self.context.paths.display(path))),
            None => format!("{} ({})", inert(&self.target.shown()), self.target.named_by()),
        }
    }

    /// Connects: over the owner's socket where that is possible, else as the credentials say.
    pub async fn open(&self, persona: Persona, scopes: &[&str], device: DeviceUse) -> Result<Link, RemoteError> {
        let progress = self.context.output.progress(format!("Connecting to {} …", self.describe()));
        self.open_with(persona, scopes, device, &|text| progress.say(text)).await
    }

    /// The same with the caller's own progress line.
    pub async fn open_with(
        &self,
        persona: Persona,
        scopes: &[&str],
        device: DeviceUse,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<Link, RemoteError> {
        self.open_events(persona, scopes, device, say).await.map(|(link, _)| link)
    }

    /// The same with the events of the connection.
    pub async fn open_events(
        &self,
        persona: Persona,
        scopes: &[&str],
        device: DeviceUse,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<(Link, Events), RemoteError> {
        let deadline = Deadline::after(self.timeout);
        let waiting = |Waiting::Starting(text): Waiting| say(format!("The gateway is starting ({}) …", inert(&text)));
        let mut ask = Ask {
            params: persona.params(scopes),
            secrets: Secrets::default(),
            device,
            stored_tokens: self.target.may_use_stored_tokens(),
            store: &self.store,
            deadline,
            bootstrap: None,
            tunnels: &self.tunnels,
        };
        if let Some(path) = &self.target.owner_socket {
            match route::open_owner(path, &ask, &waiting).await {
                // A socket left behind by a killed gateway: ask the port instead.
                Err(RemoteError::Connect { .. }) => {}
                other => return other,
            }
        }
        ask.secrets = match self.target.secrets() {
            Ok(secrets) => secrets,
            Err(error) => return Err(RemoteError::Credentials(Box::new(error.clone()))),
        };
        let opened = route::open(&self.target.route, &ask, &waiting).await?;
        self.note_use(opened.0.taken.as_ref());
        Ok(opened)
    }

    /// Connects and stays connected.
    pub async fn session(
        &self,
        persona: Persona,
        scopes: &[&str],
        device: DeviceUse,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<(Session, mpsc::Receiver<Notice>), RemoteError> {
        let setup = Setup {
            route: self.target.route.clone(),
            owner: self.target.owner_socket.clone(),
            params: persona.params(scopes),
            secrets: self.target.secrets().map_err(Clone::clone),
            device,
            stored_tokens: self.target.may_use_stored_tokens(),
            store: Arc::new(IdentityStore::new(self.context.paths.clone())),
            tunnels: self.tunnels.clone(),
            patience: self.timeout,
        };
        let waiting = |Waiting::Starting(text): Waiting| say(format!("The gateway is starting ({}) …", inert(&text)));
        Session::open(setup, &waiting).await
    }

    /// Notes in the saved connection that it works and by which path. What cannot be noted stops nothing.
    pub fn note_use(&self, taken: Option<&Taken>) {
        let (Some(name), Some(taken)) = (&self.target.route.name, taken) else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let noted = Connections::new(&self.context.paths).note_use(name, taken.path.kind(), now_ms);
        if let Err(error) = noted {
            tracing::debug!(%error, "the use of the connection could not be noted");
        }
    }

    /// Adds where it went to an error.
    pub fn failure(&self, error: &RemoteError) -> Failure {
        let (target, paths) = (&self.target, &self.context.paths);
        let failure = match error {
            RemoteError::Credentials(error) => credential_failure(error),
            RemoteError::Insecure(_) => insecure(error, &target.place),
            _ => Failure::remote(error, &target.place),
        };
        let failure = self.explain(failure, error);
        let source = target.named_by();
        let bind = target.is_local().then(|| self.loaded.gateway.bind.map_or("loopback", |bind| bind.as_str()));
        let failure = failure
            .fact("Gateway target", inert(&target.shown()).into_owned())
            .fact("Source", source.clone())
            .fact("Config", inert(&paths.display(&paths.config_file)).into_owned());
        let failure = match bind {
            Some(bind) => failure.fact("Bind", bind),
            None => failure,
        };
        failure.beside(
            "gateway",
            json!({
                "url": target.shown_url, "urlSource": source,
                "bindDetail": bind.map(|bind| format!("Bind: {bind}")),
            }),
        )
    }

    /// What only this side knows: which credential was sent, and where else the gateway may be.
    fn explain(&self, failure: Failure, error: &RemoteError) -> Failure {
        match error.leading() {
            RemoteError::Auth(_) => match &self.target.credentials {
                Ok(resolution) => {
                    let sent: Vec<&str> =
                        [resolution.token_source, resolution.password_source].into_iter().flatten().collect();
                    match sent.is_empty() {
                        true => failure.detail("No credential was found to send."),
                        false => failure.detail(format!("Sent: {}.", sent.join(" and "))),
                    }
                }
                Err(_) => failure,
            },
            RemoteError::Pairing(pairing) => match self.words(&pairing.error) {
                Some(words) => failure.detail(format!("The gateway's list shows it as: {words}")),
                None => failure,
            },
            RemoteError::Connect { .. } if self.target.is_local() => {
                match openclaw_remote::target::running_gateway(&self.context.paths) {
                    Some(url) if url != self.target.url => failure
                        .detail(format!("A gateway of this profile last listened on {}.", inert(&url.to_string()))),
                    _ => {
                        failure.remedy("if it runs elsewhere, open a tunnel first", self.target.place.tunnel_command())
                    }
                }
            }
            _ => failure,
        }
    }

    /// The three words by which the owner recognises this device's request, on gateways that show them.
    fn words(&self, refusal: &openclaw_protocol::ErrorShape) -> Option<String> {
        use openclaw_gateway::pairing::words::{RequestDigest, three_words};
        use openclaw_protocol::{Role, ScopeSet};
        let details = refusal.details.as_ref()?;
        // Only this program's gateways send it, and only they show words.
        details.get("remediation")?;
        let key = self.store.key(false).ok()??;
        let role = Role::parse(details.get("requestedRole")?.as_str()?)?;
        let scopes: Vec<&str> = details
            .get("requestedScopes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Some(three_words(&RequestDigest::of(key.public(), role, ScopeSet::parse(&scopes))).join("-"))
    }

    /// Where every credential could have come from, for `doctor --why`.
    pub fn considered(&self) -> &[Considered] {
        match &self.target.credentials {
            Ok(resolution) => &resolution.considered,
            Err(error) => &error.considered,
        }
    }
}

/// The plaintext refusal with the safe ways out (cli.md, failure matrix).
fn insecure(error: &RemoteError, place: &Place) -> Failure {
    let failure = Failure::remote(error, place);
    let message = format!("SECURITY ERROR: {}", failure.message());
    failure
        .with_message(message)
        .detail("Fix: use a wss:// URL for this gateway.")
        .detail("Safe ways to reach a gateway that listens on loopback:")
        .detail(format!("  - an SSH tunnel, then the local address: {}", place.tunnel_command()))
        .detail("  - Tailscale Serve or Funnel on the gateway host, then wss://<host>.<tailnet>.ts.net")
        .detail(
            "On a private network you trust: OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1 for this process (names only, never \
             public addresses).",
        )
}

/// A params object for a call.
pub fn object(text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Failure::new("--params must be a JSON object.")),
        Err(_) => Err(Failure::new("--params must be valid JSON.")),
    }
}
