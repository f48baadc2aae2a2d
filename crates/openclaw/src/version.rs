//! What `--version` prints.

/// Version of this program.
pub const SHORT: &str = env!("CARGO_PKG_VERSION");

/// `1.2.3 (abc1234)`.
pub const NUMBER_AND_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("OPENCLAW_COMMIT"), ")");

/// Product, version and short commit, in the wording of the release: `OpenClaw 1.2.3 (abc1234)`.
pub const LONG: &str = concat!("OpenClaw ", env!("CARGO_PKG_VERSION"), " (", env!("OPENCLAW_COMMIT"), ")");
