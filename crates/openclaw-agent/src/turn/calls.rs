//! Runs the calls of one answer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::{self, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{Event, How, Sink, State, arguments};
use crate::{
    message::{Message, Part, Role, ToolCall, ToolResult},
    tool::{Answer, Call, Effects, Tool},
    untrusted,
};

/// Calls without effects that run side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long a tool that was cancelled, or took too long, may take to say how far it got.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Pieces of progress that wait for the sink; more are dropped.
const PROGRESS: usize = 64;
/// Bytes of one image in an answer: what the tightest provider takes.
const IMAGE_BYTES: usize = 5 << 20;
/// Images in one answer.
const IMAGES: usize = 4;

const REFUSED: &str = "This call was not run: it was made with the same arguments, and gave the same answer, again and again. \
                       Do something else, or tell the person what stands in the way.";

/// A call and what will come of it.
enum Plan {
    Run(Arc<dyn Tool>),
    /// Nothing runs; this is the answer.
    Answer(String),
    /// As [`Plan::Answer`], because the loop guard says so.
    Refuse,
}

impl State {
    /// Answers every call, in the history and to the sink.
    pub(super) async fn run_calls(&mut self, calls: Vec<ToolCall>, sink: &mut dyn Sink) -> Result<(), How> {
        let mut end = None;
        let plans: Vec<(ToolCall, Plan)> = calls.into_iter().map(|call| self.plan(call, &mut end)).collect();
        let harmless = |plan: &Plan| match plan {
            Plan::Run(tool) => tool.effects() == Effects::None,
            Plan::Answer(_) | Plan::Refuse => true,
        };
        let width = if plans.iter().all(|(_, plan)| harmless(plan)) { SIDE_BY_SIDE } else { 1 };
        // Results stand in the history in the order of the calls, whichever was first.
        let mut results: Vec<Option<ToolResult>> = plans.iter().map(|_| None).collect();
        let mut plans = plans.into_iter().enumerate();
        let mut running = JoinSet::new();
        let mut under_way: HashMap<task::Id, (usize, ToolCall)> = HashMap::new();
        let (progress, mut heard) = mpsc::channel(PROGRESS);
        let tools = self.cancel.child_token();
        let cut = Self::cut_short(self.cancel.clone(), self.deadline);
        tokio::pin!(cut);
        let mut how: Option<How> = None;
        loop {
            while running.len() < width
                && let Some((index, (call, plan))) = plans.next()
            {
                let plan = match how {
                    Some(_) => Plan::Answer("It was not run: the turn was ended before.".to_owned()),
                    None => plan,
                };
                let effects = match &plan {
                    Plan::Run(tool) => tool.effects(),
                    Plan::Answer(_) | Plan::Refuse => Effects::None,
                };
                sink.event(Event::ToolStarted { call: call.clone(), effects }).await?;
                match plan {
                    Plan::Run(tool) => {
                        self.tool_calls += 1;
                        let bytes = self.limits.tool_result_bytes;
                        let work = work(tool, call.clone(), tools.child_token(), progress.clone(), bytes);
                        under_way.insert(running.spawn(work).id(), (index, call));
                    }
                    Plan::Answer(text) => {
                        let done = Done::new(ToolResult::error(&call, text));
                        results[index] = Some(self.done(&call, done, sink).await?);
                    }
                    Plan::Refuse => {
                        // Not counted: the refusal is no answer of the tool.
                        let result = ToolResult::error(&call, REFUSED);
                        sink.event(Event::ToolDone { result: result.clone(), details: None }).await?;
                        results[index] = Some(result);
                    }
                }
            }
            if running.is_empty() {
                break;
            }
            let finished = tokio::select! {
                biased;
                ended = &mut cut, if how.is_none() => {
                    // Tools hear it and are waited for: what they did is worth knowing.
                    tools.cancel();
                    how = Some(ended);
                    continue;
                }
                finished = running.join_next_with_id() => finished,
                Some((call_id, text)) = heard.recv() => {
                    sink.event(Event::ToolProgress { call_id, text }).await?;
                    continue;
                }
            };
            while let Ok((call_id, text)) = heard.try_recv() {
                sink.event(Event::ToolProgress { call_id, text }).await?;
            }
            let (task, done) = match finished {
                Some(Ok((task, done))) => (task, Some(done)),
                // A tool that panicked ends like one that failed.
                Some(Err(error)) => (error.id(), None),
                None => break,
            };
            let Some((index, call)) = under_way.remove(&task) else { continue };
            let done = done.unwrap_or_else(|| {
                tracing::error!(tool = call.name, "a tool panicked");
                Done::new(ToolResult::error(&call, "The tool failed inside; whether it took effect is not known."))
            });
            results[index] = Some(self.done(&call, done, sink).await?);
        }
        let parts: Vec<Part> = results.into_iter().flatten().map(Part::ToolResult).collect();
        if !parts.is_empty() {
            Arc::make_mut(&mut self.history).push(Message { role: Role::Tool, parts });
        }
        match how.or(end) {
            Some(how) => Err(how),
            None => Ok(()),
        }
    }

    /// Decides what a call comes to. `end` is set when it is the last straw.
    fn plan(&mut self, call: ToolCall, end: &mut Option<How>) -> (ToolCall, Plan) {
        let plan = self.tools.iter().find(|tool| tool.spec().name == call.name).map_or_else(
            || {
                let names: Vec<&str> = self.tools.iter().map(|tool| tool.spec().name.as_str()).collect();
                Plan::Answer(match names.as_slice() {
                    [] => format!("There is no tool {:?}, nor any other. Answer without tools.", call.name),
                    names => format!("There is no tool {:?}. There are: {}.", call.name, names.join(", ")),
                })
            },
            |tool| match &call.arguments {
                Value::String(text) => Plan::Answer(format!(
                    "The arguments are not JSON ({} bytes, {}). Call again with a JSON object; if it was cut off because it \
                     was long, do it in smaller steps.",
                    text.len(),
                    serde_json::from_str::<Value>(text).map_or_else(|e| e.to_string(), |_| "a text".to_owned()),
                )),
                arguments => match arguments::check(arguments, &tool.spec().parameters) {
                    Ok(()) => Plan::Run(Arc::clone(tool)),
                    Err(faults) => Plan::Answer(format!(
                        "The arguments do not fit:\n{faults}\nThe schema is {}",
                        untrusted::cut(&tool.spec().parameters.to_string(), 4_000)
                    )),
                },
            },
        );
        if !self.guard.refuses(&call) {
            return (call, plan);
        }
        if self.guard.refused() {
            *end = Some(How::Looping { tool: call.name.clone() });
        }
        (call, Plan::Refuse)
    }

    async fn done(&mut self, call: &ToolCall, done: Done, sink: &mut dyn Sink) -> Result<ToolResult, How> {
        let Done { mut result, details, source } = done;
        let note = self.guard.answered(call, &result.content);
        if let Some(source) = source {
            for part in &mut result.content {
                if let Part::Text(text) = part {
                    *text = untrusted::wrap(&source, text);
                }
            }
        }
        result.content.extend(note.map(Part::Text));
        sink.event(Event::ToolDone { result: result.clone(), details }).await?;
        Ok(result)
    }
}

/// What a call came to.
struct Done {
    result: ToolResult,
    details: Option<Value>,
    /// Where it comes from, if it is not to be trusted.
    source: Option<String>,
}

impl Done {
    fn new(result: ToolResult) -> Self {
        Self { result, details: None, source: None }
    }
}

/// Runs one call to its end, within its time.
async fn work(
    tool: Arc<dyn Tool>,
    call: ToolCall,
    cancel: CancellationToken,
    heard: mpsc::Sender<(String, String)>,
    bytes: usize,
) -> Done {
    let timeout = tool.timeout();
    let effects = tool.effects();
    let source = tool.untrusted().then(|| tool.source());
    let (progress, mut pieces) = mpsc::channel::<String>(PROGRESS);
    let ToolCall { id, name, arguments } = call.clone();
    let asked = Call { id: id.clone(), arguments, cancel: cancel.clone(), progress };
    let mut answer = tool.call(asked);
    let late = tokio::time::sleep(timeout);
    tokio::pin!(late);
    let why = loop {
        tokio::select! {
            biased;
            answer = &mut answer => {
                while let Ok(text) = pieces.try_recv() {
                    let _ = heard.try_send((id.clone(), text));
                }
                return finish(&id, &name, answer, source, bytes);
            }
            // Where nobody is there to hear it, progress is nothing.
            Some(text) = pieces.recv() => { let _ = heard.try_send((id.clone(), text)); }
            () = cancel.cancelled() => break "It was cancelled.".to_owned(),
            () = &mut late => {
                cancel.cancel();
                break format!("It did not end within {} s and was stopped.", timeout.as_secs());
            }
        }
    };
    // Whoever hears its token may still say how far it got.
    if let Ok(answer) = tokio::time::timeout(LAST_WORDS, answer).await {
        return finish(&id, &name, answer, source, bytes);
    }
    let unknown = match effects {
        Effects::None => "",
        Effects::Some => " Whether it took effect is not known; find out before doing it again.",
    };
    Done::new(ToolResult::error(&call, format!("{why}{unknown}")))
}

fn finish(id: &str, name: &str, answer: Answer, source: Option<String>, bytes: usize) -> Done {
    let Answer { content, is_error, details } = answer;
    let result = ToolResult { call_id: id.to_owned(), name: name.to_owned(), content: bound(content, bytes), is_error };
    Done { result, details, source }
}

/// Keeps an answer within its size: text together `bytes`, and a few images.
fn bound(content: Vec<Part>, bytes: usize) -> Vec<Part> {
    let (mut left, mut images, mut missing) = (bytes, 0, 0);
    let mut kept = Vec::with_capacity(content.len().min(64));
    for part in content {
        match part {
            Part::Text(text) if left == 0 && !text.is_empty() => missing += text.len(),
            Part::Text(text) => {
                let cut = untrusted::cut(&text, left);
                left = left.saturating_sub(text.len());
                kept.push(Part::Text(cut));
            }
            Part::Image { data, .. } if data.len() > IMAGE_BYTES || images == IMAGES => missing += data.len(),
            image @ Part::Image { .. } => {
                images += 1;
                kept.push(image);
            }
            Part::Thinking { .. } | Part::ToolCall(_) | Part::ToolResult(_) => {}
        }
    }
    if missing > 0 {
        kept.push(Part::Text(format!("[… {missing} bytes of further text and images left out …]")));
    }
    if kept.is_empty() {
        kept.push(Part::Text("(no output)".to_owned()));
    }
    kept
}
