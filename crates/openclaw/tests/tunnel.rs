//! `openclaw tunnel` as far as it needs no ssh: what is written for the system, and what is refused.

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Ran, World};

/// A world whose `systemctl`, `launchctl`, `ssh` and `autossh` write down what they are asked.
struct Desk {
    world: World,
    bin: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let world = World::new();
        let bin = world.dir.path().join("bin");
        fs::create_dir_all(&bin).expect("creates");
        fs::create_dir_all(world.dir.path().join("home")).expect("creates");
        for name in ["systemctl", "launchctl", "ssh", "autossh"] {
            let text = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n", bin.join("asked").display());
            fs::write(bin.join(name), text).expect("writes");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("sets the mode");
        }
        Self { world, bin }
    }

    fn home(&self) -> PathBuf {
        self.world.dir.path().join("home")
    }

    fn run(&self, line: &[&str]) -> Ran {
        let mut command = self.world.command(line);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.bin.display())).stdin(std::process::Stdio::null());
        Ran::from(command.output().expect("runs"))
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.bin.join("asked")).unwrap_or_default()
    }

    fn unit(&self) -> PathBuf {
        self.home().join(".config/systemd/user/openclaw-tunnel.service")
    }

    fn agent(&self) -> PathBuf {
        self.home().join("Library/LaunchAgents/ai.openclaw.ssh-tunnel.plist")
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn s_051_to_s_053_a_systemd_unit_comes_and_goes() {
    let desk = Desk::new();
    let ran = desk.run(&["tunnel", "install", "me@gateway-host", "--manager", "systemd"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let unit = read(&desk.unit());
    assert!(unit.contains("-N -L 18789:127.0.0.1:18789 -o ServerAliveInterval=60 "), "{unit}");
    assert!(unit.contains("Restart=always\nRestartSec=10\n") && unit.contains("WantedBy=default.target"), "{unit}");
    let asked = desk.asked();
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(
        asked,
        [
            "systemctl --user daemon-reload",
            "systemctl --user enable openclaw-tunnel.service",
            "systemctl --user restart openclaw-tunnel.service",
        ]
    );
    assert!(ran.out.contains("openclaw tunnel uninstall"), "the undo is told: {ran:?}");
    // systemd itself finds nothing to complain about, where it is installed.
    if let Ok(checked) = Command::new("systemd-analyze").args(["verify", "--user"]).arg(desk.unit()).output() {
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!said.contains("openclaw-tunnel.service:"), "{said}");
    } else {
        eprintln!("SKIPPED systemd-analyze verify: it is not installed");
    }

    let ran = desk.run(&["tunnel", "uninstall", "--manager", "systemd"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!desk.unit().exists());
    assert!(desk.asked().contains("systemctl --user disable --now openclaw-tunnel.service"));
    let again = desk.run(&["tunnel", "uninstall", "--manager", "systemd"]);
    assert_eq!((again.code, again.out.contains("Nothing to remove")), (0, true), "{again:?}");
}

#[test]
fn s_055_and_the_supervisor_are_forms_of_it() {
    let desk = Desk::new();
    let autossh = desk.run(&["tunnel", "install", "me@box", "--manager", "systemd", "--autossh", "--print"]);
    assert!(autossh.out.contains("/autossh -M 0 -N -L 18789:127.0.0.1:18789 "), "{autossh:?}");
    let words =
        ["tunnel", "install", "me@box:2222", "--manager", "systemd", "--supervisor", "--print", "--port", "28000"];
    let ours = desk.run(&words);
    assert!(ours.out.contains(" tunnel run ssh://me@box:2222 --port 28000\n"), "{ours:?}");
    assert!(!desk.unit().exists() && desk.asked().is_empty(), "--print writes and asks nothing");
}

#[test]
fn s_173_to_s_179_a_launch_agent_and_its_ssh_entry_come_and_go() {
    let desk = Desk::new();
    let config = desk.home().join(".ssh/config");
    fs::create_dir_all(config.parent().expect("parent")).expect("creates");
    fs::write(&config, "Host other\n    User me\n").expect("writes");
    let ran = desk.run(&["tunnel", "install", "me@192.0.2.7", "--manager", "launchd"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let agent = read(&desk.agent());
    assert!(agent.contains("<string>-N</string>") && agent.contains("<string>remote-gateway</string>"), "{agent}");
    let written = read(&config);
    for line in ["Host remote-gateway", "HostName 192.0.2.7", "User me", "LocalForward 18789 127.0.0.1:18789"] {
        assert!(written.lines().any(|found| found.trim() == line), "{line} in {written}");
    }
    assert!(written.starts_with("Host other\n    User me\n"));
    let uid = rustix::process::getuid().as_raw();
    let bootstrap = format!("launchctl bootstrap gui/{uid} {}", desk.agent().display());
    assert!(desk.asked().lines().any(|line| line == bootstrap), "{}", desk.asked());

    let ran = desk.run(&["tunnel", "uninstall", "--manager", "launchd"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!desk.agent().exists());
    assert_eq!(read(&config).trim_end(), "Host other\n    User me");
}

#[test]
fn s_181_an_older_agent_is_told_how_to_go() {
    let desk = Desk::new();
    let old = desk.home().join("Library/LaunchAgents/com.openclaw.ssh-tunnel.plist");
    fs::create_dir_all(old.parent().expect("parent")).expect("creates");
    fs::write(&old, "x").expect("writes");
    let ran = desk.run(&["tunnel", "install", "me@192.0.2.7", "--manager", "launchd"]);
    let told =
        "launchctl bootout gui/$UID/com.openclaw.ssh-tunnel; rm ~/Library/LaunchAgents/com.openclaw.ssh-tunnel.plist";
    assert!(ran.out.contains(told), "{ran:?}");
}

#[test]
fn what_somebody_else_wrote_stays() {
    let desk = Desk::new();
    fs::create_dir_all(desk.unit().parent().expect("parent")).expect("creates");
    fs::write(desk.unit(), "[Unit]\nDescription=mine\n").expect("writes");
    let ran = desk.run(&["tunnel", "install", "me@box", "--manager", "systemd"]);
    assert_eq!((ran.code, read(&desk.unit()).as_str()), (1, "[Unit]\nDescription=mine\n"), "{ran:?}");
    assert!(ran.err.contains("--force"), "{ran:?}");
    assert_eq!(desk.run(&["tunnel", "install", "me@box", "--manager", "systemd", "--force"]).code, 0);
    assert!(read(&desk.unit()).contains("me@box"));
}

#[test]
fn p_81_and_p_82_odd_targets_are_refused_before_ssh() {
    let desk = Desk::new();
    for target in
        ["-oProxyCommand=id", "me@-box", "me@box;id", "me@$(id)", "me@`id`", "a b", "me@box|id", "me:secret@box"]
    {
        for line in [&["tunnel", "up", "--", target][..], &["tunnel", "install", "--print", "--", target]] {
            let ran = desk.run(line);
            assert_eq!(ran.code, 1, "{target}: {ran:?}");
            assert!(!ran.err.contains("secret"), "{ran:?}");
        }
    }
    assert!(!desk.asked().contains("ssh"), "{}", desk.asked());
}

#[test]
fn without_any_tunnel_the_words_help() {
    let desk = Desk::new();
    let listed = desk.run(&["tunnel", "ls"]);
    assert!(listed.out.contains("openclaw tunnel up user@host"), "{listed:?}");
    assert_eq!(desk.run(&["tunnel", "ls", "--json"]).json()["tunnels"], serde_json::json!([]));
    for line in [&["tunnel", "down"][..], &["tunnel", "logs"], &["tunnel", "retry", "home"]] {
        assert_eq!(desk.run(line).code, 1, "{line:?}");
    }
    let here = desk.run(&["tunnel", "up"]);
    assert_eq!(here.code, 1);
    assert!(here.err.contains("on this machine"), "{here:?}");
}
