//! Several machines in one: the hosts and networks of `tests/netlab`, made of Linux network namespaces.
//!
//! A [`Netlab`] has an id of its own, so any number live side by side, and goes when it is dropped; should the test be
//! killed, the script sees its standard input end and takes everything down. Programs start on a [`Host`], with a home and
//! a state directory per host; [`Host::enter`] runs a piece of the test itself there.
//!
//! ```no_run
//! # use lab::{netlab::Netlab, process::GatewayOptions, require};
//! let lab = Netlab::up(); // after require!(require::netlab())
//! let gateway = lab.gateway(GatewayOptions::default());
//! lab.drop_packets("laptop:lan");
//! let answer = lab.host("laptop").openclaw(["health", "--json"]).run();
//! ```

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::{
    process::{GatewayOptions, Launch, Process, says_hello, wait_until},
    require::program,
    sandbox::binary,
};

/// The port of a gateway in the lab: the default one, which nobody else has in there.
pub const GATEWAY_PORT: u16 = 18789;
/// Every host that a program may run on.
const HOSTS: [&str; 6] = ["gateway", "laptop", "phone", "proxy", "router", "caferouter"];

/// A lab that is up.
pub struct Netlab {
    id: String,
    /// Its standard input keeps the lab alive.
    script: Child,
    homes: TempDir,
}

impl Netlab {
    /// Makes one.
    ///
    /// # Panics
    /// If the script fails; ask [`crate::require::netlab`] before.
    #[track_caller]
    pub fn up() -> Self {
        let id = crate::process::random_word(6);
        let homes = TempDir::with_prefix("openclaw-netlab-").expect("a temporary directory");
        for host in HOSTS {
            fs::create_dir_all(homes.path().join(host).join("state")).expect("a scratch directory takes directories");
        }
        let errors = File::create(homes.path().join("netlab.err")).expect("a scratch directory takes files");
        let mut script = script(&id)
            .arg("hold")
            // Its own group: whoever kills the test's group must not kill the clean-up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("tests/netlab starts");
        let mut said = String::new();
        let stdout = script.stdout.take().expect("a pipe");
        let read = BufReader::new(stdout).read_line(&mut said);
        if read.is_err() || said.trim() != "up" {
            let why = fs::read_to_string(homes.path().join("netlab.err")).unwrap_or_default();
            let _ = script.wait();
            panic!("tests/netlab does not come up: {said}{why}");
        }
        Self { id, script, homes }
    }

    /// What its namespaces are called after.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn host(&self, name: &'static str) -> Host<'_> {
        assert!(HOSTS.contains(&name), "no host {name}");
        Host { lab: self, name }
    }

    pub fn laptop(&self) -> Host<'_> {
        self.host("laptop")
    }

    /// Pulls the cable of a link (`laptop:lan`): its carrier is lost.
    #[track_caller]
    pub fn cut(&self, link: &str) {
        self.netlab(&["cut", link]);
    }

    /// Makes every packet of a link vanish while it still looks up.
    #[track_caller]
    pub fn drop_packets(&self, link: &str) {
        self.netlab(&["drop", link]);
    }

    /// Undoes [`Self::cut`] and [`Self::drop_packets`].
    #[track_caller]
    pub fn heal(&self, link: &str) {
        self.netlab(&["heal", link]);
    }

    /// Takes a host out of a network: no carrier, no address.
    #[track_caller]
    pub fn leave(&self, link: &str) {
        self.netlab(&["leave", link]);
    }

    /// Brings it into the network again, with its usual address.
    #[track_caller]
    pub fn join(&self, link: &str) {
        self.netlab(&["join", link]);
    }

    /// Gives the host another address on that network.
    #[track_caller]
    pub fn readdress(&self, link: &str, octet: u8) {
        self.netlab(&["readdress", link, &octet.to_string()]);
    }

    /// Opens a port on the public side of the router, to a host and port (`proxy:22`) of its LAN.
    #[track_caller]
    pub fn forward(&self, port: u16, to: &str) {
        self.netlab(&["forward", &port.to_string(), to]);
    }

    /// Only these networks are left to the laptop; it leaves the others.
    #[track_caller]
    pub fn laptop_only_in(&self, networks: &[&str]) {
        for network in ["lan", "ts", "pub", "cafe"] {
            if !networks.contains(&network) {
                self.leave(&format!("laptop:{network}"));
            }
        }
    }

    /// The usual address of a host in a network.
    #[track_caller]
    pub fn address(&self, host: &str, network: &str) -> String {
        self.netlab(&["addr", host, network]).trim().to_owned()
    }

    /// The state of every link, as the script shows it.
    #[track_caller]
    pub fn status(&self) -> String {
        self.netlab(&["status"])
    }

    /// Our gateway on the host `gateway`, listening on all its addresses; returns when it greets.
    #[track_caller]
    pub fn gateway(&self, options: GatewayOptions) -> LabGateway<'_> {
        LabGateway::start(self.host("gateway"), options)
    }

    fn netlab(&self, args: &[&str]) -> String {
        let output = script(&self.id).args(args).stdin(Stdio::null()).output().expect("tests/netlab starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "netlab {args:?}: {}\n{errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Netlab {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn script(id: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/netlab"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("NETLAB_ID", id).env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// One machine of the lab.
#[derive(Clone, Copy)]
pub struct Host<'lab> {
    lab: &'lab Netlab,
    pub name: &'static str,
}

impl<'lab> Host<'lab> {
    /// What is this machine's own: its home, with the state directory and what its programs said.
    pub fn home(self) -> PathBuf {
        self.lab.homes.path().join(self.name)
    }

    pub fn state_dir(self) -> PathBuf {
        self.home().join("state")
    }

    /// Its usual address in a network.
    #[track_caller]
    pub fn address(self, network: &str) -> String {
        self.lab.address(self.name, network)
    }

    /// A program on this machine.
    pub fn program(self, program: impl Into<PathBuf>) -> Launch {
        self.launch(Launch::new(program, self.home()).env("HOME", self.home()))
    }

    /// Starts what was meant for the test's own machine on this one.
    pub fn launch(self, launch: Launch) -> Launch {
        launch.by(program("ip").expect("iproute2"), ["netns", "exec", &self.namespace()])
    }

    /// Our program on this machine, with the machine's home and state directory and no other configuration.
    pub fn openclaw<A: Into<std::ffi::OsString>>(self, args: impl IntoIterator<Item = A>) -> Launch {
        self.program(binary()).env("OPENCLAW_STATE_DIR", self.state_dir()).args(args)
    }

    /// Runs a piece of the test on this machine: sockets it opens belong to it.
    ///
    /// # Panics
    /// If `task` does.
    #[track_caller]
    pub fn enter<T: Send>(self, task: impl FnOnce() -> T + Send) -> T {
        enter(&self.namespace_file(), task)
    }

    /// Ids of the processes that run on this machine.
    #[track_caller]
    pub fn processes(self) -> Vec<u32> {
        let output = Command::new(program("ip").expect("iproute2"))
            .args(["netns", "pids", &self.namespace()])
            .output()
            .expect("ip starts");
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    pub(crate) fn namespace_file(self) -> PathBuf {
        Path::new("/run/netns").join(self.namespace())
    }

    fn namespace(self) -> String {
        format!("{}-{}", self.lab.id, self.name)
    }
}

/// Runs `task` on a thread that is in this network namespace.
#[track_caller]
pub(crate) fn enter<T: Send>(namespace: &Path, task: impl FnOnce() -> T + Send) -> T {
    let done = thread::scope(|scope| {
        let task = || {
            let file = File::open(namespace).expect("a namespace that is up");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
            task()
        };
        scope.spawn(task).join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Our gateway on a host of the lab, on all its addresses.
pub struct LabGateway<'lab> {
    process: Process,
    launch: Launch,
    host: Host<'lab>,
    token: String,
}

impl<'lab> LabGateway<'lab> {
    /// Starts one; returns when it greets a client with the token.
    #[track_caller]
    pub fn start(host: Host<'lab>, options: GatewayOptions) -> Self {
        let log = || serde_json::json!({"logging": {"file": host.home().join("gateway.log")}}).to_string();
        fs::write(host.state_dir().join("openclaw.json"), options.config.unwrap_or_else(log)).expect("writes");
        let bind = if options.args.iter().any(|arg| arg == "--bind") { &[][..] } else { &["--bind", "lan"] };
        let launch = host
            .openclaw(["gateway", "run", "--port", &GATEWAY_PORT.to_string()])
            .args(bind.iter().copied())
            .args(options.args)
            .env("OPENCLAW_GATEWAY_TOKEN", &options.token);
        let launch = options.env.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let process = launch.start("gateway");
        let mut gateway = Self { process, launch, host, token: options.token };
        gateway.wait_ready();
        gateway
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let token = self.token.clone();
        wait_until("hello from the lab's gateway", || {
            if let Some(status) = self.process.ended() {
                panic!("the lab's gateway ended ({status})\n{}", self.process.said());
            }
            self.host.enter(|| says_hello(GATEWAY_PORT, &token)).is_ok().then_some(())
        });
    }

    pub fn host(&self) -> Host<'lab> {
        self.host
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its URL in a network.
    #[track_caller]
    pub fn url(&self, network: &str) -> String {
        format!("ws://{}:{GATEWAY_PORT}", self.host.address(network))
    }

    /// A command on the gateway's own host: the owner's, who needs no token.
    pub fn owner<A: Into<std::ffi::OsString>>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        self.host.openclaw(args)
    }

    /// What it printed in this life.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Ends it without asking.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and state directory.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "the lab's gateway still runs");
        self.process = self.launch.start("gateway-again");
        self.wait_ready();
    }
}
