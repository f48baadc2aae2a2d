//! Paths: the ways to one gateway.
//!
//! ```text
//!   flags, environment, config, saved connections
//!        │  target::Target::resolve        which gateway is meant, and what may be sent there
//!        ▼
//!   Route { name, gateway, paths }         who has to answer (GatewayId, when known), and every way to get there
//!        │  route::open                    tries the paths, best first, each with a head start over the next
//!        ▼
//!   Link { client, path }                  the first hello that was proven; the other attempts are dropped
//! ```
//!
//! A [`GatewayPath`] is either a URL dialled from here or ssh to the gateway's host. A URL given by flag, environment or
//! config makes a route of one path (`rules` says which kind); a saved connection has all the paths it was saved with, and
//! they lead to one and the same gateway: where its identity is known, whoever answers has to prove it before anything is
//! sent ([`crate::connect::Plan::gateway`]), so racing the paths gives nothing away. [`crate::session`] keeps a connection
//! up across them.
//!
//! `Target::route.paths` is the list to show or to probe, best first; [`GatewayPath::label`] is how each is called.

use std::time::Duration;

use openclaw_config::{
    Paths,
    connections::{ConnectionName, PathKind, SavedPath, SavedSsh, SavedUrl},
};
use openclaw_protocol::{GatewayId, Secret};

use crate::{
    address::AddressClass,
    dial::Endpoint,
    ssh::{SshSpec, SshTargetError},
    tls::{BadFingerprint, Fingerprint},
    url::{GatewayUrl, Host, UrlError},
};

/// A URL, dialled from here.
#[derive(Clone, Debug)]
pub struct Direct {
    pub kind: PathKind,
    pub url: GatewayUrl,
    /// The certificate that has to be shown.
    pub pin: Option<Fingerprint>,
    /// `OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1` in this process.
    pub allow_private_names: bool,
    /// `gateway.remote.edgeAuth`: for the configured remote URL only, and over TLS only.
    pub edge: Vec<(String, Secret)>,
}

/// One way to a gateway.
#[derive(Clone, Debug)]
pub enum GatewayPath {
    Direct(Box<Direct>),
    /// The far host's loopback, through ssh: a running tunnel where there is one, else an ssh of our own.
    Ssh(SshSpec),
}

/// Who is meant and how to get there.
#[derive(Clone, Debug)]
pub struct Route {
    /// The saved connection, if it is one.
    pub name: Option<ConnectionName>,
    /// Who has to prove itself before anything is sent.
    pub gateway: Option<GatewayId>,
    /// Best first, never empty.
    pub paths: Vec<GatewayPath>,
}

/// A saved path that cannot be used as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Pin(#[from] BadFingerprint),
    #[error(transparent)]
    Ssh(#[from] SshTargetError),
}

impl GatewayPath {
    /// A URL whose kind is judged by its host.
    pub fn direct(url: GatewayUrl) -> Self {
        let kind = kind_of(&url);
        Self::Direct(Box::new(Direct { kind, url, pin: None, allow_private_names: false, edge: Vec::new() }))
    }

    /// Checks a saved path.
    ///
    /// # Errors
    /// [`BadPath`], for a file that was edited by hand.
    pub fn from_saved(saved: &SavedPath, paths: &Paths, allow_private_names: bool) -> Result<Self, BadPath> {
        match saved {
            SavedPath::Loopback(path) | SavedPath::Lan(path) | SavedPath::Tailnet(path) | SavedPath::Public(path) => {
                let url = GatewayUrl::parse(&path.url)?;
                let pin = path.tls_fingerprint.as_deref().map(str::parse).transpose()?;
                let edge = Vec::new();
                Ok(Self::Direct(Box::new(Direct { kind: saved.kind(), url, pin, allow_private_names, edge })))
            }
            SavedPath::Ssh(path) => Ok(Self::Ssh(SshSpec {
                target: path.target.parse()?,
                identity: path.identity.as_ref().map(|file| paths.expand(&file.to_string_lossy())),
                host_keys: path.host_key_policy,
                gateway_port: path.gateway_port,
            })),
        }
    }

    /// The same in the form in which connections are saved. Edge headers are not part of it.
    pub fn to_saved(&self) -> SavedPath {
        match self {
            Self::Direct(path) => {
                let saved =
                    SavedUrl { url: path.url.to_string(), tls_fingerprint: path.pin.map(|pin| pin.to_string()) };
                match path.kind {
                    PathKind::Loopback => SavedPath::Loopback(saved),
                    PathKind::Lan => SavedPath::Lan(saved),
                    PathKind::Tailnet => SavedPath::Tailnet(saved),
                    PathKind::Public | PathKind::Ssh => SavedPath::Public(saved),
                }
            }
            Self::Ssh(spec) => SavedPath::Ssh(SavedSsh {
                target: spec.target.to_string(),
                identity: spec.identity.clone(),
                host_key_policy: spec.host_keys,
                gateway_port: spec.gateway_port,
            }),
        }
    }

    pub const fn kind(&self) -> PathKind {
        match self {
            Self::Direct(path) => path.kind,
            Self::Ssh(_) => PathKind::Ssh,
        }
    }

    /// How to call it in output: `lan ws://192.168.77.10:18789`, `ssh me@box`.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind(), self.address())
    }

    /// The URL or the ssh target.
    pub fn address(&self) -> String {
        match self {
            Self::Direct(path) => path.url.to_string(),
            Self::Ssh(spec) => spec.target.to_string(),
        }
    }

    /// How much later than the best path this one starts, so that a good one wins where it works at all. An ssh tunnel that is
    /// up costs nothing to ask (`running`); a new one costs a login at the far host.
    pub const fn head_start(&self, running: bool) -> Duration {
        Duration::from_millis(match self {
            Self::Direct(path) => match path.kind {
                PathKind::Loopback | PathKind::Lan => 0,
                PathKind::Tailnet => 100,
                PathKind::Public | PathKind::Ssh => 200,
            },
            Self::Ssh(_) if running => 0,
            Self::Ssh(_) => 150,
        })
    }

    /// The URL, or the target as an `ssh://` URL.
    pub fn shown(&self) -> String {
        match self {
            Self::Direct(path) => path.url.to_string(),
            Self::Ssh(spec) => spec.target.url(),
        }
    }

    /// How the gateway is addressed at the end of the path: the URL, or behind ssh the far host's loopback.
    pub fn far_url(&self) -> GatewayUrl {
        match self {
            Self::Direct(path) => path.url.clone(),
            Self::Ssh(spec) => GatewayUrl::loopback(spec.gateway_port),
        }
    }

    /// Where to dial, for a URL.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Direct(path) => Some(path.endpoint()),
            Self::Ssh(_) => None,
        }
    }
}

impl Direct {
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Url {
            url: self.url.clone(),
            pin: self.pin,
            allow_private_names: self.allow_private_names,
            edge: self.edge.clone(),
        }
    }
}

impl Route {
    /// A route of one path to whoever answers there.
    pub fn single(path: GatewayPath) -> Self {
        Self { name: None, gateway: None, paths: vec![path] }
    }

    /// The path that is tried first.
    pub fn best(&self) -> Option<&GatewayPath> {
        self.paths.first()
    }
}

/// What kind of way a URL is, as far as its host says without a look-up.
pub fn kind_of(url: &GatewayUrl) -> PathKind {
    if url.is_loopback() {
        return PathKind::Loopback;
    }
    match url.host() {
        Host::Ip(address) => match AddressClass::of(*address) {
            AddressClass::SharedNat => PathKind::Tailnet,
            // Tailscale's IPv6 addresses (fd7a:115c:a1e0::/48).
            _ if is_tailscale_v6(*address) => PathKind::Tailnet,
            AddressClass::Private | AddressClass::LinkLocal | AddressClass::Loopback => PathKind::Lan,
            AddressClass::Unspecified | AddressClass::Public => PathKind::Public,
        },
        Host::Scoped(..) => PathKind::Lan,
        Host::Name(name) if name.ends_with(".ts.net") => PathKind::Tailnet,
        // One label or a home suffix leads nowhere on the internet.
        Host::Name(name)
            if !name.contains('.')
                || [".local", ".lan", ".home", ".internal", ".home.arpa"].iter().any(|end| name.ends_with(end)) =>
        {
            PathKind::Lan
        }
        Host::Name(_) => PathKind::Public,
    }
}

fn is_tailscale_v6(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(v6) if v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Env, Profile, gateway::HostKeyPolicy};
    use serde_json::json;

    #[test]
    fn kinds_of_urls() {
        for (url, kind) in [
            ("ws://127.0.0.1:1", PathKind::Loopback),
            ("ws://localhost:1", PathKind::Loopback),
            ("ws://192.168.1.2:1", PathKind::Lan),
            ("ws://[fe80::1%25eth0]:1", PathKind::Lan),
            ("ws://mac.local:1", PathKind::Lan),
            ("ws://gateway.home:1", PathKind::Lan),
            ("ws://nas:1", PathKind::Lan),
            ("ws://100.64.0.10:1", PathKind::Tailnet),
            ("ws://[fd7a:115c:a1e0::1]:1", PathKind::Tailnet),
            ("wss://gw.tail-lab.ts.net", PathKind::Tailnet),
            ("ws://[fd00::1]:1", PathKind::Lan),
            ("wss://gw.example.com", PathKind::Public),
            ("wss://8.8.8.8", PathKind::Public),
        ] {
            assert_eq!(kind_of(&GatewayUrl::parse(url).expect(url)), kind, "{url}");
        }
    }

    #[test]
    fn saved_and_back() {
        let paths = Paths::resolve(&Env::from_pairs([("HOME", "/home/me")]), Profile::Default).expect("paths");
        let pin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for saved in [
            json!({"kind": "lan", "url": "ws://192.168.77.10:18789", "tlsFingerprint": null}),
            json!({"kind": "tailnet", "url": "wss://gw.tail-lab.ts.net", "tlsFingerprint": pin}),
            json!({"kind": "ssh", "target": "me@box:22", "identity": null, "hostKeyPolicy": "openssh", "gatewayPort": 18790}),
        ] {
            let read: SavedPath = serde_json::from_value(saved.clone()).expect("saved form");
            let path = GatewayPath::from_saved(&read, &paths, false).expect("usable");
            assert_eq!(serde_json::to_value(path.to_saved()).expect("JSON"), saved);
        }
        let key = json!({"kind": "ssh", "target": "box", "identity": "~/.ssh/k", "gatewayPort": 1});
        let read: SavedPath = serde_json::from_value(key).expect("saved form");
        let GatewayPath::Ssh(spec) = GatewayPath::from_saved(&read, &paths, false).expect("usable") else { panic!() };
        assert_eq!(spec.identity.as_deref(), Some(std::path::Path::new("/home/me/.ssh/k")));
        assert_eq!(spec.host_keys, HostKeyPolicy::Strict);
        for bad in [
            json!({"kind": "lan", "url": "ssh://x"}),
            json!({"kind": "lan", "url": "wss://x", "tlsFingerprint": "00"}),
            json!({"kind": "ssh", "target": "-oProxyCommand=x", "gatewayPort": 1}),
        ] {
            let read: SavedPath = serde_json::from_value(bad.clone()).expect("saved form");
            assert!(GatewayPath::from_saved(&read, &paths, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn head_starts_follow_the_preference() {
        let direct = |url: &str| GatewayPath::direct(GatewayUrl::parse(url).expect(url));
        let ssh = GatewayPath::Ssh(SshSpec::new("me@box".parse().expect("target")));
        let ms = |path: &GatewayPath, running| path.head_start(running).as_millis();
        assert_eq!(ms(&direct("ws://192.168.1.2:1"), false), 0);
        assert_eq!(ms(&direct("ws://100.64.0.1:1"), false), 100);
        assert_eq!(ms(&direct("wss://gw.example.com"), false), 200);
        assert_eq!((ms(&ssh, true), ms(&ssh, false)), (0, 150));
        assert_eq!(ssh.label(), "ssh me@box");
    }
}
