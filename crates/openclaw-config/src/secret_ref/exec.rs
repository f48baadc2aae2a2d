//! Source `exec`: a program that is asked for secrets over its standard input, without a shell.
//!
//! It gets `{"protocolVersion":1,"provider":…,"ids":[…]}` and answers
//! `{"protocolVersion":1,"values":{id: text},"errors":{id:{message}}}`; with `jsonOnly: false` plain text is a value.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use openclaw_protocol::Secret;
use serde_json::{Value, json};

use super::{SecretContext, limit, texts};
use crate::{document::Node, files};

/// Milliseconds a program may take, and be silent, unless its provider says otherwise.
const TIMEOUT_MS: u64 = 5_000;
/// Largest answer unless the provider says otherwise: 1 MiB.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

pub(super) fn read(id: &str, alias: &str, provider: &Node, context: &SecretContext<'_>) -> Result<Secret, String> {
    let program = program(provider, context)?;
    let mut command = Command::new(&program);
    command.args(texts(provider, "args")).env_clear().current_dir("/");
    for name in texts(provider, "passEnv") {
        if let Some(value) = context.env.get(name) {
            command.env(name, value);
        }
    }
    for (name, value) in provider.entry("env").and_then(Node::as_object).unwrap_or_default() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let request = json!({"protocolVersion": 1, "provider": alias, "ids": [id]}).to_string();
    let answer = run(command, request, provider)?;
    let text = String::from_utf8(answer).map_err(|_| "its program did not answer in UTF-8".to_owned())?;
    pick(id, &text, provider.entry("jsonOnly").and_then(Node::as_bool).unwrap_or(true))
}

/// The program: an absolute path, a file of ours or root's that others cannot write, and a link only into trusted
/// directories.
fn program(provider: &Node, context: &SecretContext<'_>) -> Result<PathBuf, String> {
    let text = provider.entry("command").and_then(Node::as_str).ok_or("its provider has no command")?;
    let path = context.paths.expand(text);
    if !path.is_absolute() {
        return Err("the command of its provider is not an absolute path".to_owned());
    }
    let shown = path.display().to_string();
    let real = std::fs::canonicalize(&path).map_err(|e| format!("cannot find {shown}: {e}"))?;
    let trusted = texts(provider, "trustedDirs").into_iter().filter_map(|dir| std::fs::canonicalize(dir).ok());
    let trusted: Vec<_> = trusted.collect();
    let is_trusted = trusted.iter().any(|dir| real.starts_with(dir));
    if path.is_symlink() && !is_trusted {
        return Err(format!(
            "{shown} is a symbolic link; name its target, or add the target's directory to trustedDirs"
        ));
    }
    if !trusted.is_empty() && !is_trusted {
        return Err(format!("{shown} lies outside trustedDirs"));
    }
    require_safe(&real)?;
    Ok(real)
}

fn require_safe(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let meta = std::fs::metadata(program).map_err(|e| format!("cannot look at {shown}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a program"));
    }
    if (meta.uid() != files::our_uid() && meta.uid() != 0) || meta.mode() & 0o022 != 0 {
        return Err(format!("{shown} belongs to another user or can be written by others"));
    }
    Ok(())
}

fn run(mut command: Command, request: String, provider: &Node) -> Result<Vec<u8>, String> {
    let deadline = Duration::from_millis(limit(provider, "timeoutMs", TIMEOUT_MS));
    let silence = Duration::from_millis(limit(provider, "noOutputTimeoutMs", TIMEOUT_MS));
    let max = usize::try_from(limit(provider, "maxOutputBytes", MAX_OUTPUT_BYTES)).unwrap_or(usize::MAX);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own, so that what it starts ends with it.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start its program: {e}"))?;
    let mut guard = Guard { child, ended: false };
    let (Some(mut stdin), Some(mut stdout)) = (guard.child.stdin.take(), guard.child.stdout.take()) else {
        return Err("cannot talk to its program".to_owned());
    };
    // Threads, because either pipe may fill while the other waits. Both end when the group is killed.
    std::thread::spawn(move || {
        // A program that needs no request may close its input first.
        let _ = stdin.write_all(request.as_bytes());
    });
    let (sender, chunks) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut answer = Vec::new();
    loop {
        let left = deadline.checked_sub(start.elapsed()).ok_or_else(|| "its program took too long".to_owned())?;
        match chunks.recv_timeout(left.min(silence)) {
            Ok(chunk) if answer.len() + chunk.len() > max => return Err("its program answered too much".to_owned()),
            Ok(chunk) => answer.extend(chunk),
            Err(RecvTimeoutError::Timeout) => return Err("its program took too long".to_owned()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Its output is closed; it has until the deadline to end.
    loop {
        match guard.child.try_wait() {
            Ok(Some(status)) => {
                guard.ended = true;
                return if status.success() { Ok(answer) } else { Err(format!("its program failed ({status})")) };
            }
            Ok(None) if start.elapsed() < deadline => std::thread::sleep(Duration::from_millis(2)),
            _ => return Err("its program took too long".to_owned()),
        }
    }
}

/// Ends the program and its group on every way out but its own end.
struct Guard {
    child: Child,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The child is not reaped yet, so its id and its group's still belong to it.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pick(id: &str, answer: &str, json_only: bool) -> Result<Secret, String> {
    let parsed: Result<Value, _> = serde_json::from_str(answer);
    match parsed {
        Ok(Value::Object(object)) => {
            if object.get("protocolVersion") != Some(&json!(1)) {
                return Err("its program did not answer with protocolVersion 1".to_owned());
            }
            if let Some(value) = object.get("values").and_then(|values| values.get(id)) {
                return value.as_str().map(Secret::new).ok_or_else(|| "its program's value is no text".to_owned());
            }
            // The message is the program's own; only the fact of it is passed on, as it might hold a secret.
            let refused = object.get("errors").and_then(|errors| errors.get(id)).is_some();
            Err(if refused {
                format!("its program reports an error for {id}")
            } else {
                format!("its program has no {id}")
            })
        }
        Ok(Value::String(text)) if !json_only => Ok(Secret::new(text)),
        _ if !json_only => Ok(Secret::new(answer.trim_end_matches(['\r', '\n']))),
        _ => Err("its program did not answer in JSON".to_owned()),
    }
}
