//! `openclaw models add`: a provider, its key and the model agents use, in one step that is tried before it is written.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use openclaw_agent::{
    message::Message,
    provider::{
        Delta, ErrorKind, ModelRef, Provider, ProviderError, Request, Thinking,
        catalog::{Catalog, ProviderInfo},
    },
};
use openclaw_config::{
    ConfigPath, Document,
    secret_ref::store::SecretStore,
    write::{Edit, Editor, Options, SetMode},
};
use openclaw_protocol::Secret;
use serde_json::{Value, json};

use super::{
    here::{Choice, choice_edits, local_config, refused},
    named,
};
use crate::{
    args::TargetArgs,
    command::{
        ask,
        rpc::{READ, Rpc},
    },
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, escape::inert_line, inert},
    reach::{Reach, block_on},
};

/// For one short answer. A local server may have to load the model first.
const PATIENCE: Duration = Duration::from_secs(90);
/// In which a gateway takes a config that was written: it waits for writes to settle, and reads secrets anew.
const TAKEN: Duration = Duration::from_secs(3);
/// Models that are named when there are too many to choose from.
const SHOWN: usize = 12;
/// What is taken where the provider is known and nothing is said: capable, and not the dearest.
const USUAL: &[(&str, &str)] = &[("anthropic", "claude-sonnet-5"), ("openai", "gpt-6-sol")];

#[derive(Args, Debug)]
pub struct Add {
    /// anthropic, openai, openrouter, google, ollama …, or a name of your own with --base-url; also provider/model
    #[arg(value_name = "PROVIDER")]
    pub provider: String,
    /// Address of the API, for a server of your own (many end in /v1)
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// What it speaks: openai-completions (nearly all), openai-responses or anthropic-messages
    #[arg(long, value_name = "API")]
    pub api: Option<String>,
    /// "-" reads the key from stdin; without it you are asked
    #[arg(long, value_name = "-", conflicts_with_all = ["key_env", "no_key"])]
    pub key: Option<String>,
    /// The key is in this variable of the gateway's environment (or of .env in its state directory)
    #[arg(long, value_name = "VARIABLE", conflicts_with = "no_key")]
    pub key_env: Option<String>,
    /// It needs none
    #[arg(long)]
    pub no_key: bool,
    /// Which of its models; without it the usual one, the only one, or you are asked
    #[arg(long, value_name = "ID")]
    pub model: Option<String>,
    /// Agents use it from now on, also where they have a model already
    #[arg(long)]
    pub default: bool,
    /// Do not try it
    #[arg(long)]
    pub no_verify: bool,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// The key as the config will have it.
enum Key {
    /// As it is: none, or what was there.
    Kept,
    /// In the secret store.
    Stored(Secret),
    Env(String),
}

pub fn run(context: &Context, args: &Add) -> Outcome {
    let document = local_config(context, "openclaw models add")?;
    let (provider, model) = match args.provider.trim().split_once('/') {
        Some((provider, model)) => (provider.to_lowercase(), Some(model.to_owned())),
        None => (args.provider.trim().to_lowercase(), None),
    };
    let model = args.model.clone().or(model).map(|model| model.trim().to_owned()).filter(|model| !model.is_empty());
    check_name(&provider)?;
    let (catalog, _) = Catalog::read(&document, &context.env, &context.paths);
    let known = catalog.provider(&provider);
    if known.is_none() && args.base_url.is_none() {
        return Err(unknown(&provider));
    }
    let key = key(context, args, &provider, known.as_ref())?;

    let base: ConfigPath = ["models", "providers", &provider].into_iter().map(str::to_owned).collect();
    let set = |key: &str, value: Value| Edit::Set { path: base.child(key), value, mode: SetMode::Replace };
    let mut edits = Vec::new();
    edits.extend(args.base_url.as_deref().map(|url| set("baseUrl", json!(url.trim()))));
    edits.extend(args.api.as_deref().map(|api| set("api", json!(api))));
    let secret_id = format!("{provider}-key");
    match &key {
        Key::Kept => {}
        Key::Stored(_) => edits.push(set("apiKey", json!({"source": "store", "id": secret_id}))),
        Key::Env(name) => edits.push(set("apiKey", json!({"source": "env", "id": name}))),
    }
    // The key has to be where the config says before it can be tried; it goes again if that fails.
    let store = SecretStore::new(&context.paths);
    let unkept =
        |error: openclaw_config::secret_ref::store::StoreError| Failure::new(inert(&error.to_string()).into_owned());
    let mut before = None;
    if let Key::Stored(secret) = &key {
        before = Some(store.get(&secret_id).map_err(unkept)?);
        store.set(&secret_id, secret).map_err(unkept)?;
    }
    let done = settle(context, args, &document, &provider, model, edits);
    if done.is_err()
        && let Some(before) = before
    {
        let _ = match before {
            Some(secret) => store.set(&secret_id, &secret),
            None => store.delete(&secret_id).map(|_| ()),
        };
    }
    done
}

fn check_name(provider: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if provider.is_empty() || !provider.chars().all(fits) || !provider.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(Failure::new(format!("\"{}\" cannot be the name of a provider.", inert(provider)))
            .detail("Letters, digits, \"-\", \"_\" and \".\", for example: openclaw models add ollama."));
    }
    Ok(())
}

fn unknown(provider: &str) -> Failure {
    Failure::new(format!("No provider \"{}\" is known, so its address is needed.", inert(provider)))
        .detail("Known: anthropic, openai, openrouter, google, xai, deepseek, mistral, groq, ollama, lmstudio, vllm,")
        .detail("llama-cpp and others (docs/models.md).")
        .remedy(
            "for any server that speaks the OpenAI API",
            format!("openclaw models add {provider} --base-url http://127.0.0.1:8000/v1"),
        )
}

fn key(context: &Context, args: &Add, provider: &str, known: Option<&ProviderInfo>) -> Result<Key, Failure> {
    if let Some(name) = &args.key_env {
        if context.env.get(name).is_none() {
            let mark = context.output.err.warn();
            output::note(format!("{mark} {} is not set here; the gateway has to have it.", inert(name)));
        }
        return Ok(Key::Env(name.clone()));
    }
    match args.key.as_deref() {
        Some("-") => return ask::secret_from_stdin("key").map(Key::Stored),
        Some(_) => {
            return Err(Failure::new("A key on the command line would be seen by others; nothing was changed.")
                .remedy("give it on stdin", format!("openclaw models add {provider} --key - < key.txt"))
                .remedy(
                    "or name the variable that holds it",
                    format!("openclaw models add {provider} --key-env NAME"),
                ));
        }
        None => {}
    }
    // A server of one's own needs none, unless it says so.
    let local = match &args.base_url {
        Some(url) => url.trim().starts_with("http://"),
        None => known.is_some_and(|known| known.local),
    };
    let has_one = known.is_some_and(|known| known.available.is_ok()) && args.base_url.is_none();
    if args.no_key || local || has_one {
        return Ok(Key::Kept);
    }
    if !args.json && ask::is_possible() {
        return ask::hidden(&format!("Key of {provider} (not shown): "), "key").map(Key::Stored);
    }
    Err(Failure::new(format!("{provider} needs a key."))
        .detail("Give it without showing it to others:")
        .remedy("on stdin", format!("openclaw models add {provider} --key - < key.txt"))
        .remedy("from the gateway's environment", format!("openclaw models add {provider} --key-env NAME")))
}

/// Chooses the model, tries it and writes everything at once.
fn settle(
    context: &Context,
    args: &Add,
    document: &Document,
    provider: &str,
    model: Option<String>,
    mut edits: Vec<Edit>,
) -> Outcome {
    let planned = plan(context, &edits, document)?;
    let (catalog, _) = Catalog::read(&planned, &context.env, &context.paths);
    let model = match model {
        Some(model) => model,
        None => pick(context, args, &catalog, provider)?,
    };
    let reference = named(&format!("{provider}/{model}"))?;
    let reference = ModelRef::parse(&reference).ok_or_else(|| Failure::new("That is no model."))?;
    let took = match args.no_verify {
        true => None,
        // Connections belong to the event loop that made them, so the trial has a catalogue of its own.
        false => try_it(context, args, &Catalog::read(&planned, &context.env, &context.paths).0, &reference)?,
    };
    // A server nobody knows lists its models in the config, as the reference wants it.
    let listed = planned.get("models.providers").and_then(|all| all.entry(provider)?.entry("models")?.as_array());
    let listed: Vec<Value> = listed.unwrap_or_default().iter().map(openclaw_config::Node::to_value).collect();
    let has = listed.iter().any(|entry| entry["id"] == model.as_str() || *entry == json!(model));
    if args.base_url.is_some() && !has {
        let models: Vec<Value> = listed.into_iter().chain([json!({"id": model, "name": model})]).collect();
        let path = ["models", "providers", provider, "models"].into_iter().map(str::to_owned).collect();
        edits.push(Edit::Set { path, value: json!(models), mode: SetMode::Replace });
    }
    let before = Choice::of(&document.written());
    let mut choice = before.clone();
    let chosen = args.default || before.primary.is_none();
    if chosen {
        choice.primary = Some(reference.to_string());
        edits.extend(choice_edits(&before, &choice)?);
    }
    let written = Editor::new(&context.paths, &context.env).apply(&edits, &Options::default());
    let written = written.map_err(|error| refused(context, &error))?;
    let taken = if written.noop { None } else { in_force(context, &reference) };
    if args.json {
        output::json(&json!({"ok": true, "noop": written.noop, "provider": provider, "model": reference.to_string(),
            "default": chosen || before.primary.as_deref() == Some(&reference.to_string()),
            "verifiedMs": took.map(|took| took.as_millis()), "configPath": context.paths.config_file}));
        return Ok(0);
    }
    let style = context.output.out;
    let command = |text: &str| style.paint(Tone::Command, text);
    let reference = inert(&reference.to_string()).into_owned();
    let tried = took.map(|took| format!(" It answered in {}.", output::time::span(took))).unwrap_or_default();
    output::line(format!("{} {} is set up.{tried}", style.ok(), inert(provider)));
    if chosen {
        output::line(format!("{} Agents use {reference} from the next message on.", style.ok()));
        match taken {
            Some(false) => output::line(format!(
                "{} The gateway has not taken it yet. Why: {}",
                style.warn(),
                command("openclaw logs")
            )),
            _ => output::line(format!("  Talk: {}", command("openclaw chat"))),
        }
    } else {
        let present = before.primary.unwrap_or_default();
        output::line(format!("  Agents still use {}.", inert(&present)));
        output::line(format!("  Use the new one: {}", command(&format!("openclaw models set {reference}"))));
    }
    if written.backup.is_some() {
        output::line(format!("  Undo: {}", command("openclaw config undo")));
    }
    Ok(0)
}

/// Whether the gateway of this machine, which reads the config a moment after it was written, has the model. `None` where none
/// runs.
fn in_force(context: &Context, model: &ModelRef) -> Option<bool> {
    let reach = super::reach(context, &TargetArgs::default()).ok().filter(Reach::is_local)?;
    let until = Instant::now() + TAKEN;
    let has = |answer: &Value| {
        let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
        models.iter().any(|entry| entry["provider"] == model.provider.as_str() && entry["id"] == model.model.as_str())
    };
    let asked = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let taken = loop {
            if has(&rpc.call("models.list", json!({"view": "all"})).await?) {
                break true;
            }
            if Instant::now() >= until {
                break false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        rpc.close().await;
        Ok(taken)
    });
    asked.ok()
}

/// The config as it would be.
fn plan(context: &Context, edits: &[Edit], document: &Document) -> Result<Document, Failure> {
    if edits.is_empty() {
        return Ok(document.clone());
    }
    let options = Options { dry_run: true, ..Options::default() };
    let planned = Editor::new(&context.paths, &context.env).apply(edits, &options);
    planned.map(|planned| planned.document).map_err(|error| refused(context, &error))
}

/// The client of a provider, or why there is none.
pub(super) fn client(
    catalog: &Catalog,
    reference: &ModelRef,
) -> Result<(std::sync::Arc<dyn Provider>, std::sync::Arc<openclaw_agent::provider::Model>), Failure> {
    let candidates = catalog.exactly(reference).map_err(|why| {
        let text = why.to_string();
        text.lines().fold(Failure::new(format!("{reference} cannot be used.")), |failure, line| {
            failure.detail(inert_line(line).into_owned())
        })
    })?;
    match candidates.into_iter().next() {
        Some(candidate) => Ok((candidate.provider, candidate.model)),
        None => Err(Failure::new(format!("{reference} cannot be used."))),
    }
}

fn pick(context: &Context, args: &Add, catalog: &Catalog, provider: &str) -> Result<String, Failure> {
    if let Some((_, usual)) = USUAL.iter().find(|(id, _)| *id == provider).filter(|_| args.base_url.is_none()) {
        return Ok((*usual).to_owned());
    }
    let any = ModelRef { provider: provider.to_owned(), model: "any".to_owned() };
    let (service, _) = client(catalog, &any)?;
    let listed = block_on(async {
        let _progress = context.output.progress(format!("Asking {provider} for its models …"));
        Ok(service.listing().await)
    })?;
    let listed = listed.map_err(|error| {
        explained(provider, &error)
            .remedy("say which model it is", format!("openclaw models add {provider}{} --model <id>", repeated(args)))
    })?;
    match listed.as_slice() {
        [] => {
            let failure = Failure::new(format!("{provider} has no models yet; nothing was changed."));
            Err(match provider {
                "ollama" => failure.remedy("get one", "ollama pull qwen3"),
                _ => failure,
            })
        }
        [only] => Ok(only.clone()),
        several if !args.json && ask::is_possible() && several.len() <= 40 => {
            output::note(format!("{provider} has:"));
            ask::choose("Which?", several)
        }
        several => {
            let failure = Failure::new(format!("{provider} has {} models; which?", several.len()));
            let failure =
                several.iter().take(SHOWN).fold(failure, |failure, id| failure.detail(format!("  {}", inert(id))));
            let more = several.len().saturating_sub(SHOWN);
            let failure = if more > 0 { failure.detail(format!("  … and {more} more")) } else { failure };
            let first = inert(&several[0]).into_owned();
            Err(failure
                .remedy("for example", format!("openclaw models add {provider}{} --model {first}", repeated(args))))
        }
    }
}

/// What has to be typed again with another option.
fn repeated(args: &Add) -> String {
    let option = |name: &str, value: &Option<String>| {
        value.as_deref().map(|value| format!(" --{name} {}", inert(value))).unwrap_or_default()
    };
    let flag = if args.no_key { " --no-key" } else { "" };
    format!(
        "{}{}{}{}{flag}",
        option("base-url", &args.base_url),
        option("api", &args.api),
        option("key", &args.key),
        option("key-env", &args.key_env)
    )
}

fn explained(provider: &str, error: &ProviderError) -> Failure {
    Failure::new(format!("{provider} did not answer; nothing was changed."))
        .detail(inert_line(&error.message).into_owned())
        .error_code("model-not-usable")
}

/// Has the model say a word. A limit that is reached shows that the key works.
fn try_it(context: &Context, args: &Add, catalog: &Catalog, reference: &ModelRef) -> Result<Option<Duration>, Failure> {
    let said = {
        let _progress = context.output.progress(format!("Trying {reference} …"));
        probe(catalog, reference)?
    };
    match said {
        Ok(took) => Ok(Some(took)),
        Err(error) if error.kind == ErrorKind::RateLimit => {
            output::note(format!("{} {}", context.output.err.warn(), inert_line(&error.message)));
            Ok(None)
        }
        Err(error) => {
            let model = &reference.model;
            let command =
                format!("openclaw models add {}{} --model {model} --no-verify", reference.provider, repeated(args));
            Err(explained(&reference.provider, &error)
                .remedy("to save it all the same", inert_line(&command).into_owned()))
        }
    }
}

/// How long the model took for one word.
pub(super) fn probe(catalog: &Catalog, reference: &ModelRef) -> Result<Result<Duration, ProviderError>, Failure> {
    let (service, model) = client(catalog, reference)?;
    let request = Request {
        model,
        system: "Answer with one word.".to_owned(),
        messages: std::sync::Arc::new(vec![Message::user("Say OK.")]),
        tools: std::sync::Arc::default(),
        thinking: Thinking::Off,
        max_tokens: Some(64),
    };
    block_on(async {
        let started = Instant::now();
        let mut stream = service.stream(request);
        let ended = tokio::time::timeout(PATIENCE, async {
            while let Some(delta) = stream.next().await {
                if let Delta::Stopped(_) = delta? {
                    break;
                }
            }
            Ok(started.elapsed())
        });
        Ok(ended.await.unwrap_or_else(|_| {
            let message = format!("It has not answered after {} s.", PATIENCE.as_secs());
            Err(ProviderError { kind: ErrorKind::Network, message, retry_after: None })
        }))
    })
}
