//! What a model is given: the system prompt, and as much of the conversation as fits.

mod fit;

pub use fit::{estimate, fit, room};
