//! The agent's own directory: tools that read, write, edit and list there, and nowhere else.

mod edit;
mod list;
mod read;
mod root;
#[cfg(test)]
mod tests;
mod write;

use std::{path::Path, sync::Arc};

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use root::{PathError, Root};

use crate::tool::{Answer, Call, Effects, Tool, ToolSpec};

/// `read`, `write`, `edit` and `list` on a directory, which `write` makes if it is not there.
pub fn tools(dir: &Path) -> Vec<Arc<dyn Tool>> {
    let root = Arc::new(Root::new(dir));
    [read::TOOL, write::TOOL, edit::TOOL, list::TOOL]
        .into_iter()
        .map(|kind| Arc::new(FileTool { spec: kind.spec(), kind, root: Arc::clone(&root) }) as Arc<dyn Tool>)
        .collect()
}

/// One of the four.
struct Kind {
    name: &'static str,
    description: &'static str,
    parameters: fn() -> Value,
    effects: Effects,
    untrusted: bool,
    run: fn(&Root, Value) -> Answer,
}

impl Kind {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            parameters: (self.parameters)(),
        }
    }
}

struct FileTool {
    spec: ToolSpec,
    kind: Kind,
    root: Arc<Root>,
}

impl Tool for FileTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        self.kind.effects
    }

    fn untrusted(&self) -> bool {
        self.kind.untrusted
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let (run, root) = (self.kind.run, Arc::clone(&self.root));
            tokio::task::spawn_blocking(move || run(&root, call.arguments))
                .await
                .unwrap_or_else(|error| Answer::error(format!("The tool failed inside: {error}")))
        })
    }
}

/// Reads a call's arguments.
fn arguments<T: DeserializeOwned>(arguments: Value) -> Result<T, Answer> {
    serde_json::from_value(arguments).map_err(|error| Answer::error(format!("The arguments do not fit: {error}")))
}

/// `{"type": "object", …}` of properties, the named ones required.
fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
