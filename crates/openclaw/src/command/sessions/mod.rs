//! `openclaw sessions …`: the conversations a gateway keeps.

mod args;
mod show;
mod transfer;

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::Duration,
};

use serde_json::{Value, json};

pub use args::{Sessions, SessionsCommand};

use self::args::{Compact, Delete, History, List, One, Rename, Search, Send, Sure};
use super::{
    chat::wire::{Row, same_session},
    rpc::{ADMIN, READ, Rpc, WRITE, fresh_key},
};
use crate::{
    args::{PortTargetArgs, TargetArgs},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert, time},
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a model to sum a conversation up.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(300);
/// Rows asked for at once.
const PAGE: u64 = 200;

pub fn run(context: &Context, args: &Sessions) -> Outcome {
    use SessionsCommand as C;
    match &args.command {
        None => list(context, &args.list),
        Some(C::List(args)) => list(context, args),
        Some(C::Show(args)) => show(context, args),
        Some(C::History(args)) => history(context, args),
        Some(C::Search(args)) => search(context, args),
        Some(C::Send(args)) => send(context, args),
        Some(C::Rename(args)) => rename(context, args),
        Some(C::Reset(args)) => reset(context, args),
        Some(C::Compact(args)) => compact(context, args),
        Some(C::Delete(args)) => delete(context, args),
        Some(C::Export(args)) => transfer::export(context, args),
        Some(C::Import(args)) => transfer::import(context, args),
    }
}

fn reach<'a>(context: &'a Context, at: &TargetArgs, timeout: Duration) -> Result<Reach<'a>, Failure> {
    context.reach(&PortTargetArgs { target: at.clone(), port: None }, timeout)
}

/// All rows up to `limit`, page by page; the answer of the gateway with these rows.
async fn rows(rpc: &mut Rpc<'_>, params: &Value, limit: Option<u64>) -> Result<Value, Failure> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let left = limit.map_or(PAGE, |limit| limit.saturating_sub(all.len() as u64).min(PAGE));
        let mut params = params.clone();
        params["limit"] = json!(left);
        if !all.is_empty() {
            params["offset"] = json!(all.len());
        }
        let mut answer = rpc.call("sessions.list", params).await?;
        let page = answer["sessions"].as_array().cloned().unwrap_or_default();
        let more = answer["hasMore"] == true && !page.is_empty();
        all.extend(page);
        if !more || limit.is_some_and(|limit| all.len() as u64 >= limit) {
            answer["count"] = json!(all.len());
            answer["sessions"] = Value::Array(all);
            return Ok(answer);
        }
    }
}

fn list(context: &Context, args: &List) -> Outcome {
    let limit = match args.limit.trim() {
        "all" => None,
        number => match number.parse::<u64>() {
            Ok(number) if number > 0 => Some(number),
            _ => return Err(Failure::new("--limit must be a positive number, or \"all\".")),
        },
    };
    let mut params = json!({"includeGlobal": true, "includeUnknown": true, "includeDerivedTitles": true,
        "includeLastMessage": true});
    if let Some(agent) = &args.agent {
        params["agentId"] = json!(agent);
    }
    if let Some(minutes) = args.active {
        params["activeMinutes"] = json!(minutes);
    }
    let reach = reach(context, &args.at, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let answer = rows(&mut rpc, &params, limit).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    let rows: Vec<Row> = answer["sessions"].as_array().into_iter().flatten().filter_map(Row::of).collect();
    output::print(&show::list(context.output.out, &rows, answer["totalCount"].as_u64(), time::now_ms()));
    Ok(0)
}

/// The whole key of the session that was meant: as typed, `main`, or the end of exactly one key.
async fn find(rpc: &mut Rpc<'_>, typed: &str) -> Result<(String, Option<Value>), Failure> {
    let typed = typed.trim();
    if typed.is_empty() {
        return Err(Failure::new("A session key is needed.").remedy("see which there are", "openclaw sessions"));
    }
    let answer = rows(rpc, &json!({"includeGlobal": true, "includeUnknown": true}), None).await?;
    let all = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    pick(typed, all)
}

fn pick(typed: &str, all: &[Value]) -> Result<(String, Option<Value>), Failure> {
    let key = |row: &Value| row["key"].as_str().unwrap_or_default().to_owned();
    let found = |row: &Value| Ok((key(row), Some(row.clone())));
    let lower = typed.to_lowercase();
    let exact = all.iter().find(|row| key(row).eq_ignore_ascii_case(typed));
    if let Some(row) = exact.or_else(|| all.iter().find(|row| row["sessionId"].as_str() == Some(typed))) {
        return found(row);
    }
    if let Some(row) = all.iter().find(|row| same_session(&key(row), typed)) {
        return found(row);
    }
    let ends: Vec<&Value> = all.iter().filter(|row| key(row).to_lowercase().ends_with(&format!(":{lower}"))).collect();
    let titled = |row: &&Value| ["label", "displayName"].iter().any(|name| row[*name].as_str() == Some(typed));
    match (&ends[..], all.iter().filter(titled).collect::<Vec<_>>().as_slice()) {
        ([only], _) | ([], [only]) => found(only),
        ([], []) => Err(Failure::new(format!("There is no conversation \"{}\".", inert(typed)))
            .remedy("see which there are", "openclaw sessions")),
        _ => {
            let failure = Failure::new(format!("\"{}\" may be more than one conversation.", inert(typed)));
            let failure = failure.detail("Nothing was done. Give the whole key:");
            Err(ends.iter().take(5).fold(failure, |failure, row| failure.detail(format!("  {}", inert(&key(row))))))
        }
    }
}

fn show(context: &Context, args: &One) -> Outcome {
    let reach = reach(context, &args.at, DEFAULT_TIMEOUT)?;
    let row = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let (key, row) = find(&mut rpc, &args.key).await?;
        let row = if rpc.has("sessions.describe") {
            let params = json!({"key": key, "includeDerivedTitles": true, "includeLastMessage": true});
            let answer = rpc.call("sessions.describe", params).await?;
            if answer["session"].is_object() { Some(answer["session"].clone()) } else { row }
        } else {
            row
        };
        rpc.close().await;
        row.ok_or_else(|| Failure::new(format!("The gateway says nothing of \"{}\".", inert(&args.key))))
    })?;
    if args.at.json {
        output::json(&row);
    } else {
        output::print(&show::one(context.output.out, &row, time::now_ms()));
    }
    Ok(0)
}

fn history(context: &Context, args: &History) -> Outcome {
    let reach = reach(context, &args.one.at, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let (key, _) = find(&mut rpc, &args.one.key).await?;
        let answer = rpc.call("chat.history", json!({"sessionKey": key, "limit": args.limit})).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.one.at.json {
        output::json(&answer);
        return Ok(0);
    }
    output::print(&show::history(context.output.out, &answer, args.tools, args.thinking));
    if answer["hasMore"] == true {
        output::note("There is more: --limit 1000, or openclaw sessions export.");
    }
    Ok(0)
}

fn search(context: &Context, args: &Search) -> Outcome {
    let words = args.words.join(" ");
    let mut params = json!({"query": words, "limit": args.limit});
    if let Some(agent) = &args.agent {
        params["agentId"] = json!(agent);
    }
    let reach = reach(context, &args.at, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        rpc.need("sessions.search", "search conversations")?;
        if !args.session.is_empty() {
            let mut keys = Vec::new();
            for typed in &args.session {
                keys.push(find(&mut rpc, typed).await?.0);
            }
            params["sessionKeys"] = json!(keys);
        }
        let answer = rpc.call("sessions.search", params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    output::print(&show::found(context.output.out, &answer, time::now_ms()));
    if answer["indexing"] == true {
        output::note("The gateway is still indexing; there may be more.");
    }
    // As grep has it: nothing found is told by the exit code, too.
    Ok(u8::from(answer["results"].as_array().is_none_or(Vec::is_empty)))
}

fn send(context: &Context, args: &Send) -> Outcome {
    if args.message.trim().is_empty() {
        return Err(Failure::new("--message must not be empty."));
    }
    let key = fresh_key()?;
    let reach = reach(context, &args.one.at, DEFAULT_TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[WRITE]).await?;
        let (method, name) =
            if rpc.has("sessions.send") { ("sessions.send", "key") } else { ("chat.send", "sessionKey") };
        let mut params = json!({"message": args.message, "idempotencyKey": key});
        params[name] = json!(args.one.key.trim());
        if let Some(thinking) = &args.thinking {
            params["thinking"] = json!(thinking);
        }
        let answer = rpc.call(method, params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.one.at.json {
        output::json(&answer);
    } else {
        let style = context.output.out;
        let run = answer["runId"].as_str().unwrap_or(&key);
        output::line(format!("{} Sent. Run {}.", style.ok(), inert(run)));
        let command = format!("openclaw sessions history {}", inert(args.one.key.trim()));
        output::line(format!("Read the answer later: {}", style.paint(output::Tone::Command, &command)));
    }
    Ok(0)
}

fn rename(context: &Context, args: &Rename) -> Outcome {
    let title = args.title.trim();
    let reach = reach(context, &args.one.at, DEFAULT_TIMEOUT)?;
    let (answer, key) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, WRITE]).await?;
        let (key, _) = find(&mut rpc, &args.one.key).await?;
        let label = if title.is_empty() { Value::Null } else { json!(title) };
        let answer = rpc.call("sessions.patch", json!({"key": key, "label": label})).await?;
        rpc.close().await;
        Ok::<_, Failure>((answer, key))
    })?;
    let done = match title.is_empty() {
        true => format!("{} has no title any more.", inert(&key)),
        false => format!("{} is called \"{}\".", inert(&key), inert(title)),
    };
    say(context, args.one.at.json, &answer, &done)
}

/// Asks before something is lost; without a terminal `--yes` has to say it.
fn sure(args: &Sure, what: &str, key: &str) -> Result<bool, Failure> {
    if args.yes {
        return Ok(true);
    }
    if args.one.at.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(format!("{what} needs --yes where nobody can be asked.")).detail("Nothing was done."));
    }
    output::note(format!("{what} {}? [y/N]", inert(key)));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(format!("no answer could be read: {error}")))?;
    let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !yes {
        output::note("Nothing was done.");
    }
    Ok(yes)
}

fn reset(context: &Context, args: &Sure) -> Outcome {
    let reach = reach(context, &args.one.at, DEFAULT_TIMEOUT)?;
    let done = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let (key, _) = find(&mut rpc, &args.one.key).await?;
        if !sure(args, "Begin anew:", &key)? {
            return Ok(None);
        }
        let answer = rpc.call("sessions.reset", json!({"key": key})).await?;
        rpc.close().await;
        Ok(Some((answer, key)))
    })?;
    let Some((answer, key)) = done else { return Ok(1) };
    say(context, args.one.at.json, &answer, &format!("{} begins anew with the next message.", inert(&key)))
}

fn compact(context: &Context, args: &Compact) -> Outcome {
    let reach = reach(context, &args.one.at, COMPACT_TIMEOUT)?;
    let _progress = context.output.progress("Shortening …".to_owned());
    let (answer, key) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, ADMIN]).await?;
        let (key, _) = find(&mut rpc, &args.one.key).await?;
        let mut params = json!({"key": key});
        if let Some(lines) = args.max_lines {
            params["maxLines"] = json!(lines);
        }
        let answer = rpc.call("sessions.compact", params).await?;
        rpc.close().await;
        Ok::<_, Failure>((answer, key))
    })?;
    drop(_progress);
    let done = match (answer["compacted"].as_bool(), answer["reason"].as_str()) {
        (Some(false), Some(reason)) => format!("{} stays as it is: {}.", inert(&key), inert(reason)),
        (Some(false), None) => format!("{} stays as it is.", inert(&key)),
        _ => format!("{} is shorter for the model now; what was said is kept.", inert(&key)),
    };
    say(context, args.one.at.json, &answer, &done)
}

fn delete(context: &Context, args: &Delete) -> Outcome {
    let reach = reach(context, &args.sure.one.at, DEFAULT_TIMEOUT)?;
    let done = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, WRITE]).await?;
        let (key, _) = find(&mut rpc, &args.sure.one.key).await?;
        if !sure(&args.sure, "Delete", &key)? {
            return Ok(None);
        }
        let params = json!({"key": key, "deleteTranscript": !args.keep_transcript});
        let answer = rpc.call("sessions.delete", params).await?;
        rpc.close().await;
        Ok(Some((answer, key)))
    })?;
    let Some((answer, key)) = done else { return Ok(1) };
    if answer["deleted"] == false {
        let why = answer["reason"].as_str().unwrap_or("it was not there any more");
        return Err(Failure::new(format!("{} was not deleted: {}.", inert(&key), inert(why))));
    }
    say(context, args.sure.one.at.json, &answer, &format!("Deleted {}.", inert(&key)))
}

fn say(context: &Context, as_json: bool, result: &Value, text: &str) -> Outcome {
    if as_json {
        output::json(result);
    } else {
        output::line(format!("{} {text}", context.output.out.ok()));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_by_any_name() {
        let all = [
            json!({"key": "agent:main:main", "sessionId": "id-1"}),
            json!({"key": "agent:main:telegram:group:-5", "label": "family"}),
            json!({"key": "agent:ops:telegram:group:-5"}),
            json!({"key": "agent:ops:work"}),
        ];
        let check = |typed: &str, expected: Option<&str>| {
            assert_eq!(pick(typed, &all).ok().map(|(key, _)| key).as_deref(), expected, "{typed}");
        };
        check("agent:main:main", Some("agent:main:main"));
        check("main", Some("agent:main:main"));
        check("id-1", Some("agent:main:main"));
        check("work", Some("agent:ops:work"));
        check("family", Some("agent:main:telegram:group:-5"));
        check("AGENT:OPS:WORK", Some("agent:ops:work"));
        check("-5", None);
        check("nothing", None);
    }
}
