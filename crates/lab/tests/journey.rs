//! The journey this system exists for: a message arrives from Telegram, the agent answers with the help of a node, and the
//! reply goes back, once. With real processes for gateway, node and owner, and doubles that speak the formats of Telegram and
//! of a model.

#[path = "journey/far.rs"]
mod far;
#[path = "journey/kills.rs"]
mod kills;
#[path = "journey/near.rs"]
mod near;
#[path = "journey/scene.rs"]
mod scene;
#[path = "journey/stops.rs"]
mod stops;
