//! `openclaw secrets store …`: secrets that the config refers to instead of holding them.

use std::io::{IsTerminal as _, Read as _};

use openclaw_config::secret_ref::store::SecretStore;
use openclaw_protocol::Secret;
use serde_json::json;

use crate::{
    args::{SecretsCommand, StoreCommand},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
};

/// Largest secret read from stdin: 64 KiB.
const MAX_SECRET_BYTES: u64 = 64 << 10;

pub fn run(context: &Context, command: &SecretsCommand) -> Outcome {
    let SecretsCommand::Store(store) = command;
    let secrets = SecretStore::new(&context.paths);
    let failed =
        |error: openclaw_config::secret_ref::store::StoreError| Failure::new(inert(&error.to_string()).into_owned());
    let style = context.output.out;
    match &store.command {
        StoreCommand::List(args) => {
            let ids = secrets.list().map_err(failed)?;
            if args.json {
                output::json(&json!({ "ids": ids }));
            } else if ids.is_empty() {
                output::line("The secret store is empty.");
            } else {
                ids.iter().for_each(|id| output::line(inert(id)));
            }
        }
        StoreCommand::Set(args) => {
            secrets.set(&args.id, &from_stdin()?).map_err(failed)?;
            let id = inert(&args.id);
            output::line(format!("{} Stored {id}. Refer to it as {{source: \"store\", id: \"{id}\"}}.", style.ok()));
            output::line(format!(
                "Undo: {}",
                style.paint(Tone::Command, &format!("openclaw secrets store delete {id}"))
            ));
        }
        StoreCommand::Delete(args) => {
            if !secrets.delete(&args.id).map_err(failed)? {
                return Err(Failure::new(format!("There is no secret \"{}\" in the store.", inert(&args.id)))
                    .remedy("see what there is", "openclaw secrets store list"));
            }
            output::line(format!("{} Deleted {}.", style.ok(), inert(&args.id)));
        }
    }
    Ok(0)
}

/// Arguments end up in the process list and in shell history, so a secret comes in by stdin.
fn from_stdin() -> Result<Secret, Failure> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        output::note("Type the secret, then Enter and Ctrl-D (it is shown while you type).");
    }
    let mut text = String::new();
    let read = stdin.by_ref().take(MAX_SECRET_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("stdin cannot be read: {error}.")))?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(Failure::new("A secret has at most 64 KiB."));
    }
    Secret::from_input(&text).ok_or_else(|| Failure::new("No secret came on stdin; nothing was stored."))
}
