//! What may run on this machine. Decided here, whatever the gateway says: its policy and this one both have to agree.
//!
//! [`document`] is the owner's file, `<STATE_DIR>/exec-approvals.json`; [`policy`] what follows from it and from the
//! config; [`analysis`] takes a command apart as far as that is certain, and [`allowlist`] compares the parts with the
//! owner's entries; [`plan`] remembers what was shown to a person, so that the decision holds for exactly that: words,
//! directory, environment and the content of scripts.

pub mod allowlist;
pub mod analysis;
pub mod document;
pub mod plan;
pub mod policy;
mod shell;
