//! Tunnels by hand, `ssh -N -L` as the documentation tells people to: own sshd, own keys, loopback only.
//!
//! Under `-N` sshd leaves Nagle's algorithm on, so two small writes in a row from the gateway cost 40 ms.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    client::{Identity, Target},
    load::{Values, connects},
    process::Process,
    subject::{Running, free_address},
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// An sshd of our own.
pub struct Server {
    /// Ends with this.
    _process: Process,
    address: SocketAddr,
    directory: TempDir,
    user: String,
}

impl Server {
    /// Starts one; `None`, with the reason said, where there is no sshd.
    pub async fn start() -> Option<Self> {
        match Self::try_start().await {
            Ok(server) => Some(server),
            Err(error) => {
                eprintln!("ssh: not measured: {error:#}");
                None
            }
        }
    }

    /// Starts one.
    pub async fn try_start() -> Result<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"].map(PathBuf::from);
        let sshd = sshd.into_iter().find(|path| path.is_file()).context("sshd is not installed")?;
        let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?.trim().to_owned();
        if user == "root" {
            // Where a distribution's sshd keeps its empty chroot; it refuses to start without.
            fs::create_dir_all("/run/sshd").context("cannot create /run/sshd")?;
        }
        let directory = tempfile::Builder::new().prefix("openclaw-bench-ssh-").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        for key in ["host", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(key))
                .stdin(Stdio::null())
                .status()?;
            ensure!(made.success(), "ssh-keygen: {made}");
        }
        let address = free_address()?;
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             AllowTcpForwarding yes\nLogLevel ERROR\n",
            at("host").display(),
            at("client.pub").display(),
        );
        fs::write(at("sshd_config"), config)?;
        let mut process = Process::start(Command::new(sshd).args(["-D", "-e", "-f"]).arg(at("sshd_config")))?;
        process.wait_for(START_LIMIT, async || TcpStream::connect(address).is_ok()).await.context("sshd")?;
        Ok(Self { _process: process, address, directory, user })
    }

    /// `user@address:port`.
    pub fn target(&self) -> String {
        format!("{}@{}", self.user, self.address)
    }

    /// A folder with an `ssh` that knows this server and its key, for the front of `PATH`.
    pub fn client(&self) -> Result<PathBuf> {
        let (bin, at) = (self.directory.path().join("bin"), |name: &str| path(self.directory.path(), name));
        let host_key = fs::read_to_string(at("host.pub"))?;
        fs::write(at("known"), format!("[{}]:{} {host_key}", self.address.ip(), self.address.port()))?;
        let config = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\n",
            at("client"),
            at("known")
        );
        fs::write(at("config"), config)?;
        fs::create_dir_all(&bin)?;
        let ssh = find_on_path("ssh").context("ssh is not installed")?;
        let script = format!("#!/bin/sh\nexec '{}' -F '{}' \"$@\"\n", ssh.display(), at("config"));
        fs::write(bin.join("ssh"), script)?;
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755))?;
        Ok(bin)
    }

    fn command(&self, to: SocketAddr, local: SocketAddr, channel: Channel) -> Command {
        let at = |name: &str| -> String { path(self.directory.path(), name) };
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-i", &at("client"), "-p", &self.address.port().to_string()]);
        for option in ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "ExitOnForwardFailure=yes"] {
            command.args(["-o", option]);
        }
        command.args(["-o", &format!("UserKnownHostsFile={}", at("known-by-hand"))]);
        command.args(["-L", &format!("{local}:{to}")]);
        if channel == Channel::None {
            command.arg("-N");
        }
        command.arg(format!("{}@{}", self.user, self.address.ip()));
        if channel == Channel::Session {
            command.args(["sleep", "100000"]);
        }
        command
    }

    /// Opens a tunnel by hand; returns when its port is open.
    pub async fn tunnel(&self, to: SocketAddr, channel: Channel) -> Result<Tunnel> {
        let local = free_address()?;
        let process = open(&mut self.command(to, local, channel), local).await?;
        Ok(Tunnel { process, local, to, channel })
    }

    /// Ends a tunnel without warning and starts it again at once, at the same port; returns when the port is open.
    pub async fn start_again(&self, tunnel: &mut Tunnel) -> Result<()> {
        tunnel.process.kill();
        tunnel.process = open(&mut self.command(tunnel.to, tunnel.local, tunnel.channel), tunnel.local).await?;
        Ok(())
    }

    /// Connects one at a time through a tunnel of its own.
    pub async fn handshakes(&self, gateway: &Running, count: usize) -> Result<Values> {
        let tunnel = self.tunnel(gateway.target.address, Channel::None).await?;
        let target = Target { address: tunnel.local, ..gateway.target.clone() };
        connects(&target, &[Identity::backend()], 3).await?;
        let (_, samples) = connects(&target, &[Identity::backend()], count).await?;
        tunnel.process.stop().await;
        let quantile = |key, q| samples.quantile_ms(q).map(|ms| (key, ms));
        Ok([quantile("ssh_p50", 0.5), quantile("ssh_p90", 0.9)].into_iter().flatten().collect())
    }
}

/// What else the connection of a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `-N`: nothing.
    None,
    /// An idle session, which makes the far sshd turn Nagle's algorithm off.
    Session,
}

/// A tunnel made by hand.
pub struct Tunnel {
    process: Process,
    /// The near end.
    pub local: SocketAddr,
    to: SocketAddr,
    channel: Channel,
}

async fn open(command: &mut Command, local: SocketAddr) -> Result<Process> {
    let mut process = Process::start(command)?;
    process.wait_for(START_LIMIT, async || TcpStream::connect(local).is_ok()).await.context("ssh")?;
    Ok(process)
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}
