use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::paths::Profile;

struct Machine {
    dir: tempfile::TempDir,
    paths: Paths,
    env: Env,
}

fn machine(vars: &[(&str, &str)]) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", home), ("HOME", home)].into_iter().chain(vars.iter().copied()));
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    Machine { dir, paths, env }
}

impl Machine {
    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Resolves `gateway.auth.token`; `%D` in the config stands for the directory.
    fn token(&self, config: &str) -> Result<Option<String>, String> {
        let text = config.replace("%D", self.dir.path().to_str().unwrap());
        let doc = Document::from_text(&text, &self.paths, &self.env).unwrap();
        let context = SecretContext { env: &self.env, doc: &doc, paths: &self.paths };
        let input = SecretInput::read(&doc, "gateway.auth.token").expect("the config has a token");
        match resolve(&input, &context) {
            Ok(secret) => Ok(secret.map(|s| s.expose().to_owned())),
            Err(error) => {
                assert_eq!(error.path, "gateway.auth.token");
                Err(error.to_string())
            }
        }
    }

    #[track_caller]
    fn refused(&self, config: &str, reason: &str) {
        let error = self.token(config).unwrap_err();
        assert!(error.contains(reason) && error.starts_with("gateway.auth.token is configured as a secret"), "{error}");
    }
}

fn with_token(token: &str, providers: &str) -> String {
    format!("{{gateway:{{auth:{{token:{token}}}}},secrets:{{providers:{{{providers}}}}}}}")
}

#[test]
fn plain_blank_and_unsubstituted() {
    let m = machine(&[("SET", " sesame ")]);
    assert_eq!(m.token(&with_token("'  abc '", "")), Ok(Some("abc".to_owned())));
    assert_eq!(m.token(&with_token("'${SET}'", "")), Ok(Some("sesame".to_owned())));
    assert_eq!(m.token(&with_token("' '", "")), Ok(None));
    m.refused(&with_token("'${UNSET}'", ""), "the variable UNSET is unset");
    m.refused(&with_token("[1]", ""), "neither text nor a SecretRef");
}

#[test]
fn references_are_checked() {
    let m = machine(&[]);
    let check = |reference: &str, valid: bool| {
        let doc = Document::from_text(&with_token(reference, ""), &m.paths, &m.env).unwrap();
        assert_eq!(SecretRef::parse(doc.get("gateway.auth.token").unwrap()).is_ok(), valid, "{reference}");
    };
    check("{source:'env',provider:'default',id:'TOKEN'}", true);
    check("{source:'env',id:'TOKEN_2'}", true);
    check("{source:'file',provider:'f',id:'/a/b'}", true);
    check("{source:'file',provider:'f',id:'value'}", true);
    check("{source:'exec',provider:'v',id:'providers/openai/apiKey#1'}", true);
    check("{source:'store',id:'gateway.token'}", true);
    for bad in [
        "{}",
        "{source:'env'}",
        "{source:'vault',id:'X'}",
        "{source:'env',id:'lower'}",
        "{source:'env',id:'1A'}",
        "{source:'env',provider:'Bad',id:'X'}",
        "{source:'env',provider:7,id:'X'}",
        "{source:'env',id:'X',value:'leak'}",
        "{source:'file',id:'a'}",
        "{source:'exec',id:'../x'}",
        "{source:'exec',id:'a/./b'}",
        "{source:'store',id:''}",
    ] {
        check(bad, false);
    }
}

#[test]
fn env_source() {
    let m = machine(&[("TOKEN", "sesame"), ("EMPTY", "")]);
    let reference = "{source:'env',provider:'default',id:'TOKEN'}";
    assert_eq!(m.token(&with_token(reference, "")), Ok(Some("sesame".to_owned())));
    m.refused(&with_token("{source:'env',id:'NOPE'}", ""), "the variable NOPE is unset");
    m.refused(&with_token("{source:'env',id:'EMPTY'}", ""), "the variable EMPTY is unset");
    m.refused(&with_token(reference, "default:{source:'env',allowlist:['OTHER']}"), "allowlist does not have TOKEN");
    m.refused(&with_token(reference, "default:{source:'file',path:'/x'}"), "of source file");
    let block = "{gateway:{auth:{token:{source:'env',id:'FROM_BLOCK'}}},env:{vars:{FROM_BLOCK:'b'}}}";
    assert_eq!(m.token(block), Ok(Some("b".to_owned())));
}

#[test]
fn defaults_name_the_provider() {
    let m = machine(&[]);
    m.file("s.json", r#"{"t":"sesame"}"#, 0o600);
    let config = "{gateway:{auth:{token:{source:'file',id:'/t'}}},\
                  secrets:{providers:{main:{source:'file',path:'%D/s.json'}},defaults:{file:'main'}}}";
    assert_eq!(m.token(config), Ok(Some("sesame".to_owned())));
}

#[test]
fn file_source() {
    let m = machine(&[]);
    m.file("s.json", r#"{"a":{"b/c":"sesame","n":1}}"#, 0o600);
    m.file("one", "sesame\n", 0o444);
    m.file("loose", "sesame", 0o666);
    m.file("broken.json", "{ sesame", 0o600);
    let json = |id: &str| {
        with_token(&format!("{{source:'file',provider:'f',id:'{id}'}}"), "f:{source:'file',path:'~/s.json'}")
    };
    assert_eq!(m.token(&json("/a/b~1c")), Ok(Some("sesame".to_owned())));
    m.refused(&json("/a/x"), "has nothing at /a/x");
    m.refused(&json("/a/n"), "has no text at /a/n");
    let one = |path: &str, more: &str| {
        let provider = format!("f:{{source:'file',path:'{path}',mode:'singleValue'{more}}}");
        with_token("{source:'file',provider:'f',id:'value'}", &provider)
    };
    assert_eq!(m.token(&one("%D/one", "")), Ok(Some("sesame".to_owned())));
    m.refused(&one("%D/loose", ""), "written by others");
    m.refused(&one("%D/gone", ""), "cannot open");
    m.refused(&one("relative", ""), "not absolute");
    m.refused(&one("%D", ""), "not a regular file");
    m.refused(&one("%D/one", ",maxBytes:3"), "larger than 3 bytes");
    m.refused(&json("value").replace("s.json", "broken.json"), "is not JSON (line 1)");
    m.refused(&with_token("{source:'file',provider:'nope',id:'/x'}", ""), "secrets.providers.nope is not configured");
}

#[test]
fn exec_source() {
    let m = machine(&[("PASSED", "yes"), ("HELD", "back")]);
    let script = |name: &str, body: &str| m.file(name, &format!("#!/bin/sh\n{body}\n"), 0o700);
    script(
        "good",
        r#"read request; printf '{"protocolVersion":1,"values":{"k":"%s|%s|%s|%s"}}' "$1" "$PASSED" "$HELD" "$SET""#,
    );
    script(
        "echo",
        r#"read request; case "$request" in *'"ids":["k"]'*) printf '{"protocolVersion":1,"values":{"k":"asked"}}';; esac"#,
    );
    script("none", r#"printf '{"protocolVersion":1,"values":{},"errors":{"k":{"message":"sesame"}}}'"#);
    script("text", "echo sesame");
    script("fails", "echo sesame; exit 3");
    script("hangs", "sleep 60 & sleep 60");
    script("loud", "while :; do echo sesamesesamesesame; done");
    let token = |name: &str, more: &str| {
        with_token("{source:'exec',provider:'v',id:'k'}", &format!("v:{{source:'exec',command:'%D/{name}'{more}}}"))
    };
    assert_eq!(
        m.token(&token("good", ",args:['a b'],passEnv:['PASSED'],env:{SET:'s'}")),
        Ok(Some("a b|yes||s".to_owned()))
    );
    assert_eq!(m.token(&token("echo", "")), Ok(Some("asked".to_owned())));
    assert_eq!(m.token(&token("text", ",jsonOnly:false")), Ok(Some("sesame".to_owned())));
    let refused = |config: &str, reason: &str| {
        m.refused(config, reason);
        assert!(!m.token(config).unwrap_err().contains("sesame"));
    };
    refused(&token("text", ""), "did not answer in JSON");
    refused(&token("none", ""), "reports an error for k");
    refused(&token("fails", ",jsonOnly:false"), "failed");
    refused(&token("hangs", ",timeoutMs:100"), "took too long");
    refused(&token("hangs", ",noOutputTimeoutMs:100"), "took too long");
    refused(&token("loud", ",maxOutputBytes:1000"), "answered too much");
    refused(&token("gone", ""), "cannot find");
    refused(
        &with_token("{source:'exec',provider:'v',id:'k'}", "v:{source:'exec',command:'sh'}"),
        "not an absolute path",
    );
    std::os::unix::fs::symlink(m.dir.path().join("echo"), m.dir.path().join("link")).unwrap();
    refused(&token("link", ""), "is a symbolic link");
    assert_eq!(m.token(&token("link", ",trustedDirs:['%D']")), Ok(Some("asked".to_owned())));
    refused(&token("echo", ",trustedDirs:['/usr/bin']"), "outside trustedDirs");
    fs::set_permissions(m.dir.path().join("echo"), fs::Permissions::from_mode(0o777)).unwrap();
    refused(&token("echo", ""), "written by others");
}

#[test]
fn store_source() {
    let m = machine(&[]);
    let store = store::SecretStore::new(&m.paths);
    let config = with_token("{source:'store',id:'gw'}", "");
    m.refused(&config, "openclaw secrets store set gw");
    store.set("gw", &Secret::new("sesame")).unwrap();
    store.set("other/x", &Secret::new("2")).unwrap();
    assert_eq!(m.token(&config), Ok(Some("sesame".to_owned())));
    assert_eq!(store.list().unwrap(), ["gw", "other/x"]);
    let mode = fs::metadata(m.paths.secret_store()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(store.delete("gw").unwrap() && !store.delete("gw").unwrap());
    assert!(store.set("../x", &Secret::new("1")).is_err());
    fs::write(m.paths.secret_store(), "{").unwrap();
    assert!(store.set("gw", &Secret::new("1")).unwrap_err().to_string().contains("damaged"));
    assert_eq!(fs::read_to_string(m.paths.secret_store()).unwrap(), "{", "a damaged store is left as it is");
}
