//! Opening a route: its paths race, and the first proven hello wins.
//!
//! Each path starts with its head start over the better ones, or at once when nothing better is still under way. A gateway
//! that proved its identity and then refuses ends the race, since every path leads to the same one; a path that merely does
//! not work leaves it to the others. What loses is dropped: sockets close, and an ssh of our own ends with its future.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use openclaw_config::Paths;
use openclaw_protocol::{Secret, connect::ConnectParams};
use tokio::time::{Instant, timeout};

use crate::{
    client::{Client, Events},
    connect::{DeviceStore, DeviceUse, Plan, Secrets, Waiting, connect},
    deadline::Deadline,
    dial::Endpoint,
    error::{Error, PathFailure, PathFailures},
    path::{GatewayPath, Route},
    ssh::{Forward, Interaction, SshSpec},
    tls::Fingerprint,
    tunnel,
};

/// A supervisor answers at once or is stuck.
const TUNNEL_PATIENCE: Duration = Duration::from_millis(500);

/// What is asked of the gateway, whichever path leads to it.
#[derive(Clone)]
pub struct Ask<'a> {
    pub params: ConnectParams,
    pub secrets: Secrets,
    pub device: DeviceUse,
    /// As [`Plan::stored_tokens`].
    pub stored_tokens: bool,
    pub store: &'a dyn DeviceStore,
    pub deadline: Deadline,
    /// As [`Plan::bootstrap`].
    pub bootstrap: Option<Secret>,
    pub tunnels: &'a Tunnels,
}

/// Where this profile's tunnels are.
#[derive(Clone, Debug)]
pub struct Tunnels {
    /// `tunnels/` below it has one directory per supervisor.
    state_dir: PathBuf,
    /// Sockets of an ssh that lives as long as one command.
    own: PathBuf,
    interaction: Interaction,
    pin: Option<Fingerprint>,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Dialled from here.
    Direct,
    /// A running tunnel.
    Tunnel,
    /// An ssh that ends with this connection.
    Ssh,
}

/// The path a connection took.
#[derive(Clone, Debug)]
pub struct Taken {
    pub path: GatewayPath,
    /// Its place among the route's paths; 0 is the best.
    pub index: usize,
    pub carrier: Carrier,
}

/// A connection and the path below it.
pub struct Link {
    pub client: Client,
    /// `None` over the owner's socket.
    pub taken: Option<Taken>,
    forward: Option<Forward>,
}

impl Carrier {
    /// The word in JSON output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
            Self::Ssh => "ssh",
        }
    }
}

impl Tunnels {
    pub fn new(paths: &Paths) -> Self {
        let own = paths.state_dir.join("ssh");
        Self { state_dir: paths.state_dir.clone(), own, interaction: Interaction::Batch, pin: None }
    }

    /// Lets an ssh of our own ask the person at the terminal.
    pub fn asking(mut self) -> Self {
        self.interaction = Interaction::Ask;
        self
    }

    /// Expects this certificate of a gateway behind ssh (`gateway.remote.tlsFingerprint` beside an ssh target).
    pub const fn expecting(mut self, pin: Option<Fingerprint>) -> Self {
        self.pin = pin;
        self
    }

    /// The near end of a running tunnel that leads where `spec` leads. A tunnel that is known to be down just now counts as
    /// none, and so does one that does not say how it is.
    pub async fn running(&self, spec: &SshSpec) -> Option<PathBuf> {
        let (dir, status) = timeout(TUNNEL_PATIENCE, tunnel::find(&self.state_dir, spec)).await.ok()??;
        (status.state == tunnel::State::Up).then(|| dir.socket())
    }
}

impl Taken {
    /// `ssh me@box (tunnel, 1.2 ms)`.
    pub fn describe(&self, round_trip: Option<Duration>) -> String {
        let how = match self.carrier {
            Carrier::Direct => None,
            Carrier::Tunnel => Some("tunnel".to_owned()),
            Carrier::Ssh => Some("own ssh".to_owned()),
        };
        let round_trip = round_trip.map(|time| format!("{:.1} ms", time.as_secs_f64() * 1000.0));
        let notes: Vec<String> = how.into_iter().chain(round_trip).collect();
        match notes.is_empty() {
            true => self.path.label(),
            false => format!("{} ({})", self.path.label(), notes.join(", ")),
        }
    }
}

impl Link {
    /// Closes the connection, then the ssh below it.
    pub async fn close(self) {
        self.client.close().await;
        if let Some(forward) = self.forward {
            forward.close().await;
        }
    }
}

impl std::ops::Deref for Link {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Connects over the owner's socket, which needs no credential and leads nowhere else.
///
/// # Errors
/// As [`connect`]; [`Error::Connect`] for a socket that a killed gateway left behind.
pub async fn open_owner(
    socket: &Path,
    ask: &Ask<'_>,
    waiting: &(dyn Fn(Waiting) + Sync),
) -> Result<(Link, Events), Error> {
    let endpoint = Endpoint::OwnerSocket(socket.to_owned());
    let plan = Plan {
        endpoint: &endpoint,
        params: ask.params.clone(),
        secrets: Secrets::default(),
        device: DeviceUse::Never,
        stored_tokens: false,
        store: ask.store,
        deadline: ask.deadline,
        gateway: None,
        bootstrap: None,
    };
    let (client, events) = connect(plan, waiting).await?;
    Ok((Link { client, taken: None, forward: None }, events))
}

/// Connects over the first path that works.
///
/// # Errors
/// For a route of one path that nobody named, that path's error; else [`Error::Paths`] with one reason for each.
pub async fn open(route: &Route, ask: &Ask<'_>, waiting: &(dyn Fn(Waiting) + Sync)) -> Result<(Link, Events), Error> {
    let mut tunnels = Vec::with_capacity(route.paths.len());
    for path in &route.paths {
        tunnels.push(match path {
            GatewayPath::Direct(_) => None,
            GatewayPath::Ssh(spec) => ask.tunnels.running(spec).await,
        });
    }
    let tunnels = &tunnels;
    let delays: Vec<Duration> =
        route.paths.iter().zip(tunnels).map(|(path, tunnel)| path.head_start(tunnel.is_some())).collect();
    let mut starts = Starts::new(&delays);
    let mut attempts = FuturesUnordered::new();
    let mut failures: Vec<Option<Error>> = route.paths.iter().map(|_| None).collect();
    let started = Instant::now();
    loop {
        while let Some(index) = starts.due(started.elapsed()) {
            attempts.push(async move {
                let tunnel = tunnels[index].as_deref();
                (index, attempt(route, index, tunnel, ask, waiting).await)
            });
        }
        let next = starts.next().map(|delay| started + delay);
        tokio::select! {
            Some((index, outcome)) = attempts.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    starts.ended();
                    // It is the gateway that was meant, so what it says holds for every path.
                    let said = route.gateway.is_some() && error.reached_gateway();
                    failures[index] = Some(error);
                    if said {
                        break;
                    }
                }
            },
            () = sleep_until(next), if next.is_some() => {}
            else => break,
        }
    }
    drop(attempts);
    Err(failure(route, failures))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn failure(route: &Route, failures: Vec<Option<Error>>) -> Error {
    let each = route.paths.iter().zip(failures);
    let mut failed: Vec<PathFailure> =
        each.filter_map(|(path, error)| Some(PathFailure { path: path.label(), error: error? })).collect();
    match (&route.name, failed.len()) {
        (None, 1) => failed.remove(0).error,
        _ => Error::Paths(Box::new(PathFailures::new(route.name.clone(), failed))),
    }
}

async fn attempt(
    route: &Route,
    index: usize,
    tunnel: Option<&Path>,
    ask: &Ask<'_>,
    waiting: &(dyn Fn(Waiting) + Sync),
) -> Result<(Link, Events), Error> {
    let path = &route.paths[index];
    let taken = |carrier| Some(Taken { path: path.clone(), index, carrier });
    let spec = match path {
        GatewayPath::Direct(direct) => {
            let (client, events) = connect(plan(route, &direct.endpoint(), ask), waiting).await?;
            return Ok((Link { client, taken: taken(Carrier::Direct), forward: None }, events));
        }
        GatewayPath::Ssh(spec) => spec,
    };
    if let Some(socket) = tunnel {
        let endpoint = Endpoint::Tunnel { socket: socket.to_owned(), origin: spec.origin(), pin: ask.tunnels.pin };
        match connect(plan(route, &endpoint, ask), waiting).await {
            Ok((client, events)) => {
                return Ok((Link { client, taken: taken(Carrier::Tunnel), forward: None }, events));
            }
            // The tunnel is down just now or was left behind; a fresh ssh may do, or knows why not.
            Err(error) if is_broken_tunnel(&error) => {
                tracing::debug!(%error, "the running tunnel does not lead to the gateway");
            }
            Err(error) => return Err(error),
        }
    }
    let forward = Forward::open(spec, &ask.tunnels.own, ask.tunnels.interaction, ask.deadline).await;
    let forward = forward.map_err(|failure| Error::Ssh(Box::new(failure)))?;
    let socket = forward.socket().to_owned();
    let endpoint = Endpoint::Tunnel { socket, origin: spec.origin(), pin: ask.tunnels.pin };
    match connect(plan(route, &endpoint, ask), waiting).await {
        Ok((client, events)) => Ok((Link { client, taken: taken(Carrier::Ssh), forward: Some(forward) }, events)),
        // Only ssh knows that nothing listens behind it.
        Err(error) => Err(forward.explain(error).await),
    }
}

const fn is_broken_tunnel(error: &Error) -> bool {
    use crate::error::Stage;
    matches!(error, Error::Connect { .. } | Error::Upgrade { .. })
        || matches!(error, Error::Closed { stage: Stage::Connect | Stage::Http | Stage::Protocol, .. })
}

fn plan<'a>(route: &Route, endpoint: &'a Endpoint, ask: &Ask<'a>) -> Plan<'a> {
    Plan {
        endpoint,
        params: ask.params.clone(),
        secrets: ask.secrets.clone(),
        device: ask.device,
        stored_tokens: ask.stored_tokens,
        store: ask.store,
        deadline: ask.deadline,
        gateway: route.gateway.clone(),
        bootstrap: ask.bootstrap.clone(),
    }
}

/// Which path starts when.
#[derive(Debug)]
struct Starts {
    /// Index and head start of the paths that have not started, the next one last.
    waiting: Vec<(usize, Duration)>,
    under_way: usize,
}

impl Starts {
    fn new(delays: &[Duration]) -> Self {
        let mut waiting: Vec<_> = delays.iter().copied().enumerate().collect();
        waiting.sort_by_key(|(index, delay)| std::cmp::Reverse((*delay, *index)));
        Self { waiting, under_way: 0 }
    }

    /// A path to start now: its head start is over, or nothing else is under way.
    fn due(&mut self, elapsed: Duration) -> Option<usize> {
        let (index, delay) = *self.waiting.last()?;
        if delay > elapsed && self.under_way > 0 {
            return None;
        }
        self.waiting.pop();
        self.under_way += 1;
        Some(index)
    }

    /// When the next one starts at the latest, counted from the beginning.
    fn next(&self) -> Option<Duration> {
        self.waiting.last().map(|(_, delay)| *delay)
    }

    fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_best_starts_first_and_the_next_waits_its_head_start() {
        let mut starts = Starts::new(&[ms(0), ms(150), ms(100), ms(0)]);
        assert_eq!((starts.due(ms(0)), starts.due(ms(0)), starts.due(ms(0))), (Some(0), Some(3), None));
        assert_eq!(starts.next(), Some(ms(100)));
        assert_eq!((starts.due(ms(99)), starts.due(ms(100)), starts.due(ms(100))), (None, Some(2), None));
        assert_eq!((starts.next(), starts.due(ms(150)), starts.next()), (Some(ms(150)), Some(1), None));
    }

    #[test]
    fn a_failure_brings_the_next_one_forward_when_nothing_else_runs() {
        let mut starts = Starts::new(&[ms(0), ms(100), ms(200)]);
        assert_eq!(starts.due(ms(0)), Some(0));
        starts.ended();
        assert_eq!((starts.due(ms(1)), starts.due(ms(1))), (Some(1), None));
        starts.ended();
        assert_eq!(starts.due(ms(2)), Some(2));
    }

    #[test]
    fn a_lone_late_path_does_not_wait() {
        assert_eq!(Starts::new(&[ms(200)]).due(ms(0)), Some(0));
    }
}
