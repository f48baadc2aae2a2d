//! The terminal in the state the interface needs, and back again: at the end, before a failure is told, when the shell wants
//! it, and when the program panics.

use std::{
    io::{self, Stdout, Write as _},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, DisableBracketedPaste, EnableBracketedPaste},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Rect},
};
use tokio::sync::mpsc;

use super::{model::Model, theme::Theme, view};

/// Buttons and wheel, and not every movement, in a form without limits of width (xterm's 1000 and 1006).
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";
/// Keys typed ahead.
const TYPED_AHEAD: usize = 1024;

static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
    mouse: bool,
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// What the system says.
    pub fn enter(theme: Theme, mouse: bool) -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        take(mouse)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        let terminal = terminal.inspect_err(|_| restore())?;
        Ok(Self { terminal, theme, mouse })
    }

    pub fn draw(&mut self, model: &mut Model) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| view::draw(frame, model, theme)).map(|_| ())
    }

    /// Forgets what is on the screen: the next drawing draws all.
    pub fn repaint(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and the answer would go to the thread that reads keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Gives the terminal to the shell, stops, and takes it again when the shell lets us go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        // The signal that cannot be caught: the shell sees a stopped job like any other.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
        take(self.mouse)?;
        self.repaint()
    }
}

fn take(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    let taken = execute!(out, EnterAlternateScreen, EnableBracketedPaste)
        .and_then(|()| if mouse { out.write_all(MOUSE_ON.as_bytes()).and_then(|()| out.flush()) } else { Ok(()) });
    taken.inspect_err(|_| restore())
}

/// Gives the terminal back. Twice does nothing more than once.
pub fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = out.write_all(MOUSE_OFF.as_bytes());
    let _ = execute!(out, DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Keys, pastes, wheel and resizes, read in a thread of their own: the terminal knows no other way to wait for them. The
/// thread ends with the program.
pub fn events() -> io::Result<mpsc::Receiver<event::Event>> {
    let (send, events) = mpsc::channel(TYPED_AHEAD);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}
