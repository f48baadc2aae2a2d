//! The control socket: one JSON line asks, one answers. It is in a 0700 directory, 0600 itself, and both sides look at
//! each other's user id.
//!
//! `{"op":"status"}` → `{"ok":true,"status":{…}}`; `{"op":"down"}` → `{"ok":true}` when everything has ended;
//! `{"op":"retry"}` → `{"ok":true}`; anything else → `{"ok":false,"error":"…"}`.

use std::{io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{Status, TunnelDir};

/// Longest line either side accepts.
pub(super) const MAX_LINE_BYTES: u64 = 256 * 1024;
/// Asking is local and answered at once; `down` may wait for ssh to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    Status,
    /// End ssh, the listeners and the supervisor.
    Down,
    /// Try again now, also after a failure that stopped the trying.
    Retry,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the tunnel {name} is not running")]
    NotRunning { name: String },
    #[error("the supervisor of the tunnel {name} cannot be asked: {source}")]
    Io { name: String, source: io::Error },
    #[error("{} belongs to another user, so it is not asked", path.display())]
    Stranger { path: PathBuf },
    #[error("the supervisor of the tunnel {name} answered: {answer}")]
    Answer { name: String, answer: String },
}

/// How the tunnel is.
///
/// # Errors
/// [`ControlError::NotRunning`] when no supervisor is there.
pub async fn ask_status(dir: &TunnelDir) -> Result<Status, ControlError> {
    let answer = ask(dir, Request::Status).await?;
    let unreadable = || ControlError::Answer { name: dir.name().to_string(), answer: "no status".to_owned() };
    answer.status.map(|status| *status).ok_or_else(unreadable)
}

/// Ends the tunnel. Returns when ssh and the supervisor's listeners are gone.
///
/// # Errors
/// As [`ask_status`].
pub async fn ask_down(dir: &TunnelDir) -> Result<(), ControlError> {
    ask(dir, Request::Down).await.map(drop)
}

/// Tries again now.
///
/// # Errors
/// As [`ask_status`].
pub async fn ask_retry(dir: &TunnelDir) -> Result<(), ControlError> {
    ask(dir, Request::Retry).await.map(drop)
}

async fn ask(dir: &TunnelDir, request: Request) -> Result<Answer, ControlError> {
    let name = || dir.name().to_string();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning { name: name() },
        _ => ControlError::Io { name: name(), source },
    };
    let path = dir.control();
    let exchange = async {
        let stream = UnixStream::connect(&path).await.map_err(failed)?;
        if !is_ours(&stream).map_err(failed)? {
            return Err(ControlError::Stranger { path: path.clone() });
        }
        let mut stream = BufReader::new(stream);
        let mut line = serde_json::to_string(&request).map_err(|error| failed(error.into()))?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await.map_err(failed)?;
        let mut text = String::new();
        stream.take(MAX_LINE_BYTES).read_line(&mut text).await.map_err(failed)?;
        let answer: Answer = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
        if !answer.ok {
            let answer = answer.error.unwrap_or_else(|| "no".to_owned());
            return Err(ControlError::Answer { name: name(), answer });
        }
        Ok(answer)
    };
    match timeout(PATIENCE, exchange).await {
        Ok(done) => done,
        Err(_) => Err(ControlError::Io { name: name(), source: io::ErrorKind::TimedOut.into() }),
    }
}

/// True when the other side runs as this user.
pub(super) fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    Ok(stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw())
}

/// Reads one request.
pub(super) async fn read_request(stream: &mut BufReader<UnixStream>) -> Result<Request, String> {
    let mut text = String::new();
    let mut line = stream.take(MAX_LINE_BYTES);
    match timeout(PATIENCE, line.read_line(&mut text)).await {
        Ok(Ok(_)) => serde_json::from_str(&text).map_err(|error| format!("not a request: {error}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no request came".to_owned()),
    }
}

/// Writes one answer; a peer that is gone does not need it.
pub(super) async fn write_answer(stream: &mut BufReader<UnixStream>, answer: &Answer) {
    let Ok(mut line) = serde_json::to_string(answer) else { return };
    line.push('\n');
    let _ = timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
}
