//! A Telegram to talk to by hand: `cargo run -p doubles --example bot_api`, then give a gateway the root and the token it
//! prints. Each line typed is written to the bot by somebody: `7 Ada: hello`, or `-1001 7 Ada: @claw_bot hello` in a group.

use std::{io::BufRead as _, thread, time::Duration};

use doubles::bot_api::{BotApi, Chat, Person};
use serde_json::json;

const TOKEN: &str = "5550001:AAdouble-token";

fn main() {
    let api = BotApi::start_on("127.0.0.1:8081");
    let bot = api.bot(TOKEN, "claw_bot");
    println!("root {}  token {TOKEN}", api.url());
    let shown = bot.clone();
    thread::spawn(move || {
        let mut seen = 0;
        loop {
            let calls = shown.calls();
            for call in calls.iter().skip(seen).filter(|call| call.method != "sendChatAction") {
                println!("<- {} to {}: {}", call.method, call.chat(), call.text());
            }
            seen = calls.len();
            thread::sleep(Duration::from_millis(100));
        }
    });
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((who, text)) = line.split_once(':') else {
            println!("7 Ada: hello");
            continue;
        };
        let words: Vec<&str> = who.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
        let (group, from) = match number(0) {
            Some(id) if id < 0 => (Some(id), 1),
            _ => (None, 0),
        };
        let person = Person::new(number(from).unwrap_or(7), words.get(from + 1).copied().unwrap_or("Ada"));
        match group {
            Some(id) => bot.writes(&person, &Chat::group(id, "Group"), text.trim(), json!({})),
            None => bot.says(&person, text.trim()),
        };
    }
}
