//! What commands print: data on stdout, talk on stderr, JSON alone.

use std::io::{self, IsTerminal as _, Write as _};

pub mod escape;
mod progress;
pub mod qr;
pub mod table;
pub mod time;

pub use escape::inert;
pub use progress::Progress;

/// Meaning of a piece of text, shown as colour where there is one. Meaning never depends on the colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Title,
    Good,
    Warn,
    Bad,
    Dim,
    /// Something to type.
    Command,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Title => "1",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Command => "36",
        }
    }
}

/// How to print on one stream.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    color: bool,
    unicode: bool,
}

impl Style {
    pub fn paint(self, tone: Tone, text: &str) -> String {
        match tone.code() {
            code if self.color && !code.is_empty() && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// ✓ or its ASCII stand-in.
    pub fn ok(self) -> String {
        self.paint(Tone::Good, if self.unicode { "✓" } else { "ok" })
    }

    /// ✗ or its ASCII stand-in.
    pub fn bad(self) -> String {
        self.paint(Tone::Bad, if self.unicode { "✗" } else { "x" })
    }

    /// ! for warnings.
    pub fn warn(self) -> String {
        self.paint(Tone::Warn, "!")
    }

    /// · between facts on one line, or its ASCII stand-in.
    pub const fn dot(self) -> &'static str {
        if self.unicode { " · " } else { ", " }
    }

    pub const fn unicode(self) -> bool {
        self.unicode
    }

    /// The same without colour.
    pub const fn without_color(self) -> Self {
        Self { color: false, ..self }
    }

    pub const fn colored(self) -> bool {
        self.color
    }

    /// No colour.
    #[cfg(test)]
    pub const fn plain_unicode() -> Self {
        Self { color: false, unicode: true }
    }

    /// No colour and ASCII marks.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { color: false, unicode: false }
    }
}

/// The two streams and how each is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub out: Style,
    pub err: Style,
    /// Progress lines may be drawn on stderr.
    live: bool,
}

impl Output {
    /// Colour only on a terminal, and never with `--no-color`, `NO_COLOR` or `TERM=dumb`.
    pub fn detect(no_color: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let allowed = !no_color && !set("NO_COLOR") && !dumb;
        let unicode = speaks_utf8() && !dumb;
        let style = |terminal: bool| Style { color: allowed && terminal, unicode };
        let err_terminal = io::stderr().is_terminal();
        Self { out: style(io::stdout().is_terminal()), err: style(err_terminal), live: err_terminal && !dumb }
    }

    /// A line that shows what a slow command waits for; nothing where stderr is not a terminal.
    pub fn progress(&self, text: impl Into<String>) -> Progress {
        Progress::start(self.live.then_some(self.err), text.into())
    }
}

/// True when the locale says UTF-8, or says nothing: every current terminal speaks it.
fn speaks_utf8() -> bool {
    let found =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    found.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8") || locale == "c" || locale == "posix"
    })
}

/// Writes to stdout. A closed pipe (`| head`) ends the program quietly, as every Unix tool does.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        std::process::exit(if error.kind() == io::ErrorKind::BrokenPipe { 0 } else { 1 });
    }
}

/// Writes a line to stdout.
pub fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}

/// Writes a line to stderr; failures there have nowhere to be reported.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Pretty JSON, alone on stdout.
pub fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => note(format!("the result cannot be written as JSON: {error}")),
    }
}

/// One JSON value per line.
pub fn json_line(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(error) => note(format!("the result cannot be written as JSON: {error}")),
    }
}
