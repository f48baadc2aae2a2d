//! Config texts: parsing, includes, substitution, paths, redaction.

use std::fs;

use openclaw_config::{
    ConfigPath, Document, Env, GatewayConfig, Node, Paths, Profile,
    document::Kind,
    redact, schema,
    write::{Edit, Editor, Options, SetMode, parse_patch, parse_set_value},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Value of an environment variable; it may be in the effective config and nowhere else.
const CANARY: &str = "canary-3e8a5d0c41";
/// Content of a file no config may include.
const OUTSIDE: &str = "outside-9b2f7c6e10";

thread_local! {
    static WORLD: World = World::new();
}

/// A config directory with files to include, for as long as the thread lives.
struct World {
    paths: Paths,
    env: Env,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("openclaw-fuzz-").tempdir().expect("a temporary directory");
        let state = directory.path().join("state");
        fs::create_dir_all(state.join("sub")).expect("a directory");
        let write = |name: &str, text: &str| fs::write(state.join(name), text).expect("a file");
        write("part.json5", "// part\n{ gateway: { port: 19000, auth: { token: '${SECRET}' } }, list: [1, 2] }");
        write("list.json5", "[3, { a: '$${A}${A}' }]");
        write("text.json5", "'just text'");
        write("loop.json5", "{ x: { $include: 'loop.json5' } }");
        write("bad.json5", "{ a: }");
        write("sub/inner.json5", "{ $include: '../part.json5', list: [4] }");
        for level in 0..12 {
            write(&format!("deep{level}.json5"), &format!("{{ $include: './deep{}.json5' }}", level + 1));
        }
        fs::write(directory.path().join("outside.json5"), format!("{{ a: '{OUTSIDE}' }}")).expect("a file");
        std::os::unix::fs::symlink("../outside.json5", state.join("link.json5")).expect("a link");
        let home = directory.path().display().to_string();
        let state = state.display().to_string();
        let vars = [
            ("HOME", home.as_str()),
            ("OPENCLAW_STATE_DIR", &state),
            ("SECRET", CANARY),
            ("A", "one"),
            ("_B2", "${A}"),
        ];
        let env = Env::from_pairs(vars);
        let paths = Paths::resolve(&env, Profile::Default).expect("absolute paths");
        Self { paths, env, _directory: directory }
    }

    fn load(&self, text: &str) -> Result<Document, openclaw_config::LoadError> {
        Document::from_text(text, &self.paths, &self.env)
    }
}

/// A config file, and after a NUL byte one it may include as `fuzzed.json5`: writing the effective config and reading it
/// again changes nothing, every value knows its place, nothing from outside comes in, and no message shows a value.
pub fn config_document(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (text, included) = (parts.next().unwrap_or_default(), parts.next());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let has = |needle: &str| data.windows(needle.len()).any(|window| window == needle.as_bytes());
    if has(OUTSIDE) || has(CANARY) {
        return;
    }
    WORLD.with(|world| {
        let fuzzed = world.paths.state_dir.join("fuzzed.json5");
        if let Some(included) = included {
            fs::write(&fuzzed, included).expect("a file in our own directory");
        }
        check_document(world, text);
        if included.is_some() {
            fs::remove_file(&fuzzed).expect("our own file");
        }
    });
}

fn check_document(world: &World, text: &str) {
    let document = match world.load(text) {
        Ok(document) => document,
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(CANARY) && !shown.contains(OUTSIDE), "{shown}");
            return;
        }
    };
    assert_eq!(document.raw(), text);
    check_node(world, document.root());
    let effective = document.resolved();
    assert!(effective.is_object() && !effective.to_string().contains(OUTSIDE), "{effective}");
    let written = document.written().to_string();
    assert!(!written.contains(CANARY), "{written}");
    let again = world.load(&written).unwrap_or_else(|error| panic!("{error} in our own {written}"));
    assert_eq!(again.resolved(), effective);
    assert_eq!(again.written(), document.written());

    let found = schema::validate(&document);
    for issue in found.errors.iter().chain(&found.warnings) {
        assert!(!issue.with_place().contains(CANARY), "{issue}");
    }
    match GatewayConfig::read(&document) {
        Ok(_) => {}
        Err(errors) => assert!(!found.is_valid() && !errors.is_empty()),
    }
    let shown = redact::document(&document).to_string();
    assert!(!shown.contains(CANARY), "{shown}");
}

/// Places are inside the config directory and start at 1.
fn check_node(world: &World, node: &Node) {
    let place = &node.provenance;
    assert!(place.file.starts_with(&world.paths.state_dir), "{place}");
    assert!(place.line >= 1 && place.column >= 1, "{place}");
    match &node.kind {
        Kind::Array(items) => items.iter().for_each(|item| check_node(world, item)),
        Kind::Object(entries) => entries.iter().for_each(|(_, entry)| check_node(world, entry)),
        _ => {}
    }
}

/// A config path: what is shown can be read again and means the same.
pub fn config_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path: ConfigPath = match text.parse() {
        Ok(path) => path,
        Err(error) => return assert!(error.to_string().chars().count() < 1000),
    };
    assert!(!path.is_root() && path.steps().iter().all(|step| !step.is_empty()));
    assert!(!path.steps().iter().any(|step| matches!(step.as_str(), "__proto__" | "constructor" | "prototype")));
    let shown = path.to_string();
    if shown.len() <= 1024 {
        assert_eq!(shown.parse().as_ref(), Ok(&path), "{shown}");
    }
    let parent = path.parent().expect("a path that is not the root");
    assert_eq!(parent.child(path.steps().last().expect("a step").clone()), path);
    assert!(path.starts_with(&parent));
}

/// A config as others see it: no secret shows, hiding twice is hiding once, and what was hidden comes back when the
/// config is saved unchanged.
pub fn config_redact(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(redact::MARKER) || text.contains(CANARY) {
        return;
    }
    let Ok(document) = WORLD.with(|world| world.load(text)) else { return };
    let mut config = document.source_value().clone();
    check_redaction(&config);
    // The same with a secret for certain, and a copy of it where nobody expects one.
    config["gateway"] = json!({ "auth": { "token": CANARY }, "bind": "lan" });
    config["messages"] = json!({ "note": format!("do not tell {CANARY} to anybody") });
    check_redaction(&config);
    let shown = redact::value(&config).to_string();
    assert!(!shown.contains(CANARY), "{shown}");

    // A text with a key written twice cannot be saved anyway.
    if let (Some(shown), []) = (redact::raw(text), document.duplicate_keys()) {
        match redact::restore_raw(&shown, text) {
            // A literal that was hidden may come back in another spelling; what it says is the same.
            Ok(restored) => {
                let again = WORLD.with(|world| world.load(&restored)).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(again.source_value(), document.source_value(), "{restored:?}");
            }
            Err(error) => panic!("{error} for {shown:?}"),
        }
    }
}

fn check_redaction(config: &Value) {
    let shown = redact::value(config);
    assert_eq!(redact::value(&shown), shown);
    assert_eq!(redact::restore(&shown, config).as_ref(), Ok(config), "from {shown}");
}

/// A config file, a path and a value, separated by NUL bytes; the first byte chooses the edit. The result holds the new
/// value and everything beside it, comments stay unless it is said that they went, and the same edit again changes
/// nothing.
pub fn config_edit(data: &[u8]) {
    let Some((operation, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0');
    let (Some(config), Some(path), value) = (parts.next(), parts.next(), parts.next().unwrap_or_default()) else {
        return;
    };
    let Ok(path) = path.parse::<ConfigPath>() else { return };
    let mode = [SetMode::Set, SetMode::Merge, SetMode::Replace][usize::from(operation / 4) % 3];
    let edit = match operation % 4 {
        0 | 1 => {
            let Ok(value) = parse_set_value(value, operation % 4 == 1) else { return };
            Edit::Set { path, value, mode }
        }
        2 => Edit::Unset { path },
        _ => {
            let Ok(value) = parse_patch(value) else { return };
            Edit::Patch { value, replace: vec![path] }
        }
    };
    // Comments outside of the object are in nobody's way.
    let config = format!("// first line\n{config}\n// last line\n");
    WORLD.with(|world| {
        let file = &world.paths.config_file;
        fs::write(file, &config).expect("a file in our own directory");
        check_edit(world, &edit);
        fs::remove_file(file).expect("our own file");
    });
}

fn check_edit(world: &World, edit: &Edit) {
    let editor = Editor::new(&world.paths, &world.env);
    let options = Options { dry_run: true, ..Options::default() };
    let Ok(before) = Document::load(&world.paths, &world.env) else { return };
    let outcome = match editor.apply(std::slice::from_ref(edit), &options) {
        Ok(outcome) => outcome,
        Err(error) => return assert!(!error.to_string().contains(CANARY), "{error}"),
    };
    let (old, new, text) = (before.source_value(), outcome.document.source_value(), outcome.document.raw());
    if !outcome.comments_lost {
        assert!(text.starts_with("// first line\n") && text.contains("\n// last line"), "comments went: {text:?}");
    }
    match edit {
        Edit::Set { path, value, mode } if *mode != SetMode::Merge || !value.is_object() => {
            assert_eq!(at(new, path), Some(value), "{path} in {text:?}");
        }
        Edit::Unset { path } => {
            let list =
                path.parent().and_then(|parent| at(old, &parent).cloned()).is_some_and(|parent| parent.is_array());
            assert!(list || at(new, path).is_none(), "{path} is still in {text:?}");
        }
        Edit::Set { .. } | Edit::Patch { .. } => {}
    }
    if let Edit::Set { path, .. } | Edit::Unset { path } = edit {
        let beside = |config: &Value| {
            let mut config = config.clone();
            config.as_object_mut().map(|keys| keys.shift_remove(&path.steps()[0]));
            config
        };
        assert_eq!(beside(new), beside(old), "more than {path} changed in {text:?}");
    }
    assert_eq!(outcome.noop, text == before.raw());
    fs::write(&world.paths.config_file, text).expect("a file in our own directory");
    let again = editor.apply(std::slice::from_ref(edit), &options);
    match (again, edit) {
        (Ok(again), _) if matches!(edit, Edit::Unset { .. }) => drop(again),
        (Ok(again), _) => assert!(again.noop, "the same edit again gives {:?} after {text:?}", again.document.raw()),
        // What is gone cannot be removed again.
        (Err(_), Edit::Unset { .. }) => {}
        (Err(error), _) => panic!("the same edit again: {error}"),
    }
}

fn at<'a>(config: &'a Value, path: &ConfigPath) -> Option<&'a Value> {
    path.steps().iter().try_fold(config, |here, step| match here {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}
