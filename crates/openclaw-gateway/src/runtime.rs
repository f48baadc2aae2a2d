//! Settings in force, in the form connections need them. Built at start and by each reload; swapped whole.

use std::{net::IpAddr, sync::Arc};

use http::HeaderValue;
use openclaw_config::{
    document::Document,
    gateway::{AuthMode, DiscoveryConfig, Network, ReloadMode},
    settings::ServerSettings,
    source::Sourced,
};
use openclaw_protocol::Secret;

use crate::{
    auth::{Policy, decide::Mode, hosts::Names, rate_limit::Limits},
    http::hooks::{Hooks, HooksError},
    pairing::IssuerGeneration,
};

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub policy: Policy,
    pub limits: Limits,
    /// Of the shared secret; connections that proved another one are closed when it changes.
    pub generation: Option<IssuerGeneration>,
    trusted_proxies: Vec<Network>,
    /// `gateway.controlUi.basePath`, without a trailing slash; upgrades are accepted on it too.
    base_path: Option<String>,
    /// `gateway.publicOrigin`
    pub public_origin: Option<String>,
    /// `gateway.nodes.commands.allow`
    pub node_allow: Vec<String>,
    /// `gateway.nodes.commands.deny`
    pub node_deny: Vec<String>,
    /// `gateway.http.securityHeaders.strictTransportSecurity`
    pub hsts: Option<HeaderValue>,
    /// `gateway.reload.mode` is `off`: a renewed certificate waits too.
    pub reload_off: bool,
    /// `discovery.*`
    pub discovery: DiscoveryConfig,
    /// `gateway.http.endpoints.chatCompletions.enabled`
    pub chat_completions: bool,
    /// `gateway.http.endpoints.responses.enabled`
    pub responses: bool,
    /// `hooks`, while they are switched on.
    pub hooks: Option<Arc<Hooks>>,
    /// The whole config, for rooms that read their own sections.
    pub config: Arc<Document>,
    /// `logging.file`
    pub log_file: Option<String>,
    /// [`openclaw_config::Document::revision`] of the config these settings were read from.
    pub revision: String,
}

/// Why settings cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    #[error("gateway.auth.mode is \"{0}\", but there is no {0}; set gateway.auth.{0} or OPENCLAW_GATEWAY_{1}")]
    NoSecret(&'static str, &'static str),
    #[error(
        "gateway.auth.mode \"trusted-proxy\" is not supported by this version yet; use \"token\" or \"password\":\n\
         openclaw config set gateway.auth.mode token"
    )]
    TrustedProxy,
    #[error(transparent)]
    Hooks(#[from] HooksError),
    #[error("gateway.tailscale.mode \"{0}\" is not supported by this version yet; run: tailscale {0} {1}")]
    Tailscale(String, u16),
}

impl Runtime {
    /// Builds the settings. A setting that cannot be honoured is refused: starting without it could be less safe than
    /// its owner believes.
    ///
    /// # Errors
    /// [`RuntimeError`]; the settings in force stay as they are.
    pub fn new(
        settings: &ServerSettings,
        log_file: Option<String>,
        document: Arc<Document>,
    ) -> Result<Self, RuntimeError> {
        let config = &settings.config;
        let secret = |given: &Option<Sourced<Secret>>, name, variable| {
            given.as_ref().map(|given| given.value.clone()).ok_or(RuntimeError::NoSecret(name, variable))
        };
        let mode = match settings.auth_mode.value {
            AuthMode::None => Mode::None,
            AuthMode::Token => Mode::Token(secret(&settings.token, "token", "TOKEN")?),
            AuthMode::Password => Mode::Password(secret(&settings.password, "password", "PASSWORD")?),
            AuthMode::TrustedProxy => return Err(RuntimeError::TrustedProxy),
        };
        if settings.tailscale.value != openclaw_config::gateway::TailscaleMode::Off {
            return Err(RuntimeError::Tailscale(settings.tailscale.value.to_string(), settings.port.value));
        }
        let generation = match &mode {
            Mode::None => None,
            Mode::Token(secret) | Mode::Password(secret) => Some(IssuerGeneration::of(secret)),
        };
        let secrets: Vec<&Secret> =
            [&settings.token, &settings.password].into_iter().flatten().map(|s| &s.value).collect();
        let (ui, limit) = (&config.control_ui, &config.auth.rate_limit);
        let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let base_path = ui.base_path.as_deref().map(|path| format!("/{}", path.trim_matches('/')));
        Ok(Self {
            policy: Policy {
                mode,
                auto_approve_local: config.nodes.auto_approve_local,
                allow_insecure_auth: ui.allow_insecure_auth,
                names: Names::new(
                    ui.allowed_origins.as_deref().unwrap_or_default(),
                    config.public_origin.as_deref(),
                    ui.dangerously_allow_host_header_origin_fallback,
                    config.tls.enabled,
                ),
            },
            limits: Limits {
                max_attempts: limit.max_attempts,
                window_ms: millis(limit.window),
                lockout_ms: millis(limit.lockout),
                exempt_loopback: limit.exempt_loopback,
            },
            generation,
            trusted_proxies: config.trusted_proxies.clone(),
            base_path: base_path.filter(|path| path != "/"),
            public_origin: config.public_origin.clone(),
            node_allow: config.nodes.allow_commands.clone(),
            node_deny: config.nodes.deny_commands.clone(),
            hsts: config.http.strict_transport_security.as_deref().and_then(|text| text.parse().ok()),
            reload_off: config.reload_mode == ReloadMode::Off,
            discovery: config.discovery.clone(),
            chat_completions: config.http.chat_completions,
            responses: config.http.responses,
            hooks: Hooks::read(&document, &secrets)?.map(Arc::new),
            log_file,
            revision: document.revision().to_owned(),
            config: document,
        })
    }

    /// True when forwarding headers of this address are believed.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// `gateway.controlUi.basePath` without a trailing slash; empty for the root.
    pub fn base_path(&self) -> &str {
        self.base_path.as_deref().unwrap_or_default()
    }

    /// True for the paths an upgrade is accepted on: `/` and the Control UI's base path.
    pub fn is_websocket_path(&self, path: &str) -> bool {
        path == "/" || self.base_path.as_deref().is_some_and(|base| path.trim_end_matches('/') == base)
    }
}
