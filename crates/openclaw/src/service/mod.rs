//! Files that make the system keep something running: systemd user units and launchd agents.
//!
//! What goes into a file is text made by pure functions ([`tunnel`]); where it goes and who is told is [`manager`].

pub mod manager;
pub mod ssh_config;
pub mod text;
pub mod tunnel;
