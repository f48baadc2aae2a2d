//! What ssh said, and which failure it means.
//!
//! ssh says everything in prose and exits with 255. It runs with `LC_ALL=C`, and what it says is compared with phrases that
//! have been the same for many releases; the first kind whose phrase was said wins, in the order of [`PHRASES`].

use std::collections::VecDeque;

use super::failure::{ChangedKey, SshFailure, SshFailureKind};

/// Lines kept from the beginning and, again as many, from the end of what ssh says.
const KEPT_LINES: usize = 40;
/// Longest line kept, in bytes.
const KEPT_LINE_BYTES: usize = 512;
/// Longest quotation of ssh in a message.
const DETAIL_CHARS: usize = 300;

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
            line.truncate(line.floor_char_boundary(KEPT_LINE_BYTES));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        text.lines().for_each(|line| transcript.push(line));
        transcript
    }

    /// What OpenSSH 9.2 says under `LC_ALL=C`, with exit code 255, before the tunnel is open.
    #[test]
    fn ssh_said() {
        use SshFailureKind as Kind;
        for (text, kind) in [
            (
                "No ED25519 host key is known for [127.0.0.1]:42222 and you have requested strict checking.\n\
                 Host key verification failed.",
                Kind::HostUnknown,
            ),
            ("Host key verification failed.", Kind::HostUnknown),
            (
                "@@@@@@@@@@@\n@       WARNING: REVOKED HOST KEY DETECTED!               @\n@@@@@@@@@@@\n\
                 Host key verification failed.",
                Kind::HostKeyRevoked,
            ),
            ("me@box: Permission denied (publickey).", Kind::AuthRefused),
            ("me@box: Permission denied (publickey,password,keyboard-interactive).", Kind::AuthRefused),
            (
                "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures\n\
                 Disconnected from 127.0.0.1 port 22",
                Kind::AuthRefused,
            ),
            (
                "Warning: Identity file /nonexistent/key not accessible: No such file or directory.\n\
                 me@box: Permission denied (publickey).",
                Kind::Identity,
            ),
            ("Load key \"/home/me/.ssh/key\": bad permissions\nme@box: Permission denied (publickey).", Kind::Identity),
            ("ssh: Could not resolve hostname nosuch.invalid: Name or service not known", Kind::Name),
            ("ssh: connect to host 127.0.0.1 port 42223: Connection refused", Kind::Refused),
            ("ssh: connect to host 192.0.2.1 port 22: Connection timed out", Kind::TimedOut),
            ("ssh: connect to host 192.0.2.1 port 22: Operation timed out", Kind::TimedOut),
            ("Connection timed out during banner exchange\nConnection to 127.0.0.1 port 4 timed out", Kind::TimedOut),
            ("ssh: connect to host 192.0.2.1 port 22: No route to host", Kind::Unreachable),
            ("ssh: connect to host 192.0.2.1 port 22: Network is unreachable", Kind::Unreachable),
            (
                "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 127.0.0.1 port 42222",
                Kind::Handshake,
            ),
            (
                "kex_exchange_identification: Connection closed by remote host\nConnection closed by 127.0.0.1 port 4",
                Kind::Handshake,
            ),
            ("kex_exchange_identification: banner line contains invalid characters", Kind::Handshake),
            (
                "Unable to negotiate with 127.0.0.1 port 22: no matching host key type found. Their offer: ssh-rsa",
                Kind::Negotiation,
            ),
            ("command-line: line 0: Bad configuration option: stdinnull", Kind::Config),
            ("Bad owner or permissions on /home/me/.ssh/config", Kind::Config),
            ("jumphost loop via 127.0.0.1", Kind::Config),
            (
                "unix_listener: cannot bind to path /nonexist/dir/s: No such file or directory\n\
                 Could not request local forwarding.",
                Kind::Local,
            ),
            // The jump host could not be reached, and the one behind it neither.
            (
                "ssh: connect to host 127.0.0.1 port 42223: Connection refused\n\
                 kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535",
                Kind::Refused,
            ),
            // It was reached, and could not go on.
            (
                "channel 0: open failed: connect failed: Name or service not known\nstdio forwarding failed\n\
                 kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535",
                Kind::Name,
            ),
            (
                "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed",
                Kind::ForwardRefused,
            ),
            // The pre-authentication banner is the host's own text and comes before the cause.
            ("Welcome. Authorised use only!\nme@box: Permission denied (publickey).", Kind::AuthRefused),
            ("", Kind::Other),
            ("something new", Kind::Other),
        ] {
            let failure = classify(&said(text), Some(255), false);
            assert_eq!(failure.kind, kind, "{text}\n{failure}");
            assert!(failure.remedy().is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_changed_key_is_shown_with_both_places() {
        let text = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n\
            IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
            The fingerprint for the RSA key sent by the remote host is\n\
            SHA256:4cWvUR3OQxZ6YZ9k0Cw3cc1+IkmeGxO7bK/iD28zzeI.\n\
            Please contact your system administrator.\n\
            Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.\n\
            Offending ED25519 key in /home/me/.ssh/known_hosts:3\n  remove with:\n\
            \x20 ssh-keygen -f \"/home/me/.ssh/known_hosts\" -R \"box\"\n\
            Host key for box has changed and you have requested strict checking.\nHost key verification failed.";
        let failure = classify(&said(text), Some(255), false);
        assert_eq!(failure.kind, SshFailureKind::HostKeyChanged);
        let key = failure.host_key.as_deref().expect("keys");
        assert_eq!((key.algorithm.as_str(), key.on_record.as_str()), ("RSA", "/home/me/.ssh/known_hosts:3"));
        assert_eq!(key.shown, "SHA256:4cWvUR3OQxZ6YZ9k0Cw3cc1+IkmeGxO7bK/iD28zzeI");
        let remedy = failure.remedy().expect("advice");
        assert_eq!(remedy.command, "ssh-keygen -lf /etc/ssh/ssh_host_rsa_key.pub");
        assert!(!format!("{failure} {remedy:?}").contains("-R"), "never offers to remove the old key");
    }

    #[test]
    fn after_it_was_open_every_end_is_a_loss() {
        for text in [
            "Timeout, server 192.0.2.1 not responding.",
            "Connection to 127.0.0.1 closed by remote host.",
            "client_loop: send disconnect: Broken pipe",
            "",
        ] {
            let failure = classify(&said(text), None, true);
            assert_eq!((failure.kind, failure.is_fatal()), (SshFailureKind::Lost, false), "{text}");
        }
    }

    #[test]
    fn refused_channels() {
        for (line, kind) in [
            ("channel 2: open failed: connect failed: Connection refused", Some(SshFailureKind::GatewayDown)),
            ("channel 3: open failed: administratively prohibited: open failed", Some(SshFailureKind::ForwardRefused)),
            ("channel 2: open failed", None),
            ("the channel 2: open failed: connect failed", None),
        ] {
            assert_eq!(channel_refusal(line).map(|failure| failure.kind), kind, "{line}");
        }
    }

    #[test]
    fn what_ssh_says_cannot_colour_a_terminal_or_fill_memory() {
        assert_eq!(clean("a\u{1b}[31mb\tc \u{202e}d\u{0}"), "a [31mb c d");
        let mut transcript = Transcript::default();
        for count in 0..10_000 {
            transcript.push(&format!("{count} {}", "x".repeat(10_000)));
        }
        assert_eq!(transcript.lines().count(), 2 * KEPT_LINES);
        assert!(transcript.lines().all(|line| line.len() <= KEPT_LINE_BYTES));
        assert!(transcript.lines().next_back().is_some_and(|line| line.starts_with("9999 ")));
        let failure = classify(&transcript, Some(255), false);
        assert!(failure.detail.chars().count() <= DETAIL_CHARS);
    }
}
