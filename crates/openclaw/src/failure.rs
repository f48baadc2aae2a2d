//! How a command fails: what failed, why, what next on stderr, and the JSON envelope on stdout.

use openclaw_remote::{Error as RemoteError, Place, Remedy, error::PathFailure};
use serde_json::{Value, json};

use crate::output::{self, Style, Tone, escape::inert_line, inert};

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    exit: u8,
    /// What failed; the `message` of the envelope.
    message: String,
    /// Why, and whatever else helps, one line each.
    details: Vec<String>,
    remedies: Vec<Remedy>,
    /// Facts below: target, source, config.
    facts: Vec<(&'static str, String)>,
    /// The envelope's `error` beyond `message`, and keys beside it.
    error: Value,
    beside: Vec<(&'static str, Value)>,
}

/// What commands return: an exit code, or a failure.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// A local failure: exit code 1, `cli_error`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            exit: 1,
            message: message.into(),
            details: Vec::new(),
            remedies: Vec::new(),
            facts: Vec::new(),
            error: json!({"type": "cli_error"}),
            beside: Vec::new(),
        }))
    }

    /// A failure on the way to a gateway, or its refusal.
    pub fn remote(error: &RemoteError, place: &Place) -> Self {
        let mut failure = Self::new(told(error));
        failure.0.exit = error.exit_code();
        failure.0.details.extend(why(error));
        failure.0.remedies.extend(error.remedy(place));
        let reached = error.reached_gateway();
        let mut shape = json!({
            "type": if reached { "gateway_error" } else { "gateway_transport_error" },
            "kind": error.kind(),
            "stage": error.stage().as_str(),
        });
        if let Some(cause) = cause(error) {
            shape["reason"] = json!(cause);
        }
        if let RemoteError::Paths(all) = error {
            let path = |failure: &PathFailure| {
                json!({"path": failure.path, "stage": failure.error.stage().as_str(), "kind": failure.error.kind(),
                    "reason": reason(&failure.error)})
            };
            shape["paths"] = all.failures.iter().map(path).collect();
        }
        if let Some(answered) = error.shape() {
            shape["code"] = serde_json::to_value(answered.code).unwrap_or_default();
            shape["details"] = answered.details.clone().unwrap_or_default();
        }
        if let Some(remedy) = failure.0.remedies.first() {
            shape["remedy"] = json!({"command": remedy.command, "runOn": remedy.run_on});
        }
        failure.0.error = shape;
        failure
    }

    pub fn exit(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.0.exit
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Another first line.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// What the gateway said, whole and line by line, in the place of everything else: it knows best.
    pub fn in_full(mut self, text: &str) -> Self {
        let mut lines = text.lines().map(|line| inert_line(line).into_owned());
        self.0.message = lines.next().unwrap_or_default();
        self.0.details = lines.collect();
        self.0.remedies.clear();
        self.0.facts.clear();
        self.0.error["message"] = json!(text);
        self
    }

    /// A stable code in the envelope's `error`.
    pub fn error_code(mut self, code: &str) -> Self {
        self.0.error["code"] = json!(code);
        self
    }

    /// Adds a line below the message.
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.0.details.push(line.into());
        self
    }

    /// Adds a command that helps.
    pub fn remedy(mut self, what: impl Into<String>, command: impl Into<String>) -> Self {
        let run_on = openclaw_protocol::error::Machine::ThisClient;
        self.0.remedies.push(Remedy { what: what.into(), command: command.into(), run_on });
        self
    }

    /// Adds a command that helps, to be typed on the gateway's host.
    pub fn there(mut self, what: impl Into<String>, command: impl Into<String>) -> Self {
        let run_on = openclaw_protocol::error::Machine::GatewayHost;
        self.0.remedies.push(Remedy { what: what.into(), command: command.into(), run_on });
        self
    }

    /// Adds a `Name: value` line.
    pub fn fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.facts.push((name, value.into()));
        self
    }

    /// Adds a key beside `error` in the envelope.
    pub fn beside(mut self, key: &'static str, value: Value) -> Self {
        self.0.beside.push((key, value));
        self
    }

    /// `{"ok":false,"error":{…}}`.
    pub fn envelope(&self) -> Value {
        let mut error = json!({"type": self.0.error["type"], "message": self.0.message});
        if let (Some(target), Value::Object(more)) = (error.as_object_mut(), &self.0.error) {
            target.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let mut envelope = json!({"ok": false, "error": error});
        for (key, value) in &self.0.beside {
            envelope[*key] = value.clone();
        }
        envelope
    }

    /// The lines for people.
    pub fn lines(&self, style: Style) -> Vec<String> {
        let mut lines = vec![format!("{} {}", style.bad(), self.0.message)];
        lines.extend(self.0.details.iter().cloned());
        for remedy in &self.0.remedies {
            let what = capitalised(&remedy.what);
            let command = style.paint(Tone::Command, &remedy.command);
            lines.push(format!("{what} {}: {command}", remedy.machine()));
        }
        lines.extend(self.0.facts.iter().map(|(name, value)| style.paint(Tone::Dim, &format!("{name}: {value}"))));
        lines
    }

    /// Prints it: stderr for people, and the envelope on stdout for `--json`.
    pub fn report(&self, style: Style, as_json: bool) {
        if as_json {
            output::json(&self.envelope());
        }
        self.lines(style).iter().for_each(output::note);
    }
}

pub fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// An error made fit for a terminal. What is said about ssh is bounded where it is made, and its end is what matters of a
/// changed host key: the file and line of the key on record.
fn told(error: &RemoteError) -> String {
    let text = error.to_string();
    match error {
        RemoteError::Ssh(_) => inert_line(&text).into_owned(),
        _ => inert(&text).into_owned(),
    }
}

/// One line for one path: what failed there, and why.
pub fn reason(error: &RemoteError) -> String {
    let what = match error {
        // Its text repeats the address.
        RemoteError::Connect { failure, .. } => failure.errno().map(|errno| format!("{errno}.")),
        // It begins with the host's name.
        RemoteError::Ssh(_) => Some(told(error)),
        _ => Some(capitalised(&told(error))),
    };
    let what = what.map(|what| if what.ends_with('.') { what } else { format!("{what}.") });
    let why = why(error).into_iter().next();
    what.into_iter().chain(why).collect::<Vec<_>>().join(" ")
}

/// The innermost reason, made fit for a terminal.
pub fn cause(error: &RemoteError) -> Option<String> {
    let mut cause = std::error::Error::source(error)?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(inert(&cause.to_string()).into_owned())
}

/// The second sentence: why.
fn why(error: &RemoteError) -> Vec<String> {
    use openclaw_remote::error::ConnectFailure as C;
    match error {
        RemoteError::Paths(all) => {
            let each =
                all.failures.iter().map(|failure| format!("  {}: {}", inert(&failure.path), reason(&failure.error)));
            let leading = if error.reached_gateway() { why(error.leading()) } else { Vec::new() };
            leading.into_iter().chain(each).collect()
        }
        RemoteError::Connect { failure, source, .. } => vec![match failure {
            C::Refused => "The machine answered, and nothing listens on that port.".to_owned(),
            C::TimedOut => "Nobody answered: the machine is off, or a firewall drops the packets.".to_owned(),
            C::Unreachable => "There is no route to that machine from here.".to_owned(),
            C::Reset => "The other side hung up before it said anything.".to_owned(),
            C::Other => format!("The system says: {}.", inert(&source.to_string())),
        }],
        RemoteError::Insecure(insecure) => {
            let exposure = "Anybody on the way could read the token and every message.";
            let resolved = insecure.resolved.map(|address| format!("The name leads to the public address {address}."));
            resolved.into_iter().chain([exposure.to_owned()]).collect()
        }
        RemoteError::Auth(shape) => match shape.detail_code() {
            Some("AUTH_RATE_LIMITED") => {
                let wait = shape.retry_after_ms.map(std::time::Duration::from_millis);
                let wait = wait.map(|wait| format!(" It takes new attempts in {}.", output::time::span(wait)));
                vec![format!("Too many wrong attempts came from this address.{}", wait.unwrap_or_default())]
            }
            Some("DEVICE_IDENTITY_REQUIRED") => vec!["No credential was sent, and the gateway wants one.".to_owned()],
            _ => Vec::new(),
        },
        RemoteError::Pairing(pairing) => {
            // Both generations keep a request five minutes (openclaw_protocol::limits::PAIRING_TTL).
            let request = pairing
                .request_id
                .as_deref()
                .map(|id| format!("Request id: {} (waits five minutes; trying again keeps it)", inert(id)));
            let why = match pairing.reason.as_deref() {
                Some("scope-upgrade") => "This device asks for more than it was approved for.",
                Some("role-upgrade") => "This device asks for another role than it was approved for.",
                Some("metadata-upgrade") => "This device describes itself differently than when it was approved.",
                _ => "The gateway does not know this device yet; its owner has to approve it once.",
            };
            [Some(why.to_owned()), request].into_iter().flatten().collect()
        }
        RemoteError::Unavailable(shape) => {
            vec![match shape.retry_after_ms {
                Some(ms) => {
                    let wait = output::time::span(std::time::Duration::from_millis(ms));
                    format!("The gateway is up and not ready for this; it asks to try again in {wait}.")
                }
                None => "The gateway is up and cannot do this now.".to_owned(),
            }]
        }
        RemoteError::Protocol { expected: Some(version), .. } => {
            vec![format!("The gateway speaks protocol {version}; this program speaks 3 and 4.")]
        }
        other => cause(other).map(|cause| format!("Reason: {cause}.")).into_iter().collect(),
    }
}

impl From<openclaw_config::PathsError> for Failure {
    fn from(error: openclaw_config::PathsError) -> Self {
        let exit = error.exit_code();
        Self::new(error.to_string()).exit(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_remote::{GatewayUrl, error::ConnectFailure};

    #[test]
    fn three_sentences() {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let endpoint = GatewayUrl::loopback(18789).to_string();
        let error = RemoteError::Connect { endpoint, failure: ConnectFailure::Refused, source };
        let place = Place { local: true, loopback: true, port: 18789, remote_port: 18789, ..Place::default() };
        let failure = Failure::remote(&error, &place).fact("Source", "local loopback");
        let style = Style::plain();
        assert_eq!(
            failure.lines(style),
            [
                "x Gateway not reachable at ws://127.0.0.1:18789 (ECONNREFUSED).",
                "The machine answered, and nothing listens on that port.",
                "Start the gateway on this machine: openclaw gateway",
                "Source: local loopback",
            ]
        );
        assert_eq!(failure.exit_code(), 11);
        let envelope = failure.envelope();
        assert_eq!(envelope["error"]["type"], "gateway_transport_error");
        assert_eq!(envelope["error"]["message"], "Gateway not reachable at ws://127.0.0.1:18789 (ECONNREFUSED).");
        assert_eq!(envelope["error"]["remedy"], json!({"command": "openclaw gateway", "runOn": "this-client"}));
    }

    #[test]
    fn p_09_a_gateways_words_are_escaped() {
        let shape = openclaw_protocol::ErrorShape::invalid("bad\u{1b}[2J\nnews");
        let failure = Failure::remote(&RemoteError::Refused(Box::new(shape)), &Place::default());
        assert_eq!(failure.message(), "bad\\u{1b}[2J\\nnews");
    }
}
