//! The policy document of this machine, the gateway's host or a node.

use std::{fs, io::Read as _, time::Duration};

use openclaw_config::exec_approvals::{self, ApprovalsError, ExecApprovals};
use openclaw_protocol::method::{
    exec::{AllowlistEntry, ApprovalsFile, ApprovalsSnapshot, ExecPolicy},
    node::Nodes,
};
use openclaw_remote::{
    connect::{DeviceUse, Persona},
    route::Link,
};
use serde_json::{Value, json};

use super::{
    Host, Pattern, Set,
    pending::{call, reach},
    show,
};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert, time},
    reach::{Reach, block_on},
};

/// Longest document, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// A node may have to be woken up.
const NODE_TIMEOUT: Duration = Duration::from_secs(35);

/// A document in hand, and where it goes back to.
struct Held<'a> {
    snapshot: ApprovalsSnapshot,
    host: String,
    place: Place<'a>,
}

enum Place<'a> {
    Here(ExecApprovals),
    There { reach: Reach<'a>, link: Link, node: Option<String> },
}

fn failed(error: &ApprovalsError) -> Failure {
    let failure = Failure::new(format!("{}.", crate::failure::capitalised(&inert(&error.to_string()))));
    match error {
        ApprovalsError::Changed | ApprovalsError::HashRequired => failure.detail("Nothing was written; try again."),
        ApprovalsError::Invalid(_) => failure
            .detail("Nothing was written. Until it is usable, no command is allowed to run.")
            .remedy("replace it whole", "openclaw approvals set --file <FILE>"),
        ApprovalsError::File(_) => failure,
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(format!("The answer is not an approvals document: {}.", inert(&error.to_string())))
        .detail("A node with a policy of its own can be read with --json only.")
}

/// Fetches the document; the raw answer first, because a node may have a policy of another shape.
async fn fetch<'a>(context: &'a Context, host: &Host) -> Result<(Value, Host, Option<Place<'a>>, String), Failure> {
    if host.node.is_none() && !host.gateway {
        let store = ExecApprovals::new(&context.paths);
        let loaded = store.load().map_err(|error| failed(&error))?;
        if let Some(reason) = &loaded.damaged {
            let path = inert(&loaded.path.display().to_string()).into_owned();
            output::note(format!("{path} is not usable ({}): until it is, no command is allowed.", inert(reason)));
        }
        let raw = serde_json::to_value(loaded.snapshot()).map_err(|error| unreadable(&error))?;
        return Ok((raw, host.clone(), Some(Place::Here(store)), "this machine".into()));
    }
    let reach = reach(context, &host.at)?;
    let opened = reach.open(Persona::Cli, &["operator.admin", "operator.read"], DeviceUse::WhenNeeded).await;
    let link = opened.map_err(|error| reach.failure(&error))?;
    let (raw, node, name) = match &host.node {
        None => (call(&reach, &link, "exec.approvals.get", json!({})).await?, None, "gateway".to_owned()),
        Some(typed) => {
            let nodes: Nodes = serde_json::from_value(call(&reach, &link, "node.list", json!({})).await?)
                .map_err(|error| unreadable(&error))?;
            let (id, name) = find_node(&nodes, typed.trim())?;
            let params = json!({"nodeId": id});
            let answer = link.call("exec.approvals.node.get", Some(params), NODE_TIMEOUT).await;
            (answer.map_err(|error| reach.failure(&error))?, Some(id), format!("node {name}"))
        }
    };
    Ok((raw, host.clone(), Some(Place::There { reach, link, node }), name))
}

async fn hold<'a>(context: &'a Context, host: &Host) -> Result<Held<'a>, Failure> {
    let (raw, _, place, name) = fetch(context, host).await?;
    let snapshot = serde_json::from_value(raw).map_err(|error| unreadable(&error))?;
    let place = place.ok_or_else(|| Failure::new("there is no document"))?;
    Ok(Held { snapshot, host: name, place })
}

impl Held<'_> {
    /// Writes `file` in place of what was read; nothing, when somebody else wrote meanwhile.
    async fn write(&self, file: ApprovalsFile) -> Result<ApprovalsSnapshot, Failure> {
        let hash = self.snapshot.hash.as_str();
        match &self.place {
            Place::Here(store) => {
                let loaded = store.replace(file, Some(hash)).map_err(|error| failed(&error))?;
                Ok(loaded.snapshot())
            }
            Place::There { reach, link, node } => {
                let answer = match node {
                    None => call(reach, link, "exec.approvals.set", json!({"file": file, "baseHash": hash})).await?,
                    Some(id) => {
                        let params = json!({"nodeId": id, "file": file, "baseHash": hash});
                        let answer = link.call("exec.approvals.node.set", Some(params), NODE_TIMEOUT).await;
                        answer.map_err(|error| reach.failure(&error))?
                    }
                };
                serde_json::from_value(answer).map_err(|error| unreadable(&error))
            }
        }
    }

    async fn close(self) {
        if let Place::There { link, .. } = self.place {
            link.close().await;
        }
    }
}

/// A node by id, the start of it, name or address.
fn find_node(nodes: &Nodes, typed: &str) -> Result<(String, String), Failure> {
    let name = |node: &openclaw_protocol::method::node::Node| {
        inert(node.display_name.as_deref().unwrap_or(&node.node_id)).into_owned()
    };
    let same = |text: &Option<String>| text.as_deref().is_some_and(|text| text.eq_ignore_ascii_case(typed));
    let exact = |node: &&openclaw_protocol::method::node::Node| {
        node.node_id == typed || same(&node.display_name) || same(&node.remote_ip)
    };
    let mut found: Vec<_> = nodes.nodes.iter().filter(exact).collect();
    if found.is_empty() && typed.len() >= 4 {
        found = nodes.nodes.iter().filter(|node| node.node_id.starts_with(&typed.to_lowercase())).collect();
    }
    match found[..] {
        [only] => Ok((only.node_id.clone(), name(only))),
        [] => {
            let known: Vec<String> = nodes.nodes.iter().map(name).collect();
            let known =
                if known.is_empty() { "No node is paired.".into() } else { format!("Nodes: {}.", known.join(", ")) };
            Err(Failure::new(format!("There is no node \"{}\".", inert(typed))).detail(known))
        }
        _ => Err(Failure::new(format!("\"{}\" means more than one node.", inert(typed))).detail("Give its id.")),
    }
}

pub fn get(context: &Context, host: &Host) -> Outcome {
    let (raw, name) = block_on(async {
        let (raw, _, place, name) = fetch(context, host).await?;
        if let Some(Place::There { link, .. }) = place {
            link.close().await;
        }
        Ok::<_, Failure>((raw, name))
    })?;
    if host.at.json {
        output::json(&raw);
        return Ok(0);
    }
    let snapshot = serde_json::from_value(raw).map_err(|error| unreadable(&error))?;
    output::print(&show::document(context.output.out, &snapshot, &name, time::now_ms()));
    Ok(0)
}

pub fn set(context: &Context, args: &Set) -> Outcome {
    let text = match &args.file {
        Some(path) => fs::File::open(path).and_then(|file| read_limited(file)),
        None => read_limited(std::io::stdin().lock()),
    };
    let text = text.map_err(|error| Failure::new(format!("The document cannot be read: {error}.")))?;
    let file = exec_approvals::parse(&text).map_err(|error| failed(&error))?;
    let written = block_on(async {
        let held = hold(context, &args.host).await?;
        let written = held.write(file).await?;
        let name = held.host.clone();
        held.close().await;
        Ok::<_, Failure>((written, name))
    })?;
    told(context, &args.host, &written.0, &written.1)
}

fn read_limited(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn told(context: &Context, host: &Host, snapshot: &ApprovalsSnapshot, name: &str) -> Outcome {
    if host.at.json {
        output::json(snapshot);
    } else {
        output::print(&show::document(context.output.out, snapshot, name, time::now_ms()));
    }
    Ok(0)
}

pub fn add(context: &Context, args: &Pattern) -> Outcome {
    change(context, args, "Already on the allow-list.", |list, pattern| {
        if list.iter().any(|entry| entry.pattern.trim() == pattern) {
            return false;
        }
        let now = Some(time::now_ms().into());
        list.push(AllowlistEntry { pattern: pattern.to_owned(), last_used_at: now, ..AllowlistEntry::default() });
        true
    })
}

pub fn remove(context: &Context, args: &Pattern) -> Outcome {
    change(context, args, "Pattern not found.", |list, pattern| {
        let before = list.len();
        list.retain(|entry| entry.pattern.trim() != pattern);
        list.len() != before
    })
}

fn change(
    context: &Context,
    args: &Pattern,
    unchanged: &str,
    edit: impl Fn(&mut Vec<AllowlistEntry>, &str) -> bool,
) -> Outcome {
    let (pattern, agent) = (args.pattern.trim(), args.agent.trim());
    if pattern.is_empty() || agent.is_empty() {
        return Err(Failure::new("A pattern and an agent are needed, and neither may be blank."));
    }
    let (snapshot, name, changed) = block_on(async {
        let held = hold(context, &args.host).await?;
        let mut file = held.snapshot.file.clone();
        let agents = file.agents.get_or_insert_default();
        let mut entry = agents.remove(agent).unwrap_or_default();
        let mut list = entry.allowlist.take().unwrap_or_default();
        let changed = edit(&mut list, pattern);
        entry.allowlist = (!list.is_empty()).then_some(list);
        let blank = entry.policy == ExecPolicy::default() && entry.allowlist.is_none() && entry.more.is_empty();
        if !blank {
            agents.insert(agent.to_owned(), entry);
        }
        if agents.is_empty() {
            file.agents = None;
        }
        let snapshot = if changed { held.write(file).await? } else { held.snapshot.clone() };
        let name = held.host.clone();
        held.close().await;
        Ok::<_, Failure>((snapshot, name, changed))
    })?;
    if !changed && !args.host.at.json {
        output::line(unchanged);
        return Ok(0);
    }
    told(context, &args.host, &snapshot, &name)
}
