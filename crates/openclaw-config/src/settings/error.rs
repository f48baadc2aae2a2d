//! Why a gateway does not start, with the exit codes of cli.md section 1.

use std::path::PathBuf;

use crate::{
    gateway::{BindMode, TailscaleMode},
    schema::Issue,
    secret_ref::SecretError,
};

/// A reason not to start. Texts name keys and never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("Invalid --bind (use \"loopback\", \"lan\", \"tailnet\", \"auto\", or \"custom\")")]
    BindFlag,
    #[error("Invalid --port (use a number from 1 to 65535, or 0 for any free port)")]
    PortFlag,
    #[error("Invalid --auth (use \"none\", \"token\", \"password\", or \"trusted-proxy\")")]
    AuthFlag,
    #[error("Invalid --tailscale (use \"off\", \"serve\", or \"funnel\")")]
    TailscaleFlag,
    #[error("Use either --password or --password-file, not both.")]
    TwoPasswords,
    #[error("cannot read --password-file {}: {reason}", path.display())]
    PasswordFile { path: PathBuf, reason: String },
    #[error("the environment variable {name} is not valid: expected {expected}")]
    Variable { name: &'static str, expected: &'static str },
    #[error("OpenClaw config is invalid\n{}\nFix the file, or take back the last change: openclaw config undo", lines(.0))]
    InvalidConfig(Vec<Issue>),
    #[error(
        "Gateway start blocked: this machine is a client of another gateway; set gateway.mode=local (current: remote) \
         to run one here.\nFix: openclaw config set gateway.mode local"
    )]
    RemoteMode,
    #[error(
        "Refusing to bind gateway to {bind} without auth.\nrefusing to bind to {bind} without auth: anyone who reaches \
         this address could command the gateway.\nFix: openclaw config set gateway.auth.token \"$(openssl rand -hex 32)\", \
         or set OPENCLAW_GATEWAY_TOKEN or OPENCLAW_GATEWAY_PASSWORD, or pass --token or --password; \
         or stay on loopback with --bind loopback."
    )]
    Unauthenticated { bind: BindMode },
    #[error(
        "Gateway auth mode is password, but no password is configured.\nFix: set gateway.auth.password or \
         OPENCLAW_GATEWAY_PASSWORD, or pass --password-file."
    )]
    PasswordMissing,
    #[error(
        "Gateway auth is ambiguous: gateway.auth.token and gateway.auth.password are both set (or their variables) and \
         gateway.auth.mode is unset.\nFix: openclaw config set gateway.auth.mode token, or password."
    )]
    AmbiguousAuth,
    #[error(
        "gateway.bind is custom, but gateway.customBindHost is not set.\nFix: openclaw config set \
         gateway.customBindHost 192.168.1.10 (an IPv4 address of this machine)."
    )]
    CustomHostMissing,
    #[error(
        "Gateway auth mode is trusted-proxy, but gateway.trustedProxies is empty, so no proxy could be believed.\n\
         Fix: list the proxy's addresses in gateway.trustedProxies."
    )]
    TrustedProxiesMissing,
    #[error(
        "Gateway auth mode is trusted-proxy, but gateway.auth.trustedProxy.userHeader is not set.\nFix: name the header \
         in which the proxy passes the user."
    )]
    UserHeaderMissing,
    #[error(
        "gateway.tailscale.mode={mode} needs gateway.bind=loopback (current: {bind}), since Tailscale forwards to this \
         machine.\nFix: openclaw config set gateway.bind loopback."
    )]
    TailscaleBind { mode: TailscaleMode, bind: BindMode },
    #[error(
        "gateway.tailscale.mode=funnel is open to the internet and needs gateway.auth.mode=password.\nFix: set \
         gateway.auth.mode password and gateway.auth.password, or use serve."
    )]
    FunnelNeedsPassword,
    #[error(
        "{key} is {what}, which is no secret.\nFix: give it a real one, such as the output of `openssl rand -hex 32`, or remove it."
    )]
    Placeholder { key: String, what: &'static str },
    #[error(
        "hooks.token is the same secret as {key}; whoever may call a hook could command the gateway.\nFix: give hooks.token a secret of its own."
    )]
    HookToken { key: String },
    #[error("Startup failed: required secrets are unavailable.\n{0}")]
    Secret(SecretError),
}

impl SettingsError {
    /// 1 for a bad flag, 78 when the configuration is the reason.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BindFlag
            | Self::PortFlag
            | Self::AuthFlag
            | Self::TailscaleFlag
            | Self::TwoPasswords
            | Self::PasswordFile { .. } => 1,
            _ => 78,
        }
    }
}

fn lines(issues: &[Issue]) -> String {
    issues.iter().map(|issue| format!("  × {}", issue.with_place())).collect::<Vec<_>>().join("\n")
}
