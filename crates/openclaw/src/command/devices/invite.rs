//! `openclaw devices invite`: a one-time code that pairs the device that brings it. `openclaw connect user@host` runs this
//! on the far machine over ssh, so that the shared secret never travels.

use std::time::Duration;

use clap::Args;
use openclaw_protocol::{GatewayId, Role, Scope, SetupCode, method::invite::Invited, setup_code::SCHEME};
use openclaw_remote::Error as RemoteError;
use serde_json::{Value, json};

use super::{admin, show};
use crate::{
    args::TargetArgs,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert},
    reach::Reach,
};

const ADMIN: &str = "operator.admin";

#[derive(Args, Debug)]
pub struct InviteArgs {
    /// operator or node
    #[arg(long, value_name = "ROLE", default_value = "operator", value_parser = role)]
    role: Role,
    /// Scopes of the new device, e.g. read,write (default: read, write, approvals, questions, talk)
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', num_args = 1.., value_parser = scope, conflicts_with = "admin")]
    scopes: Vec<Scope>,
    /// Everything the owner may do
    #[arg(long)]
    admin: bool,
    /// How long the code is good, e.g. 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time_to_live)]
    ttl: Duration,
    /// Your own name for the device
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "must be operator or node".to_owned())
}

/// With or without `operator.` in front.
fn scope(text: &str) -> Result<Scope, String> {
    let known = || {
        let names: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str().trim_start_matches("operator.")).collect();
        format!("must be one of {}", names.join(", "))
    };
    Scope::parse(text).or_else(|| Scope::parse(&format!("operator.{text}"))).ok_or_else(known)
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let bad = || "must be a number with s, m or h behind it, e.g. 2m".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(bad()),
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| bad())?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be between 1s and 24h".to_owned()),
    }
}

pub fn run(context: &Context, args: &InviteArgs) -> Outcome {
    if args.role == Role::Node && (args.admin || !args.scopes.is_empty()) {
        return Err(Failure::new("A node has no scopes: leave --scopes and --admin out, or invite an operator."));
    }
    // A person needs an address in the code; connect brings its own tunnel.
    let params = params(args, !args.at.json);
    let invited = admin::ask(context, &args.at, "device.pair.invite", params, explain)?;
    let read = |answer| serde_json::from_value::<Invited>(answer);
    let parsed = read(invited.clone())
        .map_err(|error| Failure::new(format!("The gateway's invitation is unreadable: {error}.")))?;
    let code = setup_code(&parsed);
    if args.at.json {
        let mut line = invited;
        if let Some(code) = &code {
            line["setupCode"] = json!(code.encode().expose());
        }
        output::json_line(&line);
        return Ok(0);
    }
    let Some(code) = code else { return Err(loopback_only()) };
    output::print(&render(context.output.out, &parsed, &code, args.ttl));
    Ok(0)
}

fn params(args: &InviteArgs, needs_address: bool) -> Value {
    let ttl_ms = u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX);
    let mut params = json!({"role": args.role, "ttlMs": ttl_ms, "needsAddress": needs_address});
    if args.admin {
        params["scopes"] = json!([ADMIN]);
    } else if !args.scopes.is_empty() {
        params["scopes"] = args.scopes.iter().map(|scope| json!(scope.as_str())).collect();
    }
    if let Some(label) = &args.label {
        params["label"] = json!(label);
    }
    params
}

/// The pasteable form; `None` when no address leads to the gateway.
fn setup_code(invited: &Invited) -> Option<SetupCode> {
    let gateway = &invited.gateway;
    let pinned = |pin: &Option<String>| gateway.addresses.iter().filter(|at| at.tls_fingerprint == *pin).count() > 0;
    // One code has one pin: with the gateway's own certificate somewhere, only those addresses go in.
    let pin = gateway.tls_fingerprint.clone().filter(|pin| pinned(&Some(pin.clone())));
    let urls: Vec<String> =
        gateway.addresses.iter().filter(|at| at.tls_fingerprint == pin).map(|at| at.url.clone()).collect();
    (!urls.is_empty()).then(|| SetupCode {
        urls,
        bootstrap_token: invited.token.clone(),
        expires_at_ms: Some(invited.expires_at_ms),
        tls_fingerprint: pin,
        gateway_id: Some(gateway.id.clone()),
        role: Role::parse(&invited.role),
    })
}

fn render(style: Style, invited: &Invited, code: &SetupCode, ttl: Duration) -> String {
    let text = format!("{SCHEME}{}", code.encode().expose());
    let rights = match code.role {
        Some(Role::Node) => "a node".to_owned(),
        _ => format!("an operator with {}", show::scopes(&invited.scopes)),
    };
    let urls: Vec<_> = code.urls.iter().map(|url| inert(url).into_owned()).collect();
    let role = if code.role == Some(Role::Node) { "node" } else { "operator" };
    let mut lines = vec![
        format!("{} A code that pairs {rights}, once, within {}.", style.ok(), words(ttl)),
        String::new(),
        "On the other machine:".to_owned(),
        format!("  {}", style.paint(Tone::Command, &format!("openclaw connect --as {role} {text}"))),
        String::new(),
        format!("It has to reach {}.", urls.join(" or ")),
        format!("Gateway: {}", gateway_words(&invited.gateway.id)),
    ];
    if code.urls.iter().any(|url| url.starts_with("ws://")) && invited.scopes.iter().any(|scope| scope == ADMIN) {
        lines.push(format!(
            "{} ws:// is readable by others on that network. Safer with full rights: openclaw connect user@host, by ssh.",
            style.warn()
        ));
    }
    lines.push("Whoever brings the code first is paired. See who: openclaw devices list".to_owned());
    lines.join("\n") + "\n"
}

fn gateway_words(id: &GatewayId) -> String {
    format!("{}…", id.short())
}

/// `10 minutes`, `90 seconds`, `1 hour`.
fn words(time: Duration) -> String {
    let (number, unit) = match time.as_secs() {
        seconds if seconds % 3600 == 0 => (seconds / 3600, "hour"),
        seconds if seconds % 60 == 0 => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn explain(reach: &Reach<'_>, error: &RemoteError) -> Failure {
    if error.detail_code() == Some("GATEWAY_LOOPBACK_ONLY") {
        return loopback_only();
    }
    let failure = reach.failure(error);
    if error.to_string().starts_with("unknown method") {
        return failure
            .detail("This gateway knows no invitations. On it, approve the device by hand instead:")
            .detail("  openclaw devices list, then openclaw devices approve <request>");
    }
    failure
}

fn loopback_only() -> Failure {
    Failure::new("This gateway listens on loopback only, so a code would lead nowhere. No code was made.")
        .detail("By ssh nothing has to be opened; run this on the other machine:")
        .remedy("pair it by ssh", "openclaw connect user@host")
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::{
        DeviceKey, Secret,
        method::invite::{AddressKind, GatewayAddress, InvitingGateway},
    };

    use super::*;

    fn invited(addresses: &[(&str, Option<&str>)], pin: Option<&str>) -> Invited {
        let each = |(url, pin): &(&str, Option<&str>)| GatewayAddress {
            kind: AddressKind::Lan,
            url: (*url).to_owned(),
            tls_fingerprint: pin.map(str::to_owned),
        };
        Invited {
            setup_id: "s".into(),
            token: Secret::new("t0k3n"),
            expires_at_ms: 1_795_230_139_714,
            role: "operator".into(),
            scopes: vec![ADMIN.into()],
            gateway: InvitingGateway {
                id: GatewayId::of(DeviceKey::from_seed(&[7; 32]).id()),
                version: "1".into(),
                port: 18789,
                tls: pin.is_some(),
                tls_fingerprint: pin.map(str::to_owned),
                addresses: addresses.iter().map(each).collect(),
            },
        }
    }

    #[test]
    fn p_45_a_code_holds_one_time_material_identity_and_addresses() {
        assert_eq!(setup_code(&invited(&[], None)), None);
        let plain = setup_code(&invited(&[("ws://192.168.1.2:1", None)], None)).expect("a code");
        assert_eq!(
            (plain.urls.as_slice(), plain.tls_fingerprint),
            (["ws://192.168.1.2:1".to_owned()].as_slice(), None)
        );
        let mixed = [("wss://192.168.1.2:1", Some("ab")), ("wss://gw.example.com", None)];
        let mixed = setup_code(&invited(&mixed, Some("ab"))).expect("a code");
        assert_eq!((mixed.urls.len(), mixed.tls_fingerprint.as_deref()), (1, Some("ab")), "one pin, one certificate");
        let behind = setup_code(&invited(&[("wss://gw.example.com", None)], Some("ab"))).expect("a code");
        assert_eq!((behind.urls.len(), behind.tls_fingerprint), (1, None));
        assert_eq!(behind.gateway_id, Some(invited(&[], None).gateway.id));
    }

    #[test]
    fn what_may_be_typed() {
        for (text, seconds) in [("90s", Some(90)), ("2m", Some(120)), ("24h", Some(86_400)), ("1s", Some(1))] {
            assert_eq!(time_to_live(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        for text in ["", "m", "2", "0s", "25h", "-1m", "1.5h", "99999999999999999999h", "2 m", "2é"] {
            assert!(time_to_live(text).is_err(), "{text}");
        }
        assert_eq!(scope("read"), scope("operator.read"));
        assert!(scope("root").is_err_and(|known| known.contains("read, write")));
        for (time, expected) in [(120, "2 minutes"), (3600, "1 hour"), (90, "90 seconds")] {
            assert_eq!(words(Duration::from_secs(time)), expected);
        }
    }

    #[test]
    fn plain_ws_with_full_rights_is_warned_about() {
        let style = Style::plain();
        let show = |url: &str, pin: Option<&str>| {
            let invited = invited(&[(url, pin)], pin);
            let code = setup_code(&invited).expect("a code");
            render(style, &invited, &code, Duration::from_secs(600))
        };
        let plain = show("ws://192.168.1.2:1", None);
        assert!(plain.contains("openclaw connect --as operator oc-pair://") && plain.contains("readable by others"));
        assert!(!show("wss://192.168.1.2:1", Some("ab")).contains("readable by others"));
    }
}
