//! The commands this machine offers, one file each. A command takes the request's parameters as JSON text and gives a
//! JSON value or a [`Failure`]; it knows nothing of connections.

mod camera;
mod device_info;
mod exec_approvals;
mod fs_list_dir;
mod image;
mod screen;
pub mod stats;
mod system_notify;
mod system_run;
mod system_which;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_config::{Document, Paths};
use openclaw_protocol::Protocol;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    approvals::{document::Store, plan::Ledger, policy::Configured},
    exec::{
        environment::{self, AlsoAllowed},
        process::{self, Chunk, Guard, Outcome, Run},
        programs,
    },
};

/// Why a command was not done: `error` of `node.invoke.result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("INVALID_REQUEST", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new("UNAVAILABLE", message)
    }
}

/// A `node.event` that a command causes.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub event: &'static str,
    pub payload: Value,
}

/// One request.
#[derive(Debug)]
pub struct Call {
    pub command: String,
    pub params: Option<String>,
    /// What the connection speaks; a few answers differ.
    pub protocol: Protocol,
    pub cancel: CancellationToken,
    /// For `node.invoke.progress`, of commands that stream.
    pub progress: mpsc::Sender<Chunk>,
    pub reports: mpsc::Sender<Report>,
}

impl Call {
    /// The parameters, which have to be there.
    fn params<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let text = self.params.as_deref().ok_or_else(|| Failure::invalid("INVALID_REQUEST: paramsJSON required"))?;
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Failure::invalid(format!("INVALID_REQUEST: {error}")),
            _ => Failure::invalid("INVALID_REQUEST: paramsJSON malformed JSON"),
        })
    }

    /// The parameters, for commands that need none.
    fn optional_params<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        if self.params.is_some() { self.params() } else { Ok(T::default()) }
    }
}

/// Everything commands need of this machine.
pub struct Toolbox {
    guard: Guard,
    /// What programs inherit.
    env: BTreeMap<String, String>,
    search_path: String,
    home: Option<PathBuf>,
    also: AlsoAllowed,
    approvals: Store,
    configured: Configured,
    camera_enabled: bool,
    plans: Mutex<Ledger>,
}

impl Toolbox {
    /// Looks at this machine. `own_env` is this process's environment.
    pub fn new(
        guard: Guard,
        paths: &Paths,
        config: &Document,
        own_env: impl IntoIterator<Item = (String, String)>,
        also: AlsoAllowed,
    ) -> Self {
        let mut env = environment::inherited(own_env, &also);
        let search_path = env.get("PATH").filter(|path| !path.trim().is_empty()).cloned();
        let search_path = search_path.unwrap_or_else(|| programs::DEFAULT_PATH.to_owned());
        env.insert("PATH".to_owned(), search_path.clone());
        let enabled = |path: &str| config.get(path).and_then(|node| node.as_bool());
        Self {
            guard,
            home: env.get("HOME").map(PathBuf::from),
            env,
            search_path,
            also,
            approvals: Store::new(paths),
            configured: Configured::read(config),
            // The reference's switch; off unless the owner says so.
            camera_enabled: enabled("plugins.entries.linux-node.config.camera.enabled") == Some(true),
            plans: Mutex::default(),
        }
    }

    /// The search path told to the gateway (`pathEnv`).
    pub fn search_path(&self) -> &str {
        &self.search_path
    }

    /// How this machine is doing.
    pub fn stats(&self) -> Option<Value> {
        stats::sample(self.home.as_deref())
    }

    /// Commands that would work here, each with its capability family.
    pub fn offers(&self) -> Vec<(&'static str, &'static str)> {
        let mut offers = vec![
            ("system.run", "system"),
            ("system.run.prepare", "system"),
            ("system.which", "system"),
            ("system.execApprovals.get", "system"),
            ("system.execApprovals.set", "system"),
            ("fs.listDir", "file"),
            ("device.info", "device"),
        ];
        if system_notify::tool(self).is_some() {
            offers.push(("system.notify", "system"));
        }
        if screen::tool(self).is_some() {
            offers.push(("screen.snapshot", "screen"));
        }
        if camera::tool(self).is_some() {
            offers.extend(["camera.list", "camera.snap", "camera.clip"].map(|command| (command, "camera")));
        }
        offers
    }

    /// Does what a request asks.
    ///
    /// # Errors
    /// [`Failure`]; with the code `CANCELLED` when the call was cancelled, which nobody waits to hear.
    pub async fn run(&self, call: &Call) -> Result<Value, Failure> {
        match call.command.as_str() {
            "system.run" => system_run::run(self, call).await,
            "system.run.prepare" => system_run::prepare(self, call),
            "system.which" => system_which::run(self, call),
            "system.notify" => system_notify::run(self, call).await,
            "system.execApprovals.get" => exec_approvals::get(self, call),
            "system.execApprovals.set" => exec_approvals::set(self, call),
            "fs.listDir" => fs_list_dir::run(self, call),
            "device.info" => Ok(device_info::info(&self.env)),
            "screen.snapshot" => screen::run(self, call).await,
            "camera.list" => camera::list(self, call).await,
            "camera.snap" => camera::snap(self, call).await,
            "camera.clip" => camera::clip(self, call).await,
            _ => Err(Failure::unavailable("command not supported")),
        }
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        programs::find(program, &self.search_path)
    }

    fn plans(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in here panics half-way; a poisoned lock still holds a usable ledger.
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a tool of this machine for a command of its own. Only what belongs to it is in `argv`.
    async fn tool(&self, argv: Vec<String>, limit: Duration, call: &Call) -> Result<Outcome, Failure> {
        let cwd = Path::new("/");
        let run = Run { argv: &argv, cwd, env: &self.env, timeout: Some(limit), live: None };
        process::run(&self.guard, run, &call.cancel).await.map_err(|_| cancelled())
    }
}

fn cancelled() -> Failure {
    Failure::new("CANCELLED", "the request was cancelled")
}

/// Turns a tool's end into an error of a command, unless it went well.
fn tool_ended(outcome: &Outcome, code: &'static str) -> Result<(), Failure> {
    if outcome.timed_out {
        return Err(Failure::new(code, format!("{code}: command timed out")));
    }
    if outcome.success() {
        return Ok(());
    }
    let said = [outcome.error.as_deref().unwrap_or_default(), &outcome.stderr, &outcome.stdout];
    let said = said.into_iter().map(str::trim).find(|text| !text.is_empty());
    let said = said.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let said =
        said.unwrap_or_else(|| format!("exit {}", outcome.exit_code.map_or("unknown".into(), |c| c.to_string())));
    Err(Failure::new(code, format!("{code}: {}", said.chars().take(300).collect::<String>())))
}

#[cfg(test)]
pub(crate) mod bench {
    //! A toolbox on a scratch directory, and calls to it.

    use super::*;
    use openclaw_config::{Env, Profile};

    pub struct Bench {
        pub dir: tempfile::TempDir,
        pub toolbox: Toolbox,
        pub reports: mpsc::Receiver<Report>,
        sender: mpsc::Sender<Report>,
    }

    impl Bench {
        pub fn new(config: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
            let paths = Paths::resolve(&env, Profile::Default).unwrap();
            let config = Document::from_text(config, &paths, &env).unwrap();
            // Commands that start programs are tested with the real guard, in tests/.
            let guard = Guard { program: "/nonexistent/guard".into(), arguments: Vec::new() };
            let own = [("PATH", "/usr/bin:/bin"), ("HOME", "/home/u"), ("LANG", "C.UTF-8")];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let toolbox = Toolbox::new(guard, &paths, &config, own, AlsoAllowed::default());
            let (sender, reports) = mpsc::channel(16);
            Self { dir, toolbox, reports, sender }
        }

        pub fn call(&self, command: &str, params: Option<Value>) -> Call {
            Call {
                command: command.to_owned(),
                params: params.map(|params| params.to_string()),
                protocol: Protocol::V4,
                cancel: CancellationToken::new(),
                progress: mpsc::channel(1).0,
                reports: self.sender.clone(),
            }
        }

        pub async fn ask(&self, command: &str, params: Value) -> Result<Value, Failure> {
            self.toolbox.run(&self.call(command, Some(params))).await
        }
    }

    #[tokio::test]
    async fn unknown_commands_and_missing_params() {
        let bench = Bench::new("{}");
        let failure = bench.ask("no.such", Value::Null).await.unwrap_err();
        assert_eq!(failure, Failure::unavailable("command not supported"));
        for command in ["system.run", "system.run.prepare", "system.which", "system.execApprovals.set"] {
            let failure = bench.toolbox.run(&bench.call(command, None)).await.unwrap_err();
            assert_eq!(failure, Failure::invalid("INVALID_REQUEST: paramsJSON required"), "{command}");
            let call = Call { params: Some("{".into()), ..bench.call(command, None) };
            let failure = bench.toolbox.run(&call).await.unwrap_err();
            assert_eq!(failure, Failure::invalid("INVALID_REQUEST: paramsJSON malformed JSON"), "{command}");
        }
    }
}
