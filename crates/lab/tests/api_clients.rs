//! The official `openai` and `anthropic` packages use our agent over HTTP.

use std::time::Duration;

use doubles::model::{Ask, Model, Reply, Script};
use lab::{
    peers::{Peers, model_sections},
    process::{Gateway, GatewayOptions},
    require,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the scripts expect of the model: see `api-clients.mjs`.
fn answer(ask: &Ask) -> Reply {
    let before = || {
        let users = ask.messages.iter().filter(|(role, _)| role == "user");
        let texts: Vec<&str> = users.map(|(_, text)| text.as_str()).collect();
        texts.len().checked_sub(2).map_or("nothing", |at| texts[at]).to_owned()
    };
    let reply = match ask.last_user.trim() {
        "Count" => Reply::say("one two three four five").pieces(5).pace(Duration::from_millis(60)),
        "What is this?" => Reply::say(format!("{} picture", ask.images)),
        "Recall" => Reply::say(format!("Before: {}", before().trim())),
        "Forever" => Reply::say("on ".repeat(2_000)).pieces(2_000).pace(Duration::from_millis(20)),
        "Fail" => return Reply::error(400, "invalid_request_error", "this model never answers that"),
        text => Reply::say(format!("You said: {text}")),
    };
    reply.usage(10, 5)
}

fn gateway(model: &Model) -> Gateway {
    let mut config = model_sections(&model.url());
    config["gateway"] = json!({"mode": "local", "http": {"endpoints":
        {"chatCompletions": {"enabled": true}, "responses": {"enabled": true}}}});
    for model in config["models"]["providers"]["double"]["models"].as_array_mut().expect("models") {
        model["input"] = json!(["text", "image"]);
    }
    Gateway::start_with(GatewayOptions { config: Some(config.to_string()), ..GatewayOptions::default() })
}

/// Runs a part of the script and returns what the model was asked.
#[track_caller]
fn check(part: &str, steps: usize) -> require::Capability<Model> {
    let peers = Peers::find()?;
    let model = Model::start(Script::choose(answer));
    let gateway = gateway(&model);
    let home = TempDir::with_prefix("openclaw-api-").expect("a temporary directory");
    let options = json!({"url": format!("http://127.0.0.1:{}", gateway.port()), "part": part});
    let launch = peers.api_clients("api-clients.mjs", home.path())?;
    let ran = launch.arg(options.to_string()).env("API_KEY", gateway.token()).run();
    assert!(ran.status.success(), "{ran:#?}\n{}", gateway.said());
    let report: Value = serde_json::from_str(ran.stdout.lines().last().unwrap_or_default()).expect("a report");
    assert_eq!(report["problems"], json!([]), "{report:#}\n{}", gateway.said());
    assert_eq!(report["done"].as_array().map(Vec::len), Some(steps), "{report:#}");
    if part == "openai" {
        model.wait_until("the end of the stream nobody reads", |model| model.abandoned() == 1);
    }
    Ok(model)
}

#[test]
fn the_openai_package_chats() {
    let model = require!(check("openai", 8));
    let asks = model.asks();
    // Instructions and the past come along; the client's system message is not lost.
    let first = &asks[0];
    assert!(first.system.contains("Be brief."), "{}", first.system);
    assert!(first.system.contains(r#"{"role":"assistant","content":"Hello."}"#), "{}", first.system);
}

#[test]
fn the_openai_package_uses_responses() {
    let model = require!(check("responses", 4));
    assert!(model.asks()[0].system.contains("Be brief."));
}

#[test]
fn the_anthropic_package_chats() {
    let model = require!(check("anthropic", 4));
    assert!(model.asks()[0].system.contains("Be brief."));
}
