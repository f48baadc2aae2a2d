//! `openclaw tunnel ls`.

use openclaw_remote::tunnel::{ControlError, State, Status, TunnelDir, control};
use serde_json::json;

use super::args::ListArgs;
use crate::{
    context::Context,
    failure::Outcome,
    output::{
        self, Tone, inert,
        table::{self, Cell},
        time,
    },
    reach::block_on,
};

/// A tunnel as it is listed.
pub enum Row {
    Running(Status),
    /// Nobody keeps it now.
    Closed(TunnelDir),
    /// Its supervisor is there and does not say how it is.
    Mute(TunnelDir, String),
}

/// `openclaw tunnel ls`.
pub fn ls(context: &Context, args: &ListArgs) -> Outcome {
    let dirs = TunnelDir::all(&context.paths.state_dir);
    let rows = block_on(async {
        let mut rows = Vec::new();
        for dir in dirs {
            rows.push(match control::ask_status(&dir).await {
                Ok(status) => Row::Running(status),
                Err(ControlError::NotRunning { .. }) => Row::Closed(dir),
                Err(error) => Row::Mute(dir, error.to_string()),
            });
        }
        Ok(rows)
    })?;
    if args.json {
        let tunnels: Vec<_> = rows
            .iter()
            .map(|row| match row {
                Row::Running(status) => json!(status),
                Row::Closed(dir) => json!({"name": dir.name().as_str(), "state": "closed"}),
                Row::Mute(dir, error) => json!({"name": dir.name().as_str(), "state": "unknown", "error": error}),
            })
            .collect();
        output::json(&json!({ "tunnels": tunnels }));
        return Ok(0);
    }
    if rows.is_empty() {
        output::line("No tunnels. Open one: openclaw tunnel up user@host");
        return Ok(0);
    }
    output::print(&render(context, &rows));
    Ok(0)
}

/// The table, and below it why a tunnel is not up.
pub fn render(context: &Context, rows: &[Row]) -> String {
    let style = context.output.out;
    let now = time::now_ms();
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| match row {
            Row::Closed(dir) => {
                let dim = |text: &str| Cell::toned(Tone::Dim, text);
                vec![Cell::from(dir.name().as_str()), dim("closed"), dim("-"), dim("-"), dim("-"), dim("-")]
            }
            Row::Mute(dir, _) => {
                let dim = || Cell::toned(Tone::Dim, "-");
                let name = Cell::from(dir.name().as_str());
                vec![name, Cell::toned(Tone::Bad, "unknown"), dim(), dim(), dim(), dim()]
            }
            Row::Running(status) => {
                let tone = match status.state {
                    State::Up => Tone::Good,
                    State::Connecting | State::Waiting => Tone::Warn,
                    State::Failed | State::Stopped => Tone::Bad,
                };
                let since = i64::try_from(status.since_ms).unwrap_or(now);
                vec![
                    Cell::from(inert(&status.name).into_owned()),
                    Cell::toned(tone, status.state.as_str()),
                    Cell::from(time::ago(since, now)),
                    Cell::from(status.rtt_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))),
                    Cell::from(status.port.map_or("-".to_owned(), |port| port.to_string())),
                    Cell::from(inert(&status.target).into_owned()),
                ]
            }
        })
        .collect();
    let mut text = table::columns(style, &["name", "state", "since", "round trip", "port", "to"], &cells);
    for row in rows {
        let status = match row {
            Row::Running(status) => status,
            Row::Closed(_) => continue,
            Row::Mute(dir, error) => {
                text.push_str(&format!("{} {}\n", style.bad(), inert(error)));
                let down = format!("openclaw tunnel down {name}; openclaw tunnel up {name}", name = dir.name());
                text.push_str(&format!("  open it anew: {}\n", style.paint(Tone::Command, &down)));
                continue;
            }
        };
        if let Some(refused) = &status.port_refused {
            let why = super::up::held(refused.port, &refused.reason);
            let name = inert(&status.name).into_owned();
            text.push_str(&format!(
                "{} {name}: port {} could not be had: {}\n",
                style.warn(),
                refused.port,
                inert(&why)
            ));
        }
        if status.state == State::Up {
            continue;
        }
        if let Some(last) = &status.last_failure {
            let (name, message) = (inert(&status.name), inert(&last.message));
            text.push_str(&format!("{} {name}: {message} ({})\n", style.bad(), state_words(status)));
            if let Some(advice) = &last.remedy {
                text.push_str(&format!(
                    "  {}: {}\n",
                    inert(&advice.what),
                    style.paint(Tone::Command, &inert(&advice.command))
                ));
            }
        }
    }
    text
}

/// What a state means for who waits.
pub fn state_words(status: &Status) -> String {
    let now = time::now_ms();
    match status.state {
        State::Connecting => "connecting".to_owned(),
        State::Up => "up".to_owned(),
        State::Waiting => match status.next_try_ms.and_then(|at| u64::try_from(i64::try_from(at).ok()? - now).ok()) {
            Some(ms) => format!("tries again in {}", time::span(std::time::Duration::from_millis(ms))),
            None => "tries again".to_owned(),
        },
        State::Failed => "stopped trying: somebody has to do something first".to_owned(),
        State::Stopped => "stopped".to_owned(),
    }
}
