//! Asking a gateway how far a client gets: name, connect, TLS, HTTP, protocol, auth, pairing, scope, call.
//!
//! One engine for `gateway probe`, `gateway status`, `status` and `doctor`, so that they cannot contradict each other.

use std::time::{Duration, Instant};

use openclaw_remote::{
    Client, Deadline, Error as RemoteError, Target,
    connect::{DeviceUse, Persona, Plan, connect},
    store::IdentityStore,
};
use serde_json::{Value, json};

use crate::output::inert;

const READ: &str = "operator.read";

/// What one probe found.
#[derive(Debug)]
pub struct Probed {
    /// From the first packet to hello, or to the refusal.
    pub latency: Duration,
    /// The server's hello, when there was one.
    pub hello: Option<Hello>,
    /// Why it went no further: the connection's error, or the first method's.
    pub error: Option<RemoteError>,
    pub answers: Answers,
}

/// What the gateway said of itself.
#[derive(Debug)]
pub struct Hello {
    pub version: String,
    pub conn_id: String,
    pub protocol: u32,
    pub role: String,
    pub scopes: Vec<String>,
}

/// Results of the read methods, where they were asked and allowed.
#[derive(Debug, Default)]
pub struct Answers {
    pub health: Option<Value>,
    pub status: Option<Value>,
    pub presence: Option<Value>,
    pub config: Option<Value>,
}

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Hello is enough.
    Connect,
    /// Also `health`, `status`, `system-presence` and `config.get`.
    Read,
}

impl Probed {
    /// Something answered as a gateway does.
    pub fn reached(&self) -> bool {
        self.hello.is_some() || self.error.as_ref().is_some_and(RemoteError::reached_gateway)
    }

    /// Connected and authenticated.
    pub const fn connected(&self) -> bool {
        self.hello.is_some()
    }

    /// The words of the reference for what the connection may do.
    pub fn capability(&self) -> &'static str {
        let Some(hello) = &self.hello else {
            return match &self.error {
                Some(RemoteError::Pairing(_)) => "pairing_pending",
                _ => "unknown",
            };
        };
        let scopes = openclaw_protocol::ScopeSet::parse(&hello.scopes);
        use openclaw_protocol::Scope;
        match () {
            () if scopes.grants(Scope::Admin) => "admin_capable",
            () if scopes.grants(Scope::Write) => "write_capable",
            () if scopes.grants(Scope::Read) => "read_only",
            () => "connected_no_operator_scope",
        }
    }

    /// True when the only fault is a missing scope.
    pub fn scope_limited(&self) -> bool {
        self.hello.is_some() && matches!(self.error, Some(RemoteError::Scope { .. }))
    }

    /// `auth` of JSON reports.
    pub fn auth_json(&self) -> Value {
        let hello = self.hello.as_ref();
        let scopes = hello.map(|hello| hello.scopes.clone()).unwrap_or_default();
        json!({"role": hello.map(|hello| &hello.role), "scopes": scopes,
            "capability": self.capability()})
    }

    pub fn server_json(&self) -> Value {
        let hello = self.hello.as_ref();
        json!({"version": hello.map(|hello| &hello.version), "connId": hello.map(|hello| &hello.conn_id)})
    }
}

/// Probes one target's URL. Never makes a device identity, never waits for a starting gateway beyond the deadline.
pub async fn probe(target: &Target, store: &IdentityStore, deadline: Deadline, depth: Depth) -> Probed {
    let started = Instant::now();
    let secrets = match target.secrets() {
        Ok(secrets) => secrets,
        Err(error) => {
            let error = Some(RemoteError::Credentials(Box::new(error.clone())));
            return Probed { latency: Duration::ZERO, hello: None, error, answers: Answers::default() };
        }
    };
    let endpoint = target.endpoint();
    let params = Persona::Probe.params(&[READ]);
    let plan = Plan {
        endpoint: &endpoint,
        params,
        secrets,
        device: DeviceUse::IfKnown,
        stored_tokens: target.may_use_stored_tokens(),
        store,
        deadline,
        gateway: None,
        bootstrap: None,
    };
    let client = match connect(plan, &|_| ()).await {
        Ok((client, _)) => client,
        Err(error) => {
            return Probed { latency: started.elapsed(), hello: None, error: Some(error), answers: Answers::default() };
        }
    };
    let latency = started.elapsed();
    let hello = client.hello();
    let (role, scopes) = match &hello.auth {
        Some(auth) => (auth.role.clone(), auth.scopes.clone()),
        // A v3 gateway may leave it out: what was asked is what it gave.
        None => ("operator".to_owned(), vec![READ.to_owned()]),
    };
    let hello = Hello {
        version: hello.server.version.clone(),
        conn_id: hello.server.conn_id.clone(),
        protocol: hello.protocol,
        role,
        scopes,
    };
    let (answers, error) = match depth {
        Depth::Connect => (Answers::default(), None),
        Depth::Read => read(&client, deadline.left()).await,
    };
    client.close().await;
    Probed { latency, hello: Some(hello), error, answers }
}

async fn read(client: &Client, limit: Duration) -> (Answers, Option<RemoteError>) {
    let ask = |method: &'static str, params: Option<Value>| client.call(method, params, limit);
    let (health, status, presence, config) = tokio::join!(
        ask("health", None),
        ask("status", None),
        ask("system-presence", None),
        ask("config.get", Some(json!({})))
    );
    let mut first = None;
    let mut keep = |answer: Result<Value, RemoteError>| match answer {
        Ok(value) => Some(value),
        Err(error) => {
            first.get_or_insert(error);
            None
        }
    };
    let answers =
        Answers { health: keep(health), status: keep(status), presence: keep(presence), config: keep(config) };
    (answers, first)
}
/// One line: what failed, with the system's own words for a connection.
pub fn short(error: &RemoteError) -> String {
    let text = match error {
        RemoteError::Connect { failure, source, endpoint } => match failure.errno() {
            Some(errno) => format!("connect {errno} {}", endpoint.split("://").last().unwrap_or_default()),
            None => source.to_string(),
        },
        RemoteError::Tls { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    inert(&text).into_owned()
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
