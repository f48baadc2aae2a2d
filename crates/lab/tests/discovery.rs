//! Finding gateways, with independent peers in a network of namespaces: avahi for multicast, dnsmasq, dig and
//! named-checkzone for unicast DNS. Security case P-89.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lab::{
    netlab::{Host, Netlab},
    process::{Finished, GatewayOptions, Launch, Process},
    require,
    wire::wait_for,
};
use serde_json::{Value, json};

const SERVICE: &str = "_openclaw-gw._tcp";
/// In a container multicast is off unless it is asked for; the lab's networks carry it.
const MULTICAST: (&str, &str) = ("OPENCLAW_DISABLE_BONJOUR", "0");

fn programs(names: &[&str]) -> Result<(), String> {
    require::netlab()?;
    names.iter().try_for_each(|name| require::program(name).map(|_| ()))
}

fn tool(host: Host<'_>, name: &str) -> Launch {
    host.program(require::program(name).expect("looked for before"))
}

#[track_caller]
fn well(finished: Finished) -> Finished {
    assert!(finished.status.success(), "{finished:#?}");
    finished
}

/// avahi on one machine of the lab, with a message bus of its own.
struct Avahi<'lab> {
    host: Host<'lab>,
    dir: PathBuf,
    _bus: Process,
    daemon: Process,
}

impl<'lab> Avahi<'lab> {
    #[track_caller]
    fn start(host: Host<'lab>) -> Self {
        let dir = host.home().join("avahi");
        fs::create_dir_all(&dir).expect("writes");
        let bus = dir.join("bus");
        let policy = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>system</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/>\
             <allow own=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/></policy></busconfig>",
            bus.display()
        );
        fs::write(dir.join("bus.conf"), policy).expect("writes");
        let settings = format!(
            "[server]\nhost-name={}-peer\nuse-ipv6=no\nallow-interfaces=lan0\nenable-dbus=yes\n\
             [publish]\npublish-workstation=no\npublish-hinfo=no\n[wide-area]\nenable-wide-area=no\n",
            host.name
        );
        fs::write(dir.join("avahi.conf"), settings).expect("writes");
        let config = format!("--config-file={}", dir.join("bus.conf").display());
        let process = tool(host, "dbus-daemon").args([config.as_str(), "--nofork", "--nopidfile"]).start("bus");
        wait_for("the message bus", || bus.exists().then_some(()));
        // Its files lie in /run; here it has one of its own.
        let run = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec avahi-daemon -f \"$0\" \
                   --no-drop-root --no-chroot --no-rlimits";
        let daemon = Self::on_bus(host, &dir, "sh").args(["-c", run]).arg(dir.join("avahi.conf")).start("avahi");
        let avahi = Self { host, dir, _bus: process, daemon };
        wait_for("avahi", || {
            let ready = avahi.daemon.said().contains("Server startup complete");
            ready.then_some(())
        });
        avahi
    }

    fn on_bus(host: Host<'_>, dir: &Path, name: &str) -> Launch {
        let path = std::env::var("PATH").unwrap_or_default();
        tool(host, name)
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", dir.join("bus").display()))
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
    }

    /// Resolved services: name, host, address, port and TXT strings, as avahi tells them.
    fn sees(&self) -> Vec<(String, String, String, String, Vec<String>)> {
        let finished = Self::on_bus(self.host, &self.dir, "avahi-browse").args(["-rtp", SERVICE]).run();
        let lines = finished.stdout.lines().filter(|line| line.starts_with('='));
        let entry = |line: &str| {
            let parts: Vec<&str> = line.splitn(10, ';').collect();
            let mut txt: Vec<String> =
                parts[9].split('"').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
            txt.sort();
            let own = |at: usize| parts[at].to_owned();
            (own(3), own(6), own(7), own(8), txt)
        };
        lines.map(entry).collect()
    }

    fn publish(&self, name: &str, port: &str, txt: &[&str]) -> Process {
        let publisher = Self::on_bus(self.host, &self.dir, "avahi-publish").args(["-s", name, SERVICE, port]).args(txt);
        let process = publisher.start("publish");
        wait_for("avahi to announce", || process.said().contains("Established").then_some(()));
        process
    }
}

/// Counts what leaves by each interface for multicast DNS.
#[track_caller]
fn count_multicast(host: Host<'_>) {
    let rules = "add table inet seen\nadd chain inet seen out { type filter hook output priority 0; }\n\
                 add rule inet seen out oifname \"lan0\" udp dport 5353 counter comment \"lan\"\n\
                 add rule inet seen out oifname \"tailscale0\" udp dport 5353 counter comment \"ts\"\n";
    let file = host.home().join("rules.nft");
    fs::write(&file, rules).expect("writes");
    well(tool(host, "nft").arg("-f").arg(file).run());
}

/// Packets counted by the rule with this comment.
#[track_caller]
fn counted(host: Host<'_>, comment: &str) -> u64 {
    let list = well(tool(host, "nft").args(["list", "chain", "inet", "seen", "out"]).run()).stdout;
    let line = list.lines().find(|line| line.contains(&format!("\"{comment}\""))).unwrap_or_else(|| panic!("{list}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").expect("a counter");
    words[at + 1].parse().expect("a number")
}

fn options(config: Value) -> GatewayOptions {
    let env =
        vec![(MULTICAST.0.to_owned(), MULTICAST.1.to_owned()), ("OPENCLAW_MDNS_HOSTNAME".into(), "labgate".into())];
    GatewayOptions { config: Some(config.to_string()), env, ..GatewayOptions::default() }
}

fn keys(txt: &[String]) -> Vec<&str> {
    txt.iter().map(|text| text.split('=').next().unwrap_or_default()).collect()
}

/// S-195: an independent browser finds the gateway, and follows every change of mode without a restart.
#[test]
fn avahi_finds_our_gateway_as_far_as_it_wants_to_be_found() {
    require!(programs(&["avahi-daemon", "avahi-browse", "dbus-daemon", "nft"]));
    let lab = Netlab::up();
    count_multicast(lab.host("gateway"));
    let config = json!({"gateway": {"mode": "local", "discovery": {"enabled": true}},
                        "logging": {"file": lab.host("gateway").home().join("gateway.log")}});
    let gateway = lab.gateway(options(config));
    let pid = gateway.pid();
    let avahi = Avahi::start(lab.host("phone"));
    let seen = |what: &str, wanted: &dyn Fn(&[String]) -> bool| {
        wait_for(what, || avahi.sees().into_iter().find(|(.., txt)| wanted(txt)))
    };
    let (_, host, address, port, txt) = seen("the gateway in avahi", &|_| true);
    assert_eq!((host.as_str(), address, port.as_str()), ("labgate.local", lab.address("gateway", "lan"), "18789"));
    let core = ["displayName", "gatewayDirectReachable", "gatewayPort", "lanHost", "role", "transport"];
    assert_eq!(keys(&txt), core);
    for claim in ["gatewayDirectReachable=1", "gatewayPort=18789", "lanHost=labgate.local", "role=gateway"] {
        assert!(txt.contains(&claim.to_owned()), "{claim}: {txt:?}");
    }
    let set = |mode: &str| well(gateway.owner(["config", "set", "discovery.mdns.mode", mode]).run());
    set("full");
    let (.., txt) = seen("more of it", &|txt| keys(txt).contains(&"sshPort"));
    assert_eq!(
        keys(&txt),
        ["cliPath", "displayName", "gatewayDirectReachable", "gatewayPort", "lanHost", "role", "sshPort", "transport"]
    );
    set("minimal");
    seen("less of it", &|txt| keys(txt) == core);
    set("off");
    wait_for("silence", || avahi.sees().is_empty().then_some(()));
    assert_eq!(gateway.pid(), pid);
    assert!(counted(lab.host("gateway"), "lan") > 0);
    assert_eq!(counted(lab.host("gateway"), "ts"), 0, "multicast on the tailnet's interface");
    // A gateway that stops says goodbye: nobody lists it for the rest of its records' life.
    set("minimal");
    seen("it again", &|_| true);
    drop(gateway);
    wait_for("its goodbye", || avahi.sees().is_empty().then_some(()));
}

/// S-196, S-210 and P-89: our browser shows what avahi announces as what it is, and believes none of it.
#[test]
fn p_89_what_avahi_announces_is_shown_and_not_believed() {
    require!(programs(&["avahi-daemon", "avahi-publish", "dbus-daemon", "nft"]));
    let lab = Netlab::up();
    let avahi = Avahi::start(lab.host("phone"));
    let trap = lab.host("phone").enter(|| std::net::TcpListener::bind("0.0.0.0:19000").expect("free"));
    trap.set_nonblocking(true).expect("a socket");
    let _honest = avahi.publish("Kitchen [é] box", "19000", &["role=gateway", "gatewayPort=19000", "sshPort=2222"]);
    let esc = "displayName=\u{1b}]0;owned\u{7}\u{202e}yours";
    let liar = [
        "role=gateway",
        "gatewayPort=1",
        "lanHost=evil.example",
        "gatewayTls=1",
        "gatewayTlsSha256=00",
        esc,
        "tailnetDns=evil.example",
        "token=x",
        "password=x",
    ];
    let _liar = avahi.publish("liar", "19000", &liar);
    let _node = avahi.publish("a node", "19000", &["role=node"]);
    let laptop = lab.laptop();
    count_multicast(laptop);
    let before = lab::sandbox::walk(&laptop.state_dir());
    let found = wait_for("both", || {
        let found = well(laptop.openclaw(["gateway", "discover", "--json", "--timeout", "3000"]).run()).json();
        (found["count"] == 2).then_some(found)
    });
    assert_eq!(found["domains"], json!(["local."]));
    let (kitchen, liar) = (&found["beacons"][0], &found["beacons"][1]);
    assert_eq!(kitchen["instanceName"], "Kitchen [é] box");
    assert_eq!((&kitchen["host"], &kitchen["port"]), (&json!("phone-peer.local"), &json!(19000)));
    assert_eq!(kitchen["addresses"], json!([lab.address("phone", "lan")]));
    assert_eq!((&kitchen["wsUrl"], &kitchen["sshPort"]), (&json!("ws://phone-peer.local:19000"), &json!(2222)));
    // The place comes from SRV, whatever the claims say.
    assert_eq!((&liar["wsUrl"], &liar["port"]), (&json!("wss://phone-peer.local:19000"), &json!(19000)));
    assert_eq!((&liar["gatewayPort"], &liar["lanHost"]), (&json!(1), &json!("evil.example")));
    let shown = well(laptop.openclaw(["gateway", "discover", "--timeout", "3000"]).run());
    assert!(!shown.stdout.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{:?}", shown.stdout);
    assert!(
        shown.stdout.contains(&lab.address("phone", "lan")) && shown.stdout.contains("says tls"),
        "{}",
        shown.stdout
    );
    // Nobody was connected to, nothing was learnt, and the tailnet heard no question.
    assert!(trap.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    assert_eq!(lab::sandbox::walk(&laptop.state_dir()), before);
    assert!(counted(laptop, "lan") > 0);
    assert_eq!(counted(laptop, "ts"), 0);
}

/// S-197: the zone, as dig and named-checkzone see it, and as our own browser does.
#[test]
fn the_zone_is_served_on_the_tailnet_only() {
    require!(programs(&["dig", "named-checkzone", "nft"]));
    let lab = Netlab::up();
    let config = json!({"gateway": {"mode": "local"},
                        "discovery": {"wideArea": {"domain": "openclaw.internal", "serve": true}},
                        "logging": {"file": lab.host("gateway").home().join("gateway.log")}});
    let gateway = lab.gateway(options(config));
    let tailnet = lab.address("gateway", "ts");
    let laptop = lab.laptop();
    let dig = |server: &str, question: &[&str]| {
        let server = format!("@{server}");
        let args = [server.as_str(), "+time=1", "+tries=1"];
        tool(laptop, "dig").args(args).args(question.iter().copied()).run().stdout
    };
    let name = format!("{SERVICE}.openclaw.internal");
    let instance = wait_for("the zone", || {
        let answer = dig(&tailnet, &["+short", "PTR", &name]);
        answer.lines().find(|line| line.ends_with(&format!(".{name}."))).map(str::to_owned)
    });
    for over in ["+notcp", "+tcp"] {
        let srv = dig(&tailnet, &[over, "+short", "SRV", &instance]);
        let parts: Vec<&str> = srv.split_whitespace().collect();
        assert_eq!(parts[..3], ["0", "0", "18789"], "{srv}");
        assert_eq!(dig(&tailnet, &[over, "+short", "A", parts[3]]).trim(), tailnet);
        let txt = dig(&tailnet, &[over, "+short", "TXT", &instance]);
        assert!(txt.contains("\"role=gateway\"") && txt.contains("\"gatewayPort=18789\""), "{txt}");
        assert!(!txt.contains("lanHost") && !txt.contains("sshPort"), "{txt}");
    }
    for (question, status) in [
        (["A", "nope.openclaw.internal"], "status: NXDOMAIN"),
        (["A", "example.com"], "status: REFUSED"),
        (["AXFR", "openclaw.internal"], "Transfer failed"),
        (["SOA", "openclaw.internal"], "flags: qr aa"),
    ] {
        let answer = dig(&tailnet, &question);
        assert!(answer.contains(status), "{question:?}: {answer}");
    }
    // Not on the local network, where anybody may be.
    let lan = dig(&lab.address("gateway", "lan"), &["PTR", &name]);
    assert!(lan.contains("no servers could be reached") || lan.contains("connection refused"), "{lan}");

    let zone = gateway.host().state_dir().join("dns/openclaw.internal.db");
    let checked = tool(laptop, "named-checkzone").args(["openclaw.internal"]).arg(&zone).run();
    assert!(checked.status.success() && checked.stdout.contains("OK"), "{checked:#?}");

    use_dns_server(&lab, &tailnet);
    let discover = ["gateway", "discover", "--json", "--timeout", "2000"];
    let found = well(laptop.openclaw(discover).env("OPENCLAW_WIDE_AREA_DOMAIN", "openclaw.internal.").run()).json();
    assert_eq!(found["domains"], json!(["local.", "openclaw.internal."]));
    // Both kinds: `OPENCLAW_DISABLE_BONJOUR=0` has it announced on the local network as well.
    let of = |domain: &str| {
        let beacons = found["beacons"].as_array().expect("a list");
        let beacon = beacons.iter().find(|beacon| beacon["domain"] == domain);
        beacon.unwrap_or_else(|| panic!("{found:#}"))["addresses"].clone()
    };
    assert_eq!((&found["count"], of("openclaw.internal.")), (&json!(2), json!([tailnet])));
    assert_eq!(of("local."), json!([lab.address("gateway", "lan")]));
    // A domain that is taken away is no longer answered for; no restart.
    well(gateway.owner(["config", "unset", "discovery.wideArea.domain"]).run());
    wait_for("silence", || dig(&tailnet, &["PTR", &name]).contains("no servers could be reached").then_some(()));
}

/// The resolver of one machine of the lab.
fn use_dns_server(lab: &Netlab, server: &str) {
    let file = format!("/etc/netns/{}-laptop/resolv.conf", lab.id());
    fs::write(file, format!("nameserver {server}\n")).expect("the lab's file");
}

/// An independent server: dnsmasq, configured by hand.
#[test]
fn a_zone_of_dnsmasq_is_browsed() {
    require!(programs(&["dnsmasq", "nft"]));
    let lab = Netlab::up();
    let server = lab.host("gateway");
    let (address, instance) = (lab.address("gateway", "ts"), format!("kitchen.{SERVICE}.openclaw.internal"));
    let settings = format!(
        "no-resolv\nno-hosts\nbind-interfaces\nlisten-address={address}\nlocal=/openclaw.internal/\n\
         ptr-record={SERVICE}.openclaw.internal,{instance}\nsrv-host={instance},box.openclaw.internal,18789\n\
         txt-record={instance},role=gateway,transport=gateway,\"displayName=The kitchen, second box\",gatewayTls=1\n\
         host-record=box.openclaw.internal,{address}\n"
    );
    let file = server.home().join("dnsmasq.conf");
    fs::write(&file, settings).expect("writes");
    let config = format!("--conf-file={}", file.display());
    let _dnsmasq =
        tool(server, "dnsmasq").args(["--keep-in-foreground", "--user=root", "--pid-file", &config]).start("dnsmasq");
    use_dns_server(&lab, &address);
    let laptop = lab.laptop();
    let found = wait_for("the zone", || {
        let discover = ["gateway", "discover", "--json", "--timeout", "1000"];
        let found = well(laptop.openclaw(discover).env("OPENCLAW_WIDE_AREA_DOMAIN", "openclaw.internal").run()).json();
        (found["count"] == 1).then_some(found)
    });
    let beacon = &found["beacons"][0];
    assert_eq!(
        (&beacon["instanceName"], &beacon["displayName"]),
        (&json!("kitchen"), &json!("The kitchen, second box"))
    );
    assert_eq!(
        (&beacon["wsUrl"], &beacon["addresses"]),
        (&json!("wss://box.openclaw.internal:18789"), &json!([address]))
    );
}
