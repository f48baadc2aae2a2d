//! Thousands of conversations on disk: what they cost at start and in memory, how long a list and a search take. Only ours:
//! nothing else takes conversations in by the thousand.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    client::{Conn, Identity, request},
    load::{Scale, Values, values},
    subject::{Kind, Programs},
};

/// Messages of a conversation.
const MESSAGES: usize = 10;
/// Words of a message.
const WORDS: usize = 30;
/// Different words. As in a language, a few are in nearly every message and most are rare.
const VOCABULARY: u64 = 5_000;
/// Millisecond of the first message: some day in 2026.
const EPOCH_MS: usize = 1_780_000_000_000;

pub async fn measure(programs: &Programs, scale: Scale) -> Result<Values> {
    let nothing = json!({});
    let gateway = programs.start(Kind::Ours).await?;
    sleep(scale.settle).await;
    let empty = gateway.process.usage();
    let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
    let import = |i: usize| request(&i.to_string(), "sessions.import", &json!({ "jsonl": conversation(i) }));
    conn.pump(scale.stored, 16, import).await.context("filling the store")?;
    conn.close().await;
    let home = gateway.stop_and_keep().await;

    let gateway = programs.start_in(home, Kind::Ours, &nothing, |target, _| Some(target.clone())).await?;
    let hello = gateway.first_hello.as_secs_f64() * 1e3;
    sleep(scale.settle).await;
    let full = gateway.process.usage();
    let each = (full.pss_kib as f64 - empty.pss_kib as f64) / scale.stored as f64;
    let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
    let listed = conn.call("sessions.list", json!({ "limit": 1 })).await?;
    ensure!(listed["totalCount"] == scale.stored, "{} of {} conversations", listed["totalCount"], scale.stored);
    let count = scale.connects / 3;
    let list = |i: usize| request(&i.to_string(), "sessions.list", &json!({}));
    let (list, _) = conn.pump(count, 1, list).await?;
    let search = |i: usize, query: String| request(&i.to_string(), "sessions.search", &json!({ "query": query }));
    let mut random = Random(7);
    let queries: Vec<String> = (0..count)
        .map(|_| {
            let words: Vec<String> = (0..2).map(|_| word(random.below(VOCABULARY))).collect();
            words[..1 + usize::from(random.below(2) == 0)].join(" ")
        })
        .collect();
    let (found, _) = conn.pump(count, 1, |i| search(i, queries[i].clone())).await?;
    let (common, _) = conn.pump(count / 10, 1, |i| search(i, word(0))).await?;
    conn.close().await;
    gateway.stop().await;
    let mut values = values([
        ("stored_list_p50", list.quantile_ms(0.5)),
        ("search_p50", found.quantile_ms(0.5)),
        ("search_p99", found.quantile_ms(0.99)),
        ("search_common_p50", common.quantile_ms(0.5)),
    ]);
    values.extend([("stored_hello", hello), ("stored_memory", each)]);
    Ok(values)
}

/// The same ones each time.
struct Random(u64);

impl Random {
    /// Knuth's linear congruential generator; the upper bits are the good ones.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn word(number: u64) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu", "wa", "ze", "chi",
        "sho", "tru",
    ];
    let syllable = |place: u64| SYLLABLES[(number / 20u64.pow(place as u32) % 20) as usize];
    (0..3).map(|place| syllable(place)).collect()
}

/// As `sessions.export` writes one.
fn conversation(number: usize) -> String {
    let mut random = Random(number as u64 + 1_000);
    let at = EPOCH_MS + number * 60_000;
    let mut lines =
        vec![json!({ "type": "session", "version": 1, "key": format!("agent:main:bench-{number}"), "createdAt": at })];
    for message in 0..MESSAGES {
        let words: Vec<String> = (0..WORDS)
            .map(|_| {
                // The cube gathers them at the low numbers.
                let share = random.below(1 << 20) as f64 / f64::from(1 << 20);
                word((share.powi(3) * VOCABULARY as f64) as u64)
            })
            .collect();
        let role = if message % 2 == 0 { "user" } else { "assistant" };
        lines.push(json!({ "type": "message", "message": {
            "role": role, "content": [{ "type": "text", "text": words.join(" ") }], "timestamp": at + message * 1_000 } }));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_differ_and_one_is_common() {
        assert_eq!((0..VOCABULARY).map(word).collect::<HashSet<_>>().len(), VOCABULARY as usize);
        let texts: Vec<String> = (0..40).map(conversation).collect();
        let messages: Vec<&str> = texts.iter().flat_map(|text| text.lines().skip(1)).collect();
        let with = messages.iter().filter(|line| line.contains(&word(0))).count();
        assert_eq!(messages.len(), 40 * MESSAGES);
        assert!((250..=380).contains(&with), "{with} of 400");
    }
}
