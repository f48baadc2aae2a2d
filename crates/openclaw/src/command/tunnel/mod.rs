//! `openclaw tunnel`: ssh tunnels that stay up, as objects with a name, a state and a log.
//!
//! A tunnel is a supervisor process (`tunnel run`) that is started and asked from here. What it does is in
//! `openclaw_remote::tunnel`; this is the talking.

mod args;
pub mod install;
mod list;
mod logs;
mod place;
mod supervise;
mod up;

use crate::{context::Context, failure::Outcome};

use args::{InstallArgs, UninstallArgs};
pub use args::{Tunnel, TunnelCommand};
pub use up::keep;

/// `openclaw tunnel …`.
pub fn run(context: &Context, command: &TunnelCommand) -> Outcome {
    match command {
        TunnelCommand::Up(args) => up::up(context, args),
        TunnelCommand::Down(args) => up::down(context, args),
        TunnelCommand::Retry(args) => up::retry(context, args),
        TunnelCommand::Ls(args) => list::ls(context, args),
        TunnelCommand::Logs(args) => logs::logs(context, args),
        TunnelCommand::Install(args) => install::install(context, args),
        TunnelCommand::Uninstall(args) => install::uninstall(context, args),
        TunnelCommand::Run(args) => supervise::run(context, args),
    }
}
