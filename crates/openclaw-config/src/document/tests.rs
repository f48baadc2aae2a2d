use std::fs;

use serde_json::json;

use super::*;
use crate::paths::Profile;

struct Machine {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn load(&self) -> Result<Document, LoadError> {
        let mut vars = self.env.clone();
        vars.push(("OPENCLAW_STATE_DIR".to_owned(), self.dir.path().to_str().unwrap().to_owned()));
        let env = Env::from_pairs(vars);
        Document::load(&Paths::resolve(&env, Profile::Default).unwrap(), &env)
    }

    /// The error with the directory cut off.
    fn error(&self) -> String {
        let dir = format!("{}/", fs::canonicalize(self.dir.path()).unwrap().display());
        self.load().unwrap_err().to_string().replace(&dir, "")
    }
}

#[test]
fn no_file_is_an_empty_config() {
    let doc = Machine::new().load().unwrap();
    assert!(!doc.exists());
    assert_eq!(doc.resolved(), json!({}));
    assert_eq!(doc.hash(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn p_18_a_broken_file_is_an_error_and_never_an_empty_config() {
    let check = |text: &str, expected: &str| {
        let error = Machine::new().file("openclaw.json", text).error();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    };
    check("", "openclaw.json:1:1: <root>: JSON5 parse failed: the file is empty");
    check("  \n// only a comment\n", "openclaw.json:1:1: <root>: JSON5 parse failed: the file is empty");
    check("{ gateway: {\n", "openclaw.json:1:12: <root>: JSON5 parse failed: Unterminated object");
    check("not json", "openclaw.json:1:1: <root>: JSON5 parse failed");
    check("[]", "openclaw.json:1:1: <root>: Invalid input: expected object, received array");
    let machine = Machine::new();
    fs::write(machine.dir.path().join("openclaw.json"), b"{ \"a\": \"\xff\" }").unwrap();
    assert_eq!(machine.error(), "openclaw.json: the file is not UTF-8 text");
    let machine = Machine::new();
    fs::create_dir(machine.dir.path().join("openclaw.json")).unwrap();
    assert_eq!(machine.error(), "openclaw.json is not a regular file");
    let big = format!("{{\"a\": \"{}\"}}", "x".repeat(2_000_001));
    check(&big, "openclaw.json is larger than 2000000 bytes");
    let machine = Machine::new();
    std::os::unix::fs::symlink("missing", machine.dir.path().join("openclaw.json")).unwrap();
    assert!(machine.error().starts_with("cannot open"), "a dangling link is not an absent config");
}

#[test]
fn values_know_their_place_and_substitution() {
    let machine = Machine::new()
        .var("TOK", "sesame")
        .file("openclaw.json", "{\n  gateway: {\n    auth: { token: '${TOK}', password: '${GONE}' },\n    port: 1 } }");
    let doc = machine.load().unwrap();
    let token = doc.get("gateway.auth.token").unwrap();
    assert_eq!(token.as_str(), Some("sesame"));
    assert_eq!(token.as_text().unwrap().substituted, ["TOK"]);
    assert_eq!((token.provenance.line, token.provenance.column), (3, 20));
    assert_eq!(doc.get("gateway.auth.password").unwrap().as_text().unwrap().unresolved, ["GONE"]);
    assert_eq!(doc.get("gateway.port").unwrap().as_i64(), Some(1));
    assert!(!doc.written().to_string().contains("sesame"));
    assert_eq!(doc.source_value()["gateway"]["auth"]["token"], "${TOK}");
    assert!(doc.get("gateway.nope").is_none());
    assert!(doc.get("..").is_none());
}

#[test]
fn the_env_block_feeds_substitution_but_not_our_own_variables() {
    let machine = Machine::new().var("B", "process").file(
        "openclaw.json",
        "{ env: { vars: { A: 'block', B: 'block', OPENCLAW_GATEWAY_TOKEN: 'x' }, C: 'direct' }, \
           out: '${A} ${B} ${C} ${OPENCLAW_GATEWAY_TOKEN}' }",
    );
    let doc = machine.load().unwrap();
    assert_eq!(doc.get("out").unwrap().as_str(), Some("block process direct ${OPENCLAW_GATEWAY_TOKEN}"));
}

#[test]
fn includes_replace_merge_and_are_overridden() {
    let machine = Machine::new()
        .file(
            "openclaw.json",
            "{ gateway: { $include: 'gw.json' }, agents: { $include: ['a.json', 'sub/b.json'], x: 9 } }",
        )
        .file("gw.json", "// mine\n{ port: 1234 }")
        .file("a.json", "{ x: 1, list: [1], deep: { a: 1, b: 1 } }")
        .file("sub/b.json", "{ $include: './c.json', list: [2], deep: { b: 2 } }")
        .file("sub/c.json", "{ c: true }");
    let doc = machine.load().unwrap();
    assert_eq!(
        doc.resolved(),
        json!({"gateway": {"port": 1234}, "agents": {"x": 9, "list": [1, 2], "deep": {"a": 1, "b": 2}, "c": true}})
    );
    let port = &doc.get("gateway.port").unwrap().provenance;
    assert!(port.file.ends_with("gw.json") && port.line == 2, "{port}");
    assert_eq!(doc.includes().len(), 4);
    assert_ne!(doc.revision(), doc.hash());
}

#[test]
fn include_refusals() {
    let check = |machine: Machine, expected: &str| {
        let error = machine.error();
        assert!(error.contains(expected), "{error}");
    };
    let with = |text: &str| Machine::new().file("openclaw.json", text);
    check(with("{ $include: 'gone.json' }"), "openclaw.json:1:13: $include \"gone.json\": cannot open it");
    check(with("{ $include: 7 }"), "takes a file name");
    check(with("{ $include: '/etc/hostname' }"), "OPENCLAW_INCLUDE_ROOTS");
    check(with("{ $include: '../../../etc/hostname' }"), "$include");
    check(
        with("{ $include: 'a.json' }")
            .file("a.json", "{ $include: 'b.json' }")
            .file("b.json", "{ $include: 'a.json' }"),
        "circular include: a.json -> b.json -> a.json",
    );
    check(with("{ $include: 'openclaw.json' }"), "circular include");
    check(with("{ x: { $include: 'a.json', y: 1 } }").file("a.json", "[1]"), "need the included file to be an object");
    check(with("{ $include: 'a.json' }").file("a.json", "{ broken"), "a.json:1:");
    check(with("{ $include: 'a.json' }").file("a.json", ""), "it is empty");
    check(with("{ $include: 'big.json' }").file("big.json", &" ".repeat(2_000_001)), "larger than 2000000");
    let mut deep = with("{ $include: '0.json' }");
    for i in 0..11 {
        deep = deep.file(&format!("{i}.json"), &format!("{{ $include: '{}.json' }}", i + 1));
    }
    check(deep, "more than 10 levels");
    let linked = with("{ $include: 'link.json' }");
    std::os::unix::fs::symlink("/etc/hostname", linked.dir.path().join("link.json")).unwrap();
    check(linked, "outside the config directory");
}

#[test]
fn include_roots_admit_other_directories() {
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("x.json"), "{ port: 5 }").unwrap();
    let text = format!("{{ gateway: {{ $include: '{}/x.json' }} }}", other.path().display());
    let machine = Machine::new().var("OPENCLAW_INCLUDE_ROOTS", other.path().to_str().unwrap());
    assert_eq!(machine.file("openclaw.json", &text).load().unwrap().get("gateway.port").unwrap().as_i64(), Some(5));
}

#[test]
fn p_76_a_loose_config_is_tightened() {
    use std::os::unix::fs::PermissionsExt as _;
    let machine = Machine::new().file("openclaw.json", "{}");
    let path = machine.dir.path().join("openclaw.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    machine.load().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
