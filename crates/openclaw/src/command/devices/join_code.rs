//! `openclaw devices join-code`: a URL that enrols a machine as a node. It can be fetched once, for ten minutes, and gives out
//! a one-time setup code.

use clap::Args;
use openclaw_protocol::{method::invite::SetupCodeMade, setup_code::SCHEME};
use openclaw_remote::Error as RemoteError;
use serde_json::json;

use super::admin;
use crate::{
    args::TargetArgs,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert},
    reach::Reach,
};

#[derive(Args, Debug)]
pub struct JoinCodeArgs {
    /// Address to put into the URL instead of the gateway's own
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

pub fn run(context: &Context, args: &JoinCodeArgs) -> Outcome {
    let mut params = json!({"joinUrl": true, "bootstrapProfile": "node"});
    if let Some(url) = &args.public_url {
        params["publicUrl"] = json!(url);
    }
    let made = admin::ask(context, &args.at, "device.pair.setupCode", params, explain)?;
    let made: SetupCodeMade = serde_json::from_value(made)
        .map_err(|error| Failure::new(format!("The gateway's answer is unreadable: {error}.")))?;
    let Some(url) = &made.join_url else { return Err(Failure::new("The gateway made no join URL.")) };
    let command = format!("openclaw connect {}", inert(url.expose()));
    if args.at.json {
        output::json(&json!({"joinUrl": url.expose(), "command": command, "expiresAtMs": made.expires_at_ms,
            "setupId": made.setup_id}));
        return Ok(0);
    }
    output::print(&render(context.output.out, &made, &command));
    Ok(0)
}

fn render(style: Style, made: &SetupCodeMade, command: &str) -> String {
    let code = openclaw_protocol::SetupCode::parse(made.setup_code.expose()).ok();
    let own_certificate = code.as_ref().is_some_and(|code| code.tls_fingerprint.is_some());
    let mut lines = vec![
        format!("{} A URL that enrols one machine as a node, within ten minutes.", style.ok()),
        String::new(),
        "On that machine:".to_owned(),
        format!("  {}", style.paint(Tone::Command, command)),
    ];
    if own_certificate {
        // A URL has no place for a pin.
        let direct = format!("openclaw connect {SCHEME}{}", made.setup_code.expose());
        lines.push("If it does not trust this gateway's own certificate, which the URL cannot vouch for:".to_owned());
        lines.push(format!("  {}", style.paint(Tone::Command, &direct)));
    }
    lines.push(String::new());
    lines.push(
        "Whoever fetches it first gets the code in it; it then answers nobody. See who came: openclaw nodes status"
            .to_owned(),
    );
    lines.join("\n") + "\n"
}

fn explain(reach: &Reach<'_>, error: &RemoteError) -> Failure {
    let text = error.to_string();
    if text.contains("only bound to loopback") {
        return Failure::new("This gateway listens on loopback only, so a join URL would lead nowhere. None was made.")
            .there(
                "open it to the local network, encrypted",
                "openclaw config set gateway.bind lan && openclaw config set gateway.tls.enabled true",
            )
            .there(
                "or name the https:// address that leads here",
                "openclaw config set gateway.publicOrigin https://gateway.example.com",
            );
    }
    if text.starts_with("Join URLs require a TLS") {
        return reach.failure(error).there("or give a code that needs no URL", "openclaw devices invite --role node");
    }
    reach.failure(error)
}
