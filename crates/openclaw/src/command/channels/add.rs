//! `openclaw channels add`: a token from a place that nobody else reads, tried before it is written.

use std::io::{self, BufRead as _, IsTerminal as _};

use openclaw_channels::{
    channel::{Channel as _, SendError},
    discord,
    section::{DEFAULT_ACCOUNT, Section},
    telegram,
};
use openclaw_config::{
    ConfigPath,
    write::{Edit, Editor, Options, Outcome as Written, SetMode},
};
use openclaw_gateway::channels::{access::DmPolicy, kinds};
use openclaw_protocol::Secret;
use serde_json::{Value, json};

use super::{account, args::Add, channel, local_config, write};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::block_on,
};

/// A token is one short line.
const MAX_TOKEN: usize = 4096;

pub fn run(context: &Context, args: &Add) -> Outcome {
    let document = local_config(context)?;
    let channel = channel(context, &args.which)?;
    let label = kinds::label(&channel).unwrap_or("");
    let account = account(&args.which)?.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    // Before a token is asked for.
    let listed = Section::new(&document, &channel, &account).get("allowFrom").is_some() || !args.allow_from.is_empty();
    let who = match args.dm_policy {
        Some(DmPolicy::Open) if !args.allow_from.iter().any(|id| id == "*") => Some(("open", "*")),
        Some(DmPolicy::Allowlist) if !listed => Some(("allowlist", "ID")),
        _ => None,
    };
    if let Some((policy, id)) = who {
        return Err(Failure::new(format!("--dm-policy {policy} lets nobody in without saying who may write."))
            .detail(format!("Add: --allow-from '{id}'")));
    }
    let credential = credential(args, &channel, &account, label)?;

    // The default account lives at the channel itself, unless there is an entry for it.
    let accounts = document.get("channels").and_then(|all| all.entry(&channel)).and_then(|root| root.entry("accounts"));
    let own = account != DEFAULT_ACCOUNT || accounts.is_some_and(|accounts| accounts.entry(DEFAULT_ACCOUNT).is_some());
    let base: ConfigPath = match own {
        true => ["channels", &channel, "accounts", &account].into_iter().map(str::to_owned).collect(),
        false => ["channels", &channel].into_iter().map(str::to_owned).collect(),
    };
    let set = |key: &str, value: Value| Edit::Set { path: base.child(key), value, mode: SetMode::Set };
    let mut edits = vec![set("enabled", json!(true))];
    let token_key = if channel == telegram::ID { "botToken" } else { "token" };
    let section = Section::new(&document, &channel, &account);
    let present = |key: &str| if own { section.own(key) } else { section.root(key) }.is_some();
    match &credential {
        Credential::Token(token) => {
            edits.push(set(token_key, json!(token.expose())));
            // A file would win over the new token.
            if present("tokenFile") {
                edits.push(Edit::Unset { path: base.child("tokenFile") });
            }
        }
        Credential::File(file) => {
            edits.push(set("tokenFile", json!(file)));
            if present(token_key) {
                edits.push(Edit::Unset { path: base.child(token_key) });
            }
        }
        // What the config says would win over it.
        Credential::Environment => {
            let written = [token_key, "tokenFile"].into_iter().filter(|key| present(key));
            edits.extend(written.map(|key| Edit::Unset { path: base.child(key) }));
        }
    }
    if let Some(policy) = args.dm_policy {
        edits.push(set("dmPolicy", json!(policy.as_str())));
    }
    if !args.allow_from.is_empty() {
        edits.push(set("allowFrom", json!(args.allow_from)));
    }
    if let Some(root) = &args.api_root {
        edits.push(set("apiRoot", json!(root)));
    }
    let variable = if channel == telegram::ID { "TELEGRAM_BOT_TOKEN" } else { "DISCORD_BOT_TOKEN" };
    let elsewhere = args.use_env && context.env.get(variable).is_none_or(|token| token.trim().is_empty());
    if elsewhere {
        output::note(format!(
            "! {variable} is not set here, so the token was not tried. The gateway needs it in its own environment."
        ));
    }
    let name = match args.no_verify || elsewhere {
        true => None,
        false => verify(context, &edits, &channel, &account)?,
    };
    let written = write(context, &edits)?;
    report(context, args, &channel, &account, label, name.as_deref(), &written);
    Ok(0)
}

/// Where the token is.
enum Credential {
    Token(Secret),
    /// An absolute path.
    File(String),
    Environment,
}

fn credential(args: &Add, channel: &str, account: &str, label: &str) -> Result<Credential, Failure> {
    if args.use_env {
        if account != DEFAULT_ACCOUNT {
            return Err(Failure::new("--use-env is for the default account; other accounts have tokens of their own."));
        }
        return Ok(Credential::Environment);
    }
    if let Some(file) = &args.token_file {
        if channel != telegram::ID {
            return Err(Failure::new(format!("{label} has no token file; use --token - and give the token on stdin.")));
        }
        let path = std::path::absolute(file).map_err(|error| {
            Failure::new(format!("{} cannot be used: {error}.", inert(&file.display().to_string())))
        })?;
        return Ok(Credential::File(path.display().to_string()));
    }
    let text = match args.token.as_deref() {
        Some("-") => {
            let mut line = String::new();
            let read = io::Read::take(io::stdin().lock(), MAX_TOKEN as u64).read_line(&mut line);
            read.map_err(|error| Failure::new(format!("stdin cannot be read: {error}.")))?;
            line
        }
        Some(token) => {
            output::note(
                "! The token was given on the command line: it may be in your shell's history and was visible to other \
                 programs. Use --token - next time.",
            );
            token.to_owned()
        }
        None if io::stdin().is_terminal() && io::stderr().is_terminal() && !args.json => prompt(label)?,
        None => {
            return Err(Failure::new("There is no token.")
                .detail("Give it without showing it to others:")
                .remedy("on stdin", format!("openclaw channels add {channel} --token - < token.txt"))
                .remedy("as a file the gateway reads", format!("openclaw channels add {channel} --token-file FILE"))
                .remedy("from the gateway's environment", format!("openclaw channels add {channel} --use-env")));
        }
    };
    Secret::from_input(&text).map(Credential::Token).ok_or_else(|| Failure::new("The token is empty."))
}

/// Asks without showing what is typed.
fn prompt(label: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let from = if label == "Telegram" { " (from @BotFather)" } else { "" };
    eprint!("{label} bot token{from}: ");
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Now, before);
    }
    eprintln!();
    read.map_err(|error| Failure::new(format!("The token could not be read: {error}.")))?;
    Ok(line)
}

/// Checks the settings as they would be, and asks the service who the bot is. A network that is down stops nothing.
fn verify(context: &Context, edits: &[Edit], channel: &str, account: &str) -> Result<Option<String>, Failure> {
    let options = Options { dry_run: true, ..Options::default() };
    let planned = Editor::new(&context.paths, &context.env).apply(edits, &options);
    // What is wrong with the write is said by the write.
    let Ok(planned) = planned else { return Ok(None) };
    let settings = kinds::Settings::read(&context.secrets(&planned.document), channel, account);
    let settings = settings.map_err(|why| {
        Failure::new(format!("{channel}/{} cannot work like this.", inert(account)))
            .detail(inert(&why).into_owned())
            .detail("Nothing was changed.")
    })?;
    let probed = match settings {
        kinds::Settings::Telegram(config) => {
            let bot = telegram::Telegram::new(config).map_err(Failure::new)?;
            block_on(async { Ok(bot.probe().await) })?
        }
        kinds::Settings::Discord(settings) => block_on(async { Ok(discord::probe(&settings).await) })?,
    };
    match probed {
        Ok(name) => Ok(Some(name)),
        Err(SendError::NotSent { why, .. }) if why.contains("401") || why.contains("404") => {
            let label = kinds::label(channel).unwrap_or(channel);
            Err(Failure::new(format!("{label} does not accept this token."))
                .detail(inert(&why).into_owned())
                .detail("Nothing was changed."))
        }
        Err(error) => {
            output::note(format!(
                "{} The token could not be tried: {}",
                context.output.err.warn(),
                inert(&error.to_string())
            ));
            Ok(None)
        }
    }
}

fn report(
    context: &Context,
    args: &Add,
    channel: &str,
    account: &str,
    label: &str,
    name: Option<&str>,
    written: &Written,
) {
    if args.json {
        output::json(&json!({"ok": true, "channel": channel, "accountId": account, "name": name,
            "noop": written.noop, "configPath": context.paths.config_file}));
        return;
    }
    let style = context.output.out;
    let who = name.map(|name| format!(" as {}", inert(name))).unwrap_or_default();
    output::line(format!("{} {label} account {} is set up{who}.", style.ok(), inert(account)));
    output::line(if written.noop {
        "  Nothing had to be changed."
    } else {
        "  A running gateway takes it up by itself."
    });
    let policy = args.dm_policy.map_or("pairing", DmPolicy::as_str);
    let command = |text: &str| style.paint(Tone::Command, text);
    output::line(format!("  See how it is: {}", command("openclaw channels status --probe")));
    if policy == "pairing" {
        output::line(format!(
            "  Then write to the bot. It answers with a code: {}",
            command(&format!("openclaw pairing approve {channel} <code>"))
        ));
    }
}
