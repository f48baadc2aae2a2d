//! Browsers and origins: P-01 to P-06, P-93.

use lab::{
    client::{Login, new_device},
    sandbox::{Sandbox, Setup},
    wire::{Conn, Reply},
};
use serde_json::json;

const EVIL: &str = "https://evil.example";
const ORIGIN_REFUSED: &str = "CONTROL_UI_ORIGIN_NOT_ALLOWED";
/// What a browser without a device gets once its origin is accepted.
const ORIGIN_PASSED: &str = "CONTROL_UI_DEVICE_IDENTITY_REQUIRED";

/// Every path the reference serves or protects, and some that nobody does.
const PATHS: &[&str] = &[
    "/",
    "/health",
    "/healthz",
    "/ready",
    "/readyz",
    "/startup",
    "/control-ui-config.json",
    "/__openclaw/control-ui-config.json",
    "/__openclaw__/canvas/",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/responses",
    "/tools/invoke",
    "/hooks/wake",
    "/hooks/agent",
    "/api/nope",
    "/avatar/main",
    "/assets/nope.js",
    "/chat",
    "/favicon.svg",
];

#[test]
fn p_01_foreign_origin_right_token() {
    let g = Setup::new().behind_proxy().start();
    for client in ["cli", "openclaw-control-ui", "webchat", "gateway-client", "openclaw-probe", "test"] {
        let refused = g.with_token().client(client, "cli").origin(EVIL).refused();
        assert_eq!(refused.code(), ORIGIN_REFUSED, "{client}");
        assert_eq!(refused.error["details"]["reason"], "origin not allowed");
        assert_eq!(refused.close.expect("a close frame").0, 1008);
    }
    // The credential is not looked at, so a foreign page learns nothing of it and locks nobody out.
    let browser = |token: &str| g.through_proxy("203.0.113.5").origin(EVIL).token(token);
    let right = browser(g.token()).refused();
    for _ in 0..15 {
        assert_eq!(browser("wrong").refused(), right);
    }
    assert_eq!(g.through_proxy("203.0.113.5").token(g.token()).word(), "hello []");
}

#[test]
fn p_02_null_file_empty_and_malformed_origins() {
    let g = Setup::new().start();
    for origin in ["null", "file://", "", "http://", "https://", "about:blank", "chrome-extension://abc", "//x"] {
        let refused = g.with_token().origin(origin).refused();
        assert_eq!(refused.code(), ORIGIN_REFUSED, "{origin:?}");
        assert_eq!(refused.error["details"]["reason"], "origin missing or invalid", "{origin:?}");
    }
    let own = format!("http://127.0.0.1:{}", g.port);
    for (first, second) in [(own.as_str(), own.as_str()), (own.as_str(), EVIL), (EVIL, own.as_str())] {
        assert_eq!(g.with_token().origin(first).origin(second).word(), ORIGIN_REFUSED, "{first} and {second}");
    }
    assert_eq!(g.with_token().word(), "hello [operator.read]", "no Origin at all is no browser");
}

#[test]
fn p_03_look_alike_origins() {
    let allowed = json!({"gateway": {"controlUi": {"allowedOrigins": ["https://ui.example.com"]}}});
    let g = Setup::new().config(allowed).start();
    let own = format!("http://127.0.0.1:{}", g.port);
    for good in ["https://ui.example.com", "HTTPS://UI.Example.COM", "https://ui.example.com:443", own.as_str()] {
        assert_eq!(g.with_token().origin(good).word(), ORIGIN_PASSED, "{good}");
    }
    let other_port = format!("http://127.0.0.1:{}", g.port ^ 1);
    let other_scheme = format!("https://127.0.0.1:{}", g.port);
    let other_name = format!("http://localhost:{}", g.port);
    for evil in [
        "https://ui.example.com.evil.test",
        "https://evil.test/https://ui.example.com",
        "https://evil-ui.example.com",
        "https://ui.example.comevil.test",
        "https://ui.example.com@evil.test",
        "https://evil.test#ui.example.com",
        "https://evil.test?ui.example.com",
        "https://ui.example.com.",
        "https://ui.example.com:444",
        "https://ui.example.com:0443x",
        "http://ui.example.com",
        "https://ui.example.com/",
        "https://xn--u-iga.example.com",
        "https://u\u{131}.example.com",
        "https://ui.example.com\\@evil.test",
        "https:\\\\ui.example.com",
        "https://sub.ui.example.com",
        "https://example.com",
        "*",
        other_port.as_str(),
        other_scheme.as_str(),
        other_name.as_str(),
    ] {
        assert_eq!(g.with_token().origin(evil).word(), ORIGIN_REFUSED, "{evil}");
    }
}

#[test]
fn p_04_rebinding_host() {
    let g = Setup::new().start();
    let evil = format!("evil.example:{}", g.port);
    let origin = format!("http://{evil}");
    let ask = |path: &str, headers: &[(&str, &str)]| Conn::open(&g.address()).get(path, headers);
    for host in [evil.as_str(), "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "2130706433"] {
        for path in PATHS.iter().filter(|path| !is_probe(path)) {
            for headers in [&[("Host", host)][..], &[("Host", host), ("Origin", &origin)]] {
                let reply = ask(path, headers);
                assert!([403, 421].contains(&reply.status), "{host} {path}: {}", reply.status);
                assert!(!reply.text().contains("<html"), "the page was served to {host}");
            }
        }
        assert!(["HTTP 403", "HTTP 421"].contains(&g.with_token().header("Host", host).word().as_str()), "{host}");
        let with_origin = g.with_token().header("Host", host).origin(&origin).word();
        assert!(["HTTP 403", "HTTP 421"].contains(&with_origin.as_str()), "{host} {with_origin}");
        // Monitors ask by any name; they learn that it lives.
        assert_eq!(ask("/healthz", &[("Host", host)]).status, 200);
    }
    for host in [format!("127.0.0.1:{}", g.port), format!("localhost:{}", g.port), format!("[::1]:{}", g.port)] {
        assert_eq!(g.with_token().header("Host", &host).word(), "hello [operator.read]", "{host}");
    }
}

#[test]
fn p_05_cross_site_post_and_preflight() {
    let g = Setup::new().start();
    let before = world(&g);
    let bearer = format!("Bearer {}", g.token());
    let body = br#"{"raw":"{}","tool":"gateway","text":"x","message":"x"}"#;
    for path in PATHS {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let cross = [
                ("Origin", EVIL),
                ("Sec-Fetch-Site", "cross-site"),
                ("Content-Type", kind),
                ("Authorization", bearer.as_str()),
            ];
            let reply = Conn::open(&g.address()).ask("POST", path, &cross, body);
            assert!((400..500).contains(&reply.status), "POST {path}: {}", reply.status);
            no_cors(path, &reply);
        }
        let preflight = [
            ("Origin", EVIL),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization,content-type"),
            ("Access-Control-Request-Private-Network", "true"),
        ];
        let reply = Conn::open(&g.address()).ask("OPTIONS", path, &preflight, b"");
        assert!((400..500).contains(&reply.status), "OPTIONS {path}: {}", reply.status);
        no_cors(path, &reply);
        no_cors(path, &Conn::open(&g.address()).get(path, &[("Origin", EVIL), ("Sec-Fetch-Site", "cross-site")]));
    }
    assert_eq!(world(&g), before, "a cross-site request changed something");
}

#[test]
fn p_06_hardening_headers() {
    let g = Setup::new().start();
    let host = [("Host", "evil.example")];
    let forwarded = [("X-Forwarded-For", "127.0.0.1")];
    let wrong = [("Authorization", "Bearer wrong"), ("Origin", "http://localhost")];
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("/", &[]),
        ("/assets/app.js", &[]),
        ("/nope", &[]),
        ("/control-ui-config.json", &[]),
        ("/readyz", &wrong),
        ("/health", &[]),
        ("/", &host),
        ("/", &forwarded),
        ("/", &[("Upgrade", "h2c"), ("Connection", "Upgrade")]),
    ];
    for (path, headers) in cases {
        let reply = Conn::open(&g.address()).get(path, headers);
        let named = format!("{path} {headers:?} {}", reply.status);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{named}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{named}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{named}");
        let policy = reply.header("content-security-policy").unwrap_or_else(|| panic!("no policy on {named}"));
        let directive = |name: &str| {
            let found = policy.split(';').map(str::trim).find_map(|part| part.strip_prefix(name));
            found.map(str::trim)
        };
        assert_eq!(directive("frame-ancestors "), Some("'none'"), "{named}");
        let fallback = directive("default-src ").expect("a default");
        let scripts = directive("script-src ").unwrap_or(fallback);
        let connect = directive("connect-src ").unwrap_or(fallback);
        assert!(!scripts.contains("unsafe-inline") && !scripts.contains('*'), "{named}: {scripts}");
        for open in ["*", "http:", "https:"] {
            assert!(!connect.split(' ').any(|source| source == open), "{named}: {connect}");
        }
    }
    let page = Conn::open(&g.address()).get("/", &[]);
    assert_eq!(page.status, 200);
    let html = page.text().to_ascii_lowercase();
    assert!(!html.contains("<script") && !has_event_handler(&html), "{html}");
}

#[test]
fn p_93_browsers_are_never_paired_silently() {
    let g = Setup::new().start();
    let own = format!("http://127.0.0.1:{}", g.port);
    let key = new_device();
    let browser = |login: Login| {
        login.client("openclaw-control-ui", "webchat").scopes(&["operator.admin"]).origin(&own).device(&key)
    };
    // A proxy on this machine that strips every forwarding header looks exactly like this.
    for _ in 0..2 {
        let refused = browser(g.with_token()).refused();
        assert_eq!(refused.code(), "PAIRING_REQUIRED", "{}", refused.error);
    }
    let pairing = g.operator(&["operator.pairing"]).ok("device.pair.list", json!({}));
    assert_eq!(pairing["paired"], json!([]));
    assert_eq!(pairing["pending"].as_array().map(Vec::len), Some(1));
    let request = pairing["pending"][0]["requestId"].clone();
    g.admin().ok("device.pair.approve", json!({"requestId": request}));
    assert_eq!(browser(g.with_token()).word(), "hello [operator.admin]", "the owner's word is what it takes");
}

fn is_probe(path: &str) -> bool {
    ["/health", "/healthz", "/ready", "/readyz", "/startup"].contains(&path)
}

#[track_caller]
fn no_cors(path: &str, reply: &Reply) {
    let permissive = reply.headers.iter().find(|(name, _)| name.starts_with("access-control-"));
    assert_eq!(permissive, None, "{path}");
}

/// An inline event handler attribute in a page.
fn has_event_handler(html: &str) -> bool {
    ["onload=", "onclick=", "onerror=", "onfocus=", "javascript:"].iter().any(|handler| html.contains(handler))
}

/// What a mutating route could have changed.
fn world(g: &Sandbox) -> String {
    let mut admin = g.admin();
    let config = admin.ok("config.get", json!({}));
    let devices = admin.ok("device.pair.list", json!({}));
    let heartbeats = admin.ok("status", json!({}))["heartbeat"].clone();
    let events = admin.ok("status", json!({}))["queuedSystemEvents"].clone();
    format!("{} {devices} {heartbeats} {events}", config["hash"])
}
