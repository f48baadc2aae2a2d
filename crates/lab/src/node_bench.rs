//! Our node host and the command line of its owner, both as real processes.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    process::{Finished, Launch, Process, our_cli, wait_until},
    sandbox::binary,
};

/// What the node is called.
pub const NAME: &str = "Bench Node";

/// A machine with our node host, and an owner with our command line.
pub struct Bench {
    pub port: u16,
    pub token: String,
    pub node_home: TempDir,
    pub owner_home: TempDir,
}

impl Bench {
    pub fn new(port: u16, token: &str) -> Self {
        let dir = |prefix| TempDir::with_prefix(prefix).expect("a temporary directory");
        Self { port, token: token.to_owned(), node_home: dir("openclaw-node-"), owner_home: dir("openclaw-owner-") }
    }

    pub fn state(&self) -> PathBuf {
        self.node_home.path().join("state")
    }

    pub fn launch(&self) -> Launch {
        Launch::new(binary(), self.node_home.path())
            .env("HOME", self.node_home.path())
            .env("OPENCLAW_STATE_DIR", self.state())
            .args(["node", "run", "--host", "127.0.0.1", "--port", &self.port.to_string(), "--display-name", NAME])
    }

    pub fn start(&self) -> Process {
        self.launch().env("OPENCLAW_GATEWAY_TOKEN", &self.token).start("node")
    }

    pub fn cli(&self, args: &[&str]) -> Launch {
        our_cli(self.owner_home.path(), self.port, &self.token).args(args)
    }

    /// A command of the owner that has to succeed.
    #[track_caller]
    pub fn says(&self, args: &[&str]) -> Value {
        let finished = self.cli(args).arg("--json").run();
        assert!(finished.status.success(), "{args:?}: {finished:#?}");
        finished.json()
    }

    pub fn node(&self) -> Option<Value> {
        let finished = self.cli(&["nodes", "status", "--json"]).run();
        let status: Value = serde_json::from_str(&finished.stdout).ok()?;
        status["nodes"].as_array()?.first().cloned()
    }

    #[track_caller]
    pub fn wait_connected(&self, node: &mut Process) -> Value {
        wait_until("the node in `nodes status`", || {
            assert!(node.ended().is_none(), "the node ended\n{}", node.said());
            self.node().filter(|node| node["connected"] == true)
        })
    }

    /// Approves what the node offers, as soon as it is asked.
    #[track_caller]
    pub fn approve(&self) {
        let request = wait_until("a request of the node", || {
            self.says(&["nodes", "pending"]).pointer("/0/requestId")?.as_str().map(str::to_owned)
        });
        self.says(&["nodes", "approve", &request]);
    }

    #[track_caller]
    pub fn invoke(&self, command: &str, params: &Value) -> Value {
        let params = params.to_string();
        self.says(&["nodes", "invoke", "--node", "bench node", "--command", command, "--params", &params])["payload"]
            .clone()
    }

    /// `openclaw nodes run`.
    pub fn run(&self, words: &[&str]) -> Finished {
        self.cli(&["nodes", "run", "--node", NAME]).args(words).run()
    }

    /// What the owner of the node's machine wrote down.
    pub fn policy(&self, document: &Value) {
        let file = self.state().join("exec-approvals.json");
        fs::create_dir_all(self.state()).expect("a scratch directory takes directories");
        fs::set_permissions(self.state(), fs::Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(file, document.to_string()).expect("a scratch directory takes files");
    }
}

/// A document that lists these.
pub fn allow(patterns: &[&str]) -> Value {
    json!({"version": 1, "agents": {"main": {"allowlist": patterns}}})
}
