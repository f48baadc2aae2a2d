//! The real OpenClaw through our tunnels, and our command line through them to the real gateway. On loopback: what is
//! shown is that everybody speaks through it, not where it leads.

use lab::{
    peers::{
        Generation, Peers, RealGateway,
        driver::ReferenceClient,
        official_cli::{self, Whose},
        prepare_home,
    },
    process::{Gateway, Launch, Process, free_port, wait_until},
    require,
    require::program,
    sandbox::binary,
    sshd::{SshClient, Sshd},
};
use serde_json::json;
use tempfile::TempDir;

/// A tunnel of ours to a gateway on this machine, through an sshd of its own.
struct Tunnel {
    supervisor: Process,
    /// What other programs connect to.
    port: u16,
    gateway_port: u16,
    me: SshClient,
    _sshd: Sshd,
}

impl Tunnel {
    #[track_caller]
    fn to(gateway_port: u16) -> Self {
        let sshd = Sshd::start();
        let me = SshClient::new();
        me.may_enter(&sshd, "box");
        let port = free_port();
        let (wished, far) = (port.to_string(), gateway_port.to_string());
        let args = ["tunnel", "up", "box", "--gateway-port", &far, "--port", &wished, "--foreground"];
        let supervisor = openclaw(&me, &args).start("tunnel");
        let mut tunnel = Self { supervisor, port, gateway_port, me, _sshd: sshd };
        wait_until("a tunnel that is up", || {
            if let Some(status) = tunnel.supervisor.ended() {
                panic!("the tunnel ended ({status}): {}", tunnel.supervisor.said());
            }
            let list = tunnel.openclaw(&["tunnel", "ls", "--json"]).run();
            (list.status.success() && list.json()["tunnels"][0]["state"] == "up").then_some(())
        });
        tunnel
    }

    fn openclaw(&self, args: &[&str]) -> Launch {
        openclaw(&self.me, args)
    }
}

fn openclaw(me: &SshClient, args: &[&str]) -> Launch {
    let launch = Launch::new(binary(), me.home()).env("OPENCLAW_STATE_DIR", me.home().join("state"));
    launch.envs(me.env()).args(args.iter().copied())
}

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-peer-").expect("a temporary directory")
}

#[track_caller]
fn check_official_cli(generation: Generation) {
    let peers = require!(Peers::find());
    require!(program("sshd"));
    let gateway = Gateway::start();
    let tunnel = Tunnel::to(gateway.port());
    let home = scratch();
    prepare_home(home.path());
    let at = (tunnel.port, gateway.token());
    let found = official_cli::violations(&peers, generation, Whose::Ours, at, home.path());
    assert!(found.is_empty(), "{}\n{}\n{}", found.join("\n"), gateway.said(), tunnel.supervisor.said());
}

#[test]
fn the_official_cli_of_protocol_4_works_through_our_tunnel() {
    check_official_cli(Generation::V4);
}

#[test]
fn the_official_cli_of_protocol_3_works_through_our_tunnel() {
    check_official_cli(Generation::V3);
}

#[test]
fn the_reference_client_stays_connected_while_the_ssh_below_it_is_replaced() {
    let peers = require!(Peers::find());
    require!(program("sshd"));
    let gateway = Gateway::start();
    let tunnel = Tunnel::to(gateway.port());
    let home = scratch();
    let mut client = ReferenceClient::new(&peers, home.path(), &format!("ws://127.0.0.1:{}", tunnel.port));
    client.connect(json!({"token": gateway.token(), "scopes": ["operator.admin"], "role": "operator"}));
    assert_eq!(client.hello()["protocol"], 4);
    assert_eq!(client.request("health", json!({})).expect("answers")["ok"], true);
    client.request("system-event", json!({"text": "Node: through the tunnel"})).expect("an admin may");
    assert!(client.event("presence")["presence"].is_array());
    // Its connection dies with the ssh that carried it; it comes back by itself over the next one.
    client.forget();
    tunnel.me.kill_all();
    assert_eq!(client.hello()["auth"]["role"], "operator");
    assert_eq!(client.request("health", json!({})).expect("answers")["ok"], true);
    client.stop();
}

#[track_caller]
fn check_real_gateway(generation: Generation) {
    let peers = require!(Peers::find());
    require!(program("sshd"));
    let gateway = RealGateway::start(&peers, generation);
    let tunnel = Tunnel::to(gateway.port());
    // Other programs: our own command line, by the port.
    let by_port = lab::process::our_cli(tunnel.me.home(), tunnel.port, gateway.token());
    let health = by_port.args(["health", "--json"]).run();
    assert_eq!(health.json()["ok"], true, "{health:#?}");
    // By ssh:// URL: the running tunnel is used, and without it an ssh of its own.
    let far = gateway_port_config(&tunnel);
    for carrier in ["tunnel", "ssh"] {
        let call = tunnel
            .openclaw(&["status", "--json"])
            .env("OPENCLAW_GATEWAY_URL", "ssh://box")
            .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
            .run();
        let status = call.json();
        assert_eq!(status["gateway"]["reachable"], true, "{far}: {call:#?}");
        assert_eq!(status["gateway"]["path"]["carrier"], carrier, "{call:#?}");
        assert!(tunnel.openclaw(&["tunnel", "down", "--all"]).run().status.success());
    }
}

/// Says in the config which port the gateway has at the far end.
#[track_caller]
fn gateway_port_config(tunnel: &Tunnel) -> String {
    let port = tunnel.gateway_port.to_string();
    let set = tunnel.openclaw(&["config", "set", "gateway.remote.remotePort", &port]).run();
    assert!(set.status.success(), "{set:#?}");
    port
}

#[test]
fn our_cli_reaches_a_real_gateway_of_protocol_4_through_our_tunnel() {
    check_real_gateway(Generation::V4);
}

#[test]
fn our_cli_reaches_a_real_gateway_of_protocol_3_through_our_tunnel() {
    check_real_gateway(Generation::V3);
}
