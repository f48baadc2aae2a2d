use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::paths::Profile;

struct Case {
    flags: Flags,
    env: Vec<(&'static str, &'static str)>,
    config: &'static str,
    profile: Profile,
}

fn case() -> Case {
    Case { flags: Flags::default(), env: Vec::new(), config: "{}", profile: Profile::Default }
}

impl Case {
    fn config(self, config: &'static str) -> Self {
        Self { config, ..self }
    }

    fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        let (text, secret) = (Some(value.to_owned()), Some(Secret::new(value)));
        match name {
            "bind" => self.flags.bind = text,
            "port" => self.flags.port = text,
            "auth" => self.flags.auth = text,
            "token" => self.flags.token = secret,
            "password" => self.flags.password = secret,
            "tailscale" => self.flags.tailscale = text,
            _ => unreachable!(),
        }
        self
    }

    fn run(&self) -> Result<ServerSettings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let vars = self.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let env = Env::from_pairs(vars.chain([("OPENCLAW_STATE_DIR".to_owned(), home)]));
        let paths = Paths::resolve(&env, self.profile.clone()).unwrap();
        let doc = Document::from_text(self.config, &paths, &env).unwrap();
        effective_server(&self.flags, &env, &doc, &paths)
    }

    #[track_caller]
    fn refused(self, part: &str, exit: u8) {
        let error = self.run().unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), exit, "{error}");
    }
}

#[test]
fn nothing_configured_is_a_loopback_gateway_with_a_generated_token() {
    let found = case().run().unwrap();
    assert_eq!(found.bind, Sourced::new(BindMode::Loopback, Source::Default));
    assert_eq!(found.port, Sourced::new(18_789, Source::Default));
    assert_eq!(found.auth_mode, Sourced::new(AuthMode::Token, Source::Default));
    assert!(found.needs_generated_token && found.token.is_none());
    let dev = Case { profile: Profile::Dev, ..case() }.run().unwrap();
    assert_eq!(dev.port.value, 19_001);
}

#[test]
fn s_114_flag_environment_file_default() {
    const FILE: &str = "{gateway:{bind:'auto',port:3,auth:{token:'file-token'}}}";
    let full = || {
        case()
            .config(FILE)
            .env("OPENCLAW_GATEWAY_BIND", "lan")
            .env("OPENCLAW_GATEWAY_PORT", "2")
            .env("OPENCLAW_GATEWAY_TOKEN", "env-token")
    };
    let check = |case: Case, bind: BindMode, port: u16, token: &str, source: &str| {
        let found = case.run().unwrap();
        assert_eq!((found.bind.value, found.port.value), (bind, port));
        let got = found.token.clone().unwrap();
        assert_eq!((got.value.expose(), got.source.to_string().as_str()), (token, source));
        assert_eq!(found.auth_source(), &got.source);
    };
    check(case().config(FILE), BindMode::Auto, 3, "file-token", "config gateway.auth.token (openclaw.json:1)");
    check(full(), BindMode::Lan, 2, "env-token", "env OPENCLAW_GATEWAY_TOKEN");
    let flags = full().flag("bind", "loopback").flag("port", "1").flag("token", " flag-token ");
    check(flags, BindMode::Loopback, 1, "flag-token", "--token");
    // Blank is not given, on every layer.
    let blank = full().flag("bind", " ").flag("port", "").flag("token", "");
    check(blank, BindMode::Lan, 2, "env-token", "env OPENCLAW_GATEWAY_TOKEN");
    let unset = case().config(FILE).env("OPENCLAW_GATEWAY_TOKEN", " ").env("OPENCLAW_GATEWAY_PORT", "");
    check(unset, BindMode::Auto, 3, "file-token", "config gateway.auth.token (openclaw.json:1)");
    let password = case().config("{gateway:{auth:{mode:'password',password:'p-file'}}}");
    let found = password.env("OPENCLAW_GATEWAY_PASSWORD", "p-env").flag("password", "p-flag").run().unwrap();
    assert_eq!(found.password.unwrap().value.expose(), "p-flag");
}

#[test]
fn s_105_s_107_every_wider_bind_needs_auth() {
    let check = |bind: &str, config: &'static str| {
        let error = case().config(config).flag("bind", bind).run().unwrap_err();
        assert!(matches!(error, SettingsError::Unauthenticated { .. }), "{error}");
        assert!(error.to_string().contains(&format!("refusing to bind to {bind} without auth")), "{error}");
        assert!(error.to_string().contains(&format!("Refusing to bind gateway to {bind} without auth.")), "{error}");
        assert_eq!(error.exit_code(), 78);
    };
    for bind in ["lan", "tailnet", "custom"] {
        check(bind, "{gateway:{customBindHost:'127.0.0.2'}}");
        check(bind, "{gateway:{customBindHost:'127.0.0.2',auth:{mode:'none'}}}");
        check(bind, "{gateway:{customBindHost:'127.0.0.2',auth:{mode:'none',token:'t0k3n'}}}");
        // A misspelt or misplaced key never counts as auth and never opens anything.
        check(bind, "{gateway:{customBindHost:'127.0.0.2',auth:{tokn:'t0k3n'}}}");
        check(bind, "{gateway:{customBindHost:'127.0.0.2',token:'t0k3n'}}");
        check(bind, "{gateway:{customBindHost:'127.0.0.2',atuh:{mode:'token',token:'t0k3n'}}}");
        // S-087: the client's secrets do not configure a server.
        check(bind, "{gateway:{customBindHost:'127.0.0.2',remote:{token:'t0k3n',password:'p'}}}");
    }
    for auth in ["{auth:{token:'t0k3n'}}", "{auth:{password:'p4ss'}}"] {
        let config: &'static str = if auth.contains("token") {
            "{gateway:{bind:'lan',auth:{token:'t0k3n'}}}"
        } else {
            "{gateway:{bind:'lan',auth:{password:'p4ss'}}}"
        };
        assert!(case().config(config).run().is_ok());
    }
    let proxy = "{gateway:{bind:'lan',trustedProxies:['10.0.0.1'],auth:{mode:'trusted-proxy',trustedProxy:{userHeader:'X-User'}}}}";
    assert_eq!(case().config(proxy).run().unwrap().auth_mode.value, AuthMode::TrustedProxy);
}

#[test]
fn misspelt_auth_on_loopback_still_asks_for_a_token() {
    for config in ["{gateway:{auth:{tokn:'x'}}}", "{gateway:{atuh:{mode:'none'}}}", "{gateway:{auth:{}}}"] {
        let found = case().config(config).run().unwrap();
        assert_eq!(found.auth_mode.value, AuthMode::Token, "{config}");
        assert!(found.needs_generated_token);
        assert!(config.ends_with("{}}}") || !found.warnings.is_empty(), "{config}");
    }
    case().config("{gateway:{auth:{mode:'nonne'}}}").refused("gateway.auth.mode: Invalid input", 78);
}

#[test]
fn the_mode_follows_the_secrets() {
    let mode = |case: Case| case.run().unwrap().auth_mode.value;
    assert_eq!(mode(case().config("{gateway:{auth:{token:'t0k3n'}}}")), AuthMode::Token);
    assert_eq!(mode(case().config("{gateway:{auth:{password:'p4ss'}}}")), AuthMode::Password);
    assert_eq!(mode(case().env("OPENCLAW_GATEWAY_PASSWORD", "p4ss")), AuthMode::Password);
    assert_eq!(mode(case().config("{gateway:{auth:{token:'t0k3n'}}}").flag("password", "p4ss")), AuthMode::Password);
    assert_eq!(mode(case().config("{gateway:{auth:{token:' ',password:'p4ss'}}}")), AuthMode::Password);
    assert_eq!(mode(case().config("{gateway:{auth:{token:'t0k3n'}}}").flag("auth", "none")), AuthMode::None);
    const BOTH: &str = "{gateway:{auth:{token:'t0k3n',password:'p4ss'}}}";
    case().config(BOTH).refused("ambiguous", 78);
    case().config("{gateway:{auth:{token:'t0k3n'}}}").env("OPENCLAW_GATEWAY_PASSWORD", "x").refused("ambiguous", 78);
    assert_eq!(mode(case().config(BOTH).flag("auth", "password")), AuthMode::Password);
    case().config("{gateway:{auth:{mode:'password'}}}").refused("no password is configured", 78);
    case().flag("auth", "password").refused("no password is configured", 78);
}

#[test]
fn p_17_placeholders_and_empty_secrets() {
    let check = |config: &'static str, key: &str| {
        let error = case().config(config).run().unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains(key), "{error}");
        for value in ["changeme", "CHANGEME", "undefined", "null", "PLACEHOLDER_VAR}", "your-token"] {
            assert!(!error.to_string().contains(value), "{error}");
        }
    };
    check("{gateway:{auth:{token:''}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'   '}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'changeme'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:' CHANGEME '}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'undefined'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'null'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'${PLACEHOLDER_VAR}'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'$${PLACEHOLDER_VAR}'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'<your-token>'}}}", "gateway.auth.token");
    check("{gateway:{auth:{token:'__OPENCLAW_REDACTED__'}}}", "gateway.auth.token");
    check("{gateway:{auth:{password:''}}}", "gateway.auth.password");
    check("{gateway:{auth:{mode:'password',password:'changeme'}}}", "gateway.auth.password");
    case().env("OPENCLAW_GATEWAY_TOKEN", "changeme").refused("OPENCLAW_GATEWAY_TOKEN is a placeholder", 78);
    case().flag("token", "${TOKEN}").refused("--token is a placeholder", 78);
}

#[test]
fn p_18_unresolved_references_refuse_the_start() {
    let check = |config: &'static str| {
        case().config(config).refused("required secrets are unavailable", 78);
        case().config(config).refused("gateway.auth.", 78);
    };
    check("{gateway:{auth:{token:{source:'env',id:'NOPE'}}}}");
    check("{gateway:{auth:{mode:'password',password:{source:'file',provider:'gone',id:'/x'}}}}");
    check("{gateway:{bind:'lan',auth:{token:{source:'env',id:'NOPE'}},remote:{token:'t'}}}");
    // The environment comes before the reference, and the other mode's secret is not needed.
    let reference = "{gateway:{auth:{token:{source:'env',id:'NOPE'}}}}";
    assert!(case().config(reference).env("OPENCLAW_GATEWAY_TOKEN", "t0k3n").run().is_ok());
    let inactive = "{gateway:{auth:{mode:'password',password:'p4ss',token:{source:'env',id:'NOPE'}}}}";
    assert!(case().config(inactive).run().is_ok());
}

#[test]
fn other_refusals() {
    case().config("{gateway:{mode:'remote'}}").refused("set gateway.mode=local (current: remote)", 78);
    case().config("{gateway:{port:'x'}}").refused("gateway.port: Invalid input: expected number, received string", 78);
    case().config("{gateway:{bind:'custom',auth:{token:'t0k3n'}}}").refused("gateway.customBindHost is not set", 78);
    case().flag("auth", "trusted-proxy").refused("gateway.trustedProxies is empty", 78);
    case()
        .config("{gateway:{trustedProxies:['10.0.0.1']}}")
        .flag("auth", "trusted-proxy")
        .refused("userHeader is not set", 78);
    case()
        .config("{gateway:{tailscale:{mode:'serve'},bind:'lan',auth:{token:'t0k3n'}}}")
        .refused("needs gateway.bind=loopback", 78);
    case().flag("tailscale", "funnel").refused("needs gateway.auth.mode=password", 78);
    case().env("OPENCLAW_GATEWAY_BIND", "0.0.0.0").refused("OPENCLAW_GATEWAY_BIND is not valid", 78);
    case().env("OPENCLAW_GATEWAY_PORT", "99999").refused("OPENCLAW_GATEWAY_PORT is not valid", 78);
    case().flag("bind", "0.0.0.0").refused("Invalid --bind", 1);
    case().flag("port", "x").refused("Invalid --port", 1);
    case().flag("port", "65536").refused("Invalid --port", 1);
    case().flag("auth", "tokn").refused("Invalid --auth", 1);
    assert_eq!(case().flag("port", "0").run().unwrap().port.value, 0);
}

#[test]
fn p_20_a_hook_token_is_not_the_gateway_secret() {
    case().config("{gateway:{auth:{token:'t0k3n'}},hooks:{token:'t0k3n'}}").refused("hooks.token is the same", 78);
    case()
        .config("{hooks:{token:'t0k3n'}}")
        .env("OPENCLAW_GATEWAY_PASSWORD", "t0k3n")
        .refused("OPENCLAW_GATEWAY_PASSWORD", 78);
    assert!(case().config("{gateway:{auth:{token:'t0k3n'}},hooks:{token:'0ther'}}").run().is_ok());
}

#[test]
fn password_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    fs::write(&file, "p4ss word\n").unwrap();
    let with = |path: &std::path::Path| Case {
        flags: Flags { password_file: Some(path.to_owned()), ..Flags::default() },
        ..case()
    };
    let found = with(&file).run().unwrap();
    assert_eq!(found.password.as_ref().unwrap().value.expose(), "p4ss word");
    assert_eq!(found.auth_mode.source, Source::Flag("--password-file"));
    with(&dir.path().join("gone")).refused("cannot read --password-file", 1);
    fs::write(&file, " \n").unwrap();
    with(&file).refused("it is empty", 1);
    with(&file).flag("password", "x").refused("not both", 1);
}

#[test]
fn limits_from_the_environment() {
    let found = case()
        .config("{gateway:{handshakeTimeoutMs:1000}}")
        .env("OPENCLAW_MAX_PREAUTH_CONNECTIONS_PER_IP", "7")
        .run()
        .unwrap();
    assert_eq!(found.handshake_timeout, Some(Duration::from_secs(1)));
    assert_eq!(found.max_preauth_connections_per_ip, Some(7));
    case().env("OPENCLAW_HANDSHAKE_TIMEOUT_MS", "soon").refused("OPENCLAW_HANDSHAKE_TIMEOUT_MS", 78);
}

#[test]
fn the_generated_token_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", state.to_str().unwrap())]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    assert_eq!(read_generated_token(&paths).unwrap(), None);
    let tokens: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| generated_token(&paths).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    let text = tokens[0].expose();
    assert!(text.len() == 48 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(read_generated_token(&paths).unwrap().as_ref(), Some(&tokens[0]));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&paths.token_file()), mode(&state)), (0o600, 0o700));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no temporary file is left");
    // A damaged file is replaced, a loose one tightened.
    fs::write(paths.token_file(), "  \n").unwrap();
    let renewed = generated_token(&paths).unwrap();
    assert_ne!(renewed, tokens[0]);
    fs::set_permissions(paths.token_file(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(generated_token(&paths).unwrap(), renewed);
    assert_eq!(mode(&paths.token_file()), 0o600);
}
