//! What was measured on each way, what is to be reached, and the table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{WAYS, Way};
use crate::{
    report::{aligned, figure_text},
    stats::median,
    subject::Kind,
};

/// The figures of a way: key, title, unit.
const METRICS: &[(&str, &str, &str)] = &[
    ("connect_p50", "connect p50", "ms"),
    ("connect_p90", "connect p90", "ms"),
    ("health_p50", "health p50", "ms"),
    ("health_p99", "health p99", "ms"),
    ("health_16", "health × 16", "1/s"),
    ("invoke_p50", "node.invoke p50", "ms"),
    ("cli", "`openclaw health`", "ms"),
    ("back", "killed → hello", "ms"),
    ("bulk", "bulk", "MB/s"),
];

type Key = (Kind, Way);

/// Something to reach: what, the figure that is judged, what it is compared with, and the factor between them.
struct Goal {
    what: &'static str,
    metric: &'static str,
    judged: Key,
    against: Against,
}

enum Against {
    /// At most this, in the metric's unit.
    AtMost(f64),
    /// At most this share of another figure.
    ShareOf(Key, f64),
    /// At least this share of another figure.
    AtLeast(Key, f64),
}
use Against::{AtLeast, AtMost, ShareOf};

const OWN: Key = (Kind::Ours, Way::Own);

const GOALS: &[Goal] = &[
    Goal {
        what: "connect through a hand-made ssh -N, p90",
        metric: "connect_p90",
        judged: (Kind::Ours, Way::SshN),
        against: ShareOf((Kind::Reference, Way::SshN), 1.0 / 20.0),
    },
    Goal {
        what: "node.invoke through our tunnel, p50, against OpenClaw behind ssh -N",
        metric: "invoke_p50",
        judged: OWN,
        against: ShareOf((Kind::Reference, Way::SshN), 1.0 / 30.0),
    },
    Goal { what: "killed tunnel to hello-ok again", metric: "back", judged: OWN, against: AtMost(205.0) },
    Goal { what: "the same, half of it", metric: "back", judged: OWN, against: AtMost(102.5) },
    Goal {
        what: "throughput against the bare tunnel",
        metric: "bulk",
        judged: (Kind::Echo, Way::Own),
        against: AtLeast((Kind::Echo, Way::Session), 0.95),
    },
    Goal {
        what: "the real CLI behind ssh -N against ours through our tunnel",
        metric: "cli",
        judged: OWN,
        against: ShareOf((Kind::Reference, Way::SshN), 1.0 / 100.0),
    },
];

/// All figures of a run.
#[derive(Default)]
pub struct Table {
    values: BTreeMap<(Key, &'static str), Vec<f64>>,
    failures: Vec<String>,
}

impl Table {
    pub fn add(&mut self, key: Key, metric: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.values.entry((key, metric)).or_default().push(value);
        }
    }

    /// Notes what could not be measured.
    pub fn failed(&mut self, what: &str, error: &anyhow::Error) {
        let line = format!("{what}: {error:#}");
        eprintln!("{line}");
        self.failures.push(line);
    }

    fn of(&self, key: Key, metric: &'static str) -> Option<f64> {
        median(self.values.get(&(key, metric))?)
    }

    /// A goal in words, and whether it is reached; `None` when it could not be measured.
    fn check(&self, goal: &Goal) -> (String, Option<bool>) {
        let judged = self.of(goal.judged, goal.metric);
        let unit = METRICS.iter().find(|(key, ..)| *key == goal.metric).map_or("", |(_, _, unit)| *unit);
        let figure =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{} {unit}", figure_text(value)));
        let (limit, reached) = match goal.against {
            AtMost(most) => (format!("≤ {} {unit}", figure_text(most)), judged.map(|value| value <= most)),
            ShareOf(key, share) => {
                let other = self.of(key, goal.metric);
                let text = format!("≤ 1/{:.0} of {}", 1.0 / share, figure(other));
                (text, judged.zip(other).map(|(value, other)| value <= share * other))
            }
            AtLeast(key, share) => {
                let other = self.of(key, goal.metric);
                (
                    format!("≥ {share} of {}", figure(other)),
                    judged.zip(other).map(|(value, other)| value >= share * other),
                )
            }
        };
        (format!("{}: {}, {limit}", goal.what, figure(judged)), reached)
    }

    /// Goals that were measured and missed.
    pub fn missed(&self) -> usize {
        GOALS.iter().filter(|goal| self.check(goal).1 == Some(false)).count()
    }

    /// A Markdown table, the goals below it.
    pub fn text(&self) -> String {
        let mut head = vec![String::new()];
        head.extend(METRICS.iter().map(|(_, title, unit)| format!("{title}, {unit}")));
        let mut rows = vec![head];
        for key in WAYS {
            let figures: Vec<_> = METRICS.iter().map(|(metric, ..)| self.of(*key, metric)).collect();
            if figures.iter().any(Option::is_some) {
                let mut row = vec![title(*key).to_owned()];
                row.extend(figures.iter().map(|figure| figure.map_or("–".to_owned(), figure_text)));
                rows.push(row);
            }
        }
        let mut text = aligned(&rows, 1..METRICS.len() + 1);
        for goal in GOALS {
            let (words, reached) = self.check(goal);
            text.push_str(&format!("\n{} {words}", reached.map_or("–", |reached| if reached { "✓" } else { "✗" })));
        }
        for failure in &self.failures {
            text.push_str(&format!("\nnot measured: {failure}"));
        }
        text
    }

    pub fn json(&self) -> Value {
        let ways: Vec<Value> = WAYS
            .iter()
            .map(|key| {
                let figures = METRICS.iter().filter_map(|(metric, ..)| {
                    let rounds = self.values.get(&(*key, *metric))?;
                    Some(((*metric).to_owned(), json!({ "median": median(rounds), "rounds": rounds })))
                });
                json!({ "way": title(*key), "figures": figures.collect::<serde_json::Map<_, _>>() })
            })
            .collect();
        let goals: Vec<Value> = GOALS
            .iter()
            .map(|goal| {
                let (words, reached) = self.check(goal);
                json!({ "goal": words, "reached": reached })
            })
            .collect();
        json!({ "ways": ways, "goals": goals, "failures": self.failures })
    }
}

const fn title(key: Key) -> &'static str {
    match key {
        (Kind::Ours, Way::Direct) => "ours, direct",
        (Kind::Ours, Way::Tls) => "ours, TLS",
        (Kind::Ours, Way::SshN) => "ours, `ssh -N`",
        (Kind::Ours, Way::Session) => "ours, ssh with a session",
        (Kind::Ours, Way::Own) => "ours, `openclaw tunnel`",
        (Kind::Reference, Way::SshN) => "OpenClaw, `ssh -N`",
        (Kind::Reference, Way::Own) => "OpenClaw, our tunnel",
        (Kind::Reference, _) => "OpenClaw, direct",
        (Kind::Echo, Way::Own) => "echo, `openclaw tunnel`",
        (Kind::Echo, _) => "echo, ssh with a session",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_compare_the_right_way_round() {
        let mut table = Table::default();
        let mut set = |key, metric, value| table.add(key, metric, Some(value));
        set(OWN, "invoke_p50", 1.5);
        set((Kind::Reference, Way::SshN), "invoke_p50", 48.0);
        set(OWN, "back", 110.0);
        set((Kind::Echo, Way::Own), "bulk", 96.0);
        set((Kind::Echo, Way::Session), "bulk", 100.0);
        // Half of ssh's own time is missed, the rest reached.
        assert_eq!(table.missed(), 1);
        let text = table.text();
        assert!(
            text.contains("✓ node.invoke through our tunnel, p50, against OpenClaw behind ssh -N: 1.50 ms, ≤ 1/30 of")
        );
        assert!(text.contains("✗ the same, half of it: 110 ms, ≤ 102 ms"), "{text}");
        assert!(text.contains("✓ throughput against the bare tunnel: 96.0 MB/s, ≥ 0.95 of 100 MB/s"), "{text}");
        assert!(text.contains("– connect through a hand-made ssh -N, p90: –, ≤ 1/20 of –"), "{text}");
        table.add((Kind::Echo, Way::Own), "bulk", Some(90.0));
        table.add((Kind::Echo, Way::Own), "bulk", Some(90.0));
        assert_eq!(table.missed(), 2);
    }
}
