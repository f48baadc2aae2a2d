//! This profile on this machine: `openclaw.json`, environment, paths, SecretRefs, device identity, and which
//! credentials to use.
//!
//! The crate knows nothing of channels, providers or methods; it starts no runtime and reads only the files it is
//! asked for, since every CLI command begins here.

#![cfg_attr(test, allow(clippy::unwrap_used))] // A test may stop at the first surprise.

pub mod connections;
pub mod credentials;
pub mod device_tokens;
pub mod document;
pub mod env;
pub mod exec_approvals;
pub mod files;
pub mod gateway;
pub mod identity;
pub mod path;
pub mod paths;
pub mod redact;
pub mod schema;
pub mod secret_ref;
pub mod settings;
pub mod source;
pub mod tls;
pub mod write;

pub use connections::{Connection, ConnectionName, Connections};
pub use document::{Document, LoadError, Node, Provenance};
pub use env::{Env, EnvSource};
pub use gateway::{AuthMode, BindMode, GatewayConfig, Mode};
pub use path::ConfigPath;
pub use paths::{Paths, PathsError, Profile, ProfileName};
pub use schema::{Issue, Reload, Validation};
pub use secret_ref::{SecretContext, SecretError, SecretInput, SecretRef};
pub use settings::{ServerSettings, SettingsError, effective_server, generated_token};
pub use source::{Source, Sourced};
pub use tls::{Certificate, TlsFiles};
