//! Guessing and credentials: P-10 to P-20.
//!
//! "An address that is not loopback" is one that a declared proxy reports: the limiter sees it exactly as it sees a socket.

use std::time::{Duration, Instant};

use lab::{
    client::{Login, Opened, Outcome, Refused, new_device},
    sandbox::{Sandbox, Setup},
    wire::{Conn, Reply},
};
use serde_json::{Value, json};

const LIMITED: &str = "AUTH_RATE_LIMITED";
const MISMATCH: &str = "AUTH_TOKEN_MISMATCH";
const CLIENT: &str = "203.0.113.9";

fn limited(refused: &Refused) -> bool {
    if refused.code() != LIMITED {
        return false;
    }
    assert_eq!(refused.error["retryable"], true, "{}", refused.error);
    assert!(refused.error["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{}", refused.error);
    true
}

/// A bearer guess over HTTP from this client.
fn bearer(g: &Sandbox, client: &str, token: &str) -> Reply {
    let value = format!("Bearer {token}");
    Conn::open(&g.proxy()).get("/readyz", &[("X-Forwarded-For", client), ("Authorization", &value)])
}

/// Guesses until the client is locked out; returns how many were looked at.
fn guesses_until_locked(mut guess: impl FnMut() -> bool) -> usize {
    (0..30).position(|_| guess()).expect("thirty wrong guesses lock")
}

#[test]
fn p_10_guess_lockout() {
    let g = Setup::new().behind_proxy().start();
    let by_ws = |client: &str, token: &str| g.through_proxy(client).token(token);
    let ws = guesses_until_locked(|| limited(&by_ws(CLIENT, "wrong").refused()));
    assert_eq!(ws, 10);
    // The right token tells nothing while the door is shut, on either path.
    assert!(limited(&by_ws(CLIENT, g.token()).refused()));
    let reply = bearer(&g, CLIENT, g.token());
    assert_eq!((reply.status, reply.json()["error"]["type"].as_str()), (429, Some("rate_limited")));
    let seconds: u64 = reply.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((1..=300).contains(&seconds), "{seconds}");
    // The other way round, and mixed: one budget.
    let http = guesses_until_locked(|| bearer(&g, "203.0.113.10", "wrong").status == 429);
    assert_eq!(http, 10);
    assert!(limited(&by_ws("203.0.113.10", g.token()).refused()));
    let mut turn = 0;
    let mixed = guesses_until_locked(|| {
        turn += 1;
        match turn % 2 {
            0 => bearer(&g, "203.0.113.11", "wrong").status == 429,
            _ => limited(&by_ws("203.0.113.11", "wrong").refused()),
        }
    });
    assert_eq!(mixed, 10);
    assert_eq!(by_ws("203.0.113.12", g.token()).word(), "hello []", "a neighbour is not locked out");
    assert_eq!(g.with_token().word(), "hello [operator.read]");
}

#[test]
fn p_11_extra_fields_buy_no_guess() {
    let g = Setup::new().behind_proxy().start();
    let key = new_device();
    let wrong = |client: &str| g.through_proxy(client).token("wrong");
    type Extra = Box<dyn Fn(Login) -> Login>;
    let device = move |login: Login| login.device(&key);
    let extras: Vec<(&str, Extra)> = vec![
        ("203.0.113.1", Box::new(|login| login.device_token("bogus"))),
        ("203.0.113.2", Box::new(|login| login.password("bogus"))),
        ("203.0.113.3", Box::new(|login| login.set("/auth/bootstrapToken", "bogus"))),
        ("203.0.113.4", Box::new(|login| login.set("/auth/approvalRuntimeToken", "bogus"))),
        ("203.0.113.5", Box::new(device.clone())),
        ("203.0.113.6", Box::new(move |login| device(login.device_token("bogus")))),
    ];
    for (client, extra) in &extras {
        let count = guesses_until_locked(|| limited(&extra(wrong(client)).refused()));
        assert_eq!(count, 10, "{client}");
        assert!(limited(&g.through_proxy(client).token(g.token()).refused()), "{client}: right token while locked");
    }
    // Device tokens and setup codes are credentials, too, each with a budget of its own.
    let key = new_device();
    for (client, field) in [("203.0.113.7", "deviceToken"), ("203.0.113.8", "bootstrapToken")] {
        let guess = || g.through_proxy(client).set(&format!("/auth/{field}"), "bogus").device(&key).refused();
        assert_eq!(guesses_until_locked(|| limited(&guess())), 10, "{field}");
        assert_eq!(g.through_proxy(client).token(g.token()).word(), "hello []", "{field}: another class is not locked");
    }
}

#[test]
fn p_12_address_spelling() {
    let g = Setup::new().behind_proxy().start();
    let spellings = ["203.0.113.9", "::ffff:203.0.113.9", "0:0:0:0:0:ffff:203.0.113.9", "::FFFF:cb00:7109"];
    let mut turn = 0;
    let count = guesses_until_locked(|| {
        turn += 1;
        limited(&g.through_proxy(spellings[turn % spellings.len()]).token("wrong").refused())
    });
    assert_eq!(count, 10, "all spellings together");
    for spelling in spellings {
        assert!(limited(&g.through_proxy(spelling).token(g.token()).refused()), "{spelling}");
    }
    // One customer's whole IPv6 network is one client.
    let mut host = 0;
    let count = guesses_until_locked(|| {
        host += 1;
        limited(&g.through_proxy(&format!("2001:db8:1:1:{host:x}::{host:x}")).token("wrong").refused())
    });
    assert_eq!(count, 10);
    assert_eq!(g.through_proxy("2001:db8:1:2::1").token(g.token()).word(), "hello []", "the network beside it");
}

#[test]
fn p_13_browser_guessing_on_loopback() {
    let g = Setup::new().start();
    let own = format!("http://127.0.0.1:{}", g.port);
    let browser = || g.login().client("openclaw-control-ui", "webchat").origin(&own).device(&new_device());
    let count = guesses_until_locked(|| limited(&browser().token("wrong").refused()));
    assert_eq!(count, 10);
    assert!(limited(&browser().token(g.token()).refused()));
    assert_eq!(g.with_token().word(), "hello [operator.read]", "the owner's CLI is not locked out by a web page");
    // A CLI that guesses is slowed instead.
    let asked = Instant::now();
    for _ in 0..3 {
        assert_eq!(g.login().token("wrong").word(), MISMATCH);
    }
    assert!(asked.elapsed() >= Duration::from_millis(250 + 500 + 1000), "{:?}", asked.elapsed());
    assert_eq!(g.with_token().word(), "hello [operator.read]");
}

#[test]
fn p_14_parallel_guessing() {
    for slowed in [false, true] {
        let setup = Setup::new().env("OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP", "400");
        let g = if slowed { setup.start() } else { setup.strict_limiter().start() };
        let mut sockets: Vec<Opened> = (0..200).map(|_| g.login().token("wrong").open().expect("101")).collect();
        for socket in &mut sockets {
            let request = socket.request();
            socket.conn.send_text(&request);
        }
        let codes: Vec<String> = sockets.into_iter().map(|socket| code(socket.outcome())).collect();
        let looked_at = codes.iter().filter(|code| *code == MISMATCH).count();
        let refused_unheard = codes.iter().filter(|code| *code == LIMITED).count();
        assert_eq!(looked_at + refused_unheard, 200, "{codes:?}");
        assert!(looked_at <= 12, "{looked_at} guesses were looked at (slowed: {slowed})");
        assert!(g.peak_growth_kib() < 64 * 1024, "{} KiB", g.peak_growth_kib());
    }
}

fn code(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(refused) => refused.code().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn p_15_accounting() {
    let g = Setup::new().behind_proxy().start();
    let from = |client: &str| g.through_proxy(client);
    for _ in 0..50 {
        assert_eq!(from(CLIENT).word(), "DEVICE_IDENTITY_REQUIRED", "nothing given is no guess");
    }
    let right = || assert_eq!(from(CLIENT).token(g.token()).word(), "hello []");
    let nine_wrong = |client: &str| {
        for _ in 0..9 {
            assert_eq!(from(client).token("wrong").word(), MISMATCH);
        }
    };
    right();
    nine_wrong("203.0.113.20");
    nine_wrong(CLIENT);
    right();
    nine_wrong(CLIENT);
    right();
    // The neighbour's nine failures are still there.
    assert_eq!(from("203.0.113.20").token("wrong").word(), MISMATCH);
    assert!(limited(&from("203.0.113.20").token(g.token()).refused()));
    // Success with the shared secret forgives no failed device token.
    let key = new_device();
    let device_guess = || from(CLIENT).device_token("bogus").device(&key);
    for _ in 0..9 {
        assert_eq!(device_guess().word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    }
    right();
    assert_eq!(device_guess().word(), "AUTH_DEVICE_TOKEN_MISMATCH");
    assert!(limited(&device_guess().refused()));
}

#[test]
fn p_16_no_credential() {
    let g = Setup::new().behind_proxy().start();
    for address in [g.address(), g.address_from(7)] {
        for client in ["cli", "gateway-client", "openclaw-macos", "openclaw-probe"] {
            for mode in ["cli", "backend", "probe", "ui"] {
                let login = Login::at(&address).client(client, mode).scopes(&["operator.admin"]);
                assert_eq!(login.word(), "DEVICE_IDENTITY_REQUIRED", "{client}/{mode} from {address:?}");
            }
        }
        let with_device = Login::at(&address).scopes(&["operator.admin"]).device(&new_device());
        assert_eq!(with_device.word(), "AUTH_TOKEN_MISSING");
    }
    assert_eq!(g.through_proxy("192.168.1.9").word(), "DEVICE_IDENTITY_REQUIRED");
    assert_eq!(g.through_proxy("192.168.1.9").device(&new_device()).word(), "AUTH_TOKEN_MISSING");
    assert_eq!(g.admin().ok("device.pair.list", json!({}))["paired"], json!([]));
}

#[test]
fn p_17_placeholder_or_empty_secret() {
    for (value, shown) in [
        ("", None),
        ("   ", None),
        ("changeme", Some("changeme")),
        ("CHANGEME", Some("CHANGEME")),
        ("undefined", Some("undefined")),
        ("null", None),
        ("<your-token-here>", Some("your-token-here")),
        ("${OPENCLAW_LAB_NO_SUCH_VARIABLE}", None),
    ] {
        for key in ["token", "password"] {
            let auth = json!({"mode": key, "token": null, key: value});
            let failure = Setup::new().config(json!({"gateway": {"auth": auth}})).refused();
            assert_eq!(failure.status.code(), Some(78), "{key} {value:?}: {}", failure.console);
            assert!(failure.console.contains(&format!("gateway.auth.{key}")), "{value:?}: {}", failure.console);
            if let Some(shown) = shown {
                assert!(!failure.console.contains(shown), "{value:?} is printed: {}", failure.console);
            }
        }
    }
    let failure = Setup::new().config(json!({"gateway": {"auth": {"token": null}}})).arg("--token=changeme").refused();
    assert_eq!(failure.status.code(), Some(78), "{}", failure.console);
    assert!(failure.console.contains("--token") && !failure.console.contains("changeme"), "{}", failure.console);
}

#[test]
fn p_18_fail_closed() {
    let open = json!({"gateway": {"auth": {"mode": "none", "token": null}}});
    for bind in ["lan", "custom", "tailnet"] {
        let setup = Setup::new().config(open.clone());
        let failure = setup.config(json!({"gateway": {"bind": bind, "customBindHost": "0.0.0.0"}})).refused();
        assert_eq!(failure.status.code(), Some(78), "{bind}: {}", failure.console);
        assert!(failure.console.contains(&format!("Refusing to bind gateway to {bind} without auth")), "{bind}");
    }
    let flags = Setup::new().config(open).arg("--bind").arg("lan").refused();
    assert_eq!(flags.status.code(), Some(78), "{}", flags.console);

    // Whatever is wrong with the file, the gateway either does not start or lets no stranger in.
    let secret_ref =
        r#"{"gateway":{"auth":{"mode":"token","token":{"source":"env","provider":"default","id":"NO_SUCH"}}}}"#;
    for text in [
        "",
        " \n",
        "{",
        "{\"gateway\": {\"auth\": {\"mode\": \"none\"",
        "not json at all",
        "null",
        "[]",
        "\"none\"",
        "\u{0}\u{0}\u{0}\u{0}",
        "{\"gateway\": {\"auth\": {\"mode\": \"nope\"}}}",
        "{\"gateway\": {\"auth\": {\"mode\": [\"none\"]}}}",
        "{\"gateway\": {\"auth\": null}}",
        secret_ref,
    ] {
        starts_closed_or_not(Setup::new().raw_config(text), text);
    }
    // A directory in its place is unreadable for root, too.
    let setup = Setup::new();
    std::fs::create_dir_all(setup.state_dir().join("openclaw.json")).expect("creates");
    let failure = setup.refused_as_is();
    assert_eq!(failure.status.code(), Some(78), "{}", failure.console);
}

fn starts_closed_or_not(setup: Setup, what: &str) {
    let path = setup.write_config();
    // `unwatched`: a start with this config may log to the shared directory, not to the sandbox.
    let setup = setup.unwatched();
    let Some(g) = start_or_refuse(setup, what) else { return };
    assert_eq!(g.login().scopes(&["operator.admin"]).word(), "DEVICE_IDENTITY_REQUIRED", "{what:?}");
    assert_eq!(g.login().device(&new_device()).word(), "AUTH_TOKEN_MISSING", "{what:?}");
    assert!(path.exists());
}

/// The gateway, or nothing when the start was refused for reasons of configuration.
fn start_or_refuse(setup: Setup, what: &str) -> Option<Sandbox> {
    match setup.start_or_refuse() {
        Ok(g) => Some(g),
        Err(failure) => {
            assert_eq!(failure.status.code(), Some(78), "{what:?}: {}", failure.console);
            None
        }
    }
}

#[test]
fn p_19_comparison_time_tells_nothing() {
    // No limit, so that ten thousand samples are possible; that is an owner's choice nobody should make.
    let unlimited =
        json!({"gateway": {"auth": {"rateLimit": {"maxAttempts": 1_000_000, "windowMs": 1, "exemptLoopback": false}}}});
    let g = Setup::new().config(unlimited).start();
    let wrong = |right: usize| format!("{}{}", &g.token()[..right], "z".repeat(g.token().len() - right));
    let length = g.token().len();
    let guesses: Vec<(String, String)> = vec![
        ("0 right".into(), wrong(0)),
        ("a quarter right".into(), wrong(length / 4)),
        ("half right".into(), wrong(length / 2)),
        ("all but one right".into(), wrong(length - 1)),
        ("one short".into(), g.token()[..length - 1].to_owned()),
        ("one long".into(), format!("{}z", g.token())),
        ("empty-ish".into(), "z".into()),
    ];
    let mut samples: Vec<Vec<Duration>> = vec![Vec::new(); guesses.len()];
    let mut conn = Conn::open(&g.address());
    for round in 0..10_000 / guesses.len() {
        // The order changes with every round, so that drift hits all of them alike.
        for turn in 0..guesses.len() {
            let which = (turn + round) % guesses.len();
            let value = format!("Bearer {}", guesses[which].1);
            let asked = Instant::now();
            let reply = conn.get("/readyz", &[("Origin", "http://localhost"), ("Authorization", &value)]);
            samples[which].push(asked.elapsed());
            assert_eq!(reply.json(), json!({"ready": true}), "a wrong guess is a stranger");
        }
    }
    let medians: Vec<u128> = samples
        .iter_mut()
        .map(|list| {
            list.sort();
            list[list.len() / 2].as_nanos()
        })
        .collect();
    let named: Vec<_> = guesses.iter().map(|(name, _)| name).zip(&medians).collect();
    // A comparison that stops at the first difference takes some nanoseconds per byte; what travels over a socket
    // spreads by far more. What would show is an order: later difference, longer answer, by more than the spread.
    let spread = |list: &[Duration]| list[list.len() * 3 / 4].saturating_sub(list[list.len() / 4]).as_nanos();
    let noise = samples.iter().map(|list| spread(list)).max().unwrap_or(0);
    let by_prefix = &medians[..4];
    let rising = by_prefix.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(!rising || by_prefix[3] - by_prefix[0] < noise, "{named:?}, noise {noise} ns");
    let (shortest, longest) = (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
    assert!(longest - shortest < noise, "lengths tell: {named:?}, noise {noise} ns");
}

#[test]
fn p_20_hook_token_separation() {
    // What the limiter does is in `security_http.rs`.
    for same in ["token", "password"] {
        let setup = Setup::new();
        let secret = setup.token().to_owned();
        let patch = json!({
            "gateway": {"auth": {"mode": same, "token": null, same: secret}},
            "hooks": {"enabled": true, "token": secret},
        });
        let failure = setup.config(patch).refused();
        assert_eq!(failure.status.code(), Some(78), "{}", failure.console);
        assert!(failure.console.contains("hooks.token") && !failure.console.contains(&secret), "{}", failure.console);
    }
    let hook = "a-hook-token-of-its-own-4711";
    let g = Setup::new().config(json!({"hooks": {"enabled": true, "token": hook}})).start();
    assert_eq!(g.login().token(hook).word(), MISMATCH);
    let bearer = format!("Bearer {}", g.token());
    for path in ["/hooks/wake", "/hooks/agent"] {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let reply = Conn::open(&g.address()).ask("POST", path, &headers, br#"{"text":"x","message":"x"}"#);
        assert!((400..500).contains(&reply.status), "{path}: the gateway's token opened a hook ({})", reply.status);
    }
    assert_eq!(g.admin().ok("status", json!({}))["queuedSystemEvents"], Value::Array(Vec::new()));
}
