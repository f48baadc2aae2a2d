//! What the person's files say about a login: config, keys, known hosts.

use std::path::{Path, PathBuf};

use russh::keys::{
    self, Algorithm, HashAlg, PublicKey,
    known_hosts::{check_known_hosts_path, known_host_keys_path},
};

use crate::ssh::{SshFailure, SshFailureKind, SshSpec, failure::ChangedKey, hosts::lines_for};

/// Keywords that change who is reached or how it is known, and that only OpenSSH's own client understands.
const BEYOND_US: &[&str] = &[
    "match",
    "proxyjump",
    "proxycommand",
    "hostkeyalias",
    "userknownhostsfile",
    "globalknownhostsfile",
    "knownhostscommand",
    "certificatefile",
    "pkcs11provider",
];

/// A login, worked out.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub keys: Vec<PathBuf>,
    /// May the agent's keys be offered?
    pub agent: bool,
    named_key: bool,
    pub known_hosts: PathBuf,
}

impl Login {
    pub fn plan(spec: &SshSpec, home: &Path) -> Result<Self, SshFailure> {
        let dir = home.join(".ssh");
        let lines = lines_for(spec.target.host(), home);
        let beyond = |(keyword, value): &&(String, String)| {
            BEYOND_US.contains(&keyword.as_str()) && !value.eq_ignore_ascii_case("none")
        };
        if let Some((keyword, _)) = lines.iter().find(beyond) {
            let why =
                format!("~/.ssh/config uses {keyword} for this host, which only OpenSSH's own client understands");
            return Err(SshFailure::new(SshFailureKind::Config, why));
        }
        let first = |wanted: &str| lines.iter().find(|(keyword, _)| keyword == wanted).map(|(_, value)| value.clone());
        let in_home = |path: &str| path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest));
        let user = spec.target.user().map(str::to_owned).or_else(|| first("user"));
        let user = user.or_else(|| std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok());
        let user = user.ok_or_else(|| SshFailure::new(SshFailureKind::Config, "the user name is unknown"))?;
        let port = spec.target.port().or_else(|| first("port")?.parse().ok()).unwrap_or(22);
        let configured = lines.iter().filter(|(keyword, _)| keyword == "identityfile");
        let configured: Vec<PathBuf> = configured.map(|(_, path)| in_home(path)).collect();
        let keys = match &spec.identity {
            Some(identity) => vec![in_home(&identity.to_string_lossy())],
            None if !configured.is_empty() => configured,
            None => ["id_ed25519", "id_ecdsa", "id_rsa"].iter().map(|name| dir.join(name)).collect(),
        };
        let only = first("identitiesonly").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        Ok(Self {
            host: first("hostname").unwrap_or_else(|| spec.target.host().to_owned()),
            port,
            user,
            keys,
            agent: spec.identity.is_none() && !only,
            named_key: spec.identity.is_some(),
            known_hosts: dir.join("known_hosts"),
        })
    }

    pub fn missing_key(&self) -> bool {
        self.named_key && !self.keys.iter().any(|file| file.exists())
    }

    /// Kinds of key on record for this host.
    pub fn known_algorithms(&self) -> Vec<Algorithm> {
        let known = known_host_keys_path(&self.host, self.port, &self.known_hosts).unwrap_or_default();
        let mut kinds: Vec<Algorithm> = Vec::new();
        for kind in known.into_iter().map(|(_, key)| key.algorithm()) {
            let kind = if kind.clone().is_rsa() { Algorithm::Rsa { hash: Some(HashAlg::Sha512) } } else { kind };
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// What is wrong with the host's key, if anything.
    pub fn judge(&self, shown: &PublicKey) -> Option<SshFailure> {
        let fingerprint = shown.fingerprint(HashAlg::Sha256).to_string();
        if self.is_revoked(shown) {
            return Some(SshFailure::new(SshFailureKind::HostKeyRevoked, fingerprint));
        }
        match check_known_hosts_path(&self.host, self.port, shown, &self.known_hosts) {
            Ok(true) => None,
            Ok(false) => Some(SshFailure::new(SshFailureKind::HostUnknown, fingerprint)),
            Err(keys::Error::KeyChanged { line }) => {
                let algorithm = match shown.algorithm() {
                    Algorithm::Ed25519 => "ED25519",
                    Algorithm::Ecdsa { .. } => "ECDSA",
                    _ => "RSA",
                };
                let on_record = format!("{}:{line}", self.known_hosts.display());
                let mut failure = SshFailure::new(SshFailureKind::HostKeyChanged, "");
                let key = ChangedKey { algorithm: algorithm.to_owned(), shown: fingerprint, on_record };
                failure.host_key = Some(Box::new(key));
                Some(failure)
            }
            // A file that cannot be read vouches for nobody.
            Err(error) => Some(SshFailure::new(SshFailureKind::HostUnknown, error.to_string())),
        }
    }

    /// A key that was revoked for any host is not taken from this one.
    fn is_revoked(&self, shown: &PublicKey) -> bool {
        let Ok(text) = std::fs::read_to_string(&self.known_hosts) else { return false };
        let Ok(shown) = shown.to_openssh() else { return true };
        let Some(body) = shown.split(' ').nth(1) else { return true };
        text.lines().any(|line| line.trim_start().starts_with("@revoked") && line.split_whitespace().any(|w| w == body))
    }
}
