//! The table behind `doctor --why`: every place a credential could come from, and what became of it.

use openclaw_protocol::Secret;

use super::{
    AUTH_PASSWORD, AUTH_TOKEN, CURRENT, Configured, ENV_PASSWORD, ENV_TOKEN, ENV_URL, EXPLICIT, GENERATED, Inputs,
    LOCAL, ON, REMOTE_PASSWORD, REMOTE_TOKEN, REMOTE_URL, SSH_TARGET, Warning, present,
};

/// What became of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Used,
    /// Something is there, and it is not used for this reason.
    Ignored(String),
    Absent,
    /// Configured and unreadable, for this reason.
    Unresolved(String),
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// `url`, `token` or `password`.
    pub field: &'static str,
    /// `explicit`, `env:OPENCLAW_GATEWAY_TOKEN`, `config:gateway.auth.token`, `generated`, `local loopback`…
    pub name: &'static str,
    pub state: State,
    /// Start of the secret's SHA-256, to compare secrets by eye. `None` for one that is absent or was not read.
    pub fingerprint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Url,
    Token,
    Password,
}

impl Field {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Token => "token",
            Self::Password => "password",
        }
    }
}

/// Filled in as the decision goes along.
pub(super) struct Table {
    rows: Vec<Considered>,
    /// Whether something is configured at each row, without reading it.
    occupied: Vec<bool>,
    /// Why rows nobody spoke of are ignored.
    rest: String,
}

impl Table {
    /// All sources in the order of local mode, with fingerprints of those that need no reading.
    pub(super) fn new(inputs: &Inputs<'_>) -> Self {
        let mut table = Self { rows: Vec::new(), occupied: Vec::new(), rest: "not reached".to_owned() };
        let mut add = |field: Field, name: &'static str, plain: Option<Secret>, occupied: bool| {
            let fingerprint = plain.as_ref().map(Secret::fingerprint);
            table.rows.push(Considered { field: field.as_str(), name, state: State::Absent, fingerprint });
            table.occupied.push(occupied || plain.is_some());
        };
        let plain = |secret: &Option<Secret>| secret.as_ref().and_then(present);
        let configured = |configured: &Configured<'_>| match configured {
            Configured::Unset => (None, false),
            Configured::Value(secret) => (present(secret), false),
            Configured::Unresolved(_) | Configured::Deferred(_) => (None, true),
        };
        let text = |url: &Option<String>| url.as_deref().is_some_and(|url| !url.trim().is_empty());
        add(Field::Url, EXPLICIT, None, text(&inputs.flags.url));
        let chosen = |by_flag| inputs.connection.as_ref().is_some_and(|chosen| chosen.by_flag == by_flag);
        add(Field::Url, ON, None, chosen(true));
        add(Field::Url, ENV_URL, None, text(&inputs.env.url));
        add(Field::Url, CURRENT, None, chosen(false));
        add(Field::Url, REMOTE_URL, None, text(&inputs.remote_url));
        add(Field::Url, SSH_TARGET, None, text(&inputs.ssh_target));
        add(Field::Url, LOCAL, None, true);
        add(Field::Token, EXPLICIT, plain(&inputs.flags.token), false);
        add(Field::Token, ENV_TOKEN, plain(&inputs.env.token), false);
        for (name, input) in [(AUTH_TOKEN, &inputs.auth_token), (REMOTE_TOKEN, &inputs.remote_token)] {
            let (secret, occupied) = configured(input);
            add(Field::Token, name, secret, occupied);
        }
        add(Field::Token, GENERATED, plain(&inputs.generated), false);
        add(Field::Password, EXPLICIT, plain(&inputs.flags.password), false);
        add(Field::Password, ENV_PASSWORD, plain(&inputs.env.password), false);
        for (name, input) in [(AUTH_PASSWORD, &inputs.auth_password), (REMOTE_PASSWORD, &inputs.remote_password)] {
            let (secret, occupied) = configured(input);
            add(Field::Password, name, secret, occupied);
        }
        // What is there counts as ignored until it is used.
        for (row, occupied) in table.rows.iter_mut().zip(&table.occupied) {
            if *occupied {
                row.state = State::Ignored(String::new());
            }
        }
        table
    }

    /// Notes which URL won; the others are ignored for it.
    pub(super) fn target(&mut self, name: &'static str) {
        for row in self.rows.iter_mut().filter(|row| row.field == Field::Url.as_str()) {
            if row.name == name {
                row.state = State::Used;
            } else if matches!(row.state, State::Ignored(_)) {
                row.state = State::Ignored(match row.name {
                    REMOTE_URL | SSH_TARGET if name == LOCAL => "gateway.mode is not remote".to_owned(),
                    // The two together: the URL says what is meant, the target how to get there.
                    SSH_TARGET if name == REMOTE_URL => "it is the way to gateway.remote.url, not a place".to_owned(),
                    LOCAL if name == REMOTE_URL || name == SSH_TARGET => "gateway.mode is remote".to_owned(),
                    _ => "a source of higher rank is used".to_owned(),
                });
            }
        }
    }

    pub(super) fn used(&mut self, field: Field, name: &'static str, secret: Secret) -> (Secret, &'static str) {
        let fingerprint = secret.fingerprint();
        self.set(field, name, |row| {
            row.state = State::Used;
            row.fingerprint = Some(fingerprint);
        });
        (secret, name)
    }

    pub(super) fn ignored(&mut self, field: Field, name: &'static str, reason: &str) {
        self.set(field, name, |row| {
            if matches!(row.state, State::Ignored(_)) {
                row.state = State::Ignored(reason.to_owned());
            }
        });
    }

    pub(super) fn unresolved(&mut self, field: Field, name: &'static str, reason: &str) {
        self.set(field, name, |row| row.state = State::Unresolved(reason.to_owned()));
    }

    pub(super) fn absent(&mut self, field: Field, name: &'static str) {
        self.set(field, name, |row| row.state = State::Absent);
    }

    pub(super) fn ignore_rest(&mut self, reason: &str) {
        self.rest = reason.to_owned();
    }

    pub(super) fn finish(mut self) -> Vec<Considered> {
        for row in &mut self.rows {
            if row.state == State::Ignored(String::new()) {
                row.state = State::Ignored(self.rest.clone());
            }
        }
        self.rows
    }

    fn set(&mut self, field: Field, name: &'static str, change: impl FnOnce(&mut Considered)) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.field == field.as_str() && row.name == name) {
            change(row);
        }
    }
}

/// The warning for a source named `config:<path>`.
pub(super) fn warning(name: &'static str, reason: String) -> Warning {
    let path = name.strip_prefix("config:").unwrap_or(name).to_owned();
    Warning { code: "secretref-unresolved", path, reason }
}
