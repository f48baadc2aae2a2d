//! Asking a gateway how far a client gets: name, connect, TLS, HTTP, protocol, auth, pairing, scope, call.
//!
//! One engine for `gateway probe`, `gateway status`, `status` and `doctor`, so that they cannot contradict each other.

use std::time::{Duration, Instant};

use openclaw_config::Paths;
use openclaw_protocol::GatewayId;
use openclaw_remote::{
    Client, Deadline, Error as RemoteError, Target,
    connect::{DeviceUse, Persona},
    route::{self, Ask, Taken, Tunnels},
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
    /// The path that answered.
    pub taken: Option<Taken>,
    /// A ping on that path, once connected.
    pub round_trip: Option<Duration>,
    /// Which gateway answered, if it proved it.
    pub gateway: Option<GatewayId>,
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

/// Probes one target by its paths. Never makes a device identity, never waits for a starting gateway beyond the deadline.
pub async fn probe(target: &Target, paths: &Paths, deadline: Deadline, depth: Depth) -> Probed {
    let started = Instant::now();
    let failed = |latency: Duration, error: RemoteError| Probed {
        latency,
        taken: None,
        round_trip: None,
        gateway: None,
        hello: None,
        error: Some(error),
        answers: Answers::default(),
    };
    let secrets = match target.secrets() {
        Ok(secrets) => secrets,
        Err(error) => {
            return failed(Duration::ZERO, RemoteError::Credentials(Box::new(error.clone())));
        }
    };
    let (store, tunnels) = (IdentityStore::new(paths.clone()), Tunnels::new(paths).expecting(target.pin_behind_ssh));
    let ask = Ask {
        params: Persona::Probe.params(&[READ]),
        secrets,
        device: DeviceUse::IfKnown,
        stored_tokens: target.may_use_stored_tokens(),
        store: &store,
        deadline,
        bootstrap: None,
        tunnels: &tunnels,
    };
    let client = match route::open(&target.route, &ask, &|_| ()).await {
        Ok((link, _)) => link,
        Err(error) => return failed(started.elapsed(), error),
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
    let round_trip = client.ping(deadline.left()).await.ok();
    let (taken, gateway) = (client.taken.clone(), client.gateway_id().cloned());
    client.close().await;
    Probed { latency, taken, round_trip, gateway, hello: Some(hello), error, answers }
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

/// `ssh me@box (tunnel, 1.2 ms)`: the path in use.
pub fn path_words(probed: &Probed) -> Option<String> {
    Some(inert(&probed.taken.as_ref()?.describe(probed.round_trip)).into_owned())
}

/// The same for JSON: `{"kind","address","carrier","roundTripMs"}`.
pub fn path_json(probed: &Probed) -> Value {
    probed.taken.as_ref().map_or(Value::Null, |taken| taken_json(taken, probed.round_trip))
}

/// The path of a connection for JSON.
pub fn taken_json(taken: &Taken, round_trip: Option<Duration>) -> Value {
    // Microseconds are as fine as a ping is true.
    let round_trip_ms = round_trip.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
    json!({"kind": taken.path.kind(), "address": taken.path.address(), "carrier": taken.carrier.as_str(),
        "roundTripMs": round_trip_ms})
}

/// One line: what failed, with the system's own words for a connection.
pub fn short(error: &RemoteError) -> String {
    let text = match error.leading() {
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
