//! One connection, from hello to its end.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use openclaw_protocol::{
    Protocol,
    method::node::{InvokeCancel, InvokeRequest, NodeDecision, NodePairResolved},
};
use openclaw_remote::{Client, Events, Notice};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Host, Link, Tell, Told,
    invocation::{self, Invocation},
    publish,
};

/// How often host stats are published; the reference's number.
const STATS: Duration = Duration::from_secs(60);
/// How long a connection may be silent before it is asked for a sign of life, and how long that may take.
const SILENCE: Duration = Duration::from_secs(15);
const PONG: Duration = Duration::from_secs(10);
/// How often silence is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long the programs of a lost connection may take to die.
const CLEAR_UP: Duration = Duration::from_secs(8);
/// Request ids remembered, so that a frame sent twice runs nothing twice.
const SEEN: usize = 1024;
/// Requests under way at once.
const MAX_RUNNING: usize = 64;

/// Requests of one connection.
#[derive(Default)]
struct Requests {
    running: HashMap<String, CancellationToken>,
    seen: VecDeque<String>,
}

impl Requests {
    /// True for an id that was not there before.
    fn is_new(&mut self, id: &str) -> bool {
        if self.seen.iter().any(|seen| seen == id) {
            return false;
        }
        if self.seen.len() >= SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(id.to_owned());
        true
    }
}

/// Serves until the connection ends or `stop`; says why it ended.
pub(super) async fn serve(
    host: &Host,
    link: Link,
    mut events: Events,
    stop: &CancellationToken,
    tell: Tell<'_>,
) -> String {
    let Link { client, forward, .. } = link;
    let client = Arc::new(client);
    let ended = CancellationToken::new();
    let mut requests = Requests::default();
    let mut tasks: JoinSet<Option<String>> = JoinSet::new();
    let (say, mut said) = mpsc::channel(8);
    let v4 = client.protocol() == Protocol::V4;
    if v4 {
        tasks.spawn(publish::everything(Arc::clone(&client), say.clone(), host.toolbox.stats()));
    }
    let mut told_commands: Option<Option<String>> = None;
    let mut surface_accepted = !v4;
    let mut stats = ticking(STATS);
    stats.tick().await;
    let (mut look, mut wake) = (ticking(LOOK), WakeWatch::new());
    let mut ping: Option<tokio::task::JoinHandle<bool>> = None;

    let why = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break "stopped".to_owned(),
            notice = events.next() => match notice {
                None => break closing(&client),
                Some(Notice::Event(event)) => {
                    match event.name.as_str() {
                        "node.invoke.request" => {
                            if let Some(request) = read::<InvokeRequest>(event.payload) {
                                take(host, &client, request, &ended, &mut requests, &mut tasks);
                            }
                        }
                        "node.invoke.cancel" => {
                            if let Some(cancel) = read::<InvokeCancel>(event.payload)
                                && let Some(running) = requests.running.get(&cancel.invoke_id)
                            {
                                running.cancel();
                            }
                        }
                        "node.pair.resolved" => {
                            let own = host.node_id();
                            if let Some(resolved) = read::<NodePairResolved>(event.payload).filter(|r| r.node_id == own) {
                                let approved = resolved.decision == NodeDecision::Approved;
                                tell(Told::CommandsDecided { approved });
                                told_commands = None;
                                if approved {
                                    let client = Arc::clone(&client);
                                    tasks.spawn(publish::everything(client, say.clone(), host.toolbox.stats()));
                                }
                            }
                        }
                        _ => {}
                    }
                }
                Some(Notice::Dropped(count)) => tracing::warn!(count, "requests came faster than they were taken"),
                Some(Notice::Gap { .. }) => {}
            },
            Some(heard) = said.recv() => match heard {
                publish::Heard::Accepted => surface_accepted = true,
                publish::Heard::Waiting(request) => {
                    if told_commands.as_ref() != Some(&request) {
                        told_commands = Some(request.clone());
                        tell(Told::ApproveCommands { request });
                    }
                }
            },
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(Some(id)) = done {
                    requests.running.remove(&id);
                }
            }
            _ = stats.tick(), if v4 => {
                if surface_accepted {
                    tasks.spawn(publish::stats(Arc::clone(&client), host.toolbox.stats()));
                } else {
                    tasks.spawn(publish::everything(Arc::clone(&client), say.clone(), host.toolbox.stats()));
                }
            }
            _ = look.tick() => {
                if ping.is_none() && client.last_heard().elapsed() > SILENCE {
                    ping = Some(sign_of_life(&client));
                }
            }
            () = wake.woke() => {
                // Whatever was there before the sleep may be gone without a word.
                ping.get_or_insert_with(|| sign_of_life(&client));
            }
            answered = wait_for(&mut ping) => {
                ping = None;
                if !answered {
                    break "no sign of life from the gateway".to_owned();
                }
            }
        }
    };
    ended.cancel();
    let _ = tokio::time::timeout(CLEAR_UP, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.abort_all();
    if let Some(ping) = ping {
        ping.abort();
    }
    // Tasks that were aborted still hold on to the client for a moment; dropping it closes the socket all the same.
    if let Ok(client) = Arc::try_unwrap(client) {
        client.close().await;
    }
    if let Some(forward) = forward {
        forward.close().await;
    }
    why
}

/// Starts what a request asks, unless it is none of ours or here already.
fn take(
    host: &Host,
    client: &Arc<Client>,
    request: InvokeRequest,
    ended: &CancellationToken,
    requests: &mut Requests,
    tasks: &mut JoinSet<Option<String>>,
) {
    if request.node_id != host.node_id() || request.id.is_empty() {
        tracing::warn!(node = request.node_id, "a request for another node");
        return;
    }
    if !requests.is_new(&request.id) {
        return;
    }
    let cancel = ended.child_token();
    let busy = requests.running.len() >= MAX_RUNNING;
    let id = request.id.clone();
    let invocation = Invocation {
        client: Arc::clone(client),
        toolbox: Arc::clone(&host.toolbox),
        offered: host.identity.surface.commands.contains(&request.command),
        cancel: cancel.clone(),
        request,
    };
    if !busy {
        requests.running.insert(id.clone(), cancel);
    }
    tasks.spawn(async move {
        match busy {
            true => invocation::refuse_busy(invocation).await,
            false => invocation::run(invocation).await,
        }
        Some(id)
    });
}

fn read<T: serde::de::DeserializeOwned>(payload: Value) -> Option<T> {
    serde_json::from_value(payload).inspect_err(|error| tracing::debug!(%error, "an unreadable event")).ok()
}

fn closing(client: &Client) -> String {
    let ending = client.ending();
    match (ending.code, ending.reason.as_str()) {
        (Some(code), "") => format!("closed ({code})"),
        (Some(code), reason) => format!("closed ({code}): {reason}"),
        (None, "") => "the connection broke".to_owned(),
        (None, reason) => format!("the connection broke: {reason}"),
    }
}

fn ticking(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks for a pong.
fn sign_of_life(client: &Arc<Client>) -> tokio::task::JoinHandle<bool> {
    let client = Arc::clone(client);
    tokio::spawn(async move { client.ping(PONG).await.is_ok() })
}

async fn wait_for(ping: &mut Option<tokio::task::JoinHandle<bool>>) -> bool {
    match ping {
        Some(ping) => ping.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Notices that the machine slept: the wall clock ran on and the other one did not.
pub(super) struct WakeWatch {
    look: tokio::time::Interval,
    wall: SystemTime,
    steady: Instant,
}

impl WakeWatch {
    pub(super) fn new() -> Self {
        Self { look: ticking(LOOK), wall: SystemTime::now(), steady: Instant::now() }
    }

    /// Ends when it does. Cancel safe.
    pub(super) async fn woke(&mut self) {
        loop {
            self.look.tick().await;
            let (wall, steady) = (SystemTime::now(), Instant::now());
            let slept = slept(
                wall.duration_since(self.wall).unwrap_or_default(),
                steady.saturating_duration_since(self.steady),
            );
            (self.wall, self.steady) = (wall, steady);
            if slept {
                return;
            }
        }
    }
}

/// The wall clock ran at least five seconds further.
fn slept(wall: Duration, steady: Duration) -> bool {
    wall > steady + Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_sent_twice_is_taken_once() {
        let mut requests = Requests::default();
        assert!(requests.is_new("a") && !requests.is_new("a") && requests.is_new("b"));
        for n in 0..SEEN {
            requests.is_new(&n.to_string());
        }
        assert_eq!(requests.seen.len(), SEEN);
    }

    #[test]
    fn sleep_is_the_difference_of_two_clocks() {
        let seconds = Duration::from_secs;
        for (wall, steady, expected) in [(2, 2, false), (3600, 2, true), (2, 3600, false), (7, 2, false)] {
            assert_eq!(slept(seconds(wall), seconds(steady)), expected);
        }
    }
}
