//! Connecting by a setup code: somebody carried it over, so no login is needed, and the gateway has to be reachable from
//! here by one of the code's addresses.

use std::time::Duration;

use openclaw_config::{
    connections::{Book, Connection, ConnectionName, SavedPath},
    env,
};
use openclaw_protocol::SetupCode;
use openclaw_remote::{
    Client, Deadline, Endpoint, Error as RemoteError, Fingerprint, GatewayPath, GatewayUrl, Place, path::Direct,
};
use serde_json::json;

use super::{
    kept, names,
    pair::{Pairing, Proof},
    report::{Told, Waiting},
    step::{Step, Trace},
    steps::{Journal, Work},
};
use crate::{
    context::Context,
    failure::{Failure, reason},
    output::{self, Tone, inert, time::now_ms},
};

/// One address, or one handshake.
const STEP_TIME: Duration = Duration::from_secs(10);

/// How long the owner may take to approve: as long as a request lives (handshake notes, section 7).
const APPROVAL_TIME: Duration = Duration::from_secs(300);
/// How often it is asked whether the owner has.
const RETRY: Duration = Duration::from_secs(2);

/// What was asked for.
pub struct Wish {
    pub code: SetupCode,
    pub name: Option<ConnectionName>,
    /// The names that are taken.
    pub names: Book,
    pub scopes: Vec<String>,
    pub make_current: bool,
    pub timeout: Option<Duration>,
}

/// The work.
pub struct ByCode<'a> {
    context: &'a Context,
    waiting: Waiting,
    wish: Wish,
    pub pairing: Pairing,
    pub name: Option<ConnectionName>,
    pub paths: Vec<SavedPath>,
    /// Every usable address, the one that answered first.
    found: Vec<Direct>,
}

impl<'a> ByCode<'a> {
    pub fn new(context: &'a Context, wish: Wish, waiting: Waiting) -> Self {
        let mut pairing = Pairing::new(&context.paths, wish.scopes.clone());
        pairing.gateway.clone_from(&wish.code.gateway_id);
        let name = wish.name.clone();
        Self { context, waiting, wish, pairing, name, paths: Vec::new(), found: Vec::new() }
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.wish.timeout.unwrap_or(STEP_TIME))
    }

    fn directs(&self) -> Result<Vec<Direct>, Failure> {
        let pin: Option<Fingerprint> = match self.wish.code.tls_fingerprint.as_deref().map(str::parse).transpose() {
            Ok(pin) => pin,
            Err(error) => return Err(Failure::new(format!("The setup code is damaged: {error}."))),
        };
        let allow_private_names = self.context.env.process_flag(env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS);
        let directs: Vec<Direct> = self
            .wish
            .code
            .urls
            .iter()
            .filter_map(|url| GatewayUrl::parse(url).ok())
            .filter_map(|url| match GatewayPath::direct(url) {
                GatewayPath::Direct(path) => {
                    let pin = pin.filter(|_| path.url.is_secure());
                    Some(Direct { pin, allow_private_names, ..*path })
                }
                GatewayPath::Ssh(_) => None,
            })
            .collect();
        if directs.is_empty() {
            return Err(Failure::new("The setup code holds no usable address."));
        }
        Ok(directs)
    }

    /// Asks each address who it is, without showing the code to anybody.
    async fn reach(&mut self) -> Result<Told, Failure> {
        let expired = self.wish.code.expires_at_ms.is_some_and(|at| at < now_ms());
        if expired {
            return Err(Failure::new("The setup code has expired.")
                .there("make a new one", "openclaw devices invite")
                .exit(openclaw_remote::Stage::Pairing.exit_code()));
        }
        let directs = self.directs()?;
        let mut failures: Vec<(String, RemoteError)> = Vec::new();
        let mut answered = None;
        for (index, direct) in directs.iter().enumerate() {
            match Client::identify(&endpoint(direct), self.deadline(), self.pairing.gateway.as_ref()).await {
                Ok(shown) => {
                    answered = Some((index, shown));
                    break;
                }
                Err(error) => failures.push((direct.url.to_string(), error)),
            }
        }
        let Some((index, shown)) = answered else {
            let several = failures.len() > 1;
            let lines: Vec<String> =
                failures.iter().map(|(url, error)| format!("  {}: {}", inert(url), reason(error))).collect();
            let Some((_, last)) = failures.pop() else { return Err(Failure::new("No address was tried.")) };
            let failure = Failure::remote(&last, &Place::default());
            return Err(match several {
                true => lines
                    .into_iter()
                    .fold(failure.with_message("None of the code's addresses answers."), Failure::detail),
                false => failure,
            });
        };
        let url = directs[index].url.clone();
        let host = url.host().to_string();
        self.found = directs;
        self.found.swap(0, index);
        if self.name.is_none() {
            self.name = Some(names::free_name(&self.wish.names, &host)?);
        }
        let proof = match (&shown, self.wish.code.gateway_id.is_some()) {
            (Some(id), true) => format!("; it proved to be {}, as the code says", id.short()),
            (Some(id), false) => format!("; it proved to be {}", id.short()),
            (None, _) => "; it has no proof of identity".to_owned(),
        };
        self.pairing.gateway = shown;
        let text = inert(&format!("{url}{proof}")).into_owned();
        Ok(Told { text, more: json!({"url": url.to_string(), "gatewayId": self.pairing.gateway}) })
    }

    async fn pair(&mut self, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        let device = self.pairing.keeping.device().map_err(Failure::new)?.id();
        // With a key from before there may have been a pairing from before, which is not ours to take back.
        if self.pairing.keeping.known().map_err(Failure::new)?.is_none() {
            journal.about_to(Trace::Pairing(device));
        }
        let Some(direct) = self.found.first() else { return Err(Failure::new("No address answered.")) };
        let proof = Proof::Code(self.wish.code.bootstrap_token.clone());
        let endpoint = endpoint(direct);
        let patience = Deadline::after(self.wish.timeout.unwrap_or(APPROVAL_TIME));
        let mut asked = None;
        loop {
            let deadline = self.deadline();
            match self.pairing.pair(&endpoint, &proof, deadline).await {
                Ok(()) => return Ok(self.pairing.told()),
                // The official release lets such a code ask, and its owner decide.
                Err(RemoteError::Pairing(pending)) if patience.left() > RETRY => {
                    let request = pending.request_id.clone().unwrap_or_default();
                    if asked.as_ref() != Some(&request) {
                        self.waiting.stop();
                        let command = format!("openclaw devices approve {}", inert(&request));
                        let style = self.context.output.err;
                        let command = style.paint(Tone::Command, &command);
                        output::note(format!("  Approve this machine on the gateway host: {command}"));
                        asked = Some(request);
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(remote(&error)),
            }
        }
    }

    fn save(&mut self, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        let failed = |reason: String| {
            Failure::new(format!("The gateway could not be saved on this machine: {}.", inert(&reason)))
                .remedy("see who may write the state directory", "openclaw doctor")
        };
        let Some(name) = self.name.clone() else { return Err(Failure::new("The gateway has no name.")) };
        let device = self.pairing.keeping.save(journal).map_err(failed)?;
        // Without a proof only the address that took the code is known to lead there.
        let known = if self.pairing.gateway.is_some() { self.found.len() } else { 1 };
        let paths: Vec<GatewayPath> =
            self.found.drain(..).take(known).map(|direct| GatewayPath::Direct(Box::new(direct))).collect();
        self.paths = paths.iter().map(GatewayPath::to_saved).collect();
        let now = now_ms();
        let connection = Connection {
            gateway_id: self.pairing.gateway.clone(),
            device_id: Some(device),
            last_path: self.paths.first().map(SavedPath::kind),
            paths: self.paths.clone(),
            created_at_ms: now,
            last_used_at_ms: Some(now),
            ..Connection::default()
        };
        kept::save_connection(&self.context.paths, &name, connection, self.wish.make_current, journal)
            .map_err(failed)?;
        let current = if self.wish.make_current { "; every command goes there now" } else { "" };
        Ok(Told::new(format!("as \"{name}\"{current}")))
    }
}

impl Work for ByCode<'_> {
    type Step = Step;
    type Trace = Trace;
    type Told = Told;
    type Failure = Failure;

    async fn perform(&mut self, step: Step, journal: &mut Journal<Trace>) -> Result<Told, Failure> {
        match step {
            Step::Pair => self.pair(journal).await,
            Step::Call => self.pairing.call(self.deadline()).await.map_err(|error| remote(&error)),
            Step::Save => self.save(journal),
            _ => self.reach().await,
        }
    }

    async fn take_back(&mut self, trace: &Trace) -> Result<(), String> {
        match trace {
            Trace::Pairing(device) => match self.pairing.client() {
                Some(client) => {
                    let params = json!({"deviceId": device});
                    let removed = client.call("device.pair.remove", Some(params), STEP_TIME).await;
                    removed.map(|_| ()).map_err(|error| inert(&error.to_string()).into_owned())
                }
                None if !self.pairing.may_be_paired => Ok(()),
                // The answer never came: whether the code was taken is known over there only.
                None => Err("the gateway did not say whether it paired this machine".to_owned()),
            },
            other => kept::take_back(&self.context.paths, other),
        }
    }

    async fn end(&mut self) {
        self.pairing.end().await;
    }
}

fn endpoint(direct: &Direct) -> Endpoint {
    Endpoint::Url {
        url: direct.url.clone(),
        pin: direct.pin,
        allow_private_names: direct.allow_private_names,
        edge: direct.edge.clone(),
    }
}

fn remote(error: &RemoteError) -> Failure {
    Failure::remote(error, &Place::default())
}
