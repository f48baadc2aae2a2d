//! What was used up: `sessions.usage` and `usage.cost`, from the figures that are kept with every message.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{
    Timestamp, ToSpan as _,
    civil::Date,
    tz::{Offset, TimeZone},
};
use openclaw_protocol::{
    ErrorShape,
    method::sessions::{CostSummary, DailyCost, SessionsUsageParams, UsageTotals},
};
use rusqlite::params;
use serde_json::{Value, json};

use super::{Record, SessionKey, Sessions};
use crate::store::{QUARTER_MS, StoreError};

/// Days unless told otherwise, as the reference shows.
const DEFAULT_DAYS: i32 = 30;
/// Days of one report at most: a hundred years.
const MAX_DAYS: i32 = 36_600;
/// Conversations listed by `sessions.usage`.
const DEFAULT_SESSIONS: usize = 50;
const MAX_SESSIONS: usize = 1_000;

/// Whole days in some time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    pub first: Date,
    pub last: Date,
    zone: TimeZone,
}

/// One row of the figures, with its day.
#[derive(Clone, Debug, Default)]
struct Figures {
    key: String,
    session_id: String,
    provider: String,
    model: String,
    messages: Messages,
    totals: UsageTotals,
    day: String,
    quarter: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    users: u64,
    assistants: u64,
    tool_calls: u64,
    tool_results: u64,
    errors: u64,
}

impl Messages {
    fn add(&mut self, other: Self) {
        self.users += other.users;
        self.assistants += other.assistants;
        self.tool_calls += other.tool_calls;
        self.tool_results += other.tool_results;
        self.errors += other.errors;
    }

    fn json(self) -> Value {
        json!({
            "total": self.users + self.assistants, "user": self.users, "assistant": self.assistants,
            "toolCalls": self.tool_calls, "toolResults": self.tool_results, "errors": self.errors,
        })
    }
}

fn add(to: &mut UsageTotals, other: &UsageTotals) {
    to.input += other.input;
    to.output += other.output;
    to.cache_read += other.cache_read;
    to.cache_write += other.cache_write;
    to.total_tokens += other.total_tokens;
    to.total_cost += other.total_cost;
    to.input_cost += other.input_cost;
    to.output_cost += other.output_cost;
    to.cache_read_cost += other.cache_read_cost;
    to.cache_write_cost += other.cache_write_cost;
    to.missing_cost_entries += other.missing_cost_entries;
}

/// Which days somebody asks about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub start: Option<&'a str>,
    pub end: Option<&'a str>,
    pub range: Option<&'a str>,
    pub days: Option<u64>,
    pub mode: Option<&'a str>,
    pub offset: Option<&'a str>,
    pub zone: Option<&'a str>,
}

impl<'a> From<&'a SessionsUsageParams> for Asked<'a> {
    fn from(params: &'a SessionsUsageParams) -> Self {
        Self {
            start: params.start_date.as_deref(),
            end: params.end_date.as_deref(),
            range: params.range.as_deref(),
            days: None,
            mode: params.mode.as_deref(),
            offset: params.utc_offset.as_deref(),
            zone: params.time_zone.as_deref(),
        }
    }
}

impl Period {
    /// # Errors
    /// `INVALID_REQUEST` naming what is no date, no range or no time zone.
    pub fn of(asked: Asked<'_>, now: Timestamp) -> Result<Self, ErrorShape> {
        let invalid = |text: String| ErrorShape::invalid(text);
        let zone = match (asked.mode, asked.zone, asked.offset) {
            (Some("utc"), _, _) => TimeZone::UTC,
            (Some("specific") | None, Some(name), _) => {
                TimeZone::get(name).map_err(|_| invalid(format!("timeZone {name:?} is not known")))?
            }
            (Some("specific") | None, None, Some(offset)) => {
                zone_of(offset).ok_or_else(|| invalid(format!("utcOffset {offset:?} must be like UTC+5:30")))?
            }
            (Some("specific" | "gateway") | None, ..) => TimeZone::system(),
            (Some(mode), ..) => return Err(invalid(format!("mode must be utc, gateway or specific; got {mode:?}"))),
        };
        let today = now.to_zoned(zone.clone()).date();
        let date = |field: &str, text: Option<&str>| {
            let parsed = text.map(|text| text.parse::<Date>());
            parsed.transpose().map_err(|_| invalid(format!("{field} must be a date like 2026-11-21")))
        };
        let days = match asked.range {
            None => i32::try_from(asked.days.unwrap_or(DEFAULT_DAYS as u64)).unwrap_or(MAX_DAYS).clamp(1, MAX_DAYS),
            Some("7d") => 7,
            Some("30d") => 30,
            Some("90d") => 90,
            Some("1y") => 365,
            Some("all") => MAX_DAYS,
            Some(other) => return Err(invalid(format!("range must be 7d, 30d, 90d, 1y or all; got {other:?}"))),
        };
        let last = date("endDate", asked.end)?.unwrap_or(today);
        let first = match date("startDate", asked.start)? {
            Some(first) => first,
            None => last.checked_sub((days - 1).days()).unwrap_or(Date::MIN),
        };
        if first > last {
            return Err(invalid(format!("startDate {first} is after endDate {last}")));
        }
        Ok(Self { first, last, zone })
    }

    /// Milliseconds: from, and before.
    fn bounds(&self) -> (i64, i64) {
        let start = |date: Date| {
            let zoned = date.to_zoned(self.zone.clone());
            zoned.map(|zoned| zoned.timestamp().as_millisecond())
        };
        let from = start(self.first).unwrap_or(i64::MIN);
        let until = self.last.tomorrow().and_then(start).unwrap_or(i64::MAX);
        (from, until)
    }

    fn day(&self, quarter: i64) -> String {
        let at = Timestamp::from_millisecond(quarter.saturating_mul(QUARTER_MS)).unwrap_or_default();
        at.to_zoned(self.zone.clone()).date().to_string()
    }

    fn days(&self) -> u64 {
        self.first.until(self.last).map_or(1, |span| u64::from(span.get_days().unsigned_abs()) + 1)
    }
}

/// `UTC+5:30`
fn zone_of(text: &str) -> Option<TimeZone> {
    let rest = text.strip_prefix("UTC")?;
    let (sign, rest) = match rest.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..=14).contains(&hours) && (0..60).contains(&minutes))
        .then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok())?
        .map(TimeZone::fixed)
}

struct Read {
    rows: Vec<Figures>,
    /// (key, tool, calls)
    tools: Vec<(String, String, u64)>,
}

impl Sessions {
    async fn figures(&self, period: &Period, key: Option<SessionKey>, agent: Option<&str>) -> Result<Read, StoreError> {
        let period = period.clone();
        let (from, until) = period.bounds();
        let (from, until) = (from.div_euclid(QUARTER_MS), until.div_euclid(QUARTER_MS));
        let key = key.map(String::from);
        let prefix = agent.map(|agent| format!("agent:{agent}:"));
        self.shared
            .reader
            .read(move |db| {
                let wanted = "quarter >= ?1 AND quarter < ?2 AND (?3 IS NULL OR session_key = ?3)
                     AND (?4 IS NULL OR substr(session_key, 1, length(?4)) = ?4)";
                let mut statement = db.prepare_cached(&format!("SELECT * FROM usage WHERE {wanted}"))?;
                let rows = statement.query_and_then(params![from, until, key, prefix], |row| figures(row, &period))?;
                let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                let mut statement = db.prepare_cached(&format!(
                    "SELECT session_key, tool, sum(calls) FROM usage_tool WHERE {wanted} GROUP BY session_key, tool"
                ))?;
                let tools = statement.query_and_then(params![from, until, key, prefix], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs()))
                })?;
                Ok(Read { rows, tools: tools.collect::<rusqlite::Result<_>>()? })
            })
            .await
    }

    /// `usage.cost`
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cost(&self, period: &Period, agent: Option<&str>, now_ms: i64) -> Result<CostSummary, StoreError> {
        let read = self.figures(period, None, agent).await?;
        let mut daily: BTreeMap<String, UsageTotals> = BTreeMap::new();
        let mut totals = UsageTotals::default();
        for row in &read.rows {
            add(daily.entry(row.day.clone()).or_default(), &row.totals);
            add(&mut totals, &row.totals);
        }
        let daily = daily.into_iter().map(|(date, totals)| DailyCost { date, totals }).collect();
        Ok(CostSummary { updated_at: now_ms, days: period.days(), daily, totals })
    }

    /// `sessions.usage`
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn usage(
        &self,
        period: &Period,
        key: Option<SessionKey>,
        agent: Option<&str>,
        limit: Option<u64>,
        now_ms: i64,
    ) -> Result<Value, StoreError> {
        let read = self.figures(period, key.clone(), agent).await?;
        let mut report = Report::default();
        read.rows.iter().for_each(|row| report.row(row));
        read.tools.iter().for_each(|(key, tool, calls)| report.tool(key, tool, *calls));
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_SESSIONS).min(MAX_SESSIONS);
        let mut records = self.all();
        records.retain(|record| {
            key.as_ref().is_none_or(|key| record.key == *key) && agent.is_none_or(|agent| record.key.agent() == agent)
        });
        records.sort_unstable_by(|a, b| b.updated_ms.cmp(&a.updated_ms).then_with(|| a.key.cmp(&b.key)));
        records.truncate(limit);
        let sessions: Vec<_> = records.iter().map(|record| report.session(record)).collect();
        Ok(json!({
            "updatedAt": now_ms,
            "startDate": period.first.to_string(),
            "endDate": period.last.to_string(),
            "sessions": sessions,
            "totals": report.all.totals,
            "aggregates": report.aggregates(&self.all()),
            "creatorOptions": [{"key": CREATOR}],
            "cacheStatus": {"status": "fresh", "cachedFiles": 0, "pendingFiles": 0, "staleFiles": 0},
        }))
    }
}

/// How the reference writes "nobody in particular".
const CREATOR: &str = "[\"unknown\"]";

fn figures(row: &rusqlite::Row<'_>, period: &Period) -> rusqlite::Result<Figures> {
    let count = |name: &str| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(name)?.unsigned_abs()) };
    let cost = |name: &str| -> rusqlite::Result<f64> { row.get(name) };
    let quarter = row.get("quarter")?;
    let (input, output) = (count("input")?, count("output")?);
    let (cache_read, cache_write) = (count("cache_read")?, count("cache_write")?);
    let costs = [cost("cost_input")?, cost("cost_output")?, cost("cost_cache_read")?, cost("cost_cache_write")?];
    Ok(Figures {
        key: row.get("session_key")?,
        session_id: row.get("session_id")?,
        provider: row.get("provider")?,
        model: row.get("model")?,
        messages: Messages {
            users: count("users")?,
            assistants: count("assistants")?,
            tool_calls: count("tool_calls")?,
            tool_results: count("tool_results")?,
            errors: count("errors")?,
        },
        totals: UsageTotals {
            input,
            output,
            cache_read,
            cache_write,
            total_tokens: input + output + cache_read + cache_write,
            total_cost: costs.iter().sum(),
            input_cost: costs[0],
            output_cost: costs[1],
            cache_read_cost: costs[2],
            cache_write_cost: costs[3],
            missing_cost_entries: count("unpriced")?,
        },
        day: period.day(quarter),
        quarter,
    })
}

#[derive(Default)]
struct Sum {
    messages: Messages,
    totals: UsageTotals,
    tools: BTreeMap<String, u64>,
    daily: BTreeMap<String, (Messages, UsageTotals)>,
    /// (provider, model); the count is of answers.
    models: BTreeMap<(String, String), (u64, UsageTotals)>,
    first: Option<i64>,
    last: Option<i64>,
}

impl Sum {
    fn row(&mut self, row: &Figures) {
        self.messages.add(row.messages);
        add(&mut self.totals, &row.totals);
        let day = self.daily.entry(row.day.clone()).or_default();
        day.0.add(row.messages);
        add(&mut day.1, &row.totals);
        if !row.model.is_empty() {
            let model = self.models.entry((row.provider.clone(), row.model.clone())).or_default();
            model.0 += row.messages.assistants;
            add(&mut model.1, &row.totals);
        }
        let at = row.quarter * QUARTER_MS;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
    }

    fn tools(&self) -> Value {
        let mut tools: Vec<_> = self.tools.iter().collect();
        tools.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        json!({
            "totalCalls": tools.iter().map(|(_, count)| **count).sum::<u64>(),
            "uniqueTools": tools.len(),
            "tools": tools.iter().map(|(name, count)| json!({"name": name, "count": count})).collect::<Vec<_>>(),
        })
    }

    fn models(&self) -> Vec<Value> {
        let models = self.models.iter().map(|((provider, model), (count, totals))| {
            json!({"provider": provider, "model": model, "count": count, "totals": totals})
        });
        models.collect()
    }
}

#[derive(Default)]
struct Report {
    all: Sum,
    by_key: BTreeMap<String, Sum>,
    /// (day, provider, model): answers and totals.
    model_daily: BTreeMap<(String, String, String), (u64, UsageTotals)>,
    ids: BTreeSet<String>,
}

impl Report {
    fn row(&mut self, row: &Figures) {
        self.all.row(row);
        self.by_key.entry(row.key.clone()).or_default().row(row);
        self.ids.insert(row.session_id.clone());
        if !row.model.is_empty() {
            let day = (row.day.clone(), row.provider.clone(), row.model.clone());
            let of_day = self.model_daily.entry(day).or_default();
            of_day.0 += row.messages.assistants;
            add(&mut of_day.1, &row.totals);
        }
    }

    fn tool(&mut self, key: &str, tool: &str, calls: u64) {
        *self.all.tools.entry(tool.to_owned()).or_default() += calls;
        *self.by_key.entry(key.to_owned()).or_default().tools.entry(tool.to_owned()).or_default() += calls;
    }

    fn session(&self, record: &Record) -> Value {
        let mut row = json!({
            "key": record.key.as_str(), "sessionId": record.session_id.as_str(), "scope": "instance",
            "updatedAt": record.updated_ms, "agentId": record.key.agent(), "creatorKey": CREATOR,
            "usage": self.by_key.get(record.key.as_str()).map(|sum| usage_of(record, sum)), "hasContextWeight": false,
        });
        if let Some(label) = &record.settings.label {
            row["label"] = label.as_str().into();
        }
        if let Some(place) = &record.place {
            row["channel"] = place.address.channel.as_str().into();
            row["chatType"] = json!(place.kind);
        }
        let run = record.last_run.as_ref();
        if let Some((provider, model)) = run.and_then(|run| run.provider.as_deref().zip(run.model.as_deref())) {
            row["modelProvider"] = provider.into();
            row["model"] = model.into();
        }
        row
    }

    fn aggregates(&self, records: &[std::sync::Arc<Record>]) -> Value {
        let mut providers: BTreeMap<&str, (u64, UsageTotals)> = BTreeMap::new();
        for ((provider, _), (count, totals)) in &self.all.models {
            let sum = providers.entry(provider).or_default();
            sum.0 += count;
            add(&mut sum.1, totals);
        }
        let (mut agents, mut channels) = (BTreeMap::<&str, UsageTotals>::new(), BTreeMap::<&str, UsageTotals>::new());
        for (key, sum) in &self.by_key {
            let agent = key.split(':').nth(1).unwrap_or_default();
            add(agents.entry(agent).or_default(), &sum.totals);
            let record = records.iter().find(|record| record.key.as_str() == key);
            if let Some(place) = record.and_then(|record| record.place.as_deref()) {
                add(channels.entry(&place.address.channel).or_default(), &sum.totals);
            }
        }
        let daily = self.all.daily.iter().map(|(date, (messages, totals))| {
            json!({"date": date, "tokens": totals.total_tokens, "cost": totals.total_cost,
                "messages": messages.users + messages.assistants, "toolCalls": messages.tool_calls,
                "errors": messages.errors})
        });
        let costs = self.all.daily.iter();
        let costs = costs.map(|(date, (_, totals))| DailyCost { date: date.clone(), totals: *totals });
        let model_daily = self.model_daily.iter().map(|((date, provider, model), (count, totals))| {
            json!({"date": date, "provider": provider, "model": model, "tokens": totals.total_tokens,
                "cost": totals.total_cost, "count": count})
        });
        json!({
            "sessionCount": self.ids.len(),
            "messages": self.all.messages.json(),
            "tools": self.all.tools(),
            "byModel": self.all.models(),
            "byProvider": providers.iter().map(|(provider, (count, totals))|
                json!({"provider": provider, "count": count, "totals": totals})).collect::<Vec<_>>(),
            "byAgent": agents.iter().map(|(agent, totals)|
                json!({"agentId": agent, "totals": totals})).collect::<Vec<_>>(),
            "byChannel": channels.iter().map(|(channel, totals)|
                json!({"channel": channel, "totals": totals})).collect::<Vec<_>>(),
            "byCreator": [],
            "costDaily": costs.collect::<Vec<_>>(),
            "dailyLatency": [],
            "modelDaily": model_daily.collect::<Vec<_>>(),
            "daily": daily.collect::<Vec<_>>(),
        })
    }
}

fn usage_of(record: &Record, sum: &Sum) -> Value {
    let mut usage = serde_json::to_value(sum.totals).unwrap_or_default();
    let daily = sum
        .daily
        .iter()
        .map(|(date, (_, totals))| json!({"date": date, "tokens": totals.total_tokens, "cost": totals.total_cost}));
    usage["sessionId"] = record.session_id.as_str().into();
    usage["firstActivity"] = json!(sum.first);
    usage["lastActivity"] = json!(sum.last);
    usage["durationMs"] = json!(sum.first.zip(sum.last).map(|(first, last)| last - first));
    usage["activityDates"] = json!(sum.daily.keys().collect::<Vec<_>>());
    usage["dailyBreakdown"] = daily.collect();
    usage["messageCounts"] = sum.messages.json();
    usage["toolUsage"] = sum.tools();
    usage["modelUsage"] = sum.models().into();
    usage
}
