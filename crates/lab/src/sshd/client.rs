//! One person's ssh: a home with `~/.ssh`, and an `ssh` on `PATH` that reads nothing else.
//!
//! OpenSSH takes the home from the password file, not from `HOME`; so the folder `bin` holds an `ssh` of two lines that
//! adds `-F ~/.ssh/config`, and that file names everything a test needs. It also notes each start in `ssh-starts`.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Sshd, make_key, name_of, processes, send, user};
use crate::{netlab::Host, process::Launch, require::program};

/// What one person's ssh knows.
pub struct SshClient {
    home: PathBuf,
    /// A home of its own, unless it was given one.
    own: Option<TempDir>,
}

impl Default for SshClient {
    fn default() -> Self {
        Self::new()
    }
}

impl SshClient {
    /// In a new home, with a new key that nobody lets in yet.
    pub fn new() -> Self {
        let own = TempDir::with_prefix("openclaw-me-").expect("a temporary directory");
        let mut client = Self::at(own.path());
        client.own = Some(own);
        client
    }

    /// In the home of a host of the lab.
    pub fn on(host: Host<'_>) -> Self {
        Self::at(&host.home())
    }

    /// In this home.
    pub fn at(home: &Path) -> Self {
        let client = Self { home: home.to_owned(), own: None };
        for dir in [client.dir(), client.bin()] {
            fs::create_dir_all(&dir).expect("a scratch directory takes directories");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("sets the mode");
        }
        if !client.key().exists() {
            make_key(&client.key());
        }
        fs::write(client.known_hosts(), "").expect("writes");
        client.write_config();
        let ssh = program("ssh").expect("asked for before");
        let text = format!(
            "#!/bin/sh\necho \"$$ $*\" >>'{starts}'\nexec '{ssh}' -F '{config}' \"$@\"\n",
            starts = client.starts_file().display(),
            ssh = ssh.display(),
            config = client.config().display(),
        );
        let wrapper = client.bin().join("ssh");
        fs::write(&wrapper, text).expect("writes");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("sets the mode");
        client
    }

    /// `HOME`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder with the `ssh` that reads only this person's files: first in `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.home.join("bin")
    }

    /// `~/.ssh`.
    pub fn dir(&self) -> PathBuf {
        self.home.join(".ssh")
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("config")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.dir().join("known_hosts")
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.dir().join("id_ed25519")
    }

    pub fn public_key(&self) -> String {
        fs::read_to_string(self.key().with_extension("pub")).expect("made at the start").trim().to_owned()
    }

    /// Another key in `~/.ssh` that nobody lets in; for `-i`.
    pub fn other_key(&self, name: &str) -> PathBuf {
        let file = self.dir().join(name);
        make_key(&file);
        file
    }

    /// Everything at once: the key is authorized, the host key known, and `ssh <alias>` goes there.
    pub fn may_enter(&self, sshd: &Sshd, alias: &str) {
        sshd.authorize(&self.public_key());
        self.trust(sshd, &[]);
        self.alias(alias, sshd.address(), sshd.port(), &[]);
    }

    /// An entry of the config: `Host alias`, and more lines for it (`ProxyJump jump`).
    pub fn alias(&self, alias: &str, address: &str, port: u16, more: &[&str]) {
        let mut block = format!("Host {alias}\n  HostName {address}\n  Port {port}\n  User {}\n", user());
        for line in more {
            block.push_str(&format!("  {line}\n"));
        }
        let text = fs::read_to_string(self.config()).expect("made at the start");
        // The first value counts in ssh's config: what is for one host stands before what is for all.
        fs::write(self.config(), format!("{block}{text}")).expect("writes");
    }

    /// Notes the host key, under the address (and port) it listens at and under more names.
    pub fn trust(&self, sshd: &Sshd, more: &[&str]) {
        let here =
            if sshd.port() == 22 { sshd.address().to_owned() } else { format!("[{}]:{}", sshd.address(), sshd.port()) };
        let names = std::iter::once(here.as_str()).chain(more.iter().copied()).collect::<Vec<_>>().join(",");
        let file = OpenOptions::new().append(true).open(self.known_hosts());
        writeln!(file.expect("made at the start"), "{names} {}", sshd.host_key()).expect("writes");
    }

    /// Forgets every host key.
    pub fn trust_nobody(&self) {
        fs::write(self.known_hosts(), "").expect("writes");
    }

    /// Hides the names in `known_hosts`, as many distributions do.
    pub fn hash_known_hosts(&self) {
        let made = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(self.known_hosts()).output();
        let made = made.expect("ssh-keygen starts");
        assert!(made.status.success(), "{made:?}");
        let text = fs::read_to_string(self.known_hosts()).expect("made at the start");
        assert!(text.starts_with("|1|"), "{text}");
    }

    /// What a program of ours needs to use exactly this ssh.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let path = std::env::var("PATH").unwrap_or_default();
        [("HOME", self.home.display().to_string()), ("PATH", format!("{}:{path}", self.bin().display()))]
    }

    /// The plain ssh, with this person's files.
    pub fn ssh<A: Into<std::ffi::OsString>>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        Launch::new(self.bin().join("ssh"), &self.home).envs(self.env()).args(args)
    }

    /// Arguments of every ssh that was started on this person's behalf, oldest first.
    pub fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.starts_file()).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, args)| args).to_owned()).collect()
    }

    /// Ids of the ssh clients that run on this person's behalf.
    pub fn running(&self) -> Vec<u32> {
        ssh_processes(&self.config())
    }

    /// Kills every ssh client of this person.
    pub fn kill_all(&self) {
        for pid in self.running() {
            send(pid, Signal::KILL);
        }
    }

    fn write_config(&self) {
        let text = format!(
            "Host *\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  IdentityFile {key}\n  \
             IdentitiesOnly yes\n  IdentityAgent none\n  UpdateHostKeys no\n",
            known = self.known_hosts().display(),
            key = self.key().display(),
        );
        fs::write(self.config(), text).expect("writes");
    }

    fn starts_file(&self) -> PathBuf {
        self.home.join("ssh-starts")
    }
}

/// Ids of the running ssh clients that were told to read this config, jump connections included.
pub fn ssh_processes(config: &Path) -> Vec<u32> {
    let config = config.display().to_string();
    let mut found: Vec<u32> = processes()
        .map(|(pid, _)| pid)
        .filter(|pid| name_of(*pid) == "ssh")
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == config.as_bytes())
        })
        .collect();
    found.sort_unstable();
    found
}
