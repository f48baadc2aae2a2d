//! What goes wrong with ssh, as a closed set: each with its cause and one line of advice.

use std::{fmt, time::Duration};

use super::SshSpec;
use crate::remedy::Remedy;

/// Why there is no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshFailure {
    pub kind: SshFailureKind,
    /// ssh's own words, cleaned.
    pub detail: String,
    /// For [`SshFailureKind::HostKeyChanged`]: what ssh told about the two keys.
    pub host_key: Option<Box<ChangedKey>>,
    /// What was being reached, when known: the advice names it.
    pub spec: Option<Box<SshSpec>>,
}

/// A host key that is not the one on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedKey {
    /// `ED25519`, `ECDSA` or `RSA`.
    pub algorithm: String,
    /// `SHA256:…` of the key that was shown now.
    pub shown: String,
    /// `/home/me/.ssh/known_hosts:3`: file and line of the key on record.
    pub on_record: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SshFailureKind {
    /// No ssh program on `PATH`.
    NoClient,
    HostKeyChanged,
    HostKeyRevoked,
    HostUnknown,
    AuthRefused,
    /// The identity file that was named cannot be used.
    Identity,
    /// ssh does not accept its config, or not our options.
    Config,
    Name,
    Refused,
    TimedOut,
    Unreachable,
    /// Somebody answered and hung up before ssh could talk to it.
    Handshake,
    /// The two ssh share no algorithm.
    Negotiation,
    ForwardRefused,
    /// ssh is up and nothing answers on the gateway's port behind it.
    GatewayDown,
    /// The near end could not be made on this machine.
    Local,
    /// It was up and ended.
    Lost,
    Other,
}

impl SshFailureKind {
    /// Stable code in JSON output.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoClient => "ssh_missing",
            Self::HostKeyChanged => "host_key_changed",
            Self::HostKeyRevoked => "host_key_revoked",
            Self::HostUnknown => "host_key_unknown",
            Self::AuthRefused => "ssh_auth_refused",
            Self::Identity => "ssh_identity",
            Self::Config => "ssh_config",
            Self::Name => "ssh_name",
            Self::Refused => "ssh_refused",
            Self::TimedOut => "ssh_timeout",
            Self::Unreachable => "ssh_unreachable",
            Self::Handshake => "ssh_handshake",
            Self::Negotiation => "ssh_negotiation",
            Self::ForwardRefused => "forward_refused",
            Self::GatewayDown => "gateway_down",
            Self::Local => "ssh_local",
            Self::Lost => "ssh_lost",
            Self::Other => "ssh_failed",
        }
    }

    /// True when trying again can only help after a person did something.
    pub const fn is_fatal(self) -> bool {
        match self {
            Self::NoClient
            | Self::HostKeyChanged
            | Self::HostKeyRevoked
            | Self::HostUnknown
            | Self::AuthRefused
            | Self::Identity
            | Self::Config
            | Self::Negotiation
            | Self::ForwardRefused => true,
            Self::Name
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Handshake
            | Self::GatewayDown
            | Self::Local
            | Self::Lost
            | Self::Other => false,
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::NoClient => "there is no ssh program on PATH",
            Self::HostKeyChanged => {
                "the host key is not the one on record: either the host got a new key, or somebody else is answering"
            }
            Self::HostKeyRevoked => "the host shows a key that was revoked",
            Self::HostUnknown => "the host key is not known yet, and nobody is asked here",
            Self::AuthRefused => "the host does not accept this login",
            Self::Identity => "the identity file cannot be used",
            Self::Config => "ssh does not accept how it is configured",
            Self::Name => "the host's name could not be resolved",
            Self::Refused => "the host answers, but no ssh server listens on that port",
            Self::TimedOut => "the host did not answer in time",
            Self::Unreachable => "there is no way to the host",
            Self::Handshake => "the other side hung up before ssh could talk to it",
            Self::Negotiation => "the two ssh programs have no algorithm in common",
            Self::ForwardRefused => "the login works, but the host does not allow forwarding to the gateway's port",
            Self::GatewayDown => "ssh works, but nothing listens on the gateway's port on that host",
            Self::Local => "the near end of the tunnel could not be made",
            Self::Lost => "the ssh connection was lost",
            Self::Other => "ssh failed",
        }
    }
}

impl fmt::Display for SshFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(spec) = &self.spec {
            write!(f, "{}: ", spec.target)?;
        }
        f.write_str(self.kind.sentence())?;
        match &self.host_key {
            Some(key) => write!(f, " (shown now: {} {}; on record: {})", key.algorithm, key.shown, key.on_record),
            None if self.detail.is_empty() => Ok(()),
            None => write!(f, " ({})", self.detail),
        }
    }
}

impl std::error::Error for SshFailure {}

impl SshFailure {
    pub fn new(kind: SshFailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), host_key: None, spec: None }
    }

    /// The same, with what was being reached.
    #[must_use]
    pub fn about(mut self, spec: &SshSpec) -> Self {
        self.spec = Some(Box::new(spec.clone()));
        self
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        Self::new(SshFailureKind::TimedOut, format!("nothing within {} ms", after.as_millis()))
    }

    /// Stable code in JSON output.
    pub const fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// True when trying again can only help after a person did something.
    pub const fn is_fatal(&self) -> bool {
        self.kind.is_fatal()
    }

    /// An ssh older than our options.
    pub(super) fn is_unknown_option(&self) -> bool {
        self.kind == SshFailureKind::Config
            && self.detail.contains("Bad configuration option")
            && ["forkafterauthentication", "stdinnull", "sessiontype"]
                .iter()
                .any(|newer| self.detail.to_ascii_lowercase().contains(newer))
    }

    /// What to type next. Commands that need the target name it only when it is known.
    pub fn remedy(&self) -> Option<Remedy> {
        let login = self.spec.as_ref().map_or_else(|| "ssh user@host".to_owned(), |spec| spec.command_line());
        let host = self.spec.as_ref().map_or("<host>", |spec| spec.target.host());
        let port = self.spec.as_ref().map_or(18789, |spec| spec.gateway_port);
        Some(match self.kind {
            SshFailureKind::NoClient => {
                Remedy::here("install the OpenSSH client", "sudo apt-get install openssh-client")
            }
            SshFailureKind::HostKeyChanged | SshFailureKind::HostKeyRevoked => {
                let algorithm = self.host_key.as_ref().map_or("ed25519", |key| match key.algorithm.as_str() {
                    "RSA" => "rsa",
                    "ECDSA" => "ecdsa",
                    _ => "ed25519",
                });
                Remedy::there(
                    "read the host's true fingerprint at its own console and compare; do not log in before they agree",
                    format!("ssh-keygen -lf /etc/ssh/ssh_host_{algorithm}_key.pub"),
                )
            }
            SshFailureKind::HostUnknown => Remedy::here(
                "log in once by hand, compare the fingerprint it shows with the host's, and accept it",
                format!("{login} true"),
            ),
            SshFailureKind::AuthRefused if self.detail.contains("password") || self.detail.contains("keyboard") => {
                Remedy::here("give the host your public key", login.replacen("ssh ", "ssh-copy-id ", 1))
            }
            SshFailureKind::AuthRefused => Remedy::here(
                "load your key into the agent if it has a passphrase (ssh-add); see which keys are offered",
                format!("{} true", login.replacen("ssh ", "ssh -v ", 1)),
            ),
            SshFailureKind::Identity => Remedy::here("see which keys there are", "ls -l ~/.ssh"),
            SshFailureKind::Config => Remedy::here("let ssh check its config", login.replacen("ssh ", "ssh -G ", 1)),
            SshFailureKind::Name => Remedy::here("check the name", format!("getent hosts {host}")),
            SshFailureKind::Refused | SshFailureKind::Handshake => {
                Remedy::there("see whether the ssh server runs and on which port", "sudo ss -ltnp")
            }
            SshFailureKind::TimedOut | SshFailureKind::Unreachable => {
                Remedy::here("see whether the host answers at all", format!("ping -c 3 {host}"))
            }
            SshFailureKind::Negotiation => Remedy::there("see its version; update the older side", "ssh -V"),
            SshFailureKind::ForwardRefused => Remedy::there(
                "allow forwarding for this account (AllowTcpForwarding, PermitOpen, authorized_keys)",
                "sudo sshd -T | grep -iE 'forward|permitopen'",
            ),
            SshFailureKind::GatewayDown if port == 18789 => Remedy::there("start the gateway", "openclaw gateway"),
            SshFailureKind::GatewayDown => {
                Remedy::there("see which port the gateway has, or start it", "openclaw gateway status")
            }
            SshFailureKind::Local => Remedy::here("see who may use the state directory", "openclaw doctor"),
            SshFailureKind::Lost | SshFailureKind::Other => {
                Remedy::here("see what ssh itself says", format!("{} true", login.replacen("ssh ", "ssh -v ", 1)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_target_as_it_was_given() {
        let mut spec = SshSpec::new("me@box:2222".parse().expect("target"));
        spec.identity = Some("~/.ssh/my key".into());
        let command = |kind, detail: &str| SshFailure::new(kind, detail).about(&spec).remedy().expect("advice").command;
        assert_eq!(command(SshFailureKind::HostUnknown, ""), "ssh -p 2222 -i ~/'.ssh/my key' me@box true");
        assert_eq!(
            command(SshFailureKind::AuthRefused, "Permission denied (publickey,password)."),
            "ssh-copy-id -p 2222 -i ~/'.ssh/my key' me@box"
        );
        assert_eq!(
            command(SshFailureKind::AuthRefused, "Permission denied (publickey)."),
            "ssh -v -p 2222 -i ~/'.ssh/my key' me@box true"
        );
    }
}
