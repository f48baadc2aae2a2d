//! Our command line talks to agents: at our gateway and at the real ones of both generations, from scripts and in a real
//! terminal. The same steps everywhere, which is the proof that they are the protocol's and not ours.

use std::time::Duration;

use doubles::model::{Ask, Model, Reply, Script};
use lab::{
    peers::{Generation, Peers, RealGateway, model_sections},
    process::{Finished, Gateway, GatewayOptions, Launch, our_cli},
    require,
    tmux::Terminal,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: &str = "Here it comes.\n\n1. first\n2. second\n\nAnd **this** was all.";

/// What the model says, by the newest of these words in what it was asked. Gateways add texts of their own, so the whole request
/// is looked at.
fn model() -> Model {
    let say = |ask: &Ask| {
        let text = ask.body["messages"].to_string();
        let newest = ["greet", "story", "forever", "elsewhere"].into_iter().max_by_key(|word| text.rfind(word));
        match newest.filter(|word| text.contains(word)) {
            Some("story") => Reply::say(LONG).pieces(12).pace(Duration::from_millis(60)),
            Some("forever") => Reply::say("and on ".repeat(400)).pieces(400).pace(Duration::from_millis(50)),
            Some("elsewhere") => Reply::say("Hello from elsewhere."),
            _ => Reply::say("Hello from the model."),
        }
    };
    Model::start(Script::choose(move |ask| say(ask).usage(100, 20)))
}

enum Place {
    Ours(Gateway),
    Real(RealGateway),
}

impl Place {
    fn ours(model: &Model) -> Self {
        let mut config = model_sections(&model.url());
        config["gateway"] = json!({"mode": "local"});
        Self::Ours(Gateway::start_with(GatewayOptions {
            config: Some(config.to_string()),
            ..GatewayOptions::default()
        }))
    }

    fn real(peers: &Peers, generation: Generation, model: &Model) -> Self {
        Self::Real(RealGateway::start_with(peers, generation, &model_sections(&model.url())))
    }

    fn at(&self) -> (u16, String) {
        match self {
            Self::Ours(gateway) => (gateway.port(), gateway.token().to_owned()),
            Self::Real(gateway) => (gateway.port(), gateway.token().to_owned()),
        }
    }

    fn cli(&self, home: &TempDir, words: &[&str]) -> Launch {
        let (port, token) = self.at();
        our_cli(home.path(), port, &token).args(words.iter().copied())
    }

    #[track_caller]
    fn run(&self, home: &TempDir, words: &[&str]) -> Finished {
        let ran = self.cli(home, words).run();
        assert!(ran.status.success(), "{words:?}: {ran:#?}");
        ran
    }
}

fn scratch() -> TempDir {
    TempDir::with_prefix("openclaw-talk-").expect("a temporary directory")
}

/// What scripts do.
fn by_script(place: &Place, searches: bool) {
    let home = scratch();
    let answer = place.run(&home, &["agent", "-m", "greet me", "--json"]).json();
    assert_eq!(
        (&answer["status"], &answer["result"]["payloads"][0]["text"]),
        (&json!("ok"), &json!("Hello from the model."))
    );
    let said = place.run(&home, &["agent", "-m", "tell a story", "--session-key", "agent:main:tales"]);
    assert_eq!(said.stdout, format!("{LONG}\n"));

    let sessions = place.run(&home, &["sessions", "--json"]).json();
    let keys: Vec<&str> =
        sessions["sessions"].as_array().expect("rows").iter().filter_map(|row| row["key"].as_str()).collect();
    assert!(keys.contains(&"agent:main:main") && keys.contains(&"agent:main:tales"), "{keys:?}");
    let history = place.run(&home, &["sessions", "history", "tales"]);
    assert!(history.stdout.contains("tell a story") && history.stdout.contains("was all."), "{history:#?}");
    place.run(&home, &["sessions", "rename", "tales", "Old tales"]);
    let shown = place.run(&home, &["sessions", "show", "tales"]);
    assert!(shown.stdout.contains("Old tales"), "{shown:#?}");
    let file = home.path().join("tales.jsonl");
    place.run(&home, &["sessions", "export", "tales", "-o", file.to_str().expect("text")]);
    let text = std::fs::read_to_string(&file).expect("written");
    assert!(text.lines().count() >= 3 && text.contains("tell a story"), "{text}");
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    let search = place.cli(&home, &["sessions", "search", "story"]).run();
    if searches {
        assert!(search.stdout.contains("agent:main:tales"), "{search:#?}");
    } else {
        assert!(search.stderr.contains("cannot search conversations"), "{search:#?}");
    }

    let models = place.run(&home, &["models", "list", "--json", "--provider", "double"]).json();
    let ids: Vec<&str> =
        models["models"].as_array().expect("rows").iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids, ["one", "two"]);
    assert!(place.run(&home, &["models", "status"]).stdout.contains("double/one"));
    place.run(&home, &["sessions", "delete", "tales", "--yes"]);
}

/// What a person does in a terminal.
fn by_hand(place: &Place) -> require::Capability<()> {
    let home = scratch();
    let terminal = Terminal::start(&place.cli(&home, &["chat"]).env("TERM", "xterm-256color"), home.path(), 80, 24)?;
    terminal.wait("a connection", |screen| screen.contains("●") && screen.contains("message, or / for commands"));

    // A message, and a long answer that is seen while it is written.
    terminal.types("greet me");
    terminal.press(&["Enter"]);
    terminal.shows("Hello from the model.");
    terminal.types("tell a story");
    terminal.press(&["Enter"]);
    terminal.wait("the beginning", |screen| screen.contains("Here it comes.") && screen.contains("Esc stops"));
    let screen =
        terminal.wait("the end", |screen| screen.contains("And this was all.") && !screen.contains("Esc stops"));
    assert!(screen.contains("  1. first"), "{screen}");

    // Stopped half-way.
    terminal.types("go on forever");
    terminal.press(&["Enter"]);
    terminal.shows("and on and on");
    terminal.press(&["Escape"]);
    terminal.wait("the end of it", |screen| screen.contains("aborted") && !screen.contains("Esc stops"));

    // Another conversation, and back.
    terminal.types("/new");
    terminal.press(&["Enter"]);
    terminal.shows("Nothing was said here yet");
    terminal.types("speak from elsewhere");
    terminal.press(&["Enter"]);
    terminal.shows("Hello from elsewhere.");
    terminal.wait("quiet", |screen| !screen.contains("Esc stops"));
    terminal.press(&["C-p"]);
    terminal.wait("the list", |screen| {
        screen.contains("Conversations") && screen.matches(" ago").count() + screen.matches("just now").count() >= 2
    });
    terminal.types("main:main");
    terminal.press(&["Enter"]);
    terminal.wait("the first conversation", |screen| screen.contains("greet me") || screen.contains("forever"));

    // Leave for a command that somebody else asked for.
    let (port, token) = place.at();
    let request = json!({"command": "make && ./test", "cwd": "/work", "host": "gateway", "agentId": "main",
        "sessionKey": "agent:main:main", "timeoutMs": 60_000, "twoPhase": true});
    let asked = our_cli(home.path(), port, &token)
        .args(["gateway", "call", "exec.approval.request", "--json", "--params", &request.to_string()])
        .run();
    assert!(asked.status.success(), "{asked:#?}");
    let screen = terminal.shows("Leave to run?");
    assert!(screen.contains("make && ./test") && screen.contains("/work"), "{screen}");
    terminal.press(&["Tab"]);
    terminal.shows("y once");
    terminal.types("y");
    terminal.wait("the answer", |screen| screen.contains("allowed once") && !screen.contains("Leave to run?"));

    // A narrow window keeps everything in place; leaving gives the terminal back.
    terminal.resize(60, 20);
    terminal.wait("a narrow screen", |screen| screen.lines().take(2).any(|line| line.chars().count() == 60));
    terminal.press(&["C-d"]);
    let screen = terminal.shows("EXIT=0");
    assert!(!screen.contains("message, or / for commands"), "{screen}");
    Ok(())
}

#[test]
fn our_cli_talks_to_our_agent() {
    let model = model();
    let place = Place::ours(&model);
    by_script(&place, true);
    require!(by_hand(&place));
}

#[test]
fn our_cli_talks_to_the_agent_of_2026_9_6() {
    let peers = require!(Peers::find());
    let model = model();
    let place = Place::real(&peers, Generation::V4, &model);
    by_script(&place, true);
    require!(by_hand(&place));
}

#[test]
fn our_cli_talks_to_the_agent_of_2026_2_26() {
    let peers = require!(Peers::find());
    let model = model();
    let place = Place::real(&peers, Generation::V3, &model);
    by_script(&place, false);
    require!(by_hand(&place));
}

/// The terminal is given back whatever ends the program, and the shell gets it when it asks.
#[test]
fn the_terminal_is_given_back() {
    use rustix::process::{Pid, Signal, kill_process};
    let model = model();
    let place = Place::ours(&model);
    let home = scratch();
    let launch = place.cli(&home, &["chat"]).env("TERM", "xterm-256color");
    let terminal = require!(Terminal::start(&launch, home.path(), 80, 24));
    terminal.shows("message, or / for commands");
    let pid = terminal.pid_of("openclaw").and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("it runs");
    kill_process(pid, Signal::TSTP).expect("signals");
    terminal.wait("the shell's screen", |screen| !screen.contains("message, or / for commands"));
    kill_process(pid, Signal::CONT).expect("signals");
    terminal.shows("message, or / for commands");
    terminal.types("still here");
    terminal.shows("› still here");
    kill_process(pid, Signal::TERM).expect("signals");
    let screen = terminal.shows("EXIT=143");
    assert!(!screen.contains("still here"), "{screen}");
}

/// The agent wants a program run on the gateway's host, in a workspace nobody has used yet: the chat asks, and what is allowed
/// there runs once.
#[test]
fn leave_is_given_in_the_chat() {
    let command = json!({"command": "echo run by leave >> ran && cat ran"});
    let script =
        Script::by_text([("run it", vec![Reply::call("exec", command), Reply::say("It ran.")])], Reply::say("?"));
    let model = Model::start(script);
    let place = Place::ours(&model);
    let home = scratch();
    let launch = place.cli(&home, &["chat"]).env("TERM", "xterm-256color");
    let terminal = require!(Terminal::start(&launch, home.path(), 80, 24));
    terminal.shows("message, or / for commands");
    terminal.types("run it");
    terminal.press(&["Enter"]);
    let screen = terminal.shows("Leave to run?");
    assert!(screen.contains("echo run by leave >> ran"), "{screen}");
    terminal.press(&["Tab"]);
    terminal.shows("y once");
    terminal.types("y");
    terminal.wait("the answer", |screen| screen.contains("It ran.") && screen.contains("allowed once"));
    let results = model.last().tool_results;
    assert_eq!(results.len(), 1, "{results:?}");
    assert_eq!(results[0].text.matches("run by leave").count(), 1, "{results:?}");
}
