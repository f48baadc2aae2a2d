//! Bringing over an existing OpenClaw state directory: config, `.env`, what may run on the host, this machine's identity and
//! client tokens, and the devices that were paired.
//!
//! Both generations are read: the JSON files of 2026.2 (`identity/`, `devices/`) and `state/openclaw.sqlite` of 2026.9.
//! The source is only read: no byte, mode or modification time of it changes. A live database is copied aside with its
//! log and the copy is opened, since even reading SQLite in WAL mode writes beside the file.
//!
//! Nothing that is here already is replaced unless the caller says so, and then the old file is kept beside the new one.
//! Roles and scopes never come out wider than they were approved.

mod apply;
mod json;
mod records;
mod source;
mod sqlite;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use openclaw_config::{Paths, files::FileError, identity::IdentityError};
use serde::Serialize;
use thiserror::Error;

use crate::{lock::LockError, store::StoreError};
pub use apply::apply;
use source::SourceState;

/// What an import would do. Read it to the owner, then give it to [`apply`].
#[derive(Debug)]
pub struct MigrationPlan {
    /// The directory it was read from.
    pub source: PathBuf,
    /// What was found there, for people: `2026.2 files`, `2026.9 database (schema 18, 2026.9.6)`.
    pub found: Vec<String>,
    pub items: Vec<Item>,
    /// Things the owner should know: what was left out and why.
    pub warnings: Vec<String>,
    /// Entries of the source directory that are not imported; they stay where they are.
    pub left_alone: Vec<String>,
    state: SourceState,
}

/// One thing that can be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub kind: ItemKind,
    /// File name, device name and id, or the gateway a token is for. Never a secret.
    pub name: String,
    pub state: ItemState,
    /// For devices: role and scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    Config,
    /// A file the config includes.
    Include,
    DotEnv,
    /// What may run on this host: `exec-approvals.json`.
    ExecApprovals,
    /// This machine's device key.
    Identity,
    /// A device token this machine holds as a client.
    ClientToken,
    /// A paired device.
    Device,
}

/// How an item of the source relates to what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemState {
    /// Not here yet.
    New,
    /// Here already, and the same.
    Same,
    /// Here already, and different: kept unless overwriting was asked for.
    Conflict,
    /// Source and target are the same directory, and this file is used as it is.
    InPlace,
}

/// What became of the items.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    pub done: Vec<Done>,
    /// Copies of replaced files.
    pub backups: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    pub kind: ItemKind,
    pub name: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Imported,
    Replaced,
    /// What was here differs and was kept.
    Kept,
    /// Nothing to do.
    Unchanged,
}

/// Why an import is not possible. The target is unchanged unless the text says otherwise.
#[derive(Debug, Error)]
pub enum MigrateError {
    #[error("{} is not a directory; give the state directory of an existing OpenClaw, for example ~/.openclaw", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "{} holds no OpenClaw state: there is no openclaw.json, identity/device.json, devices/paired.json or \
         state/openclaw.sqlite in it",
        .0.display()
    )]
    NothingFound(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not what OpenClaw writes: {reason}; nothing was imported", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} keeps changing while it is read; stop the OpenClaw gateway that uses it and try again", .0.display())]
    InUse(PathBuf),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Reads the state directory `source` and compares it with what `target` holds. Writes nothing anywhere, but a private
/// copy of the source's database in the temporary directory, which is gone when this returns.
///
/// # Errors
/// When there is nothing to import, or something cannot be read or understood.
pub fn plan(source: &Path, target: &Paths) -> Result<MigrationPlan, MigrateError> {
    let state = source::read(source, target)?;
    let items = apply::compare(&state, target)?;
    Ok(MigrationPlan {
        source: source.to_owned(),
        found: state.found.clone(),
        items,
        warnings: state.warnings.clone(),
        left_alone: state.left_alone.clone(),
        state,
    })
}
