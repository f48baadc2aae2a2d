//! Runs: one answer of the agent to one message, from the moment the message is kept to the delivery of the reply.
//!
//! ```text
//! submitted ──► queued ──► running ──► replied ──► delivering ──► done
//!                  │          │                        │
//!                  │          └─► failed, aborted      └─► unknown (told, never repeated)
//!                  └─► cancelled
//! ```

pub mod request;

pub use request::{Authority, Input, Origin, RunId, RunRequest};
