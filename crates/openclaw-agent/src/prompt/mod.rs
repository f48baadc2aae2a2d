//! What a model is given: the system prompt, and as much of the conversation as fits.

mod compact;
mod compose;
mod files;
mod fit;

pub use compact::{Compacted, Compaction, compact, cut_point, wants_compaction};
pub use compose::{Chat, Facts, compose, now_in};
pub use files::{FileLimits, WorkspaceFile, workspace_files};
pub use fit::{estimate, fit, room};
