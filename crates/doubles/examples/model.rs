//! A model to play with, on this machine and without any key:
//!
//! ```text
//! cargo run -p doubles --example model -- 8099
//! openclaw models add play --base-url http://127.0.0.1:8099/v1
//! openclaw chat
//! ```
//!
//! It does what it is told: `story` tells a long one, slowly; `forever` does not stop; `table` and `code` show Markdown; `wide`
//! speaks Chinese; `think` thinks first; `run COMMAND` wants to run a command; `tool NAME {json}` calls any tool; `fail` and
//! `busy` go wrong. Everything else comes back.

use std::time::Duration;

use doubles::model::{Ask, Model, Reply, Script};
use serde_json::{Value, json};

const TABLE: &str = "Here is a table:\n\n| name | state | uptime |\n|---|---|---|\n| attic | online | 3 days |\n\
    | cellar | offline | – |\n\n> A quotation, *emphasis*, **weight**, `code` and a [link](https://example.com).\n\n\
    1. first\n2. second\n   - deeper\n\n- [x] done\n- [ ] open\n";
const CODE: &str = "Like this:\n\n```rust\nfn main() {\n    println!(\"hello, {}\", std::env::args().nth(1).unwrap_or_default());\n}\n\
    ```\n\nand that was all.";
const WIDE: &str = "你好，世界。网关把消息送到节点，再把回答送回来。🙂👩‍👩‍👧‍👦 한국어도 괜찮아요. これは日本語の文章で、行の折り返しを確かめるためのものです。";

fn main() {
    let port = std::env::args().nth(1).map_or(8099, |text| text.parse().expect("a port number"));
    let model = Model::start_at(port, Script::choose(answer));
    println!("A model answers at {} (OpenAI) and {} (Anthropic).", model.url(), model.root_url());
    println!("Use it: openclaw models add play --base-url {}", model.url());
    loop {
        std::thread::park();
    }
}

fn answer(ask: &Ask) -> Reply {
    if let Some(result) = ask.tool_results.last() {
        return Reply::say(format!("The tool said:\n\n```\n{}\n```", result.text)).pieces(20).pace(ms(20));
    }
    // Gateways put the time and other facts in front of what was said.
    let said = ask.last_user.lines().last().unwrap_or_default().trim();
    let said = said.rsplit_once("] ").map_or(said, |(_, said)| said);
    let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
    match word {
        "story" => {
            let lines: Vec<String> =
                (1..=60).map(|n| format!("{n}. And then came chapter {n}, which was long.")).collect();
            Reply::say(lines.join("\n")).pieces(240).pace(ms(25))
        }
        "forever" => Reply::say("and on ".repeat(20_000)).pieces(20_000).pace(ms(50)),
        "table" => Reply::say(TABLE).pieces(40).pace(ms(15)),
        "code" => Reply::say(CODE).pieces(40).pace(ms(15)),
        "wide" => Reply::say(WIDE).pieces(40).pace(ms(15)),
        "long" => Reply::say("word ".repeat(4_000)).pieces(400).pace(ms(2)),
        "think" => Reply::think("The person wants me to think. So I think about it, and then about something else.")
            .then_say("I have thought.")
            .pieces(10)
            .pace(ms(80)),
        "run" => Reply::say("I will run that.").then_call("exec", json!({"command": rest})),
        "tool" => {
            let (name, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
            Reply::call(name, serde_json::from_str::<Value>(arguments).unwrap_or_else(|_| json!({})))
        }
        "fail" => Reply::error(400, "invalid_request_error", "This model was told to fail."),
        "busy" => Reply::rate_limited(2),
        _ => Reply::say(format!("You said: {said}")).pieces(8).pace(ms(30)),
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
