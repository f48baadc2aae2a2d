//! Where a setting came from, for `status`, `doctor --why` and error texts.

use std::{fmt, path::PathBuf};

use crate::{document::Provenance, env::EnvSource};

/// The layer a setting was taken from, highest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A command line flag, with its dashes.
    Flag(&'static str),
    /// An environment variable, from the process or from `<STATE_DIR>/.env`.
    Env { name: &'static str, from: EnvSource },
    /// A key of the config.
    Config { path: String, at: Provenance },
    /// The token file the gateway wrote for itself.
    Generated(PathBuf),
    /// Built in.
    Default,
}

impl Source {
    /// What a person has to change: `--token`, `OPENCLAW_GATEWAY_TOKEN`, `gateway.auth.token`.
    pub fn key(&self) -> String {
        match self {
            Self::Flag(flag) => (*flag).to_owned(),
            Self::Env { name, .. } => (*name).to_owned(),
            Self::Config { path, .. } => path.clone(),
            Self::Generated(file) => file.display().to_string(),
            Self::Default => "default".to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env { name, from: EnvSource::Process } => write!(f, "env {name}"),
            Self::Env { name, from: EnvSource::StateDotEnv } => write!(f, "env {name} (state .env)"),
            Self::Config { path, at } => {
                let file = at.file.file_name().unwrap_or(at.file.as_os_str()).to_string_lossy();
                write!(f, "config {path} ({file}:{})", at.line)
            }
            Self::Generated(file) => write!(f, "generated ({})", file.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub source: Source,
}

impl<T> Sourced<T> {
    pub fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }
}
