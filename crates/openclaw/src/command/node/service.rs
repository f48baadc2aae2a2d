//! `openclaw node install|start|stop|restart|status|uninstall`: the node host as a service of this user.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use openclaw_config::env;
use openclaw_node::settings::NodeSettings;
use serde_json::{Value, json};

use super::{
    args::{NodeInstall, NodeOptions},
    run,
    unit::{self, Unit},
};
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    service::manager::{Manager, Step, domain_target},
};

/// Where the service of this profile is written down.
struct Place {
    manager: Manager,
    /// Unit name or label.
    name: String,
    file: PathBuf,
}

impl Place {
    fn of(context: &Context, manager: Option<Manager>) -> Result<Self, Failure> {
        let manager = manager.unwrap_or(Manager::here());
        let profile = &context.paths.profile;
        let home =
            context.paths.home.clone().ok_or_else(|| Failure::new("The home directory is unknown: set HOME."))?;
        let config_home = context.env.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let (name, file) = match manager {
            Manager::Systemd => {
                let config_home = config_home.unwrap_or_else(|| home.join(".config"));
                (unit::unit_name(profile), unit::unit_path(&config_home, profile))
            }
            Manager::Launchd => (unit::label(profile), unit::agent_path(&home, profile)),
        };
        Ok(Self { manager, name, file })
    }
}

pub fn install(context: &Context, args: &NodeInstall) -> Outcome {
    let place = Place::of(context, args.manager)?;
    let settings = run::settle(context, &args.options)?;
    let unit = Unit {
        command: command(context, &args.options)?,
        environment: environment(context),
        log: context.paths.state_dir.join("logs").join("node.log"),
        profile: context.paths.profile.clone(),
    };
    let text = match place.manager {
        Manager::Systemd => unit.systemd(),
        Manager::Launchd => unit.launchd(),
    };
    if args.print {
        output::print(&text);
        return Ok(0);
    }
    if place.file.exists() && !args.force && fs::read_to_string(&place.file).is_ok_and(|old| old != text) {
        return Err(Failure::new(format!("The node service is installed already: {}.", shown(context, &place.file)))
            .detail("Nothing was changed.")
            .remedy("replace it", "openclaw node install --force"));
    }
    settings.save(&context.paths).map_err(|error| Failure::new(error.to_string()))?;
    if place.manager == Manager::Launchd
        && let Some(dir) = unit.log.parent()
    {
        openclaw_config::files::create_private_dir(dir).map_err(|error| Failure::new(error.to_string()))?;
    }
    write(&place.file, &text)?;
    let steps = place.manager.start(&place.name, &place.file);
    let problem = if args.no_start { None } else { steps.iter().find_map(|step| step.run().err()) };
    let started = !args.no_start && problem.is_none();
    let commands: Vec<String> = steps.iter().map(Step::text).collect();
    if args.json {
        output::json(&json!({
            "ok": problem.is_none(), "action": "install", "result": "installed", "service": place.name,
            "file": place.file, "started": started, "problem": problem, "commands": commands,
        }));
        return Ok(u8::from(problem.is_some()));
    }
    let style = context.output.out;
    let mut lines = vec![format!("{} {}", style.ok(), shown(context, &place.file))];
    match &problem {
        None if started => lines.push(format!("{} Started, now and at every login.", style.ok())),
        None => {}
        Some(problem) => lines.push(format!("{} Written, not started: {}", style.warn(), inert(problem))),
    }
    if !started {
        lines.push("Start it with:".to_owned());
        lines.extend(commands.iter().map(|command| format!("  {}", style.paint(Tone::Command, command))));
    }
    if needs_secret(context, &settings) {
        lines.push(format!(
            "{} The service does not get this terminal's OPENCLAW_GATEWAY_TOKEN. Pair once with {}, or put the token into {}.",
            style.warn(),
            style.paint(Tone::Command, "openclaw node run"),
            shown(context, &context.paths.dotenv())
        ));
    }
    if place.manager == Manager::Systemd {
        let linger = style.paint(Tone::Command, "loginctl enable-linger");
        lines.push(format!("It stops when you log out of this machine, unless: {linger}"));
    }
    lines.push(format!("Undo: {}", style.paint(Tone::Command, "openclaw node uninstall")));
    output::print(&(lines.join("\n") + "\n"));
    Ok(u8::from(problem.is_some()))
}

/// The command a service runs: this program and the options that were given. Setup codes are not among them.
fn command(context: &Context, options: &NodeOptions) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe().and_then(fs::canonicalize);
    let program = program.map_err(|error| Failure::new(format!("This program does not know where it is: {error}.")))?;
    let mut words = vec![program.display().to_string()];
    match context.paths.profile.name() {
        Some("dev") => words.push("--dev".to_owned()),
        Some(name) => words.extend(["--profile".to_owned(), name.to_owned()]),
        None => {}
    }
    words.extend(["node", "run"].map(str::to_owned));
    let port = options.port.map(|port| port.to_string());
    for (flag, value) in [
        ("--host", options.host.as_ref()),
        ("--port", port.as_ref()),
        ("--context-path", options.context_path.as_ref()),
        ("--tls-fingerprint", options.tls_fingerprint.as_ref()),
        ("--node-id", options.node_id.as_ref()),
        ("--display-name", options.display_name.as_ref()),
    ] {
        if let Some(value) = value {
            words.extend([flag.to_owned(), value.clone()]);
        }
    }
    for (flag, set) in [("--tls", options.tls), ("--no-tls", options.no_tls)] {
        if set {
            words.push(flag.to_owned());
        }
    }
    // Commands and variables are in the settings from now on.
    Ok(words)
}

/// What the service needs to find the same profile, and how it may dial. No secret is among it.
fn environment(context: &Context) -> Vec<(String, String)> {
    let names = [
        "PATH",
        env::OPENCLAW_STATE_DIR,
        env::OPENCLAW_CONFIG_PATH,
        env::OPENCLAW_HOME,
        env::OPENCLAW_ALLOW_INSECURE_PRIVATE_WS,
    ];
    names.into_iter().filter_map(|name| Some((name.to_owned(), context.env.get(name)?.to_owned()))).collect()
}

/// A secret is in the terminal's environment only, and no token of this node's own could stand in for it.
fn needs_secret(context: &Context, settings: &NodeSettings) -> bool {
    let from_process = |name: &str| context.env.source(name) == Some(openclaw_config::EnvSource::Process);
    let in_terminal = from_process(env::OPENCLAW_GATEWAY_TOKEN) || from_process(env::OPENCLAW_GATEWAY_PASSWORD);
    let paired = openclaw_config::identity::load(&context.paths)
        .ok()
        .flatten()
        .map(|key| openclaw_config::device_tokens::DeviceTokens::new(&context.paths, key.id()))
        .and_then(|tokens| tokens.list().ok())
        .is_some_and(|tokens| tokens.iter().any(|(_, token)| token.role == openclaw_protocol::Role::Node));
    in_terminal && !(paired && settings.gateway.is_some())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Start,
    Stop,
    Restart,
}

pub fn change(context: &Context, change: Change, as_json: bool) -> Outcome {
    let place = Place::of(context, None)?;
    let (action, done) = match change {
        Change::Start => ("start", "started"),
        Change::Stop => ("stop", "stopped"),
        Change::Restart => ("restart", "restarted"),
    };
    if !place.file.exists() {
        if change == Change::Stop {
            // There is nothing to stop, which is what was asked for.
            report(context, as_json, action, "not-installed", "The node service is not installed.");
            return Ok(0);
        }
        return Err(Failure::new("The node service is not installed.")
            .remedy("install it", "openclaw node install")
            .remedy("or run it here", "openclaw node run"));
    }
    let words: Vec<String> = match (place.manager, change) {
        (Manager::Systemd, _) => ["systemctl", "--user", action, &place.name].map(str::to_owned).to_vec(),
        (Manager::Launchd, Change::Stop) => {
            ["launchctl", "bootout", &domain_target(&place.name)].map(str::to_owned).to_vec()
        }
        (Manager::Launchd, _) => {
            // Loading it again starts it; a loaded one is restarted.
            for step in place.manager.start(&place.name, &place.file) {
                step.run().map_err(Failure::new)?;
            }
            report(context, as_json, action, done, &format!("The node service was {done}."));
            return Ok(0);
        }
    };
    Step { words, optional: false }.run().map_err(Failure::new)?;
    report(context, as_json, action, done, &format!("The node service was {done}."));
    Ok(0)
}

fn report(context: &Context, as_json: bool, action: &str, result: &str, text: &str) {
    if as_json {
        output::json(&json!({"ok": true, "action": action, "result": result}));
    } else {
        output::line(format!("{} {text}", context.output.out.ok()));
    }
}

pub fn uninstall(context: &Context, as_json: bool) -> Outcome {
    let place = Place::of(context, None)?;
    let there = place.file.exists();
    if there {
        for step in place.manager.stop(&place.name) {
            step.run().map_err(Failure::new)?;
        }
        fs::remove_file(&place.file)
            .map_err(|error| Failure::new(format!("cannot remove {}: {error}", shown(context, &place.file))))?;
        for step in place.manager.forget() {
            step.run().map_err(Failure::new)?;
        }
    }
    let (result, text) = match there {
        true => ("uninstalled", format!("Stopped and removed {}", shown(context, &place.file))),
        false => ("not-installed", format!("Nothing to remove: there is no {}", shown(context, &place.file))),
    };
    report(context, as_json, "uninstall", result, &text);
    Ok(0)
}

pub fn status(context: &Context, as_json: bool) -> Outcome {
    let place = Place::of(context, None)?;
    let installed = place.file.exists();
    let runtime = runtime(&place);
    let loaded = installed && runtime["loaded"] == true;
    if as_json {
        let label = if place.manager == Manager::Systemd { "systemd" } else { "LaunchAgent" };
        let (yes, no) =
            if place.manager == Manager::Systemd { ("enabled", "disabled") } else { ("loaded", "not loaded") };
        let mut shown = runtime;
        shown.as_object_mut().map(|runtime| runtime.remove("loaded"));
        output::json(&json!({"service": {
            "label": label, "loaded": loaded, "loadedText": yes, "notLoadedText": no,
            "command": installed.then(|| json!({"sourcePath": place.file})), "runtime": shown,
        }}));
        return Ok(0);
    }
    let style = context.output.out;
    let state = runtime["status"].as_str().unwrap_or("unknown");
    let detail = runtime["detail"].as_str().map(|detail| format!(" ({})", inert(detail))).unwrap_or_default();
    let written = match installed {
        true => format!("{} {}", style.ok(), shown(context, &place.file)),
        false => format!("{} not installed: {}", style.warn(), style.paint(Tone::Command, "openclaw node install")),
    };
    output::line(format!("Service: {written}\nRuntime: {state}{detail}"));
    Ok(0)
}

/// What the service manager knows: `{status, detail?, pid?, loaded}`.
fn runtime(place: &Place) -> Value {
    let asked = match place.manager {
        Manager::Systemd => {
            let properties = "--property=ActiveState,SubState,MainPID,UnitFileState";
            Command::new("systemctl").args(["--user", "show", &place.name, properties]).stdin(Stdio::null()).output()
        }
        Manager::Launchd => {
            Command::new("launchctl").args(["print", &domain_target(&place.name)]).stdin(Stdio::null()).output()
        }
    };
    let output = match asked {
        Ok(output) => output,
        Err(_) => {
            return json!({"status": "unknown", "detail": "No supported service manager detected.", "loaded": false});
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let why =
            String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it does not answer").trim().to_owned();
        // launchd fails for an agent it does not know, systemd when it is not there at all.
        let status = if place.manager == Manager::Launchd { "stopped" } else { "unknown" };
        return json!({"status": status, "detail": why, "loaded": false});
    }
    match place.manager {
        Manager::Systemd => systemd_runtime(&said),
        Manager::Launchd => {
            let running = said.lines().any(|line| line.trim() == "state = running");
            json!({"status": if running { "running" } else { "stopped" }, "loaded": true})
        }
    }
}

fn systemd_runtime(said: &str) -> Value {
    let of = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let (active, sub) = (of("ActiveState"), of("SubState"));
    let status = match active {
        "active" => "running",
        "inactive" | "failed" => "stopped",
        _ => "unknown",
    };
    let mut runtime = json!({"status": status, "detail": format!("{active}/{sub}")});
    if let Some(pid) = of("MainPID").parse::<u32>().ok().filter(|pid| *pid > 0) {
        runtime["pid"] = json!(pid);
    }
    runtime["loaded"] = json!(matches!(of("UnitFileState"), "enabled" | "enabled-runtime"));
    runtime
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", file.display()));
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).map_err(cannot)?;
    }
    // A half-written unit is never read: systemd and launchd look when they are told to.
    let beside = file.with_extension("new");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, file)).map_err(cannot)
}

fn shown(context: &Context, file: &Path) -> String {
    inert(&context.paths.display(file)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says() {
        let running = "ActiveState=active\nSubState=running\nMainPID=42\nUnitFileState=enabled\n";
        assert_eq!(
            systemd_runtime(running),
            json!({"status": "running", "detail": "active/running", "pid": 42, "loaded": true})
        );
        let absent = "ActiveState=inactive\nSubState=dead\nMainPID=0\nUnitFileState=\n";
        assert_eq!(systemd_runtime(absent), json!({"status": "stopped", "detail": "inactive/dead", "loaded": false}));
    }
}
