//! Who takes part: people in Telegram, a model that wants work done on a node, and what the node's owner lets it do.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use doubles::{
    bot_api::{Bot, BotApi, Person},
    model::{Ask, Model, Reply, Script},
};
use lab::{node_bench::NAME, peers::model_sections, process::wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "424242:journey-secret";

/// Telegram and the model.
pub struct Doubles {
    // Before the server, whose thread they use.
    pub bot: Bot,
    pub model: Model,
    pub api: BotApi,
}

impl Doubles {
    /// On loopback of the machine (or namespace) this is called on.
    pub fn start(desk: &Desk) -> Self {
        let api = BotApi::start();
        let bot = api.bot(TOKEN, "claw_bot");
        Self { bot, model: Model::start(clerk(desk, Style::default())), api }
    }

    /// A gateway's config: these doubles, the given people as owners, each in a conversation of his own.
    pub fn config(&self, people: &[Person], more: Value) -> Value {
        let mut config = model_sections(&self.model.url());
        let ids: Vec<String> = people.iter().map(|person| person.id.to_string()).collect();
        let owners: Vec<String> = ids.iter().map(|id| format!("telegram:{id}")).collect();
        config["gateway"] = json!({"mode": "local"});
        config["session"] = json!({"dmScope": "per-channel-peer"});
        config["commands"] = json!({"ownerAllowFrom": owners});
        config["channels"] = json!({"telegram": {"enabled": true, "botToken": TOKEN, "apiRoot": self.api.url(),
            "dmPolicy": "allowlist", "allowFrom": ids}});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// How often people saw the reply to this job.
    pub fn replies(&self, job: u32) -> usize {
        let mark = done(job);
        self.bot.messages().iter().filter(|message| message["text"].as_str().is_some_and(|t| t.contains(&mark))).count()
    }

    /// Waits for the reply to a job; it has to have come exactly once.
    #[track_caller]
    pub fn reply(&self, job: u32) -> String {
        let text = self.bot.wait_for_text(&done(job)).text().to_owned();
        assert_eq!(self.replies(job), 1, "{:#?}", self.bot.messages());
        text
    }
}

/// A person in Telegram.
pub fn ada() -> Person {
    Person::new(7, "Ada").username("ada")
}

/// The conversation of a person.
pub fn session(person: &Person) -> String {
    format!("agent:main:telegram:direct:{}", person.id)
}

/// The program on the node that stands for work: it notes that it ran, and can be made to wait.
#[derive(Clone)]
pub struct Desk {
    pub dir: PathBuf,
}

impl Desk {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a scratch directory takes directories");
        let (script, file) = (dir.join("work.sh"), dir.display());
        let text = format!(
            "#!/bin/sh\necho \"$1\" >>'{file}/marks'\nuntil [ -e '{file}/go' ]; do sleep 0.02; done\nsleep \"$2\"\n\
             echo \"ran-$1\"\n"
        );
        fs::write(&script, text).expect("a scratch directory takes files");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let desk = Self { dir: dir.to_owned() };
        desk.go();
        desk
    }

    pub fn script(&self) -> String {
        self.dir.join("work.sh").display().to_string()
    }

    /// Work does not end from now on.
    pub fn hold(&self) {
        let _ = fs::remove_file(self.dir.join("go"));
    }

    /// Work ends.
    pub fn go(&self) {
        fs::write(self.dir.join("go"), "").expect("a scratch directory takes files");
    }

    /// How often work on this job began.
    pub fn marks(&self, job: u32) -> usize {
        let text = fs::read_to_string(self.dir.join("marks")).unwrap_or_default();
        text.lines().filter(|line| *line == job.to_string()).count()
    }

    #[track_caller]
    pub fn wait_begun(&self, job: u32) {
        wait_until("work on the node", || (self.marks(job) > 0).then_some(()));
    }
}

/// What the model says it did: the beginning of the reply to a job.
pub fn done(job: u32) -> String {
    format!("done-{job}:")
}

/// How the model works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Before each answer.
    pub after: Duration,
    /// Between the pieces of its last words, of which there are several.
    pub pace: Duration,
}

/// A model that has jobs done. `job-<n>` in a message is work for the node, `word-<n>` is answered at once. It answers all that
/// is not answered yet, and says of each job what the tool said.
pub fn clerk(desk: &Desk, style: Style) -> Script {
    let script = desk.script();
    Script::choose(move |ask| {
        let open = open_jobs(ask);
        let calls = ask.body["messages"].to_string();
        let next = open.iter().find(|(job, work)| *work && !calls.contains(&format!("\"call-{job}\"")));
        if let Some((job, _)) = next {
            // A tenth of a second at most, so that it is often under way.
            let seconds = format!("0.{:02}", job % 10);
            let arguments = json!({"action": "run", "node": NAME, "argv": [script, job.to_string(), seconds]});
            let id = format!("call-{job}");
            return Reply::default().then_call_raw(&id, "nodes", &arguments.to_string()).after(style.after);
        }
        let lines = open.iter().map(|(job, _)| format!("{} {}", done(*job), outcome(ask, *job)));
        let text = lines.collect::<Vec<_>>().join("\n");
        let text = if text.is_empty() { "nothing to do".to_owned() } else { text };
        Reply::say(text).pieces(6).pace(style.pace).after(style.after)
    })
}

/// Numbers after this word in a text.
pub fn numbers(text: &str, word: &str) -> Vec<u32> {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split(word).skip(1).filter_map(|rest| digits(rest).parse().ok()).collect()
}

/// What people asked for and no answer has named yet; with whether it is work for the node.
fn open_jobs(ask: &Ask) -> Vec<(u32, bool)> {
    let said = |role: &str| {
        ask.messages.iter().filter(|(who, _)| who == role).map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n")
    };
    let (asked, answered) = (said("user"), numbers(&said("assistant"), "done-"));
    let of = |word: &str, work: bool| numbers(&asked, word).into_iter().map(move |job| (job, work)).collect::<Vec<_>>();
    let mut jobs = [of("job-", true), of("word-", false)].concat();
    jobs.sort_unstable();
    jobs.dedup();
    jobs.retain(|(job, _)| !answered.contains(job));
    jobs
}

/// What the tool said about a job, in a word; what else it said otherwise.
fn outcome(ask: &Ask, job: u32) -> String {
    let id = format!("call-{job}");
    let messages = ask.body["messages"].as_array().cloned().unwrap_or_default();
    let Some(result) = messages.iter().find(|message| message["tool_call_id"] == id.as_str()) else {
        return "said".to_owned();
    };
    let text = result["content"].to_string();
    if text.contains(&format!("ran-{job}")) {
        "ran".to_owned()
    } else if text.contains("not known") {
        "unknown".to_owned()
    } else {
        format!("failed: {}", text.chars().take(300).collect::<String>())
    }
}
