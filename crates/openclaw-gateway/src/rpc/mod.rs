//! RPC: the registry and one file per method family.

pub mod agents;
pub mod approvals;
pub mod channels;
pub mod chat;
pub mod chat_history;
pub mod config;
pub mod devices;
pub mod events;
pub mod invite;
pub mod logs;
mod qr_png;
pub mod registry;
pub mod send;
pub mod sessions;
pub mod system;
pub mod tools;
pub mod write_limit;

pub use registry::Registry;

/// Every method this gateway answers. `features.methods` is made from it.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    system::register(&mut registry);
    logs::register(&mut registry);
    config::register(&mut registry);
    devices::register(&mut registry);
    invite::register(&mut registry);
    events::register(&mut registry);
    crate::nodes::register(&mut registry);
    approvals::register(&mut registry);
    chat::register(&mut registry);
    agents::register(&mut registry);
    channels::register(&mut registry);
    send::register(&mut registry);
    sessions::register(&mut registry);
    chat_history::register(&mut registry);
    tools::register(&mut registry);
    registry
}
