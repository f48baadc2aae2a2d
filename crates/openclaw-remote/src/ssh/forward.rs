//! One ssh that carries a tunnel: opened, watched, and ended with its owner.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

pub use super::options::Learned;
use super::{
    Interaction, Program, SshFailure, SshFailureKind, SshSpec, options, process,
    said::{Transcript, channel_refusal, classify, clean, is_no_session, is_other_forwards},
    sockets,
};
use crate::{deadline::Deadline, dial::Endpoint, error::Error};

/// How often a byte goes to the far end and back.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Beats on their way that are remembered; more means that the link is dead anyway.
pub(super) const MAX_BEATS: usize = 64;
/// How long an account may stay silent after the login before we do without its session. Long, because its shell may
/// read a slow profile first.
pub(super) const SILENT_SESSION: Duration = Duration::from_secs(5);
/// How often the near end's socket is looked for, where nothing tells that it is there.
const LOOK: Duration = Duration::from_millis(10);
/// How long ssh may take to end when asked.
const END_GRACE: Duration = Duration::from_millis(500);
/// How long ssh's last words are waited for once it has ended; a helper of its own may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long after a broken connection ssh may take to say why.
const EXPLANATION: Duration = Duration::from_millis(250);
/// A refusal this old, or younger, explains a connection that has just broken.
const RECENT: Duration = Duration::from_secs(1);
/// Longest line read from the far account; what its profile prints is not ours to judge.
const MAX_LINE_BYTES: usize = 4096;

/// What is known of a running ssh. Watch it with [`Forward::pulse`].
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// When the far end last answered; `None` without a session.
    pub last_echo: Option<Instant>,
    /// Round-trip time of the last beat, through both ssh programs; `None` until one was sent after the login.
    pub round_trip: Option<Duration>,
    /// How many connections the far end could not pass on, and why the last one.
    pub refusals: u32,
    pub refusal: Option<SshFailure>,
    refused_at: Option<Instant>,
    /// Why ssh ended.
    pub ended: Option<SshFailure>,
    /// How ssh has to be called instead, when it ended before it was open.
    lesson: Option<Learned>,
}

impl Pulse {
    /// Notes a connection that the far end could not pass on.
    pub(super) fn refuse(&mut self, refusal: SshFailure) {
        self.refusals = self.refusals.saturating_add(1);
        (self.refusal, self.refused_at) = (Some(refusal), Some(Instant::now()));
    }
}

/// A tunnel to the gateway's port on the far host. Dropping it ends ssh.
#[derive(Debug)]
pub struct Forward {
    spec: SshSpec,
    socket: Near,
    learned: Learned,
    pid: Option<u32>,
    pulse: watch::Receiver<Pulse>,
    wishes: Arc<Wishes>,
    task: JoinHandle<()>,
}

/// What the task is asked to do.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub beat: Notify,
    pub end: Notify,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.end();
    }
}

/// The socket's path, removed with its owner.
#[derive(Debug)]
pub(super) struct Near(pub PathBuf);

impl Drop for Near {
    fn drop(&mut self) {
        // ssh removes it when it ends in order; after a kill nobody else does.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Forward {
    /// Logs in and opens the tunnel; its near end is a socket in `dir` (or in the short place that stands in for `dir`,
    /// see [`super::socket_dir`]), private to this user. Returns when the far end has echoed and the socket is there.
    ///
    /// # Errors
    /// Every way in which ssh fails, within `deadline`.
    pub async fn open(
        spec: &SshSpec,
        dir: &Path,
        interaction: Interaction,
        deadline: Deadline,
    ) -> Result<Self, SshFailure> {
        Program::find()?.open(spec, dir, interaction, Learned::default(), deadline).await
    }

    #[cfg(feature = "builtin-ssh")]
    pub(super) fn new(
        spec: SshSpec,
        socket: Near,
        pulse: watch::Receiver<Pulse>,
        wishes: Arc<Wishes>,
        task: JoinHandle<()>,
    ) -> Self {
        Self { spec, socket, learned: Learned::default(), pid: None, pulse, wishes, task }
    }

    #[cfg(feature = "builtin-ssh")]
    pub(super) const fn learn(&mut self, learned: Learned) {
        self.learned = learned;
    }

    /// The near end: connect here and you speak to the gateway.
    pub fn socket(&self) -> &Path {
        &self.socket.0
    }

    /// The near end for [`crate::connect`].
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tunnel { socket: self.socket.0.clone(), origin: self.spec.origin(), pin: None }
    }

    pub const fn spec(&self) -> &SshSpec {
        &self.spec
    }

    /// How ssh had to be called; the next one can begin there.
    pub const fn learned(&self) -> Learned {
        self.learned
    }

    /// Process id of ssh; `None` for the client inside this program.
    pub const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Round-trip time of the last beat; `None` without a session channel.
    pub fn round_trip(&self) -> Option<Duration> {
        self.pulse.borrow().round_trip
    }

    /// State and changes.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.clone()
    }

    /// Sends a beat now instead of within a second.
    pub fn beat(&self) {
        self.wishes.beat.notify_one();
    }

    /// Asks ssh to end, and what it carries with it; [`Forward::ended`] tells when.
    pub fn end(&self) {
        self.wishes.end.notify_one();
    }

    /// Waits until ssh has ended. Cancel safe.
    pub async fn ended(&self) -> SshFailure {
        let mut pulse = self.pulse.clone();
        let ended = pulse.wait_for(|pulse| pulse.ended.is_some()).await;
        let ended = ended.ok().and_then(|pulse| pulse.ended.clone());
        ended.unwrap_or_else(|| SshFailure::new(SshFailureKind::Lost, "closed by this program").about(&self.spec))
    }

    /// What really went wrong when a client's connection through this tunnel broke: ssh itself may have been lost, or have
    /// found nobody on the gateway's port. Other errors come back as they are.
    pub async fn explain(&self, error: Error) -> Error {
        let broken = matches!(
            error,
            Error::Connect { .. } | Error::Upgrade { .. } | Error::Closed { .. } | Error::Timeout { .. }
        );
        if !broken {
            return error;
        }
        let mut pulse = self.pulse.clone();
        // An older refusal was that of another connection.
        let recent = |pulse: &Pulse| pulse.refused_at.is_some_and(|at| at.elapsed() <= RECENT);
        let told = pulse.wait_for(|pulse| pulse.ended.is_some() || recent(pulse));
        match timeout(EXPLANATION, told).await {
            Ok(Ok(pulse)) => match pulse.ended.clone().or_else(|| pulse.refusal.clone()) {
                Some(failure) => Error::Ssh(Box::new(failure)),
                None => error,
            },
            _ => error,
        }
    }

    /// Ends ssh and waits for that.
    pub async fn close(mut self) {
        self.end();
        let _ = (&mut self.task).await;
    }
}

impl Program {
    /// [`Forward::open`] with this program, beginning with what is known about the host.
    ///
    /// # Errors
    /// As [`Forward::open`].
    pub async fn open(
        &self,
        spec: &SshSpec,
        dir: &Path,
        interaction: Interaction,
        mut learned: Learned,
        deadline: Deadline,
    ) -> Result<Forward, SshFailure> {
        let local = |detail: String| SshFailure::new(SshFailureKind::Local, detail).about(spec);
        let dir = sockets::socket_dir(dir).map_err(|error| local(error.to_string()))?;
        sockets::sweep(&dir);
        #[cfg(feature = "builtin-ssh")]
        if let super::program::Kind::Builtin(home) = &self.0 {
            return super::builtin::open(spec, home, Near(dir.join(sockets::fresh_name())), deadline).await;
        }
        // Each round learns something or ends.
        loop {
            let socket = Near(dir.join(sockets::fresh_name()));
            let words = options::tunnel(spec, &socket.0, interaction, learned)?;
            let stdin = if learned.no_session { Stdio::null() } else { Stdio::piped() };
            let child = process::spawn(self, words, interaction, stdin).map_err(|error| {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let kind = if missing { SshFailureKind::NoClient } else { SshFailureKind::Local };
                SshFailure::new(kind, error.to_string()).about(spec)
            })?;
            let mut forward = start(spec, socket, child, learned);
            match timeout(deadline.left(), forward.opened()).await {
                Ok(Ok(())) => return Ok(forward),
                Ok(Err(NotOpen::Learned(more))) if more != learned => learned = more,
                Ok(Err(NotOpen::Learned(_))) => {
                    return Err(SshFailure::new(SshFailureKind::Other, "ssh ended without a word").about(spec));
                }
                Ok(Err(NotOpen::Failed(failure))) => return Err(*failure),
                Err(_) => {
                    forward.close().await;
                    return Err(SshFailure::timed_out(deadline.budget()).about(spec));
                }
            }
            forward.close().await;
        }
    }
}

enum NotOpen {
    Learned(Learned),
    Failed(Box<SshFailure>),
}

impl Forward {
    /// Waits until the tunnel is open, or it is known why it will not be.
    async fn opened(&mut self) -> Result<(), NotOpen> {
        let mut pulse = self.pulse.clone();
        let mut logged_in = None;
        let look = if self.learned.no_session { LOOK } else { LOOK * 10 };
        loop {
            let seen = pulse.borrow_and_update().clone();
            if let Some(failure) = seen.ended {
                return Err(seen.lesson.map_or_else(|| NotOpen::Failed(Box::new(failure)), NotOpen::Learned));
            }
            // ssh takes the near end after the login and before the session; nobody else can make files here.
            let ready = std::fs::symlink_metadata(&self.socket.0).is_ok();
            if ready && (seen.last_echo.is_some() || self.learned.no_session) {
                return Ok(());
            }
            if seen.last_echo.is_some() {
                let failure = SshFailure::new(SshFailureKind::Local, "ssh did not make its socket");
                return Err(NotOpen::Failed(Box::new(failure.about(&self.spec))));
            }
            if ready && logged_in.get_or_insert_with(Instant::now).elapsed() > SILENT_SESSION {
                return Err(NotOpen::Learned(Learned { no_session: true, ..self.learned }));
            }
            tokio::select! {
                changed = pulse.changed() => if changed.is_err() {
                    return Err(NotOpen::Failed(Box::new(self.ended().await)));
                },
                () = sleep(look) => {}
            }
        }
    }
}

/// Puts a task beside the child.
fn start(spec: &SshSpec, socket: Near, mut child: Child, learned: Learned) -> Forward {
    let (publish, pulse) = watch::channel(Pulse::default());
    let wishes = Arc::new(Wishes::default());
    let pid = child.id();
    let (lines, said) = mpsc::channel(256);
    let echoes = lines.clone();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    tokio::spawn(async move { read_lines(out, |line| echoes.send(Line::Out(line))).await });
    tokio::spawn(async move { read_lines(err, |line| lines.send(Line::Err(line))).await });
    let carrier = Carrier {
        spec: spec.clone(),
        socket: socket.0.clone(),
        learned,
        publish,
        said: Transcript::default(),
        beats: VecDeque::new(),
        count: 0,
    };
    let task = tokio::spawn(carrier.run(child, said, Arc::clone(&wishes)));
    Forward { spec: spec.clone(), socket, learned, pid, pulse, wishes, task }
}

enum Line {
    Out(String),
    Err(String),
}

/// Reads lines to the end of the stream. Very long ones come in pieces.
async fn read_lines<F, S>(stream: Option<impl AsyncRead + Unpin>, mut send: F)
where
    F: FnMut(String) -> S,
    S: Future<Output = Result<(), mpsc::error::SendError<Line>>>,
{
    let Some(stream) = stream else { return };
    let mut stream = BufReader::with_capacity(MAX_LINE_BYTES, stream);
    let mut line = Vec::new();
    while let Ok(bytes) = stream.fill_buf().await {
        if bytes.is_empty() {
            break;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        stream.consume(taken);
        if end.is_some() || line.len() >= MAX_LINE_BYTES {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if send(text).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        let _ = send(String::from_utf8_lossy(&line).into_owned()).await;
    }
}

/// The task beside ssh.
struct Carrier {
    spec: SshSpec,
    socket: PathBuf,
    learned: Learned,
    publish: watch::Sender<Pulse>,
    said: Transcript,
    /// Beats on their way: number and when sent.
    beats: VecDeque<(u64, Instant)>,
    count: u64,
}

impl Carrier {
    async fn run(mut self, mut child: Child, mut lines: mpsc::Receiver<Line>, wishes: Arc<Wishes>) {
        let mut stdin = child.stdin.take();
        let mut clock = interval(HEARTBEAT);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let status = loop {
            tokio::select! {
                biased;
                () = wishes.end.notified() => {
                    drop(stdin.take());
                    break end(&mut child).await;
                }
                Some(line) = lines.recv() => {
                    let silent = self.publish.borrow().last_echo.is_none();
                    self.line(line);
                    // The first echo waited for the login; the next one tells the round trip.
                    if silent && self.publish.borrow().last_echo.is_some() {
                        self.send(&mut stdin).await;
                    }
                }
                status = child.wait() => break status.ok(),
                // The first tick comes at once: its echo says that the session is there.
                _ = clock.tick(), if stdin.is_some() => self.send(&mut stdin).await,
                () = wishes.beat.notified(), if stdin.is_some() => self.send(&mut stdin).await,
            }
        };
        drop(stdin);
        let last_words = async {
            while let Some(line) = lines.recv().await {
                self.line(line);
            }
        };
        let _ = timeout(LAST_WORDS, last_words).await;
        let code = status.and_then(|status| status.code());
        let opened = self.publish.borrow().last_echo.is_some();
        let failure = classify(&self.said, code, opened).about(&self.spec);
        let lesson = if opened { None } else { self.lesson(&failure, code) };
        self.publish.send_modify(|pulse| {
            pulse.lesson = lesson;
            pulse.ended = Some(failure);
        });
    }

    /// Sends one beat.
    async fn send(&mut self, stdin: &mut Option<ChildStdin>) {
        let Some(pipe) = stdin else { return };
        if self.beats.len() >= MAX_BEATS {
            return;
        }
        self.count += 1;
        self.beats.push_back((self.count, Instant::now()));
        // A line of its own, whatever a profile printed before it. At most 64 of them are on their way: they fit the
        // pipe, so this does not wait.
        if pipe.write_all(format!("\n{}{}\n", BEAT, self.count).as_bytes()).await.is_err() {
            *stdin = None;
        }
    }

    fn line(&mut self, line: Line) {
        match line {
            Line::Out(text) => {
                let Some(number) = text.trim_end().strip_prefix(BEAT).and_then(|digits| digits.parse().ok()) else {
                    return;
                };
                let now = Instant::now();
                let mut sent = None;
                while let Some((_, at)) = self.beats.pop_front_if(|(beat, _)| *beat <= number) {
                    sent = Some(at);
                }
                let Some(sent) = sent else { return };
                self.publish.send_modify(|pulse| {
                    if pulse.last_echo.replace(now).is_some() {
                        pulse.round_trip = Some(now.duration_since(sent));
                    }
                });
            }
            Line::Err(text) => {
                tracing::debug!(target = %self.spec.target, said = %clean(&text), "ssh");
                // The first channel is our own session; what else is refused was asked for by a client.
                let open = self.learned.no_session || self.publish.borrow().last_echo.is_some();
                if let Some(refusal) = channel_refusal(&clean(&text)).filter(|_| open) {
                    let refusal = refusal.about(&self.spec);
                    self.publish.send_modify(|pulse| {
                        pulse.refuse(refusal);
                    });
                }
                self.said.push(&text);
            }
        }
    }

    /// What an early end teaches about how to call ssh.
    fn lesson(&self, failure: &SshFailure, code: Option<i32>) -> Option<Learned> {
        let learned = self.learned;
        if failure.is_unknown_option() && !learned.old_client {
            return Some(Learned { old_client: true, ..learned });
        }
        if !learned.other_forwards && is_other_forwards(&self.said, &self.socket.to_string_lossy()) {
            return Some(Learned { other_forwards: true, ..learned });
        }
        (!learned.no_session && is_no_session(&self.said, code)).then_some(Learned { no_session: true, ..learned })
    }
}

/// Begins a beat's line.
pub(super) const BEAT: &str = "openclaw-beat ";

/// Asks ssh to end, then ends it.
async fn end(child: &mut Child) -> Option<std::process::ExitStatus> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It is still ours: nobody has waited for it yet.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if let Ok(status) = timeout(END_GRACE, child.wait()).await {
        return status.ok();
    }
    let _ = child.start_kill();
    child.wait().await.ok()
}
