//! How conversations are shown. All of their texts come from elsewhere.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::{
    command::chat::{
        entry::summary as entry_summary,
        printer::fit,
        wire::{Author, Message, Part, Row, text},
    },
    output::{
        Style, Tone, inert,
        table::{self, Cell, Facts},
        time,
    },
};

/// Longest title in the list, in characters.
const MAX_TITLE: usize = 40;
/// Lines of a tool's answer.
const TOOL_LINES: usize = 12;

fn short(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(max).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

fn tokens(row: &Row) -> String {
    match (row.tokens, row.context) {
        (Some(used), Some(fit)) if fit > 0 => format!("{used} ({}%)", used.saturating_mul(100) / fit),
        (Some(used), _) => used.to_string(),
        _ => "–".to_owned(),
    }
}

pub fn list(style: Style, rows: &[Row], total: Option<u64>, now: i64) -> String {
    if rows.is_empty() {
        let command = style.paint(Tone::Command, "openclaw chat");
        return format!("No conversations yet. Begin one: {command}\n");
    }
    let shown = rows.len() as u64;
    let count = match total {
        Some(total) if total > shown => format!("{shown} of {total}"),
        _ => shown.to_string(),
    };
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let ago = row.updated_ms.map_or_else(|| "–".to_owned(), |then| time::ago(then, now));
            let title = row.title.as_deref().or(row.preview.as_deref()).map(|title| short(title, MAX_TITLE));
            let mark = match (row.running, row.unread) {
                (true, _) => " (running)",
                (false, true) => " (unread)",
                _ => "",
            };
            vec![
                Cell::toned(Tone::Command, inert(&row.key)),
                Cell::from(format!("{ago}{mark}")),
                Cell::from(inert(row.model.as_deref().unwrap_or("–"))),
                Cell::from(tokens(row)),
                Cell::toned(Tone::Dim, inert(&title.unwrap_or_default())),
            ]
        })
        .collect();
    let title = style.paint(Tone::Title, &format!("Conversations ({count})"));
    format!("{title}\n\n{}", table::columns(style, &["key", "last used", "model", "tokens", "about"], &cells))
}

pub fn one(style: Style, raw: &Value, now: i64) -> String {
    let Some(row) = Row::of(raw) else { return "The gateway's answer has no conversation.\n".to_owned() };
    let mut facts = Facts::new();
    facts.row("key", Cell::toned(Tone::Command, inert(&row.key)));
    facts.maybe("title", row.title.as_deref().map(inert));
    facts.maybe("id", raw["sessionId"].as_str().map(inert));
    facts.row("agent", inert(row.agent()));
    facts.maybe("model", row.model.as_deref().map(inert));
    facts.maybe("thinking", row.thinking.as_deref().map(inert));
    facts.row("tokens", tokens(&row));
    facts.maybe("cost", row.cost.filter(|cost| *cost > 0.0).map(|cost| format!("${cost:.4}")));
    facts.maybe("kind", text(raw, "chatType").or_else(|| text(raw, "kind")).as_deref().map(inert));
    facts.maybe("channel", text(raw, "channel").or_else(|| text(raw, "lastChannel")).as_deref().map(inert));
    facts.maybe("begun", raw["createdAt"].as_i64().map(|then| time::ago(then, now)));
    facts.maybe("last used", row.updated_ms.map(|then| time::ago(then, now)));
    facts.row("runs now", if row.running { "yes" } else { "no" });
    facts.maybe("last words", row.preview.as_deref().map(|words| inert(&short(words, 160)).into_owned()));
    format!("{}\n{}", style.paint(Tone::Title, "Conversation"), facts.render(style))
}

fn clock(at_ms: Option<i64>) -> String {
    let zoned = at_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|at| at.to_zoned(TimeZone::system()));
    zoned.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

pub fn history(style: Style, answer: &Value, tools: bool, thinking: bool) -> String {
    let rows: Vec<Message> = answer["messages"].as_array().into_iter().flatten().filter_map(Message::of).collect();
    let mut out = String::new();
    for row in &rows {
        let who = match row.author {
            Author::User => style.paint(Tone::Title, "you"),
            Author::Assistant => style.paint(Tone::Good, "agent"),
            Author::Tool => style.paint(Tone::Command, "tool"),
            Author::System => style.paint(Tone::Warn, "system"),
        };
        let mut body = String::new();
        for part in &row.parts {
            let text = match part {
                Part::Text(text) => fit(text.trim_end()),
                Part::Media(name) => format!("[{}]", inert(name)),
                Part::Thinking(text) if thinking => style.paint(Tone::Dim, &fit(text.trim())),
                Part::Call { name, args, .. } if tools => {
                    format!("{} {}", style.paint(Tone::Command, &inert(name)), inert(&entry_summary(args)))
                }
                Part::Result { name, text, failed, .. } if tools => {
                    let mark = if *failed { style.bad() } else { style.ok() };
                    let lines: Vec<&str> = text.trim_end().lines().collect();
                    let shown = fit(&lines.iter().take(TOOL_LINES).copied().collect::<Vec<_>>().join("\n"));
                    let more = lines.len().saturating_sub(TOOL_LINES);
                    let more = if more > 0 { format!("\n… {more} more lines") } else { String::new() };
                    format!("{mark} {}\n{}", inert(name), style.paint(Tone::Dim, &format!("{shown}{more}")))
                }
                _ => continue,
            };
            if !text.trim().is_empty() {
                body.push_str(&text);
                body.push('\n');
            }
        }
        if let Some(error) = &row.error {
            body.push_str(&format!("{} {}\n", style.bad(), inert(error)));
        }
        if !body.is_empty() {
            let at = style.paint(Tone::Dim, &clock(row.at_ms));
            out.push_str(&format!("{who}  {at}\n{body}\n"));
        }
    }
    if out.is_empty() {
        return "Nothing was said in this conversation.\n".to_owned();
    }
    out.pop();
    out
}

pub fn found(style: Style, answer: &Value, now: i64) -> String {
    let hits = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hits.is_empty() {
        return "Nothing found.\n".to_owned();
    }
    let mut out = String::new();
    for hit in hits {
        let key = text(hit, "sessionKey").unwrap_or_default();
        let ago = hit["timestamp"].as_i64().map(|then| time::ago(then, now)).unwrap_or_default();
        let role = text(hit, "role").unwrap_or_default();
        let about = style.paint(Tone::Dim, &format!("{}, {ago}", inert(&role)));
        let snippet = short(&text(hit, "snippet").unwrap_or_default(), 190);
        out.push_str(&format!("{}  {about}\n  {}\n", style.paint(Tone::Command, &inert(&key)), inert(&snippet)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn p_09_titles_and_texts_are_inert() {
        let evil = "a\u{1b}[2Jb";
        let row =
            json!({"key": format!("agent:main:{evil}"), "label": evil, "model": evil, "lastMessagePreview": evil});
        let rows = [Row::of(&row).expect("a row")];
        let rows_of = json!({"messages": [{"role": "user", "content": evil},
            {"role": "assistant", "content": [{"type": "text", "text": evil}, {"type": "thinking", "thinking": evil},
             {"type": "toolCall", "id": "c", "name": evil, "arguments": {"command": evil}}], "errorMessage": evil},
            {"role": "toolResult", "toolName": evil, "content": evil}]});
        let hits = json!({"results": [{"sessionKey": evil, "role": evil, "snippet": evil}]});
        for shown in [
            list(Style::plain(), &rows, None, 0),
            one(Style::plain(), &row, 0),
            history(Style::plain(), &rows_of, true, true),
            found(Style::plain(), &hits, 0),
        ] {
            assert!(!shown.contains('\u{1b}') && shown.contains("\\u{1b}"), "{shown}");
        }
    }

    #[test]
    fn what_was_said() {
        let answer = json!({"messages": [
            {"role": "user", "content": "look", "timestamp": 0},
            {"role": "assistant", "content": [{"type": "toolCall", "id": "c", "name": "exec", "arguments": {"command": "ls"}}]},
            {"role": "toolResult", "toolCallId": "c", "toolName": "exec", "content": "a\nb"},
            {"role": "assistant", "content": [{"type": "text", "text": "two\nlines"}]}]});
        let plain = |tools| {
            let text = history(Style::plain(), &answer, tools, false);
            text.lines().map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(plain(false), ["you", "look", "", "agent", "two", "lines"]);
        assert_eq!(
            plain(true),
            ["you", "look", "", "agent", "exec ls", "", "tool", "ok exec", "a", "b", "", "agent", "two", "lines"]
        );
    }
}
