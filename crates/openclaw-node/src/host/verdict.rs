//! What a failed attempt means for a node that wants to stay.

use std::time::Duration;

use openclaw_remote::{Error, tls::TlsFailure};

/// How often a node that waits for the owner asks again. A request lives five minutes at the gateway; asking keeps it.
pub const PAIRING_POLL: Duration = Duration::from_secs(5);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It may pass by itself.
    Retry,
    /// The gateway said when.
    RetryAfter(Duration),
    /// The owner has to approve this device.
    AwaitApproval,
    /// Trying again changes nothing, or does harm.
    Stop,
}

/// Judges an error.
pub fn of(error: &Error) -> Next {
    match error {
        Error::Pairing(_) => Next::AwaitApproval,
        Error::Auth(shape) if shape.detail_code() == Some("AUTH_RATE_LIMITED") => {
            Next::RetryAfter(Duration::from_millis(shape.retry_after_ms.unwrap_or(60_000)))
        }
        Error::Unavailable(shape) => match shape.retry_after_ms {
            Some(ms) => Next::RetryAfter(Duration::from_millis(ms.clamp(250, 60_000))),
            None => Next::Retry,
        },
        // A wrong secret, sent again and again, only locks the door for others behind the same address.
        Error::Auth(_) | Error::Scope { .. } | Error::Protocol { .. } => Next::Stop,
        Error::WrongGateway { .. } | Error::Tls { source: TlsFailure::Pin(_), .. } => Next::Stop,
        Error::Url(_)
        | Error::Insecure(_)
        | Error::PinWithoutTls { .. }
        | Error::Credentials(_)
        | Error::Identity(_) => Next::Stop,
        _ => Next::Retry,
    }
}

/// One line for the person at the node, when it stops: what to do.
pub fn advice(error: &Error) -> Option<&'static str> {
    match (error, error.detail_code()) {
        (_, Some("AUTH_DEVICE_TOKEN_MISMATCH")) => Some(
            "This node was removed or its token revoked at the gateway. Pair it again: openclaw node run --pair <code>",
        ),
        (_, Some("AUTH_BOOTSTRAP_TOKEN_INVALID")) => {
            Some("The setup code is used up or expired. Ask for a new one at the gateway.")
        }
        (_, Some("AUTH_TOKEN_MISSING" | "AUTH_PASSWORD_MISSING" | "DEVICE_IDENTITY_REQUIRED")) => Some(
            "The gateway wants its token once: set OPENCLAW_GATEWAY_TOKEN, or pair with openclaw node run --pair <code>",
        ),
        (_, Some("AUTH_TOKEN_MISMATCH" | "AUTH_PASSWORD_MISMATCH")) => {
            Some("The gateway has another token or password than this node was given.")
        }
        (_, Some("CLIENT_VERSION_MISMATCH")) => {
            Some("This node is older than the gateway it shares its identity with; update it.")
        }
        (Error::Protocol { .. }, _) => Some("Gateway and node share no protocol version; update the older of the two."),
        (Error::WrongGateway { .. }, _) => {
            Some("If the gateway was set up anew on purpose, pair this node again: openclaw node run --pair <code>")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_protocol::ErrorShape;
    use serde_json::json;

    fn refused(code: &str, message: &str, details: serde_json::Value) -> ErrorShape {
        serde_json::from_value(json!({"code": code, "message": message, "details": details})).unwrap()
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let auth =
            |code: &str| Error::Auth(Box::new(refused("INVALID_REQUEST", "unauthorized", json!({"code": code}))));
        let closed = Error::Closed { stage: openclaw_remote::Stage::Auth, code: Some(1012), reason: String::new() };
        let busy = ErrorShape { retry_after_ms: Some(500), ..ErrorShape::unavailable("gateway starting") };
        let rows = [
            (closed, Next::Retry),
            (Error::Unavailable(Box::new(busy)), Next::RetryAfter(Duration::from_millis(500))),
            (Error::Unavailable(Box::new(ErrorShape::unavailable("x"))), Next::Retry),
            (Error::NotAGateway { reason: "x".into() }, Next::Retry),
            (Error::Http { status: 503, kind: None, message: None }, Next::Retry),
            (Error::Timeout { stage: openclaw_remote::Stage::Connect, after: Duration::ZERO }, Next::Retry),
            (auth("AUTH_RATE_LIMITED"), Next::RetryAfter(Duration::from_secs(60))),
            (auth("AUTH_TOKEN_MISMATCH"), Next::Stop),
            (auth("AUTH_TOKEN_MISSING"), Next::Stop),
            (auth("AUTH_DEVICE_TOKEN_MISMATCH"), Next::Stop),
            (Error::Protocol { message: "protocol mismatch".into(), expected: Some(5) }, Next::Stop),
            (Error::Identity("x".into()), Next::Stop),
        ];
        for (error, next) in rows {
            assert_eq!(of(&error), next, "{error:?}");
        }
    }

    #[test]
    fn stops_come_with_a_word() {
        for code in
            ["AUTH_DEVICE_TOKEN_MISMATCH", "AUTH_TOKEN_MISSING", "AUTH_TOKEN_MISMATCH", "AUTH_BOOTSTRAP_TOKEN_INVALID"]
        {
            let error = Error::Auth(Box::new(refused("INVALID_REQUEST", "no", json!({"code": code}))));
            assert!(advice(&error).is_some(), "{code}");
        }
        assert!(advice(&Error::Protocol { message: String::new(), expected: None }).is_some());
    }
}
