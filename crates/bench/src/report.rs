//! What is measured, what is to be reached, and the table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{load::Values, machine::Machine, stats::median, subject::Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Lower,
    Higher,
}
use Better::{Higher, Lower};

/// Something to reach.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// At most this, in the metric's unit.
    AtMost(f64),
    /// This many times better than the reference.
    TimesReference(f64),
    /// Our figure divided by the echo's: at least (throughput) or at most (time) this.
    OfEcho(f64),
}
use Goal::{AtMost, OfEcho, TimesReference};

/// One line of the table.
pub struct Metric {
    pub key: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    goals: &'static [Goal],
}

const fn metric(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    goals: &'static [Goal],
) -> Metric {
    Metric { key, title, unit, better, goals }
}

/// Every metric in the order of the table. Goals are the project's; where one names the reference or the echo, only the
/// ratio counts.
pub const METRICS: &[Metric] = &[
    metric("first_hello", "exec to first hello-ok", "ms", Lower, &[AtMost(50.0), TimesReference(200.0)]),
    metric("pss_fresh", "memory at rest, fresh", "MB", Lower, &[AtMost(12.0), TimesReference(50.0)]),
    metric("pss_loaded", "memory after the load", "MB", Lower, &[AtMost(24.0), TimesReference(60.0)]),
    metric("idle_conn", "memory per idle connection", "KiB", Lower, &[AtMost(12.0)]),
    metric("connects_device", "connects × 8, Ed25519 device", "1/s", Higher, &[TimesReference(10.0)]),
    metric("connects_token", "connects × 8, shared token", "1/s", Higher, &[TimesReference(10.0), OfEcho(0.6)]),
    metric("handshake_p50", "connect, one at a time, p50", "ms", Lower, &[TimesReference(4.0), OfEcho(1.5)]),
    metric("handshake_p99", "connect, one at a time, p99", "ms", Lower, &[]),
    metric("health_p50", "health, one at a time, p50", "ms", Lower, &[]),
    metric("health_p99", "health, one at a time, p99", "ms", Lower, &[]),
    metric("health_16", "health × 16 on one connection", "1/s", Higher, &[OfEcho(0.6), TimesReference(35.0)]),
    metric("health_cpu", "gateway CPU per health", "µs", Lower, &[]),
    metric("health_8x16", "health, 8 connections × 16", "1/s", Higher, &[]),
    metric("health_8x16_p99", "health, 8 connections × 16, p99", "ms", Lower, &[OfEcho(2.0), TimesReference(40.0)]),
    metric("broadcast_burst", "broadcast burst to 200, events", "1/s", Higher, &[TimesReference(15.0), OfEcho(0.4)]),
    metric("broadcast_p50", "broadcast to 200, delivery p50", "ms", Lower, &[TimesReference(2.0), OfEcho(1.5)]),
    metric("invoke_p50", "node.invoke, one at a time, p50", "ms", Lower, &[TimesReference(12.0), OfEcho(1.7)]),
    metric("invoke_16", "node.invoke × 16", "1/s", Higher, &[TimesReference(50.0), OfEcho(0.5)]),
    metric("invoke_p99", "node.invoke, one at a time, p99", "ms", Lower, &[]),
    metric("node_memory", "memory per connected node", "KiB", Lower, &[]),
    metric("nodes_invoke", "node.invoke × 16, to all nodes in turn", "1/s", Higher, &[]),
    metric("nodes_invoke_p99", "node.invoke × 16, to all nodes in turn, p99", "ms", Lower, &[]),
    metric("nodes_list_p50", "node.list of all nodes, p50", "ms", Lower, &[]),
    metric("turn_p50", "turn, the model's time left out, p50", "ms", Lower, &[]),
    metric("turn_p99", "turn, the model's time left out, p99", "ms", Lower, &[]),
    metric("turn_cpu", "gateway CPU per turn", "ms", Lower, &[]),
    metric("token_p50", "token at 25/s, model to chat event, p50", "ms", Lower, &[]),
    metric("token_p99", "token at 25/s, model to chat event, p99", "ms", Lower, &[]),
    metric("token_fast_p50", "token at 100/s, model to chat event, p50", "ms", Lower, &[]),
    metric("token_fast_p99", "token at 100/s, model to chat event, p99", "ms", Lower, &[]),
    metric("token_cpu", "gateway CPU per token, at 100/s", "µs", Lower, &[]),
    metric("token_http_p50", "token at 25/s over /v1/chat/completions, p50", "ms", Lower, &[]),
    metric("token_http_p99", "token at 25/s over /v1/chat/completions, p99", "ms", Lower, &[]),
    metric("crowd_turns", "200 turns at once of 40 tokens in 2 s", "1/s", Higher, &[]),
    metric("crowd_overhead_p50", "200 turns at once, the model's time left out, p50", "ms", Lower, &[]),
    metric("crowd_overhead_p99", "200 turns at once, the model's time left out, p99", "ms", Lower, &[]),
    metric("crowd_token_p50", "200 turns at once, token to chat event, p50", "ms", Lower, &[]),
    metric("crowd_token_p99", "200 turns at once, token to chat event, p99", "ms", Lower, &[]),
    metric("crowd_cpu", "200 turns at once, gateway CPU per turn", "ms", Lower, &[]),
    metric("crowd_pss", "200 turns at once, memory", "MB", Lower, &[]),
    metric("stored_hello", "exec to hello, 10 000 conversations", "ms", Lower, &[]),
    metric("stored_memory", "memory per stored conversation", "KiB", Lower, &[AtMost(1.0)]),
    metric("stored_list_p50", "sessions.list of 10 000, p50", "ms", Lower, &[]),
    metric("search_p50", "search of 100 000 messages, p50", "ms", Lower, &[]),
    metric("search_p99", "search of 100 000 messages, p99", "ms", Lower, &[]),
    metric("search_common_p50", "search for a word in four of five messages, p50", "ms", Lower, &[]),
    metric("ssh_p50", "connect through ssh -N, p50", "ms", Lower, &[]),
    metric("ssh_p90", "connect through ssh -N, p90", "ms", Lower, &[AtMost(2.5), TimesReference(20.0)]),
    metric("cli_version", "openclaw --version", "ms", Lower, &[AtMost(5.0)]),
    metric("cli_health", "openclaw health", "ms", Lower, &[AtMost(15.0)]),
    metric("cli_gateway_status", "openclaw gateway status", "ms", Lower, &[TimesReference(150.0)]),
    metric("cli_gateway_probe", "openclaw gateway probe", "ms", Lower, &[TimesReference(200.0)]),
    metric("size", "on disk", "MB", Lower, &[AtMost(12.0)]),
];

/// All values of a run.
#[derive(Default)]
pub struct Report {
    values: BTreeMap<(&'static str, Kind), Vec<f64>>,
    failures: Vec<String>,
}

impl Report {
    pub fn add(&mut self, kind: Kind, found: Values) {
        for (key, value) in found {
            self.values.entry((key, kind)).or_default().push(value);
        }
    }

    /// Takes what a measurement gave; a failed one is said and told at the end.
    pub fn take(&mut self, kind: Kind, what: &str, found: anyhow::Result<Values>) {
        match found {
            Ok(found) => self.add(kind, found),
            Err(error) => {
                let line = format!("{}: {what}: {error:#}", kind.name());
                eprintln!("{line}");
                self.failures.push(line);
            }
        }
    }

    fn of(&self, metric: &Metric, kind: Kind) -> Option<f64> {
        median(self.values.get(&(metric.key, kind))?)
    }

    /// How many times better ours is than the reference.
    fn times(&self, metric: &Metric) -> Option<f64> {
        let (ours, reference) = (self.of(metric, Kind::Ours)?, self.of(metric, Kind::Reference)?);
        let times = if metric.better == Lower { reference / ours } else { ours / reference };
        (times.is_finite() && times > 0.0).then_some(times)
    }

    fn of_echo(&self, metric: &Metric) -> Option<f64> {
        let share = self.of(metric, Kind::Ours)? / self.of(metric, Kind::Echo)?;
        (share.is_finite() && share > 0.0).then_some(share)
    }

    /// The goal in words, and whether it is reached; `None` when it could not be measured.
    fn check(&self, metric: &Metric, goal: Goal) -> (String, Option<bool>) {
        match goal {
            AtMost(most) => (format!("≤ {most} {}", metric.unit), self.of(metric, Kind::Ours).map(|v| v <= most)),
            TimesReference(times) => (format!("≥ {times}× OpenClaw"), self.times(metric).map(|found| found >= times)),
            OfEcho(share) if metric.better == Higher => {
                (format!("≥ {share} of the echo"), self.of_echo(metric).map(|found| found >= share))
            }
            OfEcho(share) => (format!("≤ {share}× the echo"), self.of_echo(metric).map(|found| found <= share)),
        }
    }

    /// Goals that were measured and missed.
    pub fn missed(&self) -> usize {
        let goals = METRICS.iter().flat_map(|metric| metric.goals.iter().map(move |goal| self.check(metric, *goal).1));
        goals.filter(|reached| *reached == Some(false)).count()
    }

    /// A Markdown table.
    pub fn table(&self) -> String {
        let mut rows =
            vec![["", "unit", "ours", "OpenClaw", "echo", "× better", "of echo", "goals"].map(str::to_owned).to_vec()];
        for metric in METRICS {
            let figures: Vec<_> = Kind::ALL.iter().map(|kind| self.of(metric, *kind)).collect();
            if figures[0].is_none() && figures[1].is_none() {
                continue;
            }
            let goals = metric.goals.iter().map(|goal| {
                let (text, reached) = self.check(metric, *goal);
                format!("{} {text}", reached.map_or("–", |reached| if reached { "✓" } else { "✗" }))
            });
            let mut row = vec![metric.title.to_owned(), metric.unit.to_owned()];
            row.extend(figures.iter().map(|figure| figure.map_or("–".to_owned(), figure_text)));
            row.push(self.times(metric).map_or("–".to_owned(), figure_text));
            row.push(self.of_echo(metric).map_or("–".to_owned(), |share| format!("{share:.2}")));
            row.push(goals.collect::<Vec<_>>().join(", "));
            rows.push(row);
        }
        let mut text = aligned(&rows, 2..7);
        for failure in &self.failures {
            text.push_str(&format!("\nnot measured: {failure}"));
        }
        text
    }

    pub fn json(&self, machine: &Machine, versions: &Value, rounds: usize) -> Value {
        let metrics: Vec<Value> = METRICS
            .iter()
            .filter(|metric| Kind::ALL.iter().any(|kind| self.values.contains_key(&(metric.key, *kind))))
            .map(|metric| {
                let mut line = json!({ "key": metric.key, "title": metric.title, "unit": metric.unit });
                for kind in Kind::ALL {
                    if let Some(rounds) = self.values.get(&(metric.key, kind)) {
                        line[kind.name()] = json!({ "median": median(rounds), "rounds": rounds });
                    }
                }
                line["timesReference"] = json!(self.times(metric));
                line["ofEcho"] = json!(self.of_echo(metric));
                let goals = metric.goals.iter().map(|goal| {
                    let (text, reached) = self.check(metric, *goal);
                    json!({ "goal": text, "reached": reached })
                });
                line["goals"] = goals.collect();
                line
            })
            .collect();
        json!({ "machine": machine, "versions": versions, "rounds": rounds, "metrics": metrics,
                "failures": self.failures })
    }
}

/// Rows, the head first, as a Markdown table; `figures` are the columns set to the right.
pub fn aligned(rows: &[Vec<String>], figures: std::ops::Range<usize>) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            text.push_str(&if figures.contains(&column) {
                format!("| {pad}{cell} ")
            } else {
                format!("| {cell}{pad} ")
            });
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if figures.contains(&column) { ":" } else { "-" };
                text.push_str(&format!("|{}{end}", "-".repeat(width + 1)));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits are more than a shared machine deserves.
pub fn figure_text(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let head = digits.len() % 3;
            let groups = digits.as_bytes().chunks(1).enumerate().map(|(at, digit)| {
                let gap = if at > 0 && at % 3 == head % 3 { "\u{202f}" } else { "" };
                format!("{gap}{}", String::from_utf8_lossy(digit))
            });
            groups.collect()
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(key: &'static str, figures: [f64; 3]) -> Report {
        let mut report = Report::default();
        for (kind, value) in Kind::ALL.into_iter().zip(figures) {
            report.add(kind, vec![(key, value)]);
        }
        report
    }

    #[test]
    fn goals_compare_the_right_way_round() {
        // health_16: at least 0.6 of the echo, at least 35 times the reference.
        assert_eq!(report("health_16", [70_000.0, 1_900.0, 100_000.0]).missed(), 0);
        assert_eq!(report("health_16", [50_000.0, 1_900.0, 100_000.0]).missed(), 2);
        // health_8x16_p99: at most twice the echo's, 40 times better than the reference.
        assert_eq!(report("health_8x16_p99", [3.9, 160.0, 2.0]).missed(), 0);
        assert_eq!(report("health_8x16_p99", [4.1, 160.0, 2.0]).missed(), 2);
        assert_eq!(report("size", [12.1, 800.0, 1.0]).missed(), 1);
    }

    #[test]
    fn medians_of_rounds_count() {
        let mut report = Report::default();
        [4.0, 100.0, 5.0].into_iter().for_each(|ms| report.add(Kind::Ours, vec![("cli_version", ms)]));
        assert_eq!(report.missed(), 0);
        assert!(report.table().contains("✓ ≤ 5 ms"), "{}", report.table());
    }

    #[test]
    fn figures() {
        for (value, text) in [(0.0741, "0.074"), (1.512, "1.51"), (46.83, "46.8"), (512.4, "512")] {
            assert_eq!(figure_text(value), text);
        }
        assert_eq!(figure_text(1_940_000.0), "1\u{202f}940\u{202f}000");
        assert_eq!(figure_text(9_650.0), "9\u{202f}650");
    }
}
