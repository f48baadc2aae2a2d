//! The gateway is asked to stop while it answers: what can end in time ends, the rest goes on after the next start, and what
//! nobody can know is said.

use std::time::Duration;

use doubles::model::{Reply, Script};
use lab::process::wait_until;
use serde_json::json;

use crate::{
    near::Near,
    scene::{Style, ada, clerk, done},
};

/// Nothing that was said is said again by a gateway that starts again.
#[track_caller]
fn settled(near: &mut Near, job: u32) {
    near.gateway.start_again();
    let next = job + 100;
    near.doubles.bot.says(&ada(), &format!("word-{next}"));
    near.doubles.reply(next);
    assert_eq!(near.doubles.replies(job), 1, "{:#?}", near.doubles.bot.messages());
}

#[test]
fn an_answer_that_can_end_ends_and_is_delivered() {
    let mut near = Near::new(&[ada()], false);
    // About two seconds from the first word to the last.
    let slow = Style { pace: Duration::from_millis(250), ..Style::default() };
    near.doubles.model.play(clerk(&near.desk, slow));
    near.doubles.bot.says(&ada(), "word-1");
    near.doubles.model.wait_for(1);
    near.gateway.stop();
    assert_eq!(near.doubles.replies(1), 1, "it was delivered before the end: {}", near.gateway.said());
    near.doubles.model.play(clerk(&near.desk, Style::default()));
    settled(&mut near, 1);
}

#[test]
fn work_on_a_node_that_can_end_ends_and_is_delivered() {
    let mut near = Near::new(&[ada()], false);
    near.desk.hold();
    near.doubles.bot.says(&ada(), "job-1");
    near.desk.wait_begun(1);
    let desk = near.desk.clone();
    near.gateway.stop_while(|| desk.go());
    assert_eq!(near.doubles.replies(1), 1, "it was delivered before the end: {}", near.gateway.said());
    assert_eq!(near.doubles.reply(1), "done-1: ran");
    settled(&mut near, 1);
    assert_eq!(near.desk.marks(1), 1);
}

#[test]
fn work_that_outlasts_the_stop_is_not_repeated_and_its_end_is_told_unknown() {
    let mut near = Near::new(&[ada()], false);
    near.desk.hold();
    near.doubles.bot.says(&ada(), "job-1");
    near.desk.wait_begun(1);
    near.gateway.stop();
    assert_eq!(near.doubles.replies(1), 0);
    near.desk.go();
    near.gateway.start_again();
    assert_eq!(near.doubles.reply(1), "done-1: unknown");
    assert_eq!(near.desk.marks(1), 1, "it began once");
}

#[test]
fn a_model_that_outlasts_the_stop_is_asked_again() {
    let mut near = Near::new(&[ada()], false);
    near.doubles.model.play(Script::always(Reply::say("never").after(Duration::from_secs(3600))));
    near.doubles.bot.says(&ada(), "word-1");
    near.doubles.model.wait_for(1);
    near.gateway.stop();
    assert!(near.doubles.bot.calls_of("sendMessage").is_empty(), "{:#?}", near.doubles.bot.calls());
    near.doubles.model.play(clerk(&near.desk, Style::default()));
    near.gateway.start_again();
    assert_eq!(near.doubles.reply(1), "done-1: said");
    assert_eq!(near.doubles.model.asks().len(), 2);
}

/// A reply that waits because Telegram cannot be reached holds up neither the stop nor the start, and comes when it can.
#[test]
fn a_reply_that_cannot_be_sent_waits_across_a_restart() {
    use doubles::bot_api::Fault;

    let mut near = Near::new(&[ada()], false);
    near.doubles.bot.break_down("sendMessage", Fault::refuse(403, "Forbidden: bot was blocked by the user"));
    near.doubles.bot.says(&ada(), "word-1");
    near.doubles.model.wait_for(1);
    wait_until("a reply that waits", || near.gateway.said().contains("a reply waits").then_some(()));
    near.gateway.stop();
    near.doubles.bot.mend("sendMessage");
    near.gateway.start_again();
    assert_eq!(near.doubles.reply(1), "done-1: said");
    assert!(near.doubles.bot.calls().iter().all(|call| !call.text().contains("restarted")));
    near.gateway.stop();
    settled(&mut near, 1);
}

/// Killed while Telegram has the reply and the gateway has no answer: the person is told, and not sent it again. Also when
/// Telegram cannot be reached at first after the start.
#[test]
fn a_reply_of_unknown_fate_is_told_and_not_repeated() {
    use doubles::bot_api::Fault;

    let mut near = Near::new(&[ada()], false);
    near.doubles.bot.fail("sendMessage", Fault::Slow(Duration::from_secs(20)));
    near.doubles.bot.says(&ada(), "word-1");
    near.doubles.model.wait_for(1);
    // The request lies at the double, which answers late.
    wait_until("a reply on its way", || {
        let db = rusqlite::Connection::open(near.gateway.state_dir().join("state/openclaw-rs.sqlite")).ok()?;
        let state: String = db.query_row("SELECT delivery FROM runs", [], |row| row.get(0)).ok()?;
        state.contains("sending").then_some(())
    });
    near.gateway.kill();
    near.doubles.bot.fail("sendMessage", Fault::refuse(500, "Internal Server Error"));
    near.doubles.bot.fail("sendMessage", Fault::refuse(403, "Forbidden: not now"));
    near.gateway.start_again();
    near.doubles.bot.wait_for_text("may not have arrived. /last shows it.");
    near.doubles.bot.says(&ada(), "/last");
    near.doubles.bot.wait_for_text(&done(1));
    assert_eq!(near.doubles.bot.messages().iter().filter(|m| m["text"].to_string().contains("restarted")).count(), 1);
}

/// The reply is shown while it grows, and the gateway is killed meanwhile: the message that people see becomes the whole reply,
/// and there is no second one.
#[test]
fn a_reply_that_grew_in_sight_goes_on_where_it_was_seen() {
    let mut near = Near::with(&[ada()], false, json!({"/channels/telegram/streaming": {"mode": "partial"}}));
    let text = format!("{} {} and that is all.", done(1), "A long story. ".repeat(12));
    let slow = Reply::say(&text).pieces(40).pace(Duration::from_millis(100));
    near.doubles.model.play(Script::always(slow.clone()));
    near.doubles.bot.says(&ada(), "word-1");
    near.doubles.bot.wait_for_text(&done(1));
    // Its id is known to the gateway by the time of the first edit.
    near.doubles.bot.wait("an edit", |bot| bot.calls_of("editMessageText").first().cloned());
    near.gateway.kill();
    assert!(!near.doubles.bot.messages()[0]["text"].to_string().contains("that is all"), "killed while it grew");
    near.gateway.start_again();
    near.doubles.bot.wait_for_text("and that is all.");
    near.gateway.stop();
    let seen: Vec<String> = near.doubles.bot.messages().iter().map(|m| m["text"].to_string()).collect();
    assert_eq!(seen, [json!(text).to_string()]);
}
