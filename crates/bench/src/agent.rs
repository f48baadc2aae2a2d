//! What a turn costs when the model costs nothing, what each streamed token costs on its way from the model to a client, and
//! many conversations at once. The model is a server of ours that notes when each piece of an answer left it.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use doubles::model::{Model, Reply, Script};
use futures_util::SinkExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Conn, Identity, event_payload, next_text, request},
    load::{Scale, Values, values},
    report::Report,
    sse,
    stats::{Samples, rate},
    subject::{Kind, Programs, Running},
};

/// Bytes of a token: as long as an English one.
const TOKEN: usize = 5;
/// A turn must not take longer than this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Turns of one conversation before the next is begun, so that the prompt stays small.
const TURNS_EACH: usize = 10;
/// Turns of the reference: one takes most of a second.
const REFERENCE_TURNS: usize = 20;
/// Between two tokens: 25 per second, as large models speak.
const SLOW: Duration = Duration::from_millis(40);
/// Between two tokens: 100 per second, as small and local ones speak.
const FAST: Duration = Duration::from_millis(10);
/// Tokens of each reply when many speak at once, and the time between two.
const CROWD: (usize, Duration) = (40, Duration::from_millis(50));

/// Configuration with the double as the model of all agents.
pub fn config(model: &Model) -> Value {
    let known = json!({"id": "one", "name": "one", "reasoning": false, "input": ["text"], "contextWindow": 128_000,
                       "maxTokens": 4096, "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}});
    json!({
        "models": {"mode": "merge", "providers": {"double": {"baseUrl": model.url(), "apiKey": "a-key",
            "api": "openai-completions", "models": [known]}}},
        "agents": {"defaults": {"model": {"primary": "double/one"}, "maxConcurrent": 256}},
        "gateway": {"http": {"endpoints": {"chatCompletions": {"enabled": true}}}},
    })
}

/// An answer of so many tokens.
fn reply(tokens: usize, pace: Duration) -> Reply {
    let text: String = (0..tokens).map(|i| format!("t{:0width$}.", i % 1_000, width = TOKEN - 2)).collect();
    Reply::say(text).pieces(tokens).pace(pace)
}

/// A fresh gateway, measured and ended.
pub async fn measure(programs: &Programs, kind: Kind, scale: Scale, report: &mut Report) {
    let model = Model::start(Script::always(Reply::say("Yes.")));
    let gateway = match programs.start_with(kind, &config(&model), |target, _| Some(target.clone())).await {
        Ok(gateway) => gateway,
        Err(error) => return report.take(kind, "agent", Err(error)),
    };
    report.take(kind, "turns", turns(&gateway, &model, scale).await);
    report.take(kind, "streamed tokens", tokens(&gateway, &model, scale).await);
    report.take(kind, "streamed over HTTP", http(&gateway, &model, scale).await);
    report.take(kind, "many at once", crowd(&gateway, &model, scale).await);
    gateway.stop().await;
}

/// A message for a run; the model finds the id in it.
fn message(session: &str, run: &str) -> String {
    let params = json!({ "sessionKey": session, "message": format!("Question {run}."), "idempotencyKey": run });
    request(run, "chat.send", &params)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chat<'a> {
    #[serde(borrow)]
    run_id: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow, default)]
    error_message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<ChatMessage<'a>>,
}

#[derive(Deserialize)]
struct ChatMessage<'a> {
    #[serde(borrow, default)]
    content: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

/// What was heard of one run.
#[derive(Default)]
struct Heard {
    /// When each token was heard first.
    tokens: Vec<Instant>,
    /// `chat` events with text.
    deltas: usize,
    ended: Option<Instant>,
}

impl Heard {
    fn event(&mut self, chat: &Chat<'_>) -> Result<()> {
        let now = Instant::now();
        match &*chat.state {
            "delta" => {
                self.deltas += 1;
                let parts = chat.message.as_ref().map(|message| message.content.as_slice()).unwrap_or_default();
                let said: usize = parts.iter().map(|part| part.text.len()).sum();
                self.tokens.resize(self.tokens.len().max(said / TOKEN), now);
            }
            "final" => self.ended = Some(now),
            "error" | "aborted" => bail!("the run failed: {}", chat.error_message.as_deref().unwrap_or_default()),
            _ => {}
        }
        Ok(())
    }
}

/// Hears until all of these runs have ended.
async fn hear(conn: &mut Conn, runs: &mut HashMap<String, Heard>) -> Result<()> {
    let mut open = runs.len();
    while open > 0 {
        let text = timeout(PATIENCE, next_text(&mut conn.ws)).await.context("a turn did not end")??;
        if text.starts_with("{\"type\":\"res\"") && text.contains("\"ok\":false") {
            bail!("refused: {text}");
        }
        let Some(chat) = event_payload::<Chat<'_>>(&text, "chat") else { continue };
        if let Some(heard) = runs.get_mut(&*chat.run_id) {
            heard.event(&chat)?;
            open -= usize::from(heard.ended.is_some());
        }
    }
    Ok(())
}

/// One turn; how long it took, and what was heard.
async fn turn(conn: &mut Conn, session: &str, run: &str) -> Result<(Instant, Heard)> {
    let mut runs = HashMap::from([(run.to_owned(), Heard::default())]);
    let start = Instant::now();
    conn.ws.send(Message::text(message(session, run))).await?;
    hear(conn, &mut runs).await.with_context(|| run.to_owned())?;
    Ok((start, runs.remove(run).unwrap_or_default()))
}

/// When the model had read the question of each run, and when each event of its answer left.
fn sent(model: &Model) -> HashMap<String, Vec<Instant>> {
    let mut all = HashMap::new();
    for (ask, sent) in model.asks().into_iter().zip(model.sent()) {
        // The reference adds messages of its own after the question. The first to ask is the turn; what a gateway asks about
        // it later (for a title) is not.
        let question = ask.messages.iter().rev().find_map(|(_, text)| question(text));
        if let Some(run) = question {
            all.entry(run.to_owned()).or_insert(sent);
        }
    }
    all
}

/// The run of the last question in a text.
fn question(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("Question ")?;
    Some(rest.split_once('.')?.0)
}

/// Time the model itself took.
fn model_time(sent: &[Instant]) -> Duration {
    match (sent.first(), sent.last()) {
        (Some(first), Some(last)) => *last - *first,
        _ => Duration::ZERO,
    }
}

/// What each token took from the model's socket to here. Before the tokens, the model tells its role.
fn delays(sent: &[Instant], heard: &[Instant]) -> Samples {
    let mut delays = Samples::default();
    let left = sent.iter().skip(2);
    left.zip(heard).for_each(|(left, heard)| delays.push(heard.saturating_duration_since(*left)));
    delays
}

async fn turns(gateway: &Running, model: &Model, scale: Scale) -> Result<Values> {
    let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
    let count = if gateway.kind == Kind::Reference { scale.turns.min(REFERENCE_TURNS) } else { scale.turns };
    for warm in 0..3 {
        turn(&mut conn, "warm", &format!("warm-{warm}")).await?;
    }
    let before = gateway.process.usage();
    let (mut took, mut runs) = (Vec::new(), Vec::new());
    for i in 0..count {
        let run = format!("turn-{i:04}");
        let (start, heard) = turn(&mut conn, &format!("bench-{}", i / TURNS_EACH), &run).await?;
        took.push(heard.ended.context("no end")? - start);
        runs.push(run);
    }
    let cpu = gateway.process.usage().cpu_ns.saturating_sub(before.cpu_ns);
    let sent = sent(model);
    let mut samples = Samples::default();
    for (run, took) in runs.iter().zip(took) {
        let sent = sent.get(run).with_context(|| format!("the model was not asked for {run}"))?;
        samples.push(took.saturating_sub(model_time(sent)));
    }
    let mut found = values([("turn_p50", samples.quantile_ms(0.5)), ("turn_p99", samples.quantile_ms(0.99))]);
    found.push(("turn_cpu", cpu as f64 / 1e6 / count as f64));
    Ok(found)
}

async fn tokens(gateway: &Running, model: &Model, scale: Scale) -> Result<Values> {
    let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
    let mut found = Values::new();
    let kinds = [
        ("slow", SLOW, scale.tokens / 3, ["token_p50", "token_p99"]),
        ("fast", FAST, scale.tokens, ["token_fast_p50", "token_fast_p99"]),
    ];
    for (name, pace, count, keys) in kinds {
        model.play(Script::always(reply(count, pace)));
        let run = format!("tokens-{name}");
        let before = gateway.process.usage();
        let (_, heard) = turn(&mut conn, "tokens", &run).await?;
        let cpu = gateway.process.usage().cpu_ns.saturating_sub(before.cpu_ns);
        let sent = sent(model);
        let samples = delays(sent.get(&run).context("the model was not asked")?, &heard.tokens);
        ensure!(samples.len() >= count / 2, "{name}: {} of {count} tokens were streamed", samples.len());
        found.extend(values([(keys[0], samples.quantile_ms(0.5)), (keys[1], samples.quantile_ms(0.99))]));
        if name == "fast" {
            found.push(("token_cpu", cpu as f64 / 1e3 / count as f64));
        }
    }
    Ok(found)
}

/// The same tokens as a client of `/v1/chat/completions` gets them.
async fn http(gateway: &Running, model: &Model, scale: Scale) -> Result<Values> {
    let count = scale.tokens / 3;
    model.play(Script::always(reply(count, SLOW)));
    let run = "over-http".to_owned();
    let question = json!({"model": "openclaw", "stream": true,
                          "messages": [{"role": "user", "content": format!("Question {run}.")}]});
    let answer = sse::post(&gateway.target, "/v1/chat/completions", &question);
    let (mut heard, mut said) = (Vec::new(), 0);
    for (at, event) in timeout(PATIENCE, answer).await.context("the answer did not end")?? {
        let event: Value = serde_json::from_str(&event)?;
        said += event["choices"][0]["delta"]["content"].as_str().map_or(0, str::len);
        heard.resize(heard.len().max(said / TOKEN), at);
    }
    let sent = sent(model);
    let samples = delays(sent.get(&run).context("the model was not asked")?, &heard);
    ensure!(samples.len() >= count / 2, "{} of {count} tokens were streamed", samples.len());
    Ok(values([("token_http_p50", samples.quantile_ms(0.5)), ("token_http_p99", samples.quantile_ms(0.99))]))
}

async fn crowd(gateway: &Running, model: &Model, scale: Scale) -> Result<Values> {
    let mut conn = Conn::open(&gateway.target, &Identity::backend()).await?;
    let (tokens, pace) = CROWD;
    model.play(Script::always(reply(tokens, pace)));
    let names: Vec<String> = (0..scale.crowd).map(|i| format!("crowd-{i:04}")).collect();
    let mut runs: HashMap<_, _> = names.iter().map(|run| (run.clone(), Heard::default())).collect();
    let before = gateway.process.usage();
    let start = Instant::now();
    for run in &names {
        conn.ws.feed(Message::text(message(run, run))).await?;
    }
    conn.ws.flush().await?;
    // In the middle of it.
    let weigh = async {
        sleep(pace * u32::try_from(tokens / 2)?).await;
        anyhow::Ok(gateway.process.usage())
    };
    let (heard, middle) = futures_util::future::join(hear(&mut conn, &mut runs), weigh).await;
    heard?;
    let took = start.elapsed();
    let after = gateway.process.usage();
    let memory = middle?.pss_mb().max(after.pss_mb());
    let sent = sent(model);
    let (mut overhead, mut delay) = (Samples::default(), Samples::default());
    for (run, heard) in &runs {
        let sent = sent.get(run).with_context(|| format!("the model was not asked for {run}"))?;
        overhead.push((heard.ended.context("no end")? - start).saturating_sub(model_time(sent)));
        delay.extend(delays(sent, &heard.tokens));
    }
    let mut found = values([
        ("crowd_overhead_p50", overhead.quantile_ms(0.5)),
        ("crowd_overhead_p99", overhead.quantile_ms(0.99)),
        ("crowd_token_p50", delay.quantile_ms(0.5)),
        ("crowd_token_p99", delay.quantile_ms(0.99)),
    ]);
    let cpu = after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e6;
    found.extend([
        ("crowd_turns", rate(names.len(), took)),
        ("crowd_pss", memory),
        ("crowd_cpu", cpu / names.len() as f64),
    ]);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_question_counts() {
        let found = ["Hello", "Question one.", "[now] Question one. Question two.\nMore."].map(question);
        assert_eq!(found, [None, Some("one"), Some("two")]);
    }

    #[test]
    fn each_piece_is_a_token() {
        let text = |tokens| format!("{:?}", reply(tokens, SLOW));
        assert!(text(2).contains("\"t000.t001.\""), "{}", text(2));
    }

    #[test]
    fn a_token_counts_from_when_it_was_first_heard() {
        let mut heard = Heard::default();
        let chat = |state: &'static str, text: &'static str| Chat {
            run_id: "r".into(),
            state: state.into(),
            error_message: None,
            message: Some(ChatMessage { content: vec![Part { text: text.into() }] }),
        };
        heard.event(&chat("delta", "t000.t001.")).expect("heard");
        let first = heard.tokens.clone();
        heard.event(&chat("delta", "t000.t001.t002.")).expect("heard");
        assert_eq!((heard.tokens.len(), &heard.tokens[..2]), (3, first.as_slice()));
        heard.event(&chat("final", "")).expect("heard");
        assert!(heard.ended.is_some());
        assert!(heard.event(&chat("error", "")).is_err());
    }

    #[test]
    fn delays_leave_out_the_question_and_the_role() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let delays = delays(&[at(0), at(1), at(10), at(20), at(21)], &[at(12), at(25)]);
        assert_eq!((delays.len(), delays.quantile_ms(1.0)), (2, Some(5.0)));
    }
}
