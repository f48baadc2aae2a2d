//! Tools of other programs, over the Model Context Protocol: `mcp.servers.<name>`.
//!
//! ```text
//! idle ──tools()──► connecting ──► ready ──► (list changed: listed again)
//!   ▲                   │            │
//!   │                   ▼            ▼
//!   └── settings gone  failed ◄── ended, silent
//!                        └─ after a pause that grows, the next tools() tries again
//! ```
//!
//! Each server has a task of its own. One that does not come up, ends or hangs takes its own tools along and nothing else.

mod guard;
mod names;
mod process;
mod result;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod tool;

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use guard::run as guard;
pub use names::prefix;
pub use settings::{Filter, HttpServer, ServerSettings, StdioServer, Transport, read};

use self::server::Server;
use crate::tool::Tool;

/// How long a run waits for servers that are not connected yet; what comes later is there for the next run.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program started between this one and a server, which ends the server when this program ends, however it does. Its
/// arguments come before the server's command; it calls [`guard`].
#[derive(Clone, Debug)]
pub struct Guard {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// All configured servers. Clones are the same servers.
#[derive(Clone)]
pub struct Servers {
    inner: Arc<Inner>,
}

struct Inner {
    guard: Option<Guard>,
    /// By name. Never locked across an await.
    servers: Mutex<BTreeMap<String, Arc<Server>>>,
}

/// What became of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub name: String,
    /// `stdio` or `streamable-http`.
    pub transport: &'static str,
    pub state: State,
    /// Names of its tools, as models call them.
    pub tools: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// `enabled: false`.
    Disabled,
    /// Not asked for yet.
    Idle,
    Connecting,
    Ready,
    /// Why, and in how long it may be tried again.
    Failed {
        error: String,
        retry_in: Duration,
    },
}

impl Servers {
    /// Starts nothing. Without a guard servers end with this program only if it ends in order, or if they end when their
    /// input does, as they should.
    pub fn new(guard: Option<Guard>) -> Self {
        Self { inner: Arc::new(Inner { guard, servers: Mutex::default() }) }
    }

    /// Takes new settings: servers that are gone or changed end, others stay as they are. Starts nothing.
    pub fn reload(&self, settings: Vec<ServerSettings>) {
        let mut servers = self.lock();
        let mut taken = HashSet::new();
        let mut next = BTreeMap::new();
        for settings in settings {
            let prefix = names::unique(names::prefix(&settings.name), &mut taken);
            let kept = servers.remove(&settings.name).filter(|server| server.is(&settings, &prefix));
            let name = settings.name.clone();
            let server = kept.unwrap_or_else(|| Server::new(settings, prefix, self.inner.guard.clone()));
            next.insert(name, server);
        }
        for gone in servers.values() {
            gone.end();
        }
        *servers = next;
    }

    /// The tools of all servers that are there, in the order of their names. Connects those that are not, and waits a while.
    pub async fn tools(&self) -> Vec<Arc<dyn Tool>> {
        let servers: Vec<Arc<Server>> = self.lock().values().cloned().collect();
        let until = Instant::now() + PATIENCE;
        for server in &servers {
            server.connect();
        }
        let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
        for server in &servers {
            server.settled(until).await;
            tools.extend(server.tools().iter().map(|tool| Arc::clone(tool) as Arc<dyn Tool>));
        }
        tools
    }

    /// Whether a name has the form of a server's tool here. No built-in tool's name does.
    pub fn is_tool(&self, name: &str) -> bool {
        name.split_once("__").is_some_and(|(prefix, _)| self.lock().values().any(|server| server.prefix() == prefix))
    }

    pub fn status(&self) -> Vec<Status> {
        self.lock().values().map(|server| server.status()).collect()
    }

    /// Ends all servers and waits until they have ended, which takes at most about five seconds.
    pub async fn stop(&self) {
        let servers = std::mem::take(&mut *self.lock());
        for server in servers.values() {
            server.end();
        }
        for server in servers.values() {
            server.ended().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.inner.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
