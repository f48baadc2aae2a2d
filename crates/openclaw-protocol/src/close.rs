//! Close codes and reasons of the Gateway protocol.

use std::borrow::Cow;

use crate::limits::CLOSE_REASON_BYTES;

/// Why a WebSocket is closed: the RFC 6455 code and a reason cut to 120 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

impl CloseReason {
    /// 1000 with an empty reason: what the reference sends when the handshake deadline passes or an
    /// unauthenticated peer sends something that is not JSON.
    pub const NORMAL: Self = Self::fixed(1000, "");
    pub const GOING_AWAY: Self = Self::fixed(1001, "");
    pub const PROTOCOL_ERROR: Self = Self::fixed(1002, "protocol error");
    pub const PROTOCOL_MISMATCH: Self = Self::fixed(1002, "protocol mismatch");
    pub const UNSUPPORTED_DATA: Self = Self::fixed(1003, "text frames only");
    pub const INVALID_UTF8: Self = Self::fixed(1007, "invalid UTF-8");
    pub const INVALID_FRAME: Self = Self::fixed(1008, "invalid request frame");
    pub const INVALID_HANDSHAKE: Self = Self::fixed(1008, "invalid-handshake");
    pub const SLOW_CONSUMER: Self = Self::fixed(1008, "slow consumer");
    pub const TOO_MANY_PENDING: Self = Self::fixed(1008, "too many pending handshake frames");
    pub const REPEATED_UNAUTHORIZED: Self = Self::fixed(1008, "repeated unauthorized calls");
    pub const FLOOD: Self = Self::fixed(1008, "control frame flood");
    pub const DEVICE_REMOVED: Self = Self::fixed(1008, "device removed");
    pub const DEVICE_TOKEN_REVOKED: Self = Self::fixed(1008, "device token revoked");
    pub const REPLACED: Self = Self::fixed(1008, "replaced by a newer connection");
    pub const TOO_BIG: Self = Self::fixed(1009, "");
    pub const PREAUTH_TOO_BIG: Self = Self::fixed(1009, "preauth payload too large");
    pub const SERVICE_RESTART: Self = Self::fixed(1012, "service restart");
    pub const GATEWAY_STARTING: Self = Self::fixed(1013, "gateway starting");
    pub const AUTH_CHANGED: Self = Self::fixed(4001, "gateway auth changed");

    const fn fixed(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// Policy violation (1008) with a reason cut to 120 bytes at a character boundary.
    pub fn policy(reason: impl Into<String>) -> Self {
        Self { code: 1008, reason: Cow::Owned(truncated(reason.into())) }
    }
}

fn truncated(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(CLOSE_REASON_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_cut_at_a_character_boundary() {
        let close = CloseReason::policy("é".repeat(100));
        assert_eq!(close.reason.len(), 120);
        let close = CloseReason::policy(format!("x{}", "é".repeat(100)));
        assert_eq!(close.reason.len(), 119);
    }
}
