//! Connecting by ssh: log in, ask the far openclaw for a one-time code, pair through a tunnel of our own.
//!
//! ssh is first run so that it asks nothing, which keeps it out of the terminal; only where that is refused may it ask the
//! person, on its own terminal and in its own words.

use std::time::Duration;

use openclaw_config::connections::{Connection, ConnectionName, PathKind, SavedPath};
use openclaw_protocol::{DeviceId, method::invite::GatewayAddress};
use openclaw_remote::{
    Client, Deadline, Error as RemoteError, GatewayPath, GatewayUrl, Place,
    path::Direct,
    ssh::{self, Forward, Interaction, Program, RemoteCommand, SshFailure, SshFailureKind, SshSpec},
    tunnel::{ControlError, Status, TunnelDir, TunnelName, control},
};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    far::{self, Answer, Kind, Question},
    kept,
    pair::{Pairing, Proof, host_name},
    refusal::{self, is_plain, ssh_words},
    report::{Told, Waiting},
    step::{Step, Trace},
    steps::{Journal, Work},
};
use crate::{
    command::tunnel,
    context::Context,
    failure::Failure,
    output::{self, Tone, inert, time::now_ms},
};

/// The login, the tunnel and the handshake, when nobody is asked anything.
const STEP_TIME: Duration = Duration::from_secs(20);
/// The official CLI takes 2 to 8 s to start on a small machine, and is started up to three times.
const FAR_TIME: Duration = Duration::from_secs(60);
/// The background tunnel. Less than [`super::steps::BACK_TIME`]: an interruption waits for it before it takes it back.
const KEEP_TIME: Duration = Duration::from_secs(10);
/// A beat to the other side of the earth and back.
const ONE_BEAT: Duration = Duration::from_millis(500);
/// A person looks for a passphrase.
const ASKING_TIME: Duration = Duration::from_secs(180);

/// What was asked for.
pub struct Wish {
    pub spec: SshSpec,
    /// The gateway's port was given, so the far side is not asked for it.
    pub port_given: bool,
    pub name: ConnectionName,
    pub scopes: Vec<String>,
    pub token: Option<openclaw_protocol::Secret>,
    pub keep: bool,
    pub make_current: bool,
    pub timeout: Option<Duration>,
    /// There is a person at a terminal.
    pub may_ask: bool,
}

/// What came of it, for the summary.
#[derive(Debug, Default)]
pub struct Outcome {
    pub gateway_version: Option<String>,
    pub paths: Vec<SavedPath>,
    /// ssh has to ask each time, so nothing without a terminal can use this path.
    pub asks_each_time: bool,
    pub kept: bool,
}

/// The work.
pub struct BySsh<'a> {
    context: &'a Context,
    waiting: Waiting,
    wish: Wish,
    pub pairing: Pairing,
    pub outcome: Outcome,
    forward: Option<Forward>,
    answer: Answer,
    proof: Option<Proof>,
    /// This device was among the paired ones before: then its pairing is not ours to take back.
    was_paired: bool,
    /// Batch mode does not suffice.
    asks: bool,
    /// The background tunnel on its way up.
    starting: Option<JoinHandle<Result<Status, Failure>>>,
}

impl<'a> BySsh<'a> {
    pub fn new(context: &'a Context, wish: Wish, waiting: Waiting) -> Self {
        let pairing = Pairing::new(&context.paths, wish.scopes.clone());
        Self {
            context,
            waiting,
            wish,
            pairing,
            outcome: Outcome::default(),
            forward: None,
            answer: Answer::default(),
            proof: None,
            was_paired: false,
            asks: false,
            starting: None,
        }
    }

    /// The command by which a person removes this device from here.
    pub fn removal(&self, device: &DeviceId) -> String {
        let cli = self.answer.cli.as_deref().filter(|cli| is_plain(cli)).unwrap_or("openclaw");
        format!("{} {cli} devices remove {device}", ssh_words(&self.wish.spec))
    }

    fn deadline(&self, default: Duration, interaction: Interaction) -> Deadline {
        let limit = match interaction {
            Interaction::Batch => self.wish.timeout.unwrap_or(default),
            Interaction::Ask => ASKING_TIME.max(default),
        };
        Deadline::after(limit)
    }

    /// How ssh is run first.
    const fn first(&self) -> Interaction {
        if self.asks { Interaction::Ask } else { Interaction::Batch }
    }

    /// True when the same may be tried once more with questions.
    fn may_ask_after(&mut self, failure: &SshFailure, tried: Interaction) -> bool {
        let curable = matches!(failure.kind, SshFailureKind::AuthRefused | SshFailureKind::HostUnknown);
        if !curable || !self.wish.may_ask || tried == Interaction::Ask {
            return false;
        }
        self.asks |= failure.kind == SshFailureKind::AuthRefused;
        true
    }

    /// Leaves the terminal to an ssh that may ask.
    fn hand_over(&self, interaction: Interaction) {
        if interaction == Interaction::Ask {
            self.waiting.stop();
            output::note(self.context.output.err.paint(Tone::Dim, "  ssh asks:"));
        }
    }

    async fn open_forward(&mut self) -> Result<Forward, SshFailure> {
        let dir = self.context.paths.state_dir.join("ssh");
        let mut interaction = self.first();
        loop {
            self.hand_over(interaction);
            let deadline = self.deadline(STEP_TIME, interaction);
            match Forward::open(&self.wish.spec, &dir, interaction, deadline).await {
                Err(failure) if self.may_ask_after(&failure, interaction) => interaction = Interaction::Ask,
                done => return done,
            }
        }
    }

    async fn ask_far(&mut self, question: &Question<'_>) -> Result<(Answer, String), SshFailure> {
        let tag = tag();
        let remote: RemoteCommand = far::command(&tag, question);
        let mut interaction = self.first();
        loop {
            self.hand_over(interaction);
            let deadline = self.deadline(FAR_TIME, interaction);
            let ran = ssh::run_once(&self.wish.spec, &remote, far::SCRIPT.as_bytes(), interaction, deadline).await;
            match ran {
                Err(failure) if self.may_ask_after(&failure, interaction) => interaction = Interaction::Ask,
                Err(failure) => return Err(failure),
                Ok(output) => return Ok((Answer::read(&tag, &output.stdout), output.stderr)),
            }
        }
    }

    async fn find_ssh(&self) -> Result<Told, Failure> {
        let program = Program::find().map_err(of_ssh)?;
        Ok(Told::new(inert(&program.path().display().to_string()).into_owned()))
    }

    async fn log_in(&mut self) -> Result<Told, Failure> {
        let effective = ssh::effective(&self.wish.spec.target).await.map_err(of_ssh)?;
        self.forward = Some(self.open_forward().await.map_err(of_ssh)?);
        let user = effective.user.as_deref().or(self.wish.spec.target.user());
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let port = effective.port.filter(|port| *port != 22).map(|port| format!(":{port}")).unwrap_or_default();
        let jump = effective.proxy_jump.as_deref().map(|jump| format!(" through {jump}")).unwrap_or_default();
        let text = inert(&format!("{user}{}{port}{jump}", effective.host)).into_owned();
        Ok(Told { more: json!({"host": effective.host, "user": effective.user}), text })
    }

    async fn find_gateway(&mut self) -> Result<Told, Failure> {
        let label = host_name();
        let known = self.pairing.keeping.known().map_err(Failure::new)?;
        let scopes = self.wish.scopes.clone();
        let port = self.wish.port_given.then_some(self.wish.spec.gateway_port);
        let question = Question::Invite { port, scopes: &scopes, label: &label, list: known.is_some() };
        let (answer, stderr) = self.ask_far(&question).await.map_err(of_ssh)?;
        self.answer = answer;
        let invitation = self.answer.invitation();
        // Not knowing whether it was paired counts as paired: what is not ours is not taken back.
        self.was_paired = known.is_some_and(|key| self.answer.is_paired(&key.id()).unwrap_or(true));
        let gateway = match (invitation, &self.wish.token) {
            (Ok(invitation), _) => {
                self.proof = Some(Proof::Code(invitation.token));
                invitation.gateway
            }
            (Err(_), Some(token)) => {
                self.proof = Some(Proof::Token(token.clone()));
                None
            }
            (Err(reason), None) => return Err(refusal::explain(&self.answer, &self.wish.spec, &reason, &stderr)),
        };
        let port = gateway.as_ref().map(|gateway| gateway.port).or(self.answer.port);
        if let (Some(port), false) = (port, self.wish.port_given) {
            self.wish.spec.gateway_port = port;
        }
        let mut version = self.answer.short_version().map(str::to_owned);
        if let Some(gateway) = gateway {
            self.outcome.paths = gateway.addresses.iter().filter_map(saved_address).collect();
            version = Some(gateway.version);
            self.pairing.gateway = Some(gateway.id);
        }
        self.outcome.gateway_version.clone_from(&version);
        let host = self.answer.host.as_deref().unwrap_or(self.wish.spec.target.host());
        let program = if self.answer.kind == Some(Kind::Official) { "official OpenClaw" } else { "OpenClaw" };
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        let code = match self.proof {
            Some(Proof::Code(_)) => "one-time code received",
            _ => "the given token will be used once",
        };
        let text = format!("{program}{version} on {host}, port {}; {code}", self.wish.spec.gateway_port);
        let text = inert(&text).into_owned();
        let more = json!({"version": self.outcome.gateway_version, "port": self.wish.spec.gateway_port,
            "official": self.answer.kind == Some(Kind::Official)});
        Ok(Told { text, more })
    }

    async fn open_tunnel(&mut self) -> Result<Told, Failure> {
        let right = |forward: &Forward, spec: &SshSpec| forward.spec().gateway_port == spec.gateway_port;
        if !self.forward.as_ref().is_some_and(|forward| right(forward, &self.wish.spec)) {
            if let Some(forward) = self.forward.take() {
                forward.close().await;
            }
            self.forward = Some(self.open_forward().await.map_err(of_ssh)?);
        }
        let deadline = self.deadline(STEP_TIME, Interaction::Batch);
        let forward = self.forward()?;
        let shown = match Client::identify(&forward.endpoint(), deadline, self.pairing.gateway.as_ref()).await {
            Ok(shown) => shown,
            Err(error) => return Err(self.remote(forward.explain(error).await)),
        };
        let round_trip = fresh_round_trip(forward).await;
        let told_before = self.pairing.gateway.is_some();
        let ms =
            round_trip.map(|time| format!(", round trip {:.1} ms", time.as_secs_f64() * 1000.0)).unwrap_or_default();
        let text = match &shown {
            Some(id) if told_before => format!("the gateway proved to be {}, as it said over ssh{ms}", id.short()),
            Some(id) => format!("the gateway proved to be {}{ms}", id.short()),
            None => format!("the gateway answers{ms}; it has no proof of identity, so ssh's host key stands for it"),
        };
        let more = json!({"gatewayId": shown, "roundTripMs": round_trip.map(|time| time.as_secs_f64() * 1000.0)});
        // What came over ssh from the gateway's own host may be held to from now on.
        self.pairing.gateway = shown;
        Ok(Told { text, more })
    }

    async fn pair(&mut self, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        let device = self.pairing.keeping.device().map_err(Failure::new)?.id();
        if !self.was_paired {
            journal.about_to(Trace::Pairing(device));
        }
        let Some(proof) = self.proof.clone() else { return Err(Failure::new("There is no one-time code.")) };
        let deadline = self.deadline(STEP_TIME, Interaction::Batch);
        let endpoint = self.forward()?.endpoint();
        let mut paired = self.pairing.pair(&endpoint, &proof, deadline).await;
        // A gateway that wants an approval all the same gets the owner's, who is logged in there.
        if let Err(RemoteError::Pairing(pending)) = &paired
            && let Some(request) = pending.request_id.clone().filter(|id| is_plain(id))
        {
            let (answer, _) = self.ask_far(&Question::Approve(&request)).await.map_err(of_ssh)?;
            if answer.outcome.is_some_and(|(code, _)| code == 0) {
                let deadline = self.deadline(STEP_TIME, Interaction::Batch);
                paired = self.pairing.pair(&endpoint, &proof, deadline).await;
            }
        }
        match paired {
            Ok(()) => Ok(self.pairing.told()),
            Err(error) => Err(self.remote(self.forward()?.explain(error).await)),
        }
    }

    fn save(&mut self, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        let device = self.pairing.keeping.save(journal).map_err(|reason| not_saved(&reason))?;
        self.outcome.paths.push(GatewayPath::Ssh(self.wish.spec.clone()).to_saved());
        let now = now_ms();
        let connection = Connection {
            gateway_id: self.pairing.gateway.clone(),
            device_id: Some(device),
            paths: self.outcome.paths.clone(),
            created_at_ms: now,
            last_used_at_ms: Some(now),
            last_path: Some(PathKind::Ssh),
            ..Connection::default()
        };
        let (name, current) = (&self.wish.name, self.wish.make_current);
        kept::save_connection(&self.context.paths, name, connection, current, journal)
            .map_err(|reason| not_saved(&reason))?;
        self.outcome.asks_each_time = self.asks;
        let kinds: Vec<&str> = self.outcome.paths.iter().map(|path| path.kind().as_str()).collect();
        let current = if current { "; every command goes there now" } else { "" };
        Ok(Told::new(format!("as \"{name}\" ({}){current}", kinds.join(", "))))
    }

    /// Starts the background tunnel. Not where ssh asks each time: nobody is there to answer.
    async fn keep(&mut self, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        if !self.wish.keep {
            return Ok(Told::new("no tunnel is kept, as you wished"));
        }
        if self.asks {
            return Ok(Told::new("no tunnel is kept: ssh would have to ask you each time"));
        }
        let name = self.wish.name.clone();
        if let Some(dir) = tunnel_dir(self.context, &name)
            && control::ask_status(&dir).await.is_err()
        {
            journal.about_to(Trace::Tunnel(name.clone()));
        }
        // It has an event loop of its own.
        let context = Context {
            output: self.context.output,
            env: self.context.env.clone(),
            paths: self.context.paths.clone(),
            on: None,
        };
        let limit = self.wish.timeout.unwrap_or(KEEP_TIME).min(KEEP_TIME);
        self.waiting.stop();
        let task = tokio::task::spawn_blocking(move || tunnel::keep(&context, name.as_str(), limit));
        let ended = self.starting.insert(task).await;
        self.starting = None;
        let status = match ended {
            Ok(kept) => kept?,
            Err(error) => return Err(Failure::new(format!("The tunnel's process could not be watched: {error}."))),
        };
        self.outcome.kept = true;
        let text = "the tunnel stays up in the background".to_owned();
        Ok(Told { text, more: json!({"tunnel": status.name}) })
    }

    /// Ends the background tunnel, however far it had come.
    async fn let_go(&mut self, name: &ConnectionName) -> Result<(), String> {
        if let Some(starting) = self.starting.take() {
            // It cannot be stopped half-way; it ends by itself within its own limit.
            let _ = starting.await;
        }
        let dir = tunnel_dir(self.context, name).filter(|dir| dir.control().exists());
        let Some(dir) = dir else { return Ok(()) };
        match control::ask_down(&dir).await {
            Ok(()) | Err(ControlError::NotRunning { .. }) => {
                let _ = std::fs::remove_dir_all(dir.path());
                let _ = std::fs::remove_dir(self.context.paths.tunnels_dir());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn forward(&self) -> Result<&Forward, Failure> {
        self.forward.as_ref().ok_or_else(|| Failure::new("The tunnel is not open."))
    }

    fn remote(&self, error: RemoteError) -> Failure {
        let spec = &self.wish.spec;
        let place = Place {
            tunnel: true,
            port: spec.gateway_port,
            remote_port: spec.gateway_port,
            ssh_target: Some(spec.target.to_string()),
            ..Place::default()
        };
        Failure::remote(&error, &place)
    }
}

impl Work for BySsh<'_> {
    type Step = Step;
    type Trace = Trace;
    type Told = Told;
    type Failure = Failure;

    async fn perform(&mut self, step: Step, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        match step {
            Step::Ssh => self.find_ssh().await,
            Step::Login => self.log_in().await,
            Step::Gateway => self.find_gateway().await,
            Step::Tunnel | Step::Reach => self.open_tunnel().await,
            Step::Pair => self.pair(journal).await,
            Step::Call => {
                let deadline = self.deadline(STEP_TIME, Interaction::Batch);
                match self.pairing.call(deadline).await {
                    Ok(told) => Ok(told),
                    Err(error) => Err(self.remote(error)),
                }
            }
            Step::Save => self.save(journal),
            Step::Keep => self.keep(journal).await,
        }
    }

    async fn take_back(&mut self, trace: &Trace) -> Result<(), String> {
        match trace {
            Trace::Pairing(device) => {
                if !self.pairing.may_be_paired {
                    return Ok(());
                }
                // Its own connection would be closed in the middle of the answer.
                self.pairing.end().await;
                let (answer, _) =
                    self.ask_far(&Question::Remove(device)).await.map_err(|failure| failure.to_string())?;
                match (&answer.outcome, answer.is_paired(device)) {
                    (Some((0, _)), _) | (_, Some(false)) => Ok(()),
                    (Some((code, _)), _) => Err(format!("the far openclaw ended with {code}")),
                    (None, _) => Err("the far side gave no answer".to_owned()),
                }
            }
            Trace::Tunnel(name) => self.let_go(name).await,
            other => kept::take_back(&self.context.paths, other),
        }
    }

    async fn end(&mut self) {
        self.pairing.end().await;
        if let Some(forward) = self.forward.take() {
            forward.close().await;
        }
        // The sockets' directory, and the state directory of a machine that had none: only where they are empty.
        let state = &self.context.paths.state_dir;
        let _ = std::fs::remove_dir(state.join("ssh")).and_then(|()| std::fs::remove_dir(state));
    }
}

/// The round trip of a beat sent now: the first one had the login and the far shell in it.
async fn fresh_round_trip(forward: &Forward) -> Option<Duration> {
    let mut pulse = forward.pulse();
    pulse.mark_unchanged();
    forward.beat();
    let _ = tokio::time::timeout(ONE_BEAT, pulse.changed()).await;
    forward.round_trip()
}

fn of_ssh(failure: SshFailure) -> Failure {
    Failure::remote(&RemoteError::Ssh(Box::new(failure)), &Place::default())
}

fn not_saved(reason: &str) -> Failure {
    Failure::new(format!("The gateway could not be saved on this machine: {}.", inert(reason)))
        .remedy("see who may write the state directory", "openclaw doctor")
}

/// An address of the gateway as a path, if it is one that a client may take.
fn saved_address(address: &GatewayAddress) -> Option<SavedPath> {
    let url = GatewayUrl::parse(&address.url).ok()?;
    let GatewayPath::Direct(path) = GatewayPath::direct(url) else { return None };
    let pin = address.tls_fingerprint.as_deref().map(str::parse).transpose().ok()?;
    if path.kind == PathKind::Loopback || (pin.is_some() && !path.url.is_secure()) {
        return None;
    }
    Some(GatewayPath::Direct(Box::new(Direct { pin, ..*path })).to_saved())
}

fn tunnel_dir(context: &Context, name: &ConnectionName) -> Option<TunnelDir> {
    TunnelName::parse(name.as_str()).map(|name| TunnelDir::new(&context.paths.state_dir, &name))
}

/// What begins each line of one answer, so that nothing else printed there is taken for it.
fn tag() -> String {
    let mut random = [0; 8];
    // Without randomness the tag is merely easier to meet by accident.
    let _ = getrandom::fill(&mut random);
    format!("oc-{}", openclaw_protocol::secret::hex(&random))
}
