//! How far a path got, hop by hop: what was passed, where it broke, what was never reached.

use openclaw_remote::{
    Error as RemoteError, Stage, error::ConnectFailure, path::GatewayPath, ssh::SshFailureKind, url::Host,
};
use serde_json::{Value, json};

use super::probe::Probed;
use crate::output::{Style, Tone};

/// One hop on the way to an answered call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The host's name has an address.
    Name,
    /// The network knows a way there.
    Route,
    /// Somebody listens on the port: the gateway's, or sshd's.
    Tcp,
    /// The HTTP proxy lets it through.
    Proxy,
    /// ssh logs in.
    Ssh,
    /// Behind ssh somebody listens on the gateway's port.
    Far,
    Tls,
    /// HTTP becomes WebSocket.
    Upgrade,
    /// A gateway says hello first.
    Challenge,
    /// It is the one that was saved.
    Identity,
    Auth,
    Pairing,
    Scope,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Passed,
    Failed,
    /// Something before it failed.
    NotReached,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Ssh => "ssh",
            Self::Far => "gateway port",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Challenge => "challenge",
            Self::Identity => "identity",
            Self::Auth => "auth",
            Self::Pairing => "pairing",
            Self::Scope => "scope",
        }
    }

    /// The step an error of this path belongs to; `None` when nothing was tried at all.
    fn of(error: &RemoteError, path: &GatewayPath) -> Option<Self> {
        let ssh = matches!(path, GatewayPath::Ssh(_));
        Some(match error.leading() {
            RemoteError::Connect { failure: ConnectFailure::Unreachable, .. } if !ssh => Self::Route,
            RemoteError::Ssh(failure) => match failure.kind {
                SshFailureKind::Name => Self::Name,
                SshFailureKind::Unreachable => Self::Route,
                SshFailureKind::Refused | SshFailureKind::TimedOut => Self::Tcp,
                SshFailureKind::GatewayDown => Self::Far,
                _ => Self::Ssh,
            },
            other => match other.stage() {
                Stage::Target => return None,
                Stage::Name => Self::Name,
                Stage::Ssh => Self::Ssh,
                Stage::Proxy => Self::Proxy,
                Stage::Connect if ssh => Self::Far,
                Stage::Connect => Self::Tcp,
                Stage::Tls => Self::Tls,
                Stage::Http => Self::Upgrade,
                Stage::Protocol => Self::Challenge,
                Stage::Identity => Self::Identity,
                // Not ready, and said before anything else was looked at.
                Stage::Auth | Stage::Call => Self::Auth,
                Stage::Pairing => Self::Pairing,
                Stage::Scope => Self::Scope,
            },
        })
    }
}

/// The steps of one path, in order.
#[derive(Clone, Debug)]
pub struct Chain(Vec<(Step, Mark)>);

impl Chain {
    /// `known_gateway`: the identity of the gateway was saved, so it had to prove it.
    pub fn of(path: &GatewayPath, known_gateway: bool, probed: &Probed) -> Self {
        let connected = probed.connected();
        let broke = probed.error.as_ref().filter(|_| !connected || probed.scope_limited());
        let nothing_tried = broke.is_some_and(|error| Step::of(error, path).is_none());
        let failed = broke.and_then(|error| Step::of(error, path));
        let mut steps = Vec::new();
        match path {
            GatewayPath::Ssh(_) => {
                steps.extend([Step::Name, Step::Route, Step::Tcp, Step::Ssh, Step::Far]);
            }
            GatewayPath::Direct(direct) => {
                if matches!(direct.url.host(), Host::Name(_)) {
                    steps.push(Step::Name);
                }
                steps.extend([Step::Route, Step::Tcp]);
                if failed == Some(Step::Proxy) {
                    steps.push(Step::Proxy);
                }
                if direct.url.is_secure() {
                    steps.push(Step::Tls);
                }
            }
        }
        steps.extend([Step::Upgrade, Step::Challenge]);
        if known_gateway || failed == Some(Step::Identity) {
            steps.push(Step::Identity);
        }
        steps.extend([Step::Auth, Step::Pairing, Step::Scope]);
        if let Some(step) = failed
            && !steps.contains(&step)
        {
            steps.push(step);
            steps.sort();
        }
        let marked = steps.into_iter().map(|step| {
            let mark = match failed {
                _ if nothing_tried => Mark::NotReached,
                Some(at) if step == at => Mark::Failed,
                Some(at) if step > at => Mark::NotReached,
                _ => Mark::Passed,
            };
            (step, mark)
        });
        Self(marked.collect())
    }

    /// `name ✓ · tcp ✗ · upgrade …` on one line.
    pub fn render(&self, style: Style) -> String {
        let each = self.0.iter().map(|(step, mark)| match mark {
            Mark::Passed => format!("{} {}", step.as_str(), style.ok()),
            Mark::Failed => format!("{} {}", style.paint(Tone::Bad, step.as_str()), style.bad()),
            Mark::NotReached => style.paint(Tone::Dim, &format!("{} {}", step.as_str(), "-")),
        });
        each.collect::<Vec<_>>().join(style.dot())
    }

    /// `[{"step":"tcp","state":"passed|failed|not_reached"}]`.
    pub fn to_json(&self) -> Value {
        let word = |mark: &Mark| match mark {
            Mark::Passed => "passed",
            Mark::Failed => "failed",
            Mark::NotReached => "not_reached",
        };
        self.0.iter().map(|(step, mark)| json!({"step": step.as_str(), "state": word(mark)})).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::probe::Answers;
    use openclaw_remote::{GatewayUrl, ssh::SshSpec};
    use std::{io, time::Duration};

    fn broken(error: RemoteError) -> Probed {
        let (latency, answers) = (Duration::ZERO, Answers::default());
        Probed { latency, taken: None, round_trip: None, gateway: None, hello: None, error: Some(error), answers }
    }

    fn line(path: &GatewayPath, known: bool, error: RemoteError) -> String {
        Chain::of(path, known, &broken(error)).render(Style::plain())
    }

    #[test]
    fn every_hop_up_to_the_one_that_broke() {
        let direct = |text: &str| GatewayPath::direct(GatewayUrl::parse(text).expect(text));
        let lan = direct("ws://192.168.1.2:18789");
        let named = direct("wss://gw.example.com");
        let unreachable = RemoteError::Connect {
            endpoint: "x".into(),
            failure: ConnectFailure::Unreachable,
            source: io::Error::other("no route"),
        };
        assert_eq!(
            line(&lan, false, unreachable),
            "route x, tcp -, upgrade -, challenge -, auth -, pairing -, scope -"
        );
        let timeout = |stage| RemoteError::Timeout { stage, after: Duration::from_secs(1) };
        assert_eq!(
            line(&named, true, timeout(Stage::Tls)),
            "name ok, route ok, tcp ok, tls x, upgrade -, challenge -, identity -, auth -, pairing -, scope -"
        );
        let failure = Box::new(openclaw_remote::proxy::ProxyFailure::LoginMissing);
        let proxy = RemoteError::Proxy { proxy: "p".into(), target: "gw:443".into(), failure };
        assert!(line(&named, false, proxy).starts_with("name ok, route ok, tcp ok, proxy x, tls -"));
        let ssh = GatewayPath::Ssh(SshSpec::new("me@box".parse().expect("target")));
        assert_eq!(
            line(&ssh, false, timeout(Stage::Connect)),
            "name ok, route ok, tcp ok, ssh ok, gateway port x, upgrade -, challenge -, auth -, pairing -, scope -"
        );
        let not_tried = RemoteError::PinWithoutTls { url: "x".into() };
        assert!(!line(&lan, false, not_tried).contains("ok"));
    }
}
