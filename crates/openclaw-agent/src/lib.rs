//! One agent turn: a prompt, a model, tool calls, as a stream of events. Where history is kept, who asked and how the answer
//! travels is somebody else's business; this crate starts no gateway and stores nothing.

pub mod fetch;
pub mod mcp;
pub mod message;
pub mod policy;
pub mod prompt;
pub mod provider;
mod tls;
pub mod tool;
pub mod turn;
pub mod untrusted;
pub mod usage;
pub mod workspace;
