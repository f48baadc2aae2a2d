//! What nodes report: events, skills, tools, their inventory. Reports are claims of a machine somebody paired; none of
//! them is a right, and none of them reaches further than the list of nodes and its events.

use openclaw_protocol::{
    ErrorShape,
    method::node::{
        HostStats, McpTool, NodeEventParams, NodeEventResult, NodePluginTool, NodePluginTools, NodePresence, NodeSkill,
        NodeSkills, SkillName,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    live::{Activity, LiveNode},
    policy::Platform,
    talk::{Follow, Transcript, Wish},
};

/// Bounds of the published schema (`NodeSkillsUpdateParams`).
const MAX_SKILLS: usize = 64;
const MAX_SKILL_NAME: usize = 64;
const MAX_SKILL_DESCRIPTION: usize = 1024;
const MAX_SKILL_CONTENT: usize = 65_536;
/// The schema bounds only names; these keep a node from filling our memory.
const MAX_TOOLS: usize = 128;
const MAX_TOOL_NAME: usize = 64;
const MAX_TOOLS_BYTES: usize = 512 * 1024;
/// 30 days (published schema, `NodePresenceActivityPayload`).
const MAX_IDLE_SECONDS: i64 = 30 * 24 * 60 * 60;

/// What a `node.event` changed.
#[derive(Debug)]
pub enum Heard {
    /// Nobody here has use for it; with the reason.
    Unhandled(&'static str),
    HostStats(HostStats),
    /// The node is awake; with its trigger.
    Alive(&'static str),
    /// Somebody used the machine this many seconds ago.
    Active {
        idle_seconds: i64,
    },
    /// Nobody can be seen using it any more.
    ActivityCleared,
    /// Something for the agent.
    Wish(Wish),
    /// It wants to hear a conversation, or no longer.
    Follow(Follow),
}

#[derive(Deserialize)]
struct AlivePayload {
    trigger: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActivityPayload {
    idle_seconds: Option<i64>,
    action: Option<String>,
}

const ALIVE_TRIGGERS: [&str; 6] =
    ["background", "silent_push", "bg_app_refresh", "significant_location", "manual", "connect"];

/// Reads an event. Whatever is not in here has no effect at all, whoever sends it (P-61).
///
/// # Errors
/// `INVALID_REQUEST` when the payload of a known event makes no sense.
pub fn hear(params: &NodeEventParams) -> Result<Heard, ErrorShape> {
    Ok(match params.event.as_str() {
        "node.host.stats" => {
            let mut stats: HostStats = payload(params)?;
            stats.load_average.truncate(3);
            Heard::HostStats(stats)
        }
        "node.presence.alive" => {
            let alive: AlivePayload = payload(params)?;
            let known = ALIVE_TRIGGERS.into_iter().find(|trigger| *trigger == alive.trigger);
            Heard::Alive(
                known.ok_or_else(|| bad_payload(params, "at /trigger: must be equal to one of the allowed values"))?,
            )
        }
        "node.presence.activity" => {
            let activity: ActivityPayload = payload(params)?;
            match (activity.idle_seconds, activity.action.as_deref()) {
                (Some(idle_seconds), _) if (0..=MAX_IDLE_SECONDS).contains(&idle_seconds) => {
                    Heard::Active { idle_seconds }
                }
                (None, Some("clear")) => Heard::ActivityCleared,
                _ => return Err(bad_payload(params, "must have idleSeconds from 0 to 2592000, or action 'clear'")),
            }
        }
        "exec.started" | "exec.finished" | "exec.denied" => Heard::Unhandled("unmatched_exec_event"),
        "voice.transcript" => match Transcript::read(&payload::<Value>(params)?) {
            Some(said) => Heard::Wish(Wish::Transcript(said)),
            None => Heard::Unhandled("invalid_payload"),
        },
        "agent.request" => Heard::Wish(Wish::Request(payload(params)?)),
        "chat.subscribe" | "chat.unsubscribe" => Heard::Follow(payload(params)?),
        _ => Heard::Unhandled("unsupported_event"),
    })
}

/// Takes note of an activity report. `None` when this node's reports do not count: only Macs whose owner granted them
/// accessibility see real input.
pub fn note_activity(
    node: &LiveNode,
    accessible: bool,
    now_ms: i64,
    idle_seconds: Option<i64>,
) -> Option<NodePresence> {
    if node.platform != Platform::MacOs || (idle_seconds.is_some() && !accessible) {
        return None;
    }
    // Our clock, not the node's.
    let activity = idle_seconds.map(|idle| Activity { last_active_at_ms: now_ms - idle * 1000, updated_at_ms: now_ms });
    node.reports(|reports| reports.activity = activity);
    Some(NodePresence {
        node_id: node.id.to_string(),
        last_active_at_ms: activity.map(|activity| activity.last_active_at_ms),
        presence_updated_at_ms: now_ms,
    })
}

/// The answer to a `node.event`.
pub fn event_result(event: &str, handled: bool, reason: Option<&str>) -> NodeEventResult {
    let event = event.chars().take(128).collect();
    NodeEventResult { ok: true, event, handled, reason: reason.map(str::to_owned) }
}

fn payload<T: DeserializeOwned>(params: &NodeEventParams) -> Result<T, ErrorShape> {
    let text = match (&params.payload_json, &params.payload) {
        (Some(text), _) => text.as_str(),
        (None, Some(raw)) => raw.get(),
        (None, None) => "{}",
    };
    serde_json::from_str(text)
        .map_err(|error| ErrorShape::invalid_params(&format!("node.event {}", params.event), &error))
}

fn bad_payload(params: &NodeEventParams, problem: &str) -> ErrorShape {
    ErrorShape::invalid(format!("invalid node.event {} params: {problem}", params.event))
}

/// Replaces the skills of a node. Returns their names.
///
/// # Errors
/// `INVALID_REQUEST` naming the first one that breaks the schema; the old ones stay.
pub fn replace_skills(node: &LiveNode, update: NodeSkills) -> Result<Vec<SkillName>, ErrorShape> {
    let problem =
        |at: String, what: &str| ErrorShape::invalid(format!("invalid node.skills.update params: at {at}: {what}"));
    if update.skills.len() > MAX_SKILLS {
        return Err(problem("/skills".into(), "must NOT have more than 64 items"));
    }
    for (n, skill) in update.skills.iter().enumerate() {
        let at = |field: &str| format!("/skills/{n}/{field}");
        let NodeSkill { name, description, content } = skill;
        if !is_skill_name(name) {
            return Err(problem(at("name"), "must be 1 to 64 of a-z, 0-9 and single hyphens between them"));
        }
        if !(1..=MAX_SKILL_DESCRIPTION).contains(&description.chars().count()) {
            return Err(problem(at("description"), "must have 1 to 1024 characters"));
        }
        if !(1..=MAX_SKILL_CONTENT).contains(&content.chars().count()) {
            return Err(problem(at("content"), "must have 1 to 65536 characters"));
        }
    }
    let names = update.skills.iter();
    let names = names.map(|s| SkillName { name: s.name.clone(), description: s.description.clone() }).collect();
    node.reports(|reports| reports.skills = update.skills);
    Ok(names)
}

fn is_skill_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=MAX_SKILL_NAME).contains(&name.len())
        && name.chars().all(|c| edge(c) || c == '-')
        && name.starts_with(edge)
        && name.ends_with(edge)
        && !name.contains("--")
}

/// Replaces the tools of a node.
///
/// # Errors
/// `INVALID_REQUEST` naming the first one that breaks the schema or the bounds; the old ones stay.
pub fn replace_tools(node: &LiveNode, update: NodePluginTools) -> Result<Vec<NodePluginTool>, ErrorShape> {
    let problem = |at: String, what: &str| {
        ErrorShape::invalid(format!("invalid node.pluginTools.update params: at {at}: {what}"))
    };
    if update.tools.len() > MAX_TOOLS {
        return Err(problem("/tools".into(), "must NOT have more than 128 items"));
    }
    let size = serde_json::to_vec(&update.tools).map_or(usize::MAX, |bytes| bytes.len());
    if size > MAX_TOOLS_BYTES {
        return Err(problem("/tools".into(), "must NOT be larger than 512 KiB"));
    }
    for (n, tool) in update.tools.iter().enumerate() {
        let at = |field: &str| format!("/tools/{n}/{field}");
        if !is_tool_name(&tool.name) {
            return Err(problem(at("name"), "must be a letter and up to 63 letters, digits, _ or -"));
        }
        if tool.plugin_id.is_empty() || tool.description.is_empty() {
            return Err(problem(at("description"), "pluginId and description must NOT be empty"));
        }
        if tool.parameters.as_ref().is_some_and(|schema| !schema.is_object()) {
            return Err(problem(at("parameters"), "must be object"));
        }
        if tool.mcp.as_ref().is_some_and(|McpTool { server, tool }| server.is_empty() || tool.is_empty()) {
            return Err(problem(at("mcp"), "server and tool must NOT be empty"));
        }
    }
    node.reports(|reports| reports.plugin_tools.clone_from(&update.tools));
    Ok(update.tools)
}

fn is_tool_name(name: &str) -> bool {
    name.len() <= MAX_TOOL_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The command a tool runs through; it can be offered only while that command may run.
pub fn command_of(tool: &NodePluginTool) -> Option<&str> {
    tool.command.as_deref().or(tool.mcp.as_ref().map(|_| "mcp.tools.call.v1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, payload: serde_json::Value) -> NodeEventParams {
        NodeEventParams { event: name.into(), payload: None, payload_json: Some(payload.to_string()) }
    }

    /// The first payload is what a real node host sends (`node-run-pair-invoke`).
    #[test]
    fn events_that_count() {
        let stats = event(
            "node.host.stats",
            json!({
                "cpuCount": 2, "loadAverage": [6.5, 4.66, 2.79], "memoryTotalBytes": 25276502016_u64,
                "memoryFreeBytes": 13904257024_u64, "diskTotalBytes": 270553174016_u64,
                "diskAvailableBytes": 77044060160_u64
            }),
        );
        let Ok(Heard::HostStats(stats)) = hear(&stats) else { panic!("host stats") };
        assert_eq!((stats.cpu_count, stats.disk_available_bytes), (2, Some(77044060160)));
        let check = |name: &str, payload: serde_json::Value, expected: &str| {
            assert_eq!(format!("{:?}", hear(&event(name, payload)).expect("heard")), expected);
        };
        check("node.presence.alive", json!({"trigger": "manual"}), "Alive(\"manual\")");
        check("node.presence.activity", json!({"idleSeconds": 5}), "Active { idle_seconds: 5 }");
        check("node.presence.activity", json!({"action": "clear"}), "ActivityCleared");
        for bad in [json!({"trigger": "evil"}), json!({}), json!([])] {
            assert!(hear(&event("node.presence.alive", bad)).is_err());
        }
        for bad in [json!({"idleSeconds": -1}), json!({"idleSeconds": 2_592_001}), json!({}), json!({"action": "x"})] {
            assert!(hear(&event("node.presence.activity", bad)).is_err());
        }
    }

    /// Reasons of release 2026.9.6 for the first two rows (`pairing-node-events`).
    #[test]
    fn p_61_events_that_have_no_effect() {
        let rows = [
            ("exec.finished", "unmatched_exec_event"),
            ("bogus.event", "unsupported_event"),
            ("exec.approval.resolved", "unsupported_event"),
            ("node.pair.resolved", "unsupported_event"),
            ("device.pair.resolved", "unsupported_event"),
            ("voice.transcript", "invalid_payload"),
            ("notifications.changed", "unsupported_event"),
            ("shutdown", "unsupported_event"),
        ];
        for (name, reason) in rows {
            let heard = hear(&event(name, json!({"runId": "r"}))).expect("heard");
            assert!(matches!(heard, Heard::Unhandled(why) if why == reason), "{name}: {heard:?}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "git-hub", "x1", &"a".repeat(64)] {
            assert!(is_skill_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a/b", "..", &"a".repeat(65)] {
            assert!(!is_skill_name(bad), "{bad}");
        }
        assert!(is_tool_name("readFile_2") && !is_tool_name("2x") && !is_tool_name("") && !is_tool_name("a.b"));
    }
}
