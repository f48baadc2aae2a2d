//! The persistent forms of a tunnel: ssh itself, autossh, or this program's supervisor.

use std::path::{Path, PathBuf};

use openclaw_remote::ssh::SshTarget;

use super::text::{unit_word, xml};

/// Name of the systemd user unit (S-051).
pub const UNIT: &str = "openclaw-tunnel.service";
/// Label of the launchd agent (S-177, S-178).
pub const LABEL: &str = "ai.openclaw.ssh-tunnel";
/// Labels of earlier setups, which would fight over the port (S-181).
pub const OLD_LABELS: &[&str] = &["com.openclaw.ssh-tunnel"];
/// The ssh-config alias the agent connects to (S-173).
pub const ALIAS: &str = "remote-gateway";
/// Seconds between keepalives, and how many may go unanswered (S-054).
const KEEPALIVE: [&str; 4] = ["-o", "ServerAliveInterval=60", "-o", "ServerAliveCountMax=3"];

/// Who keeps the tunnel up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// ssh, restarted by the system.
    Ssh,
    /// autossh, which restarts ssh by itself.
    Autossh,
    /// This program: warm spare, heartbeat, instant retry.
    Supervisor,
}

/// A tunnel to write down.
#[derive(Clone, Debug)]
pub struct Tunnel {
    pub form: Form,
    pub target: SshTarget,
    pub identity: Option<PathBuf>,
    /// Port other programs use here.
    pub port: u16,
    /// Port of the gateway at the far side's loopback.
    pub gateway_port: u16,
    /// ssh, autossh or this program.
    pub program: PathBuf,
    /// Words after the program, for the supervisor only.
    pub supervisor: Vec<String>,
    /// Environment the supervisor needs to find its profile.
    pub environment: Vec<(String, String)>,
}

impl Tunnel {
    /// The command and its arguments.
    pub fn command(&self) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        match self.form {
            Form::Supervisor => {
                words.extend(self.supervisor.iter().cloned());
                return words;
            }
            Form::Ssh => {}
            // No monitoring port: the keepalives find a dead link (S-055).
            Form::Autossh => words.extend(["-M", "0"].map(str::to_owned)),
        }
        words.extend(["-N".to_owned(), "-L".to_owned(), format!("{}:127.0.0.1:{}", self.port, self.gateway_port)]);
        words.extend(KEEPALIVE.map(str::to_owned));
        words.extend(["-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"].map(str::to_owned));
        if let Some(identity) = &self.identity {
            words.extend(["-i".to_owned(), identity.display().to_string()]);
        }
        if let Some(port) = self.target.port() {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.push(self.target.destination());
        words
    }

    /// The systemd user unit (S-052).
    pub fn unit(&self) -> String {
        let command: Vec<String> = self.command().iter().map(|word| unit_word(word)).collect();
        let environment: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("Environment={}\n", unit_word(&format!("{name}={value}"))))
            .collect();
        format!(
            "[Unit]\nDescription=OpenClaw SSH Tunnel\nAfter=network.target\n\n[Service]\nType=simple\n\
             {environment}ExecStart={}\nRestart=always\nRestartSec=10\n\n[Install]\nWantedBy=default.target\n",
            command.join(" ")
        )
    }

    /// The launchd agent (S-178). The ssh form goes through the ssh-config entry [`ALIAS`].
    pub fn agent(&self) -> String {
        let command = match self.form {
            Form::Ssh => vec![self.program.display().to_string(), "-N".to_owned(), ALIAS.to_owned()],
            _ => self.command(),
        };
        let words: String = command.iter().map(|word| format!("        <string>{}</string>\n", xml(word))).collect();
        let environment = if self.environment.is_empty() {
            String::new()
        } else {
            let each = |(name, value): &(String, String)| {
                format!("        <key>{}</key>\n        <string>{}</string>\n", xml(name), xml(value))
            };
            let entries: String = self.environment.iter().map(each).collect();
            format!("    <key>EnvironmentVariables</key>\n    <dict>\n{entries}    </dict>\n")
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n<dict>\n    \
             <key>Label</key>\n    <string>{LABEL}</string>\n    <key>ProgramArguments</key>\n    <array>\n{words}    \
             </array>\n{environment}    <key>KeepAlive</key>\n    <true/>\n    <key>RunAtLoad</key>\n    <true/>\n\
             </dict>\n</plist>\n"
        )
    }
}

/// `~/.config/systemd/user/openclaw-tunnel.service`.
pub fn unit_path(config_home: &Path) -> PathBuf {
    config_home.join("systemd").join("user").join(UNIT)
}

/// `~/Library/LaunchAgents/<label>.plist`.
pub fn agent_path(home: &Path, label: &str) -> PathBuf {
    home.join("Library").join("LaunchAgents").join(format!("{label}.plist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(form: Form) -> Tunnel {
        Tunnel {
            form,
            target: "user@gateway-host".parse().expect("target"),
            identity: None,
            port: 18789,
            gateway_port: 18789,
            program: PathBuf::from(match form {
                Form::Ssh => "/usr/bin/ssh",
                Form::Autossh => "/usr/bin/autossh",
                Form::Supervisor => "/opt/open claw/openclaw",
            }),
            supervisor: ["tunnel", "run", "home"].map(str::to_owned).to_vec(),
            environment: Vec::new(),
        }
    }

    #[test]
    fn s_051_to_s_054_the_unit() {
        let unit = tunnel(Form::Ssh).unit();
        let lines: Vec<&str> = unit.lines().collect();
        for line in [
            "[Unit]",
            "After=network.target",
            "[Service]",
            "Type=simple",
            "Restart=always",
            "RestartSec=10",
            "[Install]",
            "WantedBy=default.target",
        ] {
            assert!(lines.contains(&line), "{line} in {unit}");
        }
        assert!(lines.iter().any(|line| line.eq_ignore_ascii_case("Description=OpenClaw SSH tunnel")));
        let command = lines.iter().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        assert!(
            command.starts_with("/usr/bin/ssh -N -L 18789:127.0.0.1:18789 -o ServerAliveInterval=60 "),
            "{command}"
        );
        assert!(command.contains("ServerAliveCountMax=3") && command.ends_with(" user@gateway-host"), "{command}");
        assert_eq!(
            unit_path(Path::new("/home/me/.config")),
            Path::new("/home/me/.config/systemd/user/openclaw-tunnel.service")
        );
    }

    #[test]
    fn s_055_autossh() {
        let command = tunnel(Form::Autossh).command().join(" ");
        assert!(command.starts_with("/usr/bin/autossh -M 0 -N -L 18789:127.0.0.1:18789 "), "{command}");
        assert!(command.contains("-o ServerAliveInterval=60 -o ServerAliveCountMax=3"), "{command}");
    }

    #[test]
    fn s_178_the_agent_is_the_checklists() {
        let agent = tunnel(Form::Ssh).agent();
        let squeezed: String = agent.split_whitespace().collect();
        for part in [
            "<key>Label</key><string>ai.openclaw.ssh-tunnel</string>",
            "<key>ProgramArguments</key><array><string>/usr/bin/ssh</string><string>-N</string><string>remote-gateway</string></array>",
            "<key>KeepAlive</key><true/>",
            "<key>RunAtLoad</key><true/>",
        ] {
            assert!(squeezed.contains(part), "{part} in {agent}");
        }
        assert_eq!(
            agent_path(Path::new("/Users/me"), LABEL),
            Path::new("/Users/me/Library/LaunchAgents/ai.openclaw.ssh-tunnel.plist")
        );
    }

    #[test]
    fn odd_words_stay_one_word() {
        let mut tunnel = tunnel(Form::Supervisor);
        tunnel.environment = vec![("OPENCLAW_STATE_DIR".into(), "/srv/50% \"off\"/$HOME".into())];
        let unit = tunnel.unit();
        assert!(unit.contains("ExecStart=\"/opt/open claw/openclaw\" tunnel run home\n"), "{unit}");
        assert!(unit.contains("Environment=\"OPENCLAW_STATE_DIR=/srv/50%% \\\"off\\\"/$$HOME\"\n"), "{unit}");
        tunnel.environment = vec![("A".into(), "<&>".into())];
        assert!(tunnel.agent().contains("<string>&lt;&amp;&gt;</string>"));
    }

    #[test]
    fn ports_and_keys_move_along() {
        let mut tunnel = tunnel(Form::Ssh);
        (tunnel.port, tunnel.gateway_port) = (28000, 19001);
        tunnel.target = "me@box:2222".parse().expect("target");
        tunnel.identity = Some("/home/me/my keys/id".into());
        assert!(tunnel.unit().contains("-L 28000:127.0.0.1:19001 "));
        assert!(tunnel.unit().contains(" -i \"/home/me/my keys/id\" -p 2222 me@box\n"));
    }
}
