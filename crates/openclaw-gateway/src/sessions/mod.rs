//! Conversations: what is known of each, and what was said.

pub mod key;

pub use key::SessionKey;
