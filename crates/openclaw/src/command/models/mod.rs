//! `openclaw models …`: which models there are, which one agents use, and what comes when it fails.

mod add;
mod auth;
mod here;

use std::time::Duration;

use clap::{Args, Subcommand};
use openclaw_agent::provider::{ModelRef, catalog::Catalog};
use openclaw_config::Document;
use serde_json::{Value, json};

use self::here::{Choice, MODEL, choice_edits};
pub use self::here::{local_config, meant, write};

use super::{
    chat::wire::{count, text},
    rpc::{ADMIN, READ, Rpc},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone,
        escape::inert_line,
        inert,
        table::{self, Cell, Facts},
    },
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Models {
    #[command(subcommand)]
    pub command: Option<ModelsCommand>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// The models agents may use
    List(List),
    /// The model in use, its fallbacks, and the credentials of providers (also without a word)
    Status(Status),
    /// Add a provider with its key, try it, and have agents use it
    Add(add::Add),
    /// Choose the model agents use unless told otherwise
    Set(Set),
    /// What is tried when the model fails
    Fallbacks(Fallbacks),
    /// Short names of models
    Aliases(auth::Aliases),
    /// Keys of providers
    Auth(auth::Auth),
}

#[derive(Args, Debug)]
pub struct Status {
    /// Exit 1 when the model or one of its fallbacks cannot be used
    #[arg(long)]
    pub check: bool,
    /// Ask the model and its fallbacks for a word, from this machine (costs a few tokens)
    #[arg(long)]
    pub probe: bool,
    /// Only ask whether this provider takes its key (costs nothing)
    #[arg(long, value_name = "ID")]
    pub probe_provider: Option<String>,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct List {
    /// All that are known, not only those of the config
    #[arg(long)]
    pub all: bool,
    /// As one agent has it
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// Only of this provider
    #[arg(long, value_name = "ID")]
    pub provider: Option<String>,
    /// Only their names
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Set {
    /// provider/model
    #[arg(value_name = "MODEL")]
    pub model: String,
    #[command(flatten)]
    pub at: TargetArgs,
}

#[derive(Args, Debug)]
pub struct Fallbacks {
    #[command(subcommand)]
    pub command: FallbacksCommand,
}

#[derive(Debug, Subcommand)]
pub enum FallbacksCommand {
    /// Which there are
    List(TargetArgs),
    /// Put one at the end
    Add(Set),
    /// Take one away
    Remove(Set),
    /// Take all away
    Clear(TargetArgs),
}

impl Models {
    pub fn wants_json(&self) -> bool {
        use FallbacksCommand as F;
        match &self.command {
            None => self.at.json,
            Some(ModelsCommand::List(args)) => args.at.json,
            Some(ModelsCommand::Status(args)) => args.at.json,
            Some(ModelsCommand::Add(args)) => args.json,
            Some(ModelsCommand::Aliases(args)) => args.wants_json(),
            Some(ModelsCommand::Auth(args)) => args.wants_json(),
            Some(ModelsCommand::Set(args)) => args.at.json,
            Some(ModelsCommand::Fallbacks(args)) => match &args.command {
                F::List(at) | F::Clear(at) => at.json,
                F::Add(args) | F::Remove(args) => args.at.json,
            },
        }
    }
}

pub fn run(context: &Context, args: &Models) -> Outcome {
    use FallbacksCommand as F;
    match &args.command {
        None => status(context, &args.at, false),
        Some(ModelsCommand::Status(args)) => match (&args.probe_provider, args.probe) {
            (Some(provider), _) => probe_provider(context, args, provider),
            (None, true) => probe(context, args),
            (None, false) => status(context, &args.at, args.check),
        },
        Some(ModelsCommand::Add(args)) => add::run(context, args),
        Some(ModelsCommand::Aliases(args)) => auth::aliases(context, args),
        Some(ModelsCommand::Auth(args)) => auth::run(context, args),
        Some(ModelsCommand::List(args)) => list(context, args),
        Some(ModelsCommand::Set(args)) => set(context, args),
        Some(ModelsCommand::Fallbacks(args)) => match &args.command {
            F::List(at) => fallbacks(context, at),
            F::Add(args) => change_fallbacks(context, &args.at, |list, config| add(list, &meant(config, &args.model))),
            F::Remove(args) => {
                change_fallbacks(context, &args.at, |list, config| remove(list, &meant(config, &args.model)))
            }
            F::Clear(at) => change_fallbacks(context, at, |list, _| {
                list.clear();
                Ok(())
            }),
        },
    }
}

fn reach<'a>(context: &'a Context, at: &TargetArgs) -> Result<Reach<'a>, Failure> {
    context.reach(&PortTargetArgs { target: at.clone(), port: None }, DEFAULT_TIMEOUT)
}

fn list(context: &Context, args: &List) -> Outcome {
    let reach = reach(context, &args.at)?;
    let mut answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        // Protocol 3 lists without parameters.
        let mut params = json!({});
        if rpc.has("models.authStatus") {
            params["view"] = json!(if args.all { "all" } else { "default" });
            if let Some(agent) = &args.agent {
                params["agentId"] = json!(agent);
            }
        }
        let answer = rpc.call("models.list", params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if let (Some(provider), Some(models)) = (&args.provider, answer["models"].as_array_mut()) {
        models.retain(|model| model["provider"].as_str() == Some(provider));
    }
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |model: &Value| {
        format!("{}/{}", model["provider"].as_str().unwrap_or("?"), model["id"].as_str().unwrap_or("?"))
    };
    if args.plain {
        models.iter().for_each(|model| output::line(inert(&name(model))));
        return Ok(0);
    }
    if models.is_empty() {
        output::line("The gateway has no models.");
        how_to_add(context.output.out);
        return Ok(0);
    }
    let rows: Vec<Vec<Cell>> = models
        .iter()
        .map(|model| {
            let tags: Vec<&str> = model["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let input = model["input"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let takes = input.collect::<Vec<_>>().join("+");
            let context_window =
                count(model, "contextWindow").map_or_else(|| "–".to_owned(), |n| format!("{}k", n / 1000));
            let usable = match model["available"].as_bool() {
                Some(false) => Cell::toned(Tone::Warn, "no credential"),
                Some(true) => Cell::toned(Tone::Good, "yes"),
                None => Cell::from("–"),
            };
            vec![
                Cell::toned(Tone::Command, inert(&name(model))),
                Cell::from(inert(&text(model, "name").unwrap_or_default())),
                Cell::from(context_window),
                Cell::from(inert(&takes)),
                usable,
                Cell::toned(Tone::Dim, inert(&tags.join(", "))),
            ]
        })
        .collect();
    let heading = ["model", "name", "context", "takes", "usable", "tags"];
    output::print(&table::columns(context.output.out, &heading, &rows));
    Ok(0)
}

const ADD: &str = "openclaw models add anthropic";
const ADD_OWN: &str = "openclaw models add mine --base-url http://127.0.0.1:8000/v1";

/// The one step that is missing.
fn how_to_add(style: output::Style) {
    for (what, command) in [
        ("With a key (asked for):", ADD),
        ("On this machine:", "openclaw models add ollama"),
        ("Any OpenAI-compatible:", ADD_OWN),
    ] {
        output::line(format!("  {what:<24} {}", style.paint(Tone::Command, command)));
    }
}

fn status(context: &Context, at: &TargetArgs, check: bool) -> Outcome {
    let reach = reach(context, at)?;
    let here = reach.is_local();
    let (config, auth, models) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let config = rpc.call("config.get", json!({})).await?;
        let auth = match rpc.has("models.authStatus") {
            true => Some(rpc.call("models.authStatus", json!({})).await?),
            false => None,
        };
        let models = rpc.call("models.list", json!({})).await?;
        rpc.close().await;
        Ok::<_, Failure>((config, auth, models))
    })?;
    let choice = Choice::of(in_force(&config));
    let default = models["models"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|model| model["tags"].as_array().into_iter().flatten().any(|tag| tag == "default"));
    let providers = auth.as_ref().map(|auth| auth["providers"].clone()).unwrap_or_default();
    let tagged = |model: &Value, wanted: &str| model["tags"].as_array().into_iter().flatten().any(|tag| tag == wanted);
    let chosen = models["models"].as_array().into_iter().flatten();
    let chosen = chosen.filter(|model| tagged(model, "default") || tagged(model, "fallback"));
    let unusable: Vec<String> = chosen
        .filter(|model| model["available"] == false)
        .map(|model| {
            format!("{}/{}", text(model, "provider").unwrap_or_default(), text(model, "id").unwrap_or_default())
        })
        .collect();
    let code = u8::from(check && (default.is_none() || !unusable.is_empty()));
    if at.json {
        output::json(&json!({
            "configPath": config["path"], "defaultModel": choice.primary, "fallbacks": choice.fallbacks,
            "resolvedDefault": default, "auth": {"providers": providers}, "unusable": unusable,
        }));
        return Ok(code);
    }
    let style = context.output.out;
    let mut facts = Facts::new();
    match (&choice.primary, default) {
        (Some(model), _) => facts.row("model", Cell::toned(Tone::Command, inert(model))),
        (None, Some(model)) => {
            let name =
                format!("{}/{}", text(model, "provider").unwrap_or_default(), text(model, "id").unwrap_or_default());
            facts.row("model", Cell::from(format!("{} (nothing chosen)", inert(&name))))
        }
        (None, None) => facts.row("model", Cell::toned(Tone::Warn, "none chosen")),
    };
    let after = if choice.fallbacks.is_empty() { "none".to_owned() } else { choice.fallbacks.join(", ") };
    facts.row("fallbacks", inert(&after).into_owned());
    // Whoever may only read is not told the path; on this machine it is no secret.
    let path = config["path"].as_str().filter(|path| *path != "[redacted]").map(|path| inert(path).into_owned());
    facts.maybe("config", path.or_else(|| here.then(|| context.config_path())));
    output::print(&format!("{}\n{}", style.paint(Tone::Title, "Models"), facts.render(style)));
    if choice.primary.is_none() && default.is_none() {
        output::line("\nNobody can answer yet. Add a model:");
        how_to_add(style);
    }
    let rows: Vec<Vec<Cell>> = providers
        .as_array()
        .into_iter()
        .flatten()
        .map(|provider| {
            let status = text(provider, "status").unwrap_or_default();
            let source = text(&provider["apiKey"], "source");
            // The reference's words, which mean little to whoever does not know them.
            let (tone, status) = match (status.as_str(), &source) {
                ("static", None) => (Tone::Good, "needs none".to_owned()),
                ("ok" | "static" | "configured", _) => (Tone::Good, "there".to_owned()),
                ("missing" | "expired" | "error", _) => (Tone::Bad, status),
                _ => (Tone::Plain, status),
            };
            let source = source.unwrap_or_else(|| "–".to_owned());
            vec![
                Cell::from(inert(&text(provider, "provider").unwrap_or_default())),
                Cell::toned(tone, inert(&status)),
                Cell::toned(Tone::Dim, inert(&source)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        output::print(&format!("\n{}", table::columns(style, &["provider", "credential", "from"], &rows)));
    }
    if auth.is_none() {
        output::note("This gateway does not tell the state of its credentials.");
    }
    // Chosen, and of no provider.
    let stray = choice.primary.iter().filter(|_| default.is_none() && auth.is_some());
    for model in unusable.iter().chain(stray) {
        let (mark, model) = (context.output.out.warn(), inert(model));
        output::line(format!("\n{mark} {model} cannot be used as it is."));
        let command = format!("openclaw models add {model}");
        output::line(format!("  Give it a key or an address: {}", style.paint(Tone::Command, &command)));
    }
    Ok(code)
}

/// Asks the model and its fallbacks for a word, as the gateway of this machine would.
fn probe(context: &Context, args: &Status) -> Outcome {
    let document = local_config(context, "openclaw models status --probe")?;
    let read = || Catalog::read(&document, &context.env, &context.paths).0;
    let catalog = read();
    let choice = Choice::of(&document.written());
    let names: Vec<String> = choice.primary.iter().chain(&choice.fallbacks).cloned().collect();
    if names.is_empty() {
        return Err(Failure::new("No model is chosen, so there is none to ask.").remedy("add one", ADD));
    }
    let mut results = Vec::new();
    for name in names {
        let model = catalog.resolve(&name).map(|model: ModelRef| (model.to_string(), model));
        let asked = match model {
            None => Err(format!("no configured provider has a model called {name}")),
            Some((shown, model)) => {
                let _progress = context.output.progress(format!("Asking {} …", inert(&shown)));
                // Connections belong to the event loop that made them, so each model gets a catalogue of its own.
                match add::probe(&read(), &model) {
                    Ok(Ok(took)) => Ok(took),
                    Ok(Err(error)) => Err(error.message),
                    Err(failure) => {
                        Err(catalog.availability(&model).err().unwrap_or_else(|| failure.message().to_owned()))
                    }
                }
            }
        };
        results.push((name, asked));
    }
    let failed = results.iter().any(|(_, asked)| asked.is_err());
    if args.at.json {
        let row = |(name, asked): &(String, Result<Duration, String>)| {
            json!({"model": name, "ok": asked.is_ok(), "latencyMs": asked.as_ref().ok().map(Duration::as_millis),
                "error": asked.as_ref().err()})
        };
        output::json(&json!({"ok": !failed, "probes": results.iter().map(row).collect::<Vec<_>>()}));
        return Ok(u8::from(failed));
    }
    let style = context.output.out;
    for (name, asked) in &results {
        match asked {
            Ok(took) => {
                output::line(format!("{} {} answered in {}.", style.ok(), inert(name), output::time::span(*took)))
            }
            Err(why) => output::line(format!("{} {}: {}", style.bad(), inert(name), inert_line(why))),
        }
    }
    Ok(u8::from(failed))
}

/// Asks a provider for its models, which shows whether it is there and takes the key.
fn probe_provider(context: &Context, args: &Status, provider: &str) -> Outcome {
    let document = local_config(context, "openclaw models status --probe-provider <id>")?;
    let (catalog, _) = Catalog::read(&document, &context.env, &context.paths);
    let any = ModelRef { provider: provider.trim().to_lowercase(), model: "any".to_owned() };
    let (service, _) = add::client(&catalog, &any)?;
    let listed = block_on(async {
        let _progress = context.output.progress(format!("Asking {} …", inert(provider)));
        Ok(service.listing().await)
    })?;
    if args.at.json {
        output::json(&json!({"ok": listed.is_ok(), "provider": any.provider, "models": listed.as_ref().ok(),
            "error": listed.as_ref().err().map(|error| &error.message)}));
        return Ok(u8::from(listed.is_err()));
    }
    match listed {
        Ok(models) => {
            let ok = context.output.out.ok();
            output::line(format!("{ok} {} answers, and has {} model(s).", inert(provider), models.len()));
            Ok(0)
        }
        Err(error) => Err(Failure::new(format!("{} cannot be used as it is.", inert(provider)))
            .detail(inert_line(&error.message).into_owned())),
    }
}

/// The part of `config.get` that is in force.
fn in_force(config: &Value) -> &Value {
    ["resolved", "config", "parsed"].iter().map(|key| &config[*key]).find(|part| part.is_object()).unwrap_or(config)
}

fn set(context: &Context, args: &Set) -> Outcome {
    change(context, &args.at, |choice, config| {
        let model = named(&meant(config, &args.model))?;
        let done = format!("Agents use {} from now on.", inert(&model));
        choice.primary = Some(model);
        Ok(done)
    })
}

/// A model's name: `provider/model`.
pub fn named(typed: &str) -> Result<String, Failure> {
    let typed = typed.trim();
    match typed.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => Ok(typed.to_owned()),
        _ => Err(Failure::new(format!("\"{}\" is no model: it is written provider/model.", inert(typed)))
            .remedy("see which there are", "openclaw models list")),
    }
}

fn fallbacks(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
    let config = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let config = rpc.call("config.get", json!({})).await?;
        rpc.close().await;
        Ok(config)
    })?;
    let list = Choice::of(in_force(&config)).fallbacks;
    if at.json {
        output::json(&json!({"fallbacks": list}));
    } else if list.is_empty() {
        output::line("None: when the model fails, the run fails.");
    } else {
        list.iter().for_each(|model| output::line(inert(model)));
    }
    Ok(0)
}

fn add(list: &mut Vec<String>, typed: &str) -> Result<(), Failure> {
    let model = named(typed)?;
    if list.contains(&model) {
        return Err(Failure::new(format!("{} is a fallback already; nothing was changed.", inert(&model))));
    }
    list.push(model);
    Ok(())
}

fn remove(list: &mut Vec<String>, typed: &str) -> Result<(), Failure> {
    let before = list.len();
    list.retain(|model| model != typed.trim());
    match list.len() < before {
        true => Ok(()),
        false => Err(Failure::new(format!("{} is no fallback; nothing was changed.", inert(typed.trim())))
            .remedy("see which there are", "openclaw models fallbacks list")),
    }
}

fn change_fallbacks(
    context: &Context,
    at: &TargetArgs,
    edit: impl Fn(&mut Vec<String>, &Value) -> Result<(), Failure>,
) -> Outcome {
    change(context, at, |choice, config| {
        edit(&mut choice.fallbacks, config)?;
        Ok(match choice.fallbacks.is_empty() {
            true => "There are no fallbacks.".to_owned(),
            false => format!("Fallbacks: {}.", inert(&choice.fallbacks.join(", "))),
        })
    })
}

/// Changes the choice: in the file of this machine's gateway, by `config.patch` at others.
fn change(
    context: &Context,
    at: &TargetArgs,
    edit: impl Fn(&mut Choice, &Value) -> Result<String, Failure>,
) -> Outcome {
    let reach = reach(context, at)?;
    if reach.is_local() { change_here(context, at, edit) } else { change_there(context, reach, at, edit) }
}

fn change_here(
    context: &Context,
    at: &TargetArgs,
    edit: impl Fn(&mut Choice, &Value) -> Result<String, Failure>,
) -> Outcome {
    let document = Document::load(&context.paths, &context.env)
        .map_err(|error| Failure::new(format!("The config cannot be read: {error}.")))?;
    let config = document.written();
    let mut choice = Choice::of(&config);
    let before = choice.clone();
    let done = edit(&mut choice, &config)?;
    let written = write(context, &choice_edits(&before, &choice)?)?;
    if at.json {
        let paths: Vec<String> = written.changes.iter().map(|change| change.path.to_string()).collect();
        output::json(&json!({"ok": true, "noop": written.noop, "changedPaths": paths, "defaultModel": choice.primary,
            "fallbacks": choice.fallbacks, "configPath": context.paths.config_file}));
        return Ok(0);
    }
    let style = context.output.out;
    let unchanged = if written.noop { " (as before)" } else { "" };
    output::line(format!("{} {done}{unchanged}", style.ok()));
    if written.backup.is_some() {
        output::line(format!("Undo: {}", style.paint(Tone::Command, "openclaw config undo")));
    }
    Ok(0)
}

fn change_there(
    context: &Context,
    reach: Reach<'_>,
    at: &TargetArgs,
    edit: impl Fn(&mut Choice, &Value) -> Result<String, Failure>,
) -> Outcome {
    let (answer, done) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, ADMIN]).await?;
        let config = rpc.call("config.get", json!({})).await?;
        let written =
            ["parsed", "sourceConfig", "config"].iter().map(|key| &config[*key]).find(|part| part.is_object());
        let written = written.unwrap_or(&Value::Null);
        let mut choice = Choice::of(written);
        let before = choice.clone();
        let done = edit(&mut choice, written)?;
        let value = if choice.bare && choice.fallbacks.is_empty() {
            json!(choice.primary)
        } else if choice.bare {
            choice.to_model()
        } else {
            let mut part = json!({});
            if choice.primary != before.primary {
                part["primary"] = json!(choice.primary);
            }
            if choice.fallbacks != before.fallbacks {
                part["fallbacks"] = json!(choice.fallbacks);
            }
            part
        };
        let patch = json!({"agents": {"defaults": {"model": value}}});
        let mut params = json!({"raw": patch.to_string()});
        if let Some(hash) = config["hash"].as_str() {
            params["baseHash"] = json!(hash);
        }
        // A list that gets shorter is replaced on purpose; only protocol 4 asks to be told.
        if choice.fallbacks.len() < before.fallbacks.len() && rpc.has("models.authStatus") {
            params["replacePaths"] = json!([format!("{MODEL}.fallbacks")]);
        }
        let answer = rpc.call("config.patch", params).await?;
        rpc.close().await;
        Ok::<_, Failure>((answer, done))
    })?;
    if at.json {
        output::json(&json!({"ok": true, "noop": answer["noop"], "changedPaths": answer["changedPaths"],
            "configPath": answer["path"]}));
        return Ok(0);
    }
    output::line(format!("{} {done}", context.output.out.ok()));
    if answer["restart"].is_object() {
        output::line("The gateway restarts to apply it.");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_as_configs_write_it() {
        let check = |model: Value, primary: Option<&str>, fallbacks: &[&str], bare: bool| {
            let choice = Choice::of(&json!({"agents": {"defaults": {"model": model}}}));
            let fallbacks = fallbacks.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(choice, Choice { primary: primary.map(str::to_owned), fallbacks, bare });
        };
        check(json!("a/b"), Some("a/b"), &[], true);
        check(json!({"primary": "a/b", "fallbacks": ["c/d", "e/f"]}), Some("a/b"), &["c/d", "e/f"], false);
        check(json!({"fallbacks": ["c/d"]}), None, &["c/d"], false);
        check(Value::Null, None, &[], false);
    }

    #[test]
    fn names_of_models() {
        for (typed, ok) in [("a/b", true), (" openrouter/x/y ", true), ("a", false), ("/b", false), ("a/", false)] {
            assert_eq!(named(typed).is_ok(), ok, "{typed}");
        }
        let mut list = vec!["a/b".to_owned()];
        assert!(add(&mut list, "a/b").is_err() && add(&mut list, "c/d").is_ok());
        assert!(remove(&mut list, "x/y").is_err() && remove(&mut list, "a/b").is_ok());
        assert_eq!(list, ["c/d"]);
    }
}
