//! Turns against a model and tools that do what the test says.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::*;
use crate::{
    provider::{Delta, ErrorKind, Request},
    tool::{Answer, Call},
};

type Script = Vec<Result<Delta, ProviderError>>;

/// Answers each request with the next script, and hangs after one that does not end.
#[derive(Debug, Default)]
struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<Request>>,
}

impl Scripted {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self { scripts: Mutex::new(scripts.into_iter().collect()), requests: Mutex::default() })
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Provider for Scripted {
    fn stream(&self, request: Request) -> futures_util::stream::BoxStream<'static, Result<Delta, ProviderError>> {
        self.requests.lock().unwrap().push(request);
        let script = self.scripts.lock().unwrap().pop_front().expect("asked more often than scripted");
        stream::iter(script).chain(stream::pending()).boxed()
    }
}

fn says(text: &str) -> Script {
    vec![
        Ok(Delta::Started { model: Some("m-1".to_owned()), response_id: Some("r-1".to_owned()) }),
        Ok(Delta::Text(text.to_owned())),
        Ok(Delta::Usage(Usage { input: 10, output: 2, ..Usage::default() })),
        Ok(Delta::Stopped(Stop::End)),
    ]
}

fn calls(calls: &[(&str, &str, &str)]) -> Script {
    let mut script = Vec::new();
    for (index, (id, name, json)) in (0..).zip(calls) {
        script.push(Ok(Delta::ToolCall { index, id: (*id).to_owned(), name: (*name).to_owned() }));
        let (half, rest) = json.split_at(json.len() / 2);
        script.push(Ok(Delta::Arguments { index, json: half.to_owned() }));
        script.push(Ok(Delta::Arguments { index, json: rest.to_owned() }));
    }
    script.push(Ok(Delta::Stopped(Stop::ToolUse)));
    script
}

fn fails(kind: ErrorKind) -> Script {
    vec![
        Ok(Delta::Text("half".to_owned())),
        Err(ProviderError { kind, message: format!("{kind:?}"), retry_after: None }),
    ]
}

type Body = Box<dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync>;

struct TestTool {
    spec: ToolSpec,
    effects: Effects,
    untrusted: bool,
    body: Body,
}

impl Tool for TestTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self) -> Effects {
        self.effects
    }

    fn untrusted(&self) -> bool {
        self.untrusted
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Answer> {
        (self.body)(call)
    }
}

fn tool<F>(name: &str, effects: Effects, body: impl Fn(Call) -> F + Send + Sync + 'static) -> Arc<dyn Tool>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let parameters = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let spec = ToolSpec { name: name.to_owned(), description: String::new(), parameters };
    let body: Body = Box::new(move |call| Box::pin(body(call)));
    Arc::new(TestTool { spec, effects, untrusted: false, body })
}

fn echo() -> Arc<dyn Tool> {
    tool("echo", Effects::None, |call| async move { Answer::text(call.arguments.to_string()) })
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    steering: VecDeque<Vec<Message>>,
    fail_at: Option<usize>,
    /// Cancelled when the named tool has started.
    cancel_at_tool: Option<(String, CancellationToken)>,
    cancel_at_text: Option<CancellationToken>,
}

impl Log {
    /// The events in short.
    fn lines(&self) -> Vec<String> {
        self.events.iter().map(line).collect()
    }

    fn results(&self) -> Vec<(String, bool, String)> {
        let results = self.events.iter().filter_map(|event| match event {
            Event::ToolDone { result, .. } => Some(result),
            _ => None,
        });
        results
            .map(|r| (r.call_id.clone(), r.is_error, Message { role: Role::Tool, parts: r.content.clone() }.text()))
            .collect()
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::Asking { model, attempt } => format!("asking {model} {attempt}"),
        Event::Discarded { error, .. } => format!("discarded {:?}", error.kind),
        Event::Text { delta } => format!("text {delta}"),
        Event::Thinking { delta } => format!("thinking {delta}"),
        Event::Usage { round } => format!("usage {}", round.total()),
        Event::Assistant { stop, .. } => format!("assistant {stop:?}"),
        Event::ToolStarted { call, effects } => format!("started {} {effects:?}", call.id),
        Event::ToolProgress { call_id, text } => format!("progress {call_id} {text}"),
        Event::ToolDone { result, .. } => {
            format!("done {} {}", result.call_id, if result.is_error { "error" } else { "ok" })
        }
        Event::Steered { messages } => format!("steered {}", messages.len()),
    }
}

impl Sink for Log {
    fn event(&mut self, event: Event) -> BoxFuture<'_, Result<(), SinkFailed>> {
        if let (Some((name, cancel)), Event::ToolStarted { call, .. }) = (&self.cancel_at_tool, &event)
            && call.name == *name
        {
            cancel.cancel();
        }
        if let (Some(cancel), Event::Text { .. }) = (&self.cancel_at_text, &event) {
            cancel.cancel();
        }
        self.events.push(event);
        let failed = self.fail_at == Some(self.events.len());
        Box::pin(async move { if failed { Err(SinkFailed("disk full".to_owned())) } else { Ok(()) } })
    }

    fn steering(&mut self) -> Vec<Message> {
        self.steering.pop_front().unwrap_or_default()
    }
}

fn candidate(name: &str, provider: &Arc<Scripted>) -> Candidate {
    let model = Model {
        reference: ModelRef { provider: "p".to_owned(), model: name.to_owned() },
        name: name.to_owned(),
        context_window: 100_000,
        max_tokens: Some(8_000),
        reasoning: false,
        images: false,
        price: None,
    };
    Candidate { model: Arc::new(model), provider: Arc::<Scripted>::clone(provider) }
}

fn turn(provider: &Arc<Scripted>, tools: Vec<Arc<dyn Tool>>) -> Turn {
    Turn {
        models: vec![candidate("m", provider)],
        system: "be good".to_owned(),
        history: vec![Message::user("hello")],
        tools,
        thinking: Thinking::Off,
        max_tokens: None,
        limits: Limits::default(),
        patience: Patience::default(),
        cancel: CancellationToken::new(),
    }
}

async fn go(turn: Turn) -> (Ended, Log) {
    let mut log = Log::default();
    let ended = run(turn, &mut log).await;
    (ended, log)
}

#[tokio::test(start_paused = true)]
async fn a_question_and_its_answer() {
    let model = Scripted::new([says("hi there")]);
    let (ended, log) = go(turn(&model, vec![])).await;
    assert!(matches!(ended.how, How::Finished(Stop::End)), "{ended:?}");
    assert_eq!((ended.text().as_str(), ended.usage.total(), ended.tool_calls), ("hi there", 12, 0));
    assert_eq!(log.lines(), ["asking p/m 1", "text hi there", "usage 12", "assistant End"]);
    let Event::Assistant { response_model, response_id, .. } = &log.events[3] else { panic!() };
    assert_eq!((response_model.as_deref(), response_id.as_deref()), (Some("m-1"), Some("r-1")));
    assert_eq!(model.requests()[0].system, "be good");
}

#[tokio::test(start_paused = true)]
async fn tools_run_and_their_answers_go_back() {
    let model = Scripted::new([calls(&[("c1", "echo", r#"{"n": 1}"#), ("c2", "echo", "")]), says("done")]);
    let (ended, log) = go(turn(&model, vec![echo()])).await;
    assert!(matches!(ended.how, How::Finished(Stop::End)));
    assert_eq!(
        log.lines(),
        [
            "asking p/m 1",
            "assistant ToolUse",
            "started c1 None",
            "started c2 None",
            "done c1 ok",
            "done c2 ok",
            "asking p/m 1",
            "text done",
            "usage 12",
            "assistant End"
        ]
    );
    assert_eq!(log.results()[0], ("c1".to_owned(), false, r#"{"n":1}"#.to_owned()));
    assert_eq!(log.results()[1].2, "{}");
    let second = &model.requests()[1].messages;
    assert_eq!(second.iter().map(|m| m.role).collect::<Vec<_>>(), [Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(second[2].parts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn harmless_calls_run_together_and_others_one_by_one() {
    async fn most_at_once(effects: Effects) -> usize {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (n, m) = (Arc::clone(&now), Arc::clone(&most));
        let slow = tool("slow", effects, move |_| {
            let (now, most) = (Arc::clone(&n), Arc::clone(&m));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Answer::text("ok")
            }
        });
        let model = Scripted::new([
            calls(&[("a", "slow", r#"{"n":1}"#), ("b", "slow", r#"{"n":2}"#), ("c", "echo", r#"{"n":3}"#)]),
            says("done"),
        ]);
        let (ended, log) = go(turn(&model, vec![slow, echo()])).await;
        assert_eq!(ended.tool_calls, 3);
        // Whatever finished first, the history has them in the order of the calls.
        let ids: Vec<String> = model.requests()[1].messages[2]
            .parts
            .iter()
            .map(|part| match part {
                Part::ToolResult(result) => result.call_id.clone(),
                _ => String::new(),
            })
            .collect();
        assert_eq!(ids, ["a", "b", "c"]);
        if effects == Effects::Some {
            let order: Vec<String> =
                log.lines().into_iter().filter(|l| l.starts_with("started") || l.starts_with("done")).collect();
            assert_eq!(
                order,
                ["started a Some", "done a ok", "started b Some", "done b ok", "started c None", "done c ok"]
            );
        }
        most.load(Ordering::SeqCst)
    }
    assert_eq!(most_at_once(Effects::None).await, 2);
    assert_eq!(most_at_once(Effects::Some).await, 1);
}

#[tokio::test(start_paused = true)]
async fn wrong_calls_are_told_what_is_wrong() {
    let model = Scripted::new([
        calls(&[
            ("c1", "nothing", "{}"),
            ("c2", "echo", r#"{"n": "one"}"#),
            ("c3", "echo", r#"{"n": 1"#),
            ("c4", "echo", "[1]"),
        ]),
        says("sorry"),
    ]);
    let (ended, log) = go(turn(&model, vec![echo()])).await;
    assert!(matches!(ended.how, How::Finished(Stop::End)));
    assert_eq!(ended.tool_calls, 0);
    let results = log.results();
    let check = |at: usize, words: &[&str]| {
        let (_, is_error, text) = &results[at];
        assert!(*is_error && words.iter().all(|word| text.contains(word)), "{text}");
    };
    check(0, &["no tool \"nothing\"", "There are: echo"]);
    check(1, &["`n` must be integer, not a string", "schema"]);
    check(2, &["not JSON", "smaller steps"]);
    check(3, &["must be object, not an array"]);
    assert!(log.lines().contains(&"started c3 None".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn ids_that_are_missing_or_twice_are_replaced() {
    let model = Scripted::new([calls(&[("", "echo", "{}"), ("x", "echo", "{}"), ("x", "echo", "{}")]), says("done")]);
    let (_, log) = go(turn(&model, vec![echo()])).await;
    let ids: std::collections::HashSet<String> = log.results().into_iter().map(|result| result.0).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.contains("x") && !ids.contains(""));
}

#[tokio::test(start_paused = true)]
async fn a_failure_half_way_is_taken_back_and_asked_again() {
    let model = Scripted::new([fails(ErrorKind::Unavailable), says("whole")]);
    let (ended, log) = go(turn(&model, vec![])).await;
    assert_eq!(ended.text(), "whole");
    assert_eq!(
        log.lines(),
        [
            "asking p/m 1",
            "text half",
            "discarded Unavailable",
            "asking p/m 2",
            "text whole",
            "usage 12",
            "assistant End"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_is_followed_by_the_next() {
    let (first, second) =
        (Scripted::new([fails(ErrorKind::Auth)]), Scripted::new([calls(&[("c", "echo", "{}")]), says("I can")]));
    let mut turn = turn(&first, vec![echo()]);
    turn.models.push(candidate("n", &second));
    let (ended, log) = go(turn).await;
    assert_eq!(ended.text(), "I can");
    assert_eq!(ended.model, Some(ModelRef { provider: "p".to_owned(), model: "n".to_owned() }));
    let asked: Vec<String> = log.lines().into_iter().filter(|line| line.starts_with("asking")).collect();
    // The next round begins with who could.
    assert_eq!(asked, ["asking p/m 1", "asking p/n 2", "asking p/n 1"]);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_can_the_error_and_what_was_said_remain() {
    let model = Scripted::new([fails(ErrorKind::Auth)]);
    let (ended, log) = go(turn(&model, vec![])).await;
    assert!(matches!(&ended.how, How::Failed(error) if error.kind == ErrorKind::Auth), "{ended:?}");
    assert_eq!(ended.text(), "half");
    assert_eq!(log.lines(), ["asking p/m 1", "text half"]);

    let mut nobody = turn(&model, vec![]);
    nobody.models.clear();
    let (ended, _) = go(nobody).await;
    assert!(matches!(&ended.how, How::Failed(error) if error.message.contains("no model")), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_too_long_after_all_is_cut() {
    let long = || Message::user("x".repeat(200_000));
    let model = Scripted::new([fails(ErrorKind::ContextLength), fails(ErrorKind::ContextLength), says("ok")]);
    let mut turn = turn(&model, vec![]);
    turn.history = vec![long(), Message::assistant("a"), Message::user("now?")];
    let (ended, _) = go(turn).await;
    assert_eq!(ended.text(), "ok");
    let sizes: Vec<u64> = model.requests().iter().map(|r| prompt::estimate(&r.system, &r.messages, &r.tools)).collect();
    assert!(sizes[0] > 50_000 && sizes[2] < sizes[0], "{sizes:?}");
    assert!(model.requests()[2].messages.last().unwrap().text().ends_with("now?"));
}

#[tokio::test(start_paused = true)]
async fn cancelling_while_the_model_speaks_keeps_what_it_said() {
    let model = Scripted::new([vec![Ok(Delta::Text("half a".to_owned()))]]);
    let turn = turn(&model, vec![]);
    let mut log = Log { cancel_at_text: Some(turn.cancel.clone()), ..Log::default() };
    let ended = run(turn, &mut log).await;
    assert!(matches!(ended.how, How::Cancelled));
    assert_eq!(ended.text(), "half a");
}

#[tokio::test(start_paused = true)]
async fn cancelling_reaches_tools_and_every_call_has_a_result() {
    let polite = tool("polite", Effects::Some, |call| async move {
        call.cancel.cancelled().await;
        Answer::text("stopped at 3 of 7")
    });
    let deaf = tool("deaf", Effects::Some, |_| async { std::future::pending().await });
    for (name, expected) in
        [("polite", "stopped at 3 of 7"), ("deaf", "It was cancelled. Whether it took effect is not known")]
    {
        let model = Scripted::new([calls(&[("c1", name, "{}"), ("c2", "echo", "{}")])]);
        let turn = turn(&model, vec![Arc::clone(&polite), Arc::clone(&deaf), echo()]);
        let mut log = Log { cancel_at_tool: Some((name.to_owned(), turn.cancel.clone())), ..Log::default() };
        let ended = run(turn, &mut log).await;
        assert!(matches!(ended.how, How::Cancelled));
        let results = log.results();
        assert!(results[0].2.starts_with(expected), "{results:?}");
        assert!(results[1].1 && results[1].2.contains("not run"), "{results:?}");
        assert_eq!(ended.tool_calls, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn time_runs_out() {
    let hang = tool("hang", Effects::None, |_| async { std::future::pending().await });
    // The tool's own time is 20 s, the turn's longer: the model hears of it.
    let model = Scripted::new([calls(&[("c1", "hang", "{}")]), says("it hangs")]);
    let (ended, log) = go(turn(&model, vec![Arc::clone(&hang)])).await;
    assert_eq!(ended.text(), "it hangs");
    assert!(log.results()[0].2.contains("within 20 s"), "{:?}", log.results());
    // The turn's is shorter.
    for script in [calls(&[("c1", "hang", "{}")]), vec![Ok(Delta::Text("so".to_owned()))]] {
        let model = Scripted::new([script]);
        let mut turn = turn(&model, vec![Arc::clone(&hang)]);
        turn.limits.timeout = Duration::from_secs(10);
        let (ended, _) = go(turn).await;
        assert!(matches!(ended.how, How::TimedOut), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_run_out() {
    let model = Scripted::new((0..3).map(|n| calls(&[("c", "echo", &format!("{{\"n\":{n}}}"))])));
    let mut turn = turn(&model, vec![echo()]);
    turn.limits.rounds = 3;
    let (ended, _) = go(turn).await;
    assert!(matches!(ended.how, How::TooManyRounds));
    assert_eq!(ended.tool_calls, 3);
}

#[tokio::test(start_paused = true)]
async fn going_round_in_circles_is_told_then_stopped() {
    let model = Scripted::new((0..7).map(|n| calls(&[(&format!("c{n}"), "echo", r#"{"n":1}"#)])));
    let (ended, log) = go(turn(&model, vec![echo()])).await;
    assert!(matches!(&ended.how, How::Looping { tool } if tool == "echo"), "{ended:?}");
    assert_eq!(ended.tool_calls, 5);
    let told: Vec<bool> = log.results().iter().map(|result| result.2.contains("same answer")).collect();
    assert_eq!(told, [false, false, true, true, true, true, true]);
    // What changes is no circle.
    let count = Arc::new(AtomicUsize::new(0));
    let poll = tool("poll", Effects::None, move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        async move { Answer::text(n.to_string()) }
    });
    let model = Scripted::new((0..10).map(|n| calls(&[(&format!("c{n}"), "poll", "{}")])).chain([says("done")]));
    let (ended, _) = go(turn(&model, vec![poll])).await;
    assert!(matches!(ended.how, How::Finished(_)));
}

#[tokio::test(start_paused = true)]
async fn steering_goes_between_rounds() {
    let model = Scripted::new([calls(&[("c", "echo", "{}")]), says("as you wish")]);
    let mut log = Log { steering: VecDeque::from([vec![Message::user("rather in French")]]), ..Log::default() };
    run(turn(&model, vec![echo()]), &mut log).await;
    assert!(log.lines().contains(&"steered 1".to_owned()));
    assert_eq!(model.requests()[1].messages.last().unwrap().text(), "rather in French");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_ends_the_turn_before_the_tool_runs() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let effect = tool("effect", Effects::Some, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Answer::text("did it") }
    });
    let model = Scripted::new([calls(&[("c", "effect", "{}")])]);
    // The third event is ToolStarted: it could not be kept, so nothing may happen.
    let mut log = Log { fail_at: Some(3), ..Log::default() };
    let ended = run(turn(&model, vec![effect]), &mut log).await;
    assert!(matches!(&ended.how, How::Sink(failed) if failed.0 == "disk full"));
    assert_eq!(log.lines().last().unwrap(), "started c Some");
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_goes_on_where_a_crash_left_it() {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log_runs = Arc::clone(&ran);
    let effect = tool("effect", Effects::Some, move |call| {
        log_runs.lock().unwrap().push(call.id.clone());
        async { Answer::text("did it") }
    });
    let call = |id: &str| ToolCall { id: id.to_owned(), name: "effect".to_owned(), arguments: json!({}) };
    let parts = ["a", "b", "c"].map(|id| Part::ToolCall(call(id))).to_vec();
    let model = Scripted::new([says("done")]);
    let mut turn = turn(&model, vec![effect]);
    turn.history.push(Message { role: Role::Assistant, parts });
    turn.history.push(Message::tool(ToolResult {
        call_id: "a".to_owned(),
        name: "effect".to_owned(),
        content: vec![Part::Text("did it before".to_owned())],
        is_error: false,
    }));
    assert_eq!(unanswered(&turn.history).len(), 2);
    // "b" had started, "c" had not.
    turn.history.push(Message::tool(ToolResult::interrupted(&call("b"))));
    let (ended, log) = go(turn).await;
    assert_eq!(ended.text(), "done");
    assert_eq!(*ran.lock().unwrap(), ["c"]);
    assert_eq!(log.lines()[..3], ["started c Some", "done c ok", "asking p/m 1"]);
    let sent = &model.requests()[0].messages;
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert_eq!(sent[2].parts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn answers_are_bounded_and_marked() {
    let spec = ToolSpec { name: "web".to_owned(), description: String::new(), parameters: json!({"type": "object"}) };
    let body: Body = Box::new(|_| Box::pin(async { Answer::text("x".repeat(100_000)) }));
    let web: Arc<dyn Tool> = Arc::new(TestTool { spec, effects: Effects::None, untrusted: true, body });
    let model = Scripted::new([calls(&[("c", "web", "{}")]), says("done")]);
    let (_, log) = go(turn(&model, vec![web])).await;
    let text = &log.results()[0].2;
    assert!(text.len() < 16_300, "{}", text.len());
    assert!(
        text.starts_with("<<<EXTERNAL_UNTRUSTED_CONTENT id=\"") && text.contains("Source: web\n---\nxxx"),
        "{text}"
    );
    assert!(text.contains("bytes left out"));
}

#[tokio::test(start_paused = true)]
async fn progress_is_heard_and_a_panic_is_an_error() {
    let busy = tool("busy", Effects::Some, |call| async move {
        call.progress.send("10 %".to_owned()).await.unwrap();
        call.progress.send("90 %".to_owned()).await.unwrap();
        Answer::text("100 %")
    });
    let broken = tool("broken", Effects::None, |_| async { panic!("a fault in the tool") });
    let model =
        Scripted::new([calls(&[("a", "busy", "{}"), ("b", "broken", "{}"), ("c", "echo", "{}")]), says("done")]);
    let (ended, log) = go(turn(&model, vec![busy, broken, echo()])).await;
    assert!(matches!(ended.how, How::Finished(_)));
    assert!(log.lines().contains(&"progress a 10 %".to_owned()) && log.lines().contains(&"progress a 90 %".to_owned()));
    let results = log.results();
    assert!(results[1].1 && results[1].2.contains("failed inside"), "{results:?}");
    assert!(!results[2].1);
}
