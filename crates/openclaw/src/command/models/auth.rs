//! `openclaw models auth …` and `models aliases …`: keys of providers, and short names of models.

use clap::{Args, Subcommand};
use openclaw_agent::provider::catalog::Catalog;
use openclaw_config::{
    ConfigPath,
    secret_ref::store::SecretStore,
    write::{Edit, SetMode},
};
use serde_json::{Value, json};

use super::{
    here::{local_config, write},
    named,
};
use crate::{
    command::ask,
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Tone,
        escape::inert_line,
        inert,
        table::{self, Cell},
    },
};

#[derive(Args, Debug)]
pub struct Auth {
    #[command(subcommand)]
    pub command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Where the key of each provider comes from
    List(Keys),
    /// Keep a key, from stdin or typed without being shown
    #[command(visible_alias = "paste-token", alias = "add")]
    PasteApiKey(OneProvider),
    /// Forget the key that was kept for a provider
    Logout(Logout),
    /// Not spoken here: accounts (OAuth) need the provider's own program
    #[command(hide = true, alias = "setup-token", alias = "login-github-copilot", alias = "activate", alias = "order")]
    Login(Anything),
}

#[derive(Args, Debug)]
pub struct Keys {
    /// Only of this provider
    #[arg(long, value_name = "ID")]
    pub provider: Option<String>,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct OneProvider {
    /// The provider
    #[arg(long, value_name = "ID")]
    pub provider: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Logout {
    /// The provider
    #[arg(value_name = "PROVIDER")]
    pub provider: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Whatever was typed behind a word that is not spoken here.
#[derive(Args, Debug)]
pub struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

impl Auth {
    pub fn wants_json(&self) -> bool {
        match &self.command {
            AuthCommand::List(args) => args.json,
            AuthCommand::PasteApiKey(args) => args.json,
            AuthCommand::Logout(args) => args.json,
            AuthCommand::Login(_) => false,
        }
    }
}

pub fn run(context: &Context, args: &Auth) -> Outcome {
    match &args.command {
        AuthCommand::List(args) => list(context, args),
        AuthCommand::PasteApiKey(args) => paste(context, args),
        AuthCommand::Logout(args) => logout(context, args),
        AuthCommand::Login(_) => Err(Failure::new("Logging in with an account (OAuth) is not spoken here.")
            .detail("Providers are asked with an API key.")
            .remedy("keep one", "openclaw models auth paste-api-key --provider <id>")),
    }
}

fn list(context: &Context, args: &Keys) -> Outcome {
    let document = local_config(context, "openclaw models auth list")?;
    let (catalog, _) = Catalog::read(&document, &context.env, &context.paths);
    let mut providers = catalog.providers();
    providers.retain(|provider| args.provider.as_ref().is_none_or(|wanted| *wanted == provider.id));
    if args.json {
        let row = |provider: &openclaw_agent::provider::catalog::ProviderInfo| {
            json!({"provider": provider.id, "baseUrl": provider.base_url, "source": provider.key_source.to_string(),
                "usable": provider.available.is_ok(), "reason": provider.available.as_ref().err()})
        };
        output::json(&json!({"providers": providers.iter().map(row).collect::<Vec<_>>()}));
        return Ok(0);
    }
    let style = context.output.out;
    if providers.is_empty() {
        output::line("No provider has a key.");
        output::line(format!("Add one: {}", style.paint(Tone::Command, "openclaw models add anthropic")));
        return Ok(0);
    }
    let rows: Vec<Vec<Cell>> = providers
        .iter()
        .map(|provider| {
            vec![
                Cell::from(inert(&provider.id).into_owned()),
                match &provider.available {
                    Ok(()) => Cell::toned(Tone::Good, "usable"),
                    Err(_) => Cell::toned(Tone::Bad, "not usable"),
                },
                Cell::from(inert(&provider.key_source.to_string()).into_owned()),
                Cell::toned(Tone::Dim, inert(&provider.base_url).into_owned()),
            ]
        })
        .collect();
    output::print(&table::columns(style, &["provider", "state", "key from", "address"], &rows));
    for provider in &providers {
        if let Err(why) = &provider.available {
            output::line(format!("{} {}: {}", style.warn(), inert(&provider.id), inert_line(why)));
        }
    }
    Ok(0)
}

fn base(provider: &str) -> ConfigPath {
    ["models", "providers", provider].into_iter().map(str::to_owned).collect()
}

fn paste(context: &Context, args: &OneProvider) -> Outcome {
    let provider = args.provider.trim().to_lowercase();
    let document = local_config(context, "openclaw models auth paste-api-key --provider <id>")?;
    let (catalog, _) = Catalog::read(&document, &context.env, &context.paths);
    if catalog.provider(&provider).is_none() {
        return Err(Failure::new(format!("No provider \"{}\" is known or configured.", inert(&provider)))
            .remedy("add it", format!("openclaw models add {} --base-url <URL>", inert(&provider))));
    }
    let key = match ask::is_possible() {
        true => ask::hidden(&format!("Key of {provider} (not shown): "), "key")?,
        false => ask::secret_from_stdin("key")?,
    };
    let id = format!("{provider}-key");
    SecretStore::new(&context.paths)
        .set(&id, &key)
        .map_err(|error| Failure::new(inert(&error.to_string()).into_owned()))?;
    let value = json!({"source": "store", "id": id});
    let written =
        write(context, &[Edit::Set { path: base(&provider).child("apiKey"), value, mode: SetMode::Replace }])?;
    if args.json {
        output::json(&json!({"ok": true, "provider": provider, "secret": id, "noop": written.noop}));
        return Ok(0);
    }
    let style = context.output.out;
    output::line(format!("{} The key of {} is kept in the secret store.", style.ok(), inert(&provider)));
    let command = format!("openclaw models status --probe-provider {}", inert(&provider));
    output::line(format!("  Try it: {}", style.paint(Tone::Command, &command)));
    Ok(0)
}

fn logout(context: &Context, args: &Logout) -> Outcome {
    // The reference names profiles: `openai:manual`.
    let provider = args.provider.split(':').next().unwrap_or_default().trim().to_lowercase();
    let document = local_config(context, "openclaw models auth logout <provider>")?;
    let path = base(&provider).child("apiKey");
    let stored = SecretStore::new(&context.paths)
        .delete(&format!("{provider}-key"))
        .map_err(|error| Failure::new(inert(&error.to_string()).into_owned()))?;
    let configured = document.at(&path).is_some();
    if configured {
        write(context, &[Edit::Unset { path }])?;
    }
    if !stored && !configured {
        return Err(Failure::new(format!("No key is kept for \"{}\"; nothing was changed.", inert(&provider)))
            .remedy("see which there are", "openclaw models auth list"));
    }
    if args.json {
        output::json(&json!({"ok": true, "provider": provider, "secretDeleted": stored, "configChanged": configured}));
        return Ok(0);
    }
    let ok = context.output.out.ok();
    output::line(format!("{ok} The key of {} is forgotten here. Revoke it at the provider, too.", inert(&provider)));
    Ok(0)
}

#[derive(Args, Debug)]
pub struct Aliases {
    #[command(subcommand)]
    pub command: AliasesCommand,
}

#[derive(Debug, Subcommand)]
pub enum AliasesCommand {
    /// Which there are
    List(JsonOnly),
    /// Call a model by a short name
    Add(AliasAdd),
    /// Take a name away
    Remove(AliasRemove),
}

#[derive(Args, Debug)]
pub struct JsonOnly {
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct AliasAdd {
    /// The short name
    #[arg(value_name = "NAME")]
    pub alias: String,
    /// provider/model
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct AliasRemove {
    /// The short name
    #[arg(value_name = "NAME")]
    pub alias: String,
    /// JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl Aliases {
    pub fn wants_json(&self) -> bool {
        match &self.command {
            AliasesCommand::List(args) => args.json,
            AliasesCommand::Add(args) => args.json,
            AliasesCommand::Remove(args) => args.json,
        }
    }
}

pub fn aliases(context: &Context, args: &Aliases) -> Outcome {
    let document = local_config(context, "openclaw models aliases list")?;
    // As written: a name may stand below a variable.
    let written = document.written();
    let models = written["agents"]["defaults"]["models"].as_object().cloned().unwrap_or_default();
    let mut known: Vec<(String, String)> =
        models.iter().filter_map(|(model, entry)| Some((entry["alias"].as_str()?.to_owned(), model.clone()))).collect();
    known.sort();
    let path = |model: &str, key: &str| -> ConfigPath {
        ["agents", "defaults", "models", model, key].into_iter().map(str::to_owned).collect()
    };
    let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    let (edits, answer, done) = match &args.command {
        AliasesCommand::List(args) => {
            if args.json {
                let map: serde_json::Map<String, Value> =
                    known.into_iter().map(|(alias, model)| (alias, json!(model))).collect();
                output::json(&json!({ "aliases": map }));
            } else if known.is_empty() {
                output::line("There are none. Name a model: openclaw models aliases add fast openai/gpt-5.4-mini");
            } else {
                let rows: Vec<Vec<Cell>> = known
                    .iter()
                    .map(|(alias, model)| {
                        vec![Cell::toned(Tone::Command, inert(alias)), Cell::from(inert(model).into_owned())]
                    })
                    .collect();
                output::print(&table::columns(context.output.out, &["name", "model"], &rows));
            }
            return Ok(0);
        }
        AliasesCommand::Add(args) => {
            let alias = args.alias.trim();
            if alias.is_empty() || alias.contains('/') || alias.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(Failure::new(format!("\"{}\" cannot be a name: no spaces, no slash.", inert(alias))));
            }
            // A name of a name means the model itself.
            let model = match known.iter().find(|(have, _)| same(have, args.model.trim())) {
                Some((_, model)) => model.clone(),
                None => named(&args.model)?,
            };
            let mut edits: Vec<Edit> = known
                .iter()
                .filter(|(have, of)| same(have, alias) && *of != model)
                .map(|(_, of)| Edit::Unset { path: path(of, "alias") })
                .collect();
            edits.push(Edit::Set { path: path(&model, "alias"), value: json!(alias), mode: SetMode::Set });
            let done = format!("{} is {} from now on.", inert(alias), inert(&model));
            (edits, json!({"ok": true, "alias": alias, "model": model}), done)
        }
        AliasesCommand::Remove(args) => {
            let alias = args.alias.trim();
            let Some((alias, model)) = known.iter().find(|(have, _)| same(have, alias)) else {
                return Err(Failure::new(format!("No model is called \"{}\"; nothing was changed.", inert(alias)))
                    .remedy("see which names there are", "openclaw models aliases list"));
            };
            let edits = vec![Edit::Unset { path: path(model, "alias") }];
            let done = format!("{} is no name any more.", inert(alias));
            (edits, json!({"ok": true, "alias": alias, "model": model}), done)
        }
    };
    write(context, &edits)?;
    if args.wants_json() {
        output::json(&answer);
    } else {
        output::line(format!("{} {done}", context.output.out.ok()));
    }
    Ok(0)
}
