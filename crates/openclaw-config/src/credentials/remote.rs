//! Remote mode: the token from `gateway.remote.token` first, the password from the environment first.

use super::{
    AUTH_PASSWORD, AUTH_TOKEN, CredentialErrorKind, ENV_PASSWORD, ENV_TOKEN, GENERATED, Inputs, REMOTE_PASSWORD,
    REMOTE_TOKEN, Reading, Sent, Settled, UrlSource, Warning, present,
    report::{Field, Table, warning},
};

const STRICT: &str = "probe and status send only gateway.remote.token to a remote gateway";

pub(super) fn settle(
    inputs: &Inputs<'_>,
    table: &mut Table,
    target: (String, UrlSource),
) -> Result<Settled, CredentialErrorKind> {
    let (token, token_fault) = token(inputs, table);
    let (password, password_fault) = password(inputs, table);
    if inputs.generated.is_some() {
        table.ignored(Field::Token, GENERATED, "it belongs to the gateway on this machine");
    }
    // Without any other credential an unreadable secret is an error; the strict surfaces send nothing and warn.
    let faults: Vec<Warning> = [token_fault, password_fault].into_iter().flatten().collect();
    if let Some(fault) = faults.first()
        && token.is_none()
        && password.is_none()
        && !inputs.surface.is_strict()
    {
        return Err(CredentialErrorKind::SecretRefUnresolved {
            path: fault.path.clone(),
            reason: fault.reason.clone(),
        });
    }
    Ok(Settled { target, token, password, warnings: faults })
}

fn token(inputs: &Inputs<'_>, table: &mut Table) -> (Sent, Option<Warning>) {
    let field = Field::Token;
    let mut fault = None;
    match inputs.remote_token.read() {
        Reading::Value(secret) => {
            let sent = Some(table.used(field, REMOTE_TOKEN, secret));
            table.ignored(field, ENV_TOKEN, "gateway.remote.token comes first in remote mode");
            table.ignored(field, AUTH_TOKEN, "gateway.remote.token comes first in remote mode");
            return (sent, None);
        }
        Reading::Unresolved(reason) => {
            table.unresolved(field, REMOTE_TOKEN, &reason);
            fault = Some(warning(REMOTE_TOKEN, reason));
        }
        Reading::Unset => table.absent(field, REMOTE_TOKEN),
    }
    if inputs.surface.is_strict() {
        table.ignored(field, ENV_TOKEN, STRICT);
        table.ignored(field, AUTH_TOKEN, STRICT);
        return (None, fault);
    }
    if let Some(secret) = inputs.env.token.as_ref().and_then(present) {
        let sent = Some(table.used(field, ENV_TOKEN, secret));
        table.ignored(field, AUTH_TOKEN, "the environment comes first");
        // The reference is broken, but what is sent is what its owner put in the environment.
        return (sent, fault);
    }
    if fault.is_some() {
        table.ignored(field, AUTH_TOKEN, "an unreadable remote secret is never replaced by the local one");
        return (None, fault);
    }
    last(table, field, AUTH_TOKEN, inputs.auth_token.read())
}

fn password(inputs: &Inputs<'_>, table: &mut Table) -> (Sent, Option<Warning>) {
    let field = Field::Password;
    if let Some(secret) = inputs.env.password.as_ref().and_then(present) {
        let sent = Some(table.used(field, ENV_PASSWORD, secret));
        table.ignored(field, REMOTE_PASSWORD, "the environment comes first");
        table.ignored(field, AUTH_PASSWORD, "the environment comes first");
        return (sent, None);
    }
    match inputs.remote_password.read() {
        Reading::Value(secret) => {
            let sent = Some(table.used(field, REMOTE_PASSWORD, secret));
            table.ignored(field, AUTH_PASSWORD, "gateway.remote.password is set");
            (sent, None)
        }
        Reading::Unresolved(reason) => {
            table.unresolved(field, REMOTE_PASSWORD, &reason);
            table.ignored(field, AUTH_PASSWORD, "an unreadable remote secret is never replaced by the local one");
            (None, Some(warning(REMOTE_PASSWORD, reason)))
        }
        Reading::Unset => {
            table.absent(field, REMOTE_PASSWORD);
            last(table, field, AUTH_PASSWORD, inputs.auth_password.read())
        }
    }
}

fn last(table: &mut Table, field: Field, name: &'static str, reading: Reading) -> (Sent, Option<Warning>) {
    match reading {
        Reading::Value(secret) => (Some(table.used(field, name, secret)), None),
        Reading::Unresolved(reason) => {
            table.unresolved(field, name, &reason);
            (None, Some(warning(name, reason)))
        }
        Reading::Unset => {
            table.absent(field, name);
            (None, None)
        }
    }
}
