//! Conversations as files: JSON Lines, one message a line after a line about the conversation.
//!
//! A gateway with `sessions.export` writes them itself. From others the messages are read with `chat.history`, which leaves out
//! what a gateway keeps to itself; such a file says so in its first line.

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    args::{Export, Import},
    find, reach,
};
use crate::{
    command::rpc::{ADMIN, READ, Rpc},
    context::Context,
    failure::{Failure, Outcome},
    output::{self, inert},
    reach::block_on,
};

/// Time for one page.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Largest file that fits into a frame of 25 MiB once it is quoted.
const MAX_IMPORT_BYTES: u64 = 20 << 20;
/// Rows of one page of `chat.history`.
const PAGE: usize = 1000;

pub fn export(context: &Context, args: &Export) -> Outcome {
    if let Some(file) = &args.output
        && file.exists()
        && !args.force
    {
        return Err(Failure::new(format!("{} exists.", inert(&file.display().to_string())))
            .detail("Nothing was written. --force writes over it."));
    }
    let reach = reach(context, &args.one.at, TIMEOUT)?;
    let progress = context.output.progress("Reading …".to_owned());
    let (key, text) = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ]).await?;
        let (key, row) = find(&mut rpc, &args.one.key).await?;
        let text = match rpc.has("sessions.export") {
            true => exported(&mut rpc, &key).await?,
            false => read(&mut rpc, &key, row.as_ref()).await?,
        };
        rpc.close().await;
        Ok::<_, Failure>((key, text))
    })?;
    drop(progress);
    let lines = text.lines().count();
    let Some(file) = &args.output else {
        output::print(&text);
        return Ok(0);
    };
    write(file, &text)?;
    let shown = inert(&file.display().to_string()).into_owned();
    if args.one.at.json {
        output::json(&json!({"ok": true, "key": key, "file": file, "lines": lines}));
    } else {
        output::line(format!("{} Wrote {} to {shown}: {lines} lines.", context.output.out.ok(), inert(&key)));
    }
    Ok(0)
}

/// Page by page, as the gateway writes it.
async fn exported(rpc: &mut Rpc<'_>, key: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut params = json!({"key": key});
        if let Some(cursor) = &cursor {
            params["cursor"] = json!(cursor);
        }
        let page = rpc.call("sessions.export", params).await?;
        text.push_str(page["jsonl"].as_str().unwrap_or_default());
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let next = page["cursor"].as_str().map(str::to_owned);
        if next.is_none() || next == cursor {
            return Ok(text);
        }
        cursor = next;
    }
}

/// What a foreign gateway tells of a conversation.
async fn read(rpc: &mut Rpc<'_>, key: &str, row: Option<&Value>) -> Result<String, Failure> {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let mut params = json!({"sessionKey": key, "limit": PAGE});
        if !rows.is_empty() {
            params["offset"] = json!(rows.len());
        }
        let page = rpc.call("chat.history", params).await?;
        let mut messages = page["messages"].as_array().cloned().unwrap_or_default();
        let more = page["hasMore"] == true && !messages.is_empty();
        // Pages go back in time.
        messages.append(&mut rows);
        rows = messages;
        if !more {
            break;
        }
    }
    let field = |name: &str| row.and_then(|row| row.get(name)).cloned().unwrap_or_default();
    let head = json!({"type": "session", "version": 1, "key": key, "sessionId": field("sessionId"), "label": field("label"),
        "source": "chat.history", "note": "read through chat.history: display rows, not the gateway's own record"});
    let mut text = format!("{head}\n");
    for row in rows {
        text.push_str(&format!("{}\n", json!({"type": "message", "message": row})));
    }
    Ok(text)
}

/// A conversation is nobody else's business.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::new(format!("{} cannot be written: {error}.", inert(&file.display().to_string()))))
}

pub fn import(context: &Context, args: &Import) -> Outcome {
    let shown = inert(&args.file.display().to_string()).into_owned();
    let unread = |error: std::io::Error| Failure::new(format!("{shown} cannot be read: {error}."));
    let mut text = String::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_IMPORT_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
    } else {
        let file = std::fs::File::open(&args.file).map_err(unread)?;
        file.take(MAX_IMPORT_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
    }
    if text.len() as u64 > MAX_IMPORT_BYTES {
        return Err(Failure::new(format!("{shown} is larger than {} MiB.", MAX_IMPORT_BYTES >> 20)));
    }
    check(&text)?;
    let mut params = json!({"jsonl": text, "dryRun": args.dry_run});
    if let Some(key) = &args.key {
        params["key"] = json!(key);
    }
    let reach = reach(context, &args.at, TIMEOUT)?;
    let answer = block_on(async {
        let mut rpc = Rpc::open(reach, &[READ, ADMIN]).await?;
        rpc.need("sessions.import", "import conversations")?;
        let answer = rpc.call("sessions.import", params).await?;
        rpc.close().await;
        Ok(answer)
    })?;
    if args.at.json {
        output::json(&answer);
        return Ok(0);
    }
    let key = answer["key"].as_str().unwrap_or_default();
    let count = answer["messages"].as_u64().unwrap_or_default();
    let ok = context.output.out.ok();
    match args.dry_run {
        true => output::line(format!("{ok} {} with {count} messages could be imported. Nothing was.", inert(key))),
        false => output::line(format!("{ok} Imported {} with {count} messages.", inert(key))),
    }
    Ok(0)
}

/// Refuses what cannot be meant before anything is sent.
fn check(text: &str) -> Result<(), Failure> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return Err(Failure::new("The file is empty; nothing was imported."));
    }
    for (number, line) in lines {
        if !serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object()) {
            return Err(Failure::new(format!("Line {} is no JSON object; nothing was imported.", number + 1))
                .detail("It has to be what openclaw sessions export wrote."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_lines() {
        for (text, ok) in [
            ("{\"a\":1}\n{\"b\":2}\n", true),
            ("", false),
            ("\n\n", false),
            ("{\"a\":1}\nx\n", false),
            ("[1]\n", false),
        ] {
            assert_eq!(check(text).is_ok(), ok, "{text:?}");
        }
    }
}
