//! A gateway process under attack: a scratch state directory, a shared token nobody may ever see, and a look at what is
//! left afterwards.
//!
//! Dropping a [`Sandbox`] at the end of a test asserts what every security case asserts: the process is alive, its memory
//! has not grown by 64 MiB, and the token is in no log, no answer and no process listing.

mod bystander;
mod look;
mod setup;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use openclaw_protocol::DeviceKey;
use rustix::process::Signal;
use serde_json::json;

pub use bystander::Bystander;
pub use look::{assert_no_process_shows, raise_file_limit, walk};
pub use setup::{Failure, Rival, Setup, merge};

use crate::{
    client::{Client, Login, new_device},
    process::Process,
    wire::{self, Address, wait_for},
};
use look::status_kib;

/// Memory a gateway may gain in any case.
const MAX_GROWTH_KIB: u64 = 64 * 1024;
/// The address of the proxy that [`Setup::behind_proxy`] declares.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The program under test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OPENCLAW_TEST_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let dir = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let path = dir.join("openclaw");
    assert!(path.exists(), "{} is missing; build it first: cargo build -p openclaw", path.display());
    path
}

/// What the console says when the gateway serves.
const READY: &str = "ready. Next";

/// A running gateway.
pub struct Sandbox {
    /// First, so that it ends before its directory goes.
    life: Option<Process>,
    pub setup: Setup,
    pub port: u16,
    baseline_kib: u64,
    lives: u32,
}

impl Sandbox {
    fn new(setup: Setup) -> Self {
        Self { life: None, setup, port: 0, baseline_kib: 0, lives: 0 }
    }

    /// Starts (again) on the same state directory.
    #[track_caller]
    pub fn start(&mut self) {
        if let Err(failure) = self.try_start() {
            panic!("it did not start ({}): {}", failure.status, failure.console);
        }
    }

    /// Starts (again) on the same state directory.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn try_start(&mut self) -> Result<(), Failure> {
        assert!(self.life.is_none(), "it runs already");
        self.lives += 1;
        let mut life = self.setup.launch().args(&self.setup.args).start(&self.console_name());
        let ended = wait_for("the gateway to be ready or to end", || match life.ended() {
            Some(status) => Some(Some(status)),
            None => life.stderr().contains(READY).then_some(None),
        });
        let text = life.said();
        if let Some(status) = ended {
            return Err(Failure { status, console: text });
        }
        let after = text.split("://127.0.0.1:").nth(1).or(text.split("://0.0.0.0:").nth(1));
        let digits: String = after.unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
        self.port = digits.parse().unwrap_or_else(|_| panic!("no port in: {text}"));
        self.baseline_kib = status_kib(life.pid(), "VmRSS");
        self.life = Some(life);
        Ok(())
    }

    pub fn token(&self) -> &str {
        &self.setup.token
    }

    pub fn pid(&self) -> u32 {
        self.life.as_ref().expect("it runs").pid()
    }

    pub fn dir(&self) -> &Path {
        self.setup.dir.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.setup.state_dir()
    }

    pub fn config_file(&self) -> PathBuf {
        self.state_dir().join("openclaw.json")
    }

    /// What it printed in this life.
    pub fn console(&self) -> String {
        let file = |end: &str| wire::read_lossy(&self.dir().join(format!("{}.{end}", self.console_name())));
        file("out") + &file("err")
    }

    fn console_name(&self) -> String {
        format!("console-{}", self.lives)
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir().join("logs/gateway.log")
    }

    pub fn log(&self) -> String {
        wire::read_lossy(&self.log_file())
    }

    pub fn address(&self) -> Address {
        Address::Port(self.port)
    }

    /// The same gateway, seen from another address of this machine.
    pub fn address_from(&self, last: u8) -> Address {
        Address::PortFrom(Ipv4Addr::new(127, 0, 0, last), self.port)
    }

    /// The address of the declared proxy.
    pub fn proxy(&self) -> Address {
        Address::PortFrom(PROXY, self.port)
    }

    /// A handshake from 127.0.0.1 without any credential.
    pub fn login(&self) -> Login {
        Login::at(&self.address())
    }

    /// A handshake with T.
    pub fn with_token(&self) -> Login {
        self.login().token(self.token())
    }

    /// A handshake from this client address, over the declared proxy (see [`Setup::behind_proxy`]).
    pub fn through_proxy(&self, client: &str) -> Login {
        Login::at(&self.proxy()).forwarded_for(client)
    }

    /// A device-less local CLI with T and these scopes.
    #[track_caller]
    pub fn operator(&self, scopes: &[&str]) -> Client {
        self.with_token().scopes(scopes).hello()
    }

    #[track_caller]
    pub fn admin(&self) -> Client {
        self.operator(&["operator.admin"])
    }

    /// Pairs a new operator device (silently, with T) and returns it with its token.
    #[track_caller]
    pub fn paired(&self, scopes: &[&str]) -> Device {
        let key = new_device();
        let token = self.with_token().scopes(scopes).device(&key).hello().device_token();
        Device { key, token, scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), address: self.address() }
    }

    /// Pairs a new node and returns its connection.
    #[track_caller]
    pub fn node(&self, commands: &[&str]) -> (DeviceKey, Client) {
        let key = new_device();
        let client = self.with_token().node().set("/commands", json!(commands)).device(&key).hello();
        (key, client)
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.life.take().expect("it runs").kill();
    }

    /// Asks it to stop and waits.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.life.take().expect("it runs").stop()
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        self.life.as_ref().expect("it runs").signal(which);
    }

    /// Starts it and kills it after this long, wherever it is by then.
    #[track_caller]
    pub fn start_and_kill(&mut self, after: Duration) {
        assert!(self.life.is_none(), "it runs already");
        self.lives += 1;
        let mut life = self.setup.launch().args(&self.setup.args).start(&self.console_name());
        std::thread::sleep(after);
        life.kill();
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut life = self.life.take().expect("it runs");
        wait_for("the gateway to end", || life.ended())
    }

    pub fn is_alive(&mut self) -> bool {
        self.life.as_mut().is_some_and(|life| life.ended().is_none())
    }

    /// How much memory it has gained since it started, in KiB.
    pub fn growth_kib(&self) -> u64 {
        status_kib(self.pid(), "VmRSS").saturating_sub(self.baseline_kib)
    }

    /// The most memory it ever held beyond what it started with, in KiB.
    pub fn peak_growth_kib(&self) -> u64 {
        status_kib(self.pid(), "VmHWM").saturating_sub(self.baseline_kib)
    }

    /// Seconds of CPU time it has used, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = wire::read_lossy(Path::new(&format!("/proc/{}/stat", self.pid())));
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|text| text.parse::<f64>().expect("ticks")).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// Files that may hold what was logged or remembered about callers.
    fn telling_files(&self) -> Vec<PathBuf> {
        let mut files = walk(&self.dir().join("logs"));
        files.extend(
            walk(self.dir())
                .into_iter()
                .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("console"))),
        );
        files
    }

    fn check_aftermath(&mut self) {
        for file in self.telling_files() {
            let text = wire::read_lossy(&file);
            assert!(!text.contains(self.token()), "T is in {}", file.display());
        }
        assert_no_process_shows(self.token());
        if self.life.is_some() {
            assert!(self.is_alive(), "the gateway ended: {}", self.console());
            let growth = self.growth_kib();
            assert!(growth < MAX_GROWTH_KIB, "the gateway grew by {growth} KiB");
        }
        assert!(!self.console().contains("panicked"), "something panicked: {}", self.console());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.setup.watched && !std::thread::panicking() {
            self.check_aftermath();
        }
        if let Some(life) = &mut self.life {
            // Nothing is left to be learnt from a clean stop.
            if !std::thread::panicking() {
                life.kill();
            }
        }
    }
}

/// A paired operator device and its token.
#[derive(Clone, Debug)]
pub struct Device {
    pub key: DeviceKey,
    pub token: String,
    pub scopes: Vec<String>,
    address: Address,
}

impl Device {
    pub fn id(&self) -> String {
        self.key.id().to_string()
    }

    /// A handshake with nothing but the device's own token.
    pub fn login(&self) -> Login {
        self.login_at(&self.address)
    }

    /// The same at a gateway that has moved to another port.
    pub fn login_at(&self, address: &Address) -> Login {
        Login::at(address).set("/scopes", json!(self.scopes)).device_token(&self.token).device(&self.key)
    }

    #[track_caller]
    pub fn hello(&self) -> Client {
        self.login().hello()
    }
}
