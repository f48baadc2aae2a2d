//! Our node host as a real process: at our gateway, and at the real ones of both generations.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use lab::{
    peers::{Generation, Peers, RealGateway},
    process::{Finished, Gateway, GatewayOptions, Launch, Process, our_cli, wait_until},
    require,
    sandbox::binary,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "Bench Node";

/// A machine with our node host, and an owner with our command line.
struct Bench {
    port: u16,
    token: String,
    node_home: TempDir,
    owner_home: TempDir,
}

impl Bench {
    fn new(port: u16, token: &str) -> Self {
        let dir = |prefix| TempDir::with_prefix(prefix).expect("a temporary directory");
        Self { port, token: token.to_owned(), node_home: dir("openclaw-node-"), owner_home: dir("openclaw-owner-") }
    }

    fn state(&self) -> PathBuf {
        self.node_home.path().join("state")
    }

    fn launch(&self) -> Launch {
        Launch::new(binary(), self.node_home.path())
            .env("HOME", self.node_home.path())
            .env("OPENCLAW_STATE_DIR", self.state())
            .args(["node", "run", "--host", "127.0.0.1", "--port", &self.port.to_string(), "--display-name", NAME])
    }

    fn start(&self) -> Process {
        self.launch().env("OPENCLAW_GATEWAY_TOKEN", &self.token).start("node")
    }

    fn cli(&self, args: &[&str]) -> Launch {
        our_cli(self.owner_home.path(), self.port, &self.token).args(args)
    }

    /// A command of the owner that has to succeed.
    #[track_caller]
    fn says(&self, args: &[&str]) -> Value {
        let finished = self.cli(args).arg("--json").run();
        assert!(finished.status.success(), "{args:?}: {finished:#?}");
        finished.json()
    }

    fn node(&self) -> Option<Value> {
        let finished = self.cli(&["nodes", "status", "--json"]).run();
        let status: Value = serde_json::from_str(&finished.stdout).ok()?;
        status["nodes"].as_array()?.first().cloned()
    }

    #[track_caller]
    fn wait_connected(&self, node: &mut Process) -> Value {
        wait_until("the node in `nodes status`", || {
            assert!(node.ended().is_none(), "the node ended\n{}", node.said());
            self.node().filter(|node| node["connected"] == true)
        })
    }

    /// Approves what the node offers, as soon as it is asked.
    #[track_caller]
    fn approve(&self) {
        let request = wait_until("a request of the node", || {
            self.says(&["nodes", "pending"]).pointer("/0/requestId")?.as_str().map(str::to_owned)
        });
        self.says(&["nodes", "approve", &request]);
    }

    #[track_caller]
    fn invoke(&self, command: &str, params: &Value) -> Value {
        let params = params.to_string();
        self.says(&["nodes", "invoke", "--node", "bench node", "--command", command, "--params", &params])["payload"]
            .clone()
    }

    /// `openclaw nodes run`.
    fn run(&self, words: &[&str]) -> Finished {
        self.cli(&["nodes", "run", "--node", NAME]).args(words).run()
    }

    /// What the owner of the node's machine wrote down.
    fn policy(&self, document: &Value) {
        let file = self.state().join("exec-approvals.json");
        fs::create_dir_all(self.state()).expect("a scratch directory takes directories");
        fs::set_permissions(self.state(), fs::Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(file, document.to_string()).expect("a scratch directory takes files");
    }
}

fn allow(patterns: &[&str]) -> Value {
    json!({"version": 1, "agents": {"main": {"allowlist": patterns}}})
}

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

/// A script with two processes that would run for an hour: one in its group, one in a session of its own.
fn long_lived(dir: &Path) -> (PathBuf, PathBuf) {
    let (script, pids) = (dir.join("long.sh"), dir.join("pids"));
    let file = pids.display();
    let text = format!(
        "#!/bin/sh\nsleep 3600 &\necho $! >> {file}\nsetsid sh -c 'echo $$ >> {file}; exec sleep 3600' &\nwait\n"
    );
    fs::write(&script, text).expect("a scratch directory takes files");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    (script, pids)
}

fn wait_pids(file: &Path) -> Vec<String> {
    wait_until("two process ids", || {
        let text = fs::read_to_string(file).ok()?;
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        (pids.len() == 2 && text.ends_with('\n')).then_some(pids)
    })
}

fn kill_9(process: &Process) {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(pid, Signal::KILL).expect("it runs");
}

/// Pairs, is approved, answers, asks for leave, and comes back after the gateway was away.
#[test]
fn a_node_lends_its_machine() {
    let mut gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&["echo"]));
    let mut node = bench.start();
    let seen = bench.wait_connected(&mut node);
    assert_eq!(seen["displayName"], NAME);
    assert_eq!((&seen["clientId"], &seen["clientMode"]), (&json!("node-host"), &json!("node")));
    wait_until("the node's word about approval", || node.stderr().contains("openclaw nodes approve ").then_some(()));
    bench.approve();
    wait_until("the node hears of it", || node.stderr().contains("owner approved").then_some(()));

    let which = bench.invoke("system.which", &json!({"bins": ["sh", "no-such-program-anywhere"]}));
    assert!(which["bins"]["sh"].as_str().is_some_and(|path| path.ends_with("/sh")), "{which}");
    assert_eq!(which["bins"].as_object().map(serde_json::Map::len), Some(1));
    let listed = bench.invoke("fs.listDir", &json!({"path": bench.node_home.path()}));
    assert_eq!(listed["entries"][0]["name"], "state");
    wait_until("stats of the machine", || {
        bench.node().filter(|node| node["hostStats"]["memoryTotalBytes"].as_u64().is_some_and(|bytes| bytes > 0))
    });

    // On the allow-list, alone and in a shell's line.
    let run = bench.run(&["--", "echo", "hi"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(0), "hi\n"), "{run:#?}");
    let run = bench.run(&["--raw", "echo one && echo two"]);
    assert_eq!(run.stdout, "one\ntwo\n", "{run:#?}");
    // Not on it: leave is asked for, given once, and used up.
    let script = bench.node_home.path().join("job.sh");
    fs::write(&script, "echo job; exit 3\n").expect("a scratch directory takes files");
    let job = script.to_str().expect("a path");
    let run = bench.run(&["--approve", "once", "--", "sh", job]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(3), "job\n"), "{run:#?}");
    // For always: the same words run unasked, others do not.
    let run = bench.run(&["--approve", "always", "--", "expr", "1", "+", "1"]);
    assert_eq!(run.stdout, "2\n", "{run:#?}");
    let direct = |words: Value| {
        let id = seen["nodeId"].as_str().expect("an id");
        let params = json!({"nodeId": id, "command": "system.run", "params": {"command": words},
                            "idempotencyKey": uuid::Uuid::new_v4().to_string()});
        bench.cli(&["gateway", "call", "node.invoke", "--json", "--params", &params.to_string()]).run()
    };
    assert_eq!(direct(json!(["expr", "1", "+", "1"])).json()["payload"]["stdout"], "2\n");
    let refused = direct(json!(["expr", "1", "+", "2"]));
    assert!(!refused.status.success() && refused.stdout.contains("approval required"), "{refused:#?}");

    gateway.stop();
    wait_until("the node notices", || node.stderr().contains("connect failed").then_some(()));
    gateway.start_again();
    bench.wait_connected(&mut node);
    let which = bench.invoke("system.which", &json!({"bins": ["sh"]}));
    assert!(which["bins"]["sh"].is_string());

    assert!(node.stop().success(), "{}", node.said());
    wait_until("the node gone", || bench.node().filter(|node| node["connected"] == false));
}

/// The paired node needs the shared secret no more.
#[test]
fn s_208_a_paired_node_comes_back_with_its_own_token() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    node.stop();
    let mut node = bench.launch().start("node-again");
    wait_until("the node connected again", || {
        assert!(node.ended().is_none(), "{}", node.said());
        node.stderr().contains("gateway connected").then_some(())
    });
    bench.wait_connected(&mut node);
}

/// No program outlives its node, whatever way the node ends; nor its request.
#[test]
fn nothing_outlives_the_node() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&json!({"version": 1, "defaults": {"security": "full", "ask": "off"}}));
    for way in ["kill -9", "terminate", "cancel"] {
        let mut node = bench.start();
        let seen = bench.wait_connected(&mut node);
        if seen["approvalState"] != "approved" {
            bench.approve();
        }
        let scratch = TempDir::with_prefix("openclaw-job-").expect("a temporary directory");
        let (script, file) = long_lived(scratch.path());
        let limit = if way == "cancel" { "3000" } else { "600000" };
        let job =
            bench.cli(&["nodes", "run", "--node", NAME, "--invoke-timeout", limit, "--"]).arg(&script).start("job");
        let pids = wait_pids(&file);
        assert!(pids.iter().all(|pid| alive(pid)), "{way}");
        match way {
            "kill -9" => kill_9(&node),
            "terminate" => assert!(node.stop().success(), "{}", node.said()),
            // The gateway's deadline passes, and it takes the request back.
            _ => {}
        }
        wait_until("end of what the node ran", || (!pids.iter().any(|pid| alive(pid))).then_some(()));
        drop(job);
        drop(node);
        wait_until("the node gone", || bench.node().filter(|node| node["connected"] == false));
    }
}

/// S-010, S-011: a node is a client and nothing else.
#[test]
fn s_011_a_node_listens_nowhere() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{}/fd", node.pid()))
        .expect("our own process")
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    assert!(!sockets.is_empty(), "it is connected");
    for table in ["tcp", "tcp6"] {
        let lines = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for fields in lines.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let listening = fields.get(3) == Some(&"0A");
            assert!(!(listening && sockets.iter().any(|inode| fields.get(9) == Some(&inode.as_str()))), "{fields:?}");
        }
    }
}

/// Nobody is let in silently: the node says what to approve, waits, and goes on by itself. Removed, it asks again.
#[test]
fn a_node_waits_for_its_owner() {
    let config = json!({"gateway": {"mode": "local", "nodes": {"pairing": {"autoApproveLocal": false}}}}).to_string();
    let gateway = Gateway::start_with(GatewayOptions { config: Some(config), ..GatewayOptions::default() });
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    let approve_next = |node: &mut Process, before: usize| {
        wait_until("the node's word about its request", || {
            assert!(node.ended().is_none(), "{}", node.said());
            (node.stderr().matches("openclaw devices approve ").count() > before).then_some(())
        });
        let said = node.stderr();
        let id = said.rsplit("openclaw devices approve ").next().and_then(|rest| rest.split_whitespace().next());
        bench.says(&["devices", "approve", id.expect("an id")]);
    };
    approve_next(&mut node, 0);
    let seen = bench.wait_connected(&mut node);
    assert!(node.stderr().contains("Its list shows this request as: "), "{}", node.said());

    bench.says(&["nodes", "remove", "--node", seen["nodeId"].as_str().expect("an id")]);
    approve_next(&mut node, 1);
    bench.wait_connected(&mut node);
}

/// Without any secret a removed node has nothing to show: it stops, and says what to do.
#[test]
fn a_revoked_node_stops_with_a_word() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), gateway.token());
    let mut node = bench.start();
    bench.wait_connected(&mut node);
    node.stop();
    let mut node = bench.launch().start("node-again");
    let seen = bench.wait_connected(&mut node);
    bench.says(&["nodes", "remove", "--node", seen["nodeId"].as_str().expect("an id")]);
    let status = wait_until("end of the node", || node.ended());
    assert_eq!(status.code(), Some(14), "{}", node.said());
    assert!(node.stderr().contains("openclaw node run --pair"), "{}", node.said());
}

#[test]
fn a_wrong_secret_is_sent_once() {
    let gateway = Gateway::start();
    let bench = Bench::new(gateway.port(), "not-the-token");
    let mut node = bench.start();
    let status = wait_until("end of the node", || node.ended());
    assert_eq!(status.code(), Some(14), "{}", node.said());
    assert!(!node.stderr().contains("trying again"), "{}", node.said());
}

/// At a real gateway: paired, approved where the protocol asks for it, seen, asked, and back after a restart of its own.
#[track_caller]
fn check_real_gateway(generation: Generation) {
    let peers = require!(Peers::find());
    let gateway = RealGateway::start(&peers, generation);
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&["echo"]));
    let mut node = bench.start();
    let seen = bench.wait_connected(&mut node);
    assert_eq!(seen["displayName"], NAME);
    if generation == Generation::V4 {
        wait_until("the node's word about approval", || {
            node.stderr().contains("openclaw nodes approve ").then_some(())
        });
        bench.approve();
        wait_until("the node hears of it", || node.stderr().contains("owner approved").then_some(()));
    }
    let which = bench.invoke("system.which", &json!({"bins": ["sh", "no-such-program-anywhere"]}));
    assert!(which["bins"]["sh"].as_str().is_some_and(|path| path.ends_with("/sh")), "{which}");
    let run = bench.run(&["--", "echo", "hi"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(0), "hi\n"), "{run:#?}");
    // Leave, kept by the real gateway: the node's own plan comes back, and holds once.
    let run = bench.run(&["--approve", "once", "--raw", "echo three; exit 3"]);
    assert_eq!((run.status.code(), run.stdout.as_str()), (Some(3), "three\n"), "{run:#?}\n{}", node.said());

    assert!(node.stop().success(), "{}", node.said());
    // Only with its own token now.
    let mut node = bench.launch().start("node-again");
    bench.wait_connected(&mut node);
    let run = bench.run(&["--", "echo", "again"]);
    assert_eq!(run.stdout, "again\n", "{run:#?}");
}

#[test]
fn our_node_at_the_real_gateway_of_protocol_4() {
    check_real_gateway(Generation::V4);
}

#[test]
fn our_node_at_the_real_gateway_of_protocol_3() {
    check_real_gateway(Generation::V3);
}
