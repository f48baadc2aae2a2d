//! What goes wrong with ssh, as a closed set: each with its cause and one line of advice.
//!
//! ssh says everything in prose and exits with 255. It runs with `LC_ALL=C`, and what it says is compared with phrases that
//! have been the same for many releases; the first kind whose phrase was said wins, in the order of [`classify`].

use std::{collections::VecDeque, fmt, time::Duration};

use super::SshSpec;
use crate::remedy::Remedy;

/// Lines kept from the beginning and, again as many, from the end of what ssh says.
const KEPT_LINES: usize = 40;
/// Longest line kept, in bytes.
const KEPT_LINE_BYTES: usize = 512;
/// Longest quotation of ssh in a message.
const DETAIL_CHARS: usize = 300;

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

/// What ssh said: the first and the last lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Transcript {
    first: Vec<String>,
    last: VecDeque<String>,
}

impl Transcript {
    pub fn push(&mut self, line: &str) {
        let mut line = clean(line);
        if line.len() > KEPT_LINE_BYTES {
            line = line.chars().take(KEPT_LINE_BYTES).collect();
        }
        if line.is_empty() {
            return;
        }
        if self.first.len() < KEPT_LINES {
            self.first.push(line);
            return;
        }
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.first.iter().chain(&self.last).map(String::as_str)
    }

    /// The last line that holds one of `phrases`.
    fn find(&self, phrases: &[&str]) -> Option<&str> {
        self.lines().rev().find(|line| phrases.iter().any(|phrase| line.contains(phrase)))
    }
}

/// One line without control characters and with single blanks.
pub(super) fn clean(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words
        .collect::<Vec<_>>()
        .join(" ")
        .replace(|c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'), "")
}

/// Phrases of each kind, in the order in which they are looked for: what ssh says about a jump host or a helper comes
/// with a follow-up about the connection as a whole, which is never the cause.
const PHRASES: &[(SshFailureKind, &[&str])] = &[
    (SshFailureKind::HostKeyRevoked, &["REVOKED HOST KEY DETECTED", "is revoked"]),
    (
        SshFailureKind::HostKeyChanged,
        &["REMOTE HOST IDENTIFICATION HAS CHANGED", "has changed and you have requested strict"],
    ),
    (
        SshFailureKind::HostUnknown,
        &[
            "host key is known for",
            "you have requested strict checking",
            "authenticity of host",
            "Host key verification failed",
        ],
    ),
    (
        SshFailureKind::Config,
        &[
            "Bad configuration option",
            "Bad owner or permissions on",
            "Can't open user config file",
            "jumphost loop",
            "unknown option --",
            "Bad local forwarding specification",
        ],
    ),
    (SshFailureKind::Negotiation, &["no matching", "Unable to negotiate"]),
    (
        SshFailureKind::AuthRefused,
        &[
            "Permission denied (",
            "Too many authentication failures",
            "No more authentication methods",
            "Permission denied, please",
        ],
    ),
    (SshFailureKind::Name, &["Could not resolve hostname"]),
    (SshFailureKind::TimedOut, &["Connection timed out", "Operation timed out", "timed out during banner exchange"]),
    (SshFailureKind::Unreachable, &["No route to host", "Network is unreachable", "Can't assign requested address"]),
    (SshFailureKind::Refused, &["Connection refused"]),
    (
        SshFailureKind::Local,
        &["unix_listener", "Could not request local forwarding", "cannot listen to port", "Address already in use"],
    ),
    (
        SshFailureKind::ForwardRefused,
        &["administratively prohibited", "remote port forwarding failed", "forwarding disabled"],
    ),
    (
        SshFailureKind::Lost,
        &["not responding", "Broken pipe", "closed by remote host", "Connection reset by", "client_loop:"],
    ),
    (SshFailureKind::Handshake, &["kex_exchange_identification", "banner exchange", "Connection closed by"]),
];

/// The failure behind an ended ssh. `opened`: it had been up. `code`: its exit code, `None` when a signal ended it.
pub(super) fn classify(said: &Transcript, code: Option<i32>, opened: bool) -> SshFailure {
    let quoted = |kind, line: &str| SshFailure::new(kind, line.chars().take(DETAIL_CHARS).collect::<String>());
    if opened {
        let line = said.find(&["not responding", "closed", "reset", "Broken pipe", "timed out"]);
        let line = line.or_else(|| said.lines().next_back()).map(str::to_owned);
        let line =
            line.unwrap_or_else(|| code.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}")));
        return quoted(SshFailureKind::Lost, &line);
    }
    if said.find(&["stdio forwarding failed"]).is_some()
        && let Some(refusal) = said.lines().rev().find_map(channel_refusal)
    {
        // A jump host was reached and could not go on.
        return refusal.onward();
    }
    for (kind, phrases) in PHRASES {
        let Some(line) = said.find(phrases) else { continue };
        // Before the host has shown its key there is no connection to lose.
        let early = said.find(&["kex_exchange_identification", "banner exchange"]).is_some();
        let kind = if *kind == SshFailureKind::Lost && early { SshFailureKind::Handshake } else { *kind };
        let mut failure = quoted(kind, line);
        if kind == SshFailureKind::HostKeyChanged {
            failure.host_key = changed_key(said).map(Box::new);
        }
        if kind == SshFailureKind::AuthRefused
            && let Some(line) = said.find(&["not accessible", "bad permissions", "Load key"])
        {
            failure.kind = SshFailureKind::Identity;
            failure.detail = line.to_owned();
        }
        return failure;
    }
    let line = said.lines().next_back().map(str::to_owned);
    let line = line.unwrap_or_else(|| match code {
        Some(code) => format!("exit code {code} without a word"),
        None => "ended by a signal".to_owned(),
    });
    quoted(SshFailureKind::Other, &line)
}

/// Reads `channel 2: open failed: connect failed: Connection refused`, which ssh says while it stays up.
pub(super) fn channel_refusal(line: &str) -> Option<SshFailure> {
    let reason = line.strip_prefix("channel ")?.split_once(": open failed: ")?.1;
    let kind =
        if reason.starts_with("connect failed") { SshFailureKind::GatewayDown } else { SshFailureKind::ForwardRefused };
    Some(SshFailure::new(kind, reason.chars().take(DETAIL_CHARS).collect::<String>()))
}

impl SshFailure {
    /// A refusal by a jump host, told as what it says about the host behind it.
    fn onward(mut self) -> Self {
        self.kind = match self.detail.as_str() {
            text if text.contains("not known") || text.contains("resolve") => SshFailureKind::Name,
            text if text.contains("refused") => SshFailureKind::Refused,
            text if text.contains("timed out") => SshFailureKind::TimedOut,
            text if text.contains("prohibited") => SshFailureKind::ForwardRefused,
            _ => SshFailureKind::Unreachable,
        };
        self.detail = format!("said by the jump host: {}", self.detail);
        self
    }
}

fn changed_key(said: &Transcript) -> Option<ChangedKey> {
    let lines: Vec<&str> = said.lines().collect();
    let shown = lines.iter().find(|line| line.starts_with("SHA256:"))?.trim_end_matches('.').to_owned();
    let record = lines.iter().find(|line| line.starts_with("Offending ") && line.contains(" key in "))?;
    let (before, place) = record.split_once(" key in ")?;
    let algorithm = before.strip_prefix("Offending ")?.to_owned();
    // The key on record may be of another kind than the one shown; the advice is about the one shown.
    let named =
        lines.iter().find_map(|line| line.strip_prefix("The fingerprint for the ")?.split_once(' ').map(|(a, _)| a));
    Some(ChangedKey { algorithm: named.map_or(algorithm, str::to_owned), shown, on_record: place.to_owned() })
}

/// The host let us log in and then gave no session: `nologin`, a forced command, `MaxSessions 0`.
pub(super) fn is_no_session(said: &Transcript, code: Option<i32>) -> bool {
    // Until the session is there nobody has asked for another channel.
    let refused =
        said.find(&["request failed on channel"]).is_some() || said.lines().any(|line| channel_refusal(line).is_some());
    // Our command is `cat`: any exit code but ssh's own means that something else ran, and ended.
    let ended = code.is_some_and(|code| code != super::once::SSH_FAILED);
    (refused || ended) && said.find(&["stdio forwarding failed"]).is_none()
}

/// The person's own forwardings stand in the way of ours: another ssh has their ports already.
pub(super) fn is_other_forwards(said: &Transcript, socket: &str) -> bool {
    let ours = said.find(&["unix_listener"]).is_some_and(|line| line.contains(socket));
    !ours
        && said
            .find(&[
                "cannot listen to port",
                "remote port forwarding failed",
                "unix_listener",
                "Address already in use",
            ])
            .is_some()
}
