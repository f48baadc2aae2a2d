//! `openclaw tunnel up`, `down` and `retry`.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use openclaw_protocol::error::Machine;
use openclaw_remote::tunnel::{ControlError, State, Status, TunnelDir, control};
use serde_json::json;

use super::{
    args::{At, DownArgs, NameArgs, RunArgs, UpArgs},
    list::{self, state_words},
    place::{self, Place},
};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::block_on,
};

/// How often a starting supervisor is asked how it is.
const POLL: Duration = Duration::from_millis(20);
/// How long a new supervisor may take to open its control socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// `openclaw tunnel up`.
pub fn up(context: &Context, args: &UpArgs) -> Outcome {
    if args.foreground {
        return super::supervise::run(context, &RunArgs { at: args.at.clone(), detach: false });
    }
    let place = Place::find(context, &args.at)?;
    let (status, fresh) = start(context, &place, args.at.port, Duration::from_millis(args.timeout))?;
    if args.at.json {
        output::json(&json!({"tunnel": status, "started": fresh}));
        return Ok(u8::from(status.state != State::Up));
    }
    if status.state != State::Up {
        return Err(not_up(context, &status));
    }
    let style = context.output.out;
    let verb = if fresh { "Up" } else { "Was up already" };
    let mut facts = vec![format!("{verb}: {} to {}", inert(&status.name), inert(&status.target))];
    facts.extend(status.rtt_ms.map(|ms| format!("round trip {ms:.1} ms")));
    output::line(format!("{} {}", style.ok(), facts.join(style.dot())));
    match (status.port, &status.port_refused) {
        (Some(port), None) => {
            output::line(format!("  Other programs: ws://127.0.0.1:{port} and http://127.0.0.1:{port}/"))
        }
        (Some(port), Some(refused)) => output::line(format!(
            "  {} Port {} could not be had ({}). Other programs: ws://127.0.0.1:{port}",
            style.warn(),
            refused.port,
            inert(&held(refused.port, &refused.reason))
        )),
        (None, Some(refused)) => output::line(format!(
            "  {} Port {} could not be had ({}).",
            style.warn(),
            refused.port,
            inert(&held(refused.port, &refused.reason))
        )),
        (None, None) => {}
    }
    let name = inert(&status.name).into_owned();
    output::line(format!("  Close it: {}", style.paint(Tone::Command, &format!("openclaw tunnel down {name}"))));
    Ok(0)
}

/// Who has a port, where that can be seen, else what the system said.
pub fn held(port: u16, reason: &str) -> String {
    let holders: Vec<String> = openclaw_gateway::ports::listeners(port)
        .iter()
        .map(|holder| match (holder.pid, &holder.command) {
            (Some(pid), Some(command)) => format!("held by pid {pid}, {command}"),
            (Some(pid), None) => format!("held by pid {pid}"),
            (None, _) => format!("held by a process of uid {}", holder.uid),
        })
        .collect();
    if holders.is_empty() { reason.to_owned() } else { holders.join("; ") }
}

/// Opens the tunnel of a saved gateway in the background and waits until it is up; for `connect`.
///
/// # Errors
/// Why it did not come up; the supervisor is ended then, if it was started here.
pub fn keep(context: &Context, name: &str, timeout: Duration) -> Result<Status, Failure> {
    let place = Place::find(context, &At { place: Some(name.to_owned()), ..At::default() })?;
    let (status, fresh) = start(context, &place, None, timeout)?;
    if status.state == State::Up {
        return Ok(status);
    }
    if fresh {
        let dir = place.dir(context);
        let _ = block_on(async { Ok(control::ask_down(&dir).await) });
    }
    Err(not_up(context, &status))
}

/// The state of the tunnel once it is up, has failed for good, or the time is over; and whether it was started here.
fn start(context: &Context, place: &Place, port: Option<u16>, timeout: Duration) -> Result<(Status, bool), Failure> {
    let dir = place.dir(context);
    block_on(async {
        if let Some(status) = running(&dir).await? {
            if status.origin != place.spec.origin() {
                return Err(Failure::new(format!(
                    "The tunnel {} is open and leads to {}.",
                    inert(&status.name),
                    inert(&status.target)
                ))
                .remedy("close it first", format!("openclaw tunnel down {}", inert(&status.name))));
            }
            if port.is_some_and(|port| status.port != Some(port)) {
                return Err(Failure::new(format!("The tunnel {} is open without that port.", inert(&status.name)))
                    .remedy("close it, then open it again", format!("openclaw tunnel down {}", inert(&status.name))));
            }
            if matches!(status.state, State::Failed | State::Waiting) {
                let _ = control::ask_retry(&dir).await;
            }
            return Ok((settle(context, &dir, None, timeout).await?, false));
        }
        let mut words = place.run_words(context, port);
        words.push("--detach".to_owned());
        let child = spawn(&words)?;
        Ok((settle(context, &dir, Some(child), timeout).await?, true))
    })
}

/// How the tunnel is, if it has a supervisor.
async fn running(dir: &TunnelDir) -> Result<Option<Status>, Failure> {
    match control::ask_status(dir).await {
        Ok(status) => Ok(Some(status)),
        Err(ControlError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(Failure::new(format!("{error}."))
            .remedy("close it, then open it again", format!("openclaw tunnel down {}", dir.name()))),
    }
}

/// The supervisor, in the background: it leaves our session by itself and writes its log to its own directory.
fn spawn(words: &[String]) -> Result<Child, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::new(format!("This program's own path is unknown: {error}.")))?;
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("The tunnel's process does not start: {error}.")))
}

async fn settle(
    context: &Context,
    dir: &TunnelDir,
    mut child: Option<Child>,
    timeout: Duration,
) -> Result<Status, Failure> {
    let progress = context.output.progress(format!("Opening the tunnel {} …", dir.name()));
    let started = Instant::now();
    loop {
        if let Some(status) = running(dir).await? {
            let done = matches!(status.state, State::Up | State::Failed | State::Stopped);
            if done || started.elapsed() >= timeout {
                return Ok(status);
            }
            if let Some(failure) = &status.last_failure {
                progress.say(format!("{} …", inert(&failure.message)));
            }
        } else {
            if let Some(child) = &mut child
                && let Ok(Some(_)) = child.try_wait()
            {
                return Err(died(child));
            }
            if started.elapsed() >= PATIENCE.min(timeout) {
                return Err(Failure::new("The tunnel's process gives no sign of life.")
                    .remedy("see what it did", format!("openclaw tunnel logs {}", dir.name())));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a supervisor said before it ended.
fn died(child: &mut Child) -> Failure {
    use std::io::Read as _;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 * 1024).read_to_string(&mut said);
    }
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let failure = Failure::new(
        lines.next().map_or_else(|| "The tunnel's process ended at once.".to_owned(), |line| inert(line).into_owned()),
    );
    lines.fold(failure, |failure, line| failure.detail(inert(line).into_owned()))
}

/// Why it is not up, and what to do.
fn not_up(context: &Context, status: &Status) -> Failure {
    let name = inert(&status.name).into_owned();
    let target = inert(&status.target).into_owned();
    let failure = Failure::new(format!("The tunnel {name} to {target} is not up: {}.", state_words(status)));
    let failure = match &status.last_failure {
        None => failure,
        Some(last) => {
            let failure = failure.detail(inert(&last.message).into_owned()).error_code(&last.code);
            match &last.remedy {
                Some(advice) if advice.run_on == Machine::GatewayHost => failure.there(&advice.what, &advice.command),
                Some(advice) => failure.remedy(&advice.what, &advice.command),
                None => failure,
            }
        }
    };
    let failure = match status.state {
        State::Failed => failure.remedy("when that is done", format!("openclaw tunnel retry {name}")),
        _ => failure.detail("It goes on trying in the background."),
    };
    failure
        .exit(openclaw_remote::Stage::Ssh.exit_code())
        .remedy("or give up", format!("openclaw tunnel down {name}"))
        .fact("Log", inert(&context.paths.display(&place_log(context, &status.name))).into_owned())
}

fn place_log(context: &Context, name: &str) -> std::path::PathBuf {
    context.paths.state_dir.join("tunnels").join(name).join("log")
}

/// `openclaw tunnel down`.
pub fn down(context: &Context, args: &DownArgs) -> Outcome {
    let dirs = match args.all {
        true => TunnelDir::all(&context.paths.state_dir),
        false => vec![place::existing(context, args.name.as_deref())?],
    };
    let mut closed = Vec::new();
    for dir in &dirs {
        match block_on(async { Ok(control::ask_down(dir).await) })? {
            Ok(()) => closed.push(dir.name().to_string()),
            Err(ControlError::NotRunning { .. }) => {}
            Err(error) => return Err(Failure::new(format!("{error}."))),
        }
    }
    if args.json {
        output::json(&json!({"closed": closed}));
        return Ok(0);
    }
    let style = context.output.out;
    if closed.is_empty() {
        output::line("Nothing to close: no such tunnel is open.");
    }
    for name in closed {
        output::line(format!("{} Closed {name}", style.ok()));
    }
    Ok(0)
}

/// `openclaw tunnel retry`.
pub fn retry(context: &Context, args: &NameArgs) -> Outcome {
    let dir = place::existing(context, args.name.as_deref())?;
    let asked = block_on(async { Ok(control::ask_retry(&dir).await) })?;
    if let Err(error) = asked {
        return Err(Failure::new(format!("{error}.")).remedy("open it", format!("openclaw tunnel up {}", dir.name())));
    }
    let status = block_on(settle(context, &dir, None, Duration::from_secs(20)))?;
    if args.json {
        output::json(&json!({"tunnel": status}));
        return Ok(u8::from(status.state != State::Up));
    }
    if status.state != State::Up {
        return Err(not_up(context, &status));
    }
    output::print(&list::render(context, &[list::Row::Running(status)]));
    Ok(0)
}
