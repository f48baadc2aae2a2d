//! Which calls may be sent a second time when the connection is lost before their answer came.

use serde_json::Value;

/// Methods that only read (methods notes: scope `operator.read` and nothing changed), waiting for a run, and the
/// subscriptions, which a second time change nothing.
const READS: &[&str] = &[
    "agent.identity.get",
    "agent.wait",
    "agents.list",
    "artifacts.list",
    "board.get",
    "channels.status",
    "chat.history",
    "chat.metadata",
    "chat.startup",
    "commands.list",
    "config.get",
    "config.schema",
    "config.schema.lookup",
    "cron.list",
    "cron.runs",
    "cron.status",
    "device.pair.list",
    "environments.list",
    "events.resume",
    "exec.approval.get",
    "exec.approval.list",
    "exec.approvals.get",
    "gateway.identity.get",
    "health",
    "last-heartbeat",
    "logs.tail",
    "models.authStatus",
    "models.list",
    "node.describe",
    "node.list",
    "node.pair.list",
    "plugins.list",
    "projects.list",
    "sessions.describe",
    "sessions.groups.list",
    "sessions.list",
    "sessions.messages.subscribe",
    "sessions.messages.unsubscribe",
    "sessions.preview",
    "sessions.search",
    "sessions.subscribe",
    "sessions.unsubscribe",
    "sessions.usage",
    "skills.status",
    "status",
    "system-presence",
    "system.info",
    "tasks.list",
    "tools.catalog",
    "usage.cost",
    "usage.status",
    "voicewake.get",
    "voicewake.routing.get",
    "worktrees.list",
];

/// True for a call that does no more the second time than the first: a read, or one that carries an `idempotencyKey`, by
/// which the gateway knows it again.
pub fn may_repeat(method: &str, params: Option<&Value>) -> bool {
    let keyed = params.and_then(|params| params.get("idempotencyKey")).and_then(Value::as_str);
    keyed.is_some_and(|key| !key.is_empty()) || READS.binary_search(&method).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_is_sorted() {
        assert!(READS.is_sorted());
    }

    #[test]
    fn reads_and_keyed_calls() {
        for (method, params, expected) in [
            ("health", Value::Null, true),
            ("logs.tail", json!({"cursor": 1}), true),
            ("node.invoke", json!({}), false),
            ("node.invoke", json!({"idempotencyKey": "k"}), true),
            ("node.invoke", json!({"idempotencyKey": ""}), false),
            ("node.invoke", json!({"idempotencyKey": 1}), false),
            ("device.pair.approve", json!({"requestId": "r"}), false),
            ("config.set", Value::Null, false),
            ("plugin.anything.get", Value::Null, false),
        ] {
            assert_eq!(may_repeat(method, Some(&params)), expected, "{method} {params}");
        }
        assert!(may_repeat("status", None));
    }
}
