//! The `gateway` section (config.md section 3).

use super::{
    Key,
    Kind::{self, Advised, Any, Bool, Checked, Enum, Int, List, Map, Object, OneOf, Open, Secret, Text},
    any, checks, key,
};

const PORT: Kind = Int { min: 1, max: 65_535 };
const COUNT: Kind = Int { min: 0, max: i64::MAX };
const POSITIVE: Kind = Int { min: 1, max: i64::MAX };
const NETWORKS: Kind = List(&Advised(checks::address_or_network));
const TEXTS: Kind = List(&Text);

pub(super) const GATEWAY: &[Key] = &[
    key("mode", Enum(&["local", "remote"]), "local runs a gateway here, remote makes this machine a client of another")
        .restart(),
    key("port", PORT, "port of WebSocket and HTTP").restart(),
    key("bind", Enum(&["auto", "lan", "loopback", "custom", "tailnet"]), "where the gateway listens").restart(),
    key("customBindHost", Checked(checks::ipv4), "IPv4 address to listen on with bind custom").restart(),
    key("publicOrigin", Checked(checks::public_origin), "https origin under which the gateway is reached").hot(),
    key("auth", Object(AUTH), "who may connect").hot(),
    key("trustedProxies", NETWORKS, "proxies whose forwarding headers are believed").hot(),
    key("allowRealIpFallback", Bool, "accept X-Real-IP when X-Forwarded-For is missing").hot(),
    key("tailscale", Object(TAILSCALE), "Tailscale Serve or Funnel in front of the gateway").restart(),
    key("remote", Object(REMOTE), "the gateway this machine is a client of").unread(),
    key("tls", Object(TLS), "TLS listener").restart(),
    key("controlUi", Object(CONTROL_UI), "browser UI").hot(),
    key("discovery", Object(DISCOVERY), "advertising on the local network").hot(),
    key("nodes", Object(NODES), "node pairing and command policy").hot(),
    key("http", Object(HTTP), "HTTP endpoints and headers").hot(),
    key("reload", Object(RELOAD), "how config changes reach a running gateway").hot(),
    key("handshakeTimeoutMs", POSITIVE, "milliseconds from accept to an authenticated connection").restart(),
    key("channelHealthCheckMinutes", COUNT, "minutes between channel health checks").hot(),
    key("channelStaleEventThresholdMinutes", COUNT, "minutes without an event after which a channel is restarted")
        .hot(),
    key("channelMaxRestartsPerHour", COUNT, "channel restarts allowed in an hour").hot(),
    key("push", Open(&[any("apns")]), "push notifications").restart(),
    key("tools", Open(&[key("allow", TEXTS, ""), key("deny", TEXTS, "")]), "tools over HTTP").hot(),
    key("terminal", Any, "terminal sessions").restart(),
    key("cliAgents", Any, "CLI agents").restart(),
    key("roles", Any, "operator roles").hot(),
    key("webchat", Any, "WebChat").hot(),
];

const AUTH: &[Key] = &[
    key("mode", Enum(&["none", "token", "password", "trusted-proxy"]), "how a connection proves itself"),
    key("token", Secret, "shared token"),
    key("password", Secret, "shared password"),
    key("allowTailscale", Bool, "let Tailscale identity headers authenticate UI and WebSocket"),
    key("identityScopes", Map(&TEXTS), "scopes of verified identities"),
    key(
        "rateLimit",
        Object(&[
            key("maxAttempts", POSITIVE, "failed attempts before a lockout (10)"),
            key("windowMs", POSITIVE, "window of the count in milliseconds (60000)"),
            key("lockoutMs", POSITIVE, "length of a lockout in milliseconds (300000)"),
            key("exemptLoopback", Bool, "no lockout for this machine (true)"),
        ]),
        "limit of failed attempts",
    ),
    key("trustedProxy", Object(TRUSTED_PROXY), "identity-aware proxy in front of the gateway"),
];

const TRUSTED_PROXY: &[Key] = &[
    key("userHeader", Text, "header that carries the user").required(),
    key("requiredHeaders", TEXTS, "headers that must be there too"),
    key("allowUsers", TEXTS, "users let in; empty means all"),
    key("allowLoopback", Bool, "accept a proxy on this machine (false)"),
    key(
        "deviceAutoApprove",
        Object(&[key("enabled", Bool, ""), key("scopes", TEXTS, "scopes given without asking")]),
        "pair devices of verified users without asking",
    ),
];

const TAILSCALE: &[Key] = &[
    key("mode", Enum(&["off", "serve", "funnel"]), "off, serve in the tailnet, or funnel to the internet"),
    key("resetOnExit", Bool, "undo the routes at shutdown (false)"),
    key("preserveFunnel", Bool, "leave an existing funnel alone"),
    key("target", Text, "target of the route"),
];

const REMOTE: &[Key] = &[
    key("enabled", Bool, "use this block"),
    key("url", Text, "ws:// or wss:// URL of the gateway"),
    key("transport", Enum(&["ssh", "direct"]), "ssh through a tunnel, or direct to the URL"),
    key("remotePort", PORT, "gateway port on the SSH host"),
    key("token", Secret, "token for the remote gateway; never configures a server"),
    key("password", Secret, "password for the remote gateway; never configures a server"),
    key(
        "tlsFingerprint",
        Checked(checks::sha256_fingerprint),
        "SHA-256 of the certificate to pin, or of its key (key-sha256:…)",
    ),
    key("sshTarget", Text, "user@host[:port]"),
    key("sshIdentity", Text, "identity file for ssh"),
    key("sshHostKeyPolicy", Enum(&["strict", "openssh"]), "how unknown host keys are treated (strict)"),
    key("edgeAuth", Map(&Secret), "extra headers for an authenticating edge, wss only"),
];

const TLS: &[Key] = &[
    key("enabled", Bool, "listen with TLS (false)"),
    key("autoGenerate", Bool, "make a self-signed certificate when none is given (true)"),
    key("certPath", Text, "PEM certificate chain"),
    key("keyPath", Text, "PEM private key"),
    key("caPath", Text, "PEM authorities that complete the chain; clients are not asked for certificates"),
];

const CONTROL_UI: &[Key] = &[
    key("enabled", Bool, "serve the UI (true)"),
    key("basePath", Checked(checks::base_path), "URL path of the UI"),
    key("root", Text, "directory of other UI files"),
    key("allowedOrigins", TEXTS, "browser origins that may connect"),
    key("allowInsecureAuth", Bool, "token login without a device over plain http (false)"),
    key("dangerouslyAllowHostHeaderOriginFallback", Bool, "believe the Host header as origin (false)"),
    key("dangerouslyDisableDeviceAuth", Bool, "no device identity for the UI (false)"),
    any("embedSandbox"),
    any("allowExternalEmbedUrls"),
];

const DISCOVERY: &[Key] = &[
    key("enabled", Bool, "advertise the gateway"),
    key("mode", Enum(&["off", "minimal", "full"]), "how much to advertise"),
];

const NODES: &[Key] = &[
    key(
        "pairing",
        Object(&[
            key("autoApproveLocal", Bool, "pair nodes of this machine silently (true)"),
            key("autoApproveCidrs", NETWORKS, "networks whose fresh nodes pair silently"),
            key("sshVerify", OneOf(&[Bool, Open(&[])]), "prove nodes over ssh (true)"),
        ]),
        "silent approval of nodes",
    ),
    key(
        "commands",
        Object(&[key("allow", TEXTS, "extra commands"), key("deny", TEXTS, "commands never invoked")]),
        "node command policy",
    ),
    key("allowCommands", TEXTS, "older spelling of commands.allow"),
    key("denyCommands", TEXTS, "older spelling of commands.deny"),
    key("browser", Open(&[key("mode", Enum(&["auto", "manual", "off"]), ""), key("node", Text, "")]), "browser proxy"),
    key("allowSkills", OneOf(&[Bool, TEXTS]), "skills on nodes"),
    any("screenshot"),
];

const ENDPOINT: Kind = Open(&[key("enabled", Bool, "serve this endpoint (false)")]);

const HTTP: &[Key] = &[
    key(
        "endpoints",
        Open(&[key("chatCompletions", ENDPOINT, "OpenAI chat"), key("responses", ENDPOINT, "OpenAI responses")]),
        "OpenAI-compatible endpoints",
    ),
    key(
        "securityHeaders",
        Open(&[key("strictTransportSecurity", OneOf(&[Text, Bool]), "HSTS value, or false")]),
        "response headers",
    ),
];

const RELOAD: &[Key] = &[
    key("mode", Enum(&["off", "restart", "hot", "hybrid"]), "off, or hybrid: apply what can be applied (hybrid)"),
    key("debounceMs", COUNT, "milliseconds to wait for more changes"),
    key("deferralTimeoutMs", COUNT, "milliseconds a restart waits for running work"),
];
