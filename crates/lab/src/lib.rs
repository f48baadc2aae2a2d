//! The test lab: gateways started as real processes, and clients that do what no real client would. Only tests use it.

pub mod client;
pub mod fuzz;
pub mod peers;
pub mod process;
pub mod require;
pub mod sandbox;
pub mod wire;
