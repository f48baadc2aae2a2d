//! The terminal interface at work: keys and notices go into the model, what it asks for is done, and the screen follows.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use openclaw_remote::{
    Error as RemoteError, Session,
    connect::{DeviceUse, Persona},
    session::{Cause, Notice},
};
use ratatui::crossterm::event::{Event as Typed, MouseEventKind};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    file,
    model::{Ask, Do, Event, Model, Refusal, Start},
    terminal::{self, Screen},
    theme::Theme,
};
use crate::{
    command::rpc::{ADMIN, APPROVALS, READ, WRITE},
    failure::{Failure, Outcome},
    output::{inert, time},
    reach::Reach,
};

/// Shortest time between two drawings: what streams in faster is drawn together.
const FRAME: Duration = Duration::from_millis(25);
/// While something moves by itself, and while only the time of day does.
const BUSY_TICK: Duration = Duration::from_millis(100);
const IDLE_TICK: Duration = Duration::from_secs(1);
/// A message waits so long for a connection before it counts as not sent.
const SEND_LIMIT: Duration = Duration::from_secs(600);
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Lines per notch of the wheel.
const WHEEL: isize = 3;
/// Time to say goodbye.
const CLOSE: Duration = Duration::from_millis(300);
/// Exit code of a program that SIGTERM or SIGHUP ended in good order.
const TERMINATED: u8 = 143;

type Opened = Result<(Session, mpsc::Receiver<Notice>, bool), RemoteError>;

pub struct Options {
    pub theme: Theme,
    pub mouse: bool,
    pub home: Option<String>,
    pub seed: String,
}

pub async fn run(reach: &Reach<'_>, start: Start, options: Options) -> Outcome {
    let no_terminal = |error: std::io::Error| {
        Failure::new(format!("The terminal cannot be used: {error}."))
            .remedy("talk line by line", "openclaw chat --plain")
    };
    let mut screen = Screen::enter(options.theme, options.mouse).map_err(no_terminal)?;
    let mut typed = terminal::events().map_err(no_terminal)?;
    let signals = |kind| signal(kind).map_err(no_terminal);
    let (mut term, mut hangup) = (signals(SignalKind::terminate())?, signals(SignalKind::hangup())?);
    // SIGTSTP, which the shell's Ctrl-Z would be were the terminal not ours.
    let mut stop = signals(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?;
    let (report, mut reports) = mpsc::unbounded_channel();
    let mut desk = Desk { session: None, early: Vec::new(), report, home: options.home };
    let mut model = Model::new(start, time::now_ms(), options.seed);
    let mut opening: Option<Pin<Box<dyn Future<Output = Opened> + '_>>> = Some(Box::pin(open(reach)));
    let mut notices: Option<mpsc::Receiver<Notice>> = None;
    let (mut dirty, mut drawn) = (true, Instant::now() - FRAME);
    let mut tick = Instant::now() + BUSY_TICK;
    let code = loop {
        if dirty && drawn.elapsed() >= FRAME {
            model.now_ms = time::now_ms();
            screen.draw(&mut model).map_err(no_terminal)?;
            (dirty, drawn) = (false, Instant::now());
        }
        let event = tokio::select! {
            biased;
            code = ended(&mut term, &mut hangup) => break code,
            _ = stop.recv() => Some(Happened::Do(Do::Suspend)),
            event = typed.recv() => match event {
                Some(event) => read(event),
                None => break TERMINATED,
            },
            outcome = maybe(&mut opening) => {
                opening = None;
                let (session, published, may_approve) = outcome.map_err(|error| {
                    terminal::restore();
                    reach.failure(&error)
                })?;
                notices = Some(published);
                let event = Event::Connected { methods: session.methods(), version: String::new(), may_approve };
                desk.session = Some(Arc::new(session));
                desk.catch_up();
                Some(Happened::Model(event))
            }
            notice = next(&mut notices) => match notice {
                Some(Notice::Ended(error)) => {
                    terminal::restore();
                    return Err(reach.failure(&error));
                }
                Some(notice) => Some(heard(reach, notice)),
                None => {
                    terminal::restore();
                    return Err(Failure::new("The session ended."));
                }
            },
            Some(event) = reports.recv() => Some(Happened::Model(event)),
            () = sleep_until(tick) => {
                let pace = if model.is_busy() { BUSY_TICK } else { IDLE_TICK };
                tick = Instant::now() + pace;
                dirty |= model.is_busy() || model.hint.is_some() || model.approvals.len() > 0;
                Some(Happened::Model(Event::Tick))
            }
            () = sleep_until(drawn + FRAME), if dirty => None,
        };
        let is_tick = matches!(event, Some(Happened::Model(Event::Tick)));
        let todo = match event {
            None => continue,
            Some(Happened::Screen) => Vec::new(),
            Some(Happened::Do(what)) => vec![what],
            Some(Happened::Model(event)) => {
                model.now_ms = time::now_ms();
                model.update(event)
            }
        };
        dirty |= !is_tick;
        if model.is_busy() {
            tick = tick.min(Instant::now() + BUSY_TICK);
        }
        let mut leave = false;
        for what in todo {
            match what {
                Do::Quit => leave = true,
                Do::Suspend => screen.suspend().map_err(no_terminal)?,
                Do::Repaint => screen.repaint().map_err(no_terminal)?,
                other => desk.carry_out(other),
            }
        }
        if leave {
            break 0;
        }
    };
    drop(screen);
    if let Some(session) = desk.session.take().and_then(Arc::into_inner) {
        let _ = tokio::time::timeout(CLOSE, session.close()).await;
    }
    Ok(code)
}

/// What the loop has to look at.
enum Happened {
    Model(Event),
    Do(Do),
    /// Only the screen is another.
    Screen,
}

fn read(event: Typed) -> Option<Happened> {
    Some(match event {
        Typed::Key(key) => Happened::Model(Event::Key(key)),
        Typed::Paste(text) => Happened::Model(Event::Paste(text)),
        Typed::Mouse(mouse) => match mouse.kind {
            MouseEventKind::ScrollUp => Happened::Model(Event::Wheel(WHEEL)),
            MouseEventKind::ScrollDown => Happened::Model(Event::Wheel(-WHEEL)),
            _ => return None,
        },
        Typed::Resize(..) => Happened::Screen,
        Typed::FocusGained | Typed::FocusLost => return None,
    })
}

fn heard(reach: &Reach<'_>, notice: Notice) -> Happened {
    Happened::Model(match notice {
        Notice::Event(event) => Event::Gateway { name: event.name, payload: event.payload },
        Notice::Missed { .. } => Event::Missed,
        Notice::Away { why } => Event::Away(why),
        Notice::Path(path) => {
            reach.note_use(path.taken.as_ref());
            let label = path.taken.as_ref().map_or_else(|| "this machine".to_owned(), |t| t.describe(path.round_trip));
            Event::Path { path: label, came_back: path.cause != Cause::First && !path.away.is_zero() }
        }
        Notice::Ended(error) => Event::Away(error.to_string()),
    })
}

/// With leave to answer approvals where this device may, and without it elsewhere.
///
/// Who holds the gateway's own credential is its owner, and gets every request to see: that takes the admin scope, since others
/// see only what their own device asked for (approval notes, visibility). A paired device asks for no more than it needs.
async fn open(reach: &Reach<'_>) -> Opened {
    let owner = reach.target.owner_socket.is_some() || reach.target.secrets().is_ok_and(|secrets| !secrets.is_empty());
    let all: &[&str] = &[READ, WRITE, APPROVALS, ADMIN];
    let tries = [owner.then_some(all), Some(&all[..3]), Some(&all[..2])];
    let mut refused = None;
    for scopes in tries.into_iter().flatten() {
        match reach.session(Persona::Chat, scopes, DeviceUse::WhenNeeded, &|_| ()).await {
            Err(error) if asks_too_much(&error) => refused = Some(error),
            outcome => {
                let may_approve = scopes.contains(&APPROVALS);
                return outcome.map(|(session, notices)| (session, notices, may_approve));
            }
        }
    }
    // The last try was refused like the others.
    Err(refused.unwrap_or_else(|| RemoteError::Identity("no scopes to ask for".to_owned())))
}

fn asks_too_much(error: &RemoteError) -> bool {
    match error {
        RemoteError::Pairing(pairing) => pairing.reason.as_deref() == Some("scope-upgrade"),
        RemoteError::Scope { .. } => true,
        RemoteError::Paths(all) => asks_too_much(all.leading()),
        _ => false,
    }
}

/// Where calls are made.
struct Desk {
    session: Option<Arc<Session>>,
    /// Wanted before there was a connection.
    early: Vec<Do>,
    report: mpsc::UnboundedSender<Event>,
    home: Option<String>,
}

impl Desk {
    fn catch_up(&mut self) {
        for what in std::mem::take(&mut self.early) {
            self.carry_out(what);
        }
    }

    fn carry_out(&mut self, what: Do) {
        let report = self.report.clone();
        match (what, &self.session) {
            (Do::Read(typed), _) => {
                let path = file::path(&typed, self.home.as_deref());
                tokio::task::spawn_blocking(move || {
                    let outcome = file::read(&path);
                    let _ = report.send(Event::Read { path: inert(&typed).into_owned(), outcome });
                });
            }
            (what @ (Do::Call { .. } | Do::Subscribe { .. }), None) => self.early.push(what),
            (Do::Call { ask, method, params }, Some(session)) => {
                let session = Arc::clone(session);
                tokio::spawn(async move {
                    let limit =
                        if matches!(ask, Ask::Send { .. } | Ask::History { .. }) { SEND_LIMIT } else { CALL_LIMIT };
                    let outcome = session.call(method, Some(params), limit).await.map_err(|error| refusal(&error));
                    let _ = report.send(Event::Answer { ask, outcome });
                });
            }
            (Do::Subscribe { method, params }, Some(session)) => {
                let session = Arc::clone(session);
                tokio::spawn(async move {
                    if let Err(error) = session.subscribe(method, Some(params), CALL_LIMIT).await {
                        tracing::debug!(%error, method, "not subscribed");
                    }
                });
            }
            (Do::Quit | Do::Suspend | Do::Repaint, _) => {}
        }
    }
}

pub fn refusal(error: &RemoteError) -> Refusal {
    let unknown = matches!(error, RemoteError::OutcomeUnknown { .. } | RemoteError::Timeout { .. });
    Refusal { text: inert(&error.to_string()).into_owned(), unknown }
}

async fn ended(term: &mut Signal, hangup: &mut Signal) -> u8 {
    tokio::select! {
        _ = term.recv() => TERMINATED,
        _ = hangup.recv() => TERMINATED,
    }
}

async fn maybe(opening: &mut Option<Pin<Box<dyn Future<Output = Opened> + '_>>>) -> Opened {
    match opening {
        Some(opening) => opening.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next(notices: &mut Option<mpsc::Receiver<Notice>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.recv().await,
        None => std::future::pending().await,
    }
}
