//! Notices a model that makes the same call again and again and gets the same answer.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::message::{Part, ToolCall};

/// Equal answers to equal calls before the model is told.
const TELL_AT: u32 = 3;
/// Equal answers before the call is not run any more.
const REFUSE_AT: u32 = 5;
/// Refused calls before the turn ends. The first leaves the model one more answer to think of something else.
const END_AT: u32 = 2;

/// What is known of the calls of one turn.
#[derive(Debug, Default)]
pub(super) struct LoopGuard {
    seen: HashMap<u64, Seen>,
    /// Rounds in which a call was refused.
    refused: u32,
}

#[derive(Debug)]
struct Seen {
    answer: u64,
    count: u32,
}

impl LoopGuard {
    /// Whether a call was answered alike too often to be run once more.
    pub(super) fn refuses(&self, call: &ToolCall) -> bool {
        self.seen.get(&key(call)).is_some_and(|seen| seen.count >= REFUSE_AT)
    }

    /// Counts a refusal; true when it is time to end the turn.
    pub(super) fn refused(&mut self) -> bool {
        self.refused += 1;
        self.refused >= END_AT
    }

    /// Counts an answer; gives a word to the model when it repeats.
    pub(super) fn answered(&mut self, call: &ToolCall, content: &[Part]) -> Option<String> {
        let answer = hash(content);
        let seen = self.seen.entry(key(call)).or_insert(Seen { answer, count: 0 });
        if seen.answer == answer {
            seen.count += 1;
        } else {
            *seen = Seen { answer, count: 1 };
        }
        let count = seen.count;
        (count >= TELL_AT).then(|| {
            format!(
                "[This call was made {count} times with the same arguments and gave the same answer each time. Try something \
                 else, or tell the person what stands in the way.]"
            )
        })
    }
}

fn key(call: &ToolCall) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&call.name, call.arguments.to_string()).hash(&mut hasher);
    hasher.finish()
}

fn hash(content: &[Part]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in content {
        match part {
            Part::Text(text) => text.hash(&mut hasher),
            Part::Image { mime, data } => (mime, data).hash(&mut hasher),
            Part::Thinking { .. } | Part::ToolCall(_) | Part::ToolResult(_) => {}
        }
    }
    hasher.finish()
}
