//! `openclaw gateway [run]`: hands the command line to the daemon.

use openclaw_config::settings::Flags;
use openclaw_gateway::run::{Options, run as run_gateway};
use openclaw_protocol::Secret;

use crate::{
    args::{GatewayRun, LogLevel},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, escape::inert_line},
};

/// Threads of the daemon's runtime: enough to use two cores, few enough to stay small.
const WORKER_THREADS: usize = 2;

pub fn run(context: Context, args: &GatewayRun, log_level: Option<LogLevel>) -> Outcome {
    let secret = |text: &Option<String>| text.as_deref().and_then(Secret::from_input);
    let flags = Flags {
        bind: args.bind.clone(),
        port: args.port.clone(),
        auth: args.auth.clone(),
        token: secret(&args.token),
        password: secret(&args.password),
        password_file: args.password_file.clone(),
        ..Flags::default()
    };
    if args.token.is_some() || args.password.is_some() {
        let mark = context.output.err.warn();
        output::note(format!(
            "{mark} Secrets in arguments are visible in the process list; the environment or --password-file is not."
        ));
    }
    if args.ws_log.is_some() || args.compact || args.cli_backend_logs {
        let mark = context.output.err.warn();
        output::note(format!(
            "{mark} --ws-log, --compact and --cli-backend-logs have no effect here; --verbose logs more."
        ));
    }
    let ignored = std::env::current_dir().map(|cwd| openclaw_config::env::ignored_cwd_dotenv(&cwd, &context.paths));
    if let Ok(names) = ignored
        && !names.is_empty()
    {
        let mark = context.output.err.warn();
        output::note(format!("{mark} .env in the working directory is not read; it names {}.", names.join(", ")));
    }
    let options = Options {
        paths: context.paths,
        env: context.env,
        flags,
        version: crate::version::SHORT,
        force: args.force,
        verbose: args.verbose || matches!(log_level, Some(LogLevel::Debug | LogLevel::Trace)),
        guards: super::node::guards()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("The system gives no event loop: {error}.")))?;
    match runtime.block_on(run_gateway(options)) {
        Ok(()) => Ok(0),
        Err(error) => {
            let text = error.to_string();
            // Whole: what to do next stands at the end.
            let mut lines = text.lines().map(|line| inert_line(line).into_owned());
            let failure = Failure::new(lines.next().unwrap_or_default()).exit(error.exit_code());
            Err(lines.fold(failure, Failure::detail))
        }
    }
}
