use std::collections::BTreeSet;

use openclaw_agent::{
    message::{Message, Part, Role, ToolCall, ToolResult},
    provider::ModelRef,
};
use serde_json::{Value, json};

use super::{super::*, Place, answered, assistant, key, user};
use crate::{
    sessions::read::{Window, history},
    store::{Change, SessionChange},
};

const ALL: Window = Window::Newest { limit: 1000, offset: 0 };

#[tokio::test]
async fn what_was_said_is_there_after_a_restart_in_the_form_of_the_wire() {
    let place = Place::new();
    let main = key("main");
    let said = NewMessage::user(&[Part::Text("Say hello please".into())])
        .at(1_795_229_970_171)
        .idempotency("idem-1:user")
        .run("idem-1")
        .mark("senderIsOwner", true);
    let kept = place.say(&main, [said, assistant("Hello from the fake model.")]).await;
    assert!(kept.created);
    assert_eq!(kept.appended.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
    let place = place.again();
    let record = place.sessions.get(&main).expect("is known");
    assert_eq!(kept.record.as_deref(), Some(&*record));
    assert_eq!((record.title.as_deref(), record.last_seq), (Some("Say hello please"), 2));
    assert_eq!(record.last_message.as_deref(), Some("Hello from the fake model."));
    let page = place.sessions.page(&record.session_id, ALL, usize::MAX).await.expect("reads");
    assert_eq!((page.total, page.earlier, page.later), (2, 0, 0));
    // As chat-send.jsonl has it.
    let user = Value::Object(page.messages[0].body.clone());
    assert_eq!(user["role"], "user");
    assert_eq!(user["content"], "Say hello please");
    assert_eq!(user["timestamp"], 1_795_229_970_171_i64);
    assert_eq!(user["idempotencyKey"], "idem-1:user");
    assert_eq!(user["__openclaw"]["seq"], 1);
    assert_eq!(user["__openclaw"]["senderIsOwner"], true);
    assert_eq!(user["__openclaw"]["id"], page.messages[0].message_id.as_str());
    let answer = Value::Object(page.messages[1].body.clone());
    assert_eq!(answer["content"], json!([{"type": "text", "text": "Hello from the fake model."}]));
    assert_eq!((&answer["provider"], &answer["model"]), (&json!("fake"), &json!("fake-model")));
    assert_eq!((&answer["api"], &answer["stopReason"]), (&json!("openai-completions"), &json!("stop")));
    assert_eq!(answer["usage"]["totalTokens"], 15);
}

#[tokio::test]
async fn a_window_shows_the_newest_what_is_around_a_message_or_what_came_since() {
    let place = Place::new();
    let main = key("main");
    place.say(&main, (1..=20).map(|n| user(&format!("m{n}")).id(&format!("id{n}")))).await;
    let id = place.sessions.get(&main).expect("known").session_id.clone();
    let check = async |window: Window, expected: &[u64], (earlier, later): (usize, usize)| {
        let page = place.sessions.page(&id, window.clone(), usize::MAX).await.expect("reads");
        let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, expected, "{window:?}");
        assert_eq!((page.earlier, page.later, page.total), (earlier, later, 20), "{window:?}");
    };
    check(Window::Newest { limit: 3, offset: 0 }, &[18, 19, 20], (17, 0)).await;
    check(Window::Newest { limit: 3, offset: 3 }, &[15, 16, 17], (14, 3)).await;
    check(Window::Newest { limit: 3, offset: 19 }, &[1], (0, 19)).await;
    check(Window::Newest { limit: 3, offset: 40 }, &[], (0, 0)).await;
    check(Window::After { seq: 17, limit: 10 }, &[18, 19, 20], (17, 0)).await;
    check(Window::After { seq: 4, limit: 2 }, &[5, 6], (4, 14)).await;
    check(Window::After { seq: 20, limit: 2 }, &[], (0, 0)).await;
    check(Window::Around { message_id: "id10".into(), limit: 5 }, &[8, 9, 10, 11, 12], (7, 8)).await;
    check(Window::Around { message_id: "nope".into(), limit: 5 }, &[], (0, 0)).await;
    let page = place.sessions.page(&id, Window::Newest { limit: 20, offset: 0 }, 600).await.expect("reads");
    assert!(page.messages.len() < 20 && page.messages.last().is_some_and(|last| last.seq == 20));
    assert_eq!(page.messages.len() + page.earlier, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_appends_at_once_are_all_kept_one_after_the_other() {
    let place = Place::new();
    let main = key("main");
    let tasks = (0..200).map(|n| {
        let (sessions, main) = (place.sessions.clone(), main.clone());
        tokio::spawn(async move {
            let mut draft = sessions.draft(&main).await;
            draft.append(user(&format!("message {n}"))).expect("fits");
            draft.commit(Vec::new()).await.expect("saves").appended[0].seq
        })
    });
    let mut seqs = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        assert!(seqs.insert(task.await.expect("ends")), "a number was given twice");
    }
    assert_eq!(seqs.into_iter().collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    let place = place.again();
    let record = place.sessions.get(&main).expect("known");
    assert_eq!(record.last_seq, 200);
    let page = place.sessions.page(&record.session_id, ALL, usize::MAX).await.expect("reads");
    assert_eq!(page.total, 200);
}

#[tokio::test]
async fn what_could_not_be_saved_did_not_happen() {
    let place = Place::new();
    let main = key("main");
    let kept = place.say(&main, [user("one").id("same")]).await;
    let mut draft = place.sessions.draft(&main).await;
    draft.append(user("two").id("same")).expect("fits");
    draft.record_mut().settings.label = Some("x".into());
    let other = SessionChange::Put(Box::new(Record::begin(key("other"), 1)));
    draft.commit(vec![Change::from(other)]).await.expect_err("the id is taken");
    assert_eq!(place.sessions.get(&main), kept.record, "memory is as it was");
    let place = place.again();
    assert_eq!(place.sessions.get(&main), kept.record, "and so is the disk");
    assert_eq!(place.sessions.get(&key("other")), None, "with what was to be saved along");
    place.say(&main, [user("three")]).await;
    assert_eq!(place.sessions.get(&main).expect("known").last_seq, 2, "no number is lost");
    drop(place.sessions.draft(&main).await);
    let dropped = place.sessions.draft(&key("never")).await;
    drop(dropped);
    assert_eq!(place.sessions.count(), 1);
}

#[tokio::test]
async fn a_draft_goes_on_when_its_asker_hangs_up() {
    let place = Place::new();
    let main = key("main");
    let mut draft = place.sessions.draft(&main).await;
    draft.append(user("one")).expect("fits");
    let mut commit = Box::pin(draft.commit(Vec::new()));
    let _ = futures_util::poll!(commit.as_mut());
    drop(commit);
    // The next one waits for it.
    let next = place.sessions.draft(&main).await;
    assert_eq!(next.record().last_seq, 1);
}

#[tokio::test]
async fn a_reset_begins_anew_and_keeps_what_was_chosen() {
    let place = Place::new();
    let main = key("main");
    place.say(&main, [user("the old zebra"), assistant("hi")]).await;
    let mut draft = place.sessions.draft(&main).await;
    draft.record_mut().settings.label = Some("zoo".into());
    draft.record_mut().totals.cost = 1.5;
    draft.commit(Vec::new()).await.expect("saves");
    let before = place.sessions.get(&main).expect("known");
    let mut draft = place.sessions.draft(&main).await;
    assert!(draft.is_at(&before.session_id));
    draft.restart();
    assert!(!draft.is_at(&before.session_id));
    draft.commit(Vec::new()).await.expect("saves");
    let after = place.sessions.get(&main).expect("known");
    assert_ne!(after.session_id, before.session_id);
    assert_ne!(after.revision, before.revision);
    assert_eq!((after.created_ms, after.settings.label.as_deref()), (before.created_ms, Some("zoo")));
    assert_eq!((after.last_seq, after.totals, after.title.as_deref()), (0, Totals::default(), None));
    assert_eq!(place.sessions.context(&after).await.expect("reads"), []);
    // Earlier stretches stay readable and findable.
    assert!(place.sessions.owns(&main, &before.session_id).await.expect("reads"));
    assert!(!place.sessions.owns(&key("other"), &before.session_id).await.expect("reads"));
    let found = place.sessions.search("zebra", Default::default(), 10).await.expect("searches");
    assert_eq!(found.results[0].session_id, before.session_id.as_str());
}

#[tokio::test]
async fn a_summary_stands_for_what_came_before() {
    let place = Place::new();
    let main = key("main");
    place
        .say(&main, (1..=6).map(|n| if n % 2 == 1 { user(&format!("q{n}")) } else { assistant(&format!("a{n}")) }))
        .await;
    let mut draft = place.sessions.draft(&main).await;
    draft.compact(Some("They spoke of q1 to a4."), 5).expect("fits");
    draft.commit(Vec::new()).await.expect("saves");
    place.say(&main, [user("q8")]).await;
    let record = place.sessions.get(&main).expect("known");
    assert_eq!((record.compactions, record.compaction), (1, Some(Compaction { summary_seq: 7, kept_from: 5 })));
    let model = answered().model;
    let context = history(place.sessions.context(&record).await.expect("reads"), &model);
    let texts: Vec<_> = context.iter().map(Message::text).collect();
    assert_eq!(texts, ["Summary of the conversation so far:\n\nThey spoke of q1 to a4.", "q5", "a6", "q8"]);
    let mut draft = place.sessions.draft(&main).await;
    draft.compact(None, 8).expect("fits");
    draft.commit(Vec::new()).await.expect("saves");
    let record = place.sessions.get(&main).expect("known");
    let context = history(place.sessions.context(&record).await.expect("reads"), &model);
    assert_eq!(context.iter().map(Message::text).collect::<Vec<_>>(), ["q8"]);
}

#[tokio::test]
async fn models_get_back_what_they_said_and_thoughts_only_their_own() {
    let place = Place::new();
    let main = key("main");
    let thinking = Part::Thinking { text: "hm".into(), signature: Some("sig==".into()) };
    let call = ToolCall { id: "c1".into(), name: "read".into(), arguments: json!({"path": "a"}) };
    let image = Part::Image { mime: "image/png".into(), data: vec![1, 2, 3].into() };
    let said = vec![thinking.clone(), Part::Text("look".into()), Part::ToolCall(call)];
    let result = |id: &str| ToolResult {
        call_id: id.into(),
        name: "read".into(),
        content: vec![Part::Text("file".into()), image.clone()],
        is_error: id == "c2",
    };
    place
        .say(
            &main,
            [
                NewMessage::user(&[Part::Text("see".into()), image.clone()]),
                NewMessage::assistant(&said, &answered()),
                NewMessage::tool_result(&result("c1"), Some(&json!({"lines": 1}))),
                NewMessage::system("a note for people"),
                NewMessage::tool_result(&result("c2"), None),
            ],
        )
        .await;
    let record = place.sessions.get(&main).expect("known");
    let rows = place.sessions.context(&record).await.expect("reads");
    let own = history(rows.clone(), &answered().model);
    let expected = [
        Message { role: Role::User, parts: vec![Part::Text("see".into()), image.clone()] },
        Message { role: Role::Assistant, parts: said.clone() },
        Message { role: Role::Tool, parts: vec![Part::ToolResult(result("c1")), Part::ToolResult(result("c2"))] },
    ];
    assert_eq!(own, expected);
    let other = history(rows, &ModelRef { provider: "other".into(), model: "fake-model".into() });
    assert_eq!(other[1].parts, said[1..], "another model's thoughts stay with it");
}

#[tokio::test]
async fn deleting_forgets_and_leaves_no_word_on_the_disk() {
    let place = Place::new();
    let (gone, kept) = (key("gone"), key("kept"));
    place.say(&gone, [user("the secret xylophonist"), assistant("noted")]).await;
    place.say(&kept, [user("hello")]).await;
    let mut draft = place.sessions.draft(&kept).await;
    draft.delete(false);
    draft.commit(Vec::new()).await.expect("saves");
    assert_eq!(place.sessions.get(&kept), None);
    assert!(place.sessions.has_transcript(&kept).await.expect("reads"), "only the conversation was forgotten");
    let mut draft = place.sessions.draft(&gone).await;
    draft.delete(true);
    draft.commit(Vec::new()).await.expect("saves");
    assert!(!place.sessions.has_transcript(&gone).await.expect("reads"));
    let found = place.sessions.search("xylophonist", Default::default(), 10).await.expect("searches");
    assert_eq!(found.results, []);
    let place = place.again();
    assert_eq!(place.sessions.count(), 0);
    place.store.close();
    let bytes = std::fs::read(place.file()).expect("reads");
    for word in ["secret", "xylophonist"] {
        assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} is still in the file");
    }
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused_and_harms_nothing() {
    let place = Place::new();
    let main = key("main");
    let mut draft = place.sessions.draft(&main).await;
    let error = draft.append(user(&"x".repeat(message::MAX_MESSAGE_BYTES))).expect_err("too large");
    assert!(matches!(error, DraftError::TooLarge { .. }));
    assert_eq!(draft.append(user("small")).expect("fits").seq, 1);
}
