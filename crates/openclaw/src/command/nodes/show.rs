//! How nodes are shown. Every text in them was chosen by a node.

use openclaw_protocol::method::node::{HostStats, Node, NodeDescription, PairedNode, PendingNode};

use super::args::Listing;
use crate::output::{
    Style, Tone, inert,
    table::{self, Cell, Facts},
    time,
};

/// Commands in a line before the rest is counted.
const SHOWN_COMMANDS: usize = 6;

pub fn short(id: &str) -> String {
    inert(&id.chars().take(12).collect::<String>()).into_owned()
}

/// The name, with the start of the id.
pub fn name(display_name: Option<&str>, id: &str) -> String {
    match display_name.map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) => format!("{} ({})", inert(name), short(id)),
        None => short(id),
    }
}

pub fn commands(commands: &[String]) -> String {
    if commands.is_empty() {
        return "no commands".to_owned();
    }
    let shown: Vec<String> = commands.iter().take(SHOWN_COMMANDS).map(|command| inert(command).into_owned()).collect();
    match commands.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

pub fn undo(style: Style, command: &str) -> String {
    format!("\nUndo: {}", style.paint(Tone::Command, command))
}

/// Whether a listing wants it.
pub fn is_wanted(node: &Node, args: &Listing, now: i64) -> bool {
    let since = args.last_connected.map(|ms| now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    let last = node.last_connected_at_ms.or(node.connected_at_ms);
    (!args.connected || node.connected) && since.is_none_or(|since| last.is_some_and(|last| last >= since))
}

/// `Known: 2 · Paired: 2 · Connected: 1` and a line for each.
pub fn status(style: Style, nodes: &[&Node], now: i64) -> String {
    let count = |test: fn(&Node) -> bool| nodes.iter().filter(|node| test(node)).count();
    let (paired, connected) = (count(|node| node.paired), count(|node| node.connected));
    let mut text = format!(
        "{}\n",
        style.paint(
            Tone::Title,
            &format!("Known: {} · Paired: {paired} · Connected: {connected}", nodes.len()).replace(" · ", style.dot())
        )
    );
    if nodes.is_empty() {
        return text;
    }
    let rows: Vec<Vec<Cell>> = nodes
        .iter()
        .map(|node| {
            let state = match (node.connected, node.paired) {
                (true, _) => Cell::toned(Tone::Good, if style.unicode() { "● connected" } else { "connected" }),
                (false, true) => Cell::from(seen(node, now)),
                (false, false) => Cell::toned(Tone::Dim, "not paired"),
            };
            vec![
                Cell::from(inert(node.display_name.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(short(&node.node_id)),
                state,
                Cell::from(inert(node.platform.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(inert(node.version.as_deref().unwrap_or("-")).into_owned()),
                offers(node),
                Cell::from(node.host_stats.as_ref().map(stats).unwrap_or_default()),
            ]
        })
        .collect();
    text.push_str(&table::columns(style, &["name", "node", "state", "platform", "version", "commands", ""], &rows));
    if let Some(waiting) = nodes.iter().find_map(|node| node.pending_request_id.as_deref()) {
        let command = style.paint(Tone::Command, &format!("openclaw nodes approve {}", inert(waiting)));
        text.push_str(&format!("\nWaits for your approval: {command}\n"));
    }
    text
}

fn seen(node: &Node, now: i64) -> String {
    let last = node.last_seen_at_ms.or(node.last_connected_at_ms);
    last.map_or_else(|| "never seen".to_owned(), |at| format!("seen {}", time::ago(at, now)))
}

fn offers(node: &Node) -> Cell {
    let pending = node.approval_state == "pending-approval" || node.pending_request_id.is_some();
    match (node.commands.len(), pending) {
        (0, true) => Cell::toned(Tone::Warn, "waits for approval"),
        (count, true) => Cell::toned(Tone::Warn, format!("{count}, more wait for approval")),
        (count, false) => Cell::from(count.to_string()),
    }
}

/// `load 3.2/24 · mem 151/192 GB · disk 1.2 TB free`, as the reference has it.
fn stats(stats: &HostStats) -> String {
    let load = stats.load_average.first();
    let load = load.map(|load| format!("load {load:.1}/{}", stats.cpu_count));
    let used = stats.memory_total_bytes.saturating_sub(stats.memory_free_bytes);
    let memory = Some(format!("mem {}/{}", gigabytes(used), size(stats.memory_total_bytes)));
    let disk = stats.disk_available_bytes.map(|bytes| format!("disk {} free", size(bytes)));
    [load, memory, disk].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Binary scaling, decimal names: the reference's way.
fn size(bytes: u64) -> String {
    const GIB: f64 = 1_073_741_824.0;
    let gib = bytes as f64 / GIB;
    if gib >= 1024.0 { format!("{:.1} TB", gib / 1024.0) } else { format!("{} GB", gigabytes(bytes)) }
}

fn gigabytes(bytes: u64) -> String {
    let gib = bytes as f64 / 1_073_741_824.0;
    if gib < 10.0 { format!("{gib:.1}") } else { format!("{gib:.0}") }
}

pub fn pending(style: Style, pending: &[PendingNode], now: i64) -> String {
    if pending.is_empty() {
        return "No pending node requests.\n".to_owned();
    }
    let mut text = format!("{}\n", style.paint(Tone::Title, &format!("Pending ({})", pending.len())));
    for request in pending {
        let mut facts = Facts::new();
        facts
            .row("Request", inert(&request.request_id).into_owned())
            .row("Node", name(request.display_name.as_deref(), &request.node_id))
            .maybe("Platform", request.platform.as_deref().map(|text| inert(text).into_owned()))
            .row("Offers", all(&request.commands))
            .row("Asked", time::ago(request.ts, now));
        if request.required_approve_scopes.iter().any(|scope| scope == "operator.admin") {
            facts.row("Note", Cell::toned(Tone::Warn, "it could run programs or read files on that machine"));
        }
        facts.row(
            "Approve",
            Cell::toned(Tone::Command, format!("openclaw nodes approve {}", inert(&request.request_id))),
        );
        text.push_str(&facts.render(style));
        text.push('\n');
    }
    text
}

fn all(commands: &[String]) -> String {
    if commands.is_empty() {
        return "nothing".to_owned();
    }
    let commands: Vec<String> = commands.iter().map(|command| inert(command).into_owned()).collect();
    commands.chunks(4).map(|line| line.join(", ")).collect::<Vec<_>>().join(",\n")
}

pub fn list(style: Style, waiting: &[PendingNode], paired: &[&PairedNode], nodes: &[Node], now: i64) -> String {
    let mut text = String::new();
    if !waiting.is_empty() {
        text.push_str(&pending(style, waiting, now));
    }
    text.push_str(&format!("{}\n", style.paint(Tone::Title, &format!("Paired ({})", paired.len()))));
    if paired.is_empty() {
        return text;
    }
    let rows: Vec<Vec<Cell>> = paired
        .iter()
        .map(|node| {
            let live = nodes.iter().find(|known| known.node_id == node.node_id);
            let last = match live {
                Some(live) if live.connected => Cell::toned(Tone::Good, "now"),
                Some(live) => live.last_connected_at_ms.map_or_else(|| "-".to_owned(), |at| time::ago(at, now)).into(),
                None => Cell::toned(Tone::Dim, "-"),
            };
            vec![
                Cell::from(inert(node.display_name.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(short(&node.node_id)),
                last,
                Cell::from(commands(&node.commands)),
            ]
        })
        .collect();
    text.push_str(&table::columns(style, &["name", "node", "last connect", "commands"], &rows));
    text
}

pub fn describe(style: Style, description: &NodeDescription, now: i64) -> String {
    let node = &description.node;
    let text = |text: &Option<String>| text.as_deref().map(|text| inert(text).into_owned());
    let mut facts = Facts::new();
    facts
        .row("Name", inert(node.display_name.as_deref().unwrap_or("-")).into_owned())
        .row("Node", inert(&node.node_id).into_owned())
        .row("State", if node.connected { "connected".to_owned() } else { seen(node, now) })
        .maybe("Platform", text(&node.platform))
        .maybe("Model", text(&node.model_identifier))
        .maybe("Version", text(&node.version))
        .maybe("Address", text(&node.remote_ip))
        .maybe("Stats", node.host_stats.as_ref().map(stats))
        .maybe("PATH", text(&node.path_env))
        .row("Capabilities", all(&node.caps))
        .row("Commands", all(&node.commands));
    if let Some(waiting) = &node.pending_declared_commands {
        facts.row("Waiting", all(waiting));
    }
    if let Some(request) = &node.pending_request_id {
        facts.row("Approve", Cell::toned(Tone::Command, format!("openclaw nodes approve {}", inert(request))));
    }
    facts.render(style)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> Vec<Node> {
        serde_json::from_value(json!([
            {"nodeId": "aabbccddeeff0011", "displayName": "Build\u{1b}[2J", "platform": "linux", "version": "1",
             "commands": ["system.which"], "paired": true, "connected": true, "approvalState": "approved",
             "hostStats": {"cpuCount": 24, "loadAverage": [3.21, 1.0, 1.0], "memoryTotalBytes": 206_158_430_208_u64,
                           "memoryFreeBytes": 44_023_414_784_u64, "diskTotalBytes": 4_000_000_000_000_u64,
                           "diskAvailableBytes": 1_319_413_953_331_u64, "updatedAtMs": 1}},
            {"nodeId": "112233445566", "paired": true, "connected": false, "approvalState": "pending-approval",
             "pendingRequestId": "r-1", "lastSeenAtMs": 0}
        ]))
        .expect("nodes")
    }

    #[test]
    fn the_status_counts_and_warns() {
        let nodes = nodes();
        let text = status(Style::plain(), &nodes.iter().collect::<Vec<_>>(), 600_000);
        assert!(text.starts_with("Known: 2, Paired: 2, Connected: 1\n"), "{text}");
        assert!(text.contains("load 3.2/24, mem 151/192 GB, disk 1.2 TB free"), "{text}");
        assert!(text.contains("waits for approval") && text.contains("openclaw nodes approve r-1"), "{text}");
        assert!(!text.contains('\u{1b}'), "a node's name is inert");
        assert_eq!(status(Style::plain(), &[], 0), "Known: 0, Paired: 0, Connected: 0\n");
    }

    #[test]
    fn filters() {
        let nodes = nodes();
        let args = |connected, last_connected| Listing { connected, last_connected, at: Default::default() };
        let kept = |args: &Listing| nodes.iter().filter(|node| is_wanted(node, args, 600_000)).count();
        assert_eq!((kept(&args(false, None)), kept(&args(true, None)), kept(&args(false, Some(1000)))), (2, 1, 0));
    }

    #[test]
    fn a_request_is_shown_with_what_it_offers_and_how_to_approve_it() {
        let request: PendingNode = serde_json::from_value(json!({
            "requestId": "69a62405", "nodeId": "aabbccddeeff", "displayName": "Node A", "platform": "linux",
            "commands": ["system.run", "system.which"], "requiredApproveScopes": ["operator.pairing", "operator.admin"],
            "ts": 0
        }))
        .expect("a request");
        let text = pending(Style::plain(), &[request], 60_000);
        for part in
            ["69a62405", "Node A (aabbccddeeff)", "system.run, system.which", "run programs", "nodes approve 69a62405"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
