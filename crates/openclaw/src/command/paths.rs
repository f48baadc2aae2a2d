//! The paths of a target, each probed by itself, side by side.

use std::time::Duration;

use openclaw_config::connections::ConnectionName;
use openclaw_remote::{Deadline, Target, TargetError, path::GatewayPath};
use tokio::task::JoinSet;

use super::{
    chain::Chain,
    probe::{Depth, Probed, probe},
};
use crate::context::Context;

/// One path to one gateway, with the reference's ids.
pub struct Entry {
    pub id: String,
    pub label: String,
    /// The path for people.
    pub shown: String,
    /// The saved gateway it belongs to.
    pub name: Option<ConnectionName>,
    /// The other paths to the same gateway.
    pub siblings: Vec<GatewayPath>,
    /// Its route has exactly one path.
    pub target: Target,
}

impl Entry {
    pub fn path(&self) -> Option<&GatewayPath> {
        self.target.route.best()
    }

    pub fn chain(&self, probed: &Probed) -> Option<Chain> {
        self.path().map(|path| Chain::of(path, self.target.route.gateway.is_some(), probed))
    }
}

/// Probes all of them at once; the answers in the same order.
pub async fn probe_all(
    context: &Context,
    entries: Vec<Entry>,
    timeout: Duration,
    depth: Depth,
) -> Vec<(Entry, Probed)> {
    let mut tasks = JoinSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let paths = context.paths.clone();
        tasks.spawn(async move {
            let probed = probe(&entry.target, &paths, Deadline::after(timeout), depth).await;
            (index, entry, probed)
        });
    }
    let mut done: Vec<_> = tasks.join_all().await;
    done.sort_by_key(|(index, ..)| *index);
    done.into_iter().map(|(_, entry, probed)| (entry, probed)).collect()
}

/// One entry for each path of a target; none for a target that cannot be settled, which was told already.
pub fn each_path(id: &str, label: &str, make: impl Fn() -> Result<Target, TargetError>) -> Vec<Entry> {
    let count = make().map_or(0, |target| target.route.paths.len());
    let nth = |index: usize| {
        let mut target = make().ok()?;
        let path = target.route.paths.get(index)?.clone();
        let (id, label, shown) = match count {
            1 if target.route.name.is_none() => (id.to_owned(), label.to_owned(), target.shown()),
            1 => (id.to_owned(), label.to_owned(), path.shown()),
            _ => (format!("{id}:{}", path.kind()), format!("{label}, by {}", path.kind()), path.shown()),
        };
        let name = target.route.name.take();
        let mut siblings = std::mem::replace(&mut target.route.paths, vec![path]);
        siblings.remove(index);
        Some(Entry { id, label, shown, name, siblings, target })
    };
    (0..count).filter_map(nth).collect()
}
