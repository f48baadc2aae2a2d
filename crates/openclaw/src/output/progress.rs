//! One line on stderr that says what a slow command is waiting for. It appears after 300 ms, so quick commands stay
//! silent, and is wiped before anything else is printed.

use std::{
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use super::{Style, Tone};

const APPEARS_AFTER: Duration = Duration::from_millis(300);
const FRAME: Duration = Duration::from_millis(100);
const UNICODE: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const ASCII: [&str; 4] = ["-", "\\", "|", "/"];

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    text: String,
    done: bool,
}

/// Shown until dropped.
pub struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(style: Option<Style>, text: String) -> Self {
        let shared = Arc::new(Shared { state: Mutex::new(State { text, done: false }), changed: Condvar::new() });
        let thread = style.and_then(|style| {
            let shared = Arc::clone(&shared);
            // Without a thread there is no progress line, and nothing else is lost.
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || draw(&shared, style)).ok()
        });
        Self { shared, thread }
    }

    /// Changes what is being waited for.
    pub fn say(&self, text: impl Into<String>) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).text = text.into();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).done = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(shared: &Shared, style: Style) {
    let frames: &[&str] = if style.unicode() { &UNICODE } else { &ASCII };
    let mut wait = APPEARS_AFTER;
    let mut shown = false;
    for frame in frames.iter().cycle() {
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) =
            shared.changed.wait_timeout_while(state, wait, |state| !state.done).unwrap_or_else(PoisonError::into_inner);
        if state.done {
            break;
        }
        let line = format!("\r\x1b[K{} {}", style.paint(Tone::Command, frame), state.text);
        drop(state);
        let _ = io::stderr().lock().write_all(line.as_bytes()).and_then(|()| io::stderr().flush());
        (wait, shown) = (FRAME, true);
    }
    if shown {
        let _ = io::stderr().lock().write_all(b"\r\x1b[K").and_then(|()| io::stderr().flush());
    }
}
