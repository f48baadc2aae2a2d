//! Connecting through a hand-made `ssh -N -L`, as the documentation tells people to: own sshd, own keys, loopback only.
//!
//! Under `-N` sshd leaves Nagle's algorithm on, so two small writes in a row from the gateway cost 40 ms.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
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

    async fn try_start() -> Result<Self> {
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

    fn tunnel(&self, to: SocketAddr, local: SocketAddr) -> Command {
        let at = |name: &str| -> String { path(self.directory.path(), name) };
        let mut command = Command::new("ssh");
        command.args(["-N", "-F", "/dev/null", "-i", &at("client"), "-p", &self.address.port().to_string()]);
        for option in ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "ExitOnForwardFailure=yes"] {
            command.args(["-o", option]);
        }
        command.args(["-o", &format!("UserKnownHostsFile={}", at("known"))]);
        command.args(["-L", &format!("{local}:{to}")]);
        command.arg(format!("{}@{}", self.user, self.address.ip()));
        command
    }

    /// Connects one at a time through a tunnel of its own.
    pub async fn handshakes(&self, gateway: &Running, count: usize) -> Result<Values> {
        let local = free_address()?;
        let mut tunnel = Process::start(&mut self.tunnel(gateway.target.address, local))?;
        tunnel.wait_for(START_LIMIT, async || TcpStream::connect(local).is_ok()).await.context("ssh")?;
        let target = Target { address: local, ..gateway.target.clone() };
        connects(&target, &[Identity::backend()], 3).await?;
        let (_, samples) = connects(&target, &[Identity::backend()], count).await?;
        tunnel.stop().await;
        let quantile = |key, q| samples.quantile_ms(q).map(|ms| (key, ms));
        Ok([quantile("ssh_p50", 0.5), quantile("ssh_p90", 0.9)].into_iter().flatten().collect())
    }
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}
