//! One line per step as it passes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    step::Step,
    steps::{Watch, Why, Work},
};
use crate::{
    context::Context,
    failure::Failure,
    output::{self, Progress, Tone, time},
};

/// What takes less is not worth a number.
const WORTH_TELLING: Duration = Duration::from_millis(2);

/// What a step tells when it passed: a line, and what JSON output has beside it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub text: String,
    pub more: Value,
}

impl Told {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), more: Value::Null }
    }
}

/// The line that says what is being waited for. Whoever hands the terminal to another program takes it away first.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<Progress>>>);

impl Waiting {
    fn set(&self, progress: Option<Progress>) {
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), progress);
        drop(before);
    }

    /// Wipes it.
    pub fn stop(&self) {
        self.set(None);
    }
}

/// Prints the steps on stderr and remembers them for JSON.
pub struct Lines<'a> {
    context: &'a Context,
    /// Printed before the first step: from then on an interruption is heard.
    title: Option<String>,
    waiting: Waiting,
    steps: Vec<Value>,
}

impl<'a> Lines<'a> {
    pub fn new(context: &'a Context, waiting: Waiting, title: impl Into<String>) -> Self {
        Self { context, title: Some(title.into()), waiting, steps: Vec::new() }
    }

    pub fn into_steps(self) -> Vec<Value> {
        self.steps
    }
}

impl<W: Work<Step = Step, Told = Told, Failure = Failure>> Watch<W> for Lines<'_> {
    fn begins(&mut self, step: Step) {
        if let Some(title) = self.title.take() {
            output::note(title);
        }
        self.waiting.set(Some(self.context.output.progress(format!("{} …", step.doing()))));
    }

    fn passed(&mut self, step: Step, told: &Told, took: Duration) {
        self.waiting.stop();
        let style = self.context.output.err;
        let mut line = format!("{} {:<8} {}", style.ok(), step.as_str(), told.text);
        if took >= WORTH_TELLING {
            line.push_str(&format!("  {}", style.paint(Tone::Dim, &time::span(took))));
        }
        output::note(line);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut entry = json!({"step": step.as_str(), "ok": true, "ms": ms, "text": told.text});
        if let (Some(entry), Value::Object(more)) = (entry.as_object_mut(), &told.more) {
            entry.extend(more.clone());
        }
        self.steps.push(entry);
    }

    fn broke(&mut self, _: Step, _: &Why<Failure>) {
        self.waiting.stop();
        self.waiting.set(Some(self.context.output.progress("Undoing what was done …")));
    }
}
