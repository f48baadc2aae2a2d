//! Every deliberate difference between our handshake and the captured ones, with its reason.
//!
//! Two things we add everywhere are taken off before comparing and are not listed here: `details.remediation` (one command
//! and the machine to run it on), and the words `; invalid token` and `; invalid password` of the seeds (C-20).

/// A case in which our gateway means to differ: what it answers instead, and why.
pub struct Difference {
    pub case: &'static str,
    pub ours: &'static str,
    pub why: &'static str,
}

const fn differs(case: &'static str, ours: &'static str, why: &'static str) -> Difference {
    Difference { case, ours, why }
}

const ONE_ANSWER: &str =
    "a frame that is not JSON gets the same close as one that is no request: 1000 reads like a goodbye";
const TOLERANT: &str = "newer clients add fields; a gateway that refuses them breaks them (handshake notes, section 4)";
const BOTH_ERAS: &str = "this gateway speaks protocols 3 and 4 to every client";
const NOT_BY_NAME: &str = "authority without a device follows from the proven secret and a direct local connection, not from \
                           the client id or mode a caller gives itself (P-28)";
const EXACT_ORIGIN: &str =
    "only an origin that is our own or listed is accepted; any page of any other local server is neither (P-03)";
const NO_BUILD_GATE: &str =
    "a page from our own origin needs no build id; like every browser it waits for consent (P-93)";
const REBINDING: &str = "a Host that is no name of this gateway is how DNS rebinding looks (P-04)";
const PROXY_403: &str =
    "forwarding headers of an undeclared proxy are refused on both protocols, as 2026.9.6 does (P-32)";
const SILENT_WORKER: &str = "the worker role is closed silently on both protocols, as 2026.9.6 does";
const CROSS_FIELD: &str = "either field may carry the secret on both protocols, as 2026.9.6 does";
const PREAUTH_CAP: &str = "64 KiB before authentication on both protocols (F10)";
const ORIGIN_DETAILS: &str = "the origin failure keeps its details on both protocols";
const CURRENT_WORDS: &str = "the validator words of 2026.9.6 on both protocols";
const VERSIONS: &str =
    "a mismatch names what is supported: expectedProtocol is our highest, minimumProtocol our lowest";
const SETUP_WORDS: &str = "the same words whether a setup code never existed, was used or has expired";

/// Against 2026.9.6.
pub const V4_DIFFERENCES: &[Difference] = &[
    differs("garbage-json", r#"{"close":[1008,"invalid request frame"]}"#, ONE_ANSWER),
    differs(
        "extra-field",
        r#"{"hello":{"protocol":4,"auth":{"method":"token","role":"operator","scopes":["operator.read"]}}}"#,
        TOLERANT,
    ),
    differs(
        "v3proto-cli",
        r#"{"hello":{"protocol":3,"auth":{"role":"operator","scopes":["operator.read"]}}}"#,
        BOTH_ERAS,
    ),
    differs(
        "v3proto-probe",
        r#"{"hello":{"protocol":3,"auth":{"role":"operator","scopes":["operator.read"]}}}"#,
        BOTH_ERAS,
    ),
    differs(
        "v3proto-node",
        r#"{"hello":{"protocol":3,"auth":{"role":"node","scopes":[],"deviceToken":true}}}"#,
        BOTH_ERAS,
    ),
    differs(
        "v5proto-cli",
        r#"{"error":{"code":"INVALID_REQUEST","message":"protocol mismatch","details":{"code":"PROTOCOL_MISMATCH","clientMinProtocol":5,"clientMaxProtocol":5,"expectedProtocol":4,"minimumProtocol":3,"minimumProbeProtocol":3}},"close":[1002,"protocol mismatch"]}"#,
        VERSIONS,
    ),
    differs(
        "good-token-no-device-test-client",
        r#"{"hello":{"protocol":4,"auth":{"method":"token","role":"operator","scopes":["operator.read"]}}}"#,
        NOT_BY_NAME,
    ),
    differs(
        "origin-loopback-cli",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin not allowed"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        EXACT_ORIGIN,
    ),
    differs(
        "origin-controlui-device",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin not allowed"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        EXACT_ORIGIN,
    ),
    differs(
        "origin-controlui-oldbuild",
        r#"{"error":{"code":"NOT_PAIRED","message":"pairing required: device is not approved yet","details":{"code":"PAIRING_REQUIRED","reason":"not-paired","requestId":"<id>","remediationHint":"<text>","deviceId":"<device>","requestedRole":"operator","requestedScopes":["operator.read"]}},"close":[1008,"pairing required: device is not approved yet (requestId: <id>)"]}"#,
        NO_BUILD_GATE,
    ),
    differs("host-remote", r#"{"http":421}"#, REBINDING),
];

/// Against 2026.2.26.
pub const V3_DIFFERENCES: &[Difference] = &[
    differs("garbage-json", r#"{"close":[1008,"invalid request frame"]}"#, ONE_ANSWER),
    differs(
        "extra-field",
        r#"{"hello":{"protocol":3,"auth":{"role":"operator","scopes":["operator.read"]}}}"#,
        TOLERANT,
    ),
    differs(
        "bad-bootstrap",
        r#"{"error":{"code":"INVALID_REQUEST","message":"unauthorized: setup code invalid, expired, revoked, or already used (create a new code; review `openclaw devices list`)","details":{"code":"AUTH_BOOTSTRAP_TOKEN_INVALID","authReason":"bootstrap_token_invalid"}},"close":[1008,"unauthorized: setup code invalid, expired, revoked, or already used (create a new code; review `openclaw devices list`)"]}"#,
        SETUP_WORDS,
    ),
    differs(
        "token-in-password-field",
        r#"{"hello":{"protocol":3,"auth":{"role":"operator","scopes":["operator.read"]}}}"#,
        CROSS_FIELD,
    ),
    differs(
        "v5proto-cli",
        r#"{"error":{"code":"INVALID_REQUEST","message":"protocol mismatch","details":{"code":"PROTOCOL_MISMATCH","clientMinProtocol":5,"clientMaxProtocol":5,"expectedProtocol":4,"minimumProtocol":3,"minimumProbeProtocol":3}},"close":[1002,"protocol mismatch"]}"#,
        VERSIONS,
    ),
    differs(
        "range-3-4-cli",
        r#"{"hello":{"protocol":4,"auth":{"method":"token","role":"operator","scopes":["operator.read"]}}}"#,
        BOTH_ERAS,
    ),
    differs("worker-role", r#"{"close":[1008,"invalid-handshake"]}"#, SILENT_WORKER),
    differs(
        "bad-client-id",
        r#"{"error":{"code":"INVALID_REQUEST","message":"invalid connect params: at /client/id: must be equal to one of the allowed values"},"close":[1008,"invalid connect params: at /client/id: must be equal to one of the allowed values"]}"#,
        CURRENT_WORDS,
    ),
    differs("oversize-preauth", r#"{"close":[1009,""]}"#, PREAUTH_CAP),
    differs(
        "good-token-no-device-controlui",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin missing or invalid"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        ORIGIN_DETAILS,
    ),
    differs(
        "origin-evil",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin not allowed"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        ORIGIN_DETAILS,
    ),
    differs(
        "origin-loopback-cli",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin not allowed"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        EXACT_ORIGIN,
    ),
    differs(
        "origin-controlui-device",
        r#"{"error":{"code":"INVALID_REQUEST","message":"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)","details":{"code":"CONTROL_UI_ORIGIN_NOT_ALLOWED","reason":"origin not allowed"}},"close":[1008,"origin not allowed (open the Control UI from the gateway host or allow it in gateway.controlUi.allowedOrigins)"]}"#,
        EXACT_ORIGIN,
    ),
    differs(
        "origin-controlui-oldbuild",
        r#"{"error":{"code":"NOT_PAIRED","message":"pairing required","details":{"code":"PAIRING_REQUIRED","requestId":"<id>","reason":"not-paired"}},"close":[1008,"pairing required"]}"#,
        NO_BUILD_GATE,
    ),
    differs("xff-loopback", r#"{"http":403}"#, PROXY_403),
    differs("host-remote", r#"{"http":421}"#, REBINDING),
];
