//! Colours and signs. Only the terminal's own sixteen colours and no backgrounds, so that light and dark ones both stay
//! readable; without colours, weight and underlines carry the meaning.

use ratatui::style::{Color, Modifier, Style};

use crate::output;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    color: bool,
    unicode: bool,
}

impl Theme {
    pub const fn new(color: bool, unicode: bool) -> Self {
        Self { color, unicode }
    }

    pub fn of(style: output::Style) -> Self {
        Self::new(style.colored(), style.unicode())
    }

    fn paint(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn accent(self) -> Style {
        self.paint(Color::Cyan)
    }

    pub fn person(self) -> Style {
        self.paint(Color::Blue).add_modifier(Modifier::BOLD)
    }

    pub fn good(self) -> Style {
        self.paint(Color::Green)
    }

    pub fn warn(self) -> Style {
        self.paint(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub fn bad(self) -> Style {
        self.paint(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub fn heading(self) -> Style {
        self.paint(Color::Magenta).add_modifier(Modifier::BOLD)
    }

    pub fn code(self) -> Style {
        if self.color { self.accent() } else { Style::new().add_modifier(Modifier::BOLD) }
    }

    pub fn link(self) -> Style {
        self.paint(Color::Blue).add_modifier(Modifier::UNDERLINED)
    }

    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// One of two signs: the first where the terminal writes more than ASCII.
    pub const fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    pub const fn unicode(self) -> bool {
        self.unicode
    }

    pub const fn spinner(self, step: usize) -> &'static str {
        const UNICODE: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const ASCII: [&str; 4] = ["-", "\\", "|", "/"];
        if self.unicode { UNICODE[step % UNICODE.len()] } else { ASCII[step % ASCII.len()] }
    }
}
