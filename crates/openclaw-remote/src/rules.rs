//! From a URL and the keys of `gateway.remote` to a path (S-057…S-062).
//!
//! | URL | `transport` | `sshTarget` | path |
//! |---|---|---|---|
//! | `ssh://…`, whoever gave it | not `direct` | any | ssh to that host |
//! | loopback or absent, configured | unset or `ssh` | set | ssh to `sshTarget` |
//! | loopback, configured | unset or `ssh` | unset | the URL: a tunnel the owner keeps open |
//! | elsewhere, configured | `ssh` | set | ssh to `sshTarget` |
//! | elsewhere, configured | `ssh` | unset | refused: what was asked for cannot be done |
//! | elsewhere, configured | unset | any | the URL |
//! | any but `ssh://` | `direct` | any | the URL |
//! | any but `ssh://`, by flag or environment | any | any | the URL |
//!
//! The gateway's port behind ssh is `remotePort`, else the port of a loopback URL, else 18789. The port in an `ssh://` URL is
//! the ssh server's. `sshIdentity` and `sshHostKeyPolicy` belong to the configured host: another host named by `--url` or the
//! environment gets ssh's own choice of keys, and strict host keys.

use openclaw_config::{
    Paths,
    gateway::{RemoteConfig, Transport},
    paths::DEFAULT_PORT,
};

use crate::{
    path::GatewayPath,
    ssh::{SshSpec, SshTarget, SshTargetError},
    url::{GatewayUrl, UrlError},
};

/// Why a URL and the config together give no path. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error(transparent)]
    Url(#[from] UrlError),
    /// In an `ssh://` URL.
    #[error(transparent)]
    SshUrl(SshTargetError),
    #[error("gateway.remote.sshTarget: {0}")]
    SshTarget(SshTargetError),
    #[error("gateway.remote.transport is \"direct\", but gateway.remote.url is an ssh:// URL")]
    SshUrlDirect,
    #[error("gateway.remote.transport is \"ssh\", but there is no gateway.remote.sshTarget to go through")]
    NoSshTarget,
}

/// What the rules look at besides the URL.
pub struct Rules<'a> {
    pub remote: &'a RemoteConfig,
    /// `gateway.remote.transport` is written in the config, rather than its default.
    pub transport_set: bool,
    pub paths: &'a Paths,
}

/// Where a URL leads, and the URL in the form in which to show it.
#[derive(Clone, Debug)]
pub struct Means {
    pub path: GatewayPath,
    /// As the gateway is addressed: the URL itself, or behind ssh the one at the far host.
    pub url: GatewayUrl,
    /// The URL for people: for an `ssh://` URL that one.
    pub shown: String,
}

impl Rules<'_> {
    /// A URL by flag or environment.
    ///
    /// # Errors
    /// [`RuleError`] for a URL that is none.
    pub fn given(&self, text: &str) -> Result<Means, RuleError> {
        if SshTarget::is_url(text) {
            let target: SshTarget = text.parse().map_err(RuleError::SshUrl)?;
            return Ok(self.ssh(target, None, true));
        }
        Ok(direct(GatewayUrl::parse(text)?))
    }

    /// `gateway.remote.url`.
    ///
    /// # Errors
    /// [`RuleError`].
    pub fn configured(&self, text: &str) -> Result<Means, RuleError> {
        if SshTarget::is_url(text) {
            let target: SshTarget = text.parse().map_err(RuleError::SshUrl)?;
            return match self.remote.transport {
                Transport::Direct => Err(RuleError::SshUrlDirect),
                Transport::Ssh => Ok(self.ssh(target, None, true)),
            };
        }
        let url = GatewayUrl::parse(text)?;
        let wants_ssh = self.remote.transport == Transport::Ssh && (self.transport_set || url.is_loopback());
        match (&self.remote.ssh_target, wants_ssh) {
            (Some(target), true) => {
                let target = target.parse().map_err(RuleError::SshTarget)?;
                Ok(self.ssh(target, Some(url), false))
            }
            (None, true) if !url.is_loopback() => Err(RuleError::NoSshTarget),
            _ => Ok(direct(url)),
        }
    }

    /// `gateway.remote.sshTarget` without a URL.
    ///
    /// # Errors
    /// [`RuleError::SshTarget`].
    pub fn ssh_target(&self, text: &str) -> Result<Means, RuleError> {
        let target = text.parse().map_err(RuleError::SshTarget)?;
        Ok(self.ssh(target, None, true))
    }

    fn ssh(&self, target: SshTarget, url: Option<GatewayUrl>, by_ssh_url: bool) -> Means {
        let port = self.remote.remote_port.or(url.as_ref().map(GatewayUrl::port)).unwrap_or(DEFAULT_PORT);
        let ours = self.is_configured(&target);
        let spec = SshSpec {
            identity: self.remote.ssh_identity.as_deref().filter(|_| ours).map(|file| self.paths.expand(file)),
            host_keys: if ours { self.remote.ssh_host_key_policy } else { Default::default() },
            gateway_port: port,
            target,
        };
        let shown = match &url {
            Some(url) if !by_ssh_url => url.to_string(),
            _ => spec.target.url(),
        };
        Means { url: url.unwrap_or_else(|| GatewayUrl::loopback(port)), path: GatewayPath::Ssh(spec), shown }
    }

    /// The host that `sshIdentity` and `sshHostKeyPolicy` were written for.
    fn is_configured(&self, target: &SshTarget) -> bool {
        let texts =
            [self.remote.ssh_target.as_deref(), self.remote.url.as_deref().filter(|url| SshTarget::is_url(url))];
        texts.into_iter().flatten().any(|text| text.parse::<SshTarget>().is_ok_and(|known| known == *target))
    }
}

fn direct(url: GatewayUrl) -> Means {
    Means { shown: url.to_string(), path: GatewayPath::direct(url.clone()), url }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Document, Env, GatewayConfig, Profile, gateway::HostKeyPolicy};

    /// What a `gateway.remote` section (without its braces) makes of a URL: the path's label and the port behind it.
    fn means(remote: &str, ask: impl Fn(&Rules<'_>) -> Result<Means, RuleError>) -> Result<String, RuleError> {
        let env = Env::from_pairs([("HOME", "/home/me")]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let text = format!("{{gateway: {{mode: 'remote', remote: {{{remote}}}}}}}");
        let document = Document::from_text(&text, &paths, &env).expect("config");
        let config = GatewayConfig::read(&document).expect("gateway section");
        let transport_set = config.source("gateway.remote.transport").is_some();
        let rules = Rules { remote: &config.remote, transport_set, paths: &paths };
        let means = ask(&rules)?;
        Ok(match means.path {
            GatewayPath::Direct(path) => format!("{} {}", path.kind, path.url),
            GatewayPath::Ssh(spec) => {
                let identity = spec.identity.map(|file| format!(" -i {}", file.display())).unwrap_or_default();
                let policy = if spec.host_keys == HostKeyPolicy::Openssh { " openssh" } else { "" };
                format!("ssh {} -> {}{identity}{policy} ({})", spec.target, spec.gateway_port, means.shown)
            }
        })
    }

    #[test]
    fn s_057_to_s_062_the_configured_remote() {
        let check = |remote: &str, expected: &str| {
            let config = remote.to_owned();
            let url = |rules: &Rules<'_>| match rules.remote.url.clone() {
                Some(url) => rules.configured(&url),
                None => rules.ssh_target(rules.remote.ssh_target.as_deref().unwrap_or_default()),
            };
            assert_eq!(means(&config, url).unwrap_or_else(|error| format!("{error:?}")), expected, "{remote}");
        };
        // S-057, S-058: a URL alone is dialled; a loopback one is a tunnel its owner keeps.
        check("url: 'wss://gw.example.com'", "public wss://gw.example.com");
        check("url: 'ws://127.0.0.1:18789'", "loopback ws://127.0.0.1:18789");
        check("url: 'ws://127.0.0.1:18789', transport: 'ssh'", "loopback ws://127.0.0.1:18789");
        // S-059: the ssh target beside a local URL.
        check("url: 'ws://127.0.0.1:18789', sshTarget: 'me@box'", "ssh me@box -> 18789 (ws://127.0.0.1:18789)");
        check("sshTarget: 'me@box'", "ssh me@box -> 18789 (ssh://me@box)");
        // S-060: the port on the ssh host.
        check("url: 'ws://127.0.0.1:28000', sshTarget: 'me@box'", "ssh me@box -> 28000 (ws://127.0.0.1:28000)");
        check(
            "url: 'ws://127.0.0.1:28000', sshTarget: 'me@box', remotePort: 19001",
            "ssh me@box -> 19001 (ws://127.0.0.1:28000)",
        );
        check("url: 'ssh://me@box:2222', remotePort: 19001", "ssh me@box:2222 -> 19001 (ssh://me@box:2222)");
        // S-061: direct is direct.
        check(
            "url: 'ws://192.168.0.202:18789', transport: 'direct', sshTarget: 'me@box'",
            "lan ws://192.168.0.202:18789",
        );
        check("url: 'ws://127.0.0.1:18789', transport: 'direct', sshTarget: 'me@box'", "loopback ws://127.0.0.1:18789");
        check("url: 'ssh://me@box', transport: 'direct'", "SshUrlDirect");
        // S-062: unset means ssh where the URL says nothing else.
        check("url: 'ws://192.168.0.202:18789', sshTarget: 'me@box'", "lan ws://192.168.0.202:18789");
        check(
            "url: 'ws://192.168.0.202:18789', transport: 'ssh', sshTarget: 'me@box'",
            "ssh me@box -> 18789 (ws://192.168.0.202:18789)",
        );
        check("url: 'ws://192.168.0.202:18789', transport: 'ssh'", "NoSshTarget");
        check(
            "url: 'ssh://me@box', sshIdentity: '~/.ssh/k', sshHostKeyPolicy: 'openssh'",
            "ssh me@box -> 18789 -i /home/me/.ssh/k openssh (ssh://me@box)",
        );
        check("url: 'ssh://-oProxyCommand=x'", "SshUrl(Dash)");
        check("url: 'ssh://box/path'", "SshUrl(Path)");
        check("url: 'ws://127.0.0.1:1', sshTarget: 'a;b'", "SshTarget(Characters)");
        check("url: 'ws://u@127.0.0.1:1'", "Url(UserInfo)");
    }

    #[test]
    fn urls_by_flag_and_environment() {
        let remote = "url: 'ssh://me@box', sshIdentity: '~/.ssh/k', sshHostKeyPolicy: 'openssh', transport: 'ssh'";
        let check = |text: &str, expected: &str| {
            let given = means(remote, |rules| rules.given(text));
            assert_eq!(given.unwrap_or_else(|error| format!("{error:?}")), expected, "{text}");
        };
        // The configured host keeps its key; another one gets ssh's own choice, strictly.
        check("ssh://me@box", "ssh me@box -> 18789 -i /home/me/.ssh/k openssh (ssh://me@box)");
        check("SSH://you@other:2222/", "ssh you@other:2222 -> 18789 (ssh://you@other:2222)");
        check("ws://192.168.0.202:18789", "lan ws://192.168.0.202:18789");
        check("ws://127.0.0.1:18789", "loopback ws://127.0.0.1:18789");
        check("ssh://me:pw@box", "SshUrl(Password)");
        check("ssh://a@b@c", "SshUrl(Shape)");
    }
}
