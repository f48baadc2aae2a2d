//! The task of one account: connects, listens, and connects again, for as long as that makes sense.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use url::Url;

use super::{
    Me, Shared,
    intake::Intake,
    machine::{Do, Leave, Machine, Session},
    net::{self, Socket},
};
use crate::channel::Status;

/// One session may be started every 5 s ("Session Start Limit Object", `max_concurrency` 1).
const BETWEEN_SESSIONS: Duration = Duration::from_secs(5);
/// Longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// For one frame to be written, and for a good-bye.
const WRITE: Duration = Duration::from_secs(10);
const CLOSE: Duration = Duration::from_millis(500);
/// Any code but 1000 and 1001 leaves the session alive ("Disconnecting").
const KEEP_SESSION: u16 = 4900;

/// How one connection ended.
struct Ending {
    leave: Leave,
    session: Option<Session>,
    /// It got as far as a live session.
    was_live: bool,
}

/// Runs an account until it is stopped or cannot go on.
pub async fn run(shared: Arc<Shared>) {
    shared.tell(Status::Starting);
    let intake = Intake::start(&shared);
    let stop = shared.stop.clone();
    let mut session: Option<Session> = None;
    let mut failures = 0_u32;
    let mut started: Option<Instant> = None;
    loop {
        let ended = connect(&shared, &intake, session.take(), &mut started).await;
        let Some(Ending { leave, session: kept, was_live }) = ended else { break };
        failures = if was_live { 0 } else { failures.saturating_add(1) };
        let backoff = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(failures.min(10)));
        let backoff = backoff.min(MAX_BACKOFF).mul_f64(0.5 + jitter() / 2.0);
        let (why, after) = match leave {
            Leave::Refused { why } => {
                tracing::error!(account = shared.settings.account, "Discord: {why}");
                shared.tell(Status::Failed { why });
                // The lanes have nothing more to do.
                stop.cancel();
                return;
            }
            Leave::Resume { why } => (why, backoff),
            Leave::Identify { why, after } => (why, after.max(backoff)),
        };
        session = kept;
        tracing::info!(account = shared.settings.account, resumes = session.is_some(), ?after, "Discord: {why}");
        shared.tell(Status::Retrying { why, after });
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(after) => {}
        }
    }
    shared.tell(Status::Stopped);
}

/// One connection; `None` when it was stopped.
async fn connect(
    shared: &Shared,
    intake: &Intake,
    session: Option<Session>,
    started: &mut Option<Instant>,
) -> Option<Ending> {
    let opened = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return None,
        opened = open(shared, intake, session, started) => opened,
    };
    let (socket, resume) = match opened {
        Ok(opened) => opened,
        Err(ending) => return Some(ending),
    };
    let settings = &shared.settings;
    let mut machine = Machine::new(Instant::now(), settings.token.clone(), settings.intents, resume, jitter());
    let (leave, was_live) = drive(shared, intake, socket, &mut machine).await?;
    if machine.token_refused() {
        shared.rest.refuse_token();
    }
    let session = match &leave {
        Leave::Resume { .. } => machine.session().cloned(),
        Leave::Identify { .. } | Leave::Refused { .. } => None,
    };
    Some(Ending { leave, session, was_live })
}

/// Opens the socket, once Discord lets us.
async fn open(
    shared: &Shared,
    intake: &Intake,
    session: Option<Session>,
    started: &mut Option<Instant>,
) -> Result<(Socket, Option<(Session, u64)>), Ending> {
    let ending = |leave, session| Ending { leave, session, was_live: false };
    // What was taken is handled first, so that the number to resume from is the last one.
    intake.drained().await;
    let resume_at = session.as_ref().and_then(|session| session.url.as_deref());
    let url = match resume_at.and_then(|url| shared.settings.base.gateway_url(url)) {
        Some(url) => url,
        None => match gateway(shared).await {
            Ok(url) => url,
            Err(leave) => return Err(ending(leave, session)),
        },
    };
    if session.is_none() {
        intake.restart();
        if let Some(before) = *started {
            sleep_until(before + BETWEEN_SESSIONS).await;
        }
    }
    match (net::dial(&url, shared.settings.proxy.as_ref()).await, session) {
        (Ok(socket), Some(session)) => Ok((socket, Some((session, intake.resume_from())))),
        (Ok(socket), None) => {
            *started = Some(Instant::now());
            Ok((socket, None))
        }
        (Err(why), Some(session)) => Err(ending(Leave::Resume { why }, Some(session))),
        (Err(why), None) => Err(ending(Leave::Identify { why, after: Duration::ZERO }, None)),
    }
}

/// Where to connect, when a session may be started.
async fn gateway(shared: &Shared) -> Result<Url, Leave> {
    let bot = shared.rest.gateway_bot().await.map_err(|error| match shared.rest.token_refused() {
        true => Leave::Refused { why: error.to_string() },
        false => Leave::Identify { why: error.to_string(), after: Duration::ZERO },
    })?;
    let limit = &bot.session_start_limit;
    if limit.remaining == 0 {
        let after = Duration::from_millis(limit.reset_after).min(Duration::from_secs(86_400));
        let why = "the bot has started all the sessions it may start today; Discord lets it in again later".to_owned();
        return Err(Leave::Identify { why, after });
    }
    shared.settings.base.gateway_url(&bot.url).ok_or_else(|| Leave::Refused {
        why: "Discord named a gateway that is not at Discord; the bot token was not sent there".to_owned(),
    })
}

/// Listens until it ends; `None` when it was stopped.
async fn drive(shared: &Shared, intake: &Intake, mut socket: Socket, machine: &mut Machine) -> Option<(Leave, bool)> {
    let stop = shared.stop.clone();
    loop {
        let todo = tokio::select! {
            biased;
            () = stop.cancelled() => {
                // The session ends here, and the bot is shown as offline.
                close(socket, CloseCode::Normal).await;
                return None;
            }
            () = sleep_until(machine.deadline()) => machine.tick(Instant::now()),
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => machine.text(Instant::now(), text.as_str()),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    return Some((machine.closed(code), machine.is_live()));
                }
                Some(Ok(_)) => Vec::new(),
                Some(Err(_)) | None => return Some((machine.closed(None), machine.is_live())),
            },
        };
        for what in todo {
            match what {
                Do::Send(text) => {
                    if !matches!(timeout(WRITE, socket.send(Message::text(text))).await, Ok(Ok(()))) {
                        return Some((machine.closed(None), machine.is_live()));
                    }
                }
                Do::Live(ready) => live(shared, ready.map(|ready| *ready)),
                Do::Dispatch { seq, name, data } => {
                    if intake.dispatch(seq, &name, &data).is_err() {
                        close(socket, CloseCode::from(KEEP_SESSION)).await;
                        let why = "messages come faster than they are kept; the rest is asked for again".to_owned();
                        return Some((Leave::Resume { why }, machine.is_live()));
                    }
                }
                Do::Leave(leave) => {
                    close(socket, CloseCode::from(KEEP_SESSION)).await;
                    return Some((leave, machine.is_live()));
                }
            }
        }
    }
}

fn live(shared: &Shared, ready: Option<super::api::Ready>) {
    if let Some(ready) = ready {
        shared.set_me(Me { id: ready.user.id, name: ready.user.username });
        // A new session tells everything anew.
        shared.presence().clear();
    }
    let name = shared.me().map(|me| me.name).unwrap_or_default();
    tracing::info!(account = shared.settings.account, bot = name, "connected to Discord");
    shared.tell(Status::Running { name });
}

async fn close(mut socket: Socket, code: CloseCode) {
    let frame = CloseFrame { code, reason: "".into() };
    let _ = timeout(CLOSE, socket.close(Some(frame))).await;
}

/// 0.0 to 1.0.
fn jitter() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without randomness everybody waits the middle.
    if getrandom::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
