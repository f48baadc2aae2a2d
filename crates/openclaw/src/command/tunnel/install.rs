//! `openclaw tunnel install` and `uninstall`: a tunnel the system starts at login and keeps up.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{InstallArgs, UninstallArgs, place::Place};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    service::{
        manager::{Manager, Step},
        ssh_config::{self, Entry},
        tunnel::{self, Form, LABEL, OLD_LABELS, Tunnel, UNIT},
    },
};

/// `openclaw tunnel install`.
pub fn install(context: &Context, args: &InstallArgs) -> Outcome {
    let place = Place::find(context, &args.at)?;
    let manager = args.manager.unwrap_or(Manager::here());
    let form = match (args.supervisor, args.autossh) {
        (true, _) => Form::Supervisor,
        (_, true) => Form::Autossh,
        _ => Form::Ssh,
    };
    let tunnel = Tunnel {
        form,
        target: place.spec.target.clone(),
        identity: place.spec.identity.clone(),
        port: args.at.port.unwrap_or(place.spec.gateway_port),
        gateway_port: place.spec.gateway_port,
        program: program(form)?,
        supervisor: place.run_words(context, args.at.port),
        environment: if form == Form::Supervisor { environment(context) } else { Vec::new() },
    };
    let (service, file, text) = match manager {
        Manager::Systemd => (UNIT, tunnel::unit_path(&config_home(context)?), tunnel.unit()),
        Manager::Launchd => (LABEL, tunnel::agent_path(home(context)?, LABEL), tunnel.agent()),
    };
    let config = match (manager, form) {
        (Manager::Launchd, Form::Ssh) => Some(SshConfigChange::plan(home(context)?, &tunnel)?),
        _ => None,
    };
    if args.print {
        output::print(&text);
        if let Some(SshConfigChange::Write { entry, .. }) = &config {
            output::note(format!("\nIn ~/.ssh/config:\n\n{entry}"));
        }
        return Ok(0);
    }
    write_service(context, &file, &text, args.force)?;
    let style = context.output.out;
    let mut lines = vec![format!("{} {}", style.ok(), inert(&context.paths.display(&file)))];
    if let Some(change) = &config {
        lines.push(change.apply(context)?);
    }
    let steps = manager.start(service, &file);
    let problem = if args.no_start { None } else { steps.iter().find_map(|step| step.run().err()) };
    if args.at.json {
        let next: Vec<String> = steps.iter().map(Step::text).collect();
        output::json(&json!({
            "service": service, "file": file, "port": tunnel.port, "started": !args.no_start && problem.is_none(),
            "problem": problem, "commands": next,
        }));
        return Ok(u8::from(problem.is_some()));
    }
    match &problem {
        None if args.no_start => {
            lines.push("Start it with:".to_owned());
            lines.extend(commands(context, &steps));
        }
        None => lines.push(format!(
            "{} Started, now and at every login. Other programs reach the gateway at 127.0.0.1:{}.",
            style.ok(),
            tunnel.port
        )),
        Some(problem) => {
            lines.push(format!("{} Written, not started: {}", style.warn(), inert(problem)));
            lines.push("Start it with:".to_owned());
            lines.extend(commands(context, &steps));
        }
    }
    if manager == Manager::Systemd {
        lines.push(format!(
            "It stops when you log out of this machine, unless: {}",
            style.paint(Tone::Command, "loginctl enable-linger")
        ));
    }
    lines.extend(leftovers(context).iter().map(|left| format!("{} {left}", style.warn())));
    lines.push(format!("Undo: {}", style.paint(Tone::Command, "openclaw tunnel uninstall")));
    output::print(&(lines.join("\n") + "\n"));
    Ok(u8::from(problem.is_some()))
}

/// `openclaw tunnel uninstall`.
pub fn uninstall(context: &Context, args: &UninstallArgs) -> Outcome {
    let manager = args.manager.unwrap_or(Manager::here());
    let (service, file) = match manager {
        Manager::Systemd => (UNIT, tunnel::unit_path(&config_home(context)?)),
        Manager::Launchd => (LABEL, tunnel::agent_path(home(context)?, LABEL)),
    };
    let there = file.exists();
    if there {
        for step in manager.stop(service) {
            step.run().map_err(Failure::new)?;
        }
        fs::remove_file(&file).map_err(|error| cannot("remove", &file, &error))?;
        for step in manager.forget() {
            step.run().map_err(Failure::new)?;
        }
    }
    let config = SshConfigChange::remove(home(context)?)?;
    if args.json {
        output::json(&json!({"service": service, "file": file, "removed": there, "sshConfigChanged": config}));
        return Ok(0);
    }
    let style = context.output.out;
    let shown = inert(&context.paths.display(&file)).into_owned();
    output::line(match there {
        true => format!("{} Stopped and removed {shown}", style.ok()),
        false => format!("Nothing to remove: there is no {shown}"),
    });
    if config {
        output::line(format!("{} Removed the entry {} from ~/.ssh/config", style.ok(), tunnel::ALIAS));
    }
    for left in leftovers(context) {
        output::line(format!("{} {left}", style.warn()));
    }
    Ok(0)
}

/// Agents of earlier setups that still start a tunnel of their own, with what removes them (S-181).
pub fn leftovers(context: &Context) -> Vec<String> {
    let Some(home) = context.paths.home.as_deref() else { return Vec::new() };
    let found =
        OLD_LABELS.iter().map(|label| (label, tunnel::agent_path(home, label))).filter(|(_, file)| file.exists());
    found
        .map(|(label, file)| {
            let file = inert(&context.paths.display(&file)).into_owned();
            format!(
                "An older agent {label} would take the same port. Unload and delete it: launchctl bootout gui/$UID/{label}; \
                 rm {file}"
            )
        })
        .collect()
}

/// What happens to `~/.ssh/config`.
enum SshConfigChange {
    Write {
        file: PathBuf,
        text: String,
        entry: String,
    },
    /// The person wrote an entry of that name.
    TheirOwn,
}

impl SshConfigChange {
    fn plan(home: &Path, tunnel: &Tunnel) -> Result<Self, Failure> {
        let file = home.join(".ssh").join("config");
        let config = read(&file)?;
        if ssh_config::has_own_entry(&config) {
            return Ok(Self::TheirOwn);
        }
        let user = match tunnel.target.user() {
            Some(user) => user.to_owned(),
            None => {
                return Err(Failure::new(format!("The entry {} needs a user name.", tunnel::ALIAS))
                    .remedy("name it", format!("openclaw tunnel install user@{}", tunnel.target.host())));
            }
        };
        let default = PathBuf::from("~/.ssh/id_rsa");
        let entry = Entry {
            host: tunnel.target.host(),
            user: &user,
            ssh_port: tunnel.target.port(),
            port: tunnel.port,
            gateway_port: tunnel.gateway_port,
            identity: tunnel.identity.as_deref().unwrap_or(&default),
        };
        Ok(Self::Write { text: ssh_config::with_block(&config, &entry), entry: entry.text(), file })
    }

    fn apply(&self, context: &Context) -> Result<String, Failure> {
        let style = context.output.out;
        match self {
            Self::TheirOwn => Ok(format!(
                "{} ~/.ssh/config has an entry {} already; it is used as it is. It needs a LocalForward line.",
                style.warn(),
                tunnel::ALIAS
            )),
            Self::Write { file, text, .. } => {
                replace(file, text)?;
                Ok(format!("{} ~/.ssh/config: entry {}", style.ok(), tunnel::ALIAS))
            }
        }
    }

    /// Takes our entry out again; true if there was one.
    fn remove(home: &Path) -> Result<bool, Failure> {
        let file = home.join(".ssh").join("config");
        let config = read(&file)?;
        let without = ssh_config::without_block(&config);
        if without == config {
            return Ok(false);
        }
        replace(&file, &without)?;
        Ok(true)
    }
}

fn commands(context: &Context, steps: &[Step]) -> Vec<String> {
    let style = context.output.out;
    steps.iter().map(|step| format!("  {}", style.paint(Tone::Command, &step.text()))).collect()
}

fn program(form: Form) -> Result<PathBuf, Failure> {
    let find = |name: &str| {
        let usual = PathBuf::from("/usr/bin").join(name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Absolute entries only: what is written down must not depend on the current directory.
        let on_path = || std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
        Some(usual).filter(|file| file.is_file()).or_else(|| on_path().find(|file| file.is_file()))
    };
    match form {
        Form::Supervisor => std::env::current_exe()
            .map_err(|error| Failure::new(format!("This program's own path is unknown: {error}."))),
        Form::Ssh => find("ssh").ok_or_else(|| {
            Failure::new("There is no ssh on this machine.").remedy("install it", "sudo apt-get install openssh-client")
        }),
        Form::Autossh => find("autossh").ok_or_else(|| {
            Failure::new("There is no autossh on this machine.").remedy("install it", "sudo apt-get install autossh")
        }),
    }
}

/// What the supervisor needs to find the same profile when the system starts it.
fn environment(context: &Context) -> Vec<(String, String)> {
    use openclaw_config::env::{OPENCLAW_CONFIG_PATH, OPENCLAW_HOME, OPENCLAW_STATE_DIR};
    [OPENCLAW_HOME, OPENCLAW_STATE_DIR, OPENCLAW_CONFIG_PATH]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), context.env.get(name)?.to_owned())))
        .collect()
}

fn home(context: &Context) -> Result<&Path, Failure> {
    context.paths.home.as_deref().ok_or_else(|| Failure::new("HOME is not set, so there is no place for the file."))
}

fn config_home(context: &Context) -> Result<PathBuf, Failure> {
    match context.env.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(path) => Ok(path),
        None => home(context).map(|home| home.join(".config")),
    }
}

/// Writes the service; what somebody else wrote there is left alone without `--force`.
fn write_service(context: &Context, file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let present = read(file)?;
    let ours =
        present.is_empty() || present == text || present.contains("OpenClaw SSH Tunnel") || present.contains(LABEL);
    if !ours && !force {
        let shown = inert(&context.paths.display(file)).into_owned();
        return Err(Failure::new(format!("{shown} exists and was not written by this program."))
            .remedy("replace it", "openclaw tunnel install --force"));
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))?;
    }
    replace_with_mode(file, text, 0o644)
}

fn read(file: &Path) -> Result<String, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(cannot("read", file, &error)),
    }
}

/// Replaces a file whole, keeping its permissions; a link is followed, so that dot-file managers keep theirs.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mode = fs::metadata(&file).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    if let Some(directory) = file.parent()
        && !directory.exists()
    {
        fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory, private).map_err(|error| cannot("protect", directory, &error))?;
    }
    replace_with_mode(&file, text, mode)
}

fn replace_with_mode(file: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    openclaw_config::files::write_private_atomic(file, text.as_bytes())
        .map_err(|error| Failure::new(error.to_string()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).map_err(|error| cannot("set the mode of", file, &error))
}

fn cannot(what: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("Cannot {what} {}: {error}.", inert(&file.display().to_string())))
}
