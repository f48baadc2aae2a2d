//! The drivers of `peers-js`: the conformance run, and the reference client by remote control.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ChildStdin,
    time::Duration,
};

use doubles::model::{Model, Reply, Script};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Generation, Peers};
use crate::process::{Process, wait_at_most, wait_until};

/// A run in which every step of the driver times out ends before this.
const LONG_RUN: Duration = Duration::from_secs(420);

/// What the conformance run found.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Frames the gateway sent.
    pub frames: u64,
    /// How often each schema was applied.
    pub checked: std::collections::BTreeMap<String, u64>,
    /// Each violation once, as text.
    pub problems: Vec<String>,
    /// Methods of tier A that hello does not list.
    #[serde(default)]
    pub not_advertised: Vec<String>,
    /// Fields the checker admits although the published schema lacks them, that this gateway did not send.
    pub newer_unseen: Vec<String>,
}

/// Runs `conformance.mjs` against a gateway; `stop` has to shut that gateway down in good order when asked.
///
/// `ours` turns to what we do on purpose unlike the real one, and calls every method hello lists with senseless params.
#[track_caller]
pub fn conformance(
    peers: &Peers,
    generation: Generation,
    (url, token): (&str, &str),
    home: &Path,
    ours: bool,
    stop: impl FnOnce(),
) -> Report {
    let generation = if generation == Generation::V4 { "v4" } else { "v3" };
    let options = json!({"url": url, "generation": generation, "ours": ours});
    let mut driver =
        peers.script("conformance.mjs", home).arg(options.to_string()).env("GATEWAY_TOKEN", token).start("conformance");
    wait_at_most(LONG_RUN, "end of the conformance run", || {
        if let Some(status) = driver.ended() {
            panic!("the conformance run broke off ({status})\n{}", driver.said());
        }
        driver.stdout().contains("READY-TO-STOP").then_some(())
    });
    stop();
    wait_until("report of the conformance run", || driver.ended());
    let stdout = driver.stdout();
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("no report ({error})\n{}", driver.said()))
}

/// Runs `chat.mjs` against a gateway whose model is the one [`speaker`] makes.
#[track_caller]
pub fn conversation(
    peers: &Peers,
    generation: Generation,
    (url, token): (&str, &str),
    home: &Path,
    ours: bool,
) -> Report {
    let generation = if generation == Generation::V4 { "v4" } else { "v3" };
    let options = json!({"url": url, "generation": generation, "ours": ours});
    let mut driver =
        peers.script("chat.mjs", home).arg(options.to_string()).env("GATEWAY_TOKEN", token).start("conversation");
    wait_at_most(LONG_RUN, "end of the conversation", || driver.ended());
    let stdout = driver.stdout();
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("no report ({error})\n{}", driver.said()))
}

/// The model `chat.mjs` and its like talk to: it greets, and goes on for ever when asked for SLOW.
pub fn speaker() -> Model {
    Model::start(Script::choose(|ask| {
        let newest = ["hello", "SLOW"].into_iter().max_by_key(|word| ask.last_user.rfind(word));
        match newest.filter(|word| ask.last_user.contains(word)) {
            Some("SLOW") => Reply::say("and on ".repeat(400)).pieces(400).pace(Duration::from_millis(50)),
            _ => Reply::say("Hello from the fake model.").pieces(5).usage(10, 5),
        }
    }))
}

/// `@openclaw/gateway-client`, obeying one line at a time and reporting everything it sees.
pub struct ReferenceClient {
    process: Process,
    stdin: ChildStdin,
    identity: PathBuf,
    url: String,
    /// Lines already given to a waiting test.
    read: usize,
    requests: u32,
}

impl ReferenceClient {
    /// Starts the program; nothing is dialled before [`Self::connect`]. The device key and its tokens live in `home`,
    /// so a second client of the same home is the same device.
    #[track_caller]
    pub fn new(peers: &Peers, home: &Path, url: &str) -> Self {
        let mut process =
            peers.script("reference-client.mjs", home).piped_stdin().start(&format!("client-{}", uuid::Uuid::new_v4()));
        let stdin = process.child.stdin.take().expect("stdin was asked for");
        Self { process, stdin, identity: home.join("device.json"), url: url.to_owned(), read: 0, requests: 0 }
    }

    #[track_caller]
    fn tell(&mut self, command: &Value) {
        writeln!(self.stdin, "{command}").expect("the reference client listens");
    }

    /// Connects with these options of the client, beside URL and identity; reconnects by itself from then on.
    #[track_caller]
    pub fn connect(&mut self, options: Value) {
        let mut command = json!({"do": "start", "url": self.url, "identity": self.identity});
        command.as_object_mut().expect("an object").extend(options.as_object().expect("options are an object").clone());
        self.tell(&command);
    }

    /// The next report that has this key and satisfies `wanted`; reports before it are passed over.
    #[track_caller]
    pub fn next(&mut self, key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("{key} from the reference client"), || {
            let stdout = self.process.stdout();
            let complete = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
            for (index, line) in complete.lines().enumerate().skip(self.read) {
                let report: Value = serde_json::from_str(line).expect("the driver speaks JSON lines");
                if report.get(key).is_some_and(&wanted) {
                    self.read = index + 1;
                    return Some(report[key].clone());
                }
            }
            None
        })
    }

    /// The next hello.
    #[track_caller]
    pub fn hello(&mut self) -> Value {
        self.next("hello", |_| true)
    }

    /// The payload of the next event of this name.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        self.next("event", |event| event["event"] == name)["payload"].clone()
    }

    /// Calls a method; reports that came before its answer are passed over.
    ///
    /// # Errors
    /// The error the gateway answered with.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.requests += 1;
        let id = self.requests;
        self.tell(&json!({"do": "request", "id": id, "method": method, "params": params}));
        let stdout_before = self.read;
        self.next("answer", |answer| *answer == json!(id));
        let line = self.process.stdout().lines().nth(self.read - 1).expect("the line just seen").to_owned();
        // Events that came in between may still be asked for.
        self.read = stdout_before;
        let answer: Value = serde_json::from_str(&line).expect("the driver speaks JSON lines");
        if answer["ok"] == true { Ok(answer["payload"].clone()) } else { Err(answer["error"].clone()) }
    }

    /// Everything reported under this key so far.
    pub fn all(&self, key: &str) -> Vec<Value> {
        let lines = self.process.stdout();
        lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get(key).cloned()).collect()
    }

    /// Disconnects for good.
    #[track_caller]
    pub fn stop(&mut self) {
        self.tell(&json!({"do": "stop"}));
        self.next("stopped", |_| true);
    }

    /// Forgets all that was reported so far.
    pub fn forget(&mut self) {
        self.read = self.process.stdout().lines().count();
    }
}
