//! Load shapes against one running gateway. Each returns what it measured under the keys of [`crate::report::METRICS`].

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Conn, Identity, Target, event_payload, next_text, request},
    stats::{Samples, rate},
    subject::{Kind, Running},
};

/// Values by metric key.
pub type Values = Vec<(&'static str, f64)>;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub connects: usize,
    pub requests: usize,
    pub receivers: usize,
    pub broadcasts: usize,
    pub invokes: usize,
    pub idle: usize,
    pub nodes: usize,
    pub turns: usize,
    /// Tokens of a reply that is timed.
    pub tokens: usize,
    /// Conversations with a turn at the same time.
    pub crowd: usize,
    /// Stored conversations, of ten messages each.
    pub stored: usize,
    /// Seconds at rest before memory is read.
    pub settle: Duration,
}

impl Scale {
    pub const FULL: Self = Self {
        connects: 600,
        requests: 8_000,
        receivers: 200,
        broadcasts: 30,
        invokes: 2_000,
        idle: 1_000,
        nodes: 500,
        turns: 100,
        tokens: 600,
        crowd: 200,
        stored: 10_000,
        settle: Duration::from_secs(5),
    };
    /// Enough to see that everything works.
    pub const QUICK: Self = Self {
        connects: 48,
        requests: 480,
        receivers: 20,
        broadcasts: 5,
        invokes: 64,
        idle: 50,
        nodes: 10,
        turns: 4,
        tokens: 40,
        crowd: 8,
        stored: 100,
        settle: Duration::from_secs(1),
    };
}

/// A load shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    Handshake,
    ConnectsToken,
    ConnectsDevice,
    HealthSerial,
    HealthPipelined,
    HealthCrowd,
    Broadcast,
    Invoke,
}

impl Shape {
    pub const ALL: [Self; 8] = [
        Self::Handshake,
        Self::ConnectsToken,
        Self::ConnectsDevice,
        Self::HealthSerial,
        Self::HealthPipelined,
        Self::HealthCrowd,
        Self::Broadcast,
        Self::Invoke,
    ];

    pub async fn run(self, gateway: &Running, scale: Scale) -> Result<Values> {
        let target = &gateway.target;
        match self {
            Self::Handshake => {
                let (took, samples) = connects(target, &[Identity::backend()], scale.connects / 2).await?;
                ensure!(took > Duration::ZERO, "no time passed");
                Ok(values([("handshake_p50", samples.quantile_ms(0.5)), ("handshake_p99", samples.quantile_ms(0.99))]))
            }
            Self::ConnectsToken => {
                let (took, samples) = connects(target, &vec![Identity::backend(); 8], scale.connects).await?;
                Ok(vec![("connects_token", rate(samples.len(), took))])
            }
            Self::ConnectsDevice => {
                let devices: Vec<Identity> = (1..=8).map(Identity::device).collect();
                for device in &devices {
                    // Loopback and a proven token: paired without a question.
                    Conn::open(target, device).await?.close().await;
                }
                let (took, samples) = connects(target, &devices, scale.connects).await?;
                Ok(vec![("connects_device", rate(samples.len(), took))])
            }
            Self::HealthSerial => {
                let (took, samples) = health(target, 1, 1, scale.requests * 3 / 8).await?;
                ensure!(took > Duration::ZERO, "no time passed");
                Ok(values([("health_p50", samples.quantile_ms(0.5)), ("health_p99", samples.quantile_ms(0.99))]))
            }
            Self::HealthPipelined => {
                let before = gateway.process.usage();
                let (took, samples) = health(target, 1, 16, scale.requests * 5 / 8).await?;
                let cpu = gateway.process.usage().cpu_ns.saturating_sub(before.cpu_ns);
                let per_request = cpu as f64 / 1e3 / (samples.len() + WARMUP) as f64;
                Ok(vec![("health_16", rate(samples.len(), took)), ("health_cpu", per_request)])
            }
            Self::HealthCrowd => {
                let (took, samples) = health(target, 8, 16, scale.requests).await?;
                let mut found = values([("health_8x16_p99", samples.quantile_ms(0.99))]);
                found.push(("health_8x16", rate(samples.len(), took)));
                Ok(found)
            }
            Self::Broadcast => broadcast(target, scale.receivers, scale.broadcasts).await,
            Self::Invoke => {
                let (serial, per_second) = invoke(gateway.kind, target, scale.invokes).await?;
                let mut found =
                    values([("invoke_p50", serial.quantile_ms(0.5)), ("invoke_p99", serial.quantile_ms(0.99))]);
                found.push(("invoke_16", per_second));
                Ok(found)
            }
        }
    }
}

pub fn values<const N: usize>(found: [(&'static str, Option<f64>); N]) -> Values {
    found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Connects until `count` hellos were received, each identity by a worker of its own.
pub async fn connects(target: &Target, who: &[Identity], count: usize) -> Result<(Duration, Samples)> {
    let left = Rc::new(Cell::new(count));
    let mut workers = JoinSet::new();
    let start = Instant::now();
    for identity in who {
        let (target, identity, left) = (target.clone(), identity.clone(), Rc::clone(&left));
        workers.spawn_local(async move {
            let mut samples = Samples::default();
            while left.get() > 0 {
                left.set(left.get() - 1);
                let since = Instant::now();
                let conn = Conn::open(&target, &identity).await?;
                samples.push(since.elapsed());
                conn.close().await;
            }
            anyhow::Ok(samples)
        });
    }
    let mut all = Samples::default();
    while let Some(done) = workers.join_next().await {
        all.extend(done??);
    }
    Ok((start.elapsed(), all))
}

/// Requests that are not counted, on each measurement.
const WARMUP: usize = 500;

pub async fn health(target: &Target, connections: usize, depth: usize, count: usize) -> Result<(Duration, Samples)> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut conn = Conn::open(target, &Identity::backend()).await?;
        conn.pump(WARMUP / connections, depth, health_request).await?;
        open.push(conn);
    }
    let mut workers = JoinSet::new();
    let start = Instant::now();
    for mut conn in open {
        workers.spawn_local(async move {
            let (samples, _) = conn.pump(count / connections, depth, health_request).await?;
            anyhow::Ok((samples, conn))
        });
    }
    let mut all = Samples::default();
    let mut done = Vec::new();
    while let Some(finished) = workers.join_next().await {
        let (samples, conn) = finished??;
        all.extend(samples);
        done.push(conn);
    }
    let took = start.elapsed();
    for conn in done {
        conn.close().await;
    }
    Ok((took, all))
}

fn health_request(id: usize) -> String {
    request(&id.to_string(), "health", &json!({}))
}

/// Sizes of hello, health answer and presence event, for an echo that carries the same bytes.
pub async fn frame_sizes(target: &Target) -> Result<crate::echo::Sizes> {
    let mut conn = Conn::open(target, &Identity::backend()).await?;
    let hello_bytes = conn.hello_bytes;
    let (_, answer_bytes) = conn.pump(20, 1, health_request).await?;
    let seen = Rc::new(Seen::default());
    seen.expect("bench-size", 1);
    listen(target, &seen).await?;
    let (method, params) = trigger("bench-size");
    conn.call(method, params).await?;
    let _ = timeout(Duration::from_secs(5), seen.complete.notified()).await;
    let event_bytes = seen.bytes.get();
    ensure!(event_bytes > 0, "the gateway sent no presence event after system-event");
    Ok(crate::echo::Sizes { hello_bytes, answer_bytes, event_bytes })
}

/// What makes a gateway broadcast: a `presence` event to every operator, with the mark in it.
fn trigger(mark: &str) -> (&'static str, Value) {
    ("system-event", json!({ "text": mark, "instanceId": "bench", "mode": "backend" }))
}

/// Receivers of broadcasts note when each one came.
#[derive(Default)]
struct Seen {
    mark: RefCell<String>,
    wanted: Cell<usize>,
    at: RefCell<Vec<Instant>>,
    bytes: Cell<usize>,
    complete: Notify,
}

impl Seen {
    fn expect(&self, mark: &str, wanted: usize) {
        mark.clone_into(&mut self.mark.borrow_mut());
        self.wanted.set(wanted);
        self.at.borrow_mut().clear();
    }

    fn frame(&self, text: &str) {
        if text.contains(self.mark.borrow().as_str()) {
            self.bytes.set(text.len());
            let mut at = self.at.borrow_mut();
            at.push(Instant::now());
            if at.len() == self.wanted.get() {
                self.complete.notify_one();
            }
        }
    }
}

/// Opens a connection that only receives.
async fn listen(target: &Target, seen: &Rc<Seen>) -> Result<tokio::task::JoinHandle<()>> {
    let mut conn = Conn::open(target, &Identity::backend()).await?;
    let seen = Rc::clone(seen);
    Ok(spawn_local(async move {
        while let Ok(text) = next_text(&mut conn.ws).await {
            seen.frame(&text);
        }
    }))
}

/// Broadcasts one at a time for the delay, then all at once for the rate.
async fn broadcast(target: &Target, receivers: usize, broadcasts: usize) -> Result<Values> {
    let mut sender = Conn::open(target, &Identity::backend()).await?;
    let seen = Rc::new(Seen::default());
    let mut listeners = Vec::new();
    for _ in 0..receivers {
        listeners.push(listen(target, &seen).await?);
    }
    let mut delays = Samples::default();
    for round in 0..broadcasts {
        let mark = format!("bench-mark-{round}-");
        let (method, params) = trigger(&mark);
        seen.expect(&mark, receivers);
        let start = Instant::now();
        sender.call(method, params).await?;
        let _ = timeout(Duration::from_secs(5), seen.complete.notified()).await;
        let at = seen.at.take();
        ensure!(at.len() >= receivers, "{} of {receivers} receivers got broadcast {round}", at.len());
        at.iter().for_each(|at| delays.push(*at - start));
    }
    // A gateway may fold several changes into one event, so what is delivered is counted, not assumed.
    seen.expect("bench-burst-", broadcasts * receivers);
    let start = Instant::now();
    for i in 0..broadcasts {
        let (method, params) = trigger(&format!("bench-burst-{i}-"));
        sender.ws.feed(Message::text(request(&format!("b{i}"), method, &params))).await?;
    }
    sender.ws.flush().await?;
    let drain = spawn_local(async move { while next_text(&mut sender.ws).await.is_ok() {} });
    let _ = timeout(Duration::from_secs(10), seen.complete.notified()).await;
    drain.abort();
    listeners.iter().for_each(tokio::task::JoinHandle::abort);
    let at = seen.at.take();
    let Some(last) = at.last() else { bail!("nobody received a broadcast of the burst") };
    let mut found = values([("broadcast_p50", delays.quantile_ms(0.5))]);
    found.push(("broadcast_burst", rate(at.len(), *last - start)));
    Ok(found)
}

pub const NODE_COMMAND: &str = "device.info";
const NODE_SEED: u16 = 0;

/// Operator → gateway → node → gateway → operator: one at a time, then sixteen, per second.
pub async fn invoke(kind: Kind, target: &Target, count: usize) -> Result<(Samples, f64)> {
    let mut operator = Conn::open(target, &Identity::backend()).await?;
    let who = Identity::node(NODE_SEED, &[NODE_COMMAND]);
    let node_id = who.key.as_ref().map(|key| key.id().as_str().to_owned()).unwrap_or_default();
    let mut node = match kind {
        Kind::Echo => Conn::open(target, &who).await?,
        Kind::Ours | Kind::Reference => paired_node(target, &who, &node_id, &mut operator).await?,
    };
    let answering = spawn_local(async move { while answer_invoke(&mut node).await.is_ok() {} });
    let frame = |tag: &'static str| {
        let (node_id, tag) = (node_id.clone(), format!("{tag}-{:?}", Instant::now()));
        move |i: usize| {
            let params = json!({ "nodeId": node_id, "command": NODE_COMMAND, "params": {}, "timeoutMs": 10_000,
                                 "idempotencyKey": format!("{tag}-{i}") });
            request(&i.to_string(), "node.invoke", &params)
        }
    };
    operator.pump(100, 4, frame("warm")).await?;
    let (serial, _) = operator.pump(count / 2, 1, frame("serial")).await?;
    let start = Instant::now();
    let (pipelined, _) = operator.pump(count, 16, frame("piped")).await?;
    let took = start.elapsed();
    answering.abort();
    operator.close().await;
    Ok((serial, rate(pipelined.len(), took)))
}

pub async fn answer_invoke(node: &mut Conn) -> Result<()> {
    let text = next_text(&mut node.ws).await?;
    if let Some(asked) = event_payload::<Value>(&text, "node.invoke.request") {
        let params =
            json!({ "id": asked["id"], "nodeId": asked["nodeId"], "ok": true, "payloadJSON": "{\"pong\":true}" });
        node.ws.send(Message::text(request("r", "node.invoke.result", &params))).await?;
    }
    Ok(())
}

/// Connects as a node; the operator approves the device and its commands when asked.
pub async fn paired_node(target: &Target, who: &Identity, id: &str, operator: &mut Conn) -> Result<Conn> {
    let mut refused = None;
    for _ in 0..5 {
        let opened = Conn::open(target, who).await;
        let mut approved = false;
        for (list, approve) in [("device.pair.list", "device.pair.approve"), ("node.pair.list", "node.pair.approve")] {
            let Ok(pairs) = operator.call(list, json!({})).await else { continue };
            for pending in pairs["pending"].as_array().into_iter().flatten() {
                let same = pending["deviceId"] == id || pending["nodeId"] == id;
                if let (true, Some(request_id)) = (same, pending["requestId"].as_str()) {
                    operator.call(approve, json!({ "requestId": request_id })).await?;
                    approved = true;
                }
            }
        }
        match (opened, approved) {
            (Ok(conn), false) => return Ok(conn),
            (Ok(conn), true) => conn.close().await,
            // With many at once the reference also closes some that only have to try again.
            (Err(error), _) => refused = Some(error),
        }
        // The reference settles an approval after its answer.
        sleep(Duration::from_millis(200)).await;
    }
    let refused = refused.unwrap_or_else(|| anyhow::anyhow!("no refusal was told"));
    Err(refused.context("the node could not be paired in five attempts"))
}

/// Opens connections that then only answer pings; what each costs the gateway in memory, KiB.
pub async fn idle(gateway: &Running, scale: Scale) -> Result<Values> {
    // The first connects load code and fill caches; that is no cost of a connection.
    connects(&gateway.target, &[Identity::backend()], 10).await?;
    sleep(Duration::from_secs(2)).await;
    let before = gateway.process.usage();
    let mut open = Vec::new();
    for _ in 0..scale.idle {
        let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
        open.push(spawn_local(async move { while let Some(Ok(_)) = conn.ws.next().await {} }));
    }
    sleep(Duration::from_secs(3)).await;
    let after = gateway.process.usage();
    open.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(vec![("idle_conn", (after.pss_kib as f64 - before.pss_kib as f64) / scale.idle as f64)])
}
