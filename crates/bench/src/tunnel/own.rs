//! `openclaw tunnel`, kept by our own binary in a home of its own.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    client::{Conn, Identity, Target},
    process::{Process, kill_one},
    ssh::Server,
    subject::{Kind, Programs, free_address},
};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A tunnel that our supervisor keeps up.
pub struct OwnTunnel {
    /// Ends with this.
    supervisor: Process,
    /// The port it was asked for.
    pub local: SocketAddr,
    home: TempDir,
    bin: PathBuf,
    token: String,
}

impl OwnTunnel {
    /// Starts one in the foreground; returns when a client is greeted through it.
    pub async fn open(programs: &Programs, sshd: &Server, to: &Target) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("openclaw-bench-").tempdir()?;
        fs::create_dir(home.path().join("state"))?;
        let config = json!({ "gateway": { "mode": "remote", "remote": {
            "url": format!("ssh://{}", sshd.target()), "remotePort": to.address.port(), "token": to.token,
        } } });
        fs::write(home.path().join("state/openclaw.json"), config.to_string())?;
        let (bin, local) = (sshd.client()?, free_address()?);
        let mut command = programs.cli(Kind::Ours)?;
        in_home(&mut command, &home, &bin);
        command.args(["tunnel", "up", "--foreground", "--port", &local.port().to_string()]);
        let supervisor = Process::start(&mut command)?;
        let mut tunnel = Self { supervisor, local, home, bin, token: to.token.clone() };
        let target = Target { address: local, ..to.clone() };
        let greeted =
            async || TcpStream::connect(local).is_ok() && Conn::open(&target, &Identity::backend()).await.is_ok();
        tunnel.supervisor.wait_for(START_LIMIT, greeted).await.context("openclaw tunnel")?;
        Ok(tunnel)
    }

    /// Lets a command line of ours use this tunnel, as the one who keeps it would.
    pub fn configure(&self, command: &mut Command) {
        command.env_remove("OPENCLAW_GATEWAY_PORT");
        in_home(command, &self.home, &self.bin);
        command.env("OPENCLAW_GATEWAY_TOKEN", &self.token);
    }

    /// Waits until it has its spare again.
    pub async fn rested(&self) -> Result<()> {
        let since = Instant::now();
        while self.supervisor.named("ssh").len() < 2 {
            if since.elapsed() > START_LIMIT {
                bail!("the tunnel has no spare ssh");
            }
            sleep(Duration::from_millis(20)).await;
        }
        // The spare's ssh has to log in before it is one.
        sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    /// Kills the ssh in use without warning: the one that was started first.
    pub fn kill_ssh(&self) -> Result<()> {
        kill_one(*self.supervisor.named("ssh").first().context("the tunnel has no ssh")?);
        Ok(())
    }
}

fn in_home(command: &mut Command, home: &TempDir, bin: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path)));
    command.env("HOME", home.path()).env("OPENCLAW_STATE_DIR", home.path().join("state"));
    command.env("PATH", path.unwrap_or_default());
}
