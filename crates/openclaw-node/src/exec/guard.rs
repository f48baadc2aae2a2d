//! The guard: a small process between the node and each program it runs, which ends with the node and takes the program
//! along, whatever way the node ends.
//!
//! ```text
//! node ──socket──> guard ──> program (leader of its own process group)
//!        └ end of file or any byte: everything below the guard is killed
//! ```
//!
//! The kernel closes the node's end of the socket even after `kill -9`, so no program outlives it. On Linux the guard
//! also adopts what its program leaves behind, and so finds processes that made themselves a session of their own. A
//! program that ends by itself takes its process group along; what left the group on purpose (a daemon) stays.
//!
//! Everything below is synchronous and has no state but these few variables: it has to work when nothing else does.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How often what is left of a killed tree is looked for.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// How many times, at most: two seconds.
const SWEEPS: u32 = 400;

/// First words of the lines a guard writes to its socket: what became of the program.
pub(super) const STARTED: &str = "started";
pub(super) const FAILED: &str = "failed";
pub(super) const EXITED: &str = "exited";
pub(super) const SIGNALLED: &str = "signalled";

/// Runs `command` as the guard of the process at the other end of stdin, which is a socket. Environment, directory and
/// output are this process's own. Returns the guard's exit code, which says nothing: the socket does.
pub fn run(command: &[OsString]) -> u8 {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else { return 2 };
    let Ok(reader) = socket.try_clone() else { return 2 };
    let say = move |line: String| {
        // A node that is gone is told by the end of file, below.
        let _ = (&socket).write_all(line.as_bytes());
    };
    let Some((program, arguments)) = command.split_first() else {
        say(format!("{FAILED} no command\n"));
        return 2;
    };
    adopt_orphans();
    let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            say(format!("{FAILED} {}\n", one_line(&error.to_string())));
            return 1;
        }
    };
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return 2 };
    say(format!("{STARTED} {}\n", group.as_raw_nonzero()));

    // Taken out before the program is reaped: until then its number cannot become somebody else's.
    let target = Arc::new(Mutex::new(Some(group)));
    let killed = Arc::new(AtomicBool::new(false));
    let watcher = (Arc::clone(&target), Arc::clone(&killed));
    thread::spawn(move || watch(reader, &watcher.0, &watcher.1));

    let ended = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    {
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        kill_group(*target);
        *target = None;
    }
    drop(child);
    let status = waitid(WaitId::Pid(group), WaitIdOptions::EXITED).ok().flatten().or(ended.ok().flatten());
    if killed.load(Ordering::SeqCst) {
        sweep();
    }
    say(match status {
        Some(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("{EXITED} {code}\n"),
            (None, Some(signal)) => format!("{SIGNALLED} {signal}\n"),
            (None, None) => format!("{FAILED} the program ended in an unknown way\n"),
        },
        None => format!("{FAILED} the program could not be waited for\n"),
    });
    0
}

/// Waits for the node's word or end, then kills.
fn watch(mut socket: UnixStream, target: &Mutex<Option<Pid>>, killed: &AtomicBool) {
    let mut byte = [0];
    loop {
        match socket.read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    killed.store(true, Ordering::SeqCst);
    kill_group(*target.lock().unwrap_or_else(PoisonError::into_inner));
    sweep();
}

fn kill_group(group: Option<Pid>) {
    if let Some(group) = group {
        // An empty group is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(target_os = "linux")]
fn adopt_orphans() {
    // Without it the process group is still killed; only escaped sessions would be missed.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

/// Kills everything below this process until nothing is left.
#[cfg(target_os = "linux")]
fn sweep() {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..SWEEPS {
        let below = descendants(me);
        if below.is_empty() {
            return;
        }
        for process in below.into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        thread::sleep(SWEEP_PAUSE);
    }
}

#[cfg(not(target_os = "linux"))]
fn sweep() {}

/// Living processes below `root`, from one look at `/proc`.
#[cfg(target_os = "linux")]
fn descendants(root: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let processes: Vec<(i32, i32)> = entries
        .flatten()
        .filter_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name may hold anything, a parenthesis included; state and parent follow its last one.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
            (!matches!(state, "Z" | "X")).then_some((id, parent))
        })
        .collect();
    let mut below = vec![root];
    let mut at = 0;
    while let Some(parent) = below.get(at).copied() {
        below.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    below.split_off(1)
}
