//! A server's tool as one of the agent's.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{
    result,
    server::{CallError, Server},
};
use crate::{
    tool::{Answer, Call, Effects, Tool, ToolSpec},
    untrusted,
};

/// Bytes of a description: it stands in every prompt.
const DESCRIPTION_BYTES: usize = 2_000;
/// Bytes of a schema; a tool with a larger one is not offered.
const SCHEMA_BYTES: usize = 32 << 10;

pub(super) struct McpTool {
    server: Weak<Server>,
    spec: ToolSpec,
    /// As the server calls it.
    given: String,
    effects: Effects,
    timeout: Duration,
}

/// What the model is told of it.
///
/// # Errors
/// Why it cannot be offered.
pub(super) fn spec(name: String, server: &str, given: &rmcp::model::Tool) -> Result<ToolSpec, &'static str> {
    let mut parameters = Value::Object((*given.input_schema).clone());
    if let Some(schema) = parameters.as_object_mut() {
        // Providers want an object with properties, also where there are none.
        schema.entry("type").or_insert_with(|| "object".into());
        schema.entry("properties").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    if parameters["type"] != "object" {
        return Err("its arguments are no object");
    }
    if parameters.to_string().len() > SCHEMA_BYTES {
        return Err("its schema is larger than 32 KiB");
    }
    let said = given.description.as_deref().or(given.title.as_deref()).unwrap_or_default();
    let server: String = server.chars().filter(|c| !c.is_control()).take(60).collect();
    let description = format!("[MCP server {server}] {}", untrusted::cut(said, DESCRIPTION_BYTES));
    Ok(ToolSpec { name, description, parameters })
}

impl McpTool {
    pub fn new(server: Weak<Server>, spec: ToolSpec, given: &rmcp::model::Tool) -> Self {
        // A hint, which decides what happens after a crash and not who may call.
        let reads = given.annotations.as_ref().and_then(|hints| hints.read_only_hint) == Some(true);
        let timeout = server.upgrade().map_or(Duration::from_secs(60), |server| server.request_timeout());
        Self {
            server,
            spec,
            given: given.name.to_string(),
            effects: if reads { Effects::None } else { Effects::Some },
            // The server's own time runs inside it, connecting included.
            timeout: timeout + Duration::from_secs(60),
        }
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl Tool for McpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        self.effects
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let Some(server) = self.server.upgrade() else {
                return Answer::error("The server of this tool is not configured any more. Nothing was done.");
            };
            let arguments = call.arguments.as_object().cloned().unwrap_or_default();
            match server.call(&self.given, arguments, &call.cancel, call.progress).await {
                Ok(result) => result::answer(result),
                Err(CallError::Away(why)) => {
                    Answer::error(format!("The server of this tool is not there: {why}. Nothing was done."))
                }
                Err(CallError::Refused(why)) => Answer::error(why),
                Err(CallError::Lost(why)) => Answer::error(format!(
                    "The server of this tool was lost: {why}. Whether the call took effect is not known."
                )),
                Err(CallError::Cancelled) => {
                    Answer::error("It was cancelled; the server was told. Whether it took effect is not known.")
                }
            }
        })
    }
}
