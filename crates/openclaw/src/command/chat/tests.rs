//! The interface without a terminal: what happens goes in, what is asked of the gateway comes out, and the screen is compared
//! with what a person should see.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::{
    approval::tests::request,
    model::{Ask, Connection, Do, Event, Model, Refusal, Start},
    theme::Theme,
    transcript::{Entry, Sent},
    view,
};

const NOW: i64 = 1_795_229_978_000;

struct Person {
    model: Model,
    columns: u16,
    rows: u16,
    theme: Theme,
}

impl Person {
    /// At a gateway of protocol 4 that keeps nothing yet.
    fn new() -> Self {
        Self::at(80, 24)
    }

    fn at(columns: u16, rows: u16) -> Self {
        let start = Start { session: "main".into(), history: 200, ..Start::default() };
        let model = Model::new(start, NOW, "seed".into());
        let mut person = Self { model, columns, rows, theme: Theme::new(false, true) };
        let methods = [
            "chat.send",
            "chat.history",
            "sessions.describe",
            "sessions.list",
            "sessions.subscribe",
            "commands.list",
            "exec.approval.list",
            "agent.wait",
            "sessions.search",
        ];
        let methods = methods.map(str::to_owned).to_vec();
        person.happens(Event::Connected { methods, version: String::new(), may_approve: true });
        person.happens(Event::Path { path: "ssh me@box (tunnel, 1.2 ms)".into(), came_back: false });
        person.history(&json!([]));
        person
    }

    fn happens(&mut self, event: Event) -> Vec<Do> {
        self.model.update(event)
    }

    fn history(&mut self, messages: &Value) -> Vec<Do> {
        let history = json!({"messages": messages, "hasMore": false, "sessionInfo": {"key": "agent:main:main",
            "modelProvider": "fake", "model": "fake-model", "contextTokens": 128_000, "totalTokens": 1234,
            "hasActiveRun": false, "label": "Work"}});
        let session = self.model.session.key.clone();
        self.happens(Event::Answer { ask: Ask::History { session }, outcome: Ok(history) })
    }

    fn key(&mut self, code: KeyCode) -> Vec<Do> {
        self.happens(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn ctrl(&mut self, c: char) -> Vec<Do> {
        self.happens(Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
    }

    fn types(&mut self, text: &str) {
        for c in text.chars() {
            self.key(KeyCode::Char(c));
        }
    }

    fn says(&mut self, text: &str) -> Vec<Do> {
        self.types(text);
        self.key(KeyCode::Enter)
    }

    /// A chat event of the run with this id.
    fn chat(&mut self, run: &str, more: Value) -> Vec<Do> {
        let mut payload = json!({"runId": run, "sessionKey": "agent:main:main"});
        payload.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        self.happens(Event::Gateway { name: "chat".into(), payload })
    }

    fn agent(&mut self, run: &str, stream: &str, data: Value) -> Vec<Do> {
        let payload = json!({"runId": run, "sessionKey": "agent:main:main", "stream": stream, "data": data});
        self.happens(Event::Gateway { name: "agent".into(), payload })
    }

    fn delta(&mut self, run: &str, text: &str) {
        self.chat(
            run,
            json!({"state": "delta", "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}}),
        );
    }

    /// The screen without trailing blanks.
    fn screen(&mut self) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(self.columns, self.rows)).expect("a terminal");
        let (model, theme) = (&mut self.model, self.theme);
        terminal.draw(|frame| view::draw(frame, model, theme)).expect("draws");
        let buffer = terminal.backend().buffer().clone();
        let row = |y| {
            let mut line = String::new();
            let mut x = 0;
            while x < self.columns {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                x += u16::try_from(super::wrap::width(symbol).max(1)).expect("narrow");
            }
            line.trim_end().to_owned()
        };
        (0..self.rows).map(row).collect()
    }

    /// The conversation alone, without blank rows at its end.
    fn talk(&mut self) -> Vec<String> {
        let screen = self.screen();
        let end = screen.iter().rposition(|line| line.starts_with("──")).expect("a rule");
        let mut talk = screen[2..end].to_vec();
        while talk.last().is_some_and(String::is_empty) {
            talk.pop();
        }
        talk
    }
}

fn method(todo: &[Do]) -> Vec<&'static str> {
    todo.iter().filter_map(|what| if let Do::Call { method, .. } = what { Some(*method) } else { None }).collect()
}

fn params(todo: &[Do]) -> Value {
    match &todo[0] {
        Do::Call { params, .. } => params.clone(),
        other => panic!("no call: {other:?}"),
    }
}

/// A whole turn as 2026.9.6 tells it (captured order: status, lifecycle, model, deltas, tool, deltas, final).
#[test]
fn a_turn() {
    let mut person = Person::new();
    let sent = person.says("look around");
    assert_eq!(
        params(&sent),
        json!({"sessionKey": "agent:main:main", "message": "look around", "idempotencyKey": "seed-1", "deliver": false})
    );
    let ask = Ask::Send { key: "seed-1".into(), session: "agent:main:main".into() };
    person.happens(Event::Answer { ask, outcome: Ok(json!({"runId": "seed-1", "status": "started"})) });
    person.chat("seed-1", json!({"state": "status", "phase": "preparing_context"}));
    assert!(person.screen()[22].contains("preparing context · 0s · Esc stops"), "{:?}", person.screen());
    person.agent("seed-1", "lifecycle", json!({"phase": "model", "provider": "fake", "model": "fake-model"}));
    person.delta("seed-1", "I will **look**. ");
    person.agent(
        "seed-1",
        "tool",
        json!({"phase": "start", "name": "exec", "toolCallId": "c", "args": {"command": "ls -l"}}),
    );
    assert!(person.screen()[22].contains("running exec"), "{:?}", person.screen()[22]);
    person.model.now_ms += 1500;
    let result = json!({"content": [{"type": "text", "text": "a\nb"}]});
    person.agent("seed-1", "tool", json!({"phase": "result", "name": "exec", "toolCallId": "c", "result": result}));
    person.delta("seed-1", "Two files:\n\n- a\n- b");
    assert_eq!(
        person.talk(),
        ["› look around", "", "  I will look.", "", "  ▸ exec ls -l ✓ 1.5s", "", "  Two files:", "", "  • a", "  • b▍"]
    );
    person.ctrl('o');
    assert_eq!(person.talk()[4..8], ["  ▾ exec ls -l ✓ 1.5s", "    │ command: ls -l", "    │ a", "    │ b"]);
    person.ctrl('o');
    let text = "Two files:\n\n- a\n- b";
    let message = json!({"role": "assistant", "content": [{"type": "text", "text": text}]});
    let after = person.chat("seed-1", json!({"state": "final", "message": message}));
    assert_eq!(method(&after), ["sessions.describe"], "the figures of the session");
    assert_eq!(person.talk().last().map(String::as_str), Some("  • b"));
    assert!(person.model.run.is_none());
    // What still trickles in of it is not shown.
    person.delta("seed-1", "late");
    assert!(person.model.run.is_none() && !person.talk().join("\n").contains("late"));
}

#[test]
fn the_whole_screen_at_80_by_24() {
    let mut person = Person::new();
    person.history(&json!([
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [{"type": "text", "text": "# Hi\n\n```sh\nls\n```"}]},
    ]));
    let rule = "─".repeat(80);
    let blank = String::new();
    let mut expected: Vec<String> = vec![
        " Work · fake/fake-model                           ● ssh me@box (tunnel, 1.2 ms)".into(),
        rule.clone(),
        "› hello".into(),
        blank.clone(),
        "  Hi".into(),
        blank.clone(),
        "    sh".into(),
        "  │ ls".into(),
    ];
    expected.extend(std::iter::repeat_n(blank, 13));
    expected.extend([
        rule,
        " /keys · Ctrl-P conversations · Ctrl-L models             1.2k/128k (0%) tokens".into(),
        " › message, or / for commands".into(),
    ]);
    assert_eq!(person.screen(), expected);
}

/// 60 columns, ASCII, no colour: nothing is lost but what is said to be cut.
#[test]
fn narrow_and_plain() {
    let mut person = Person::at(60, 16);
    person.theme = Theme::new(false, false);
    person.history(&json!([
        {"role": "user", "content": "a question that is longer than one line of sixty columns can hold"},
        {"role": "assistant", "content": [{"type": "text", "text": "an answer\n\n- with a list"},
         {"type": "toolCall", "id": "c", "name": "exec", "arguments": {"command": "x"}}]},
    ]));
    let screen = person.screen();
    assert_eq!(screen[0], " Work, fake/fake-model        * ssh me@box (tunnel, 1.2 ms)");
    assert_eq!(
        screen[2..9],
        [
            "> a question that is longer than one line of sixty columns",
            "  can hold",
            "",
            "  an answer",
            "",
            "  * with a list",
            ""
        ]
    );
    assert_eq!(screen[9], "  + exec x ok");
    assert!(screen.iter().all(|line| line.is_ascii()), "{screen:?}");
    for (columns, rows) in [(20, 6), (21, 7), (10, 3), (200, 60), (60, 10)] {
        (person.columns, person.rows) = (columns, rows);
        person.screen();
    }
}

#[test]
fn esc_stops_the_run() {
    let mut person = Person::new();
    person.says("go");
    person.agent("r", "lifecycle", json!({"phase": "start"}));
    let todo = person.key(KeyCode::Esc);
    assert_eq!(
        (method(&todo), params(&todo)),
        (vec!["chat.abort"], json!({"sessionKey": "agent:main:main", "runId": "r"}))
    );
    assert!(person.key(KeyCode::Esc).is_empty(), "once is enough");
    person.chat("r", json!({"state": "aborted", "stopReason": "rpc"}));
    assert!(person.model.run.is_none());
    assert_eq!(person.talk().last().map(String::as_str), Some("  ! aborted"));
}

#[test]
fn what_was_not_sent_says_so() {
    let mut person = Person::new();
    person.says("hello");
    let ask = || Ask::Send { key: "seed-1".into(), session: "agent:main:main".into() };
    let refusal = Refusal { text: "missing scope: operator.write".into(), unknown: false };
    person.happens(Event::Answer { ask: ask(), outcome: Err(refusal) });
    assert_eq!(person.talk()[1], "  not sent: missing scope: operator.write (Up brings it back)");
    person.key(KeyCode::Up);
    assert_eq!(person.model.editor.text(), "hello");
    person.happens(Event::Answer { ask: ask(), outcome: Err(Refusal { text: String::new(), unknown: true }) });
    assert!(person.talk()[1].contains("whether it arrived is not known"), "{:?}", person.talk());
}

/// A message that comes while the agent works waits, and does not take the place of the run that Esc stops.
#[test]
fn messages_wait_for_their_turn() {
    let mut person = Person::new();
    let sent = |person: &mut Person, key: &str, status: &str| {
        let ask = Ask::Send { key: key.into(), session: "agent:main:main".into() };
        person.happens(Event::Answer { ask, outcome: Ok(json!({"runId": key, "status": status})) });
    };
    person.says("first");
    sent(&mut person, "seed-1", "started");
    person.delta("seed-1", "half");
    person.says("second");
    sent(&mut person, "seed-2", "accepted");
    assert!(person.screen().iter().any(|line| line.contains("waits for its turn")), "{:?}", person.screen());
    assert_eq!(person.model.run.as_ref().map(|run| run.id.as_str()), Some("seed-1"));
    person.delta("seed-2", "mine");
    assert_eq!(person.model.run.as_ref().map(|run| run.id.as_str()), Some("seed-2"));
    assert!(!person.screen().iter().any(|line| line.contains("waits for its turn")), "{:?}", person.screen());
}

/// The connection goes and comes: the state is shown, what was missed is read, a run that ended meanwhile is over.
#[test]
fn away_and_back() {
    let mut person = Person::new();
    person.says("go");
    let ask = Ask::Send { key: "seed-1".into(), session: "agent:main:main".into() };
    person.happens(Event::Answer { ask, outcome: Ok(json!({"runId": "seed-1", "status": "started"})) });
    person.delta("seed-1", "half");
    person.happens(Event::Away("the connection fell silent".into()));
    let screen = person.screen();
    assert!(
        screen[0].ends_with("○ no connection")
            && screen[22].contains("trying again: ")
            && screen[22].contains("fell silent"),
        "{screen:?}"
    );
    person.happens(Event::Path { path: "lan ws://10.0.0.2:1".into(), came_back: true });
    assert!(matches!(&person.model.connection, Connection::Up(_)));
    let todo = person.happens(Event::Missed);
    assert_eq!(method(&todo), ["chat.history", "exec.approval.list", "agent.wait"]);
    person.history(&json!([
        {"role": "user", "content": "go", "idempotencyKey": "seed-1:user"},
        {"role": "assistant", "content": [{"type": "text", "text": "half and whole"}]}]));
    assert!(person.model.run.is_none(), "the history says that nothing runs");
    assert_eq!(person.talk(), ["› go", "", "  half and whole"]);
}

/// Protocol 3 tells less of what was decided, and what it tells is shown.
#[test]
fn decisions_of_protocol_3() {
    let mut person = Person::new();
    let mut asked = serde_json::to_value(request("a", "make")).expect("JSON");
    asked["expiresAtMs"] = json!(NOW + 60_000);
    person.happens(Event::Gateway { name: "exec.approval.requested".into(), payload: asked });
    let resolved = json!({"id": "a", "decision": "deny", "resolvedBy": "phone", "ts": NOW});
    person.happens(Event::Gateway { name: "exec.approval.resolved".into(), payload: resolved });
    assert_eq!(person.talk(), ["  ! denied by phone: make"]);
    assert_eq!(person.model.approvals.len(), 0);
}

/// Without history that tells, waiting for the run does.
#[test]
fn a_run_that_ended_unheard() {
    let mut person = Person::new();
    person.delta("r", "half");
    let ask = Ask::Wait { run: "r".into() };
    person.happens(Event::Answer { ask: ask.clone(), outcome: Ok(json!({"runId": "r", "status": "timeout"})) });
    assert!(person.model.run.is_some(), "it is not over");
    let todo = person.happens(Event::Answer { ask, outcome: Ok(json!({"runId": "r", "status": "ok", "endedAt": 1})) });
    assert!(person.model.run.is_none() && method(&todo).contains(&"chat.history"));
}

#[test]
fn approvals_are_entered_before_they_are_answered() {
    let mut person = Person::new();
    let long: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
    let approval = |id: &str, command: &str| {
        let mut approval = serde_json::to_value(request(id, command)).expect("JSON");
        approval["expiresAtMs"] = json!(NOW + 60_000);
        Event::Gateway { name: "exec.approval.requested".into(), payload: approval }
    };
    person.types("yes");
    person.happens(approval("a", "rm -rf build && make"));
    let screen = person.screen().join("\n");
    assert!(
        screen.contains("Leave to run?") && screen.contains("rm -rf build && make") && screen.contains("in      /work"),
        "{screen}"
    );
    // What is typed goes on being the message.
    person.types("y");
    assert_eq!(person.model.editor.text(), "yesy");
    person.key(KeyCode::Tab);
    // Also where somebody goes on writing in the panel: the first letter that is no answer ends it.
    person.types("stay");
    assert_eq!(person.model.editor.text(), "yesystay");
    person.key(KeyCode::Tab);
    let todo = person.key(KeyCode::Char('y'));
    assert_eq!(
        (method(&todo), params(&todo)),
        (vec!["exec.approval.resolve"], json!({"id": "a", "decision": "allow-once"}))
    );
    let resolved = json!({"id": "a", "decision": "allow-once", "resolvedBy": "me", "ts": NOW,
        "request": request("a", "rm -rf build && make").request});
    person.happens(Event::Gateway { name: "exec.approval.resolved".into(), payload: resolved });
    assert_eq!(person.talk(), ["  ✓ allowed once by me: rm -rf build && make"]);

    // A long one is read to its end first.
    person.happens(approval("b", &long.join("\n")));
    person.key(KeyCode::Tab);
    assert!(person.screen().join("\n").contains("more lines"));
    assert!(person.key(KeyCode::Char('a')).is_empty(), "not seen whole");
    for _ in 0..10 {
        person.key(KeyCode::PageDown);
        person.screen();
    }
    assert_eq!(params(&person.key(KeyCode::Char('a'))), json!({"id": "b", "decision": "allow-always"}));
    // Esc gives the keys back, and time takes the request.
    person.key(KeyCode::Esc);
    person.types("!");
    assert_eq!(person.model.editor.text(), "yesystay!");
    person.model.now_ms = NOW + 61_000;
    person.happens(Event::Tick);
    assert_eq!(person.model.approvals.len(), 0);
}

/// Requests of protocol 3 do not say which answers are offered.
#[test]
fn requests_of_protocol_3() {
    let mut person = Person::new();
    let payload = json!({"id": "x", "request": {"command": "ls", "cwd": null, "host": "gateway", "agentId": "main"},
        "createdAtMs": NOW, "expiresAtMs": NOW + 1000});
    person.happens(Event::Gateway { name: "exec.approval.requested".into(), payload });
    assert_eq!(person.model.approvals.len(), 1);
}

#[test]
fn commands_are_completed() {
    let mut person = Person::new();
    let list = json!({"commands": [{"name": "think", "textAliases": ["/think"], "description": "How hard to think",
        "acceptsArgs": true, "args": [{"choices": [{"value": "low"}, {"value": "high"}]}]}]});
    person.happens(Event::Answer { ask: Ask::Commands, outcome: Ok(list) });
    person.types("/th");
    assert!(person.screen()[20].contains("/think  How hard to think"), "{:?}", person.screen());
    assert!(person.key(KeyCode::Enter).is_empty(), "it takes a word");
    assert_eq!(person.model.editor.text(), "/think ");
    person.key(KeyCode::Down);
    person.key(KeyCode::Tab);
    assert_eq!(person.model.editor.text(), "/think high");
    assert_eq!(
        params(&person.key(KeyCode::Enter))["message"],
        "/think high",
        "the gateway's own commands are messages"
    );
    person.types("/qui");
    assert_eq!(person.key(KeyCode::Enter), [Do::Quit]);
}

#[test]
fn sessions_are_switched_made_and_named() {
    let mut person = Person::new();
    assert_eq!(method(&person.ctrl('p')), ["sessions.list"]);
    let rows = json!({"sessions": [
        {"key": "agent:main:main", "label": "Work", "updatedAt": NOW - 60_000},
        {"key": "agent:main:telegram:1", "displayName": "Anna", "updatedAt": NOW - 3_600_000, "unread": true}]});
    person.happens(Event::Answer { ask: Ask::Sessions, outcome: Ok(rows.clone()) });
    let screen = person.screen().join("\n");
    assert!(screen.contains("● Work") && screen.contains("Anna  unread · 1h ago · agent:main:telegram:1"), "{screen}");
    person.types("anna");
    let todo = person.key(KeyCode::Enter);
    assert_eq!(params(&todo)["sessionKey"], "agent:main:telegram:1");
    assert_eq!(person.model.session.key, "agent:main:telegram:1");
    // Late news of the session before are not shown here.
    person.delta("r", "elsewhere");
    assert!(person.model.run.is_none());

    person.ctrl('p');
    person.happens(Event::Answer { ask: Ask::Sessions, outcome: Ok(rows) });
    person.ctrl('r');
    person.types(" B");
    let todo = person.key(KeyCode::Enter);
    assert_eq!(params(&todo), json!({"key": "agent:main:telegram:1", "label": "Anna B"}));

    let todo = person.says("/new");
    assert_eq!(params(&todo)["sessionKey"], "agent:main:tui-seed-1");
    assert_eq!(params(&person.says("/rename Plans")), json!({"key": "agent:main:tui-seed-1", "label": "Plans"}));
    assert_eq!(params(&person.says("/search two words")), json!({"query": "two words", "limit": 25}));
}

#[test]
fn models_are_picked() {
    let mut person = Person::new();
    assert_eq!(method(&person.says("/models")), ["models.list"]);
    let models = json!({"models": [{"id": "fake-model", "name": "Fake", "provider": "fake", "contextWindow": 128_000},
        {"id": "other", "name": "Other", "provider": "fake", "available": false}]});
    person.happens(Event::Answer { ask: Ask::Models, outcome: Ok(models) });
    person.key(KeyCode::Down);
    assert!(person.screen().join("\n").contains("fake/other  Other · no credential"), "{:?}", person.screen());
    assert_eq!(params(&person.key(KeyCode::Enter)), json!({"key": "agent:main:main", "model": "fake/other"}));
    assert_eq!(params(&person.says("/model default"))["model"], Value::Null);
}

#[test]
fn files_go_with_the_next_message() {
    let mut person = Person::new();
    assert_eq!(person.says("/attach ~/a b.png"), [Do::Read("~/a b.png".into())]);
    let file =
        super::model::Attachment { name: "a b.png".into(), mime: "image/png".into(), base64: "AA==".into(), bytes: 1 };
    person.happens(Event::Read { path: "~/a b.png".into(), outcome: Ok(file) });
    assert!(person.screen().join("\n").contains("[a b.png]"));
    let todo = person.says("look");
    assert_eq!(
        params(&todo)["attachments"],
        json!([{"type": "image", "mimeType": "image/png", "fileName": "a b.png", "content": "AA=="}])
    );
    assert!(params(&person.says("again")).get("attachments").is_none(), "once");
    person.happens(Event::Read { path: "x".into(), outcome: Err("it is no file".into()) });
    assert!(person.talk().join("\n").contains("x is not attached: it is no file"));
}

/// Who reads further up keeps the place while more is written below.
#[test]
fn reading_further_up() {
    let mut person = Person::new();
    let rows: Vec<Value> = (0..40).map(|n| json!({"role": "user", "content": format!("message {n}")})).collect();
    person.history(&json!(rows));
    assert!(person.talk().last().is_some_and(|line| line == "› message 39"));
    person.key(KeyCode::PageUp);
    let before = person.talk();
    assert!(person.screen().join("\n").contains("more · End"));
    person.delta("r", "an answer");
    assert_eq!(person.talk()[..15], before[..15]);
    person.happens(Event::Wheel(-3));
    assert_ne!(person.talk(), before);
    person.key(KeyCode::End);
    assert!(person.talk().last().is_some_and(|line| line == "  an answer▍"));
    // At the beginning, more is asked for where there is more.
    person.model.has_more = true;
    person.key(KeyCode::Home);
    let todo = person.key(KeyCode::PageUp);
    assert_eq!(params(&todo)["limit"], 400);
}

#[test]
fn leaving_takes_two() {
    let mut person = Person::new();
    person.types("draft");
    assert!(person.ctrl('d').is_empty());
    assert!(person.ctrl('c').is_empty() && person.model.editor.is_empty());
    assert!(person.ctrl('c').is_empty());
    assert!(person.screen()[22].contains("Ctrl-C again leaves"));
    person.model.now_ms += 3000;
    assert!(person.ctrl('c').is_empty(), "that was long ago");
    assert_eq!(person.ctrl('c'), [Do::Quit]);
    assert_eq!(person.ctrl('d'), [Do::Quit]);
    assert_eq!(person.ctrl('z'), [Do::Suspend]);
}

/// Somebody else's message and its answer, in the same conversation.
#[test]
fn others_talk_too() {
    let mut person = Person::new();
    person.delta("theirs", "to you");
    assert!(person.model.run.as_ref().is_some_and(|run| !run.ours));
    let message = json!({"role": "assistant", "content": [{"type": "text", "text": "to you"}]});
    let todo = person.chat("theirs", json!({"state": "final", "message": message}));
    assert_eq!(method(&todo), ["chat.history"], "their message comes with the history");
    let payload = json!({"sessionKey": "agent:main:main", "reason": "reset"});
    assert_eq!(method(&person.happens(Event::Gateway { name: "sessions.changed".into(), payload })), ["chat.history"]);
}

#[test]
fn p_09_nothing_of_the_gateways_reaches_the_terminal_raw() {
    let evil = "e\u{1b}[2J\u{1b}]52;c;x\u{7}\u{202e}\u{9b}1m";
    let mut person = Person::new();
    person.history(&json!([{"role": "user", "content": evil}, {"role": "system", "content": evil},
        {"role": "assistant", "content": [{"type": "text", "text": evil}, {"type": "thinking", "thinking": evil},
          {"type": "toolCall", "id": "c", "name": evil, "arguments": {"command": evil, "x": evil}}], "errorMessage": evil},
        {"role": "toolResult", "toolCallId": "c", "toolName": evil, "content": evil}]));
    person.happens(Event::Path { path: evil.into(), came_back: true });
    let approval = serde_json::to_value(request(evil, evil)).expect("JSON");
    person.happens(Event::Gateway { name: "exec.approval.requested".into(), payload: approval });
    person.model.session.title = Some(evil.into());
    person.model.session.model = Some(evil.into());
    person.ctrl('o');
    person.ctrl('t');
    person.chat("r", json!({"state": "status", "phase": evil}));
    let mut seen = person.screen();
    person.happens(Event::Away(evil.into()));
    seen.extend(person.screen());
    person.ctrl('p');
    let rows = json!({"sessions": [{"key": evil, "label": evil, "lastMessagePreview": evil}]});
    person.happens(Event::Answer { ask: Ask::Sessions, outcome: Ok(rows) });
    seen.extend(person.screen());
    person.ctrl('r');
    seen.extend(person.screen());
    let seen = seen.join("\n");
    assert!(seen.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{seen:?}");
    assert!(seen.contains("\\u{1b}"));
}

/// The message typed before there was a connection is sent with the first one.
#[test]
fn impatience() {
    let start = Start { session: "main".into(), history: 200, message: Some("first".into()), ..Start::default() };
    let mut model = Model::new(start, NOW, "seed".into());
    let todo = model.update(Event::Connected { methods: Vec::new(), version: String::new(), may_approve: false });
    assert_eq!(method(&todo), ["chat.history", "commands.list", "chat.send"]);
    let sending = |item: &super::transcript::Item| matches!(&item.entry, Entry::User { sent: Sent::Sending, .. });
    assert!(model.transcript.items().iter().any(sending));
}
