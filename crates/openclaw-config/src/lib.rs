//! This profile on this machine: `openclaw.json`, environment, paths, SecretRefs, device identity, and which
//! credentials to use.
//!
//! The crate knows nothing of channels, providers or methods; it starts no runtime and reads only the files it is
//! asked for, since every CLI command begins here.

pub mod env;
pub mod files;
pub mod paths;

pub use env::{Env, EnvSource};
pub use paths::{Paths, PathsError, Profile, ProfileName};
