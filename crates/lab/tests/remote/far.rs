//! A gateway far away: 150 ms there and back, and a line that falls silent without anybody's permission to touch the network.
//! On loopback, behind a relay that holds bytes back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lab::{
    delay::Relay,
    process::{Gateway, Launch, wait_until},
    require::program,
    sandbox::binary,
    sshd::{SshClient, Sshd, SshdSetup},
};

use crate::report;

const ONE_WAY: Duration = Duration::from_millis(75);

struct Far {
    gateway: Gateway,
    line: Relay,
    me: SshClient,
    _sshd: Sshd,
}

impl Far {
    #[track_caller]
    fn new() -> Self {
        let gateway = Gateway::start();
        let sshd = SshdSetup::new().with_openclaw(&binary(), gateway.home(), &gateway.state_dir()).start();
        let line = Relay::to(SocketAddr::from(([127, 0, 0, 1], sshd.port())), ONE_WAY);
        let me = SshClient::new();
        sshd.authorize(&me.public_key());
        me.trust(&sshd, &[&format!("[127.0.0.1]:{}", line.port())]);
        me.alias("far", "127.0.0.1", line.port(), &[]);
        Self { gateway, line, me, _sshd: sshd }
    }

    fn openclaw(&self, args: &[&str]) -> Launch {
        let launch = Launch::new(binary(), self.me.home()).env("OPENCLAW_STATE_DIR", self.me.home().join("state"));
        launch.envs(self.me.env()).args(args.iter().copied())
    }

    #[track_caller]
    fn timed(&self, what: &str, args: &[&str]) -> Duration {
        let asked = Instant::now();
        let done = self.openclaw(args).run();
        assert!(done.status.success(), "{args:?}: {done:#?}\n{}", self.gateway.said());
        report::note(&format!("150 ms away: {what}"), asked.elapsed());
        asked.elapsed()
    }
}

#[test]
fn connecting_and_calling_across_an_ocean() {
    lab::require!(program("sshd"));
    let far = Far::new();
    let asked = Instant::now();
    let connected = far.openclaw(&["connect", "far", "--name", "far", "--json"]).run();
    let steps = connected.json()["steps"].as_array().cloned().unwrap_or_default();
    let steps: Vec<String> = steps.iter().map(|step| format!("{} {}", step["step"], step["ms"])).collect();
    assert!(connected.status.success(), "{connected:#?}\n{}", far.gateway.said());
    report::note(&format!("150 ms away: connect from a clean laptop (ms: {})", steps.join(", ")), asked.elapsed());
    let call = far.timed("health through the tunnel that is kept", &["--on", "far", "health"]);
    // Upgrade, connect and call are one round trip each; a command that also logged in would need many more.
    assert!(call >= 2 * ONE_WAY * 2, "{call:?} is less than light takes");
    assert_eq!(far.openclaw(&["--on", "far", "status", "--json"]).run().json()["gateway"]["path"]["carrier"], "tunnel");
    let tunnels = far.openclaw(&["tunnel", "ls", "--json"]).run().json();
    wait_until("a true round trip", || {
        let tunnels = far.openclaw(&["tunnel", "ls", "--json"]).run().json();
        tunnels["tunnels"][0]["rttMs"].as_f64().filter(|ms| (150.0..300.0).contains(ms))
    });
    assert_eq!(tunnels["tunnels"][0]["state"], "up", "{tunnels}");
    far.timed("tunnel down", &["tunnel", "down", "far"]);
    far.timed("health with an ssh of its own", &["--on", "far", "health"]);
    wait_until("the end of ssh", || far.me.running().is_empty().then_some(()));
}

#[test]
fn a_silent_line_is_noticed_and_replaced_when_it_speaks_again() {
    lab::require!(program("sshd"));
    let far = Far::new();
    far.timed("connect", &["connect", "far", "--name", "far"]);
    let state = || far.openclaw(&["tunnel", "ls", "--json"]).run().json()["tunnels"][0]["state"].clone();
    far.line.fall_silent();
    let silent = Instant::now();
    wait_until("a tunnel that no longer claims to be up", || (state() != "up").then_some(()));
    report::note("150 ms away: line silent, tunnel no longer up", silent.elapsed());
    far.line.speak();
    let speaks = Instant::now();
    wait_until("a tunnel that is up again", || (state() == "up").then_some(()));
    report::note("150 ms away: line speaks again, tunnel up", speaks.elapsed());
    // A line that breaks with a word is noticed at once.
    far.line.break_all();
    let broken = Instant::now();
    far.timed("health after the line broke", &["--on", "far", "health"]);
    assert!(broken.elapsed() < Duration::from_secs(60));
    far.timed("tunnel down", &["tunnel", "down", "--all"]);
}
