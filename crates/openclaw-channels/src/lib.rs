//! Chat channels: messages in, messages out. What becomes of a message, and where an answer comes from, is not known here;
//! the crate starts no gateway and stores nothing.

pub mod channel;
pub mod discord;
pub mod markdown;
pub mod message;
pub mod section;
pub mod styled;
pub mod telegram;
