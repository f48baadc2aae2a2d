//! A program in a real terminal: tmux draws its screen, and a test types and looks.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    process::{Launch, wait_at_most},
    require::{Capability, program},
};

/// How long something may take to appear. Other tests run at the same time, and the real gateway is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with one program in it. Dropping it ends both.
pub struct Terminal {
    tmux: PathBuf,
    socket: PathBuf,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

impl Terminal {
    /// Starts a program in a terminal of this size; `dir` takes tmux's socket. When the program ends, the screen keeps its last
    /// words and `EXIT=` with its code.
    ///
    /// # Errors
    /// Without tmux.
    #[track_caller]
    pub fn start(launch: &Launch, dir: &Path, columns: u16, rows: u16) -> Capability<Self> {
        let terminal = Self { tmux: program("tmux")?, socket: dir.join("tmux.sock") };
        let script = dir.join("in-tmux");
        // A shell of its own, so that the screen outlives the program.
        let text = launch.script().replacen("exec ", "", 1);
        std::fs::write(&script, format!("{text}\necho EXIT=$?\nexec sleep 600\n"))
            .expect("a scratch directory takes files");
        let command = format!("/bin/sh {}", script.display());
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let started = terminal
            .tmux(&["-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", &columns, "-y", &rows, &command])
            .output()
            .expect("tmux starts");
        assert!(started.status.success(), "tmux: {}", String::from_utf8_lossy(&started.stderr));
        Ok(terminal)
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tmux);
        command.arg("-S").arg(&self.socket).args(args).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.tmux(args).output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Keys by tmux's names (`Enter`, `C-p`, `Escape`).
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys", "-t", "t"], keys].concat());
    }

    /// Text as it is.
    pub fn types(&self, text: &str) {
        self.run(&["send-keys", "-t", "t", "-l", text]);
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.run(&["resize-window", "-t", "t", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-t", "t"])
    }

    /// The process in the terminal that was started, not the shell around it.
    pub fn pid_of(&self, program: &str) -> Option<u32> {
        let shell: u32 = self.run(&["display-message", "-p", "-t", "t", "#{pane_pid}"]).trim().parse().ok()?;
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program)
        })
    }

    /// Waits until the screen is as wanted.
    ///
    /// # Panics
    /// With the screen, when that takes too long.
    #[track_caller]
    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_at_most(PATIENCE, what, || {
                last = self.screen();
                wanted(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{what} did not appear:\n{last}"))
    }

    /// Waits until the screen shows this text.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }
}
