//! `openclaw tunnel`: up and down, and what it survives.

use std::{
    net::TcpListener,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lab::{
    netlab::{Host, LabGateway, Netlab},
    process::{GatewayOptions, Process, says_hello, wait_until},
    require::{self, program},
    sshd::user,
};
use serde_json::Value;

use crate::{home::Home, report};

/// The port on the laptop that other programs get.
const PORT: u16 = 28_789;
/// Far beyond every promise: what takes longer never comes.
const LIMIT: Duration = Duration::from_secs(60);

/// A tunnel on the laptop, kept by a supervisor that the test can kill.
pub struct Kept<'a, 'lab> {
    pub home: &'a Home<'lab>,
    pub supervisor: Process,
}

impl<'a, 'lab> Kept<'a, 'lab> {
    /// Starts it in the foreground of its own process; returns when it is up.
    #[track_caller]
    pub fn start(home: &'a Home<'lab>, place: &str) -> Self {
        let port = PORT.to_string();
        let supervisor = home.openclaw(&["tunnel", "up", place, "--port", &port, "--foreground"]).start("tunnel");
        let mut kept = Self { home, supervisor };
        wait_until("a tunnel that is up", || {
            if let Some(status) = kept.supervisor.ended() {
                panic!("the tunnel ended ({status}): {}", kept.supervisor.said());
            }
            (kept.status()["state"] == "up").then_some(())
        });
        kept
    }

    /// What `tunnel ls --json` says of it.
    #[track_caller]
    pub fn status(&self) -> Value {
        tunnels(self.home).first().cloned().unwrap_or_default()
    }

    /// Waits until its spare is ready, and returns the pid of the ssh in use.
    #[track_caller]
    pub fn rested(&self) -> u32 {
        wait_until("a tunnel with a spare", || {
            let status = self.status();
            let pid = |role: &str| {
                let forwards = status["forwards"].as_array()?;
                forwards.iter().find(|forward| forward["role"] == role)?["pid"].as_u64()
            };
            (status["state"] == "up").then_some(())?;
            pid("spare")?;
            u32::try_from(pid("current")?).ok()
        })
    }

    /// The time until a client of the port is greeted, from now.
    #[track_caller]
    pub fn until_hello(&self) -> Duration {
        until_hello(self.home.laptop(), PORT, self.home.gateway.token())
    }
}

/// All tunnels of the laptop.
#[track_caller]
pub fn tunnels(home: &Home<'_>) -> Vec<Value> {
    let listed = home.ok(&["tunnel", "ls", "--json"]).json();
    listed["tunnels"].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
}

/// Asks again and again, without waiting for those who asked before, until one is greeted.
#[track_caller]
pub fn until_hello(host: Host<'_>, port: u16, token: &str) -> Duration {
    let started = Instant::now();
    let (greeted, hellos) = mpsc::channel();
    host.enter(move || {
        while started.elapsed() < LIMIT {
            let (greeted, token) = (greeted.clone(), token.to_owned());
            // A new thread is in the same namespace.
            thread::spawn(move || says_hello(port, &token).map(|()| greeted.send(started.elapsed())));
            if let Ok(took) = hellos.recv_timeout(Duration::from_millis(20)) {
                return took;
            }
        }
        panic!("nobody was greeted within {LIMIT:?}");
    })
}

fn scene(lab: &Netlab) -> Home<'_> {
    Home::new(lab)
}

fn place(alias: &str) -> String {
    format!("{}@{alias}", user())
}

#[test]
fn up_in_the_background_and_down_without_a_trace() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = scene(&lab);
    home.pair();
    home.save("home", &[home.ssh("box")]);
    let up = home.ok(&["tunnel", "up", "home", "--port", &PORT.to_string(), "--json"]).json();
    assert_eq!(up["tunnel"]["state"], "up", "{up}");
    assert_eq!(up["tunnel"]["gatewayId"], home.gateway_id(), "{up}");
    assert_eq!(up["tunnel"]["port"], PORT, "{up}");

    // Commands use it, other programs have their port, and a second `up` changes nothing.
    let starts = home.me.starts().len();
    let path = home.ok(&["--on", "home", "status", "--json"]).json()["gateway"]["path"].clone();
    assert_eq!((path["kind"].as_str(), path["carrier"].as_str()), (Some("ssh"), Some("tunnel")), "{path}");
    let asked = Instant::now();
    home.ok(&["--on", "home", "health"]);
    report::note("openclaw health through a tunnel that is up", asked.elapsed());
    let health = format!("http://127.0.0.1:{PORT}/healthz");
    assert!(lab.laptop().program("curl").args(["-fsS", "-m", "5", &health]).run().status.success());
    home.ok(&["tunnel", "up", "home"]);
    let list = home.ok(&["tunnel", "ls"]);
    assert!(list.stdout.contains("home") && list.stdout.contains("up"), "{list:#?}");
    assert_eq!(home.me.starts().iter().skip(starts).filter(|args| args.contains("-L")).count(), 0, "no further ssh");
    let logs = home.ok(&["tunnel", "logs", "home"]);
    assert!(!logs.stdout.is_empty() && !logs.stdout.contains(home.gateway.token()), "{logs:#?}");

    home.ok(&["tunnel", "down", "home"]);
    home.no_ssh_left();
    wait_until("an empty laptop", || lab.laptop().processes().is_empty().then_some(()));
    assert!(!lab.laptop().program("curl").args(["-fsS", "-m", "5", &health]).run().status.success());
}

#[test]
fn a_killed_ssh_is_replaced_and_a_killed_supervisor_leaves_nothing() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = scene(&lab);
    {
        let mut tunnel = Kept::start(&home, &place("box"));
        for round in 0..3 {
            let current = tunnel.rested();
            lab::sshd::kill(current);
            report::note(&format!("tunnel: ssh killed, hello again (round {round})"), tunnel.until_hello());
        }
        tunnel.rested();
        home.far.kill_sessions();
        report::note("tunnel: every sshd session killed, hello again", tunnel.until_hello());
        tunnel.rested();
        home.me.kill_all();
        report::note("tunnel: every ssh killed at once, hello again", tunnel.until_hello());
        // Whatever it had of children ends with it, without anybody's help.
        tunnel.rested();
        tunnel.supervisor.kill();
        home.no_ssh_left();
    }
    // A leftover of a killed supervisor is no obstacle, and an sshd that comes back is found.
    let home = &mut home;
    home.far.stop();
    let down = home.openclaw(&["tunnel", "up", &place("box"), "--timeout", "2000", "--json"]).run();
    assert_eq!(down.json()["tunnel"]["lastFailure"]["code"], "ssh_refused", "{down:#?}");
    home.far.start_again();
    let started = Instant::now();
    wait_until("the tunnel to find sshd again", || (tunnels(home)[0]["state"] == "up").then_some(()));
    report::note("tunnel: sshd started again, tunnel up", started.elapsed());
    home.ok(&["tunnel", "down", "--all"]);
    home.no_ssh_left();
}

#[test]
fn links_that_are_cut_or_fall_silent_and_a_laptop_that_roams() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = scene(&lab);
    let tunnel = Kept::start(&home, &place("box"));
    let clean = |what: &str, gone: u64, fault: &dyn Fn(), cure: &dyn Fn()| {
        tunnel.rested();
        fault();
        // The length of the fault is the case, not a guess about somebody's speed.
        thread::sleep(Duration::from_secs(gone));
        cure();
        let took = tunnel.until_hello();
        report::note(&format!("tunnel: {what}, hello after it was cured"), took);
        took
    };
    for seconds in [2, 8] {
        let what = format!("LAN cut for {seconds} s");
        clean(&what, seconds, &|| lab.cut("laptop:lan"), &|| lab.heal("laptop:lan"));
    }
    clean("LAN left and joined", 2, &|| lab.leave("laptop:lan"), &|| lab.join("laptop:lan"));
    clean("LAN silent for 5 s", 5, &|| lab.drop_packets("laptop:lan"), &|| lab.heal("laptop:lan"));
    clean("LAN silent for 15 s", 15, &|| lab.drop_packets("laptop:lan"), &|| lab.heal("laptop:lan"));
    clean("another address on the LAN", 0, &|| lab.readdress("laptop:lan", 99), &|| ());
    assert_eq!(tunnel.status()["state"], "up");
}

#[test]
fn another_way_to_the_host_is_taken_when_the_one_in_use_falls_silent() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = scene(&lab);
    // ssh goes by the LAN address; the same address is reached through a second route when the first is gone.
    let tunnel = Kept::start(&home, &place("box-jump"));
    tunnel.rested();
    // The jump host is reached over `pub`; from now on only the café's NAT leads there.
    lab.leave("laptop:pub");
    report::note("tunnel: from a network to a café behind a NAT, hello again", tunnel.until_hello());
    assert_eq!(tunnel.status()["state"], "up");
}

#[test]
fn a_taken_port_is_told_with_its_holder_and_another_one_is_given() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = scene(&lab);
    let squatter = lab.laptop().enter(|| TcpListener::bind(("127.0.0.1", PORT)).expect("the port is free"));
    let up = home.ok(&["tunnel", "up", &place("box"), "--port", &PORT.to_string()]);
    let ours = std::process::id().to_string();
    assert!(up.stdout.contains(&PORT.to_string()) && up.stdout.contains(&ours), "the holder is named: {up:#?}");
    let status = tunnels(&home)[0].clone();
    assert_eq!(status["portRefused"]["port"], PORT, "{status}");
    let given = u16::try_from(status["port"].as_u64().expect("another port")).expect("a port");
    assert_ne!(given, PORT);
    until_hello(lab.laptop(), given, home.gateway.token());
    // Nobody was sent anything by the one who sits on the port.
    squatter.set_nonblocking(true).expect("sets");
    assert!(squatter.accept().is_err(), "nobody connects to the squatter");
    home.ok(&["tunnel", "down", "--all"]);
}

#[test]
fn p_85_another_gateway_at_the_far_end_gets_no_byte() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = scene(&lab);
    home.pair();
    home.save("home", &[home.ssh("box")]);
    home.ok(&["tunnel", "up", "home", "--port", &PORT.to_string()]);
    home.gateway.kill();
    // Somebody else takes the port on the far host.
    let host = home.gateway.host();
    let other = host.home().join("other");
    std::fs::create_dir_all(&other).expect("creates");
    let launch = host
        .openclaw(["gateway", "run", "--port", "18789", "--bind", "loopback"])
        .env("OPENCLAW_STATE_DIR", &other)
        .env("OPENCLAW_GATEWAY_TOKEN", "stranger");
    let stranger = launch.start("stranger");
    wait_until("the stranger", || host.enter(|| says_hello(18789, "stranger")).is_ok().then_some(()));
    let refused = home.fails(&["--on", "home", "health"]);
    assert_eq!(refused.status.code(), Some(21), "{refused:#?}");
    // A program that cannot tell gateways apart is not let through either, once the proof is due again.
    wait_until("a tunnel that refuses", || {
        let status = tunnels(&home)[0].clone();
        let through = lab.laptop().enter(|| says_hello(PORT, "stranger")).is_ok();
        (!through && status["state"] != "up").then_some(())
    });
    let status = tunnels(&home)[0].clone();
    assert_eq!(status["lastFailure"]["code"], "wrong_gateway", "{status}");
    drop(stranger);
    home.gateway.start_again();
    wait_until("the right gateway", || {
        (tunnels(&home)[0]["state"] == "up" || home.openclaw(&["tunnel", "retry", "home"]).run().status.success())
            .then_some(())
    });
    home.ok(&["--on", "home", "health"]);
    home.ok(&["tunnel", "down", "home"]);
}

#[test]
fn accounts_that_allow_no_session_still_carry_a_tunnel() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let gateway = LabGateway::start(lab.host("gateway"), GatewayOptions::default());
    for setup in
        [lab::sshd::SshdSetup::on(gateway.host()).no_sessions(), lab::sshd::SshdSetup::on(gateway.host()).nologin()]
    {
        let sshd = setup.start();
        let me = lab::sshd::SshClient::on(lab.laptop());
        sshd.authorize(&me.public_key());
        me.trust(&sshd, &["gateway.home"]);
        me.alias("box", "gateway.home", 22, &[]);
        let openclaw = |args: &[&str]| {
            let launch = lab.laptop().openclaw(args.iter().copied());
            me.env().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value)).run()
        };
        let up = openclaw(&["tunnel", "up", &place("box"), "--port", &PORT.to_string(), "--json"]);
        assert_eq!(up.json()["tunnel"]["state"], "up", "{up:#?}");
        until_hello(lab.laptop(), PORT, gateway.token());
        assert!(openclaw(&["tunnel", "down", "--all"]).status.success());
    }
}
