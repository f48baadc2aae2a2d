//! `openclaw models …`: which models there are, which one agents use, and what comes when it fails.

use std::time::Duration;

use clap::{Args, Subcommand};
use openclaw_config::{
    Document,
    write::{Edit, Editor, Options, SetMode},
};
use serde_json::{Value, json};

use super::{
    chat::wire::{count, text},
    rpc::{ADMIN, READ, Rpc},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone, inert,
        table::{self, Cell, Facts},
    },
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the choice stands in the config (config notes, `agents.defaults`).
const MODEL: &str = "agents.defaults.model";

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
    Status(TargetArgs),
    /// Choose the model agents use unless told otherwise
    Set(Set),
    /// What is tried when the model fails
    Fallbacks(Fallbacks),
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
            Some(ModelsCommand::Status(at)) => at.json,
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
        None => status(context, &args.at),
        Some(ModelsCommand::Status(at)) => status(context, at),
        Some(ModelsCommand::List(args)) => list(context, args),
        Some(ModelsCommand::Set(args)) => set(context, args),
        Some(ModelsCommand::Fallbacks(args)) => match &args.command {
            F::List(at) => fallbacks(context, at),
            F::Add(args) => change_fallbacks(context, &args.at, |list| add(list, &args.model)),
            F::Remove(args) => change_fallbacks(context, &args.at, |list| remove(list, &args.model)),
            F::Clear(at) => change_fallbacks(context, at, |list| {
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
        output::line(format!("Add a provider: {}", context.output.out.paint(Tone::Command, ADD)));
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

const ADD: &str = "openclaw config set models.providers.<id> '{baseUrl: \"…\", apiKey: \"…\", api: \"openai-completions\", \
                   models: [{id: \"…\", name: \"…\"}]}'";

/// The choice as it stands in a config: the model, and what comes after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Choice {
    primary: Option<String>,
    fallbacks: Vec<String>,
    /// Written as a bare string.
    bare: bool,
}

impl Choice {
    fn of(config: &Value) -> Self {
        match &config["agents"]["defaults"]["model"] {
            Value::String(primary) => Self { primary: Some(primary.clone()), fallbacks: Vec::new(), bare: true },
            object => {
                let fallbacks = object["fallbacks"].as_array().into_iter().flatten();
                Self {
                    primary: text(object, "primary"),
                    fallbacks: fallbacks.filter_map(Value::as_str).map(str::to_owned).collect(),
                    bare: false,
                }
            }
        }
    }

    /// What has to be written: the smallest part that holds the change.
    fn to_model(&self) -> Value {
        let mut model = json!({});
        if let Some(primary) = &self.primary {
            model["primary"] = json!(primary);
        }
        model["fallbacks"] = json!(self.fallbacks);
        model
    }
}

fn status(context: &Context, at: &TargetArgs) -> Outcome {
    let reach = reach(context, at)?;
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
    if at.json {
        output::json(&json!({
            "configPath": config["path"], "defaultModel": choice.primary, "fallbacks": choice.fallbacks,
            "resolvedDefault": default, "auth": {"providers": providers},
        }));
        return Ok(0);
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
    facts.maybe("config", config["path"].as_str().map(inert));
    output::print(&format!("{}\n{}", style.paint(Tone::Title, "Models"), facts.render(style)));
    if choice.primary.is_none() && default.is_none() {
        output::line(format!("\nAdd a provider: {}", style.paint(Tone::Command, ADD)));
        output::line(format!("Then choose: {}", style.paint(Tone::Command, "openclaw models set <provider>/<model>")));
    }
    let rows: Vec<Vec<Cell>> = providers
        .as_array()
        .into_iter()
        .flatten()
        .map(|provider| {
            let status = text(provider, "status").unwrap_or_default();
            let tone = match status.as_str() {
                "ok" | "static" | "configured" => Tone::Good,
                "missing" | "expired" | "error" => Tone::Bad,
                _ => Tone::Plain,
            };
            let source = text(&provider["apiKey"], "source").unwrap_or_default();
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
    Ok(0)
}

/// The part of `config.get` that is in force.
fn in_force(config: &Value) -> &Value {
    ["resolved", "config", "parsed"].iter().map(|key| &config[*key]).find(|part| part.is_object()).unwrap_or(config)
}

fn set(context: &Context, args: &Set) -> Outcome {
    let model = named(&args.model)?;
    change(context, &args.at, |choice| {
        choice.primary = Some(model.clone());
        Ok(format!("Agents use {} from now on.", inert(&model)))
    })
}

/// A model's name: `provider/model`.
fn named(typed: &str) -> Result<String, Failure> {
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
    edit: impl Fn(&mut Vec<String>) -> Result<(), Failure>,
) -> Outcome {
    change(context, at, |choice| {
        edit(&mut choice.fallbacks)?;
        Ok(match choice.fallbacks.is_empty() {
            true => "There are no fallbacks.".to_owned(),
            false => format!("Fallbacks: {}.", inert(&choice.fallbacks.join(", "))),
        })
    })
}

/// Changes the choice: in the file of this machine's gateway, by `config.patch` at others.
fn change(context: &Context, at: &TargetArgs, edit: impl Fn(&mut Choice) -> Result<String, Failure>) -> Outcome {
    let reach = reach(context, at)?;
    if reach.is_local() { change_here(context, at, edit) } else { change_there(context, reach, at, edit) }
}

fn change_here(context: &Context, at: &TargetArgs, edit: impl Fn(&mut Choice) -> Result<String, Failure>) -> Outcome {
    let document = Document::load(&context.paths, &context.env)
        .map_err(|error| Failure::new(format!("The config cannot be read: {error}.")))?;
    let mut choice = Choice::of(&document.written());
    let before = choice.clone();
    let done = edit(&mut choice)?;
    let path = |text: &str| {
        text.parse::<openclaw_config::ConfigPath>().map_err(|error| Failure::new(format!("{text}: {error}.")))
    };
    let set = |at: &str, value: Value| Ok::<_, Failure>(Edit::Set { path: path(at)?, value, mode: SetMode::Set });
    let edits = if choice.bare && choice.fallbacks.is_empty() {
        vec![set(MODEL, json!(choice.primary))?]
    } else if choice.bare {
        vec![Edit::Set { path: path(MODEL)?, value: choice.to_model(), mode: SetMode::Replace }]
    } else {
        let mut edits = Vec::new();
        if choice.primary != before.primary {
            edits.push(set(&format!("{MODEL}.primary"), json!(choice.primary))?);
        }
        if choice.fallbacks != before.fallbacks {
            let (path, value) = (path(&format!("{MODEL}.fallbacks"))?, json!(choice.fallbacks));
            edits.push(Edit::Set { path, value, mode: SetMode::Replace });
        }
        edits
    };
    let written = Editor::new(&context.paths, &context.env).apply(&edits, &Options::default());
    let written = written.map_err(|error| {
        let text = error.to_string();
        let mut lines = text.lines().map(|line| inert(line).into_owned());
        let failure = Failure::new(lines.next().unwrap_or_default()).error_code(error.kind());
        lines.fold(failure, Failure::detail).fact("Config", context.config_path())
    })?;
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
    edit: impl Fn(&mut Choice) -> Result<String, Failure>,
) -> Outcome {
    let (answer, done) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, ADMIN]).await?;
        let config = rpc.call("config.get", json!({})).await?;
        let written =
            ["parsed", "sourceConfig", "config"].iter().map(|key| &config[*key]).find(|part| part.is_object());
        let mut choice = Choice::of(written.unwrap_or(&Value::Null));
        let before = choice.clone();
        let done = edit(&mut choice)?;
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
