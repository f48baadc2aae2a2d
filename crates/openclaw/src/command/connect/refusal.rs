//! Why the far side gave no one-time code, in words that a person can act on.

use openclaw_remote::ssh::SshSpec;

use super::far::{Answer, NoInvitation};
use crate::{failure::Failure, output::inert};

/// What to say when the far side gave no code: what is wrong there, and who can cure it.
pub fn explain(answer: &Answer, spec: &SshSpec, reason: &NoInvitation, stderr: &str) -> Failure {
    let host = inert(answer.host.as_deref().unwrap_or(spec.target.host())).into_owned();
    let user = answer.user.as_deref().or(spec.target.user()).unwrap_or("this user");
    let user = inert(user).into_owned();
    let login = ssh_words(spec);
    let listener = answer.listener.as_ref().filter(|(_, owner)| *owner != user && is_plain(owner));
    let as_owner = listener.map(|(_, owner)| {
        let target = &spec.target;
        let port = target.port().map(|port| format!(":{port}")).unwrap_or_default();
        let place = if target.host().contains(':') { format!("[{}]", target.host()) } else { target.host().to_owned() };
        (owner.clone(), format!("openclaw connect {owner}@{place}{port}"))
    });
    let failure = match (reason, as_owner) {
        (NoInvitation::NotInstalled | NoInvitation::NotRunning | NoInvitation::NotOwner, Some((owner, command))) => {
            let what = match reason {
                NoInvitation::NotInstalled => format!("{user} has no openclaw on {host}"),
                NoInvitation::NotRunning => format!("{user} runs no gateway on {host}"),
                _ => format!("{user} may not pair machines with the gateway on {host}"),
            };
            Failure::new(format!("{what}, but {owner} runs something on its port."))
                .detail("Whoever runs a gateway is its owner; log in as that user.")
                .remedy("connect", command)
                .error_code("not_owner")
        }
        (NoInvitation::NotInstalled, None) => {
            Failure::new(format!("There is no openclaw on {host} that {user} could run."))
                .detail("Looked on its PATH, in the usual places, and asked its login shell.")
                .remedy(
                    "if both machines are of the same kind, send it this program,",
                    format!(
                        "{login} 'mkdir -p .local/bin && cat > .local/bin/openclaw && chmod +x .local/bin/openclaw' \
                         < \"$(command -v openclaw)\""
                    ),
                )
                .error_code("not_installed")
        }
        (NoInvitation::NoShell, _) => {
            Failure::new(format!("The login works, but the account gives no shell to ask for a code on {host}."))
                .detail("A restricted account can carry the tunnel; the code has to come from the gateway's owner.")
                .remedy("with a code from `openclaw devices invite` there", "openclaw connect <code> --as operator")
                .error_code("no_shell")
        }
        (NoInvitation::NotRunning, None) => {
            Failure::new(format!("openclaw is installed on {host}, but its gateway does not run."))
                .there("start it", "openclaw gateway")
                .error_code("gateway_down")
        }
        (NoInvitation::NotOwner, None) => {
            Failure::new(format!("The gateway on {host} does not take orders from {user}."))
                .detail("Only the user who runs it can let this machine in. Log in as that user, or ask for a code.")
                .there("get a code as that user", "openclaw devices invite")
                .error_code("not_owner")
        }
        (NoInvitation::TooOld, _) => {
            let version = answer.short_version().unwrap_or("an older release");
            Failure::new(format!("OpenClaw on {host} ({}) knows no one-time codes.", inert(version)))
                .detail("It can pair this machine with its own token, which is then used once and not stored.")
                .there("see the token in the address this prints, after #token=", "openclaw dashboard --no-open")
                .remedy("then type it at", format!("openclaw connect {} --token-file -", spec.target))
                .error_code("no_codes")
        }
        (NoInvitation::Refused(message), _) => {
            Failure::new(format!("openclaw on {host} gave no code: {}", inert(message))).error_code("refused")
        }
        (NoInvitation::Unreadable, _) => {
            let failure = Failure::new(format!("openclaw on {host} gave an answer that cannot be read."));
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
            let failure = match last {
                Some(line) => failure.detail(format!("Its last words: {}", inert(line.trim()))),
                None => failure,
            };
            failure.there("see whether it works there", "openclaw devices list").error_code("unreadable")
        }
    };
    failure.exit(openclaw_remote::Stage::Pairing.exit_code())
}

/// `ssh -p 2222 -i key me@box`, for a person to type.
pub fn ssh_words(spec: &SshSpec) -> String {
    let port = spec.target.port().map(|port| format!("-p {port} ")).unwrap_or_default();
    let identity = spec.identity.as_ref().map(|file| file.display().to_string());
    let identity = identity.map(|file| match is_plain(&file) {
        true => format!("-i {file} "),
        false => format!("-i '{}' ", file.replace('\'', r"'\''")),
    });
    format!("ssh {port}{}{}", identity.unwrap_or_default(), spec.target.destination())
}

/// A word that may stand in a command line as it is.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./@:+".contains(&b))
}
