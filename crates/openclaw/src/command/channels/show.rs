//! How accounts are shown. Names come from services and configs.

use openclaw_protocol::method::channels::{AccountReport, ChannelsReport};
use serde_json::Value;

use crate::output::{
    Style, Tone, inert,
    table::{self, Cell},
    time,
};

/// `channels list`.
pub fn inventory(style: Style, rows: &[Value]) -> String {
    if rows.is_empty() {
        return "No channels are configured.\n".to_owned();
    }
    let yes = |value: &Value, yes: &str, no: &str| {
        if value.as_bool() == Some(true) { Cell::toned(Tone::Good, yes) } else { Cell::toned(Tone::Warn, no) }
    };
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            vec![
                Cell::from(row["label"].as_str().unwrap_or_default()),
                Cell::from(inert(row["accountId"].as_str().unwrap_or("-")).into_owned()),
                yes(&row["configured"], "configured", "no token"),
                yes(&row["enabled"], "enabled", "off"),
            ]
        })
        .collect();
    table::columns(style, &["channel", "account", "token", "state"], &rows)
}

/// `channels status`.
pub fn status(style: Style, report: &ChannelsReport, now: i64) -> String {
    if report.channel_accounts.values().all(Vec::is_empty) {
        return format!(
            "No channels are configured. Add one: {}\n",
            style.paint(Tone::Command, "openclaw channels add telegram")
        );
    }
    let mut rows = Vec::new();
    for channel in &report.channel_order {
        let label = report.channel_labels.get(channel).unwrap_or(channel);
        for account in report.channel_accounts.get(channel).into_iter().flatten() {
            rows.push(vec![
                Cell::from(inert(label).into_owned()),
                Cell::from(inert(&account.account_id).into_owned()),
                state(style, account),
                Cell::from(inert(account.name.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(account.mode.clone().unwrap_or_else(|| "-".to_owned())),
                Cell::from(account.dm_policy.clone().unwrap_or_else(|| "-".to_owned())),
                Cell::from(account.last_inbound_at.map_or_else(|| "-".to_owned(), |at| time::ago(at, now))),
                Cell::from(account.last_outbound_at.map_or_else(|| "-".to_owned(), |at| time::ago(at, now))),
                probe(account),
            ]);
        }
    }
    let heading = ["channel", "account", "state", "name", "mode", "DMs", "last in", "last out", "probe"];
    let mut text = table::columns(style, &heading, &rows);
    for issue in &report.status_issues {
        let place = format!("{}/{}", issue.channel, issue.account_id);
        text.push_str(&format!("\n{} {}: {}\n", style.warn(), inert(&place), inert(&issue.message)));
        if let Some(fix) = &issue.fix {
            text.push_str(&format!("  {}\n", style.paint(Tone::Command, &inert(fix))));
        }
    }
    text
}

fn state(style: Style, account: &AccountReport) -> Cell {
    let dot = if style.unicode() { "● " } else { "" };
    match account.health_state.as_str() {
        "healthy" => Cell::toned(Tone::Good, format!("{dot}running")),
        "starting" => Cell::toned(Tone::Warn, "starting"),
        "retrying" => Cell::toned(Tone::Warn, format!("retrying ({})", account.reconnect_attempts)),
        "failed" => Cell::toned(Tone::Bad, "failed"),
        other => Cell::toned(Tone::Dim, inert(other).into_owned()),
    }
}

fn probe(account: &AccountReport) -> Cell {
    match &account.probe {
        None => Cell::toned(Tone::Dim, "-"),
        Some(probe) if probe.ok => Cell::toned(Tone::Good, format!("works ({} ms)", probe.elapsed_ms)),
        Some(probe) => {
            let why = probe.error.as_deref().unwrap_or("no reason given");
            Cell::toned(Tone::Bad, format!("failed: {}", inert(why)))
        }
    }
}
