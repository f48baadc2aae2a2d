//! What the agent can do here: nodes, programs on this host, messages, sessions, the gateway itself.
//!
//! Every tool belongs to one run and acts with that run's authority, never with the gateway's own. What reaches other machines
//! or people goes through the same doors as an operator's request: `nodes::for_run`, `approvals::ask`, the channels.

mod arguments;
mod exec;
mod gateway_tool;
mod host;
pub mod invoke;
mod mcp;
mod message;
mod nodes;
pub mod policy;
mod sessions;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use openclaw_agent::tool::Tool;
use openclaw_protocol::{ErrorShape, Scope};

pub use host::Host;

use openclaw_agent::{fetch, workspace};
use openclaw_node::exec::process::Guard;

use crate::{
    gateway::Gateway,
    runs::{RunContext, ToolSource},
};

/// How programs are started that must not outlive the gateway.
#[derive(Clone, Debug)]
pub struct Guards {
    /// Programs the agent runs on this host.
    pub programs: Guard,
    /// MCP servers, which talk on their standard input and output.
    pub servers: openclaw_agent::mcp::Guard,
}

/// Lends runs their tools; before anything runs.
pub fn attach(gateway: &Arc<Gateway>, guards: Guards) {
    let host = Arc::new(Host::new(guards.programs, gateway.paths.clone()));
    let (source, servers) = mcp::McpTools::new(guards.servers);
    gateway.runs.add_tools(Arc::new(AgentTools));
    gateway.runs.add_tools(Arc::new(OwnTools::new(host)));
    gateway.runs.add_tools(Arc::new(source));
    gateway.tracker.spawn(mcp::run(Arc::clone(gateway), servers));
}

/// What an agent can do without a gateway: its workspace, and the web.
struct AgentTools;

impl ToolSource for AgentTools {
    fn tools<'a>(
        &'a self,
        gateway: &'a Arc<Gateway>,
        context: &'a Arc<RunContext>,
    ) -> BoxFuture<'a, Vec<Arc<dyn Tool>>> {
        Box::pin(async move {
            let mut tools = workspace::tools(&context.workspace);
            tools.extend(fetch::tool(fetch::Settings::read(&gateway.runtime.load().config)));
            tools
        })
    }
}

/// The tools of this room.
#[derive(Clone)]
pub struct OwnTools {
    host: Arc<Host>,
}

impl OwnTools {
    /// `host` runs programs on this machine.
    pub fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

impl ToolSource for OwnTools {
    fn tools<'a>(
        &'a self,
        gateway: &'a Arc<Gateway>,
        context: &'a Arc<RunContext>,
    ) -> BoxFuture<'a, Vec<Arc<dyn Tool>>> {
        Box::pin(async move {
            let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
            let scopes = context.authority.scopes;
            let own = || (Arc::clone(gateway), Arc::clone(context));
            // Whoever may not do it himself does not get it through the agent (P-56).
            if scopes.grants(Scope::Read) {
                tools.push(Arc::new(sessions::SessionsTool::new(own())));
                tools.push(Arc::new(gateway_tool::GatewayTool::new(own())));
            }
            if scopes.grants(Scope::Write) {
                tools.push(Arc::new(nodes::NodesTool::new(own())));
                tools.push(Arc::new(message::MessageTool::new(own())));
            }
            if scopes.grants(Scope::Write) && context.authority.owner {
                tools.push(Arc::new(exec::ExecTool::new(own(), Arc::clone(&self.host))));
            }
            tools
        })
    }
}

/// An error of the gateway in words for a model.
fn told(error: &ErrorShape) -> openclaw_agent::tool::Answer {
    let detail = |key: &str| error.details.as_ref().and_then(|details| details.get(key));
    let code = detail("nodeError").and_then(|error| error.get("code")).and_then(serde_json::Value::as_str);
    // The node was asked, and nobody knows what it did.
    let unknown = detail("nodeCommandDispatched").is_some_and(|asked| asked == true)
        && matches!(code, Some("DISCONNECTED" | "TIMEOUT"));
    let more = if unknown { ". Whether it took effect is not known; find out before doing it again." } else { "" };
    openclaw_agent::tool::Answer::error(format!("{}{more}", error.message))
}
