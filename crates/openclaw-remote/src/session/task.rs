//! The task of a session: the one owner of its link.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use openclaw_protocol::method::{
    Method as _,
    events::{EventsResume, MissedEvent, ResumeParams, Resumed},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout},
};

use super::{
    Cause, FIRST_PING, Live, Notice, PathNotice, Setup, Shared, State,
    machine::{Do, Machine, Replaces},
};
use crate::{
    client::{self, Events},
    error::Error,
    handshake::Event,
    route::Link,
    tunnel::network::Moves,
};

/// Time for the subscriptions and the missed events on a new connection. A gateway that is busy for longer is not waited
/// for: its consumer reads again.
const SETTLE: Duration = Duration::from_secs(5);
/// A ping that is not answered within this is forgotten; the machine judges by silence.
const PING: Duration = Duration::from_secs(10);
/// Calls on a path that was left for a better one may take this long to finish.
const DRAIN: Duration = Duration::from_secs(60);

type Outcome = Result<(Link, Events), Error>;

pub(super) struct Task {
    setup: Arc<Setup>,
    shared: Arc<Shared>,
    machine: Machine,
    live: Option<Arc<Live>>,
    events: Option<Events>,
    /// The last event of the present or last connection: its id, and the sequence number.
    position: Option<(String, u64)>,
    race: Option<BoxFuture<'static, Outcome>>,
    pings: FuturesUnordered<BoxFuture<'static, ()>>,
    notices: mpsc::Sender<Notice>,
    /// A notice did not fit; the consumer is told before the next one.
    overflowed: bool,
    away_since: Option<Instant>,
    /// Why the last connection was left.
    cause: Cause,
    /// Of the last race.
    failure: Option<Error>,
}

impl Task {
    pub fn new(
        setup: Setup,
        shared: Arc<Shared>,
        live: Arc<Live>,
        events: Events,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let machine = Machine::new(index(&live.link), Instant::now(), u64::try_from(seed).unwrap_or(1));
        Self {
            setup: Arc::new(setup),
            shared,
            machine,
            position: Some((live.link.hello().server.conn_id.clone(), 0)),
            live: Some(live),
            events: Some(events),
            race: None,
            pings: FuturesUnordered::new(),
            notices,
            overflowed: false,
            away_since: None,
            cause: Cause::First,
            failure: None,
        }
    }

    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let (mut moves, shared) = (Moves::watch(), Arc::clone(&self.shared));
        let (taken, round_trip) = match &self.live {
            Some(live) => (live.link.taken.clone(), live.round_trip()),
            None => (None, None),
        };
        let first = PathNotice { taken, round_trip, cause: Cause::First, away: Duration::ZERO, resumed: 0 };
        self.tell(Notice::Path(first));
        loop {
            let deadline = self.machine.deadline();
            let todo = tokio::select! {
                biased;
                _ = &mut stop => break,
                outcome = maybe(&mut self.race) => {
                    self.race = None;
                    self.raced(outcome).await
                }
                notice = next(&mut self.events) => self.heard(notice),
                Some(()) = self.pings.next() => Vec::new(),
                change = moves.next() => {
                    tracing::debug!(change, "looking at the paths again");
                    self.machine.moved(Instant::now())
                }
                () = shared.nudged.notified() => self.machine.moved(Instant::now()),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let heard = self.live.as_ref().map(|live| live.link.last_heard());
                    self.machine.tick(Instant::now(), heard)
                }
            };
            if self.carry_out(todo) {
                return;
            }
        }
        self.race = None;
        if let Some(live) = self.live.take() {
            self.shared.state.send_replace(State::Away);
            live.condemn();
            self.pings.clear();
            close(live).await;
        }
    }

    /// True when the session is over.
    fn carry_out(&mut self, todo: Vec<Do>) -> bool {
        for what in todo {
            match what {
                Do::Ping => self.ping(),
                Do::RaceAll => self.race(None),
                Do::RaceBetter(than) => self.race(Some(than)),
                Do::StopRace => self.race = None,
                Do::Drop => self.leave(Cause::Silent, "the connection fell silent"),
                Do::GiveUp => {
                    let error = self.failure.take().unwrap_or_else(|| Error::NotAGateway { reason: "no path".into() });
                    let error = Arc::new(error);
                    self.shared.state.send_replace(State::Ended(Arc::clone(&error)));
                    self.tell(Notice::Ended(error));
                    return true;
                }
            }
        }
        false
    }

    fn ping(&mut self) {
        let Some(live) = self.live.clone() else { return };
        self.pings.push(Box::pin(async move { live.ping(PING).await }));
    }

    fn race(&mut self, better_than: Option<usize>) {
        let setup = Arc::clone(&self.setup);
        self.race = Some(Box::pin(async move { setup.connect(better_than, &|_| ()).await }));
    }

    /// A notice of the link, or its end.
    fn heard(&mut self, notice: Option<client::Notice>) -> Vec<Do> {
        match notice {
            Some(client::Notice::Event(event)) => self.event(event),
            Some(client::Notice::Gap { expected, received }) => {
                self.tell(Notice::Missed { why: format!("events {expected} to {} did not come", received - 1) });
            }
            Some(client::Notice::Dropped(count)) => {
                self.tell(Notice::Missed { why: format!("{count} events came faster than they were read") });
            }
            None => {
                let why = self.live.as_ref().map(|live| Error::from(live.link.ending()).to_string());
                self.leave(Cause::Ended, &why.unwrap_or_else(|| "the connection ended".to_owned()));
                return self.machine.ended(Instant::now());
            }
        }
        Vec::new()
    }

    fn event(&mut self, event: Event) {
        if let (Some(seq), Some((_, last))) = (event.seq, &mut self.position) {
            *last = seq;
        }
        self.tell(Notice::Event(event));
    }

    /// Gives the link up.
    fn leave(&mut self, cause: Cause, why: &str) {
        if let Some(live) = self.live.take() {
            self.shared.state.send_replace(State::Away);
            live.condemn();
        }
        self.events = None;
        self.cause = cause;
        self.away_since.get_or_insert_with(Instant::now);
        self.tell(Notice::Away { why: why.to_owned() });
    }

    async fn raced(&mut self, outcome: Outcome) -> Vec<Do> {
        let now = Instant::now();
        match outcome {
            Ok((link, events)) => {
                let replaces = self.machine.won(index(&link), now);
                self.adopt(link, events, replaces).await;
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(%error, "no other path");
                let todo = self.machine.lost(error.is_settled_by_person(), now);
                if self.live.is_none() && !same(self.failure.as_ref(), &error) {
                    self.tell(Notice::Away { why: error.to_string() });
                }
                self.failure = Some(error);
                todo
            }
        }
    }

    /// Moves to a new link.
    async fn adopt(&mut self, link: Link, events: Events, replaces: Replaces) {
        let cause = match replaces {
            Replaces::Nothing => self.cause,
            Replaces::Doubted => Cause::Silent,
            Replaces::Working => Cause::Better,
        };
        let live = Arc::new(Live::new(link));
        let old = self.live.replace(Arc::clone(&live));
        // The old events end here: the new connection is asked for what comes after them.
        self.events = Some(events);
        self.shared.state.send_replace(State::Up(Arc::clone(&live)));
        match (replaces, old) {
            (Replaces::Working, Some(old)) => {
                tokio::spawn(close(old));
            }
            (_, Some(old)) => old.condemn(),
            (_, None) => {}
        }
        let conn_id = live.link.hello().server.conn_id.clone();
        let before = self.position.replace((conn_id, 0));
        let (settled, ()) = tokio::join!(timeout(SETTLE, settle(&live, &self.shared, before)), live.ping(FIRST_PING));
        let (missed, gap) = match settled {
            Ok(Ok(missed)) => (missed, None),
            Ok(Err(why)) => (Vec::new(), Some(why)),
            Err(_) => (Vec::new(), Some("the gateway took too long to say what was missed".to_owned())),
        };
        let away = self.away_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.failure = None;
        let notice = PathNotice {
            taken: live.link.taken.clone(),
            round_trip: live.round_trip(),
            cause,
            away,
            resumed: missed.len(),
        };
        self.tell(Notice::Path(notice));
        for event in missed {
            self.tell(Notice::Event(event));
        }
        if let Some(why) = gap {
            self.tell(Notice::Missed { why });
        }
    }

    /// Never waits: a consumer that is slow must not stop the watch over the link.
    fn tell(&mut self, notice: Notice) {
        if self.overflowed {
            let why = "notices came faster than they were read".to_owned();
            match self.notices.try_send(Notice::Missed { why }) {
                Ok(()) => self.overflowed = false,
                Err(_) => return,
            }
        }
        if let Err(TrySendError::Full(_)) = self.notices.try_send(notice) {
            self.overflowed = true;
        }
    }
}

/// Subscribes again and asks for what was missed. The error says why something may be missing.
async fn settle(live: &Live, shared: &Shared, before: Option<(String, u64)>) -> Result<Vec<Event>, String> {
    let subscriptions = shared.subscriptions().clone();
    for subscription in subscriptions {
        let answer = live.link.call(&subscription.method, subscription.params, SETTLE).await;
        answer.map_err(|error| format!("{} failed: {error}", subscription.method))?;
    }
    let Some((conn_id, seq)) = before else { return Ok(Vec::new()) };
    if !live.link.hello().features.methods.iter().any(|method| method == RESUME) {
        return Err("this gateway does not keep events for a connection that was lost".to_owned());
    }
    let unheard = |why: String| format!("{RESUME} failed: {why}");
    let params = serde_json::to_value(ResumeParams { conn_id, seq }).map_err(|error| unheard(error.to_string()))?;
    let answer = live.link.call(RESUME, Some(params), SETTLE).await.map_err(|error| unheard(error.to_string()))?;
    missed(serde_json::from_value(answer).map_err(|error| unheard(error.to_string()))?)
}

const RESUME: &str = EventsResume::NAME;

/// The events of an answer to `events.resume`.
fn missed(answer: Resumed) -> Result<Vec<Event>, String> {
    if !answer.complete {
        return Err("the gateway no longer has all events of the time without connection".to_owned());
    }
    let event = |MissedEvent { event, payload, state_version, .. }| {
        // Its number was one of the lost connection.
        Event { name: event, payload, seq: None, state_version }
    };
    Ok(answer.events.into_iter().map(event).collect())
}

fn index(link: &Link) -> usize {
    link.taken.as_ref().map_or(0, |taken| taken.index)
}

fn same(before: Option<&Error>, now: &Error) -> bool {
    before.is_some_and(|before| before.to_string() == now.to_string())
}

/// Closes a link once nobody waits for an answer on it any more.
async fn close(live: Arc<Live>) {
    const LOOK: Duration = Duration::from_millis(100);
    let end = Instant::now() + DRAIN;
    let mut live = live;
    loop {
        match Arc::try_unwrap(live) {
            Ok(live) => return live.link.close().await,
            Err(still) if Instant::now() >= end => {
                still.condemn();
                return;
            }
            Err(still) => live = still,
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn next(events: &mut Option<Events>) -> Option<client::Notice> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The outcome of a race, when one runs.
async fn maybe(race: &mut Option<BoxFuture<'static, Outcome>>) -> Outcome {
    match race {
        Some(race) => Pin::new(race).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn missed(answer: &Value) -> Result<Vec<Event>, String> {
        super::missed(serde_json::from_value(answer.clone()).expect("an answer"))
    }

    #[test]
    fn what_was_missed() {
        let events = missed(&json!({"complete": true, "events": [
            {"type": "event", "event": "health", "payload": {"ok": true}, "seq": 7},
            {"type": "event", "event": "presence", "payload": [], "seq": 8, "stateVersion": {"presence": 2, "health": 1}}]}));
        let events = events.expect("complete");
        let names: Vec<_> = events.iter().map(|event| (event.name.as_str(), event.seq)).collect();
        assert_eq!(names, [("health", None), ("presence", None)]);
        assert!(events[1].state_version.is_some());
        let some = json!({"complete": false, "events": [{"event": "x", "seq": 1}]});
        for incomplete in [json!({"complete": false}), some] {
            assert!(missed(&incomplete).is_err(), "{incomplete}");
        }
    }
}
