//! `openclaw gateway discover`: gateways that announce themselves, on the local network and in a domain. For looking only.

use std::time::Duration;

use clap::Args;
use openclaw_remote::discovery::{Beacon, beacons};
use serde_json::{Value, json};

use crate::{
    context::Context,
    failure::Outcome,
    output::{
        self, Style, Tone, inert,
        table::{Cell, Facts},
    },
    reach::block_on,
};

#[derive(Args, Debug)]
pub struct GatewayDiscover {
    /// How long to look, in milliseconds
    #[arg(long, value_name = "MS", default_value = "2000")]
    pub timeout: u32,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

const DOMAIN_VARIABLE: &str = "OPENCLAW_WIDE_AREA_DOMAIN";

pub fn run(context: &Context, args: &GatewayDiscover) -> Outcome {
    // Looking around needs no working config; one that does not read names no domain.
    let loaded = context.config_for_diagnosis()?;
    let configured = loaded.gateway.discovery.wide_area_domain.clone();
    let domain = configured.or_else(|| context.env.get(DOMAIN_VARIABLE).map(str::to_owned));
    let domain =
        domain.map(|domain| domain.trim().trim_end_matches('.').to_owned()).filter(|domain| !domain.is_empty());
    let time = Duration::from_millis(u64::from(args.timeout.max(1)));
    let progress = context.output.progress("Looking for gateways …");
    let found = block_on(async { Ok::<_, crate::failure::Failure>(beacons(domain.as_deref(), time).await) })?;
    drop(progress);
    let domains: Vec<String> =
        ["local.".to_owned()].into_iter().chain(domain.map(|domain| format!("{domain}."))).collect();
    for (domain, reason) in &found.silent {
        output::note(format!("{}: {}", inert(domain), inert(reason)));
    }
    if args.json {
        let beacons: Vec<Value> = found.found.iter().map(entry).collect();
        output::json(
            &json!({"timeoutMs": args.timeout, "domains": domains, "count": beacons.len(), "beacons": beacons}),
        );
        return Ok(0);
    }
    output::print(&render(context.output.out, &domains, &found.found));
    Ok(0)
}

/// The reference's fields; `addresses` is ours.
fn entry(beacon: &Beacon) -> Value {
    let number = |key: &str| beacon.claim(key).and_then(|text| text.parse::<u16>().ok());
    json!({
        "instanceName": beacon.instance, "displayName": beacon.claim("displayName"), "domain": beacon.domain,
        "host": beacon.host, "port": beacon.port, "addresses": beacon.addresses, "lanHost": beacon.claim("lanHost"),
        "tailnetDns": beacon.claim("tailnetDns"), "gatewayPort": number("gatewayPort"), "sshPort": number("sshPort"),
        "gatewayTls": beacon.claims_tls(), "gatewayTlsFingerprintSha256": beacon.claim("gatewayTlsSha256"),
        "gatewayDirectReachable": beacon.claim("gatewayDirectReachable") == Some("1"),
        "cliPath": beacon.claim("cliPath"), "role": beacon.claim("role"), "transport": beacon.claim("transport"),
        "txt": beacon.txt, "wsUrl": beacon.url(),
    })
}

fn render(style: Style, domains: &[String], found: &[Beacon]) -> String {
    let domains = domains.join(", ");
    let mut text = format!(
        "{}\nFound {} gateway(s){}domains: {}\n",
        style.paint(Tone::Title, "Gateway Discovery"),
        found.len(),
        style.dot(),
        inert(&domains)
    );
    for beacon in found {
        let name = beacon.claim("displayName").unwrap_or(&beacon.instance);
        text.push_str(&format!("\n{} ({})\n", style.paint(Tone::Title, &inert(name)), inert(&beacon.domain)));
        let addresses: Vec<String> = beacon.addresses.iter().map(ToString::to_string).collect();
        let mut facts = Facts::new();
        facts.row("at", Cell::from(inert(&beacon.url())));
        facts.maybe("address", (!addresses.is_empty()).then(|| addresses.join(", ")));
        facts.maybe("says tls", beacon.claim("gatewayTlsSha256").map(|digest| inert(digest).into_owned()));
        facts.maybe("says tailnet", beacon.claim("tailnetDns").map(|name| inert(name).into_owned()));
        facts.maybe("says ssh", beacon.claim("sshPort").map(|port| format!("{}:{}", beacon.host, inert(port))));
        text.push_str(&facts.render(style));
    }
    if !found.is_empty() {
        text.push_str(
            "\nAnybody on the network can announce this. Nothing was sent to them; connecting proves who is there:\n\
             openclaw connect <user>@<host>, and compare what \"openclaw gateway cert show\" says on the gateway.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_89_claims_are_shown_as_claims_and_inert() {
        let beacon = Beacon {
            domain: "local.".into(),
            instance: "x".into(),
            host: "box.local".into(),
            port: 18789,
            addresses: vec!["192.168.1.5".parse().expect("address")],
            txt: [("displayName", "a\u{202e}b"), ("gatewayTlsSha256", "ff"), ("gatewayPort", "1"), ("sshPort", "22")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let text = render(Style::plain(), &["local.".into()], std::slice::from_ref(&beacon));
        assert!(!text.contains('\u{202e}'), "{text}");
        for part in ["ws://box.local:18789", "192.168.1.5", "says tls", "Anybody on the network", "Found 1 gateway(s)"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = entry(&beacon);
        assert_eq!(
            (&json["wsUrl"], &json["port"], &json["gatewayPort"]),
            (&json!("ws://box.local:18789"), &json!(18789), &json!(1))
        );
    }
}
