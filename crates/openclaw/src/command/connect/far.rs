//! What the far host is asked over ssh, and what it answers.
//!
//! One fixed script (`far.sh`) finds the openclaw there and asks it for a one-time code. Only words that were checked here
//! go along with it, and of the answer only tagged lines are read. None of it is believed beyond this: whether it is true
//! shows when the gateway itself takes the code.

use openclaw_protocol::{
    DeviceId, Secret, SetupCode,
    method::invite::{Invited, InvitingGateway},
};
use openclaw_remote::ssh::RemoteCommand;
use serde_json::Value;

/// The script, for the standard input of [`command`].
pub const SCRIPT: &str = include_str!("far.sh");
/// Longest answer line believed, in bytes.
const MAX_LINE_BYTES: usize = 512 * 1024;

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A one-time code for an operator with these scopes.
    Invite {
        /// Port of the gateway when it was given; else the far side is asked for it.
        port: Option<u16>,
        scopes: &'a [String],
        /// What the owner will see this invitation called.
        label: &'a str,
        /// Also list the devices, to know whether this one is among them.
        list: bool,
    },
    Approve(&'a str),
    Remove(&'a DeviceId),
}

/// The words for [`SCRIPT`]. `tag` begins each line of the answer.
pub fn command(tag: &str, question: &Question<'_>) -> RemoteCommand {
    let mut words = vec!["sh".to_owned(), "-s".to_owned(), "--".to_owned(), tag.to_owned()];
    match question {
        Question::Invite { port, scopes, label, list } => {
            let port = port.map_or_else(|| "-".to_owned(), |port| port.to_string());
            let limited = if grants_admin(scopes) { "full" } else { "limited" };
            let list = if *list { "list" } else { "nolist" };
            words.extend(["invite".to_owned(), port, scopes.join(",")]);
            words.extend([limited.to_owned(), plain(label), list.to_owned()]);
        }
        Question::Approve(request) => words.extend(["approve".to_owned(), (*request).to_owned()]),
        Question::Remove(device) => words.extend(["remove".to_owned(), device.as_str().to_owned()]),
    }
    RemoteCommand::new(words)
}

/// Scopes that the official release's limited codes do not carry.
fn grants_admin(scopes: &[String]) -> bool {
    let beyond = ["operator.admin", "operator.pairing", "operator.talk"];
    scopes.iter().any(|scope| beyond.contains(&scope.as_str()))
}

/// A label of letters, digits, dots and dashes, so that any login shell passes it on as it is.
fn plain(label: &str) -> String {
    let kept: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).take(64).collect();
    let kept = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    if kept.is_empty() { "laptop".to_owned() } else { kept }
}

/// Whose program answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// The official OpenClaw.
    Official,
}

/// The far host's answer, as far as it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub user: Option<String>,
    pub host: Option<String>,
    /// Path of the program there.
    pub cli: Option<String>,
    pub version: Option<String>,
    pub kind: Option<Kind>,
    /// `gateway.port` of the config there.
    pub port: Option<u16>,
    /// Exit code and standard output of the command that was asked for.
    pub outcome: Option<(i32, String)>,
    /// Who listens on the port, where that can be known.
    pub listener: Option<(u16, String)>,
    devices: Option<String>,
    /// The script ran to its end.
    pub complete: bool,
}

impl Answer {
    /// Reads the tagged lines of `output`; everything else is what login scripts print.
    pub fn read(tag: &str, output: &[u8]) -> Self {
        let mut answer = Self::default();
        let text = String::from_utf8_lossy(output);
        for line in text.lines().filter(|line| line.len() <= MAX_LINE_BYTES) {
            let Some((key, value)) = tagged(tag, line) else { continue };
            let some = || Some(value.to_owned()).filter(|text| !text.is_empty());
            match key {
                "user" => answer.user = some(),
                "host" => answer.host = some(),
                "cli" => answer.cli = some(),
                "version" => answer.version = some(),
                "kind" => answer.kind = Some(if value == "official" { Kind::Official } else { Kind::Ours }),
                "port" => answer.port = value.parse().ok().filter(|port| *port != 0),
                "listener" => {
                    let listener = value.split_once(' ');
                    answer.listener = listener.and_then(|(port, user)| Some((port.parse().ok()?, user.to_owned())));
                }
                "answer" => {
                    let (code, said) = value.split_once(' ').unwrap_or((value, ""));
                    answer.outcome = code.parse().ok().map(|code| (code, said.trim().to_owned()));
                }
                "devices" => answer.devices = some(),
                "end" => answer.complete = true,
                _ => {}
            }
        }
        answer
    }

    /// Whether a device is paired there; `None` when that was not asked or not answered.
    pub fn is_paired(&self, device: &DeviceId) -> Option<bool> {
        let list: Value = serde_json::from_str(self.devices.as_deref()?).ok()?;
        let paired = list.get("paired")?.as_array()?;
        Some(paired.iter().any(|entry| entry["deviceId"] == device.as_str()))
    }

    /// The gateway's version without the name in front, for people: `0.1.0`, `2026.9.6`.
    pub fn short_version(&self) -> Option<&str> {
        let version = self.version.as_deref()?;
        version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// The invitation that was asked for.
    ///
    /// # Errors
    /// Why there is none.
    pub fn invitation(&self) -> Result<Invitation, NoInvitation> {
        if self.cli.is_none() {
            return Err(if self.complete { NoInvitation::NotInstalled } else { NoInvitation::NoShell });
        }
        let Some((code, said)) = &self.outcome else { return Err(NoInvitation::Unreadable) };
        let value: Option<Value> = serde_json::from_str(said).ok();
        match (self.kind, value) {
            (_, value) if *code != 0 => Err(NoInvitation::refused(value.as_ref(), self.kind)),
            (Some(Kind::Official), Some(value)) => {
                let code = value["setupCode"].as_str().and_then(|code| SetupCode::parse(code).ok());
                Ok(Invitation { token: code.ok_or(NoInvitation::Unreadable)?.bootstrap_token, gateway: None })
            }
            (_, Some(value)) => {
                let invited: Invited = serde_json::from_value(value).map_err(|_| NoInvitation::Unreadable)?;
                Ok(Invitation { token: invited.token, gateway: Some(invited.gateway) })
            }
            (_, None) => Err(NoInvitation::Unreadable),
        }
    }
}

/// `key value` of a line of ours.
fn tagged<'a>(tag: &str, line: &'a str) -> Option<(&'a str, &'a str)> {
    // A login script may print without a newline at its end.
    let rest = line[line.find(tag)?..].strip_prefix(tag)?.strip_prefix(' ')?;
    let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((key, value.trim()))
}

/// A one-time token, and what the gateway there says of itself. The official release says nothing.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub token: Secret,
    pub gateway: Option<InvitingGateway>,
}

/// Why the far side gave no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoInvitation {
    /// No openclaw on the far host's PATH, nor in any common place.
    NotInstalled,
    /// The account gave no shell to ask with.
    NoShell,
    /// The program is there and the gateway is not running.
    NotRunning,
    /// The gateway runs and does not take orders from this account.
    NotOwner,
    /// The program or gateway there knows no one-time codes.
    TooOld,
    /// Whatever else it said.
    Refused(String),
    Unreadable,
}

impl NoInvitation {
    fn refused(said: Option<&Value>, kind: Option<Kind>) -> Self {
        let error = said.map_or(&Value::Null, |said| &said["error"]);
        let text = |key: &str| error[key].as_str().unwrap_or_default();
        let message = text("message");
        let stage = text("stage");
        let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
        // The official release has no stages; its sentences and codes are 2026.9.6's.
        if stage == "connect" || has(&["ECONNREFUSED", "gateway closed (1006", "Gateway not reachable", "not running"])
        {
            Self::NotRunning
        } else if matches!(stage, "auth" | "pairing" | "scope")
            || matches!(text("code"), "UNAUTHORIZED" | "NOT_PAIRED" | "FORBIDDEN")
            || has(&["unauthorized", "pairing required", "missing scope", "token missing", "requires credentials"])
        {
            Self::NotOwner
        } else if has(&["unknown method", "has no command", "unknown command", "does not know the command"]) {
            Self::TooOld
        } else if message.is_empty() {
            match kind {
                // Its older generation prints no JSON for a refused call.
                Some(Kind::Official) => Self::TooOld,
                _ => Self::Unreadable,
            }
        } else {
            Self::Refused(message.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

    use super::*;

    const ID: &str = "be6491d56626acf8be6491d56626acf8be6491d56626acf8be6491d56626acf8";

    fn scopes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_words_are_ours() {
        let wide = scopes(&["operator.admin", "operator.read"]);
        let narrow = scopes(&["operator.read"]);
        let invite = |scopes, port, label| {
            command("T1", &Question::Invite { port, scopes, label, list: false }).line().to_owned()
        };
        assert_eq!(
            invite(&wide, None, "laptop"),
            "sh -s -- T1 invite - operator.admin,operator.read full laptop nolist"
        );
        assert_eq!(
            invite(&narrow, Some(19001), "$(id); 'x' é"),
            "sh -s -- T1 invite 19001 operator.read limited idx nolist"
        );
        assert!(invite(&narrow, None, "--x").contains(" x nolist"));
        assert!(invite(&narrow, None, "漢字").contains(" laptop nolist"));
        let device = DeviceId::parse(ID).expect("id");
        assert_eq!(command("T1", &Question::Remove(&device)).line(), format!("sh -s -- T1 remove {ID}"));
    }

    #[test]
    fn greetings_of_login_scripts_are_no_answer() {
        let output = b"Welcome!\nT9 user evil\nno newline hereT1 user me\nT1 host box\nT1 cli /usr/bin/openclaw\n\
            T1 version OpenClaw 2026.9.6 (eb377ac)\nT1 kind official\nT1 port 18790\nT1 listener 18790 claw\n\
            T1 answer 3 {\"ok\":false}\nT1 end\n";
        let answer = Answer::read("T1", output);
        assert_eq!((answer.user.as_deref(), answer.host.as_deref()), (Some("me"), Some("box")));
        assert_eq!(
            (answer.kind, answer.port, answer.short_version()),
            (Some(Kind::Official), Some(18790), Some("2026.9.6"))
        );
        assert_eq!(answer.listener, Some((18790, "claw".to_owned())));
        assert_eq!(answer.outcome, Some((3, "{\"ok\":false}".to_owned())));
        assert!(answer.complete);
        assert!(!Answer::read("T1", b"").complete);
    }

    fn answered(kind: &str, code: i32, said: &str) -> Result<Invitation, NoInvitation> {
        let lines = format!("T cli /x/openclaw\nT kind {kind}\nT answer {code} {said}\nT end\n");
        Answer::read("T", lines.as_bytes()).invitation()
    }

    #[test]
    fn invitations() {
        let said = format!(
            r#"{{"setupId":"s","token":"one-time","expiresAtMs":1,"role":"operator","scopes":["operator.read"],
            "gateway":{{"id":"{ID}","version":"0.1.0","port":18790,"tls":false,
            "addresses":[{{"kind":"lan","url":"ws://192.168.1.5:18790"}}],"later":1}}}}"#
        )
        .replace('\n', " ");
        let invitation = answered("ours", 0, &said).expect("invitation");
        assert_eq!(invitation.token.expose(), "one-time");
        let gateway = invitation.gateway.expect("told");
        assert_eq!((gateway.id.as_str(), gateway.port, gateway.addresses.len()), (ID, 18790, 1));

        // What release 2026.9.6 answered to the call in the script; used up long ago.
        let code = "eyJ1cmwiOiJ3czovLzEyNy4wLjAuMSIsImJvb3RzdHJhcFRva2VuIjoiX1JCM3cwa0RYZlVRQ0FlWERycHBtVjA5M0pNdEhrdX\
                    RCRHlDbkFpZWR6WSIsImV4cGlyZXNBdE1zIjoxNzk1MjUwODkzOTU5fQ";
        let said = format!(r#"{{ "setupId": "x", "setupCode": "{code}", "auth": "token", "access": "full" }}"#);
        let invitation = answered("official", 0, &said).expect("invitation");
        assert_eq!(invitation.token.expose(), "_RB3w0kDXfUQCAeXDrppmV093JMtHkutBDyCnAiedzY");
        assert!(invitation.gateway.is_none());
    }

    #[test]
    fn refusals_are_told_apart() {
        use NoInvitation as N;
        let check = |kind: &str, said: &str, expected: NoInvitation| {
            assert_eq!(answered(kind, 1, said).expect_err(said), expected, "{said}");
        };
        let error = |inner: &str| format!(r#"{{"ok":false,"error":{{{inner}}}}}"#);
        check(
            "ours",
            &error(r#""stage":"connect","message":"Gateway not reachable at ws://127.0.0.1:1""#),
            N::NotRunning,
        );
        check("ours", &error(r#""stage":"auth","message":"unauthorized: gateway token missing""#), N::NotOwner);
        check("ours", &error(r#""stage":"pairing","message":"pairing required""#), N::NotOwner);
        check("ours", &error(r#""message":"OpenClaw devices has no command \"invite\".""#), N::TooOld);
        check("ours", &error(r#""message":"disk full""#), N::Refused("disk full".to_owned()));
        check("ours", "no json", N::Unreadable);
        check(
            "official",
            &error(r#""code":"INVALID_REQUEST","message":"unknown method: device.pair.setupCode""#),
            N::TooOld,
        );
        check("official", "", N::TooOld);
        assert_eq!(Answer::read("T", b"T missing openclaw\nT end\n").invitation().expect_err("none"), N::NotInstalled);
        assert_eq!(
            Answer::read("T", b"This account is currently not available.\n").invitation().expect_err("none"),
            N::NoShell
        );
        assert_eq!(answered("ours", 0, "{}").expect_err("no token"), N::Unreadable);
    }

    #[test]
    fn devices_are_looked_up_among_the_paired() {
        let device = DeviceId::parse(ID).expect("id");
        let check = |said: &str, expected: Option<bool>| {
            assert_eq!(Answer::read("T", said.as_bytes()).is_paired(&device), expected, "{said}");
        };
        check(&format!(r#"T devices {{"pending":[],"paired":[{{"deviceId":"{ID}"}}]}}"#), Some(true));
        check(&format!(r#"T devices {{"pending":[{{"deviceId":"{ID}"}}],"paired":[]}}"#), Some(false));
        check("T devices", None);
        check("T end", None);
    }

    /// Runs the real script with a stand-in for the far openclaw that prints its arguments.
    fn run_script(home: &Path, question: &Question<'_>) -> Answer {
        let line = command("TAG", question);
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", line.line()])
            .env_clear()
            .env("HOME", home)
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), SCRIPT.as_bytes()).expect("reads");
        Answer::read("TAG", &child.wait_with_output().expect("ends").stdout)
    }

    fn far_openclaw(home: &Path, body: &str) {
        let dir = home.join(".local/bin");
        fs::create_dir_all(&dir).expect("dir");
        let file = dir.join("openclaw");
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("mode");
    }

    #[test]
    fn the_script_finds_and_asks() {
        let home = tempfile::tempdir().expect("dir");
        let wide = scopes(&["operator.admin"]);
        let invite = Question::Invite { port: None, scopes: &wide, label: "laptop", list: true };
        assert_eq!(run_script(home.path(), &invite).invitation().expect_err("none"), NoInvitation::NotInstalled);

        far_openclaw(
            home.path(),
            r#"case "$1 $2" in
            "--version ") echo "OpenClaw 0.1.0 (abc)" ;;
            "devices invite") read x; printf '{"setupId":"s","token":"%s",\n"expiresAtMs":1,"role":"operator","scopes":[],
              "gateway":{"id":"ID","version":"1","port":7,"tls":false}}\n' "$*$x" ;;
            "devices list") echo '{"paired":[]}' ;;
            *) echo '{"ok":false,"error":{"message":"disk full"}}'; exit 4 ;;
            esac"#
            .replace("ID", ID)
            .as_str(),
        );
        let answer = run_script(home.path(), &invite);
        assert!(answer.complete && answer.kind == Some(Kind::Ours), "{answer:?}");
        assert_eq!(answer.cli.as_deref(), Some(home.path().join(".local/bin/openclaw").to_str().expect("text")));
        let invitation = answer.invitation().expect("invitation");
        assert_eq!(
            invitation.token.expose(),
            "devices invite --json --role operator --scopes operator.admin --ttl 2m --label laptop"
        );
        assert_eq!(invitation.gateway.map(|gateway| gateway.port), Some(7));
        let device = DeviceId::parse(ID).expect("id");
        assert_eq!(answer.is_paired(&device), Some(false));
        let removed = run_script(home.path(), &Question::Remove(&device));
        assert_eq!((removed.outcome.map(|o| o.0), removed.complete), (Some(4), true));
    }

    #[test]
    fn the_script_asks_the_official_release_in_its_own_words() {
        let home = tempfile::tempdir().expect("dir");
        far_openclaw(
            home.path(),
            r#"case "$1 $2" in
            "--version ") echo "OpenClaw 2026.9.6 (eb377ac)" ;;
            "config get") echo noise; echo 18790 ;;
            "gateway call") printf '{"ok":false,"error":{"message":"%s"}}\n' "$(printf %s "$*" | tr -d '"')"; exit 1 ;;
            esac"#,
        );
        let narrow = scopes(&["operator.read"]);
        let answer =
            run_script(home.path(), &Question::Invite { port: None, scopes: &narrow, label: "l", list: false });
        assert_eq!((answer.kind, answer.port), (Some(Kind::Official), Some(18790)));
        assert_eq!(
            answer.invitation().expect_err("refused"),
            NoInvitation::Refused(
                "gateway call device.pair.setupCode --json --params \
                 {publicUrl:ws://127.0.0.1,includeQr:false,bootstrapProfile:limited}"
                    .to_owned()
            )
        );
    }

    #[test]
    fn the_script_names_who_listens() {
        let home = tempfile::tempdir().expect("dir");
        far_openclaw(home.path(), r#"[ "$1" = --version ] && { echo "OpenClaw 0.1.0"; exit; }; exit 1"#);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("address").port();
        let narrow = scopes(&["operator.read"]);
        let answer =
            run_script(home.path(), &Question::Invite { port: Some(port), scopes: &narrow, label: "l", list: false });
        let me = std::process::Command::new("id").arg("-un").output().expect("id").stdout;
        let me = String::from_utf8(me).expect("text").trim().to_owned();
        if cfg!(target_os = "linux") {
            assert_eq!(answer.listener, Some((port, me)));
        }
    }
}
