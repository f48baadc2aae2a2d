//! What ssh makes of a target: `ssh -G`, for messages and for the names of hosts in between.

use std::{path::PathBuf, process::Stdio, time::Duration};

use super::{Program, SshFailure, SshFailureKind, SshTarget, said::clean};

/// Reading the config is local; a `Match exec` may run a program.
const PATIENCE: Duration = Duration::from_secs(5);

/// The settings ssh would use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    pub host: String,
    pub port: Option<u16>,
    pub user: Option<String>,
    /// `ProxyJump` as configured.
    pub proxy_jump: Option<String>,
    /// Identity files in the order ssh tries them, existing or not.
    pub identity_files: Vec<PathBuf>,
    pub known_hosts: Vec<PathBuf>,
}

/// Asks ssh what it would do for `target`. Opens no connection.
///
/// # Errors
/// No ssh, or a config that ssh refuses.
pub async fn effective(target: &SshTarget) -> Result<Effective, SshFailure> {
    Program::find()?.effective(target).await
}

impl Program {
    /// [`effective`] with this program.
    ///
    /// # Errors
    /// As [`effective`].
    pub async fn effective(&self, target: &SshTarget) -> Result<Effective, SshFailure> {
        #[cfg(feature = "builtin-ssh")]
        if let super::program::Kind::Builtin(home) = &self.0 {
            return super::builtin::effective(target, home);
        }
        let mut command = self.command(&[]);
        command.arg("-G");
        if let Some(port) = target.port() {
            command.args(["-p", &port.to_string()]);
        }
        command.arg("--").arg(target.destination()).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let failed = |kind, detail: String| SshFailure::new(kind, detail);
        let output = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed(SshFailureKind::NoClient, error.to_string())),
            Err(_) => return Err(failed(SshFailureKind::Config, "ssh -G did not end".to_owned())),
        };
        if !output.status.success() {
            return Err(failed(SshFailureKind::Config, clean(&String::from_utf8_lossy(&output.stderr))));
        }
        Ok(read(&String::from_utf8_lossy(&output.stdout)))
    }
}

fn read(text: &str) -> Effective {
    let mut found = Effective::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        match key {
            "hostname" => found.host = value.to_owned(),
            "port" => found.port = value.parse().ok(),
            "user" => found.user = Some(value.to_owned()),
            "proxyjump" if value != "none" => found.proxy_jump = Some(value.to_owned()),
            "identityfile" => found.identity_files.push(value.into()),
            "userknownhostsfile" | "globalknownhostsfile" => {
                found.known_hosts.extend(value.split(' ').map(PathBuf::from));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_openssh_9_2() {
        let text = "host box\nuser me\nhostname box.example.com\nport 2222\nproxyjump gate\n\
                    identityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ed25519\n\
                    globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\n\
                    userknownhostsfile /home/me/.ssh/known_hosts\n";
        let found = read(text);
        assert_eq!(
            (found.host.as_str(), found.port, found.user.as_deref()),
            ("box.example.com", Some(2222), Some("me"))
        );
        assert_eq!(found.proxy_jump.as_deref(), Some("gate"));
        assert_eq!(found.identity_files.len(), 2);
        assert_eq!(found.known_hosts.len(), 3);
    }
}
