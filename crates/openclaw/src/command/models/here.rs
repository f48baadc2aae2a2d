//! The choice of models in the config of this machine's gateway.

use openclaw_config::{
    ConfigPath, Document, Mode,
    credentials::On,
    write::{Edit, Editor, Options, Outcome as Written, SetMode, WriteError},
};
use serde_json::{Value, json};

use crate::{
    command::chat::wire::text,
    context::Context,
    failure::Failure,
    output::{self, inert},
};

/// Where the choice stands in the config (config notes, `agents.defaults`).
pub const MODEL: &str = "agents.defaults.model";

/// The choice as it stands in a config: the model, and what comes after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub primary: Option<String>,
    pub fallbacks: Vec<String>,
    /// Written as a bare string.
    pub bare: bool,
}

/// The model that was meant: `provider/model`, or a name of `agents.defaults.models`.
pub fn meant(config: &Value, typed: &str) -> String {
    let entries = config["agents"]["defaults"]["models"].as_object().into_iter().flatten();
    let mut named = entries.filter(|(_, entry)| {
        entry["alias"].as_str().is_some_and(|alias| alias.trim().eq_ignore_ascii_case(typed.trim()))
    });
    named.next().map_or_else(|| typed.to_owned(), |(model, _)| model.clone())
}

impl Choice {
    pub fn of(config: &Value) -> Self {
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
    pub fn to_model(&self) -> Value {
        let mut model = json!({});
        if let Some(primary) = &self.primary {
            model["primary"] = json!(primary);
        }
        model["fallbacks"] = json!(self.fallbacks);
        model
    }
}

fn path(text: &str) -> Result<ConfigPath, Failure> {
    text.parse().map_err(|error| Failure::new(format!("{text}: {error}.")))
}

/// The edits that make one choice of the other.
pub fn choice_edits(before: &Choice, after: &Choice) -> Result<Vec<Edit>, Failure> {
    let set = |at: &str, value: Value| Ok::<_, Failure>(Edit::Set { path: path(at)?, value, mode: SetMode::Set });
    if after.bare && after.fallbacks.is_empty() {
        return Ok(vec![set(MODEL, json!(after.primary))?]);
    }
    if after.bare {
        return Ok(vec![Edit::Set { path: path(MODEL)?, value: after.to_model(), mode: SetMode::Replace }]);
    }
    let mut edits = Vec::new();
    if after.primary != before.primary {
        edits.push(set(&format!("{MODEL}.primary"), json!(after.primary))?);
    }
    if after.fallbacks != before.fallbacks {
        let (path, value) = (path(&format!("{MODEL}.fallbacks"))?, json!(after.fallbacks));
        edits.push(Edit::Set { path, value, mode: SetMode::Replace });
    }
    Ok(edits)
}

/// The config of this machine, when a gateway of this machine reads it. `command` is what has to be typed elsewhere if not.
pub fn local_config(context: &Context, command: &str) -> Result<Document, Failure> {
    let elsewhere = |what: String| {
        Failure::new(what)
            .detail("Keys and addresses of models belong on the gateway's machine.")
            .there("run it", command)
    };
    if let Some(On::Connection(on)) = &context.on {
        return Err(elsewhere(format!(
            "\"{}\" is another machine, and its config is changed there.",
            inert(on.as_str())
        )));
    }
    let loaded = context.config_for_diagnosis()?;
    if let Some(problem) = &loaded.problem {
        return Err(context.invalid(problem));
    }
    if loaded.gateway.effective_mode() == Mode::Remote {
        return Err(elsewhere("The gateway is on another machine (gateway.mode is remote).".to_owned()));
    }
    Ok(loaded.document)
}

/// Why a write was refused.
pub fn refused(context: &Context, error: &WriteError) -> Failure {
    let text = error.to_string();
    let mut lines = text.lines().map(|line| inert(line).into_owned());
    let failure = Failure::new(lines.next().unwrap_or_default()).error_code(error.kind());
    lines.fold(failure, Failure::detail).fact("Config", context.config_path())
}

/// Makes the edits as one checked write.
pub fn write(context: &Context, edits: &[Edit]) -> Result<Written, Failure> {
    let written = Editor::new(&context.paths, &context.env).apply(edits, &Options::default());
    let written = written.map_err(|error| refused(context, &error))?;
    if written.comments_lost {
        let mark = context.output.err.warn();
        output::note(format!(
            "{mark} The change could not be made in place; comments in {} are lost.",
            context.config_path()
        ));
    }
    Ok(written)
}
