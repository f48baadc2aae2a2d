//! `gateway`: how this gateway is, or another one that its owner named.
//!
//! Another gateway is reached as the command line reaches it: `gatewayToken` counts as explicit (S-074), an explicit URL
//! inherits nothing (S-075). A model cannot have this gateway call arbitrary places: only URLs its owner wrote into the config or
//! saved as a connection are dialled (P-84, P-91), and never with this machine's device identity.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use openclaw_agent::tool::{Answer, Call, Effects, Tool, ToolSpec};
use openclaw_config::{
    Connections, GatewayConfig, SecretContext,
    credentials::{ClientFlags, Surface},
};
use openclaw_protocol::{Scope, Secret};
use openclaw_remote::{
    connect::{DeviceStore, DeviceUse, Persona, StoredToken},
    deadline::Deadline,
    route::{self, Ask, Tunnels},
    target::Target,
    url::GatewayUrl,
};
use serde_json::{Value, json};

use super::arguments::Arguments;
use crate::{gateway::Gateway, runs::RunContext};

/// How long another gateway may take, like a command (10 s).
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_MS: u64 = 60_000;

pub struct GatewayTool {
    gateway: Arc<Gateway>,
    context: Arc<RunContext>,
    spec: ToolSpec,
}

impl GatewayTool {
    pub fn new((gateway, context): (Arc<Gateway>, Arc<RunContext>)) -> Self {
        let spec = ToolSpec {
            name: "gateway".into(),
            description:
                "How this gateway is: version, uptime, connections, nodes, conversations, runs. Another gateway the \
                          owner has set up can be asked with gatewayUrl and gatewayToken."
                    .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "action": {"type": "string", "enum": ["status", "health"]},
                    "gatewayUrl": {"type": "string"},
                    "gatewayToken": {"type": "string"},
                    "timeoutMs": {"type": "number"},
                },
                "required": ["action"],
            }),
        };
        Self { gateway, context, spec }
    }

    async fn act(&self, call: &Call) -> Result<Answer, Answer> {
        let arguments = Arguments(&call.arguments);
        let method = match arguments.needed("action")? {
            "status" => "status",
            "health" => "health",
            other => return Err(Answer::error(format!("There is no action {other:?}: status, health."))),
        };
        let (url, token) = (arguments.text("gatewayUrl"), arguments.text("gatewayToken"));
        if url.is_none() && token.is_none() {
            return Ok(Answer::text(self.own().to_string()));
        }
        if !self.context.authority.owner {
            return Err(Answer::error("Only the owner may have other gateways asked."));
        }
        let limit = arguments.number("timeoutMs", 100, MAX_MS).map_or(PATIENCE, Duration::from_millis);
        let asked = self.other(method, url, token, limit);
        let answer = tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err("the run was ended".to_owned()),
            answer = asked => answer,
        };
        answer.map(|value| Answer::text(value.to_string())).map_err(Answer::error)
    }

    /// This gateway, as far as the run may look.
    fn own(&self) -> Value {
        let gateway = &self.gateway;
        let nodes = crate::nodes::for_run::list_for_run(gateway, &self.context).unwrap_or_default();
        json!({
            "version": gateway.version, "uptimeMs": gateway.uptime_ms(), "port": gateway.port(),
            "connections": gateway.hub.count(), "failing": gateway.failing(), "config": gateway.reload_status(),
            "sessions": gateway.sessions.count(),
            "nodes": {"paired": nodes.len(), "connected": nodes.iter().filter(|node| node.connected).count()},
            "admin": self.context.authority.grants(Scope::Admin),
        })
    }

    async fn other(
        &self,
        method: &str,
        url: Option<&str>,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Value, String> {
        let runtime = self.gateway.runtime.load_full();
        let (paths, env) = (&self.gateway.paths, &self.gateway.env);
        let config = GatewayConfig::read(&runtime.config).map_err(|issues| {
            issues.first().map_or_else(|| "the config cannot be read".to_owned(), ToString::to_string)
        })?;
        if let Some(url) = url {
            self.is_known(url, &config)?;
        }
        let context = SecretContext { doc: &runtime.config, env, paths };
        let flags =
            ClientFlags { url: url.map(str::to_owned), token: token.map(Secret::new), ..ClientFlags::default() };
        let target = Target::resolve(Surface::Call, &flags, &config, context).map_err(|error| error.to_string())?;
        let secrets = target.secrets().map_err(|error| error.to_string())?;
        let tunnels = Tunnels::new(paths);
        let ask = Ask {
            params: Persona::Backend("tool").params(&["operator.read"]),
            secrets,
            device: DeviceUse::Never,
            stored_tokens: false,
            store: &NoDevice,
            deadline: Deadline::after(limit),
            bootstrap: None,
            tunnels: &tunnels,
        };
        let opened = route::open(&target.route, &ask, &|_| {}).await;
        let (link, events) = opened.map_err(|error| error.to_string())?;
        drop(events);
        let answer = link.client.call(method, Some(json!({})), limit).await;
        link.close().await;
        answer.map_err(|error| error.to_string())
    }

    /// Whether the owner named this URL somewhere.
    fn is_known(&self, url: &str, config: &GatewayConfig) -> Result<(), String> {
        let refused = || {
            "this gateway calls only gateways its owner has set up: gateway.remote.url, or a saved connection \
             (openclaw connections ls)"
                .to_owned()
        };
        let wanted = GatewayUrl::parse(url).map_err(|error| error.to_string())?.origin();
        let same = |text: &str| GatewayUrl::parse(text).is_ok_and(|known| known.origin() == wanted);
        let own = config.local_url(self.gateway.port());
        if same(&own) || config.remote.url.as_deref().is_some_and(same) {
            return Ok(());
        }
        let book = Connections::new(&self.gateway.paths).load().map_err(|error| error.to_string())?;
        let saved = book.connections.values().flat_map(|saved| &saved.paths).any(|path| same(path.address()));
        if saved { Ok(()) } else { Err(refused()) }
    }
}

/// No device: a tool is not this machine.
struct NoDevice;

impl DeviceStore for NoDevice {
    fn key(&self, _create: bool) -> Result<Option<openclaw_protocol::DeviceKey>, String> {
        Ok(None)
    }

    fn token(&self, _origin: &str, _role: &str) -> Option<StoredToken> {
        None
    }

    fn remember(&self, _origin: &str, _role: &str, _token: &Secret, _scopes: &[String]) {}

    fn forget(&self, _origin: &str, _role: &str) {}
}

impl Tool for GatewayTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        Effects::None
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.act(&call).await.unwrap_or_else(|error| error) })
    }
}
