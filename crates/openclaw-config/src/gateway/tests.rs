use super::*;
use crate::{Env, Paths, Profile};

fn read(text: &str) -> Result<GatewayConfig, Vec<Issue>> {
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", "/nowhere"), ("PORT_NAME", "lan")]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    GatewayConfig::read(&Document::from_text(text, &paths, &env).unwrap())
}

#[test]
fn defaults_without_a_config() {
    let config = read("{}").unwrap();
    assert_eq!(config.effective_mode(), Mode::Local);
    assert_eq!((config.port, config.bind), (None, None));
    assert_eq!(config.auth.rate_limit, RateLimit::default());
    assert!(config.control_ui.enabled && config.nodes.auto_approve_local && config.nodes.ssh_verify);
    assert!(config.tls.auto_generate && !config.tls.enabled);
    assert_eq!(config.remote.transport, Transport::Ssh);
    assert_eq!(config.reload_mode, ReloadMode::Hybrid);
    assert!(config.sources().is_empty());
}

#[test]
fn a_full_section() {
    let config = read(
        r#"{ gateway: {
  mode: "remote", port: 18790, bind: "${PORT_NAME}", customBindHost: "192.168.1.2",
  auth: { mode: "trusted-proxy", token: "t", identityScopes: { "a@b": ["operator.read", "operator.root"] },
    rateLimit: { maxAttempts: 3, windowMs: 1000 },
    trustedProxy: { userHeader: "X-User", deviceAutoApprove: { enabled: true, scopes: ["operator.read"] } } },
  trustedProxies: ["10.0.0.0/8", "nonsense"], tailscale: { mode: "serve", resetOnExit: true },
  remote: { url: " ws://h ", sshTarget: "u@h", remotePort: 1, edgeAuth: { "X-Key": "k" } },
  controlUi: { allowInsecureAuth: true, allowedOrigins: ["https://a"] }, discovery: { enabled: true },
  nodes: { commands: { allow: ["a"] }, allowCommands: ["b"], denyCommands: ["c"], pairing: { sshVerify: { enabled: false } } },
  http: { securityHeaders: { strictTransportSecurity: false } },
} }"#,
    )
    .unwrap();
    assert_eq!((config.mode, config.port, config.bind), (Some(Mode::Remote), Some(18_790), Some(BindMode::Lan)));
    assert_eq!(config.auth.rate_limit.max_attempts, 3);
    assert_eq!(config.auth.rate_limit.window, Duration::from_secs(1));
    assert_eq!(config.auth.rate_limit.lockout, Duration::from_secs(300));
    assert_eq!(config.auth.identity_scopes["a@b"].names(), ["operator.read"]);
    assert_eq!(config.auth.trusted_proxy.as_ref().unwrap().device_auto_approve.unwrap().names(), ["operator.read"]);
    assert_eq!(config.trusted_proxies.len(), 1);
    assert!(config.tailscale.reset_on_exit && config.control_ui.allow_insecure_auth);
    assert_eq!(config.discovery.enabled, Some(true));
    assert_eq!(config.remote.url.as_deref(), Some("ws://h"));
    assert_eq!(config.remote.edge_auth.len(), 1);
    assert_eq!(config.nodes.allow_commands, ["a", "b"]);
    assert_eq!(config.nodes.deny_commands, ["c"]);
    assert!(!config.nodes.ssh_verify);
    assert_eq!(config.http.strict_transport_security, None);
    assert_eq!(config.source("gateway.port").unwrap().to_string(), "config gateway.port (openclaw.json:2)");
    assert!(
        config.tailscale_identity_allowed(AuthMode::Token) && !config.tailscale_identity_allowed(AuthMode::Password)
    );
}

#[test]
fn faults_of_other_sections_do_not_matter_here() {
    assert!(read("{channels:{telegram:{dmPolicy:'x'}}}").is_ok());
    let errors = read("{gateway:{port:'x',bind:'y'}}").unwrap_err();
    assert_eq!(errors.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["gateway.port", "gateway.bind"]);
}
