//! A hundred sudden deaths on the way. The gateway is killed at random instants while people write, the agent works on a node,
//! and replies go out. What was taken is answered; nobody sees a reply twice; nothing runs twice; and what nobody can know is
//! said.
//!
//! `OPENCLAW_TEST_KILLS` sets another number of kills, `OPENCLAW_TEST_SEED` repeats a run's random choices.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use doubles::bot_api::{Fault, Person};
use lab::{
    client::{Login, Outcome},
    dice::{self, Dice},
    process::wait_until,
    wire::Address,
};
use serde_json::{Value, json};

use crate::{
    near::{Near, transcript},
    scene::{Style, clerk, done, numbers, session},
};

const KILLS: u32 = 100;
/// A gateway lives this long at most once it serves. A journey takes a few hundred milliseconds.
const LONGEST_LIFE: Duration = Duration::from_millis(1_200);
/// And this long at most when it is killed while it starts.
const LONGEST_START: Duration = Duration::from_millis(300);
/// Of so many deaths, one is while starting.
const STARTS_KILLED: u64 = 6;
const DESK: &str = "agent:main:desk";
/// The beginnings of what a person is told when nobody knows whether a reply arrived.
const NOTICES: [&str; 2] = [
    "The gateway restarted while it was sending my last reply",
    "The connection broke while my last reply was being sent",
];

/// A message over the owner's connection, and whether the gateway said that it is taken.
struct Sent {
    job: u32,
    text: String,
    taken: bool,
}

/// Sends what was not acknowledged yet, each under the id it had at first, as a client does after a reconnect. Ends when the
/// gateway is gone.
fn send(address: &Address, token: &str, waiting: &mut [Sent]) {
    let login = Login::at(address).token(token).scopes(&["operator.admin", "operator.read", "operator.write"]);
    let Some(Outcome::Hello(mut client)) = login.attempt_if_open() else { return };
    for sent in waiting.iter_mut().filter(|sent| !sent.taken) {
        let params = json!({"sessionKey": DESK, "message": sent.text, "idempotencyKey": format!("desk-{}", sent.job)});
        match client.try_call("chat.send", params) {
            None => return,
            Some(Ok(_)) => sent.taken = true,
            // The queue of a conversation has an end.
            Some(Err(error)) => assert_eq!(error["code"], "UNAVAILABLE", "{error}"),
        }
    }
}

/// Everything that was asked for.
#[derive(Default)]
struct Asked {
    next: u32,
    /// Job by job, who asked.
    telegram: BTreeMap<u32, Person>,
    desk: Vec<Sent>,
}

impl Asked {
    fn text(&mut self, dice: &mut Dice) -> (u32, String) {
        self.next += 1;
        let word = if dice.roll(3) == 0 { "word" } else { "job" };
        (self.next, format!("please do {word}-{} now", self.next))
    }

    fn write(&mut self, near: &Near, people: &[Person], dice: &mut Dice) {
        let (job, text) = self.text(dice);
        let person = &people[usize::try_from(dice.roll(people.len() as u64)).expect("small")];
        near.doubles.bot.says(person, &text);
        self.telegram.insert(job, person.clone());
    }
}

#[test]
fn nothing_is_lost_or_seen_twice_by_a_hundred_kills() {
    let kills = dice::kills(KILLS);
    let mut dice = Dice::new();
    let people: Vec<Person> = (11..15).map(|id| Person::new(id, &format!("Person {id}"))).collect();
    let mode = ["steer", "followup", "collect"][usize::try_from(dice.roll(3)).expect("small")];
    let mut near = Near::with(&people, false, json!({"/messages/queue/mode": mode}));
    let style = Style { after: Duration::from_millis(15), pace: Duration::from_millis(4) };
    near.doubles.model.play(clerk(&near.desk, style));
    // As far away as Telegram is, so that some die while a reply is on its way.
    near.doubles.bot.break_down("sendMessage", Fault::Slow(Duration::from_millis(30)));
    let mut asked = Asked::default();
    let (began, mut done_kills, mut at_work) = (Instant::now(), 0, 0);
    while done_kills < kills {
        done_kills += 1;
        // While nobody is there, too.
        (0..dice.roll(3)).for_each(|_| asked.write(&near, &people, &mut dice));
        if done_kills > 1 && dice.roll(STARTS_KILLED) == 0 {
            near.gateway.begin_again();
            thread::sleep(dice.moment(LONGEST_START));
            near.gateway.kill();
            continue;
        }
        if done_kills > 1 {
            near.gateway.start_again();
            // The node waits longer after each loss, as it should; this one is a new one, so that there is work.
            near.node.kill();
            near.node = near.bench.start();
        }
        if dice.roll(4) == 0 {
            // A reply arrives, and the connection breaks before the gateway hears of it.
            near.doubles.bot.fail("sendMessage", Fault::CutAfter);
        }
        if dice.roll(2) == 0 {
            let (job, text) = asked.text(&mut dice);
            asked.desk.push(Sent { job, text, taken: false });
        }
        let (address, token) = (Address::Port(near.gateway.port()), near.gateway.token().to_owned());
        let end = Instant::now() + dice.moment(LONGEST_LIFE);
        let mut desk = std::mem::take(&mut asked.desk);
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&address, &token, &mut desk));
            for _ in 0..dice.roll(4) {
                thread::sleep(
                    dice.moment(Duration::from_millis(300)).min(end.saturating_duration_since(Instant::now())),
                );
                asked.write(&near, &people, &mut dice);
            }
            thread::sleep(end.saturating_duration_since(Instant::now()));
            near.gateway.kill();
            sending.join().expect("what was refused is an error of the test");
        });
        asked.desk = desk;
        let answered = asked.telegram.keys().filter(|job| near.doubles.replies(**job) > 0).count();
        at_work += usize::from(answered < asked.telegram.len());
    }
    let killing = began.elapsed();

    // One more life, that lasts.
    near.gateway.start_again();
    near.node.kill();
    near.node = near.bench.start();
    let (address, token) = (Address::Port(near.gateway.port()), near.gateway.token().to_owned());
    wait_until("every message of the owner taken", || {
        send(&address, &token, &mut asked.desk);
        asked.desk.iter().all(|sent| sent.taken).then_some(())
    });
    wait_until("every message of Telegram taken", || near.doubles.bot.unconfirmed().is_empty().then_some(()));
    let mut owner = near.login().scopes(&["operator.admin", "operator.read"]).hello();
    wait_until("the end of all work", || {
        let open = owner.ok("sessions.list", json!({"limit": 100}))["sessions"].clone();
        let busy = open.as_array()?.iter().any(|row| row["hasActiveRun"] == true);
        let db = rusqlite::Connection::open(near.gateway.state_dir().join("state/openclaw-rs.sqlite")).ok()?;
        let left: i64 = db.query_row("SELECT count(*) FROM runs WHERE open = 1", [], |row| row.get(0)).ok()?;
        (!busy && left == 0).then_some(())
    });

    let figures = verdict(&near, &asked, &people, &mut owner);
    eprintln!(
        "{kills} kills in {killing:?} ({mode}): {} messages, {at_work} deaths at work; {figures}",
        asked.telegram.len() + asked.desk.len()
    );
    assert!(at_work > usize::try_from(kills).expect("small") / 4, "it was killed at work: {at_work}");
    near.gateway.stop();
    let db = rusqlite::Connection::open(near.gateway.state_dir().join("state/openclaw-rs.sqlite")).expect("opens");
    let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(whole, "ok");
}

/// Looks at what people saw, what the node did, and what is written down; all faults at once.
fn verdict(near: &Near, asked: &Asked, people: &[Person], owner: &mut lab::client::Client) -> String {
    let mut faults: Vec<String> = Vec::new();
    let (mut told, mut unknown, mut undelivered) = (0, 0, 0);
    let seen = near.doubles.bot.messages();
    let text_of = |message: &Value| message["text"].as_str().unwrap_or_default().to_owned();
    let conversations =
        people.iter().map(|person| (session(person), Some(person))).chain(std::iter::once((DESK.to_owned(), None)));
    for (key, person) in conversations {
        let jobs: BTreeSet<u32> = match person {
            Some(person) => asked.telegram.iter().filter(|(_, who)| who.id == person.id).map(|(job, _)| *job).collect(),
            None => asked.desk.iter().map(|sent| sent.job).collect(),
        };
        if jobs.is_empty() {
            continue;
        }
        let history = owner.ok("chat.history", json!({"sessionKey": key, "limit": 1000}));
        let said = transcript(&history, "user").join("\n");
        let answers: Vec<String> = transcript(&history, "assistant");
        let mut lost = BTreeSet::new();
        for job in jobs {
            let asked_for = [numbers(&said, "job-"), numbers(&said, "word-")].concat();
            let asked_for = asked_for.iter().filter(|other| **other == job).count();
            let named: Vec<&String> = answers.iter().filter(|text| text.contains(&done(job))).collect();
            if asked_for != 1 {
                faults.push(format!("{key}: the message of job {job} is there {asked_for} times"));
            }
            if named.len() != 1 {
                faults.push(format!("{key}: job {job} is answered {} times: {named:?}", named.len()));
            }
            let marks = near.desk.marks(job);
            if marks > 1 {
                faults.push(format!("{key}: job {job} ran {marks} times"));
            }
            let outcome = |word: &str| named.iter().any(|text| text.contains(&format!("{} {word}", done(job))));
            if outcome("ran") && marks != 1 {
                faults.push(format!("{key}: job {job} ran, they say, and began {marks} times"));
            }
            if marks == 1 && outcome("said") {
                faults.push(format!("{key}: job {job} ran and nobody was told"));
            }
            unknown += usize::from(outcome("unknown"));
            if person.is_some() {
                match near.doubles.replies(job) {
                    0 => lost.extend(named.into_iter().cloned()),
                    1 => {}
                    many => faults.push(format!("{key}: the reply to job {job} was seen {many} times")),
                }
            }
        }
        if let Some(person) = person {
            let notices = seen
                .iter()
                .filter(|message| message["chat"]["id"] == person.id)
                .filter(|message| NOTICES.iter().any(|notice| text_of(message).starts_with(notice)))
                .count();
            if notices < lost.len() {
                faults.push(format!("{key}: {} replies did not arrive, {notices} were told: {lost:#?}", lost.len()));
            }
            told += notices;
            undelivered += lost.len();
        }
    }
    assert!(faults.is_empty(), "{faults:#?}\n{}", near.gateway.said());
    format!("{unknown} outcomes told unknown, {undelivered} replies not sent again, {told} told so")
}
