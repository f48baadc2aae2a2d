//! The gateway daemon: admission, pairing, RPC, nodes, HTTP.
//!
//! Bytes come in through [`http`], become a WebSocket in [`connection`], and a caller in [`auth`]. Requests go through
//! [`rpc`]; events go out through [`hub`] and stay in [`history`] for a while. [`store`] is the only writer of state,
//! [`lock`] makes it the only one.

pub mod admission;
pub mod advertise;
pub mod approvals;
pub mod arrivals;
pub mod auth;
pub mod bind;
pub mod channels;
pub mod clock;
pub mod connection;
pub mod gateway;
pub mod health;
pub mod history;
pub mod host;
pub mod http;
pub mod hub;
pub mod lock;
pub mod log;
pub mod migrate;
pub mod nodes;
pub mod pairing;
pub mod ports;
pub mod presence;
pub mod reachable;
pub mod reload;
pub mod rpc;
pub mod run;
pub mod runs;
pub mod runtime;
pub mod sessions;
pub mod setup;
pub mod store;
pub mod tls;
pub mod tools;
