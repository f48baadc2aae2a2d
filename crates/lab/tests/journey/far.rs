//! The node is another machine: on the LAN, behind ssh, and with the link cut while it works.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, time::Duration};

use lab::{
    delay::Relay,
    netlab::{LabGateway, Netlab},
    node_bench::{Bench, NAME, allow},
    process::{Gateway, GatewayOptions, Launch, Process, wait_until},
    require,
    require::program,
    sandbox::binary,
    sshd::{SshClient, SshdSetup},
};
use openclaw_protocol::{GatewayId, Secret, SetupCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Desk, Doubles, ada, session};

/// A gateway at home that listens on its LAN, and a laptop there that is its node.
struct Lan<'lab> {
    node: Process,
    gateway: LabGateway<'lab>,
    doubles: Doubles,
    desk: Desk,
    lab: &'lab Netlab,
}

impl<'lab> Lan<'lab> {
    /// The node comes by a one-time code of the owner, who thereby takes what it offers; it has no other secret.
    #[track_caller]
    fn new(lab: &'lab Netlab) -> Self {
        let (home, laptop) = (lab.host("gateway"), lab.laptop());
        let desk = Desk::new(&laptop.home().join("desk"));
        let doubles = home.enter(|| Doubles::start(&desk));
        let mut config = doubles.config(&[ada()], json!({}));
        config["logging"] = json!({"file": home.home().join("gateway.log")});
        let gateway = lab.gateway(GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() });
        let policy = laptop.state_dir().join("exec-approvals.json");
        fs::set_permissions(laptop.state_dir(), fs::Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(&policy, allow(&[&desk.script()]).to_string()).expect("a scratch directory takes files");

        let owner = |args: &[&str]| {
            let done = gateway.owner(args.iter().copied()).arg("--json").run();
            assert!(done.status.success(), "{args:?}: {done:#?}");
            done.json()
        };
        let invited = owner(&["devices", "invite", "--role", "node"]);
        let text = |pointer: &str| invited.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = SetupCode {
            urls: vec![gateway.url("lan")],
            bootstrap_token: Secret::new(text("/token")),
            expires_at_ms: invited["expiresAtMs"].as_i64(),
            tls_fingerprint: None,
            gateway_id: GatewayId::parse(&text("/gateway/id")),
            role: None,
        };
        let pair = format!("oc-pair://{}", code.encode().expose());
        let mut node = laptop.openclaw(["node", "run", "--display-name", NAME, "--pair", &pair]).start("node");
        wait_until("the node at the gateway", || {
            assert!(node.ended().is_none(), "{}", node.said());
            let nodes = owner(&["nodes", "status"]);
            (nodes["nodes"][0]["connected"] == true).then_some(())
        });
        Self { node, gateway, doubles, desk, lab }
    }

    /// The owner's own look at the conversation.
    #[track_caller]
    fn history(&self) -> String {
        let shown = self.gateway.owner(["sessions", "history", &session(&ada())]).run();
        assert!(shown.status.success(), "{shown:#?}");
        shown.stdout
    }
}

#[test]
fn over_the_lan() {
    require!(require::netlab());
    let lab = Netlab::up();
    let lan = Lan::new(&lab);
    let watching = lan.gateway.owner(["watch", "--json", "--event", "chat", "--event", "agent"]).start("watch");
    wait_until("a watching owner", || watching.stdout().contains("\"path\"").then_some(()));
    lan.doubles.bot.says(&ada(), "please do job-1");
    assert_eq!(lan.doubles.reply(1), "done-1: ran");
    assert_eq!(lan.desk.marks(1), 1);
    wait_until("the end in the owner's terminal", || {
        let said = watching.stdout();
        let lines = said.lines().filter(|line| line.contains("\"final\"") && line.contains("done-1: ran"));
        (lines.count() == 1).then_some(())
    });
    assert!(lan.history().contains("done-1: ran"));
}

/// The cable is out for a moment while the node works, and back before anybody gives up: nothing is lost.
#[test]
fn a_short_cut_while_the_node_works_costs_nothing() {
    require!(require::netlab());
    let lab = Netlab::up();
    let lan = Lan::new(&lab);
    lan.desk.hold();
    lan.doubles.bot.says(&ada(), "please do job-1");
    lan.desk.wait_begun(1);
    lan.lab.drop_packets("laptop:lan");
    lan.desk.go();
    // The result is written into a line that carries nothing.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lan.doubles.replies(1), 0);
    lan.lab.heal("laptop:lan");
    assert_eq!(lan.doubles.reply(1), "done-1: ran");
    assert_eq!(lan.desk.marks(1), 1);
}

/// The cable stays out until the node gives the connection up: its work ends with it, the person hears that nobody knows how
/// far it came, and the next job finds the node again.
#[test]
fn a_long_cut_while_the_node_works_is_told() {
    require!(require::netlab());
    let lab = Netlab::up();
    let mut lan = Lan::new(&lab);
    lan.desk.hold();
    lan.doubles.bot.says(&ada(), "please do job-1");
    lan.desk.wait_begun(1);
    lan.lab.drop_packets("laptop:lan");
    wait_until("the node notices", || {
        assert!(lan.node.ended().is_none(), "{}", lan.node.said());
        lan.node.stderr().contains("connect failed").then_some(())
    });
    lan.lab.heal("laptop:lan");
    let reply = lan.doubles.reply(1);
    assert_eq!(reply, "done-1: unknown");
    assert_eq!(lan.desk.marks(1), 1);
    lan.desk.go();
    wait_until("the node again", || {
        let nodes = lan.gateway.owner(["nodes", "status", "--json"]).run().json();
        (nodes["nodes"][0]["connected"] == true).then_some(())
    });
    lan.doubles.bot.says(&ada(), "please do job-2");
    assert_eq!(lan.doubles.reply(2), "done-2: ran");
    assert!(lan.history().contains("done-1: unknown"));
}

/// Node and owner come through ssh, each with a tunnel of his own; then every ssh session dies while the node works.
#[test]
fn through_ssh_and_with_every_tunnel_cut() {
    require!(program("sshd"));
    let dir = TempDir::with_prefix("openclaw-desk-").expect("a temporary directory");
    let desk = Desk::new(dir.path());
    let doubles = Doubles::start(&desk);
    let config = Some(doubles.config(&[ada()], json!({})).to_string());
    let gateway = Gateway::start_with(GatewayOptions { config, ..GatewayOptions::default() });
    let sshd = SshdSetup::new().with_openclaw(&binary(), gateway.home(), &gateway.state_dir()).start();
    let me = SshClient::new();
    me.may_enter(&sshd, "box");
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&[&desk.script()]));
    let mut node = Launch::new(binary(), bench.node_home.path())
        .envs(me.env())
        .env("OPENCLAW_STATE_DIR", bench.state())
        .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
        .args(["node", "run", "--host", "ssh://box", "--port", &gateway.port().to_string(), "--display-name", NAME])
        .start("node");
    bench.wait_connected(&mut node);
    bench.approve();

    let openclaw = |args: &[&str]| {
        let launch = Launch::new(binary(), me.home()).env("OPENCLAW_STATE_DIR", me.home().join("state"));
        launch.envs(me.env()).args(args.iter().copied())
    };
    let connected = openclaw(&["connect", "box", "--name", "far", "--json"]).run();
    assert!(connected.status.success(), "{connected:#?}\n{}", gateway.said());
    let watching = openclaw(&["--on", "far", "watch", "--json", "--event", "chat"]).start("watch");
    wait_until("a watching owner", || watching.stdout().contains("\"path\"").then_some(()));

    doubles.bot.says(&ada(), "please do job-1");
    assert_eq!(doubles.reply(1), "done-1: ran");
    let heard = |mark: &str| {
        let said = watching.stdout();
        said.lines().filter(|line| line.contains("\"final\"") && line.contains(mark)).count()
    };
    wait_until("the reply in the owner's terminal", || (heard("done-1: ran") == 1).then_some(()));

    desk.hold();
    doubles.bot.says(&ada(), "please do job-2");
    desk.wait_begun(2);
    sshd.kill_sessions();
    let reply = doubles.reply(2);
    assert_eq!(reply, "done-2: unknown", "{}", node.said());
    assert_eq!((desk.marks(1), desk.marks(2)), (1, 1));
    desk.go();
    bench.wait_connected(&mut node);
    doubles.bot.says(&ada(), "please do job-3");
    assert_eq!(doubles.reply(3), "done-3: ran");
    // The owner's terminal is back as well.
    wait_until("the next reply in the owner's terminal", || (heard("done-3: ran") == 1).then_some(()));
    let history = openclaw(&["--on", "far", "sessions", "history", &session(&ada())]).run();
    assert!(history.stdout.contains("done-2: unknown"), "{history:#?}");
    let down = openclaw(&["tunnel", "down", "--all"]).run();
    assert!(down.status.success(), "{down:#?}");
}

/// A line of 150 ms there and back that breaks, again and again, while jobs are done over it.
#[test]
fn over_a_slow_line_that_breaks() {
    let dir = TempDir::with_prefix("openclaw-desk-").expect("a temporary directory");
    let desk = Desk::new(dir.path());
    let doubles = Doubles::start(&desk);
    let config = Some(doubles.config(&[ada()], json!({})).to_string());
    let gateway = Gateway::start_with(GatewayOptions { config, ..GatewayOptions::default() });
    let line = Relay::to(SocketAddr::from(([127, 0, 0, 1], gateway.port())), Duration::from_millis(75));
    let bench = Bench::new(gateway.port(), gateway.token());
    bench.policy(&allow(&[&desk.script()]));
    let port = line.port().to_string();
    let mut node = Launch::new(binary(), bench.node_home.path())
        .env("HOME", bench.node_home.path())
        .env("OPENCLAW_STATE_DIR", bench.state())
        .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
        .args(["node", "run", "--host", "127.0.0.1", "--port", &port, "--display-name", NAME])
        .start("node");
    bench.wait_connected(&mut node);
    bench.approve();
    for round in 0..3 {
        let (whole, broken) = (2 * round + 1, 2 * round + 2);
        doubles.bot.says(&ada(), &format!("job-{whole}"));
        assert_eq!(doubles.reply(whole), format!("done-{whole}: ran"));
        desk.hold();
        doubles.bot.says(&ada(), &format!("job-{broken}"));
        desk.wait_begun(broken);
        line.break_all();
        assert_eq!(doubles.reply(broken), format!("done-{broken}: unknown"));
        assert_eq!((desk.marks(whole), desk.marks(broken)), (1, 1));
        desk.go();
        bench.wait_connected(&mut node);
    }
}
