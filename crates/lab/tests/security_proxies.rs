//! Proxies and identity headers: P-32 to P-35. (P-36 to P-38 are in `security_http.rs`.)

use lab::{
    client::{Login, new_device},
    sandbox::{Sandbox, Setup},
    wire::Conn,
};
use serde_json::json;

/// Every header by which a proxy says for whom it speaks, with what a liar would put into it.
const FORWARDING: &[(&str, &str)] = &[
    ("X-Forwarded-For", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;host=localhost;proto=http"),
    ("X-Real-IP", "127.0.0.1"),
    ("X-Client-IP", "127.0.0.1"),
    ("True-Client-IP", "127.0.0.1"),
    ("CF-Connecting-IP", "127.0.0.1"),
    ("Via", "1.1 localhost"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "443"),
];

fn attempts(g: &Sandbox, header: (&str, &str)) -> Vec<String> {
    let with = |login: Login| login.header(header.0, header.1).scopes(&["operator.admin"]).word();
    vec![with(g.login()), with(g.with_token()), with(g.with_token().device(&new_device()))]
}

#[test]
fn p_32_forwarding_header_from_a_stranger() {
    let g = Setup::new().start();
    assert_eq!(attempts(&g, ("X-Forwarded-For", "127.0.0.1")), ["HTTP 403", "HTTP 403", "HTTP 403"]);
    let reply = Conn::open(&g.address()).get("/", &[("X-Forwarded-For", "127.0.0.1")]);
    assert_eq!((reply.status, reply.json()["error"]["type"].as_str()), (403, Some("proxy_attribution_required")));
    // The probes answer, and treat the caller as a stranger.
    let ready = Conn::open(&g.address()).get("/readyz", &[("X-Forwarded-For", "127.0.0.1")]);
    assert_eq!(ready.json(), json!({"ready": true}));
    assert_eq!(g.admin().ok("device.pair.list", json!({})), json!({"pending": [], "paired": []}));
}

#[test]
fn p_33_header_variants() {
    let g = Setup::new().start();
    for (name, value) in FORWARDING {
        for name in [(*name).to_owned(), name.to_lowercase(), name.to_uppercase()] {
            assert_eq!(attempts(&g, (&name, value)), ["HTTP 403", "HTTP 403", "HTTP 403"], "{name}");
        }
        let twice = g.with_token().header(name, value).header(name, value).word();
        assert_eq!(twice, "HTTP 403", "{name} twice");
        assert_eq!(g.with_token().header(name, "").word(), "HTTP 403", "{name} without a value");
    }
    assert_eq!(g.admin().ok("device.pair.list", json!({})), json!({"pending": [], "paired": []}));
}

#[test]
fn p_34_chain_through_a_declared_proxy() {
    let g = Setup::new().behind_proxy().start();
    let admitted = |chain: &str| g.through_proxy(chain).token(g.token()).scopes(&["operator.admin"]).word();
    // Whatever the chain says, what came through a proxy is not this machine, and gets no rights without a device.
    for chain in ["203.0.113.7", "127.0.0.1", "::1", "127.0.0.1, 203.0.113.7", "203.0.113.7, 127.0.0.9", "2001:db8::1"]
    {
        assert_eq!(admitted(chain), "hello []", "{chain}");
        let device = g.through_proxy(chain).token(g.token()).device(&new_device());
        assert_eq!(device.word(), "PAIRING_REQUIRED", "{chain}");
    }
    // From right to left, the first hop that is no proxy is the client: it is the one that is locked out.
    for _ in 0..10 {
        assert_eq!(g.through_proxy("127.0.0.1, 203.0.113.7, 127.0.0.9").token("wrong").word(), "AUTH_TOKEN_MISMATCH");
    }
    assert_eq!(admitted("203.0.113.7"), "AUTH_RATE_LIMITED");
    assert_eq!(admitted("198.51.100.4, 203.0.113.7"), "AUTH_RATE_LIMITED", "a made-up first hop changes nothing");
    assert_eq!(admitted("198.51.100.4"), "hello []");
    for garbage in [
        "evil",
        "203.0.113.8, evil",
        "fe80::1%eth0",
        "203.0.113.8:80",
        "203.0.113.8,,127.0.0.9",
        "",
        ",",
        "unknown",
        "0x7f.1",
    ] {
        assert_eq!(admitted(garbage), "HTTP 403", "{garbage:?}");
    }
    assert_eq!(admitted(&vec!["127.0.0.9"; 100].join(",")), "HTTP 403", "a chain without end");
}

#[test]
fn p_35_tailscale_headers_on_an_ordinary_listener() {
    let g = Setup::new().start();
    let headers = [
        ("Tailscale-User-Login", "owner@example.com"),
        ("Tailscale-User-Name", "The Owner"),
        ("Tailscale-User-Profile-Pic", "https://example.com/a.png"),
        ("Remote-User", "owner"),
        ("X-Forwarded-User", "owner"),
        ("X-Auth-Request-Email", "owner@example.com"),
    ];
    for (name, value) in headers {
        let bare = g.login().header(name, value).scopes(&["operator.admin"]).word();
        assert!(["DEVICE_IDENTITY_REQUIRED", "HTTP 403"].contains(&bare.as_str()), "{name}: {bare}");
        let device = g.login().header(name, value).device(&new_device()).word();
        assert!(["AUTH_TOKEN_MISSING", "HTTP 403"].contains(&device.as_str()), "{name}: {device}");
        let http = Conn::open(&g.address()).get("/readyz", &[(name, value), ("Origin", "http://localhost")]);
        assert_eq!(http.json(), json!({"ready": true}), "{name} is no credential for HTTP");
    }
    let all =
        headers.iter().fold(g.login().scopes(&["operator.admin"]), |login, (name, value)| login.header(name, value));
    assert!(["DEVICE_IDENTITY_REQUIRED", "HTTP 403"].contains(&all.word().as_str()));
}
