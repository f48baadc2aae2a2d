//! Starting ssh as a child that cannot outlive us.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Stdio,
    sync::{OnceLock, mpsc},
};

use tokio::process::{Child, Command};

use super::{Interaction, Program, program::on_path};

/// Starts ssh with piped output.
///
/// When nobody is asked anything, Linux is told to end ssh with us (`setpriv --pdeathsig`): the session channel does that
/// as well, but not over a dead link, nor where there is no session.
pub(super) fn spawn(
    program: &Program,
    words: Vec<OsString>,
    interaction: Interaction,
    stdin: Stdio,
) -> io::Result<Child> {
    let guard = if interaction == Interaction::Batch { guard() } else { None };
    let before: Vec<&OsStr> = match guard {
        Some(setpriv) => vec![setpriv.as_os_str(), "--pdeathsig".as_ref(), "TERM".as_ref(), "--".as_ref()],
        None => Vec::new(),
    };
    let mut command = program.command(&before);
    command.args(words).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    if interaction == Interaction::Batch {
        // Ctrl-C in a terminal reaches us alone; we end ssh in our own order. A ssh that asks has to stay in the
        // terminal's foreground group.
        command.process_group(0);
    }
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    if guard.is_some() { spawn_for_life(command) } else { command.spawn() }
}

/// `setpriv`, if it knows `--pdeathsig` (busybox's does not).
fn guard() -> Option<&'static PathBuf> {
    static GUARD: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let setpriv = on_path("setpriv", &env::var_os("PATH")?)?;
        let mut trial = std::process::Command::new(&setpriv);
        trial.args(["--pdeathsig", "TERM", "--"]).arg(&setpriv).arg("--version");
        trial.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().ok()?.success().then_some(setpriv)
    };
    if cfg!(target_os = "linux") { GUARD.get_or_init(find).as_ref() } else { None }
}

/// Spawns from a thread that lives as long as this process: the kernel's death signal watches the thread, and a thread of
/// a pool may end any time.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Job = (Command, tokio::runtime::Handle, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, runtime, answer) in inbox {
                let _entered = runtime.enter();
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, child) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts ssh is gone");
    spawner.send((command, tokio::runtime::Handle::current(), answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
