//! One run as plain text: the answer on stdout as it is written, tools on stderr.

use super::{
    entry,
    wire::{ToolPhase, ToolStep},
};
use crate::output::{self, Style, Tone, escape::inert_line, inert};

/// Where the answer goes while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As it comes.
    Streaming,
    /// When it is finished.
    AtOnce,
}

#[derive(Debug)]
pub struct Printer {
    pace: Pace,
    err: Style,
    /// Pieces of the answer that are finished: a tool came after them.
    earlier: Vec<String>,
    /// The present piece, as far as it was heard.
    piece: String,
    /// The part of it that was printed, and the part that was given as new, in bytes.
    printed: usize,
    told: usize,
    /// Nothing may be said on stderr.
    quiet: bool,
}

impl Printer {
    pub fn new(pace: Pace, err: Style, quiet: bool) -> Self {
        Self { pace, err, earlier: Vec::new(), piece: String::new(), printed: 0, told: 0, quiet }
    }

    /// The present piece, as far as it is written. Gives what is new.
    pub fn heard(&mut self, words: &str) -> String {
        let mut rest = words;
        for piece in &self.earlier {
            if let Some(after) = rest.strip_prefix(piece.trim_end()).filter(|after| !after.trim().is_empty()) {
                rest = after.trim_start();
            }
        }
        if !rest.starts_with(&self.piece) && !self.piece.is_empty() {
            // A new piece, or another wording of this one.
            self.settle();
        }
        rest.clone_into(&mut self.piece);
        if self.pace == Pace::Streaming {
            output::print(&fit(rest.get(self.printed..).unwrap_or_default()));
            self.printed = rest.len();
        }
        let new = rest.get(self.told..).unwrap_or_default().to_owned();
        self.told = rest.len();
        new
    }

    fn settle(&mut self) {
        if self.piece.is_empty() {
            return;
        }
        if self.printed > 0 && !self.piece.ends_with('\n') {
            output::print("\n");
        }
        self.earlier.push(std::mem::take(&mut self.piece));
        (self.printed, self.told) = (0, 0);
    }

    pub fn tool(&mut self, step: &ToolStep) {
        self.settle();
        if self.quiet {
            return;
        }
        let name = self.err.paint(Tone::Command, &inert(&step.name));
        match &step.phase {
            ToolPhase::Start(args) => output::note(format!("  {name} {}", inert(&entry::summary(args)))),
            ToolPhase::Done { failed: true, text } => {
                let why = text.lines().next().unwrap_or_default();
                output::note(format!("  {} {name} {}", self.err.bad(), inert(why)));
            }
            ToolPhase::Update(_) | ToolPhase::Done { .. } => {}
        }
    }

    /// The end: what was not printed yet. `words` is the whole of what is to be said at the end, where that is known.
    pub fn finish(&mut self, words: Option<&str>) {
        if let Some(words) = words {
            let said = |piece: &String| piece.trim() == words.trim();
            if !(self.earlier.last().is_some_and(said) && self.piece.is_empty()) && self.piece.trim() != words.trim() {
                self.heard(words);
            }
        }
        if self.pace == Pace::AtOnce {
            let pieces = self.earlier.iter().chain(std::iter::once(&self.piece));
            let text =
                pieces.map(|piece| piece.trim()).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join("\n\n");
            if !text.is_empty() {
                output::line(fit(&text));
            }
        } else if self.printed > 0 && !self.piece.ends_with('\n') {
            output::print("\n");
        }
        self.printed = 0;
    }

    /// All that was heard.
    pub fn text(&self) -> String {
        let pieces = self.earlier.iter().chain(std::iter::once(&self.piece));
        pieces.map(|piece| piece.trim()).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join("\n\n")
    }

    /// Ends the line that is being written.
    pub fn interrupt(&mut self) {
        if self.printed > 0 {
            output::print("\n");
        }
    }
}

/// Text of several lines, fit for a terminal.
pub fn fit(text: &str) -> String {
    text.split('\n').map(|line| inert_line(line.strip_suffix('\r').unwrap_or(line))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn only_what_is_new() {
        let mut printer = Printer::new(Pace::AtOnce, Style::plain(), true);
        let step = ToolStep { call: "c".into(), name: "exec".into(), phase: ToolPhase::Start(Value::Null) };
        assert_eq!(printer.heard("I will"), "I will");
        assert_eq!(printer.heard("I will look."), " look.");
        assert_eq!(printer.heard("I will look."), "");
        printer.tool(&step);
        printer.heard("I will look. The tool");
        printer.heard("I will look. The tool said: x");
        assert_eq!(printer.text(), "I will look.\n\nThe tool said: x");
        // Begins anew, as protocol 3 does.
        printer.tool(&step);
        printer.heard("Done");
        assert_eq!(printer.text(), "I will look.\n\nThe tool said: x\n\nDone");
    }

    #[test]
    fn p_09_answers_are_inert() {
        assert_eq!(fit("a\u{1b}[2J\r\nb\tc"), "a\\u{1b}[2J\nb\tc");
    }
}
