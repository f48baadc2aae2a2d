//! Pairing this machine and the first real call: the same for both ways in.

use std::time::Instant;

use openclaw_config::Paths;
use openclaw_protocol::{GatewayId, Secret};
use openclaw_remote::{
    Client, Deadline, Endpoint, Error as RemoteError, Events, Stage,
    connect::{DeviceStore as _, DeviceUse, Persona, Plan, Secrets, connect, token_origin},
};
use serde_json::{Value, json};

use super::{kept::Keeping, report::Told};
use crate::output::inert;

/// What proves that this machine may be paired.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A one-time code.
    Code(Secret),
    /// The gateway's own token, given by the person for this one time.
    Token(Secret),
}

/// A machine on its way to being paired.
pub struct Pairing {
    pub keeping: Keeping,
    pub scopes: Vec<String>,
    /// Who has to answer; known after the gateway said so over ssh, or from the code.
    pub gateway: Option<GatewayId>,
    /// The proof was sent, and no clear refusal came.
    pub may_be_paired: bool,
    connection: Option<(Client, Events)>,
}

impl Pairing {
    pub fn new(paths: &Paths, scopes: Vec<String>) -> Self {
        Self { keeping: Keeping::new(paths), scopes, gateway: None, may_be_paired: false, connection: None }
    }

    pub const fn client(&self) -> Option<&Client> {
        match &self.connection {
            Some((client, _)) => Some(client),
            None => None,
        }
    }

    /// Connects with the proof. Nothing is sent to a gateway that has to be another.
    ///
    /// # Errors
    /// Every stage; [`RemoteError::Pairing`] when the owner has to approve it first.
    pub async fn pair(&mut self, endpoint: &Endpoint, proof: &Proof, deadline: Deadline) -> Result<(), RemoteError> {
        self.may_be_paired = true;
        match self.attempt(endpoint, proof, deadline).await {
            Ok(opened) => self.connection = Some(opened),
            Err(error) => {
                // Before its answer was awaited nothing had been sent, and a refusal is an answer.
                self.may_be_paired = error.stage() == Stage::Auth && !error.reached_gateway();
                return Err(error);
            }
        }
        if self.keeping.has_token() {
            return Ok(());
        }
        let reason = "it let this machine in and gave it no token of its own".to_owned();
        Err(RemoteError::NotAGateway { reason })
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        proof: &Proof,
        deadline: Deadline,
    ) -> Result<(Client, Events), RemoteError> {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        match proof {
            Proof::Code(code) => {
                let plan = Plan {
                    endpoint,
                    params: Persona::Cli.params(&scopes),
                    secrets: Secrets::default(),
                    device: DeviceUse::WhenNeeded,
                    stored_tokens: false,
                    store: &self.keeping,
                    deadline,
                    gateway: self.gateway.clone(),
                    bootstrap: Some(code.clone()),
                };
                connect(plan, &|_| ()).await
            }
            Proof::Token(token) => self.with_token(endpoint, token, &scopes, deadline).await,
        }
    }

    /// One signed handshake beside the gateway's token: next to the gateway that pairs a device.
    async fn with_token(
        &self,
        endpoint: &Endpoint,
        token: &Secret,
        scopes: &[&str],
        deadline: Deadline,
    ) -> Result<(Client, Events), RemoteError> {
        let key = self.keeping.device().map_err(RemoteError::Identity)?;
        let mut params = Persona::Cli.params(scopes);
        params.client.display_name = Some(host_name());
        params.auth.token = Some(token.clone());
        let open = async |params| Client::open(endpoint, params, Some(&key), deadline, self.gateway.as_ref()).await;
        let (client, events) = match open(params.clone()).await {
            Err(RemoteError::Protocol { expected: Some(version @ (3 | 4)), .. }) => {
                (params.min_protocol, params.max_protocol) = (version, version);
                open(params).await?
            }
            other => other?,
        };
        if let Some(auth) = &client.hello().auth
            && let Some(token) = &auth.device_token
        {
            let origin = match (&self.gateway, endpoint) {
                (Some(gateway), _) => token_origin(gateway),
                (None, Endpoint::Tunnel { origin, .. }) => origin.clone(),
                (None, Endpoint::Url { url, .. }) => url.origin(),
                (None, Endpoint::OwnerSocket(_)) => return Ok((client, events)),
            };
            self.keeping.remember(&origin, "operator", token, &auth.scopes);
        }
        Ok((client, events))
    }

    /// The rights the gateway gave, and what is missing of those asked for.
    pub fn told(&self) -> Told {
        let granted = self.granted();
        let short = |scope: &String| inert(scope.trim_start_matches("operator.")).into_owned();
        let names: Vec<String> = granted.iter().map(short).collect();
        let device = self.keeping.device().map(|key| key.id());
        let device = device.as_ref().map(|id| id.short().to_owned()).unwrap_or_default();
        let text = match names.is_empty() {
            true => format!("this machine is {device}, with the rights of the code"),
            false => format!("this machine is {device}: {}", names.join(", ")),
        };
        Told { text, more: json!({"scopes": granted}) }
    }

    /// The scopes of the hello.
    pub fn granted(&self) -> Vec<String> {
        self.client()
            .and_then(|client| client.hello().auth.as_ref())
            .map(|auth| auth.scopes.clone())
            .unwrap_or_default()
    }

    /// A call whose answer only the gateway's own state can give.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call(&self, deadline: Deadline) -> Result<Told, RemoteError> {
        let Some(client) = self.client() else {
            return Err(RemoteError::NotAGateway { reason: "there is no connection".to_owned() });
        };
        let started = Instant::now();
        let report = client.call("health", Some(json!({})), deadline.left()).await?;
        let took = started.elapsed();
        let state = if report["ok"] == Value::Bool(false) { "not ok" } else { "ok" };
        let ms = took.as_secs_f64() * 1000.0;
        Ok(Told {
            text: format!("health: {state}, answered in {ms:.1} ms"),
            more: json!({"method": "health", "ms": ms}),
        })
    }

    /// Says goodbye.
    pub async fn end(&mut self) {
        if let Some((client, _)) = self.connection.take() {
            client.close().await;
        }
    }
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
