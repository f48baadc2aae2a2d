//! Which credentials go on the wire, seen by a server that records them (checklist S-048…S-050, S-072…S-089).

mod common;

use common::{Capture, Does, World};
use serde_json::{Value, json};

const READ: Does = Does::Hello(&["operator.read", "operator.pairing"]);

/// Every command that takes `--url`.
const COMMANDS: &[&[&str]] = &[
    &["gateway", "call", "health"],
    &["gateway", "health"],
    &["gateway", "probe"],
    &["gateway", "status"],
    &["logs"],
    &["devices", "list"],
    &["devices", "approve", "abcd1234"],
    &["devices", "reject", "abcd1234"],
    &["devices", "remove", "abcd1234"],
    &["devices", "rename", "abcd1234", "--name", "x"],
    &["devices", "rotate", "abcd1234", "--role", "operator"],
    &["devices", "revoke", "abcd1234", "--role", "operator"],
    &["devices", "clear", "--yes"],
    &["pairing", "list"],
    &["pairing", "approve", "abcd1234"],
];

/// Everything a machine could know, none of which may be borrowed for `--url`.
const RICH: &str = r#"{gateway: {auth: {token: "CT", password: "CP"}, remote: {token: "RT", password: "RP"}}}"#;

#[test]
fn s_049_s_050_url_without_credentials_sends_nothing() {
    let capture = Capture::start(READ);
    for command in COMMANDS {
        let world = World::with(RICH).env("OPENCLAW_GATEWAY_TOKEN", "ET").env("OPENCLAW_GATEWAY_PASSWORD", "EP");
        let url = capture.url();
        let ran = world.run(&[command, &["--url", url.as_str()][..]].concat());
        assert_eq!(ran.code, 1, "{command:?}: {ran:?}");
        assert!(ran.err.contains("gateway url override requires explicit credentials"), "{command:?}: {ran:?}");
        assert_eq!(ran.out, "", "{command:?}");
        let ran = world.run(&[command, &["--url", url.as_str(), "--json"][..]].concat());
        assert_eq!(
            (ran.code, ran.json()["error"]["code"].as_str()),
            (1, Some("explicit-credentials-required")),
            "{command:?}"
        );
        // Blank is not given (cli.md section 1).
        let ran = world.run(&[command, &["--url", url.as_str(), "--token", " ", "--password="][..]].concat());
        assert_eq!(ran.code, 1, "{command:?}: {ran:?}");
    }
    assert_eq!(capture.connections(), 0, "not one packet");
}

#[test]
fn s_075_url_takes_only_what_was_given() {
    for command in [
        &["gateway", "call", "health"][..],
        &["gateway", "health"],
        &["gateway", "status"],
        &["devices", "list"],
        &["logs"],
    ] {
        for (flags, expected) in [
            (&["--token", "XT"][..], json!({"token": "XT"})),
            (&["--token", "  XT "], json!({"token": "XT"})),
            (&["--token", "XT", "--password", "XP"], json!({"token": "XT", "password": "XP"})),
        ] {
            let capture = Capture::start(READ);
            let world = World::with(RICH).env("OPENCLAW_GATEWAY_TOKEN", "ET");
            let url = capture.url();
            let ran = world.run(&[command, &["--url", url.as_str()], flags].concat());
            assert_eq!((ran.code, capture.auth()), (0, expected), "{command:?} {flags:?}: {ran:?}");
        }
    }
}

/// One row: variables, config with `PORT` for the server's port, and what goes on the wire for call and for the others.
fn check(name: &str, vars: &[(&str, &str)], config: &str, call: Value, status: Value) {
    for (command, expected) in [
        (&["gateway", "call", "health"][..], &call),
        (&["gateway", "probe"], &status),
        (&["gateway", "status"], &status),
        (&["status"], &status),
    ] {
        let capture = Capture::start(READ);
        let port = capture.port.to_string();
        let fill = |text: &str| text.replace("PORT", &port);
        let world = vars.iter().fold(World::with(&fill(config)), |world, (key, value)| world.env(key, &fill(value)));
        let ran = world.run(command);
        if let Some(error) = expected.get("error") {
            assert_eq!(capture.connections(), 0, "{name} {command:?}: {ran:?}");
            assert!(ran.code != 0 && ran.err.contains(error.as_str().expect("text")), "{name} {command:?}: {ran:?}");
        } else {
            assert_eq!(&capture.auth(), expected, "{name} {command:?}: {ran:?}");
        }
    }
}

/// Name, variables, config, and what is sent.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], String, Value);

#[test]
fn local_mode_precedence() {
    let port = "gateway: {port: PORT,";
    let rows: &[Row<'_>] = &[
        (
            "S-077 env first",
            &[("OPENCLAW_GATEWAY_TOKEN", "ET")],
            format!("{{{port} auth: {{token: 'CT'}}}}}}"),
            json!({"token": "ET"}),
        ),
        (
            "S-077 config next",
            &[],
            format!("{{{port} auth: {{token: 'CT'}}, remote: {{token: 'RT'}}}}}}"),
            json!({"token": "CT"}),
        ),
        ("S-078 remote last", &[], format!("{{{port} remote: {{token: 'RT'}}}}}}"), json!({"token": "RT"})),
        (
            "S-079 password env",
            &[("OPENCLAW_GATEWAY_PASSWORD", "EP")],
            format!("{{{port} auth: {{mode: 'password', password: 'CP'}}}}}}"),
            json!({"password": "EP"}),
        ),
        (
            "S-086 CLAWDBOT is ignored",
            &[("CLAWDBOT_GATEWAY_TOKEN", "OLD")],
            format!("{{{port} auth: {{token: 'CT'}}}}}}"),
            json!({"token": "CT"}),
        ),
        (
            "blank env is unset",
            &[("OPENCLAW_GATEWAY_TOKEN", " ")],
            format!("{{{port} auth: {{token: ' CT '}}}}}}"),
            json!({"token": "CT"}),
        ),
        (
            "S-089 fails closed",
            &[],
            format!(
                "{{{port} auth: {{token: {{source: 'env', provider: 'default', id: 'UNSET'}}}}, remote: {{token: 'RT'}}}}}}"
            ),
            json!({"error": "gateway.auth.token"}),
        ),
    ];
    for (name, vars, config, expected) in rows {
        check(name, vars, config, expected.clone(), expected.clone());
    }
}

#[test]
fn remote_mode_precedence() {
    let remote = |more: &str| {
        format!("{{gateway: {{mode: 'remote', remote: {{url: 'ws://127.0.0.1:PORT'{more}}}, auth: {{token: 'CT'}}}}}}")
    };
    let env: &[(&str, &str)] = &[("OPENCLAW_GATEWAY_TOKEN", "ET")];
    check("S-081 remote first", env, &remote(", token: 'RT'"), json!({"token": "RT"}), json!({"token": "RT"}));
    // S-085: probe and status send nothing but the remote token.
    check("S-081 env next, S-085 strict", env, &remote(""), json!({"token": "ET"}), Value::Null);
    check("S-081 config last, S-085 strict", &[], &remote(""), json!({"token": "CT"}), Value::Null);
    check(
        "S-082 password",
        &[("OPENCLAW_GATEWAY_PASSWORD", "EP")],
        "{gateway: {mode: 'remote', remote: {url: 'ws://127.0.0.1:PORT', password: 'RP'}}}",
        json!({"password": "EP"}),
        json!({"password": "EP"}),
    );
}

#[test]
fn s_076_the_url_variable_takes_only_env_credentials() {
    let url: &[(&str, &str)] = &[("OPENCLAW_GATEWAY_URL", "ws://127.0.0.1:PORT"), ("OPENCLAW_GATEWAY_TOKEN", "ET")];
    check("env url, env token", url, RICH, json!({"token": "ET"}), json!({"token": "ET"}));
    let refused = json!({"error": "gateway url override requires explicit credentials"});
    check("env url alone", &url[..1], RICH, refused.clone(), refused);
}

#[test]
fn s_047_the_port_variable_moves_the_target() {
    let capture = Capture::start(READ);
    let world =
        World::new().env("OPENCLAW_GATEWAY_PORT", &capture.port.to_string()).env("OPENCLAW_GATEWAY_TOKEN", "ET");
    let ran = world.run(&["health", "--json"]);
    assert_eq!((ran.code, ran.json(), capture.auth()), (0, json!({"ok": true}), json!({"token": "ET"})));
}

#[test]
fn p_92_a_dotenv_in_the_working_directory_is_not_read() {
    let capture = Capture::start(READ);
    let world = World::new();
    std::fs::write(
        world.dir.path().join(".env"),
        format!("OPENCLAW_GATEWAY_URL={}\nOPENCLAW_GATEWAY_TOKEN=evil\n", capture.url()),
    )
    .expect("write");
    let ran = world.run(&["gateway", "call", "health", "--port", "1"]);
    assert_eq!((ran.code, capture.connections()), (11, 0), "{ran:?}");
    // The one in the state directory counts, save for what belongs to the process alone (S-149).
    std::fs::create_dir_all(world.state()).expect("state");
    std::fs::write(
        world.state().join(".env"),
        format!("OPENCLAW_GATEWAY_PORT={}\nOPENCLAW_GATEWAY_TOKEN=mine\n", capture.port),
    )
    .expect("write");
    let ran = world.run(&["health"]);
    assert_eq!((ran.code, capture.auth()), (0, json!({"token": "mine"})), "{ran:?}");
}

#[test]
fn s_147_plaintext_to_the_public_is_refused() {
    for url in ["ws://gw.example.com:18789", "ws://8.8.8.8:18789", "http://8.8.8.8:18789"] {
        let ran = World::new().run(&["gateway", "health", "--url", url, "--token", "x"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("SECURITY ERROR") && ran.err.contains("ssh -N -L 18789:127.0.0.1:18789"), "{ran:?}");
    }
    // S-148: names need the switch and still lead to a private address only; S-149: the switch has no config twin.
    let name = &["gateway", "health", "--url", "ws://gw.invalid:18789", "--token", "x", "--timeout", "5000"];
    assert_eq!(
        World::new().env("OPENCLAW_ALLOW_INSECURE_PRIVATE_WS", "1").run(name).code,
        10,
        "now the name is looked up"
    );
    let world = World::with("{env: {vars: {OPENCLAW_ALLOW_INSECURE_PRIVATE_WS: '1'}}}");
    std::fs::write(world.state().join(".env"), "OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1\n").expect("write");
    assert_eq!(world.run(name).code, 1);
}

#[test]
fn p_84_no_stored_token_goes_to_another_url() {
    let capture = Capture::start(READ);
    let world = World::with(RICH);
    // A paired identity with a token for another gateway.
    let identity = world.state().join("identity");
    std::fs::create_dir_all(&identity).expect("identity");
    let tokens = json!({"version": 1, "deviceId": "x", "tokens": {"ws://127.0.0.1:18789": {"operator": {"token": "D",
        "role": "operator", "scopes": ["operator.admin"], "updatedAtMs": 1}}}});
    std::fs::write(identity.join("device-auth.json"), tokens.to_string()).expect("tokens");
    let url = capture.url();
    let ran = world.run(&["gateway", "call", "health", "--url", &url, "--password", "XP"]);
    assert_eq!((ran.code, capture.auth()), (0, json!({"password": "XP"})), "{ran:?}");
}
