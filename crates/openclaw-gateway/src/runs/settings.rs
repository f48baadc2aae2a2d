//! `agents`, `session`, `messages.queue`: which agents there are and how they run. Read from the config in force, anew after
//! every reload. What cannot be understood is named and left out; the agent goes on with the default.

use std::{path::PathBuf, time::Duration};

use openclaw_config::{
    document::{Document, Node},
    paths::Paths,
};

use super::WhenBusy;

/// A run may take this long when nobody says (`agents.defaults.timeoutSeconds` of the reference: 48 h).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(48 * 3600);
/// `timeoutSeconds: 0` is "no limit"; this is as good, and a clock can count it.
const NO_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Tokens kept free for the answer (`reserveTokens` of the reference).
const RESERVE_TOKENS: u64 = 20_000;
/// The agent every gateway has.
pub const MAIN: &str = "main";
/// Its main conversation; a custom `session.mainKey` is ignored, as by the reference.
pub const MAIN_KEY: &str = "main";

/// One agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub id: String,
    pub name: Option<String>,
    pub identity: Identity,
    /// Where its files are.
    pub workspace: PathBuf,
    pub timeout: Duration,
}

/// `identity` of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: Option<String>,
    pub emoji: Option<String>,
    pub theme: Option<String>,
    pub avatar: Option<String>,
}

/// Everything about agents that is not their models or tools.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one.
    pub agents: Vec<Agent>,
    pub default_id: String,
    /// Runs at the same time, over all conversations.
    pub max_concurrent: usize,
    pub queue: WhenBusy,
    queue_by_channel: Vec<(String, WhenBusy)>,
    pub compaction_reserve: u64,
    /// The gateway compacts by itself when the context is nearly full.
    pub auto_compact: bool,
    pub heartbeat: Heartbeat,
    /// What was left out, and why.
    pub problems: Vec<String>,
}

/// `agents.defaults.heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// `None`: never by itself.
    pub every: Option<Duration>,
    pub prompt: Option<String>,
}

impl Settings {
    pub fn read(config: &Document, paths: &Paths) -> Self {
        let mut problems = Vec::new();
        let mut reader = Reader { config, problems: &mut problems };
        let defaults = reader.agent(None, MAIN, paths);
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let max_concurrent = reader.number("agents.defaults.maxConcurrent", 1).and_then(|n| usize::try_from(n).ok());
        let reserve = reader.number("agents.defaults.compaction.reserveTokens", 0);
        let auto_compact = config.get("agents.defaults.compaction.enabled").and_then(Node::as_bool).unwrap_or(true);
        let queue = config.get("messages.queue.mode").map(|node| reader.mode("messages.queue.mode", node));
        let by_channel = config.get("messages.queue.byChannel").and_then(Node::as_object).unwrap_or_default();
        let queue_by_channel = by_channel.iter().filter_map(|(channel, node)| {
            Some((channel.clone(), reader.mode(&format!("messages.queue.byChannel.{channel}"), node)?))
        });
        let queue_by_channel = queue_by_channel.collect();
        let heartbeat = reader.heartbeat();
        let mut agents: Vec<Agent> = Vec::new();
        let mut default_id = None;
        for (id, node) in entries(config) {
            let Some(id) = canonical(&id) else {
                reader.problems.push(format!(
                    "agents: {id:?} is no agent id; use 1 to 64 letters, digits, - and _ (the agent is left out)"
                ));
                continue;
            };
            if agents.iter().any(|agent| agent.id == id) {
                reader.problems.push(format!("agents: {id:?} is there twice; the first one counts"));
                continue;
            }
            if node.entry("default").and_then(Node::as_bool) == Some(true) {
                default_id.get_or_insert_with(|| id.clone());
            }
            let agent = reader.agent(Some(node), &id, paths);
            agents.push(agent);
        }
        if agents.is_empty() {
            agents.push(defaults);
        }
        let default_id = default_id
            .or_else(|| agents.iter().find(|agent| agent.id == MAIN).map(|agent| agent.id.clone()))
            .or_else(|| agents.first().map(|agent| agent.id.clone()))
            .unwrap_or_else(|| MAIN.to_owned());
        Self {
            agents,
            default_id,
            // The reference's default: max(8, 4 per processor).
            max_concurrent: max_concurrent.unwrap_or_else(|| (4 * cpus).max(8)),
            // The reference's default.
            queue: queue.flatten().unwrap_or(WhenBusy::Steer),
            queue_by_channel,
            compaction_reserve: reserve.unwrap_or(RESERVE_TOKENS),
            auto_compact,
            heartbeat,
            problems,
        }
    }

    /// An agent by its id.
    pub fn agent(&self, id: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id.eq_ignore_ascii_case(id))
    }

    /// What to do with messages of a channel while a run is under way.
    pub fn queue_of(&self, channel: &str) -> WhenBusy {
        let own = self.queue_by_channel.iter().find(|(name, _)| name == channel);
        own.map_or(self.queue, |(_, mode)| *mode)
    }
}

/// `agents.entries` (by id) and the older `agents.list`.
fn entries(config: &Document) -> Vec<(String, &Node)> {
    let entries = config.get("agents.entries").and_then(Node::as_object).unwrap_or_default();
    let entries = entries.iter().map(|(id, node)| (id.clone(), node));
    let list = config.get("agents.list").and_then(Node::as_array).unwrap_or_default();
    let list = list.iter().map(|node| (node.entry("id").and_then(Node::as_str).unwrap_or_default().to_owned(), node));
    entries.chain(list).collect()
}

fn canonical(id: &str) -> Option<String> {
    let id = id.trim().to_lowercase();
    let fine = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    fine.then_some(id)
}

struct Reader<'a> {
    config: &'a Document,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn agent(&mut self, node: Option<&Node>, id: &str, paths: &Paths) -> Agent {
        let default = |key: &str| self.config.get(&format!("agents.defaults.{key}"));
        fn text(node: Option<&Node>) -> Option<&str> {
            node.and_then(Node::as_str).map(str::trim).filter(|text| !text.is_empty())
        }
        let own = |key: &str| node.and_then(|node| node.entry(key));
        let identity = own("identity").or_else(|| default("identity"));
        let of_identity = |key: &str| text(identity.and_then(|node| node.entry(key))).map(str::to_owned);
        // The default directory is one agent's; others have their own beside it.
        let workspace = match (text(own("workspace")), text(default("workspace"))) {
            (Some(own), _) => paths.expand(own),
            (None, Some(shared)) if id == MAIN => paths.expand(shared),
            (None, Some(shared)) => paths.expand(&format!("{}-{id}", shared.trim_end_matches('/'))),
            (None, None) if id == MAIN => paths.state_dir.join("workspace"),
            (None, None) => paths.state_dir.join(format!("workspace-{id}")),
        };
        let identity = Identity {
            name: of_identity("name"),
            emoji: of_identity("emoji"),
            theme: of_identity("theme"),
            avatar: of_identity("avatar"),
        };
        let name = text(own("name")).map(str::to_owned);
        let timeout = match self.number("agents.defaults.timeoutSeconds", 0) {
            None => DEFAULT_TIMEOUT,
            Some(0) => NO_TIMEOUT,
            Some(seconds) => Duration::from_secs(seconds).min(NO_TIMEOUT),
        };
        Agent { id: id.to_owned(), name, identity, workspace, timeout }
    }

    fn number(&mut self, path: &str, least: u64) -> Option<u64> {
        let node = self.config.get(path)?;
        let number = node.as_i64().and_then(|number| u64::try_from(number).ok()).filter(|number| *number >= least);
        if number.is_none() {
            let problem =
                format!("{path} must be a whole number, at least {least} ({}); the default is used", node.provenance);
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        number
    }

    fn mode(&mut self, path: &str, node: &Node) -> Option<WhenBusy> {
        let mode = node.as_str().and_then(mode_from);
        if mode.is_none() {
            self.problems.push(format!(
                "{path} must be steer, followup, collect or interrupt ({}); the default is used",
                node.provenance
            ));
        }
        mode
    }

    fn heartbeat(&mut self) -> Heartbeat {
        let path = "agents.defaults.heartbeat";
        let text = |key: &str| self.config.get(&format!("{path}.{key}")).and_then(Node::as_str).map(str::to_owned);
        let prompt = text("prompt").filter(|prompt| !prompt.trim().is_empty());
        let every = match text("every") {
            None => None,
            Some(word) => match duration(&word) {
                Some(every) => (!every.is_zero()).then_some(every),
                None => {
                    self.problems.push(format!("{path}.every {word:?} is no time; use 30m, 2h, or 0m for never"));
                    None
                }
            },
        };
        Heartbeat { every, prompt }
    }
}

/// A queue mode by its word.
pub fn mode_from(word: &str) -> Option<WhenBusy> {
    match word.trim() {
        "steer" => Some(WhenBusy::Steer),
        "followup" => Some(WhenBusy::Followup),
        "collect" => Some(WhenBusy::Collect),
        "interrupt" => Some(WhenBusy::Interrupt),
        _ => None,
    }
}

/// `500ms`, `30s`, `30m`, `2h`, `1d`; a bare number is minutes, as in the reference's heartbeat.
fn duration(word: &str) -> Option<Duration> {
    let word = word.trim();
    let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "" | "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use openclaw_config::{env::Env, paths::Profile};

    use super::*;

    fn read(text: &str) -> Settings {
        let env = Env::from_pairs([("HOME", "/home/o"), ("OPENCLAW_STATE_DIR", "/state")]);
        let paths = Paths::resolve(&env, Profile::Default).expect("paths");
        let document = Document::from_text(text, &paths, &env).expect("parses");
        Settings::read(&document, &paths)
    }

    #[test]
    fn there_is_always_an_agent() {
        let settings = read("{}");
        assert_eq!(settings.default_id, "main");
        let [main] = settings.agents.as_slice() else { panic!("{settings:?}") };
        assert_eq!((main.id.as_str(), main.workspace.to_str()), ("main", Some("/state/workspace")));
        assert_eq!((settings.queue, settings.problems.len()), (WhenBusy::Steer, 0));
        assert!(settings.max_concurrent >= 8, "max(8, 4 per processor)");
    }

    #[test]
    fn agents_by_id_and_as_a_list() {
        let settings = read(
            r#"{agents: {
                defaults: {workspace: "~/ws", timeoutSeconds: 600, maxConcurrent: 3},
                entries: {work: {name: "Work", identity: {name: "Wanda", emoji: "W"}, workspace: "/w"}},
                list: [{id: "main"}, {id: "Home", default: true}, {id: "no id"}, {id: "work"}],
            }, messages: {queue: {mode: "followup", byChannel: {discord: "collect"}}}}"#,
        );
        let agents: Vec<_> =
            settings.agents.iter().map(|a| (a.id.as_str(), a.workspace.display().to_string())).collect();
        let expected = [("work", "/w"), ("main", "/home/o/ws"), ("home", "/home/o/ws-home")];
        assert_eq!(agents, expected.map(|(id, path)| (id, path.to_owned())));
        assert_eq!((settings.default_id.as_str(), settings.max_concurrent), ("home", 3));
        assert_eq!(settings.agents[0].identity.name.as_deref(), Some("Wanda"));
        assert_eq!(settings.agents[1].timeout, Duration::from_secs(600));
        assert_eq!(
            (settings.queue_of("telegram"), settings.queue_of("discord")),
            (WhenBusy::Followup, WhenBusy::Collect)
        );
        assert_eq!(settings.problems.len(), 2, "{:?}", settings.problems);
    }

    #[test]
    fn what_makes_no_sense_is_named_and_the_default_stays() {
        let settings = read(
            r#"{agents: {defaults: {maxConcurrent: "many", timeoutSeconds: -1, heartbeat: {every: "soon"}}}, messages: {queue: {mode: "push"}}}"#,
        );
        for part in ["maxConcurrent", "timeoutSeconds", "\"soon\"", "messages.queue.mode"] {
            assert!(settings.problems.iter().any(|problem| problem.contains(part)), "{part}: {:?}", settings.problems);
        }
        assert_eq!((settings.agents[0].timeout, settings.queue), (DEFAULT_TIMEOUT, WhenBusy::Steer));
    }

    #[test]
    fn times() {
        let check = |word: &str, seconds: Option<u64>| {
            assert_eq!(duration(word), seconds.map(Duration::from_secs), "{word}");
        };
        check("30m", Some(1800));
        check("2h", Some(7200));
        check("0m", Some(0));
        check("45", Some(2700));
        check("1d", Some(86_400));
        check("soon", None);
        check("-1m", None);
    }
}
