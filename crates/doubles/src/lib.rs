//! Stand-ins for the services a gateway talks to: a model, the Telegram Bot API, Discord. They speak the real formats on a
//! loopback port, record what they were asked, and can be told to misbehave. Tests and benchmarks only; they know none of
//! our crates, so that they cannot agree with us by construction.

pub mod bot_api;
pub mod discord;
pub mod model;
