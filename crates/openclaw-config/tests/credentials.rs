//! The 149 vectors of `reference/credentials.json`, replayed from a copy of the file as it is.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise.

use openclaw_config::{
    AuthMode, Mode,
    credentials::{
        Configured, ConnectionInput, EnvInputs, FlagInputs, Inputs, Reading, State, Surface, UrlSource, resolve,
    },
};
use openclaw_protocol::Secret;
use serde_json::Value;

fn secret(value: &Value, key: &str) -> Option<Secret> {
    value.get(key).and_then(Value::as_str).map(Secret::new)
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn configured(config: &Value, key: &str) -> Configured<'static> {
    match config.get(key) {
        None => Configured::Unset,
        Some(Value::String(plain)) => Configured::Value(Secret::new(plain.clone())),
        Some(reference) => {
            assert!(reference["secretRef"].is_object(), "{key}");
            let reading = match reference["resolvable"].as_bool() {
                Some(true) => Reading::Value(Secret::new(reference["value"].as_str().unwrap())),
                Some(false) => Reading::Unresolved("made unreadable".to_owned()),
                None => panic!("{key}: resolvable is missing"),
            };
            Configured::Deferred(Box::new(move || reading.clone()))
        }
    }
}

fn inputs(case: &Value) -> Inputs<'static> {
    let (flags, env, config) = (&case["flags"], &case["env"], &case["config"]);
    Inputs {
        surface: match case["surface"].as_str().unwrap() {
            "call" => Surface::Call,
            "probe" => Surface::Probe,
            "status" => Surface::Status,
            "node-host" => Surface::NodeHost,
            other => panic!("unknown surface {other}"),
        },
        mode: Mode::parse(case["mode"].as_str().unwrap()).unwrap(),
        auth_mode: text(config, "auth.mode").map(|mode| AuthMode::parse(&mode).unwrap()),
        flags: FlagInputs {
            url: text(flags, "url"),
            token: secret(flags, "token"),
            password: secret(flags, "password"),
        },
        env: EnvInputs {
            url: text(env, "OPENCLAW_GATEWAY_URL"),
            token: secret(env, "OPENCLAW_GATEWAY_TOKEN"),
            password: secret(env, "OPENCLAW_GATEWAY_PASSWORD"),
        },
        auth_token: configured(config, "auth.token"),
        auth_password: configured(config, "auth.password"),
        connection: None,
        remote_url: text(config, "remote.url"),
        ssh_target: None,
        remote_token: configured(config, "remote.token"),
        remote_password: configured(config, "remote.password"),
        generated: None,
        local_url: "ws://127.0.0.1:18789".to_owned(),
    }
}

/// What happened, in the words of the file's `expect`.
fn outcome(case: &Value) -> Value {
    let expected_warning = case["expect"].get("warning").is_some();
    match resolve(&inputs(case)) {
        Ok(found) => {
            let used: Vec<_> = found
                .considered
                .iter()
                .filter(|row| row.field != "url" && row.state == State::Used)
                .map(|row| row.name)
                .collect();
            let sources: Vec<_> = [found.token_source, found.password_source].into_iter().flatten().collect();
            assert_eq!(used, sources, "the table tells what was sent: {}", case["id"]);
            let mut outcome = serde_json::json!({
                "token": found.token.as_ref().map(Secret::expose),
                "tokenSource": found.token_source,
                "password": found.password.as_ref().map(Secret::expose),
                "passwordSource": found.password_source,
            });
            if expected_warning && let [warning] = found.warnings.as_slice() {
                outcome["warning"] = warning.code.into();
                outcome["path"] = warning.path.clone().into();
            }
            outcome
        }
        Err(error) => {
            let mut outcome = serde_json::json!({"error": error.code()});
            if let (Some(path), "secretref-unresolved") = (error.path(), error.code()) {
                outcome["path"] = path.into();
                assert!(error.to_string().contains(path));
            }
            outcome
        }
    }
}

#[test]
fn all_vectors() {
    let file: Value = serde_json::from_str(include_str!("data/credentials.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 149);
    assert_eq!(file["count"], 149);
    let mut wrong = Vec::new();
    for case in cases {
        let found = outcome(case);
        if found != case["expect"] {
            wrong.push(format!("{} expected {} found {found}", case["id"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn local() -> Inputs<'static> {
    let case = serde_json::json!({"surface": "call", "mode": "local", "flags": {}, "env": {}, "config": {}});
    inputs(&case)
}

#[test]
fn the_generated_token_is_the_last_local_source() {
    let generated = || Some(Secret::new("GEN"));
    let sent = |inputs: Inputs<'_>| resolve(&inputs).unwrap().token_source;
    assert_eq!(sent(Inputs { generated: generated(), ..local() }), Some("generated"));
    let remote_token = || Configured::Value(Secret::new("RT"));
    assert_eq!(
        sent(Inputs { generated: generated(), remote_token: remote_token(), ..local() }),
        Some("config:gateway.remote.token")
    );
    let password = Configured::Value(Secret::new("CP"));
    assert_eq!(sent(Inputs { generated: generated(), auth_password: password, ..local() }), None);
    for mode in [AuthMode::None, AuthMode::Password, AuthMode::TrustedProxy] {
        assert_eq!(sent(Inputs { generated: generated(), auth_mode: Some(mode), ..local() }), None, "{mode}");
    }
    let inactive = Configured::Unresolved("gone".to_owned());
    let none = Inputs { generated: generated(), auth_mode: Some(AuthMode::None), auth_token: inactive, ..local() };
    assert_eq!(sent(none), None);
    let broken = Configured::Unresolved("gone".to_owned());
    assert!(resolve(&Inputs { generated: generated(), auth_token: broken, ..local() }).is_err());
    let remote =
        Inputs { mode: Mode::Remote, remote_url: Some("wss://gw".to_owned()), generated: generated(), ..local() };
    assert_eq!(sent(remote), None);
    let flags = FlagInputs { url: Some("ws://127.0.0.1:18789".to_owned()), ..FlagInputs::default() };
    assert_eq!(
        resolve(&Inputs { generated: generated(), flags, ..local() }).unwrap_err().code(),
        "explicit-credentials-required"
    );
}

/// The local server's secret never stands in for a remote one that is broken.
#[test]
fn a_broken_remote_secret_does_not_leak_the_local_one() {
    let broken = || Configured::Unresolved("gone".to_owned());
    let base = || Inputs { mode: Mode::Remote, remote_url: Some("wss://gw".to_owned()), ..local() };
    let token = Inputs { remote_token: broken(), auth_token: Configured::Value(Secret::new("CT")), ..base() };
    assert_eq!(resolve(&token).unwrap_err().path(), Some("gateway.remote.token"));
    let password = Inputs { remote_password: broken(), auth_password: Configured::Value(Secret::new("CP")), ..base() };
    assert_eq!(resolve(&password).unwrap_err().path(), Some("gateway.remote.password"));
}

#[test]
fn a_secret_behind_a_used_one_is_never_read() {
    let unread = || Configured::Deferred(Box::new(|| panic!("it was read")));
    let env =
        || EnvInputs { token: Some(Secret::new("ET")), password: Some(Secret::new("EP")), ..EnvInputs::default() };
    let inputs = Inputs {
        env: env(),
        auth_token: unread(),
        auth_password: unread(),
        remote_token: unread(),
        remote_password: unread(),
        ..local()
    };
    let found = resolve(&inputs).unwrap();
    assert_eq!(found.token_source, Some("env:OPENCLAW_GATEWAY_TOKEN"));
    let row = |name: &str| found.considered.iter().find(|row| row.name == name).unwrap().state.clone();
    assert_eq!(row("config:gateway.auth.token"), State::Ignored("the environment comes first".to_owned()));
    assert_eq!(row("generated"), State::Absent);
}

#[test]
fn errors_say_what_to_do() {
    let flags = FlagInputs { url: Some("ws://h".to_owned()), ..FlagInputs::default() };
    let error = resolve(&Inputs {
        flags,
        env: EnvInputs { token: Some(Secret::new("ET")), ..EnvInputs::default() },
        ..local()
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "gateway url override requires explicit credentials");
    assert!(error.fix()[0].contains("--token or --password"));
    let urls: Vec<_> = error
        .considered
        .iter()
        .filter(|row| row.field == "url" && row.state != State::Absent)
        .map(|row| (row.name, row.state.clone()))
        .collect();
    let ignored = State::Ignored("a source of higher rank is used".to_owned());
    assert_eq!(urls, [("explicit", State::Used), ("local loopback", ignored)]);
    let row = error.considered.iter().find(|row| row.name == "env:OPENCLAW_GATEWAY_TOKEN").unwrap();
    assert_eq!(row.state, State::Ignored("--url never inherits a credential".to_owned()));
    assert_eq!(row.fingerprint.as_deref(), Some(Secret::new("ET").fingerprint().as_str()));
    let remote = resolve(&Inputs { mode: Mode::Remote, ..local() }).unwrap_err();
    assert_eq!(remote.to_string(), "gateway remote mode misconfigured: gateway.remote.url missing");
    let broken = Inputs { auth_token: Configured::Unresolved("gone".to_owned()), ..local() };
    let error = resolve(&broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gateway.auth.token is configured as a secret reference but is unavailable in this command path."
    );
    assert!(error.fix().join(" ").contains("OPENCLAW_GATEWAY_TOKEN"));
}

/// `--url`, `--on`, the variable, the current connection, the config: in this order.
#[test]
fn which_gateway_is_meant() {
    let remote = || Inputs {
        mode: Mode::Remote,
        remote_url: Some("wss://gw".to_owned()),
        remote_token: Configured::Value(Secret::new("RT")),
        ssh_target: Some("me@box".to_owned()),
        ..local()
    };
    let chosen = |by_flag| Some(ConnectionInput { name: "home".parse().unwrap(), by_flag });
    let given =
        |url: &str| FlagInputs { url: Some(url.to_owned()), token: Some(Secret::new("XT")), ..Default::default() };
    let env = |url: &str| EnvInputs { url: Some(url.to_owned()), token: Some(Secret::new("ET")), ..Default::default() };
    let check = |inputs: Inputs<'_>, source: UrlSource, url: &str, token: Option<&str>| {
        let found = resolve(&inputs).unwrap();
        let token_sent = found.token.as_ref().map(Secret::expose);
        assert_eq!((found.url_source, found.url.as_str(), token_sent), (source, url, token));
        let used: Vec<_> =
            found.considered.iter().filter(|row| row.field == "url" && row.state == State::Used).collect();
        assert_eq!(used.len(), 1, "{used:?}");
    };
    let by_flag = || Inputs { connection: chosen(true), ..remote() };
    let current = || Inputs { connection: chosen(false), ..remote() };
    check(Inputs { flags: given("ws://u"), env: env("ws://e"), ..by_flag() }, UrlSource::Flag, "ws://u", Some("XT"));
    check(Inputs { env: env("ws://e"), ..by_flag() }, UrlSource::On, "home", None);
    check(Inputs { env: env("ws://e"), ..current() }, UrlSource::Env, "ws://e", Some("ET"));
    check(current(), UrlSource::Current, "home", None);
    check(remote(), UrlSource::RemoteConfig, "wss://gw", Some("RT"));
    check(Inputs { remote_url: None, ..remote() }, UrlSource::SshTarget, "me@box", Some("RT"));
    check(Inputs { mode: Mode::Local, ..remote() }, UrlSource::LocalLoopback, "ws://127.0.0.1:18789", Some("RT"));
    let neither = Inputs { remote_url: None, ssh_target: None, ..remote() };
    assert_eq!(resolve(&neither).unwrap_err().code(), "remote-url-missing");
}

/// A saved connection proves itself with this device's token: the secrets of other gateways stay here.
#[test]
fn p_84_a_saved_connection_borrows_no_secret() {
    let inputs = Inputs {
        connection: Some(ConnectionInput { name: "home".parse().unwrap(), by_flag: true }),
        env: EnvInputs { token: Some(Secret::new("ET")), password: Some(Secret::new("EP")), ..EnvInputs::default() },
        auth_token: Configured::Value(Secret::new("CT")),
        remote_token: Configured::Value(Secret::new("RT")),
        generated: Some(Secret::new("GEN")),
        ..local()
    };
    let found = resolve(&inputs).unwrap();
    assert!(found.token.is_none() && found.password.is_none());
    let row = |name: &str| found.considered.iter().find(|row| row.name == name).unwrap().state.clone();
    for name in ["env:OPENCLAW_GATEWAY_TOKEN", "config:gateway.auth.token", "config:gateway.remote.token", "generated"]
    {
        assert!(matches!(row(name), State::Ignored(reason) if reason.contains("saved connection")), "{name}");
    }
    let flags = FlagInputs { token: Some(Secret::new("XT")), ..FlagInputs::default() };
    assert_eq!(resolve(&Inputs { flags, ..inputs }).unwrap().token_source, Some("explicit"));
}
