//! Numbers of the wire, each with where it comes from (protocol notes, handshake section 1, release 2026.9.6).

use std::time::Duration;

/// Largest frame before `hello-ok`: 64 KiB. A larger one is closed with 1009.
pub const PREAUTH_FRAME_BYTES: usize = 65_536;
/// Largest frame after `hello-ok`: 25 MiB, advertised as `policy.maxPayload`.
pub const MAX_PAYLOAD_BYTES: usize = 26_214_400;
/// Unsent bytes a connection may owe before it is a slow consumer, advertised as `policy.maxBufferedBytes`.
/// The release allows 50 MiB; we allow 16 MiB so that a few stalled readers fit a small machine.
pub const MAX_BUFFERED_BYTES: usize = 16_777_216;
/// Unsent bytes above which events marked drop-if-slow are skipped: 1 MiB.
pub const DROP_IF_SLOW_BYTES: usize = 1_048_576;
/// From TCP accept to an authenticated connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of the `tick` event, advertised as `policy.tickIntervalMs`.
pub const TICK_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of WebSocket pings after authentication, and how long the pong may take.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// How long to wait for the peer's close frame after ours.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Close reasons are cut to this many UTF-8 bytes (RFC 6455 allows 123).
pub const CLOSE_REASON_BYTES: usize = 120;
/// Pre-authentication sockets per client address.
pub const PREAUTH_SOCKETS_PER_CLIENT: usize = 32;
/// Frames that may wait while `connect` is being evaluated.
pub const PREAUTH_QUEUED_FRAMES: usize = 15;
/// Accepted distance between a device signature's `signedAt` and the server clock.
pub const SIGNATURE_SKEW_MS: i64 = 120_000;
/// A pending device request lives this long.
pub const PAIRING_TTL: Duration = Duration::from_secs(5 * 60);
