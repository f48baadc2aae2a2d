//! What a command knows of this machine. Everything is read when it is first needed and not before.

use std::path::PathBuf;

use openclaw_config::{Document, Env, GatewayConfig, Issue, Paths, Profile, SecretContext, credentials::On, schema};

use openclaw_remote::ssh;

use crate::{
    args::{Root, SshImpl},
    failure::Failure,
    output::{self, Output, inert},
};

/// Environment, paths and output of one invocation.
pub struct Context {
    pub output: Output,
    pub env: Env,
    pub paths: Paths,
    /// `--on`.
    pub on: Option<On>,
}

/// The config as far as it can be used.
pub struct Loaded {
    pub document: Document,
    pub gateway: GatewayConfig,
    /// Why the file on disk is not in force, for diagnostics that run nevertheless.
    pub problem: Option<Problem>,
}

/// An unusable config file.
#[derive(Clone, Debug)]
pub struct Problem {
    pub summary: String,
    pub issues: Vec<Issue>,
}

impl Context {
    /// Resolves profile and paths; reads nothing but `<STATE_DIR>/.env`.
    pub fn new(root: &Root) -> Result<Self, Failure> {
        if let Some(which) = root.ssh_impl {
            ssh::Program::choose(match which {
                SshImpl::System => ssh::Implementation::System,
                SshImpl::Builtin => ssh::Implementation::Builtin,
            });
        }
        let mut env = Env::from_process();
        let profile = Profile::choose(root.dev, root.profile.as_deref())?;
        let paths = Paths::resolve(&env, profile)?;
        env.load_state_dotenv(&paths).map_err(|error| Failure::new(error.to_string()))?;
        let on = match root.on.as_deref() {
            Some(name) => Some(name.parse().map_err(|error| Failure::new(format!("--on: {error}.")))?),
            None => None,
        };
        Ok(Self { output: Output::detect(root.no_color), env, paths, on })
    }

    /// The config file's path for people.
    pub fn config_path(&self) -> String {
        inert(&self.paths.display(&self.paths.config_file)).into_owned()
    }

    /// Loads the config for a diagnostic, which runs on built-in settings when the file is unusable.
    pub fn config_for_diagnosis(&self) -> Result<Loaded, Failure> {
        let problem = match Document::load(&self.paths, &self.env) {
            Err(error) => Problem { summary: error.to_string(), issues: Vec::new() },
            Ok(document) => match GatewayConfig::read(&document) {
                Ok(gateway) => {
                    let errors = schema::validate(&document).errors;
                    let problem = (!errors.is_empty()).then(|| Problem { summary: summary(&errors), issues: errors });
                    return Ok(Loaded { document, gateway, problem });
                }
                Err(issues) => Problem { summary: summary(&issues), issues },
            },
        };
        let document = Document::empty(&self.paths);
        let gateway = GatewayConfig::read(&document)
            .map_err(|issues| Failure::new(format!("the built-in settings are invalid: {}", summary(&issues))))?;
        Ok(Loaded { document, gateway, problem: Some(problem) })
    }

    /// "OpenClaw config is invalid" with its issues.
    pub fn invalid(&self, problem: &Problem) -> Failure {
        let mut failure = Failure::new(format!("OpenClaw config is invalid: {}", self.config_path()));
        if problem.issues.is_empty() {
            failure = failure.detail(inert(&problem.summary).into_owned());
        }
        for issue in &problem.issues {
            failure = failure.detail(format!("  × {}", inert(&issue.with_place())));
        }
        let issues: Vec<_> = problem.issues.iter().map(Issue::to_json).collect();
        failure
            .remedy("go back to the last version", "openclaw config undo")
            .beside("issues", serde_json::Value::Array(issues))
    }

    pub fn secrets<'a>(&'a self, document: &'a Document) -> SecretContext<'a> {
        SecretContext { env: &self.env, doc: document, paths: &self.paths }
    }

    /// Tells once that the config file is not in force.
    pub fn note_problem(&self, problem: Option<&Problem>) {
        if let Some(problem) = problem {
            let mark = self.output.err.warn();
            output::note(format!("{mark} The config is invalid and not in force: {}", inert(&problem.summary)));
            output::note("  See it: openclaw config validate");
        }
    }

    /// Today's log file of this profile's gateway.
    pub fn log_file(&self) -> Result<PathBuf, Failure> {
        let loaded = self.config_for_diagnosis()?;
        let configured = loaded.document.get("logging.file").and_then(|node| node.as_str());
        Ok(openclaw_gateway::log::file_for(&self.paths, configured, &jiff::Zoned::now()))
    }
}

fn summary(issues: &[Issue]) -> String {
    match issues {
        [] => "unknown problem".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}
