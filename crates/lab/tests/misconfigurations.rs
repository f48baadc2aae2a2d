//! Seeded misconfigurations: `doctor --why` names the true cause, and what it prints, typed as it stands, cures it.
//!
//! Each case is a machine of its own (and, where ssh matters, a far host with its own sshd). The typist knows nothing: it reads
//! the first `Fix` of what doctor says, types it where it says, and asks again, a few times at most.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use lab::{
    process::{Finished, Launch, Process, free_port, wait_until},
    require,
    require::program,
    sandbox::binary,
    sshd::{SshClient, Sshd, SshdSetup},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Rounds of asking and typing before a case counts as not cured.
const ROUNDS: usize = 4;
/// Cases whose cure needs a person's judgement or another machine, by design.
const NOT_BY_TYPING: &[&str] = &["plaintext to a public host", "a changed host key"];

/// One machine's home, state and shell.
struct Machine {
    home: PathBuf,
    path: String,
    /// Lines typed into the person's shell that it remembers: `export`, `unset`.
    shell: Vec<String>,
    gateways: Vec<Process>,
}

impl Machine {
    fn new(home: &Path, bin: &Path) -> Self {
        fs::create_dir_all(bin).expect("creates");
        let _ = symlink(binary(), bin.join("openclaw"));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
        Self { home: home.to_owned(), path, shell: Vec::new(), gateways: Vec::new() }
    }

    fn state(&self) -> PathBuf {
        self.home.join(".openclaw")
    }

    fn config(&self, config: &Value) {
        self.raw_config(&format!("{config:#}\n"));
    }

    fn raw_config(&self, text: &str) {
        fs::create_dir_all(self.state()).expect("creates");
        fs::set_permissions(self.state(), fs::Permissions::from_mode(0o700)).expect("sets the mode");
        let file = self.state().join("openclaw.json");
        fs::write(&file, text).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    }

    /// A login shell of this person, with nothing of the test's own environment.
    fn shell(&self, line: &str) -> Launch {
        let mut script = self.shell.join("\n");
        script.push('\n');
        script.push_str(line);
        let words =
            [format!("HOME={}", self.home.display()), format!("PATH={}", self.path), "LC_ALL=C.UTF-8".to_owned()];
        let words = words.into_iter().chain(["sh".to_owned(), "-c".to_owned(), script]);
        Launch::new(program("env").expect("coreutils"), &self.home).arg("-i").args(words)
    }

    #[track_caller]
    fn run(&self, line: &str) -> Finished {
        self.shell(line).run()
    }

    #[track_caller]
    fn must(&self, line: &str) -> String {
        let done = self.run(line);
        assert!(done.status.success(), "{line}: {done:?}");
        done.stdout
    }

    /// A gateway in a terminal of its own.
    #[track_caller]
    fn start(&mut self, line: &str) {
        let mut gateway = self.shell(&format!("exec {line}")).start("gateway");
        wait_until("a gateway that serves or ends", || {
            (gateway.ended().is_some() || gateway.stderr().contains("ready. Next")).then_some(())
        });
        self.gateways.push(gateway);
    }

    /// Ends what was started, so that it can be started again.
    fn stop(&mut self) {
        self.gateways.drain(..).for_each(|mut gateway| {
            gateway.stop();
        });
    }

    fn token(&self) -> String {
        self.must("openclaw config get gateway.auth.token").trim().to_owned()
    }
}

/// A person's machine, and the gateway's.
struct World {
    me: Machine,
    far: Machine,
    ssh: SshClient,
    sshd: Option<Sshd>,
    /// The far gateway's port.
    port: u16,
    /// Things a case needs to stay alive.
    kept: Vec<Box<dyn std::any::Any>>,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::with_prefix("openclaw-why-").expect("a temporary directory");
        let ssh = SshClient::new();
        let far = Machine::new(&dir.path().join("far"), &dir.path().join("far/bin"));
        let me = Machine::new(ssh.home(), &ssh.bin());
        Self { me, far, ssh, sshd: None, port: free_port(), kept: Vec::new(), _dir: dir }
    }

    /// The far gateway runs, with these settings besides its port.
    fn gateway(&mut self, gateway: Value) {
        self.far.config(&with_port(self.port, gateway));
        self.far.start("openclaw gateway");
    }

    /// `ssh box` leads to the far machine.
    fn ssh(&mut self) {
        let far =
            SshdSetup::new().with_openclaw(&self.far.home.join("bin/openclaw"), &self.far.home, &self.far.state());
        let sshd = far.start();
        self.ssh.may_enter(&sshd, "box");
        self.sshd = Some(sshd);
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// This machine is a client by config.
    fn remote(&self, remote: Value) {
        self.me.config(&json!({"gateway": {"mode": "remote", "remote": remote}}));
    }

    /// This machine is paired, by ssh, under the name `box`.
    fn connected(&mut self) {
        self.gateway(json!({}));
        self.ssh();
        self.me.must(&format!("openclaw connect box --remote-port {} --no-keep --yes", self.port));
    }

    fn healthy(&self) -> bool {
        self.me.run("openclaw health").status.success()
    }

    /// Types a line where it belongs, and what it prints for this machine afterwards.
    fn type_in(&mut self, line: &str, there: bool) {
        let machine = if there { &mut self.far } else { &mut self.me };
        if line.starts_with("export ") || line.starts_with("unset ") {
            machine.shell.push(line.to_owned());
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.starts_with(&["openclaw", "gateway"]) && words.get(2).is_none_or(|word| word.starts_with("--")) {
            machine.start(line);
            return;
        }
        let done = machine.run(line);
        if there {
            let lines = || done.stdout.lines().map(str::trim);
            let told = ["openclaw connect ", "openclaw config set gateway.remote."];
            let next = told.iter().find_map(|start| lines().find_map(|line| line.find(start).map(|at| &line[at..])));
            if let Some(next) = next.map(str::to_owned) {
                self.type_in(&next, false);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.me.run("openclaw tunnel down --all");
    }
}

/// The first fix of what doctor says: the command, and whether it belongs on the gateway's host.
fn first_fix(text: &str) -> Option<(String, bool)> {
    text.lines().map(str::trim).find_map(|line| {
        let here = line.strip_prefix("Fix: ").map(|command| (command.to_owned(), false));
        here.or_else(|| line.strip_prefix("Fix (on the gateway host): ").map(|command| (command.to_owned(), true)))
    })
}

/// A misconfiguration: its name, the words that say the true cause, and how it comes about.
type Case = (&'static str, &'static [&'static str], fn(&mut World));

/// Makes the misconfiguration, asks, and follows the advice. What went wrong, if the cause is not named; whether it is cured.
fn follow(case: &Case) -> Result<bool, String> {
    let (name, cause, prepare) = case;
    let mut world = World::new();
    prepare(&mut world);
    let mut story = String::new();
    for round in 0..ROUNDS {
        let why = world.me.run("openclaw doctor --why");
        let said = format!("{}{}", why.stdout, why.stderr);
        story.push_str(&said);
        let named = cause.iter().all(|word| said.contains(word));
        if round == 0 && !named {
            return Err(format!("{name}: {cause:?} is not in\n{said}"));
        }
        if round > 0 && !named && world.healthy() {
            return Ok(true);
        }
        let Some((command, there)) = first_fix(&said) else { break };
        story.push_str(&format!("--- typed {}: {command}\n", if there { "there" } else { "here" }));
        world.type_in(&command, there);
    }
    let cured = world.healthy() && {
        let said = world.me.run("openclaw doctor --why").stdout;
        !cause.iter().all(|word| said.contains(word))
    };
    if !cured && !NOT_BY_TYPING.contains(name) {
        eprintln!("NOT CURED {name}\n{story}");
    }
    Ok(cured)
}

/// On the gateway's own machine.
const LOCAL: &[Case] = &[
    ("no gateway", &["no gateway runs here"], |w| w.me.config(&json!({"gateway": {"port": w.port}}))),
    ("a config that is cut off", &["cannot be read"], |w| {
        broken_after_good(w, "{gateway: {port: ");
    }),
    ("a port that is a word", &["gateway.port"], |w| {
        broken_after_good(w, "{gateway: {port: \"many\"}}");
    }),
    ("lan without auth", &["without auth"], |w| {
        w.me.config(&json!({"gateway": {"port": w.port, "bind": "lan", "auth": {"mode": "none"}}}));
    }),
    ("a custom bind without an address", &["customBindHost is not set"], |w| {
        w.me.config(&json!({"gateway": {"port": w.port, "bind": "custom"}}));
    }),
    ("token and password, and no mode", &["ambiguous"], |w| {
        w.me.config(
            &json!({"gateway": {"port": w.port, "auth": {"token": "t".repeat(40), "password": "p".repeat(40)}}}),
        );
    }),
    ("a secret that is not there", &["secrets are unavailable"], |w| {
        let reference = json!({"source": "env", "provider": "default", "id": "NO_SUCH_SECRET"});
        w.me.config(&json!({"gateway": {"port": w.port, "auth": {"token": reference}}}));
    }),
    ("an open state directory", &["open to others"], |w| {
        running_here(w, json!({}));
        fs::set_permissions(w.me.state(), fs::Permissions::from_mode(0o755)).expect("sets the mode");
    }),
    ("an open identity", &["open to others"], |w| {
        running_here(w, json!({}));
        fs::set_permissions(w.me.state().join("identity/device.json"), fs::Permissions::from_mode(0o644))
            .expect("mode");
    }),
    ("a variable of the older product", &["older product"], |w| {
        running_here(w, json!({}));
        w.me.shell.push("export CLAWDBOT_GATEWAY_TOKEN=x".to_owned());
    }),
    ("a stale port in the environment", &["OPENCLAW_GATEWAY_PORT names"], |w| {
        running_here(w, json!({}));
        w.me.shell.push(format!("export OPENCLAW_GATEWAY_PORT={}", free_port()));
    }),
    ("remote mode without a remote", &["gateway.remote.url missing"], |w| {
        w.me.config(&json!({"gateway": {"mode": "local", "port": w.port}}));
        w.me.start("openclaw gateway");
        w.me.config(&json!({"gateway": {"mode": "remote", "port": w.port}}));
    }),
    ("a port that somebody else has", &["is held by"], |w| {
        let taken = std::net::TcpListener::bind(("127.0.0.1", w.port)).expect("binds");
        w.kept.push(Box::new(taken));
        w.me.config(&json!({"gateway": {"port": w.port}}));
    }),
    ("a token that can be guessed", &["characters long"], |w| {
        running_here(w, json!({"auth": {"token": "letmein-please"}}));
    }),
    ("no auth at all", &["auth.mode is none"], |w| running_here(w, json!({"auth": {"mode": "none"}}))),
    ("a current connection that is gone", &["connection is called"], |w| {
        running_here(w, json!({}));
        let book = json!({"version": 1, "current": "gone", "connections": {}});
        fs::write(w.me.state().join("connections.json"), book.to_string()).expect("writes");
    }),
    ("a saved path that was edited", &["path that cannot be used"], |w| {
        running_here(w, json!({}));
        let path = json!({"kind": "ssh", "target": "-oProxyCommand=x", "identity": null, "gatewayPort": 18789});
        let saved = json!({"gatewayId": null, "deviceId": null, "paths": [path], "createdAtMs": 1});
        let book = json!({"version": 1, "current": "box", "connections": {"box": saved}});
        fs::write(w.me.state().join("connections.json"), book.to_string()).expect("writes");
    }),
];

/// By a URL.
const DIRECT: &[Case] = &[
    ("a URL in the environment without a credential", &["requires explicit credentials"], |w| {
        w.gateway(json!({}));
        w.remote(json!({"url": w.url(), "transport": "direct", "token": w.far.token()}));
        w.me.shell.push(format!("export OPENCLAW_GATEWAY_URL={}", w.url()));
    }),
    ("a stale password in the environment", &["env:OPENCLAW_GATEWAY_PASSWORD", "password mismatch"], |w| {
        let password = "correct horse battery staple";
        w.gateway(json!({"auth": {"mode": "password", "password": password}}));
        w.remote(json!({"url": w.url(), "transport": "direct", "password": password}));
        w.me.shell.push("export OPENCLAW_GATEWAY_PASSWORD=old".to_owned());
    }),
    ("plaintext to a public host", &["plaintext"], |w| {
        w.remote(json!({"url": "ws://203.0.113.7:18789", "transport": "direct", "token": "x"}));
    }),
    ("the pin of another certificate", &["not the pinned"], |w| {
        w.gateway(json!({"tls": {"enabled": true}}));
        let url = w.url().replace("ws:", "wss:");
        w.remote(json!({"url": url, "transport": "direct", "token": w.far.token(), "tlsFingerprint": "0".repeat(64)}));
    }),
    ("a self-made certificate without a pin", &["not trusted"], |w| {
        w.gateway(json!({"tls": {"enabled": true}}));
        let url = w.url().replace("ws:", "wss:");
        w.remote(json!({"url": url, "transport": "direct", "token": w.far.token()}));
    }),
    ("plaintext to a TLS port", &["TLS"], |w| {
        w.gateway(json!({"tls": {"enabled": true}}));
        w.remote(json!({"url": w.url(), "transport": "direct", "token": w.far.token()}));
    }),
    ("TLS to a plaintext port", &["TLS"], |w| {
        w.gateway(json!({}));
        w.remote(json!({"url": w.url().replace("ws:", "wss:"), "transport": "direct", "token": w.far.token()}));
    }),
    ("a pin without TLS", &["not a wss:// URL"], |w| {
        w.gateway(json!({"tls": {"enabled": true}}));
        w.remote(
            json!({"url": w.url(), "transport": "direct", "token": w.far.token(), "tlsFingerprint": "0".repeat(64)}),
        );
    }),
    ("a pin that is none", &["64 hex digits"], |w| {
        w.gateway(json!({"tls": {"enabled": true}}));
        let url = w.url().replace("ws:", "wss:");
        w.remote(json!({"url": url, "transport": "direct", "token": w.far.token(), "tlsFingerprint": "not-a-pin"}));
    }),
];

/// With ssh to the host.
const SSH: &[Case] = &[
    ("another gateway's token", &["token mismatch", "config:gateway.remote.token"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(
            json!({"url": w.url(), "transport": "direct", "token": "stale", "sshTarget": "box", "remotePort": w.port}),
        );
    }),
    ("no token", &["no credential was found"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(json!({"url": w.url(), "transport": "direct", "sshTarget": "box", "remotePort": w.port}));
    }),
    ("a token for a gateway with a password", &["password mismatch"], |w| {
        w.gateway(json!({"auth": {"mode": "password", "password": "correct horse battery staple"}}));
        w.ssh();
        w.remote(
            json!({"url": w.url(), "transport": "direct", "token": "x", "sshTarget": "box", "remotePort": w.port}),
        );
    }),
    ("a tunnel that is not open", &["ECONNREFUSED"], |w| {
        w.gateway(json!({}));
        w.ssh();
        let url = format!("ws://127.0.0.1:{}", free_port());
        let token = w.far.token();
        w.remote(json!({"url": url, "transport": "direct", "token": token, "sshTarget": "box", "remotePort": w.port}));
    }),
    ("a token by a reference that is not there", &["unreadable"], |w| {
        w.gateway(json!({}));
        w.ssh();
        let reference = json!({"source": "env", "provider": "default", "id": "NO_SUCH_SECRET"});
        w.remote(json!({"url": "ssh://box", "token": reference, "remotePort": w.port}));
    }),
    ("an ssh URL that shall be direct", &["is an ssh:// URL"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(json!({"url": "ssh://box", "transport": "direct", "token": w.far.token(), "remotePort": w.port}));
    }),
    ("a URL that is none", &["ws:// or wss://"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(json!({"url": "htp://box", "token": w.far.token(), "sshTarget": "box", "remotePort": w.port}));
    }),
    ("no gateway behind ssh", &["nothing listens on the gateway's port"], |w| {
        w.gateway(json!({}));
        let token = w.far.token();
        w.far.stop();
        w.ssh();
        w.remote(json!({"sshTarget": "box", "token": token, "remotePort": w.port}));
    }),
    ("another port behind ssh", &["nothing listens on the gateway's port"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(json!({"sshTarget": "box", "token": w.far.token(), "remotePort": free_port()}));
    }),
    ("an ssh target that is an option", &["start with a dash"], |w| {
        w.gateway(json!({}));
        w.remote(json!({"url": w.url(), "sshTarget": "-oProxyCommand=x", "token": w.far.token()}));
    }),
    ("a changed host key", &["host key is not the one on record"], |w| {
        w.gateway(json!({}));
        w.ssh();
        w.remote(json!({"sshTarget": "box", "token": w.far.token(), "remotePort": w.port}));
        w.sshd.as_mut().expect("sshd").rotate_host_key();
    }),
    ("a device that was removed", &["device token mismatch"], |w| {
        w.connected();
        let listed: Value = serde_json::from_str(&w.far.must("openclaw devices list --json")).expect("JSON");
        let device = listed["paired"][0]["deviceId"].as_str().expect("a device").to_owned();
        w.far.must(&format!("openclaw devices remove {device}"));
    }),
    ("a gateway that was set up anew", &["another gateway answered"], |w| {
        w.connected();
        w.far.stop();
        fs::remove_dir_all(w.far.state()).expect("removes");
        w.gateway(json!({}));
    }),
    ("a saved gateway that nobody chose", &["gateway.remote.url missing"], |w| {
        w.connected();
        w.me.must("openclaw connections use --none");
        w.me.config(&json!({"gateway": {"mode": "remote"}}));
    }),
];

/// A config with this `gateway` section and port.
fn with_port(port: u16, mut gateway: Value) -> Value {
    gateway["port"] = json!(port);
    json!({ "gateway": gateway })
}

/// A config that was good twice and is now this.
fn broken_after_good(w: &mut World, text: &str) {
    running_here(w, json!({}));
    w.me.must("openclaw config set gateway.reload.mode hybrid");
    w.me.stop();
    w.me.raw_config(text);
}

/// A gateway of this machine, running.
fn running_here(w: &mut World, gateway: Value) {
    w.me.config(&with_port(w.port, gateway));
    w.me.start("openclaw gateway");
}

fn all(cases: &[Case]) {
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..2)
            .map(|lane| {
                let mine: Vec<&Case> = cases.iter().skip(lane).step_by(2).collect();
                scope.spawn(move || mine.into_iter().map(|case| (case.0, follow(case))).collect::<Vec<_>>())
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane")).collect()
    });
    let unnamed: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    assert!(unnamed.is_empty(), "{unnamed:#?}");
    let not_cured: Vec<_> =
        outcomes.iter().filter(|(_, outcome)| *outcome == Ok(false)).map(|(name, _)| *name).collect();
    let unexpected: Vec<_> = not_cured.iter().filter(|name| !NOT_BY_TYPING.contains(name)).collect();
    assert!(unexpected.is_empty(), "not cured by what is printed: {unexpected:?}");
}

#[test]
fn on_the_gateways_own_machine() {
    all(LOCAL);
}

#[test]
fn by_a_url() {
    all(DIRECT);
}

#[test]
fn by_ssh() {
    require!(program("sshd"));
    require!(program("ssh"));
    all(SSH);
}

#[test]
fn there_are_thirty_and_two_need_a_person() {
    let names: std::collections::BTreeSet<_> = [LOCAL, DIRECT, SSH].concat().iter().map(|case| case.0).collect();
    assert!(names.len() >= 30, "{}", names.len());
    assert!(NOT_BY_TYPING.len() <= 2 && NOT_BY_TYPING.iter().all(|name| names.contains(name)));
}
