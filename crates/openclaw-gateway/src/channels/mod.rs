//! The gateway's side of chat channels: which run, who may write, what becomes of a message, how a reply gets out.
//!
//! ```text
//! message ──► dealt with before? ──yes──► confirmed
//!                 │ no
//!                 ▼
//!    policy ─► stranger ──► pairing code (arrival + request: one commit)
//!      │    ─► not for us ─► remembered as context (arrival: one commit)
//!      │    ─► refused ────► (arrival: one commit)
//!      ▼ let in
//!    route ──► run (arrival + run: one commit) ──► confirmed
//! ```
//!
//! An account that is broken degrades itself: its status says why, the others and the gateway go on.

pub mod access;
pub mod ack;
pub mod context;
pub mod exec_approvals;
pub mod inbox;
pub mod kinds;
pub mod mention;
pub mod moved;
pub mod outlet;
pub mod pairing;
pub mod policy;
pub mod registry;
pub mod route;

pub use registry::Channels;

use std::sync::Arc;

use crate::gateway::Gateway;

/// Sets up the way out for replies; before anything runs.
pub fn attach(gateway: &Arc<Gateway>) {
    gateway.runs.set_deliver(Arc::new(outlet::Outlet::new(gateway)));
}
