//! Being a node: this machine lends its abilities to a gateway.
//!
//! [`host`] keeps one connection in the node role, for ever, and turns each `node.invoke.request` into a call of one of
//! [`command`]. What the machine offers is [`surface`]; what an agent may run on it is decided by [`approvals`], on
//! this machine and whatever the gateway says; [`exec`] starts programs and sees to it that none outlives its request.
//! Nothing here knows sessions, agents or what a gateway stores.
//!
//! ```text
//! gateway ── node.invoke.request ──> host ──> command ──> approvals ──> exec ──> guard ──> the program
//!         <── result, progress ─────┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // A test may stop at the first surprise.

pub mod approvals;
pub mod command;
pub mod exec;
pub mod host;
pub mod settings;
pub mod surface;

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Lower-case hex of a SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    openclaw_protocol::secret::hex(&sha2::Sha256::digest(bytes))
}
