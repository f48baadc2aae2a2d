use super::*;
use crate::{Document, Env, Paths, Profile};

fn check(text: &str) -> Validation {
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", "/nowhere")]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    validate(&Document::from_text(text, &paths, &env).unwrap())
}

fn errors(text: &str) -> Vec<String> {
    check(text).errors.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let found = check(text);
    assert_eq!(found.errors, [], "{text}");
    found.warnings.iter().map(ToString::to_string).collect()
}

/// Texts of config.md section 2, observed on the release.
#[test]
fn observed_validation_texts() {
    let case = |text: &str, expected: &str| assert_eq!(errors(text), [expected], "{text}");
    case("{gateway:{port:'1'}}", "gateway.port: Invalid input: expected number, received string");
    case("{gateway:{port:65536}}", "gateway.port: Too big: expected number to be <=65535 (maximum: 65535)");
    case("{gateway:{port:0}}", "gateway.port: Too small: expected number to be >=1 (minimum: 1)");
    case("{gateway:{port:1.5}}", "gateway.port: Invalid input: expected int, received number");
    case(
        "{gateway:{bind:'0.0.0.0'}}",
        "gateway.bind: Invalid input (allowed: \"auto\", \"lan\", \"loopback\", \"custom\", \"tailnet\")",
    );
    case("{gateway:{mode:'both'}}", "gateway.mode: Invalid input (allowed: \"local\", \"remote\")");
    case(
        "{gateway:{auth:{trustedProxy:{}}}}",
        "gateway.auth.trustedProxy.userHeader: Invalid input: expected string, received undefined",
    );
    case(
        "{gateway:{remote:{token:12345}}}",
        "gateway.remote.token: Invalid input: expected string or SecretRef, received number",
    );
    case("{gateway:[]}", "gateway: Invalid input: expected object, received array");
    case("{gateway:{trustedProxies:'x'}}", "gateway.trustedProxies: Invalid input: expected array, received string");
    case("{gateway:{tls:{certPath:'a'}}}", "gateway.tls: certPath and keyPath must be set together");
    case("{gateway:{remote:{edgeAuth:{'X Y':'a'}}}}", "gateway.remote.edgeAuth[\"X Y\"]: not a header name");
    case(
        "{gateway:{remote:{edgeAuth:{Host:'a'}}}}",
        "gateway.remote.edgeAuth.Host: the connection sets this header itself",
    );
    case(
        "{gateway:{remote:{edgeAuth:{'X-A':'a','x-a':'b'}}}}",
        "gateway.remote.edgeAuth.x-a: the same header is there twice, in different case",
    );
    assert_eq!(errors("{gateway:{remote:{edgeAuth:{'CF-Access-Client-Id':'a'}}}}"), Vec::<String>::new());
    case(
        "{gateway:{auth:{token:{source:'env',id:'x y'}}}}",
        "gateway.auth.token: Invalid input: the id of an env SecretRef must be a variable name such as GATEWAY_TOKEN",
    );
    assert_eq!(errors("{gateway:{remote:{url:'any string'}}}"), Vec::<String>::new());
}

#[test]
fn messages_never_hold_values() {
    let text = "{gateway:{auth:{token:['sesame'],mode:'sesame'},bind:'sesame',customBindHost:'sesame'}}";
    let found = errors(text);
    assert_eq!(found.len(), 4);
    assert!(!found.join("\n").contains("sesame"), "{found:?}");
}

#[test]
fn unknown_keys_warn_with_a_suggestion() {
    let case = |text: &str, expected: &str| assert_eq!(warnings(text), [expected], "{text}");
    case(
        "{gateway:{auth:{tokn:'x'}}}",
        "gateway.auth.tokn: Unrecognized key: \"tokn\"; it is ignored (did you mean gateway.auth.token?)",
    );
    case("{gatway:{}}", "gatway: Unrecognized key: \"gatway\"; it is ignored (did you mean gateway?)");
    case(
        "{gateway:{token:'x'}}",
        "gateway.token: Unrecognized key: \"token\"; it is ignored (did you mean gateway.auth.token?)",
    );
    case("{gateway:{zzzzzzzz:1}}", "gateway.zzzzzzzz: Unrecognized key: \"zzzzzzzz\"; it is ignored");
    case(
        "{gateway:{auth:{rateLimit:{maxAttemps:1}}}}",
        "gateway.auth.rateLimit.maxAttemps: Unrecognized key: \"maxAttemps\"; it is ignored (did you mean gateway.auth.rateLimit.maxAttempts?)",
    );
    case(
        "{channels:{telegram:{botTokn:'x'}}}",
        "channels.telegram.botTokn: Unrecognized key: \"botTokn\"; it is ignored (did you mean channels.telegram.botToken?)",
    );
    case("{meta:1,\nmeta:2}", "meta: the key is written twice in one object; the last one counts");
    assert_eq!(check("{\n\n gatway:{}}").warnings[0].line(), Some(3));
    assert_eq!(
        warnings("{channels:{matrix:{homeserver:'x'}},agents:{defaults:{somethingNew:1}}}"),
        Vec::<String>::new()
    );
    case(
        "{gateway:{trustedProxies:['proxy']}}",
        "gateway.trustedProxies.0: expected an IP address or a network such as 10.0.0.0/8; this entry is ignored",
    );
}

#[test]
fn unset_variables_warn() {
    let expected = "gateway.auth.token: the environment variable NOPE is unset, so this value counts as unset";
    assert_eq!(warnings("{gateway:{auth:{token:'${NOPE}'}}}"), [expected]);
    assert_eq!(warnings("{gateway:{auth:{token:'$${NOPE}'}}}"), Vec::<String>::new());
}

/// C-17 and the keys of protocol-3 configs: accepted without a word.
#[test]
fn dropped_and_older_keys_are_known() {
    let text = "{gateway:{tailscale:{resetOnExit:true},controlUi:{allowInsecureAuth:true},discovery:{enabled:true},\
                nodes:{allowCommands:['a'],denyCommands:['b']}},agents:{list:[{id:'main',name:'x'}]},\
                discovery:{enabled:true}}";
    assert_eq!(warnings(text), Vec::<String>::new());
}

/// The onboarding result of the release and its captured config.
#[test]
fn configs_of_the_release_are_clean() {
    let text = r#"{"gateway":{"mode":"local","port":28789,"bind":"loopback","auth":{"mode":"token","token":"x"},
      "tailscale":{"mode":"off"},"http":{"endpoints":{"chatCompletions":{"enabled":true},"responses":{"enabled":true}}}},
      "models":{"mode":"merge","providers":{"fake":{"baseUrl":"http://127.0.0.1:28990/v1","apiKey":"x","api":"openai-completions",
      "models":[{"id":"fake-model","name":"Fake","reasoning":false,"input":["text"],"cost":{"input":0},"contextWindow":128000}]}}},
      "agents":{"defaults":{"model":{"primary":"fake/fake-model"},"workspace":"~/w"},"entries":{"main":{}}},
      "wizard":{"lastRunMode":"local"},"meta":{"lastTouchedVersion":"2026.9.6"},
      "commands":{"native":"auto","nativeSkills":"auto","restart":true},"messages":{"ackReactionScope":"group-mentions"}}"#;
    assert_eq!(warnings(text), Vec::<String>::new());
}

#[test]
fn reload_kinds() {
    let case = |path: &str, expected: Reload| {
        assert_eq!(reload_kind(&path.parse().unwrap()), expected, "{path}");
    };
    case("gateway.port", Reload::Restart);
    case("gateway.auth.token", Reload::Hot);
    case("gateway.controlUi.allowedOrigins[0]", Reload::Hot);
    case("gateway.remote.url", Reload::None);
    case("gateway", Reload::Restart);
    case("gateway.auth", Reload::Hot);
    case("meta.lastTouchedVersion", Reload::None);
    case("channels.telegram.botToken", Reload::Hot);
    case("nonsense.x", Reload::None);
}

/// The captured answer of `config.schema.lookup` for this path.
#[test]
fn lookup_answers_like_the_release() {
    let found = lookup(&"gateway.port".parse().unwrap()).unwrap();
    assert_eq!(found.schema, serde_json::json!({"type": "integer", "minimum": 1, "maximum": 65535}));
    assert_eq!((found.reload.as_str(), found.path.as_str()), ("restart", "gateway.port"));
    assert!(found.children.is_empty());
    assert!(lookup(&"gateway.auth".parse().unwrap()).unwrap().children.contains(&"token".to_owned()));
    assert!(lookup(&"gateway.tokn".parse().unwrap()).is_none());
    assert!(lookup(&"plugins.entries.x.y".parse().unwrap()).is_some());
}

#[test]
fn the_schema_describes_every_section() {
    let schema = json_schema();
    for section in ["gateway", "channels", "agents", "models", "session", "logging", "hooks", "env", "secrets"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    assert_eq!(schema["properties"]["gateway"]["properties"]["auth"]["properties"]["mode"]["enum"][1], "token");
}
