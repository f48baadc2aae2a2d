//! `openclaw doctor`: what is wrong, why, and the command that cures it.
//!
//! Looks and does not touch. `--fix` takes permissions away from group and world, and nothing else;
//! `--generate-gateway-token` writes a token where there is none.

mod checks;
mod cure;
mod report;
mod talk;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use openclaw_protocol::error::Machine;
use openclaw_remote::{Remedy, Target, TargetError};

use super::{
    paths::{each_path, probe_all},
    probe::Depth,
};
use crate::{
    args::{self, PortTargetArgs},
    context::Context,
    failure::Outcome,
    output::{self, inert},
    reach::{Purpose, block_on},
};
pub use report::state_words;
use report::{Report, Token};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug)]
struct Finding {
    check: &'static str,
    severity: Severity,
    message: String,
    /// Config path or file it is about.
    path: Option<String>,
    /// One command that cures it.
    fix: Option<String>,
    /// It has to be typed on the gateway's host.
    there: bool,
}

/// Findings and the checks that ran.
#[derive(Default)]
struct Exam {
    findings: Vec<Finding>,
    ran: BTreeSet<&'static str>,
    /// Files and directories that are open to others.
    loose: Vec<PathBuf>,
}

impl Exam {
    fn ran(&mut self, check: &'static str) {
        self.ran.insert(check);
    }

    fn find(&mut self, check: &'static str, severity: Severity, message: impl Into<String>) -> &mut Finding {
        self.ran.insert(check);
        self.findings.push(Finding { check, severity, message: message.into(), path: None, fix: None, there: false });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

impl Finding {
    fn at(&mut self, path: impl Into<String>) -> &mut Self {
        self.path = Some(path.into());
        self
    }

    fn fix(&mut self, command: impl Into<String>) -> &mut Self {
        self.fix = Some(command.into());
        self
    }

    fn remedy(&mut self, remedy: Remedy) -> &mut Self {
        self.there = remedy.run_on == Machine::GatewayHost;
        self.fix(remedy.command)
    }
}
pub fn run(context: &Context, args: &args::Doctor) -> Outcome {
    if args.generate_gateway_token {
        return super::config::generate_token(context, args.json);
    }
    let mut exam = Exam::default();
    // First, since reading a private file tightens it.
    checks::state_directory(context, &mut exam);
    let fixed = if args.fix { checks::tighten(&mut exam) } else { Vec::new() };
    let loaded = checks::config(context, &mut exam)?;
    checks::environment(context, &mut exam);
    let at = PortTargetArgs::default();
    let secrets = context.secrets(&loaded.document);
    let target = Target::resolve(Purpose::Call, &context.flags(&at), &loaded.gateway, secrets);
    checks::gateway_secrets(&loaded, secrets, &mut exam);
    checks::would_start(context, &loaded, &mut exam);
    let mut considered = Vec::new();
    let mut probed = Vec::new();
    match &target {
        Ok(target) => {
            considered = match &target.credentials {
                Ok(resolution) => resolution.considered.clone(),
                Err(error) => error.considered.clone(),
            };
            checks::port(context, target, &mut exam);
            // Each path by itself: the one that works must not hide what is wrong with another.
            let resolve = || Target::resolve(Purpose::Call, &context.flags(&at), &loaded.gateway, secrets);
            let entries = each_path("target", "", resolve);
            probed = block_on(async {
                let _progress = context.output.progress(format!("Probing {} …", inert(&target.shown())));
                Ok(probe_all(context, entries, PROBE_TIMEOUT, Depth::Read).await)
            })?;
            block_on(async {
                checks::reachability(target, &loaded, &considered, &probed, &mut exam).await;
                if probed.iter().any(|(_, probed)| probed.connected()) {
                    let _progress = context.output.progress("Asking for the channels …".to_owned());
                    talk::channels(context, target, &mut exam).await;
                }
                Ok(())
            })?;
        }
        Err(error) => {
            if let TargetError::Credentials(error) = error {
                considered = error.considered.clone();
            }
            let failure = context.no_target(error, &at);
            let finding = exam.find("target", Severity::Error, inert(failure.message()).into_owned());
            if let Some(remedy) = cure::of_target(context, &loaded, error) {
                finding.remedy(remedy);
            }
        }
    }
    // Last: a gateway that runs and is reached comes before what it says.
    block_on(async {
        let _progress = context.output.progress("Asking for the model …".to_owned());
        talk::model(context, &loaded, &mut exam).await;
        Ok(())
    })?;
    let target = target.ok();
    let tokens = Token::all(context, target.as_ref());
    let report = Report { context, exam, considered, target, tokens, probed, fixed };
    if args.json {
        output::json(&report.to_json());
    } else {
        output::print(&report.render(context.output.out, args.why));
    }
    Ok(u8::from(report.exam.worst() >= Some(Severity::Warning)))
}
