//! The texts of the node's service: a systemd user unit and a launchd agent, with the policy lines of the reference.

use std::path::{Path, PathBuf};

use openclaw_config::Profile;

use crate::service::text::{unit_word, xml};

/// How long a stop may take before the rest is killed.
const STOP_SECONDS: u32 = 30;

/// A service to write down.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Program and arguments.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Where launchd puts what the node says; systemd has its journal.
    pub log: PathBuf,
    pub profile: Profile,
}

/// `openclaw-node`, or `openclaw-node-<profile>`.
pub fn unit_name(profile: &Profile) -> String {
    profile.name().map_or_else(|| "openclaw-node.service".to_owned(), |name| format!("openclaw-node-{name}.service"))
}

/// `ai.openclaw.node`, or `ai.openclaw.node-<profile>`.
pub fn label(profile: &Profile) -> String {
    profile.name().map_or_else(|| "ai.openclaw.node".to_owned(), |name| format!("ai.openclaw.node-{name}"))
}

pub fn unit_path(config_home: &Path, profile: &Profile) -> PathBuf {
    config_home.join("systemd").join("user").join(unit_name(profile))
}

pub fn agent_path(home: &Path, profile: &Profile) -> PathBuf {
    home.join("Library").join("LaunchAgents").join(format!("{}.plist", label(profile)))
}

impl Unit {
    fn description(&self) -> String {
        match self.profile.name() {
            None => "OpenClaw Node Host".to_owned(),
            Some(name) => format!("OpenClaw Node Host (profile: {name})"),
        }
    }

    /// The systemd user unit.
    pub fn systemd(&self) -> String {
        let command: Vec<String> = self.command.iter().map(|word| unit_word(word)).collect();
        let environment = self.environment.iter().map(|(name, value)| unit_word(&format!("{name}={value}")));
        let environment: String = environment.map(|word| format!("Environment={word}\n")).collect();
        format!(
            "[Unit]\nDescription={}\nAfter=network-online.target\nWants=network-online.target\nStartLimitBurst=10\n\
             StartLimitIntervalSec=300\n\n[Service]\nExecStart={}\nRestart=always\nRestartSec=5\n\
             RestartPreventExitStatus=78\nTimeoutStopSec={STOP_SECONDS}\nTimeoutStartSec=30\nSuccessExitStatus=0 143\n\
             OOMPolicy=continue\nKillMode=mixed\n{environment}\n[Install]\nWantedBy=default.target\n",
            self.description(),
            command.join(" ")
        )
    }

    /// The launchd agent.
    pub fn launchd(&self) -> String {
        let words: String = self.command.iter().map(|word| format!("      <string>{}</string>\n", xml(word))).collect();
        let environment = if self.environment.is_empty() {
            String::new()
        } else {
            let each = |(name, value): &(String, String)| {
                format!("      <key>{}</key>\n      <string>{}</string>\n", xml(name), xml(value))
            };
            let entries: String = self.environment.iter().map(each).collect();
            format!("    <key>EnvironmentVariables</key>\n    <dict>\n{entries}    </dict>\n")
        };
        let log = xml(&self.log.display().to_string());
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n  <dict>\n    \
             <key>Label</key>\n    <string>{}</string>\n    <key>Comment</key>\n    <string>{}</string>\n    \
             <key>RunAtLoad</key>\n    <true/>\n    <key>KeepAlive</key>\n    <true/>\n    \
             <key>ThrottleInterval</key>\n    <integer>5</integer>\n    <key>ProgramArguments</key>\n    <array>\n{words}    \
             </array>\n    <key>StandardOutPath</key>\n    <string>{log}</string>\n    <key>StandardErrorPath</key>\n    \
             <string>{log}</string>\n{environment}  </dict>\n</plist>\n",
            xml(&label(&self.profile)),
            xml(&self.description()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit {
            command: ["/opt/open claw/openclaw", "node", "run", "--host", "gw"].map(str::to_owned).to_vec(),
            environment: vec![("OPENCLAW_STATE_DIR".into(), "/srv/50% $HOME".into())],
            log: "/home/u/.openclaw/logs/node.log".into(),
            profile: Profile::Default,
        }
    }

    /// The fixed lines of release 2026.9.6 (its systemd-unit module).
    #[test]
    fn the_unit_has_the_references_policy() {
        let text = unit().systemd();
        for line in [
            "After=network-online.target",
            "Wants=network-online.target",
            "StartLimitBurst=10",
            "StartLimitIntervalSec=300",
            "Restart=always",
            "RestartSec=5",
            "RestartPreventExitStatus=78",
            "TimeoutStartSec=30",
            "SuccessExitStatus=0 143",
            "OOMPolicy=continue",
            "KillMode=mixed",
            "WantedBy=default.target",
            "ExecStart=\"/opt/open claw/openclaw\" node run --host gw",
            "Environment=\"OPENCLAW_STATE_DIR=/srv/50%% $$HOME\"",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }

    #[test]
    fn names_by_profile() {
        let work = Profile::choose(false, Some("work")).expect("profile");
        assert_eq!(
            (unit_name(&Profile::Default).as_str(), label(&Profile::Default).as_str()),
            ("openclaw-node.service", "ai.openclaw.node")
        );
        assert_eq!(
            (unit_name(&work).as_str(), label(&work).as_str()),
            ("openclaw-node-work.service", "ai.openclaw.node-work")
        );
    }

    #[test]
    fn the_agent_starts_the_same_command() {
        let squeezed: String = unit().launchd().split_whitespace().collect();
        for part in [
            "<key>Label</key><string>ai.openclaw.node</string>",
            "<array><string>/opt/openclaw/openclaw</string><string>node</string><string>run</string>",
            "<key>KeepAlive</key><true/>",
        ] {
            assert!(squeezed.contains(part), "{part}");
        }
        assert!(Unit { command: vec!["<&>".into()], ..unit() }.launchd().contains("<string>&lt;&amp;&gt;</string>"));
    }
}
