//! The test lab: gateways started as real processes, and clients that do what no real client would. Only tests use it.

pub mod client;
pub mod delay;
pub mod dice;
pub mod fuzz;
pub mod netlab;
pub mod node_bench;
pub mod peers;
pub mod process;
pub mod require;
pub mod sandbox;
pub mod sshd;
pub mod tls;
pub mod tmux;
pub mod wire;
