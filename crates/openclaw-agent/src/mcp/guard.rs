//! Ends a server with the program it serves, also when that is killed.
//!
//! ```text
//! gateway ──stdin──► guard's stdin, which is the server's
//!    ◄────stdout──── guard's stdout, which is the server's
//! ```
//!
//! The guard passes its own input and output on to the server and watches its output from the outside: once nobody reads
//! there any more, because the gateway closed it or is gone, it kills its process group, itself included.

use std::{ffi::OsString, process::Command, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, kill_current_process_group},
};

/// Runs a command as its guard; gives the exit code. The caller has put this process into a group of its own.
pub fn run(command: &[OsString]) -> u8 {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("no command");
        return 2;
    };
    thread::spawn(|| {
        let stdout = std::io::stdout();
        loop {
            // Nothing is asked for: that the other end is gone is told always.
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) if fds[0].revents().is_empty() => {}
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        // Itself too; nothing is left to be told.
        let _ = kill_current_process_group(Signal::KILL);
    });
    match Command::new(program).args(arguments).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        Err(error) => {
            eprintln!("{}: {error}", program.to_string_lossy());
            127
        }
    }
}
