//! Local mode: environment first, then the gateway's own secrets, then the remote ones, then the generated token.

use super::{
    AUTH_PASSWORD, AUTH_TOKEN, CredentialErrorKind, ENV_PASSWORD, ENV_TOKEN, GENERATED, Inputs, REMOTE_PASSWORD,
    REMOTE_TOKEN, Reading, Sent, Settled, Surface, UrlSource, Warning, present,
    report::{Field, Table},
};
use crate::gateway::AuthMode;

/// What one field came to before the other is known.
struct Outcome {
    sent: Sent,
    /// The gateway's own secret is configured and cannot be read.
    unreadable: Option<String>,
    warning: Option<Warning>,
}

pub(super) fn settle(
    inputs: &Inputs<'_>,
    table: &mut Table,
    target: (String, UrlSource),
) -> Result<Settled, CredentialErrorKind> {
    let may_use_remote = inputs.surface != Surface::NodeHost;
    let token = field(
        table,
        Field::Token,
        (ENV_TOKEN, inputs.env.token.as_ref().and_then(present)),
        (AUTH_TOKEN, || inputs.auth_token.read()),
        (REMOTE_TOKEN, may_use_remote, || inputs.remote_token.read()),
    );
    let password = field(
        table,
        Field::Password,
        (ENV_PASSWORD, inputs.env.password.as_ref().and_then(present)),
        (AUTH_PASSWORD, || inputs.auth_password.read()),
        (REMOTE_PASSWORD, may_use_remote, || inputs.remote_password.read()),
    );
    // An unreadable secret is an error where the server needs that very field: by its mode or, without one, when the
    // other field has nothing either.
    let needed = |field: AuthMode, other: &Outcome| match inputs.auth_mode {
        Some(mode) => mode == field,
        None => other.sent.is_none() || other.sent.as_ref().is_some_and(|(_, source)| is_remote(source)),
    };
    for (outcome, mode, other, path) in [
        (&token, AuthMode::Token, &password, "gateway.auth.token"),
        (&password, AuthMode::Password, &token, "gateway.auth.password"),
    ] {
        if let Some(reason) = outcome.unreadable.clone().filter(|_| needed(mode, other)) {
            return Err(CredentialErrorKind::SecretRefUnresolved { path: path.to_owned(), reason });
        }
    }
    let mut sent_token = token.sent;
    let nothing_configured = sent_token.is_none() && password.sent.is_none() && token.unreadable.is_none();
    let token_mode = inputs.auth_mode.is_none_or(|mode| mode == AuthMode::Token);
    if let Some(generated) = inputs.generated.as_ref().and_then(present) {
        if nothing_configured && token_mode && password.unreadable.is_none() {
            sent_token = Some(table.used(Field::Token, GENERATED, generated));
        } else {
            let reason = if token_mode { "a source of higher rank is used" } else { "the auth mode takes no token" };
            table.ignored(Field::Token, GENERATED, reason);
        }
    }
    let warnings = [token.warning, password.warning].into_iter().flatten().collect();
    Ok(Settled { target, token: sent_token, password: password.sent, warnings })
}

fn is_remote(source: &str) -> bool {
    source == REMOTE_TOKEN || source == REMOTE_PASSWORD
}

fn field(
    table: &mut Table,
    field: Field,
    (env_name, env): (&'static str, Option<openclaw_protocol::Secret>),
    (auth_name, auth): (&'static str, impl Fn() -> Reading),
    (remote_name, may_use_remote, remote): (&'static str, bool, impl Fn() -> Reading),
) -> Outcome {
    let none = Outcome { sent: None, unreadable: None, warning: None };
    if let Some(secret) = env {
        let sent = Some(table.used(field, env_name, secret));
        table.ignored(field, auth_name, "the environment comes first");
        table.ignored(field, remote_name, "the environment comes first");
        return Outcome { sent, ..none };
    }
    match auth() {
        Reading::Value(secret) => {
            let sent = Some(table.used(field, auth_name, secret));
            table.ignored(field, remote_name, "the gateway's own secret is set");
            return Outcome { sent, ..none };
        }
        Reading::Unresolved(reason) => {
            table.unresolved(field, auth_name, &reason);
            table.ignored(field, remote_name, "an unreadable secret is never masked by the remote one");
            return Outcome { unreadable: Some(reason), ..none };
        }
        Reading::Unset => table.absent(field, auth_name),
    }
    if !may_use_remote {
        table.ignored(field, remote_name, "a node host on this machine does not use gateway.remote.*");
        return none;
    }
    match remote() {
        Reading::Value(secret) => Outcome { sent: Some(table.used(field, remote_name, secret)), ..none },
        Reading::Unresolved(reason) => {
            table.unresolved(field, remote_name, &reason);
            Outcome { warning: Some(super::report::warning(remote_name, reason)), ..none }
        }
        Reading::Unset => {
            table.absent(field, remote_name);
            none
        }
    }
}
