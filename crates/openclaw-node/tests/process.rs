//! Programs under the guard: output, limits, and above all that nothing outlives its request.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use openclaw_node::exec::process::{Cancelled, Chunk, Guard, OUTPUT_CAP_BYTES, Outcome, Run, run};
use tokio_util::sync::CancellationToken;

fn guard() -> Guard {
    Guard { program: env!("CARGO_BIN_EXE_openclaw-node-guard").into(), arguments: Vec::new() }
}

fn env() -> BTreeMap<String, String> {
    [("PATH".to_owned(), std::env::var("PATH").expect("a path")), ("MARK".to_owned(), "set".to_owned())].into()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn ran(argv: &[&str], limit: Option<Duration>, cancel: &CancellationToken) -> Result<Outcome, Cancelled> {
    let (argv, env) = (words(argv), env());
    run(&guard(), Run { argv: &argv, cwd: Path::new("/"), env: &env, timeout: limit, live: None }, cancel).await
}

async fn sh(script: &str) -> Outcome {
    ran(&["sh", "-c", script], None, &CancellationToken::new()).await.expect("not cancelled")
}

fn alive(pid: &str) -> bool {
    // A zombie is dead; only its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a script has written process ids, one a line.
fn pids(file: &Path, count: usize) -> Vec<String> {
    wait_for("process ids", || {
        let text = std::fs::read_to_string(file).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

/// Two processes that would run for an hour: one in the group of the script, one that left it for a session of its own.
fn long_lived(file: &Path) -> String {
    let file = file.display();
    format!("sleep 3600 & echo $! >> {file}; setsid sh -c 'echo $$ >> {file}; exec sleep 3600' & wait")
}

#[tokio::test]
async fn output_and_exit_code() {
    let outcome = sh("echo out; echo err >&2; exit 3").await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((outcome.exit_code, outcome.success(), outcome.timed_out), (Some(3), false, false));
    assert!(sh("true").await.success());
    assert_eq!(
        sh("pwd; echo $MARK; cat; echo $HOME").await.stdout,
        "/\nset\n\n",
        "own directory, environment, no stdin"
    );
    let killed = sh("kill -9 $$").await;
    assert_eq!((killed.exit_code, killed.signal), (None, Some(9)));
}

#[tokio::test]
async fn what_does_not_start_says_why() {
    let missing = ran(&["/no/such/program"], None, &CancellationToken::new()).await.unwrap();
    assert!(missing.error.as_deref().is_some_and(|error| error.contains("No such file")), "{missing:?}");
    let (argv, env) = (words(&["true"]), env());
    let nowhere = Run { argv: &argv, cwd: Path::new("/no/such/place"), env: &env, timeout: None, live: None };
    let nowhere = run(&guard(), nowhere, &CancellationToken::new()).await.unwrap();
    assert_eq!(
        nowhere.error.as_deref(),
        Some("node exec working directory does not exist on the node host: /no/such/place")
    );
}

#[tokio::test]
async fn output_is_bounded_and_the_program_still_ends() {
    let outcome = sh("yes | head -c 3000000; echo done >&2").await;
    assert_eq!(outcome.stdout.len() + outcome.stderr.len(), OUTPUT_CAP_BYTES);
    assert!(outcome.truncated && outcome.success());
}

#[tokio::test]
async fn live_output_comes_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!("echo first; until [ -e {} ]; do sleep 0.05; done; echo second", go.display());
    let (argv, env) = (words(&["sh", "-c", &script]), env());
    let (sender, mut live) = tokio::sync::mpsc::channel(16);
    let cancel = CancellationToken::new();
    let guard = guard();
    let running =
        run(&guard, Run { argv: &argv, cwd: Path::new("/"), env: &env, timeout: None, live: Some(sender) }, &cancel);
    let watching = async {
        assert_eq!(live.recv().await, Some(chunk("first\n", false)));
        std::fs::write(&go, "").unwrap();
        assert_eq!(live.recv().await, Some(chunk("second\n", false)));
    };
    let (outcome, ()) = tokio::join!(running, watching);
    assert_eq!(outcome.unwrap().stdout, "first\nsecond\n");
}

fn chunk(text: &str, stderr: bool) -> Chunk {
    Chunk { text: text.to_owned(), stderr }
}

/// However slowly it is taken, and wherever reads cut characters: each stream is sent from its beginning, without gaps,
/// in pieces that fit a frame.
#[tokio::test]
async fn live_output_is_the_beginning_of_all_output() {
    let script = "for i in $(seq 2000); do printf 'né%s€\\xff\n' $i; printf 'e%s\n' $i >&2; done";
    let script = script.replace("\\xff", "\\377");
    let (argv, env) = (words(&["sh", "-c", &script]), env());
    let (sender, mut live) = tokio::sync::mpsc::channel(1);
    let (cancel, guard) = (CancellationToken::new(), guard());
    let running =
        run(&guard, Run { argv: &argv, cwd: Path::new("/"), env: &env, timeout: None, live: Some(sender) }, &cancel);
    let watching = async {
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(Chunk { text, stderr }) = live.recv().await {
            assert!(!text.is_empty() && text.len() <= 3 * 16_384, "{}", text.len());
            tokio::task::yield_now().await;
            if stderr { err.push_str(&text) } else { out.push_str(&text) }
        }
        (out, err)
    };
    let (outcome, (out, err)) = tokio::join!(running, watching);
    let outcome = outcome.unwrap();
    assert!(outcome.stdout.starts_with("né1€\u{fffd}\n") && outcome.stderr.starts_with("e1\n"));
    assert!(!out.is_empty() && outcome.stdout.starts_with(&out));
    assert!(outcome.stderr.starts_with(&err));
}

#[tokio::test]
async fn a_timeout_kills_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let script = format!("echo before; {}", long_lived(&file));
    let outcome = tokio::spawn(async move {
        ran(&["sh", "-c", &script], Some(Duration::from_secs(3)), &CancellationToken::new()).await.unwrap()
    });
    let pids = tokio::task::spawn_blocking(move || pids(&file, 2)).await.unwrap();
    let outcome = outcome.await.unwrap();
    assert!(outcome.timed_out && !outcome.success());
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (None, "before\n"));
    for pid in pids {
        assert!(!alive(&pid), "{pid} lives");
    }
}

#[tokio::test]
async fn cancelling_kills_everything_and_so_does_dropping() {
    for drop_it in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pids");
        let (script, cancel) = (long_lived(&file), CancellationToken::new());
        let stop = cancel.clone();
        let running = tokio::spawn(async move { ran(&["sh", "-c", &script], None, &stop).await });
        let pids = tokio::task::spawn_blocking(move || pids(&file, 2)).await.unwrap();
        if drop_it {
            running.abort();
            let _ = running.await;
        } else {
            cancel.cancel();
            assert_eq!(running.await.unwrap(), Err(Cancelled));
        }
        let gone = || (!pids.iter().any(|pid| alive(pid))).then_some(());
        wait_for("end of the processes", gone);
    }
}

/// What a program leaves in its process group dies with it; a daemon that left the group was meant to stay.
#[tokio::test]
async fn what_stays_after_a_program_that_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let path = file.display();
    let script = format!(
        "sleep 3600 & echo $! >> {path}; setsid sh -c 'echo $$ >> {path}; exec sleep 3600' >/dev/null 2>&1 & \
         until [ $(wc -l < {path}) = 2 ]; do sleep 0.02; done; echo done"
    );
    let outcome = sh(&script).await;
    assert_eq!(outcome.stdout, "done\n");
    let pids = pids(&file, 2);
    let leader_of_own = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2).map(|group| group == pid))
            == Some(true)
    };
    let (daemons, others): (Vec<_>, Vec<_>) = pids.into_iter().partition(leader_of_own);
    wait_for("end of the one in the group", || (!others.iter().any(|pid| alive(pid))).then_some(()));
    assert_eq!(daemons.len(), 1, "the daemon stays");
    let daemon: i32 = daemons[0].parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(daemon).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
}

#[tokio::test]
async fn a_killed_guard_is_no_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // The script names its own guard: its parent.
    let script = format!("echo $PPID > {0}.guard; sleep 3600 & echo $! >> {0}; echo $$ >> {0}; wait", file.display());
    let running = tokio::spawn(async move { ran(&["sh", "-c", &script], None, &CancellationToken::new()).await });
    let (left, guard_file) = (file.clone(), file.with_extension("guard"));
    let left = tokio::task::spawn_blocking(move || pids(&left, 2)).await.unwrap();
    let guard: i32 = std::fs::read_to_string(guard_file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(guard).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let outcome = running.await.unwrap().unwrap();
    assert!(outcome.error.as_deref().is_some_and(|error| error.contains("guard")), "{outcome:?}");
    wait_for("end of the processes", || (!left.iter().any(|pid| alive(pid))).then_some(()));
}

/// The guard's whole purpose: its parent is killed without a chance to do anything.
#[test]
fn kill_9_of_the_parent_kills_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let guard = guard().program;
    // A parent that holds the socket and dies: python has socketpair and passes a file descriptor as stdin.
    let script = format!(
        "import os,socket,subprocess,time\n\
         a,b=socket.socketpair()\n\
         subprocess.Popen([{guard:?},'sh','-c',{command:?}],stdin=b,start_new_session=True)\n\
         b.close()\n\
         time.sleep(3600)\n",
        guard = guard.display().to_string(),
        command = long_lived(&file),
    );
    let Ok(mut parent) = Command::new("python3").args(["-c", &script]).stdin(Stdio::null()).spawn() else {
        eprintln!("SKIPPED kill_9_of_the_parent_kills_everything: python3 is not installed");
        return;
    };
    let pids = pids(&file, 2);
    assert!(pids.iter().all(|pid| alive(pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("end of the processes", || (!pids.iter().any(|pid| alive(pid))).then_some(()));
}
