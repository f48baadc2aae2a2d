//! The gateway's side of chat channels: which run, who may write, what becomes of a message, how a reply gets out.
