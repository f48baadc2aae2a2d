//! What a gateway is started with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::ExitStatus,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PROXY, READY, Sandbox, binary};
use crate::{
    process::{Finished, Launch, Process},
    wire::{self, wait_for},
};

/// What a gateway is started with.
pub struct Setup {
    pub(super) dir: TempDir,
    pub(super) token: String,
    config: Value,
    raw: Option<String>,
    env: Vec<(String, String)>,
    pub(super) args: Vec<String>,
    umask: Option<&'static str>,
    pub(super) watched: bool,
}

/// A start that was refused.
#[derive(Debug)]
pub struct Failure {
    pub status: ExitStatus,
    /// stdout and stderr.
    pub console: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// Mode token with a random T in the config file, any free port.
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("openclaw-lab-").expect("a temporary directory");
        let mut bytes = [0; 20];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        wire::never_receive(&token);
        let config = json!({
            "gateway": {"mode": "local", "auth": {"mode": "token", "token": token}},
            "logging": {"file": dir.path().join("logs/gateway.log")},
        });
        Self {
            dir,
            token,
            config,
            raw: None,
            env: Vec::new(),
            args: vec!["gateway".into(), "run".into(), "--port".into(), "0".into()],
            umask: None,
            watched: true,
        }
    }

    /// Merges into the config; `null` removes a key.
    pub fn config(mut self, patch: Value) -> Self {
        merge(&mut self.config, patch);
        self
    }

    /// The whole text of the config file.
    pub fn raw_config(mut self, text: &str) -> Self {
        self.raw = Some(text.to_owned());
        self
    }

    /// Loopback is treated like any other address by the limiter: guesses are locked out, not slowed.
    pub fn strict_limiter(self) -> Self {
        self.config(json!({"gateway": {"auth": {"rateLimit": {"exemptLoopback": false}}}}))
    }

    /// 127.0.0.9 is a declared proxy, so that [`Sandbox::through_proxy`] can come from any address.
    pub fn behind_proxy(self) -> Self {
        self.config(json!({"gateway": {"trustedProxies": [PROXY.to_string()]}}))
    }

    /// Every pairing needs the owner, also on loopback.
    pub fn no_silent_pairing(self) -> Self {
        self.config(json!({"gateway": {"nodes": {"pairing": {"autoApproveLocal": false}}}}))
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it under this umask.
    pub fn umask(mut self, umask: &'static str) -> Self {
        self.umask = Some(umask);
        self
    }

    /// No look at what is left afterwards: for tests that are about something else.
    pub fn unwatched(mut self) -> Self {
        self.watched = false;
        self
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes the config file; done by the start unless it was done before.
    pub fn write_config(&self) -> PathBuf {
        let state = self.state_dir();
        fs::create_dir_all(&state).expect("creates");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("sets the mode");
        let path = state.join("openclaw.json");
        let text = self.raw.clone().unwrap_or_else(|| format!("{:#}\n", self.config));
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
        path
    }

    #[track_caller]
    pub fn start(self) -> Sandbox {
        if !self.state_dir().join("openclaw.json").exists() {
            self.write_config();
        }
        self.start_as_is()
    }

    /// Starts with whatever is in the state directory.
    #[track_caller]
    pub fn start_as_is(self) -> Sandbox {
        self.start_or_refuse().unwrap_or_else(|failure| panic!("{}: {}", failure.status, failure.console))
    }

    /// Starts it and expects it to end by itself.
    #[track_caller]
    pub fn refused(self) -> Failure {
        if !self.state_dir().join("openclaw.json").exists() {
            self.write_config();
        }
        self.refused_as_is()
    }

    /// As [`Setup::refused`], with whatever is in the state directory.
    #[track_caller]
    pub fn refused_as_is(self) -> Failure {
        match self.start_or_refuse() {
            Err(failure) => failure,
            Ok(sandbox) => panic!("it started: {}", sandbox.console()),
        }
    }

    /// Nothing is started yet.
    pub fn idle(self) -> Sandbox {
        if !self.state_dir().join("openclaw.json").exists() {
            self.write_config();
        }
        Sandbox::new(self)
    }

    /// Starts with whatever is in the state directory.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn start_or_refuse(self) -> Result<Sandbox, Failure> {
        let mut sandbox = Sandbox::new(self);
        sandbox.try_start()?;
        Ok(sandbox)
    }

    /// Runs another command of the program with this state directory; it has to end by itself.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.launch().args(args).run()
    }

    /// Starts another gateway beside the one of this setup, on the same state directory.
    #[track_caller]
    pub fn spawn_beside(&self, args: &[&str]) -> Rival {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("console-rival-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Rival(self.launch().args(args).start(&name))
    }

    pub(super) fn launch(&self) -> Launch {
        let dir = self.dir.path();
        let launch = match self.umask {
            None => Launch::new(binary(), dir),
            Some(umask) => {
                Launch::new("sh", dir).args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(binary())
            }
        };
        let launch = launch.env("HOME", dir.join("home")).env("OPENCLAW_STATE_DIR", self.state_dir());
        launch.envs(self.env.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }
}

/// A gateway started beside another one.
#[derive(Debug)]
pub struct Rival(Process);

impl Rival {
    /// Waits until it serves (true) or has ended with a word about the state directory's owner (false).
    #[track_caller]
    pub fn serves_or_ends(&mut self) -> bool {
        let serves = wait_for("the rival to serve or to end", || match self.0.ended() {
            Some(_) => Some(false),
            None => self.0.stderr().contains(READY).then_some(true),
        });
        let text = self.0.said();
        assert!(serves || text.contains("already owned") || text.contains("is starting"), "{text}");
        serves
    }
}

/// Merges `patch` into `value` as RFC 7386 does.
pub fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let object = value.as_object_mut().expect("just made");
    for (key, new) in patch {
        if new.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), new);
        }
    }
}
