//! Many nodes: what each costs in memory, and how fast calls to all of them are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::{
    task::{JoinSet, spawn_local},
    time::sleep,
};

use crate::{
    client::{Conn, Identity, request},
    load::{NODE_COMMAND, Scale, Values, answer_invoke, paired_node, values},
    stats::rate,
    subject::{Kind, Running},
};

/// Nodes that pair at the same time; the reference refuses some when it is more than one.
const WORKERS: usize = 8;
/// Pairing one with the reference takes most of a second.
const REFERENCE_NODES: usize = 100;

/// Connects nodes to a fresh gateway, then calls them in turn.
pub async fn measure(gateway: &Running, scale: Scale) -> Result<Values> {
    let target = &gateway.target;
    let (count, workers) = match gateway.kind {
        Kind::Reference => (scale.nodes.min(REFERENCE_NODES), 1),
        Kind::Ours | Kind::Echo => (scale.nodes, WORKERS),
    };
    let mut operator = Conn::open(target, &Identity::backend()).await?;
    // The first node, and the first connects of operators, load code; that is no cost of a node.
    let mut ids = vec![connected(gateway, 0, &mut operator).await?];
    let mut opening = JoinSet::new();
    for _ in 0..workers {
        opening.spawn_local({
            let target = target.clone();
            async move { Conn::open(&target, &Identity::backend()).await }
        });
    }
    let mut operators = Vec::new();
    while let Some(opened) = opening.join_next().await {
        operators.push(opened??);
    }
    sleep(Duration::from_secs(3)).await;
    let before = gateway.process.usage();
    let shares: Vec<Vec<usize>> =
        (0..workers).map(|worker| (1..=count).filter(|seed| seed % workers == worker).collect()).collect();
    let joining = operators.iter_mut().zip(shares).map(async |(operator, seeds)| {
        let mut ids = Vec::new();
        for seed in seeds {
            ids.push(connected(gateway, seed, operator).await.with_context(|| format!("node {seed}"))?);
        }
        anyhow::Ok(ids)
    });
    for joined in futures_util::future::join_all(joining).await {
        ids.extend(joined?);
    }
    sleep(Duration::from_secs(3)).await;
    let after = gateway.process.usage();
    let memory = (after.pss_kib as f64 - before.pss_kib as f64) / count as f64;
    let tag = format!("{:?}", Instant::now());
    let frame = |part: &'static str| {
        let (ids, tag) = (&ids, &tag);
        move |i: usize| {
            let params = json!({ "nodeId": ids[i % ids.len()], "command": NODE_COMMAND, "params": {},
                                 "timeoutMs": 10_000, "idempotencyKey": format!("{part}-{tag}-{i}") });
            request(&i.to_string(), "node.invoke", &params)
        }
    };
    operator.pump(100, 4, frame("warm")).await?;
    let start = Instant::now();
    let (samples, _) = operator.pump(scale.invokes, 16, frame("round")).await?;
    let took = start.elapsed();
    let (list, _) = operator.pump(scale.connects / 10, 1, |i| request(&i.to_string(), "node.list", &json!({}))).await?;
    operator.close().await;
    let mut found =
        values([("nodes_invoke_p99", samples.quantile_ms(0.99)), ("nodes_list_p50", list.quantile_ms(0.5))]);
    found.extend([("node_memory", memory), ("nodes_invoke", rate(samples.len(), took))]);
    Ok(found)
}

/// Pairs a node, which answers calls from then on; its id.
async fn connected(gateway: &Running, seed: usize, operator: &mut Conn) -> Result<String> {
    let who = Identity::node(u16::try_from(seed)?, &[NODE_COMMAND]);
    let id = who.key.as_ref().map(|key| key.id().as_str().to_owned()).unwrap_or_default();
    let mut node = paired_node(&gateway.target, &who, &id, operator).await?;
    spawn_local(async move { while answer_invoke(&mut node).await.is_ok() {} });
    Ok(id)
}
