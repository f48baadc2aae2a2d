use openclaw_agent::message::{Part, ToolCall, ToolResult};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::*, Place, answered, assistant, key, user};
use crate::sessions::{
    history::{Cursor, fit, shown},
    read::Window,
    transfer::{Import, LineError},
};

const ALL: Window = Window::Newest { limit: 10_000, offset: 0 };

async fn exported(place: &Place, key: &SessionKey, page_bytes: usize) -> String {
    let record = place.sessions.get(key).expect("known");
    let (mut text, mut after) = (String::new(), 0);
    loop {
        let page = place.sessions.export(&record, after, page_bytes).await.expect("exports");
        assert_eq!(page.lines, page.jsonl.lines().count());
        text.push_str(&page.jsonl);
        match page.after {
            Some(seq) => after = seq,
            None => return text,
        }
    }
}

async fn imported(place: &Place, key: &SessionKey, jsonl: &str) -> Result<usize, String> {
    let import = Import::parse(jsonl).map_err(|error| error.to_string())?;
    let free = match &import.session_id {
        Some(id) => place.sessions.is_free(id).await.expect("reads"),
        None => false,
    };
    let mut draft = place.sessions.draft(key).await;
    let count = import.fill(&mut draft, free, |_| false).map_err(|error| error.message)?;
    draft.commit(Vec::new()).await.expect("saves");
    Ok(count)
}

async fn bodies(place: &Place, key: &SessionKey) -> Vec<Value> {
    let record = place.sessions.get(key).expect("known");
    let page = place.sessions.page(&record.session_id, ALL, usize::MAX).await.expect("reads");
    let bare = page.messages.into_iter().map(|message| {
        let mut body = Value::Object(message.body);
        body["__openclaw"]["recordTimestampMs"].take();
        body
    });
    bare.collect()
}

fn part() -> impl Strategy<Value = Part> {
    let text = any::<String>();
    prop_oneof![
        text.prop_map(Part::Text),
        (any::<String>(), proptest::option::of(any::<String>()))
            .prop_map(|(text, signature)| Part::Thinking { text, signature }),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| Part::Image { mime: "image/png".into(), data: data.into() }),
        ("[a-z]{1,8}", "[a-z_]{1,8}", any::<String>()).prop_map(|(id, name, text)| Part::ToolCall(ToolCall {
            id,
            name,
            arguments: json!({"text": text})
        })),
    ]
}

fn message() -> impl Strategy<Value = NewMessage> {
    let parts = || proptest::collection::vec(part(), 1..4);
    prop_oneof![
        parts().prop_map(|parts| NewMessage::user(&parts)),
        parts().prop_map(|parts| NewMessage::assistant(&parts, &answered())),
        (proptest::collection::vec(any::<String>(), 0..3), any::<bool>()).prop_map(|(texts, is_error)| {
            let content = texts.into_iter().map(Part::Text).collect();
            let result = ToolResult { call_id: "c".into(), name: "t".into(), content, is_error };
            NewMessage::tool_result(&result, None)
        }),
        any::<String>().prop_map(|text| NewMessage::system(&text)),
    ]
}

/// What happens to a conversation.
#[derive(Clone, Debug)]
enum Step {
    Say(Vec<NewMessage>),
    Reset,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(message(), 1..4).prop_map(Step::Say),
        1 => Just(Step::Reset),
        1 => Just(Step::Compact),
    ];
    proptest::collection::vec(step, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was said and done: a restart, an export and an import change nothing of what is shown and of what the model
    /// sees.
    #[test]
    fn a_conversation_survives_restart_and_travel(steps in steps(), page_bytes in 200_usize..4000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let place = Place::new();
        let (here, there) = (key("here"), key("there"));
        runtime.block_on(async {
            for step in steps {
                let mut draft = place.sessions.draft(&here).await;
                match step {
                    Step::Say(messages) => messages.into_iter().for_each(|message| drop(draft.append(message).expect("fits"))),
                    Step::Reset => draft.restart(),
                    Step::Compact => {
                        let from = draft.record().last_seq.div_ceil(2).max(1);
                        draft.compact(Some("summary"), from).expect("fits");
                    }
                }
                draft.commit(Vec::new()).await.expect("saves");
            }
        });
        let place = place.again();
        runtime.block_on(async {
            let before = bodies(&place, &here).await;
            let jsonl = exported(&place, &here, page_bytes).await;
            imported(&place, &there, &jsonl).await.expect("imports");
            assert_eq!(bodies(&place, &there).await, before);
            let context = async |key: &SessionKey| {
                let record = place.sessions.get(key).expect("known");
                place.sessions.context(&record).await.expect("reads")
            };
            assert_eq!(context(&there).await, context(&here).await);
            let again = exported(&place, &there, usize::MAX).await;
            let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
            let bare = |text: &str| lines(text).iter().map(|line| {
                let mut line: Value = serde_json::from_str(line).expect("JSON");
                line["message"]["__openclaw"]["recordTimestampMs"].take();
                line
            }).collect::<Vec<_>>();
            assert_eq!(bare(&again), bare(&jsonl));
        });
    }
}

#[test]
fn an_import_says_which_line_is_wrong() {
    let head = r#"{"type":"session","version":1,"key":"main"}"#;
    let fine = r#"{"type":"message","message":{"role":"user","content":"hi","__openclaw":{"id":"a"}}}"#;
    let check = |lines: &[&str], line: usize, why: &str| {
        let error = Import::parse(&lines.join("\n")).expect_err(why);
        assert_eq!(error.line, line, "{error}");
        assert!(error.why.contains(why), "{error}");
    };
    assert_eq!(Import::parse(&[head, "", fine].join("\n")).expect("fine").messages.len(), 1);
    check(&[], 1, "no line");
    check(&["{"], 1, "not JSON");
    check(&["[]"], 1, "object");
    check(&[fine], 1, "first line");
    check(&[r#"{"type":"session","key":"main"}"#], 1, "version");
    check(&[r#"{"type":"session","version":2,"key":"main"}"#], 1, "version 2 is not known");
    check(&[r#"{"type":"session","version":1}"#], 1, "key");
    check(&[r#"{"type":"session","version":1,"key":"k","settings":{"label":3}}"#], 1, "settings");
    check(&[r#"{"type":"session","version":1,"key":"k","sessionId":""}"#], 1, "sessionId");
    check(&[head, fine, "nonsense"], 3, "not JSON");
    check(&[head, "", fine, head], 4, "message");
    check(&[head, r#"{"type":"message"}"#], 2, "must have a message");
    check(&[head, r#"{"type":"message","message":{"role":"boss","content":"x"}}"#], 2, "role");
    check(&[head, r#"{"type":"message","message":{"role":"user"}}"#], 2, "content");
    check(&[head, r#"{"type":"message","message":{"role":"user","content":[{"text":"x"}]}}"#], 2, "content");
    check(&[head, r#"{"type":"message","message":{"role":"toolResult","content":"x"}}"#], 2, "toolCallId");
    check(&[head, r#"{"type":"message","message":{"role":"user","content":"x","timestamp":-1}}"#], 2, "timestamp");
    check(&[head, fine, fine], 3, "twice");
    check(
        &[head, r#"{"type":"message","message":{"role":"system","content":"x","__openclaw":{"keptFrom":2}}}"#],
        2,
        "keptFrom",
    );
    let error = LineError { line: 3, why: "x".into() };
    assert_eq!(openclaw_protocol::ErrorShape::from(error).message, "nothing was imported: line 3: x");
}

#[tokio::test]
async fn an_import_brings_clean_names_and_a_fresh_id_when_its_own_is_taken() {
    let place = Place::new();
    place.say(&key("here"), [user("hi")]).await;
    let mut draft = place.sessions.draft(&key("here")).await;
    draft.record_mut().settings.label = Some("bad\u{1b}[2Jlabel".into());
    draft.record_mut().settings.send_policy = Some("deny".into());
    draft.commit(Vec::new()).await.expect("saves");
    let jsonl = exported(&place, &key("here"), usize::MAX).await;
    assert_eq!(imported(&place, &key("there"), &jsonl).await, Ok(1));
    let (here, there) = (place.sessions.get(&key("here")), place.sessions.get(&key("there")));
    let (here, there) = (here.expect("known"), there.expect("known"));
    assert_ne!(here.session_id, there.session_id);
    assert_eq!(there.settings.label.as_deref(), Some("bad [2Jlabel"));
    assert_eq!(there.settings.send_policy.as_deref(), Some("deny"));
}

#[tokio::test]
async fn messages_are_shown_bounded() {
    let place = Place::new();
    let main = key("main");
    let image = Part::Image { mime: "image/png".into(), data: vec![0; 200_000].into() };
    let thought = Part::Thinking { text: "hm".into(), signature: Some("s".into()) };
    place
        .say(
            &main,
            [
                user(&"x".repeat(10_000)),
                NewMessage::user(&[Part::Text("see".into()), image]),
                NewMessage::assistant(&[thought, Part::Text("ok".into())], &answered()),
                assistant("NO_REPLY"),
                NewMessage::user(&(0..400).map(|_| Part::Text("y".repeat(1_000))).collect::<Vec<_>>()),
            ],
        )
        .await;
    let record = place.sessions.get(&main).expect("known");
    let page = place.sessions.page(&record.session_id, ALL, usize::MAX).await.expect("reads");
    let of = |n: usize, chars: usize, parts: bool| shown(&page.messages[n], chars, parts);
    let text = of(0, 8_000, false).expect("shown");
    let cut = text["content"].as_str().expect("a text");
    assert!(cut.ends_with("\n...(truncated)...") && cut.len() < 8_100, "{}", cut.len());
    assert_eq!(of(0, 8_000, true).expect("shown")["content"][0]["type"], "text");
    let picture = of(1, 8_000, false).expect("shown");
    assert_eq!((&picture["content"][1]["omitted"], picture["content"][1].get("data")), (&json!(true), None));
    let answer = of(2, 8_000, false).expect("shown");
    assert_eq!(answer["content"][0], json!({"type": "thinking", "thinking": "hm"}), "signatures are for models");
    assert_eq!(of(3, 8_000, false), None, "a silent answer is not shown");
    let large = of(4, 8_000, false).expect("shown");
    assert_eq!(large["content"][0]["text"], "[chat.history omitted: message too large]");
    assert_eq!(large["__openclaw"]["seq"], 5);
    assert!(of(4, 500_000, false).expect("shown")["content"][399].is_object(), "who asks for more gets more");
    let mut messages: Vec<Value> = (0..10).map(|n| json!({"n": n, "text": "z".repeat(100)})).collect();
    assert_eq!(fit(&mut messages, 400), 7);
    assert_eq!(messages.iter().map(|message| message["n"].clone()).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(fit(&mut messages, 1), 2, "one is always given");
}

#[test]
fn a_cursor_is_opaque_and_comes_back() {
    let record = Record::begin(key("main"), 1);
    let cursor = Cursor::of(&record, 7);
    assert_eq!(Cursor::parse(&cursor.to_wire()), Some(cursor));
    for text in ["", "x", "e30", "!!!", "eyJzIjoxfQ"] {
        assert_eq!(Cursor::parse(text), None, "{text}");
    }
}
