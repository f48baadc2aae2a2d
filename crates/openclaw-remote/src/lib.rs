//! Reaching a gateway: where it is, how bytes get there, who it is, and the client connection.
//!
//! [`target`] decides the address and the credentials, [`dial`] opens the stream (TCP, TLS, the owner's unix socket),
//! [`client`] speaks over it, and [`connect`] puts the three together with the few retries that heal a stale device
//! token or an older protocol. Nothing here prints, and nothing here knows what a session is.

pub mod address;
pub mod client;
pub mod connect;
pub mod deadline;
pub mod dial;
pub mod discovery;
mod edge;
pub mod error;
pub mod handshake;
mod heard;
pub mod path;
pub mod proxy;
pub mod remedy;
pub mod route;
pub mod rules;
pub mod session;
pub mod ssh;
pub mod store;
pub mod target;
pub mod tls;
pub mod tunnel;
pub mod url;

pub use client::{Client, Events, Notice};
pub use deadline::Deadline;
pub use dial::Endpoint;
pub use error::{Error, Stage};
pub use path::{GatewayPath, Route};
pub use remedy::{Place, Remedy};
pub use route::Link;
pub use session::Session;
pub use target::{Target, TargetError};
pub use tls::Fingerprint;
pub use url::GatewayUrl;
