//! Setup codes for people: what `openclaw pair` draws is read off a terminal again, by decoders that share nothing with what
//! drew it, and join URLs enrol machines.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use lab::{
    client::{Client, Login, new_device},
    peers::{Generation, Peers, prepare_home},
    process::{Gateway, GatewayOptions, Launch, Process, wait_until},
    require,
    require::program,
    sandbox::{Setup, walk},
    wire::{Address, Conn, get, read_lossy},
};
use openclaw_protocol::{Secret, SetupCode};
use rqrr::PreparedImage;
use serde_json::{Value, json};
use tempfile::TempDir;

const USED: &str = "AUTH_BOOTSTRAP_TOKEN_INVALID";
/// Pixels of a cell that a camera would see.
const CELL: (usize, usize) = (8, 16);

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-code-").expect("a temporary directory")
}

fn admin(gateway: &Gateway) -> Client {
    Login::at(&Address::Port(gateway.port())).token(gateway.token()).scopes(&["operator.admin"]).hello()
}

fn bringing(gateway: &Gateway, token: &str) -> Login {
    let from = Address::PortFrom(Ipv4Addr::new(127, 0, 0, 9), gateway.port());
    Login::at(&from).set("/auth/bootstrapToken", token).device(&new_device()).node()
}

/// A terminal of 80 by 24, in which one command runs.
struct Terminal {
    _server: Process,
    socket: PathBuf,
    tmux: PathBuf,
    dir: TempDir,
}

impl Terminal {
    fn run(tmux: &Path, command: &Launch, rows: u16) -> Self {
        let dir = scratch();
        let (socket, config, script) = (dir.path().join("s"), dir.path().join("conf"), dir.path().join("command"));
        fs::write(&config, "set -g status off\nset -g remain-on-exit on\nset -g exit-empty off\n").expect("writes");
        fs::write(&script, command.script()).expect("writes");
        let args = |rest: &[&str]| -> Vec<String> {
            let own = ["-u", "-S", socket.to_str().expect("UTF-8"), "-f", config.to_str().expect("UTF-8")];
            own.iter().chain(rest).map(|word| (*word).to_owned()).collect()
        };
        // In the foreground, so that it ends with the test.
        let server = Launch::new(tmux, dir.path()).args(args(&["-D"])).start("tmux");
        wait_until("the terminal", || socket.exists().then_some(()));
        let terminal = Self { _server: server, socket: socket.clone(), tmux: tmux.to_owned(), dir };
        let (rows, line) = (rows.to_string(), format!("sh {}", script.display()));
        terminal.tell(&["new-session", "-d", "-x", "80", "-y", &rows, &line]);
        terminal
    }

    fn tell(&self, args: &[&str]) -> String {
        let output = Command::new(&self.tmux)
            .env_clear()
            .env("LANG", "C.UTF-8")
            .args(["-u", "-S"])
            .arg(&self.socket)
            .args(args)
            .output()
            .expect("tmux runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What is on the screen now, without colours.
    fn text(&self) -> String {
        self.tell(&["capture-pane", "-p"])
    }

    /// All that was ever on it, in unbroken lines.
    fn history(&self) -> String {
        self.tell(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    #[track_caller]
    fn wait(&self, what: &str) -> String {
        wait_until(what, || {
            let text = self.text();
            assert!(!text.contains("Pane is dead") || text.contains(what), "{text}");
            text.contains(what).then_some(text)
        })
    }

    /// The screen as a picture, on a theme: grey values, width, height.
    fn photograph(&self, dark_theme: bool) -> Picture {
        photograph(&self.tell(&["capture-pane", "-p", "-e", "-N"]), dark_theme)
    }
}

struct Picture {
    grey: Vec<u8>,
    width: usize,
    height: usize,
}

/// Draws what a terminal shows: every cell a rectangle twice as high as wide, in the colours of the escape sequences.
fn photograph(screen: &str, dark_theme: bool) -> Picture {
    let (ink, paper): (u8, u8) = if dark_theme { (230, 20) } else { (20, 250) };
    let mut rows: Vec<Vec<[u8; 2]>> = Vec::new();
    // Colours last until they are changed, also into the next line.
    let (mut foreground, mut background) = (ink, paper);
    for line in screen.lines() {
        let mut cells = Vec::new();
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            if character == '\u{1b}' {
                let codes: String = characters.by_ref().skip(1).take_while(|c| *c != 'm').collect();
                for code in codes.split(';') {
                    match code {
                        "" | "0" => (foreground, background) = (ink, paper),
                        "30" => foreground = 0,
                        "37" => foreground = 229,
                        "39" => foreground = ink,
                        "40" => background = 0,
                        "47" => background = 229,
                        "49" => background = paper,
                        _ => {}
                    }
                }
                continue;
            }
            cells.push(match character {
                '█' => [foreground, foreground],
                '▀' => [foreground, background],
                '▄' => [background, foreground],
                // Other letters are mostly ground.
                _ => [background, background],
            });
        }
        rows.push(cells);
    }
    let (width, height) = (80 * CELL.0, rows.len() * CELL.1);
    let at = |x: usize, y: usize| {
        let cell = rows[y / CELL.1].get(x / CELL.0);
        cell.map_or(paper, |cell| cell[y % CELL.1 / (CELL.1 / 2)])
    };
    let grey = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| at(x, y)).collect();
    Picture { grey, width, height }
}

impl Picture {
    fn read(&self) -> String {
        let mut image =
            PreparedImage::prepare_from_greyscale(self.width, self.height, |x, y| self.grey[y * self.width + x]);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code on the screen");
        grids[0].decode().expect("it can be read").1
    }

    /// The same by zbar, a reader in C that phones and scanners have.
    fn read_by_zbar(&self, zbar: &Path, dir: &Path) -> String {
        let file = dir.join("screen.pgm");
        let mut bytes = format!("P5 {} {} 255\n", self.width, self.height).into_bytes();
        bytes.extend(&self.grey);
        fs::write(&file, bytes).expect("writes");
        let output = Command::new(zbar).args(["--raw", "-q"]).arg(&file).output().expect("zbarimg runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[test]
fn a_code_is_read_off_a_small_terminal_and_pairs_a_phone() {
    let tmux = require!(program("tmux"));
    let gateway = Gateway::start();
    let url = gateway.url();
    let command = gateway.cli(&["pair", "--url", &url]);
    for colors in [true, false] {
        let command = if colors { command.clone().env("NO_COLOR", "") } else { command.clone() };
        let terminal = Terminal::run(&tmux, &command, 24);
        terminal.wait("Waiting for the phone");
        let texts: Vec<String> = if colors {
            [true, false].map(|dark| terminal.photograph(dark).read()).into()
        } else {
            vec![terminal.photograph(true).read()]
        };
        let text = texts[0].clone();
        assert!(texts.iter().all(|other| *other == text), "the same on both themes");
        let code = SetupCode::parse(&text).expect("a setup code");
        assert_eq!(code.urls, [url.clone()]);
        assert!(!text.contains(gateway.token()));

        // The text twin holds the same token, and what did not fit into the picture.
        let history = terminal.history();
        let twin = history.split_whitespace().find(|word| word.starts_with("oc-pair://")).expect("the twin");
        let twin = SetupCode::parse(twin).expect("a setup code");
        assert_eq!(twin.bootstrap_token, code.bootstrap_token);
        assert!(twin.gateway_id.is_some() && twin.expires_at_ms.is_some());

        let hello = bringing(&gateway, code.bootstrap_token.expose()).hello();
        let handed = hello.hello["auth"]["deviceTokens"][0]["scopes"].to_string();
        assert!(handed.contains("operator.write") && !handed.contains("operator.admin"), "{handed}");
        let last = terminal.wait("is paired, limited access");
        assert!(last.contains("openclaw devices remove"), "{last}");
    }
}

#[test]
fn zbar_reads_it_too() {
    let (tmux, zbar) = (require!(program("tmux")), require!(program("zbarimg")));
    let gateway = Gateway::start();
    let command = gateway.cli(&["pair", "--url", &gateway.url()]).env("NO_COLOR", "");
    let terminal = Terminal::run(&tmux, &command, 24);
    terminal.wait("Waiting for the phone");
    for dark in [true, false] {
        let picture = terminal.photograph(dark);
        assert_eq!(picture.read_by_zbar(&zbar, terminal.dir.path()), picture.read(), "dark: {dark}");
    }
}

#[test]
fn the_line_tells_how_far_somebody_got_and_ctrl_c_takes_the_code_back() {
    let tmux = require!(program("tmux"));
    let gateway = Gateway::start();
    let command = gateway.cli(&["pair", "--url", &gateway.url()]).env("NO_COLOR", "");
    let terminal = Terminal::run(&tmux, &command, 24);
    terminal.wait("Waiting for the phone");
    let code = SetupCode::parse(&terminal.photograph(true).read()).expect("a setup code");
    terminal.wait("Nobody reached");
    let _conn = Conn::open(&Address::PortFrom(Ipv4Addr::new(127, 0, 0, 8), gateway.port()));
    terminal.wait("127.0.0.8 reached the gateway on this machine");
    assert_eq!(bringing(&gateway, "stale").word(), USED);
    terminal.wait("127.0.0.9 brought a code that is not good");

    // Without a code it asks, and the same three words stand on both sides.
    let own = format!("http://127.0.0.1:{}", gateway.port());
    let page = Login::at(&Address::PortFrom(Ipv4Addr::new(127, 0, 0, 7), gateway.port()))
        .token(gateway.token())
        .client("openclaw-control-ui", "webchat")
        .origin(&own)
        .scopes(&["operator.read"])
        .device(&new_device());
    assert_eq!(page.refused().code(), "PAIRING_REQUIRED");
    let line = terminal.wait("127.0.0.7 waits: openclaw devices approve");
    let words = line.split("devices approve ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("words");
    let listed = gateway.cli(&["devices", "list"]).run();
    assert!(words.split('-').count() == 3 && listed.stdout.contains(words), "{words}: {listed:#?}");
    assert!(gateway.cli(&["devices", "approve", words]).run().status.success());

    terminal.tell(&["send-keys", "C-c"]);
    terminal.wait("The code was taken back");
    assert_eq!(bringing(&gateway, code.bootstrap_token.expose()).word(), USED);
}

#[test]
fn a_script_gets_the_code_alone() {
    let gateway = Gateway::start();
    let url = gateway.url();
    let json = gateway.cli(&["qr", "--json", "--url", &url]).run().json();
    for (key, expected) in [
        ("gatewayUrl", json!(url)),
        ("auth", json!("token")),
        ("access", json!("limited")),
        ("urlSource", json!("publicUrl")),
    ] {
        assert_eq!(json[key], expected, "{json:#}");
    }
    assert_eq!(json["tried"][0]["ok"], true);
    let full = gateway.cli(&["qr", "--json", "--admin", "--public-url", &url]).run().json();
    assert_eq!(full["access"], "full");
    let only = gateway.cli(&["qr", "--setup-code-only", "--url", &url]).run();
    let code = SetupCode::parse(&only.stdout).expect("a setup code");
    assert_eq!((only.stdout.lines().count(), code.urls.as_slice()), (1, [url.clone()].as_slice()));
    // No terminal: drawn without colours, and nobody is waited for.
    let plain = gateway.cli(&["qr", "--url", &url]).run();
    assert!(plain.status.success() && plain.stdout.contains('█') && !plain.stdout.contains('\u{1b}'), "{plain:#?}");
    let none = gateway.cli(&["qr", "--no-ascii", "--url", &url]).run();
    assert!(none.stdout.contains("oc-pair://") && !none.stdout.contains('█'), "{none:#?}");

    let refused = gateway.cli(&["qr"]).run();
    assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
    for way in ["gateway.bind lan", "gateway.bind tailnet", "gateway.publicOrigin"] {
        assert!(refused.stderr.contains(way), "{refused:#?}");
    }
}

/// An address that leads elsewhere is not handed out.
#[test]
fn addresses_are_tried_first() {
    let stranger = Gateway::start();
    let config = json!({"gateway": {"publicOrigin": format!("http://127.0.0.1:{}", stranger.port())}});
    let options = GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() };
    let gateway = Gateway::start_with(options);
    let refused = gateway.cli(&["pair", "--no-wait"]).run();
    assert!(!refused.status.success(), "{refused:#?}");
    assert!(refused.stderr.contains("answers from here") && refused.stderr.contains("taken back"), "{refused:#?}");
    let untested = gateway.cli(&["pair", "--no-wait", "--untested"]).run();
    assert!(untested.status.success() && untested.stdout.contains("oc-pair://"), "{untested:#?}");
}

fn join_url(gateway: &Gateway) -> String {
    let made = gateway.cli(&["devices", "join-code", "--json", "--public-url", &gateway.url()]).run().json();
    made["joinUrl"].as_str().unwrap_or_else(|| panic!("{made:#}")).to_owned()
}

fn path_of(url: &str) -> &str {
    &url[url.find("/j/").expect("a join URL")..]
}

#[track_caller]
fn one_node(gateway: &Gateway, host: &mut Process) -> Value {
    wait_until("the node", || {
        assert!(host.ended().is_none(), "{}", host.said());
        let list = admin(gateway).ok("node.list", json!({}));
        let nodes = list["nodes"].as_array().expect("a list");
        nodes.iter().find(|node| node["connected"] == true).cloned()
    })
}

#[test]
fn p_44_a_join_url_answers_once() {
    let mut gateway = Gateway::start();
    let at = Address::Port(gateway.port());
    let (url, second) = (join_url(&gateway), join_url(&gateway));
    let path = path_of(&url).to_owned();
    assert!(url.starts_with(&format!("http://127.0.0.1:{}/j/", gateway.port())) && path.len() == 3 + 22, "{url}");
    // captures of the real gateway (release 2026.9.6, device-pairing-join-http): one answer for all that is no code.
    let missing = json!({"error": "not_found"});
    let unknown = format!("/j/{}", "A".repeat(22));
    for (index, (method, path)) in [
        ("GET", unknown.as_str()),
        ("GET", "/j"),
        ("GET", "/j/short"),
        ("GET", &*format!("{path}?x=1")),
        ("POST", &*path),
    ]
    .into_iter()
    .enumerate()
    {
        // From one address they would be slowed down like any guesses.
        let from = Address::PortFrom(Ipv4Addr::new(127, 0, 1, index as u8 + 1), gateway.port());
        let reply = Conn::open(&from).ask(method, path, &[], b"");
        assert_eq!((reply.status, reply.json()), (404, missing.clone()), "{method} {path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    assert_eq!(Conn::open(&at).ask("HEAD", &path, &[], b"").status, 404, "a link preview takes nothing");

    // It waits across a restart.
    gateway.kill();
    gateway.start_again();
    let reply = get(&at, &path, &[]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json; charset=utf-8")));
    let payload = reply.json();
    let keys: Vec<&String> = payload.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["url", "bootstrapToken", "expiresAtMs", "gatewayId", "role"], "{payload}");
    assert!(!payload.to_string().contains(gateway.token()));
    assert_eq!(get(&at, &path, &[]).json(), missing, "once");
    gateway.kill();
    gateway.start_again();
    assert_eq!(get(&at, &path, &[]).json(), missing, "also after a restart");

    let token = payload["bootstrapToken"].as_str().expect("a token");
    for secret in [token, path_of(&path).trim_start_matches("/j/"), path_of(&second).trim_start_matches("/j/")] {
        for file in walk(&gateway.state_dir()) {
            assert!(!read_lossy(&file).contains(secret), "{}", file.display());
        }
    }
    let as_operator = Login::at(&at).set("/auth/bootstrapToken", token).device(&new_device()).scopes(&[]);
    assert_eq!(as_operator.word(), "AUTH_SCOPE_MISMATCH", "for a node only");
    assert!(bringing(&gateway, token).word().starts_with("hello"));
    assert_eq!(bringing(&gateway, token).word(), USED);
}

#[test]
fn guesses_at_join_codes_are_limited() {
    let g = Setup::new().strict_limiter().start();
    let path = format!("/j/{}", "A".repeat(22));
    let replies: Vec<_> = (0..12).map(|_| get(&g.address(), &path, &[])).collect();
    let last = replies.last().expect("some");
    assert_eq!((replies[0].status, last.status, last.json()), (404, 429, json!({"error": "rate_limited"})));
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    // A guess at one kind of secret locks nobody out of another.
    assert_eq!(g.with_token().word().split(' ').next(), Some("hello"));
}

#[test]
fn a_machine_joins_by_a_url() {
    let gateway = Gateway::start();
    let url = join_url(&gateway);
    let home = scratch();
    let me = |args: &[&str]| {
        Launch::new(lab::sandbox::binary(), home.path())
            .env("HOME", home.path())
            .env("OPENCLAW_STATE_DIR", home.path().join("state"))
            .args(args)
    };
    let mut host = me(&["connect", &url, "--display-name", "Bench"]).start("node");
    let node = one_node(&gateway, &mut host);
    assert_eq!(node["displayName"], "Bench");
    assert!(host.stop().success(), "{}", host.said());
    let again = me(&["connect", &url]).run();
    assert!(!again.status.success() && again.stderr.contains("openclaw devices join-code"), "{again:#?}");
}

/// A code carries the pin of the gateway's own certificate: a machine that no authority vouches to joins by it, and by no other.
#[test]
fn a_machine_joins_over_tls_by_the_pin_in_its_code() {
    let g = Setup::new().unwatched().config(json!({"gateway": {"tls": {"enabled": true}}})).start();
    let url = format!("wss://127.0.0.1:{}", g.port);
    let invited = || g.setup.run(&["devices", "invite", "--role", "node", "--json"]).json();
    let pin = invited()["gateway"]["tlsFingerprint"].as_str().expect("a pin").to_owned();
    let home = scratch();
    let join = |pin: Option<&str>| {
        let code = SetupCode {
            urls: vec![url.clone()],
            bootstrap_token: Secret::new(invited()["token"].as_str().expect("a token")),
            expires_at_ms: None,
            tls_fingerprint: pin.map(str::to_owned),
            gateway_id: None,
            role: None,
        };
        Launch::new(lab::sandbox::binary(), home.path())
            .env("HOME", home.path())
            .env("OPENCLAW_STATE_DIR", home.path().join("state"))
            .args(["connect", &format!("oc-pair://{}", code.encode().expose())])
    };
    let wrong = format!("key-sha256:{}", "0f".repeat(32));
    let refused = join(Some(&wrong)).run();
    assert_eq!(refused.status.code(), Some(12), "{refused:#?}");
    assert!(refused.stderr.contains("not the pinned"), "{refused:#?}");
    // A certificate that is not trusted may be by tomorrow, so the node goes on trying, and says why it is not in.
    let mut waiting = join(None).start("without a pin");
    wait_until("the reason", || waiting.said().contains("the certificate is not trusted").then_some(()));
    assert!(waiting.stop().success());
    let mut host = join(Some(&pin)).start("node");
    wait_until("the node", || {
        assert!(host.ended().is_none(), "{}", host.said());
        host.said().contains("node host gateway connected: wss://").then_some(())
    });
    assert!(host.stop().success());
    // The pin was kept with the address: it comes back without the code, and the code is used up.
    let mut again = Launch::new(lab::sandbox::binary(), home.path())
        .env("HOME", home.path())
        .env("OPENCLAW_STATE_DIR", home.path().join("state"))
        .args(["node", "run"])
        .start("node");
    wait_until("the node again", || {
        assert!(again.ended().is_none(), "{}", again.said());
        again.said().contains("node host gateway connected: wss://").then_some(())
    });
    assert!(again.stop().success());
}

/// What a line of the node's talk says behind these words.
fn said_behind(host: &Process, words: &str) -> Option<String> {
    let said = host.stderr();
    let line = said.lines().find(|line| line.contains(words))?;
    line.split(words).nth(1).map(|rest| rest.trim().to_owned())
}

#[test]
fn both_sides_show_the_same_words_and_retries_keep_the_request() {
    let config = json!({"gateway": {"nodes": {"pairing": {"autoApproveLocal": false}}}});
    let gateway = Gateway::start_with(GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() });
    let home = scratch();
    let node = || {
        Launch::new(lab::sandbox::binary(), home.path())
            .env("HOME", home.path())
            .env("OPENCLAW_STATE_DIR", home.path().join("state"))
            .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
            .args(["node", "run", "--host", "127.0.0.1", "--port", &gateway.port().to_string()])
    };
    let pending = || admin(&gateway).ok("device.pair.list", json!({}))["pending"].clone();
    let mut first = node().start("first");
    let words = wait_until("its words", || said_behind(&first, "Its list shows this request as: "));
    assert!(first.stderr().contains("waits five minutes"), "{}", first.said());
    let request = pending()[0]["requestId"].clone();
    let listed = gateway.cli(&["devices", "list"]).run().stdout;
    assert!(listed.contains(&words) && listed.contains("in 4m"), "{words}: {listed}");
    assert!(first.stop().success(), "{}", first.said());

    // The machine tries again: the same request, the same words.
    let mut second = node().start("second");
    assert_eq!(wait_until("its words", || said_behind(&second, "Its list shows this request as: ")), words);
    assert_eq!((&pending()[0]["requestId"], pending().as_array().map(Vec::len)), (&request, Some(1)));
    let approved = gateway.cli(&["pairing", "approve", &words]).run();
    assert!(approved.status.success(), "{approved:#?}");
    one_node(&gateway, &mut second);
}

#[test]
fn the_real_node_host_joins_by_a_url() {
    let peers = require!(Peers::find());
    let gateway = Gateway::start();
    let home = scratch();
    prepare_home(home.path());
    let mut host = peers.cli(Generation::V4, home.path()).args(["connect", &join_url(&gateway)]).start("node");
    let node = one_node(&gateway, &mut host);
    assert_eq!(node["connected"], true, "{node:#}");
}
