//! The `gateway` section as types: what both a server and a client read (config.md section 3).

mod network;
mod types;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use openclaw_protocol::ScopeSet;

pub use network::Network;
pub use types::{AuthMode, BindMode, HostKeyPolicy, Mode, ReloadMode, TailscaleMode, Transport};

use crate::{
    document::{Document, Node},
    schema::{self, Issue},
    secret_ref::SecretInput,
    source::Source,
};

/// The section. `None` means unset; defaults that do not depend on anything else are filled in.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub mode: Option<Mode>,
    pub port: Option<u16>,
    pub bind: Option<BindMode>,
    pub custom_bind_host: Option<Ipv4Addr>,
    pub public_origin: Option<String>,
    pub auth: AuthConfig,
    pub trusted_proxies: Vec<Network>,
    pub allow_real_ip_fallback: bool,
    pub tailscale: TailscaleConfig,
    pub remote: RemoteConfig,
    pub tls: TlsConfig,
    pub control_ui: ControlUiConfig,
    pub discovery: DiscoveryConfig,
    pub nodes: NodesConfig,
    pub http: HttpConfig,
    pub reload_mode: ReloadMode,
    pub handshake_timeout: Option<Duration>,
    places: Vec<(String, Source)>,
}

#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub mode: Option<AuthMode>,
    pub token: Option<SecretInput>,
    pub password: Option<SecretInput>,
    /// Unset means: on with Serve, unless the mode is password or trusted-proxy.
    pub allow_tailscale: Option<bool>,
    pub identity_scopes: BTreeMap<String, ScopeSet>,
    pub rate_limit: RateLimit,
    pub trusted_proxy: Option<TrustedProxyConfig>,
}

/// Limit of failed attempts per address and scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub max_attempts: u32,
    pub window: Duration,
    pub lockout: Duration,
    pub exempt_loopback: bool,
}

impl Default for RateLimit {
    /// 10 attempts in 60 s, locked for 300 s, loopback exempt (config.md section 3).
    fn default() -> Self {
        Self {
            max_attempts: 10,
            window: Duration::from_secs(60),
            lockout: Duration::from_secs(300),
            exempt_loopback: true,
        }
    }
}

#[derive(Clone, Debug)]
pub struct TrustedProxyConfig {
    pub user_header: String,
    pub required_headers: Vec<String>,
    /// Empty lets every user in.
    pub allow_users: Vec<String>,
    pub allow_loopback: bool,
    /// Scopes given to devices of verified users without asking.
    pub device_auto_approve: Option<ScopeSet>,
}

#[derive(Clone, Debug)]
pub struct TailscaleConfig {
    pub mode: TailscaleMode,
    pub reset_on_exit: bool,
    pub preserve_funnel: bool,
}

/// The gateway this machine is a client of.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    pub url: Option<String>,
    pub token: Option<SecretInput>,
    pub password: Option<SecretInput>,
    pub transport: Transport,
    pub ssh_target: Option<String>,
    pub ssh_identity: Option<String>,
    pub ssh_host_key_policy: HostKeyPolicy,
    /// Gateway port on the SSH host. Unset means the port in the URL, else 18789.
    pub remote_port: Option<u16>,
    pub tls_fingerprint: Option<String>,
    /// Extra headers for an authenticating edge.
    pub edge_auth: Vec<(String, SecretInput)>,
}

#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub enabled: bool,
    pub auto_generate: bool,
    pub cert_path: Option<String>,
    pub key_path: Option<String>,
    pub ca_path: Option<String>,
}

#[derive(Clone, Debug)]
pub struct ControlUiConfig {
    pub enabled: bool,
    pub base_path: Option<String>,
    pub root: Option<String>,
    /// Unset means the local origins.
    pub allowed_origins: Option<Vec<String>>,
    pub allow_insecure_auth: bool,
    pub dangerously_allow_host_header_origin_fallback: bool,
    pub dangerously_disable_device_auth: bool,
}

#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// `gateway.discovery.enabled`, else `discovery.enabled`.
    pub enabled: Option<bool>,
    /// `off`, `minimal` or `full`.
    pub mdns_mode: Option<String>,
    pub wide_area_domain: Option<String>,
    /// `discovery.wideArea.serve`: answer DNS for the domain on the tailnet address.
    pub wide_area_serve: bool,
    /// `discovery.wideArea.port` of that answerer.
    pub wide_area_port: u16,
}

#[derive(Clone, Debug)]
pub struct NodesConfig {
    pub auto_approve_local: bool,
    pub auto_approve_cidrs: Vec<Network>,
    pub ssh_verify: bool,
    /// `nodes.commands.allow` and the older `nodes.allowCommands`.
    pub allow_commands: Vec<String>,
    /// `nodes.commands.deny` and the older `nodes.denyCommands`.
    pub deny_commands: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub chat_completions: bool,
    pub responses: bool,
    pub strict_transport_security: Option<String>,
}

/// Why a header cannot be one of `gateway.remote.edgeAuth`; `None` when it can. Names only, never values.
pub fn edge_header_problem(name: &str) -> Option<&'static str> {
    /// What the connection itself sets, and what would let a client speak for a proxy.
    const OWNED: &[&str] = &[
        "host",
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        openclaw_protocol::gateway_proof::HEADER,
    ];
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Some("not a header name");
    }
    OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name)).then_some("the connection sets this header itself")
}

impl GatewayConfig {
    /// Reads the section. Faults below `gateway` are returned; those of other sections do not matter here.
    pub fn read(doc: &Document) -> Result<Self, Vec<Issue>> {
        let mut errors = schema::validate(doc).errors;
        errors.retain(|issue| issue.path == "gateway" || issue.path.starts_with("gateway."));
        if errors.is_empty() { Ok(Self::from_valid(doc)) } else { Err(errors) }
    }

    /// Reads a section whose types are known to be right.
    pub(crate) fn from_valid(doc: &Document) -> Self {
        let r = Reader { doc };
        let mut deny = r.texts("gateway.nodes.commands.deny").unwrap_or_default();
        deny.extend(r.texts("gateway.nodes.denyCommands").unwrap_or_default());
        let mut allow = r.texts("gateway.nodes.commands.allow").unwrap_or_default();
        allow.extend(r.texts("gateway.nodes.allowCommands").unwrap_or_default());
        Self {
            mode: r.text("gateway.mode").and_then(|t| Mode::parse(&t)),
            port: r.number("gateway.port"),
            bind: r.text("gateway.bind").and_then(|t| BindMode::parse(&t)),
            custom_bind_host: r.text("gateway.customBindHost").and_then(|t| t.parse().ok()),
            public_origin: r.text("gateway.publicOrigin").map(|t| t.trim_end_matches('/').to_owned()),
            auth: r.auth(),
            trusted_proxies: r.networks("gateway.trustedProxies"),
            allow_real_ip_fallback: r.flag("gateway.allowRealIpFallback", false),
            tailscale: TailscaleConfig {
                mode: r.text("gateway.tailscale.mode").and_then(|t| TailscaleMode::parse(&t)).unwrap_or_default(),
                reset_on_exit: r.flag("gateway.tailscale.resetOnExit", false),
                preserve_funnel: r.flag("gateway.tailscale.preserveFunnel", false),
            },
            remote: r.remote(),
            tls: TlsConfig {
                enabled: r.flag("gateway.tls.enabled", false),
                auto_generate: r.flag("gateway.tls.autoGenerate", true),
                cert_path: r.text("gateway.tls.certPath"),
                key_path: r.text("gateway.tls.keyPath"),
                ca_path: r.text("gateway.tls.caPath"),
            },
            control_ui: ControlUiConfig {
                enabled: r.flag("gateway.controlUi.enabled", true),
                base_path: r.text("gateway.controlUi.basePath"),
                root: r.text("gateway.controlUi.root"),
                allowed_origins: r.texts("gateway.controlUi.allowedOrigins"),
                allow_insecure_auth: r.flag("gateway.controlUi.allowInsecureAuth", false),
                dangerously_allow_host_header_origin_fallback: r
                    .flag("gateway.controlUi.dangerouslyAllowHostHeaderOriginFallback", false),
                dangerously_disable_device_auth: r.flag("gateway.controlUi.dangerouslyDisableDeviceAuth", false),
            },
            discovery: DiscoveryConfig {
                enabled: r.bool("gateway.discovery.enabled").or_else(|| r.bool("discovery.enabled")),
                mdns_mode: r.text("gateway.discovery.mode").or_else(|| r.text("discovery.mdns.mode")),
                // `enabled: false` silences a domain that is set.
                wide_area_domain: r
                    .text("discovery.wideArea.domain")
                    .filter(|_| r.flag("discovery.wideArea.enabled", true)),
                wide_area_serve: r.flag("discovery.wideArea.serve", false),
                wide_area_port: r.number("discovery.wideArea.port").unwrap_or(53),
            },
            nodes: NodesConfig {
                auto_approve_local: r.flag("gateway.nodes.pairing.autoApproveLocal", true),
                auto_approve_cidrs: r.networks("gateway.nodes.pairing.autoApproveCidrs"),
                ssh_verify: match doc.get("gateway.nodes.pairing.sshVerify") {
                    Some(node) => node.as_bool().or_else(|| node.entry("enabled")?.as_bool()).unwrap_or(true),
                    None => true,
                },
                allow_commands: allow,
                deny_commands: deny,
            },
            http: HttpConfig {
                chat_completions: r.flag("gateway.http.endpoints.chatCompletions.enabled", false),
                responses: r.flag("gateway.http.endpoints.responses.enabled", false),
                strict_transport_security: r.text("gateway.http.securityHeaders.strictTransportSecurity"),
            },
            reload_mode: r.text("gateway.reload.mode").and_then(|t| ReloadMode::parse(&t)).unwrap_or_default(),
            handshake_timeout: r.number("gateway.handshakeTimeoutMs").map(Duration::from_millis),
            places: r.places(),
        }
    }

    /// Where the value at `path` (such as `gateway.port`) was written; `None` if it is unset.
    pub fn source(&self, path: &str) -> Option<&Source> {
        self.places.iter().find(|(name, _)| name == path).map(|(_, source)| source)
    }

    /// Every key that is set below `gateway`, with its place.
    pub fn sources(&self) -> &[(String, Source)] {
        &self.places
    }

    /// Local unless the config says remote (checklist S-068).
    pub fn effective_mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Local)
    }

    /// The URL of the gateway on this machine.
    pub fn local_url(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.tls.enabled { "wss" } else { "ws" })
    }

    /// Whether Tailscale identity headers count, given the effective auth mode.
    pub fn tailscale_identity_allowed(&self, mode: AuthMode) -> bool {
        let default =
            self.tailscale.mode == TailscaleMode::Serve && !matches!(mode, AuthMode::Password | AuthMode::TrustedProxy);
        self.auth.allow_tailscale.unwrap_or(default)
    }
}

struct Reader<'a> {
    doc: &'a Document,
}

impl Reader<'_> {
    /// Trimmed, blank is unset. A text with an unset variable is unset too: half a value is none.
    fn text(&self, path: &str) -> Option<String> {
        let text = self.doc.get(path)?.as_text()?;
        let trimmed = text.value.trim();
        (!trimmed.is_empty() && text.unresolved.is_empty()).then(|| trimmed.to_owned())
    }

    fn bool(&self, path: &str) -> Option<bool> {
        self.doc.get(path)?.as_bool()
    }

    fn flag(&self, path: &str, default: bool) -> bool {
        self.bool(path).unwrap_or(default)
    }

    fn number<T: TryFrom<i64>>(&self, path: &str) -> Option<T> {
        T::try_from(self.doc.get(path)?.as_i64()?).ok()
    }

    fn texts(&self, path: &str) -> Option<Vec<String>> {
        let items = self.doc.get(path)?.as_array()?;
        Some(items.iter().filter_map(Node::as_str).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect())
    }

    fn networks(&self, path: &str) -> Vec<Network> {
        self.texts(path).unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn secret(&self, path: &str) -> Option<SecretInput> {
        SecretInput::read(self.doc, path)
    }

    fn scopes(node: &Node) -> ScopeSet {
        let names: Vec<_> = node.as_array().unwrap_or_default().iter().filter_map(Node::as_str).collect();
        ScopeSet::parse(&names)
    }

    fn auth(&self) -> AuthConfig {
        let limits = RateLimit::default();
        let millis = |path: &str, default: Duration| self.number(path).map_or(default, Duration::from_millis);
        let identity = self.doc.get("gateway.auth.identityScopes").and_then(Node::as_object).unwrap_or_default();
        AuthConfig {
            mode: self.text("gateway.auth.mode").and_then(|t| AuthMode::parse(&t)),
            token: self.secret("gateway.auth.token"),
            password: self.secret("gateway.auth.password"),
            allow_tailscale: self.bool("gateway.auth.allowTailscale"),
            identity_scopes: identity.iter().map(|(who, list)| (who.clone(), Self::scopes(list))).collect(),
            rate_limit: RateLimit {
                max_attempts: self.number("gateway.auth.rateLimit.maxAttempts").unwrap_or(limits.max_attempts),
                window: millis("gateway.auth.rateLimit.windowMs", limits.window),
                lockout: millis("gateway.auth.rateLimit.lockoutMs", limits.lockout),
                exempt_loopback: self.flag("gateway.auth.rateLimit.exemptLoopback", limits.exempt_loopback),
            },
            trusted_proxy: self.text("gateway.auth.trustedProxy.userHeader").map(|user_header| TrustedProxyConfig {
                user_header,
                required_headers: self.texts("gateway.auth.trustedProxy.requiredHeaders").unwrap_or_default(),
                allow_users: self.texts("gateway.auth.trustedProxy.allowUsers").unwrap_or_default(),
                allow_loopback: self.flag("gateway.auth.trustedProxy.allowLoopback", false),
                device_auto_approve: self.flag("gateway.auth.trustedProxy.deviceAutoApprove.enabled", false).then(
                    || {
                        self.doc
                            .get("gateway.auth.trustedProxy.deviceAutoApprove.scopes")
                            .map(Self::scopes)
                            .unwrap_or_default()
                    },
                ),
            }),
        }
    }

    fn remote(&self) -> RemoteConfig {
        let edge = self.doc.get("gateway.remote.edgeAuth").and_then(Node::as_object).unwrap_or_default();
        let header = |(name, node): &(String, Node)| {
            let input = SecretInput::from_node(&format!("gateway.remote.edgeAuth.{name}"), node)?;
            Some((name.clone(), input))
        };
        RemoteConfig {
            url: self.text("gateway.remote.url"),
            token: self.secret("gateway.remote.token"),
            password: self.secret("gateway.remote.password"),
            transport: self.text("gateway.remote.transport").and_then(|t| Transport::parse(&t)).unwrap_or_default(),
            ssh_target: self.text("gateway.remote.sshTarget"),
            ssh_identity: self.text("gateway.remote.sshIdentity"),
            ssh_host_key_policy: self
                .text("gateway.remote.sshHostKeyPolicy")
                .and_then(|t| HostKeyPolicy::parse(&t))
                .unwrap_or_default(),
            remote_port: self.number("gateway.remote.remotePort"),
            tls_fingerprint: self.text("gateway.remote.tlsFingerprint"),
            edge_auth: edge.iter().filter_map(header).collect(),
        }
    }

    fn places(&self) -> Vec<(String, Source)> {
        let mut places = Vec::new();
        if let Some(section) = self.doc.get("gateway") {
            let mut path = crate::path::ConfigPath::ROOT.child("gateway");
            section.walk(&mut path, &mut |path, node| {
                let path = path.to_string();
                places.push((path.clone(), Source::Config { path, at: node.provenance.clone() }));
            });
        }
        places
    }
}

#[cfg(test)]
mod tests;
