//! The handshake as the real gateways do it: every captured variant, replayed against ours, and every difference named.
//! Then what follows it: hello shapes, sequence numbers, events, scopes, error shapes.

mod conversation;
mod differences;
mod pairing;
mod replay;
mod scopes;
