//! A server's process: started with a bare environment, ended with everything it started.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::{Guard, settings::StdioServer};

/// What a server inherits if this process has it: what programs need to run, none of the gateway's own settings.
const INHERITED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// To end when its input ends, and then when it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// Of a line of what it says on standard error.
const LINE_BYTES: u64 = 8 << 10;
/// Lines of it that are kept for the status.
const KEPT_LINES: usize = 3;

/// A running server; dropping it kills it and what it started.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    said: Said,
}

/// The last lines it wrote on standard error.
pub(super) type Said = Arc<Mutex<VecDeque<String>>>;

impl Process {
    pub fn start(
        name: &str,
        server: &StdioServer,
        guard: Option<&Guard>,
    ) -> Result<(Self, ChildStdout, ChildStdin), String> {
        let mut command = match guard {
            Some(guard) => {
                let mut command = Command::new(&guard.program);
                command.args(&guard.arguments).arg(&server.command);
                command
            }
            None => Command::new(&server.command),
        };
        command.args(server.args.iter().map(|arg| arg.expose()));
        command.env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(server.env.iter().map(|(name, value)| (name, value.expose())));
        let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
        let cwd = server.cwd.clone().or_else(home).unwrap_or_else(|| "/".into());
        if !cwd.is_dir() {
            return Err(format!("its directory {} does not exist", cwd.display()));
        }
        command.current_dir(cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{} cannot be started: {error}", server.command))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let said = Said::default();
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("its input and output are not there".to_owned());
        };
        tokio::spawn(listen(name.to_owned(), stderr, Arc::clone(&said)));
        Ok((Self { child, group, said }, stdout, stdin))
    }

    /// The last it said on standard error, for people who look why it failed.
    pub fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(String::as_str).collect::<Vec<_>>().join(" / ")
    }

    pub async fn ended(&mut self) {
        // A process that cannot be waited for is as good as ended.
        let _ = self.child.wait().await;
    }

    /// Lets it end: its input is closed already, then it is asked, then it is killed.
    pub async fn end(mut self) {
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
            let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        }
        // What it started is in its group; dropping kills that.
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An empty group is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads what a server says beside the protocol, so that it never blocks on it.
async fn listen(name: String, stderr: ChildStderr, said: Said) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim_end().chars().filter(|c| !c.is_control()).take(300).collect();
        if text.is_empty() {
            continue;
        }
        tracing::debug!("bundle-mcp:{name}: {text}");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT_LINES {
            said.pop_front();
        }
        said.push_back(text);
    }
}
