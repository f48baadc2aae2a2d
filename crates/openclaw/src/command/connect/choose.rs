//! `openclaw connect` without a target: what there is, marked by what it is, to be picked by number.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use openclaw_config::{
    Connections,
    connections::{Book, SavedPath},
};
use openclaw_remote::{
    discovery::{self, Candidate, Found, Greeting, Places, Source},
    ssh::{self, SshTarget},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    context::Context,
    failure::Failure,
    output::{
        self, Style, Tone, inert,
        table::{Cell, columns},
    },
    reach::block_on,
};

/// ssh hosts are resolved by ssh itself, each in a process of its own: this many at a time.
const AT_ONCE: usize = 8;
/// One host's config, one connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a candidate answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Heard(Greeting),
    /// Only ssh can get there: a jump host, or a command of the config.
    Behind(String),
}

/// A candidate and what is known of it.
struct Entry {
    candidate: Candidate,
    answer: Answer,
    /// The name it is saved under.
    saved: Option<String>,
}

/// Lists what there is. On a terminal one may be picked; `None` when none was, or when nobody could.
pub fn choose(context: &Context, as_json: bool, yes: bool) -> Result<Option<SshTarget>, Failure> {
    let entries = {
        let _progress = context.output.progress("Looking around: ssh config, local network, tailnet …");
        block_on(async {
            let hosts = context.paths.home.as_deref().map(ssh::config_hosts).unwrap_or_default();
            let found = discovery::browse(Places::of_this_machine(hosts)).await;
            Ok(entries(context, found).await)
        })?
    };
    let (entries, silent) = entries;
    if as_json {
        output::json(&as_value(&entries, &silent));
        return Ok(None);
    }
    let style = context.output.out;
    output::print(&render(style, &entries, &silent));
    if entries.is_empty() || yes || !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(None);
    }
    let asked = format!("Which one? [1-{}, Enter for none] ", entries.len());
    let Some(entry) = pick(&ask(&asked)?, &entries)? else { return Ok(None) };
    if needs_confirmation(&entry.candidate) {
        let question = confirmation(&entry.candidate);
        if !matches!(ask(&question)?.to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(None);
        }
    }
    Ok(Some(entry.candidate.target.clone()))
}

async fn entries(context: &Context, found: Found) -> (Vec<Entry>, Vec<discovery::Silence>) {
    let book = Connections::new(&context.paths).load().unwrap_or_default();
    let count = found.candidates.len();
    let mut answers: Vec<Option<Answer>> = vec![None; count];
    let mut tasks = JoinSet::new();
    let mut waiting = found.candidates.iter().cloned().enumerate();
    loop {
        while tasks.len() < AT_ONCE
            && let Some((index, candidate)) = waiting.next()
        {
            tasks.spawn(async move { (index, listen(&candidate).await) });
        }
        match tasks.join_next().await {
            Some(Ok((index, answer))) => answers[index] = Some(answer),
            Some(Err(_)) => {}
            None => break,
        }
    }
    let entry = |(candidate, answer): (Candidate, Option<Answer>)| Entry {
        saved: saved_as(&book, &candidate.target),
        answer: answer.unwrap_or(Answer::Heard(Greeting::Silent)),
        candidate,
    };
    (found.candidates.into_iter().zip(answers).map(entry).collect(), found.silent)
}

/// What ssh's port of a candidate says, asked where ssh itself would go.
async fn listen(candidate: &Candidate) -> Answer {
    let target = &candidate.target;
    let ask = async {
        let (mut host, mut port, mut addresses) =
            (target.host().to_owned(), target.port(), candidate.addresses.clone());
        if candidate.sources.contains(&Source::SshConfig)
            && let Ok(effective) = ssh::effective(target).await
        {
            if let Some(jump) = effective.proxy_jump {
                return Answer::Behind(jump);
            }
            (host, port) = (effective.host, effective.port);
            addresses.clear();
        }
        Answer::Heard(discovery::greet(&host, &addresses, port.unwrap_or(22)).await)
    };
    timeout(PATIENCE, ask).await.unwrap_or(Answer::Heard(Greeting::Silent))
}

fn saved_as(book: &Book, target: &SshTarget) -> Option<String> {
    let same = |path: &SavedPath| matches!(path, SavedPath::Ssh(ssh) if ssh.target.parse().as_ref() == Ok(target));
    let found = book.connections.iter().find(|(_, connection)| connection.paths.iter().any(same));
    found.map(|(name, _)| name.to_string())
}

fn kind(candidate: &Candidate) -> String {
    let mut words: Vec<String> = candidate
        .sources
        .iter()
        .map(|source| match source {
            Source::SshConfig => "ssh config".to_owned(),
            Source::Lan => "gateway on this network".to_owned(),
            Source::Tailnet => "tailnet".to_owned(),
        })
        .collect();
    words.extend(candidate.os.as_deref().map(|os| inert(os).into_owned()));
    words.join(", ")
}

fn answer_cell(answer: &Answer) -> Cell {
    match answer {
        Answer::Heard(Greeting::Ssh) => Cell::toned(Tone::Good, "answers"),
        Answer::Heard(Greeting::Other) => Cell::toned(Tone::Warn, "no ssh server"),
        Answer::Heard(Greeting::Refused) => Cell::toned(Tone::Warn, "ssh refused"),
        Answer::Heard(Greeting::Silent) => Cell::toned(Tone::Dim, "no answer"),
        Answer::Behind(jump) => Cell::toned(Tone::Dim, format!("through {}", inert(jump))),
    }
}

fn render(style: Style, entries: &[Entry], silent: &[discovery::Silence]) -> String {
    let mut text = String::new();
    if entries.is_empty() {
        text.push_str("No machine was found that may hold a gateway.\n");
        text.push_str(
            "Looked in ~/.ssh/config, for gateways that announce themselves on this network, and in the tailnet.\n",
        );
        let command = style.paint(Tone::Command, "openclaw connect user@host");
        text.push_str(&format!("If you can log in to one: {command}\n"));
    } else {
        text.push_str(&format!("{}\n", style.paint(Tone::Title, "Machines that may hold a gateway")));
        let row = |(index, entry): (usize, &Entry)| {
            vec![
                Cell::from((index + 1).to_string()),
                Cell::from(inert(&entry.candidate.name).into_owned()),
                Cell::from(kind(&entry.candidate)),
                answer_cell(&entry.answer),
                Cell::toned(Tone::Dim, entry.saved.as_ref().map(|name| format!("saved as {name}")).unwrap_or_default()),
            ]
        };
        let rows: Vec<Vec<Cell>> = entries.iter().enumerate().map(row).collect();
        text.push_str(&columns(style, &["#", "name", "what", "ssh", ""], &rows));
    }
    for silence in silent {
        let place = match silence.source {
            Source::SshConfig => "ssh config",
            Source::Lan => "Local network",
            Source::Tailnet => "Tailnet",
        };
        text.push_str(&style.paint(Tone::Dim, &format!("{place}: {}", inert(&silence.reason))));
        text.push('\n');
    }
    if !entries.is_empty() {
        let command = style.paint(Tone::Command, "openclaw connect <name or user@host>");
        text.push_str(&format!("Connect: {command}\n"));
    }
    text
}

fn as_value(entries: &[Entry], silent: &[discovery::Silence]) -> Value {
    let entry = |entry: &Entry| {
        let answer = match &entry.answer {
            Answer::Heard(Greeting::Ssh) => "ssh",
            Answer::Heard(Greeting::Other) => "other",
            Answer::Heard(Greeting::Refused) => "refused",
            Answer::Heard(Greeting::Silent) => "silent",
            Answer::Behind(_) => "behind",
        };
        let candidate = &entry.candidate;
        let sources: Vec<&str> = candidate.sources.iter().map(|source| source.as_str()).collect();
        json!({"name": candidate.name, "target": candidate.target.to_string(), "sources": sources,
            "addresses": candidate.addresses, "gatewayPort": candidate.gateway_port, "os": candidate.os,
            "answer": answer, "savedAs": entry.saved})
    };
    let silent: Vec<Value> =
        silent.iter().map(|silence| json!({"source": silence.source.as_str(), "reason": silence.reason})).collect();
    json!({"candidates": entries.iter().map(entry).collect::<Vec<_>>(), "silent": silent})
}

/// What the typed line means; an empty one means none.
fn pick<'a>(typed: &str, entries: &'a [Entry]) -> Result<Option<&'a Entry>, Failure> {
    if typed.is_empty() {
        return Ok(None);
    }
    let by_number = typed.parse::<usize>().ok().and_then(|number| entries.get(number.checked_sub(1)?));
    let by_name = || entries.iter().find(|entry| entry.candidate.name == typed);
    by_number.or_else(by_name).map(Some).ok_or_else(|| {
        Failure::new(format!("\"{}\" is none of the {} listed.", inert(typed), entries.len()))
            .remedy("list them again", "openclaw connect")
    })
}

/// Anybody on a network may announce anything; what is in one's own config or tailnet is there on purpose.
fn needs_confirmation(candidate: &Candidate) -> bool {
    candidate.sources == [Source::Lan]
}

/// Says where it really leads, since the name is only a claim.
fn confirmation(candidate: &Candidate) -> String {
    format!(
        "\"{}\" is what a machine at {} calls itself. Log in there by ssh? [y/N] ",
        inert(&candidate.name),
        inert(&candidate.target.to_string())
    )
}

fn ask(question: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(format!("The terminal cannot be asked: {error}."));
    io::stderr().write_all(question.as_bytes()).map_err(failed)?;
    io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, target: &str, sources: &[Source], answer: Answer) -> Entry {
        let candidate = Candidate {
            name: name.to_owned(),
            target: target.parse().expect("target"),
            sources: sources.to_vec(),
            addresses: Vec::new(),
            gateway_port: None,
            os: None,
        };
        Entry { candidate, answer, saved: None }
    }

    fn entries() -> Vec<Entry> {
        vec![
            entry("home", "home", &[Source::SshConfig], Answer::Behind("gate".to_owned())),
            entry("Kitchen", "192.168.1.5", &[Source::Lan], Answer::Heard(Greeting::Ssh)),
            entry("box", "box.tail.ts.net", &[Source::SshConfig, Source::Tailnet], Answer::Heard(Greeting::Silent)),
        ]
    }

    #[test]
    fn the_list() {
        let text = render(Style::plain(), &entries(), &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "Machines that may hold a gateway",
                "  #  name     what                     ssh",
                "  1  home     ssh config               through gate",
                "  2  Kitchen  gateway on this network  answers",
                "  3  box      ssh config, tailnet      no answer",
                "Connect: openclaw connect <name or user@host>",
            ]
        );
        let silence = discovery::Silence { source: Source::Tailnet, reason: "Tailscale is stopped".to_owned() };
        let none = render(Style::plain(), &[], &[silence]);
        assert!(
            none.contains("openclaw connect user@host") && none.contains("Tailnet: Tailscale is stopped"),
            "{none}"
        );
    }

    #[test]
    fn picking() {
        let entries = entries();
        let picked = |typed: &str| pick(typed, &entries).map(|entry| entry.map(|entry| entry.candidate.name.clone()));
        assert_eq!(picked("2").expect("picked").as_deref(), Some("Kitchen"));
        assert_eq!(picked("box").expect("picked").as_deref(), Some("box"));
        assert_eq!(picked("").expect("none"), None);
        for wrong in ["0", "4", "-1", "x", "99999999999999999999"] {
            assert!(picked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn p_89_what_announced_itself_is_confirmed_with_its_address() {
        let entries = entries();
        assert!(!needs_confirmation(&entries[0].candidate) && !needs_confirmation(&entries[2].candidate));
        assert!(needs_confirmation(&entries[1].candidate));
        let question = confirmation(&entries[1].candidate);
        assert!(question.contains("192.168.1.5") && question.contains("Kitchen"), "{question}");
    }
}
