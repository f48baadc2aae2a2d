//! The conversation as it is shown: what was said, thought and done, in order.

use std::cell::RefCell;

use ratatui::text::Line;
use serde_json::Value;

use super::wire::{Author, Message, Part, ToolPhase, ToolStep};

/// Most of a tool's output that is kept, in characters.
const MAX_OUTPUT_CHARS: usize = 20_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    User {
        text: String,
        media: Vec<String>,
        sent: Sent,
        /// The key it was sent with.
        key: Option<String>,
    },
    Assistant {
        text: String,
        run: Option<String>,
        /// More is being written.
        live: bool,
    },
    Thinking {
        text: String,
        run: Option<String>,
    },
    Tool(Tool),
    Note {
        tone: Tone,
        text: String,
    },
}

/// How far a message got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Sending,
    Yes,
    /// It arrived, and its turn comes after the run before it.
    Waits,
    /// It was refused, or nobody knows.
    No(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Info,
    Good,
    Warn,
    Bad,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub call: String,
    pub name: String,
    pub args: Value,
    pub output: String,
    pub state: ToolState,
    pub run: Option<String>,
    /// Since when it runs; and how long it took.
    pub started_ms: Option<i64>,
    pub took_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolState {
    Running,
    Done,
    Failed,
}

/// An entry and how it was last drawn.
#[derive(Debug)]
pub struct Item {
    pub entry: Entry,
    drawn: RefCell<Option<(u64, Vec<Line<'static>>)>>,
}

impl Item {
    pub fn new(entry: Entry) -> Self {
        Self { entry, drawn: RefCell::default() }
    }

    /// Its lines: as last drawn, if that was under the same circumstances.
    pub fn lines<T>(
        &self,
        circumstances: u64,
        draw: impl FnOnce(&Entry) -> Vec<Line<'static>>,
        with: impl FnOnce(&[Line<'static>]) -> T,
    ) -> T {
        let mut drawn = self.drawn.borrow_mut();
        if drawn.as_ref().is_none_or(|(then, _)| *then != circumstances) {
            *drawn = None;
        }
        let (_, lines) = drawn.get_or_insert_with(|| (circumstances, draw(&self.entry)));
        with(lines)
    }

    fn changed(&mut self) -> &mut Entry {
        *self.drawn.get_mut() = None;
        &mut self.entry
    }
}

#[derive(Debug, Default)]
pub struct Transcript {
    items: Vec<Item>,
}

impl Transcript {
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn push(&mut self, entry: Entry) {
        self.items.push(Item::new(entry));
    }

    pub fn note(&mut self, tone: Tone, text: impl Into<String>) {
        let entry = Entry::Note { tone, text: text.into() };
        // The same twice in a row is said once.
        if self.items.last().is_none_or(|last| last.entry != entry) {
            self.push(entry);
        }
    }

    /// Says how far the message with this key got.
    pub fn sent(&mut self, wanted: &str, how: Sent) {
        for item in self.items.iter_mut().rev() {
            if matches!(&item.entry, Entry::User { key: Some(key), .. } if key == wanted)
                && let Entry::User { sent, .. } = item.changed()
            {
                *sent = how;
                return;
            }
        }
    }

    /// The run of a message that waited for its turn has begun.
    pub fn begun(&mut self, run: &str) {
        let waits =
            |entry: &Entry| matches!(entry, Entry::User { key: Some(key), sent: Sent::Waits, .. } if key == run);
        if self.items.iter().any(|item| waits(&item.entry)) {
            self.sent(run, Sent::Yes);
        }
    }

    /// True while something waits for its answer.
    pub fn is_sending(&self) -> bool {
        self.items.iter().any(|item| matches!(&item.entry, Entry::User { sent: Sent::Sending, .. }))
    }

    /// The present piece of a run's answer, as far as it is written.
    ///
    /// Protocol 3 begins anew after each tool; protocol 4 may repeat what stood before it. Either way only what is new is
    /// shown after the tool.
    pub fn answer(&mut self, run: &str, words: &str, live: bool) {
        let words = self.without_earlier(run, words).to_owned();
        let mine = |entry: &Entry| matches!(entry, Entry::Assistant { run: Some(of), live: true, .. } if of == run);
        // Text that begins otherwise is another piece, also where nobody told of the tool between them.
        let another = |entry: &Entry| match entry {
            Entry::Assistant { text, .. } => !words.starts_with(text.trim_end()) && !text.starts_with(words.trim_end()),
            _ => false,
        };
        if self.items.iter().rev().find(|item| mine(&item.entry)).is_some_and(|item| another(&item.entry)) {
            self.settle(run);
        }
        if let Some(item) = self.items.iter_mut().rev().find(|item| mine(&item.entry)) {
            if let Entry::Assistant { text, live: still, .. } = item.changed() {
                if !words.is_empty() || live {
                    *text = words;
                }
                *still = live;
            }
            return;
        }
        let last = |entry: &Entry| matches!(entry, Entry::Assistant { run: Some(of), text, .. } if of == run && *text == words);
        if !words.trim().is_empty() && !self.items.iter().any(|item| last(&item.entry)) {
            self.push(Entry::Assistant { text: words, run: Some(run.to_owned()), live });
        }
    }

    /// What of `words` was not said in an earlier, finished piece of the run.
    fn without_earlier<'a>(&self, run: &str, words: &'a str) -> &'a str {
        let mut rest = words;
        for item in &self.items {
            if let Entry::Assistant { text, run: Some(of), live: false } = &item.entry
                && of == run
                && let Some(after) = rest.strip_prefix(text.trim_end())
                && !after.trim().is_empty()
            {
                rest = after.trim_start();
            }
        }
        rest
    }

    /// Ends the piece that is being written: what comes next is another.
    pub fn settle(&mut self, run: &str) {
        for item in &mut self.items {
            if matches!(&item.entry, Entry::Assistant { run: Some(of), live: true, .. } if of == run)
                && let Entry::Assistant { live, .. } = item.changed()
            {
                *live = false;
            }
        }
    }

    pub fn think(&mut self, run: &str, thoughts: &str) {
        if let Some(item) = self.items.last_mut()
            && matches!(&item.entry, Entry::Thinking { run: Some(of), .. } if of == run)
        {
            if let Entry::Thinking { text, .. } = item.changed() {
                // Cumulative, or a piece to be added.
                if thoughts.starts_with(text.as_str()) {
                    *text = thoughts.to_owned();
                } else {
                    text.push_str(thoughts);
                }
            }
            return;
        }
        self.settle(run);
        self.push(Entry::Thinking { text: thoughts.to_owned(), run: Some(run.to_owned()) });
    }

    pub fn tool(&mut self, run: &str, step: ToolStep, now_ms: i64) {
        let known =
            |entry: &Entry| matches!(entry, Entry::Tool(tool) if tool.call == step.call && !step.call.is_empty());
        let found = self.items.iter_mut().rev().find(|item| known(&item.entry));
        match (found, step.phase) {
            (Some(item), phase) => {
                let Entry::Tool(tool) = item.changed() else { return };
                match phase {
                    ToolPhase::Start(args) => tool.args = args,
                    ToolPhase::Update(text) => tool.output = bounded(&text),
                    ToolPhase::Done { text, failed } => {
                        if !text.is_empty() {
                            tool.output = bounded(&text);
                        }
                        tool.state = if failed { ToolState::Failed } else { ToolState::Done };
                        tool.took_ms = tool.started_ms.map(|started| now_ms.saturating_sub(started));
                    }
                }
            }
            (None, phase) => {
                self.settle(run);
                let (args, output, state) = match phase {
                    ToolPhase::Start(args) => (args, String::new(), ToolState::Running),
                    ToolPhase::Update(text) => (Value::Null, text, ToolState::Running),
                    ToolPhase::Done { text, failed } => {
                        (Value::Null, text, if failed { ToolState::Failed } else { ToolState::Done })
                    }
                };
                let (run, output) = (Some(run.to_owned()), bounded(&output));
                let started_ms = (state == ToolState::Running).then_some(now_ms);
                let (call, name) = (step.call, step.name);
                self.push(Entry::Tool(Tool { call, name, args, output, state, run, started_ms, took_ms: None }));
            }
        }
    }

    /// A run is over: nothing of it runs any more.
    pub fn finish(&mut self, run: &str) {
        self.settle(run);
        for item in &mut self.items {
            if matches!(&item.entry, Entry::Tool(tool) if tool.run.as_deref() == Some(run) && tool.state == ToolState::Running)
                && let Entry::Tool(tool) = item.changed()
            {
                tool.state = ToolState::Done;
            }
        }
    }

    /// What the gateway has kept takes the place of what was shown. Messages it does not know, since they are on their way or
    /// were refused, stay below.
    pub fn load(&mut self, messages: &[Message]) {
        let kept = |key: &Option<String>| key.is_some() && messages.iter().any(|message| message.key == *key);
        // What was decided or stopped here last is no message of the gateway's; it stays in sight until the next message.
        let tail = self.items.iter().rposition(|item| !matches!(item.entry, Entry::Note { .. })).map_or(0, |at| at + 1);
        let mine = |entry: &Entry, at: usize| match entry {
            Entry::User { sent, key, .. } => *sent != Sent::Yes && !kept(key),
            Entry::Note { tone, .. } => at >= tail && matches!(tone, Tone::Good | Tone::Warn),
            _ => false,
        };
        let unsent: Vec<Item> = std::mem::take(&mut self.items)
            .into_iter()
            .enumerate()
            .filter_map(|(at, item)| mine(&item.entry, at).then_some(item))
            .collect();
        for message in messages {
            self.add(message);
        }
        let told = |note: &Item| {
            matches!(note.entry, Entry::Note { .. }) && self.items.iter().any(|item| item.entry == note.entry)
        };
        let unsent: Vec<Item> = unsent.into_iter().filter(|item| !told(item)).collect();
        self.items.extend(unsent);
    }

    fn add(&mut self, message: &Message) {
        let run = message.run.clone();
        match message.author {
            Author::User => {
                let media = message.parts.iter().filter_map(|part| match part {
                    Part::Media(name) => Some(name.clone()),
                    _ => None,
                });
                let (media, key) = (media.collect(), message.key.clone());
                self.push(Entry::User { text: message.words(), media, sent: Sent::Yes, key });
            }
            Author::System => self.note(Tone::Info, message.words()),
            Author::Assistant | Author::Tool => {
                for part in &message.parts {
                    self.add_part(part, run.clone());
                }
                if let Some(error) = &message.error {
                    self.note(Tone::Bad, error.clone());
                } else if message.stop.as_deref() == Some("aborted") {
                    self.note(Tone::Warn, "aborted");
                }
            }
        }
    }

    fn add_part(&mut self, part: &Part, run: Option<String>) {
        match part {
            Part::Text(text) if text.trim().is_empty() => {}
            Part::Text(text) => self.push(Entry::Assistant { text: text.clone(), run, live: false }),
            Part::Thinking(text) => self.push(Entry::Thinking { text: text.clone(), run }),
            Part::Media(name) => self.note(Tone::Info, format!("[{name}]")),
            Part::Call { id, name, args } => {
                let (call, name, args) = (id.clone(), name.clone(), args.clone());
                let (output, state) = (String::new(), ToolState::Done);
                self.push(Entry::Tool(Tool { call, name, args, output, state, run, started_ms: None, took_ms: None }));
            }
            Part::Result { id, name, text, failed } => {
                let phase = ToolPhase::Done { text: text.clone(), failed: *failed };
                let step = ToolStep { call: id.clone(), name: name.clone(), phase };
                self.tool(run.as_deref().unwrap_or_default(), step, 0);
            }
        }
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_OUTPUT_CHARS) {
        Some((at, _)) => format!("{}\n… (cut here; the gateway has all of it)", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(transcript: &Transcript) -> Vec<String> {
        let line = |item: &Item| match &item.entry {
            Entry::User { text, sent, .. } => format!("user {text} {sent:?}"),
            Entry::Assistant { text, live, .. } => format!("assistant {text}{}", if *live { " …" } else { "" }),
            Entry::Thinking { text, .. } => format!("thinks {text}"),
            Entry::Tool(tool) => format!("{} {:?} {}", tool.name, tool.state, tool.output),
            Entry::Note { text, .. } => format!("note {text}"),
        };
        transcript.items.iter().map(line).collect()
    }

    fn step(phase: ToolPhase) -> ToolStep {
        ToolStep { call: "c".into(), name: "exec".into(), phase }
    }

    /// The order of events of 2026.2.26, whose text begins anew after a tool, and of one that repeats what came before.
    #[test]
    fn a_tool_parts_the_answer() {
        for after in [["The to", "The tool said: x"], ["I will look. The to", "I will look. The tool said: x"]] {
            let mut transcript = Transcript::default();
            transcript.answer("r", "I will", true);
            transcript.answer("r", "I will look. ", true);
            transcript.tool("r", step(ToolPhase::Start(json!({"command": "x"}))), 5);
            transcript.tool("r", step(ToolPhase::Done { text: "x".into(), failed: false }), 9);
            transcript.answer("r", after[0], true);
            transcript.answer("r", after[1], true);
            transcript.answer("r", after[1], false);
            transcript.answer("r", after[1], false);
            transcript.finish("r");
            assert_eq!(shown(&transcript), ["assistant I will look. ", "exec Done x", "assistant The tool said: x"]);
        }
    }

    /// 2026.2.26 tells of no tools to who sent by `chat.send`.
    #[test]
    fn pieces_are_parted_without_word_of_the_tool() {
        let mut transcript = Transcript::default();
        for words in ["I will look.", "The to", "The tool said: x"] {
            transcript.answer("r", words, true);
        }
        transcript.answer("r", "The tool said: x", false);
        assert_eq!(shown(&transcript), ["assistant I will look.", "assistant The tool said: x"]);
    }

    #[test]
    fn what_is_kept_replaces_what_was_shown() {
        let mut transcript = Transcript::default();
        for (text, sent, key) in [
            ("known", Sent::Sending, "k1"),
            ("refused", Sent::No("why".into()), "k2"),
            ("under way", Sent::Sending, "k3"),
        ] {
            transcript.push(Entry::User { text: text.into(), media: Vec::new(), sent, key: Some(key.into()) });
        }
        transcript.answer("r", "half an ans", true);
        transcript.note(Tone::Good, "allowed once");
        let rows = [
            json!({"role": "user", "content": "known", "idempotencyKey": "k1:user"}),
            json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "look"},
                {"type": "toolCall", "id": "c", "name": "exec", "arguments": {}}]}),
            json!({"role": "toolResult", "toolCallId": "c", "toolName": "exec", "content": "no", "isError": true}),
            json!({"role": "assistant", "content": [], "stopReason": "error", "errorMessage": "429"}),
        ];
        let rows: Vec<Message> = rows.iter().filter_map(Message::of).collect();
        transcript.load(&rows);
        assert_eq!(
            shown(&transcript),
            [
                "user known Yes",
                "thinks hm",
                "assistant look",
                "exec Failed no",
                "note 429",
                "user refused No(\"why\")",
                "user under way Sending",
                "note allowed once"
            ]
        );
    }

    #[test]
    fn thoughts_grow() {
        let mut transcript = Transcript::default();
        transcript.think("r", "a");
        transcript.think("r", "ab");
        transcript.think("r", "c");
        assert_eq!(shown(&transcript), ["thinks abc"]);
    }

    #[test]
    fn a_run_that_ended_leaves_nothing_running() {
        let mut transcript = Transcript::default();
        transcript.answer("r", "half", true);
        transcript.tool("r", step(ToolPhase::Start(Value::Null)), 0);
        transcript.finish("r");
        assert_eq!(shown(&transcript), ["assistant half", "exec Done "]);
    }
}
