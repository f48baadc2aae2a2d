//! What the keys do. The reference's, as far as it has them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::json;

use super::{
    approval::Answer,
    editor::{Editor, Move},
    model::{Ask, Do, Kind, Model, Overlay},
    slash::{self, Known, Local},
    transcript::Tone,
};

/// Two Ctrl-C within this time leave.
const LEAVE_MS: i64 = 2000;

/// For `/keys`.
pub const HELP: &[(&str, &str)] = &[
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "new line (also \\ before Enter)"),
    ("Up, Down", "earlier messages"),
    ("Tab", "complete a command; answer an approval"),
    ("Esc", "close, or stop the run"),
    ("PgUp, PgDn, wheel", "scroll; End: to the newest"),
    ("Ctrl-P", "conversations"),
    ("Ctrl-L", "models"),
    ("Ctrl-G", "agents"),
    ("Ctrl-N", "new conversation"),
    ("Ctrl-O", "open or fold tools"),
    ("Ctrl-T", "show or hide thinking"),
    ("Ctrl-W, -U, -K, -Y", "cut a word, to the start, to the end; put back"),
    ("Ctrl-C", "empty the field; twice: leave"),
    ("Ctrl-D", "leave (empty field)"),
    ("Ctrl-Z", "to the shell; fg comes back"),
    ("Shift + mouse", "select text"),
];

impl Model {
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Do> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        if ctrl && key.code == KeyCode::Char('z') {
            return vec![Do::Suspend];
        }
        if ctrl && key.code == KeyCode::Char('c') {
            return self.interrupt();
        }
        self.leaving_ms = None;
        if self.overlay.is_some() {
            return self.overlay_key(key, ctrl);
        }
        if self.approvals.focused {
            return self.approval_key(key, ctrl);
        }
        if ctrl {
            return self.control_key(key.code);
        }
        self.editor_key(key)
    }

    /// Ctrl-C: closes, empties, leaves.
    fn interrupt(&mut self) -> Vec<Do> {
        if self.overlay.take().is_some() {
            return Vec::new();
        }
        if !self.editor.is_empty() {
            self.editor.take();
            return Vec::new();
        }
        if self.leaving_ms.is_some_and(|then| self.now_ms.saturating_sub(then) <= LEAVE_MS) {
            return vec![Do::Quit];
        }
        self.leaving_ms = Some(self.now_ms);
        let run = if self.run.is_some() { "; the run goes on (Esc stops it)" } else { "" };
        self.hint(Tone::Info, format!("Ctrl-C again leaves{run}"));
        Vec::new()
    }

    fn control_key(&mut self, code: KeyCode) -> Vec<Do> {
        match code {
            KeyCode::Char('d') if self.editor.is_empty() => return vec![Do::Quit],
            KeyCode::Char('d') => self.editor.remove(Move::Right),
            KeyCode::Char('p') => return self.open(Kind::Sessions),
            KeyCode::Char('l') => return self.open(Kind::Models),
            KeyCode::Char('g') => return self.open(Kind::Agents),
            KeyCode::Char('n') => return self.fresh_session(),
            KeyCode::Char('r') => return vec![Do::Repaint],
            KeyCode::Char('o') => self.open_tools = !self.open_tools,
            KeyCode::Char('t') => {
                self.show_thinking = !self.show_thinking;
                self.hint(Tone::Info, if self.show_thinking { "thinking is shown" } else { "thinking is hidden" });
            }
            KeyCode::Char('j') => self.editor.insert('\n'),
            KeyCode::Char('a') => self.editor.go(Move::LineStart),
            KeyCode::Char('e') => self.editor.go(Move::LineEnd),
            KeyCode::Char('b') => self.editor.go(Move::Left),
            KeyCode::Char('f') => self.editor.go(Move::Right),
            KeyCode::Char('k') => self.editor.kill(Move::LineEnd),
            KeyCode::Char('u') => self.editor.kill(Move::LineStart),
            KeyCode::Char('w') => self.editor.kill(Move::WordLeft),
            KeyCode::Char('y') => self.editor.yank(),
            KeyCode::Char('h') => self.editor.remove(Move::Left),
            KeyCode::Left => self.editor.go(Move::WordLeft),
            KeyCode::Right => self.editor.go(Move::WordRight),
            KeyCode::Backspace => self.editor.kill(Move::WordLeft),
            KeyCode::Home => return self.scroll_up(usize::MAX),
            KeyCode::End => self.scroll = 0,
            _ => return Vec::new(),
        }
        self.typed();
        Vec::new()
    }

    /// The text changed: completion begins anew.
    fn typed(&mut self) {
        self.completion = 0;
        self.completion_closed = false;
    }

    pub(super) fn pasted(&mut self, text: &str) -> Vec<Do> {
        match &mut self.overlay {
            Some(Overlay::Pick(_, picker)) => {
                text.chars().filter(|c| !c.is_control()).for_each(|c| picker.typed(c));
            }
            Some(Overlay::Rename { text: field, .. }) => field.paste(&text.replace(['\r', '\n'], " ")),
            Some(Overlay::Keys) => self.overlay = None,
            // What is pasted answers no request.
            None => {
                self.approvals.focused = false;
                self.editor.paste(text);
                self.typed();
            }
        }
        Vec::new()
    }

    /// What the field could be completed to.
    pub fn completions(&self) -> Vec<Known> {
        if self.completion_closed || self.overlay.is_some() {
            return Vec::new();
        }
        slash::complete(self.editor.text(), &self.commands)
    }

    fn editor_key(&mut self, key: KeyEvent) -> Vec<Do> {
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let shift = key.modifiers.contains(KeyModifiers::SHIFT);
        let page = self.drawn.1.saturating_sub(2).max(1);
        let offered = self.completions();
        match key.code {
            KeyCode::Enter if alt || shift => self.editor.insert('\n'),
            KeyCode::Enter => return self.enter(&offered),
            KeyCode::Tab if !offered.is_empty() => self.complete(&offered),
            KeyCode::Tab if self.approvals.len() > 0 => {
                self.approvals.focused = true;
                return Vec::new();
            }
            KeyCode::Tab => return Vec::new(),
            KeyCode::Up if shift => return self.scroll_up(1),
            KeyCode::Down if shift => {
                self.scroll_by(-1);
                return Vec::new();
            }
            KeyCode::Up if offered.len() > 1 => {
                self.completion = self.completion.checked_sub(1).unwrap_or(offered.len() - 1);
                return Vec::new();
            }
            KeyCode::Down if offered.len() > 1 => {
                self.completion = (self.completion + 1) % offered.len();
                return Vec::new();
            }
            KeyCode::Up => {
                self.editor.up();
                self.completion_closed = true;
                return Vec::new();
            }
            KeyCode::Down => {
                self.editor.down();
                self.completion_closed = true;
                return Vec::new();
            }
            KeyCode::PageUp => return self.scroll_up(page),
            KeyCode::PageDown => {
                self.scroll_by(-isize::try_from(page).unwrap_or(1));
                return Vec::new();
            }
            KeyCode::Home if self.editor.is_empty() => return self.scroll_up(usize::MAX),
            KeyCode::End if self.editor.is_empty() => self.scroll = 0,
            KeyCode::Home => self.editor.go(Move::LineStart),
            KeyCode::End => self.editor.go(Move::LineEnd),
            KeyCode::Left if alt => self.editor.go(Move::WordLeft),
            KeyCode::Right if alt => self.editor.go(Move::WordRight),
            KeyCode::Char('b') if alt => self.editor.go(Move::WordLeft),
            KeyCode::Char('f') if alt => self.editor.go(Move::WordRight),
            KeyCode::Left => self.editor.go(Move::Left),
            KeyCode::Right => self.editor.go(Move::Right),
            KeyCode::Backspace if alt => self.editor.kill(Move::WordLeft),
            KeyCode::Backspace => self.editor.remove(Move::Left),
            KeyCode::Delete => self.editor.remove(Move::Right),
            KeyCode::Esc => return self.escape(&offered),
            KeyCode::F(1) => self.overlay = Some(Overlay::Keys),
            KeyCode::Char(c) if !alt => {
                self.editor.insert(c);
                self.typed();
                return Vec::new();
            }
            _ => return Vec::new(),
        }
        self.typed();
        Vec::new()
    }

    fn escape(&mut self, offered: &[Known]) -> Vec<Do> {
        if !offered.is_empty() {
            self.completion_closed = true;
            return Vec::new();
        }
        if self.run.is_some() {
            return self.abort();
        }
        self.scroll = 0;
        Vec::new()
    }

    fn complete(&mut self, offered: &[Known]) {
        let Some(chosen) = offered.get(self.completion.min(offered.len() - 1)) else { return };
        let more = if chosen.takes_args { " " } else { "" };
        self.editor.set(format!("{}{more}", chosen.name));
        self.typed();
    }

    fn enter(&mut self, offered: &[Known]) -> Vec<Do> {
        let text = self.editor.text().to_owned();
        // A name that is only begun is completed first.
        if let Some(chosen) = offered.get(self.completion.min(offered.len().saturating_sub(1)))
            && !offered.iter().any(|known| known.name == text)
        {
            let takes_args = chosen.takes_args;
            self.complete(offered);
            if takes_args {
                return Vec::new();
            }
            return self.submit();
        }
        // As in a shell: a backslash at the end of the text goes on in the next line.
        if self.editor.before_cursor() == text && text.ends_with('\\') {
            self.editor.remove(Move::Left);
            self.editor.insert('\n');
            return Vec::new();
        }
        self.submit()
    }

    fn submit(&mut self) -> Vec<Do> {
        if self.editor.text().trim().is_empty() && self.attachments.is_empty() {
            return Vec::new();
        }
        let text = self.editor.take();
        self.typed();
        match slash::local(&text) {
            Some(command) => self.local(command),
            None => self.send(text),
        }
    }

    pub(super) fn local(&mut self, command: Local) -> Vec<Do> {
        match command {
            Local::Quit => return vec![Do::Quit],
            Local::Keys => self.overlay = Some(Overlay::Keys),
            Local::Sessions => return self.open(Kind::Sessions),
            Local::Switch(key) => return self.switch(&key),
            Local::New => return self.fresh_session(),
            Local::Rename(title) => return self.rename(&title),
            Local::Search(words) => return self.search(&words),
            Local::Models => return self.open(Kind::Models),
            Local::Model(model) => return self.use_model(&model),
            Local::Agents => return self.open(Kind::Agents),
            Local::Agent(agent) => return self.switch(&format!("agent:{agent}:main")),
            Local::Attach(path) => return vec![Do::Read(path)],
            Local::Detach => {
                self.attachments.clear();
                self.hint(Tone::Info, "no file goes with the next message");
            }
            Local::Abort => return self.abort(),
            Local::Thinking => self.show_thinking = !self.show_thinking,
        }
        Vec::new()
    }

    fn rename(&mut self, title: &str) -> Vec<Do> {
        let title = title.trim();
        if title.is_empty() {
            return Vec::new();
        }
        self.session.title = Some(title.to_owned());
        self.patch("label", json!(title), format!("called \"{title}\" from now on"))
    }

    fn overlay_key(&mut self, key: KeyEvent, ctrl: bool) -> Vec<Do> {
        match &mut self.overlay {
            Some(Overlay::Keys) | None => self.overlay = None,
            Some(Overlay::Rename { session, text }) => match key.code {
                KeyCode::Esc => self.overlay = None,
                KeyCode::Enter => {
                    let (session, title) = (session.clone(), text.take());
                    self.overlay = None;
                    let title = title.trim();
                    if !title.is_empty() {
                        if session == self.session.key {
                            return self.rename(title);
                        }
                        let params = json!({"key": session, "label": title});
                        let done = format!("called \"{title}\" from now on");
                        return vec![Do::Call { ask: Ask::Patch { done }, method: "sessions.patch", params }];
                    }
                }
                _ => line_key(text, key, ctrl),
            },
            Some(Overlay::Pick(kind, picker)) => {
                let kind = *kind;
                match key.code {
                    KeyCode::Esc => self.overlay = None,
                    KeyCode::Up => picker.step(-1),
                    KeyCode::Down => picker.step(1),
                    KeyCode::PageUp => picker.step(-10),
                    KeyCode::PageDown => picker.step(10),
                    KeyCode::Backspace => picker.erased(),
                    KeyCode::Char('n') if ctrl && kind == Kind::Sessions => {
                        self.overlay = None;
                        return self.fresh_session();
                    }
                    KeyCode::Char('r') if ctrl && kind == Kind::Sessions => {
                        if let Some(chosen) = picker.chosen() {
                            let mut text = Editor::default();
                            if chosen.label != chosen.id {
                                text.set(chosen.label.clone());
                            }
                            self.overlay = Some(Overlay::Rename { session: chosen.id.clone(), text });
                        }
                    }
                    KeyCode::Char('f') if ctrl && kind == Kind::Sessions => {
                        let words = picker.filter.clone();
                        self.overlay = None;
                        if !words.trim().is_empty() {
                            return self.search(&words);
                        }
                    }
                    KeyCode::Char('p' | 'k') if ctrl => picker.step(-1),
                    KeyCode::Char(_) if ctrl => {}
                    KeyCode::Char(c) => picker.typed(c),
                    KeyCode::Enter => {
                        if let Some(id) = picker.chosen().map(|chosen| chosen.id.clone()) {
                            self.overlay = None;
                            return match kind {
                                Kind::Sessions | Kind::Search => self.switch(&id),
                                Kind::Models => self.use_model(&id),
                                Kind::Agents => self.switch(&format!("agent:{id}:main")),
                            };
                        }
                    }
                    _ => {}
                }
            }
        }
        Vec::new()
    }

    fn approval_key(&mut self, key: KeyEvent, ctrl: bool) -> Vec<Do> {
        let answer = match key.code {
            KeyCode::Char('y' | 'Y') if !ctrl => Answer::Once,
            KeyCode::Char('a' | 'A') if !ctrl => Answer::Always,
            KeyCode::Char('n' | 'N') if !ctrl => Answer::No,
            KeyCode::Down | KeyCode::PageDown => {
                self.approvals.scroll =
                    self.approvals.scroll.saturating_add(if key.code == KeyCode::Down { 1 } else { 5 });
                return Vec::new();
            }
            KeyCode::Up | KeyCode::PageUp => {
                self.approvals.scroll =
                    self.approvals.scroll.saturating_sub(if key.code == KeyCode::Up { 1 } else { 5 });
                return Vec::new();
            }
            KeyCode::Tab => {
                self.approvals.next();
                return Vec::new();
            }
            KeyCode::Esc => {
                self.approvals.focused = false;
                return Vec::new();
            }
            // Somebody writes a message: none of its letters may answer.
            KeyCode::Char(_) if !ctrl => {
                self.approvals.focused = false;
                return self.editor_key(key);
            }
            _ => return Vec::new(),
        };
        match self.approvals.decide(answer) {
            Ok((id, decision)) => {
                let params = json!({"id": id, "decision": decision});
                vec![Do::Call { ask: Ask::Decide { id, decision }, method: "exec.approval.resolve", params }]
            }
            Err(why) => {
                self.hint(Tone::Warn, why);
                Vec::new()
            }
        }
    }
}

fn line_key(text: &mut Editor, key: KeyEvent, ctrl: bool) {
    match key.code {
        KeyCode::Char('u') if ctrl => text.kill(Move::LineStart),
        KeyCode::Char('w') if ctrl => text.kill(Move::WordLeft),
        KeyCode::Char('a') if ctrl => text.go(Move::LineStart),
        KeyCode::Char('e') if ctrl => text.go(Move::LineEnd),
        KeyCode::Char(c) if !ctrl => text.insert(c),
        KeyCode::Backspace => text.remove(Move::Left),
        KeyCode::Delete => text.remove(Move::Right),
        KeyCode::Left => text.go(Move::Left),
        KeyCode::Right => text.go(Move::Right),
        KeyCode::Home => text.go(Move::LineStart),
        KeyCode::End => text.go(Move::LineEnd),
        _ => {}
    }
}
