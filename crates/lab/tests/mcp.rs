//! MCP servers, as their owners use them: named in the config, asked by a model through the gateway, gone with it. The server here
//! is a script that speaks the protocol's own text and knows nothing of us.

use std::{path::PathBuf, time::Duration};

use doubles::model::{Model, Reply, Script};
use lab::{
    peers::model_sections,
    process::wait_at_most,
    require,
    require::program,
    sandbox::{Sandbox, Setup, walk},
    wire::read_lossy,
};
use serde_json::{Value, json};

/// One tool, `remember`; writes its process id beside itself when it starts.
const SERVER: &str = r#"
import json, os, sys
open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pid"), "w").write(str(os.getpid()))
notes = []
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params, result = message["method"], message.get("params") or {}, {}
    if method == "initialize":
        result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "notes", "version": "1"}}
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        result = {"tools": [{"name": "remember", "description": "Keeps a note", "inputSchema": schema}]}
    elif method == "tools/call":
        notes.append(params["arguments"]["text"])
        said = "kept %d: %s; key %s" % (len(notes), notes[-1], os.environ.get("NOTES_KEY"))
        result = {"content": [{"type": "text", "text": said}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

struct Place {
    model: Model,
    gateway: Sandbox,
    scripts: tempfile::TempDir,
}

impl Place {
    fn start(script: Script, more: Value) -> Self {
        let model = Model::start(script);
        let scripts = tempfile::TempDir::with_prefix("openclaw-mcp-").expect("a directory");
        let server = scripts.path().join("notes.py");
        std::fs::write(&server, SERVER).expect("written");
        let notes = json!({"command": "python3", "args": [server], "env": {"NOTES_KEY": "k-1234"}});
        let gateway = Setup::new()
            .config(model_sections(&model.url()))
            .config(json!({"mcp": {"servers": {"notes": notes}}}))
            .config(more)
            .start();
        Self { model, gateway, scripts }
    }

    fn server(&self) -> Option<u32> {
        std::fs::read_to_string(self.scripts.path().join("pid")).ok()?.parse().ok()
    }

    fn ask(&self, text: &str) -> String {
        let mut owner = self.gateway.admin();
        let sent = owner.ok("agent", json!({"message": text, "sessionKey": "main", "idempotencyKey": text}));
        let done = owner.ok("agent.wait", json!({"runId": sent["runId"], "timeoutMs": 20_000}));
        assert_eq!(done["status"], "ok", "{done}");
        let history = owner.ok("chat.history", json!({"sessionKey": "main"}));
        let last = history["messages"].as_array().expect("messages").last().expect("one").clone();
        last["content"].as_array().expect("parts").iter().filter_map(|part| part["text"].as_str()).collect()
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = read_lossy(&PathBuf::from(format!("/proc/{pid}/stat")));
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_model_uses_a_server_and_the_server_ends_with_the_gateway() {
    require!(program("python3"));
    let script =
        Script::rounds([Reply::call("notes__remember", json!({"text": "buy milk"})), Reply::say("I will remember.")]);
    let mut place = Place::start(script, json!({}));
    assert_eq!(place.server(), None, "nothing starts before it is needed");
    assert_eq!(place.ask("remember to buy milk"), "I will remember.");
    let asked = place.model.last().body.to_string();
    assert!(asked.contains("kept 1: buy milk; key k-1234"), "{asked}");
    assert!(asked.contains("EXTERNAL_UNTRUSTED_CONTENT"), "what a server says is data: {asked}");

    let mut owner = place.gateway.admin();
    let groups = owner.ok("tools.catalog", json!({}))["groups"].clone();
    let mcp = groups.as_array().expect("groups").iter().find(|group| group["id"] == "mcp").expect("a group");
    assert_eq!(mcp["tools"][0]["id"], "notes__remember");

    let pid = place.server().expect("it runs");
    assert!(is_alive(pid));
    place.gateway.kill();
    wait_at_most(Duration::from_secs(20), "the server's end", || (!is_alive(pid)).then_some(()));
    for file in walk(&place.gateway.dir().join("logs")) {
        assert!(!read_lossy(&file).contains("k-1234"), "a secret of a server is in {}", file.display());
    }
}

#[test]
fn a_broken_server_takes_nothing_along_and_a_reload_mends_it() {
    require!(program("python3"));
    let script = Script::rounds([
        Reply::say("Without it."),
        Reply::call("notes__remember", json!({"text": "eggs"})),
        Reply::say("With it."),
    ]);
    let broken = json!({"mcp": {"servers": {"notes": {"command": "/no/such/program"}}}});
    let place = Place::start(script, broken);
    assert_eq!(place.ask("hello"), "Without it.");
    assert!(!place.model.last().body.to_string().contains("notes__"));

    let mut owner = place.gateway.admin();
    let server = place.scripts.path().join("notes.py");
    let raw = json!({"mcp": {"servers": {"notes": {"command": "python3", "args": [server]}}}}).to_string();
    let hash = owner.ok("config.get", json!({}))["hash"].clone();
    owner.ok("config.patch", json!({"raw": raw, "baseHash": hash}));
    assert_eq!(place.ask("once more"), "With it.");
    assert!(place.model.last().body.to_string().contains("kept 1: eggs"));
}
