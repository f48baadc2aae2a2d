//! Which node, which request: found by what a person would type.

use openclaw_protocol::method::node::{Node, PendingNode};

use super::show;
use crate::{failure::Failure, output::inert};

/// Shortest accepted abbreviation of an id; the reference's number for nodes.
const MIN_NODE_PREFIX: usize = 6;
const MIN_REQUEST_PREFIX: usize = 4;

/// A node and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    pub id: String,
    pub name: String,
    pub linux: bool,
}

/// By id, address, name (letters and digits count), or the start of an id. Within the strongest kind of match a
/// connected node comes before others.
pub fn node(nodes: &[Node], typed: &str) -> Result<Picked, Failure> {
    let typed = typed.trim();
    let plain =
        |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect() };
    let name = |node: &Node| node.display_name.as_deref().map(&plain).unwrap_or_default();
    type Test<'a> = &'a dyn Fn(&Node) -> bool;
    let tests: [Test<'_>; 4] = [
        &|node| node.node_id == typed,
        &|node| node.remote_ip.as_deref() == Some(typed),
        &|node| !plain(typed).is_empty() && name(node) == plain(typed),
        &|node| typed.len() >= MIN_NODE_PREFIX && node.node_id.starts_with(&typed.to_ascii_lowercase()),
    ];
    let mut found = tests.iter().map(|test| nodes.iter().filter(|node| test(node)).collect::<Vec<_>>());
    let found = found.find(|found| !found.is_empty()).unwrap_or_default();
    let here: Vec<&Node> = found.iter().copied().filter(|node| node.connected).collect();
    let picked = |node: &Node| Picked {
        id: node.node_id.clone(),
        name: show::name(node.display_name.as_deref(), &node.node_id),
        linux: node.platform.as_deref().is_some_and(|platform| platform.eq_ignore_ascii_case("linux")),
    };
    match (here.as_slice(), found.as_slice()) {
        ([only], _) | ([], [only]) => Ok(picked(only)),
        ([], []) => {
            let known: Vec<String> = nodes.iter().map(|node| picked(node).name).collect();
            let known =
                if known.is_empty() { "No node is known.".to_owned() } else { format!("Known: {}.", known.join(", ")) };
            Err(Failure::new(format!("unknown node: {}", inert(typed)))
                .detail(known)
                .remedy("see them", "openclaw nodes status"))
        }
        (several, _) => {
            let several = if several.is_empty() { &found } else { several };
            let ids: Vec<String> = several.iter().map(|node| show::short(&node.node_id)).collect();
            Err(Failure::new(format!("ambiguous node: {}", inert(typed)))
                .detail(format!("Give one of the ids: {}.", ids.join(", "))))
        }
    }
}

/// By id or the start of it; by the node that asks, if it is one.
pub fn request<'a>(pending: &'a [PendingNode], typed: &str) -> Result<&'a PendingNode, Failure> {
    let typed = typed.trim();
    if let Some(exact) = pending.iter().find(|request| request.request_id == typed) {
        return Ok(exact);
    }
    let of_node = |request: &&PendingNode| {
        let named = request.display_name.as_deref().is_some_and(|name| !typed.is_empty() && name.trim() == typed);
        named || (typed.len() >= MIN_NODE_PREFIX && request.node_id.starts_with(&typed.to_ascii_lowercase()))
    };
    let mut asking = pending.iter().filter(of_node);
    if let (Some(only), None) = (asking.next(), asking.next()) {
        return Ok(only);
    }
    let mut matching =
        pending.iter().filter(|request| typed.len() >= MIN_REQUEST_PREFIX && request.request_id.starts_with(typed));
    let list = "openclaw nodes pending";
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            Err(Failure::new(format!("\"{}\" is the start of more than one request id.", inert(typed)))
                .detail("Nothing was changed.")
                .remedy("see the ids", list))
        }
        (None, _) => Err(Failure::new(format!("There is no node request \"{}\".", inert(typed)))
            .detail("A device that only wants to connect is approved with openclaw devices approve.")
            .remedy("see what waits", list)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str, name: &str, ip: Option<&str>, connected: bool) -> Node {
        Node {
            node_id: id.to_owned(),
            display_name: Some(name.to_owned()),
            remote_ip: ip.map(str::to_owned),
            connected,
            ..Node::default()
        }
    }

    #[test]
    fn nodes_by_what_a_person_types() {
        let nodes = [
            known("aabbccddeeff", "Build Box", Some("10.0.0.2"), true),
            known("aabbcc112233", "Laptop", None, false),
            known("ffee00112233", "laptop", None, true),
            known("0011aabbccdd", "aabbccddeeff", None, false),
        ];
        let check = |typed: &str, expected: Result<&str, &str>| {
            let found = node(&nodes, typed).map(|picked| picked.id);
            match (&found, expected) {
                (Ok(id), Ok(expected)) => assert_eq!(id, expected, "{typed}"),
                (Err(failure), Err(part)) => {
                    assert!(failure.message().contains(part), "{typed}: {}", failure.message())
                }
                _ => panic!("{typed}: {found:?}"),
            }
        };
        check("aabbccddeeff", Ok("aabbccddeeff"));
        check("10.0.0.2", Ok("aabbccddeeff"));
        check("build-box", Ok("aabbccddeeff"));
        check("laptop", Ok("ffee00112233"));
        check("aabbccd", Ok("aabbccddeeff"));
        check("aabbcc1", Ok("aabbcc112233"));
        check("aabbc", Err("unknown node"));
        check("nobody", Err("unknown node"));
        check("", Err("unknown node"));
        let twins = [known("111111aa", "x", None, false), known("111111bb", "x", None, false)];
        assert!(node(&twins, "x").expect_err("two").message().contains("ambiguous"));
    }

    #[test]
    fn requests_may_be_abbreviated() {
        let pending = |id: &str, node: &str, name: &str| -> PendingNode {
            let request = serde_json::json!({"requestId": id, "nodeId": node, "displayName": name, "ts": 0});
            serde_json::from_value(request).expect("a request")
        };
        let list = [
            pending("8a98d942-36c2", "0123456789ab", "bench"),
            pending("8a98ffff-1111", "0123456700cd", "lab"),
            pending("77770000-1111", "ffffffffffff", "lab"),
        ];
        for (typed, id) in [
            ("8a98d", "8a98d942-36c2"),
            ("bench", "8a98d942-36c2"),
            ("0123456789", "8a98d942-36c2"),
            ("FFFFFF", "77770000-1111"),
        ] {
            assert_eq!(request(&list, typed).expect("one").request_id, id, "{typed}");
        }
        for wrong in ["8a98", "8a", "", "zzzz", "lab", "012345", "01234"] {
            assert!(request(&list, wrong).is_err(), "{wrong}");
        }
    }
}
