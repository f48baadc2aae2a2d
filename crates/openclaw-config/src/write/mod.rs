//! Changing `openclaw.json` so that it cannot break: the whole result is checked before anything is written, the file
//! is replaced in one step under a lock, and the last versions are kept.
//!
//! ```text
//! lock ─> read ─> edit (comments kept) ─> check the result ─┬─ wrong ─> openclaw.json.rejected.<n>, file untouched
//!                                                           └─ right ─> .bak ring ─> rename ─> .last-good
//! ```

mod guard;
mod input;
mod merge;
mod ring;
mod sync;

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

pub use guard::{Guarded, guarded_changes};
pub use input::{InputError, parse_patch, parse_set_value};
pub use merge::{Edit, EditError, SetMode};

use crate::{
    document::{self, Document, LoadError},
    env::{self, Env},
    files::{self, FileError, FileLock},
    path::ConfigPath,
    paths::{Paths, with_suffix},
    schema::{self, Issue, Reload},
};

/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// [`Document::hash`] of the config the edit was made from. A different one on disk is a conflict.
    pub base_hash: Option<String>,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// Refuse changes that weaken the gateway (security case P-55).
    pub refuse_guarded: bool,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: ConfigPath,
    pub reload: Reload,
}

/// What a write did, or would do.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Leaves that differ, in the order of the file.
    pub changes: Vec<Change>,
    /// The file's bytes are as they were.
    pub noop: bool,
    /// Changes that weaken the gateway; they are in `changes` too.
    pub guarded: Vec<Guarded>,
    /// Unknown keys and the like in the result.
    pub warnings: Vec<Issue>,
    /// The edit could not be made in place, so the file was written anew without its comments.
    pub comments_lost: bool,
    /// The result.
    pub document: Document,
    /// Where the text before it is kept now.
    pub backup: Option<PathBuf>,
}

impl Outcome {
    /// The strongest reload kind of all changes.
    pub fn reload(&self) -> Reload {
        self.changes.iter().map(|change| change.reload).max().unwrap_or(Reload::None)
    }
}

/// Why nothing was written. The config file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the config is read-only: OPENCLAW_CONFIG_READONLY is set")]
    ReadOnly,
    #[error("config changed since last load; re-run config.get and retry")]
    Conflict,
    /// The file on disk does not parse, so nothing can be merged into it, and it is not overwritten.
    #[error(
        "the config file cannot be edited, since it does not load; nothing was changed.\n{0}\nFix it, or go back to the last version: openclaw config undo"
    )]
    Unreadable(LoadError),
    #[error("the given text is no config: {0}")]
    BadText(LoadError),
    #[error("the result would not be valid; nothing was changed.\n{}", lines(issues))]
    Invalid { issues: Vec<Issue>, rejected: Option<PathBuf> },
    #[error("these changes weaken the gateway and need explicit confirmation; nothing was changed.\n{}", guarded_lines(.0))]
    Guarded(Vec<Guarded>),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("there is no earlier version to go back to: {} does not exist", backup.display())]
    NothingToUndo { backup: PathBuf },
    #[error("the earlier version does not load; nothing was changed.\n{0}")]
    BadBackup(LoadError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl WriteError {
    /// A word for the `kind` of `--json` errors: missing-path, schema, conflict or write.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Edit(EditError::NotFound { .. }) => "missing-path",
            Self::Invalid { .. } | Self::BadText(_) | Self::Edit(_) | Self::Input(_) => "schema",
            _ => "write",
        }
    }
}

/// Edits one config file.
pub struct Editor<'a> {
    paths: &'a Paths,
    env: &'a Env,
}

impl<'a> Editor<'a> {
    pub fn new(paths: &'a Paths, env: &'a Env) -> Self {
        Self { paths, env }
    }

    /// Makes the edits in order, as one write. Comments and layout stay.
    pub fn apply(&self, edits: &[Edit], options: &Options) -> Result<Outcome, WriteError> {
        self.change(options, |before| {
            let mut after = before.source_value().clone();
            for edit in edits {
                merge::apply(&mut after, edit, before)?;
            }
            if after == *before.source_value() {
                return Ok(Proposal { text: before.raw().to_owned(), comments_lost: false });
            }
            let (text, comments_lost) = sync::rewrite(before.raw(), &after);
            Ok(Proposal { text, comments_lost })
        })
    }

    /// Replaces the whole text. Keys written twice and reserved keys are refused.
    pub fn replace_all(&self, text: &str, options: &Options) -> Result<Outcome, WriteError> {
        input::check_text(text)?;
        self.change(options, |_| Ok(Proposal { text: text.to_owned(), comments_lost: false }))
    }

    /// Swaps the file with its newest backup; a second undo brings the newer version back. The backup must load and
    /// be valid, the current file need not.
    pub fn undo(&self, options: &Options) -> Result<Outcome, WriteError> {
        let _lock = self.lock(options)?;
        let file = &self.paths.config_file;
        let backup = ring::newest(file);
        let text = document::read_config(&backup)
            .map_err(WriteError::BadBackup)?
            .ok_or_else(|| WriteError::NothingToUndo { backup: backup.clone() })?;
        let after = Document::from_text(&text, self.paths, self.env).map_err(WriteError::BadBackup)?;
        let before = Document::load(self.paths, self.env).unwrap_or_else(|_| Document::empty(self.paths));
        let outcome = self.judge(&before, after, false, options)?;
        if !options.dry_run {
            ring::swap(file, text.as_bytes())?;
            files::write_private_atomic(&self.paths.last_known_good(), text.as_bytes())?;
        }
        Ok(Outcome { backup: Some(backup), ..outcome })
    }

    fn change(
        &self,
        options: &Options,
        propose: impl FnOnce(&Document) -> Result<Proposal, WriteError>,
    ) -> Result<Outcome, WriteError> {
        let _lock = self.lock(options)?;
        let before = Document::load(self.paths, self.env).map_err(WriteError::Unreadable)?;
        if options.base_hash.as_ref().is_some_and(|hash| *hash != before.hash()) {
            return Err(WriteError::Conflict);
        }
        let Proposal { text, comments_lost } = propose(&before)?;
        let after = match Document::from_text(&text, self.paths, self.env) {
            Ok(after) => after,
            Err(error) => {
                self.keep_rejected(&text, options)?;
                return Err(WriteError::BadText(error));
            }
        };
        let mut outcome = self.judge(&before, after, comments_lost, options)?;
        if options.dry_run || outcome.noop {
            return Ok(outcome);
        }
        let file = &self.paths.config_file;
        if before.exists() {
            outcome.backup = Some(ring::push(file, before.raw().as_bytes())?);
        }
        files::write_private_atomic(file, text.as_bytes())?;
        files::write_private_atomic(&self.paths.last_known_good(), text.as_bytes())?;
        Ok(outcome)
    }

    /// Checks a result against schema and guards.
    fn judge(
        &self,
        before: &Document,
        after: Document,
        comments_lost: bool,
        options: &Options,
    ) -> Result<Outcome, WriteError> {
        let noop = before.exists() && before.raw() == after.raw();
        let validation = schema::validate(&after);
        if !validation.is_valid() && !noop {
            let rejected = self.keep_rejected(after.raw(), options)?;
            return Err(WriteError::Invalid { issues: validation.errors, rejected });
        }
        let guarded = guarded_changes(&before.resolved(), &after.resolved());
        if options.refuse_guarded && !guarded.is_empty() {
            return Err(WriteError::Guarded(guarded));
        }
        let changes = merge::changed_paths(&before.written(), &after.written());
        let changes = changes.into_iter().map(|path| Change { reload: schema::reload_kind(&path), path }).collect();
        Ok(Outcome {
            changes,
            noop,
            guarded,
            warnings: validation.warnings,
            comments_lost,
            document: after,
            backup: None,
        })
    }

    /// Takes the writers' lock, unless nothing will be written.
    fn lock(&self, options: &Options) -> Result<Option<FileLock>, WriteError> {
        if options.dry_run {
            return Ok(None);
        }
        if self.env.flag(env::OPENCLAW_CONFIG_READONLY) {
            return Err(WriteError::ReadOnly);
        }
        let file = &self.paths.config_file;
        files::refuse_symlink(file)?;
        files::check_ownership(file)?;
        if let Some(dir) = file.parent() {
            // The state directory is ours to tighten; another directory is only made if it is missing.
            if dir == self.paths.state_dir || !dir.exists() {
                files::create_private_dir(dir)?;
            }
        }
        let lock = FileLock::acquire(&with_suffix(file, ".lock"), PATIENCE)?;
        files::remove_stale_temporaries(file);
        files::remove_stale_temporaries(&self.paths.last_known_good());
        ring::recover(file)?;
        Ok(Some(lock))
    }

    fn keep_rejected(&self, text: &str, options: &Options) -> Result<Option<PathBuf>, WriteError> {
        if options.dry_run {
            return Ok(None);
        }
        Ok(Some(ring::keep_rejected(&self.paths.config_file, text.as_bytes())?))
    }
}

struct Proposal {
    text: String,
    comments_lost: bool,
}

/// Keeps the text of a config that a gateway runs with. A failure is logged and nothing else: the config itself is fine.
pub fn remember_good(paths: &Paths, doc: &Document) {
    if !doc.exists() {
        return;
    }
    let file = paths.last_known_good();
    let same =
        files::read_private(&file, u64::MAX / 2).is_ok_and(|kept| kept.is_some_and(|k| k == doc.raw().as_bytes()));
    if !same && let Err(error) = files::write_private_atomic(&file, doc.raw().as_bytes()) {
        tracing::warn!("the last good config could not be kept: {error}");
    }
}

/// A value as `config get` prints it: texts and numbers bare, the rest as indented JSON.
pub fn display_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => format!("{value:#}"),
        other => other.to_string(),
    }
}

fn lines(issues: &[Issue]) -> String {
    issues.iter().map(|issue| format!("  × {}", issue.with_place())).collect::<Vec<_>>().join("\n")
}

fn guarded_lines(guarded: &[Guarded]) -> String {
    guarded.iter().map(|change| format!("  × {change}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
