//! `openclaw dashboard`: the address of the web interface.

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    process::{Command, Stdio},
    time::Duration,
};

use openclaw_config::{AuthMode, Mode, credentials::UrlSource};
use openclaw_remote::{GatewayPath, GatewayUrl, tunnel};
use serde_json::json;

use crate::{
    args::{self, PortTargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::{Reach, block_on},
};

/// Long enough for a LAN, short enough not to be waited for.
const KNOCK: Duration = Duration::from_millis(500);

pub fn run(context: &Context, args: &args::Dashboard) -> Outcome {
    let at = PortTargetArgs::default();
    let reach = context.reach(&at, Duration::from_secs(5))?;
    let gateway = &reach.loaded.gateway;
    let url = &browser_url(context, &reach)?;
    let base = gateway.control_ui.base_path.as_deref().filter(|_| gateway.effective_mode() == Mode::Local);
    let http = with_base(url, base);
    let secrets = reach.target.secrets().ok();
    // An environment URL is not the config's gateway; its token belongs to it all the same.
    let token = secrets.and_then(|secrets| secrets.token).map(|token| fragment(token.expose()));
    let full = token.as_ref().map_or_else(|| http.clone(), |token| format!("{http}#token={token}"));
    let running = listens(url);
    if args.json {
        output::json(&json!({
            "ok": true, "url": full, "httpUrl": http, "wsUrl": url.to_string(), "port": url.port(),
            "tokenIncluded": token.is_some(), "running": running,
        }));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("Dashboard URL: {}", style.paint(Tone::Command, &full)));
    match (&token, gateway.auth.mode) {
        (Some(_), _) => output::note(
            "The part after # is the gateway token: whoever has this link operates the gateway. Browsers do not send \
             it to servers; do not paste it where others read.",
        ),
        (None, Some(AuthMode::Password)) => output::note("Type the gateway password on the page."),
        (None, Some(AuthMode::None)) => {}
        (None, _) => output::note(
            "No token is known here. Append it as #token=<token>; the gateway host prints it with: openclaw config get \
             gateway.auth.token",
        ),
    }
    if !url.is_loopback() && !url.is_secure() {
        output::note("Browsers make device keys only on HTTPS or localhost; over plain HTTP the page will say so.");
    }
    if !running {
        let start = if reach.target.source == UrlSource::LocalLoopback {
            "start it: openclaw gateway".to_owned()
        } else {
            format!("open the tunnel: {}", reach.target.place.tunnel_command())
        };
        output::note(format!(
            "{} Nothing listens at {} yet; {start}",
            context.output.err.warn(),
            inert(&url.to_string())
        ));
    } else if !args.no_open {
        // The bare address only: arguments of a browser are visible in the process list.
        output::note(match open(&http) {
            true => "Opened the page without the token; paste the link above to sign in.",
            false => "No browser could be opened here; open the link above yourself.",
        });
    }
    Ok(0)
}

/// Where a browser finds the gateway: its URL, or behind ssh a local port that its tunnel gives to other programs. Never a
/// local port that merely has the same number: whoever has it would get the token.
fn browser_url(context: &Context, reach: &Reach<'_>) -> Result<GatewayUrl, Failure> {
    let target = &reach.target;
    let Some(GatewayPath::Ssh(spec)) = target.route.best() else { return Ok(target.url.clone()) };
    let found = block_on(async { Ok(tunnel::find(&context.paths.state_dir, spec).await) })?;
    let port = found.and_then(|(_, status)| status.port.filter(|_| status.state == tunnel::State::Up));
    port.map(GatewayUrl::loopback).ok_or_else(|| {
        let name = target.route.name.as_ref().map_or_else(|| spec.target.to_string(), ToString::to_string);
        Failure::new("The gateway is behind ssh, and no tunnel gives a browser a local port to it.")
            .remedy("open one", format!("openclaw tunnel up {name} --port {}", spec.gateway_port))
            .fact("Gateway target", inert(&target.shown()).into_owned())
            .fact("Source", target.named_by())
    })
}

fn with_base(url: &GatewayUrl, base: Option<&str>) -> String {
    let http = url.to_http();
    match base.map(|base| base.trim_matches('/')).filter(|base| !base.is_empty()) {
        Some(base) => format!("{}/{base}/", http.trim_end_matches('/')),
        None => http,
    }
}

/// Percent-encodes what a fragment cannot hold as it is.
fn fragment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn listens(url: &GatewayUrl) -> bool {
    let host = url.host().to_string();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let Ok(mut addresses) = (host.as_str(), url.port()).to_socket_addrs() else { return false };
    addresses.any(|address| TcpStream::connect_timeout(&address, KNOCK).is_ok())
}

fn open(url: &str) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let display =
        cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let quiet = || Stdio::null();
    display && Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let local = GatewayUrl::loopback(18789);
        assert_eq!(with_base(&local, None), "http://127.0.0.1:18789/");
        assert_eq!(with_base(&local, Some("/ui/")), "http://127.0.0.1:18789/ui/");
        let remote = GatewayUrl::parse("wss://gw.tail.ts.net").expect("url");
        assert_eq!(with_base(&remote, None), "https://gw.tail.ts.net/");
        assert_eq!(fragment("aZ09-._~"), "aZ09-._~");
        assert_eq!(fragment("a b&c#d%é"), "a%20b%26c%23d%25%C3%A9");
    }
}
