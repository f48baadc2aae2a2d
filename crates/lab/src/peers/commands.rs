//! Commands of a CLI, and what they have to print: tables that can be asked of any CLI and any gateway.

use serde_json::{Value, json};

use crate::process::{Finished, Launch};

/// What a place in the output has to be.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    /// Exactly this JSON text.
    Is(&'static str),
    Text,
    Number,
    Bool,
    List,
    Object,
}
use Want::{Bool, Is, List, Number, Object, Text};

impl Want {
    fn fits(self, value: &Value) -> bool {
        match self {
            Is(text) => serde_json::from_str::<Value>(text).expect("the tables hold JSON") == *value,
            Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Number => value.is_number(),
            Bool => value.is_boolean(),
            List => value.is_array(),
            Object => value.is_object(),
        }
    }
}

/// Places in a JSON document, as pointers, and what has to be there.
pub type Wants = &'static [(&'static str, Want)];

/// One command: its arguments, and what has to be where in its output. It has to exit with 0.
#[derive(Debug)]
pub struct Row {
    pub args: &'static [&'static str],
    pub wants: Output,
}

/// What a command has to print.
#[derive(Debug)]
pub enum Output {
    /// One JSON document; a pointer and what is there.
    Json(&'static [Wants]),
    /// A line of JSON about the log file, then one per log line.
    LogLines,
    /// Text for people that contains these.
    Says(&'static [&'static str]),
}

/// The `health` payload of a gateway nobody has used yet, which several commands show.
pub const HEALTH: Wants = &[
    ("/ok", Is("true")),
    ("/ts", Number),
    ("/durationMs", Number),
    ("/channels", Is("{}")),
    ("/channelOrder", Is("[]")),
    ("/channelLabels", Is("{}")),
    ("/heartbeatSeconds", Number),
    ("/defaultAgentId", Is("\"main\"")),
    ("/agents/0/agentId", Is("\"main\"")),
    ("/agents/0/isDefault", Is("true")),
    ("/agents/0/heartbeat/enabled", Bool),
    ("/agents/0/sessions/count", Is("0")),
    ("/sessions/path", Text),
    ("/sessions/count", Is("0")),
    ("/sessions/recent", Is("[]")),
];

/// Runs every command and returns what was not as expected, one text per violation; `cli` begins each of them.
pub fn violations(label: &str, rows: &[Row], cli: impl Fn() -> Launch) -> Vec<String> {
    let of_row = |row: &Row| {
        let finished = cli().args(row.args).run();
        let mut found = row.wants.violations(&finished);
        if finished.status.code() != Some(0) {
            found.push(finished.status.to_string());
        }
        if found.is_empty() {
            return None;
        }
        let (command, stdout, stderr) = (row.args.join(" "), finished.stdout, finished.stderr);
        Some(format!("{label}, `{command}`: {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", found.join("; ")))
    };
    rows.iter().filter_map(of_row).collect()
}

impl Output {
    fn violations(&self, finished: &Finished) -> Vec<String> {
        match self {
            Self::Json(tables) => match serde_json::from_str::<Value>(&finished.stdout) {
                Ok(json) => misfits(&json, tables),
                Err(error) => vec![format!("stdout is not JSON: {error}")],
            },
            Self::Says(texts) => {
                let unsaid = texts.iter().filter(|text| !finished.stdout.contains(**text));
                unsaid.map(|text| format!("does not say {text:?}")).collect()
            }
            Self::LogLines => log_misfits(&finished.stdout),
        }
    }
}

fn misfits(json: &Value, tables: &[&[(&str, Want)]]) -> Vec<String> {
    let wants = tables.iter().flat_map(|table| table.iter());
    let misfit = wants.filter(|(pointer, want)| !json.pointer(pointer).is_some_and(|value| want.fits(value)));
    misfit.map(|(pointer, want)| format!("{pointer} is {}, not {want:?}", shown(json.pointer(pointer)))).collect()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".to_owned(), Value::to_string)
}

/// `logs --json`: a meta line, at least one log line with level and message, and notices perhaps.
fn log_misfits(stdout: &str) -> Vec<String> {
    const META: &[(&str, Want)] = &[("/type", Is("\"meta\"")), ("/file", Text), ("/cursor", Number), ("/size", Number)];
    const LINE: &[(&str, Want)] =
        &[("/type", Is("\"log\"")), ("/time", Text), ("/level", Text), ("/message", Text), ("/raw", Text)];
    let lines: Result<Vec<Value>, _> = stdout.lines().map(serde_json::from_str).collect();
    let Ok(lines) = lines else { return vec!["not every line is JSON".to_owned()] };
    let (Some(meta), Some(first)) = (lines.first(), lines.get(1)) else { return vec!["no log line".to_owned()] };
    let mut found = misfits(meta, &[META]);
    found.extend(misfits(first, &[LINE]));
    let odd = lines.iter().skip(1).filter(|line| line["type"] != json!("log") && line["type"] != json!("notice"));
    found.extend(odd.map(|line| format!("an odd line: {line}")));
    found
}
