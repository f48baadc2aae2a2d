//! `openclaw config …`: reading and changing `openclaw.json` on this machine.

use std::{fs, io::Read as _};

use openclaw_config::{
    ConfigPath, Document, Reload, redact, schema, settings,
    write::{Edit, Editor, Options, Outcome as Written, SetMode, WriteError, parse_patch, parse_set_value},
};
use openclaw_protocol::{Secret, secret::hex};
use serde_json::{Value, json};

use crate::{
    args::{ConfigCommand, ConfigGet, ConfigPatch, ConfigSet, ConfigUnset, JsonFlag},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
};

/// Largest patch on stdin: 1 MiB; from a file the editor allows 8 MiB (config.md section 2).
const MAX_STDIN_BYTES: u64 = 1 << 20;
/// 24 random bytes, 48 hex digits, as the release's onboarding writes.
const TOKEN_BYTES: usize = 24;

pub fn run(context: &Context, command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Get(args) => get(context, args),
        ConfigCommand::Set(args) => set(context, args),
        ConfigCommand::Unset(args) => unset(context, args),
        ConfigCommand::Patch(args) => patch(context, args),
        ConfigCommand::Validate(args) => validate(context, args),
        ConfigCommand::File(args) => {
            let path = context.paths.config_file.display().to_string();
            if args.json {
                output::json(&json!({ "path": path }));
            } else {
                output::line(inert(&path));
            }
            Ok(0)
        }
        ConfigCommand::Schema => {
            output::json(&schema::json_schema());
            Ok(0)
        }
        ConfigCommand::Undo(args) => undo(context, args.json),
    }
}

fn path(text: &str) -> Result<ConfigPath, Failure> {
    text.parse().map_err(|error: openclaw_config::path::PathError| Failure::new(inert(&error.to_string()).into_owned()))
}

fn load(context: &Context) -> Result<Document, Failure> {
    Document::load(&context.paths, &context.env).map_err(|error| {
        Failure::new(format!("OpenClaw config is invalid: {}", context.config_path()))
            .detail(inert(&error.to_string()).into_owned())
            .remedy("go back to the last version", "openclaw config undo")
    })
}

/// The exact leaf that was asked for is shown as it is, secrets too (C-21); in anything larger secrets are masked.
fn get(context: &Context, args: &ConfigGet) -> Outcome {
    let at = path(&args.path)?;
    let document = load(context)?;
    let Some(node) = document.at(&at) else { return get_unset(context, &at, args.json) };
    let value = match node.to_value() {
        leaf @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            if node.as_text().is_some_and(|text| !text.unresolved.is_empty()) {
                output::note(format!(
                    "{} A variable in {at} is not set; the value is shown as written.",
                    context.output.err.warn()
                ));
            }
            leaf
        }
        _ => {
            let masked = redact::document(&document);
            let mut steps = at.steps().iter();
            let found = steps.try_fold(&masked, |here, step| match here {
                Value::Array(items) => items.get(step.parse::<usize>().ok()?),
                other => other.get(step),
            });
            found.cloned().unwrap_or_default()
        }
    };
    match &value {
        Value::String(text) if !args.json => output::line(output::escape::inert_line(text)),
        other => output::json(other),
    }
    Ok(0)
}

fn get_unset(context: &Context, at: &ConfigPath, as_json: bool) -> Outcome {
    // Without a configured token the gateway made one; this is the documented way to see it (S-167).
    if at.to_string() == "gateway.auth.token"
        && let Ok(Some(token)) = settings::read_generated_token(&context.paths)
    {
        let file = inert(&context.paths.display(&context.paths.token_file())).into_owned();
        output::note(format!("Not configured; the gateway generated it in {file}."));
        let text = token.expose();
        if as_json {
            output::json(&json!(text))
        } else {
            output::line(text)
        }
        return Ok(0);
    }
    Err(match schema::lookup(at) {
        Some(_) => Failure::new(format!(
            "Config path is valid but unset: {at}. The runtime default applies; set it with openclaw config set {at} \
             <value>."
        )),
        None => Failure::new(format!(
            "Unknown config path: {}. Run openclaw config schema to see the keys.",
            inert(&at.to_string())
        )),
    })
}

fn set(context: &Context, args: &ConfigSet) -> Outcome {
    let at = path(&args.path)?;
    let value = parse_set_value(&args.value, args.strict_json || args.json).map_err(|error| refused(&error.into()))?;
    let mode = match (args.merge, args.replace) {
        (true, _) => SetMode::Merge,
        (_, true) => SetMode::Replace,
        _ => SetMode::Set,
    };
    let edit = Edit::Set { path: at.clone(), value, mode };
    change(context, &[edit], args.dry_run, args.json, &format!("Updated {at}."))
}

fn unset(context: &Context, args: &ConfigUnset) -> Outcome {
    let at = path(&args.path)?;
    change(context, &[Edit::Unset { path: at.clone() }], args.dry_run, args.json, &format!("Removed {at}."))
}

fn patch(context: &Context, args: &ConfigPatch) -> Outcome {
    let text = match &args.file {
        Some(file) => fs::read_to_string(file).map_err(|error| {
            Failure::new(format!("{} cannot be read: {error}.", inert(&file.display().to_string())))
        })?,
        None => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_STDIN_BYTES + 1).read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("stdin cannot be read: {error}.")))?;
            if text.len() as u64 > MAX_STDIN_BYTES {
                return Err(Failure::new("The patch on stdin is larger than 1 MiB; give it as a file with --file."));
            }
            text
        }
    };
    let value = parse_patch(&text).map_err(|error| refused(&error.into()))?;
    let replace = args.replace_path.iter().map(|text| path(text)).collect::<Result<Vec<_>, _>>()?;
    change(context, &[Edit::Patch { value, replace }], args.dry_run, args.json, "")
}

/// Makes the edits as one checked write, and says what it did.
fn change(context: &Context, edits: &[Edit], dry_run: bool, as_json: bool, done: &str) -> Outcome {
    let options = Options { dry_run, ..Options::default() };
    let written = match Editor::new(&context.paths, &context.env).apply(edits, &options) {
        Ok(written) => written,
        Err(error) => {
            let failure = refused(&error);
            return Err(if dry_run { failure.beside("dryRun", json!(true)) } else { failure });
        }
    };
    report(context, &written, dry_run, as_json, done, edits.len());
    Ok(0)
}

fn report(context: &Context, written: &Written, dry_run: bool, as_json: bool, done: &str, operations: usize) {
    let (style, talk) = (context.output.out, context.output.err);
    for warning in &written.warnings {
        output::note(format!("{} {}", talk.warn(), inert(&warning.with_place())));
    }
    for guarded in &written.guarded {
        output::note(format!("{} This weakens the gateway. {}", talk.warn(), inert(&guarded.to_string())));
    }
    if written.comments_lost {
        output::note(format!(
            "{} The change could not be made in place; comments in {} are lost.",
            talk.warn(),
            context.config_path()
        ));
    }
    let paths: Vec<String> = written.changes.iter().map(|change| change.path.to_string()).collect();
    if as_json {
        output::json(&json!({
            "ok": true, "dryRun": dry_run, "noop": written.noop, "operations": operations, "changedPaths": paths,
            "configPath": context.paths.config_file, "reload": written.reload().as_str(),
            "guarded": written.guarded.iter().map(|guarded| &guarded.path).collect::<Vec<_>>(),
            "warnings": written.warnings.iter().map(openclaw_config::Issue::to_json).collect::<Vec<_>>(),
            "backup": written.backup,
        }));
        return;
    }
    if written.noop {
        output::line("No change.");
        return;
    }
    let done = if done.is_empty() { format!("Applied {} config update(s).", paths.len()) } else { done.to_owned() };
    let effect = match written.reload() {
        Reload::Restart => "Restart the gateway to apply.",
        Reload::Hot => "Change will apply without restarting the gateway.",
        Reload::None => "No gateway restart needed.",
    };
    if dry_run {
        output::line(format!("Dry run: {done} Nothing was written. Would change: {}", inert(&paths.join(", "))));
        return;
    }
    output::line(format!("{} {done} {effect}", style.ok()));
    if written.backup.is_some() {
        output::line(format!("Undo: {}", style.paint(Tone::Command, "openclaw config undo")));
    }
}

fn refused(error: &WriteError) -> Failure {
    let text = error.to_string();
    let mut lines = text.lines().map(|line| inert(line).into_owned());
    let failure = Failure::new(lines.next().unwrap_or_default()).error_code(error.kind());
    let failure = lines.fold(failure, Failure::detail);
    match error {
        WriteError::Invalid { issues, rejected } => {
            let issues = issues.iter().map(openclaw_config::Issue::to_json).collect();
            let failure = failure.beside("issues", Value::Array(issues));
            match rejected {
                Some(file) => failure.fact("Rejected text kept in", inert(&file.display().to_string()).into_owned()),
                None => failure,
            }
        }
        _ => failure,
    }
}

fn validate(context: &Context, args: &JsonFlag) -> Outcome {
    let document = load(context)?;
    let found = schema::validate(&document);
    let style = context.output.out;
    if !found.is_valid() {
        let problem = crate::context::Problem { summary: String::new(), issues: found.errors };
        return Err(context.invalid(&problem));
    }
    if args.json {
        let warnings: Vec<Value> = found.warnings.iter().map(openclaw_config::Issue::to_json).collect();
        output::json(&json!({"valid": true, "path": context.paths.config_file, "warnings": warnings}));
        return Ok(0);
    }
    for warning in &found.warnings {
        output::note(format!("{} {}", context.output.err.warn(), inert(&warning.with_place())));
    }
    let missing = if document.exists() { "" } else { " (no file: built-in settings)" };
    output::line(format!("{} Config valid: {}{missing}", style.ok(), context.config_path()));
    Ok(0)
}

fn undo(context: &Context, as_json: bool) -> Outcome {
    let editor = Editor::new(&context.paths, &context.env);
    let written = editor.undo(&Options::default()).map_err(|error| refused(&error))?;
    report(context, &written, false, as_json, "Went back to the version before the last change.", 1);
    if !as_json && !written.noop {
        let paths: Vec<String> = written.changes.iter().map(|change| change.path.to_string()).collect();
        output::note(format!("Changed: {}", inert(&paths.join(", "))));
    }
    Ok(0)
}

/// `doctor --generate-gateway-token`: a token where there is none.
pub fn generate_token(context: &Context, as_json: bool) -> Outcome {
    let at = path("gateway.auth.token")?;
    let document = load(context)?;
    if document.at(&at).is_some() {
        return Err(Failure::new("gateway.auth.token is set already; nothing was changed.")
            .detail("A new one locks out every client that uses the old one.")
            .remedy("to replace it on purpose", "openclaw config set gateway.auth.token \"$(openssl rand -hex 32)\""));
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("The system gives no random numbers: {error}.")))?;
    let token = Secret::new(hex(&bytes));
    let edit = Edit::Set { path: at, value: json!(token.expose()), mode: SetMode::Set };
    let written = Editor::new(&context.paths, &context.env).apply(&[edit], &Options::default());
    let written = written.map_err(|error| refused(&error))?;
    report(context, &written, false, as_json, "Generated gateway.auth.token.", 1);
    if !as_json {
        output::note("See it: openclaw config get gateway.auth.token");
    }
    Ok(0)
}
