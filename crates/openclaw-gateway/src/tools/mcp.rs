//! Tools of MCP servers (`mcp.servers` in the config), lent to runs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use openclaw_agent::{
    mcp::{self, Guard, Servers},
    tool::Tool,
};
use openclaw_config::secret_ref::SecretContext;
use openclaw_protocol::Scope;

use crate::{
    gateway::Gateway,
    runs::{RunContext, ToolSource},
};

/// Lends runs the tools of the servers.
pub struct McpTools {
    servers: Servers,
}

impl McpTools {
    /// The source, and the servers to [`run`].
    pub fn new(guard: Guard) -> (Self, Servers) {
        let servers = Servers::new(Some(guard));
        (Self { servers: servers.clone() }, servers)
    }
}

impl ToolSource for McpTools {
    fn tools<'a>(&'a self, _: &'a Arc<Gateway>, context: &'a Arc<RunContext>) -> BoxFuture<'a, Vec<Arc<dyn Tool>>> {
        Box::pin(async move {
            // What a server does is not known here; whoever may only look gets none of it.
            if context.authority.scopes.grants(Scope::Write) { self.servers.tools().await } else { Vec::new() }
        })
    }
}

/// Follows the config and ends the servers with the gateway. None is started before a run asks for tools.
pub async fn run(gateway: Arc<Gateway>, servers: Servers) {
    let mut reloads = gateway.reloads.subscribe();
    loop {
        reloads.mark_unchanged();
        let worker = Arc::clone(&gateway);
        // Secrets may be in files or come from programs.
        let read = tokio::task::spawn_blocking(move || {
            let runtime = worker.runtime.load_full();
            mcp::read(&SecretContext { env: &worker.env, doc: &runtime.config, paths: &worker.paths })
        });
        match read.await {
            Ok(settings) => {
                for (name, problem) in settings
                    .iter()
                    .filter(|server| server.enabled)
                    .filter_map(|server| Some((&server.name, server.transport.as_ref().err()?)))
                {
                    tracing::warn!("the MCP server {name} cannot be used: {problem}");
                }
                servers.reload(settings);
            }
            Err(error) => tracing::error!(%error, "mcp.servers was not read; the servers before stay"),
        }
        tokio::select! {
            () = gateway.cancel.cancelled() => break,
            changed = reloads.changed() => if changed.is_err() { break },
        }
    }
    servers.stop().await;
}
