//! The service manager of this machine, asked by its own program. Every step is one command, which can be shown instead of run.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Who starts things at login here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Manager {
    /// systemd's user manager
    Systemd,
    /// launchd's agents
    Launchd,
}

/// One command of the manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub words: Vec<String>,
    /// Its failure is no failure: there was nothing to stop.
    pub optional: bool,
}

impl Step {
    fn of(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), optional: false }
    }

    fn optional(words: &[&str]) -> Self {
        Self { optional: true, ..Self::of(words) }
    }

    /// As it would be typed.
    pub fn text(&self) -> String {
        self.words.join(" ")
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the program said, or why it did not start.
    pub fn run(&self) -> Result<(), String> {
        let Some((program, arguments)) = self.words.split_first() else { return Ok(()) };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() || self.optional => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
                Err(format!("`{}` failed: {}", self.text(), said.trim()))
            }
            Err(_) if self.optional => Ok(()),
            Err(error) => Err(format!("`{program}` does not start: {error}")),
        }
    }
}

impl Manager {
    /// launchd on macOS, systemd elsewhere.
    pub const fn here() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }

    /// What makes a written service known, enabled and running.
    pub fn start(self, service: &str, file: &Path) -> Vec<Step> {
        match self {
            Self::Systemd => vec![
                Step::of(&["systemctl", "--user", "daemon-reload"]),
                Step::of(&["systemctl", "--user", "enable", service]),
                Step::of(&["systemctl", "--user", "restart", service]),
            ],
            Self::Launchd => vec![
                // A loaded agent keeps its old text.
                Step::optional(&["launchctl", "bootout", &domain_target(service)]),
                Step::of(&["launchctl", "bootstrap", &domain(), &file.display().to_string()]),
            ],
        }
    }

    /// What stops it and keeps it from starting again.
    pub fn stop(self, service: &str) -> Vec<Step> {
        match self {
            Self::Systemd => vec![Step::optional(&["systemctl", "--user", "disable", "--now", service])],
            Self::Launchd => vec![Step::optional(&["launchctl", "bootout", &domain_target(service)])],
        }
    }

    /// What makes a removed file forgotten.
    pub fn forget(self) -> Vec<Step> {
        match self {
            Self::Systemd => vec![Step::optional(&["systemctl", "--user", "daemon-reload"])],
            Self::Launchd => Vec::new(),
        }
    }
}

/// `gui/<uid>`.
fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

/// `gui/<uid>/<label>`.
pub fn domain_target(label: &str) -> String {
    format!("{}/{label}", domain())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(steps: &[Step]) -> Vec<String> {
        steps.iter().map(Step::text).collect()
    }

    #[test]
    fn s_053_systemd() {
        let steps = Manager::Systemd.start("openclaw-tunnel.service", Path::new("/x"));
        assert_eq!(
            texts(&steps),
            [
                "systemctl --user daemon-reload",
                "systemctl --user enable openclaw-tunnel.service",
                "systemctl --user restart openclaw-tunnel.service"
            ]
        );
    }

    #[test]
    fn s_179_and_s_185_launchd() {
        let uid = rustix::process::getuid().as_raw();
        let steps = Manager::Launchd.start("ai.openclaw.ssh-tunnel", Path::new("/a.plist"));
        assert_eq!(texts(&steps[1..]), [format!("launchctl bootstrap gui/{uid} /a.plist")]);
        let steps = Manager::Launchd.stop("ai.openclaw.ssh-tunnel");
        assert_eq!(texts(&steps), [format!("launchctl bootout gui/{uid}/ai.openclaw.ssh-tunnel")]);
    }

    #[test]
    fn a_failing_step_says_what_failed() {
        let error = Step::of(&["sh", "-c", "echo nothing here >&2; exit 1"]).run().expect_err("fails");
        assert!(error.contains("nothing here"), "{error}");
        assert!(Step::of(&["no-such-program-here"]).run().is_err());
        assert_eq!(Step::optional(&["no-such-program-here"]).run(), Ok(()));
    }
}
