//! Settings in force, in the form connections need them. Built at start and by each reload; swapped whole.

use std::net::IpAddr;

use openclaw_config::{
    gateway::{AuthMode, GatewayConfig},
    settings::ServerSettings,
};
use openclaw_protocol::Secret;

use crate::{
    auth::{Policy, decide::Mode, hosts::Names, rate_limit::Limits},
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
    /// `gateway.nodes.commands.allow` / `deny`.
    pub node_allow: Vec<String>,
    pub node_deny: Vec<String>,
    /// `logging.file`
    pub log_file: Option<String>,
}

/// Why settings cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    #[error("gateway.trustedProxies: \"{0}\" is not an address or network (use 10.0.0.5 or 10.0.0.0/24)")]
    BadProxy(String),
    #[error("gateway.auth.mode is \"{0}\", but no {0} is configured")]
    NoSecret(&'static str),
    #[error("gateway.auth.mode \"trusted-proxy\" is not supported by this version; use \"token\" or \"password\"")]
    TrustedProxy,
}

impl Runtime {
    /// Builds the settings.
    ///
    /// # Errors
    /// [`RuntimeError`]; the settings in force stay as they are.
    pub fn new(
        settings: &ServerSettings,
        config: &GatewayConfig,
        log_file: Option<String>,
    ) -> Result<Self, RuntimeError> {
        let secret = |secret: &Option<Secret>, name| secret.clone().ok_or(RuntimeError::NoSecret(name));
        let mode = match settings.auth_mode {
            AuthMode::None => Mode::None,
            AuthMode::Token => Mode::Token(secret(&settings.token, "token")?),
            AuthMode::Password => Mode::Password(secret(&settings.password, "password")?),
            AuthMode::TrustedProxy => return Err(RuntimeError::TrustedProxy),
        };
        let generation = match &mode {
            Mode::None => None,
            Mode::Token(secret) | Mode::Password(secret) => Some(IssuerGeneration::of(secret)),
        };
        let ui = &config.control_ui;
        let proxies = config.trusted_proxies.iter();
        let trusted_proxies =
            proxies.map(|text| Network::parse(text).ok_or_else(|| RuntimeError::BadProxy(text.clone())));
        let limit = &config.auth.rate_limit;
        Ok(Self {
            policy: Policy {
                mode,
                auto_approve_local: config.nodes.pairing.auto_approve_local,
                allow_insecure_auth: ui.allow_insecure_auth,
                names: Names::new(
                    &ui.allowed_origins,
                    config.public_origin.as_deref(),
                    ui.dangerously_allow_host_header_origin_fallback,
                    false,
                ),
            },
            limits: Limits {
                max_attempts: limit.max_attempts,
                window_ms: limit.window_ms,
                lockout_ms: limit.lockout_ms,
                exempt_loopback: limit.exempt_loopback,
            },
            generation,
            trusted_proxies: trusted_proxies.collect::<Result<_, _>>()?,
            base_path: ui
                .base_path
                .as_deref()
                .map(|path| path.trim_end_matches('/').to_owned())
                .filter(|p| !p.is_empty()),
            node_allow: config.nodes.commands.allow.clone(),
            node_deny: config.nodes.commands.deny.clone(),
            log_file,
        })
    }

    /// True when forwarding headers of this address are believed.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// True for the paths an upgrade is accepted on: `/` and the Control UI's base path.
    pub fn is_websocket_path(&self, path: &str) -> bool {
        path == "/" || self.base_path.as_deref().is_some_and(|base| path.trim_end_matches('/') == base)
    }
}

/// An address or a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: u128,
    mask: u128,
    v4: bool,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return None;
        }
        let host_bits = width - prefix;
        let mask = if host_bits == 128 { 0 } else { u128::MAX << host_bits };
        let address_bits = bits(address);
        Some(Self { address: address_bits & mask, mask, v4: address.is_ipv4() })
    }

    fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.v4 && bits(address) & self.mask == self.address
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).map(|n| n.contains(address.parse().expect("address")))
        };
        assert_eq!(contains("10.0.0.5", "10.0.0.5"), Some(true));
        assert_eq!(contains("10.0.0.5", "10.0.0.6"), Some(false));
        assert_eq!(contains("10.0.0.0/24", "10.0.0.200"), Some(true));
        assert_eq!(contains("10.0.0.0/24", "::ffff:10.0.0.200"), Some(true));
        assert_eq!(contains("10.0.0.0/24", "10.0.1.1"), Some(false));
        assert_eq!(contains("fd00::/8", "fd12::1"), Some(true));
        assert_eq!(contains("::/0", "10.0.0.1"), Some(false));
        for bad in ["", "10.0.0.0/33", "evil", "10.0.0.0/", "10.0.0.0/x"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
