//! `openclaw tunnel run`: the supervisor, as a process.

use openclaw_remote::{
    Stage,
    tunnel::{Settings, StartError, State, Supervisor},
};

use super::{args::RunArgs, list::state_words, place::Place};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert},
    reach::block_on,
};

/// Keeps a tunnel until it is told to stop: by a signal, or by `tunnel down`.
pub fn run(context: &Context, args: &RunArgs) -> Outcome {
    let place = Place::find(context, &args.at)?;
    if args.detach {
        // Fails only for a process that leads a group already, and then nothing has to be left.
        let _ = rustix::process::setsid();
    }
    let settings = Settings {
        gateway: place.gateway.clone(),
        port: args.at.port,
        ..Settings::new(place.dir(context), place.spec.clone())
    };
    block_on(async {
        let supervisor = Supervisor::start(settings).await.map_err(|error| refused(&error))?;
        let mut status = supervisor.watch();
        let talk = async {
            let style = context.output.err;
            let mut shown = None;
            loop {
                {
                    let now = status.borrow_and_update();
                    let line = (now.state, now.last_failure.as_ref().map(|failure| failure.at_ms));
                    if shown != Some(line) && !args.detach {
                        shown = Some(line);
                        let mark = match now.state {
                            State::Up => style.ok(),
                            State::Connecting => style.dot().trim().to_owned(),
                            State::Waiting => style.warn(),
                            State::Failed | State::Stopped => style.bad(),
                        };
                        let why = now.last_failure.as_ref().filter(|_| now.state != State::Up);
                        let why = why.map(|failure| format!(": {}", inert(&failure.message))).unwrap_or_default();
                        output::note(format!(
                            "{mark} {} to {}: {}{why}",
                            now.name,
                            inert(&now.target),
                            state_words(&now)
                        ));
                    }
                }
                if status.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = supervisor.run(stop_signal()) => {}
            () = talk => {}
        }
        Ok(0)
    })
}

/// Resolves at SIGINT, SIGTERM or SIGHUP of a terminal that went away.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

fn refused(error: &StartError) -> Failure {
    Failure::new(format!("{error}.")).exit(Stage::Ssh.exit_code())
}
