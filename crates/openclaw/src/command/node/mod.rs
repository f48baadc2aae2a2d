//! `openclaw node …`: this machine as a node of a gateway, in the foreground or as a service.

mod args;
mod home;
mod run;
mod service;
mod unit;

pub use args::{Guarded, Node, NodeCommand, NodeOptions, NodeRun};
pub use run::guards;

use serde_json::json;

use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output,
};

/// Runs a command as its guard, if that is what this process was started for. It needs nothing of the rest.
pub fn guard(args: &Node) -> Option<u8> {
    match &args.command {
        NodeCommand::Guard(guarded) => Some(guarded_by_this(guarded)),
        _ => None,
    }
}

fn guarded_by_this(Guarded { stdio, command }: &Guarded) -> u8 {
    if *stdio { openclaw_agent::mcp::guard(command) } else { openclaw_node::exec::guard::run(command) }
}

pub fn run(context: &Context, args: &Node) -> Outcome {
    use NodeCommand as C;
    match &args.command {
        C::Run(args) => run::run(context, args),
        C::Install(args) => service::install(context, args),
        C::Start(args) => service::change(context, service::Change::Start, args.json),
        C::Stop(args) => service::change(context, service::Change::Stop, args.json),
        C::Restart(args) => service::change(context, service::Change::Restart, args.json),
        C::Status(args) => service::status(context, args.json),
        C::Uninstall(args) => service::uninstall(context, args.json),
        C::Identity(args) => identity(context, args.json),
        C::Guard(guarded) => Ok(guarded_by_this(guarded)),
    }
}

/// `openclaw node identity`: who this machine is to a gateway. Makes nothing.
fn identity(context: &Context, as_json: bool) -> Outcome {
    let key = openclaw_config::identity::load(&context.paths).map_err(|error| Failure::new(error.to_string()))?;
    let key = key.ok_or_else(|| {
        Failure::new(
            "no node device identity found (start the node host once with `openclaw node run` or `openclaw node install`)",
        )
    })?;
    let (id, public) = (key.id(), key.public().to_wire());
    if as_json {
        output::json(&json!({"deviceId": id.as_str(), "publicKey": public}));
    } else {
        output::line(format!("Device id: {id}\nPublic key: {public}"));
    }
    Ok(0)
}
