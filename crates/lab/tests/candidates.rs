//! `openclaw connect` without a target, on a laptop with a network around it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use lab::{
    netlab::{Host, Netlab},
    process::Launch,
    require::{self, program},
    sshd::{SshClient, SshdSetup},
};
use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use serde_json::Value;

/// The service type of the reference (docs/remote.md).
const SERVICE: &str = "_openclaw-gw._tcp.local.";

/// Announcements from one host of the lab, for as long as this lives.
struct Announcer(ServiceDaemon);

impl Announcer {
    fn start(host: Host<'_>, interface: &str, services: &[ServiceInfo]) -> Self {
        // The library's thread inherits the namespace of the thread that starts it.
        let daemon = host.enter(|| {
            let daemon = ServiceDaemon::new().expect("a daemon");
            daemon.disable_interface(IfKind::All).expect("a command");
            daemon.enable_interface(interface).expect("a command");
            for service in services {
                daemon.register(service.clone()).expect("a command");
            }
            daemon
        });
        Self(daemon)
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}

fn service(name: &str, address: &str, txt: &[(&str, &str)]) -> ServiceInfo {
    let mut service =
        ServiceInfo::new(SERVICE, name, &format!("{name}.local."), address, 18789, txt).expect("a service");
    service.set_requires_probe(false);
    service
}

/// A `tailscale` that prints this, with a warning around it as the real one sometimes does.
fn tailscale(me: &SshClient, status: &str) {
    let file = me.bin().join("tailscale");
    fs::write(&file, format!("#!/bin/sh\necho '# Warning: client version differs'\ncat <<'X'\n{status}\nX\n"))
        .expect("writes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("sets the mode");
}

fn on_the_laptop(lab: &Netlab, me: &SshClient, args: &[&str]) -> Launch {
    lab.laptop().openclaw(args.iter().copied()).envs(me.env())
}

fn candidate<'a>(report: &'a Value, target: &str) -> &'a Value {
    let all = report["candidates"].as_array().expect("a list");
    all.iter().find(|found| found["target"] == target).unwrap_or_else(|| panic!("no {target} in {report:#}"))
}

#[test]
fn everything_that_may_hold_a_gateway_is_listed_and_nothing_is_said_to_it() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let sshd = SshdSetup::on(lab.host("gateway")).start();
    let me = SshClient::on(lab.laptop());
    me.alias("home", "gateway.home", 22, &[]);
    me.alias("behind", "10.9.9.9", 22, &["ProxyJump home"]);
    me.alias("off", "proxy.example.net", 22, &[]);
    let address = lab.address("gateway", "lan");
    tailscale(
        &me,
        r#"{"BackendState":"Running","CurrentTailnet":{"MagicDNSEnabled":true},"Peer":{
            "nodekey:1":{"HostName":"gateway","DNSName":"gateway.tail-lab.ts.net.","OS":"linux","Online":true,
              "TailscaleIPs":["100.64.0.10"]},
            "nodekey:2":{"HostName":"phone","DNSName":"phone.tail-lab.ts.net.","OS":"iOS","Online":true}}}"#,
    );
    let kitchen = service("kitchen", &address, &[("role", "gateway"), ("displayName", "Kitchen")]);
    // P-89: another host and port in the TXT record, a name with escapes, a fingerprint nobody asked for.
    let hostile = service(
        "trap",
        &lab.address("phone", "lan"),
        &[
            ("role", "gateway"),
            ("displayName", "\u{1b}[2Jhome\u{202e}"),
            ("lanHost", "gateway.home"),
            ("gatewayPort", "1"),
            ("gatewayTlsSha256", "00"),
            ("sshPort", "-oProxyCommand=id"),
        ],
    );
    let _here = Announcer::start(lab.host("gateway"), "lan0", std::slice::from_ref(&kitchen));
    let _there = Announcer::start(lab.host("phone"), "lan0", &[hostile]);

    let listed = on_the_laptop(&lab, &me, &["connect", "--json"]).run();
    assert!(listed.status.success(), "{listed:#?}");
    let report = listed.json();
    let check = |target: &str, source: &str, answer: &str| {
        let found = candidate(&report, target);
        assert_eq!((&found["sources"][0], &found["answer"]), (&source.into(), &answer.into()), "{report:#}");
    };
    check("home", "ssh-config", "ssh");
    check("behind", "ssh-config", "behind");
    check("off", "ssh-config", "refused");
    check(&address, "lan", "ssh");
    check("gateway.tail-lab.ts.net", "tailnet", "ssh");
    assert_eq!(candidate(&report, &address)["name"], "Kitchen");
    let trap = candidate(&report, &lab.address("phone", "lan"));
    assert_eq!((&trap["name"], &trap["gatewayPort"]), (&"[2Jhome".into(), &18789.into()), "{trap}");
    assert_eq!(report["candidates"].as_array().map(Vec::len), Some(6), "{report:#}");

    // ssh servers were listened to and never spoken to: none got as far as a login.
    assert!(!sshd.said().contains("Accepted") && !sshd.said().contains("Failed"), "{}", sshd.said());
    // Nothing was made on the laptop.
    assert!(!lab.laptop().state_dir().join("identity").exists());
    let shown = on_the_laptop(&lab, &me, &["connect"]).run();
    assert!(shown.status.success() && !shown.stdout.contains('\u{1b}'), "{shown:#?}");
    assert!(shown.stdout.contains("gateway on this network") && shown.stdout.contains("through home"), "{shown:#?}");
}
