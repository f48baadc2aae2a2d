use serde_json::json;

use super::*;

const SECRETS: &[&str] = &[
    "gw-t0ken-1",
    "gw-passw0rd",
    "edge-v4lue",
    "h3ader-one",
    "h3ader-two",
    "pl0gin-odd",
    "n3sted-arr",
    "us3rinfo",
    "qu3ry-val",
    "v4r-value",
    "arg-v4lue",
    "b0t-token",
    "typ0-token",
    "unkn0wn-top",
    "c0mment-only",
    "prov1der-key",
    "hook-t0ken",
    "ali4s-val",
    "4711471147",
    "br0ken-cookie",
    "inl1ne-arg",
    "0123456789abcdef0123456789abcdef",
];

/// One config with a secret in every kind of place the security case P-54 names.
const CONFIG: &str = r#"// the token used to be gw-t0ken-1
{
  gateway: {
    port: 18789, // port
    auth: { token: "gw-t0ken-1", password: 'gw-passw0rd', tokn: "typ0-token" },
    remote: { url: "wss://user:us3rinfo@gw/x?access_token=qu3ry-val&v=1", token: { source: "env", provider: "default", id: "REMOTE_TOKEN" },
      edgeAuth: { "CF-Access": "edge-v4lue" }, password: "${REMOTE_PASSWORD}" },
    /* password: "c0mment-only" */
    controlUi: { allowedOrigins: ["https://ui.example.com"] },
  },
  models: { providers: { x: { baseUrl: "https://api.example.com/v1", apiKey: "prov1der-key", headers: { "X-Org": "h3ader-one" },
    models: [{ id: "m-1", maxTokens: 4096, headers: { a: { b: "h3ader-two" } } }] } } },
  channels: { telegram: { botToken: "b0t-token", accounts: [{ id: "a", token: 4711471147 }] , textChunkLimit: 4000 },
    matrix: { keys: [["n3sted-arr"]], digest: "0123456789abcdef0123456789abcdef" } },
  plugins: { entries: { acme: { enabled: true, config: { oddName: "pl0gin-odd", retries: 3 } } } },
  hooks: { token: "hook-t0ken", path: "/hooks" },
  mcp: { servers: { s: { command: "run", args: ["--token", "arg-v4lue", "--api-key=inl1ne-arg", "-v"], env: { NAME: "v4r-value" } } } },
  env: { vars: { LOG: "ali4s-val" } },
  messages: { note: "ali4s-val and gw-t0ken-1 in a text", cookies: ["sid=br0ken-cookie"] },
  mistery: { anything: ["unkn0wn-top"] },
}
"#;

fn parsed() -> Value {
    parse(CONFIG)
}

fn parse(text: &str) -> Value {
    let options = crate::document::parse::options();
    crate::document::parse::parse(text, &Default::default(), &options)
        .unwrap_or_else(|e| panic!("{} {text}", e.reason))
        .root
        .unwrap()
        .to_value()
}

#[test]
fn p_54_no_secret_is_left_in_the_value() {
    let original = parsed();
    for secret in SECRETS {
        let present = CONFIG.contains(secret);
        assert!(present, "{secret} is in the fixture");
    }
    let shown = value(&original).to_string();
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn p_54_no_secret_is_left_in_the_text() {
    let shown = raw(CONFIG).unwrap();
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    // It is the redaction of the value, and everything else is as it was.
    assert_eq!(parse(&shown), value(&parsed()));
    for kept in [
        "port: 18789, // port",
        "oddName:",
        "https://ui.example.com",
        "/hooks",
        "\"REMOTE_TOKEN\"",
        "${REMOTE_PASSWORD}",
    ] {
        assert!(shown.contains(kept), "{kept}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    let shown = value(&parsed());
    let at = |pointer: &str| shown.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer}"));
    assert_eq!(at("/gateway/port"), json!(18_789));
    assert_eq!(at("/gateway/remote/token"), json!({"source": "env", "provider": "default", "id": "REMOTE_TOKEN"}));
    assert_eq!(at("/gateway/remote/password"), json!("${REMOTE_PASSWORD}"));
    assert_eq!(at("/gateway/remote/url"), json!(format!("wss://{MARKER}@gw/x?access_token={MARKER}&v=1")));
    assert_eq!(at("/gateway/auth/token"), json!(MARKER));
    assert_eq!(at("/models/providers/x/baseUrl"), json!("https://api.example.com/v1"));
    assert_eq!(at("/models/providers/x/models/0/maxTokens"), json!(4096));
    assert_eq!(at("/models/providers/x/models/0/id"), json!("m-1"));
    assert_eq!(at("/channels/telegram/textChunkLimit"), json!(4000));
    assert_eq!(at("/channels/telegram/accounts/0"), json!({"id": "a", "token": MARKER}));
    assert_eq!(at("/plugins/entries/acme/enabled"), json!(true));
    assert_eq!(at("/plugins/entries/acme/config/retries"), json!(3));
    assert_eq!(at("/mcp/servers/s/args"), json!(["--token", MARKER, format!("--api-key={MARKER}"), "-v"]));
    assert_eq!(at("/messages/note"), json!(format!("{MARKER} and {MARKER} in a text")));
}

/// The redacted config of a captured `config.get`: the places the release masks are masked, and no other.
#[test]
fn a_captured_config_is_masked_like_the_release() {
    let original = json!({"gateway": {"mode": "local", "port": 28789, "bind": "loopback", "auth": {"mode": "token", "token": "x1"},
        "http": {"endpoints": {"chatCompletions": {"enabled": true}, "responses": {"enabled": true}}}},
        "models": {"mode": "merge", "providers": {"fake": {"baseUrl": "http://127.0.0.1:28990/v1", "apiKey": "x2",
        "api": "openai-completions", "models": [{"id": "fake-model", "name": "Fake", "reasoning": false, "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}, "contextWindow": 128_000, "maxTokens": 4096}]}}},
        "agents": {"defaults": {"model": {"primary": "fake/fake-model"}}}});
    let mut expected = original.clone();
    expected["gateway"]["auth"]["token"] = json!(MARKER);
    expected["models"]["providers"]["fake"]["apiKey"] = json!(MARKER);
    assert_eq!(value(&original), expected);
}

#[test]
fn p_54_get_then_set_keeps_originals_and_references() {
    let original = parsed();
    assert_eq!(restore(&value(&original), &original), Ok(original.clone()));
    assert_eq!(restore_raw(&raw(CONFIG).unwrap(), CONFIG).as_deref(), Ok(CONFIG));
    // With an edit in between.
    let mut edited = value(&original);
    edited["gateway"]["port"] = json!(1);
    edited["gateway"]["auth"]["password"] = json!("new-one");
    let mut expected = original.clone();
    expected["gateway"]["port"] = json!(1);
    expected["gateway"]["auth"]["password"] = json!("new-one");
    assert_eq!(restore(&edited, &original), Ok(expected));
    let text = raw(CONFIG).unwrap().replace("port: 18789", "port: 1").replace("/hooks", "/h");
    let expected = CONFIG.replace("port: 18789", "port: 1").replace("/hooks", "/h");
    assert_eq!(restore_raw(&text, CONFIG), Ok(expected));
}

#[test]
fn a_marker_never_takes_another_places_secret() {
    let check = |edited: Value, original: Value, expected: Result<Value, &str>| {
        let got = restore(&edited, &original).map_err(|e| match e {
            RestoreError::NoOriginal { path } => path,
            RestoreError::Syntax { .. } => unreachable!(),
        });
        assert_eq!(got, expected.map_err(str::to_owned), "{edited}");
    };
    let m = MARKER;
    check(json!({"hooks": {"token": m}}), json!({}), Err("hooks.token"));
    check(
        json!({"gateway": {"auth": {"password": m}}}),
        json!({"gateway": {"auth": {"token": "a1"}}}),
        Err("gateway.auth.password"),
    );
    check(json!({"messages": {"x": m}}), json!({"messages": {"x": "plain"}}), Err("messages.x"));
    let url = |host: &str| json!({"gateway": {"remote": {"url": format!("wss://{m}@{host}")}}});
    let original = json!({"gateway": {"remote": {"url": "wss://u:p@a"}}});
    check(url("a"), original.clone(), Ok(original.clone()));
    check(url("evil"), original, Err("gateway.remote.url"));
    // Lists: by id, by growth, by uniqueness; otherwise refused.
    let list = |items: Value| json!({"channels": {"x": {"accounts": items}}});
    let both = list(json!([{"id": "a", "token": "t-a"}, {"id": "b", "token": "t-b"}]));
    check(
        list(json!([{"id": "b", "token": m}, {"id": "a", "token": m, "n": 1}])),
        both.clone(),
        Ok(list(json!([{"id": "b", "token": "t-b"}, {"id": "a", "token": "t-a", "n": 1}]))),
    );
    check(list(json!([{"id": "c", "token": m}])), both, Err("channels.x.accounts.0.token"));
    let tokens = |items: Value| json!({"x": {"tokens": items}});
    let two = tokens(json!(["one", "two"]));
    check(tokens(json!([m, m, "three"])), two.clone(), Ok(tokens(json!(["one", "two", "three"]))));
    check(tokens(json!([m])), two.clone(), Err("x.tokens.0"));
    check(tokens(json!(["new", m])), two, Err("x.tokens.1"));
}

#[test]
fn patches_lose_their_unchanged_markers() {
    let original =
        json!({"gateway": {"port": 1, "auth": {"token": "t0k3n", "mode": "token"}}, "x": {"tokens": ["a1", "b2"]}});
    let patch = json!({"gateway": {"port": 2, "auth": {"token": MARKER}}, "x": {"tokens": [MARKER, MARKER, "c3"]}});
    let expected = json!({"gateway": {"port": 2, "auth": {}}, "x": {"tokens": ["a1", "b2", "c3"]}});
    assert_eq!(restore_patch(&patch, &original), Ok(expected));
    let wrong = json!({"gateway": {"auth": {"password": MARKER}}});
    assert!(restore_patch(&wrong, &original).is_err());
    let null = json!({"gateway": null});
    assert_eq!(restore_patch(&null, &original), Ok(null));
}

#[test]
fn a_secret_like_the_marker_itself() {
    let original = json!({"gateway": {"auth": {"token": "REDACTED", "password": "OPENCLAW"}}});
    let shown = value(&original);
    assert_eq!(shown, json!({"gateway": {"auth": {"token": MARKER, "password": MARKER}}}));
    assert_eq!(restore(&shown, &original), Ok(original));
}

#[test]
fn numbers_come_back_as_numbers() {
    let original = json!({"gateway": {"auth": {"token": 12_345_678}}});
    let shown = value(&original);
    assert_eq!(shown, json!({"gateway": {"auth": {"token": MARKER}}}));
    assert_eq!(restore(&shown, &original), Ok(original));
    let text = "{ gateway: { auth: { token: 12345678 } } } // 12345678";
    let masked = raw(text).unwrap();
    assert!(!masked.contains("12345678"), "{masked}");
    assert_eq!(restore_raw(&masked, text).as_deref(), Ok(text));
}

#[test]
fn a_text_that_does_not_parse_is_not_shown() {
    // An open quote in a comment does not take the comment's end with it.
    let text = "{ a: 1, /* token: \"sesame */\n}";
    assert_eq!(raw(text), Some(format!("{{ a: 1, /* token: \"{MARKER}*/\n}}")));
    assert_eq!(raw("{ token: 'sesame' "), None);
    assert_eq!(raw(""), Some(String::new()));
}

#[test]
fn single_leaves() {
    let config = parsed();
    let check = |path: &str, expected: bool| assert_eq!(is_secret(&config, &path.parse().unwrap()), expected, "{path}");
    check("gateway.auth.token", true);
    check("gateway.port", false);
    check("gateway.auth", false);
    check("channels.telegram.accounts[0].token", true);
    check("gateway.nope", false);
    check("mcp.servers.s.env.NAME", true);
}

/// A config of many secrets is still shown and saved: nothing is compared with everything.
#[test]
fn many_secrets() {
    let keys: Vec<_> = (0..20_000).map(|i| json!(format!("secret-number-{i}"))).collect();
    let original = json!({"x": {"tokens": keys, "note": "secret-number-7"}});
    let shown = value(&original);
    assert!(!shown.to_string().contains("secret-number"));
    assert_eq!(restore(&shown, &original), Ok(original));
}
