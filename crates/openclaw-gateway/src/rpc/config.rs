//! Reading and changing `openclaw.json` over RPC. What goes out is masked; what comes in is checked whole, never weakens the
//! gateway without being named, and is in force when it is answered.

use std::sync::Arc;

use openclaw_config::{
    ConfigPath,
    document::{Document, LoadError},
    redact,
    schema::{self, Issue, Reload},
    write::{Edit, Editor, Options, Outcome, WriteError, parse_patch},
};
use openclaw_protocol::{
    ErrorShape, Scope,
    method::{
        Method,
        config::{
            ConfigApply, ConfigGet, ConfigIssue, ConfigPatch, ConfigSchema, ConfigSchemaLookup, ConfigSchemaResult,
            ConfigSet, ConfigSnapshot, ConfigWriteParams, ConfigWritten, SchemaLookupResult,
        },
    },
};
use serde_json::{Value, json};

use super::registry::{Call, Registry};
use crate::{gateway::Gateway, reload, run};

const REDACTED_PATH: &str = "[redacted]";

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<ConfigGet, _>(|call, _| async move {
            let admin = call.caller.scopes.grants(Scope::Admin);
            blocking(&call, move |gateway| Ok(snapshot(gateway, admin))).await
        })
        .on_async::<ConfigSet, _>(|call, params| async move { write::<ConfigSet>(call, params, Kind::Whole).await })
        .on_async::<ConfigApply, _>(|call, params| async move { write::<ConfigApply>(call, params, Kind::Whole).await })
        .on_async::<ConfigPatch, _>(|call, params| async move { write::<ConfigPatch>(call, params, Kind::Merge).await })
        .on::<ConfigSchema>(|call, _| {
            Ok(ConfigSchemaResult {
                schema: schema::json_schema(),
                ui_hints: json!({}),
                version: call.gateway.version.to_owned(),
                generated_at: format!("{:.3}", jiff::Timestamp::now()),
            })
        })
        .on::<ConfigSchemaLookup>(|_, params| lookup(&params.path));
}

/// Files are read and programs of secret references may run: never in a connection's own turn.
async fn blocking<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&Arc<Gateway>) -> Result<T, ErrorShape> + Send + 'static,
) -> Result<T, ErrorShape> {
    let gateway = Arc::clone(&call.gateway);
    let done = tokio::task::spawn_blocking(move || work(&gateway)).await;
    done.unwrap_or_else(|_| Err(ErrorShape::unavailable("internal error; see the gateway log")))
}

fn snapshot(gateway: &Gateway, admin: bool) -> ConfigSnapshot {
    let (paths, env) = (&gateway.paths, &gateway.env);
    let path = if admin { paths.config_file.display().to_string() } else { REDACTED_PATH.to_owned() };
    let (document, load_error) = match Document::load(paths, env) {
        Ok(document) => (document, None),
        Err(error) => (Document::empty(paths), Some(error)),
    };
    let validation = schema::validate(&document);
    let config = redact::document(&document);
    let source = redact::value(document.source_value());
    let mut issues: Vec<ConfigIssue> = validation.errors.iter().map(issue).collect();
    let exists = document.exists() || load_error.is_some();
    issues.extend(load_error.map(|error| ConfigIssue { path: String::new(), message: load_message(&error, admin) }));
    let included = document.includes().iter().map(|file| file.display().to_string());
    ConfigSnapshot {
        path,
        included_paths: if admin { included.collect() } else { Vec::new() },
        include_provenance: Vec::new(),
        exists,
        raw: if document.exists() { redact::raw(document.raw()) } else { None },
        parsed: source.clone(),
        source_config: source,
        resolved: config.clone(),
        runtime_config: config.clone(),
        config,
        valid: issues.is_empty(),
        hash: document.hash(),
        issues,
        warnings: validation.warnings.iter().map(issue).collect(),
        legacy_issues: Vec::new(),
    }
}

/// Load errors name files; who may not see paths gets the reason's last line only.
fn load_message(error: &LoadError, admin: bool) -> String {
    if admin { error.to_string() } else { "the config file does not load; an administrator sees why".to_owned() }
}

fn issue(issue: &Issue) -> ConfigIssue {
    ConfigIssue { path: issue.path.clone(), message: issue.message.clone() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The whole text.
    Whole,
    /// A merge patch.
    Merge,
}

async fn write<M: Method>(call: Call, params: ConfigWriteParams, kind: Kind) -> Result<ConfigWritten, ErrorShape> {
    call.gateway.write_limit.charge::<M>(&call)?;
    let note = params.note.clone();
    let outcome = blocking(&call, move |gateway| change(gateway, &params, kind)).await?;
    let noop = outcome.noop;
    if !noop {
        let changed: Vec<String> = outcome.changes.iter().map(|change| change.path.to_string()).collect();
        tracing::info!(by = %call.caller.address, method = M::NAME, note, "config changed: {}", changed.join(", "));
        reload::reload(&call.gateway).await.map_err(|reason| {
            ErrorShape::unavailable(format!("the config was saved but could not be put in force: {reason}"))
        })?;
    }
    Ok(written(&call.gateway, &outcome))
}

/// Makes the change with given options; a dry run first, then for good.
type Attempt<'a> = Box<dyn Fn(&Options) -> Result<Outcome, WriteError> + 'a>;

fn change(gateway: &Gateway, params: &ConfigWriteParams, kind: Kind) -> Result<Outcome, ErrorShape> {
    let (paths, env) = (&gateway.paths, &gateway.env);
    let editor = Editor::new(paths, env);
    // Masked values in the text stand for what is on disk now; the base hash makes sure that this is what was read.
    let before = Document::load(paths, env).map_err(|error| refused(&WriteError::Unreadable(error)))?;
    let attempt: Attempt<'_> = match kind {
        Kind::Whole => {
            let text = redact::restore_raw(&params.raw, before.raw()).map_err(invalid)?;
            Box::new(move |options| editor.replace_all(&text, options))
        }
        Kind::Merge => {
            let patch = parse_patch(&params.raw).map_err(invalid)?;
            let replace = params.replace_paths.iter().map(|path| path.parse::<ConfigPath>());
            let replace = replace.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
            // A replaced object loses what the patch leaves out, so its masked values have to be written back.
            let restore = if replace.is_empty() { redact::restore_patch } else { redact::restore };
            let value = restore(&patch, before.source_value()).map_err(invalid)?;
            let edits = [Edit::Patch { value, replace }];
            Box::new(move |options| editor.apply(&edits, options))
        }
    };
    let mut options = Options { base_hash: params.base_hash.clone(), dry_run: true, refuse_guarded: false };
    let planned = attempt(&options).map_err(|error| refused(&error))?;
    if planned.noop {
        return Ok(planned);
    }
    if params.base_hash.is_none() && before.exists() {
        return Err(ErrorShape::invalid("config base hash required; re-run config.get and retry"));
    }
    // Valid by the schema is not enough: with what it says, the gateway must still be able to start.
    run::check_settings(planned.document.clone(), paths, env, &gateway.flags).map_err(|error| {
        ErrorShape::invalid(format!("with this config the gateway would not start; nothing was changed. {error}"))
    })?;
    // The plan was made from the text with this hash; whoever writes in between makes the real write a conflict.
    options.base_hash = Some(before.hash());
    let unconfirmed: Vec<_> =
        planned.guarded.iter().filter(|guarded| !params.confirm.contains(&guarded.path)).cloned().collect();
    if !unconfirmed.is_empty() {
        let paths: Vec<&str> = unconfirmed.iter().map(|guarded| guarded.path.as_str()).collect();
        let details = json!({"code": "CONFIG_GUARDED", "paths": paths,
            "remediation": {"command": "openclaw config set <path> <value>", "runOn": "gateway-host"}});
        return Err(refused(&WriteError::Guarded(unconfirmed)).with_details(details));
    }
    options.dry_run = false;
    attempt(&options).map_err(|error| refused(&error))
}

fn written(gateway: &Gateway, outcome: &Outcome) -> ConfigWritten {
    let paths = |wanted: fn(Reload) -> bool| -> Vec<String> {
        let changes = outcome.changes.iter().filter(|change| wanted(change.reload));
        changes.map(|change| change.path.to_string()).collect()
    };
    ConfigWritten {
        ok: true,
        noop: outcome.noop,
        changed_paths: paths(|_| true),
        path: gateway.paths.config_file.display().to_string(),
        config: redact::document(&outcome.document),
        hash: Some(outcome.document.hash()),
        restart_required: paths(|reload| reload == Reload::Restart),
    }
}

fn invalid(error: impl std::fmt::Display) -> ErrorShape {
    ErrorShape::invalid(error.to_string())
}

fn refused(error: &WriteError) -> ErrorShape {
    let shape = match error {
        WriteError::File(_) => ErrorShape::unavailable(error.to_string()),
        _ => ErrorShape::invalid(error.to_string()),
    };
    match error {
        WriteError::Invalid { issues, .. } => {
            let issues: Vec<Value> = issues.iter().map(Issue::to_json).collect();
            shape.with_details(json!({"issues": issues}))
        }
        _ => shape,
    }
}

fn lookup(path: &str) -> Result<SchemaLookupResult, ErrorShape> {
    let parsed: ConfigPath = path.parse().map_err(invalid)?;
    let found = schema::lookup(&parsed).ok_or_else(|| ErrorShape::invalid(format!("Unknown config path: {path}")))?;
    Ok(SchemaLookupResult {
        path: found.path,
        schema: found.schema,
        reload_kind: found.reload.as_str().to_owned(),
        hint: (!found.help.is_empty()).then(|| json!({"help": found.help})),
        hint_path: None,
        children: found.children.into_iter().map(Value::String).collect(),
    })
}
