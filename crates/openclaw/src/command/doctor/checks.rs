//! The checks, one function each. They look and do not touch, save for [`tighten`].

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use openclaw_config::{
    AuthMode, BindMode, Mode, SecretContext, SecretInput,
    credentials::Considered,
    env, files, schema, secret_ref,
    settings::{self, Flags},
};
use openclaw_gateway::bind;
use openclaw_remote::{Error as RemoteError, Target};

use super::{Exam, Severity, cure};
use crate::{
    command::{
        gateway_status::{Runtime, holder},
        paths::Entry,
        probe::{Probed, short},
    },
    context::{Context, Loaded},
    failure::Failure,
    output::inert,
};

/// Shorter shared secrets are called weak (checklist S-165: 32 or more hex digits).
const MIN_SECRET_LEN: usize = 32;

/// Owner and modes of everything private below the state directory.
pub fn state_directory(context: &Context, exam: &mut Exam) {
    let paths = &context.paths;
    exam.ran("state-dir");
    let show = |path: &Path| inert(&paths.display(path)).into_owned();
    if !paths.state_dir.exists() {
        exam.find("state-dir", Severity::Info, "There is no state directory yet; the first start makes it.")
            .at(show(&paths.state_dir));
        return;
    }
    if let Err(error) = files::check_ownership(&paths.state_dir) {
        exam.find("state-dir", Severity::Error, inert(&error.to_string()).into_owned()).at(show(&paths.state_dir));
        return;
    }
    exam.ran("permissions");
    let database = paths.state_db();
    let journal = |suffix: &str| PathBuf::from(format!("{}{suffix}", database.display()));
    let private = [
        paths.state_dir.clone(),
        paths.config_file.clone(),
        paths.dotenv(),
        paths.token_file(),
        paths.identity_file(),
        paths.device_auth_file(),
        paths.secret_store(),
        paths.last_known_good(),
        paths.lock_file(),
        database.clone(),
        journal("-wal"),
        journal("-shm"),
        paths.owner_socket(),
    ];
    let parents = [paths.identity_file(), paths.secret_store(), database.clone(), paths.tls_dir().join("x")];
    let directories = parents.iter().filter_map(|file| file.parent().map(Path::to_owned));
    for path in private.into_iter().chain(directories) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let (mode, ours) = (meta.permissions().mode() & 0o777, meta.uid() == rustix::process::geteuid().as_raw());
        if !ours && !meta.is_symlink() {
            exam.find("permissions", Severity::Error, format!("{} belongs to user id {}.", show(&path), meta.uid()))
                .at(show(&path));
        } else if mode & 0o077 != 0 && !meta.is_symlink() {
            exam.find(
                "permissions",
                Severity::Warning,
                format!("{} is open to others (mode {mode:03o}).", show(&path)),
            )
            .at(show(&path))
            .fix("openclaw doctor --fix");
            exam.loose.push(path);
        }
    }
}

/// Takes permissions away; the findings about them are dropped where it worked.
pub fn tighten(exam: &mut Exam) -> Vec<PathBuf> {
    let mut fixed = Vec::new();
    for path in std::mem::take(&mut exam.loose) {
        match files::tighten(&path) {
            Ok(()) => fixed.push(path),
            Err(error) => {
                exam.find("permissions", Severity::Error, inert(&error.to_string()).into_owned());
            }
        }
    }
    if !fixed.is_empty() {
        exam.findings.retain(|finding| finding.fix.as_deref() != Some("openclaw doctor --fix"));
    }
    fixed
}

pub fn config(context: &Context, exam: &mut Exam) -> Result<Loaded, Failure> {
    exam.ran("config");
    let loaded = context.config_for_diagnosis()?;
    match &loaded.problem {
        Some(problem) if problem.issues.is_empty() => {
            exam.find("config", Severity::Error, format!("The config cannot be read: {}", inert(&problem.summary)))
                .at(context.config_path())
                .fix("openclaw config undo");
        }
        Some(problem) => {
            let mut backup = context.paths.config_file.clone().into_os_string();
            backup.push(".bak");
            let can_undo = Path::new(&backup).exists();
            for issue in &problem.issues {
                let fix = match can_undo || issue.path.is_empty() {
                    true => "openclaw config undo".to_owned(),
                    false => format!("openclaw config unset {}", inert(&issue.path)),
                };
                exam.find("config", Severity::Error, inert(&issue.with_place()).into_owned())
                    .at(issue.path.clone())
                    .fix(fix);
            }
        }
        None => {
            for issue in schema::validate(&loaded.document).warnings {
                exam.find("config", Severity::Warning, inert(&issue.with_place()).into_owned())
                    .at(issue.path.clone())
                    .fix(format!("openclaw config unset {}", inert(&issue.path)));
            }
        }
    }
    Ok(loaded)
}

pub fn environment(context: &Context, exam: &mut Exam) {
    exam.ran("environment");
    if let Ok(cwd) = std::env::current_dir() {
        let names = env::ignored_cwd_dotenv(&cwd, &context.paths);
        if !names.is_empty() {
            let state = inert(&context.paths.display(&context.paths.dotenv())).into_owned();
            exam.find(
                "environment",
                Severity::Info,
                format!(
                    ".env in the working directory is not read; it names {}. Only {state} counts.",
                    names.join(", ")
                ),
            );
        }
    }
    let old: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("CLAWDBOT_"))
        .collect();
    for name in old {
        let new = name.replacen("CLAWDBOT_", "OPENCLAW_", 1);
        exam.find(
            "environment",
            Severity::Warning,
            format!("{} belongs to the older product and is ignored; {} counts.", inert(&name), inert(&new)),
        )
        .fix(format!("unset {}", inert(&name)));
    }
    if let Some(home) = &context.paths.home {
        // S-181: the tunnel agent of the older product name keeps the port.
        let plist = home.join("Library/LaunchAgents/com.openclaw.ssh-tunnel.plist");
        if plist.exists() {
            let path = plist.display().to_string();
            exam.find(
                "environment",
                Severity::Warning,
                "A leftover tunnel agent (com.openclaw.ssh-tunnel) may hold the port.",
            )
            .at(path.clone())
            .fix(format!("launchctl bootout gui/$UID/com.openclaw.ssh-tunnel; rm {path}"));
        }
    }
}

/// Strength and safety of what the gateway of this profile would accept.
pub fn gateway_secrets(loaded: &Loaded, context: SecretContext<'_>, exam: &mut Exam) {
    exam.ran("gateway-auth");
    let gateway = &loaded.gateway;
    if gateway.effective_mode() == Mode::Remote {
        return;
    }
    let bind = gateway.bind.unwrap_or(BindMode::Loopback);
    if gateway.auth.mode == Some(AuthMode::None) {
        let (severity, text) = if bind.leaves_loopback() {
            (
                Severity::Error,
                "gateway.auth.mode is none and gateway.bind leaves loopback: the gateway refuses to start.",
            )
        } else {
            (Severity::Warning, "gateway.auth.mode is none: every program on this machine operates the gateway.")
        };
        exam.find("gateway-auth", severity, text)
            .at("gateway.auth.mode")
            .fix("openclaw config set gateway.auth.mode token");
    }
    let inputs: [(&str, Option<&SecretInput>, &'static str); 2] = [
        (
            "gateway.auth.token",
            gateway.auth.token.as_ref(),
            "openclaw config set gateway.auth.token \"$(openssl rand -hex 32)\"",
        ),
        (
            "gateway.auth.password",
            gateway.auth.password.as_ref(),
            "openclaw config set gateway.auth.password <password>",
        ),
    ];
    for (path, input, fix) in inputs {
        let Some(input) = input else { continue };
        match secret_ref::resolve(input, &context) {
            Ok(Some(secret)) if secret.len() < MIN_SECRET_LEN => {
                let severity = if bind.leaves_loopback() { Severity::Warning } else { Severity::Info };
                exam.find(
                    "gateway-auth",
                    severity,
                    format!(
                        "{path} is {} characters long; {MIN_SECRET_LEN} or more are safe against guessing.",
                        secret.len()
                    ),
                )
                .at(path)
                .fix(fix);
            }
            Ok(_) => {}
            Err(error) => {
                exam.find(
                    "gateway-auth",
                    Severity::Error,
                    inert(&format!("{path} cannot be read: {}", error.reason)).into_owned(),
                )
                .at(path);
            }
        }
    }
}

pub fn port(context: &Context, target: &Target, exam: &mut Exam) {
    if !target.is_local() {
        return;
    }
    exam.ran("port");
    let port = target.url.port();
    let running = openclaw_remote::target::running_gateway(&context.paths).filter(|url| url.port() != port);
    if let (Some(url), true) = (&running, target.owner_socket.is_some()) {
        exam.find(
            "port",
            Severity::Info,
            format!(
                "The running gateway listens on port {}; the next one will on {port} ({}).",
                url.port(),
                target.local_port.source
            ),
        );
        return;
    }
    let by_env = target.local_port.source == "env OPENCLAW_GATEWAY_PORT";
    let free = openclaw_gateway::ports::listeners(port).is_empty();
    if let (Some(url), true, true) = (&running, by_env, free) {
        exam.find(
            "port",
            Severity::Error,
            format!(
                "Nothing listens on port {port}, which OPENCLAW_GATEWAY_PORT names; the gateway of this profile said that \
                 it listens on port {}.",
                url.port()
            ),
        )
        .fix("unset OPENCLAW_GATEWAY_PORT");
        return;
    }
    match Runtime::find(context, Mode::Local, port) {
        Runtime::Occupied(listeners) => {
            let holders: Vec<String> = listeners.iter().map(holder).collect();
            exam.find(
                "port",
                Severity::Error,
                format!("Port {port} is held by {}, which is not this profile's gateway.", holders.join(", ")),
            )
            .fix(format!("openclaw gateway --port {}", free_port_after(port)));
        }
        Runtime::NotRunning => {
            exam.find("port", Severity::Info, format!("Nothing listens on port {port}: no gateway runs here."))
                .fix("openclaw gateway");
        }
        Runtime::Running { .. } | Runtime::Remote | Runtime::Elsewhere => {}
    }
}

/// The next port nobody listens on.
fn free_port_after(port: u16) -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, *port)).is_ok();
    (port.saturating_add(1)..=u16::MAX).find(free).unwrap_or(0)
}

/// What is wrong with each path. One that works makes the others worth a warning, not more.
pub async fn reachability(
    target: &Target,
    loaded: &Loaded,
    considered: &[Considered],
    probed: &[(Entry, Probed)],
    exam: &mut Exam,
) {
    exam.ran("gateway");
    let works = probed.iter().any(|(_, probed)| probed.connected());
    for (entry, probed) in probed {
        let Some(error) = &probed.error else { continue };
        // Asking for config or status without the scope is no fault of the setup.
        if probed.scope_limited() {
            continue;
        }
        // The port check has said it already.
        if matches!(error, RemoteError::Connect { .. }) && target.is_local() {
            continue;
        }
        let severity = if works { Severity::Warning } else { Severity::Error };
        let stage = error.stage().as_str();
        let remedy = cure::of_path(loaded, considered, entry, error).await;
        let shown = inert(&entry.shown).into_owned();
        let nothing_sent = matches!(error.leading(), RemoteError::Auth(_))
            && entry.target.secrets().is_ok_and(|secrets| secrets.is_empty());
        let sent = if nothing_sent { "; no credential was found to send" } else { "" };
        let finding = exam.find("gateway", severity, format!("{shown}: {} (stage: {stage}){sent}", short(error)));
        finding.at(shown);
        if let Some(remedy) = remedy {
            finding.remedy(remedy);
        }
    }
}

/// Whether a gateway of this profile would start with this config.
pub fn would_start(context: &Context, loaded: &Loaded, exam: &mut Exam) {
    // Faults of the file as such have been told, and a client's machine runs none.
    if loaded.problem.is_some() || loaded.gateway.effective_mode() == Mode::Remote {
        return;
    }
    exam.ran("start");
    let flags = Flags::default();
    let settings = match settings::effective_server(&flags, &context.env, &loaded.document, &context.paths) {
        Ok(settings) => settings,
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let finding = exam.find("start", Severity::Error, format!("A gateway would not start: {}", inert(first)));
            if let Some(remedy) = cure::of_settings(loaded, &error) {
                finding.remedy(remedy);
            }
            return;
        }
    };
    let addresses = bind::local_addresses();
    if let Err(error) = bind::plan(settings.bind.value, settings.config.custom_bind_host, &addresses) {
        let text = error.to_string();
        let finding = exam.find("start", Severity::Error, format!("A gateway would not start: {}", inert(&text)));
        finding.at("gateway.bind");
        if let Some(remedy) = cure::of_bind(settings.bind.value) {
            finding.remedy(remedy);
        }
    }
}
