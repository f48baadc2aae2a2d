use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::json;

use super::*;
use crate::Profile;

struct Machine {
    dir: tempfile::TempDir,
    paths: Paths,
    env: Env,
}

fn machine() -> Machine {
    machine_with(&[])
}

fn machine_with(vars: &[(&str, &str)]) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let env =
        Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())].into_iter().chain(vars.iter().copied()));
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    Machine { dir, paths, env }
}

impl Machine {
    fn with(self, text: &str) -> Self {
        fs::write(&self.paths.config_file, text).unwrap();
        self
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(name)).ok()
    }

    fn text(&self) -> String {
        self.file("openclaw.json").unwrap()
    }

    fn editor(&self) -> Editor<'_> {
        Editor::new(&self.paths, &self.env)
    }

    fn set(&self, path: &str, value: Value) -> Result<Outcome, WriteError> {
        self.set_as(path, value, SetMode::Set)
    }

    fn set_as(&self, path: &str, value: Value, mode: SetMode) -> Result<Outcome, WriteError> {
        self.editor().apply(&[Edit::Set { path: path.parse().unwrap(), value, mode }], &Options::default())
    }

    fn unset(&self, path: &str) -> Result<Outcome, WriteError> {
        self.editor().apply(&[Edit::Unset { path: path.parse().unwrap() }], &Options::default())
    }

    fn patch(&self, text: &str, options: &Options) -> Result<Outcome, WriteError> {
        self.editor().apply(&[Edit::Patch { value: parse_patch(text)?, replace: Vec::new() }], options)
    }
}

fn changed(outcome: &Outcome) -> Vec<String> {
    outcome.changes.iter().map(|change| change.path.to_string()).collect()
}

const COMMENTED: &str = "// my gateway\n{\n  // where\n  gateway: {\n    port: 18790, // not the default\n    auth: { token: 'abc' /* keep */ },\n  },\n}\n";

#[test]
fn comments_and_layout_stay() {
    let m = machine().with(COMMENTED);
    let outcome = m.set("gateway.port", json!(18_791)).unwrap();
    assert_eq!(changed(&outcome), ["gateway.port"]);
    assert_eq!(outcome.reload(), Reload::Restart);
    assert!(!outcome.comments_lost && !outcome.noop);
    assert_eq!(m.text(), COMMENTED.replace("18790", "18791"));
    m.set("gateway.bind", json!("lan")).unwrap();
    m.set("gateway.auth.mode", json!("token")).unwrap();
    let text = m.text();
    for comment in ["// my gateway", "// where", "// not the default", "/* keep */"] {
        assert!(text.contains(comment), "{text}");
    }
    m.unset("gateway.bind").unwrap();
    m.unset("gateway.auth.mode").unwrap();
    let doc = Document::load(&m.paths, &m.env).unwrap();
    assert_eq!(doc.resolved(), json!({"gateway": {"port": 18_791, "auth": {"token": "abc"}}}));
}

#[test]
fn a_first_set_makes_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("new").join("state");
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", state.to_str().unwrap())]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    let edit = Edit::Set { path: "gateway.mode".parse().unwrap(), value: json!("remote"), mode: SetMode::Set };
    let outcome = Editor::new(&paths, &env).apply(&[edit], &Options::default()).unwrap();
    assert_eq!(outcome.backup, None);
    assert_eq!(
        fs::read_to_string(&paths.config_file).unwrap(),
        "{\n  \"gateway\": {\n    \"mode\": \"remote\"\n  }\n}\n"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&paths.config_file), mode(&state)), (0o600, 0o700));
}

#[test]
fn a_noop_leaves_the_bytes_and_makes_no_backup() {
    let m = machine().with(COMMENTED);
    let outcome = m.set("gateway.port", json!(18_790)).unwrap();
    assert!(outcome.noop && outcome.changes.is_empty());
    assert_eq!(m.text(), COMMENTED);
    assert_eq!(m.file("openclaw.json.bak"), None);
    assert!(m.patch("{}", &Options::default()).unwrap().noop);
}

#[test]
fn an_invalid_result_is_never_written() {
    let m = machine().with(COMMENTED);
    let error = m.set("gateway.port", json!("x")).unwrap_err();
    assert!(error.to_string().contains("gateway.port: Invalid input: expected number, received string"), "{error}");
    let WriteError::Invalid { rejected: Some(rejected), .. } = error else { panic!("{error}") };
    assert!(fs::read_to_string(&rejected).unwrap().contains("\"x\""));
    assert_eq!(fs::metadata(&rejected).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(rejected.file_name().unwrap(), "openclaw.json.rejected.1");
    assert_eq!(m.text(), COMMENTED);
    for _ in 0..7 {
        assert!(m.set("gateway.port", json!("y")).is_err());
    }
    let kept = fs::read_dir(m.dir.path()).unwrap().flatten();
    assert_eq!(kept.filter(|e| e.file_name().to_string_lossy().contains(".rejected.")).count(), 5);
    // Unknown keys are only a warning.
    let outcome = m.set("gateway.auth.tokn", json!("x")).unwrap();
    assert_eq!(outcome.warnings[0].suggestion.as_deref(), Some("gateway.auth.token"));
}

#[test]
fn a_file_that_does_not_load_is_never_overwritten() {
    for broken in ["{ gateway: ", "", "[]", "{ $include: 'gone.json' }"] {
        let m = machine().with(broken);
        assert!(matches!(m.set("gateway.port", json!(1)), Err(WriteError::Unreadable(_))), "{broken:?}");
        assert!(matches!(m.editor().replace_all("{}", &Options::default()), Err(WriteError::Unreadable(_))));
        assert_eq!(m.text(), broken);
    }
}

#[test]
fn the_ring_keeps_five_and_undo_swaps() {
    let m = machine().with("{gateway:{port:1}}");
    for port in 2..=8 {
        m.set("gateway.port", json!(port)).unwrap();
    }
    let ports = [
        "openclaw.json",
        "openclaw.json.bak",
        "openclaw.json.bak.1",
        "openclaw.json.bak.2",
        "openclaw.json.bak.3",
        "openclaw.json.bak.4",
    ]
    .map(|name| m.file(name).unwrap());
    assert_eq!(ports, ["8", "7", "6", "5", "4", "3"].map(|port| format!("{{gateway:{{port:{port}}}}}")));
    assert_eq!(m.file("openclaw.json.last-good").as_ref(), Some(&ports[0]));
    let outcome = m.editor().undo(&Options::default()).unwrap();
    assert_eq!(changed(&outcome), ["gateway.port"]);
    assert_eq!(
        (m.text().as_str(), m.file("openclaw.json.bak").as_deref()),
        ("{gateway:{port:7}}", Some("{gateway:{port:8}}"))
    );
    m.editor().undo(&Options::default()).unwrap();
    assert_eq!(m.text(), "{gateway:{port:8}}");
    for entry in fs::read_dir(m.dir.path()).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn undo_repairs_a_broken_file_and_refuses_a_broken_backup() {
    let m = machine().with("{gateway:{port:1}}");
    assert!(matches!(m.editor().undo(&Options::default()), Err(WriteError::NothingToUndo { .. })));
    m.set("gateway.port", json!(2)).unwrap();
    fs::write(&m.paths.config_file, "{ broken by hand").unwrap();
    m.editor().undo(&Options::default()).unwrap();
    assert_eq!(m.text(), "{gateway:{port:1}}");
    assert_eq!(m.file("openclaw.json.bak").as_deref(), Some("{ broken by hand"));
    assert!(matches!(m.editor().undo(&Options::default()), Err(WriteError::BadBackup(_))));
    fs::write(m.dir.path().join("openclaw.json.bak"), "{gateway:{port:'x'}}").unwrap();
    assert!(matches!(m.editor().undo(&Options::default()), Err(WriteError::Invalid { .. })));
    assert_eq!(m.text(), "{gateway:{port:1}}");
}

#[test]
fn a_cut_off_undo_is_finished_or_taken_back() {
    let undo = "openclaw.json.bak.undo";
    // Killed after the file was replaced: the newer text becomes the backup.
    let m = machine().with("{gateway:{port:1}}");
    fs::write(m.dir.path().join("openclaw.json.bak"), "{gateway:{port:1}}").unwrap();
    fs::write(m.dir.path().join(undo), "{gateway:{port:2}}").unwrap();
    m.set("gateway.port", json!(1)).unwrap();
    assert_eq!((m.file("openclaw.json.bak").as_deref(), m.file(undo)), (Some("{gateway:{port:2}}"), None));
    // Killed before: both are as they were.
    fs::write(m.dir.path().join(undo), m.text()).unwrap();
    m.set("gateway.port", json!(1)).unwrap();
    assert_eq!((m.file("openclaw.json.bak").as_deref(), m.file(undo)), (Some("{gateway:{port:2}}"), None));
}

#[test]
fn the_base_hash_guards_against_lost_updates() {
    let m = machine().with(COMMENTED);
    let hash = Document::load(&m.paths, &m.env).unwrap().hash();
    let options = Options { base_hash: Some(hash.clone()), ..Options::default() };
    m.patch("{gateway:{port:1}}", &options).unwrap();
    let error = m.patch("{gateway:{port:2}}", &options).unwrap_err();
    assert_eq!(error.to_string(), "config changed since last load; re-run config.get and retry");
    assert_eq!(error.kind(), "conflict");
    assert!(m.text().contains("port: 1,"));
}

#[test]
fn concurrent_writers_lose_no_update() {
    let m = machine().with("{}");
    std::thread::scope(|scope| {
        for i in 0..8 {
            let m = &m;
            scope.spawn(move || m.set(&format!("env.vars.V{i}"), json!("x")).unwrap());
        }
    });
    let doc = Document::load(&m.paths, &m.env).unwrap();
    assert_eq!(doc.get("env.vars").unwrap().as_object().unwrap().len(), 8);
}

#[test]
fn read_only_and_links() {
    let m = machine_with(&[("OPENCLAW_CONFIG_READONLY", "1")]).with(COMMENTED);
    assert!(matches!(m.set("gateway.port", json!(1)), Err(WriteError::ReadOnly)));
    let dry = Options { dry_run: true, ..Options::default() };
    assert_eq!(changed(&m.patch("{gateway:{port:1}}", &dry).unwrap()), ["gateway.port"]);
    assert_eq!(m.text(), COMMENTED);

    let m = machine();
    let real = m.dir.path().join("real.json");
    fs::write(&real, COMMENTED).unwrap();
    std::os::unix::fs::symlink(&real, &m.paths.config_file).unwrap();
    assert!(matches!(m.set("gateway.port", json!(1)), Err(WriteError::File(FileError::Symlink { .. }))));
    assert_eq!(fs::read_to_string(&real).unwrap(), COMMENTED);
    assert_eq!(Document::load(&m.paths, &m.env).unwrap().get("gateway.port").unwrap().as_i64(), Some(18_790));
}

#[test]
fn set_paths() {
    let check = |before: &str, path: &str, value: Value, after: Result<Value, &str>| {
        let m = machine().with(before);
        match (m.set(path, value), after) {
            (Ok(outcome), Ok(after)) => assert_eq!(*outcome.document.source_value(), after, "{path}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, after) => panic!("{path}: {got:?} {after:?}"),
        }
    };
    check(
        "{}",
        "gateway.trustedProxies[0]",
        json!("10.0.0.1"),
        Ok(json!({"gateway": {"trustedProxies": ["10.0.0.1"]}})),
    );
    check("{}", "agents.list[0].name", json!("x"), Ok(json!({"agents": {"list": [{"name": "x"}]}})));
    check(
        "{agents:{list:[{id:'a'}]}}",
        "agents.list.0.name",
        json!("x"),
        Ok(json!({"agents": {"list": [{"id": "a", "name": "x"}]}})),
    );
    check("{agents:{list:[]}}", "agents.list[2]", json!({}), Err("the next index is 0"));
    check(
        "{}",
        "plugins.entries[\"my.plugin\"].enabled",
        json!(true),
        Ok(json!({"plugins": {"entries": {"my.plugin": {"enabled": true}}}})),
    );
    check("{gateway:{port:1}}", "gateway.port.x", json!(1), Err("gateway.port is a number"));
    check("{gateway:{port:1,bind:'lan'}}", "gateway", json!({"port": 2}), Ok(json!({"gateway": {"port": 2}})));
    check("{models:{providers:{a:{},b:{}}}}", "models.providers", json!({"a": {}}), Err("would drop b"));
    check(
        "{models:{providers:{a:{}}}}",
        "models.providers",
        json!({"a": {}, "c": {}}),
        Ok(json!({"models": {"providers": {"a": {}, "c": {}}}})),
    );
}

#[test]
fn set_modes() {
    let m = machine().with("{models:{providers:{a:{baseUrl:'u',api:'x'},b:{}}}}");
    m.set_as("models.providers", json!({"a": {"api": "y"}}), SetMode::Merge).unwrap();
    let doc = Document::load(&m.paths, &m.env).unwrap();
    assert_eq!(doc.resolved(), json!({"models": {"providers": {"a": {"baseUrl": "u", "api": "y"}, "b": {}}}}));
    m.set_as("models.providers", json!({"c": {}}), SetMode::Replace).unwrap();
    assert_eq!(Document::load(&m.paths, &m.env).unwrap().resolved(), json!({"models": {"providers": {"c": {}}}}));
    // RFC 7396 also where nothing was to merge with.
    m.set_as("models.providers.d", json!({"api": "y", "baseUrl": null}), SetMode::Merge).unwrap();
    let doc = Document::load(&m.paths, &m.env).unwrap();
    assert_eq!(doc.resolved(), json!({"models": {"providers": {"c": {}, "d": {"api": "y"}}}}));
}

#[test]
fn unset_of_what_is_not_there() {
    let m = machine().with(COMMENTED);
    let error = m.unset("gateway.bind").unwrap_err();
    assert!(error.to_string().starts_with("Config path not found: gateway.bind. Nothing was changed."), "{error}");
    assert_eq!(error.kind(), "missing-path");
}

#[test]
fn includes_are_kept_and_named() {
    let m = machine().with("{ gateway: { $include: 'gw.json' } }");
    fs::write(m.dir.path().join("gw.json"), "{ port: 1, trustedProxies: ['10.0.0.1'], auth: { token: '${T}' } }")
        .unwrap();
    m.set("gateway.bind", json!("lan")).unwrap();
    m.set("gateway.port", json!(2)).unwrap();
    let doc = Document::load(&m.paths, &m.env).unwrap();
    assert_eq!(*doc.source_value(), json!({"gateway": {"$include": "gw.json", "bind": "lan", "port": 2}}));
    assert_eq!(doc.get("gateway.port").unwrap().as_i64(), Some(2));
    assert!(m.unset("gateway.auth").unwrap_err().to_string().contains("gw.json; edit it there"));
    assert!(m.set("gateway.trustedProxies[1]", json!("10.0.0.2")).unwrap_err().to_string().contains("edit it there"));
}

#[test]
fn references_stay_references() {
    let m = machine_with(&[("T", "sesame")]).with("{gateway:{auth:{token:'${T}',password:{source:'env',id:'P'}}}}");
    m.set("gateway.port", json!(1)).unwrap();
    for name in ["openclaw.json", "openclaw.json.bak", "openclaw.json.last-good"] {
        let text = m.file(name).unwrap();
        assert!(text.contains("${T}") && text.contains("source") && !text.contains("sesame"), "{name}: {text}");
    }
}

#[test]
fn patches_merge_replace_and_delete() {
    let m =
        machine().with("{gateway:{port:1,bind:'lan',auth:{token:'t',mode:'token'}},agents:{defaults:{workspace:'w'}}}");
    let outcome =
        m.patch("{gateway:{port:2,bind:null,auth:{mode:null},trustedProxies:['::1']}}", &Options::default()).unwrap();
    assert_eq!(changed(&outcome), ["gateway.port", "gateway.bind", "gateway.auth.mode", "gateway.trustedProxies"]);
    assert_eq!(
        *outcome.document.source_value(),
        json!({"gateway": {"port": 2, "auth": {"token": "t"}, "trustedProxies": ["::1"]}, "agents": {"defaults": {"workspace": "w"}}})
    );
    let edit =
        Edit::Patch { value: json!({"gateway": {"auth": {"token": "u"}}}), replace: vec!["gateway".parse().unwrap()] };
    let outcome = m.editor().apply(&[edit], &Options::default()).unwrap();
    assert_eq!(outcome.document.source_value()["gateway"], json!({"auth": {"token": "u"}}));
}

#[test]
fn inputs() {
    let set = |text: &str| parse_set_value(text, false);
    assert_eq!(set("remote"), Ok(json!("remote")));
    assert_eq!(set("12345"), Ok(json!(12_345)));
    assert_eq!(set("'12345'"), Ok(json!("12345")));
    assert_eq!(set("{a: 1, }"), Ok(json!({"a": 1})));
    assert_eq!(set("ws://127.0.0.1:18789"), Ok(json!("ws://127.0.0.1:18789")));
    assert_eq!(set("//host/share"), Ok(json!("//host/share")));
    assert_eq!(set(""), Ok(json!("")));
    assert_eq!(set("[1, 2"), Ok(json!("[1, 2")));
    assert!(matches!(set("{__proto__: {x: 1}}"), Err(InputError::Reserved { .. })));
    assert!(matches!(set("{a: 1, a: 2}"), Err(InputError::Duplicate { .. })));
    assert_eq!(parse_set_value("\"x\"", true), Ok(json!("x")));
    let Err(InputError::StrictJson { line: 1, column: 1, .. }) = parse_set_value("remote", true) else { panic!() };
    assert!(parse_set_value("{a: 1}", true).is_err() && parse_set_value("[1,]", true).is_err());
}

#[test]
fn p_55_hostile_patches_are_refused() {
    let m = machine().with(COMMENTED);
    let check = |text: &str, part: &str| {
        let error = parse_patch(text).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    check("{__proto__:{gateway:{auth:{mode:'none'}}}}", "\"__proto__\" at <root> is reserved");
    check("{gateway:{\"constructor\":{}}}", "reserved");
    check("{gateway:{auth:{mode:'token'},auth:{mode:'none'}}}", "written twice");
    check("{'gateway.auth.mode':'none'}", "is a path and not a key");
    check("[]", "is an object");
    check("7", "is an object");
    check("{", "JSON5 parse failed");
    for text in ["{gateway:{__proto__:1}}", "{gateway:1,gateway:{}}"] {
        assert!(matches!(m.editor().replace_all(text, &Options::default()), Err(WriteError::Input(_))), "{text}");
    }
    assert_eq!(m.text(), COMMENTED);
}

#[test]
fn p_55_guarded_changes_need_confirmation() {
    const BASE: &str = "{gateway:{auth:{mode:'token',token:'t0k3n',rateLimit:{maxAttempts:5}},\
        controlUi:{allowedOrigins:['https://a']},trustedProxies:['10.0.0.1'],tls:{enabled:true},remote:{tlsFingerprint:'%F'}}}";
    let base = BASE.replace("%F", &"ab".repeat(32));
    let check = |patch: &str, expected: &[&str]| {
        let m = machine().with(&base);
        let options = Options { refuse_guarded: true, ..Options::default() };
        let found: Vec<_> = match m.patch(patch, &options) {
            Err(WriteError::Guarded(guarded)) => guarded.into_iter().map(|g| g.path).collect(),
            Ok(_) => Vec::new(),
            Err(error) => panic!("{patch}: {error}"),
        };
        assert_eq!(found, expected, "{patch}");
        assert_eq!(m.text() == base, !expected.is_empty(), "{patch}");
        // With confirmation it is done, and said.
        assert_eq!(m.patch(patch, &Options::default()).unwrap().guarded.is_empty(), expected.is_empty());
    };
    check("{gateway:{auth:{mode:'none'}}}", &["gateway.auth.mode"]);
    check("{gateway:{auth:{mode:'trusted-proxy',trustedProxy:{userHeader:'x'}}}}", &["gateway.auth.mode"]);
    check("{gateway:{auth:{token:null}}}", &["gateway.auth.token"]);
    check("{gateway:{auth:{token:' '}}}", &["gateway.auth.token"]);
    check("{gateway:{auth:null}}", &["gateway.auth.token"]);
    check("{gateway:null}", &["gateway.auth.token", "gateway.tls.enabled", "gateway.remote.tlsFingerprint"]);
    for bind in ["lan", "tailnet", "auto", "custom"] {
        check(&format!("{{gateway:{{bind:'{bind}'}}}}"), &["gateway.bind"]);
    }
    check("{gateway:{bind:'custom',customBindHost:'0.0.0.0'}}", &["gateway.bind", "gateway.customBindHost"]);
    check("{gateway:{controlUi:{allowedOrigins:['https://a','*']}}}", &["gateway.controlUi.allowedOrigins"]);
    check("{gateway:{controlUi:{allowedOrigins:['https://*.example.com']}}}", &["gateway.controlUi.allowedOrigins"]);
    check("{gateway:{trustedProxies:['0.0.0.0/0']}}", &["gateway.trustedProxies"]);
    check("{gateway:{trustedProxies:['::/0']}}", &["gateway.trustedProxies"]);
    check("{gateway:{controlUi:{allowInsecureAuth:true}}}", &["gateway.controlUi.allowInsecureAuth"]);
    check(
        "{gateway:{controlUi:{dangerouslyDisableDeviceAuth:true}}}",
        &["gateway.controlUi.dangerouslyDisableDeviceAuth"],
    );
    check("{channels:{x:{dangerouslyAllowAll:true}}}", &["channels.x.dangerouslyAllowAll"]);
    check("{gateway:{allowRealIpFallback:true}}", &["gateway.allowRealIpFallback"]);
    check("{gateway:{auth:{allowTailscale:true}}}", &["gateway.auth.allowTailscale"]);
    check("{gateway:{tailscale:{mode:'funnel'}}}", &["gateway.tailscale.mode"]);
    check(
        "{gateway:{nodes:{pairing:{autoApproveCidrs:['10.0.0.0/24']}}}}",
        &["gateway.nodes.pairing.autoApproveCidrs"],
    );
    check("{gateway:{auth:{rateLimit:{maxAttempts:100000}}}}", &["gateway.auth.rateLimit"]);
    check("{gateway:{tls:{enabled:false}}}", &["gateway.tls.enabled"]);
    check("{gateway:{remote:{tlsFingerprint:null}}}", &["gateway.remote.tlsFingerprint"]);
    // Not weaker.
    check("{gateway:{auth:{token:'an0ther'},port:1,bind:'loopback'}}", &[]);
    check("{gateway:{auth:{mode:'password',password:'p4ss'}}}", &[]);
    check("{gateway:{controlUi:{allowedOrigins:[]},trustedProxies:null}}", &[]);
}

#[test]
fn display_of_values() {
    assert_eq!(display_value(&json!("x")), "x");
    assert_eq!(display_value(&json!(7)), "7");
    assert_eq!(display_value(&json!({"a": [1]})), "{\n  \"a\": [\n    1\n  ]\n}");
}

#[test]
fn last_good_is_remembered_and_loads() {
    let m = machine().with(COMMENTED);
    remember_good(&m.paths, &Document::load(&m.paths, &m.env).unwrap());
    fs::write(&m.paths.config_file, "{ broken").unwrap();
    let kept = Document::load_last_good(&m.paths, &m.env).unwrap().unwrap();
    assert_eq!(kept.raw(), COMMENTED);
    assert_eq!(fs::metadata(m.paths.last_known_good()).unwrap().permissions().mode() & 0o777, 0o600);
    remember_good(&m.paths, &Document::empty(&m.paths));
    assert_eq!(m.file("openclaw.json.last-good").as_deref(), Some(COMMENTED));
}

mod round_trips {
    use proptest::{collection, prelude::*, sample::select};

    use super::*;

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[\\x00-\\x7f\\u{2028}é😀]{0,6}".prop_map(Value::from),
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![select(vec!["a", "b", "c d", "e.f", "0", "ü"]).prop_map(str::to_owned), "[a-z]{1,4}"]
    }

    fn tree() -> impl Strategy<Value = Value> {
        leaf().prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                collection::btree_map(key(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        collection::btree_map(key(), tree(), 0..5).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// JSON5 text of a value with a comment at every entry.
    fn commented(value: &Value, depth: usize) -> String {
        let indent = "  ".repeat(depth + 1);
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                let lines = entries.iter().map(|(key, value)| {
                    format!(
                        "{indent}// about {depth}\n{indent}{}: {},\n",
                        Value::from(key.as_str()),
                        commented(value, depth + 1)
                    )
                });
                format!("{{\n{}{}}}", lines.collect::<String>(), "  ".repeat(depth))
            }
            Value::Array(items) if !items.is_empty() => {
                let items: Vec<_> = items.iter().map(|item| commented(item, depth + 1)).collect();
                format!("[{} /* last */]", items.join(", "))
            }
            other => other.to_string(),
        }
    }

    fn parse(text: &str) -> Value {
        let options = crate::document::parse::options();
        crate::document::parse::parse(text, &Default::default(), &options)
            .unwrap_or_else(|e| panic!("{} {text}", e.reason))
            .root
            .map_or(Value::Null, |root| root.to_value())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_change_keeps_comments_and_gives_the_value(before in object(), after in object()) {
            let text = format!("// head\n{}\n// tail\n", commented(&before, 0));
            prop_assert_eq!(parse(&text), before);
            let (rewritten, lost) = sync::rewrite(&text, &after);
            prop_assert_eq!(parse(&rewritten), after);
            prop_assert!(!lost, "{}", text);
            prop_assert!(rewritten.starts_with("// head\n") && rewritten.contains("// tail"), "{}", rewritten);
        }

        #[test]
        fn set_then_unset_gives_the_value_back(before in object(), name in "[a-z]{5,8}", value in tree()) {
            let text = commented(&before, 0);
            let mut with = before.clone();
            with[&name] = value;
            let (set, _) = sync::rewrite(&text, &with);
            let (unset, lost) = sync::rewrite(&set, &before);
            prop_assert_eq!(parse(&unset), before);
            prop_assert!(!lost);
        }

        #[test]
        fn redaction_is_undone_exactly(config in object(), token in "[a-zA-Z0-9]{8,20}") {
            let mut config = config;
            config["token"] = Value::from(token.clone());
            config["copy"] = Value::from(format!("it is {token}."));
            let masked = crate::redact::value(&config);
            prop_assert!(!masked["copy"].to_string().contains(&token) && masked["token"] != config["token"]);
            prop_assert_eq!(crate::redact::restore(&masked, &config), Ok(config.clone()));
            let text = commented(&config, 0);
            let shown = crate::redact::raw(&text).unwrap();
            prop_assert_eq!(parse(&shown), masked);
            prop_assert_eq!(parse(&crate::redact::restore_raw(&shown, &text).unwrap()), config);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let env = Env::from_pairs([("OPENCLAW_STATE_DIR", "/nowhere")]);
            let paths = Paths::resolve(&env, Profile::Default).unwrap();
            if let Ok(doc) = Document::from_text(&text, &paths, &env) {
                schema::validate(&doc);
            }
            let _ = crate::redact::raw(&text);
            let _ = crate::redact::restore_raw(&text, "{}");
            let _ = parse_patch(&text);
            let _ = text.parse::<ConfigPath>();
        }
    }
}
