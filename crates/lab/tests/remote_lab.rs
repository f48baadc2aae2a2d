//! The laboratory itself: what the other remote tests stand on.

use std::{fs, path::Path, process::Command};

use lab::{
    netlab::{GATEWAY_PORT, Netlab},
    process::{GatewayOptions, wait_until},
    require::{self, program},
    sshd::{SshClient, Sshd, SshdSetup},
};
use rustix::process::Signal;

fn namespaces() -> String {
    let output = Command::new(program("ip").expect("iproute2")).args(["netns", "list"]).output().expect("ip starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_network_leaves_nothing_behind_even_after_a_panic() {
    lab::require!(require::netlab());
    let mut seen = String::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Netlab::up();
        seen = lab.laptop().enter(|| fs::read_link("/proc/thread-self/ns/net").expect("a link")).display().to_string();
        assert!(lab.status().contains("laptop     cafe 10.55.0.20      up"), "{}", lab.status());
        let id = lab.id().to_owned();
        assert!(namespaces().contains(&format!("{id}-gateway")));
        // Something that would stay for ever.
        std::mem::forget(lab.laptop().program("sleep").arg("1000").start("sleep"));
        wait_until("a process on the laptop", || (!lab.laptop().processes().is_empty()).then_some(()));
        std::panic::panic_any(id);
    }));
    let id = *panicked.expect_err("it panicked").downcast::<String>().expect("with its id");
    assert!(seen.starts_with("net:["));
    assert!(!namespaces().contains(&id));
    assert!(!Path::new("/etc/netns").join(format!("{id}-gateway")).exists());
}

#[test]
fn two_networks_side_by_side_and_every_fault() {
    lab::require!(require::netlab());
    let (one, other) = (Netlab::up(), Netlab::up());
    let gateway = one.gateway(GatewayOptions::default());
    let asks = |lab: &Netlab, address: &str| {
        let url = format!("http://{address}:{GATEWAY_PORT}/healthz");
        lab.laptop().program("curl").args(["-fsS", "-m", "2", &url]).run().status.success()
    };
    let live = |network: &str| asks(&one, &gateway.host().address(network));
    assert!(live("lan") && live("ts"));
    // Nobody listens in the other one.
    assert!(!asks(&other, "192.168.77.10"));

    one.cut("laptop:lan");
    assert!(!live("lan") && live("ts"));
    one.heal("laptop:lan");
    assert!(live("lan"));
    one.drop_packets("laptop:ts");
    assert!(live("lan") && !live("ts"));
    one.heal("laptop:ts");
    one.readdress("laptop:lan", 77);
    assert!(live("lan") && live("ts"));

    // From the café there is only the way through the gateway's router, if it lets one in.
    one.laptop_only_in(&["cafe"]);
    assert!(!live("lan") && !live("ts"));
    assert!(!asks(&one, "203.0.113.1"));
    one.forward(GATEWAY_PORT, "gateway:18789");
    assert!(asks(&one, "203.0.113.1"));
    one.join("laptop:lan");
    assert!(live("lan"));
}

#[test]
fn an_sshd_lets_the_right_person_in_and_dies_by_parts() {
    lab::require!(program("sshd"));
    let mut sshd = Sshd::start();
    let me = SshClient::new();
    let greet = |args: &[&str]| me.ssh(args.iter().copied()).args(["echo", "in"]).run();

    me.alias("box", sshd.address(), sshd.port(), &[]);
    let refused = greet(&["-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "box"]);
    assert!(refused.stderr.contains("No ED25519 host key is known"), "{refused:?}");
    me.trust(&sshd, &[]);
    let refused = greet(&["-oBatchMode=yes", "box"]);
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    sshd.authorize(&me.public_key());
    assert_eq!(greet(&["box"]).stdout, "in\n");
    assert_eq!(me.starts().len(), 3);

    // Two sessions; both can be killed without the listener, also after the listener has gone.
    let session = || me.ssh(["box", "cat"]).piped_stdin().start("session");
    let mut sessions = [session(), session()];
    wait_until("two sessions", || (sshd.sessions().len() == 2 && me.running().len() == 2).then_some(()));
    sshd.signal_sessions(Signal::STOP);
    sshd.signal_sessions(Signal::CONT);
    sshd.kill_sessions();
    for session in &mut sessions {
        wait_until("the end of a session", || session.ended());
    }
    let mut survivor = session();
    wait_until("a session", || (sshd.sessions().len() == 1).then_some(()));
    sshd.end_listener();
    assert_eq!(sshd.sessions().len(), 1, "a session survives its listener");
    assert!(survivor.ended().is_none());
    assert!(greet(&["box"]).stderr.contains("Connection refused"));
    sshd.kill_sessions();
    wait_until("the end of the survivor", || survivor.ended());
    sshd.start_again();
    assert_eq!(greet(&["box"]).stdout, "in\n");

    let before = sshd.fingerprint();
    sshd.rotate_host_key();
    assert_ne!(sshd.fingerprint(), before);
    let changed = greet(&["box"]);
    assert!(changed.stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{changed:?}");
    assert!(changed.stderr.contains(&sshd.fingerprint()), "{changed:?}");
}

#[test]
fn accounts_without_sessions_still_forward() {
    lab::require!(program("sshd"));
    for setup in [SshdSetup::new().no_sessions(), SshdSetup::new().nologin()] {
        let sshd = setup.start();
        let me = SshClient::new();
        me.may_enter(&sshd, "box");
        assert!(!me.ssh(["box", "true"]).run().status.success());
        // The sshd reached through itself.
        let banner = me.ssh(["-W", &format!("127.0.0.1:{}", sshd.port()), "box"]).run();
        assert!(banner.stdout.starts_with("SSH-2.0-"), "{banner:?}");
    }
}

#[test]
fn a_session_finds_our_program_and_its_state() {
    lab::require!(program("sshd"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sshd = SshdSetup::new().with_openclaw(&lab::sandbox::binary(), dir.path(), &dir.path().join("st ate")).start();
    let me = SshClient::new();
    me.may_enter(&sshd, "box");
    let found = me.ssh(["box", "openclaw --version; echo \"$HOME $OPENCLAW_STATE_DIR\""]).run();
    let home = dir.path().display();
    assert!(found.stdout.ends_with(&format!("{home} {home}/st ate\n")), "{found:?}");
    assert!(found.status.success() && found.stdout.lines().count() == 2, "{found:?}");
}

#[test]
fn through_a_jump_host_from_behind_a_nat() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let far = SshdSetup::on(lab.host("gateway")).start();
    let jump = SshdSetup::on(lab.host("proxy")).start();
    let me = SshClient::on(lab.laptop());
    far.authorize(&me.public_key());
    jump.authorize(&me.public_key());
    me.trust(&far, &["gateway.home"]);
    me.trust(&jump, &["proxy.example.net"]);
    me.alias("jump", "proxy.example.net", 22, &[]);
    me.alias("box", "gateway.home", 22, &["ProxyJump jump"]);
    lab.laptop_only_in(&["cafe"]);
    let from = lab.laptop().launch(me.ssh(["box", "echo $SSH_CONNECTION"])).run();
    assert!(from.stdout.starts_with("192.168.77.40 "), "{from:?}");
    // The jump host sees the café's router, not the laptop.
    let from = lab.laptop().launch(me.ssh(["jump", "echo $SSH_CONNECTION"])).run();
    assert!(from.stdout.starts_with("203.0.113.2 "), "{from:?}");
}
