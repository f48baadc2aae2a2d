//! Configuration over RPC: P-53 to P-55. (P-56 is in `security_http.rs`.)

use std::sync::atomic::{AtomicU8, Ordering};

use lab::{
    client::{Client, Login},
    sandbox::{Sandbox, Setup},
    wire::read_lossy,
};
use serde_json::{Value, json};

const REDACTED: &str = "__OPENCLAW_REDACTED__";

/// Secrets where people put them: `(where, secret)`.
const SECRETS: &[(&str, &str)] = &[
    ("an alias", "lab-alias-AAAA1111"),
    ("a nested array", "lab-array-BBBB2222"),
    ("a URL's userinfo", "lab-userinfo-CCCC3333"),
    ("a URL's query", "lab-query-DDDD4444"),
    ("an unknown plugin key", "lab-plugin-EEEE5555"),
    ("a header", "lab-header-FFFF6666"),
    ("a provider key", "lab-provider-GGGG7777"),
    ("a channel token", "lab-channel-HHHH8888"),
    ("a commented-out key", "lab-comment-JJJJ9999"),
    ("an environment block", "lab-envvar-KKKK0000"),
];

fn secret(place: &str) -> &'static str {
    SECRETS.iter().find(|(known, _)| *known == place).expect("listed").1
}

/// An administrator from an address that has not written before: writes are counted per address, and these tests are not
/// about that.
fn admin(g: &Sandbox) -> Client {
    static NEXT: AtomicU8 = AtomicU8::new(20);
    let source = g.address_from(NEXT.fetch_add(1, Ordering::Relaxed) % 200 + 20);
    Login::at(&source).token(g.token()).scopes(&["operator.admin"]).hello()
}

fn write(raw: &str, hash: &Value) -> Value {
    json!({"raw": raw, "baseHash": hash})
}

#[test]
fn p_53_patch_ceiling() {
    let g = Setup::new().start();
    let before = read_lossy(&g.config_file());
    for scopes in [
        &[][..],
        &["operator.read"],
        &["operator.write"],
        &["operator.approvals", "operator.questions", "operator.talk", "operator.talk.secrets"],
        &["operator.pairing"],
    ] {
        let mut client = g.paired(scopes).hello();
        for method in ["config.set", "config.patch", "config.apply", "set-heartbeats", "system-event", "secrets.reload"]
        {
            let params = json!({"raw": "{}", "enabled": false, "text": "x"});
            let error = client.err(method, params);
            assert_eq!(error["code"], "FORBIDDEN", "{method} with {scopes:?}: {error}");
            assert_eq!(error["details"]["missingScope"], "operator.admin", "{method} with {scopes:?}: {error}");
        }
        for method in
            ["cron.add", "cron.run", "secrets.store.set", "update.run", "config.openFile", "exec.approvals.set"]
        {
            let error = client.err(method, json!({}));
            let refused = error["message"] == format!("unknown method: {method}") || error["code"] == "FORBIDDEN";
            assert!(refused, "{method} with {scopes:?}: {error}");
        }
    }
    assert_eq!(read_lossy(&g.config_file()), before);
}

#[test]
fn p_54_redaction() {
    let setup = Setup::new();
    let token = setup.token().to_owned();
    let log = setup.state_dir().with_file_name("logs").join("gateway.log");
    let text = format!(
        r#"// token: "{comment}", // the one before
{{
  gateway: {{
    mode: "local",
    auth: {{ mode: "token", token: "{token}" }}, // the shared token
    remote: {{ url: "wss://user:{userinfo}@gw.example/?token={query}", token: "${{OPENCLAW_LAB_REMOTE_TOKEN}}" }},
  }},
  logging: {{ file: {log:?} }},
  models: {{ providers: {{ openai: {{ apiKey: "{provider}", headers: {{ "X-Api-Key": "{header}" }} }} }} }},
  channels: {{ telegram: {{ botToken: "{channel}", accounts: {{ a: {{ bot_token: "{alias}" }} }} }} }},
  plugins: {{ entries: {{ made_up: {{ config: {{ accessKey: "{plugin}", list: [{{ deep: [{{ password: "{array}" }}] }}] }} }} }} }},
  env: {{ vars: {{ SOME_API_TOKEN: "{envvar}" }} }},
  secrets: {{ providers: {{ default: {{ source: "env" }} }} }},
  hooks: {{ token: "${{OPENCLAW_LAB_HOOK_TOKEN}}" }},
}}
"#,
        comment = secret("a commented-out key"),
        userinfo = secret("a URL's userinfo"),
        query = secret("a URL's query"),
        provider = secret("a provider key"),
        header = secret("a header"),
        channel = secret("a channel token"),
        alias = secret("an alias"),
        plugin = secret("an unknown plugin key"),
        array = secret("a nested array"),
        envvar = secret("an environment block"),
        log = log.display().to_string(),
    );
    let env = "lab-from-environment-LLLL";
    let g = setup
        .raw_config(&text)
        .env("OPENCLAW_LAB_REMOTE_TOKEN", env)
        .env("OPENCLAW_LAB_HOOK_TOKEN", "lab-hook-token-MMMM")
        .start();
    let mut admin = g.admin();
    let hidden = |what: &str, shown: &Value| {
        let shown = shown.to_string();
        for (place, secret) in SECRETS {
            assert!(!shown.contains(secret), "{what} shows the secret in {place}: {shown}");
        }
        assert!(!shown.contains(env) && !shown.contains("lab-hook-token-MMMM"), "{what} shows an environment secret");
    };
    let snapshot = admin.ok("config.get", json!({}));
    hidden("config.get", &snapshot);
    assert!(snapshot["raw"].as_str().expect("a text").contains(REDACTED));
    assert_eq!(snapshot["config"]["gateway"]["auth"]["token"], REDACTED);
    hidden("config.schema", &admin.ok("config.schema", json!({})));
    hidden("config.schema.lookup", &admin.ok("config.schema.lookup", json!({"path": "gateway.auth"})));
    for broken in ["{", "{gateway: {auth: {token: 7}}}", "{gateway: {bind: \"everywhere\"}}"] {
        hidden("an error", &admin.err("config.set", write(broken, &snapshot["hash"])));
    }
    // What was read goes back unchanged: masks stand for what is there, references stay references.
    let raw = snapshot["raw"].as_str().expect("a text").to_owned();
    let answer = admin.ok("config.set", write(&raw, &snapshot["hash"]));
    hidden("config.set", &answer);
    assert_eq!(read_lossy(&g.config_file()), text, "a round trip changed the file");
    // Also with a change beside them.
    let changed = raw.replacen("mode: \"local\",", "mode: \"local\", port: 18999,", 1);
    assert_ne!(changed, raw);
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    hidden("config.set", &admin.ok("config.set", write(&changed, &hash)));
    let after = read_lossy(&g.config_file());
    assert!(after.contains("18999") && !after.contains(REDACTED), "{after}");
    for (place, secret) in SECRETS {
        assert!(after.contains(secret), "the secret in {place} is gone: {after}");
    }
    assert!(after.contains("${OPENCLAW_LAB_REMOTE_TOKEN}") && !after.contains(env), "{after}");
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    hidden("config.patch", &admin.ok("config.patch", write("{gateway: {port: 18998}}", &hash)));
    let after = read_lossy(&g.config_file());
    assert!(after.contains(&token) && !after.contains(REDACTED), "{after}");
    assert_eq!(g.with_token().word(), "hello [operator.read]", "T is still T");
    // A mask where there is nothing to stand for is no secret.
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    let masked = format!("{{gateway: {{auth: {{password: \"{REDACTED}\"}}}}}}");
    admin.err("config.patch", write(&masked, &hash));
    let log = g.log();
    for (place, secret) in SECRETS {
        assert!(!log.contains(secret), "the log shows the secret in {place}");
    }
}

#[test]
fn p_55_patch_of_guarded_keys() {
    let g =
        Setup::new().config(json!({"gateway": {"controlUi": {"allowedOrigins": ["https://ui.example.com"]}}})).start();
    let before = read_lossy(&g.config_file());
    let token = g.token();
    let weakening = [
        r#"{"gateway":{"auth":{"mode":"none"}}}"#.to_owned(),
        r#"{"gateway":{"auth":{"mode":"none","token":null}}}"#.to_owned(),
        r#"{"gateway":{"auth":{"token":null}}}"#.to_owned(),
        r#"{"gateway":{"auth":null}}"#.to_owned(),
        r#"{"gateway":null}"#.to_owned(),
        r#"{"gateway":{"bind":"lan"}}"#.to_owned(),
        r#"{"gateway":{"bind":"custom","customBindHost":"0.0.0.0"}}"#.to_owned(),
        r#"{"gateway":{"controlUi":{"allowedOrigins":["*"]}}}"#.to_owned(),
        r#"{"gateway":{"controlUi":{"allowedOrigins":["https://ui.example.com","*"]}}}"#.to_owned(),
        r#"{"gateway":{"controlUi":{"dangerouslyAllowHostHeaderOriginFallback":true}}}"#.to_owned(),
        r#"{"gateway":{"controlUi":{"allowInsecureAuth":true}}}"#.to_owned(),
        r#"{"gateway":{"trustedProxies":["0.0.0.0/0"]}}"#.to_owned(),
        r#"{"gateway":{"trustedProxies":["::/0"]}}"#.to_owned(),
        r#"{"gateway":{"auth":{"rateLimit":{"maxAttempts":1000000}}}}"#.to_owned(),
        r#"{"gateway":{"auth":{"mode":"token"},"auth":{"mode":"none"}}}"#.to_owned(),
        r#"{"gateway":{"mode":"local"},"gateway":{"auth":{"mode":"none"}}}"#.to_owned(),
        r#"{gateway: {auth: {"m\u006fde": "none"}}}"#.to_owned(),
        r#"{gateway: {auth: {mode: 'none',},},}"#.to_owned(),
        r#"{"$include":"/etc/passwd"}"#.to_owned(),
    ];
    for patch in &weakening {
        refused_and_untouched(&g, "config.patch", patch, &before);
    }
    // What only looks like a guarded key changes nothing that is guarded.
    for patch in [
        r#"{"gateway.auth.mode":"none"}"#,
        r#"{"gateway":{"auth.mode":"none"}}"#,
        r#"{"__proto__":{"gateway":{"auth":{"mode":"none"}}}}"#,
        r#"{"gateway":{"__proto__":{"auth":{"mode":"none"}}}}"#,
        r#"{"constructor":{"prototype":{"gateway":{"auth":{"mode":"none"}}}}}"#,
    ] {
        let mut admin = admin(&g);
        let hash = admin.ok("config.get", json!({}))["hash"].clone();
        let _ = admin.call("config.patch", write(patch, &hash));
        still_closed(&g, patch);
        let now = admin.ok("config.get", json!({}))["config"]["gateway"]["auth"]["mode"].clone();
        assert_eq!(now, "token", "{patch}");
    }
    std::fs::write(g.config_file(), &before).expect("writes");
    // The same by replacing the whole text.
    let whole = |auth: &str| {
        format!(r#"{{"gateway":{{"mode":"local","auth":{auth}}},"logging":{{"file":"{}"}}}}"#, g.log_file().display())
    };
    for auth in [r#"{"mode":"none"}"#, "{}", r#"{"mode":"token"}"#] {
        for method in ["config.set", "config.apply"] {
            refused_and_untouched(&g, method, &whole(auth), &before);
        }
    }
    refused_and_untouched(&g, "config.set", "{}", &before);
    // An invalid result is never written, whatever is confirmed.
    for invalid in [
        r#"{"gateway":{"port":"abc"}}"#,
        r#"{"gateway":{"bind":"everywhere"}}"#,
        r#"{"gateway":{"trustedProxies":"10.0.0.0/8"}}"#,
        r#"{"gateway":[]}"#,
        "[]",
        "7",
        "{",
    ] {
        let mut admin = admin(&g);
        let hash = admin.ok("config.get", json!({}))["hash"].clone();
        let mut params = write(invalid, &hash);
        params["confirm"] = json!(["gateway.port", "gateway.bind", "gateway.trustedProxies", "gateway"]);
        admin.err("config.patch", params);
        assert_eq!(read_lossy(&g.config_file()), before, "{invalid} was written");
    }
    // A stale base is refused: nobody overwrites what he has not seen.
    let mut admin = admin(&g);
    admin.err("config.patch", write(r#"{"gateway":{"port":18997}}"#, &json!("0".repeat(64))));
    assert_eq!(read_lossy(&g.config_file()), before);
    // Confirmed by name, it is the owner's choice.
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    let mut params = write(r#"{"gateway":{"controlUi":{"allowedOrigins":["*"]}}}"#, &hash);
    params["confirm"] = json!(["gateway.controlUi.allowedOrigins"]);
    admin.ok("config.patch", params);
    assert!(read_lossy(&g.config_file()).contains('*'));
    assert!(read_lossy(&g.config_file()).contains(token));
}

#[track_caller]
fn refused_and_untouched(g: &Sandbox, method: &str, raw: &str, before: &str) {
    let mut admin = admin(g);
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    let error = admin.err(method, write(raw, &hash));
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{method} {raw}: {error}");
    assert_eq!(read_lossy(&g.config_file()), before, "{method} {raw} changed the file");
    still_closed(g, raw);
}

#[track_caller]
fn still_closed(g: &Sandbox, after: &str) {
    assert_eq!(g.login().scopes(&["operator.admin"]).word(), "DEVICE_IDENTITY_REQUIRED", "{after}");
    let evil = g.with_token().origin("https://evil.example").word();
    assert_eq!(evil, "CONTROL_UI_ORIGIN_NOT_ALLOWED", "{after}");
}
