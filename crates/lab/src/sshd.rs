//! The system's own sshd as a far host: own host key, own authorized keys, a folder of its own, no service touched.
//!
//! It listens on loopback or on a host of the lab, any number at once. [`SshClient`] is the other side: what one person's
//! `~/.ssh` holds, and an `ssh` on `PATH` that reads exactly that.
//!
//! ```no_run
//! # use lab::{require, require::program, sshd::{SshClient, Sshd}};
//! # fn test() {
//! require!(program("sshd"));
//! let mut box_ = Sshd::start();
//! let me = SshClient::new();
//! me.may_enter(&box_, "box"); // key authorized, host key known, `ssh box` goes there
//! assert!(me.ssh(["box", "true"]).run().status.success());
//! box_.kill_sessions();
//! # }
//! ```

mod client;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use client::{SshClient, ssh_processes};

use crate::{
    netlab::{self, Host},
    process::{Launch, Process, free_port, wait_until},
    require::program,
};

/// How an sshd is started.
#[derive(Clone, Debug, Default)]
pub struct SshdSetup {
    addresses: Vec<String>,
    port: Option<u16>,
    lines: Vec<String>,
    env: Vec<(String, String)>,
    namespace: Option<(Launch, PathBuf)>,
}

impl SshdSetup {
    /// On 127.0.0.1, any free port.
    pub fn new() -> Self {
        Self::default()
    }

    /// On a host of the lab, at all its addresses, port 22.
    pub fn on(host: Host<'_>) -> Self {
        let sshd = program("sshd").expect("asked for before");
        Self {
            addresses: vec!["0.0.0.0".to_owned()],
            port: Some(22),
            namespace: Some((host.program(sshd), host.namespace_file())),
            ..Self::default()
        }
    }

    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A line of `sshd_config`; the first of a keyword counts, and these come first.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// A variable of every session, whatever the login shell makes of it afterwards.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What a session finds: this program on `PATH`, and this home and state directory.
    pub fn with_openclaw(self, binary: &Path, home: &Path, state: &Path) -> Self {
        let bin = binary.parent().expect("a program lies in a folder").display();
        self.env("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin"))
            .env("HOME", home.display().to_string())
            .env("OPENCLAW_STATE_DIR", state.display().to_string())
    }

    /// A far account that may forward ports and nothing else: no session of any kind.
    pub fn no_sessions(self) -> Self {
        self.line("MaxSessions 0")
    }

    /// A far account whose shell says no, as `nologin` does.
    pub fn nologin(self) -> Self {
        self.line("ForceCommand echo 'This account is currently not available.'; exit 1")
    }

    /// Starts it; returns when it accepts connections.
    #[track_caller]
    pub fn start(self) -> Sshd {
        Sshd::with(self)
    }
}

/// A running sshd. Dropping it ends it and every session in it.
pub struct Sshd {
    process: Process,
    launch: Launch,
    namespace: Option<PathBuf>,
    dir: TempDir,
    address: String,
    port: u16,
    lives: u32,
}

impl Sshd {
    /// On 127.0.0.1, any free port.
    #[track_caller]
    pub fn start() -> Self {
        SshdSetup::new().start()
    }

    #[track_caller]
    fn with(setup: SshdSetup) -> Self {
        if rustix::process::geteuid().is_root() {
            // Where a distribution's sshd keeps its empty chroot; it refuses to start without.
            fs::create_dir_all("/run/sshd").expect("root makes directories");
        }
        let dir = TempDir::with_prefix("openclaw-sshd-").expect("a temporary directory");
        make_key(&dir.path().join("host"));
        fs::write(dir.path().join("authorized"), "").expect("a scratch directory takes files");
        let port = setup.port.unwrap_or_else(free_port);
        let addresses = if setup.addresses.is_empty() { vec!["127.0.0.1".to_owned()] } else { setup.addresses };
        let mut config = setup.lines;
        config.extend(addresses.iter().map(|address| format!("ListenAddress {address}")));
        config.push(format!("Port {port}"));
        config.push(format!("HostKey {}", dir.path().join("host").display()));
        config.push(format!("AuthorizedKeysFile {}", dir.path().join("authorized").display()));
        if !setup.env.is_empty() {
            let pairs: Vec<String> = setup.env.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
            config.push(format!("SetEnv {}", pairs.join(" ")));
        }
        let fixed = "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
                     KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAllowTcpForwarding yes\n\
                     PrintMotd no\nMaxStartups 100\nLogLevel VERBOSE\n";
        fs::write(dir.path().join("sshd_config"), format!("{}\n{fixed}", config.join("\n"))).expect("writes");

        let (launch, namespace) = match setup.namespace {
            Some((launch, namespace)) => (launch, Some(namespace)),
            None => (Launch::new(program("sshd").expect("asked for before"), dir.path()), None),
        };
        let launch = launch.args(["-D", "-e", "-f"]).arg(dir.path().join("sshd_config"));
        let process = launch.start("sshd");
        let address = addresses.into_iter().next().unwrap_or_default();
        let mut sshd = Self { process, launch, namespace, dir, address, port, lives: 1 };
        sshd.wait_ready();
        sshd
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let to = (if self.address == "0.0.0.0" { "127.0.0.1".to_owned() } else { self.address.clone() }, self.port);
        wait_until("an sshd that accepts", || {
            if let Some(status) = self.process.ended() {
                panic!("sshd ended ({status})\n{}", self.process.said());
            }
            let connect = || TcpStream::connect((to.0.as_str(), to.1)).is_ok();
            let accepts = match &self.namespace {
                Some(namespace) => netlab::enter(namespace, connect),
                None => connect(),
            };
            accepts.then_some(())
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address it listens at; `0.0.0.0` on a host of the lab.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `user@address:port`, for the account this test runs as.
    pub fn target(&self) -> String {
        format!("{}@{}:{}", user(), self.address, self.port)
    }

    /// Lets a public key in (a line of `authorized_keys`, options and all).
    pub fn authorize(&self, line: &str) {
        let file = OpenOptions::new().append(true).open(self.dir.path().join("authorized"));
        writeln!(file.expect("made at the start"), "{}", line.trim()).expect("writes");
    }

    /// Lets nobody in any more.
    pub fn authorize_nobody(&self) {
        fs::write(self.dir.path().join("authorized"), "").expect("writes");
    }

    /// Its public host key: `ssh-ed25519 AAAA…`.
    pub fn host_key(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("host.pub")).expect("made at the start");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// The fingerprint of its host key, as `ssh-keygen -lf` prints it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.dir.path().join("host.pub")).output();
        let text = String::from_utf8(output.expect("ssh-keygen starts").stdout).expect("it prints text");
        text.split_whitespace().nth(1).expect("bits, fingerprint, comment").to_owned()
    }

    /// A new host key, at once for every new connection; sessions go on.
    #[track_caller]
    pub fn rotate_host_key(&mut self) {
        for file in ["host", "host.pub"] {
            fs::remove_file(self.dir.path().join(file)).expect("made at the start");
        }
        make_key(&self.dir.path().join("host"));
        self.end_listener();
        self.start_again();
    }

    /// Ids of the processes that serve one connection each, oldest first.
    pub fn sessions(&self) -> Vec<u32> {
        let mut found = sshd_processes(&self.dir.path().join("sshd_config"), self.process.pid());
        found.sort_unstable();
        found
    }

    /// Kills every session and whatever runs in it; the listener stays.
    pub fn kill_sessions(&self) {
        self.signal_sessions(Signal::KILL);
    }

    /// Makes every session fall silent without a word (`STOP`) or go on (`CONT`).
    pub fn signal_sessions(&self, signal: Signal) {
        for session in self.sessions() {
            // Parents first, so that none of them sees its child die and says goodbye.
            send(session, signal);
            for process in descendants(session) {
                send(process, signal);
            }
        }
    }

    /// Ends the listener and every session.
    pub fn stop(&mut self) {
        self.kill_sessions();
        self.end_listener();
    }

    /// Nobody new gets in; sessions go on.
    pub fn end_listener(&mut self) {
        send(self.process.pid(), Signal::KILL);
        let _ = self.process.child.wait();
    }

    /// Starts it again at the same place.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "sshd still runs");
        self.lives += 1;
        self.process = self.launch.start(&format!("sshd-{}", self.lives));
        self.wait_ready();
    }

    /// Its log of this life.
    pub fn said(&self) -> String {
        self.process.stderr()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The account this test runs as: the only one that an sshd which is not root's lets in.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id starts");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

fn make_key(file: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(file).stdin(Stdio::null());
    assert!(command.status().expect("ssh-keygen starts").success(), "ssh-keygen made no key");
}

/// The connections of a listener: its children, and those left over by a listener that was ended. The latter have no
/// parent any more; what they still have in common is the log they write to, in the folder of this sshd.
fn sshd_processes(config: &Path, listener: u32) -> Vec<u32> {
    let dir = config.parent().expect("in a folder");
    processes()
        .filter(|(pid, parent)| {
            *pid != listener
                && name_of(*pid).starts_with("sshd")
                && (*parent == listener || (!name_of(*parent).starts_with("sshd") && writes_below(*pid, dir)))
        })
        .map(|(pid, _)| pid)
        .collect()
}

fn writes_below(pid: u32, dir: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file.starts_with(dir))
}

/// Every process with its parent.
pub(crate) fn processes() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        // What has ended and only waits to be collected is nobody.
        if fields.next()? == "Z" {
            return None;
        }
        Some((pid, fields.next()?.parse().ok()?))
    })
}

/// The short name of a process; empty when there is none.
pub(crate) fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The processes below one, nearest first.
pub fn descendants(of: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes().collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, above)| *above == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Kills one process without warning.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is what we want.
        let _ = kill_process(pid, signal);
    }
}
