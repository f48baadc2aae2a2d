//! One run of a program under a [guard](super::guard): its output, its end, and its death when it has to.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::{fd::OwnedFd, unix::net::UnixStream as StdSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Command,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::guard::{EXITED, FAILED, SIGNALLED, STARTED};

/// Output kept of one run, both streams together; the beginning is kept. The reference's number.
pub const OUTPUT_CAP_BYTES: usize = 200_000;
/// How long output may still come after the program has ended: what a daemon holds open is not waited for.
const DRAIN: Duration = Duration::from_millis(250);
/// How long a guard may take over killing what it guards.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 * 1024;
/// Most bytes of one piece of live output; the reference's gateway takes as much.
const CHUNK_BYTES: usize = 16_384;

/// How a guard is started: this very program, asked to be one.
#[derive(Clone, Debug)]
pub struct Guard {
    pub program: PathBuf,
    /// What comes before the command's own words.
    pub arguments: Vec<OsString>,
}

/// What to run.
#[derive(Debug)]
pub struct Run<'a> {
    pub argv: &'a [String],
    pub cwd: &'a Path,
    /// All of it; nothing else is inherited.
    pub env: &'a BTreeMap<String, String>,
    pub timeout: Option<Duration>,
    /// Output as it comes, for callers that show it. What of each stream was sent is always how that stream begins in
    /// the [`Outcome`]; a slow receiver gets larger pieces, and the rest with the outcome.
    pub live: Option<mpsc::Sender<Chunk>>,
}

/// A piece of output, at most 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub text: String,
    pub stderr: bool,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `None` when it was killed, or never started.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub stdout: String,
    pub stderr: String,
    /// Output was dropped.
    pub truncated: bool,
    /// Why it did not start.
    pub error: Option<String>,
}

impl Outcome {
    pub fn success(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out && self.error.is_none()
    }

    fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }
}

/// The run was cancelled; the program and all below it are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// Both streams, with one limit.
#[derive(Default)]
struct Captured {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: bool,
}

impl Captured {
    fn take(&mut self, bytes: &[u8], to_stderr: bool) {
        let left = OUTPUT_CAP_BYTES.saturating_sub(self.stdout.len() + self.stderr.len());
        let kept = &bytes[..bytes.len().min(left)];
        self.truncated |= kept.len() < bytes.len();
        if to_stderr { self.stderr.extend_from_slice(kept) } else { self.stdout.extend_from_slice(kept) }
    }
}

/// What was sent of the output while it came.
struct Live {
    receiver: mpsc::Sender<Chunk>,
    /// Bytes of each stream.
    stdout: usize,
    stderr: usize,
}

impl Live {
    /// The next piece to send, and how many bytes of its stream that are. Characters of which the end is still missing
    /// wait for it.
    fn next(&self, captured: &Captured) -> Option<(Chunk, usize)> {
        let piece = |bytes: &[u8], stderr: bool| {
            let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
            let whole = match std::str::from_utf8(bytes) {
                Ok(_) => bytes.len(),
                Err(error) => error.valid_up_to() + error.error_len().unwrap_or(0),
            };
            let text = || String::from_utf8_lossy(&bytes[..whole]).into_owned();
            (whole > 0).then(|| (Chunk { text: text(), stderr }, whole))
        };
        piece(&captured.stdout[self.stdout..], false).or_else(|| piece(&captured.stderr[self.stderr..], true))
    }

    fn sent(&mut self, stderr: bool, bytes: usize) {
        if stderr { self.stderr += bytes } else { self.stdout += bytes }
    }
}

/// Sends one piece as soon as there is one and the receiver has room. Cancel safe.
async fn send_live(live: &mut Option<Live>, captured: &Captured) {
    let Some(open) = live else { return std::future::pending().await };
    let Some((chunk, bytes)) = open.next(captured) else { return std::future::pending().await };
    let stderr = chunk.stderr;
    let sent = open.receiver.reserve().await.map(|room| room.send(chunk)).is_ok();
    if sent {
        open.sent(stderr, bytes);
    } else {
        *live = None;
    }
}

enum End {
    Exited,
    TimedOut,
    Cancelled,
    /// The guard itself is gone.
    Unguarded,
}

/// Runs a program to its end. Dropping the future kills it just as cancelling does.
///
/// # Errors
/// [`Cancelled`]. A program that does not start is an [`Outcome`] with an error.
pub async fn run(guard: &Guard, run: Run<'_>, cancel: &CancellationToken) -> Result<Outcome, Cancelled> {
    if cancel.is_cancelled() {
        return Err(Cancelled);
    }
    if let Err(reason) = usable_directory(run.cwd) {
        return Ok(Outcome::failed(reason));
    }
    let (mut child, socket) = match start(guard, &run) {
        Ok(started) => started,
        Err(error) => return Ok(Outcome::failed(format!("the program could not be guarded: {error}"))),
    };
    let (read_half, mut write_half) = socket.into_split();
    let mut lines = BufReader::new(read_half).lines();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut captured = Captured::default();
    let mut words: Option<String> = None;
    let deadline = run.timeout.map(|limit| Instant::now() + limit);
    let (mut out_buffer, mut err_buffer) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut live = run.live.map(|receiver| Live { receiver, stdout: 0, stderr: 0 });
    let mut group = None;

    let end = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break End::Cancelled,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break End::TimedOut,
            line = lines.next_line() => match line {
                Ok(Some(line)) if line.starts_with(STARTED) => {
                    group = line.split_whitespace().nth(1).and_then(|id| Pid::from_raw(id.parse().ok()?));
                }
                Ok(Some(line)) => {
                    words = Some(line);
                    break End::Exited;
                }
                _ => break End::Unguarded,
            },
            () = send_live(&mut live, &captured) => {}
            read = read_some(&mut stdout, &mut out_buffer) => captured.take(&out_buffer[..read], false),
            read = read_some(&mut stderr, &mut err_buffer) => captured.take(&err_buffer[..read], true),
        }
    };
    match end {
        End::Exited => {
            let drain = async {
                while stdout.is_some() || stderr.is_some() {
                    tokio::select! {
                        read = read_some(&mut stdout, &mut out_buffer) => captured.take(&out_buffer[..read], false),
                        read = read_some(&mut stderr, &mut err_buffer) => captured.take(&err_buffer[..read], true),
                    }
                }
            };
            let _ = timeout(DRAIN, drain).await;
        }
        End::TimedOut | End::Cancelled => {
            // Any byte means death; so does the end of the socket, should this write fail.
            let _ = write_half.write_all(b"k").await;
            while let Ok(Ok(Some(line))) = timeout(KILL_PATIENCE, lines.next_line()).await {
                words = Some(line);
            }
        }
        End::Unguarded => {
            // Somebody killed the guard: its program has lost its minder, not its life.
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    }
    // What there is room for; the rest comes with the outcome.
    while let Some(open) = &mut live
        && let Some((chunk, bytes)) = open.next(&captured)
    {
        let stderr = chunk.stderr;
        if open.receiver.try_send(chunk).is_err() {
            break;
        }
        open.sent(stderr, bytes);
    }
    drop((write_half, live));
    let _ = timeout(KILL_PATIENCE, child.wait()).await;
    match end {
        End::Cancelled => return Err(Cancelled),
        End::Unguarded => return Ok(Outcome::failed("the guard of the program was killed, and so was the program")),
        End::Exited | End::TimedOut => {}
    }
    let mut outcome = Outcome {
        timed_out: matches!(end, End::TimedOut),
        stdout: String::from_utf8_lossy(&captured.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&captured.stderr).into_owned(),
        truncated: captured.truncated,
        ..Outcome::default()
    };
    if let Some((what, rest)) = words.as_deref().and_then(|line| line.split_once(' ')) {
        match what {
            EXITED => outcome.exit_code = rest.parse().ok(),
            SIGNALLED => outcome.signal = rest.parse().ok(),
            FAILED if !outcome.timed_out => outcome.error = Some(rest.to_owned()),
            _ => {}
        }
    }
    Ok(outcome)
}

fn start(guard: &Guard, run: &Run<'_>) -> std::io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = StdSocket::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(&guard.program)
        .args(&guard.arguments)
        .args(run.argv)
        .current_dir(run.cwd)
        .env_clear()
        .envs(run.env)
        // A Ctrl-C at the node's terminal is for the node; it ends its programs in order.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

/// Reads what there is; at the end of the stream drops it, and then never is ready again.
async fn read_some<R: AsyncRead + Unpin>(stream: &mut Option<R>, buffer: &mut [u8]) -> usize {
    let Some(open) = stream else { return std::future::pending().await };
    match open.read(buffer).await {
        Ok(read) if read > 0 => read,
        _ => {
            *stream = None;
            0
        }
    }
}

/// The reference's words for a directory that is not there.
fn usable_directory(cwd: &Path) -> Result<(), String> {
    let problem = match std::fs::metadata(cwd) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => "is not a directory".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    Err(format!("node exec working directory {problem} on the node host: {}", cwd.display()))
}
